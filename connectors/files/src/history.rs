//! The files that were taken: entries of the connector's state, recorded in the same transaction as the changes.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use towpath_contract::Batch;

/// One file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Taken {
    pub(crate) name: String,
    pub(crate) table: String,
    /// Of its content, in hexadecimal.
    pub(crate) sha256: String,
    pub(crate) bytes: u64,
    /// When it was changed last, in microseconds since 1970.
    pub(crate) modified_us: i64,
    /// How many records it has, once all of them are recorded.
    pub(crate) records: Option<u64>,
}

/// By generation.
#[derive(Clone, Debug, Default)]
pub(crate) struct History {
    files: BTreeMap<u64, Taken>,
    extracts: BTreeMap<String, u64>,
    remember: usize,
}

const PREFIX: &str = "file/";

/// Of a table of extracts: the generation of the last one.
const EXTRACT: &str = "extract/";

impl History {
    /// The error names the entry that is not of this connector's making.
    pub(crate) fn read(state: &BTreeMap<String, Vec<u8>>, remember: u32) -> Result<History, String> {
        let mut files = BTreeMap::new();
        let mut extracts = BTreeMap::new();
        for (key, value) in state {
            if let Some(table) = key.strip_prefix(EXTRACT) {
                let generation = serde_json::from_slice(value).map_err(|_| key.clone())?;
                extracts.insert(table.to_owned(), generation);
            }
            let Some(generation) = key.strip_prefix(PREFIX) else { continue };
            let generation = u64::from_str_radix(generation, 16);
            let (Ok(generation), Ok(taken)) = (generation, serde_json::from_slice(value)) else {
                return Err(key.clone());
            };
            files.insert(generation, taken);
        }
        Ok(History { files, extracts, remember: remember as usize })
    }

    pub(crate) fn last_generation(&self) -> u64 {
        self.files.last_key_value().map_or(0, |(generation, _)| *generation)
    }

    pub(crate) fn get(&self, generation: u64) -> Option<&Taken> {
        self.files.get(&generation)
    }

    /// A file of the table with this content, all of which was handed over.
    pub(crate) fn finished(&self, table: &str, sha256: &str) -> Option<(u64, &Taken)> {
        let same = |taken: &Taken| taken.records.is_some() && taken.sha256 == sha256 && taken.table == table;
        self.files.iter().find(|(_, taken)| same(taken)).map(|(generation, taken)| (*generation, taken))
    }

    /// The name of the table's last file.
    pub(crate) fn last_name(&self, table: &str) -> Option<&str> {
        self.files.values().rev().find(|taken| taken.table == table).map(|taken| taken.name.as_str())
    }

    /// The last extract of the table.
    pub(crate) fn extract(&self, table: &str) -> Option<u64> {
        self.extracts.get(table).copied()
    }

    /// The next extract of every table is taken as its first. Returns the keys of the entries that said otherwise.
    pub(crate) fn forget_extracts(&mut self) -> Vec<String> {
        std::mem::take(&mut self.extracts).into_keys().map(|table| format!("{EXTRACT}{table}")).collect()
    }

    pub(crate) fn put_extract(&mut self, table: &str, generation: u64, batch: &mut Batch) {
        batch.put_state(format!("{EXTRACT}{table}"), serde_json::to_vec(&generation).ok());
        self.extracts.insert(table.to_owned(), generation);
    }

    /// Writes the entry into the batch's state, and forgets the oldest where there are too many.
    pub(crate) fn put(&mut self, generation: u64, taken: Taken, batch: &mut Batch) {
        let key = |generation: u64| format!("{PREFIX}{generation:016x}");
        batch.put_state(key(generation), serde_json::to_vec(&taken).ok());
        self.files.insert(generation, taken);
        while self.files.len() > self.remember {
            if let Some((oldest, _)) = self.files.pop_first() {
                batch.put_state(key(oldest), None);
            }
        }
    }
}
