//! Text in any encoding, as UTF-8.

use std::io::{self, Read};

use encoding_rs::{Decoder, DecoderResult, Encoding};

use crate::record::Charset;

/// What the text of a file is written in.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Text {
    Table(Charset),
    Other(&'static Encoding),
}

impl Text {
    pub(crate) fn named(name: &str) -> Option<Text> {
        let other = || Encoding::for_label(name.as_bytes()).map(Text::Other);
        Charset::named(name).map(Text::Table).or_else(other)
    }

    /// The file as UTF-8. UTF-8 itself is passed through: its readers look at each value.
    pub(crate) fn reader(self, file: Box<dyn Read + Send>) -> Box<dyn Read + Send> {
        let coder = match self {
            Text::Table(charset) if charset == Charset::UTF8 => return file,
            Text::Table(charset) => Coder::Table(charset),
            Text::Other(encoding) => Coder::Stateful(encoding.new_decoder_with_bom_removal()),
        };
        Box::new(Transcoded { file, coder, raw: vec![0; 64 << 10], text: Vec::new(), given: 0, read: 0, ended: false })
    }
}

enum Coder {
    Table(Charset),
    Stateful(Decoder),
}

struct Transcoded {
    file: Box<dyn Read + Send>,
    coder: Coder,
    raw: Vec<u8>,
    text: Vec<u8>,
    given: usize,
    /// Bytes of the file, for errors.
    read: u64,
    ended: bool,
}

impl Read for Transcoded {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.given == self.text.len() && !self.ended {
            let read = self.file.read(&mut self.raw)?;
            self.ended = read == 0;
            self.text.clear();
            self.given = 0;
            self.decode(read)?;
            self.read += read as u64;
        }
        let length = out.len().min(self.text.len() - self.given);
        out[..length].copy_from_slice(&self.text[self.given..][..length]);
        self.given += length;
        Ok(length)
    }
}

impl Transcoded {
    fn decode(&mut self, read: usize) -> io::Result<()> {
        let raw = &self.raw[..read];
        let decoder = match &mut self.coder {
            Coder::Table(charset) => {
                let at = self.read;
                return charset.decode(raw, &mut self.text).map_err(|(byte, index)| {
                    io::Error::other(format!(
                        "byte {} is 0x{byte:02x}, which is no character of its encoding",
                        at + index as u64
                    ))
                });
            }
            Coder::Stateful(decoder) => decoder,
        };
        let room = decoder.max_utf8_buffer_length_without_replacement(read).unwrap_or(read * 4 + 16);
        self.text.resize(room, 0);
        let (result, _, written) = decoder.decode_to_utf8_without_replacement(raw, &mut self.text, read == 0);
        self.text.truncate(written);
        match result {
            DecoderResult::InputEmpty => Ok(()),
            DecoderResult::OutputFull => Err(io::Error::other("the text is longer than its decoder said")),
            DecoderResult::Malformed(..) => Err(io::Error::other(format!(
                "between bytes {} and {} stands no text of its encoding",
                self.read,
                self.read + read as u64
            ))),
        }
    }
}
