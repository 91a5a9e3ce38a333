//! Incoming frames: cut out of a bounded buffer here, their payloads parsed by `amq-protocol`.

use std::fmt;

use amq_protocol::frame::AMQPContentHeader;
use amq_protocol::frame::parsing::parse_content_header;
use amq_protocol::protocol::constants::{FRAME_BODY, FRAME_END, FRAME_HEADER, FRAME_HEARTBEAT, FRAME_METHOD};
use amq_protocol::protocol::{AMQPClass, parse_class};

use super::FRAME_OVERHEAD_BYTES;

const BUFFER_BYTES_FIRST: usize = 32 << 10;

/// What came. Body frames belong to returned messages, whose bodies nobody needs: they are passed over unread.
#[derive(Debug)]
pub(crate) enum Incoming {
    Method(u16, AMQPClass),
    Header(u16, Box<AMQPContentHeader>),
    Nothing,
}

/// Bytes that are not AMQP 0-9-1. Says where, never the bytes.
#[derive(Debug)]
pub(crate) struct Garbled(String);

impl fmt::Display for Garbled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A buffer that the socket fills and frames are cut from.
#[derive(Debug)]
pub(crate) struct FrameReader {
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    /// The largest frame that the peer may send, overhead included.
    frame_bytes_max: usize,
}

impl FrameReader {
    pub(crate) fn new(frame_bytes_max: usize) -> FrameReader {
        FrameReader { buffer: vec![0; BUFFER_BYTES_FIRST], start: 0, end: 0, frame_bytes_max }
    }

    pub(crate) fn set_frame_bytes_max(&mut self, frame_bytes_max: usize) {
        self.frame_bytes_max = frame_bytes_max;
    }

    /// Where the socket puts what it reads; never empty.
    pub(crate) fn space(&mut self) -> &mut [u8] {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        } else if self.end == self.buffer.len() {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
            if self.end == self.buffer.len() {
                // One frame fills it all. `next` has checked that the frame is allowed to be larger.
                let longer = (self.buffer.len() * 2).min(self.frame_bytes_max.max(self.buffer.len() + 1));
                self.buffer.resize(longer, 0);
            }
        }
        &mut self.buffer[self.end..]
    }

    pub(crate) fn filled(&mut self, bytes: usize) {
        self.end += bytes;
    }

    /// The next whole frame, if there is one.
    pub(crate) fn next(&mut self) -> Result<Option<Incoming>, Garbled> {
        let bytes = &self.buffer[self.start..self.end];
        if bytes.starts_with(b"AMQP") {
            // The answer to a protocol header that the server does not like (specification 4.2.2).
            return Err(Garbled("the server speaks another version of AMQP than 0-9-1".into()));
        }
        let Some((head, rest)) = bytes.split_first_chunk::<7>() else { return Ok(None) };
        let kind = head[0];
        let channel = u16::from_be_bytes([head[1], head[2]]);
        let length = u32::from_be_bytes([head[3], head[4], head[5], head[6]]) as usize;
        if !matches!(kind, FRAME_METHOD | FRAME_HEADER | FRAME_BODY | FRAME_HEARTBEAT) {
            return Err(Garbled(format!("a frame of the unknown type {kind}: the peer does not speak AMQP 0-9-1")));
        }
        if length + FRAME_OVERHEAD_BYTES > self.frame_bytes_max {
            let limit = self.frame_bytes_max;
            return Err(Garbled(format!("a frame of {length} bytes, where at most {limit} were agreed on")));
        }
        if rest.len() <= length {
            return Ok(None);
        }
        if rest[length] != FRAME_END {
            return Err(Garbled(format!("a frame of type {kind} without its end mark")));
        }
        let payload = &rest[..length];
        let frame = match kind {
            FRAME_METHOD => parse_class(payload).map(|(_, class)| Incoming::Method(channel, class)),
            FRAME_HEADER => {
                parse_content_header(payload).map(|(_, header)| Incoming::Header(channel, Box::new(header)))
            }
            _ => Ok(Incoming::Nothing),
        };
        let frame = frame.map_err(|_| Garbled(format!("a frame of type {kind} that cannot be read")))?;
        self.start += length + FRAME_OVERHEAD_BYTES;
        Ok(Some(frame))
    }
}

/// Bytes in pieces whose size the first byte gives, for `fuzz/`.
#[cfg(any(test, fuzzing))]
pub(crate) fn read_frames(bytes: &[u8]) {
    let Some((piece, mut bytes)) = bytes.split_first() else { return };
    let mut reader = FrameReader::new(64 << 10);
    while !bytes.is_empty() {
        let space = reader.space();
        let count = space.len().min(usize::from(*piece) + 1).min(bytes.len());
        space[..count].copy_from_slice(&bytes[..count]);
        reader.filled(count);
        bytes = &bytes[count..];
        loop {
            match reader.next() {
                Ok(Some(frame)) => drop(format!("{frame:?}")),
                Ok(None) => break,
                Err(garbled) => return drop(garbled.to_string()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use amq_protocol::protocol::basic;
    use proptest::prelude::*;

    use super::super::encode;
    use super::*;

    fn acks(count: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        for delivery_tag in 1..=count {
            let ack = basic::AMQPMethod::Ack(basic::Ack { delivery_tag, multiple: false });
            encode::method(&mut bytes, 7, AMQPClass::Basic(ack));
            encode::heartbeat(&mut bytes);
        }
        bytes
    }

    fn feed(reader: &mut FrameReader, mut bytes: &[u8], piece: usize) -> Vec<u64> {
        let mut tags = Vec::new();
        while !bytes.is_empty() {
            let space = reader.space();
            let count = space.len().min(piece).min(bytes.len());
            space[..count].copy_from_slice(&bytes[..count]);
            reader.filled(count);
            bytes = &bytes[count..];
            while let Some(frame) = reader.next().unwrap() {
                if let Incoming::Method(7, AMQPClass::Basic(basic::AMQPMethod::Ack(ack))) = frame {
                    tags.push(ack.delivery_tag);
                }
            }
        }
        tags
    }

    proptest! {
        #[test]
        fn frames_are_found_however_the_bytes_are_cut(count in 1u64..3000, piece in 1usize..5000) {
            let mut reader = FrameReader::new(131_072);
            prop_assert_eq!(feed(&mut reader, &acks(count), piece), (1..=count).collect::<Vec<_>>());
        }

        #[test]
        fn any_bytes_are_refused_or_waited_for_but_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut reader = FrameReader::new(4096);
            reader.space()[..bytes.len()].copy_from_slice(&bytes);
            reader.filled(bytes.len());
            while let Ok(Some(_)) = reader.next() {}
        }
    }

    #[test]
    fn a_frame_larger_than_the_buffer_makes_it_grow_up_to_the_agreed_size() {
        let mut reader = FrameReader::new(131_072);
        let body = vec![1; 400_000];
        let content = encode::Content { exchange: "", routing_key: "", properties: &[0, 0], body: &body };
        let mut bytes = Vec::new();
        encode::publish(&mut bytes, 3, 131_072, &content);
        bytes.extend_from_slice(&acks(2));
        assert_eq!(feed(&mut reader, &bytes, 10_000), [1, 2]);
        assert!(reader.buffer.len() <= 131_072);
    }

    #[test]
    fn a_frame_beyond_the_agreed_size_is_refused() {
        let mut reader = FrameReader::new(4096);
        let head = [FRAME_METHOD, 0, 1, 0, 1, 0, 0];
        reader.space()[..7].copy_from_slice(&head);
        reader.filled(7);
        assert!(reader.next().unwrap_err().to_string().contains("65536"));
    }
}
