//! The text of a column, held against its type and written in the form of its kind.

use towpath_contract::Kind;

use crate::config::{ColumnConfig, ColumnType};
use crate::record::Blank;
use crate::row::Field;

/// How the values of a text file are read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    pub(crate) decimal_comma: bool,
    pub(crate) blank: Blank,
}

pub(crate) fn field(column: &ColumnConfig) -> Field {
    let (kind, name) = match column.kind {
        ColumnType::Text => (Kind::Text, "text"),
        ColumnType::Int => (Kind::Int, "int"),
        ColumnType::Decimal => (Kind::Decimal, "decimal"),
        ColumnType::Date => (Kind::Date, "date"),
        ColumnType::Timestamp => (Kind::Timestamp, "timestamp"),
        ColumnType::Json => (Kind::Json, "json"),
    };
    Field { name: column.name.clone(), kind, type_name: name.into() }
}

/// Appends the value; `false` where it is null. The error says what was expected.
pub(crate) fn write(kind: &Kind, text: &[u8], rules: Rules, out: &mut Vec<u8>) -> Result<bool, &'static str> {
    if matches!(kind, Kind::Text | Kind::Json) {
        std::str::from_utf8(text).map_err(|_| "text that is UTF-8")?;
        out.extend_from_slice(text);
        return Ok(true);
    }
    let text = text.trim_ascii();
    if text.is_empty() {
        return match rules.blank {
            Blank::Null => Ok(false),
            Blank::Error => Err("a value; `blank_numbers: null` makes it null where there is none"),
        };
    }
    match kind {
        Kind::Int => number(text, None, out).map(|()| true).map_err(|()| "an integer"),
        Kind::Decimal => {
            let point = if rules.decimal_comma { b',' } else { b'.' };
            let expected = if rules.decimal_comma { "a decimal with a comma" } else { "a decimal with a point" };
            number(text, Some(point), out).map(|()| true).map_err(|()| expected)
        }
        Kind::Date => date(text).then(|| out.extend_from_slice(text)).map(|()| true).ok_or("a date as 2026-12-31"),
        _ => {
            let whole = text.len() >= 19 && date(&text[..10]) && matches!(text[10], b'T' | b' ') && time(&text[11..]);
            if !whole {
                return Err("a timestamp as 2026-12-31T23:59:59");
            }
            out.extend_from_slice(text);
            let at = out.len() - text.len() + 10;
            out[at] = b'T';
            Ok(true)
        }
    }
}

/// A sign before or after digits, with at most one point.
fn number(text: &[u8], point: Option<u8>, out: &mut Vec<u8>) -> Result<(), ()> {
    let (negative, body) = match text {
        [b'-', body @ ..] | [body @ .., b'-'] => (true, body),
        [b'+', body @ ..] | [body @ .., b'+'] => (false, body),
        body => (false, body),
    };
    let at = point.and_then(|point| body.iter().position(|byte| *byte == point));
    let (whole, fraction) = at.map_or((body, &[][..]), |at| (&body[..at], &body[at + 1..]));
    let digits = |part: &[u8]| part.iter().all(u8::is_ascii_digit);
    if !digits(whole) || !digits(fraction) || whole.is_empty() && fraction.is_empty() {
        return Err(());
    }
    let zero = whole.iter().chain(fraction).all(|digit| *digit == b'0');
    if negative && !zero {
        out.push(b'-');
    }
    let lead = whole.iter().take_while(|digit| **digit == b'0').count();
    match whole[lead..] {
        [] => out.push(b'0'),
        ref significant => out.extend_from_slice(significant),
    }
    if !fraction.is_empty() {
        out.push(b'.');
        out.extend_from_slice(fraction);
    }
    Ok(())
}

fn two(text: &[u8], at: usize) -> Option<u32> {
    match text.get(at..at + 2)? {
        [a @ b'0'..=b'9', b @ b'0'..=b'9'] => Some(u32::from(a - b'0') * 10 + u32::from(b - b'0')),
        _ => None,
    }
}

fn date(text: &[u8]) -> bool {
    let (Some(century), Some(year), Some(month), Some(day)) = (two(text, 0), two(text, 2), two(text, 5), two(text, 8))
    else {
        return false;
    };
    let year = century * 100 + year;
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let last = match month {
        2 => 28 + u32::from(leap),
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return false,
    };
    text.len() == 10 && text[4] == b'-' && text[7] == b'-' && (1..=last).contains(&day)
}

/// `HH:MM:SS`, with at most six more digits.
fn time(text: &[u8]) -> bool {
    let (Some(hour), Some(minute), Some(second)) = (two(text, 0), two(text, 3), two(text, 6)) else { return false };
    let fraction = match &text[8..] {
        [] => true,
        [b'.', digits @ ..] => (1..=6).contains(&digits.len()) && digits.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    text[2] == b':' && text[5] == b':' && hour < 24 && minute < 60 && second < 60 && fraction
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(kind: Kind, text: &str, decimal_comma: bool) -> Option<String> {
        let mut out = Vec::new();
        let given = write(&kind, text.as_bytes(), Rules { decimal_comma, blank: Blank::Null }, &mut out).ok()?;
        Some(if given { String::from_utf8(out).unwrap() } else { "␀".into() })
    }

    #[test]
    fn values_take_the_form_of_their_kind_or_are_refused() {
        for (kind, text, comma, value) in [
            (Kind::Int, " 007 ", false, Some("7")),
            (Kind::Int, "-0", false, Some("0")),
            (Kind::Int, "12-", false, Some("-12")),
            (Kind::Int, "+99999999999999999999999999", false, Some("99999999999999999999999999")),
            (Kind::Int, "1.0", false, None),
            (Kind::Int, "-", false, None),
            (Kind::Int, "1e3", false, None),
            (Kind::Int, "  ", false, Some("␀")),
            (Kind::Decimal, "-.50", false, Some("-0.50")),
            (Kind::Decimal, "0012,340", true, Some("12.340")),
            (Kind::Decimal, "12.5", true, None),
            (Kind::Decimal, "1,234.5", false, None),
            (Kind::Decimal, "-0.00", false, Some("0.00")),
            (Kind::Date, "2024-02-29", false, Some("2024-02-29")),
            (Kind::Date, "2023-02-29", false, None),
            (Kind::Date, "1900-02-29", false, None),
            (Kind::Timestamp, "2024-02-29 23:59:59.123456", false, Some("2024-02-29T23:59:59.123456")),
            (Kind::Timestamp, "2024-02-29T24:00:00", false, None),
            (Kind::Text, " a ", false, Some(" a ")),
        ] {
            assert_eq!(written(kind.clone(), text, comma).as_deref(), value, "{kind:?} {text:?}");
        }
    }
}
