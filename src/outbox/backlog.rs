//! How much of a route is unsettled, counted without reading the events again.

use std::collections::VecDeque;

use crate::event::Seq;

/// A route's unsettled events. The sums are exact whenever the cursor stands at the end of a stretch, and at most a
/// stretch off in between, which is read off proportionally.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    stretches: VecDeque<Stretch>,
}

/// Neighbouring events of one route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stretch {
    pub(super) first: Seq,
    pub(super) last: Seq,
    pub(super) tally: Tally,
    /// When the first of them was recorded, in ms since 1970.
    pub(super) since_ms: i64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub events: u64,
    pub bytes: u64,
}

/// Stretches closer than this in time are one, as long as they are small.
const MERGE_MS_MAX: i64 = 100;
const MERGE_EVENTS_MAX: u64 = 4096;
/// 48 bytes each. When there are more, neighbours are merged: a large backlog is counted more coarsely.
const STRETCHES_MAX: usize = 2048;

impl Backlog {
    pub(super) fn add(&mut self, stretch: Stretch) {
        if let Some(last) = self.stretches.back_mut()
            && stretch.since_ms - last.since_ms < MERGE_MS_MAX
            && last.tally.events + stretch.tally.events <= MERGE_EVENTS_MAX
        {
            *last = last.merged(stretch);
            return;
        }
        self.stretches.push_back(stretch);
        if self.stretches.len() > STRETCHES_MAX {
            let mut halved = VecDeque::with_capacity(STRETCHES_MAX + 1);
            while let Some(first) = self.stretches.pop_front() {
                halved.push_back(self.stretches.pop_front().map_or(first, |second| first.merged(second)));
            }
            self.stretches = halved;
        }
    }

    /// What is left after everything up to `through` is settled. Changes nothing.
    pub(super) fn after(&self, through: Seq) -> Remaining {
        let mut remaining = Remaining::default();
        for stretch in self.stretches.iter().filter_map(|stretch| stretch.after(through)) {
            remaining.tally += stretch.tally;
            remaining.since_ms.get_or_insert(stretch.since_ms);
        }
        remaining
    }

    pub(super) fn since_ms(&self) -> Option<i64> {
        self.stretches.front().map(|stretch| stretch.since_ms)
    }

    pub(super) fn settle(&mut self, through: Seq) {
        while let Some(first) = self.stretches.front_mut() {
            match first.after(through) {
                None => self.stretches.pop_front(),
                Some(left) => {
                    *first = left;
                    return;
                }
            };
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Remaining {
    pub(super) tally: Tally,
    pub(super) since_ms: Option<i64>,
}

impl Stretch {
    fn merged(self, next: Stretch) -> Stretch {
        let mut tally = self.tally;
        tally += next.tally;
        Stretch { first: self.first, last: next.last, tally, since_ms: self.since_ms }
    }

    fn after(&self, through: Seq) -> Option<Stretch> {
        if through >= self.last {
            return None;
        }
        if through < self.first {
            return Some(*self);
        }
        let share = |whole: u64| {
            let (left, all) = (self.last - through, self.last - self.first + 1);
            (u128::from(whole) * u128::from(left) / u128::from(all)) as u64
        };
        // The last event is unsettled, so there is one at least.
        let tally = Tally { events: share(self.tally.events).max(1), bytes: share(self.tally.bytes).max(1) };
        Some(Stretch { first: through + 1, tally, ..*self })
    }
}

impl std::ops::AddAssign for Tally {
    fn add_assign(&mut self, other: Tally) {
        self.events += other.events;
        self.bytes += other.bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn stretch(first: Seq, last: Seq, since_ms: i64) -> Stretch {
        let events = last - first + 1;
        Stretch { first, last, tally: Tally { events, bytes: events * 100 }, since_ms }
    }

    #[test]
    fn the_sums_are_exact_for_a_route_that_has_all_the_events() {
        let mut backlog = Backlog::default();
        backlog.add(stretch(1, 1000, 0));
        backlog.add(stretch(1001, 1500, 5_000));
        backlog.settle(400);
        let left = Remaining { tally: Tally { events: 1100, bytes: 110_000 }, since_ms: Some(0) };
        assert_eq!(backlog.after(0), left);
        assert_eq!(backlog.after(1000).since_ms, Some(5_000));
        backlog.settle(1500);
        assert_eq!(backlog.after(0), Remaining::default());
    }

    #[test]
    fn a_trickle_of_any_length_stays_bounded() {
        let mut backlog = Backlog::default();
        for seq in 1..=100_000u64 {
            backlog.add(stretch(seq, seq, seq as i64 * 1_000));
        }
        assert!(backlog.stretches.len() <= STRETCHES_MAX);
        assert_eq!(backlog.after(0).tally, Tally { events: 100_000, bytes: 10_000_000 });
        backlog.settle(100_000);
        assert!(backlog.stretches.is_empty());
    }

    proptest! {
        #[test]
        fn nothing_is_left_at_the_end_and_looking_ahead_agrees_with_settling(
            parts in proptest::collection::vec((1u64..50, 0u64..5, 0i64..300), 1..40),
            cuts in proptest::collection::vec(0.0f64..1.0, 1..10),
        ) {
            let mut backlog = Backlog::default();
            let (mut seq, mut now, mut events) = (0, 0, 0);
            for (count, gap, ms) in parts {
                now += ms;
                backlog.add(stretch(seq + gap + 1, seq + gap + count, now));
                seq += gap + count;
                events += count;
            }
            prop_assert_eq!(backlog.after(0).tally.events, events);
            let mut through = 0;
            for cut in cuts {
                through = through.max((cut * seq as f64) as u64);
                let ahead = backlog.after(through);
                backlog.settle(through);
                prop_assert_eq!(ahead, backlog.after(0));
            }
            backlog.settle(seq);
            prop_assert_eq!(backlog.after(0), Remaining::default());
        }
    }
}
