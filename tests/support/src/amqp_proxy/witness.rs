//! What clients are told, and the witness of it.

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::sync::Mutex;

use amq_protocol::protocol::basic::{self, AMQPMethod as Basic};
use tokio::net::tcp::WriteHalf;

use super::frames;
use super::publishes::{Content, Publish};

/// What was written to clients, over all connections.
#[derive(Debug, Default)]
pub(super) struct Witness {
    pub(super) confirmed: BTreeSet<String>,
    pub(super) nacked: u64,
    pub(super) returned: u64,
}

#[derive(Debug)]
pub(super) enum Note {
    Confirmed(String),
    Nacked,
    Returned,
}

impl Witness {
    fn note(&mut self, note: Note) {
        match note {
            Note::Confirmed(id) if id.is_empty() => {}
            Note::Confirmed(id) => drop(self.confirmed.insert(id)),
            Note::Nacked => self.nacked += 1,
            Note::Returned => self.returned += 1,
        }
    }
}

/// Bytes on their way to a client, and what the witness notes once they are written.
#[derive(Debug, Default)]
pub(super) struct Told {
    pub(super) bytes: Vec<u8>,
    /// Each with the end of its frame.
    notes: VecDeque<(usize, Note)>,
}

impl Told {
    /// For the frame that ends where the bytes end now.
    pub(super) fn note(&mut self, note: Note) {
        self.notes.push_back((self.bytes.len(), note));
    }

    pub(super) fn note_answer(&mut self, ack: bool, publish: Publish) {
        match ack {
            true if publish.returned => {}
            true => self.note(Note::Confirmed(publish.id)),
            false => self.note(Note::Nacked),
        }
    }

    pub(super) fn answer(&mut self, channel: u16, delivery_tag: u64, ack: bool, publish: Publish) {
        self.method(
            channel,
            match ack {
                true => Basic::Ack(basic::Ack { delivery_tag, multiple: false }),
                false => Basic::Nack(basic::Nack { delivery_tag, multiple: false, requeue: false }),
            },
        );
        self.note_answer(ack, publish);
    }

    pub(super) fn return_it(&mut self, channel: u16, content: Content) {
        self.method(
            channel,
            Basic::Return(basic::Return {
                reply_code: 312,
                reply_text: "NO_ROUTE".into(),
                exchange: content.exchange,
                routing_key: content.routing_key,
            }),
        );
        self.bytes.extend_from_slice(&content.frames);
        self.note(Note::Returned);
    }

    fn method(&mut self, channel: u16, method: Basic) {
        self.bytes.extend_from_slice(&frames::method(channel, method));
    }

    pub(super) async fn write(&mut self, to: &WriteHalf<'_>, witness: &Mutex<Witness>) -> io::Result<()> {
        let mut written = 0;
        while written < self.bytes.len() {
            to.writable().await?;
            // Held while writing: the client cannot have read what the witness does not know of.
            let mut witness = witness.lock().expect("nobody panics while holding it");
            match to.try_write(&self.bytes[written..]) {
                Ok(count) => written += count,
                Err(why) if why.kind() == io::ErrorKind::WouldBlock => {}
                Err(why) => return Err(why),
            }
            while self.notes.front().is_some_and(|(end, _)| *end <= written) {
                self.notes.pop_front().into_iter().for_each(|(_, note)| witness.note(note));
            }
        }
        self.bytes.clear();
        Ok(())
    }
}
