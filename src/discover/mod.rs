//! A starter config out of a live schema and some of its rows: what is probably meant, with the evidence for it.
//!
//! Pure: whoever calls it reads the tables. Only what cannot lose or spoil anything is written as a step; the rest are comments.

mod column;
mod dates;
mod page;
#[cfg(test)]
mod tests;

use towpath_contract::{Batch, KeyKind, Kind, TableSchema};

pub use page::page;

use column::{Column, Guess};

/// What is thought of one table.
#[derive(Debug)]
pub struct Sampled {
    table: TableSchema,
    /// That were looked at.
    rows: usize,
    guesses: Vec<Guess>,
    /// For people, about the whole table.
    remarks: Vec<String>,
}

impl Sampled {
    /// `rows`: some of the table, or why none were looked at.
    pub fn new(table: TableSchema, rows: Result<Batch, String>) -> Sampled {
        let mut sampled = Sampled { table, rows: 0, guesses: Vec::new(), remarks: Vec::new() };
        match rows {
            Err(why) => sampled.remarks.push(format!("its rows were not looked at: {why}")),
            Ok(batch) => {
                let rows: Vec<_> = batch.changes().filter_map(|change| change.after()).collect();
                sampled.rows = rows.len();
                for (slot, schema) in sampled.table.columns.iter().enumerate() {
                    let column = Column::new(schema, rows.iter().map(|row| row.value(slot)));
                    sampled.guesses.extend(column.guesses());
                }
            }
        }
        match sampled.table.key {
            KeyKind::Columns => {}
            KeyKind::WholeRow => sampled.remarks.push("no key: equal rows cannot be told apart".into()),
            KeyKind::None => sampled.remarks.push("no key: see `towpath doctor` before it is published".into()),
        }
        sampled
    }
}

fn lines_of(table: &TableSchema, all: &[Sampled]) -> Option<String> {
    header_of(table, all).map(|header| format!("its key begins with that of {header}: probably the lines of it"))
}

/// The table whose whole key is the beginning of this one's, by name and kind.
fn header_of<'a>(table: &TableSchema, all: &'a [Sampled]) -> Option<&'a str> {
    let own = key(table);
    let is_header = |other: &&Sampled| {
        let key = key(&other.table);
        other.table.schema == table.schema && !key.is_empty() && key.len() < own.len() && own.starts_with(&key)
    };
    all.iter().find(is_header).map(|header| header.table.name.as_str())
}

fn key(table: &TableSchema) -> Vec<(&str, &Kind)> {
    if table.key != KeyKind::Columns {
        return Vec::new();
    }
    table.key_columns().map(|at| (table.columns[at].name.as_str(), &table.columns[at].kind)).collect()
}
