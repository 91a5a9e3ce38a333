//! Delimited text. RFC 4180, with what legacy systems do besides: other delimiters and quotes, escapes, no quotes at all.
//!
//! Strict where a lenient reader would guess: text after a closing quote, and a quote that never closes, are faults.

use std::io::Read;

use towpath_contract::Kind;

use super::input::Input;
use super::transcode::Text;
use super::value::{self, Rules};
use super::{FileFault, Next, Reader, Trailer, fault};
use crate::config::DelimitedConfig;
use crate::record::Blank;
use crate::row::{Field, RowBuffer};

pub(crate) struct Delimited {
    delimiter: u8,
    quote: Option<u8>,
    escape: Option<u8>,
    text: Text,
    header: bool,
    fields: Option<Vec<Field>>,
    null: Option<Vec<u8>>,
    rules: Rules,
    short: Blank,
    trailer: Option<String>,
}

impl Delimited {
    pub(super) fn new(config: &DelimitedConfig, trailer: Option<String>) -> Result<Delimited, (String, String)> {
        let ascii = |key: &str, char: char| match char.is_ascii() && !matches!(char, '\n' | '\r') {
            true => Ok(char as u8),
            false => Err((key.to_owned(), format!("found {char:?}, expected one ASCII character that ends no line"))),
        };
        let delimiter = ascii("delimiter", config.delimiter)?;
        let quote = config.quote.map(|char| ascii("quote", char)).transpose()?;
        let escape = config.escape.map(|char| ascii("escape", char)).transpose()?;
        if quote == Some(delimiter) || escape == Some(delimiter) {
            return Err(("delimiter".into(), "the delimiter is the quote or the escape, too".into()));
        }
        let text = Text::named(&config.encoding)
            .ok_or_else(|| ("encoding".into(), format!("there is no encoding {:?}", config.encoding)))?;
        if !config.header && config.columns.is_empty() {
            return Err(("columns".into(), "without a header the columns must be named".into()));
        }
        let fields = (!config.columns.is_empty()).then(|| config.columns.iter().map(value::field).collect());
        Ok(Delimited {
            delimiter,
            quote,
            escape,
            text,
            header: config.header,
            fields,
            null: config.null.clone().map(String::into_bytes),
            rules: Rules { decimal_comma: config.decimal_comma, blank: config.blank_numbers },
            short: config.short_records,
            trailer,
        })
    }

    pub(super) fn fields(&self) -> Option<Vec<Field>> {
        self.fields.clone()
    }

    pub(super) fn open(
        &self,
        file: Box<dyn Read + Send>,
        record_max: usize,
    ) -> Result<Box<dyn Reader + '_>, FileFault> {
        let mut reader = Open {
            format: self,
            input: Input::new(self.text.reader(file), record_max),
            parts: Vec::new(),
            unquoted: Vec::new(),
            fields: self.fields.clone().unwrap_or_default(),
            order: (0..self.fields.as_ref().map_or(0, Vec::len)).collect(),
        };
        // A byte order mark is no text.
        if reader.input.at_least(3)? == b"\xef\xbb\xbf" {
            reader.input.consume(3);
        }
        if self.header {
            reader.header()?;
        }
        Ok(Box::new(reader))
    }
}

/// A field of the present record: where it lies in the input, or in `unquoted`.
#[derive(Clone, Copy)]
struct Part {
    start: usize,
    end: usize,
    quoted: bool,
    rewritten: bool,
}

struct Open<'a> {
    format: &'a Delimited,
    input: Input,
    parts: Vec<Part>,
    /// Quoted texts without their escapes.
    unquoted: Vec<u8>,
    fields: Vec<Field>,
    /// For each column the part of a record that it is.
    order: Vec<usize>,
}

enum Split {
    /// Bytes of the record with its end.
    Record(usize),
    /// The window ends before the record does.
    More,
    /// What is wrong, and bytes up to where the next record may begin.
    Bad(usize, String),
}

impl Open<'_> {
    fn part(&self, part: Part) -> &[u8] {
        let from = if part.rewritten { &self.unquoted } else { self.input.available() };
        &from[part.start..part.end]
    }

    fn header(&mut self) -> Result<(), FileFault> {
        let length = match self.split()? {
            Some(Split::Record(length)) => length,
            Some(Split::Bad(_, reason)) => return fault(&self.input, format!("the header: {reason}")),
            _ if self.format.fields.is_some() => return Ok(()),
            _ => return fault(&self.input, "the file is empty, expected a header"),
        };
        let mut names = Vec::with_capacity(self.parts.len());
        for part in &self.parts {
            let Ok(name) = std::str::from_utf8(self.part(*part)) else {
                return fault(&self.input, "the header is not UTF-8: which `encoding` does the file have?");
            };
            if names.iter().any(|known| known == name) {
                return fault(&self.input, format!("the header names {name:?} twice"));
            }
            names.push(name.to_owned());
        }
        match &self.format.fields {
            None => {
                self.order = (0..names.len()).collect();
                let field = |name: String| Field { name, kind: Kind::Text, type_name: "text".into() };
                self.fields = names.into_iter().map(field).collect();
            }
            Some(fields) => {
                let missing: Vec<_> = fields
                    .iter()
                    .map(|field| field.name.as_str())
                    .filter(|name| !names.iter().any(|known| known == name))
                    .collect();
                let column = |name: &String| fields.iter().position(|field| field.name == *name);
                let unknown: Vec<_> = names.iter().filter(|name| column(name).is_none()).map(String::as_str).collect();
                if !missing.is_empty() || !unknown.is_empty() {
                    let message = format!(
                        "the header does not have the columns of the config: missing {missing:?}, unknown {unknown:?}"
                    );
                    return fault(&self.input, message);
                }
                let part = |field: &Field| names.iter().position(|name| *name == field.name);
                self.order = fields.iter().filter_map(part).collect();
            }
        }
        self.input.consume(length);
        Ok(())
    }

    /// Splits the next record. `None` at the end of the file.
    fn split(&mut self) -> Result<Option<Split>, FileFault> {
        let mut ended = false;
        loop {
            match self.split_window(ended) {
                Split::More if !ended => ended = !self.input.more()?,
                Split::More if self.input.available().is_empty() => return Ok(None),
                Split::More => {
                    return fault(
                        &self.input,
                        "a quote opens in this record and never closes: the file ends within it",
                    );
                }
                found => return Ok(Some(found)),
            }
        }
    }

    /// `ended`: the window ends where the file does.
    fn split_window(&mut self, ended: bool) -> Split {
        self.parts.clear();
        self.unquoted.clear();
        let (text, format) = (self.input.available(), self.format);
        if text.is_empty() {
            return Split::More;
        }
        let mut at = 0;
        loop {
            let part = if format.quote.is_some() && text.get(at) == format.quote.as_ref() {
                match quoted(format, text, at + 1, &mut self.unquoted) {
                    Some((part, next)) => {
                        at = next;
                        part
                    }
                    None => return Split::More,
                }
            } else {
                let rest = &text[at..];
                let length = unquoted_length(format.delimiter, rest);
                if length.is_none() && !ended {
                    return Split::More;
                }
                let length = length.unwrap_or(rest.len());
                let cut = usize::from(rest.get(length) == Some(&b'\n') && length > 0 && rest[length - 1] == b'\r');
                let start = at;
                at += length - cut;
                Part { start, end: at, quoted: false, rewritten: false }
            };
            self.parts.push(part);
            match &text[at..] {
                [byte, ..] if *byte == format.delimiter => at += 1,
                [b'\n', ..] => return Split::Record(at + 1),
                [b'\r', b'\n', ..] => return Split::Record(at + 2),
                [] | [b'\r'] if !ended => return Split::More,
                [] => return Split::Record(at),
                _ => {
                    let end = memchr::memchr(b'\n', &text[at..]);
                    if end.is_none() && !ended {
                        return Split::More;
                    }
                    let end = end.map_or(text.len(), |length| at + length + 1);
                    return Split::Bad(
                        end,
                        format!("after the quote that closes field {} stands more text", self.parts.len()),
                    );
                }
            }
        }
    }

    fn row(&self, length: usize, row: &mut RowBuffer) -> Result<(), String> {
        // Then it need not be looked at whether each text is UTF-8.
        let ascii = self.input.available()[..length].is_ascii();
        let (found, expected) = (self.parts.len(), self.fields.len());
        if found > expected || found < expected && self.format.short == Blank::Error {
            return Err(format!("it has {found} fields, expected {expected}"));
        }
        for (field, index) in self.fields.iter().zip(&self.order) {
            let Some(part) = self.parts.get(*index) else {
                row.null();
                continue;
            };
            let text = self.part(*part);
            if !part.quoted && self.format.null.as_deref() == Some(text) {
                row.null();
                continue;
            }
            if ascii && field.kind == Kind::Text {
                row.value(text);
                continue;
            }
            row.write(|out| value::write(&field.kind, text, self.format.rules, out))
                .map_err(|expected| format!("{}: expected {expected}", field.name))?;
        }
        Ok(())
    }

    fn trailer(&self) -> Option<Trailer> {
        let wanted = self.format.trailer.as_ref()?;
        (self.part(*self.parts.first()?) == wanted.as_bytes()).then(|| {
            Trailer::Fields(
                self.parts.iter().map(|part| String::from_utf8_lossy(self.part(*part)).into_owned()).collect(),
            )
        })
    }
}

/// Fields are mostly short: a plain loop finds their end sooner than a search that has to be set up.
fn unquoted_length(delimiter: u8, text: &[u8]) -> Option<usize> {
    const SHORT: usize = 16;
    let (short, rest) = text.split_at(text.len().min(SHORT));
    let found = short.iter().position(|byte| *byte == delimiter || *byte == b'\n');
    found.or_else(|| memchr::memchr2(delimiter, b'\n', rest).map(|at| SHORT + at))
}

/// A quoted field whose text starts at `from`: the part, and where what follows it begins. `None` where it does not end.
fn quoted(format: &Delimited, text: &[u8], from: usize, unquoted: &mut Vec<u8>) -> Option<(Part, usize)> {
    let quote = format.quote?;
    let start = unquoted.len();
    let mut rewritten = false;
    let mut at = from;
    // What was not yet put into `unquoted`.
    let mut kept = from;
    loop {
        let found = match format.escape {
            Some(escape) => memchr::memchr2(quote, escape, text.get(at..)?),
            None => memchr::memchr(quote, text.get(at..)?),
        };
        let here = at + found?;
        let escape = Some(text[here]) == format.escape && text[here] != quote;
        let doubled = !escape && text.get(here + 1) == Some(&quote);
        if !escape && !doubled {
            let end = here + 1;
            return Some(match rewritten {
                true => {
                    unquoted.extend_from_slice(&text[kept..here]);
                    (Part { start, end: unquoted.len(), quoted: true, rewritten }, end)
                }
                false => (Part { start: from, end: here, quoted: true, rewritten }, end),
            });
        }
        rewritten = true;
        unquoted.extend_from_slice(&text[kept..here]);
        kept = here + 1;
        text.get(kept)?;
        at = here + 2;
    }
}

impl Reader for Open<'_> {
    fn fields(&self) -> &[Field] {
        &self.fields
    }

    fn offset(&self) -> u64 {
        self.input.offset()
    }

    fn next(&mut self, row: &mut RowBuffer) -> Result<Next, FileFault> {
        let (length, reason) = match self.split()? {
            None => return Ok(Next::End),
            Some(Split::Record(length)) => match self.trailer() {
                Some(trailer) => {
                    self.input.consume(length);
                    return Ok(Next::Trailer(trailer));
                }
                None => (length, self.row(length, row).err()),
            },
            Some(Split::Bad(length, reason)) => (length, Some(reason)),
            Some(Split::More) => return Ok(Next::End),
        };
        let empty = self.input.available()[..length].iter().all(|byte| matches!(byte, b'\r' | b'\n'));
        let bytes = if reason.is_some() { self.input.available()[..length].to_vec() } else { Vec::new() };
        self.input.consume(length);
        // An empty last line is how some systems end a file.
        let last = reason.is_some() && empty && self.input.at_least(1)?.is_empty();
        match reason {
            Some(_) if last => Ok(Next::End),
            Some(reason) => Ok(Next::Bad { bytes, reason }),
            None => Ok(Next::Record),
        }
    }
}
