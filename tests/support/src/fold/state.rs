//! A table's rows as a consumer knows them.

use std::collections::{BTreeMap, HashMap};

use super::database::DatabaseTable;
use super::{Body, RawRow, values};

/// A value, or where it will come from: the row that left its key for this one, which may arrive later.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Cell {
    Known(String),
    Moved(MoveId),
}

/// One change of a row's key: the two events are joined by transaction, keys, and how many came before with the same.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct MoveId {
    tx: String,
    from: String,
    to: String,
    nth: usize,
}

type Row = BTreeMap<String, Cell>;

/// In place of a value that no event carried.
const NEVER_CAME: &str = "(never came)";

#[derive(Debug)]
pub(super) struct TableState {
    rows: Rows,
    /// Sequence of the newest truncate. What is older has no effect any more, whenever it comes.
    truncated_at: String,
    /// The rows that left a key for another, as they were then.
    moved: HashMap<MoveId, Row>,
    /// How often each move was seen, at its delete and at its insert.
    counts: HashMap<(MoveId, bool), usize>,
}

#[derive(Debug)]
enum Rows {
    /// By key, with the sequence of the newest change.
    Keyed(HashMap<String, (String, Row)>),
    /// Without a key: each row as often as it was added and not removed, with the sequence of that change.
    Bag(Vec<(String, Row, i64)>),
}

/// A key as one text: columns in the order of their names, values as published.
pub(super) fn key_text(key: &RawRow) -> String {
    let columns: Vec<String> = key.iter().map(|(name, value)| format!("{name}={}", value.get())).collect();
    columns.join(" ")
}

fn known(row: RawRow) -> Row {
    row.into_iter().map(|(name, value)| (name, Cell::Known(value.get().to_owned()))).collect()
}

impl TableState {
    pub(super) fn new(keyed: bool) -> TableState {
        let rows = if keyed { Rows::Keyed(HashMap::new()) } else { Rows::Bag(Vec::new()) };
        TableState { rows, truncated_at: String::new(), moved: HashMap::new(), counts: HashMap::new() }
    }

    /// Applies an event that was not seen before. True when a truncate had overtaken it.
    pub(super) fn apply(&mut self, sequence: &str, body: Body) -> Result<bool, String> {
        if body.op == "truncate" {
            if sequence > self.truncated_at.as_str() {
                self.truncated_at = sequence.to_owned();
            }
            let older = |at: &str| at < sequence;
            match &mut self.rows {
                Rows::Keyed(rows) => rows.retain(|_, (at, _)| !older(at)),
                Rows::Bag(rows) => rows.retain(|(at, ..)| !older(at)),
            }
            return Ok(false);
        }
        if sequence < self.truncated_at.as_str() {
            return Ok(true);
        }
        match &mut self.rows {
            Rows::Keyed(_) => self.apply_keyed(sequence, body)?,
            Rows::Bag(rows) => apply_to_bag(rows, sequence, body)?,
        }
        Ok(false)
    }

    pub(super) fn forget_rows(&mut self) {
        match &mut self.rows {
            Rows::Keyed(rows) => rows.clear(),
            Rows::Bag(rows) => rows.clear(),
        }
    }

    /// Where a row that was read again is not what is known of it, byte for byte.
    pub(super) fn differs_from(&self, read: &Body) -> Option<String> {
        let (Rows::Keyed(rows), Some(key), Some(row)) = (&self.rows, &read.key, &read.after) else { return None };
        let key = key_text(key);
        let Some((_, known)) = rows.get(&key) else { return Some(format!("{key} was read, and had not come before")) };
        let differs = row.iter().find_map(|(column, value)| {
            let before = known.get(column).and_then(|cell| self.resolve(column, cell));
            (before != Some(value.get())).then(|| format!("{column} was {before:?} and reads {}", value.get()))
        });
        differs.map(|difference| format!("{key}: {difference}"))
    }

    fn apply_keyed(&mut self, sequence: &str, body: Body) -> Result<(), String> {
        let key = key_text(body.key.as_ref().ok_or("a table with a key, and an event without")?);
        let leaves = body.moved_to.as_ref().map(|to| self.next_move(&body.tx, &key, &key_text(to), false));
        let comes = body.moved_from.as_ref().map(|from| self.next_move(&body.tx, &key_text(from), &key, true));
        let Rows::Keyed(rows) = &mut self.rows else { return Ok(()) };
        if body.op == "delete" {
            let old = rows.remove(&key).map(|(_, row)| row).unwrap_or_default();
            if let Some(leaves) = leaves {
                self.moved.insert(leaves, old);
            }
            return Ok(());
        }
        let mut row = known(body.after.ok_or_else(|| format!("an event of op {} without `after`", body.op))?);
        let old = rows.get(&key).map(|(_, row)| row);
        for column in body.unavailable {
            let carried = match &comes {
                Some(comes) => Some(Cell::Moved(comes.clone())),
                None => old.and_then(|old| old.get(&column).cloned()),
            };
            if let Some(cell) = carried {
                row.insert(column, cell);
            }
        }
        rows.insert(key, (sequence.to_owned(), row));
        Ok(())
    }

    fn next_move(&mut self, tx: &str, from: &str, to: &str, at_insert: bool) -> MoveId {
        let id = MoveId { tx: tx.into(), from: from.into(), to: to.into(), nth: 0 };
        let count = self.counts.entry((id.clone(), at_insert)).or_default();
        *count += 1;
        MoveId { nth: *count, ..id }
    }

    /// A cell's value, followed over the moves; `None` when it never came.
    fn resolve<'a>(&'a self, column: &str, mut cell: &'a Cell) -> Option<&'a str> {
        loop {
            match cell {
                Cell::Known(text) => return Some(text),
                Cell::Moved(id) => cell = self.moved.get(id)?.get(column)?,
            }
        }
    }

    /// Adds a line for each row that differs.
    pub(super) fn compare(&self, name: &str, table: &DatabaseTable, differences: &mut Vec<String>) {
        let folded = match &self.rows {
            Rows::Keyed(rows) => rows.values().map(|(_, row)| (row, 1)).collect(),
            Rows::Bag(rows) => rows.iter().map(|(_, row, count)| (row, *count)).collect::<Vec<_>>(),
        };
        let mut sides: BTreeMap<Vec<String>, Sides> = BTreeMap::new();
        for row in &table.rows {
            let side = sides.entry(table.identity_of(row)).or_default();
            (side.surplus, side.database) = (side.surplus + 1, Some(row.clone()));
        }
        for (row, count) in folded {
            let row: Vec<String> = table
                .columns
                .iter()
                .map(|column| match row.get(&column.name).and_then(|cell| self.resolve(&column.name, cell)) {
                    Some(text) => values::from_event(&column.kind, text),
                    None => NEVER_CAME.into(),
                })
                .collect();
            let side = sides.entry(table.identity_of(&row)).or_default();
            (side.surplus, side.consumer) = (side.surplus - count, Some(row));
        }
        differences.extend(sides.iter().filter_map(|(identity, sides)| {
            Some(format!("{name} ({}): {}", identity.join(", "), sides.difference(table)?))
        }));
    }
}

/// The rows of one identity.
#[derive(Debug, Default)]
struct Sides {
    /// How often the database has it, less how often the consumer has it.
    surplus: i64,
    database: Option<Vec<String>>,
    consumer: Option<Vec<String>>,
}

impl Sides {
    fn difference(&self, table: &DatabaseTable) -> Option<String> {
        match self.surplus {
            1.. => return Some(format!("{} missing at the consumer", self.surplus)),
            ..0 => return Some(format!("{} too many at the consumer", -self.surplus)),
            0 => {}
        }
        let (database, consumer) = (self.database.as_ref()?, self.consumer.as_ref()?);
        let columns = table.columns.iter().zip(database.iter().zip(consumer));
        let columns = columns.filter(|(column, (a, b))| a != b && !(column.generated && *b == NEVER_CAME));
        let columns: Vec<String> =
            columns.map(|(column, (a, b))| format!("{}: database {a}, consumer {b}", column.name)).collect();
        (!columns.is_empty()).then(|| columns.join("; "))
    }
}

fn apply_to_bag(rows: &mut Vec<(String, Row, i64)>, sequence: &str, body: Body) -> Result<(), String> {
    let removes = matches!(body.op.as_str(), "update" | "delete");
    let adds = matches!(body.op.as_str(), "insert" | "update" | "read");
    let before = body.before.map(known);
    if removes {
        let before =
            before.clone().ok_or_else(|| format!("no key, and an event of op {} without `before`", body.op))?;
        rows.push((sequence.to_owned(), before, -1));
    }
    if adds {
        let mut row = known(body.after.ok_or_else(|| format!("an event of op {} without `after`", body.op))?);
        for column in body.unavailable {
            if let Some(cell) = before.as_ref().and_then(|before| before.get(&column)) {
                row.insert(column, cell.clone());
            }
        }
        rows.push((sequence.to_owned(), row, 1));
    }
    Ok(())
}
