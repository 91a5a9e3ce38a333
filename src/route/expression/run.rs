//! What an expression says of one change.

use std::borrow::Cow;
use std::cmp::Ordering;

use towpath_contract::{Op, Value as Raw};

use super::number::Number;
use super::tree::{Arithmetic, Column, Comparison, How, Image, Node, Program};
use super::types::Type;
use super::value::{Reason, Value, order_times};
use crate::route::transform::View;

/// What an expression is asked of.
#[derive(Clone, Copy)]
pub(in crate::route) struct Input<'a> {
    pub(in crate::route) op: Op,
    /// The row in hand.
    pub(in crate::route) row: Option<View<'a>>,
    pub(in crate::route) before: Option<View<'a>>,
    pub(in crate::route) after: Option<View<'a>>,
    /// It is one half of an update that changed the key.
    pub(in crate::route) moved: bool,
}

impl<'a> Input<'a> {
    fn image(&self, image: Image) -> Option<View<'a>> {
        match image {
            Image::Row => self.row,
            Image::Before => self.before,
            Image::After => self.after,
        }
    }

    fn raw(&self, image: Image, slot: usize) -> Raw<'a> {
        match self.image(image) {
            Some(view) => view.value(slot),
            None if self.is_unsent(image) => Raw::Unavailable,
            // A row that is not there has nulls, as an outer join has.
            None => Raw::Null,
        }
    }

    /// There was such a row, and the source did not send it.
    fn is_unsent(&self, image: Image) -> bool {
        image == Image::Before && self.before.is_none() && (self.op == Op::Update || self.moved)
    }
}

impl Program {
    /// # Errors
    /// Why it has no value for this change.
    pub(in crate::route) fn run<'a>(&'a self, input: &Input<'a>) -> Result<Value<'a>, Reason> {
        self.node.run(input)
    }

    /// A condition: null is false. `None` where it needs what the source did not send.
    ///
    /// # Errors
    /// Why it cannot be worked out.
    pub(in crate::route) fn holds(&self, input: &Input<'_>) -> Result<Option<bool>, Reason> {
        self.run(input).map(truth)
    }
}

impl Node {
    pub(super) fn run<'a>(&'a self, input: &Input<'a>) -> Result<Value<'a>, Reason> {
        match self {
            Node::Constant(value) => Ok(borrowed(value)),
            Node::Column(image, column) => read(*column, input.raw(*image, column.slot)),
            Node::Has(image, slot) => {
                let has = input.image(*image).is_some() && input.raw(*image, *slot) != Raw::Unavailable;
                Ok(Value::Bool(has))
            }
            Node::Missing(image) => Ok(Value::Bool(input.image(*image).is_none() && !input.is_unsent(*image))),
            Node::Changed(slots) => changed(slots, input),
            Node::Op => Ok(Value::Text(Cow::Borrowed(input.op.name()))),
            Node::Not(node) => Ok(match truth(node.run(input)?) {
                Some(value) => Value::Bool(!value),
                None => Value::Unavailable,
            }),
            Node::And(a, b) => both(a, b, input, false),
            Node::Or(a, b) => both(a, b, input, true),
            Node::If(parts) => {
                let [condition, yes, no] = &**parts;
                match truth(condition.run(input)?) {
                    Some(true) => yes.run(input),
                    Some(false) => no.run(input),
                    None => Ok(Value::Unavailable),
                }
            }
            Node::Compare(comparison, sides) => {
                let [a, b] = &**sides;
                comparison.run(&a.run(input)?, &b.run(input)?)
            }
            Node::In(one, list) => is_in(&one.run(input)?, list, input),
            Node::Arithmetic(how, sides) => {
                let [a, b] = &**sides;
                how.run(a.run(input)?, b.run(input)?)
            }
            Node::Negate(node) => Ok(match node.run(input)? {
                Value::Number(number) => Value::Number(number.negate()),
                Value::Float(float) => Value::Float(-float),
                other => other,
            }),
            Node::Call(function, arguments) => {
                let mut values = smallvec::SmallVec::<[Value<'a>; 3]>::new();
                for argument in arguments {
                    values.push(argument.run(input)?);
                }
                function.run(values.as_mut_slice())
            }
        }
    }
}

fn borrowed<'a>(value: &'a Value<'static>) -> Value<'a> {
    match value {
        Value::Text(text) => Value::Text(Cow::Borrowed(text)),
        other => other.clone(),
    }
}

/// `None` for what is not known. Null is false.
fn truth(value: Value<'_>) -> Option<bool> {
    match value {
        Value::Bool(value) => Some(value),
        Value::Unavailable => None,
        _ => Some(false),
    }
}

fn read<'a>(column: Column, raw: Raw<'a>) -> Result<Value<'a>, Reason> {
    let bytes = match raw {
        Raw::Null => return Ok(Value::Null),
        Raw::Unavailable => return Ok(Value::Unavailable),
        Raw::Data(bytes) => bytes,
    };
    if column.of == Type::Bytes {
        return Ok(Value::Bytes(bytes));
    }
    let text = std::str::from_utf8(bytes).map_err(|_| Reason::from("a value that it needs is not UTF-8"))?;
    match column.of {
        Type::Bool => Ok(Value::Bool(text == "true")),
        Type::Int | Type::Decimal => {
            Number::parse(text).map(Value::Number).ok_or_else(|| "a number that it needs is NaN or infinite".into())
        }
        Type::Float => text.parse().map(Value::Float).map_err(|_| "a number that it needs cannot be read".into()),
        _ => Ok(Value::Text(Cow::Borrowed(text))),
    }
}

/// `decides`: the value of a side that settles it, whatever the other is.
fn both<'a>(a: &'a Node, b: &'a Node, input: &Input<'a>, decides: bool) -> Result<Value<'a>, Reason> {
    let first = a.run(input).map(truth);
    if first == Ok(Some(decides)) {
        return Ok(Value::Bool(decides));
    }
    let second = truth(b.run(input)?);
    match (first?, second) {
        (_, Some(value)) if value == decides => Ok(Value::Bool(decides)),
        (Some(_), Some(_)) => Ok(Value::Bool(!decides)),
        _ => Ok(Value::Unavailable),
    }
}

fn is_in<'a>(one: &Value<'a>, list: &'a [Node], input: &Input<'a>) -> Result<Value<'a>, Reason> {
    let equal = Comparison { how: How::Equal, times: false };
    let mut known = true;
    for node in list {
        match equal.run(one, &node.run(input)?)? {
            Value::Bool(true) => return Ok(Value::Bool(true)),
            Value::Unavailable => known = false,
            _ => {}
        }
    }
    Ok(if known { Value::Bool(false) } else { Value::Unavailable })
}

/// An insert, a read and a delete change every column. What the source did not send of an updated row is as it was.
fn changed<'a>(slots: &[usize], input: &Input<'a>) -> Result<Value<'a>, Reason> {
    let Some(after) = input.after else { return Ok(Value::Bool(true)) };
    if input.before.is_none() && !input.is_unsent(Image::Before) {
        return Ok(Value::Bool(true));
    }
    let mut known = true;
    for slot in slots {
        match (input.raw(Image::Before, *slot), after.value(*slot)) {
            (_, Raw::Unavailable) => {}
            (Raw::Unavailable, _) => known = false,
            (old, new) if old != new => return Ok(Value::Bool(true)),
            _ => {}
        }
    }
    Ok(if known { Value::Bool(false) } else { Value::Unavailable })
}

impl Comparison {
    fn run<'a>(self, a: &Value<'_>, b: &Value<'_>) -> Result<Value<'a>, Reason> {
        let equality = matches!(self.how, How::Equal | How::Unequal);
        let order = match (a, b) {
            (Value::Unavailable, _) | (_, Value::Unavailable) => return Ok(Value::Unavailable),
            (Value::Null, Value::Null) if equality => Ordering::Equal,
            (Value::Null, _) | (_, Value::Null) => return Ok(Value::Bool(self.how == How::Unequal)),
            // A NaN equals nothing.
            (Value::Float(a), Value::Float(b)) if equality && (a.is_nan() || b.is_nan()) => Ordering::Less,
            (Value::Text(a), Value::Text(b)) if self.times && !(equality && a == b) => order_times(a, b)?,
            _ => a.order(b)?,
        };
        Ok(Value::Bool(match self.how {
            How::Equal => order.is_eq(),
            How::Unequal => order.is_ne(),
            How::Less => order.is_lt(),
            How::LessOrEqual => order.is_le(),
            How::Greater => order.is_gt(),
            How::GreaterOrEqual => order.is_ge(),
        }))
    }
}

impl Arithmetic {
    fn run<'a>(self, a: Value<'a>, b: Value<'a>) -> Result<Value<'a>, Reason> {
        Ok(match (a, b) {
            (Value::Unavailable, _) | (_, Value::Unavailable) => Value::Unavailable,
            (Value::Null, _) | (_, Value::Null) => Value::Null,
            (Value::Text(a), Value::Text(b)) => Value::Text(Cow::Owned(a.into_owned() + &b)),
            (Value::Float(a), Value::Float(b)) => Value::Float(match self {
                Arithmetic::Add => a + b,
                Arithmetic::Subtract => a - b,
                Arithmetic::Multiply => a * b,
                _ => a / b,
            }),
            (Value::Number(a), Value::Number(b)) => Value::Number(match self {
                Arithmetic::Add | Arithmetic::Join => a.add(&b)?,
                Arithmetic::Subtract => a.subtract(&b)?,
                Arithmetic::Multiply => a.multiply(&b)?,
                Arithmetic::Divide => a.divide(&b, false)?,
                Arithmetic::DivideWhole => a.divide(&b, true)?,
                Arithmetic::Remainder => a.remainder(&b)?,
            }),
            _ => return Err("these values cannot be calculated with".into()),
        })
    }
}
