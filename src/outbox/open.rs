//! From a path to an outbox that is known to be ours, whole, and held by nobody else.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, params};
use towpath_contract::{Position, Resume};

use crate::event::{RouteId, Seq};

use super::backlog::{Backlog, Stretch, Tally};
use super::error::{Failure, OutboxError};
use super::ledger::{Ledger, RouteLedger, SourceLedger};
use super::lock::{self, FileLock, Note, beside};
use super::log::{self, check_log, generation_of_file, next_generation};
use super::read::resume_of;
use super::usage::Usage;
use super::{RouteSetup, Stored, StoredRoute};

const APPLICATION_ID: i64 = 0x746f_7770;
const VERSION: i64 = 1;
const SCHEMA: &str = include_str!("schema.sql");
const ROUTES_MAX: u16 = u16::MAX;

/// Measured with `benches/outbox.rs`: against 8 KiB, a fifth less CPU per event when many come; against 32 KiB, half the
/// bytes written when one comes.
const PAGE_BYTES: u32 = 16 * 1024;
const WRITER_CACHE_KIB: i64 = 8 * 1024;
const READER_CACHE_KIB: i64 = 2 * 1024;
/// Another program may hold the write lock this long before it is reported.
pub(super) const BUSY: Duration = Duration::from_secs(1);
/// Events read from either end of the file at the start.
const SAMPLE_EVENTS: i64 = 64;

pub(super) struct Opened {
    pub(super) writer: Connection,
    pub(super) reader: Connection,
    pub(super) lock: FileLock,
    pub(super) ledger: Ledger,
    pub(super) stored: Stored,
}

/// `log_bytes_max`: what the `-wal` file shrinks back to.
pub(super) fn open(path: &Path, routes: &[RouteSetup], shards: u16, log_bytes_max: u64) -> Result<Opened, OutboxError> {
    let folder = match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    };
    if !folder.is_dir() {
        return Err(OutboxError::NoFolder(folder.to_path_buf()));
    }
    let mut warnings = Vec::from_iter(lock::check_file_system(folder, path)?);
    let (lock, note) = FileLock::take(path)?;
    check_files(path)?;

    let sqlite = |error: rusqlite::Error| Failure::of("opening", path, &error).into_error("opening", path);
    let generation = generation_of_file(path);
    keep_private(path)?;
    let writer = connect(path).map_err(sqlite)?;
    check_identity(&writer, path)?;
    check_log(&writer, path, generation)?;
    log::write_again(path)?;
    prepare(&writer, path, log_bytes_max)?;
    check_content(&writer, path)?;
    let ledger = load(&writer, routes, shards).map_err(sqlite)?;
    let ledger = ledger.ok_or(OutboxError::TooManyRoutes { max: ROUTES_MAX })?;
    let reader = connect_reader(path).map_err(sqlite)?;

    warnings.extend(older_than_noted(path, note, ledger.last_seq));
    // Whoever comes next learns the pid; that it could not be written harms nobody now.
    let _ = lock.note(ledger.last_seq);
    let stored = stored(&writer, &ledger, routes, warnings).map_err(sqlite)?;
    Ok(Opened { writer, reader, lock, ledger, stored })
}

/// Where every source stands, read beside a process that may be running on it. Empty where there is no outbox yet.
pub fn peek(path: &Path) -> Result<BTreeMap<String, Resume>, OutboxError> {
    if fs::metadata(path).map_or(0, |metadata| metadata.len()) == 0 {
        return Ok(BTreeMap::new());
    }
    let sqlite = |error: rusqlite::Error| Failure::of("reading", path, &error).into_error("reading", path);
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(path, flags).map_err(sqlite)?;
    conn.busy_timeout(BUSY).map_err(sqlite)?;
    check_identity(&conn, path)?;
    let sources = load_sources(&conn).map_err(sqlite)?.into_iter().map(|source| {
        let state = resume_of(&conn, &source.name)?;
        let identity = Some(source.identity.to_string());
        Ok((source.name.to_string(), Resume { identity, position: source.position, state }))
    });
    sources.collect::<rusqlite::Result<_>>().map_err(sqlite)
}

/// Nothing here looks into the file: whether it is ours comes first.
fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(path, flags)?;
    conn.busy_timeout(BUSY)?;
    conn.set_prepared_statement_cache_capacity(64);
    // A checkpoint while closing would write again to a disk that has just failed.
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    Ok(conn)
}

fn connect_reader(path: &Path) -> rusqlite::Result<Connection> {
    let conn = connect(path)?;
    conn.pragma_update(None, "query_only", true)?;
    conn.pragma_update(None, "cache_size", -READER_CACHE_KIB)?;
    Ok(conn)
}

/// It holds rows of the source's tables: nobody else is to read it. SQLite gives its log and index the same mode.
fn keep_private(path: &Path) -> Result<(), OutboxError> {
    let made = fs::OpenOptions::new().create(true).append(true).mode(0o600).open(path);
    let io =
        |error: io::Error| OutboxError::Io { operation: "opening", path: path.to_path_buf(), found: error.to_string() };
    made.map(drop).map_err(io)
}

/// What can be seen without SQLite, which would silently begin anew.
fn check_files(path: &Path) -> Result<(), OutboxError> {
    let length = |path: &Path| match fs::metadata(path) {
        Ok(metadata) => Ok(metadata.len()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(OutboxError::Io { operation: "opening", path: path.to_path_buf(), found: error.to_string() }),
    };
    let log: PathBuf = beside(path, "-wal");
    // The log's header alone (32 bytes) holds nothing.
    if length(path)? == 0 && length(&log)? > 32 {
        return Err(OutboxError::LogWithoutFile { path: path.to_path_buf(), log });
    }
    Ok(())
}

/// Refuses a file that another program wrote, before anything is written to it.
fn check_identity(conn: &Connection, path: &Path) -> Result<(), OutboxError> {
    let pragma = |name: &str| conn.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let tables = || conn.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get::<_, i64>(0));
    let found = pragma("application_id").and_then(|id| Ok((id, pragma("user_version")?, tables()?)));
    let not_ours = |found: String| OutboxError::NotAnOutbox { path: path.to_path_buf(), found };
    match found {
        Ok((APPLICATION_ID, VERSION, _)) => Ok(()),
        Ok((APPLICATION_ID, found, _)) if found > VERSION => {
            Err(OutboxError::Newer { path: path.to_path_buf(), found, expected: VERSION })
        }
        Ok((APPLICATION_ID, found, _)) => Err(not_ours(format!("application_id 0x746f7770, but version {found}"))),
        // New, or left by a crash while it was made.
        Ok((0, 0, 0)) => Ok(()),
        Ok((id, _, tables)) => Err(not_ours(format!("an SQLite file with application_id {id:#x} and {tables} tables"))),
        Err(error) if error.sqlite_error_code() == Some(rusqlite::ErrorCode::NotADatabase) => {
            Err(not_ours("a file that is not SQLite's, or whose first page is damaged".into()))
        }
        Err(error) => Err(Failure::of("opening", path, &error).into_error("opening", path)),
    }
}

/// Settings, and the tables of a new file.
fn prepare(conn: &Connection, path: &Path, log_bytes_max: u64) -> Result<(), OutboxError> {
    let prepared = (|| {
        conn.pragma_update(None, "page_size", PAGE_BYTES)?;
        conn.pragma_update(None, "cache_size", -WRITER_CACHE_KIB)?;
        let mode = conn.pragma_update_and_check(None, "journal_mode", "wal", |row| row.get::<_, String>(0))?;
        conn.pragma_update(None, "synchronous", "full")?;
        // The writer decides when, so that no record waits for a checkpoint that could have come later.
        conn.pragma_update(None, "wal_autocheckpoint", 0)?;
        conn.pragma_update(None, "journal_size_limit", log_bytes_max as i64)?;
        conn.pragma_update(None, "foreign_keys", false)?;
        let id = conn.pragma_query_value(None, "application_id", |row| row.get::<_, i64>(0))?;
        if id == 0 {
            // One transaction: the file is ours and complete, or still empty.
            conn.execute_batch(&format!(
                "BEGIN IMMEDIATE; {SCHEMA}; PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {VERSION}; COMMIT"
            ))?;
        }
        Ok(mode)
    })();
    let mode = prepared.map_err(|error| Failure::of("preparing", path, &error).into_error("preparing", path))?;
    if mode != "wal" {
        return Err(OutboxError::Io {
            operation: "preparing",
            path: path.to_path_buf(),
            found: format!("its journal mode stays {mode}, expected wal"),
        });
    }
    Ok(())
}

/// Looks for damage where it would do most harm. A check of the whole file would read all of it, a minute for 10 GiB; what
/// this does not see is noticed when it is read, and stops the outbox then.
fn check_content(conn: &Connection, path: &Path) -> Result<(), OutboxError> {
    let corrupt = |found: String| OutboxError::Corrupt { path: path.to_path_buf(), found };
    let checked = (|| {
        for table in ["route", "settled", "source", "source_state", "released"] {
            let found = conn.query_row(&format!("PRAGMA quick_check({table})"), [], |row| row.get::<_, String>(0))?;
            if found != "ok" {
                return Ok(Some(format!("table {table}: {found}")));
            }
        }
        for table in ["event", "parked"] {
            for order in ["ASC", "DESC"] {
                let mut rows =
                    conn.prepare(&format!("SELECT * FROM {table} ORDER BY seq {order} LIMIT {SAMPLE_EVENTS}"))?;
                let columns = rows.column_count();
                let mut rows = rows.query([])?;
                while let Some(row) = rows.next()? {
                    (0..columns).try_for_each(|column| row.get_ref(column).map(drop))?;
                }
            }
        }
        let count = |sql| conn.query_row(sql, [], |row| row.get::<_, i64>(0));
        let newest =
            count("SELECT max(coalesce((SELECT max(seq) FROM event), 0), coalesce((SELECT max(seq) FROM parked), 0))")?;
        let last = count("SELECT coalesce(max(last_seq), 0) FROM route")?;
        let settled = count("SELECT coalesce(max(through), 0) FROM settled")?;
        if newest > last || settled > last {
            return Ok(Some(format!("event {newest} and settlement {settled} stand after the last recorded, {last}")));
        }
        Ok::<_, rusqlite::Error>(None)
    })();
    match checked {
        Ok(None) => Ok(()),
        Ok(Some(found)) => Err(corrupt(found)),
        Err(error) => Err(Failure::of("checking", path, &error).into_error("checking", path)),
    }
}

/// The routes and sources of the file, the configured routes added. `None` when their numbers are used up.
fn load(conn: &Connection, setup: &[RouteSetup], shards: u16) -> rusqlite::Result<Option<Ledger>> {
    let log_is_in_file = Usage::log_is_in_file(conn)?;
    let transaction = conn.unchecked_transaction()?;
    if log_is_in_file {
        next_generation(conn)?;
    }
    let last_seq = conn.query_row("SELECT coalesce(max(last_seq), 0) FROM route", [], |row| row.get::<_, i64>(0))?;
    let mut known = conn.query_row("SELECT coalesce(max(id), 0) FROM route", [], |row| row.get::<_, u16>(0))?;
    for route in setup {
        let exists = conn.prepare_cached("SELECT 1 FROM route WHERE name = ?")?.exists([&route.name])?;
        if !exists {
            if known == ROUTES_MAX {
                return Ok(None);
            }
            known += 1;
            // Not its own, but none of its events is older.
            conn.execute(
                "INSERT INTO route VALUES (?1, ?2, ?3, ?3, 0, 0, NULL)",
                params![known, route.name, last_seq],
            )?;
        }
    }
    let mut ledger = Ledger { last_seq: last_seq as Seq, ..Ledger::default() };
    let mut select = conn.prepare(
        "SELECT id, name, since, last_seq, unsettled_events, unsettled_bytes, unsettled_since, \
         (SELECT count(*) FROM parked WHERE parked.route = route.id), \
         (SELECT count(*) FROM released WHERE released.route = route.id) FROM route ORDER BY id",
    )?;
    let mut rows = select.query([])?;
    while let Some(row) = rows.next()? {
        let (id, name) = (RouteId(row.get(0)?), row.get::<_, String>(1)?);
        let (since, route_last_seq) = (row.get::<_, i64>(2)? as Seq, row.get::<_, i64>(3)? as Seq);
        let cursors = load_cursors(conn, id, shards, route_last_seq, last_seq as Seq)?;
        let settled = cursors.iter().copied().min().unwrap_or(0);
        let mut backlog = Backlog::default();
        let tally = Tally { events: row.get::<_, i64>(4)? as u64, bytes: row.get::<_, i64>(5)? as u64 };
        if tally.events > 0 && settled < route_last_seq {
            let since_ms = row.get::<_, Option<i64>>(6)?.unwrap_or(0);
            backlog.add(Stretch { first: settled + 1, last: route_last_seq, tally, since_ms });
        }
        ledger.routes.push(RouteLedger {
            id,
            since,
            // A route that was taken out of the config keeps to the default, here as in the relay.
            waits: setup.iter().find(|route| route.name == name).is_none_or(|route| route.waits),
            name: name.into(),
            cursors,
            last_seq: route_last_seq,
            backlog,
            parked: row.get::<_, i64>(7)? as u64,
            released: row.get::<_, i64>(8)? as u64,
            pruned: 0,
        });
    }
    drop(rows);
    drop(select);
    ledger.sources = load_sources(conn)?;
    transaction.commit()?;
    Ok(Some(ledger))
}

/// One cursor per shard. When their number is another than before, all begin at the least: some events are published
/// again, none is skipped.
fn load_cursors(
    conn: &Connection,
    route: RouteId,
    shards: u16,
    route_last_seq: Seq,
    last_seq: Seq,
) -> rusqlite::Result<Vec<Seq>> {
    let mut cursors = conn
        .prepare_cached("SELECT through FROM settled WHERE route = ? ORDER BY shard")?
        .query_map([route.0], |row| Ok(row.get::<_, i64>(0)? as Seq))?
        .collect::<rusqlite::Result<Vec<Seq>>>()?;
    let least = cursors.iter().copied().min();
    let changed = cursors.len() != usize::from(shards);
    if changed {
        cursors = vec![least.unwrap_or(route_last_seq); usize::from(shards)];
    }
    // With nothing of its own unsettled, the events of other routes need not be read again in search of one.
    let idle = cursors.iter().all(|cursor| *cursor >= route_last_seq);
    if idle {
        cursors.fill(last_seq);
    }
    if changed || idle {
        conn.prepare_cached("DELETE FROM settled WHERE route = ?")?.execute([route.0])?;
        for (shard, through) in cursors.iter().enumerate() {
            conn.prepare_cached("INSERT INTO settled (route, shard, through) VALUES (?, ?, ?)")?.execute(params![
                route.0,
                shard as i64,
                *through as i64
            ])?;
        }
    }
    Ok(cursors)
}

fn load_sources(conn: &Connection) -> rusqlite::Result<Vec<SourceLedger>> {
    conn.prepare("SELECT name, identity, position FROM source ORDER BY name")?
        .query_map([], |row| {
            let position = match row.get_ref(2)?.as_blob_or_null()? {
                None => None,
                Some(bytes) => Some(Position::from_bytes(bytes).ok_or(rusqlite::Error::InvalidQuery)?),
            };
            let (name, identity) = (row.get::<_, String>(0)?, row.get::<_, String>(1)?);
            Ok(SourceLedger { name: name.into(), identity: identity.into(), position, refused: false, touched: false })
        })?
        .collect()
}

fn stored(conn: &Connection, ledger: &Ledger, setup: &[RouteSetup], warnings: Vec<String>) -> rusqlite::Result<Stored> {
    let routes = ledger.routes.iter().map(|route| StoredRoute {
        id: route.id,
        name: route.name.to_string(),
        configured: setup.iter().any(|setup| *setup.name == *route.name),
        since: route.since,
        settled: route.cursors.clone(),
        unsettled: route.backlog.after(0).tally,
        parked_events: route.parked,
    });
    let sources = ledger.sources.iter().map(|source: &SourceLedger| {
        let state = resume_of(conn, &source.name)?;
        let identity = Some(source.identity.to_string());
        Ok((source.name.to_string(), Resume { identity, position: source.position, state }))
    });
    Ok(Stored {
        routes: routes.collect(),
        sources: sources.collect::<rusqlite::Result<BTreeMap<_, _>>>()?,
        last_seq: ledger.last_seq,
        warnings,
    })
}

/// A copy of before was put back: whether its sources can still go on from there, their connectors will say.
fn older_than_noted(path: &Path, note: Note, last_seq: Seq) -> Option<String> {
    let noted = note.last_seq.filter(|noted| *noted > last_seq)?;
    Some(format!(
        "the outbox {} ends at event {last_seq}, but a run before had recorded up to {noted}: an older copy was put back, or the \
         file was removed. Sources that have forgotten the changes in between will report a gap",
        path.display()
    ))
}
