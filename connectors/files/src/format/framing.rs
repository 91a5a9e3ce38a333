//! Where one record ends and the next begins.
//!
//! IBM, *z/OS DFSMS Using Data Sets*, "Variable-length record formats": a descriptor word is a length in two bytes, which counts the word
//! itself, and two bytes that are 0. In a block descriptor word the first bit set means a length of 31 bits.

use std::io;

use super::input::Input;
use super::{FileFault, fault};
use crate::config::Framing;

/// The next record's place and length: it starts `skip` bytes into what is available.
pub(crate) struct Frame {
    pub(crate) skip: usize,
    pub(crate) length: usize,
    /// Bytes to consume after it.
    pub(crate) tail: usize,
}

pub(crate) struct Framer {
    framing: Framing,
    /// For `F`.
    length: usize,
    /// Bytes left of the present block.
    block: usize,
    newline: u8,
}

const WORD: usize = 4;

impl Framer {
    /// `newline`: what ends a line in the file's charset.
    pub(crate) fn new(framing: Framing, length: usize, newline: u8) -> Framer {
        Framer { framing, length, block: 0, newline }
    }

    /// `None` at the end of the file. The record is then available as a whole.
    pub(crate) fn next(&mut self, input: &mut Input) -> Result<Option<Frame>, FileFault> {
        match self.framing {
            Framing::F => {
                let found = input.at_least(self.length)?.len();
                match found {
                    0 => Ok(None),
                    found if found < self.length => {
                        fault(input, format!("the last record has {found} bytes, expected {}", self.length))
                    }
                    length => Ok(Some(Frame { skip: 0, length, tail: 0 })),
                }
            }
            Framing::V => self.variable(input),
            Framing::Vb => {
                while self.block == 0 {
                    let word = input.at_least(WORD)?;
                    if word.is_empty() {
                        return Ok(None);
                    }
                    self.block = match *word {
                        [a, b, 0, 0] if a < 0x80 => usize::from(u16::from_be_bytes([a, b])),
                        [a, b, c, d] if a >= 0x80 => u32::from_be_bytes([a & 0x7f, b, c, d]) as usize,
                        _ => 0,
                    };
                    if self.block < WORD {
                        return fault(input, "this is no block descriptor word; is the file in another framing?");
                    }
                    self.block -= WORD;
                    input.consume(WORD);
                }
                let frame = self.variable(input)?;
                let taken = frame.as_ref().map_or(0, |frame| frame.skip + frame.length);
                match self.block.checked_sub(taken).filter(|_| taken > 0) {
                    Some(left) => self.block = left,
                    None => {
                        return fault(
                            input,
                            format!("a record reaches beyond its block, which has {} bytes more", self.block),
                        );
                    }
                }
                Ok(frame)
            }
            Framing::Lines => line(input, self.newline),
        }
    }

    fn variable(&mut self, input: &mut Input) -> Result<Option<Frame>, FileFault> {
        let word = input.at_least(WORD)?;
        let length = match *word {
            [] => return Ok(None),
            [a, b, 0, 0] => usize::from(u16::from_be_bytes([a, b])),
            [_, _, 1..=3, 0] => return fault(input, "spanned records (RECFM VS, VBS) are not supported"),
            _ => 0,
        };
        if length < WORD {
            return fault(input, "this is no record descriptor word; is the file in another framing?");
        }
        let found = input.at_least(length)?.len();
        match found < length {
            true => fault(input, format!("the last record has {found} bytes, expected {length}")),
            false => Ok(Some(Frame { skip: WORD, length: length - WORD, tail: 0 })),
        }
    }
}

/// A line without its end (LF or CR LF; NEL in EBCDIC).
pub(crate) fn line(input: &mut Input, newline: u8) -> Result<Option<Frame>, FileFault> {
    let mut searched = 0;
    loop {
        let held = input.available();
        if let Some(at) = memchr::memchr(newline, &held[searched..]).map(|at| searched + at) {
            let cut = usize::from(newline == b'\n' && at > 0 && held[at - 1] == b'\r');
            return Ok(Some(Frame { skip: 0, length: at - cut, tail: 1 + cut }));
        }
        searched = held.len();
        if !input.more()? {
            let length = input.available().len();
            return Ok((length > 0).then_some(Frame { skip: 0, length, tail: 0 }));
        }
    }
}

impl From<io::Error> for FileFault {
    fn from(error: io::Error) -> FileFault {
        FileFault { place: None, message: error.to_string() }
    }
}
