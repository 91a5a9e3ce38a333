//! What a source's task shows of itself: written by the task, read for status, health and metrics.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use towpath_contract::{Batch, Error, ErrorKind, Op, Progress};

/// Where a source stands.
#[derive(Debug, Default)]
pub(super) enum SourceState {
    #[default]
    Starting,
    Capturing,
    /// By a person's word.
    Paused,
    /// The outbox has no room.
    WaitingForOutbox,
    /// An error that passes; tried again after the pause.
    Retrying {
        error: Error,
        pause: Duration,
    },
    /// A person must act.
    Stopped {
        error: Error,
    },
    /// The process is stopping.
    Ended,
}

#[derive(Debug, Default)]
pub(super) struct SourceBoard(Mutex<View>);

/// A source at one moment.
#[derive(Debug, Default)]
pub(super) struct View {
    pub(super) state: SourceState,
    /// Since when it is so.
    pub(super) since: Option<Instant>,
    pub(super) identity: Option<String>,
    pub(super) progress: Progress,
    pub(super) changes: u64,
    /// Commit time of the newest captured change, in microseconds since 1970.
    newest_commit_us: i64,
    /// When it was last known that nothing was waiting to be read.
    caught_up: Option<Instant>,
    changes_at_last_tick: u64,
}

impl SourceBoard {
    pub(super) fn set_state(&self, state: SourceState) {
        let mut view = self.lock();
        if std::mem::discriminant(&view.state) != std::mem::discriminant(&state) || view.since.is_none() {
            view.since = Some(Instant::now());
        }
        view.state = state;
    }

    pub(super) fn opened(&self, identity: &str) {
        self.lock().identity = Some(identity.to_owned());
    }

    /// Told every second or so. `idle`: nothing is on its way into the outbox.
    pub(super) fn tick(&self, progress: Progress, idle: bool) {
        let mut view = self.lock();
        view.progress = progress;
        if idle && view.changes == view.changes_at_last_tick {
            view.caught_up = Some(Instant::now());
        }
        view.changes_at_last_tick = view.changes;
    }

    pub(super) fn captured(&self, batch: &Batch) {
        let mut view = self.lock();
        view.changes += batch.len() as u64;
        if let Some(change) = batch.changes().last().filter(|change| change.op() != Op::Read) {
            view.newest_commit_us = change.transaction().commit_time_us;
        }
    }

    /// Reads the board under its lock; keep it short.
    pub(super) fn read<T>(&self, look: impl FnOnce(&View) -> T) -> T {
        look(&self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, View> {
        // Every change under this lock is complete in itself.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl View {
    /// Stopped because changes may be missing.
    pub(super) fn is_gap(&self) -> bool {
        matches!(&self.state, SourceState::Stopped { error } if error.kind == ErrorKind::Gap)
    }

    /// Why a source that does not capture cannot be asked for a snapshot, and what to do first.
    pub(super) fn why_not_now(&self) -> String {
        match &self.state {
            SourceState::Stopped { error } => {
                let help = error.help.as_deref().unwrap_or("resume the source when that is mended");
                format!("the source is stopped: {}; {help}", error.message)
            }
            _ => "the source is paused; resume it first".into(),
        }
    }

    /// How long changes have been waiting to be recorded, as far as is known. While it captures: the age of the newest
    /// captured change, by both clocks, or 0 when nothing came for a moment. While it does not: the time since it was last
    /// caught up. `None` before that is known.
    pub(super) fn lag(&self) -> Option<Duration> {
        let since_caught_up = self.caught_up.map(|at| at.elapsed());
        match self.state {
            SourceState::Capturing if since_caught_up.is_some_and(|age| age < Duration::from_secs(3)) => {
                Some(Duration::ZERO)
            }
            SourceState::Capturing if self.newest_commit_us > 0 => {
                let commit = SystemTime::UNIX_EPOCH + Duration::from_micros(self.newest_commit_us as u64);
                Some(commit.elapsed().unwrap_or_default())
            }
            _ => since_caught_up,
        }
    }
}
