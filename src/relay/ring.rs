//! Recently recorded batches, kept in memory within a bound and indexed by shard once, when they arrive.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};

use towpath_contract::planted;

use crate::event::{EventBatch, Place, Seq};

/// A batch and, for each shard that has events in it, their indices.
#[derive(Debug)]
pub(super) struct Slot {
    batch: Arc<EventBatch>,
    released: bool,
    /// Indices into the batch, grouped by shard, in order within a group.
    indices: Vec<u32>,
    groups: Vec<Group>,
}

#[derive(Clone, Copy, Debug)]
struct Group {
    shard: u32,
    start: u32,
    end: u32,
}

/// The rest of one shard's events in one slot; never empty. A slot lives as long as a run points to it.
#[derive(Debug)]
pub(super) struct Run {
    slot: Arc<Slot>,
    at: u32,
    end: u32,
}

impl Run {
    pub(super) fn batch(&self) -> &EventBatch {
        &self.slot.batch
    }

    /// The index of the next event in the batch.
    pub(super) fn index(&self) -> usize {
        self.slot.indices[self.at as usize] as usize
    }

    pub(super) fn next_seq(&self) -> Seq {
        self.slot.batch.place(self.index()).seq
    }

    pub(super) fn last_seq(&self) -> Seq {
        self.slot.batch.place(self.slot.indices[self.end as usize - 1] as usize).seq
    }

    /// Returns whether there are more.
    pub(super) fn advance(&mut self) -> bool {
        self.at += 1;
        self.at < self.end
    }

    /// The events were parked before.
    pub(super) fn released(&self) -> bool {
        self.slot.released
    }

    /// What is still to come of it.
    pub(super) fn places(&self) -> impl Iterator<Item = Place> + '_ {
        let rest = &self.slot.indices[self.at as usize..self.end as usize];
        rest.iter().map(|index| self.slot.batch.place(*index as usize))
    }

    pub(super) fn is_in(&self, slot: &Arc<Slot>) -> bool {
        Arc::ptr_eq(&self.slot, slot)
    }
}

#[derive(Debug)]
pub(super) struct Ring {
    /// Oldest first, with its bytes. Slots that every shard is done with are gone already.
    slots: VecDeque<(Weak<Slot>, usize)>,
    bytes: usize,
    bytes_max: usize,
    /// Scratch, by shard: how many events of the batch at hand.
    counts: Vec<u32>,
}

impl Ring {
    pub(super) fn new(shards: usize, bytes_max: usize) -> Ring {
        Ring { slots: VecDeque::new(), bytes: 0, bytes_max, counts: vec![0; shards] }
    }

    /// Takes a batch in and gives each shard its run. `shard_of` says to which shard an event goes, by its index.
    pub(super) fn push(
        &mut self,
        (batch, released): (Arc<EventBatch>, bool),
        mut shard_of: impl FnMut(usize) -> Option<usize>,
        mut give: impl FnMut(usize, Run),
    ) {
        let mut groups: Vec<Group> = Vec::new();
        let of: Vec<u32> = (0..batch.len())
            .map(|index| {
                let Some(shard) = shard_of(index) else { return u32::MAX };
                if self.counts[shard] == 0 {
                    groups.push(Group { shard: shard as u32, start: 0, end: 0 });
                }
                self.counts[shard] += 1;
                shard as u32
            })
            .collect();
        let mut start = 0;
        for group in &mut groups {
            // From here on the scratch holds where the shard's next index goes.
            let count = std::mem::replace(&mut self.counts[group.shard as usize], start);
            (group.start, group.end) = (start, start + count);
            start += count;
        }
        let mut indices = vec![0; start as usize];
        for (index, shard) in of.into_iter().enumerate().filter(|(_, shard)| *shard != u32::MAX) {
            let place = &mut self.counts[shard as usize];
            indices[*place as usize] = index as u32;
            *place += 1;
        }
        if planted("parallel_publish_of_a_key") {
            groups.iter().for_each(|group| indices[group.start as usize..group.end as usize].reverse());
        }
        for group in &groups {
            self.counts[group.shard as usize] = 0;
        }
        let bytes = batch.bytes();
        let slot = Arc::new(Slot { batch, released, indices, groups });
        for group in &slot.groups {
            give(group.shard as usize, Run { slot: slot.clone(), at: group.start, end: group.end });
        }
        self.slots.push_back((Arc::downgrade(&slot), bytes));
        self.bytes += bytes;
    }

    /// While there is more than the bound allows: the oldest slot, and the shards that have a run in it. They must give their
    /// runs up.
    pub(super) fn overflow(&mut self) -> Option<(Arc<Slot>, Vec<usize>)> {
        while let Some((slot, bytes)) = self.slots.front() {
            let alive = slot.upgrade();
            if alive.is_some() && self.bytes <= self.bytes_max {
                return None;
            }
            self.bytes -= bytes;
            self.slots.pop_front();
            if let Some(slot) = alive {
                let shards = slot.groups.iter().map(|group| group.shard as usize).collect();
                return Some((slot, shards));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Event, RouteId};

    fn batch(events: impl IntoIterator<Item = (Seq, u16)>) -> Arc<EventBatch> {
        let mut batch = EventBatch::new();
        for (seq, route) in events {
            batch.push(Event {
                seq,
                route: RouteId(route),
                key_hash: 0,
                id: "id",
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

    fn push(ring: &mut Ring, batch: &Arc<EventBatch>) -> Vec<(usize, Run)> {
        let mut runs = Vec::new();
        let shard_of = |index| (batch.place(index).route.0 < 9).then(|| batch.place(index).route.0 as usize);
        ring.push((batch.clone(), false), shard_of, |shard, run| runs.push((shard, run)));
        runs
    }

    fn seqs(mut run: Run) -> Vec<Seq> {
        let mut seqs = Vec::new();
        loop {
            seqs.push(run.batch().place(run.index()).seq);
            if !run.advance() {
                return seqs;
            }
        }
    }

    #[test]
    fn each_shard_gets_its_own_events_in_order() {
        let mut ring = Ring::new(9, 1 << 20);
        for _ in 0..2 {
            let runs = push(&mut ring, &batch([(1, 3), (2, 0), (3, 3), (4, 9), (5, 0), (6, 3)]));
            let found: Vec<_> = runs.into_iter().map(|(shard, run)| (shard, run.last_seq(), seqs(run))).collect();
            assert_eq!(found, [(3, 6, vec![1, 3, 6]), (0, 5, vec![2, 5])]);
        }
    }

    #[test]
    fn what_is_done_with_frees_its_room_before_anything_is_evicted() {
        let one = batch([(1, 0)]);
        let mut ring = Ring::new(9, 2 * one.bytes());
        drop(push(&mut ring, &one));
        let kept = push(&mut ring, &one);
        let _newest = push(&mut ring, &one);
        assert!(ring.overflow().is_none());
        let _last = push(&mut ring, &one);
        let (slot, shards) = ring.overflow().unwrap();
        assert!(kept[0].1.is_in(&slot));
        assert_eq!(shards, [0]);
        assert!(ring.overflow().is_none());
    }
}
