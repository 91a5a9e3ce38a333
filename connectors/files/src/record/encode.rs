//! Values back to bytes: the canonical form of each, with preferred signs.

use super::decode::{Decoder, Reader, Step};
use super::number::{Overpunch, SignAt};
use super::{FieldFault, RecordFault};
use crate::row::RowBuffer;

impl Decoder {
    /// Appends the record of these values. Layouts with tables or variants, national characters and floats have no way back: an error
    /// names the first. Bytes that no field covers become spaces: compile with `filler` to keep them.
    pub fn encode(&self, row: &RowBuffer, out: &mut Vec<u8>) -> Result<(), RecordFault> {
        let start = out.len();
        out.resize(start + self.length, self.space);
        for (column, node) in self.nodes.iter().enumerate() {
            let fault = |message: String| RecordFault::Field {
                field: node.field.name.clone(),
                at: node.offset,
                fault: FieldFault::new(message),
            };
            let Step::Field { length, reader } = &node.step else {
                return Err(fault("a table is not written back".into()));
            };
            if !node.guards.is_empty() {
                return Err(fault("a variant is not written back".into()));
            }
            let text = row.get(column).ok_or_else(|| fault("null has no bytes".into()))?;
            let text = std::str::from_utf8(text).map_err(|_| fault("the text is not UTF-8".into()))?;
            let field = &mut out[start + node.offset..][..*length];
            write(reader, text, field).map_err(fault)?;
        }
        Ok(())
    }
}

fn write(reader: &Reader, text: &str, field: &mut [u8]) -> Result<(), String> {
    match *reader {
        Reader::Text { charset, .. } => {
            let mut bytes = Vec::with_capacity(field.len());
            charset.encode(text, &mut bytes).map_err(|char| format!("its charset has no {char:?}"))?;
            if bytes.len() > field.len() {
                return Err(format!("{} bytes do not fit {}", bytes.len(), field.len()));
            }
            field.fill(charset.space());
            field[..bytes.len()].copy_from_slice(&bytes);
            Ok(())
        }
        Reader::Zoned { sign, scale, ebcdic, overpunch, .. } => {
            let separate = usize::from(matches!(sign, SignAt::Separate { .. }));
            let (negative, digits) = digits(text, scale, field.len() - separate)?;
            zoned(negative, &digits, sign, ebcdic, overpunch, field)
        }
        Reader::Packed { digits: count, scale, .. } => {
            let (negative, mut digits) = digits(text, scale, usize::from(count))?;
            if count % 2 == 0 {
                digits.insert(0, 0);
            }
            // Unsigned fields hold F; both are plus to a program that reads them.
            digits.push(if negative { 0xd } else { 0xc });
            digits.chunks_exact(2).zip(field).for_each(|(pair, byte)| *byte = pair[0] << 4 | pair[1]);
            Ok(())
        }
        Reader::Binary { signed, scale, little_endian } => {
            let (negative, digits) = digits(text, scale, 20)?;
            let magnitude = digits.iter().fold(0i128, |value, digit| value * 10 + i128::from(*digit));
            let value = if negative { -magnitude } else { magnitude };
            let bits = 8 * field.len() as u32;
            let range = if signed { -(1i128 << (bits - 1))..1i128 << (bits - 1) } else { 0..1i128 << bits };
            if !range.contains(&value) {
                return Err(format!("{value} does not fit {} bytes", field.len()));
            }
            let bytes = value.to_be_bytes();
            field.copy_from_slice(&bytes[16 - field.len()..]);
            if little_endian {
                field.reverse();
            }
            Ok(())
        }
        Reader::Utf16 { .. } | Reader::Float { .. } => {
            Err("national characters and floats are not written back".into())
        }
    }
}

/// The sign, and exactly `count` digits.
fn digits(text: &str, scale: i16, count: usize) -> Result<(bool, Vec<u8>), String> {
    let (negative, text) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let mut all: Vec<u8> = whole.bytes().chain(fraction.bytes()).collect();
    if all.iter().any(|byte| !byte.is_ascii_digit()) || fraction.len() != scale.max(0) as usize {
        return Err(format!("{text} is no number with {} digits after the point", scale.max(0)));
    }
    all.iter_mut().for_each(|byte| *byte -= b'0');
    if scale < 0 {
        let kept = all.len().saturating_sub(usize::from(scale.unsigned_abs()));
        if all[kept..].iter().any(|digit| *digit != 0) {
            return Err(format!("{text} has digits below its scale"));
        }
        all.truncate(kept);
    }
    let lead = all.iter().take_while(|digit| **digit == 0).count();
    let significant = &all[lead..];
    match count.checked_sub(significant.len()) {
        Some(zeros) => Ok((negative, std::iter::repeat_n(0, zeros).chain(significant.iter().copied()).collect())),
        None => Err(format!("{text} has more than {count} digits")),
    }
}

fn zoned(
    negative: bool,
    digits: &[u8],
    sign: SignAt,
    ebcdic: bool,
    overpunch: Overpunch,
    field: &mut [u8],
) -> Result<(), String> {
    let zone = if ebcdic { 0xf0 } else { 0x30 };
    if negative && sign == SignAt::None {
        return Err("the field has no sign".into());
    }
    let (body, signed) = match sign {
        SignAt::None => (field, None),
        SignAt::Overpunched { leading } => {
            let at = if leading { 0 } else { digits.len() - 1 };
            (field, Some(at))
        }
        SignAt::Separate { leading } => {
            let byte = match (negative, ebcdic) {
                (false, true) => 0x4e,
                (true, true) => 0x60,
                (false, false) => b'+',
                (true, false) => b'-',
            };
            let (at, body) = if leading { (0, 1..field.len()) } else { (field.len() - 1, 0..field.len() - 1) };
            field[at] = byte;
            (&mut field[body], None)
        }
    };
    for (index, (digit, byte)) in digits.iter().zip(body).enumerate() {
        *byte = if signed == Some(index) { punch(*digit, negative, ebcdic, overpunch) } else { zone + digit };
    }
    Ok(())
}

fn punch(digit: u8, negative: bool, ebcdic: bool, overpunch: Overpunch) -> u8 {
    match (ebcdic, overpunch, negative, digit) {
        (true, _, false, _) => 0xc0 + digit,
        (true, _, true, _) => 0xd0 + digit,
        (false, Overpunch::Native, false, _) => b'0' + digit,
        (false, Overpunch::Native, true, _) => b'p' + digit,
        (false, Overpunch::Translated, false, 0) => b'{',
        (false, Overpunch::Translated, true, 0) => b'}',
        (false, Overpunch::Translated, false, _) => b'A' + digit - 1,
        (false, Overpunch::Translated, true, _) => b'J' + digit - 1,
    }
}
