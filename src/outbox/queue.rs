//! What callers and the writer thread share: the queue of work, the bound on it, the state.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch};
use towpath_contract::{Position, Resume, StateEntry};

use crate::event::{EventBatch, RouteId, Seq};

use super::error::OutboxError;
use super::stats::{State, Stats};

/// The events of one batch of a source, and what becomes durable with them.
#[derive(Debug)]
pub struct Record {
    pub source: Arc<str>,
    /// What `position` belongs to ([`towpath_contract::Capture::identity`]).
    pub identity: Arc<str>,
    pub events: EventBatch,
    /// `None` leaves the source where it is.
    pub position: Option<Position>,
    pub state: Vec<StateEntry>,
}

/// Room in memory for one record; given back when the record is durable, or when this is dropped.
#[derive(Debug)]
pub struct Permit {
    _bytes: Option<OwnedSemaphorePermit>,
}

/// Why an event is set aside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Parking {
    /// It cannot be published itself.
    Because(String),
    /// An earlier event of its key is parked, and the route says `wait`.
    Behind,
}

/// What retrying or discarding a parked event did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moved {
    /// Events on their way again, each under a new seq, with the same id and bytes.
    pub released: u64,
    pub discarded: u64,
}

pub(super) type Answer<T> = oneshot::Sender<Result<T, OutboxError>>;

#[derive(Debug)]
pub(super) enum Work {
    Record { record: Record, permit: Permit, done: Answer<Range<Seq>> },
    Park { seq: Seq, parking: Parking, done: Answer<()> },
    Retry { seq: Seq, done: Answer<Moved> },
    Discard { seq: Seq, done: Answer<Moved> },
    Resume { source: Arc<str>, done: Answer<Resume> },
}

impl Work {
    pub(super) fn refuse(self, error: OutboxError) {
        // A caller that no longer waits needs no answer.
        let _ = match self {
            Work::Record { done, .. } => done.send(Err(error)).is_ok(),
            Work::Park { done, .. } => done.send(Err(error)).is_ok(),
            Work::Retry { done, .. } | Work::Discard { done, .. } => done.send(Err(error)).is_ok(),
            Work::Resume { done, .. } => done.send(Err(error)).is_ok(),
        };
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Settlement {
    pub(super) route: RouteId,
    pub(super) shard: u16,
    pub(super) through: Seq,
}

/// What the writer takes at once and commits as one transaction.
#[derive(Debug, Default)]
pub(super) struct Drained {
    pub(super) works: Vec<Work>,
    pub(super) settlements: Vec<Settlement>,
    /// Works, by index, that were found out to be impossible when they were half done.
    pub(super) refusals: Vec<(usize, OutboxError)>,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    Work,
    /// The time for chores has come, and there is nothing else to do.
    Chores,
    /// All was taken, and no more will come.
    Closing,
}

#[derive(Debug, Default)]
struct Pending {
    works: Vec<Work>,
    settlements: Vec<Settlement>,
    /// When the oldest of `settlements` came.
    settle_since: Option<Instant>,
    ended: Option<OutboxError>,
}

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) path: PathBuf,
    pending: Mutex<Pending>,
    wake: Condvar,
    room: Arc<Semaphore>,
    room_bytes: usize,
    state: watch::Sender<State>,
    stats: watch::Sender<Stats>,
    /// The newest durable seq, for readers.
    committed: AtomicU64,
    settle_within: Duration,
}

impl Shared {
    pub(super) fn new(path: PathBuf, room_bytes: usize, settle_within: Duration, stats: Stats) -> Shared {
        Shared {
            path,
            pending: Mutex::default(),
            wake: Condvar::new(),
            room: Arc::new(Semaphore::new(room_bytes)),
            room_bytes,
            state: watch::Sender::new(State::Ok),
            committed: AtomicU64::new(stats.last_seq),
            stats: watch::Sender::new(stats),
            settle_within,
        }
    }

    pub(super) async fn reserve(&self, bytes: usize) -> Result<Permit, OutboxError> {
        if bytes == 0 {
            // A decision, and no events: it must be possible when nothing else is.
            return Ok(Permit { _bytes: None });
        }
        // A batch larger than all the room takes all of it, and passes alone.
        let bytes = bytes.min(self.room_bytes) as u32;
        let permit = self.room.clone().acquire_many_owned(bytes).await;
        let permit = permit.map_err(|_| self.ended())?;
        let mut state = self.state.subscribe();
        loop {
            match &*state.borrow_and_update() {
                State::Ok => return Ok(Permit { _bytes: Some(permit) }),
                State::Failed(error) => return Err(error.clone()),
                State::Closed => return Err(OutboxError::Closed),
                State::Full { .. } | State::TooOld { .. } | State::DiskFull | State::Locked => {}
            }
            state.changed().await.map_err(|_| OutboxError::Closed)?;
        }
    }

    pub(super) fn push(&self, work: Work) {
        let mut pending = self.lock();
        match &pending.ended {
            None => {
                pending.works.push(work);
                drop(pending);
                self.wake.notify_one();
            }
            Some(error) => {
                let error = error.clone();
                drop(pending);
                work.refuse(error);
            }
        }
    }

    pub(super) fn settle(&self, settlement: Settlement) {
        let mut pending = self.lock();
        let known = pending
            .settlements
            .iter_mut()
            .find(|known| known.route == settlement.route && known.shard == settlement.shard);
        match known {
            Some(known) => known.through = known.through.max(settlement.through),
            None => pending.settlements.push(settlement),
        }
        if pending.settle_since.is_none() {
            pending.settle_since = Some(Instant::now());
            drop(pending);
            self.wake.notify_one();
        }
    }

    /// Waits for work, at most until `chores`. What is there is taken as a whole: a settlement is never written before
    /// a parking that came first.
    pub(super) fn next(&self, drained: &mut Drained, chores: Option<Instant>) -> Next {
        let mut pending = self.lock();
        loop {
            let now = Instant::now();
            let settle_at = pending.settle_since.map(|since| since + self.settle_within);
            let ended = pending.ended.is_some();
            if !pending.works.is_empty() || settle_at.is_some_and(|at| ended || at <= now) {
                std::mem::swap(&mut pending.works, &mut drained.works);
                std::mem::swap(&mut pending.settlements, &mut drained.settlements);
                pending.settle_since = None;
                return Next::Work;
            }
            if ended {
                return Next::Closing;
            }
            if chores.is_some_and(|at| at <= now) {
                return Next::Chores;
            }
            let wait = [settle_at, chores].into_iter().flatten().min().map(|at| at - now);
            pending = match wait {
                Some(wait) => self.wake.wait_timeout(pending, wait).unwrap_or_else(PoisonError::into_inner).0,
                None => self.wake.wait(pending).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }

    /// Nothing waits to be taken.
    pub(super) fn is_idle(&self) -> bool {
        let pending = self.lock();
        pending.works.is_empty() && pending.ended.is_none()
    }

    /// Waits, but not once the outbox is being closed. Returns whether it is.
    pub(super) fn pause(&self, duration: Duration) -> bool {
        let until = Instant::now() + duration;
        let mut pending = self.lock();
        while pending.ended.is_none() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            pending = self.wake.wait_timeout(pending, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    /// No more is taken in. What is in the queue is still written.
    pub(super) fn close(&self) {
        self.lock().ended.get_or_insert(OutboxError::Closed);
        self.room.close();
        self.wake.notify_all();
    }

    /// The end, for this reason: everyone who waits is told.
    pub(super) fn fail(&self, error: OutboxError) {
        let works = {
            let mut pending = self.lock();
            pending.ended = Some(error.clone());
            pending.settlements.clear();
            pending.settle_since = None;
            std::mem::take(&mut pending.works)
        };
        self.room.close();
        self.set_state(State::Failed(error.clone()));
        works.into_iter().for_each(|work| work.refuse(error.clone()));
        self.wake.notify_all();
    }

    pub(super) fn ended(&self) -> OutboxError {
        self.lock().ended.clone().unwrap_or(OutboxError::Closed)
    }

    pub(super) fn state(&self) -> &watch::Sender<State> {
        &self.state
    }

    pub(super) fn set_state(&self, new: State) {
        self.state.send_if_modified(|state| {
            // The end stays the end, and its reason the first one.
            let changes = *state != new && !matches!(state, State::Failed(_) | State::Closed);
            if changes {
                *state = new;
            }
            changes
        });
    }

    pub(super) fn stats(&self) -> &watch::Sender<Stats> {
        &self.stats
    }

    pub(super) fn committed(&self) -> Seq {
        self.committed.load(Ordering::Acquire)
    }

    pub(super) fn set_committed(&self, seq: Seq) {
        self.committed.store(seq, Ordering::Release);
    }

    fn lock(&self) -> MutexGuard<'_, Pending> {
        // Every change under this lock is complete in itself: a panic elsewhere leaves nothing half done.
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
