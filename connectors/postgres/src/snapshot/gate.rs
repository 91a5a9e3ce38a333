//! Keeps the stream from running past a chunk that is being read.
//!
//! A row that a chunk reads is newer than every change of a transaction that its snapshot sees, and older than every
//! change of one that it does not. So no transaction may be delivered before the chunk is there unless the chunk sees it:
//!
//! * While a snapshot is being taken nothing is admitted; once it is known, what it sees.
//! * A transaction that was admitted before must be seen too. It need not be, at first: its commit is in the log, and
//!   so in the stream, before other sessions see it (as long as a synchronous standby takes to answer). Then the
//!   snapshot is taken again.
//!
//! The stream's side asks [`Gate::admits`] once per transaction; the chunk reader does the rest from its own task.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::position::Lsn;
use crate::snapshot::view::{View, Visibility};

#[derive(Debug, Default)]
pub(super) struct Gate {
    /// Whether tables are to be read; else nothing is remembered, and the gate is open. Changed by the stream's side alone.
    tracking: AtomicBool,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    phase: Phase,
    settled: bool,
    admitted: Admitted,
    /// Somebody waits for the phase to change.
    refused: bool,
}

#[derive(Debug, Default)]
enum Phase {
    #[default]
    Open,
    /// A snapshot is being taken.
    Opening,
    /// A chunk is being read.
    Reading(Arc<View>),
    /// A whole table is being read and delivered in pieces.
    Whole(Arc<View>),
}

/// Transactions delivered, or partly, that a coming snapshot may not see yet.
#[derive(Debug, Default)]
struct Admitted {
    xids: HashSet<u32>,
    /// Asked for again with each of its changes.
    last: Option<u32>,
    /// Too many to remember: all up to this one.
    all_up_to: Option<u32>,
}

/// 4 bytes each, and the table around them.
const ADMITTED_MAX: usize = 65_536;

impl Admitted {
    fn insert(&mut self, xid: u32) {
        if self.last == Some(xid) {
            return;
        }
        self.last = Some(xid);
        if self.xids.len() >= ADMITTED_MAX && !self.xids.contains(&xid) {
            for known in self.xids.drain() {
                self.all_up_to = Some(newer(self.all_up_to, known));
            }
        }
        self.xids.insert(xid);
    }

    /// Forgets what the snapshot sees; true when nothing is left.
    fn settle(&mut self, visibility: &Visibility) -> bool {
        self.xids.retain(|xid| !visibility.sees(*xid));
        self.last = None;
        self.all_up_to = self.all_up_to.filter(|xid| !visibility.all_ended_up_to(*xid));
        self.xids.is_empty() && self.all_up_to.is_none()
    }
}

/// Transaction ids are a circle; of two that are in question at a time the newer one is less than half of it ahead.
fn newer(known: Option<u32>, xid: u32) -> u32 {
    match known {
        Some(known) if (known.wrapping_sub(xid) as i32) > 0 => known,
        _ => xid,
    }
}

impl Gate {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        // Nothing in here panics halfway.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether this transaction may be delivered now. If not, it may after the reader's next report.
    pub(super) fn admits(&self, xid: u32, commit: Lsn) -> bool {
        if !self.tracking.load(Ordering::Relaxed) {
            return true;
        }
        let mut inner = self.inner();
        let admitted = match &inner.phase {
            Phase::Open => true,
            Phase::Opening => false,
            Phase::Reading(view) => view.visibility.sees(xid),
            Phase::Whole(view) => view.visibility.sees(xid) && commit < view.high,
        };
        if !admitted {
            inner.refused = true;
        } else {
            inner.admitted.insert(xid);
        }
        admitted
    }

    /// Tables are to be read from now on, or no more.
    pub(super) fn track(&self, tracking: bool) {
        if self.tracking.swap(tracking, Ordering::Relaxed) != tracking {
            let mut inner = self.inner();
            inner.settled = false;
            inner.admitted = Admitted::default();
        }
    }

    /// Whether all transactions that may have been delivered before [`Gate::track`] are known to be visible.
    pub(super) fn is_settled(&self) -> bool {
        self.inner().settled
    }

    pub(super) fn settle(&self) {
        self.inner().settled = true;
    }

    /// A snapshot is about to be taken.
    pub(super) fn close(&self) {
        self.inner().phase = Phase::Opening;
    }

    /// The snapshot was taken. False: it does not see all that was delivered, and must be taken again.
    pub(super) fn fix(&self, view: &Arc<View>) -> bool {
        let mut inner = self.inner();
        let settled = inner.admitted.settle(&view.visibility);
        if settled {
            inner.phase = Phase::Reading(view.clone());
        }
        settled
    }

    /// What is being read turned out to be a whole table, delivered in pieces until [`Gate::open`].
    pub(super) fn read_whole(&self) {
        let mut inner = self.inner();
        if let Phase::Reading(view) = &inner.phase {
            inner.phase = Phase::Whole(view.clone());
        }
    }

    /// The chunk is held, or was given up: everything may pass.
    pub(super) fn open(&self) {
        self.inner().phase = Phase::Open;
    }

    /// Whether a transaction was refused since this was last asked.
    pub(super) fn take_refused(&self) -> bool {
        std::mem::take(&mut self.inner().refused)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(text: &str) -> Arc<View> {
        View::parse(text, Lsn(1000), 0).unwrap()
    }

    #[test]
    fn while_a_chunk_is_read_only_what_it_sees_passes() {
        let gate = Gate::default();
        gate.track(true);
        assert!(gate.admits(10, Lsn(1)));
        gate.close();
        assert!(!gate.admits(11, Lsn(2)));
        assert!(gate.take_refused() && !gate.take_refused());
        assert!(gate.fix(&view("12:13:12")));
        assert!(gate.admits(11, Lsn(2)) && !gate.admits(12, Lsn(3)) && !gate.admits(13, Lsn(4)));
        gate.open();
        assert!(gate.admits(13, Lsn(4)));
    }

    #[test]
    fn a_whole_table_also_stops_the_stream_where_its_snapshot_ends() {
        let gate = Gate::default();
        gate.track(true);
        assert!(gate.fix(&view("12:13:12")));
        gate.read_whole();
        assert!(gate.admits(11, Lsn(999)) && !gate.admits(11, Lsn(1000)));
    }

    #[test]
    fn a_snapshot_that_does_not_see_what_was_delivered_is_refused() {
        let gate = Gate::default();
        gate.track(true);
        for xid in [10, 11, 12] {
            assert!(gate.admits(xid, Lsn(1)));
        }
        gate.close();
        assert!(!gate.fix(&view("11:14:11")), "11 is delivered and not yet visible");
        assert!(!gate.admits(20, Lsn(5)), "still closed");
        assert!(gate.fix(&view("12:14:13")));
    }

    #[test]
    fn memory_is_bounded_and_the_rule_holds() {
        let gate = Gate::default();
        gate.track(true);
        for xid in 0..3 * ADMITTED_MAX as u32 {
            gate.admits((u32::MAX - 1000).wrapping_add(xid), Lsn(1));
        }
        assert!(gate.inner().admitted.xids.len() <= ADMITTED_MAX);
        let last = (1u64 << 32) - 1001 + 3 * ADMITTED_MAX as u64;
        assert!(!gate.fix(&view(&format!("{}:{last}:{}", last - 100_000, last - 100_000))));
        assert!(gate.fix(&view(&format!("{last}:{last}:"))));
    }

    #[test]
    fn nothing_is_remembered_while_nothing_is_to_be_read() {
        let gate = Gate::default();
        assert!(gate.admits(10, Lsn(1)));
        assert!(gate.inner().admitted.xids.is_empty());
    }
}
