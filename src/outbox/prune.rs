//! Deleting settled events: after `retain`, or earlier where room is needed; in small steps.

use rusqlite::{Connection, params};

use crate::event::Seq;
use crate::failpoint::failpoint;

use super::ledger::Ledger;
use super::transaction::{begin, commit};

/// Events looked at in one step. Their deletion takes a few milliseconds, for which records wait.
const STEP_EVENTS_MAX: usize = 4096;
/// Of bodies, likewise.
const STEP_BYTES_MAX: i64 = 4 << 20;

/// What the next step deletes.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    /// Inclusive, in order.
    ranges: Vec<(Seq, Seq)>,
    events: u64,
    seen: usize,
    from: Seq,
    to: Seq,
    /// When the first event that is too young was recorded; nothing after it was looked at.
    pub(super) young_ms: Option<i64>,
}

impl Plan {
    pub(super) fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    pub(super) fn events(&self) -> u64 {
        self.events
    }
}

/// Looks for settled events: recorded before `before_ms`, or of any age. `None` when every route's are gone.
///
/// Each route remembers how far it is pruned, so that the events of one that stands still are looked at once, and not
/// again with every step of the others.
pub(super) fn plan(conn: &Connection, ledger: &Ledger, before_ms: Option<i64>) -> rusqlite::Result<Option<Plan>> {
    let pending = ledger.routes.iter().filter(|route| route.pruned < route.settled());
    let Some(from) = pending.map(|route| route.pruned).min() else { return Ok(None) };
    let mut plan = Plan { from, to: from, ..Plan::default() };
    let mut select = conn.prepare_cached(
        "SELECT seq, route, recorded_at, octet_length(body) FROM event WHERE seq > ? AND seq <= ? ORDER BY seq LIMIT ?",
    )?;
    let mut rows = select.query(params![from as i64, ledger.last_seq as i64, STEP_EVENTS_MAX as i64])?;
    let mut bytes = 0;
    let mut open = false;
    loop {
        if bytes >= STEP_BYTES_MAX {
            return Ok(Some(plan));
        }
        let Some(row) = rows.next()? else { break };
        let seq = row.get::<_, i64>(0)? as Seq;
        let recorded_ms = row.get(2)?;
        if before_ms.is_some_and(|before_ms| recorded_ms >= before_ms) {
            plan.young_ms = Some(recorded_ms);
            return Ok(Some(plan));
        }
        let settled = ledger.route(crate::event::RouteId(row.get(1)?)).is_some_and(|route| seq <= route.settled());
        match plan.ranges.last_mut() {
            Some(range) if settled && open => range.1 = seq,
            _ if settled => plan.ranges.push((seq, seq)),
            _ => {}
        }
        open = settled;
        plan.events += u64::from(settled);
        plan.to = seq;
        plan.seen += 1;
        bytes += if settled { row.get::<_, i64>(3)? } else { 0 };
    }
    if plan.seen < STEP_EVENTS_MAX {
        plan.to = ledger.last_seq;
    }
    Ok(Some(plan))
}

/// Deletes what was planned, in a transaction of its own.
pub(super) fn delete(conn: &Connection, plan: &Plan) -> rusqlite::Result<()> {
    failpoint!("outbox.before_prune");
    begin(conn)?;
    for (first, last) in &plan.ranges {
        conn.prepare_cached("DELETE FROM event WHERE seq >= ? AND seq <= ?")?
            .execute(params![*first as i64, *last as i64])?;
    }
    failpoint!("outbox.mid_prune");
    commit(conn)
}

/// The plan was carried out, or there was nothing to do.
pub(super) fn done(ledger: &mut Ledger, plan: &Plan) {
    for route in ledger.routes.iter_mut().filter(|route| route.pruned >= plan.from) {
        let through = plan.to.min(route.settled());
        route.pruned = route.pruned.max(through);
    }
}
