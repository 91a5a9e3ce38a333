//! A ledger under test, and the frames that go in and come out.

use std::time::Duration;

use amq_protocol::frame::{AMQPContentHeader, AMQPFrame, gen_frame, parse_frame};
use amq_protocol::protocol::basic::{self, AMQPMethod as Basic, AMQPProperties};
use amq_protocol::protocol::{AMQPClass, confirm};
use tokio::time::Instant;

use super::super::Confirms;
use super::super::ledger::Ledger;
use super::super::witness::Told;

pub(super) fn bytes_of(frames: &[AMQPFrame]) -> Vec<u8> {
    frames.iter().flat_map(|frame| gen_frame(frame)(Vec::new().into()).unwrap().into_inner().0).collect()
}

pub(super) fn frames_of(mut bytes: &[u8]) -> Vec<AMQPFrame> {
    let mut frames = Vec::new();
    while !bytes.is_empty() {
        let (rest, frame) = parse_frame(bytes).unwrap();
        frames.push(frame);
        bytes = rest;
    }
    frames
}

pub(super) fn method(channel: u16, method: Basic) -> AMQPFrame {
    AMQPFrame::Method(channel, AMQPClass::Basic(method))
}

pub(super) fn ack(channel: u16, delivery_tag: u64, multiple: bool) -> AMQPFrame {
    method(channel, Basic::Ack(basic::Ack { delivery_tag, multiple }))
}

pub(super) fn nack(channel: u16, delivery_tag: u64, multiple: bool) -> AMQPFrame {
    method(channel, Basic::Nack(basic::Nack { delivery_tag, multiple, requeue: false }))
}

/// Header and body of a message.
pub(super) fn content(channel: u16, id: &str, pieces: &[&[u8]]) -> Vec<AMQPFrame> {
    let body_size = pieces.iter().map(|piece| piece.len() as u64).sum();
    let properties = AMQPProperties::default().with_message_id(id.into()).with_priority(3);
    let header = AMQPFrame::Header(channel, AMQPContentHeader { class_id: 60, body_size, properties });
    let pieces = pieces.iter().map(|piece| AMQPFrame::Body(channel, piece.to_vec()));
    std::iter::once(header).chain(pieces).collect()
}

pub(super) fn publish(channel: u16, id: &str, pieces: &[&[u8]]) -> Vec<AMQPFrame> {
    let publish = basic::Publish { exchange: "e".into(), routing_key: id.into(), ..Default::default() };
    [vec![method(channel, Basic::Publish(publish))], content(channel, id, pieces)].concat()
}

pub(super) fn returned(channel: u16, id: &str, pieces: &[&[u8]]) -> Vec<AMQPFrame> {
    let method_of = |routing_key: &str| basic::Return {
        reply_code: 312,
        reply_text: "NO_ROUTE".into(),
        exchange: "e".into(),
        routing_key: routing_key.into(),
    };
    [vec![method(channel, Basic::Return(method_of(id)))], content(channel, id, pieces)].concat()
}

/// A ledger, and the clock and mode that it is asked with.
pub(super) struct Desk {
    pub(super) ledger: Ledger,
    pub(super) mode: Confirms,
    pub(super) now: Instant,
}

impl Desk {
    /// With channels 1 and 2 in confirm mode, and so many publishes on channel 1, whose ids are their tags.
    pub(super) fn new(mode: Confirms, publishes: u64) -> Desk {
        let mut desk = Desk { ledger: Ledger::new(1), mode, now: Instant::now() };
        desk.confirm_mode(1);
        desk.confirm_mode(2);
        (1..=publishes).for_each(|tag| desk.sent(&publish(1, &tag.to_string(), &[b"body"])));
        desk
    }

    pub(super) fn confirm_mode(&mut self, channel: u16) {
        let select = confirm::AMQPMethod::Select(confirm::Select { nowait: false });
        self.sent(&[AMQPFrame::Method(channel, AMQPClass::Confirm(select))]);
    }

    pub(super) fn sent(&mut self, frames: &[AMQPFrame]) {
        let bytes = bytes_of(frames);
        assert_eq!(self.ledger.sent(self.mode, &bytes).unwrap(), bytes.len());
    }

    /// What the client reads after the broker said this.
    pub(super) fn heard(&mut self, frames: &[AMQPFrame]) -> Vec<AMQPFrame> {
        let (bytes, mut told) = (bytes_of(frames), Told::default());
        assert_eq!(self.ledger.heard(self.mode, self.now, &bytes, &mut told).unwrap(), bytes.len());
        frames_of(&told.bytes)
    }

    /// What it reads when a while passes, or the mode has changed.
    pub(super) fn later(&mut self, millis: u64) -> Vec<AMQPFrame> {
        let mut told = Told::default();
        self.now += Duration::from_millis(millis);
        self.ledger.tell(self.mode, self.now, &mut told);
        frames_of(&told.bytes)
    }
}

pub(super) fn one_by_one(tags: impl IntoIterator<Item = u64>) -> Vec<AMQPFrame> {
    tags.into_iter().map(|tag| ack(1, tag, false)).collect()
}
