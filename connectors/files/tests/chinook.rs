//! Every table of Chinook as full extracts of two days: what a consumer holds in the end is what the second day says.

#![allow(clippy::unwrap_used)] // clippy knows tests by their attribute, and not what they call

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::time::Duration;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, OpenFlags};
use serde::Deserialize;
use serde_json::json;
use towpath_conformance::seen;
use towpath_contract::{Batch, Op, Resume, Source};
use towpath_files::{FilesConfig, FilesSource};

type Row = Vec<Option<String>>;

struct Table {
    name: String,
    columns: Vec<String>,
    /// Indices of the key's columns.
    key: Vec<usize>,
    rows: Vec<Row>,
}

fn tables(database: &Connection) -> Vec<Table> {
    let names = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%' ORDER BY name";
    let mut names = database.prepare(names).unwrap();
    let names: Vec<String> = names.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
    let table = |name: String| {
        let mut info = database.prepare(&format!("PRAGMA table_info(\"{name}\")")).unwrap();
        let columns: Vec<(String, i64)> =
            info.query_map([], |row| Ok((row.get(1)?, row.get(5)?))).unwrap().map(Result::unwrap).collect();
        let key = columns.iter().enumerate().filter(|(_, (_, key))| *key > 0).map(|(index, _)| index).collect();
        let mut select = database.prepare(&format!("SELECT * FROM \"{name}\"")).unwrap();
        let text = |value: ValueRef<'_>| match value {
            ValueRef::Null => None,
            ValueRef::Integer(number) => Some(number.to_string()),
            ValueRef::Real(number) => Some(number.to_string()),
            ValueRef::Text(text) | ValueRef::Blob(text) => Some(String::from_utf8(text.to_vec()).unwrap()),
        };
        let row = |row: &rusqlite::Row<'_>| (0..columns.len()).map(|column| row.get_ref(column).map(text)).collect();
        let rows = select.query_map([], row).unwrap().map(Result::unwrap).collect();
        Table { name, columns: columns.into_iter().map(|(name, _)| name).collect(), key, rows }
    };
    names.into_iter().map(table).collect()
}

/// Null is an empty field; every other value is quoted.
fn csv(table: &Table, rows: &[Row]) -> String {
    let mut text = table.columns.join(",") + "\n";
    for row in rows {
        let fields: Vec<_> = row
            .iter()
            .map(|value| value.as_ref().map_or(String::new(), |value| format!("\"{}\"", value.replace('"', "\"\""))))
            .collect();
        writeln!(text, "{}", fields.join(",")).unwrap();
    }
    text
}

/// Every seventh row is gone, every fifth has another last column, and there are new ones.
fn second_day(table: &Table) -> Vec<Row> {
    let mut rows: Vec<Row> =
        table.rows.iter().enumerate().filter(|(index, _)| index % 7 != 3).map(|(_, row)| row.clone()).collect();
    let last = table.columns.len() - 1;
    if !table.key.contains(&last) {
        rows.iter_mut().step_by(5).for_each(|row| row[last] = row[last].take().map(|value| value + " é"));
    }
    let new: Vec<Row> = rows.iter().take(3).cloned().collect();
    for (index, mut row) in new.into_iter().enumerate() {
        row[table.key[0]] = Some(format!("{}", 900_000 + index));
        rows.insert(index * 2, row);
    }
    rows
}

#[tokio::test]
async fn two_days_of_extracts_end_in_the_state_of_the_second() {
    let database = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/chinook/chinook.sqlite");
    if !database.exists() {
        eprintln!("skipped: {} is not there", database.display());
        return;
    }
    let tables = tables(&Connection::open_with_flags(database, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap());
    assert!(tables.len() >= 11);
    let outer = tempfile::tempdir().unwrap();
    let drop = outer.path().join("drop");
    fs::create_dir(&drop).unwrap();
    let mut expected = BTreeMap::new();
    let mut configs = Vec::new();
    for table in &tables {
        let key: Vec<_> = table.key.iter().map(|index| &table.columns[*index]).collect();
        let files = format!("{}_day*.csv", table.name);
        let format = json!({ "delimited": { "null": "" } });
        configs.push(json!({ "name": table.name, "files": files, "format": format, "key": key, "extract": {} }));
        let days = [table.rows.clone(), second_day(table)];
        for (day, rows) in days.iter().enumerate() {
            fs::write(drop.join(format!("{}_day{day}.csv", table.name)), csv(table, rows)).unwrap();
        }
        for row in &days[1] {
            let key: Row = table.key.iter().map(|index| row[*index].clone()).collect();
            expected.insert((table.name.clone(), key), row.clone());
        }
    }
    let config = FilesConfig::deserialize(json!({ "folder": drop, "scan_every": "100ms", "tables": configs })).unwrap();
    let source = FilesSource::new("chinook", config, outer.path().join("spool"));
    let mut capture = source.open(Resume::default()).await.unwrap();
    let mut state = BTreeMap::new();
    let mut ops: BTreeMap<&str, usize> = BTreeMap::new();
    let done = async {
        while state != expected {
            let mut batch = Batch::new();
            capture.next(&mut batch).await.unwrap();
            for change in seen(&batch) {
                *ops.entry(change.op.name()).or_default() += 1;
                let table = tables.iter().find(|table| table.name == change.table).unwrap();
                let null = |value: &Option<String>| value.clone().filter(|value| value != "␀");
                let row: Row = change.after.as_ref().or(change.before.as_ref()).unwrap().iter().map(null).collect();
                let key = (table.name.clone(), table.key.iter().map(|index| row[*index].clone()).collect());
                match change.op {
                    Op::Insert => assert_eq!(state.insert(key, row), None, "an insert of what was there"),
                    Op::Update => assert!(state.insert(key, row).is_some(), "an update of what was not there"),
                    _ => assert!(state.remove(&key).is_some(), "a delete of what was not there"),
                }
            }
            if let Some(position) = batch.position {
                capture.recorded(&position);
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), done).await.expect("the state of the second day");
    assert!(["insert", "update", "delete"].iter().all(|op| ops[op] > 30), "{ops:?}");
}
