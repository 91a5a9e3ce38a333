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
    /// A gap was accepted, and the tables have not all been read since.
    pub(super) unread_after_gap: bool,
    pub(super) changes: u64,
    /// Commit time of the newest recorded change, in microseconds since 1970.
    newest_commit_us: i64,
}

impl SourceBoard {
    pub(super) fn set_state(&self, state: SourceState) {
        let mut view = self.lock();
        if std::mem::discriminant(&view.state) != std::mem::discriminant(&state) || view.since.is_none() {
            view.since = Some(Instant::now());
        }
        view.state = state;
    }

    pub(super) fn opened(&self, identity: &str, unread_after_gap: bool) {
        let mut view = self.lock();
        view.identity = Some(identity.to_owned());
        view.unread_after_gap = unread_after_gap;
    }

    pub(super) fn read_after_gap(&self) {
        self.lock().unread_after_gap = false;
    }

    /// Told every second or so.
    pub(super) fn tick(&self, progress: Progress) {
        let mut view = self.lock();
        // A capture that was just opened does not know yet; what was complete stays so.
        let complete_as_of = progress.complete_as_of.or(view.progress.complete_as_of);
        view.progress = Progress { complete_as_of, ..progress };
    }

    /// Handed over for recording. Returns the commit time of the newest change.
    pub(super) fn captured(&self, batch: &Batch) -> Option<i64> {
        self.lock().changes += batch.len() as u64;
        let newest = batch.changes().last().filter(|change| change.op() != Op::Read)?;
        Some(newest.transaction().commit_time_us)
    }

    /// A change of this commit time is on disk, and so is everything before it.
    pub(super) fn recorded(&self, commit_time_us: i64) {
        self.lock().newest_commit_us = commit_time_us;
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

    /// How long changes have been waiting to be recorded, at most. `None` while that is not known.
    pub(super) fn lag(&self) -> Option<Duration> {
        let complete = self.progress.complete_as_of.map(|at| at.elapsed());
        if !matches!(self.state, SourceState::Capturing) {
            return complete;
        }
        // By two clocks: one that is ahead of ours says nothing.
        let commit = SystemTime::UNIX_EPOCH + Duration::from_micros(self.newest_commit_us.max(0) as u64);
        let newest = commit.elapsed().ok().filter(|_| self.newest_commit_us > 0);
        match (complete, newest) {
            (Some(complete), Some(newest)) if newest <= complete => Some(newest),
            (Some(complete), _) if complete < KNOWN_WITHIN => Some(Duration::ZERO),
            (Some(complete), _) => Some(complete),
            (None, newest) => newest,
        }
    }

    /// Log not yet recorded. What was heard of a source that is not being read is no measure of it.
    pub(super) fn behind_bytes(&self) -> Option<u64> {
        let heard = matches!(self.state, SourceState::Capturing | SourceState::WaitingForOutbox);
        self.progress.behind_bytes.filter(|_| heard)
    }
}

/// The source is asked every second, and what is quiet is recorded every two: a few seconds are no lag.
const KNOWN_WITHIN: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    fn view(complete_s: Option<u64>, newest_s: Option<i64>) -> View {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_micros() as i64;
        View {
            state: SourceState::Capturing,
            progress: Progress {
                complete_as_of: complete_s.map(|age| Instant::now() - Duration::from_secs(age)),
                behind_bytes: Some(7),
                ..Progress::default()
            },
            newest_commit_us: newest_s.map_or(0, |age| now - age * 1_000_000),
            ..View::default()
        }
    }

    fn seconds(view: &View) -> Option<u64> {
        view.lag().map(|lag| lag.as_secs())
    }

    #[test]
    fn lag_is_the_least_of_what_both_clocks_promise() {
        assert_eq!(seconds(&view(Some(2), Some(36_000))), Some(0), "idle since the morning");
        assert_eq!(seconds(&view(Some(100), Some(3))), Some(3), "busy, and keeping up");
        assert_eq!(seconds(&view(Some(100), Some(700))), Some(100), "the stream says nothing");
        assert_eq!(seconds(&view(Some(100), Some(-50))), Some(100), "the source's clock is ahead");
        assert_eq!(seconds(&view(None, None)), None);
        let paused = View { state: SourceState::Paused, ..view(Some(100), Some(3)) };
        assert_eq!((seconds(&paused), paused.behind_bytes()), (Some(100), None));
    }
}
