//! One JSON object in each line.

use std::borrow::Cow;
use std::fmt;
use std::io::Read;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use towpath_contract::Kind;

use super::framing::line;
use super::input::Input;
use super::value::{self, Rules};
use super::{FileFault, Next, Reader};
use crate::config::JsonLinesConfig;
use crate::record::Blank;
use crate::row::{Field, RowBuffer};

pub(crate) struct JsonLines {
    fields: Vec<Field>,
}

impl JsonLines {
    pub(super) fn new(config: &JsonLinesConfig) -> Result<JsonLines, (String, String)> {
        match config.columns.is_empty() {
            true => Err(("columns".into(), "the list names no column".into())),
            false => Ok(JsonLines { fields: config.columns.iter().map(value::field).collect() }),
        }
    }

    pub(super) fn fields(&self) -> Vec<Field> {
        self.fields.clone()
    }

    pub(super) fn open(&self, file: Box<dyn Read + Send>, record_max: usize) -> Box<dyn Reader + '_> {
        Box::new(Open { fields: &self.fields, input: Input::new(file, record_max) })
    }
}

struct Open<'a> {
    fields: &'a [Field],
    input: Input,
}

impl Reader for Open<'_> {
    fn fields(&self) -> &[Field] {
        self.fields
    }

    fn offset(&self) -> u64 {
        self.input.offset()
    }

    fn next(&mut self, row: &mut RowBuffer) -> Result<Next, FileFault> {
        let Some(frame) = line(&mut self.input, b'\n')? else { return Ok(Next::End) };
        let text = &self.input.available()[..frame.length];
        let next = match object(self.fields, text, row) {
            Ok(()) => Next::Record,
            Err(reason) => Next::Bad { bytes: text.to_vec(), reason },
        };
        self.input.consume(frame.length + frame.tail);
        Ok(next)
    }
}

fn object(fields: &[Field], text: &[u8], row: &mut RowBuffer) -> Result<(), String> {
    // The text is not repeated: it is row data.
    let Members(members) = serde_json::from_slice(text).map_err(|error| match error.column() {
        0 => "it is no JSON object".to_owned(),
        column => format!("it is no JSON object, at column {column}"),
    })?;
    for (index, (name, _)) in members.iter().enumerate() {
        if !fields.iter().any(|field| field.name == *name) {
            return Err(format!("it has the key {name:?}, which no column names"));
        }
        if members[..index].iter().any(|(known, _)| known == name) {
            return Err(format!("it has the key {name:?} twice"));
        }
    }
    for field in fields {
        match members.iter().find(|(name, _)| *name == field.name).map(|(_, raw)| raw.get()) {
            None | Some("null") => row.null(),
            Some(raw) => row
                .write(|out| write(&field.kind, raw, out))
                .map_err(|expected| format!("{}: expected {expected}", field.name))?,
        }
    }
    Ok(())
}

/// Numbers by their digits: through no float.
fn write(kind: &Kind, raw: &str, out: &mut Vec<u8>) -> Result<bool, &'static str> {
    let rules = Rules { decimal_comma: false, blank: Blank::Error };
    if *kind == Kind::Json {
        return value::write(kind, raw.as_bytes(), rules, out);
    }
    let text: Cow<str> = match raw.as_bytes()[0] {
        b'"' => serde_json::from_str(raw).map_err(|_| "a string of Unicode characters")?,
        _ if *kind == Kind::Text => return Err("a string"),
        _ => raw.into(),
    };
    value::write(kind, text.as_bytes(), rules, out)
}

/// In their order, also those that stand twice.
struct Members<'a>(Vec<(String, &'a RawValue)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Object)
    }
}
