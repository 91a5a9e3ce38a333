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

/// A table, and the rows of it that were looked at.
#[derive(Debug)]
pub struct Sampled {
    pub table: TableSchema,
    /// `None`: it was not looked into, and why.
    pub rows: Result<Batch, String>,
}

/// What is thought of one table.
#[derive(Debug)]
struct Findings {
    rows: usize,
    guesses: Vec<Guess>,
    /// For people, about the whole table.
    remarks: Vec<String>,
}

fn look_at(sampled: &Sampled, all: &[Sampled]) -> Findings {
    let table = &sampled.table;
    let mut findings = Findings { rows: 0, guesses: Vec::new(), remarks: Vec::new() };
    match &sampled.rows {
        Err(why) => findings.remarks.push(format!("its rows were not looked at: {why}")),
        Ok(batch) => {
            let rows: Vec<_> = batch.changes().filter_map(|change| change.after()).collect();
            findings.rows = rows.len();
            for (slot, schema) in table.columns.iter().enumerate() {
                let column = Column::new(schema, rows.iter().map(|row| row.value(slot)));
                findings.guesses.extend(column.guesses());
            }
        }
    }
    match table.key {
        KeyKind::Columns => {}
        KeyKind::WholeRow => findings.remarks.push("no key: equal rows cannot be told apart".into()),
        KeyKind::None => findings.remarks.push("no key: see `towpath doctor` before it is published".into()),
    }
    findings.remarks.extend(
        header_of(table, all).map(|header| format!("its key begins with that of {header}: probably the lines of it")),
    );
    findings
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
