//! Which keys of a shard wait behind parked events (`after_parked: wait`).
//!
//! The store knows them for any place in the stream; the shard asks when it starts, when it goes back, and when a person moved
//! parked events. In between it keeps count of what it parks and meets itself.

use std::collections::HashMap;

use super::store::ParkedKey;
use crate::config::model::AfterParked;

/// At about 30 bytes each, this many are a few megabytes; more are no accident but an outage.
pub(super) const KEYS_MAX: usize = 100_000;

#[derive(Debug)]
pub(super) struct ParkedKeys {
    waits: bool,
    /// Hash of a key → events parked, released events to come.
    counts: HashMap<u64, (u32, u32)>,
    /// Something was parked or released since the store was asked.
    touched: bool,
    /// Some key may count released events to come.
    released: bool,
    state: State,
    /// Counts the questions: the answer to an earlier one is not taken.
    asked: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Known,
    Wanted,
    Asked,
}

impl ParkedKeys {
    pub(super) fn new(after_parked: AfterParked) -> ParkedKeys {
        let waits = after_parked == AfterParked::Wait;
        let state = if waits { State::Wanted } else { State::Known };
        ParkedKeys { waits, counts: HashMap::new(), touched: false, released: false, state, asked: 0 }
    }

    pub(super) fn are_known(&self) -> bool {
        self.state == State::Known
    }

    pub(super) fn are_wanted(&self) -> bool {
        self.state == State::Wanted
    }

    /// The store is being asked. Returns the question's number.
    pub(super) fn asked(&mut self) -> u32 {
        self.state = State::Asked;
        self.asked = self.asked.wrapping_add(1);
        self.asked
    }

    /// The store's answer.
    pub(super) fn are(&mut self, asked: u32, keys: Vec<ParkedKey>) {
        if (self.state, self.asked) == (State::Asked, asked) {
            self.counts = keys.into_iter().map(|key| (key.key_hash, (key.parked, key.released))).collect();
            self.released = self.counts.values().any(|(_, to_come)| *to_come > 0);
            self.touched = false;
            self.state = State::Known;
        }
    }

    /// What is known does not hold any more.
    pub(super) fn forget(&mut self) {
        if self.waits {
            self.state = State::Wanted;
        }
    }

    /// The shard goes back to an earlier place.
    pub(super) fn rewound(&mut self) {
        if self.touched || !self.counts.is_empty() || self.state == State::Asked {
            self.forget();
        }
    }

    /// Whether an event must be parked behind others of its key. A released one that may pass is counted as passed.
    pub(super) fn must_wait(&mut self, key_hash: u64, released: bool) -> bool {
        if self.counts.is_empty() {
            return false;
        }
        let Some((parked, to_come)) = self.counts.get_mut(&key_hash) else { return false };
        if !released {
            return true;
        }
        *to_come = to_come.saturating_sub(1);
        if *parked > 0 {
            return true;
        }
        if *to_come == 0 {
            self.counts.remove(&key_hash);
        }
        false
    }

    /// An event of this key is parked.
    pub(super) fn park(&mut self, key_hash: u64) {
        if self.waits {
            self.touched = true;
            self.counts.entry(key_hash).or_default().0 += 1;
        }
    }

    /// An event of this key is released and will come.
    pub(super) fn released(&mut self, key_hash: u64) {
        if self.waits {
            (self.touched, self.released) = (true, true);
            self.counts.entry(key_hash).or_default().1 += 1;
        }
    }

    /// Everything recorded has come: of what was released, nothing can be left.
    pub(super) fn nothing_is_to_come(&mut self) {
        if std::mem::take(&mut self.released) {
            self.counts.retain(|_, (parked, to_come)| {
                *to_come = 0;
                *parked > 0
            });
        }
    }

    /// The store did not tell of all: of no key is it known whether it waits.
    pub(super) fn are_incomplete(&self) -> bool {
        self.counts.len() > KEYS_MAX
    }

    pub(super) fn are_too_many(&self) -> bool {
        self.counts.len() >= KEYS_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(keys: &[(u64, u32, u32)]) -> ParkedKeys {
        let mut found = ParkedKeys::new(AfterParked::Wait);
        assert!(!found.are_known() && found.are_wanted());
        let asked = found.asked();
        found.are(
            asked,
            keys.iter().map(|&(key_hash, parked, released)| ParkedKey { key_hash, parked, released }).collect(),
        );
        assert!(found.are_known());
        found
    }

    #[test]
    fn behind_a_parked_event_all_of_its_key_wait_and_no_other() {
        let mut keys = known(&[(1, 1, 0)]);
        assert!(keys.must_wait(1, false) && keys.must_wait(1, true) && !keys.must_wait(2, false));
        keys.park(2);
        assert!(keys.must_wait(2, false));
    }

    #[test]
    fn released_events_go_first_and_then_the_key_is_free() {
        let mut keys = known(&[(1, 0, 2)]);
        assert!(keys.must_wait(1, false));
        assert!(!keys.must_wait(1, true));
        assert!(keys.must_wait(1, false));
        assert!(!keys.must_wait(1, true));
        assert!(!keys.must_wait(1, false));
    }

    #[test]
    fn one_that_follows_the_released_holds_the_key_until_it_has_passed() {
        let mut keys = known(&[(1, 0, 1)]);
        assert!(keys.must_wait(1, false)); // parked behind, and sent after them by the store:
        keys.released(1);
        assert!(!keys.must_wait(1, true));
        assert!(keys.must_wait(1, false));
        assert!(!keys.must_wait(1, true));
        assert!(!keys.must_wait(1, false));
    }

    #[test]
    fn going_back_makes_what_is_known_worthless_only_if_there_was_something() {
        let mut keys = known(&[]);
        keys.rewound();
        assert!(keys.are_known());
        keys.park(7);
        keys.rewound();
        assert!(keys.are_wanted());
        let asked = keys.asked();
        keys.rewound();
        keys.are(asked, Vec::new());
        assert!(keys.are_wanted(), "an answer for another place is not taken");
    }

    #[test]
    fn a_route_that_lets_pass_never_asks_and_never_waits() {
        let mut keys = ParkedKeys::new(AfterParked::Pass);
        keys.park(1);
        keys.rewound();
        assert!(keys.are_known() && !keys.must_wait(1, false));
    }
}
