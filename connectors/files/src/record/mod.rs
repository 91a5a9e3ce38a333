//! Records by copybook: a layout and bytes to typed values, and back.
//!
//! [`compile`] settles at the start what each value needs; [`Decoder::decode`] then runs over a flat list of readers. A table is one
//! column: a JSON array.

mod charset;
mod compile;
mod decode;
mod dos;
mod encode;
mod number;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

pub use charset::{Charset, EBCDIC};
pub use decode::Decoder;
pub use number::Overpunch;

/// What a copybook does not say of its records.
#[derive(Clone, Debug)]
pub struct RecordOptions {
    pub charset: Charset,
    /// By the name of a field in the copybook, where its charset is another.
    pub charsets: BTreeMap<String, Charset>,
    pub overpunch: Overpunch,
    /// Of COMP, COMP-4 and BINARY.
    pub binary: ByteOrder,
    /// Of COMP-5.
    pub native: ByteOrder,
    pub floats: Floats,
    pub blank_numbers: Blank,
    /// Spaces at the end of a text are not part of it.
    pub trim: bool,
    /// FILLER is captured too.
    pub filler: bool,
    pub depending_on: DependingOn,
    pub variants: Vec<Variant>,
}

impl RecordOptions {
    /// As a mainframe writes records.
    pub fn mainframe(charset: Charset) -> RecordOptions {
        RecordOptions {
            charset,
            charsets: BTreeMap::new(),
            overpunch: Overpunch::Translated,
            binary: ByteOrder::Big,
            native: ByteOrder::Big,
            floats: Floats::Ibm,
            blank_numbers: Blank::Error,
            trim: true,
            filler: false,
            depending_on: DependingOn::Sliding,
            variants: Vec::new(),
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ByteOrder {
    #[default]
    Big,
    Little,
}

/// The form of COMP-1 and COMP-2.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Floats {
    /// Hexadecimal, as on mainframes.
    #[default]
    Ibm,
    Ieee,
}

/// A number whose field holds only spaces or only low-values (bytes 0).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Blank {
    #[default]
    Error,
    Null,
}

/// Where what follows a table with DEPENDING ON lies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DependingOn {
    /// Right after the entries that are there.
    #[default]
    Sliding,
    /// After room for all entries; every record has the full length.
    Fixed,
    /// After room for all entries; a record ends with the last entry that is there where the table is its last item.
    Cut,
}

/// One of several descriptions of the same bytes, and when it holds.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Variant {
    /// The item's name in the copybook.
    pub item: String,
    /// Fields by their names in the copybook, and the values that each may have. Without it, it always holds.
    #[serde(default)]
    pub when: BTreeMap<String, Vec<String>>,
}

/// What is wrong with one field of one record.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct FieldFault {
    message: String,
}

impl FieldFault {
    fn new(message: impl Into<String>) -> FieldFault {
        FieldFault { message: message.into() }
    }
}

/// What is wrong with a record.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordFault {
    #[error("{field} at byte {}: {fault}", at + 1)]
    Field { field: String, at: usize, fault: FieldFault },
    #[error("the record has {found} bytes, expected {expected}")]
    Length { found: usize, expected: usize },
    #[error("no variant of {area} holds for this record")]
    NoVariant { area: String },
}
