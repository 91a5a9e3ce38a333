//! From the text that PostgreSQL writes for a value to the bytes that [`Kind`](towpath_contract::Kind) fixes.
//!
//! The text is that of a session with `DateStyle=ISO`, `IntervalStyle=iso_8601`, `TimeZone=UTC`, `extra_float_digits=3`
//! and `bytea_output=hex` (the manual's chapter "Data Types" gives the forms). The stream and the snapshots both come
//! through here, so that a row has the same bytes whichever way it came.

mod array;

use std::fmt;

pub(crate) use array::{ArrayPlan, Element};

/// How a type's text becomes canonical. Found once per type by [`crate::types::TypeCatalog`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Plan {
    /// The text is canonical already: copy it, or do not touch it at all.
    AsIs,
    /// `t` and `f`.
    Bool,
    /// Hexadecimal or the old escape form.
    Bytes,
    /// A `T` between date and time.
    Timestamp,
    /// The same, and `Z` for the offset.
    TimestampTz,
    /// An offset with minutes, or `Z`.
    TimeTz,
    /// JSON.
    Array(Box<ArrayPlan>),
}

/// The text is not of the form that its type writes: a damaged message, or a session with other settings. Carries no
/// row data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed {
    /// What was expected instead.
    pub(crate) expected: &'static str,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the text of a value is malformed: expected {}", self.expected)
    }
}

fn expected<T>(expected: &'static str) -> Result<T, Malformed> {
    Err(Malformed { expected })
}

/// Appends the canonical form of `text` to `out`. On an error `out` may hold a part of it: truncate it.
pub(crate) fn canonical(plan: &Plan, text: &[u8], out: &mut Vec<u8>) -> Result<(), Malformed> {
    match plan {
        Plan::AsIs => out.extend_from_slice(text),
        Plan::Bool => out.extend_from_slice(bool_name(text)?.as_bytes()),
        Plan::Bytes => bytes(text, out)?,
        Plan::Timestamp => timestamp(text, out)?,
        Plan::TimestampTz => timestamp_tz(text, out)?,
        Plan::TimeTz => time_tz(text, out)?,
        Plan::Array(plan) => array::canonical(plan, text, out)?,
    }
    Ok(())
}

fn bool_name(text: &[u8]) -> Result<&'static str, Malformed> {
    match text {
        b"t" => Ok("true"),
        b"f" => Ok("false"),
        _ => expected("t or f"),
    }
}

fn bytes(text: &[u8], out: &mut Vec<u8>) -> Result<(), Malformed> {
    match text.strip_prefix(b"\\x") {
        Some(digits) => hexadecimal(digits, out),
        None => escaped(text, out),
    }
}

fn hexadecimal(digits: &[u8], out: &mut Vec<u8>) -> Result<(), Malformed> {
    const WRONG: &str = "pairs of hexadecimal digits";
    let (pairs, rest) = digits.as_chunks::<2>();
    if !rest.is_empty() {
        return expected(WRONG);
    }
    out.reserve(pairs.len());
    for [high, low] in pairs {
        let (high, low) = (HEX_DIGITS[*high as usize], HEX_DIGITS[*low as usize]);
        // Only the mark for "no digit" has a bit above the lowest four.
        if (high | low) & 0xf0 != 0 {
            return expected(WRONG);
        }
        out.push(high << 4 | low);
    }
    Ok(())
}

const HEX_DIGITS: [u8; 256] = {
    let mut digits = [0xff; 256];
    let mut value = 0;
    while value < 16 {
        digits[b"0123456789abcdef"[value] as usize] = value as u8;
        digits[b"0123456789ABCDEF"[value] as usize] = value as u8;
        value += 1;
    }
    digits
};

/// `bytea_output = escape`: `\\` for a backslash, `\ooo` for what cannot be printed.
fn escaped(mut text: &[u8], out: &mut Vec<u8>) -> Result<(), Malformed> {
    while let Some(at) = memchr::memchr(b'\\', text) {
        out.extend_from_slice(&text[..at]);
        text = match &text[at + 1..] {
            [b'\\', rest @ ..] => {
                out.push(b'\\');
                rest
            }
            [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', rest @ ..] => {
                out.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
                rest
            }
            _ => return expected("two backslashes or a backslash and three octal digits"),
        };
    }
    out.extend_from_slice(text);
    Ok(())
}

/// `2024-01-02 03:04:05.1` and no more: four digits of the year, no era.
fn is_common_timestamp(text: &[u8]) -> bool {
    text.len() >= 19 && text[10] == b' ' && is_date(&text[..10]) && is_time(&text[11..])
}

fn is_date(text: &[u8]) -> bool {
    matches!(text, [a, b, c, d, b'-', e, f, b'-', g, h] if [a, b, c, d, e, f, g, h].iter().all(|x| x.is_ascii_digit()))
}

/// `03:04:05`, with a fraction or without.
fn is_time(text: &[u8]) -> bool {
    let Some((whole, fraction)) = text.split_at_checked(8) else { return false };
    let whole_ok =
        matches!(whole, [a, b, b':', c, d, b':', e, f] if [a, b, c, d, e, f].iter().all(|x| x.is_ascii_digit()));
    whole_ok
        && match fraction {
            [] => true,
            [b'.', digits @ ..] => (1..=6).contains(&digits.len()) && digits.iter().all(u8::is_ascii_digit),
            _ => false,
        }
}

/// What the common form cannot say: `infinity`, years after 9999 and before Christ. It stays the source's own text.
fn is_uncommon_timestamp(text: &[u8], zone: &[u8]) -> bool {
    if matches!(text, b"infinity" | b"-infinity") {
        return true;
    }
    let (text, common_era) = match text.strip_suffix(b" BC") {
        Some(text) => (text, false),
        None => (text, true),
    };
    let Some(text) = text.strip_suffix(zone) else { return false };
    let Some(year) = memchr::memchr(b'-', text).filter(|digits| (4..=6).contains(digits)) else { return false };
    // The last four digits of the year make it common; what stands before them must be digits too.
    text[..year].iter().all(u8::is_ascii_digit) && is_common_timestamp(&text[year - 4..]) && !(common_era && year == 4)
}

fn timestamp(text: &[u8], out: &mut Vec<u8>) -> Result<(), Malformed> {
    if is_common_timestamp(text) {
        push_with_t(text, out);
    } else if is_uncommon_timestamp(text, b"") {
        out.extend_from_slice(text);
    } else {
        return expected("an ISO timestamp");
    }
    Ok(())
}

fn timestamp_tz(text: &[u8], out: &mut Vec<u8>) -> Result<(), Malformed> {
    match text.strip_suffix(b"+00") {
        Some(local) if is_common_timestamp(local) => {
            push_with_t(local, out);
            out.push(b'Z');
        }
        _ if is_uncommon_timestamp(text, b"+00") => out.extend_from_slice(text),
        _ => return expected("an ISO timestamp in UTC"),
    }
    Ok(())
}

fn push_with_t(text: &[u8], out: &mut Vec<u8>) {
    let at = out.len() + 10;
    out.extend_from_slice(text);
    out[at] = b'T';
}

/// PostgreSQL writes an offset as short as it can: `+02`, `+05:30`, `+01:02:03`. The last has no other form.
fn time_tz(text: &[u8], out: &mut Vec<u8>) -> Result<(), Malformed> {
    const WRONG: &str = "an ISO time with an offset";
    let Some(sign) = text.iter().rposition(|byte| matches!(byte, b'+' | b'-')) else { return expected(WRONG) };
    let (time, offset) = text.split_at(sign);
    let digits = |pair: &[u8]| pair.len() == 2 && pair.iter().all(u8::is_ascii_digit);
    if !is_time(time) || !offset[1..].split(|byte| *byte == b':').all(digits) || offset.len() > 9 {
        return expected(WRONG);
    }
    out.extend_from_slice(time);
    match offset {
        b"+00" => out.push(b'Z'),
        _ => {
            out.extend_from_slice(offset);
            if offset.len() == 3 {
                out.extend_from_slice(b":00");
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    pub(super) fn converted(plan: &Plan, text: &[u8]) -> Result<String, Malformed> {
        let mut out = b"kept ".to_vec();
        canonical(plan, text, &mut out)?;
        let out = out.strip_prefix(b"kept ").expect("what was there before stays");
        Ok(String::from_utf8(out.to_vec()).unwrap())
    }

    fn check(plan: Plan, cases: &[(&str, &str)], malformed: &[&str]) {
        for (text, canonical) in cases {
            assert_eq!(converted(&plan, text.as_bytes()).as_deref(), Ok(*canonical), "{text:?}");
        }
        for text in malformed {
            assert!(converted(&plan, text.as_bytes()).is_err(), "{text:?}");
        }
    }

    #[test]
    fn booleans() {
        check(Plan::Bool, &[("t", "true"), ("f", "false")], &["", "true", "T", "1"]);
    }

    #[test]
    fn bytes_in_both_forms() {
        check(
            Plan::Bytes,
            &[("\\x", ""), ("\\x6869", "hi"), ("\\x4A4b", "JK"), ("", ""), ("a\\\\b\\001", "a\\b\u{1}")],
            &["\\x6", "\\x6g", "\\", "\\12", "\\400", "a\\q"],
        );
    }

    #[test]
    fn timestamps() {
        check(
            Plan::Timestamp,
            &[
                ("2024-01-02 03:04:05", "2024-01-02T03:04:05"),
                ("2024-01-02 03:04:05.1", "2024-01-02T03:04:05.1"),
                ("0001-01-01 00:00:00.000001", "0001-01-01T00:00:00.000001"),
                ("infinity", "infinity"),
                ("-infinity", "-infinity"),
                ("0044-03-15 12:00:00 BC", "0044-03-15 12:00:00 BC"),
                ("294276-12-31 23:59:59.999999", "294276-12-31 23:59:59.999999"),
            ],
            &[
                "",
                "2024-01-02",
                "2024-01-02T03:04:05",
                "2024-01-02 03:04:05.",
                "2024-01-02 03:04:05.1234567",
                "Tue Jan 02 03:04:05 2024",
                "01/02/2024 03:04:05",
                "2024-01-02 03:04:05+00",
                "Infinity",
                "x2024-01-02 03:04:05",
            ],
        );
        check(
            Plan::TimestampTz,
            &[
                ("2024-01-02 03:04:05.1+00", "2024-01-02T03:04:05.1Z"),
                ("infinity", "infinity"),
                ("0044-03-15 12:00:00+00 BC", "0044-03-15 12:00:00+00 BC"),
                ("10000-01-01 00:00:00+00", "10000-01-01 00:00:00+00"),
            ],
            &["2024-01-02 03:04:05", "2024-01-02 03:04:05+02", "2024-01-02 03:04:05-00", "+00"],
        );
        check(
            Plan::TimeTz,
            &[
                ("03:04:05+00", "03:04:05Z"),
                ("24:00:00.5-08", "24:00:00.5-08:00"),
                ("03:04:05+05:30", "03:04:05+05:30"),
                ("03:04:05-15:59:59", "03:04:05-15:59:59"),
            ],
            &["", "03:04:05", "03:04:05+", "03:04:05+5", "3:04:05+05", "03:04:05+05:30:00:00"],
        );
    }

    proptest! {
        #[test]
        fn no_bytes_make_a_conversion_panic(text in proptest::collection::vec(any::<u8>(), 0..40)) {
            for plan in [Plan::AsIs, Plan::Bool, Plan::Bytes, Plan::Timestamp, Plan::TimestampTz, Plan::TimeTz] {
                let _ = canonical(&plan, &text, &mut Vec::new());
            }
        }

        #[test]
        fn bytes_read_back(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            let octal: String = bytes.iter().map(|byte| format!("\\{byte:03o}")).collect();
            for text in [format!("\\x{digits}"), octal] {
                let mut out = Vec::new();
                canonical(&Plan::Bytes, text.as_bytes(), &mut out).unwrap();
                prop_assert_eq!(&out, &bytes);
            }
        }
    }
}
