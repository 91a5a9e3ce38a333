//! Where a shard's next event comes from: memory while it keeps up, the outbox while it is behind.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::OwnedSemaphorePermit;

use super::ring::{Run, Slot};
use super::store::Stretch;
use crate::event::{Event, Place, RouteId, Seq};

/// How many bytes one read of the outbox asks for.
pub(super) const READ_BYTES: usize = 512 << 10;

/// One batch that is published from and one read ahead.
const READS_MAX: usize = 2;

/// A shard's events have four zones, by `seq`: up to `taken` they are published or parked; up to `gap_end` they are only in the
/// outbox; then come the runs in memory; then those that are not recorded yet.
#[derive(Debug)]
pub(super) struct Source {
    route: RouteId,
    /// This shard takes the events whose key's hash gives `number` modulo `shards`.
    number: u16,
    shards: u16,
    taken: Seq,
    /// 0, or the last event that must be looked for in the outbox.
    gap_end: Seq,
    runs: VecDeque<Run>,
    reads: VecDeque<Read>,
    /// The outbox was read up to here.
    read_to: Seq,
    reading: bool,
    /// Counts rewinds: the answer to a read of before is not taken.
    generation: u32,
    /// Keep nothing in memory: the shard is stopped and looks at single events.
    held: bool,
}

/// A batch from the outbox, and the index of its next event. The permit keeps count of them all.
#[derive(Debug)]
struct Read {
    stretch: Stretch,
    at: usize,
    _permit: OwnedSemaphorePermit,
}

pub(super) enum Next<'a> {
    /// And whether it was parked before.
    Event(Event<'a>, bool),
    /// There is more in the outbox.
    Unread,
    Nothing,
}

/// A read that the shard wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) after: Seq,
    pub(super) bytes_max: usize,
    pub(super) generation: u32,
}

impl Source {
    /// `settled`: the last event of which nothing needs to be done. `recorded`: the last one in the outbox.
    pub(super) fn new(route: RouteId, number: u16, shards: u16, settled: Seq, recorded: Seq) -> Source {
        Source {
            route,
            number,
            shards,
            taken: settled,
            gap_end: recorded,
            runs: VecDeque::new(),
            reads: VecDeque::new(),
            read_to: settled,
            reading: false,
            generation: 0,
            held: false,
        }
    }

    /// Every event up to here is published, parked or another's.
    pub(super) fn taken(&self) -> Seq {
        self.taken
    }

    pub(super) fn is_behind(&self) -> bool {
        self.gap_end > self.taken
    }

    /// Events are at hand or can be read.
    pub(super) fn has_more(&self) -> bool {
        self.is_behind() || !self.runs.is_empty()
    }

    pub(super) fn next(&mut self) -> Next<'_> {
        while self.is_behind() {
            let Some(read) = self.reads.front_mut() else {
                if self.read_to >= self.gap_end {
                    self.close_gap();
                    break;
                }
                return Next::Unread;
            };
            let Some(place) = (read.at < read.stretch.events.len()).then(|| read.stretch.events.place(read.at)) else {
                self.reads.pop_front();
                continue;
            };
            if place.seq > self.gap_end {
                self.close_gap(); // the rest is in memory
                break;
            }
            if place.seq > self.taken && belongs(place, self.route, self.number, self.shards) {
                // Looked up again, for a borrow may not leave a loop.
                let read = self.reads.front().expect("seen above");
                return Next::Event(
                    read.stretch.events.get(read.at),
                    read.stretch.released.binary_search(&place.seq).is_ok(),
                );
            }
            read.at += 1;
        }
        match self.runs.front() {
            Some(run) => Next::Event(run.batch().get(run.index()), run.released()),
            None => Next::Nothing,
        }
    }

    /// The event that [`Source::next`] gave is published or parked.
    pub(super) fn advance(&mut self, seq: Seq) {
        let was_behind = self.is_behind();
        self.taken = seq;
        if was_behind {
            if let Some(read) = self.reads.front_mut() {
                read.at += 1;
            }
            if !self.is_behind() {
                self.close_gap();
            }
        } else if let Some(run) = self.runs.front_mut()
            && !run.advance()
        {
            self.runs.pop_front();
        }
    }

    fn close_gap(&mut self) {
        self.taken = self.taken.max(self.gap_end);
        self.gap_end = 0;
        self.drop_reads();
    }

    fn drop_reads(&mut self) {
        self.reads.clear();
        self.read_to = self.taken;
        self.generation = self.generation.wrapping_add(1);
        self.reading = false;
    }

    /// Newly recorded events of this shard.
    pub(super) fn push(&mut self, run: Run) {
        if self.held {
            self.widen_gap(run.last_seq());
        } else {
            self.runs.push_back(run);
        }
    }

    fn widen_gap(&mut self, to: Seq) {
        self.gap_end = self.gap_end.max(to);
        // What is in memory comes after the gap.
        while let Some(run) = self.runs.front_mut()
            && run.next_seq() <= to
        {
            if !run.advance() {
                self.runs.pop_front();
            }
        }
    }

    /// Read the outbox up to here, whatever is in memory.
    pub(super) fn look_again(&mut self, through: Seq) {
        if through > self.taken {
            self.widen_gap(through);
        }
    }

    /// All that is recorded up to here and belongs to this shard was given to it.
    pub(super) fn skip_to(&mut self, recorded: Seq) {
        if !self.has_more() {
            self.taken = self.taken.max(recorded);
        }
    }

    /// Memory is short: give up the oldest run.
    pub(super) fn evict(&mut self, slot: &Arc<Slot>) {
        if self.runs.front().is_some_and(|run| run.is_in(slot)) {
            let run = self.runs.pop_front().expect("seen above");
            self.widen_gap(run.last_seq());
        }
    }

    /// Everything after `settled` is to be published again, from the outbox: it is not kept in memory that long.
    pub(super) fn rewind(&mut self, settled: Seq) {
        self.widen_gap(self.taken);
        self.taken = settled;
        self.drop_reads();
        if self.gap_end <= settled {
            self.gap_end = 0;
        }
    }

    /// The shard is stopped: it must not hold memory that others could use.
    pub(super) fn hold(&mut self) {
        self.held = true;
        if let Some(last) = self.runs.back().map(Run::last_seq) {
            self.runs.clear();
            self.widen_gap(last);
        }
        self.drop_reads();
    }

    pub(super) fn unhold(&mut self) {
        self.held = false;
    }

    /// The read that would help now. After it was started, say so with [`Source::reading`].
    pub(super) fn wanted(&self) -> Option<Wanted> {
        let room = if self.held { 1 } else { READS_MAX };
        if self.reading || self.reads.len() >= room || self.gap_end <= self.read_to.max(self.taken) {
            return None;
        }
        let bytes_max = if self.held { 1 } else { READ_BYTES };
        Some(Wanted { after: self.read_to.max(self.taken), bytes_max, generation: self.generation })
    }

    pub(super) fn reading(&mut self) {
        self.reading = true;
    }

    /// The answer to a read; `None` if it failed. Returns whether it leads on.
    pub(super) fn read(&mut self, generation: u32, answer: Option<(Stretch, OwnedSemaphorePermit)>) -> bool {
        if generation != self.generation {
            return true;
        }
        self.reading = false;
        let Some((stretch, permit)) = answer else { return true };
        let before = self.read_to.max(self.taken);
        self.read_to = before.max(stretch.through);
        if !stretch.events.is_empty() {
            self.reads.push_back(Read { stretch, at: 0, _permit: permit });
        }
        self.read_to > before
    }
}

fn belongs(place: Place, route: RouteId, number: u16, shards: u16) -> bool {
    place.route == route && shard_number(place.key_hash, shards) == number
}

/// Which of a route's shards an event goes to.
pub(super) fn shard_number(key_hash: u64, shards: u16) -> u16 {
    (key_hash % u64::from(shards.max(1))) as u16
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::ring::Ring;
    use super::*;
    use crate::event::EventBatch;

    const ROUTE: RouteId = RouteId(4);

    fn batch(seqs: impl IntoIterator<Item = Seq>) -> Arc<EventBatch> {
        let mut batch = EventBatch::new();
        for seq in seqs {
            batch.push(Event {
                seq,
                route: ROUTE,
                key_hash: seq,
                id: "",
                key: "",
                exchange: "",
                routing_key: "",
                properties: &[0, 0],
                body: b"",
                parked: None,
            });
        }
        Arc::new(batch)
    }

    fn permit() -> OwnedSemaphorePermit {
        Arc::new(tokio::sync::Semaphore::new(1)).try_acquire_owned().unwrap()
    }

    /// A source with the outbox and the memory around it.
    struct Bench {
        source: Source,
        ring: Ring,
        recorded: Vec<Seq>,
        given: Vec<Seq>,
        recorded_through: Seq,
    }

    impl Bench {
        fn new(recorded: Seq, ring_bytes: usize) -> Bench {
            Bench {
                source: Source::new(ROUTE, 0, 1, 0, recorded),
                ring: Ring::new(1, ring_bytes),
                recorded: (1..=recorded).collect(),
                given: Vec::new(),
                recorded_through: recorded,
            }
        }

        fn record(&mut self, count: u64) {
            let first = self.recorded.len() as Seq + 1;
            let seqs: Vec<Seq> = (first..first + count).collect();
            self.recorded.extend(&seqs);
            self.recorded_through = first + count - 1;
            let source = &mut self.source;
            self.ring.push((batch(seqs), false), |_| Some(0), |_, run| source.push(run));
            while let Some((slot, shards)) = self.ring.overflow() {
                assert_eq!(shards, [0]);
                self.source.evict(&slot);
            }
        }

        fn read(&mut self, events_max: usize) -> bool {
            let Some(wanted) = self.source.wanted() else { return false };
            let events_max = if wanted.bytes_max == 1 { 1 } else { events_max };
            self.source.reading();
            let seqs: Vec<Seq> =
                self.recorded.iter().copied().filter(|seq| *seq > wanted.after).take(events_max).collect();
            let through = match seqs.len() < events_max {
                true => self.recorded_through.max(wanted.after),
                false => *seqs.last().unwrap(),
            };
            let stretch = Stretch { events: batch(seqs), released: Vec::new(), through };
            assert!(self.source.read(wanted.generation, Some((stretch, permit()))));
            true
        }

        fn take(&mut self, events_max: usize) {
            for _ in 0..events_max {
                let Next::Event(event, _) = self.source.next() else { return };
                let seq = event.seq;
                self.source.advance(seq);
                self.given.push(seq);
            }
        }
    }

    #[test]
    fn at_start_the_outbox_comes_first_and_then_memory() {
        let mut bench = Bench::new(5, 1 << 20);
        bench.record(3);
        assert!(matches!(bench.source.next(), Next::Unread));
        assert!(bench.read(100));
        bench.take(100);
        assert_eq!(bench.given, [1, 2, 3, 4, 5, 6, 7, 8]);
        assert!(!bench.source.is_behind() && !bench.source.has_more());
    }

    #[test]
    fn a_route_without_events_in_the_outbox_is_not_behind_after_one_read() {
        let mut bench = Bench::new(0, 1 << 20);
        bench.source = Source::new(ROUTE, 0, 1, 3, 900);
        bench.recorded_through = 900;
        assert!(bench.source.is_behind());
        bench.read(10);
        assert!(matches!(bench.source.next(), Next::Nothing));
        assert_eq!((bench.source.is_behind(), bench.source.taken(), bench.source.wanted()), (false, 900, None));
    }

    #[test]
    fn a_held_source_keeps_no_memory_and_reads_one_event() {
        let mut bench = Bench::new(0, 1 << 20);
        bench.record(4);
        bench.take(2);
        bench.source.rewind(0);
        bench.source.hold();
        bench.record(4);
        assert!(bench.source.runs.is_empty());
        assert_eq!(bench.source.wanted().unwrap().bytes_max, 1);
        bench.read(100);
        bench.take(100);
        assert_eq!(bench.given, [1, 2, 1]);
        bench.source.unhold();
        while bench.read(100) {
            bench.take(100);
        }
        assert_eq!(bench.given[2..], [1, 2, 3, 4, 5, 6, 7, 8]);
    }

    #[test]
    fn a_read_that_was_under_way_before_a_rewind_is_not_taken() {
        let mut bench = Bench::new(9, 1 << 20);
        let wanted = bench.source.wanted().unwrap();
        bench.source.reading();
        bench.source.rewind(0);
        let stretch = Stretch { events: batch([1, 2]), released: Vec::new(), through: 9 };
        bench.source.read(wanted.generation, Some((stretch, permit())));
        assert!(matches!(bench.source.next(), Next::Unread));
        assert!(bench.source.wanted().is_some());
    }

    #[test]
    fn a_shard_takes_only_the_keys_that_are_its_own() {
        let mut bench = Bench::new(9, 1 << 20);
        bench.source = Source::new(ROUTE, 1, 3, 0, 9);
        bench.read(100);
        bench.take(100);
        assert_eq!(bench.given, [1, 4, 7]);
    }

    proptest! {
        /// Whatever is recorded, evicted, read, stopped or rewound meanwhile: each event comes in order, and after a rewind to
        /// `settled` the next one is `settled + 1`.
        #[test]
        fn events_come_in_order_and_without_a_hole(
            recorded in 0u64..20,
            ring_bytes in 1usize..4000,
            steps in proptest::collection::vec((0u8..8, 1u64..12), 1..120),
        ) {
            let mut bench = Bench::new(recorded, ring_bytes);
            let mut last = 0;
            for (step, amount) in steps {
                match step {
                    0 | 1 => bench.record(amount),
                    2 => _ = bench.read(amount as usize),
                    3 | 4 => bench.take(amount as usize),
                    5 => {
                        last = bench.source.taken().saturating_sub(amount);
                        bench.source.rewind(last);
                    }
                    6 => bench.source.look_again(bench.recorded_through),
                    _ if bench.source.held => bench.source.unhold(),
                    _ => bench.source.hold(),
                }
                for seq in bench.given.drain(..) {
                    prop_assert_eq!(seq, last + 1);
                    last = seq;
                }
            }
            bench.source.unhold();
            loop {
                bench.take(1000);
                if !bench.read(1000) { break; }
            }
            prop_assert_eq!(bench.source.taken(), bench.recorded.len() as Seq);
            prop_assert!(!bench.source.has_more());
        }
    }
}
