//! What a consumer knows of the tables, from the batches alone.

use std::collections::BTreeMap;

use towpath_contract::{Batch, Change, Op, Row, TableSchema, Value};

/// One event, readable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Event {
    pub(super) op: Op,
    pub(super) table: String,
    /// Of the row that carries the key; `None`: unavailable. NULL reads as "NULL".
    pub(super) row: Vec<Option<String>>,
    pub(super) position: Vec<u8>,
    pub(super) transaction: String,
}

/// Folds changes into rows by key, and keeps the events.
#[derive(Debug, Default)]
pub(super) struct Consumer {
    pub(super) tables: BTreeMap<String, BTreeMap<Vec<String>, Vec<Option<String>>>>,
    /// Rows of tables without a key, and how many of each.
    pub(super) multisets: BTreeMap<String, BTreeMap<Vec<Option<String>>, i64>>,
    /// The row that a key update removed: its insert says which one it is, and leaves out what did not change.
    moved: Vec<Option<String>>,
    pub(super) events: Vec<Event>,
    pub(super) state: BTreeMap<String, Vec<u8>>,
}

impl Consumer {
    pub(super) fn take(&mut self, batch: &mut Batch) {
        for change in batch.changes() {
            self.change(change);
        }
        for entry in &batch.state {
            match &entry.value {
                Some(value) => self.state.insert(entry.key.clone(), value.clone()),
                None => self.state.remove(&entry.key),
            };
        }
        batch.clear(1 << 20);
    }

    fn change(&mut self, change: Change<'_>) {
        let table = change.table();
        let name = table.name.clone();
        let row = change.keyed_row().map(texts).unwrap_or_default();
        if let Some(last) = self.events.last() {
            assert!(last.position.as_slice() <= change.position().as_bytes(), "positions never decrease");
        }
        self.events.push(Event {
            op: change.op(),
            table: name.clone(),
            row: row.clone(),
            position: change.position().as_bytes().to_vec(),
            transaction: change.transaction().id.clone(),
        });
        if table.key_columns().next().is_none() || table.key == towpath_contract::KeyKind::WholeRow {
            let rows = self.multisets.entry(name).or_default();
            let mut count = |row: Vec<Option<String>>, by: i64| *rows.entry(row).or_default() += by;
            match change.op() {
                Op::Truncate => rows.clear(),
                Op::Delete => count(row, -1),
                Op::Update => {
                    count(texts(change.before().unwrap()), -1);
                    count(row, 1);
                }
                _ => count(row, 1),
            }
            return;
        }
        let rows = self.tables.entry(name).or_default();
        match change.op() {
            Op::Truncate => rows.clear(),
            Op::Delete => self.moved = rows.remove(&key(table, &row)).unwrap_or_default(),
            _ => {
                let known = rows.entry(key(table, &row)).or_insert_with(|| match change.linked() {
                    Some(_) if self.moved.len() == row.len() => std::mem::take(&mut self.moved),
                    _ => vec![None; row.len()],
                });
                for (known, new) in known.iter_mut().zip(row) {
                    *known = new.or(known.take());
                }
            }
        }
    }
}

fn key(table: &TableSchema, row: &[Option<String>]) -> Vec<String> {
    table.key_columns().map(|column| row[column].clone().expect("the key is there")).collect()
}

fn texts(row: Row<'_>) -> Vec<Option<String>> {
    row.values()
        .map(|value| match value {
            Value::Unavailable => None,
            Value::Null => Some("NULL".to_owned()),
            Value::Data(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
        })
        .collect()
}
