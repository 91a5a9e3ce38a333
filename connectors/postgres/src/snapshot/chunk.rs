//! Rows that a chunk read, held as the server's text until their place in the stream is known.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use towpath_contract::{Batch, Error, Op, Position, Result, TableSchema, Transaction, Value, planted};

use crate::catalog::Shape;
use crate::position::Lsn;
use crate::snapshot::rows::Rows;
use crate::snapshot::state::{KeyText, KeyTexts};
use crate::snapshot::view::View;
use crate::value::{Plan, canonical};

/// What a chunk is of its table's snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// The rows after a key, in key order. `end`: no row follows.
    Range { last_key: Option<KeyTexts>, end: bool },
    /// The rows of this many keys that were to be read once more.
    Reread { keys: usize },
    /// A piece of the whole table. `first`, `last`: so far as pieces go.
    Whole { first: bool, last: bool },
}

/// A chunk, held until the stream has reached the place of each of its rows.
#[derive(Debug)]
pub(super) struct Chunk {
    pub(super) shape: Arc<Shape>,
    pub(super) view: Arc<View>,
    pub(super) part: Part,
    pub(super) rows: Rows,
    /// The key by which the table is read has changed, or the table: this chunk starts it over.
    pub(super) starts_over: bool,
    pub(super) took: Duration,
    /// By the planner, when the table's first chunk was read.
    pub(super) estimated_rows: Option<u64>,
    /// Part of the positions of its rows.
    pub(super) stamp: u64,
    emitted: Vec<bool>,
    emitted_count: u32,
    /// Rows below this one were emitted.
    next: usize,
    index: Option<KeyIndex>,
    scratch: Scratch,
}

/// Finds held rows by the text of their key.
#[derive(Debug)]
struct KeyIndex {
    /// The key's columns in the chunk's table.
    columns: Vec<usize>,
    /// Hash of the key and row, ascending.
    rows: Vec<(u64, u32)>,
    /// The stream's shape of the table that was met last, and the same columns in it; `None`: it has another key.
    met: Option<(Arc<TableSchema>, Option<Vec<usize>>)>,
}

enum Found {
    Row(usize),
    Nothing,
    AnotherKey,
}

/// One row's converted values, one after the other.
#[derive(Debug, Default)]
struct Scratch {
    bytes: Vec<u8>,
    /// Of each column; `None` for NULL, empty for what is read in place.
    values: Vec<Option<Range<usize>>>,
}

impl Chunk {
    pub(super) fn new(shape: Arc<Shape>, view: Arc<View>, part: Part, rows: Rows) -> Chunk {
        Chunk {
            emitted: vec![false; rows.len()],
            shape,
            view,
            part,
            rows,
            starts_over: false,
            took: Duration::ZERO,
            estimated_rows: None,
            stamp: 0,
            emitted_count: 0,
            next: 0,
            index: None,
            scratch: Scratch::default(),
        }
    }

    /// What the stream must have passed before the chunk is complete, also one of which no row is left: an older change may
    /// still come that moved a row to a key behind the reader. A piece of a whole table may go at once: the gate holds what
    /// is newer, and what is older is dropped.
    pub(super) fn due(&self) -> Lsn {
        match self.part {
            Part::Whole { .. } => Lsn(0),
            Part::Range { .. } | Part::Reread { .. } => self.view.high,
        }
    }

    /// Emits the held row with the key of `row`, a row of the stream as the server sent it.
    pub(super) fn emit_matching(
        &mut self,
        table: &Arc<TableSchema>,
        row: &[Value<'_>],
        batch: &mut Batch,
        last: &Position,
    ) -> Result<()> {
        if self.index.is_none() {
            self.index = Some(KeyIndex::of(&self.shape.table, &self.rows));
        }
        let Some(index) = &mut self.index else { return Ok(()) };
        match index.find(&self.shape.table, &self.rows, table, row) {
            Found::Row(found) if !self.emitted[found] => {
                self.with_transaction(batch, |chunk, batch| chunk.emit(found, batch, last))
            }
            Found::Row(_) | Found::Nothing => Ok(()),
            // The key was altered after the chunk was read. Whoever altered it waited for everybody who had touched the
            // table, so all that the chunk saw has been streamed before this row.
            Found::AnotherKey => self.emit_rest(batch, last),
        }
    }

    /// Emits all that is still held.
    pub(super) fn emit_rest(&mut self, batch: &mut Batch, last: &Position) -> Result<()> {
        self.with_transaction(batch, |chunk, batch| {
            while chunk.next < chunk.emitted.len() {
                if !chunk.emitted[chunk.next] {
                    chunk.emit(chunk.next, batch, last)?;
                }
                chunk.next += 1;
            }
            Ok(())
        })
    }

    /// The rows belong to no transaction of the stream; the one that the batch was in goes on afterwards.
    fn with_transaction(
        &mut self,
        batch: &mut Batch,
        emit: impl FnOnce(&mut Chunk, &mut Batch) -> Result<()>,
    ) -> Result<()> {
        let interrupted = batch.current_transaction();
        batch.begin_transaction(Transaction { id: String::new(), commit_time_us: self.view.read_at_us });
        emit(self, batch)?;
        if let Some(interrupted) = interrupted {
            batch.continue_transaction(interrupted);
        }
        Ok(())
    }

    fn emit(&mut self, row: usize, batch: &mut Batch, last: &Position) -> Result<()> {
        let Scratch { bytes, values: ranges } = &mut self.scratch;
        bytes.clear();
        ranges.clear();
        for (column, info) in self.shape.types.iter().enumerate() {
            let start = bytes.len();
            let text = self.rows.value(row, column);
            if let Some(text) = text.filter(|_| info.plan != Plan::AsIs) {
                canonical(&info.plan, text, bytes).map_err(|malformed| {
                    let table = &self.shape.table;
                    let operation = format!("reading {}.{}", table.schema, table.name);
                    let name = &table.columns[column].name;
                    Error::bug(operation, format_args!("column {name} ({}): {malformed}", info.name))
                })?;
            }
            ranges.push(text.map(|_| start..bytes.len()));
        }
        let (rows, shape) = (&self.rows, &self.shape);
        let values = ranges.iter().enumerate().map(|(column, range)| match range {
            None => Value::Null,
            Some(_)
                if planted("snapshot_drops_large_value") && rows.value(row, column).is_some_and(|v| v.len() > 2000) =>
            {
                Value::Unavailable
            }
            Some(_) if shape.types[column].plan == Plan::AsIs => {
                Value::Data(rows.value(row, column).unwrap_or_default())
            }
            Some(range) => Value::Data(&bytes[range.clone()]),
        });
        let position = position_of(last, self.stamp, self.emitted_count)?;
        batch.change(Op::Read, &shape.table, position).after(values);
        self.emitted[row] = true;
        self.emitted_count += 1;
        Ok(())
    }
}

/// Of a position of the stream's change: what stands before the parts that a row's position adds.
const STREAM_POSITION_BYTES: usize = 21;

/// Right after the stream's change `last` and before the next one; ascending from chunk to chunk and from row to row.
fn position_of(last: &Position, stamp: u64, index: u32) -> Result<Position> {
    let base = last.as_bytes();
    let base = &base[..base.len().min(STREAM_POSITION_BYTES)];
    let bytes = [base, &stamp.to_be_bytes(), &index.to_be_bytes()].concat();
    Position::from_bytes(&bytes).ok_or_else(|| Error::bug("placing a row of a snapshot", "its position is too long"))
}

impl KeyIndex {
    fn of(table: &TableSchema, rows: &Rows) -> KeyIndex {
        let columns: Vec<usize> = table.key_columns().collect();
        let hash = |row| hash_of(columns.iter().map(|column| rows.value(row, *column)));
        let mut hashes: Vec<(u64, u32)> = (0..rows.len()).map(|row| (hash(row), row as u32)).collect();
        hashes.sort_unstable();
        KeyIndex { columns, rows: hashes, met: None }
    }

    /// The row with the key of `row`. Equal keys have equal bytes: both are the text of one stored value.
    fn find(&mut self, own: &TableSchema, rows: &Rows, table: &Arc<TableSchema>, row: &[Value<'_>]) -> Found {
        if self.met.as_ref().is_none_or(|(met, _)| !Arc::ptr_eq(met, table)) {
            let same = |column: &usize| {
                let own = &own.columns[*column];
                table.columns.iter().position(|met| met.name == own.name && met.type_name == own.type_name)
            };
            self.met = Some((table.clone(), self.columns.iter().map(same).collect()));
        }
        let Some((_, Some(at))) = &self.met else { return Found::AnotherKey };
        let data = |column: usize| match row.get(column) {
            Some(Value::Data(bytes)) => Some(*bytes),
            _ => None,
        };
        let hash = hash_of(at.iter().map(|column| data(*column)));
        let from = self.rows.partition_point(|(known, _)| *known < hash);
        let candidates = self.rows[from..].iter().take_while(|(known, _)| *known == hash);
        let found = candidates.map(|(_, row)| *row as usize).find(|candidate| {
            let mut pairs = self.columns.iter().zip(at);
            pairs.all(|(own, theirs)| data(*theirs).is_some() && rows.value(*candidate, *own) == data(*theirs))
        });
        found.map_or(Found::Nothing, Found::Row)
    }
}

fn hash_of<'a>(values: impl Iterator<Item = Option<&'a [u8]>>) -> u64 {
    let mut hasher = DefaultHasher::new();
    values.for_each(|value| value.hash(&mut hasher));
    hasher.finish()
}

/// The key of a row as texts; `None` where the stream did not say it.
pub(super) fn key_texts<'a>(values: impl Iterator<Item = Option<&'a [u8]>>) -> Option<KeyTexts> {
    values.map(|value| value.map(|text| KeyText(text.to_vec()))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rows_position_stands_between_two_changes() {
        let change = |last: u8| Position::from_bytes(&[&[7; 20][..], &[last]].concat()).unwrap();
        let row = position_of(&change(1), 5, 9).unwrap();
        assert!(change(1) < row && row < position_of(&change(1), 5, 10).unwrap());
        assert!(row < position_of(&change(1), 6, 0).unwrap() && row < change(2));
        assert_eq!(position_of(&row, 8, 0).unwrap(), position_of(&change(1), 8, 0).unwrap(), "also after another row");
    }
}
