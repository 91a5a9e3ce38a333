//! When the server is told what, apart from how.

use std::time::{Duration, Instant};

use crate::position::Lsn;
use crate::wire::Status;

/// With nothing new the server still hears from us this often: half of the shortest `wal_sender_timeout` that anyone sets.
const QUIET_EVERY: Duration = Duration::from_secs(1);
/// What was recorded is told this soon: WAL is released early, and a busy stream is not answered for every batch.
const RECORDED_AFTER: Duration = Duration::from_millis(200);

pub(crate) struct Feedback {
    received: Lsn,
    recorded: Lsn,
    sent: Option<(Instant, Status)>,
    reply_wanted: bool,
}

impl Feedback {
    pub(crate) fn new(recorded: Lsn) -> Feedback {
        Feedback { received: recorded, recorded, sent: None, reply_wanted: false }
    }

    /// Everything committed below was received.
    pub(crate) fn on_received(&mut self, lsn: Lsn) {
        self.received = self.received.max(lsn);
    }

    /// Everything committed below is on disk in the outbox.
    pub(crate) fn on_recorded(&mut self, lsn: Lsn) {
        self.recorded = self.recorded.max(lsn);
    }

    pub(crate) fn on_reply_wanted(&mut self) {
        self.reply_wanted = true;
    }

    pub(crate) fn recorded(&self) -> Lsn {
        self.recorded
    }

    pub(crate) fn received(&self) -> Lsn {
        self.received
    }

    pub(crate) fn due_at(&self, now: Instant) -> Instant {
        match self.sent {
            _ if self.reply_wanted => now,
            None => now,
            Some((at, status)) if status.flush < self.recorded => at + RECORDED_AFTER,
            Some((at, _)) => at + QUIET_EVERY,
        }
    }

    /// Write, flush and apply, apart: received; on disk in the outbox; the same, for what is recorded will be published.
    pub(crate) fn take(&mut self, now: Instant) -> Status {
        let status = Status { write: self.received.max(self.recorded), flush: self.recorded, apply: self.recorded };
        self.sent = Some((now, status));
        self.reply_wanted = false;
        status
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flush_is_what_was_recorded_whatever_was_received() {
        let now = Instant::now();
        let mut feedback = Feedback::new(Lsn(10));
        feedback.on_received(Lsn(500));
        assert_eq!(feedback.take(now), Status { write: Lsn(500), flush: Lsn(10), apply: Lsn(10) });
        feedback.on_recorded(Lsn(400));
        feedback.on_recorded(Lsn(300));
        assert_eq!(feedback.take(now), Status { write: Lsn(500), flush: Lsn(400), apply: Lsn(400) });
    }

    #[test]
    fn it_is_due_at_once_when_asked_soon_when_recorded_and_else_every_second() {
        let now = Instant::now();
        let mut feedback = Feedback::new(Lsn(10));
        assert_eq!(feedback.due_at(now), now, "the first");
        feedback.take(now);
        assert_eq!(feedback.due_at(now), now + QUIET_EVERY);
        feedback.on_received(Lsn(20));
        assert_eq!(feedback.due_at(now), now + QUIET_EVERY);
        feedback.on_recorded(Lsn(20));
        assert_eq!(feedback.due_at(now), now + RECORDED_AFTER);
        feedback.on_reply_wanted();
        assert_eq!(feedback.due_at(now), now);
        feedback.take(now);
        assert_eq!(feedback.due_at(now), now + QUIET_EVERY);
    }
}
