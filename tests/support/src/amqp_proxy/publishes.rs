//! What was published on one channel and is not answered yet.

use std::collections::BTreeMap;

use amq_protocol::protocol::basic;
use amq_protocol::types::ShortString;

use super::frames::{Garbled, Payload};

#[derive(Debug, Default)]
pub(super) struct Publishes {
    /// As the broker counts: from 1.
    last_tag: u64,
    begun: Option<Publish>,
    outstanding: BTreeMap<u64, Publish>,
}

#[derive(Debug)]
pub(super) struct Publish {
    /// Empty where the message has none.
    pub(super) id: String,
    pub(super) returned: bool,
    /// Only of those that shall be returned.
    pub(super) content: Option<Content>,
    /// Bytes of the body that are still to come.
    missing: u64,
}

/// What it takes to return a message.
#[derive(Debug)]
pub(super) struct Content {
    pub(super) exchange: ShortString,
    pub(super) routing_key: ShortString,
    /// Header and body, as the client sent them.
    pub(super) frames: Vec<u8>,
}

impl Content {
    /// Of a publish whose method this is.
    pub(super) fn of(method: Payload<'_>) -> Result<Content, Garbled> {
        let basic::Publish { exchange, routing_key, .. } = method.publish()?;
        Ok(Content { exchange, routing_key, frames: Vec::new() })
    }
}

impl Publishes {
    pub(super) fn begin(&mut self, content: Option<Content>) {
        self.last_tag += 1;
        self.begun = Some(Publish { id: String::new(), returned: false, content, missing: 0 });
    }

    pub(super) fn next_tag(&self) -> u64 {
        self.last_tag + 1
    }

    pub(super) fn header(&mut self, id: &[u8], body_size: u64, bytes: &[u8]) {
        let id = String::from_utf8_lossy(id).into_owned();
        self.goes_on(bytes, |publish| (publish.id, publish.missing) = (id, body_size));
    }

    pub(super) fn body(&mut self, length: u64, bytes: &[u8]) {
        self.goes_on(bytes, |publish| publish.missing = publish.missing.saturating_sub(length));
    }

    fn goes_on(&mut self, bytes: &[u8], step: impl FnOnce(&mut Publish)) {
        let Some(mut publish) = self.begun.take() else { return };
        step(&mut publish);
        if let Some(content) = &mut publish.content {
            content.frames.extend_from_slice(bytes);
        }
        match publish.missing {
            0 => drop(self.outstanding.insert(self.last_tag, publish)),
            _ => self.begun = Some(publish),
        }
    }

    /// Those that the broker answers with this tag, in order.
    pub(super) fn take(&mut self, tag: u64, multiple: bool) -> Vec<(u64, Publish)> {
        if !multiple {
            return self.outstanding.remove_entry(&tag).into_iter().collect();
        }
        // 0 stands for all (specification, basic.ack).
        let last = if tag == 0 { u64::MAX } else { tag };
        let mut taken = Vec::new();
        while let Some(entry) = self.outstanding.first_entry().filter(|entry| *entry.key() <= last) {
            taken.push(entry.remove_entry());
        }
        taken
    }

    /// The broker returned a message: the first of this id that it had not yet.
    pub(super) fn returned(&mut self, id: &[u8]) {
        let publish = self.outstanding.values_mut().find(|publish| publish.id.as_bytes() == id && !publish.returned);
        if let Some(publish) = publish {
            publish.returned = true;
        }
    }

    pub(super) fn are_answered(&self) -> bool {
        self.outstanding.is_empty()
    }
}
