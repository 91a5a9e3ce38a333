//! One transaction of the file: the records, parkings and settlements that came together.

use std::ops::Range;

use rusqlite::types::{ToSql, ToSqlOutput, ValueRef};
use rusqlite::{Connection, params};
use towpath_contract::{AFTER_GAP, Resume, StateEntry};

use crate::event::{Event, EventBatch, RouteId, Seq};
use crate::failpoint::failpoint;

use super::error::OutboxError;
use super::ledger::{Draft, Ledger, SourceLedger, event_bytes};
use super::queue::{Drained, Moved, Record, Settlement, Work};
use super::read::resume_of;

/// The largest event, all fields together: SQLite's own bound on a row is 10^9 bytes (sqlite.org/limits.html).
pub(super) const EVENT_BYTES_MAX: usize = 900_000_000;

const INSERT_EVENT: &str = "INSERT INTO event (seq, route, recorded_at, key_hash, id, key, exchange, routing_key, properties, body) \
     VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";

/// What a piece of work came to; told to its caller once it is durable.
#[derive(Debug)]
pub(super) enum Outcome {
    Recorded(Range<Seq>),
    /// The batch holds the event when it was not parked but released, since nothing is parked before it.
    Parked(Option<EventBatch>),
    Moved {
        moved: Moved,
        route: RouteId,
        /// The newest event when it was done: what comes later in the same commit has news of its own.
        through: Seq,
    },
    Resumed(Resume),
    Refused(OutboxError),
}

/// Why a transaction did not come to its end.
#[derive(Debug)]
pub(super) enum Halt {
    Sqlite(rusqlite::Error),
    /// The work of this index can never be done, and was half done: to be repeated without it.
    Refused {
        work: usize,
        error: OutboxError,
    },
}

impl From<rusqlite::Error> for Halt {
    fn from(error: rusqlite::Error) -> Halt {
        Halt::Sqlite(error)
    }
}

pub(super) struct Transaction<'a> {
    pub(super) conn: &'a Connection,
    pub(super) ledger: &'a Ledger,
    pub(super) draft: &'a mut Draft,
}

pub(super) fn begin(conn: &Connection) -> rusqlite::Result<()> {
    conn.prepare_cached("BEGIN IMMEDIATE")?.raw_execute().map(drop)
}

pub(super) fn commit(conn: &Connection) -> rusqlite::Result<()> {
    conn.prepare_cached("COMMIT")?.raw_execute().map(drop)
}

/// After a failure. SQLite may have rolled back by itself already.
pub(super) fn roll_back(conn: &Connection) {
    if !conn.is_autocommit() {
        let _ = conn.execute_batch("ROLLBACK");
    }
}

impl Transaction<'_> {
    /// Writes all of it and commits, or fails and must be rolled back. Either way `drained` is as it was, except for
    /// the seqs in its events.
    pub(super) fn write(&mut self, drained: &mut Drained, outcomes: &mut Vec<Outcome>) -> Result<(), Halt> {
        begin(self.conn)?;
        for (index, work) in drained.works.iter_mut().enumerate() {
            let refusal = drained.refusals.iter().find(|(refused, _)| *refused == index);
            outcomes.push(self.write_work(index, work, refusal.map(|(_, error)| error))?);
        }
        let settles = !drained.settlements.is_empty();
        if settles {
            failpoint!("outbox.before_settle");
            self.write_settlements(&drained.settlements)?;
        }
        self.write_sources()?;
        self.write_routes()?;
        failpoint!("outbox.before_commit");
        commit(self.conn)?;
        failpoint!("outbox.after_commit");
        if settles {
            failpoint!("outbox.after_settle");
        }
        Ok(())
    }

    fn write_work(&mut self, index: usize, work: &mut Work, refusal: Option<&OutboxError>) -> Result<Outcome, Halt> {
        Ok(match work {
            Work::Record { record, .. } => self.write_record(index, record, refusal)?,
            Work::Park { seq, parking, .. } => self.park(*seq, parking)?,
            Work::Retry { seq, .. } => self.retry(*seq)?,
            Work::Discard { seq, .. } => self.discard(*seq)?,
            Work::Resume { source, .. } => self.resume(source)?,
        })
    }

    fn write_record(
        &mut self,
        index: usize,
        record: &mut Record,
        refusal: Option<&OutboxError>,
    ) -> Result<Outcome, Halt> {
        let source = match self.draft.sources.iter().position(|known| known.name == record.source) {
            Some(known) => known,
            None => {
                self.draft.sources.push(SourceLedger {
                    name: record.source.clone(),
                    identity: record.identity.clone(),
                    position: None,
                    refused: false,
                    touched: true,
                });
                self.draft.sources.len() - 1
            }
        };
        let refused = match refusal {
            Some(error) => Err(error.clone()),
            None => move_on(&mut self.draft.sources[source], record),
        };
        if let Err(error) = refused {
            self.draft.sources[source].refused = true;
            return Ok(Outcome::Refused(error));
        }
        let first = self.draft.last_seq + 1;
        self.insert_events(index, &mut record.events)?;
        self.write_state(&record.source, &record.state)?;
        Ok(Outcome::Recorded(first..self.draft.last_seq + 1))
    }

    fn insert_events(&mut self, work: usize, events: &mut EventBatch) -> Result<(), Halt> {
        let conn = self.conn;
        let mut insert = conn.prepare_cached(INSERT_EVENT)?;
        for index in 0..events.len() {
            let event = events.get(index);
            if let Err(error) = self.check(&event) {
                return Err(Halt::Refused { work, error });
            }
            let (seq, bytes) = (self.draft.number(event.route), event_bytes(&event));
            match event.parked {
                None => {
                    insert.raw_bind_parameter(1, seq as i64)?;
                    insert.raw_bind_parameter(2, event.route.0)?;
                    insert.raw_bind_parameter(3, self.draft.now_ms)?;
                    insert.raw_bind_parameter(4, event.key_hash as i64)?;
                    insert.raw_bind_parameter(5, event.id)?;
                    insert.raw_bind_parameter(6, event.key)?;
                    insert.raw_bind_parameter(7, event.exchange)?;
                    insert.raw_bind_parameter(8, event.routing_key)?;
                    insert.raw_bind_parameter(9, event.properties)?;
                    insert.raw_bind_parameter(10, Body(event.body))?;
                    insert.raw_execute()?;
                    self.draft.add(event.route, seq, bytes);
                }
                Some(reason) => self.insert_parked(&event, seq, reason)?,
            }
            self.draft.recorded += super::backlog::Tally { events: 1, bytes };
            events.set_seq(index, seq);
        }
        Ok(())
    }

    fn check(&self, event: &Event<'_>) -> Result<(), OutboxError> {
        if self.ledger.route(event.route).is_none() {
            return Err(OutboxError::UnknownRoute(event.route.0));
        }
        let bytes = event_bytes(event) as usize;
        if bytes > EVENT_BYTES_MAX {
            return Err(OutboxError::EventTooLarge { id: event.id.into(), bytes, max: EVENT_BYTES_MAX });
        }
        Ok(())
    }

    fn write_state(&mut self, source: &str, entries: &[StateEntry]) -> rusqlite::Result<()> {
        for entry in entries {
            match &entry.value {
                Some(value) => self
                    .conn
                    .prepare_cached("INSERT OR REPLACE INTO source_state (source, key, value) VALUES (?, ?, ?)")?
                    .execute(params![source, entry.key, value])?,
                None => self
                    .conn
                    .prepare_cached("DELETE FROM source_state WHERE source = ? AND key = ?")?
                    .execute(params![source, entry.key])?,
            };
        }
        Ok(())
    }

    /// Once per transaction, however many of its records moved a source on.
    fn write_sources(&mut self) -> rusqlite::Result<()> {
        let now_ms = self.draft.now_ms;
        for source in self.draft.sources.iter().filter(|source| source.touched) {
            self.conn
                .prepare_cached(
                    "INSERT INTO source (name, identity, position, recorded_at) VALUES (?1, ?2, ?3, ?4) \
                     ON CONFLICT (name) DO UPDATE SET identity = ?2, position = ?3, recorded_at = ?4",
                )?
                .execute(params![
                    &*source.name,
                    &*source.identity,
                    source.position.as_ref().map(|position| position.as_bytes()),
                    now_ms
                ])?;
        }
        Ok(())
    }

    fn write_settlements(&mut self, settlements: &[Settlement]) -> rusqlite::Result<()> {
        for settlement in settlements {
            if !self.draft.settle(self.ledger, *settlement) {
                continue;
            }
            let through = settlement.through.min(self.ledger.last_seq) as i64;
            self.conn
                .prepare_cached("UPDATE settled SET through = ? WHERE route = ? AND shard = ?")?
                .execute(params![through, settlement.route.0, settlement.shard])?;
        }
        for (route, draft) in self.ledger.routes.iter().zip(&mut self.draft.routes) {
            if let Some(settled) = draft.settled.filter(|_| route.released > 0) {
                let gone = self
                    .conn
                    .prepare_cached("DELETE FROM released WHERE route = ? AND seq <= ?")?
                    .execute(params![route.id.0, settled as i64])?;
                draft.released -= gone as i64;
            }
        }
        Ok(())
    }

    fn write_routes(&mut self) -> rusqlite::Result<()> {
        for (route, draft) in self.ledger.routes.iter().zip(&self.draft.routes).filter(|(_, draft)| draft.touched) {
            let remaining = route.remaining(draft);
            self.conn
                .prepare_cached(
                    "UPDATE route SET last_seq = ?, unsettled_events = ?, unsettled_bytes = ?, unsettled_since = ? WHERE id = ?",
                )?
                .execute(params![
                    draft.last_seq as i64,
                    remaining.tally.events as i64,
                    remaining.tally.bytes as i64,
                    remaining.since_ms,
                    route.id.0
                ])?;
        }
        Ok(())
    }

    fn resume(&mut self, name: &str) -> Result<Outcome, Halt> {
        let source = self.draft.sources.iter_mut().find(|source| &*source.name == name);
        Ok(Outcome::Resumed(match source {
            None => Resume::default(),
            Some(source) => {
                source.refused = false;
                let state = resume_of(self.conn, name)?;
                Resume { identity: Some(source.identity.to_string()), position: source.position, state }
            }
        }))
    }
}

/// Invariant: a source's position never goes back. Were it to, the next start would read and publish changes again
/// under an order that consumers have already left behind. The one exception is a gap that a person accepted.
fn move_on(source: &mut SourceLedger, record: &Record) -> Result<(), OutboxError> {
    if source.refused {
        return Err(OutboxError::SourceRefused(source.name.to_string()));
    }
    let starts_anew = record.state.iter().any(|entry| entry.key == AFTER_GAP && entry.value.is_some());
    if starts_anew {
        // A person accepted a gap: where the source begins then may well lie before.
        source.position = None;
        source.refused = false;
    }
    let same = source.identity == record.identity;
    if let (true, Some(stored), Some(given)) = (same, source.position, record.position)
        && given < stored
    {
        return Err(OutboxError::PositionWentBack { name: source.name.to_string(), stored, given });
    }
    if !same {
        // Another system's position means nothing here.
        source.identity = record.identity.clone();
        source.position = None;
    }
    source.position = record.position.or(source.position);
    source.touched |= !same || record.position.is_some() || !record.state.is_empty();
    Ok(())
}

/// Text where it is text, so that a person reads it, and SQL's JSON functions take it.
pub(super) struct Body<'a>(pub(super) &'a [u8]);

impl ToSql for Body<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match std::str::from_utf8(self.0) {
            Ok(_) => ValueRef::Text(self.0),
            Err(_) => ValueRef::Blob(self.0),
        }))
    }
}
