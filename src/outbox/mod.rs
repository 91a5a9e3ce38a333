//! The durable store of events between capture and broker, and of every source's position: one SQLite file.
//!
//! **Recorded** is one of the two durable moments: the events of a batch, the source's new position and its state become
//! durable in one transaction, or none of them does. **Settled** is the other: the broker took an event, and the cursor
//! of its route and shard moves past it.
//!
//! One thread writes, with a group commit ([`writer`]); one reads, for a relay that is behind and for people ([`read`]).
//! What was just recorded is handed on in memory ([`News`]). Nothing here knows routes' rules or the broker.
//!
//! The file's tables are described in `schema.sql`, and for people in `docs/outbox.md`.

mod backlog;
mod chores;
mod error;
mod ledger;
mod limits;
mod lock;
mod log;
mod open;
mod parked;
mod prune;
mod queue;
mod read;
mod stats;
#[cfg(test)]
mod tests;
mod transaction;
mod usage;
mod writer;

use std::collections::BTreeMap;
use std::future::Future;
use std::ops::Range;
use std::pin::Pin;
use std::sync::{Arc, mpsc as sync_mpsc};
use std::task::{Context, Poll};
use std::thread;

use tokio::sync::{mpsc, oneshot, watch};
use towpath_contract::Resume;

use crate::config::model::OutboxConfig;
use crate::event::{EventBatch, RouteId, Seq};

pub use self::backlog::Tally;
pub use self::error::OutboxError;
pub use self::open::peek;
pub use self::queue::{Moved, Parking, Permit, Record};
#[cfg(any(test, fuzzing))]
pub(crate) use self::read::read_row;
pub use self::read::{ParkedEvent, ParkedKey, RouteSet, Stretch};
pub use self::stats::{RouteStats, State, Stats};

use self::limits::Limits;
use self::queue::{Answer, Settlement, Shared, Work};
use self::read::Query;
use self::writer::{Held, Writer};

/// What the outbox is to know of the pipeline.
#[derive(Debug)]
pub struct Setup {
    /// The configured routes. New names get a number; numbers of old names stay.
    pub routes: Vec<RouteSetup>,
    /// Cursors per route, at least 1: the relay's number of shards.
    pub shards: u16,
    /// Hears of everything that is recorded. Unbounded, and never more than what was durable at one time and not yet
    /// taken: the receiver must keep taking, and bounds its own memory.
    pub news: mpsc::UnboundedSender<News>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteSetup {
    pub name: String,
    /// Whether later events of a key wait for its parked ones (`after_parked: wait`).
    pub waits: bool,
}

/// What became durable, in the order of `seq`.
#[derive(Clone, Debug)]
pub enum News {
    /// `released`: these were parked before. They go out before all others of their key; see [`Outbox::park`].
    Recorded { events: Arc<EventBatch>, released: bool },
    /// A person retried or discarded parked events: the route is to be read again from its cursors
    /// ([`Outbox::parked_keys`], then [`Outbox::read`] up to `through` at least).
    Changed { route: RouteId, through: Seq },
}

/// What the file knew when it was opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// In the order of their numbers, 1 first; those that are no longer configured too: their events still are to be
    /// published.
    pub routes: Vec<StoredRoute>,
    /// By name.
    pub sources: BTreeMap<String, Resume>,
    /// 0 when nothing was ever recorded.
    pub last_seq: Seq,
    /// To be shown once.
    pub warnings: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredRoute {
    pub id: RouteId,
    pub name: String,
    pub configured: bool,
    /// The outbox's newest event when the route was made: none of its own is older.
    pub since: Seq,
    /// Settled through, by shard.
    pub settled: Vec<Seq>,
    pub unsettled: Tally,
    pub parked_events: u64,
}

/// A handle; clones are cheap and mean the same outbox. It closes when the last one is dropped, or by [`Outbox::close`].
#[derive(Clone, Debug)]
pub struct Outbox {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    shared: Arc<Shared>,
    queries: sync_mpsc::Sender<Query>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.shared.close();
    }
}

impl Outbox {
    /// Opens the file, or makes it, and holds it until it is closed. Blocks: takes milliseconds, whatever the file's size; after a
    /// crash longer by what it takes to write its log.
    pub fn open(config: &OutboxConfig, setup: Setup) -> Result<(Outbox, Stored), OutboxError> {
        Outbox::open_with(config, setup, Limits::new(config))
    }

    fn open_with(config: &OutboxConfig, setup: Setup, limits: Limits) -> Result<(Outbox, Stored), OutboxError> {
        let path = &config.sqlite;
        let opened = open::open(path, &setup.routes, setup.shards.max(1), limits.log_hard_bytes)?;
        let stats = Stats { last_seq: opened.stored.last_seq, ..Stats::default() };
        let shared = Arc::new(Shared::new(path.clone(), limits.in_flight_bytes, limits.settle_within, stats));
        let (queries, receiver) = sync_mpsc::channel();
        let thread_failed = |error: std::io::Error| OutboxError::Io {
            operation: "starting a thread for",
            path: path.clone(),
            found: error.to_string(),
        };

        let (reader, reader_shared) = (opened.reader, shared.clone());
        let reader = thread::Builder::new()
            .name("outbox-reader".into())
            .spawn(move || {
                let guard = PanicGuard(reader_shared.clone());
                read::run(reader, reader_shared, receiver);
                drop(guard);
            })
            .map_err(thread_failed)?;
        let stop = queries.clone();
        let held = Held {
            lock: opened.lock,
            reader,
            stop_reader: Box::new(move || {
                // Gone already when it panicked.
                let _ = stop.send(Query::Stop);
            }),
        };
        let writer = Writer::new(opened.writer, shared.clone(), opened.ledger, limits, setup.news)
            .map_err(|error| error::Failure::of("opening", path, &error).into_error("opening", path))?;
        let writer_shared = shared.clone();
        thread::Builder::new()
            .name("outbox-writer".into())
            .spawn(move || {
                let guard = PanicGuard(writer_shared);
                writer.run(held);
                drop(guard);
            })
            .map_err(thread_failed)?;
        Ok((Outbox { inner: Arc::new(Inner { shared, queries }) }, opened.stored))
    }

    /// Waits until there is room for a record of so many bytes ([`EventBatch::bytes`]): in memory, and in the file. This is
    /// where a source is paused. For 0 bytes, a record without events, there always is.
    pub async fn reserve(&self, bytes: usize) -> Result<Permit, OutboxError> {
        self.inner.shared.reserve(bytes).await
    }

    /// Queues a record. Does not wait: the answer comes when it is durable, in the order of the calls. When one is
    /// refused, those behind it of the same source are too, until [`Outbox::resume`] is called for it.
    pub fn record(&self, permit: Permit, record: Record) -> Recording {
        let (done, answer) = oneshot::channel();
        self.inner.shared.push(Work::Record { record, permit, done });
        Recording { answer, shared: self.inner.shared.clone() }
    }

    /// Where a source is to go on, after all of its records that were queued before.
    pub async fn resume(&self, source: &str) -> Result<Resume, OutboxError> {
        self.work(|done| Work::Resume { source: source.into(), done }).await
    }

    /// Every event of this route and shard up to `through` is settled. Cheap: becomes durable with the next commit, or soon.
    /// A shard without events must be moved along: what is settled for a route is the least of its shards' cursors.
    pub fn settle(&self, route: RouteId, shard: u16, through: Seq) {
        self.inner.shared.settle(Settlement { route, shard, through });
    }

    /// The events of these routes after `after`, about `bytes_max` of them, one at least if there is one.
    pub async fn read(&self, routes: RouteSet, after: Seq, bytes_max: usize) -> Result<Stretch, OutboxError> {
        self.query(|done| Query::Read { routes, after, bytes_max, done }).await
    }

    /// Sets an event aside. Durable before any settlement that is told afterwards.
    ///
    /// [`Parking::Behind`] is for the later events of a key whose earlier one is parked. Should that have been released
    /// meanwhile, the event is not parked but follows it: it comes again in [`News::Recorded`], released.
    pub async fn park(&self, seq: Seq, parking: Parking) -> Result<(), OutboxError> {
        self.work(|done| Work::Park { seq, parking, done }).await
    }

    /// The keys of a route that have events parked or released, as they stand for one who reads on after `through`.
    ///
    /// While `parked` is above 0, all events of the key are to be parked behind. Else, while `released` is, only released
    /// ones go out, each counting it down, and others are parked behind (to come again after those).
    /// At most `keys_max` of them.
    pub async fn parked_keys(
        &self,
        route: RouteId,
        through: Seq,
        keys_max: usize,
    ) -> Result<Vec<ParkedKey>, OutboxError> {
        self.query(|done| Query::ParkedKeys { route, through, keys_max, done }).await
    }

    /// Parked events after the one of seq `after`, without their bodies; at most `limit`.
    pub async fn parked(
        &self,
        route: Option<RouteId>,
        after: Seq,
        limit: u32,
    ) -> Result<Vec<ParkedEvent>, OutboxError> {
        self.query(|done| Query::Parked { route, after, limit, done }).await
    }

    /// One parked event with its body.
    pub async fn parked_event(&self, seq: Seq) -> Result<Option<ParkedEvent>, OutboxError> {
        self.query(|done| Query::ParkedOne { seq, done }).await
    }

    /// Publishes a parked event again, and those of its key that only waited for it, in their order.
    pub async fn retry(&self, seq: Seq) -> Result<Moved, OutboxError> {
        self.work(|done| Work::Retry { seq, done }).await
    }

    /// Gives a parked event up; those that waited for it alone go out.
    pub async fn discard(&self, seq: Seq) -> Result<Moved, OutboxError> {
        self.work(|done| Work::Discard { seq, done }).await
    }

    pub fn stats(&self) -> Stats {
        self.inner.shared.stats().borrow().clone()
    }

    /// Changes with every commit.
    pub fn watch_stats(&self) -> watch::Receiver<Stats> {
        self.inner.shared.stats().subscribe()
    }

    pub fn state(&self) -> State {
        self.inner.shared.state().borrow().clone()
    }

    /// Changes are rare. On [`State::Failed`] the process must end.
    pub fn watch_state(&self) -> watch::Receiver<State> {
        self.inner.shared.state().subscribe()
    }

    /// Writes what is queued, moves the log into the file, and lets go of it. Returns the error if the outbox had failed.
    pub async fn close(&self) -> Result<(), OutboxError> {
        self.inner.shared.close();
        let mut state = self.watch_state();
        let end = state.wait_for(|state| matches!(state, State::Closed | State::Failed(_))).await;
        match end.as_deref() {
            Ok(State::Failed(error)) => Err(error.clone()),
            _ => Ok(()),
        }
    }

    async fn work<T>(&self, work: impl FnOnce(Answer<T>) -> Work) -> Result<T, OutboxError> {
        let (done, answer) = oneshot::channel();
        self.inner.shared.push(work(done));
        answer.await.unwrap_or_else(|_| Err(self.inner.shared.ended()))
    }

    async fn query<T>(&self, query: impl FnOnce(Answer<T>) -> Query) -> Result<T, OutboxError> {
        let (done, answer) = oneshot::channel();
        // A reader that is gone drops the question, and with it `done`.
        let _ = self.inner.queries.send(query(done));
        answer.await.unwrap_or_else(|_| Err(self.inner.shared.ended()))
    }
}

/// The future of a record: the seqs of its events, once it is durable.
#[derive(Debug)]
pub struct Recording {
    answer: oneshot::Receiver<Result<Range<Seq>, OutboxError>>,
    shared: Arc<Shared>,
}

impl Future for Recording {
    type Output = Result<Range<Seq>, OutboxError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = Pin::new(&mut self.answer).poll(context);
        answer.map(|answer| answer.unwrap_or_else(|_| Err(self.shared.ended())))
    }
}

/// A thread that panics leaves nobody waiting.
struct PanicGuard(Arc<Shared>);

impl Drop for PanicGuard {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.fail(OutboxError::Bug("a thread of the outbox panicked".into()));
        }
    }
}
