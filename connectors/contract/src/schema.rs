//! Tables and columns, as they were at the time of a change.

use std::fmt;

/// What a column's bytes mean, and the one form in which every connector hands them over.
///
/// A row carries the same bytes whether it came from a snapshot or from the stream, and whichever connector read it.
/// A value that its form cannot express (a date `infinity`, a year 44 BC) is handed over as the source's own text;
/// formats publish such text as a string and never reinterpret it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// `true` or `false`.
    Bool,
    /// Decimal digits with an optional minus sign, no leading zeros. Any width, signed or not.
    Int,
    /// Digits, optional fraction, optional minus sign, the scale as the source gave it; or `NaN`, `Infinity`, `-Infinity`.
    Decimal,
    /// The shortest text that reads back as the same binary32 or binary64; or `NaN`, `Infinity`, `-Infinity`.
    Float,
    /// Characters in UTF-8. Where the source cannot promise the encoding, the bytes as they are: a format that needs
    /// UTF-8 checks, and parks what is not.
    Text,
    /// The raw bytes (not hexadecimal, not base64).
    Bytes,
    /// `YYYY-MM-DD`.
    Date,
    /// `HH:MM:SS[.ffffff]`.
    Time,
    /// `HH:MM:SS[.ffffff]±HH:MM` or `…Z`.
    TimeTz,
    /// `YYYY-MM-DDTHH:MM:SS[.ffffff]`, no zone.
    Timestamp,
    /// `YYYY-MM-DDTHH:MM:SS[.ffffff]Z`, in UTC.
    TimestampTz,
    /// ISO 8601 duration, as `P1Y2M3DT4H5M6.7S`; parts may be negative.
    Interval,
    /// 36 lower-case characters.
    Uuid,
    /// JSON text, exactly as the source gave it (spaces, key order and digits included).
    Json,
    /// JSON text of an array whose elements follow the format of [`Kind`] inside; nested for more dimensions. Where an
    /// array cannot say it (bounds that do not start at 1): JSON text of a string, which holds the source's own text.
    Array(Box<Kind>),
    /// The source's own text for it; [`Column::type_name`] says what it is (enums, ranges, composites, unknown types).
    Other,
}

/// One column of a table.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Column {
    pub name: String,
    pub kind: Kind,
    /// The source's own name of the type, with its modifier where it has one: `numeric(12,2)`, `public.order_status`.
    pub type_name: String,
    /// Part of the key by which changes of this table are ordered and addressed.
    pub key: bool,
}

/// What identifies a row of a table in its changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeyKind {
    /// The columns marked [`Column::key`]; unique.
    Columns,
    /// No unique key: the whole row, every column is marked [`Column::key`]. Equal rows cannot be told apart.
    WholeRow,
    /// Nothing: deletes and updates of this table carry no key.
    None,
}

/// Names one shape of a table: the same names, kinds, type names and key always give the same version, on any machine
/// and after any restart.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TableVersion(pub u64);

impl fmt::Display for TableVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for TableVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TableVersion({self})")
    }
}

/// A table as it was at the time of a change. Shared behind an `Arc`; a change of shape makes a new one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableSchema {
    /// The namespace: a PostgreSQL schema, a MySQL database. Empty where the source has none.
    pub schema: String,
    pub name: String,
    pub columns: Vec<Column>,
    pub key: KeyKind,
    pub version: TableVersion,
}

impl TableSchema {
    /// Computes [`TableSchema::version`] from the rest.
    pub fn new(schema: String, name: String, columns: Vec<Column>, key: KeyKind) -> TableSchema {
        let version = version_of(&schema, &name, &columns, key);
        TableSchema { schema, name, columns, key, version }
    }

    /// The indices of the key's columns, in column order.
    pub fn key_columns(&self) -> impl Iterator<Item = usize> + '_ {
        self.columns.iter().enumerate().filter(|(_, column)| column.key).map(|(index, _)| index)
    }
}

/// FNV-1a, 64 bits: stable across builds, which `std`'s hashers do not promise.
fn version_of(schema: &str, name: &str, columns: &[Column], key: KeyKind) -> TableVersion {
    let mut hash = 0xcbf2_9ce4_8422_2325u64;
    let mut add = |part: &str| {
        // The terminator keeps ("ab", "c") and ("a", "bc") apart.
        for byte in part.bytes().chain([0]) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    };
    add(schema);
    add(name);
    add(match key {
        KeyKind::Columns => "columns",
        KeyKind::WholeRow => "row",
        KeyKind::None => "none",
    });
    for column in columns {
        add(&column.name);
        add(&column.type_name);
        add(if column.key { "key" } else { "" });
    }
    TableVersion(hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(columns: &[(&str, &str, bool)]) -> TableSchema {
        let columns = columns
            .iter()
            .map(|(name, type_name, key)| Column {
                name: name.to_string(),
                kind: Kind::Text,
                type_name: type_name.to_string(),
                key: *key,
            })
            .collect();
        TableSchema::new("s".into(), "t".into(), columns, KeyKind::Columns)
    }

    #[test]
    fn the_version_names_the_shape_and_nothing_else() {
        let a = table(&[("id", "int4", true), ("note", "text", false)]);
        assert_eq!(a.version, table(&[("id", "int4", true), ("note", "text", false)]).version);
        assert_ne!(a.version, table(&[("id", "int8", true), ("note", "text", false)]).version);
        assert_ne!(a.version, table(&[("id", "int4", false), ("note", "text", true)]).version);
        assert_ne!(a.version, table(&[("note", "text", false), ("id", "int4", true)]).version);
        assert_eq!(a.version.to_string(), "2dbe12e13bc0dc21", "stable across builds and machines");
    }
}
