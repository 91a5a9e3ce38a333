//! Trust before events: a file is read as a whole before the first of its changes goes out.

use std::collections::HashSet;

use ring::digest;

use crate::config::{BadRecords, Part, TrailerConfig};
use crate::format::{Next, Reader, Trailer};
use crate::row::RowBuffer;
use crate::table::{Shape, Table};

/// Keys of one file that are kept in memory.
const KEYS_MAX: usize = 10_000_000;

/// The file's records, or why it is refused.
pub(crate) fn inspect(
    table: &Table,
    shape: &Shape,
    reader: &mut dyn Reader,
    stopped: &dyn Fn() -> bool,
) -> Result<u64, String> {
    let checks = &table.config.checks;
    let mut sums = vec![Sum::default(); shape.sums.len()];
    let mut keys = HashSet::new();
    let mut trailer = None;
    let (mut records, mut good) = (0u64, 0u64);
    let mut row = RowBuffer::default();
    loop {
        row.clear();
        let next = reader.next(&mut row).map_err(|fault| fault.to_string())?;
        let reason = match next {
            Next::End => break,
            _ if trailer.is_some() => return Err("after the trailer there are more records".into()),
            Next::Trailer(found) => {
                trailer = Some(found);
                continue;
            }
            Next::Record => shape.op(&row).err(),
            Next::Bad { reason, .. } => Some(reason),
        };
        records += 1;
        if records.is_multiple_of(1024) && stopped() {
            return Err("stopped".into());
        }
        if let Some(reason) = reason {
            match table.config.bad_records {
                BadRecords::Deliver => continue,
                BadRecords::RefuseFile => {
                    return Err(format!("record {records}, which ends at byte {}: {reason}", reader.offset()));
                }
            }
        }
        good += 1;
        for (sum, (name, field)) in sums.iter_mut().zip(&shape.sums) {
            let text = row.get(*field).unwrap_or(b"0");
            sum.add(text).ok_or_else(|| format!("record {records}: {name} cannot be summed"))?;
        }
        if checks.unique_key && !keys.insert(fingerprint(shape, &row)) {
            return Err(format!("record {records} has the key of an earlier one"));
        }
        if keys.len() > KEYS_MAX {
            return Err(format!("it has more than {KEYS_MAX} records, too many for `unique_key`"));
        }
    }
    if good < checks.records_min {
        return Err(format!("it has {good} records, expected at least {} (`records_min`)", checks.records_min));
    }
    if let Some(config) = &checks.trailer {
        let Some(trailer) = &trailer else {
            return Err(format!(
                "there is no trailer, a record that begins with {:?}: the file may not be whole",
                config.starts_with
            ));
        };
        compare(config, trailer, records, &sums, shape)?;
    }
    Ok(records)
}

fn compare(config: &TrailerConfig, trailer: &Trailer, records: u64, sums: &[Sum], shape: &Shape) -> Result<(), String> {
    if let Some(part) = &config.count {
        let stated = part.value(trailer)?;
        let mut counted = Sum::default();
        counted.add(records.to_string().as_bytes());
        if !stated.equals(&counted) {
            return Err(format!("the trailer says {stated} records, and there are {records}"));
        }
    }
    for (sum, (name, _)) in sums.iter().zip(&shape.sums) {
        let stated = config.sums[name].value(trailer)?;
        if !stated.equals(sum) {
            return Err(format!("the trailer says that {name} sums to {stated}, and it sums to {sum}"));
        }
    }
    Ok(())
}

impl Part {
    fn value(&self, trailer: &Trailer) -> Result<Sum, String> {
        let text = match (trailer, self.length) {
            (Trailer::Fields(fields), _) => fields.get(self.at - 1).map(|field| field.trim().as_bytes()),
            (Trailer::Text(text), length) => {
                text.get(self.at - 1..self.at - 1 + length.unwrap_or(0)).map(|part| part.trim_ascii())
            }
        };
        let mut sum = Sum::default();
        let added = text.filter(|text| !text.is_empty()).and_then(|text| sum.add(text));
        added.ok_or_else(|| format!("the trailer has no number at {}", self.at))?;
        sum.scale += self.scale;
        Ok(sum)
    }
}

/// An exact sum: a whole number, and how many of its digits stand after the point.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Sum {
    value: i128,
    scale: u32,
}

impl Sum {
    /// `None` where it is no decimal, or the sum has more than 38 digits.
    fn add(&mut self, text: &[u8]) -> Option<()> {
        let text = std::str::from_utf8(text).ok()?;
        let (negative, body) =
            text.strip_prefix('-').map_or((false, text.strip_prefix('+').unwrap_or(text)), |rest| (true, rest));
        let (whole, fraction) = body.split_once('.').unwrap_or((body, ""));
        let digits = [whole, fraction].concat();
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let magnitude: i128 = digits.parse().ok()?;
        let other = Sum { value: if negative { -magnitude } else { magnitude }, scale: fraction.len() as u32 };
        let (a, b) = self.aligned(&other)?;
        *self = Sum { value: a.checked_add(b)?, scale: self.scale.max(other.scale) };
        Some(())
    }

    fn aligned(&self, other: &Sum) -> Option<(i128, i128)> {
        let scale = self.scale.max(other.scale);
        let raised = |sum: &Sum| sum.value.checked_mul(10i128.checked_pow(scale - sum.scale)?);
        Some((raised(self)?, raised(other)?))
    }

    fn equals(&self, other: &Sum) -> bool {
        self.aligned(other).is_some_and(|(a, b)| a == b)
    }
}

impl std::fmt::Display for Sum {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let digits = format!("{:0width$}", self.value.unsigned_abs(), width = self.scale as usize + 1);
        let (whole, fraction) = digits.split_at(digits.len() - self.scale as usize);
        let point = if fraction.is_empty() { "" } else { "." };
        write!(f, "{}{whole}{point}{fraction}", if self.value < 0 { "-" } else { "" })
    }
}

/// 128 bits of the key's SHA-256: different keys have different ones.
fn fingerprint(shape: &Shape, row: &RowBuffer) -> u128 {
    let mut context = digest::Context::new(&digest::SHA256);
    for field in &shape.key {
        let value = row.get(*field).unwrap_or_default();
        context.update(&(value.len() as u64).to_be_bytes());
        context.update(value);
    }
    let digest = context.finish();
    digest.as_ref()[..16].iter().fold(0, |bits, byte| bits << 8 | u128::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_exact() {
        let mut sum = Sum::default();
        for text in ["0.1", "0.20", "-1", "99999999999999999999999999999999.999"] {
            sum.add(text.as_bytes()).unwrap();
        }
        assert_eq!(sum.to_string(), "99999999999999999999999999999999.299");
        assert!(Sum { value: 120, scale: 2 }.equals(&Sum { value: 12, scale: 1 }));
        assert_eq!(Sum { value: -5, scale: 2 }.to_string(), "-0.05");
        for text in ["", "-", "1e3", "1 2", ".", "9999999999999999999999999999999999999999"] {
            assert_eq!(Sum::default().add(text.as_bytes()), None, "{text}");
        }
    }
}
