//! The formats: a file's bytes to rows.

mod copybook;
mod dbf;
mod delimited;
mod fixed_width;
pub(crate) mod framing;
pub(crate) mod input;
mod json_lines;
#[cfg(test)]
mod tests;
mod transcode;
mod value;

use std::io::Read;

use crate::config::FormatConfig;
use crate::row::{Field, RowBuffer};

use input::Input;

/// A table's format, with what could be settled before its first file.
pub(crate) enum Format {
    Delimited(delimited::Delimited),
    FixedWidth(fixed_width::FixedWidth),
    JsonLines(json_lines::JsonLines),
    Copybook(copybook::Records),
    Dbf(dbf::Dbf),
}

/// What a file cannot be read for, beyond one record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FileFault {
    /// Bytes from the file's start.
    pub(crate) place: Option<u64>,
    pub(crate) message: String,
}

fn fault<T>(input: &Input, message: impl Into<String>) -> Result<T, FileFault> {
    Err(FileFault { place: Some(input.offset()), message: message.into() })
}

impl std::fmt::Display for FileFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.place {
            Some(place) => write!(f, "at byte {place}: {}", self.message),
            None => f.write_str(&self.message),
        }
    }
}

/// What a reader found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// The row holds it.
    Record,
    /// This one cannot be read; the next one can.
    Bad {
        bytes: Vec<u8>,
        reason: String,
    },
    /// The trailer: what its parts are looked for in.
    Trailer(Trailer),
    End,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Trailer {
    Fields(Vec<String>),
    /// The record's text, one byte for each of its bytes.
    Text(Vec<u8>),
}

/// Reads one file.
pub(crate) trait Reader: Send {
    fn fields(&self) -> &[Field];

    /// The next record, into the empty `row`.
    fn next(&mut self, row: &mut RowBuffer) -> Result<Next, FileFault>;

    /// Bytes from the file's start to the record after the last one.
    fn offset(&self) -> u64;
}

impl Format {
    /// The error names the key below `format` that is wrong. `trailer`: what the last record begins with.
    pub(crate) fn new(config: &FormatConfig, trailer: Option<&str>) -> Result<Format, (String, String)> {
        let trailer = trailer.map(str::to_owned);
        Ok(match config {
            FormatConfig::Delimited(config) => Format::Delimited(delimited::Delimited::new(config, trailer)?),
            FormatConfig::FixedWidth(config) => Format::FixedWidth(fixed_width::FixedWidth::new(config, trailer)?),
            FormatConfig::JsonLines(config) => Format::JsonLines(json_lines::JsonLines::new(config)?),
            FormatConfig::Copybook(config) => Format::Copybook(copybook::Records::new(config, trailer)?),
            FormatConfig::Dbf(config) => Format::Dbf(dbf::Dbf::new(config)?),
        })
    }

    /// `None` where the files themselves name their columns.
    pub(crate) fn fields(&self) -> Option<Vec<Field>> {
        match self {
            Format::Delimited(format) => format.fields(),
            Format::FixedWidth(format) => Some(format.fields()),
            Format::JsonLines(format) => Some(format.fields()),
            Format::Copybook(format) => Some(format.fields()),
            Format::Dbf(_) => None,
        }
    }

    /// `record_max`: the longest record, in bytes.
    pub(crate) fn open<'a>(
        &'a self,
        file: Box<dyn Read + Send>,
        record_max: usize,
    ) -> Result<Box<dyn Reader + 'a>, FileFault> {
        match self {
            Format::Delimited(format) => format.open(file, record_max),
            Format::FixedWidth(format) => Ok(format.open(file, record_max)),
            Format::JsonLines(format) => Ok(format.open(file, record_max)),
            Format::Copybook(format) => Ok(format.open(file, record_max)),
            Format::Dbf(format) => format.open(file, record_max),
        }
    }
}
