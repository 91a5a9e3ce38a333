//! The bytes that were read and not yet consumed.

/// What one read may bring. Large reads keep the server's side cheap too: see [`super::pace`].
pub(crate) const READ_BYTES: usize = 256 << 10;

/// One reusable buffer. It grows for a message that is larger, and shrinks when that one was consumed.
pub(crate) struct Buffer {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
}

impl Buffer {
    pub(crate) fn new() -> Buffer {
        Buffer { bytes: vec![0; READ_BYTES], start: 0, end: 0 }
    }

    pub(crate) fn unread(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    pub(crate) fn consume(&mut self, count: usize) {
        self.start += count;
        debug_assert!(self.start <= self.end);
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
            if self.bytes.len() > READ_BYTES {
                self.bytes = vec![0; READ_BYTES];
            }
        }
    }

    /// Room for the next read. `message_bytes`: the length of the message that is arriving, as far as it is known.
    pub(crate) fn space(&mut self, message_bytes: usize) -> &mut [u8] {
        let unread = self.end - self.start;
        // Moved only when what is left of the room is small: mostly it is a few bytes of a cut message.
        if self.start > 0
            && (self.bytes.len() - self.end < READ_BYTES / 4 || message_bytes > self.bytes.len() - self.start)
        {
            self.bytes.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, unread);
        }
        if self.end == self.bytes.len() || message_bytes > self.bytes.len() {
            // Doubling, and not at once what the length claims: it may be nonsense.
            let wanted = message_bytes.min(self.bytes.len() * 2).max(self.end + READ_BYTES / 4);
            if self.end * 2 > self.bytes.len() && wanted > self.bytes.len() {
                self.bytes.resize(wanted, 0);
            }
        }
        &mut self.bytes[self.end..]
    }

    pub(crate) fn filled(&mut self, count: usize) {
        self.end += count;
        debug_assert!(self.end <= self.bytes.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_huge_message_fits_and_does_not_stay_resident() {
        let mut buffer = Buffer::new();
        let huge = READ_BYTES * 9 + 5;
        let mut read = 0;
        while read < huge {
            let space = buffer.space(huge);
            let count = space.len().min(huge - read).min(70_000);
            assert!(count > 0);
            space[..count].fill(7);
            buffer.filled(count);
            read += count;
        }
        assert_eq!(buffer.unread().len(), huge);
        buffer.consume(huge);
        assert_eq!(buffer.bytes.len(), READ_BYTES);
    }

    proptest! {
        #[test]
        fn bytes_come_out_as_they_went_in(steps in proptest::collection::vec((1..400_000usize, 0..400_000usize, 0..900_000usize), 1..40)) {
            let mut buffer = Buffer::new();
            let (mut written, mut read) = (0u64, 0u64);
            for (fill, consume, message) in steps {
                let space = buffer.space(message);
                prop_assert!(!space.is_empty());
                let fill = fill.min(space.len());
                for byte in &mut space[..fill] {
                    *byte = written as u8;
                    written += 1;
                }
                buffer.filled(fill);
                let consume = consume.min(buffer.unread().len());
                for byte in &buffer.unread()[..consume] {
                    prop_assert_eq!(*byte, read as u8);
                    read += 1;
                }
                buffer.consume(consume);
            }
            prop_assert_eq!(buffer.unread().len() as u64, written - read);
        }
    }
}
