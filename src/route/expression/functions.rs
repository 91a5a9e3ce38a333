//! The functions that expressions have.

use std::borrow::Cow;

use cel::common::ast::{CallExpr, Expr, LiteralValue};
use regex::Regex;

use super::compile::{Stop, Typed, wrong};
use super::number::Number;
use super::tree::Node;
use super::types::Type;
use super::value::{Reason, Value, write_float};
use crate::route::transform::Fault;

#[derive(Clone, Debug)]
pub(super) enum Function {
    Size,
    StartsWith,
    EndsWith,
    Contains,
    Matches(Box<Regex>),
    Lower,
    Upper,
    Trim,
    Substring,
    Replace,
    String,
    Int,
    Decimal,
    Double,
    Round,
    Abs,
    Coalesce,
}

/// A name, whether it may be called as `x.name(…)`, and how a call is written.
const KNOWN: &[(&str, &str)] = &[
    ("size", "size(name), name.size()"),
    ("startsWith", "name.startsWith('A')"),
    ("endsWith", "name.endsWith('A')"),
    ("contains", "name.contains('A')"),
    ("matches", "name.matches('^[A-Z]{2}[0-9]+$')"),
    ("lowerAscii", "name.lowerAscii()"),
    ("upperAscii", "name.upperAscii()"),
    ("trim", "name.trim()"),
    ("substring", "name.substring(0, 3), name.substring(3)"),
    ("replace", "name.replace('-', '')"),
    ("string", "string(amount)"),
    ("int", "int(code)"),
    ("decimal", "decimal(code)"),
    ("double", "double(amount)"),
    ("round", "round(amount, 2)"),
    ("abs", "abs(amount)"),
    ("coalesce", "coalesce(phone, mobile, '')"),
    ("changed", "changed(\"status\")"),
    ("has", "has(after.note)"),
];

/// A call of a function, with its types checked. `of_value`: written `x.name(…)`, where `x` is the first argument.
pub(super) fn call(name: &str, of_value: bool, given: Vec<Typed>) -> Result<Typed, Stop> {
    use Type::{Bool, Decimal, Float, Int, Text};
    let types: Vec<Type> = given.iter().map(|(_, of)| if *of == Type::Null { Text } else { *of }).collect();
    let (function, of) = match (name, types.as_slice()) {
        ("size", [Text | Type::Bytes]) => (Function::Size, Int),
        ("startsWith", [Text, Text]) if of_value => (Function::StartsWith, Bool),
        ("endsWith", [Text, Text]) if of_value => (Function::EndsWith, Bool),
        ("contains", [Text, Text]) if of_value => (Function::Contains, Bool),
        ("matches", [Text, Text]) => (Function::Matches(pattern(&given[1].0)?), Bool),
        ("lowerAscii", [Text]) if of_value => (Function::Lower, Text),
        ("upperAscii", [Text]) if of_value => (Function::Upper, Text),
        ("trim", [Text]) if of_value => (Function::Trim, Text),
        ("substring", [Text, Int] | [Text, Int, Int]) if of_value => (Function::Substring, Text),
        ("replace", [Text, Text, Text]) if of_value => (Function::Replace, Text),
        ("string", [Type::Bytes | Type::Json]) => return Err(unfit(name, &types)),
        ("string", [_]) if !of_value => (Function::String, Text),
        ("int", [Text | Int | Decimal | Float | Bool]) if !of_value => (Function::Int, Int),
        ("decimal", [Text | Int | Decimal | Float]) if !of_value => (Function::Decimal, Decimal),
        ("double", [Text | Int | Decimal | Float]) if !of_value => (Function::Double, Float),
        ("round", [Int | Decimal, Int]) if !of_value => (Function::Round, Decimal),
        ("abs", [of @ (Int | Decimal | Float)]) if !of_value => (Function::Abs, *of),
        ("coalesce", [_, _, ..]) if !of_value => (Function::Coalesce, one_type(&given)?),
        _ => return Err(unfit(name, &types)),
    };
    let mut arguments: Vec<Node> = given.into_iter().map(|(node, _)| node).collect();
    if matches!(function, Function::Matches(_)) {
        arguments.truncate(1);
    }
    Ok((Node::Call(function, arguments), of))
}

/// What is wrong with a call whatever the types of its columns are.
pub(super) fn fault(call: &CallExpr) -> Option<Fault> {
    let name = call.func_name.as_str();
    // Operators have names that nobody can write.
    if !name.starts_with(|first: char| first.is_alphabetic()) {
        return None;
    }
    if !KNOWN.iter().any(|(known, _)| *known == name) {
        return Some(no_such(name));
    }
    let Some(Expr::Literal(LiteralValue::String(text))) = call.args.last().map(|last| &last.expr) else { return None };
    match pattern(&Node::Constant(Value::Text(text.inner().to_owned().into()))) {
        Err(Stop::Fault(fault)) if name == "matches" => Some(fault),
        _ => None,
    }
}

fn no_such(name: &str) -> Fault {
    let names: Vec<&str> = KNOWN.iter().map(|(known, _)| *known).collect();
    let near = names.iter().map(|known| (strsim::damerau_levenshtein(known, name), *known)).min();
    let near = near.filter(|(distance, _)| *distance <= 2).map(|(_, known)| format!("did you mean `{known}`?\n"));
    let help = format!("{}there are: {}", near.unwrap_or_default(), names.join(", "));
    Fault::new(format!("there is no function `{name}`")).help(help)
}

fn unfit(name: &str, types: &[Type]) -> Stop {
    let Some((_, usage)) = KNOWN.iter().find(|(known, _)| *known == name) else { return Stop::Fault(no_such(name)) };
    let given: Vec<&str> = types.iter().map(|of| of.name()).collect();
    let given = if given.is_empty() { "nothing".to_owned() } else { given.join(", ") };
    Stop::Fault(Fault::new(format!("`{name}` cannot take {given}")).help(format!("it is written `{usage}`")))
}

fn one_type(given: &[Typed]) -> Result<Type, Stop> {
    let mut of = Type::Null;
    for (_, other) in given {
        of = of.join(*other).ok_or_else(|| {
            wrong(format!("`coalesce` takes values of one type, not {} and {}", of.name(), other.name()))
        })?;
    }
    Ok(of)
}

fn pattern(node: &Node) -> Result<Box<Regex>, Stop> {
    let Node::Constant(Value::Text(pattern)) = node else {
        return Err(wrong("the pattern of `matches` must stand in the expression"));
    };
    // The library's own text draws the pattern over several lines.
    let why = |error: regex::Error| match error {
        regex::Error::CompiledTooBig(_) => "it is too large".to_owned(),
        other => other.to_string().lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned(),
    };
    regex::RegexBuilder::new(pattern)
        .size_limit(1 << 20)
        .build()
        .map(Box::new)
        .map_err(|error| wrong(format!("the pattern of `matches` cannot be read: {}", why(error))))
}

impl Function {
    /// Null makes null, and what is not known makes what is not known.
    pub(super) fn run<'a>(&self, values: &mut [Value<'a>]) -> Result<Value<'a>, Reason> {
        if matches!(self, Function::Coalesce) {
            let first = values.iter().position(|value| *value != Value::Null);
            return Ok(first.map_or(Value::Null, |first| std::mem::replace(&mut values[first], Value::Null)));
        }
        if values.contains(&Value::Unavailable) {
            return Ok(Value::Unavailable);
        }
        if values.contains(&Value::Null) {
            return Ok(Value::Null);
        }
        match (self, values) {
            (Function::Size, [Value::Text(text)]) => Ok(whole(text.chars().count())),
            (Function::Size, [Value::Bytes(bytes)]) => Ok(whole(bytes.len())),
            (Function::StartsWith, [Value::Text(text), Value::Text(start)]) => {
                Ok(Value::Bool(text.starts_with(&**start)))
            }
            (Function::EndsWith, [Value::Text(text), Value::Text(end)]) => Ok(Value::Bool(text.ends_with(&**end))),
            (Function::Contains, [Value::Text(text), Value::Text(part)]) => Ok(Value::Bool(text.contains(&**part))),
            (Function::Matches(pattern), [Value::Text(text)]) => Ok(Value::Bool(pattern.is_match(text))),
            (Function::Lower, [Value::Text(text)]) => Ok(made(text.to_ascii_lowercase())),
            (Function::Upper, [Value::Text(text)]) => Ok(made(text.to_ascii_uppercase())),
            (Function::Trim, [text @ Value::Text(_)]) => Ok(trimmed(std::mem::replace(text, Value::Null))),
            (Function::Substring, [Value::Text(text), Value::Number(start), rest @ ..]) => {
                let end = rest.first().map(|end| if let Value::Number(end) = end { end.to_i64() } else { None });
                substring(text, start.to_i64(), end)
            }
            (Function::Replace, [Value::Text(text), Value::Text(old), Value::Text(new)]) => replace(text, old, new),
            (Function::String, [value]) => Ok(as_text(std::mem::replace(value, Value::Null))),
            (Function::Int, [value]) => int(value),
            (Function::Decimal, [value]) => decimal(value),
            (Function::Double, [value]) => double(value),
            (Function::Round, [Value::Number(number), Value::Number(digits)]) => {
                let digits = digits.to_i64().ok_or("that many digits cannot be rounded to")?;
                number.round(digits).map(Value::Number)
            }
            (Function::Abs, [Value::Number(number)]) => Ok(Value::Number(number.absolute())),
            (Function::Abs, [Value::Float(float)]) => Ok(Value::Float(float.abs())),
            // The types were checked when the expression was compiled.
            _ => Err("a function got what it cannot take".into()),
        }
    }
}

fn made<'a>(text: String) -> Value<'a> {
    Value::Text(Cow::Owned(text))
}

fn whole<'a>(count: usize) -> Value<'a> {
    Value::Number(Number::Small(i64::try_from(count).unwrap_or(i64::MAX)))
}

fn trimmed(value: Value<'_>) -> Value<'_> {
    match value {
        Value::Text(Cow::Borrowed(text)) => Value::Text(Cow::Borrowed(text.trim())),
        Value::Text(Cow::Owned(text)) => made(text.trim().to_owned()),
        other => other,
    }
}

/// Counts characters, as CEL does.
fn substring<'a>(text: &str, start: Option<i64>, end: Option<Option<i64>>) -> Result<Value<'a>, Reason> {
    let length = text.chars().count();
    let within = |at: Option<i64>| at.and_then(|at| usize::try_from(at).ok()).map(|at| at.min(length));
    let outside = || Reason::from("`substring` begins or ends before the text's start");
    let start = within(start).ok_or_else(outside)?;
    let end = end.map_or(Some(length), within).ok_or_else(outside)?;
    Ok(made(text.chars().skip(start).take(end.saturating_sub(start)).collect()))
}

/// A text may grow by what stands in the config, not multiply.
const REPLACED_BYTES_MAX: usize = 1 << 20;

fn replace<'a>(text: &str, old: &str, new: &str) -> Result<Value<'a>, Reason> {
    let times = if new.len() > old.len() { text.matches(old).count() } else { 0 };
    if text.len() + times * new.len() > text.len().max(REPLACED_BYTES_MAX) {
        return Err("`replace` makes more than a mebibyte".into());
    }
    Ok(made(text.replace(old, new)))
}

fn as_text(value: Value<'_>) -> Value<'_> {
    let mut out = Vec::new();
    match value {
        text @ Value::Text(_) => return text,
        Value::Float(float) => write_float(float, &mut out),
        other => other.write(&mut out),
    }
    made(String::from_utf8(out).expect("numbers and booleans are ASCII"))
}

fn int<'a>(value: &Value<'_>) -> Result<Value<'a>, Reason> {
    let no_number = || Reason::from("`int` was given what is no whole number");
    let number = match value {
        Value::Bool(value) => Number::Small(i64::from(*value)),
        Value::Number(number) => number.truncate(),
        Value::Float(float) => Number::from_float(*float).ok_or_else(no_number)?.truncate(),
        Value::Text(text) => {
            let text = text.trim();
            let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
            let is_whole = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
            let number = Number::parse(text.strip_prefix('+').unwrap_or(text)).filter(|_| is_whole);
            number.ok_or_else(no_number)?
        }
        _ => return Err(no_number()),
    };
    Ok(Value::Number(number))
}

fn decimal<'a>(value: &Value<'_>) -> Result<Value<'a>, Reason> {
    let no_number = || Reason::from("`decimal` was given what is no number");
    let number = match value {
        Value::Number(number) => number.clone(),
        Value::Float(float) => Number::from_float(*float).ok_or_else(no_number)?,
        Value::Text(text) => {
            let text = text.trim();
            Number::parse(text.strip_prefix('+').unwrap_or(text)).ok_or_else(no_number)?
        }
        _ => return Err(no_number()),
    };
    Ok(Value::Number(number))
}

fn double<'a>(value: &Value<'_>) -> Result<Value<'a>, Reason> {
    let no_number = || Reason::from("`double` was given what is no number");
    Ok(Value::Float(match value {
        Value::Float(float) => *float,
        Value::Number(number) => number.to_float(),
        Value::Text(text) => text.trim().parse().map_err(|_| no_number())?,
        _ => return Err(no_number()),
    }))
}
