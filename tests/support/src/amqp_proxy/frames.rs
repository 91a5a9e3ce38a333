//! Frames, cut out of one direction's bytes. They are passed on as they came. `amq-protocol` reads and makes the rare ones; of
//! the others only what matters here is looked at, so that the proxy keeps up with a broker in a build without optimizations.

use std::fmt;

use amq_protocol::frame::{AMQPFrame, gen_frame};
use amq_protocol::protocol::basic::{self, AMQPMethod as Basic};
use amq_protocol::protocol::constants::{FRAME_BODY, FRAME_END, FRAME_HEADER, FRAME_HEARTBEAT, FRAME_METHOD};
use amq_protocol::protocol::{AMQPClass, parse_class};

#[derive(Debug)]
pub(super) struct Frame<'a> {
    pub(super) channel: u16,
    pub(super) part: Part<'a>,
    /// All of it.
    pub(super) bytes: &'a [u8],
}

#[derive(Debug)]
pub(super) enum Part<'a> {
    ConfirmSelect,
    Publish(Payload<'a>),
    Answer(Answer),
    /// The broker begins a message to the client.
    Message {
        is_return: bool,
    },
    Header {
        message_id: &'a [u8],
        body_size: u64,
    },
    /// How many bytes of the body it brings.
    Body(u64),
    /// `close` or `close-ok`.
    ChannelEnd,
    ConnectionEnd,
    Other,
}

/// A confirm, as the broker put it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Answer {
    pub(super) tag: u64,
    pub(super) multiple: bool,
    pub(super) ack: bool,
}

#[derive(Debug)]
pub(super) struct Garbled;

impl fmt::Display for Garbled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("these bytes are not AMQP 0-9-1")
    }
}

/// The first frame, if it is there as a whole.
pub(super) fn cut(bytes: &[u8]) -> Result<Option<Frame<'_>>, Garbled> {
    // No frame is shorter, and the greeting of a connection is as long.
    let Some((greeting, _)) = bytes.split_first_chunk::<8>() else { return Ok(None) };
    if greeting.starts_with(b"AMQP") {
        return Ok(Some(Frame { channel: 0, part: Part::Other, bytes: greeting }));
    }
    let [kind, c0, c1, l0, l1, l2, l3, _] = *greeting;
    let (channel, length) = (u16::from_be_bytes([c0, c1]), u32::from_be_bytes([l0, l1, l2, l3]));
    if !matches!(kind, FRAME_METHOD | FRAME_HEADER | FRAME_BODY | FRAME_HEARTBEAT) {
        return Err(Garbled);
    }
    let Some((bytes, _)) = bytes.split_at_checked(length as usize + 8) else { return Ok(None) };
    let [_, _, _, _, _, _, _, payload @ .., FRAME_END] = bytes else { return Err(Garbled) };
    let mut payload = Payload(payload);
    let part = match kind {
        FRAME_METHOD => payload.method()?,
        FRAME_HEADER => payload.header()?,
        FRAME_BODY => Part::Body(u64::from(length)),
        _ => Part::Other,
    };
    Ok(Some(Frame { channel, part, bytes }))
}

/// Of a frame, from its beginning or from where it was read up to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Payload<'a>(&'a [u8]);

impl<'a> Payload<'a> {
    /// Class and method are those of the specification, and RabbitMQ's extensions of it.
    fn method(&mut self) -> Result<Part<'a>, Garbled> {
        let whole = *self;
        Ok(match (self.u16()?, self.u16()?) {
            (10, 50 | 51) => Part::ConnectionEnd,
            (20, 40 | 41) => Part::ChannelEnd,
            (60, 40) => Part::Publish(whole),
            (60, method @ (50 | 60 | 71)) => Part::Message { is_return: method == 50 },
            (60, method @ (80 | 120)) => {
                Part::Answer(Answer { tag: self.u64()?, multiple: self.take::<1>()?[0] & 1 == 1, ack: method == 80 })
            }
            (85, 10) => Part::ConfirmSelect,
            _ => Part::Other,
        })
    }

    /// The properties stand in the order of their flags, the highest first (specification 4.2.6.1).
    fn header(&mut self) -> Result<Part<'a>, Garbled> {
        let [_, _, _, _] = self.take()?;
        let body_size = self.u64()?;
        let flags = self.u16()?;
        let has = |bit: u16| flags & 1 << bit != 0;
        for _ in [15, 14].into_iter().filter(|bit| has(*bit)) {
            self.short_string()?;
        }
        if has(13) {
            let headers = u32::from_be_bytes(self.take()?);
            self.skip(headers as usize)?;
        }
        for _ in [12, 11].into_iter().filter(|bit| has(*bit)) {
            self.skip(1)?;
        }
        for _ in [10, 9, 8].into_iter().filter(|bit| has(*bit)) {
            self.short_string()?;
        }
        let message_id = if has(7) { self.short_string()? } else { b"" };
        Ok(Part::Header { message_id, body_size })
    }

    pub(super) fn publish(&self) -> Result<basic::Publish, Garbled> {
        match parse_class(self.0) {
            Ok((_, AMQPClass::Basic(Basic::Publish(publish)))) => Ok(publish),
            _ => Err(Garbled),
        }
    }

    fn skip(&mut self, count: usize) -> Result<&'a [u8], Garbled> {
        let (skipped, rest) = self.0.split_at_checked(count).ok_or(Garbled)?;
        self.0 = rest;
        Ok(skipped)
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], Garbled> {
        self.skip(N).map(|bytes| bytes.try_into().expect("so many were asked for"))
    }

    fn short_string(&mut self) -> Result<&'a [u8], Garbled> {
        let [length] = self.take()?;
        self.skip(usize::from(length))
    }

    fn u16(&mut self) -> Result<u16, Garbled> {
        self.take().map(u16::from_be_bytes)
    }

    fn u64(&mut self) -> Result<u64, Garbled> {
        self.take().map(u64::from_be_bytes)
    }
}

pub(super) fn method(channel: u16, method: Basic) -> Vec<u8> {
    let frame = AMQPFrame::Method(channel, AMQPClass::Basic(method));
    gen_frame(&frame)(Vec::new().into()).expect("a Vec takes any frame").into_inner().0
}
