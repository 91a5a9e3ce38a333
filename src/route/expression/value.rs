//! A value while an expression is evaluated.

use std::borrow::Cow;
use std::cmp::Ordering;

use super::number::Number;

/// Why an expression has no value for a row. Never holds anything of the row.
pub(in crate::route) type Reason = Cow<'static, str>;

#[derive(Clone, Debug, PartialEq)]
pub(in crate::route) enum Value<'a> {
    Null,
    /// The source did not say.
    Unavailable,
    Bool(bool),
    Number(Number),
    Float(f64),
    /// A text, a date, a timestamp, or JSON: the type is known beside it.
    Text(Cow<'a, str>),
    Bytes(&'a [u8]),
}

impl Value<'_> {
    /// As events carry it, in the form that its kind fixes. Nothing for null and what is not known.
    pub(in crate::route) fn write(&self, out: &mut Vec<u8>) {
        match self {
            Value::Null | Value::Unavailable => {}
            Value::Bool(value) => out.extend_from_slice(if *value { b"true" } else { b"false" }),
            Value::Number(number) => number.write(out),
            Value::Float(float) => write_float(*float, out),
            Value::Text(text) => out.extend_from_slice(text.as_bytes()),
            Value::Bytes(bytes) => out.extend_from_slice(bytes),
        }
    }

    pub(super) fn order(&self, other: &Value<'_>) -> Result<Ordering, Reason> {
        let unordered = || Reason::from("a NaN has no order");
        match (self, other) {
            (Value::Number(a), Value::Number(b)) => Ok(a.order(b)),
            (Value::Float(a), Value::Float(b)) => a.partial_cmp(b).ok_or_else(unordered),
            (Value::Number(a), Value::Float(b)) => a.order_float(*b).ok_or_else(unordered),
            (Value::Float(a), Value::Number(b)) => b.order_float(*a).map(Ordering::reverse).ok_or_else(unordered),
            (Value::Text(a), Value::Text(b)) => Ok(a.cmp(b)),
            (Value::Bool(a), Value::Bool(b)) => Ok(a.cmp(b)),
            (Value::Bytes(a), Value::Bytes(b)) => Ok(a.cmp(b)),
            // The types were checked when the expression was compiled.
            _ => Err("these values cannot be compared".into()),
        }
    }
}

/// The shortest text that reads back as the same float, as the contract has it.
pub(super) fn write_float(float: f64, out: &mut Vec<u8>) {
    match float {
        _ if float.is_nan() => out.extend_from_slice(b"NaN"),
        f64::INFINITY => out.extend_from_slice(b"Infinity"),
        f64::NEG_INFINITY => out.extend_from_slice(b"-Infinity"),
        _ => out.extend_from_slice(ryu_form(float).as_bytes()),
    }
}

fn ryu_form(float: f64) -> String {
    // Rust's own `{}` writes 1e300 as 301 digits.
    if float != 0.0 && !(1e-5..1e16).contains(&float.abs()) { format!("{float:e}") } else { format!("{float}") }
}

/// Dates and timestamps in the contract's forms: their texts sort as they do, but for what lies far away.
pub(super) fn order_times(a: &str, b: &str) -> Result<Ordering, Reason> {
    let (a, b) = (plain_time(a)?, plain_time(b)?);
    Ok(a.cmp(b))
}

/// Without a `Z`, and without zeros at the end of a fraction: what is left sorts.
fn plain_time(text: &str) -> Result<&str, Reason> {
    let text = text.strip_suffix('Z').unwrap_or(text);
    let year_ends = text.as_bytes().get(4) == Some(&b'-') && text.as_bytes()[..4].iter().all(u8::is_ascii_digit);
    let is_infinite = matches!(text, "infinity" | "-infinity");
    if !is_infinite && (!year_ends || text.contains(' ')) {
        return Err("a date before Christ or after the year 9999 cannot be compared".into());
    }
    match text.contains('.') {
        true => Ok(text.trim_end_matches('0').trim_end_matches('.')),
        false => Ok(text),
    }
}
