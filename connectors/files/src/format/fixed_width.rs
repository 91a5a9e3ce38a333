//! Text lines with fields at fixed places.

use std::io::Read;

use super::framing::line;
use super::input::Input;
use super::value::{self, Rules};
use super::{FileFault, Next, Reader, Trailer};
use crate::config::FixedWidthConfig;
use crate::record::Charset;
use crate::row::{Field, RowBuffer};

pub(crate) struct FixedWidth {
    charset: Charset,
    columns: Vec<Column>,
    fields: Vec<Field>,
    length: usize,
    rules: Rules,
    trailer: Option<Vec<u8>>,
}

struct Column {
    field: Field,
    start: usize,
    end: usize,
}

impl FixedWidth {
    pub(super) fn new(config: &FixedWidthConfig, trailer: Option<String>) -> Result<FixedWidth, (String, String)> {
        let charset = Charset::named(&config.encoding).ok_or_else(|| {
            (
                "encoding".to_owned(),
                format!("found {:?}, expected an encoding with one byte for each character, or utf-8", config.encoding),
            )
        })?;
        let mut columns = Vec::new();
        let mut start = 0;
        for (index, column) in config.columns.iter().enumerate() {
            let Some(width) = column.width.filter(|width| *width > 0) else {
                return Err((format!("columns[{index}]"), format!("{} has no `width`", column.name)));
            };
            if column.name != "-" {
                columns.push(Column { field: value::field(column), start, end: start + width });
            }
            start += width;
        }
        if columns.is_empty() {
            return Err(("columns".into(), "the list names no column".into()));
        }
        let encoded = trailer.map(|text| {
            let mut bytes = Vec::new();
            charset.encode(&text, &mut bytes).map(|()| bytes)
        });
        let trailer = encoded
            .transpose()
            .map_err(|char| ("encoding".into(), format!("it has no {char:?}, which the trailer begins with")))?;
        let fields = columns.iter().map(|column| column.field.clone()).collect();
        let rules = Rules { decimal_comma: config.decimal_comma, blank: config.blank_numbers };
        Ok(FixedWidth { charset, columns, fields, length: start, rules, trailer })
    }

    pub(super) fn fields(&self) -> Vec<Field> {
        self.fields.clone()
    }

    pub(super) fn open(&self, file: Box<dyn Read + Send>, record_max: usize) -> Box<dyn Reader + '_> {
        Box::new(Open { format: self, input: Input::new(file, record_max), text: Vec::new() })
    }
}

struct Open<'a> {
    format: &'a FixedWidth,
    input: Input,
    text: Vec<u8>,
}

/// What ends a line: LF, or NEL in EBCDIC.
pub(super) fn newline(charset: &Charset) -> u8 {
    if charset.ebcdic { 0x15 } else { b'\n' }
}

impl Open<'_> {
    fn row(&mut self, length: usize, row: &mut RowBuffer) -> Result<(), String> {
        let format = self.format;
        let record = &self.input.available()[..length];
        let space = format.charset.space();
        if record.len() > format.length && record[format.length..].iter().any(|byte| *byte != space) {
            return Err(format!("the line has {} bytes, expected {}", record.len(), format.length));
        }
        for column in &format.columns {
            let bytes = record.get(column.start..).unwrap_or_default();
            let bytes = &bytes[..bytes.len().min(column.end - column.start)];
            let end = bytes.iter().rposition(|byte| *byte != space).map_or(0, |last| last + 1);
            self.text.clear();
            let decoded = format.charset.decode(&bytes[..end], &mut self.text);
            decoded.map_err(|(byte, at)| {
                format!(
                    "{}: byte {} is 0x{byte:02x}, which is no character of its encoding",
                    column.field.name,
                    column.start + at + 1
                )
            })?;
            row.write(|out| value::write(&column.field.kind, &self.text, format.rules, out))
                .map_err(|expected| format!("{}: expected {expected}", column.field.name))?;
        }
        Ok(())
    }
}

impl Reader for Open<'_> {
    fn fields(&self) -> &[Field] {
        &self.format.fields
    }

    fn offset(&self) -> u64 {
        self.input.offset()
    }

    fn next(&mut self, row: &mut RowBuffer) -> Result<Next, FileFault> {
        let Some(frame) = line(&mut self.input, newline(&self.format.charset))? else { return Ok(Next::End) };
        let record = &self.input.available()[..frame.length];
        let next = match &self.format.trailer {
            Some(trailer) if record.starts_with(trailer) => {
                Next::Trailer(Trailer::Text(text(&self.format.charset, record)))
            }
            _ => match self.row(frame.length, row) {
                Ok(()) => Next::Record,
                Err(reason) => Next::Bad { bytes: self.input.available()[..frame.length].to_vec(), reason },
            },
        };
        self.input.consume(frame.length + frame.tail);
        Ok(next)
    }
}

/// A trailer's bytes as ASCII, one for each; what is none is `?`.
pub(super) fn text(charset: &Charset, bytes: &[u8]) -> Vec<u8> {
    let mut one = Vec::new();
    let ascii = |byte: &u8| {
        one.clear();
        match charset.decode(&[*byte], &mut one) {
            Ok(()) if one.len() == 1 => one[0],
            _ => b'?',
        }
    };
    bytes.iter().map(ascii).collect()
}
