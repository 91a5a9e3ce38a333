//! Records by copybook, in any framing.

use std::io::Read;
use std::path::{Path, PathBuf};

use super::fixed_width::{newline, text};
use super::framing::Framer;
use super::input::Input;
use super::{FileFault, Next, Reader, Trailer};
use crate::config::{CopybookConfig, Framing};
use crate::copybook::{Layout, Library, Replacement, parse};
use crate::record::{Charset, Decoder, EBCDIC, RecordOptions};
use crate::row::{Field, RowBuffer};

pub(crate) struct Records {
    decoder: Decoder,
    charset: Charset,
    framing: Framing,
    trailer: Option<Vec<u8>>,
}

/// What COPY names is a file beside the copybook, with or without one of the usual endings.
struct Beside(PathBuf);

impl Library for Beside {
    fn member(&self, name: &str) -> Option<String> {
        // A name of the folder's own: no path out of it.
        if name.contains(['/', '\\']) || name.starts_with('.') {
            return None;
        }
        let lower = name.to_lowercase();
        let candidates = [name, lower.as_str()]
            .into_iter()
            .flat_map(|name| ["", ".cpy", ".CPY", ".cbl", ".copy"].map(|end| format!("{name}{end}")));
        candidates.into_iter().find_map(|name| read(&self.0.join(name)).ok())
    }
}

/// Latin-1 where it is not UTF-8: what is not ASCII stands in comments.
fn read(path: &Path) -> std::io::Result<String> {
    let bytes = std::fs::read(path)?;
    Ok(String::from_utf8(bytes).unwrap_or_else(|error| error.into_bytes().into_iter().map(char::from).collect()))
}

fn layout(config: &CopybookConfig) -> Result<Layout, (String, String)> {
    let at = |key: &str| key.to_owned();
    let text = read(&config.file).map_err(|error| (at("file"), format!("{}: {error}", config.file.display())))?;
    let replacements = config.replacing.iter().map(|(from, by)| Replacement::new(from, by));
    let replacements: Vec<_> =
        replacements.collect::<Result<_, _>>().map_err(|error| (at("replacing"), error.message))?;
    let folder = config.file.parent().unwrap_or(Path::new("")).to_owned();
    let mut records = parse(&text, config.form, &Beside(folder), &replacements)
        .map_err(|error| (at("file"), format!("{}: {error}", config.file.display())))?;
    let names: Vec<_> = records.iter().map(|record| record.name.clone()).collect();
    match &config.record {
        None if records.len() == 1 => Ok(records.remove(0)),
        None => Err((at("record"), format!("the copybook has several records: say which of {}", names.join(", ")))),
        Some(name) => match names.iter().position(|known| known.eq_ignore_ascii_case(name)) {
            Some(index) => Ok(records.remove(index)),
            None => Err((at("record"), format!("the copybook has no record {name:?}, only {}", names.join(", ")))),
        },
    }
}

impl Records {
    pub(super) fn new(config: &CopybookConfig, trailer: Option<String>) -> Result<Records, (String, String)> {
        let charset = |key: &str, name: &str| {
            Charset::named(name).ok_or_else(|| {
                (
                    key.to_owned(),
                    format!(
                        "found {name:?}, expected one of {}, or an encoding with one byte for each character",
                        EBCDIC.join(", ")
                    ),
                )
            })
        };
        let page = charset("charset", &config.charset)?;
        let charsets = config.charsets.iter().map(|(field, name)| Ok((field.clone(), charset("charsets", name)?)));
        let options = RecordOptions {
            charset: page,
            charsets: charsets.collect::<Result<_, (String, String)>>()?,
            overpunch: config.overpunch,
            binary: config.binary,
            native: config.native,
            floats: config.floats,
            blank_numbers: config.blank_numbers,
            trim: config.trim,
            filler: false,
            depending_on: config.depending_on,
            variants: config.variants.clone(),
        };
        let layout = layout(config)?;
        let decoder = Decoder::compile(&layout, &options).map_err(|error| ("file".into(), error.to_string()))?;
        if decoder.varies() && config.framing == Framing::F {
            return Err((
                "framing".into(),
                "the records differ in length, by DEPENDING ON: `f` cannot tell them apart".into(),
            ));
        }
        if decoder.has_binary() && config.framing == Framing::Lines {
            let message = "some fields are binary, packed or UTF-16, and their bytes may look like line ends: `lines` cannot tell them apart";
            return Err(("framing".into(), message.into()));
        }
        let encoded = trailer.map(|text| {
            let mut bytes = Vec::new();
            page.encode(&text, &mut bytes).map(|()| bytes)
        });
        let trailer = encoded
            .transpose()
            .map_err(|char| ("charset".into(), format!("it has no {char:?}, which the trailer begins with")))?;
        Ok(Records { decoder, charset: page, framing: config.framing, trailer })
    }

    pub(super) fn fields(&self) -> Vec<Field> {
        self.decoder.fields().to_vec()
    }

    pub(super) fn open(&self, file: Box<dyn Read + Send>, record_max: usize) -> Box<dyn Reader + '_> {
        let framer = Framer::new(self.framing, self.decoder.length(), newline(&self.charset));
        Box::new(Open { format: self, input: Input::new(file, record_max), framer, padded: Vec::new() })
    }
}

struct Open<'a> {
    format: &'a Records,
    input: Input,
    framer: Framer,
    padded: Vec<u8>,
}

impl Reader for Open<'_> {
    fn fields(&self) -> &[Field] {
        self.format.decoder.fields()
    }

    fn offset(&self) -> u64 {
        self.input.offset()
    }

    fn next(&mut self, row: &mut RowBuffer) -> Result<Next, FileFault> {
        let Some(frame) = self.framer.next(&mut self.input)? else { return Ok(Next::End) };
        let format = self.format;
        let mut record = &self.input.available()[frame.skip..][..frame.length];
        let next = match &format.trailer {
            Some(trailer) if record.starts_with(trailer) => Next::Trailer(Trailer::Text(text(&format.charset, record))),
            _ => {
                if format.framing == Framing::Lines
                    && record.len() < format.decoder.length()
                    && !format.decoder.varies()
                {
                    self.padded.clear();
                    self.padded.extend_from_slice(record);
                    self.padded.resize(format.decoder.length(), format.decoder.space());
                    record = &self.padded;
                }
                match format.decoder.decode(record, row) {
                    Ok(()) => Next::Record,
                    Err(fault) => Next::Bad { bytes: record.to_vec(), reason: fault.to_string() },
                }
            }
        };
        self.input.consume(frame.skip + frame.length + frame.tail);
        Ok(next)
    }
}
