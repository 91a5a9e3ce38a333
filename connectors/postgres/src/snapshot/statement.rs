//! The statements that read a table's rows.

use towpath_contract::{Error, ErrorKind, Result};

use crate::catalog::{ChunkKey, Shape};
use crate::snapshot::state::{KeyTexts, hexadecimal};
use crate::sql::{ident, literal, qualified};

/// Which rows a statement reads.
pub(super) enum Which<'a> {
    /// In key order, after a key.
    After {
        key: &'a ChunkKey,
        last: Option<&'a KeyTexts>,
        limit: usize,
    },
    /// Those with one of these keys.
    Keys {
        key: &'a ChunkKey,
        keys: &'a [KeyTexts],
    },
    All,
    /// Any, and not all.
    Some {
        limit: usize,
    },
}

/// `COPY (SELECT …) TO STDOUT`: the shape's columns, then those of `extra`.
///
/// The database compares keys: a key comes back to it as the text that it wrote, cast to the column's type, and what
/// `ORDER BY` and the row comparison use is the key's own index. A row comparison is what makes the planner
/// start the index scan at the key (manual, "Row and Array Comparisons"); columns compared one by one would not.
pub(super) fn copy(shape: &Shape, extra: &[&str], which: &Which<'_>) -> String {
    let columns = shape.table.columns.iter().map(|column| column.name.as_str()).chain(extra.iter().copied());
    let columns: Vec<String> = columns.map(|name| format!("t.{}", ident(name))).collect();
    let filter = shape.row_filter.as_ref().map(|filter| format!("({filter})"));
    let (which, tail) = match which {
        Which::After { key, last, limit } => {
            let after = last.map(|last| follows(key, &values(key, last)));
            (after, format!(" ORDER BY {} LIMIT {limit}", names(key)))
        }
        Which::Keys { key, keys } => {
            let list: Vec<String> = keys.iter().map(|texts| equals(key, &values(key, texts))).collect();
            (Some(format!("({})", list.join(" OR "))), String::new())
        }
        Which::All => (None, String::new()),
        Which::Some { limit } => (None, format!(" LIMIT {limit}")),
    };
    let conditions: Vec<String> = filter.into_iter().chain(which).collect();
    let condition = if conditions.is_empty() { String::new() } else { format!(" WHERE {}", conditions.join(" AND ")) };
    format!("COPY (SELECT {} FROM {} AS t{condition}{tail}) TO STDOUT", columns.join(", "), from(shape))
}

/// `COPY (SELECT …) TO STDOUT`: of each key the rows that have it, in the order of the keys, and behind the shape's columns the key's
/// number. Names of its own begin with `~`: a publication's row filter names columns without saying whose.
pub(super) fn copy_found(shape: &Shape, by: &ChunkKey, keys: &[Vec<Vec<u8>>]) -> Result<String> {
    let columns = shape.table.columns.iter().map(|column| format!("t.{}", ident(&column.name)));
    let columns: Vec<String> = columns.chain([r#"v."~n""#.to_owned()]).collect();
    let mut lists = Vec::with_capacity(keys.len());
    for (number, key) in keys.iter().enumerate() {
        let mut list = vec![number.to_string()];
        for (column, value) in by.columns.iter().zip(key) {
            let text = std::str::from_utf8(value).ok().filter(|text| !text.contains('\0'));
            let text = text.ok_or_else(|| {
                let message = format!("a value for column {} is no text of this database", column.name);
                Error::operator(ErrorKind::Setup, "looking up rows", message)
            })?;
            list.push(format!("{}::{}", literal(text), column.cast));
        }
        lists.push(format!("({})", list.join(", ")));
    }
    let equal = by.columns.iter().enumerate().map(|(nth, column)| {
        format!("t.{} {} v.\"~k{nth}\"", ident(&column.name), operator(&column.operator_schema, "="))
    });
    let filter = shape.row_filter.as_ref().map(|filter| format!("({filter})"));
    let conditions: Vec<String> = equal.chain(filter).collect();
    let names: Vec<String> = (0..by.columns.len()).map(|nth| format!("\"~k{nth}\"")).collect();
    let order = shape.key.as_ref().map(|key| format!(", {}", self::names(key))).unwrap_or_default();
    Ok(format!(
        "COPY (SELECT {} FROM {} AS t JOIN (VALUES {}) AS v(\"~n\", {}) ON {} ORDER BY v.\"~n\"{order}) TO STDOUT",
        columns.join(", "),
        from(shape),
        lists.join(", "),
        names.join(", "),
        conditions.join(" AND ")
    ))
}

/// No row of the table.
pub(super) fn nothing(shape: &Shape) -> String {
    let columns: Vec<String> = shape.table.columns.iter().map(|column| ident(&column.name)).collect();
    format!("SELECT {} FROM {} LIMIT 0", columns.join(", "), from(shape))
}

/// A table that others inherit from is read without them: they are tables of their own. Not so partitions.
pub(super) fn from(shape: &Shape) -> String {
    let only = if shape.partitioned { "" } else { "ONLY " };
    format!("{only}{}", qualified(&shape.table.schema, &shape.table.name))
}

fn names(key: &ChunkKey) -> String {
    let names: Vec<String> = key.columns.iter().map(|column| format!("t.{}", ident(&column.name))).collect();
    names.join(", ")
}

/// Operators by their full names: an extension's may live in any schema, and a `search_path` on which they were found would also
/// change how the server writes the names of tables and types (`regclass`).
fn operator(schema: &str, name: &str) -> String {
    format!("OPERATOR({}.{name})", ident(schema))
}

fn follows(key: &ChunkKey, values: &[String]) -> String {
    let schema = |column: usize| key.columns[column].operator_schema.as_str();
    if (1..key.columns.len()).all(|column| schema(column) == schema(0)) {
        return format!("({}) {} ({})", names(key), operator(schema(0), ">"), values.join(", "));
    }
    // A row comparison has one operator: here the columns are compared one by one, the first of them so that the index can be used.
    let name = |column: usize| format!("t.{}", ident(&key.columns[column].name));
    let compare =
        |column: usize, by: &str| format!("{} {} {}", name(column), operator(schema(column), by), values[column]);
    let last = key.columns.len() - 1;
    let rest = (0..last).rev().fold(compare(last, ">"), |rest, column| {
        format!("({} OR {} AND {rest})", compare(column, ">"), compare(column, "="))
    });
    format!("{} AND {rest}", compare(0, ">="))
}

fn equals(key: &ChunkKey, values: &[String]) -> String {
    let columns = key.columns.iter().zip(values);
    let equal = columns
        .map(|(column, value)| format!("t.{} {} {value}", ident(&column.name), operator(&column.operator_schema, "=")));
    format!("({})", equal.collect::<Vec<_>>().join(" AND "))
}

fn values(key: &ChunkKey, texts: &KeyTexts) -> Vec<String> {
    let values = key.columns.iter().zip(texts).map(|(column, text)| match std::str::from_utf8(&text.0) {
        Ok(text) => format!("{}::{}", literal(text), column.cast),
        // Only a database without an encoding has such text.
        Err(_) => format!("convert_from(decode('{}', 'hex'), 'SQL_ASCII')::{}", hexadecimal(&text.0), column.cast),
    });
    values.collect()
}
