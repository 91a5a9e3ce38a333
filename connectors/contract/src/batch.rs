//! What a connector hands over: changes, packed so that none of them costs an allocation.

use std::sync::Arc;

use crate::{Position, TableSchema};

/// What happened to a row, or to a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Op {
    Insert,
    Update,
    Delete,
    /// A row as a snapshot saw it.
    Read,
    /// The whole table was emptied. No row.
    Truncate,
    /// A message written into the source's log by an application (PostgreSQL `pg_logical_emit_message`). The row holds
    /// `prefix` and `content`.
    Message,
}

impl Op {
    pub const ALL: [Op; 6] = [Op::Insert, Op::Update, Op::Delete, Op::Read, Op::Truncate, Op::Message];

    pub fn name(self) -> &'static str {
        match self {
            Op::Insert => "insert",
            Op::Update => "update",
            Op::Delete => "delete",
            Op::Read => "read",
            Op::Truncate => "truncate",
            Op::Message => "message",
        }
    }
}

/// One value of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    /// The database's NULL.
    Null,
    /// The source did not say (unchanged TOAST, a minimal row image, a column outside the key of a deleted row).
    /// Never to be published as null, nor as a placeholder.
    Unavailable,
    /// In the form that the column's [`crate::Kind`] fixes.
    Data(&'a [u8]),
}

/// The source transaction that changes belong to.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Transaction {
    /// The source's own name for it: an xid, a GTID. Empty for snapshot rows.
    pub id: String,
    /// When it was committed, in microseconds since 1970-01-01 UTC, by the source's clock. For snapshot rows: when read.
    pub commit_time_us: i64,
}

/// An entry of the connector's own durable memory, recorded in the same outbox transaction as the batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateEntry {
    pub key: String,
    /// `None` removes the entry.
    pub value: Option<Vec<u8>>,
}

/// Changes in the source's order, the position after them, and the state to be recorded with them.
///
/// One arena of bytes, one of cells, one of heads: filled by the connector, read by the engine, cleared and filled again.
#[derive(Debug, Default)]
pub struct Batch {
    data: Vec<u8>,
    cells: Vec<Cell>,
    heads: Vec<Head>,
    tables: Vec<Arc<TableSchema>>,
    transactions: Vec<Transaction>,
    /// Those of which no change follows, by their index.
    ended: Vec<usize>,
    /// Index of the transaction that the next change belongs to.
    current: usize,
    /// Recorded with the changes; after it is durable, [`crate::Capture::recorded`] names it. `None` as long as nothing
    /// was reached that a restart could resume from.
    pub position: Option<Position>,
    pub state: Vec<StateEntry>,
}

#[derive(Clone, Copy, Debug)]
struct Cell {
    start: u32,
    /// Length, or one of the marks below.
    len: u32,
}

const NULL: u32 = u32::MAX;
const UNAVAILABLE: u32 = u32::MAX - 1;

#[derive(Clone, Copy, Debug, Default)]
struct Span {
    first: u32,
    /// 0 cells: the row is absent.
    count: u32,
}

#[derive(Clone, Copy, Debug)]
struct Head {
    position: Position,
    op: Op,
    table: u32,
    transaction: u32,
    before: Span,
    after: Span,
    linked: Span,
}

impl Batch {
    pub fn new() -> Batch {
        Batch::default()
    }

    /// Empties the batch and keeps its memory, up to `keep_bytes_max` of row data (one huge row must not stay resident).
    pub fn clear(&mut self, keep_bytes_max: usize) {
        self.data.clear();
        self.data.shrink_to(keep_bytes_max);
        self.cells.clear();
        self.heads.clear();
        self.tables.clear();
        self.transactions.clear();
        self.ended.clear();
        self.current = 0;
        self.position = None;
        self.state.clear();
    }

    /// Changes in the batch.
    pub fn len(&self) -> usize {
        self.heads.len()
    }

    /// No change, no position and no state.
    pub fn is_empty(&self) -> bool {
        self.heads.is_empty() && self.position.is_none() && self.state.is_empty()
    }

    /// Bytes that the batch holds, to be measured against a bound.
    pub fn bytes(&self) -> usize {
        self.data.len() + self.cells.len() * size_of::<Cell>() + self.heads.len() * size_of::<Head>()
    }

    /// The changes that follow belong to this transaction.
    pub fn begin_transaction(&mut self, transaction: Transaction) {
        self.current = self.transactions.len();
        self.transactions.push(transaction);
    }

    /// The transaction that changes are being added to; to be given to [`Batch::continue_transaction`].
    pub fn current_transaction(&self) -> Option<usize> {
        (!self.transactions.is_empty()).then_some(self.current)
    }

    /// The changes that follow belong to this transaction again, after those of another stood in between.
    ///
    /// # Panics
    /// When the batch has no transaction of that index.
    pub fn continue_transaction(&mut self, index: usize) {
        assert!(index < self.transactions.len(), "there is no such transaction in the batch");
        self.current = index;
    }

    /// No change of the current transaction follows, in this batch or another. Said or not, what was delivered is the same; but routes
    /// that put a transaction's rows into one event need not look up what they know to be whole.
    pub fn end_transaction(&mut self) {
        self.ended.push(self.current);
    }

    /// Whether no change of the transaction follows, by its index. `false`: it is not known.
    pub fn has_ended(&self, transaction: usize) -> bool {
        self.ended.contains(&transaction)
    }

    /// Adds a change; its rows are given with the builder. `begin_transaction` must have been called before.
    ///
    /// # Panics
    /// When no transaction was begun: a bug of the connector.
    pub fn change(&mut self, op: Op, table: &Arc<TableSchema>, position: Position) -> RowBuilder<'_> {
        assert!(!self.transactions.is_empty(), "a change needs a transaction");
        let table = match self.tables.iter().rposition(|known| Arc::ptr_eq(known, table)) {
            Some(index) => index,
            None => {
                self.tables.push(table.clone());
                self.tables.len() - 1
            }
        };
        self.heads.push(Head {
            position,
            op,
            table: table as u32,
            transaction: self.current as u32,
            before: Span::default(),
            after: Span::default(),
            linked: Span::default(),
        });
        RowBuilder { batch: self }
    }

    pub fn put_state(&mut self, key: impl Into<String>, value: Option<Vec<u8>>) {
        self.state.push(StateEntry { key: key.into(), value });
    }

    pub fn changes(&self) -> impl ExactSizeIterator<Item = Change<'_>> + '_ {
        self.heads.iter().map(|head| Change { batch: self, head })
    }

    /// # Panics
    /// When there is no change of that index.
    pub fn at(&self, index: usize) -> Change<'_> {
        Change { batch: self, head: &self.heads[index] }
    }

    /// The distinct tables of the batch's changes, as [`Change::table_index`] counts them.
    pub fn tables(&self) -> &[Arc<TableSchema>] {
        &self.tables
    }

    fn row(&self, span: Span, table: u32) -> Option<Row<'_>> {
        let cells = &self.cells[span.first as usize..][..span.count as usize];
        (!cells.is_empty()).then(|| Row { data: &self.data, cells, table: &self.tables[table as usize] })
    }
}

/// Fills the rows of the change that was added last. Each row takes one value per column, in column order.
pub struct RowBuilder<'a> {
    batch: &'a mut Batch,
}

#[derive(Clone, Copy)]
enum Slot {
    Before,
    After,
    Linked,
}

impl RowBuilder<'_> {
    /// The row before the change: all of it, or the key with the rest [`Value::Unavailable`].
    pub fn before<'v>(self, values: impl IntoIterator<Item = Value<'v>>) -> Self {
        self.row(Slot::Before, values)
    }

    /// The row after the change (inserts, updates, reads).
    pub fn after<'v>(self, values: impl IntoIterator<Item = Value<'v>>) -> Self {
        self.row(Slot::After, values)
    }

    /// The other half of a key update: on the delete the new key, the rest unavailable; on the insert the row as it was, as far as the
    /// source sent it.
    pub fn linked<'v>(self, values: impl IntoIterator<Item = Value<'v>>) -> Self {
        self.row(Slot::Linked, values)
    }

    fn row<'v>(self, slot: Slot, values: impl IntoIterator<Item = Value<'v>>) -> Self {
        let batch = &mut *self.batch;
        let first = batch.cells.len() as u32;
        for value in values {
            let start = batch.data.len() as u32;
            let len = match value {
                Value::Null => NULL,
                Value::Unavailable => UNAVAILABLE,
                Value::Data(bytes) => {
                    batch.data.extend_from_slice(bytes);
                    bytes.len() as u32
                }
            };
            batch.cells.push(Cell { start, len });
        }
        let span = Span { first, count: batch.cells.len() as u32 - first };
        let head = batch.heads.last_mut().expect("a builder exists only after its head");
        debug_assert_eq!(span.count as usize, batch.tables[head.table as usize].columns.len());
        match slot {
            Slot::Before => head.before = span,
            Slot::After => head.after = span,
            Slot::Linked => head.linked = span,
        }
        self
    }
}

/// One row-level fact, borrowed from a batch.
#[derive(Clone, Copy, Debug)]
pub struct Change<'a> {
    batch: &'a Batch,
    head: &'a Head,
}

impl<'a> Change<'a> {
    pub fn op(&self) -> Op {
        self.head.op
    }

    pub fn position(&self) -> Position {
        self.head.position
    }

    pub fn table(&self) -> &'a Arc<TableSchema> {
        &self.batch.tables[self.head.table as usize]
    }

    /// The table's index in [`Batch::tables`].
    pub fn table_index(&self) -> usize {
        self.head.table as usize
    }

    pub fn transaction(&self) -> &'a Transaction {
        &self.batch.transactions[self.head.transaction as usize]
    }

    /// The transaction's index in the batch: equal for changes of the same one.
    pub fn transaction_index(&self) -> usize {
        self.head.transaction as usize
    }

    /// At least as many as the values of its row before and after have. Cheap.
    pub fn bytes(&self) -> usize {
        if self.batch.data.len() <= Self::COUNTED_FROM_BYTES {
            return self.batch.data.len();
        }
        let rows = [self.before(), self.after()].into_iter().flatten();
        let length = |value| if let Value::Data(bytes) = value { bytes.len() } else { 0 };
        rows.flat_map(|row| row.values()).map(length).sum()
    }

    /// A batch below this says for each of its changes that it has no more.
    const COUNTED_FROM_BYTES: usize = 16 << 20;

    pub fn before(&self) -> Option<Row<'a>> {
        self.batch.row(self.head.before, self.head.table)
    }

    pub fn after(&self) -> Option<Row<'a>> {
        self.batch.row(self.head.after, self.head.table)
    }

    /// See [`RowBuilder::linked`].
    pub fn linked(&self) -> Option<Row<'a>> {
        self.batch.row(self.head.linked, self.head.table)
    }

    /// The row that carries the change's key: `after`, or `before` where there is no `after`.
    pub fn keyed_row(&self) -> Option<Row<'a>> {
        self.after().or_else(|| self.before())
    }
}

/// A row's values, borrowed from a batch.
#[derive(Clone, Copy, Debug)]
pub struct Row<'a> {
    data: &'a [u8],
    cells: &'a [Cell],
    table: &'a TableSchema,
}

impl<'a> Row<'a> {
    pub fn table(&self) -> &'a TableSchema {
        self.table
    }

    /// # Panics
    /// When `column` is not an index of the table's columns.
    pub fn value(&self, column: usize) -> Value<'a> {
        let cell = self.cells[column];
        match cell.len {
            NULL => Value::Null,
            UNAVAILABLE => Value::Unavailable,
            len => Value::Data(&self.data[cell.start as usize..][..len as usize]),
        }
    }

    pub fn values(&self) -> impl ExactSizeIterator<Item = Value<'a>> + use<'a> {
        let row = *self;
        (0..row.cells.len()).map(move |column| row.value(column))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Column, KeyKind, Kind};
    use proptest::prelude::*;

    fn table(columns: usize) -> Arc<TableSchema> {
        let columns = (0..columns)
            .map(|index| Column {
                name: format!("c{index}"),
                kind: Kind::Bytes,
                type_name: "bytea".into(),
                key: index == 0,
            })
            .collect();
        Arc::new(TableSchema::new("s".into(), "t".into(), columns, KeyKind::Columns))
    }

    fn value(value: &Option<Option<Vec<u8>>>) -> Value<'_> {
        match value {
            None => Value::Unavailable,
            Some(None) => Value::Null,
            Some(Some(bytes)) => Value::Data(bytes),
        }
    }

    proptest! {
        #[test]
        fn what_goes_in_comes_out(rows in proptest::collection::vec(
            proptest::collection::vec(proptest::option::of(proptest::option::of(proptest::collection::vec(any::<u8>(), 0..20))), 3), 1..20)) {
            let table = table(3);
            let mut batch = Batch::new();
            for round in 0..2 {
                batch.clear(16);
                batch.begin_transaction(Transaction { id: "7".into(), commit_time_us: round });
                for (index, row) in rows.iter().enumerate() {
                    let position = Position::from_bytes(&[index as u8]).unwrap();
                    batch.change(Op::Update, &table, position)
                        .before(row.iter().map(value))
                        .after(row.iter().rev().map(value));
                }
                prop_assert_eq!(batch.len(), rows.len());
                for (index, (change, row)) in batch.changes().zip(&rows).enumerate() {
                    prop_assert_eq!(change.position().as_bytes().to_vec(), vec![index as u8]);
                    prop_assert_eq!(change.transaction().commit_time_us, round);
                    prop_assert!(change.linked().is_none());
                    prop_assert!(change.before().unwrap().values().eq(row.iter().map(value)));
                    prop_assert!(change.after().unwrap().values().eq(row.iter().rev().map(value)));
                }
            }
        }
    }

    #[test]
    fn a_transaction_goes_on_after_another_in_between() {
        let table = table(1);
        let position = Position::from_bytes(&[1]).unwrap();
        let mut batch = Batch::new();
        assert_eq!(batch.current_transaction(), None);
        batch.begin_transaction(Transaction { id: "7".into(), commit_time_us: 1 });
        let first = batch.current_transaction().unwrap();
        batch.begin_transaction(Transaction::default());
        batch.change(Op::Read, &table, position).after([Value::Null]);
        batch.continue_transaction(first);
        batch.change(Op::Insert, &table, position).after([Value::Null]);
        batch.end_transaction();
        let ids: Vec<_> = batch.changes().map(|change| change.transaction().id.as_str()).collect();
        assert_eq!(ids, ["", "7"]);
        assert_eq!([0, 1].map(|index| batch.has_ended(index)), [true, false]);
        batch.clear(0);
        assert!(!batch.has_ended(0));
    }

    #[test]
    fn a_huge_row_does_not_stay_resident() {
        let table = table(1);
        let mut batch = Batch::new();
        batch.begin_transaction(Transaction::default());
        let position = Position::from_bytes(&[1]).unwrap();
        batch.change(Op::Insert, &table, position).after([Value::Data(&vec![0; 1 << 20])]);
        assert!(batch.bytes() > 1 << 20);
        batch.clear(4096);
        assert!(batch.data.capacity() <= 4096);
    }
}
