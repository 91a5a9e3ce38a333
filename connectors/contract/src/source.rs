//! The calls between the engine and a connector, and their rules.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use crate::{Batch, Error, ErrorKind, Position, Result, StateEntry, TableSchema};

pub type Fut<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// One legacy system, configured and not yet connected.
pub trait Source: Send + Sync {
    fn capabilities(&self) -> Capabilities;

    /// Connects and gets ready to deliver the changes after `resume.position`, each once, in order, with no gap.
    ///
    /// With no position this is the first run: what the source needs is set up as far as the config allows, and the
    /// initial snapshot begins as the config says. If a change after the position may be missing, or the source is not
    /// the one that `resume.identity` names, the answer is an error of kind [`crate::ErrorKind::Gap`] that names the
    /// range, never a fresh start.
    ///
    /// Never retried inside: the engine does that, by the error's [`crate::Action`].
    fn open(&self, resume: Resume) -> Fut<'_, Result<Box<dyn Capture>>>;

    /// The tables that are captured, as they look now: equal to the schemas that their changes come with. Changes nothing.
    fn tables(&self) -> Fut<'_, Result<Vec<TableSchema>>>;

    /// Some rows of a captured table, at most so many and about [`BATCH_BYTES`], as its snapshot would deliver them: for people who
    /// try a route. None from a source without snapshots. Changes nothing.
    fn sample<'a>(&'a self, schema: &'a str, table: &'a str, rows: usize) -> Fut<'a, Result<Batch>>;

    /// The rows of a table, captured or not, that have certain values now. For routes that put related rows into one event.
    /// Changes nothing.
    ///
    /// # Errors
    /// [`ErrorKind::Limit`] when they are more than [`FOUND_BYTES_MAX`]: asking for fewer keys at a time may help.
    fn look_up<'a>(&'a self, lookup: &'a Lookup) -> Fut<'a, Result<Found>> {
        let message =
            format!("this kind of source cannot be asked for single rows of {}.{}", lookup.schema, lookup.table);
        Box::pin(async { Err(Error::operator(ErrorKind::Setup, "looking up rows", message)) })
    }

    /// Looks at the live source and reports everything that stands in the way, all of it in one run. Changes nothing.
    fn doctor(&self, known: Known) -> Fut<'_, Vec<Finding>>;
}

/// A running capture. One task owns it and calls it; nothing here is called concurrently.
///
/// Call order: any of `next`, `keep_alive`, `recorded`, `snapshot`, `progress`, in any order; `close` last, once.
/// After `next` or `keep_alive` returned an error the capture is dropped.
pub trait Capture: Send {
    /// What the positions belong to: system id and timeline, server uuid, file generation. Constant while open.
    /// Part of every event's id: letters, digits, `.`, `_`, `-`; at most 64 characters.
    fn identity(&self) -> &str;

    /// Appends to `batch` what is there, and waits only while there is nothing: it returns as soon as the batch is not
    /// empty and either no more is at hand or the batch holds [`BATCH_BYTES`] or one change that is larger; a quarter more where that
    /// brings a transaction to its end.
    ///
    /// **Cancellation:** the future may be dropped at any await; nothing is lost, and the next call may be given the same
    /// batch, with what was appended to it so far.
    /// **Order:** positions never decrease, from batch to batch and within one; snapshot rows (`Op::Read`) aside, each
    /// change's position is greater than the one before.
    /// **Position:** `batch.position` is set when the batch ends where a restart can resume: after a whole transaction,
    /// or within one that is too large for a single batch. With no change to report it may still move on (an idle
    /// database, a neighbour that writes all the log); then the batch has a position and no change.
    /// **End of input:** a stream never ends; a finite source waits forever after its end, and says so in `progress`.
    fn next<'a>(&'a mut self, batch: &'a mut Batch) -> Fut<'a, Result<()>>;

    /// Everything up to `position` is on disk in the outbox: the source may forget it. Cheap, does no I/O: the source is
    /// told at the next `next` or `keep_alive`. Never called with a position that was not handed over in a batch.
    fn recorded(&mut self, position: &Position);

    /// Called at least every [`KEEP_ALIVE_SECONDS_MAX`] while the engine has no room and does not call `next`: answers
    /// what the source needs to keep the connection, reads no changes.
    fn keep_alive(&mut self) -> Fut<'_, Result<()>>;

    /// Reads the tables again while the stream goes on. The entries make the request durable: they are recorded with the batch
    /// that is in hand, after its own.
    fn snapshot(&mut self, request: SnapshotRequest) -> Result<Vec<StateEntry>>;

    fn progress(&self) -> Progress;

    /// Tells the source what was recorded, and disconnects. Bounded: at most a few seconds.
    fn close(self: Box<Self>) -> Fut<'static, Result<()>>;
}

/// The engine calls `next` or `keep_alive` at least this often.
pub const KEEP_ALIVE_SECONDS_MAX: u64 = 1;

/// A batch is handed over when it holds this much. Large enough that a commit's cost is shared by thousands of rows,
/// small enough that a few in flight fit in a few megabytes.
pub const BATCH_BYTES: usize = 1 << 20;

/// Which rows of a table are wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lookup {
    pub schema: String,
    pub table: String,
    /// The columns by which they are found, at least one. The source compares, by the type of its column.
    pub columns: Vec<String>,
    /// A value for each of the columns, in the form that the column's [`crate::Kind`] fixes. With no key nothing is found, but what the
    /// table looks like.
    pub keys: Vec<Vec<Vec<u8>>>,
}

/// The rows that were wanted.
#[derive(Debug)]
pub struct Found {
    pub table: Arc<TableSchema>,
    /// [`crate::Op::Read`] each, as a snapshot of the table would deliver them: in the order of the keys that were wanted, and those of
    /// one in the order of the table's own key.
    pub rows: Batch,
    /// Of each row, the index of the key that it was found by.
    pub keys: Vec<usize>,
}

/// The most that one [`Source::look_up`] finds.
pub const FOUND_BYTES_MAX: usize = 64 << 20;

/// What `doctor` may hold the live source against.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// As [`Source::open`] would be given it; `None` before the first run.
    pub resume: Option<Resume>,
    /// How much the outbox takes before sources wait: until then a broker that is down pins nothing in the source.
    pub outbox_bytes_max: u64,
    /// What of the config looks at rows as they were before a change.
    pub old_rows: Vec<OldRows>,
}

/// A part of the config that cannot do without all of a table's row as it was before it is updated or deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OldRows {
    pub schema: String,
    pub table: String,
    /// The part's path in the config, for people.
    pub needed_by: String,
}

/// What is known of a source from earlier runs, read from the outbox.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resume {
    /// [`Capture::identity`] of the run that recorded the position.
    pub identity: Option<String>,
    pub position: Option<Position>,
    /// The connector's own entries, as recorded with its batches.
    pub state: BTreeMap<String, Vec<u8>>,
}

/// The state entry by which a person accepts a gap: [`Source::open`] then starts anew, as on a first run, and reads all
/// tables again. The first batch of that capture removes the entry.
pub const AFTER_GAP: &str = "after_gap";

/// What a kind of source can do. The conformance suite selects its cases by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    pub sees_deletes: bool,
    pub sees_before_images: bool,
    pub sees_transactions: bool,
    pub snapshots: bool,
}

/// Which tables to read again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotRequest {
    /// `schema.table`; empty for all that are captured.
    pub tables: Vec<String>,
}

/// Where a capture stands, for status and metrics. Cheap.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Progress {
    /// Bytes of the source's log written but not yet recorded by us, as last heard. `None` where the source has no such measure.
    pub behind_bytes: Option<u64>,
    /// Everything that the source had at this time was recorded. `None` before that is known, and where the source cannot
    /// tell what it has.
    pub complete_as_of: Option<Instant>,
    /// The newest recorded position in the source's own notation (an LSN, a GTID), for people.
    pub position_text: String,
    /// Bytes spooled to disk for transactions in progress.
    pub spooled_bytes: u64,
    /// What the config asks for and is not captured: one line each, with the way out.
    pub uncaptured: Vec<String>,
    /// Tables being read, and those still to be.
    pub snapshot: Vec<SnapshotProgress>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct SnapshotProgress {
    /// `schema.table`.
    pub table: String,
    pub rows_done: u64,
    /// By the source's own statistics: an estimate. `None` where it has none.
    pub rows_total: Option<u64>,
    /// Since the first row; without time spent stopped.
    pub seconds: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Works as it is; worth knowing.
    Note,
    /// Runs, but something will be missing or may fail later.
    Warning,
    /// Does not run.
    Error,
}

/// One thing that `doctor` found, and what mends it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub severity: Severity,
    /// Short, stable, for machines: `wal_level`, `table_without_key`.
    pub code: &'static str,
    /// What was found and why it matters, in one or two sentences.
    pub message: String,
    /// The exact statement or command, complete enough to be pasted. `None` where none can help.
    pub fix: Option<String>,
    /// Who must run it: "a superuser", "the owner of public.orders", "the operating system's administrator".
    pub who: Option<String>,
}
