//! From decoded messages to changes: transactions, positions, key updates, and what a snapshot must see in between.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use towpath_contract::{Action, Batch, Error, ErrorKind, Op, Result, TableSchema, Transaction, Value, planted};

use crate::decode::{Field, Message, Oids, Old, Tuple};
use crate::position::{LogPosition, Lsn};
use crate::relation::{Relation, Relations, message_table};
use crate::row::{Converted, filled, key_differs, key_only, old_row};
use crate::selection::glob;
use crate::snapshot::Snapshotter;

const OPERATION: &str = "reading the replication stream";

pub(crate) struct Assembler {
    pub(crate) relations: Relations,
    pub(crate) snapshotter: Snapshotter,
    open: Option<Open>,
    /// Everything up to and including this was delivered before.
    resume: LogPosition,
    /// The newest position handed over.
    last: LogPosition,
    /// Everything committed below was delivered.
    passed: Lsn,
    /// The open transaction was begun in the current batch, and no snapshot rows came after.
    begun: bool,
    /// Prefixes of the logical messages to capture.
    prefixes: Vec<String>,
    messages: Arc<TableSchema>,
    old: Converted,
    new: Converted,
    row: Vec<Value<'static>>,
}

/// The transaction whose changes are arriving.
struct Open {
    xid: u32,
    commit: Lsn,
    transaction: Transaction,
    /// Streamed in progress and read back now.
    streamed: bool,
    /// Address and index of the last change, delivered or not: positions depend on nothing but the log.
    at: Lsn,
    index: u32,
}

impl Assembler {
    pub(crate) fn new(resume: LogPosition, prefixes: Vec<String>, snapshotter: Snapshotter) -> Assembler {
        Assembler {
            relations: Relations::default(),
            snapshotter,
            open: None,
            resume,
            last: resume,
            passed: resume.commit,
            begun: false,
            prefixes,
            messages: message_table(),
            old: Converted::default(),
            new: Converted::default(),
            row: Vec::new(),
        }
    }

    pub(crate) fn in_transaction(&self) -> bool {
        self.open.is_some()
    }

    pub(crate) fn last(&self) -> LogPosition {
        self.last
    }

    pub(crate) fn passed(&self) -> Lsn {
        self.passed
    }

    /// A batch was handed in: a new one, or the one of a call that was cancelled.
    pub(crate) fn enter(&mut self, batch: &Batch) {
        self.begun &= batch.changes().len() > 0;
    }

    /// The batch is full: inside a transaction it ends after the last change.
    pub(crate) fn close(&self, batch: &mut Batch) {
        batch.position = Some(self.last.encode());
    }

    /// A keyless table is being read: the stream must wait at the open transaction until it is delivered.
    pub(crate) fn must_wait(&self) -> bool {
        self.open.as_ref().is_some_and(|open| self.snapshotter.holds(open.xid, open.commit))
    }

    pub(crate) fn begin(
        &mut self,
        xid: u32,
        commit: Lsn,
        commit_time_us: i64,
        streamed: bool,
        batch: &mut Batch,
    ) -> Result<()> {
        if self.open.is_some() {
            return Err(disorder("a transaction begins within another"));
        }
        self.pass(commit, batch)?;
        let transaction = Transaction { id: xid.to_string(), commit_time_us };
        self.open = Some(Open { xid, commit, transaction, streamed, at: Lsn::NONE, index: 0 });
        self.begun = false;
        Ok(())
    }

    /// The whole transaction was delivered.
    pub(crate) fn commit(&mut self, end: Lsn, batch: &mut Batch) -> Result<()> {
        let open = self.open.take().ok_or_else(|| disorder("a transaction ends that did not begin"))?;
        if open.streamed {
            self.relations.settle();
        }
        // All of what is in the batch of it, if nothing stood in between.
        if self.begun {
            batch.end_transaction();
        }
        self.last = self.last.max(LogPosition::after(end));
        self.pass(end, batch)?;
        // With nothing to record the position can wait: see `Reader::quiet_position`.
        if !is_bare(batch) {
            batch.position = Some(self.last.encode());
        }
        Ok(())
    }

    /// Everything committed below `lsn` was delivered: a chunk that waited for this can go out.
    pub(crate) fn pass(&mut self, lsn: Lsn, batch: &mut Batch) -> Result<()> {
        self.passed = self.passed.max(lsn);
        let before = batch.len();
        self.snapshotter.stream_passed(self.passed, batch, &self.last.encode())?;
        self.begun &= batch.len() == before;
        Ok(())
    }

    /// Nothing was committed between the last position and `end`.
    pub(crate) fn advance(&mut self, end: Lsn) {
        self.last = self.last.max(LogPosition::after(end));
    }

    /// One change of the open transaction, or a message outside of any. `lsn`: the log address that it came with.
    pub(crate) fn change(
        &mut self,
        message: &Message<'_>,
        lsn: Lsn,
        xid: Option<u32>,
        batch: &mut Batch,
    ) -> Result<()> {
        match *message {
            Message::Insert { relation, new } => self.insert(relation, new, lsn, batch),
            Message::Update { relation, old, new } => self.update(relation, old, new, lsn, batch),
            Message::Delete { relation, old } => self.delete(relation, old, lsn, batch),
            Message::Truncate { relations } => self.truncate(relations, lsn, batch),
            Message::Message { transactional, lsn, prefix, content } => {
                self.message(transactional, lsn, prefix, content, xid, batch)
            }
            _ => Err(disorder("a message is not allowed where it came")),
        }
    }

    fn insert(&mut self, oid: u32, new: Tuple<'_>, lsn: Lsn, batch: &mut Batch) -> Result<()> {
        let position = self.count(lsn)?;
        let Some(relation) = self.wanted(oid, position)? else { return Ok(()) };
        self.new.load(&relation, new)?;
        self.before_change(&relation, None, new, batch)?;
        self.transaction(batch)?;
        batch.change(Op::Insert, &relation.table, position.encode()).after(self.new.values(&relation, new));
        self.appended(position, batch);
        Ok(())
    }

    fn update(&mut self, oid: u32, old: Option<Old<'_>>, new: Tuple<'_>, lsn: Lsn, batch: &mut Batch) -> Result<()> {
        let position = self.count(lsn)?;
        // A key update's insert may be all that is left to deliver.
        let insert = LogPosition { part: LogPosition::PART_INSERT, ..position };
        let Some(relation) = self.wanted(oid, insert)? else { return Ok(()) };
        let moved = old.is_some_and(|old| key_differs(&relation.table, old, new));
        if !moved && position <= self.resume {
            return Ok(());
        }
        self.new.load(&relation, new)?;
        if let Some(old) = old {
            self.old.load(&relation, old.tuple())?;
        }
        self.before_change(&relation, old, new, batch)?;
        self.transaction(batch)?;
        let table = &relation.table;
        let Some(old) = old else {
            batch.change(Op::Update, table, position.encode()).after(self.new.values(&relation, new));
            self.appended(position, batch);
            return Ok(());
        };
        let sparse = matches!(old, Old::Key(_));
        let before = || old_row(table, self.old.values(&relation, old.tuple()), sparse);
        let after = || filled(self.new.values(&relation, new), before());
        if !moved {
            batch.change(Op::Update, table, position.encode()).before(before()).after(after());
            self.appended(position, batch);
            return Ok(());
        }
        if position > self.resume {
            let new_key = key_only(table, after());
            batch.change(Op::Delete, table, position.encode()).before(before()).linked(new_key);
        }
        let incomplete = after().any(|value| value == Value::Unavailable);
        batch.change(Op::Insert, table, insert.encode()).after(after()).linked(before());
        self.appended(insert, batch);
        if incomplete {
            let row: Vec<Value<'_>> = as_sent(new).collect();
            self.snapshotter.key_moved(table, oid, &row, batch)?;
        }
        Ok(())
    }

    fn delete(&mut self, oid: u32, old: Old<'_>, lsn: Lsn, batch: &mut Batch) -> Result<()> {
        let position = self.count(lsn)?;
        let Some(relation) = self.wanted(oid, position)? else { return Ok(()) };
        self.old.load(&relation, old.tuple())?;
        self.before_change(&relation, Some(old), old.tuple(), batch)?;
        self.transaction(batch)?;
        let values = self.old.values(&relation, old.tuple());
        let before = old_row(&relation.table, values, matches!(old, Old::Key(_)));
        batch.change(Op::Delete, &relation.table, position.encode()).before(before);
        self.appended(position, batch);
        Ok(())
    }

    /// One change per table, in the order of their oids: which of them are published makes no difference to the others.
    fn truncate(&mut self, oids: Oids<'_>, lsn: Lsn, batch: &mut Batch) -> Result<()> {
        let first = self.count(lsn)?;
        let mut oids: Vec<u32> = oids.iter().collect();
        oids.sort_unstable();
        for oid in oids {
            let position = LogPosition { index: oid, ..first };
            let Some(relation) = self.wanted(oid, position)? else { continue };
            let xid = self.open()?.xid;
            let before = batch.len();
            self.snapshotter.before_truncate(xid, oid, batch, &self.last.encode())?;
            self.begun &= batch.len() == before;
            self.transaction(batch)?;
            batch.change(Op::Truncate, &relation.table, position.encode());
            self.appended(position, batch);
        }
        Ok(())
    }

    /// A message's LSN is where its log record ends: right before that lies nothing but the message. PostgreSQL merges the
    /// subtransactions of one transaction by address, and the row that follows in the log starts at that very address: a
    /// message of a subtransaction may therefore come after the row.
    fn message(
        &mut self,
        transactional: bool,
        end: Lsn,
        prefix: &[u8],
        content: &[u8],
        xid: Option<u32>,
        batch: &mut Batch,
    ) -> Result<()> {
        let own = Lsn(end.0.saturating_sub(1));
        let wanted = self.prefixes.iter().any(|pattern| glob(pattern, &String::from_utf8_lossy(prefix)));
        if !transactional {
            // It stands for itself, between the commits before and after it.
            if self.open.is_some() || xid.is_some() {
                return Err(disorder("a message outside of transactions came within one"));
            }
            let position = LogPosition { commit: own, change: own, index: 0, part: LogPosition::PART_CHANGE };
            if wanted && position > self.resume {
                batch.begin_transaction(Transaction { id: String::new(), commit_time_us: now_us() });
                self.append_message(position, prefix, content, "false", batch);
                self.last = LogPosition::after(end);
                batch.position = Some(self.last.encode());
            }
            self.begun = false;
            return Ok(());
        }
        let open = self.open()?;
        let position = match open.at < end {
            true => LogPosition { commit: open.commit, change: own, index: 0, part: LogPosition::PART_CHANGE },
            false => LogPosition {
                commit: open.commit,
                change: open.at,
                index: open.index,
                part: LogPosition::PART_LATE_MESSAGE,
            },
        };
        if open.at < end {
            (open.at, open.index) = (own, 0);
        }
        if wanted && position > self.resume {
            self.transaction(batch)?;
            self.append_message(position, prefix, content, "true", batch);
            self.appended(position, batch);
        }
        Ok(())
    }

    fn append_message(
        &self,
        position: LogPosition,
        prefix: &[u8],
        content: &[u8],
        transactional: &str,
        batch: &mut Batch,
    ) {
        let row = [Value::Data(prefix), Value::Data(content), Value::Data(transactional.as_bytes())];
        batch.change(Op::Message, &self.messages, position.encode()).after(row);
    }

    fn open(&mut self) -> Result<&mut Open> {
        self.open.as_mut().ok_or_else(|| disorder("a change came outside of a transaction"))
    }

    /// The position of the next change of the open transaction.
    fn count(&mut self, lsn: Lsn) -> Result<LogPosition> {
        let open = self.open()?;
        // Skipping up to a recorded position relies on this order: should it ever be otherwise, stopping loses nothing.
        if lsn < open.at {
            return Err(disorder("a change lies before the one that came first in its transaction"));
        }
        open.index = if lsn == open.at { open.index + 1 } else { 0 };
        open.at = lsn;
        Ok(LogPosition { commit: open.commit, change: lsn, index: open.index, part: LogPosition::PART_CHANGE })
    }

    /// The change's table, if the change at this position is to be delivered.
    fn wanted(&mut self, oid: u32, position: LogPosition) -> Result<Option<Arc<Relation>>> {
        let xid = self.open()?.xid;
        let new = self.is_new(position);
        let relation = self
            .relations
            .get(oid)
            .ok_or_else(|| disorder("a change of a table came before the table's description"))?;
        let dropped = self.snapshotter.drops(xid, oid);
        Ok((relation.captured && new && !dropped).then(|| relation.clone()))
    }

    /// Not yet recorded.
    fn is_new(&self, position: LogPosition) -> bool {
        if planted("lsn_only_resume") {
            return position.commit > self.resume.commit;
        }
        if planted("position_off_by_one") {
            static SKIPPED: AtomicBool = AtomicBool::new(false);
            let within = position.commit == self.resume.commit;
            return position > self.resume && (!within || SKIPPED.swap(true, Ordering::Relaxed));
        }
        position > self.resume
    }

    /// Shows the row that carries the old key to the snapshot: a row that it holds for this key may have to go first.
    fn before_change(
        &mut self,
        relation: &Relation,
        old: Option<Old<'_>>,
        new: Tuple<'_>,
        batch: &mut Batch,
    ) -> Result<()> {
        if !self.snapshotter.holds_rows() {
            return Ok(());
        }
        let xid = self.open()?.xid;
        let mut row = recycle(std::mem::take(&mut self.row));
        match old {
            Some(old) => row.extend(old_row(&relation.table, as_sent(old.tuple()), matches!(old, Old::Key(_)))),
            None => row.extend(as_sent(new)),
        }
        let before = batch.len();
        let shown =
            self.snapshotter.before_change(xid, &relation.table, relation.oid, &row, batch, &self.last.encode());
        self.begun &= batch.len() == before;
        self.row = recycle(row);
        shown
    }

    /// The changes that follow belong to the open transaction.
    fn transaction(&mut self, batch: &mut Batch) -> Result<()> {
        if !self.begun {
            let transaction = self.open()?.transaction.clone();
            batch.begin_transaction(transaction);
            self.begun = true;
        }
        Ok(())
    }

    fn appended(&mut self, position: LogPosition, batch: &mut Batch) {
        debug_assert!(position > self.last, "{position:?} after {:?}", self.last);
        self.last = position;
        // Until the commit, or until the batch is full.
        batch.position = None;
    }
}

/// A row in the server's own text: what a held snapshot row is matched by.
fn as_sent<'a>(tuple: Tuple<'a>) -> impl Iterator<Item = Value<'a>> {
    tuple.fields().map(|field| match field {
        Field::Null => Value::Null,
        Field::Unchanged => Value::Unavailable,
        Field::Text(text) => Value::Data(text),
    })
}

/// Nothing in it but, perhaps, a position.
pub(crate) fn is_bare(batch: &Batch) -> bool {
    batch.changes().len() == 0 && batch.state.is_empty()
}

/// An empty vector with the other's memory: nothing is left in it that could outlive its lifetime.
fn recycle<'b>(mut row: Vec<Value<'_>>) -> Vec<Value<'b>> {
    row.clear();
    row.into_iter().map(|_| Value::Null).collect()
}

fn now_us() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(0, |since| since.as_micros() as i64)
}

fn disorder(message: &str) -> Error {
    Error::new(ErrorKind::Protocol, Action::Bug, OPERATION, message)
}
