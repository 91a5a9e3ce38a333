//! `cast`

use std::borrow::Cow;
use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;
use serde::de::IgnoredAny;
use towpath_contract::Kind;

use super::null_if::is_number;
use super::run::{Action, Outcome};
use super::shape::{Fault, Shape};
use super::trim::trimmed;
use super::{Step, fields};

/// Values become values of another type: `cast: { amount: decimal, active: bool }`. Blanks around a text do not count. A value that the
/// type does not have, a blank one among them, is a failure; `null_if` before it makes null of what is blank.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
pub struct Cast(BTreeMap<String, CastType>);

/// What a value becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum CastType {
    /// The text that stands for the value in events. From everything but bytes.
    Text,
    /// A whole number of any size. From texts, decimals whose fraction is zero, true (1) and false (0).
    Int,
    /// A decimal of any size, its digits kept. From texts and whole numbers; no exponents.
    Decimal,
    /// A binary64, rounded to it where need be. From texts and numbers.
    Float,
    /// From `true`, `t`, `yes`, `y`, `on`, `1`, `false`, `f`, `no`, `n`, `off`, `0` in any case, as text or number.
    Bool,
    /// From the texts `2024-02-29`, and timestamps, whose time is left out.
    Date,
    /// A time without a zone. From the texts `2024-02-29 23:59:59.5`, with a space or a `T`, and dates, at midnight.
    Timestamp,
    /// From the texts of JSON, which goes out as it is written.
    Json,
}

impl Step for Cast {
    fn faults(&self) -> Vec<Fault> {
        fields::faults_of_map(self.0.len())
    }

    fn compile(&self, shape: &mut Shape) -> Result<(), Fault> {
        for (name, to) in &self.0 {
            let Some(found) = shape.find(name).map_err(|fault| fault.key(name))? else { continue };
            let field = &mut shape.fields()[found];
            let Some(way) = way(&field.kind, *to) else {
                if fields::is_optional(name) {
                    continue;
                }
                let message = format!("column `{name}` is {}, which is never {}", field.type_name, to.article());
                return Err(Fault::new(message).key(name));
            };
            field.becomes(to.kind());
            if let Some(casting) = way {
                shape.act(found, casting);
            }
        }
        Ok(())
    }
}

impl CastType {
    pub(super) fn kind(self) -> Kind {
        match self {
            CastType::Text => Kind::Text,
            CastType::Int => Kind::Int,
            CastType::Decimal => Kind::Decimal,
            CastType::Float => Kind::Float,
            CastType::Bool => Kind::Bool,
            CastType::Date => Kind::Date,
            CastType::Timestamp => Kind::Timestamp,
            CastType::Json => Kind::Json,
        }
    }

    /// What is done to texts.
    pub(super) fn of_text(self) -> Option<Casting> {
        way(&Kind::Text, self).flatten()
    }

    fn article(self) -> &'static str {
        match self {
            CastType::Text => "a text",
            CastType::Int => "a whole number",
            CastType::Decimal => "a decimal",
            CastType::Float => "a float",
            CastType::Bool => "true or false",
            CastType::Date => "a date",
            CastType::Timestamp => "a timestamp",
            CastType::Json => "JSON",
        }
    }
}

/// What is done to each value: nothing, where all of the kind are of the type already. `None`: none can be.
fn way(from: &Kind, to: CastType) -> Option<Option<Casting>> {
    use Casting as C;
    Some(match (from, to) {
        (from, to) if *from == to.kind() => None,
        (Kind::Bytes, _) => return None,
        (_, CastType::Text) | (Kind::Int, CastType::Decimal) => None,
        (Kind::Text | Kind::Other, CastType::Int) | (Kind::Decimal | Kind::Bool, CastType::Int) => Some(C::Int),
        (Kind::Text | Kind::Other, CastType::Decimal) => Some(C::Decimal),
        (Kind::Text | Kind::Other | Kind::Int | Kind::Decimal, CastType::Float) => Some(C::Float),
        (Kind::Text | Kind::Other | Kind::Int | Kind::Decimal, CastType::Bool) => Some(C::Bool),
        (Kind::Text | Kind::Other | Kind::Timestamp | Kind::TimestampTz, CastType::Date) => Some(C::Date),
        (Kind::Text | Kind::Other | Kind::Date, CastType::Timestamp) => Some(C::Timestamp),
        (Kind::Text | Kind::Other, CastType::Json) => Some(C::Json),
        _ => return None,
    })
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Casting {
    Int,
    Decimal,
    Float,
    Bool,
    Date,
    Timestamp,
    Json,
}

impl Action for Casting {
    fn apply(&self, value: &[u8], out: &mut Vec<u8>) -> Result<Outcome, Cow<'static, str>> {
        let value = trimmed(value);
        if value.is_empty() {
            return Err("the text is blank".into());
        }
        match self {
            Casting::Int => int(value, out)?,
            Casting::Decimal => decimal(value, out)?,
            Casting::Float => float(value, out)?,
            Casting::Bool => out.extend_from_slice(bool(value)?),
            Casting::Date => date(value, out)?,
            Casting::Timestamp => timestamp(value, out)?,
            Casting::Json => match serde_json::from_slice::<IgnoredAny>(value) {
                Ok(_) => out.extend_from_slice(value),
                Err(_) => return Err("the text is no JSON".into()),
            },
        }
        Ok(Outcome::Made)
    }
}

type Cannot = Cow<'static, str>;

fn int(value: &[u8], out: &mut Vec<u8>) -> Result<(), Cannot> {
    let value = match value {
        b"true" => b"1",
        b"false" => b"0",
        value => value,
    };
    let unsigned = number(value).ok_or("the text is no whole number")?;
    let (whole, fraction) = match unsigned.iter().position(|byte| *byte == b'.') {
        Some(point) => (&unsigned[..point], &unsigned[point + 1..]),
        None => (unsigned, &[][..]),
    };
    if fraction.iter().any(|byte| *byte != b'0') {
        return Err("the number has a fraction".into());
    }
    write_signed(value.starts_with(b"-"), whole, out);
    Ok(())
}

fn decimal(value: &[u8], out: &mut Vec<u8>) -> Result<(), Cannot> {
    let unsigned = number(value).ok_or("the text is no decimal")?;
    write_signed(value.starts_with(b"-"), unsigned, out);
    Ok(())
}

/// Without its sign.
fn number(value: &[u8]) -> Option<&[u8]> {
    let unsigned = value.strip_prefix(b"+").or_else(|| value.strip_prefix(b"-")).unwrap_or(value);
    (is_number(unsigned) && !unsigned.starts_with(b"-")).then_some(unsigned)
}

/// Without zeros in front, and zero without a sign.
pub(super) fn write_signed(negative: bool, unsigned: &[u8], out: &mut Vec<u8>) {
    let before_point = unsigned.iter().position(|byte| *byte == b'.').unwrap_or(unsigned.len());
    let zeros = unsigned.iter().take_while(|byte| **byte == b'0').count();
    if negative && unsigned.iter().any(|byte| matches!(byte, b'1'..=b'9')) {
        out.push(b'-');
    }
    out.extend_from_slice(&unsigned[zeros.min(before_point.saturating_sub(1))..]);
}

fn float(value: &[u8], out: &mut Vec<u8>) -> Result<(), Cannot> {
    let parsed = std::str::from_utf8(value).ok().and_then(|text| text.parse::<f64>().ok());
    let Some(number) = parsed.filter(|number| number.is_finite()) else {
        return Err("the text is no number that a binary64 holds".into());
    };
    // The shortest that reads back as the same number.
    let text = match number.abs() {
        0.0 | 1e-4..1e15 => number.to_string(),
        _ => format!("{number:e}"),
    };
    out.extend_from_slice(text.as_bytes());
    Ok(())
}

fn bool(value: &[u8]) -> Result<&'static [u8], Cannot> {
    let is = |words: [&str; 6]| words.iter().any(|word| value.eq_ignore_ascii_case(word.as_bytes()));
    if is(["true", "t", "yes", "y", "on", "1"]) {
        Ok(b"true")
    } else if is(["false", "f", "no", "n", "off", "0"]) {
        Ok(b"false")
    } else {
        Err("the text stands for neither true nor false".into())
    }
}

fn date(value: &[u8], out: &mut Vec<u8>) -> Result<(), Cannot> {
    let (date, rest) = value.split_at(value.len().min(10));
    if !is_date(date) || !(rest.is_empty() || is_time(&rest[1..]) && matches!(rest[0], b'T' | b' ')) {
        return Err("the text is no date of the form 2024-02-29".into());
    }
    out.extend_from_slice(date);
    Ok(())
}

fn timestamp(value: &[u8], out: &mut Vec<u8>) -> Result<(), Cannot> {
    let (date, rest) = value.split_at(value.len().min(10));
    let time = match rest {
        [] => &b"00:00:00"[..],
        [b'T' | b' ', time @ ..] if !time.ends_with(b"Z") => time,
        _ => b"",
    };
    if !is_date(date) || !is_time(time) {
        return Err("the text is no time of the form 2024-02-29 23:59:59".into());
    }
    out.extend_from_slice(date);
    out.push(b'T');
    out.extend_from_slice(time);
    Ok(())
}

/// `YYYY-MM-DD`, a day that exists.
fn is_date(text: &[u8]) -> bool {
    let [y1, y2, y3, y4, b'-', m1, m2, b'-', d1, d2] = text else { return false };
    let digits = [y1, y2, y3, y4, m1, m2, d1, d2];
    if !digits.iter().all(|byte| byte.is_ascii_digit()) {
        return false;
    }
    let number = |digits: &[&u8]| digits.iter().fold(0i16, |sum, digit| sum * 10 + i16::from(**digit - b'0'));
    jiff::civil::Date::new(number(&digits[..4]), number(&digits[4..6]) as i8, number(&digits[6..]) as i8).is_ok()
}

/// `HH:MM:SS[.ffffff]`, with a `Z` or without.
fn is_time(text: &[u8]) -> bool {
    let text = text.strip_suffix(b"Z").unwrap_or(text);
    let (time, fraction) = text.split_at(text.len().min(8));
    let fraction_fits = match fraction {
        [] => true,
        [b'.', digits @ ..] => (1..=9).contains(&digits.len()) && digits.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    let [h1, h2, b':', m1, m2, b':', s1, s2] = time else { return false };
    let below = |tens: u8, ones: u8, bound: u8| {
        tens.is_ascii_digit() && ones.is_ascii_digit() && (tens - b'0') * 10 + (ones - b'0') < bound
    };
    fraction_fits && below(*h1, *h2, 24) && below(*m1, *m2, 60) && below(*s1, *s2, 60)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn cast(casting: Casting, value: &str) -> Result<String, Cannot> {
        let mut out = Vec::new();
        casting.apply(value.as_bytes(), &mut out).map(|_| String::from_utf8(out).unwrap())
    }

    #[test]
    fn what_legacy_texts_hold_becomes_values() {
        for (casting, from, to) in [
            (Casting::Int, " 000123 ", "123"),
            (Casting::Int, "-007", "-7"),
            (Casting::Int, "+0", "0"),
            (Casting::Int, "-0", "0"),
            (Casting::Int, "12.00", "12"),
            (Casting::Int, "true", "1"),
            (Casting::Int, "123456789012345678901234567890", "123456789012345678901234567890"),
            (Casting::Decimal, "0001.50", "1.50"),
            (Casting::Decimal, "-0.10", "-0.10"),
            (Casting::Decimal, "-0.00", "0.00"),
            (Casting::Float, "1.50", "1.5"),
            (Casting::Float, "1e300", "1e300"),
            (Casting::Bool, "Y", "true"),
            (Casting::Bool, "0", "false"),
            (Casting::Date, "2024-02-29", "2024-02-29"),
            (Casting::Date, "2024-02-29T10:11:12.5Z", "2024-02-29"),
            (Casting::Timestamp, "2024-02-29 10:11:12", "2024-02-29T10:11:12"),
            (Casting::Timestamp, "2024-02-29", "2024-02-29T00:00:00"),
            (Casting::Json, " {\"a\": 1.10} ", "{\"a\": 1.10}"),
        ] {
            assert_eq!(cast(casting, from).as_deref(), Ok(to), "{casting:?} {from}");
        }
    }

    #[test]
    fn what_a_type_does_not_have_is_a_failure() {
        for (casting, value) in [
            (Casting::Int, "12.5"),
            (Casting::Int, "--1"),
            (Casting::Int, "1e3"),
            (Casting::Int, "  "),
            (Casting::Decimal, "1,50"),
            (Casting::Decimal, "NaN"),
            (Casting::Float, "inf"),
            (Casting::Float, "1e999"),
            (Casting::Bool, "2"),
            (Casting::Date, "2023-02-29"),
            (Casting::Date, "2024-02-29 x"),
            (Casting::Timestamp, "2024-02-29T25:00:00"),
            (Casting::Timestamp, "2024-02-29T10:00:00Z"),
            (Casting::Json, "{"),
        ] {
            let reason = cast(casting, value).expect_err("no value of the type");
            assert!(!reason.contains(value) || value.trim().is_empty(), "the reason tells the value: {reason}");
        }
    }

    proptest! {
        #[test]
        fn a_number_stays_the_same_number(number in any::<i64>(), scale in 0usize..6, zeros in 0usize..4) {
            let digits = format!("{:0>width$}", number.unsigned_abs(), width = scale + 1);
            let (whole, fraction) = digits.split_at(digits.len() - scale);
            let point = if scale == 0 { "" } else { "." };
            let sign = if number < 0 { "-" } else { "" };
            let text = format!("{sign}{}{whole}{point}{fraction}", "0".repeat(zeros));
            prop_assert_eq!(cast(Casting::Decimal, &text).unwrap(), format!("{sign}{whole}{point}{fraction}"));
        }

        #[test]
        fn a_float_reads_back(number in any::<f64>().prop_filter("finite", |number| number.is_finite())) {
            let text = cast(Casting::Float, &format!("{number:e}")).unwrap();
            prop_assert_eq!(text.parse::<f64>().unwrap().to_bits(), number.to_bits());
            prop_assert!(serde_json::from_str::<serde_json::Number>(&text).is_ok());
        }
    }
}
