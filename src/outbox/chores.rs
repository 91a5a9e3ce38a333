//! What the writer does between transactions: emptying the log, pruning, and deciding whether sources wait.

use std::time::{Duration, Instant};

use super::error::{Failure, OutboxError};
use super::lock::FileLock;
use super::log::next_generation;
use super::prune;
use super::stats::State;
use super::transaction::roll_back;
use super::usage::{Checkpoint, Usage};
use super::writer::{Writer, now_ms};

/// Between two attempts at what could not be done, and two looks at the clock.
const CHORE_PAUSE: Duration = Duration::from_secs(1);
/// While room is needed, steps of pruning after each transaction.
const URGENT_STEPS_MAX: usize = 8;

impl Writer {
    pub(super) fn chores_at(&self) -> Option<Instant> {
        let checkpoint = (self.usage.log_pending_bytes >= self.limits.log_soft_bytes).then_some(self.checkpoint_at);
        let age = self.limits.max_age.map(|_| Instant::now() + CHORE_PAUSE);
        let note = (self.noted != self.ledger.last_seq).then_some(self.note_at);
        [Some(self.prune_at), checkpoint, age, note].into_iter().flatten().min()
    }

    pub(super) fn chores(&mut self, lock: &FileLock) -> Result<(), OutboxError> {
        self.measure()?;
        let idle = self.shared.is_idle();
        self.empty_log(if idle { self.limits.log_soft_bytes } else { self.limits.log_hard_bytes })?;
        self.prune(idle)?;
        self.judge();
        self.publish_usage();
        let now = Instant::now();
        if self.noted != self.ledger.last_seq && self.note_at <= now {
            // Written for the next start, which can do without.
            let _ = lock.note(self.ledger.last_seq);
            self.noted = self.ledger.last_seq;
            self.note_at = now + CHORE_PAUSE;
        }
        Ok(())
    }

    /// Moves the log into the file when it is that long, unless readers have just been found in the way.
    fn empty_log(&mut self, bytes: u64) -> Result<(), OutboxError> {
        if self.usage.log_pending_bytes >= bytes && self.checkpoint_at <= Instant::now() {
            self.checkpoint(Checkpoint::Passive)?;
        }
        // Readers that came and went kept the log from beginning anew; now they are waited for.
        if self.usage.log_bytes >= 2 * self.limits.log_hard_bytes && self.checkpoint_at <= Instant::now() {
            self.checkpoint(Checkpoint::Truncate)?;
        }
        Ok(())
    }

    fn prune(&mut self, idle: bool) -> Result<(), OutboxError> {
        let mut steps = 0;
        while self.usage.used_bytes() > self.limits.resume_bytes && steps < URGENT_STEPS_MAX {
            if !self.prune_step(None)? {
                break;
            }
            steps += 1;
            self.measure()?;
            self.empty_log(self.limits.log_hard_bytes)?;
        }
        if idle && self.prune_at <= Instant::now() {
            let retain_ms = i64::try_from(self.limits.retain.as_millis()).unwrap_or(i64::MAX);
            let more = self.prune_step(Some(now_ms().saturating_sub(retain_ms).saturating_add(1)))?;
            if !more {
                self.prune_at = Instant::now() + self.limits.prune_pause;
            }
        }
        Ok(())
    }

    /// Returns whether there may be more to prune.
    pub(super) fn prune_step(&mut self, before_ms: Option<i64>) -> Result<bool, OutboxError> {
        let done = prune::plan(&self.conn, &self.ledger, before_ms).and_then(|plan| {
            let Some(plan) = plan else { return Ok(None) };
            if !plan.is_empty() {
                prune::delete(&self.conn, &plan)?;
            }
            Ok(Some(plan))
        });
        match done {
            Ok(None) => Ok(false),
            Ok(Some(plan)) => {
                prune::done(&mut self.ledger, &plan);
                self.shared.stats().send_if_modified(|stats| {
                    stats.pruned_events += plan.events();
                    plan.events() > 0
                });
                Ok(plan.young_ms.is_none())
            }
            Err(error) => {
                let failure = Failure::of("pruning", &self.shared.path, &error);
                roll_back(&self.conn);
                self.later(failure).map(|()| false)
            }
        }
    }

    pub(super) fn checkpoint(&mut self, mode: Checkpoint) -> Result<(), OutboxError> {
        match Usage::checkpoint(&self.conn, mode) {
            Ok(complete) => {
                if !complete {
                    self.checkpoint_at = Instant::now() + CHORE_PAUSE;
                } else if let Err(error) = next_generation(&self.conn) {
                    self.later(Failure::of("writing to", &self.shared.path, &error))?;
                }
                self.measure()
            }
            Err(error) => {
                self.checkpoint_at = Instant::now() + CHORE_PAUSE;
                self.later(Failure::of("checkpointing", &self.shared.path, &error))
            }
        }
    }

    fn measure(&mut self) -> Result<(), OutboxError> {
        match Usage::measure(&self.conn, &self.log) {
            Ok(usage) => self.usage = usage,
            Err(error) => self.later(Failure::of("measuring", &self.shared.path, &error))?,
        }
        Ok(())
    }

    /// A chore that could not be done now is done later.
    pub(super) fn later(&self, failure: Failure) -> Result<(), OutboxError> {
        match failure {
            Failure::Stall(_) => Ok(()),
            Failure::Fatal(error) => Err(error),
        }
    }

    /// Decides whether sources wait. They go on at a lower bound than the one that stopped them, so that they do not
    /// stop and go with every commit.
    pub(super) fn judge(&self) {
        let used_bytes = self.usage.used_bytes();
        let oldest_ms = self.ledger.routes.iter().filter_map(|route| route.backlog.since_ms()).min();
        let age = Duration::from_millis(oldest_ms.map_or(0, |oldest| now_ms().saturating_sub(oldest)).max(0) as u64);
        let (full_bytes, age_share) = match &*self.shared.state().borrow() {
            State::Full { .. } => (self.limits.resume_bytes, 10),
            State::TooOld { .. } => (self.limits.full_bytes, 9),
            _ => (self.limits.full_bytes, 10),
        };
        let too_old = self.limits.max_age.filter(|max_age| age > *max_age * age_share / 10);
        let max_bytes = self.limits.max_bytes;
        self.shared.set_state(match too_old {
            _ if used_bytes > full_bytes => State::Full { used_bytes, max_bytes },
            Some(max_age) => State::TooOld { max_age },
            None => State::Ok,
        });
    }

    pub(super) fn publish_usage(&self) {
        let usage = &self.usage;
        let new = (usage.file_bytes, usage.log_bytes, usage.used_bytes());
        self.shared.stats().send_if_modified(|stats| {
            let changed = (stats.file_bytes, stats.wal_bytes, stats.used_bytes) != new;
            (stats.file_bytes, stats.wal_bytes, stats.used_bytes) = new;
            changed
        });
    }
}
