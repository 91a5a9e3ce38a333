//! The publishes of one connection and the broker's answers to them, entered as they pass.

use std::collections::HashMap;

use tokio::time::Instant;

use super::Confirms;
use super::frames::{Answer, Frame, Garbled, Part, cut};
use super::kept::{Answered, Kept};
use super::publishes::{Content, Publishes};
use super::witness::{Note, Told};

#[derive(Debug)]
pub(super) struct Ledger {
    connection: u64,
    /// Of channels in confirm mode.
    publishes: HashMap<u16, Publishes>,
    /// Messages to the client whose last frame has not come yet, by channel.
    arriving: HashMap<u16, Arriving>,
    /// Answers that the client has not been told of.
    kept: Kept,
}

#[derive(Debug)]
struct Arriving {
    is_return: bool,
    /// Bytes of the body; none before the header has come.
    missing: Option<u64>,
}

impl Ledger {
    pub(super) fn new(connection: u64) -> Ledger {
        Ledger { connection, publishes: HashMap::new(), arriving: HashMap::new(), kept: Kept::default() }
    }

    /// Enters what the client sends. Returns how many bytes of it are whole frames.
    pub(super) fn sent(&mut self, mode: Confirms, bytes: &[u8]) -> Result<usize, Garbled> {
        let mut whole = 0;
        while let Some(frame) = cut(&bytes[whole..])? {
            whole += frame.bytes.len();
            self.sent_frame(mode, frame)?;
        }
        Ok(whole)
    }

    fn sent_frame(&mut self, mode: Confirms, Frame { channel, part, bytes }: Frame<'_>) -> Result<(), Garbled> {
        if let Part::ConfirmSelect = part {
            self.publishes.entry(channel).or_default();
        }
        let Some(publishes) = self.publishes.get_mut(&channel) else { return Ok(()) };
        match part {
            Part::Publish(payload) => {
                let is_to_be_returned = mode.returns((self.connection, channel, publishes.next_tag()));
                publishes.begin(if is_to_be_returned { Some(Content::of(payload)?) } else { None });
            }
            Part::Header { message_id, body_size } => publishes.header(message_id, body_size, bytes),
            Part::Body(length) => publishes.body(length, bytes),
            _ => {}
        }
        Ok(())
    }

    /// Passes on what the broker says, but keeps its confirms. Returns how many bytes of it were whole frames.
    pub(super) fn heard(
        &mut self,
        mode: Confirms,
        now: Instant,
        bytes: &[u8],
        told: &mut Told,
    ) -> Result<usize, Garbled> {
        let mut whole = 0;
        while let Some(frame) = cut(&bytes[whole..])? {
            whole += frame.bytes.len();
            match frame.part {
                Part::Answer(answer) => self.answered(mode, now, answer, frame, told),
                _ => self.pass(frame, told),
            }
            self.tell(mode, now, told);
        }
        Ok(whole)
    }

    fn answered(&mut self, mode: Confirms, now: Instant, answer: Answer, frame: Frame<'_>, told: &mut Told) {
        let Answer { tag, multiple, ack } = answer;
        let publishes = self.publishes.get_mut(&frame.channel);
        let publishes = publishes.map(|publishes| publishes.take(tag, multiple)).unwrap_or_default();
        if mode == Confirms::Honest && self.kept.is_empty() {
            told.bytes.extend_from_slice(frame.bytes);
            publishes.into_iter().for_each(|(_, publish)| told.note_answer(ack, publish));
            return;
        }
        for (tag, publish) in publishes {
            self.kept.push(Answered { at: now, place: (self.connection, frame.channel, tag), ack, publish });
        }
    }

    fn pass(&mut self, Frame { channel, part, bytes }: Frame<'_>, told: &mut Told) {
        told.bytes.extend_from_slice(bytes);
        match part {
            Part::Message { is_return } => drop(self.arriving.insert(channel, Arriving { is_return, missing: None })),
            Part::Header { message_id, body_size } => {
                let Some(arriving) = self.arriving.get_mut(&channel) else { return };
                arriving.missing = Some(body_size);
                if arriving.is_return {
                    told.note(Note::Returned);
                    self.publishes.get_mut(&channel).into_iter().for_each(|publishes| publishes.returned(message_id));
                }
            }
            Part::Body(length) => {
                let Some(arriving) = self.arriving.get_mut(&channel) else { return };
                arriving.missing = arriving.missing.map(|missing| missing.saturating_sub(length));
            }
            // Who opens the channel again counts from 1, and must not hear of what was before.
            Part::ChannelEnd => self.forget(|of| of == channel),
            Part::ConnectionEnd => self.forget(|_| true),
            _ => {}
        }
        self.arriving.retain(|_, arriving| arriving.missing != Some(0));
    }

    fn forget(&mut self, is_gone: impl Fn(u16) -> bool) {
        self.publishes.retain(|channel, _| !is_gone(*channel));
        self.arriving.retain(|channel, _| !is_gone(*channel));
        self.kept.retain(|channel| !is_gone(channel));
    }

    /// Tells the client what is kept, as far as the mode wants it now.
    pub(super) fn tell(&mut self, mode: Confirms, now: Instant, told: &mut Told) {
        // Nothing may come between the frames of a message.
        if self.arriving.is_empty() {
            self.kept.tell(mode, now, || self.publishes.values().all(Publishes::are_answered), told);
        }
    }

    /// When there is something to tell, if nothing else happens.
    pub(super) fn due(&self, mode: Confirms) -> Option<Instant> {
        // The end of what arrives will be heard.
        if self.arriving.is_empty() { self.kept.due(mode) } else { None }
    }

    #[cfg(test)]
    pub(super) fn is_clear(&self) -> bool {
        self.arriving.is_empty() && self.kept.is_empty() && self.publishes.values().all(Publishes::are_answered)
    }
}
