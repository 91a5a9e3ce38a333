//! Reading from the file, on a thread and a connection of its own: WAL readers do not hold up the writer.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension, Row, params};
use tokio::sync::oneshot;

use crate::event::{Event, EventBatch, RouteId, Seq};

use super::error::{Failure, OutboxError};
use super::queue::{Answer, Shared};

/// A set of routes, asked once per event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RouteSet {
    bits: Vec<u64>,
}

impl RouteSet {
    pub fn contains(&self, route: RouteId) -> bool {
        let word = self.bits.get(usize::from(route.0) / 64).copied().unwrap_or(0);
        word >> (route.0 % 64) & 1 == 1
    }

    pub fn insert(&mut self, route: RouteId) {
        let word = usize::from(route.0) / 64;
        if self.bits.len() <= word {
            self.bits.resize(word + 1, 0);
        }
        self.bits[word] |= 1 << (route.0 % 64);
    }
}

impl FromIterator<RouteId> for RouteSet {
    fn from_iter<I: IntoIterator<Item = RouteId>>(routes: I) -> RouteSet {
        let mut set = RouteSet::default();
        routes.into_iter().for_each(|route| set.insert(route));
        set
    }
}

/// A part of the stream of events, read back.
#[derive(Debug, Default)]
pub struct Stretch {
    /// In the order of `seq`. A parked event stands at its `origin`, marked by its reason and without properties and
    /// body: a reminder for those that wait behind it, as a freshly recorded one is.
    pub events: EventBatch,
    /// The seqs of those that were parked before and are released; in order.
    pub released: Vec<Seq>,
    /// Nothing of these routes is left out up to here.
    pub through: Seq,
}

/// How a key stands whose events were parked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParkedKey {
    pub key_hash: u64,
    /// Events that are parked.
    pub parked: u32,
    /// Released events still to come, which go before all others of the key.
    pub released: u32,
}

/// A parked event, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParkedEvent {
    pub seq: Seq,
    pub route: RouteId,
    pub recorded_ms: i64,
    pub parked_ms: i64,
    /// `None`: nothing is wrong with it, it waits for another of its key.
    pub reason: Option<String>,
    pub waiting_for: Option<Seq>,
    pub id: String,
    pub key: String,
    pub exchange: String,
    pub routing_key: String,
    /// `None` in lists.
    pub body: Option<Vec<u8>>,
    pub body_bytes: u64,
}

#[derive(Debug)]
pub(super) enum Query {
    Read { routes: RouteSet, after: Seq, bytes_max: usize, done: Answer<Stretch> },
    ParkedKeys { route: RouteId, through: Seq, keys_max: usize, done: Answer<Vec<ParkedKey>> },
    Parked { route: Option<RouteId>, after: Seq, limit: u32, done: Answer<Vec<ParkedEvent>> },
    ParkedOne { seq: Seq, done: Answer<Option<ParkedEvent>> },
    Stop,
}

/// Events looked at in one reading: a route with few events must not hold up the others' readings for long.
const SCAN_EVENTS_MAX: usize = 65_536;

pub(super) fn run(conn: Connection, shared: Arc<Shared>, queries: mpsc::Receiver<Query>) {
    while let Ok(query) = queries.recv() {
        match query {
            Query::Read { routes, after, bytes_max, done } => {
                // Before the reading begins: what is committed by now is in it.
                let committed = shared.committed();
                answer(&shared, done, read(&conn, &routes, after, bytes_max, committed));
            }
            Query::ParkedKeys { route, through, keys_max, done } => {
                answer(&shared, done, parked_keys(&conn, route, through, keys_max));
            }
            Query::Parked { route, after, limit, done } => answer(&shared, done, parked(&conn, route, after, limit)),
            Query::ParkedOne { seq, done } => answer(&shared, done, parked_one(&conn, seq)),
            Query::Stop => break,
        }
    }
}

fn answer<T>(shared: &Shared, done: oneshot::Sender<Result<T, OutboxError>>, result: rusqlite::Result<T>) {
    const OPERATION: &str = "reading";
    let result = result.map_err(|error| Failure::of(OPERATION, &shared.path, &error));
    if let Err(Failure::Fatal(error)) = &result {
        // A file that cannot be read is not to be written to either.
        shared.fail(error.clone());
    }
    // A caller that no longer waits needs no answer.
    let _ = done.send(result.map_err(|failure| failure.into_error(OPERATION, &shared.path)));
}

fn read(
    conn: &Connection,
    routes: &RouteSet,
    after: Seq,
    bytes_max: usize,
    committed: Seq,
) -> rusqlite::Result<Stretch> {
    let mut stretch = Stretch { through: after.max(committed), ..Stretch::default() };
    let snapshot = conn.unchecked_transaction()?;
    let mut select = conn.prepare_cached(
        "SELECT seq, route, key_hash, id, key, exchange, routing_key, properties, body FROM event WHERE seq > ? ORDER BY seq",
    )?;
    let mut rows = select.query([after as i64])?;
    let mut seen = 0;
    let mut last = after;
    while let Some(row) = rows.next()? {
        if seen == SCAN_EVENTS_MAX || stretch.events.bytes() >= bytes_max {
            stretch.through = last;
            break;
        }
        seen += 1;
        last = row.get::<_, i64>(0)? as Seq;
        stretch.through = stretch.through.max(last);
        if routes.contains(RouteId(row.get(1)?)) {
            push_row(row, &mut stretch.events)?;
        }
    }
    drop(rows);
    stretch.released = conn
        .prepare_cached("SELECT seq FROM released WHERE seq > ? AND seq <= ? ORDER BY seq")?
        .query_map(params![after as i64, stretch.through as i64], |row| Ok(row.get::<_, i64>(0)? as Seq))?
        .collect::<Result<_, _>>()?;
    add_parked(conn, routes, after, &mut stretch)?;
    drop(select);
    snapshot.finish()?;
    Ok(stretch)
}

/// Puts the parked ones where they stand in their keys' order. Almost always there are none.
fn add_parked(conn: &Connection, routes: &RouteSet, after: Seq, stretch: &mut Stretch) -> rusqlite::Result<()> {
    let mut select = conn.prepare_cached(
        "SELECT origin, route, key_hash, id, key, exchange, routing_key, x'', x'', coalesce(reason, 'waits for ' || waiting_for) \
         FROM parked WHERE origin > ? AND origin <= ? ORDER BY origin",
    )?;
    let mut rows = select.query(params![after as i64, stretch.through as i64])?;
    let mut marks = EventBatch::new();
    while let Some(row) = rows.next()? {
        if routes.contains(RouteId(row.get(1)?)) {
            let reason = row.get_ref(9)?.as_str()?;
            marks.push(Event { parked: Some(reason), ..event_of(row)? });
        }
    }
    if !marks.is_empty() {
        let events = std::mem::take(&mut stretch.events);
        let (mut marks, mut events) = (marks.iter().peekable(), events.iter().peekable());
        loop {
            let mark_first = match (marks.peek(), events.peek()) {
                (Some(mark), Some(event)) => mark.seq < event.seq,
                (mark, None) if mark.is_none() => break,
                (mark, _) => mark.is_some(),
            };
            let next = if mark_first { marks.next() } else { events.next() };
            if let Some(event) = next {
                stretch.events.push(event);
            }
        }
    }
    Ok(())
}

/// Columns: seq, route, key_hash, id, key, exchange, routing_key, properties, body.
fn event_of<'a>(row: &'a Row<'_>) -> rusqlite::Result<Event<'a>> {
    Ok(Event {
        seq: row.get::<_, i64>(0)? as Seq,
        route: RouteId(row.get(1)?),
        key_hash: row.get::<_, i64>(2)? as u64,
        id: row.get_ref(3)?.as_str()?,
        key: row.get_ref(4)?.as_str()?,
        exchange: row.get_ref(5)?.as_str()?,
        routing_key: row.get_ref(6)?.as_str()?,
        properties: row.get_ref(7)?.as_bytes()?,
        body: bytes_of(row.get_ref(8)?)?,
        parked: None,
    })
}

/// Appends the row's event; returns what it weighs.
pub(super) fn push_row(row: &Row<'_>, batch: &mut EventBatch) -> rusqlite::Result<u64> {
    let event = event_of(row)?;
    batch.push(event);
    Ok(super::ledger::event_bytes(&event))
}

fn bytes_of(value: ValueRef<'_>) -> rusqlite::Result<&[u8]> {
    Ok(value.as_bytes()?)
}

fn parked_keys(conn: &Connection, route: RouteId, through: Seq, keys_max: usize) -> rusqlite::Result<Vec<ParkedKey>> {
    conn.prepare_cached(
        "SELECT key_hash, sum(parked), sum(released) FROM ( \
         SELECT key_hash, 1 AS parked, 0 AS released FROM parked WHERE route = ?1 AND origin <= ?2 \
         UNION ALL SELECT key_hash, 0, 1 FROM released WHERE route = ?1 AND seq > ?2) GROUP BY key_hash LIMIT ?3",
    )?
    .query_map(params![route.0, through as i64, keys_max as i64], |row| {
        Ok(ParkedKey { key_hash: row.get::<_, i64>(0)? as u64, parked: row.get(1)?, released: row.get(2)? })
    })?
    .collect()
}

fn parked(conn: &Connection, route: Option<RouteId>, after: Seq, limit: u32) -> rusqlite::Result<Vec<ParkedEvent>> {
    conn.prepare_cached(
        "SELECT seq, route, recorded_at, parked_at, reason, waiting_for, id, key, exchange, routing_key, octet_length(body), NULL \
         FROM parked WHERE seq > ?1 AND (?2 IS NULL OR route = ?2) ORDER BY seq LIMIT ?3",
    )?
    .query_map(params![after as i64, route.map(|route| route.0), limit], parked_of)?
    .collect()
}

fn parked_one(conn: &Connection, seq: Seq) -> rusqlite::Result<Option<ParkedEvent>> {
    conn.prepare_cached(
        "SELECT seq, route, recorded_at, parked_at, reason, waiting_for, id, key, exchange, routing_key, octet_length(body), body \
         FROM parked WHERE seq = ?",
    )?
    .query_row([seq as i64], parked_of)
    .optional()
}

fn parked_of(row: &Row<'_>) -> rusqlite::Result<ParkedEvent> {
    let body = row.get_ref(11)?;
    Ok(ParkedEvent {
        seq: row.get::<_, i64>(0)? as Seq,
        route: RouteId(row.get(1)?),
        recorded_ms: row.get(2)?,
        parked_ms: row.get(3)?,
        reason: row.get(4)?,
        waiting_for: row.get::<_, Option<i64>>(5)?.map(|seq| seq as Seq),
        id: row.get(6)?,
        key: row.get(7)?,
        exchange: row.get(8)?,
        routing_key: row.get(9)?,
        body_bytes: row.get::<_, i64>(10)? as u64,
        body: if body == ValueRef::Null { None } else { Some(bytes_of(body)?.to_vec()) },
    })
}

/// A source's entries; on the writer's connection, inside its transaction.
pub(super) fn resume_of(conn: &Connection, source: &str) -> rusqlite::Result<BTreeMap<String, Vec<u8>>> {
    conn.prepare_cached("SELECT key, value FROM source_state WHERE source = ?")?
        .query_map([source], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect()
}

/// A row as an event and as a parked one, its columns made of these bytes: a type, a length, the content. For `fuzz/`.
#[cfg(any(test, fuzzing))]
pub(crate) fn read_row(mut bytes: &[u8]) {
    use rusqlite::types::Value;
    let mut column = || {
        let Some(([kind, length], rest)) = bytes.split_first_chunk::<2>() else { return Value::Null };
        let (content, rest) = rest.split_at(rest.len().min(usize::from(*length)));
        bytes = rest;
        let number = content.iter().fold(0i64, |number, byte| number << 8 | i64::from(*byte));
        match kind % 5 {
            0 => Value::Null,
            1 => Value::Integer(number),
            2 => Value::Real(number as f64),
            3 => Value::Text(String::from_utf8_lossy(content).into_owned()),
            _ => Value::Blob(content.to_vec()),
        }
    };
    let columns: [Value; 12] = std::array::from_fn(|_| column());
    thread_local! {
        static MEMORY: Connection = Connection::open_in_memory().expect("memory is there");
    }
    MEMORY.with(|conn| {
        let mut select =
            conn.prepare_cached("SELECT ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?").expect("the statement is right");
        let mut rows = select.query(rusqlite::params_from_iter(&columns)).expect("a row of parameters");
        if let Ok(Some(row)) = rows.next() {
            let mut batch = EventBatch::new();
            if push_row(row, &mut batch).is_ok() {
                assert_eq!(batch.len(), 1);
                drop(format!("{:?}", batch.get(0).id));
            }
            drop(parked_of(row));
        }
    });
}
