//! What the writer knows of the file without reading it: where every route and source stands.

use std::sync::Arc;

use towpath_contract::Position;

use crate::event::{Event, RouteId, Seq};

use super::backlog::{Backlog, Remaining, Stretch, Tally};
use super::queue::Settlement;

/// As of the last commit.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    pub(super) last_seq: Seq,
    /// By number: route 1 comes first.
    pub(super) routes: Vec<RouteLedger>,
    pub(super) sources: Vec<SourceLedger>,
}

#[derive(Debug)]
pub(super) struct RouteLedger {
    pub(super) id: RouteId,
    pub(super) name: Arc<str>,
    /// Later events of a key wait for its parked ones.
    pub(super) waits: bool,
    /// Settled through, by shard; never empty.
    pub(super) cursors: Vec<Seq>,
    /// The outbox's newest event when the route was made.
    pub(super) since: Seq,
    pub(super) last_seq: Seq,
    pub(super) backlog: Backlog,
    pub(super) parked: u64,
    pub(super) released: u64,
    /// No settled event up to here is left, or it is too young to be pruned.
    pub(super) pruned: Seq,
}

#[derive(Clone, Debug)]
pub(super) struct SourceLedger {
    pub(super) name: Arc<str>,
    pub(super) identity: Arc<str>,
    pub(super) position: Option<Position>,
    /// A record of it was refused: those behind it must not be recorded over the hole.
    pub(super) refused: bool,
    /// Differs from what the file has.
    pub(super) touched: bool,
}

impl Ledger {
    pub(super) fn route(&self, id: RouteId) -> Option<&RouteLedger> {
        self.routes.get(usize::from(id.0).checked_sub(1)?)
    }
}

impl RouteLedger {
    /// Every event of the route up to here is settled.
    pub(super) fn settled(&self) -> Seq {
        // With nothing unsettled the cursors may lag behind the other routes' events: they are none of its own.
        self.cursors.iter().copied().min().unwrap_or(0)
    }

    /// What is unsettled once the draft is committed.
    pub(super) fn remaining(&self, draft: &RouteDraft) -> Remaining {
        let mut remaining = self.backlog.after(draft.settled.unwrap_or(0));
        if let Some(added) = draft.added {
            remaining.tally += added.tally;
            remaining.since_ms.get_or_insert(added.since_ms);
        }
        remaining
    }
}

/// What a transaction changes, until it is committed. Kept and reset, so that a commit does not allocate.
#[derive(Debug, Default)]
pub(super) struct Draft {
    pub(super) last_seq: Seq,
    pub(super) now_ms: i64,
    pub(super) routes: Vec<RouteDraft>,
    pub(super) sources: Vec<SourceLedger>,
    pub(super) recorded: Tally,
}

#[derive(Debug, Default)]
pub(super) struct RouteDraft {
    pub(super) touched: bool,
    pub(super) added: Option<Stretch>,
    pub(super) cursors: Vec<(u16, Seq)>,
    pub(super) settled: Option<Seq>,
    pub(super) parked: i64,
    pub(super) released: i64,
    pub(super) last_seq: Seq,
}

impl Draft {
    pub(super) fn reset(&mut self, ledger: &Ledger, now_ms: i64) {
        self.last_seq = ledger.last_seq;
        self.now_ms = now_ms;
        self.recorded = Tally::default();
        self.sources.clear();
        self.sources.extend_from_slice(&ledger.sources);
        self.routes.resize_with(ledger.routes.len(), RouteDraft::default);
        for (draft, route) in self.routes.iter_mut().zip(&ledger.routes) {
            let mut cursors = std::mem::take(&mut draft.cursors);
            cursors.clear();
            *draft = RouteDraft { cursors, last_seq: route.last_seq, ..RouteDraft::default() };
        }
    }

    /// # Panics
    /// When there is no such route; callers have looked.
    pub(super) fn route(&mut self, id: RouteId) -> &mut RouteDraft {
        &mut self.routes[usize::from(id.0) - 1]
    }

    /// The next event is given its seq.
    pub(super) fn number(&mut self, route: RouteId) -> Seq {
        self.last_seq += 1;
        let seq = self.last_seq;
        let route = self.route(route);
        route.touched = true;
        route.last_seq = seq;
        seq
    }

    /// An event that was given this seq is to be published.
    pub(super) fn add(&mut self, route: RouteId, seq: Seq, bytes: u64) {
        let since_ms = self.now_ms;
        let added = &mut self.route(route).added;
        let stretch = added.get_or_insert(Stretch { first: seq, last: seq, tally: Tally::default(), since_ms });
        stretch.last = seq;
        stretch.tally += Tally { events: 1, bytes };
    }

    /// Moves a shard's cursor on. Returns whether that is news.
    pub(super) fn settle(&mut self, ledger: &Ledger, settlement: Settlement) -> bool {
        let Some(route) = ledger.route(settlement.route) else { return false };
        let Some(cursor) = route.cursors.get(usize::from(settlement.shard)) else { return false };
        // Nobody can have seen an event that is not recorded yet.
        let through = settlement.through.min(ledger.last_seq);
        if through <= *cursor {
            return false;
        }
        let draft = self.route(settlement.route);
        draft.touched = true;
        draft.cursors.push((settlement.shard, through));
        let moved = |(shard, cursor): (usize, &Seq)| {
            let moved = draft.cursors.iter().rfind(|(moved, _)| usize::from(*moved) == shard);
            moved.map_or(*cursor, |(_, through)| *through)
        };
        draft.settled = route.cursors.iter().enumerate().map(moved).min();
        true
    }

    /// The transaction is durable.
    pub(super) fn apply(&mut self, ledger: &mut Ledger) {
        ledger.last_seq = self.last_seq;
        self.sources.iter_mut().for_each(|source| source.touched = false);
        std::mem::swap(&mut ledger.sources, &mut self.sources);
        for (draft, route) in self.routes.iter_mut().zip(&mut ledger.routes).filter(|(draft, _)| draft.touched) {
            route.last_seq = draft.last_seq;
            draft.cursors.iter().for_each(|(shard, through)| route.cursors[usize::from(*shard)] = *through);
            if let Some(settled) = draft.settled {
                route.backlog.settle(settled);
            }
            if let Some(added) = draft.added.take() {
                route.backlog.add(added);
            }
            route.parked = route.parked.saturating_add_signed(draft.parked);
            route.released = route.released.saturating_add_signed(draft.released);
        }
    }
}

/// What an event weighs in the tallies: its fields, without what the file adds to them.
pub(super) fn event_bytes(event: &Event<'_>) -> u64 {
    let texts = event.id.len() + event.key.len() + event.exchange.len() + event.routing_key.len();
    (texts + event.properties.len() + event.body.len()) as u64
}
