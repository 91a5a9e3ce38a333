//! From a file to its cases.

use std::sync::Arc;

use base64::Engine as _;
use towpath_contract::{Column, KeyKind, Kind, Op, TableSchema};

use super::yaml::{self, Is, Node, get};
use super::{Case, Cases, Cell, Expected, Wrong};
use crate::route::matching::RouteFrom;

const OPS: [(&str, Op); 5] = [
    ("insert", Op::Insert),
    ("read", Op::Read),
    ("update", Op::Update),
    ("delete", Op::Delete),
    ("truncate", Op::Truncate),
];

const KINDS: [(&str, Kind); 14] = [
    ("text", Kind::Text),
    ("int", Kind::Int),
    ("decimal", Kind::Decimal),
    ("float", Kind::Float),
    ("bool", Kind::Bool),
    ("bytes", Kind::Bytes),
    ("date", Kind::Date),
    ("time", Kind::Time),
    ("timestamp", Kind::Timestamp),
    ("timestamptz", Kind::TimestampTz),
    ("interval", Kind::Interval),
    ("uuid", Kind::Uuid),
    ("json", Kind::Json),
    ("other", Kind::Other),
];

/// # Errors
/// The first thing that is wrong.
pub fn read(text: &str) -> Result<Cases, Wrong> {
    let file = yaml::read(text)?;
    let keys = file.keys(&["from", "columns", "key", "cases"])?;
    let needed = |key: &str| get(keys, key).ok_or_else(|| Wrong::at(file.line, format!("`{key}` is missing")));
    let from = needed("from")?;
    let parsed = RouteFrom::parse(from.scalar()?).filter(|from| !from.is_pattern());
    let Some(RouteFrom { source, schema, table }) = parsed else {
        return Err(Wrong::at(from.line, "`from` is one table, `source.schema.table`, as a route's"));
    };
    let table = Arc::new(shape(schema, table, needed("columns")?, get(keys, "key"))?);
    let written = needed("cases")?;
    let cases: Vec<Case> = written.list()?.iter().map(|written| case(written, &table)).collect::<Result<_, _>>()?;
    if cases.is_empty() {
        return Err(Wrong::at(written.line, "there is no case"));
    }
    Ok(Cases { source, table, cases })
}

fn shape(schema: String, name: String, columns: &Node, key: Option<&Node>) -> Result<TableSchema, Wrong> {
    let mut key_names = match key {
        None => Vec::new(),
        Some(key) => {
            key.list()?.iter().map(|name| Ok((name.scalar()?, name.line))).collect::<Result<Vec<_>, Wrong>>()?
        }
    };
    let mut found = Vec::new();
    for (name, kind) in columns.map()? {
        let word = kind.scalar()?;
        let known = KINDS.iter().find(|(known, _)| *known == word.trim_end_matches("[]"));
        let Some((_, of)) = known else {
            let words: Vec<&str> = KINDS.iter().map(|(known, _)| *known).collect();
            let message = format!("`{word}` is no type; there are: {}, and lists of them, `int[]`", words.join(", "));
            return Err(Wrong::at(kind.line, message));
        };
        let kind = if word.ends_with("[]") { Kind::Array(Box::new(of.clone())) } else { of.clone() };
        let is_key = key_names.iter().position(|(known, _)| known == name);
        if let Some(at) = is_key {
            key_names.remove(at);
        }
        found.push(Column { name: name.clone(), kind, type_name: word.to_owned(), key: is_key.is_some() });
    }
    if let Some((name, line)) = key_names.first() {
        return Err(Wrong::at(*line, format!("`key` names `{name}`, which is none of the columns")));
    }
    let key = if found.iter().any(|column| column.key) { KeyKind::Columns } else { KeyKind::None };
    Ok(TableSchema::new(schema, name, found, key))
}

fn case(written: &Node, table: &TableSchema) -> Result<Case, Wrong> {
    let known: Vec<&str> = ["name", "events", "parked"].into_iter().chain(OPS.iter().map(|(name, _)| *name)).collect();
    let keys = written.keys(&known)?;
    let wrong = |message: &str| Wrong::at(written.line, message);
    let mut changes = OPS.iter().filter_map(|(name, op)| Some((*op, get(keys, name)?)));
    let (Some((op, change)), None) = (changes.next(), changes.next()) else {
        return Err(wrong("a case has one change: insert, read, update, delete or truncate"));
    };
    let whole = |node: &Node| row(node, table, &Cell::Null);
    let sent = |node: &Node| row(node, table, &Cell::Unsent);
    let (before, after) = match op {
        Op::Update => {
            let rows = change.keys(&["before", "after"])?;
            let after = get(rows, "after").ok_or_else(|| Wrong::at(change.line, "an update has an `after`"))?;
            (get(rows, "before").map(sent).transpose()?, Some(sent(after)?))
        }
        Op::Delete => (Some(sent(change)?), None),
        Op::Truncate | Op::Message => (None, None),
        Op::Insert | Op::Read => (None, Some(whole(change)?)),
    };
    if let (Op::Update, Some(before), Some(after)) = (op, &before, &after)
        && table
            .key_columns()
            .any(|at| matches!(&before[at], Cell::Data(old) if !matches!(&after[at], Cell::Data(new) if new == old)))
    {
        return Err(wrong("an update that changes the key comes as a delete and an insert: write a case of each"));
    }
    let parked = get(keys, "parked").map(|text| text.scalar().map(str::to_owned)).transpose()?;
    let events = match (get(keys, "events"), &parked) {
        (Some(events), None) => events.list()?.to_vec(),
        (None, Some(_)) => Vec::new(),
        _ => return Err(wrong("a case says either which `events` come, `[]` for none, or why it is `parked`")),
    };
    for event in &events {
        event.keys(&super::compare::MEMBERS)?;
    }
    let name = match get(keys, "name") {
        Some(name) => name.scalar()?.to_owned(),
        None => format!("line {}", written.line),
    };
    Ok(Case { name, line: written.line, op, before, after, expected: Expected { events, parked } })
}

/// `missing`: what a column is that is not written.
fn row(written: &Node, table: &TableSchema, missing: &Cell) -> Result<Vec<Cell>, Wrong> {
    let names: Vec<&str> = table.columns.iter().map(|column| column.name.as_str()).collect();
    let values = written.keys(&names)?;
    let cell = |column: &Column| match get(values, &column.name) {
        None => Ok(missing.clone()),
        Some(node) if node.is_null() => Ok(Cell::Null),
        Some(node) => Ok(Cell::Data(bytes(node, &column.kind)?)),
    };
    table.columns.iter().map(cell).collect()
}

/// A value as a source hands it over.
fn bytes(node: &Node, kind: &Kind) -> Result<Vec<u8>, Wrong> {
    let is_number = |text: &str, point: bool| {
        let digits = text.strip_prefix('-').unwrap_or(text);
        digits.starts_with(|first: char| first.is_ascii_digit())
            && digits.bytes().all(|byte| byte.is_ascii_digit() || (point && byte == b'.'))
            && digits.matches('.').count() <= 1
    };
    if matches!(kind, Kind::Json | Kind::Array(_)) {
        return Ok(match &node.is {
            // JSON that stands in quotes is as the database keeps it.
            Is::Quoted(text) if *kind == Kind::Json => text.clone().into_bytes(),
            _ => node.json().into_bytes(),
        });
    }
    let text = node.scalar()?;
    let wrong = |what: &str| Err(Wrong::at(node.line, format!("`{text}` is no {what}")));
    match kind {
        Kind::Int if !is_number(text, false) => wrong("whole number"),
        Kind::Decimal if !is_number(text, true) => wrong("decimal"),
        Kind::Bool if text != "true" && text != "false" => wrong("true or false"),
        Kind::Bytes => match base64::engine::general_purpose::STANDARD.decode(text) {
            Ok(bytes) => Ok(bytes),
            Err(_) => wrong("base64"),
        },
        _ => Ok(text.as_bytes().to_vec()),
    }
}
