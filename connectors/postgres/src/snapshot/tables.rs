//! The captured tables, and how far the snapshot of each one got.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use towpath_contract::{Error, ErrorKind, Result, SnapshotProgress, StateEntry, TableSchema, Value};

use crate::catalog::{self, CapturedTable};
use crate::position::Lsn;
use crate::snapshot::chunk::{Chunk, Part, key_texts};
use crate::snapshot::reader::Job;
use crate::snapshot::state::{self, DropRule, KeyTexts, PREFIX, Status, TableState};
use crate::snapshot::view::View;

/// Keys to be read once more, per table. More than that: the table is.
const REREAD_MAX: usize = 1_000;
/// Of those, in one chunk.
const REREAD_CHUNK: usize = 200;
const LOG_EVERY: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(super) struct Tables {
    entries: Vec<Entry>,
    /// By the oid that the stream names it by.
    by_oid: HashMap<u32, usize>,
    /// Some entry has a rule of what to drop.
    dropping: bool,
    /// A table waits for a stream that begins here.
    awaits_stream_from: Option<Lsn>,
    logged: Instant,
}

#[derive(Debug)]
struct Entry {
    table: CapturedTable,
    /// `None`: it was never asked for.
    state: Option<TableState>,
    /// What [`TableState::published_late`] is when it is asked for: true until it was read since.
    published_late: bool,
    /// Those of its writers that were still in progress when it was put aside.
    writers: Vec<String>,
    /// What a snapshot of the whole table saw, and so must not be delivered.
    seen: Option<Arc<View>>,
    rows_total: Option<u64>,
    /// Since when it is being read, in this run.
    since: Option<Instant>,
    /// Why its rows may not be read. It is tried again when it is asked for, and at the next start.
    refused: Option<String>,
}

/// What is known of the tables from before.
pub(crate) struct History<'a> {
    /// The connector's entries, as recorded; those of others are left alone.
    pub(crate) state: &'a BTreeMap<String, Vec<u8>>,
    /// Whether the table of this oid is known to have been published before the slot was made.
    pub(crate) before_slot: &'a (dyn Fn(u32) -> bool + Sync),
    /// Whether changes of it may have been delivered.
    pub(crate) followed: &'a (dyn Fn(u32) -> bool + Sync),
    /// Where the stream begins.
    pub(crate) resumed: Lsn,
}

impl Tables {
    /// From the recorded entries; with those that must be recorded because of what was found: what is wanted, before
    /// anything is left out of the stream in reliance on it, and what is no longer captured.
    pub(super) fn restore(
        tables: Vec<CapturedTable>,
        history: &History<'_>,
        initial: bool,
    ) -> Result<(Tables, Vec<StateEntry>)> {
        let recorded = history.state;
        let mut entries = Vec::with_capacity(tables.len());
        let mut changed = Vec::new();
        for table in tables {
            let name = state::entry_name(&table);
            let known = recorded.get(&name).map(|json| TableState::parse(&name, json)).transpose()?;
            // Another oid: a table of the same name that was made anew.
            let is_known = known.as_ref().is_some_and(|known| known.oid == table.oid);
            let published_late = !is_known && !(history.before_slot)(table.oid);
            let state = match known.clone() {
                Some(known) if is_known => Some(known.resumed(history.resumed)?),
                // Its changes were streamed, as far as it was published; its rows are wanted as they are now.
                Some(known) if initial || known.status != Status::Done => {
                    Some(TableState { published_late, ..TableState::wanted(&table, false) })
                }
                Some(known) => Some(known),
                None => initial.then(|| {
                    let first = !(history.followed)(table.oid);
                    TableState { published_late, ..TableState::wanted(&table, first) }
                }),
            };
            if let Some(state) = state.as_ref().filter(|state| known.as_ref() != Some(state)) {
                changed.push(StateEntry { key: name, value: Some(state.to_json()?) });
            }
            let seen = state.as_ref().and_then(|state| state.drop.as_ref()).map(restored_view).transpose()?;
            entries.push(Entry {
                rows_total: table.estimated_rows,
                table,
                state,
                published_late,
                writers: Vec::new(),
                seen,
                since: None,
                refused: None,
            });
        }
        // A table that is captured no more: should it come back, its rows are read, for its changes were missed.
        for name in recorded.keys().filter(|name| name.starts_with(PREFIX)) {
            if !entries.iter().any(|entry| state::entry_name(&entry.table) == *name) {
                changed.push(StateEntry { key: name.clone(), value: None });
            }
        }
        let by_oid = entries.iter().enumerate().map(|(index, entry)| (entry.table.oid, index)).collect();
        let mut tables = Tables { entries, by_oid, dropping: false, awaits_stream_from: None, logged: Instant::now() };
        tables.update_dropping();
        Ok((tables, changed))
    }

    /// The next chunk to read: of the table that was begun, else of the first one that is wanted, those last whose writers take
    /// their time.
    pub(super) fn next_job(&self) -> Option<(usize, Job)> {
        let with = |status, put_aside| {
            let has = |entry: &Entry| {
                let state = entry.state.as_ref().filter(|_| entry.refused.is_none());
                state.is_some_and(|state| state.status == status && state.writers_ended.is_none())
                    && entry.writers.is_empty() != put_aside
            };
            self.entries.iter().position(has)
        };
        let wanted = || with(Status::Wanted, false).or_else(|| with(Status::Wanted, true));
        let index = with(Status::Running, false).or_else(wanted)?;
        let entry = &self.entries[index];
        let state = entry.state.as_ref()?;
        let after = state.last_key.clone();
        let at_end = state.at_end;
        let reread = if at_end { state.reread.iter().take(REREAD_CHUNK).cloned().collect() } else { Vec::new() };
        let await_writers = (state.published_late && state.status == Status::Wanted).then(|| entry.writers.clone());
        Some((index, Job { table: entry.table.clone(), await_writers, key: state.key.clone(), after, reread }))
    }

    /// The table is being read.
    pub(super) fn begin(&mut self, index: usize, now: Instant) {
        let entry = &mut self.entries[index];
        if entry.since.is_none() {
            entry.since = Some(now);
            let rows_done = entry.state.as_ref().map_or(0, |state| state.rows_done);
            let how = if entry.table.keyed { "in chunks" } else { "as a whole: it has no usable unique key" };
            tracing::info!(
                table = entry.table.full_name(),
                rows_done,
                rows_total = entry.rows_total,
                "reading the table {how}"
            );
        }
    }

    /// A chunk came. What it found applies from now on.
    pub(super) fn chunk_read(&mut self, index: usize, chunk: &mut Chunk) {
        let stamp_min = self.entries.iter().filter_map(|entry| entry.state.as_ref()).map(|state| state.stamp + 1).max();
        chunk.stamp = (chunk.view.read_at_us.max(0) as u64).max(stamp_min.unwrap_or(0));
        let entry = &mut self.entries[index];
        entry.rows_total = chunk.estimated_rows.or(entry.rows_total);
        let awaited_whole = entry.awaits_whole();
        entry.table.keyed = chunk.shape.key.is_some();
        let Some(state) = &mut entry.state else { return };
        state.stamp = chunk.stamp;
        let key: Vec<String> = chunk.shape.key.iter().flat_map(|key| &key.columns).map(|c| c.name.clone()).collect();
        if state.key != key {
            state.reread.clear();
            state.key = key;
        }
        if let Part::Whole { first: true, .. } = chunk.part {
            // What was delivered of a table that had a key until now, nobody takes back.
            state.first &= awaited_whole;
            entry.seen = state.first.then(|| chunk.view.clone()).or(entry.seen.take());
        }
        self.update_dropping();
    }

    /// A chunk's rows are in the batch: the entry that goes with them.
    pub(super) fn chunk_done(&mut self, index: usize, chunk: &Chunk) -> Result<StateEntry> {
        let entry = &mut self.entries[index];
        let name = entry.table.full_name();
        let key = state::entry_name(&entry.table);
        let state = entry.state.get_or_insert_default();
        let whole_from_start = matches!(chunk.part, Part::Whole { first: true, .. });
        if chunk.starts_over || (whole_from_start && state.rows_done > 0) {
            tracing::warn!(table = name, "the table's snapshot starts over: it was altered or cannot be resumed");
        }
        let begins = chunk.starts_over || whole_from_start || state.status == Status::Wanted;
        if begins {
            entry.published_late = false;
            *state = TableState {
                status: Status::Running,
                oid: chunk.shape.oid,
                first: state.first,
                started_us: chunk.view.read_at_us,
                stamp: chunk.stamp,
                key: std::mem::take(&mut state.key),
                reread: std::mem::take(&mut state.reread),
                again: state.again,
                drop: state.drop.take(),
                ..TableState::default()
            };
        }
        state.rows_done += chunk.rows.len() as u64;
        state.seconds += chunk.took.as_secs_f64();
        let whole_done = advance(state, chunk);
        if whole_done && std::mem::take(&mut state.first) {
            state.drop = Some(DropRule { snapshot: chunk.view.text.clone(), until: chunk.view.high.to_string() });
        }
        if state.status == Status::Done {
            entry.since = None;
            let seconds = (state.seconds * 1000.0).round() / 1000.0;
            tracing::info!(table = name, rows = state.rows_done, seconds, "the table was read");
        } else if self.logged.elapsed() >= LOG_EVERY {
            self.logged = Instant::now();
            log_progress(&progress_of(entry));
        }
        let state = entry.state.get_or_insert_default();
        Ok(StateEntry { key, value: Some(state.to_json()?) })
    }

    /// Transactions that wrote to it before it was published have ended, the last one below `log_end`: the table is read by a capture
    /// whose stream begins there. Before PostgreSQL's releases of 2025, one that has such a transaction to decode takes the table
    /// for unpublished from then on.
    pub(super) fn writers_ended(&mut self, index: usize, log_end: Lsn) -> Result<StateEntry> {
        let entry = &mut self.entries[index];
        entry.writers.clear();
        let key = state::entry_name(&entry.table);
        let state = entry.state.get_or_insert_default();
        state.writers_ended = Some(log_end.to_string());
        self.awaits_stream_from = Some(self.awaits_stream_from.map_or(log_end, |other| other.min(log_end)));
        Ok(StateEntry { key, value: Some(state.to_json()?) })
    }

    /// Its writers are still at it: other tables go first.
    pub(super) fn put_aside(&mut self, index: usize, writers: Vec<String>) {
        let entry = &mut self.entries[index];
        if self.logged.elapsed() >= LOG_EVERY {
            self.logged = Instant::now();
            tracing::warn!(
                table = entry.table.full_name(),
                transactions = writers.len(),
                "the table may have been published while transactions were writing to it: it is read when they have ended"
            );
        }
        (entry.writers, entry.since) = (writers, None);
    }

    /// See [`super::Snapshotter::awaits_stream_from`].
    pub(super) fn awaits_stream_from(&self) -> Option<Lsn> {
        self.awaits_stream_from
    }

    /// The table vanished while it was being read.
    ///
    /// # Errors
    /// Its changes were left out of the stream so far, for its snapshot was to contain them: under its new name, if that is
    /// captured, it must be read, and only a fresh look at the catalogue finds it.
    pub(super) fn gone(&mut self, index: usize) -> Result<StateEntry> {
        let entry = &mut self.entries[index];
        if entry.awaits_whole() {
            let message = format!("{} was dropped or renamed before it was read", entry.table.full_name());
            return Err(Error::retry(ErrorKind::Setup, "reading a snapshot", message));
        }
        tracing::warn!(table = entry.table.full_name(), "the table was dropped or renamed: its snapshot ends here");
        entry.state = None;
        entry.since = None;
        self.update_dropping();
        Ok(StateEntry { key: state::entry_name(&self.entries[index].table), value: None })
    }

    /// Its changes are delivered as before; a table without a key, whose rows must come first, waits.
    pub(super) fn refuse(&mut self, index: usize, error: &Error) {
        let entry = &mut self.entries[index];
        let help = error.help.as_deref().unwrap_or_default();
        let line = format!("the rows of {} cannot be read: {}; {help}", entry.table.full_name(), error.message);
        tracing::warn!("{line}");
        (entry.refused, entry.since) = (Some(line), None);
    }

    /// See [`super::Snapshotter::refused`].
    pub(super) fn refused(&self) -> impl Iterator<Item = &str> {
        self.entries.iter().filter_map(|entry| entry.refused.as_deref())
    }

    /// See [`super::Snapshotter::drops`].
    pub(super) fn drops(&self, xid: u32, oid: u32) -> bool {
        if !self.dropping {
            return false;
        }
        let Some(entry) = self.by_oid.get(&oid).map(|index| &self.entries[*index]) else { return false };
        match &entry.seen {
            Some(view) => view.visibility.sees(xid),
            None => entry.awaits_whole(),
        }
    }

    /// Rules that are behind the stream go; the entries without them.
    pub(super) fn stream_passed(&mut self, lsn: Lsn) -> Result<Vec<StateEntry>> {
        let mut changed = Vec::new();
        if !self.dropping {
            return Ok(changed);
        }
        for entry in &mut self.entries {
            let Some(state) = &mut entry.state else { continue };
            let passed = state.drop.is_some() && entry.seen.as_ref().is_some_and(|view| view.high <= lsn);
            if passed {
                entry.seen = None;
                state.drop = None;
                changed.push(StateEntry { key: state::entry_name(&entry.table), value: Some(state.to_json()?) });
            }
        }
        if !changed.is_empty() {
            self.update_dropping();
        }
        Ok(changed)
    }

    fn update_dropping(&mut self) {
        self.dropping = self.entries.iter().any(|entry| entry.seen.is_some() || entry.awaits_whole());
    }

    /// See [`super::Snapshotter::key_moved`].
    pub(super) fn key_moved(&mut self, table: &TableSchema, oid: u32, row: &[Value<'_>]) -> Result<Option<StateEntry>> {
        let Some(entry) = self.by_oid.get(&oid).map(|index| &mut self.entries[*index]) else { return Ok(None) };
        let Some(state) = entry.state.as_mut().filter(|state| state.is_begun()) else { return Ok(None) };
        if state.again {
            return Ok(None);
        }
        match key_of(&state.key, table, row).filter(|_| state.reread.len() < REREAD_MAX) {
            Some(key) => state.reread.push(key),
            None => {
                state.reread.clear();
                state.again = true;
            }
        }
        Ok(Some(StateEntry { key: state::entry_name(&entry.table), value: Some(state.to_json()?) }))
    }

    /// See [`super::Snapshotter::request`].
    pub(super) fn request(&mut self, patterns: &[String]) -> Result<Vec<StateEntry>> {
        let selects = |pattern: &String, table: &CapturedTable| catalog::matches(pattern, &table.schema, &table.name);
        if let Some(unknown) = patterns.iter().find(|pattern| !self.entries.iter().any(|e| selects(pattern, &e.table)))
        {
            let found = format_args!("no captured table is called {unknown}");
            return Err(Error::operator(ErrorKind::Setup, "asking for a snapshot", found)
                .with_help("name tables as schema.table, as in the config's `tables`"));
        }
        let mut entries = Vec::new();
        for entry in &mut self.entries {
            if !patterns.is_empty() && !patterns.iter().any(|pattern| selects(pattern, &entry.table)) {
                continue;
            }
            entry.refused = None;
            match &mut entry.state {
                Some(state) if state.status == Status::Wanted => {}
                // Rows that were read before the request are not what was asked for.
                Some(state) if state.status == Status::Running => state.again = true,
                state => {
                    let again =
                        TableState { published_late: entry.published_late, ..TableState::wanted(&entry.table, false) };
                    let stamp = state.as_ref().map_or(0, |state| state.stamp);
                    *state = Some(TableState { stamp, drop: state.take().and_then(|state| state.drop), ..again });
                }
            }
            if let Some(state) = &entry.state {
                entries.push(StateEntry { key: state::entry_name(&entry.table), value: Some(state.to_json()?) });
            }
        }
        Ok(entries)
    }

    pub(super) fn progress(&self) -> Vec<SnapshotProgress> {
        let open = |entry: &&Entry| {
            entry.refused.is_none() && entry.state.as_ref().is_some_and(|state| state.status != Status::Done)
        };
        self.entries.iter().filter(open).map(progress_of).collect()
    }
}

impl Entry {
    /// Its first snapshot will contain all that was committed until then.
    fn awaits_whole(&self) -> bool {
        !self.table.keyed
            && self.seen.is_none()
            && self.state.as_ref().is_some_and(|s| s.first && s.status != Status::Done)
    }
}

/// Moves on past a chunk; true when a table was read as a whole.
fn advance(state: &mut TableState, chunk: &Chunk) -> bool {
    match &chunk.part {
        Part::Range { last_key, end } => {
            if last_key.is_some() {
                state.last_key = last_key.clone();
            }
            state.at_end = *end;
        }
        Part::Reread { keys } => drop(state.reread.drain(..(*keys).min(state.reread.len()))),
        Part::Whole { last, .. } => {
            if *last {
                // Asked for once more while it was being read.
                let again = std::mem::take(&mut state.again);
                state.status = if again { Status::Wanted } else { Status::Done };
            }
            return *last;
        }
    }
    if state.at_end && state.again {
        *state = TableState {
            status: Status::Running,
            again: false,
            at_end: false,
            last_key: None,
            reread: Vec::new(),
            rows_done: 0,
            ..std::mem::take(state)
        };
    } else if state.at_end && state.reread.is_empty() {
        state.status = Status::Done;
        state.last_key = None;
    }
    false
}

fn restored_view(rule: &DropRule) -> Result<Arc<View>> {
    let damaged = |_| Error::bug("reading the progress of a snapshot", "an address is damaged");
    View::parse(&rule.snapshot, rule.until.parse().map_err(damaged)?, 0)
}

fn key_of(key: &[String], table: &TableSchema, row: &[Value<'_>]) -> Option<KeyTexts> {
    let at: Option<Vec<usize>> =
        key.iter().map(|name| table.columns.iter().position(|column| column.name == *name)).collect();
    key_texts(at?.into_iter().map(|column| match row.get(column) {
        Some(Value::Data(text)) => Some(*text),
        _ => None,
    }))
}

fn progress_of(entry: &Entry) -> SnapshotProgress {
    let state = entry.state.as_ref();
    let rows_done = state.map_or(0, |state| state.rows_done);
    SnapshotProgress {
        table: entry.table.full_name(),
        rows_done,
        // An estimate that the rows have already passed says nothing.
        rows_total: entry.rows_total.filter(|total| *total >= rows_done),
        seconds: state.map_or(0.0, |state| state.seconds),
    }
}

fn log_progress(progress: &SnapshotProgress) {
    let share = progress.rows_total.filter(|total| *total > 0).map(|total| progress.rows_done as f64 / total as f64);
    let remaining = share.filter(|share| *share > 0.0).map(|share| progress.seconds * (1.0 - share) / share);
    tracing::info!(
        table = progress.table,
        rows = progress.rows_done,
        share_percent = share.map(|share| (share * 100.0).round()),
        remaining_seconds = remaining.map(f64::round),
        "reading"
    );
}
