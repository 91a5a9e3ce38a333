//! One text for each value, whether it came from the database or from an event.
//!
//! Where an event's value has not the form that its type asks for (a big integer as a number, a decimal as a float), the text
//! says so, and therefore differs.

use base64::Engine;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Bool,
    Int,
    /// `oid` and its like: a number or its text.
    Oid,
    Float,
    Double,
    Bytes,
    Json,
    Timestamp,
    TimestampTz,
    Time,
    TimeTz,
    /// The database's own text, as a JSON string.
    Text,
    Array(Box<Kind>),
}

/// Integers beyond it are strings: most readers of JSON hold numbers as doubles.
const SAFE_INTEGER_MAX: u64 = (1 << 53) - 1;
const NULL: &str = "NULL";

impl Kind {
    /// By the type's name in `pg_type`.
    pub(super) fn of(type_name: &str) -> Kind {
        match type_name {
            "bool" => Kind::Bool,
            "int2" | "int4" | "int8" => Kind::Int,
            "oid" | "xid" | "cid" | "xid8" => Kind::Oid,
            "float4" => Kind::Float,
            "float8" => Kind::Double,
            "bytea" => Kind::Bytes,
            "json" | "jsonb" => Kind::Json,
            "timestamp" => Kind::Timestamp,
            "timestamptz" => Kind::TimestampTz,
            "time" => Kind::Time,
            "timetz" => Kind::TimeTz,
            _ => Kind::Text,
        }
    }
}

pub(super) fn from_database(kind: &Kind, text: Option<&str>) -> String {
    let Some(text) = text else { return NULL.into() };
    match kind {
        Kind::Bool => if text == "t" { "true" } else { "false" }.into(),
        Kind::Float => float::<f32>(text),
        Kind::Double => float::<f64>(text),
        Kind::Bytes => text.trim_start_matches("\\x").into(),
        // SQL NULL and JSON null are one in an event.
        Kind::Json if text.trim() == "null" => NULL.into(),
        Kind::Json => format!("json {}", text.trim()),
        Kind::Timestamp | Kind::TimestampTz if is_plain_date(text) => {
            let text = text.replacen(' ', "T", 1);
            short_fraction(&match kind {
                Kind::TimestampTz => text.strip_suffix("+00").map(|text| format!("{text}Z")).unwrap_or(text),
                _ => text,
            })
        }
        Kind::Time => short_fraction(text),
        Kind::TimeTz => short_fraction(&full_offset(text)),
        Kind::Array(element) => match elements(text) {
            Some(array) => array_text(&array, element),
            None => format!("text {text}"),
        },
        Kind::Int | Kind::Oid | Kind::Text | Kind::Timestamp | Kind::TimestampTz => text.into(),
    }
}

/// From the JSON text of an event's value.
pub(super) fn from_event(kind: &Kind, json: &str) -> String {
    if json == "null" {
        return NULL.into();
    }
    let wrong = || format!("(not of the form of {kind:?}) {json}");
    let string = || serde_json::from_str::<String>(json).ok();
    match kind {
        Kind::Bool => json.into(),
        Kind::Int => {
            let is_string = json.starts_with('"');
            let digits = json.trim_matches('"');
            let magnitude = digits.trim_start_matches('-').parse::<u64>();
            match magnitude {
                Ok(magnitude) if is_string == (magnitude > SAFE_INTEGER_MAX) => digits.into(),
                _ => wrong(),
            }
        }
        Kind::Oid => json.trim_matches('"').into(),
        Kind::Float | Kind::Double => {
            let special = ["\"NaN\"", "\"Infinity\"", "\"-Infinity\""].contains(&json);
            match (special || !json.starts_with('"'), kind) {
                (true, Kind::Float) => float::<f32>(json.trim_matches('"')),
                (true, _) => float::<f64>(json.trim_matches('"')),
                (false, _) => wrong(),
            }
        }
        Kind::Bytes => match string().map(|text| base64::engine::general_purpose::STANDARD.decode(text)) {
            Some(Ok(bytes)) => bytes.iter().map(|byte| format!("{byte:02x}")).collect(),
            _ => wrong(),
        },
        Kind::Json => format!("json {json}"),
        Kind::Timestamp | Kind::TimestampTz | Kind::Time => string().map_or_else(wrong, |text| short_fraction(&text)),
        Kind::TimeTz => string().map_or_else(wrong, |text| short_fraction(&full_offset(&text))),
        Kind::Text => string().unwrap_or_else(wrong),
        Kind::Array(element) => match serde_json::from_str::<Vec<&serde_json::value::RawValue>>(json) {
            Ok(items) => {
                let nested = |item: &str| item.starts_with('[') && **element != Kind::Json;
                let items = items.iter().map(|item| match nested(item.get()) {
                    true => from_event(kind, item.get()),
                    false => from_event(element, item.get()),
                });
                format!("[{}]", items.collect::<Vec<_>>().join(","))
            }
            // An array whose bounds do not start at 1 is the database's own text.
            Err(_) => string().map_or_else(wrong, |text| format!("text {text}")),
        },
    }
}

fn float<F: std::str::FromStr + std::fmt::Debug>(text: &str) -> String {
    text.parse::<F>().map_or_else(|_| format!("(not a float) {text}"), |float| format!("{float:?}"))
}

/// Four digits of year and nothing after the time: what ISO 8601 can say. Else events carry the database's own text.
fn is_plain_date(text: &str) -> bool {
    text.as_bytes().get(4) == Some(&b'-') && !text.ends_with("BC")
}

/// Without trailing zeros in the fraction of a second.
fn short_fraction(text: &str) -> String {
    let Some(point) = text.find('.') else { return text.into() };
    let end = text[point + 1..].find(|c: char| !c.is_ascii_digit()).map_or(text.len(), |length| point + 1 + length);
    let fraction = text[point..end].trim_end_matches('0').trim_end_matches('.');
    format!("{}{fraction}{}", &text[..point], &text[end..])
}

/// `+02` → `+02:00`; no offset → `Z`.
fn full_offset(text: &str) -> String {
    let Some(sign) = text.rfind(['+', '-']) else { return text.into() };
    let (time, offset) = text.split_at(sign);
    match offset {
        "+00" | "+00:00" => format!("{time}Z"),
        short if short.len() == 3 => format!("{time}{short}:00"),
        full => format!("{time}{full}"),
    }
}

/// An array literal's parts.
#[derive(Debug, PartialEq, Eq)]
enum Part {
    Null,
    Text(String),
    Nested(Vec<Part>),
}

fn array_text(parts: &[Part], element: &Kind) -> String {
    let parts = parts.iter().map(|part| match part {
        Part::Null => NULL.into(),
        Part::Text(text) => from_database(element, Some(text)),
        Part::Nested(parts) => array_text(parts, element),
    });
    format!("[{}]", parts.collect::<Vec<_>>().join(","))
}

/// Reads `{1,NULL,"a\"b",{…}}`. `None` when it carries bounds.
fn elements(text: &str) -> Option<Vec<Part>> {
    let mut chars = text.chars().peekable();
    (chars.next()? == '{').then(|| level(&mut chars))
}

fn level(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Vec<Part> {
    let mut parts = Vec::new();
    loop {
        match chars.next() {
            None | Some('}') => return parts,
            Some(',') => {}
            Some('{') => parts.push(Part::Nested(level(chars))),
            Some('"') => {
                let mut text = String::new();
                while let Some(next) = chars.next() {
                    match next {
                        '"' => break,
                        '\\' => text.extend(chars.next()),
                        other => text.push(other),
                    }
                }
                parts.push(Part::Text(text));
            }
            Some(first) => {
                let mut text = String::from(first);
                while let Some(next) = chars.next_if(|next| !matches!(next, ',' | '}')) {
                    text.push(next);
                }
                parts.push(if text == "NULL" { Part::Null } else { Part::Text(text) });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_two_sides_agree_on_every_kind() {
        let array = |element| Kind::Array(Box::new(element));
        for (kind, database, event) in [
            (Kind::Bool, "t", "true"),
            (Kind::Int, "-9007199254740991", "-9007199254740991"),
            (Kind::Int, "9007199254740992", "\"9007199254740992\""),
            (Kind::Float, "3.4028235e+38", "3.4028235e38"),
            (Kind::Double, "5e-324", "5e-324"),
            (Kind::Double, "-0", "-0"),
            (Kind::Double, "-Infinity", "\"-Infinity\""),
            (Kind::Text, "1.50", "\"1.50\""),
            (Kind::Text, "a  ", "\"a  \""),
            (Kind::Bytes, "\\x00ff", "\"AP8=\""),
            (Kind::Timestamp, "2024-01-02 03:04:05.12", "\"2024-01-02T03:04:05.120000\""),
            (Kind::TimestampTz, "2024-01-02 03:04:05+00", "\"2024-01-02T03:04:05Z\""),
            (Kind::TimestampTz, "0044-03-15 12:00:00+00 BC", "\"0044-03-15 12:00:00+00 BC\""),
            (Kind::Timestamp, "infinity", "\"infinity\""),
            (Kind::TimeTz, "03:04:05+02", "\"03:04:05+02:00\""),
            (Kind::TimeTz, "03:04:05+00", "\"03:04:05Z\""),
            (Kind::Json, "{\"b\": 1.0, \"a\": null}", "{\"b\": 1.0, \"a\": null}"),
            (array(Kind::Int), "{{1,2},{3,NULL}}", "[[1,2],[3,null]]"),
            (array(Kind::Text), r#"{"a\"b",NULL,"NULL",c,"{"}"#, r#"["a\"b",null,"NULL","c","{"]"#),
            (array(Kind::Text), "{}", "[]"),
            (array(Kind::Int), "[0:1]={1,2}", "\"[0:1]={1,2}\""),
            (array(Kind::Json), r#"{"[1, 2]"}"#, "[[1, 2]]"),
        ] {
            assert_eq!(from_database(&kind, Some(database)), from_event(&kind, event), "{kind:?} {database}");
        }
        assert_eq!(from_database(&Kind::Int, None), from_event(&Kind::Int, "null"));
    }

    #[test]
    fn a_wrong_form_is_a_difference() {
        for (kind, database, event) in [
            (Kind::Int, "9007199254740992", "9007199254740992"),
            (Kind::Int, "1", "\"1\""),
            (Kind::Text, "1.50", "1.50"),
            (Kind::Text, "1.50", "\"1.5\""),
            (Kind::Text, "a  ", "\"a\""),
            (Kind::Double, "0.1", "0.10000000000000002"),
            (Kind::Double, "1.5", "\"1.5\""),
            (Kind::Bytes, "\\x00ff", "\"\\\\x00ff\""),
            (Kind::Text, "null", "null"),
            (Kind::Json, "{\"a\": 1}", "\"{\\\"a\\\": 1}\""),
            (Kind::Timestamp, "2024-01-02 03:04:05", "\"2024-01-02 03:04:05\""),
            (Kind::TimestampTz, "2024-01-02 03:04:05+00", "\"2024-01-02T03:04:05\""),
        ] {
            assert_ne!(from_database(&kind, Some(database)), from_event(&kind, event), "{kind:?} {event}");
        }
    }
}
