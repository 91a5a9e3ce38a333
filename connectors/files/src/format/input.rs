//! A file's bytes, in a window that grows to the longest record and no further.

use std::io::{self, Read};

pub(crate) struct Input {
    source: Box<dyn Read + Send>,
    window: Vec<u8>,
    start: usize,
    /// Bytes before the window's start.
    offset: u64,
    max: usize,
    ended: bool,
}

/// Read at once; more for a long record, so that looking through it again and again costs no more than twice.
const STEP: usize = 256 << 10;

impl Input {
    /// `max`: the longest record, in bytes.
    pub(crate) fn new(source: Box<dyn Read + Send>, max: usize) -> Input {
        Input { source, window: Vec::new(), start: 0, offset: 0, max, ended: false }
    }

    pub(crate) fn available(&self) -> &[u8] {
        &self.window[self.start..]
    }

    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }

    pub(crate) fn consume(&mut self, bytes: usize) {
        self.start += bytes;
        self.offset += bytes as u64;
    }

    /// Reads more. `false`: there is no more. An error where the window already holds as much as a record may have.
    pub(crate) fn more(&mut self) -> io::Result<bool> {
        if self.ended {
            return Ok(false);
        }
        let held = self.window.len() - self.start;
        if held > self.max {
            return Err(io::Error::other(format!("a record is longer than {} bytes (`record_max`)", self.max)));
        }
        self.window.drain(..self.start);
        self.start = 0;
        if held == 0 {
            self.window.shrink_to(4 * STEP);
        }
        let read = (&mut self.source).take(STEP.max(held) as u64).read_to_end(&mut self.window)?;
        self.ended = read == 0;
        Ok(read > 0)
    }

    /// So many bytes, or as many as are left.
    pub(crate) fn at_least(&mut self, bytes: usize) -> io::Result<&[u8]> {
        while self.available().len() < bytes && self.more()? {}
        let held = self.available();
        Ok(&held[..held.len().min(bytes)])
    }
}
