//! How far each table's snapshot got, as it is recorded in the outbox with the rows it speaks of.

use std::fmt::Write as _;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use towpath_contract::{Error, Result};

use crate::catalog::CapturedTable;
use crate::position::Lsn;

/// The entry `snapshot/<schema>.<table>`, as JSON.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct TableState {
    pub(super) status: Status,
    /// The table's, when its snapshot began: another table of the same name is read anew.
    pub(super) oid: u32,
    /// False where consumers may have rows of it already: its changes were delivered before, or some of its rows, or it was asked
    /// for again.
    pub(super) first: bool,
    /// It may have come to be published while Towpath's slot was there already. What a transaction wrote to it before is not in the stream, even
    /// if it commits after: all that are writing must end before it is read.
    #[serde(default, skip_serializing_if = "is_false")]
    pub(super) published_late: bool,
    /// Where the log ended when they had, an LSN: a stream that begins after it has all of what is written to the table from then on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) writers_ended: Option<String>,
    /// Names of the key's columns that `last_key` and `reread` speak of.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) key: Vec<String>,
    /// The key up to which rows were read, as the server writes its values.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) last_key: Option<KeyTexts>,
    /// The last row was read; what remains is `reread`.
    #[serde(default, skip_serializing_if = "is_false")]
    pub(super) at_end: bool,
    /// Keys to be read once more at the end: see `Snapshotter::key_moved`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) reread: Vec<KeyTexts>,
    /// There were too many of those: the whole table is read once more.
    #[serde(default, skip_serializing_if = "is_false")]
    pub(super) again: bool,
    pub(super) rows_done: u64,
    /// Server's clock at the first chunk, microseconds since 1970-01-01 UTC.
    #[serde(default)]
    pub(super) started_us: i64,
    /// Spent on it so far, without the time that Towpath was stopped.
    #[serde(default)]
    pub(super) seconds: f64,
    /// The stamp of the last chunk's positions: those of later chunks are greater.
    #[serde(default)]
    pub(super) stamp: u64,
    /// A table that was read as a whole: what its snapshot saw is dropped from the stream up to an address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) drop: Option<DropRule>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Status {
    #[default]
    Wanted,
    Running,
    Done,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct DropRule {
    /// As `pg_current_snapshot()` printed it.
    pub(super) snapshot: String,
    /// An LSN.
    pub(super) until: String,
}

/// The texts of a key's columns.
pub(super) type KeyTexts = Vec<KeyText>;

/// Bytes as the server sent them. JSON: a string, or `{"hex": "…"}` where they are not UTF-8.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct KeyText(pub(super) Vec<u8>);

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum KeyTextForm {
    Text(String),
    Hex { hex: String },
}

impl Serialize for KeyText {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match std::str::from_utf8(&self.0) {
            Ok(text) => serializer.serialize_str(text),
            Err(_) => KeyTextForm::Hex { hex: hexadecimal(&self.0) }.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for KeyText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<KeyText, D::Error> {
        match KeyTextForm::deserialize(deserializer)? {
            KeyTextForm::Text(text) => Ok(KeyText(text.into_bytes())),
            KeyTextForm::Hex { hex } => {
                let (pairs, rest) = hex.as_bytes().as_chunks::<2>();
                let byte = |pair: &[u8; 2]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
                match (pairs.iter().map(byte).collect::<Option<Vec<u8>>>(), rest) {
                    (Some(bytes), []) => Ok(KeyText(bytes)),
                    _ => Err(de::Error::custom("expected pairs of hexadecimal digits")),
                }
            }
        }
    }
}

fn is_false(value: &bool) -> bool {
    !value
}

pub(super) fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

impl TableState {
    pub(super) fn wanted(table: &CapturedTable, first: bool) -> TableState {
        TableState { oid: table.oid, first, ..TableState::default() }
    }

    /// As a capture finds it whose stream begins at `from`.
    pub(super) fn resumed(mut self, from: Lsn) -> Result<TableState> {
        // What was read of it, or came through the stream since, consumers have.
        self.first &= self.status != Status::Running;
        if let Some(ended) = &self.writers_ended {
            let damaged = |_| Error::bug("reading the progress of a snapshot", "an address is damaged");
            self.published_late = from < ended.parse::<Lsn>().map_err(damaged)?;
            self.writers_ended = None;
        }
        Ok(self)
    }

    /// A chunk of it was read, or is held.
    pub(super) fn is_begun(&self) -> bool {
        self.status != Status::Done && !self.key.is_empty()
    }

    pub(super) fn parse(entry: &str, json: &[u8]) -> Result<TableState> {
        serde_json::from_slice(json).map_err(|error| {
            // The error's text may quote a key.
            let place = format!("line {}, column {}", error.line(), error.column());
            Error::bug("reading the progress of a snapshot", format_args!("the entry {entry} is damaged at {place}"))
        })
    }

    pub(super) fn to_json(&self) -> Result<Vec<u8>> {
        serde_json::to_vec(self).map_err(|error| Error::bug("writing the progress of a snapshot", error))
    }
}

/// What all the entries' names start with.
pub(crate) const PREFIX: &str = "snapshot/";

/// The entry's name. A dot within a schema's or table's name is written `%2E`, so that two names never give one entry.
pub(super) fn entry_name(table: &CapturedTable) -> String {
    let escaped = |name: &str| name.replace('%', "%25").replace('.', "%2E");
    format!("{PREFIX}{}.{}", escaped(&table.schema), escaped(&table.name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn keys_of_any_bytes_read_back(
            keys in vec(vec(prop_oneof![vec(any::<u8>(), 0..9), ".{0,9}".prop_map(String::into_bytes)], 1..3), 1..9)
        ) {
            let mut keys: Vec<KeyTexts> = keys.into_iter().map(|key| key.into_iter().map(KeyText).collect()).collect();
            let state = TableState { last_key: keys.pop(), reread: keys, ..TableState::default() };
            prop_assert_eq!(TableState::parse("e", &state.to_json().unwrap()).unwrap(), state);
        }
    }

    #[test]
    fn a_state_reads_back() {
        let state = TableState {
            status: Status::Running,
            oid: 16_384,
            first: true,
            key: vec!["id".into()],
            last_key: Some(vec![KeyText(b"it's".to_vec()), KeyText(vec![0xff, 0])]),
            reread: vec![vec![KeyText(b"7".to_vec())]],
            rows_done: 5,
            seconds: 1.5,
            drop: Some(DropRule { snapshot: "1:2:".into(), until: "0/10".into() }),
            ..TableState::default()
        };
        let json = state.to_json().unwrap();
        assert_eq!(TableState::parse("e", &json).unwrap(), state);
        assert!(String::from_utf8(json).unwrap().contains(r#"["it's",{"hex":"ff00"}]"#));
    }

    #[test]
    fn damage_is_reported_without_quoting_it() {
        let error = TableState::parse("snapshot/a.b", b"{\"status\": \"secret\"}").unwrap_err();
        assert!(error.message.contains("snapshot/a.b") && !error.message.contains("secret"), "{error}");
    }

    #[test]
    fn names_with_dots_have_entries_of_their_own() {
        let table = |schema: &str, name: &str| CapturedTable {
            oid: 1,
            schema: schema.into(),
            name: name.into(),
            partitioned: false,
            identity: b'd',
            keyed: true,
            estimated_rows: None,
        };
        assert_eq!(entry_name(&table("public", "orders")), "snapshot/public.orders");
        assert_ne!(entry_name(&table("a.b", "c")), entry_name(&table("a", "b.c")));
    }
}
