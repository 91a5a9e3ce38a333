//! The keys of a source of `type: files`.

use std::time::Duration;

use towpath_contract::{ByteSize, Span};
use towpath_files::{Complete, FilesConfig};

use super::{Checker, seconds};
use crate::config::path::KeyPath;

const RECORD_BYTES_MAX: ByteSize = ByteSize(1 << 30);

const REMEMBER_MAX: u32 = 100_000;

impl Checker<'_> {
    pub(super) fn files_source(&mut self, path: &KeyPath, config: &FilesConfig) {
        if config.folder.as_os_str().is_empty() {
            self.problem(&path.key("folder"), "the path is empty", "the folder that the legacy system writes to");
        }
        self.at_least(&path.key("scan_every"), config.scan_every, Span(Duration::from_millis(100)));
        self.at_least(&path.key("record_max"), config.record_max, ByteSize(1 << 10));
        if config.record_max > RECORD_BYTES_MAX {
            let message = format!("found {}, and a record has at most {RECORD_BYTES_MAX}", config.record_max);
            self.problem(&path.key("record_max"), message, "lower it");
        }
        if !(1..=REMEMBER_MAX).contains(&config.remember) {
            self.problem(&path.key("remember"), format!("found {}", config.remember), "1 to 100000");
        }
        for (index, table) in config.tables.iter().enumerate() {
            let path = path.key("tables").index(index).key("complete");
            match &table.complete {
                Complete::Stable(span) => self.at_least(&path.key("stable"), *span, seconds(1)),
                Complete::Marker(suffix) if suffix.is_empty() || suffix.contains('/') => {
                    self.problem(&path.key("marker"), "this is no suffix of a file's name", "for example `.done`");
                }
                _ => {}
            }
        }
        // The connector knows its formats; it names the key by its path below the source.
        for fault in towpath_files::check(config) {
            self.problem(&key_path(path, &fault.path), fault.message, "see docs/files.md for the keys of each format");
        }
    }
}

/// `tables[0].format` below `path`.
fn key_path(path: &KeyPath, text: &str) -> KeyPath {
    let mut path = path.clone();
    for part in text.split('.') {
        let (key, index) = part.split_once('[').unwrap_or((part, ""));
        path = path.key(key);
        if let Ok(index) = index.trim_end_matches(']').parse() {
            path = path.index(index);
        }
    }
    path
}
