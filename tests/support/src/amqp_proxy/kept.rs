//! The broker's answers that the client has not been told of yet, one for each publish.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use super::publishes::Publish;
use super::witness::Told;
use super::{Confirms, Place, draw};

/// A group waits at most so long for the rest of what is outstanding.
const GROUP_WITHIN: Duration = Duration::from_millis(5);

/// In the order in which they came.
#[derive(Debug, Default)]
pub(super) struct Kept(VecDeque<Answered>);

#[derive(Debug)]
pub(super) struct Answered {
    pub(super) at: Instant,
    pub(super) place: Place,
    pub(super) ack: bool,
    pub(super) publish: Publish,
}

impl Kept {
    pub(super) fn push(&mut self, answered: Answered) {
        self.0.push_back(answered);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// By channel.
    pub(super) fn retain(&mut self, stays: impl Fn(u16) -> bool) {
        self.0.retain(|answered| stays(answered.place.1));
    }

    /// `is_all` tells whether no publish of the connection is without an answer.
    pub(super) fn tell(&mut self, mode: Confirms, now: Instant, is_all: impl FnOnce() -> bool, told: &mut Told) {
        let is_due = self.due(mode).is_some_and(|due| due <= now);
        let count = match mode {
            Confirms::Honest | Confirms::Nacked { .. } | Confirms::Returned { .. } => self.0.len(),
            Confirms::Delayed(delay) if is_due => self.0.partition_point(|answered| answered.at + delay <= now),
            Confirms::Reordered { .. } if is_due || !self.0.is_empty() && is_all() => self.0.len(),
            Confirms::Delayed(_) | Confirms::Reordered { .. } | Confirms::Withheld => 0,
        };
        if let (Confirms::Reordered { seed }, 1..) = (mode, count) {
            self.0.make_contiguous().sort_by_cached_key(|answered| draw(seed, answered.place));
        }
        for answered in self.0.drain(..count) {
            tell_one(mode, answered, told);
        }
    }

    pub(super) fn due(&self, mode: Confirms) -> Option<Instant> {
        let first = self.0.front()?.at;
        match mode {
            Confirms::Delayed(delay) => Some(first + delay),
            Confirms::Reordered { .. } => Some(first + GROUP_WITHIN),
            _ => None,
        }
    }
}

fn tell_one(mode: Confirms, answered: Answered, told: &mut Told) {
    let Answered { place, ack, mut publish, .. } = answered;
    let (_, channel, tag) = place;
    let is_returned = ack && !publish.returned && mode.returns(place);
    if let Some(content) = publish.content.take().filter(|_| is_returned) {
        told.return_it(channel, content);
        publish.returned = true;
    }
    told.answer(channel, tag, ack && !mode.nacks(place), publish);
}
