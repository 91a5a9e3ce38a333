//! The writer thread: takes what is queued, makes it durable in one transaction, and tells those who wait.
//!
//! While one transaction is synced the next ones queue up, and become one in their turn: batches grow with the load,
//! and a lone record waits for nothing.

use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rusqlite::Connection;
use tokio::sync::mpsc;

use super::News;
use super::backlog::Tally;
use super::error::{Failure, OutboxError, Stall};
use super::ledger::{Draft, Ledger};
use super::limits::Limits;
use super::lock::FileLock;
use super::queue::{Drained, Next, Shared, Work};
use super::stats::{Latencies, RouteStats, State, Stats};
use super::transaction::{Halt, Outcome, Transaction, roll_back};
use super::usage::{Checkpoint, Usage};

/// Between two attempts while the disk is full.
const STALL_PAUSE: Duration = Duration::from_millis(50);
const STALL_PAUSE_MAX: Duration = Duration::from_secs(5);

pub(super) struct Writer {
    pub(super) conn: Connection,
    pub(super) shared: Arc<Shared>,
    pub(super) ledger: Ledger,
    pub(super) limits: Limits,
    news: mpsc::UnboundedSender<News>,
    pub(super) log: Arc<Path>,
    pub(super) usage: Usage,
    latencies: Latencies,
    /// Reused from transaction to transaction.
    draft: Draft,
    drained: Drained,
    outcomes: Vec<Outcome>,
    pub(super) prune_at: Instant,
    pub(super) checkpoint_at: Instant,
    pub(super) note_at: Instant,
    pub(super) noted: u64,
}

/// Outlives the writer: dropped last, when nothing touches the file any more.
pub(super) struct Held {
    pub(super) lock: FileLock,
    pub(super) reader: JoinHandle<()>,
    /// Ends the reader.
    pub(super) stop_reader: Box<dyn FnOnce() + Send>,
}

impl Writer {
    pub(super) fn new(
        conn: Connection,
        shared: Arc<Shared>,
        ledger: Ledger,
        limits: Limits,
        news: mpsc::UnboundedSender<News>,
    ) -> rusqlite::Result<Writer> {
        let log = super::log::log_path(&shared.path);
        let usage = Usage::measure(&conn, &log)?;
        let now = Instant::now();
        let writer = Writer {
            conn,
            shared,
            limits,
            news,
            log,
            usage,
            latencies: Latencies::new(),
            draft: Draft::default(),
            drained: Drained::default(),
            outcomes: Vec::new(),
            prune_at: now,
            checkpoint_at: now,
            note_at: now,
            noted: ledger.last_seq,
            ledger,
        };
        writer.judge();
        writer.publish_usage();
        writer.shared.stats().send_modify(|stats| {
            stats.max_bytes = writer.limits.max_bytes;
            writer.fill_routes(stats);
        });
        Ok(writer)
    }

    pub(super) fn run(mut self, held: Held) {
        let result = self.serve(&held.lock);
        let reason = result.as_ref().err().cloned().unwrap_or(OutboxError::Closed);
        if let Err(error) = result {
            self.shared.fail(error);
        }
        // What was being written when it failed; its callers find the state changed.
        self.drained.works.drain(..).for_each(|work| work.refuse(reason.clone()));
        let _ = held.lock.note(self.ledger.last_seq);
        let shared = self.shared.clone();
        drop(self);
        (held.stop_reader)();
        // A reader that panicked has nothing left to close.
        let _ = held.reader.join();
        drop(held.lock);
        shared.set_state(State::Closed);
    }

    fn serve(&mut self, lock: &FileLock) -> Result<(), OutboxError> {
        loop {
            let chores_at = self.chores_at();
            match self.shared.next(&mut self.drained, chores_at) {
                Next::Work => self.record()?,
                Next::Chores => {}
                Next::Closing => {
                    // With the log moved into it, the file alone is a whole copy.
                    return self.last_checkpoint();
                }
            }
            self.chores(lock)?;
        }
    }

    /// Commits what was drained; tries again for as long as the disk is full, since nobody else could.
    fn record(&mut self) -> Result<(), OutboxError> {
        let mut pause = STALL_PAUSE;
        loop {
            let started = Instant::now();
            self.draft.reset(&self.ledger, now_ms());
            self.outcomes.clear();
            let mut transaction = Transaction { conn: &self.conn, ledger: &self.ledger, draft: &mut self.draft };
            match transaction.write(&mut self.drained, &mut self.outcomes) {
                Ok(()) => {
                    self.latencies.add(started.elapsed());
                    return self.recorded(started.elapsed());
                }
                Err(Halt::Refused { work, error }) => {
                    roll_back(&self.conn);
                    self.drained.refusals.push((work, error));
                }
                Err(Halt::Sqlite(error)) => {
                    // First of all: a failure in between must not find the transaction open.
                    let failure = Failure::of("writing to", &self.shared.path, &error);
                    roll_back(&self.conn);
                    match failure {
                        Failure::Fatal(error) => return Err(error),
                        Failure::Stall(stall) => self.stalled(stall)?,
                    }
                    if self.shared.pause(pause) {
                        // Closing: not durable, so never acknowledged; the sources will be read again.
                        return Err(failure_at_close(&self.shared.path, &error));
                    }
                    pause = (pause * 2).min(STALL_PAUSE_MAX);
                }
            }
        }
    }

    fn recorded(&mut self, took: Duration) -> Result<(), OutboxError> {
        let recorded = self.draft.recorded;
        self.draft.apply(&mut self.ledger);
        self.shared.set_committed(self.ledger.last_seq);
        self.drained.settlements.clear();
        self.drained.refusals.clear();
        // Before anyone is told: whoever then looks finds it counted.
        self.publish_commit(recorded, took);
        for (work, outcome) in self.drained.works.drain(..).zip(self.outcomes.drain(..)) {
            tell(&self.news, work, outcome);
        }
        Ok(())
    }

    /// Nothing can be written now. What is settled may make room within the file.
    fn stalled(&mut self, stall: Stall) -> Result<(), OutboxError> {
        let state = match stall {
            Stall::DiskFull => State::DiskFull,
            Stall::Locked => State::Locked,
        };
        self.shared.set_state(state);
        if stall == Stall::DiskFull {
            self.checkpoint(Checkpoint::Passive)?;
            self.prune_step(None)?;
        }
        Ok(())
    }

    fn last_checkpoint(&mut self) -> Result<(), OutboxError> {
        match Usage::checkpoint(&self.conn, Checkpoint::Truncate) {
            Ok(_) => Ok(()),
            Err(error) => self.later(Failure::of("checkpointing", &self.shared.path, &error)),
        }
    }

    /// What the newest commit changed.
    fn publish_commit(&self, recorded: Tally, took: Duration) {
        self.shared.stats().send_modify(|stats| {
            stats.commits += 1;
            stats.recorded_events += recorded.events;
            stats.recorded_bytes += recorded.bytes;
            stats.commit_last = took;
            stats.commit_p50 = self.latencies.quantile(500);
            stats.commit_p99 = self.latencies.quantile(990);
            self.fill_routes(stats);
        });
    }

    fn fill_routes(&self, stats: &mut Stats) {
        stats.last_seq = self.ledger.last_seq;
        stats.routes.clear();
        stats.routes.extend(self.ledger.routes.iter().map(|route| {
            let unsettled = route.backlog.after(0);
            RouteStats {
                id: route.id,
                name: route.name.clone(),
                unsettled: unsettled.tally,
                unsettled_since_ms: unsettled.since_ms,
                parked_events: route.parked,
            }
        }));
    }
}

/// The end of a piece of work: durable, or refused.
fn tell(news: &mpsc::UnboundedSender<News>, work: Work, outcome: Outcome) {
    // Whoever no longer listens needs no answer.
    match (work, outcome) {
        (work, Outcome::Refused(error)) => work.refuse(error),
        (Work::Record { record, permit, done }, Outcome::Recorded(seqs)) => {
            if !record.events.is_empty() {
                let _ = news.send(News::Recorded { events: Arc::new(record.events), released: false });
            }
            let _ = done.send(Ok(seqs));
            drop(permit);
        }
        (Work::Park { done, .. }, Outcome::Parked(followed)) => {
            if let Some(events) = followed {
                let _ = news.send(News::Recorded { events: Arc::new(events), released: true });
            }
            let _ = done.send(Ok(()));
        }
        (Work::Retry { done, .. } | Work::Discard { done, .. }, Outcome::Moved { moved, route, through }) => {
            let _ = news.send(News::Changed { route, through });
            let _ = done.send(Ok(moved));
        }
        (Work::Resume { done, .. }, Outcome::Resumed(resume)) => {
            let _ = done.send(Ok(resume));
        }
        (work, outcome) => work.refuse(OutboxError::Bug(format!("an outcome of another kind of work: {outcome:?}"))),
    }
}

fn failure_at_close(path: &Path, error: &rusqlite::Error) -> OutboxError {
    Failure::of("writing to", path, error).into_error("writing to", path)
}

pub(super) fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
