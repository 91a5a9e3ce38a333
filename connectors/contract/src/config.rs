//! Values that a config file is written with: secrets, sizes, spans of time.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, de};

/// A string that cannot be printed. [`Secret::reveal`] is the only way to its text: search for it to see every use.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    pub fn new(text: impl Into<String>) -> Secret {
        Secret(text.into())
    }

    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(***)")
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // A message of serde's would quote the value that it found.
        String::deserialize(deserializer)
            .map(Secret)
            .map_err(|_| de::Error::custom("expected a string (value withheld)"))
    }
}

impl JsonSchema for Secret {
    fn schema_name() -> Cow<'static, str> {
        "Secret".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "description": "A secret: write `${NAME}` or `${file:/path}` to keep it out of the file." })
    }
}

/// A number of bytes, written `512MiB`, `10 GiB`, `1GB` or as a plain number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

const BYTE_UNITS: [(&str, u64); 9] = [
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("B", 1),
];

/// A span of time, written `500ms`, `10s`, `5m`, `12h` or `7d`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(pub Duration);

const SPAN_UNITS_MS: [(&str, u64); 5] = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

/// Splits `12 GiB` into 12 and the unit's factor.
fn parse_with_unit(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let text = text.trim();
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let factor = units.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit.trim()))?.1;
    number.parse::<u64>().ok()?.checked_mul(factor)
}

struct ByteSizeVisitor;

impl de::Visitor<'_> for ByteSizeVisitor {
    type Value = ByteSize;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a size such as 512MiB, 10GiB or 1GB")
    }

    fn visit_u64<E: de::Error>(self, bytes: u64) -> Result<ByteSize, E> {
        Ok(ByteSize(bytes))
    }

    fn visit_i64<E: de::Error>(self, bytes: i64) -> Result<ByteSize, E> {
        u64::try_from(bytes).map(ByteSize).map_err(|_| E::invalid_value(de::Unexpected::Signed(bytes), &self))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<ByteSize, E> {
        let size = match text.trim().parse() {
            Ok(bytes) => Some(bytes),
            Err(_) => parse_with_unit(text, &BYTE_UNITS),
        };
        size.map(ByteSize).ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
    }
}

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ByteSizeVisitor)
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = BYTE_UNITS[..4].iter().rev().find(|(_, factor)| self.0 >= *factor);
        match unit {
            None => write!(f, "{} B", self.0),
            Some((name, factor)) if self.0.is_multiple_of(*factor) => write!(f, "{} {name}", self.0 / factor),
            Some((name, factor)) => write!(f, "{:.1} {name}", self.0 as f64 / *factor as f64),
        }
    }
}

impl JsonSchema for ByteSize {
    fn schema_name() -> Cow<'static, str> {
        "ByteSize".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": ["string", "integer"], "pattern": "^[0-9]+ *([KMGT]iB|[kMGT]B|B)?$", "description": "A size: `512MiB`, `10GiB`, `1GB`, or bytes." })
    }
}

struct SpanVisitor;

impl de::Visitor<'_> for SpanVisitor {
    type Value = Span;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a span of time such as 500ms, 10s, 5m, 12h or 7d")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Span, E> {
        parse_with_unit(text, &SPAN_UNITS_MS)
            .map(|ms| Span(Duration::from_millis(ms)))
            .ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(SpanVisitor)
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = self.0.as_millis() as u64;
        let unit = SPAN_UNITS_MS.iter().rev().find(|(_, factor)| ms >= *factor && ms.is_multiple_of(*factor));
        match unit {
            Some((name, factor)) => write!(f, "{}{name}", ms / factor),
            None => write!(f, "{ms}ms"),
        }
    }
}

impl JsonSchema for Span {
    fn schema_name() -> Cow<'static, str> {
        "Span".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": "^[0-9]+ *(ms|s|m|h|d)$", "description": "A span of time: `500ms`, `10s`, `5m`, `12h`, `7d`." })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::de::IntoDeserializer;
    use serde::de::value::Error;

    fn size(text: &str) -> Result<ByteSize, Error> {
        ByteSize::deserialize(text.into_deserializer())
    }

    fn span(text: &str) -> Result<Span, Error> {
        Span::deserialize(text.into_deserializer())
    }

    #[test]
    fn sizes_and_spans_read_back_what_they_print() {
        for text in ["1 B", "512 MiB", "10 GiB", "3 TiB"] {
            assert_eq!(size(text).unwrap().to_string(), text);
        }
        for text in ["500ms", "10s", "5m", "12h", "7d"] {
            assert_eq!(span(text).unwrap().to_string(), text);
        }
        assert_eq!(size("1GB").unwrap(), ByteSize(1_000_000_000));
        assert_eq!(size("4096").unwrap(), ByteSize(4096));
    }

    #[test]
    fn nonsense_is_refused_with_the_forms_allowed() {
        assert!(size("10 parsecs").unwrap_err().to_string().contains("512MiB"));
        assert!(span("7").unwrap_err().to_string().contains("500ms"));
        assert!(span("99999999999999999999d").is_err());
        assert!(size("-1").is_err());
    }

    #[test]
    fn a_secret_is_never_printed() {
        assert_eq!(format!("{:?}", Secret::new("hunter2")), "Secret(***)");
    }
}
