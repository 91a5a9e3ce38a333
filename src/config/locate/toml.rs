//! Places in TOML, from `toml_edit`'s spans.

use std::ops::Range;

use toml_edit::{Document, Item, Key, TableLike, Value};

use super::{DEPTH_MAX, Mark, Marks, SyntaxError};
use crate::config::path::KeyPath;

pub(super) fn parse(text: &str) -> Result<Marks, SyntaxError> {
    let document = Document::parse(text).map_err(|error| {
        let (line, column) = position(text, error.span().map_or(0, |span| span.start));
        // `message` alone: the full text would quote the line.
        SyntaxError { line, column, message: error.message().trim().replace('\n', "; ") }
    })?;
    let mut reader = Reader { text, marks: Marks::default() };
    reader.marks.insert(KeyPath::root(), Mark { line: 1, column: 1, plain: None })?;
    reader.table(&KeyPath::root(), document.as_table())?;
    Ok(reader.marks)
}

struct Reader<'a> {
    text: &'a str,
    marks: Marks,
}

impl Reader<'_> {
    fn table(&mut self, path: &KeyPath, table: &dyn TableLike) -> Result<(), SyntaxError> {
        for (name, item) in table.iter() {
            let key = table.key(name).and_then(Key::span);
            self.item(path.key(name), item, key)?;
        }
        Ok(())
    }

    fn item(&mut self, path: KeyPath, item: &Item, key: Option<Range<usize>>) -> Result<(), SyntaxError> {
        match item {
            Item::None => Ok(()),
            Item::Value(value) => self.value(path, value, key),
            Item::Table(table) => {
                self.mark(path.clone(), key.or(table.span()), None)?;
                self.table(&path, table)
            }
            Item::ArrayOfTables(tables) => {
                self.mark(path.clone(), key.or(tables.span()), None)?;
                for (index, table) in tables.iter().enumerate() {
                    self.mark(path.index(index), table.span(), None)?;
                    self.table(&path.index(index), table)?;
                }
                Ok(())
            }
        }
    }

    fn value(&mut self, path: KeyPath, value: &Value, key: Option<Range<usize>>) -> Result<(), SyntaxError> {
        let span = value.span();
        let plain = match value {
            Value::Integer(_) | Value::Float(_) | Value::Boolean(_) | Value::Datetime(_) => {
                span.clone().and_then(|span| self.text.get(span)).map(str::to_owned)
            }
            _ => None,
        };
        self.mark(path.clone(), key.or(span), plain)?;
        match value {
            Value::InlineTable(table) => self.table(&path, table),
            Value::Array(items) => {
                (items.iter().enumerate()).try_for_each(|(index, item)| self.value(path.index(index), item, None))
            }
            _ => Ok(()),
        }
    }

    fn mark(&mut self, path: KeyPath, span: Option<Range<usize>>, plain: Option<String>) -> Result<(), SyntaxError> {
        let (line, column) = position(self.text, span.map_or(0, |span| span.start));
        if path.segments().len() > DEPTH_MAX {
            return Err(SyntaxError { line, column, message: format!("nested more than {DEPTH_MAX} levels deep") });
        }
        self.marks.insert(path, Mark { line, column, plain })
    }
}

/// Line and column of a byte, both from 1, the column in characters.
fn position(text: &str, byte: usize) -> (usize, usize) {
    let before = text.get(..byte).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
}
