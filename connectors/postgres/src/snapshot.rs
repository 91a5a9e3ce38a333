//! Reads tables while the stream goes on, and gives each row its place in the stream.
//!
//! A task of its own reads a table in chunks, in key order; each chunk is one short transaction with a snapshot `S`
//! and the log's end `H`, read right after. The chunk is then held in memory while the stream goes on:
//!
//! * A change by a transaction that `S` **sees** is part of the chunk's row already. It is delivered; the row is newer.
//! * Before the first change by a transaction that `S` **does not see**, the held row of the same key is emitted. From
//!   there on every change of that key is newer than the row: a row's lock is held until its transaction is visible as
//!   ended, so that, per key, the transactions that `S` sees are a prefix of the order of commits.
//! * When the stream has passed `H`, all that `S` sees has been delivered (its commit records lie below `H`), and the
//!   rows still held are emitted, in one batch with the entry that says how far the table was read.
//!
//! So every row that a chunk read is emitted once, after every older change of its key and before every newer one.
//! No row is left out because "the stream has it anyway": the stream's update of a row with an unchanged TOAST value
//! does not have it.
//!
//! Rows that move while a table is read:
//!
//! * A key changed by a transaction that the chunk sees: the chunk shows the result.
//! * By one that it does not see: the stream has a delete of the old key, before which the held row is emitted, and an
//!   insert of the new one.
//! * To a key that a later chunk reads: it is read again there, newer. Harmless.
//! * From a key that a later chunk would have read to one that was read already: no chunk sees the row. The stream's
//!   insert carries it, but for unchanged TOAST values; those keys are read once more at the end
//!   ([`Snapshotter::key_moved`]).
//! * Inserted beyond the last key read: the stream carries it, a later chunk reads it again. Harmless.
//!
//! What must not happen is that the stream delivers a change which the chunk does not see before the chunk is there:
//! [`gate`] sees to that.
//!
//! A table without a usable unique key is read as a whole in one transaction, delivered in pieces before any newer
//! change: until its snapshot is taken and wherever that sees the change, the stream's changes of the table are dropped
//! (on its first snapshot), since the snapshot contains them. So a multiset of its rows comes out exact. It cannot be
//! resumed: after a restart it begins again.

mod chunk;
mod gate;
mod lookup;
mod reader;
mod rows;
mod sample;
mod session;
mod state;
mod statement;
mod tables;
#[cfg(test)]
mod tests;
mod view;

use std::future::pending;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use towpath_contract::{
    Batch, Error, Position, Result, SnapshotProgress, SnapshotRequest, StateEntry, TableSchema, Value,
};
use tracing::Instrument;

use crate::catalog::CapturedTable;
use crate::config::{SnapshotConfig, SnapshotMode};
use crate::position::Lsn;
use chunk::{Chunk, Part};
use gate::Gate;
use reader::{Job, Limits, Reader, Report};
pub(crate) use tables::History;
use tables::Tables;

pub(crate) use lookup::look_up;
pub(crate) use reader::Connect;
pub(crate) use sample::sample;
pub(crate) use state::PREFIX;

/// Reads the tables that are wanted, one after the other.
///
/// The stream's owner calls, for each transaction, [`holds`](Snapshotter::holds) before it delivers anything of it; for
/// each change [`drops`](Snapshotter::drops), then [`before_change`](Snapshotter::before_change) or
/// [`before_truncate`](Snapshotter::before_truncate); whenever the stream's position moved, and after each
/// [`ready`](Snapshotter::ready), [`stream_passed`](Snapshotter::stream_passed). While a transaction is held it awaits
/// `ready` and asks again.
pub(crate) struct Snapshotter {
    gate: Arc<Gate>,
    jobs: mpsc::UnboundedSender<Job>,
    reports: mpsc::Receiver<Result<Report>>,
    task: JoinHandle<()>,
    tables: Tables,
    /// The table that is being read: a job is with the task, or its chunk is held.
    current: Option<usize>,
    held: Option<Chunk>,
    /// Whether `held` sees the transaction that was asked for last.
    seen: Option<(u32, bool)>,
    /// To be recorded with the next batch.
    pending: Vec<StateEntry>,
}

impl Snapshotter {
    /// Starts the task. Tables without an entry in the history's state are wanted in mode `initial`; those that were being read go on.
    ///
    /// `publication`: its row filter and column lists apply to what is read. Must be called within a Tokio runtime.
    pub(crate) fn start(
        connect: Connect,
        config: &SnapshotConfig,
        publication: Option<String>,
        tables: Vec<CapturedTable>,
        history: &History<'_>,
    ) -> Result<Snapshotter> {
        let (tables, pending) = Tables::restore(tables, history, config.mode == SnapshotMode::Initial)?;
        let gate = Arc::new(Gate::default());
        let (jobs, job_queue) = mpsc::unbounded_channel();
        // One piece of a whole table may wait while the next is read.
        let (report_queue, reports) = mpsc::channel(1);
        let limits =
            Limits { chunk_rows: config.chunk_rows.max(1) as usize, rows_per_second_max: config.rows_per_second_max };
        let reader =
            Reader { connect, publication, limits, gate: gate.clone(), jobs: job_queue, reports: report_queue };
        let task = tokio::spawn(reader.run().in_current_span());
        let mut snapshotter =
            Snapshotter { gate, jobs, reports, task, tables, current: None, held: None, seen: None, pending };
        snapshotter.go_on()?;
        Ok(snapshotter)
    }

    /// What must be recorded before anything that follows is, or with it: at first, which tables are wanted.
    pub(crate) fn take_entries(&mut self) -> Vec<StateEntry> {
        std::mem::take(&mut self.pending)
    }

    /// Waits until a chunk is held, or a transaction that was held back may be tried again, or an entry waits to be
    /// recorded; call [`Snapshotter::stream_passed`] then. Never returns while a chunk is held or nothing is wanted.
    ///
    /// Errors: the connection's, to be retried by opening the source again. May be dropped at any await.
    pub(crate) async fn ready(&mut self) -> Result<()> {
        if !self.pending.is_empty() {
            return Ok(());
        }
        if self.held.is_some() || self.current.is_none() {
            return pending().await;
        }
        let report = self.reports.recv().await;
        match report.unwrap_or_else(|| Err(Error::bug("reading a snapshot", "its task ended"))) {
            Ok(Report::Chunk(chunk)) => self.hold(*chunk),
            Ok(Report::Gone) => self.table_gone()?,
            Ok(Report::Refused(error)) => {
                if let Some(table) = self.current.take() {
                    self.tables.refuse(table, &error);
                }
                self.go_on()?;
            }
            Ok(Report::WritersEnded(log_end)) => {
                if let Some(table) = self.current.take() {
                    self.pending.push(self.tables.writers_ended(table, log_end)?);
                }
                self.go_on()?;
            }
            Ok(Report::Busy(writers)) => {
                if let Some(table) = self.current.take() {
                    self.tables.put_aside(table, writers);
                }
                self.go_on()?;
            }
            Ok(Report::GateMoved) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// A table can only be read by a capture whose stream begins here, once this is recorded.
    pub(crate) fn awaits_stream_from(&self) -> Option<Lsn> {
        self.tables.awaits_stream_from()
    }

    /// What the stream must pass before the held chunk is complete: until then the server should be asked how far it got.
    pub(crate) fn pending_high(&self) -> Option<Lsn> {
        self.held.as_ref().map(Chunk::due).or(self.tables.awaits_stream_from())
    }

    /// Whether the transaction may not be delivered yet: await [`Snapshotter::ready`] and ask again. Asked once per
    /// transaction, before its first change; `xid` is the top-level one, `commit` where its commit record starts.
    pub(crate) fn holds(&self, xid: u32, commit: Lsn) -> bool {
        !self.gate.admits(xid, commit)
    }

    /// Whether this change is part of the table's snapshot, present or to come, and must not be delivered besides.
    pub(crate) fn drops(&self, xid: u32, oid: u32) -> bool {
        self.tables.drops(xid, oid)
    }

    /// Rows were read that may have to go before a change: see [`Snapshotter::before_change`].
    pub(crate) fn holds_rows(&self) -> bool {
        self.held.is_some()
    }

    /// To be called before a change is added to the batch. `row` is the row with the old key, in the server's text: the
    /// old row where the stream sent one, else the new one. `last`: the position of the last change delivered.
    pub(crate) fn before_change(
        &mut self,
        xid: u32,
        table: &Arc<TableSchema>,
        oid: u32,
        row: &[Value<'_>],
        batch: &mut Batch,
        last: &Position,
    ) -> Result<()> {
        match &mut self.held {
            Some(chunk) if chunk.shape.oid == oid && !sees(&mut self.seen, chunk, xid) => {
                chunk.emit_matching(table, row, batch, last)
            }
            _ => Ok(()),
        }
    }

    /// The same for a TRUNCATE of the table `oid`.
    pub(crate) fn before_truncate(&mut self, xid: u32, oid: u32, batch: &mut Batch, last: &Position) -> Result<()> {
        match &mut self.held {
            Some(chunk) if chunk.shape.oid == oid && !sees(&mut self.seen, chunk, xid) => chunk.emit_rest(batch, last),
            _ => Ok(()),
        }
    }

    /// To be called after an update that changed the key and left values of the new row unavailable (unchanged TOAST);
    /// `row` is the new row. If its table is being read, the row is read once more at the end: no chunk may have seen it.
    /// What says so is recorded with the change.
    pub(crate) fn key_moved(
        &mut self,
        table: &TableSchema,
        oid: u32,
        row: &[Value<'_>],
        batch: &mut Batch,
    ) -> Result<()> {
        let entry = self.tables.key_moved(table, oid, row)?;
        // In the order in which they were made: the last one of a name counts.
        batch.state.append(&mut self.pending);
        if let Some(entry) = entry {
            // It says all that the one before it said, and a batch of such changes must not hold as many of them.
            batch.state.retain(|older| older.key != entry.key);
            batch.state.push(entry);
        }
        Ok(())
    }

    /// The stream has delivered everything below `lsn`. Emits what is due and adds what is to be recorded with it; true
    /// when a chunk was completed.
    pub(crate) fn stream_passed(&mut self, lsn: Lsn, batch: &mut Batch, last: &Position) -> Result<bool> {
        self.pending.extend(self.tables.stream_passed(lsn)?);
        let completed = match self.held.take_if(|chunk| chunk.due() <= lsn) {
            Some(mut chunk) => {
                chunk.emit_rest(batch, last)?;
                self.complete(chunk)?;
                true
            }
            None => false,
        };
        batch.state.append(&mut self.pending);
        Ok(completed)
    }

    /// Tables are to be read again: see [`Snapshotter::take_entries`].
    pub(crate) fn request(&mut self, request: SnapshotRequest) -> Result<()> {
        let entries = self.tables.request(&request.tables)?;
        self.pending.extend(entries);
        self.go_on()
    }

    /// Tables being read, and those still to be.
    pub(crate) fn progress(&self) -> Vec<SnapshotProgress> {
        self.tables.progress()
    }

    /// Tables whose rows may not be read, for now: one line each, with the way out.
    pub(crate) fn refused(&self) -> impl Iterator<Item = &str> {
        self.tables.refused()
    }

    fn hold(&mut self, mut chunk: Chunk) {
        self.seen = None;
        if let Some(table) = self.current {
            self.tables.chunk_read(table, &mut chunk);
        }
        // What is newer may pass now: the chunk's rows go before it. Not so the pieces of a whole table.
        if !matches!(chunk.part, Part::Whole { .. }) {
            self.gate.open();
        }
        self.held = Some(chunk);
    }

    fn complete(&mut self, chunk: Chunk) -> Result<()> {
        let Some(table) = self.current else { return Ok(()) };
        let more_to_come = matches!(chunk.part, Part::Whole { last: false, .. });
        if matches!(chunk.part, Part::Whole { last: true, .. }) {
            self.gate.open();
        }
        self.pending.push(self.tables.chunk_done(table, &chunk)?);
        if more_to_come {
            return Ok(());
        }
        self.current = None;
        self.go_on()
    }

    fn table_gone(&mut self) -> Result<()> {
        if let Some(table) = self.current.take() {
            self.pending.push(self.tables.gone(table)?);
        }
        self.go_on()
    }

    /// Gives the task its next job, if there is one and it has none.
    fn go_on(&mut self) -> Result<()> {
        if self.current.is_some() {
            return Ok(());
        }
        let job = self.tables.next_job();
        self.gate.track(job.is_some());
        if let Some((table, job)) = job {
            self.current = Some(table);
            self.tables.begin(table, Instant::now());
            // A task that ended has left its error in `reports`.
            let _ = self.jobs.send(job);
        }
        Ok(())
    }
}

impl Drop for Snapshotter {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn sees(seen: &mut Option<(u32, bool)>, chunk: &Chunk, xid: u32) -> bool {
    match *seen {
        Some((known, answer)) if known == xid => answer,
        _ => {
            let answer = chunk.view.visibility.sees(xid);
            *seen = Some((xid, answer));
            answer
        }
    }
}

/// Lines of COPY, for `fuzz/`.
#[cfg(any(test, fuzzing))]
pub(crate) fn read_copied(bytes: &[u8]) {
    let Some((width, lines)) = bytes.split_first() else { return };
    let width = usize::from(*width % 8);
    let mut rows = rows::Rows::new(width);
    for line in lines.split_inclusive(|byte| *byte == b'\n') {
        if rows.push_copied(line).is_err() {
            return;
        }
    }
    let cells = (0..rows.len()).flat_map(|row| (0..width).map(move |column| (row, column)));
    let bytes: usize = cells.filter_map(|(row, column)| rows.value(row, column)).map(<[u8]>::len).sum();
    assert!(bytes <= lines.len(), "unescaped text is never longer");
}

/// A table's progress as it was recorded, for `fuzz/`.
#[cfg(any(test, fuzzing))]
pub(crate) fn read_stored(bytes: &[u8]) {
    if let Ok(state) = state::TableState::parse("snapshot/public.t", bytes) {
        let again = state.to_json().and_then(|json| state::TableState::parse("snapshot/public.t", &json));
        // Not equal where a float is not a number.
        assert!(again.is_ok());
        if let Some(rule) = &state.drop {
            drop(rule.until.parse().map(|until| view::View::parse(&rule.snapshot, until, 0)));
        }
    }
}
