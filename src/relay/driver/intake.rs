//! What comes to the relay: news of the outbox, and the answers to what was asked of it.

use std::sync::Arc;
use std::task::{Poll, Waker};

use tokio::sync::OwnedSemaphorePermit;
use tokio::task::JoinError;
use towpath_contract::Result;

use super::Driver;
use crate::event::EventBatch;
use crate::relay::shard::Trouble;
use crate::relay::source::shard_number;
use crate::relay::store::{News, ParkedKey, Stretch};

/// What was done beside the task's own loop.
pub(super) enum Job {
    Read {
        shard: usize,
        generation: u32,
        outcome: Result<Stretch>,
        permit: OwnedSemaphorePermit,
    },
    Parked {
        shard: usize,
        outcome: Result<()>,
    },
    Keys {
        shard: usize,
        asked: u32,
        outcome: Result<Vec<ParkedKey>>,
    },
    /// What is wrong with the topology now.
    Declared {
        findings: Vec<String>,
    },
    Done,
}

impl Driver {
    pub(super) fn read(&mut self, index: usize, permit: OwnedSemaphorePermit) {
        let shard = &mut self.shards[index];
        let Some(wanted) = shard.source.wanted() else { return };
        shard.source.reading();
        let route = self.settings.routes[shard.route].id;
        let read = self.store.read(route, wanted.after, wanted.bytes_max);
        let generation = wanted.generation;
        self.jobs.spawn(async move { Job::Read { shard: index, generation, outcome: read.await, permit } });
    }

    /// Takes what is at hand, without waiting.
    pub(super) fn take_news(&mut self, batches_max: usize) {
        let mut context = std::task::Context::from_waker(Waker::noop());
        for _ in 0..batches_max {
            let Poll::Ready(Some(news)) = self.feed.poll_next(&mut context) else { break };
            self.on_news(news);
        }
    }

    pub(super) fn on_news(&mut self, news: News) {
        match news {
            News::Recorded { events, released } => self.on_recorded(events, released),
            News::Changed { route, through } => {
                let Some((first, count)) = self.places.get(usize::from(route.0)).copied().flatten() else { return };
                for index in first..first + usize::from(count) {
                    self.shards[index].parked_changed(through);
                    self.ready.mark(index);
                    self.changed.mark(index);
                }
                self.recorded = self.recorded.max(through);
            }
        }
    }

    fn on_recorded(&mut self, batch: Arc<EventBatch>, released: bool) {
        if let Some(last) = batch.len().checked_sub(1) {
            self.recorded = self.recorded.max(batch.place(last).seq);
        }
        let (shards, ready, changed, places) = (&mut self.shards, &mut self.ready, &mut self.changed, &self.places);
        let events = batch.clone();
        let mut stranger = None;
        let shard_of = |index: usize| {
            let place = events.place(index);
            let Some((first, count)) = places.get(usize::from(place.route.0)).copied().flatten() else {
                stranger = Some(place);
                return None;
            };
            Some(first + usize::from(shard_number(place.key_hash, count)))
        };
        self.ring.push((batch, released), shard_of, |index, run| {
            shards[index].push(run);
            ready.mark(index);
            changed.mark(index);
        });
        if let Some(place) = stranger {
            // They stay unsettled in the outbox; the pipeline must not start the relay without one of its routes.
            tracing::error!(route = place.route.0, seq = place.seq, "events of a route that the relay was not told of");
        }
        while let Some((slot, of)) = self.ring.overflow() {
            for index in of {
                self.shards[index].source.evict(&slot);
            }
        }
    }

    pub(super) fn on_job(&mut self, job: Result<Job, JoinError>) {
        let job = match job {
            Ok(job) => job,
            Err(failed) => match failed.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => return,
            },
        };
        match job {
            Job::Read { shard: index, generation, outcome, permit } => {
                let shard = &mut self.shards[index];
                match outcome {
                    Ok(stretch) => {
                        if !shard.source.read(generation, Some((stretch, permit))) {
                            let reason = format!("the outbox gave nothing after event {}", shard.source.taken());
                            shard.fall(Trouble::StoreFailed { reason });
                        }
                    }
                    Err(why) => {
                        shard.source.read(generation, None);
                        shard.fall(Trouble::StoreFailed { reason: why.to_string() });
                    }
                }
                self.ready.mark(index);
                self.changed.mark(index);
            }
            Job::Parked { shard: index, outcome } => {
                // What the store released in the course of parking is told already; it counts.
                self.take_news(usize::MAX);
                self.shards[index].parked(outcome.map_err(|why| why.to_string()));
                self.ready.mark(index);
                self.changed.mark(index);
            }
            Job::Keys { shard: index, asked, outcome } => {
                self.take_news(usize::MAX);
                let shard = &mut self.shards[index];
                match outcome {
                    Ok(keys) => {
                        let count = self.settings.routes[shard.route].shards();
                        let mine = |key: &ParkedKey| shard_number(key.key_hash, count) == shard.number;
                        let mine: Vec<ParkedKey> = keys.into_iter().filter(mine).collect();
                        shard.keys().are(asked, mine);
                    }
                    Err(why) => {
                        shard.keys().forget();
                        shard.fall(Trouble::StoreFailed { reason: why.to_string() });
                    }
                }
                self.ready.mark(index);
                self.changed.mark(index);
            }
            Job::Declared { findings } => self.on_declared(findings),
            Job::Done => {}
        }
    }
}
