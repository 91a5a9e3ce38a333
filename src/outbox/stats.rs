//! What status, metrics and the gate look at.

use std::sync::Arc;
use std::time::Duration;

use crate::event::{RouteId, Seq};

use super::backlog::Tally;
use super::error::OutboxError;

/// Whether the outbox takes events. Every state but [`State::Failed`] and [`State::Closed`] ends by itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum State {
    #[default]
    Ok,
    /// `max_size` is used up by unsettled and parked events: sources wait until the broker took some of the ones, or a person
    /// settled the others.
    Full {
        used_bytes: u64,
        max_bytes: u64,
    },
    /// The oldest unsettled event is older than `max_age`: sources wait until the broker took it.
    TooOld {
        max_age: Duration,
    },
    /// The disk has no room. Records wait in memory and are tried again.
    DiskFull,
    /// Another program holds the file's write lock. Records wait in memory and are tried again.
    Locked,
    /// Nothing more can be recorded or settled. What was not recorded was never acknowledged: the process must end,
    /// and its next start goes on from what is on disk.
    Failed(OutboxError),
    Closed,
}

/// For people; one line, no row data.
impl std::fmt::Display for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            State::Ok => f.write_str("ok"),
            State::Full { used_bytes, max_bytes } => {
                let (used, max) = (towpath_contract::ByteSize(*used_bytes), towpath_contract::ByteSize(*max_bytes));
                write!(f, "full: {used} of {max} hold events that are unsettled or parked; sources wait for the broker")
            }
            State::TooOld { max_age } => {
                let max_age = towpath_contract::Span(*max_age);
                write!(f, "the oldest unsettled event is older than {max_age}; sources wait for the broker")
            }
            State::DiskFull => f.write_str("the disk is full; recording goes on when there is room"),
            State::Locked => f.write_str("another program holds the write lock; recording goes on when it lets go"),
            State::Failed(error) => write!(f, "failed: {error}"),
            State::Closed => f.write_str("closed"),
        }
    }
}

/// A snapshot, as of the newest commit.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Stats {
    pub last_seq: Seq,
    /// In the order of their numbers; those that are no longer configured too.
    pub routes: Vec<RouteStats>,
    /// The SQLite file. It does not shrink: pruned space is used again.
    pub file_bytes: u64,
    /// The log beside it (`-wal`).
    pub wal_bytes: u64,
    /// The part of the file that holds something, and the log: what `max_size` bounds.
    pub used_bytes: u64,
    pub max_bytes: u64,
    /// Since the start, as all that follow.
    pub commits: u64,
    pub recorded_events: u64,
    /// Ids, keys, routing keys, properties and bodies.
    pub recorded_bytes: u64,
    pub pruned_events: u64,
    /// From the transaction's begin to the end of its fsync.
    pub commit_last: Duration,
    /// Of the last few thousand commits, as upper bounds at most a fifth too high.
    pub commit_p50: Duration,
    pub commit_p99: Duration,
}

#[derive(Clone, Debug, PartialEq)]
pub struct RouteStats {
    pub id: RouteId,
    pub name: Arc<str>,
    pub unsettled: Tally,
    /// When the oldest unsettled event was recorded, in ms since 1970.
    pub unsettled_since_ms: Option<i64>,
    pub parked_events: u64,
}

/// Four buckets per octave of microseconds, from 1 µs to about an hour. Old commits fade: at [`Self::COUNT_MAX`] all counts are
/// halved.
#[derive(Debug)]
pub(super) struct Latencies {
    counts: [u32; Self::BUCKETS],
    total: u32,
}

impl Latencies {
    const BUCKETS: usize = 128;
    const COUNT_MAX: u32 = 4096;

    pub(super) fn new() -> Latencies {
        Latencies { counts: [0; Self::BUCKETS], total: 0 }
    }

    pub(super) fn add(&mut self, latency: Duration) {
        self.counts[Self::bucket(latency.as_micros() as u64)] += 1;
        self.total += 1;
        if self.total >= Self::COUNT_MAX {
            self.counts.iter_mut().for_each(|count| *count /= 2);
            self.total = self.counts.iter().sum();
        }
    }

    /// The upper end of the bucket that holds the share `of_1000` of all.
    pub(super) fn quantile(&self, of_1000: u32) -> Duration {
        let wanted = (u64::from(self.total) * u64::from(of_1000)).div_ceil(1000);
        let mut seen = 0;
        let bucket = self.counts.iter().position(|count| {
            seen += u64::from(*count);
            seen >= wanted && seen > 0
        });
        Duration::from_micros(bucket.map_or(0, Self::upper_end))
    }

    fn bucket(micros: u64) -> usize {
        if micros < 4 {
            return micros as usize;
        }
        let octave = micros.ilog2() as usize;
        let quarter = (micros >> (octave - 2)) as usize & 3;
        ((octave - 1) * 4 + quarter).min(Self::BUCKETS - 1)
    }

    fn upper_end(bucket: usize) -> u64 {
        if bucket < 4 {
            return bucket as u64;
        }
        let (octave, quarter) = (bucket / 4 + 1, bucket as u64 % 4);
        ((5 + quarter) << (octave - 2)) - 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_bound_what_was_measured_closely() {
        let mut latencies = Latencies::new();
        assert_eq!(latencies.quantile(500), Duration::ZERO);
        for micros in 1..=1000 {
            latencies.add(Duration::from_micros(micros));
        }
        for (of_1000, exact) in [(500, 500), (990, 990), (1000, 1000)] {
            let found = latencies.quantile(of_1000).as_micros();
            assert!((exact..=exact * 5 / 4).contains(&found), "{of_1000}: {found}");
        }
    }

    #[test]
    fn every_duration_has_a_bucket_whose_upper_end_is_not_below_it() {
        for micros in (0..10_000).chain([1 << 20, 1 << 31]) {
            assert!(Latencies::upper_end(Latencies::bucket(micros)) >= micros, "{micros}");
        }
        assert_eq!(Latencies::bucket(u64::MAX), Latencies::BUCKETS - 1);
    }
}
