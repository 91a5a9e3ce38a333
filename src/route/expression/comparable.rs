//! Which values can be compared with which.

use super::compile::{Stop, wrong};
use super::tree::{How, Node};
use super::types::Type;
use super::value::{Value, order_times};
use crate::route::transform::Fault;

/// Whether a value of one type can be held against `other`, which is `node`.
pub(super) fn comparable(how: How, one: Type, other: Type, node: &Node) -> Result<(), Stop> {
    let sorts = !matches!(how, How::Equal | How::Unequal);
    let fits = match (one, other) {
        (Type::Json, _) | (_, Type::Json) => one == Type::Null || other == Type::Null,
        (Type::Null, _) | (_, Type::Null) => !sorts,
        (Type::Bool | Type::Bytes, _) if sorts => false,
        (a, b) if a == b => true,
        (a, b) if a.is_number() && b.is_number() => true,
        (a, Type::Text) if a.is_time() => return time_constant(a, node),
        // The other way round is asked too.
        (Type::Text, b) if b.is_time() => true,
        (a, b) => a.is_time() && b.is_time() && Type::TimestampTz != a && Type::TimestampTz != b,
    };
    if fits {
        return Ok(());
    }
    let message = match sorts {
        true => format!("{} and {} have no order between them", one.name(), other.name()),
        false => format!("{} is compared with {}", one.name(), other.name()),
    };
    let help = match (one, other) {
        (Type::Text, Type::Int | Type::Decimal) | (Type::Int | Type::Decimal, Type::Text) => {
            "write the number as a text, `'7'`, or make one of the text: `int(x)`, `decimal(x)`"
        }
        _ => "both sides of a comparison must be of one type",
    };
    Err(Stop::Fault(Fault::new(message).help(help)))
}

/// A date or a time is held against a text that must be one, and that is known.
fn time_constant(of: Type, node: &Node) -> Result<(), Stop> {
    let (example, is_one): (_, fn(&str) -> bool) = match of {
        Type::Date => ("'2024-02-29'", |text| text.len() == 10 && text.parse::<jiff::civil::Date>().is_ok()),
        Type::Timestamp => ("'2024-02-29T23:59:59'", |text| {
            text.as_bytes().get(10) == Some(&b'T') && text.parse::<jiff::civil::DateTime>().is_ok()
        }),
        _ => ("'2024-02-29T23:59:59Z'", |text| text.ends_with('Z') && text.parse::<jiff::Timestamp>().is_ok()),
    };
    match node {
        Node::Constant(Value::Text(text)) if is_one(text) && order_times(text, text).is_ok() => Ok(()),
        Node::Constant(_) => {
            Err(wrong(format!("{} is compared with a text that is none; one is written {example}", of.name())))
        }
        _ => Err(wrong(format!(
            "{} is compared with a text; only a text that stands in the expression can be one: {example}",
            of.name()
        ))),
    }
}
