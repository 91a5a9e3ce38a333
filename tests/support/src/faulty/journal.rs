//! What was done to the watched files: the journal that the library writes, read back.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

/// `enum kind` of `preload.h`.
pub(super) const WRITE: u32 = 1;
pub(super) const LENGTH: u32 = 2;
pub(super) const REMOVED: u32 = 3;
pub(super) const SYNC_BEGUN: u32 = 4;
pub(super) const SYNCED: u32 = 5;
pub(super) const SYNC_FAILED: u32 = 6;
const HEAD_BYTES: usize = 24;
/// The name of the files' folder: its syncs make removals durable.
pub(super) const FOLDER: &str = "/";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// Some fsync may still make it durable.
    Open,
    Durable,
    /// The fsync that was to make it durable failed.
    Dropped,
}

#[derive(Debug)]
pub(super) enum Change<'a> {
    Write { at: u64, data: &'a [u8] },
    Length(u64),
    Removed,
}

/// What was done to one file, in order.
#[derive(Debug, Default)]
pub(super) struct History<'a> {
    pub(super) changes: Vec<Done<'a>>,
}

#[derive(Debug)]
pub(super) struct Done<'a> {
    pub(super) change: Change<'a>,
    pub(super) fate: Fate,
    /// Its place in the journal.
    entry: usize,
}

/// What is there at the start is durable.
pub(super) fn start(files: &Path, journal: &Path) {
    let mut entries = Vec::new();
    for (name, path) in present(files) {
        let content = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        entry(&mut entries, WRITE, &name, 0, &content);
        entry(&mut entries, SYNC_BEGUN, &name, 0, &[]);
        entry(&mut entries, SYNCED, &name, 0, &[]);
    }
    // Written in place: the process may have it open.
    let written = File::create(journal).and_then(|mut file| file.write_all(&entries));
    written.unwrap_or_else(|error| panic!("{}: {error}", journal.display()));
}

pub(super) fn entry(entries: &mut Vec<u8>, kind: u32, name: &str, at: u64, data: &[u8]) {
    entries.extend(kind.to_ne_bytes());
    entries.extend((name.len() as u32).to_ne_bytes());
    entries.extend(at.to_ne_bytes());
    entries.extend((data.len() as u64).to_ne_bytes());
    entries.extend(name.as_bytes());
    entries.extend(data);
}

/// The files whose path begins with `files`, by what follows; also in folders of that name.
fn present(files: &Path) -> Vec<(String, PathBuf)> {
    let mut folders = vec![files.parent().expect("a file has a folder").to_path_buf()];
    let mut found = Vec::new();
    while let Some(folder) = folders.pop() {
        let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        for path in entries.map(|entry| entry.expect("a folder can be read").path()) {
            let name = path.to_str().and_then(|path| path.strip_prefix(files.to_str()?));
            match name {
                Some(_) if path.is_dir() => folders.push(path),
                Some(name) if name != "-shm" => found.push((name.to_owned(), path)),
                _ => {}
            }
        }
    }
    found
}

/// The journal, by file; and the file that its last entry changes.
pub(super) fn read(mut bytes: &[u8]) -> (BTreeMap<String, History<'_>>, Option<&str>) {
    let mut histories = BTreeMap::<String, History<'_>>::new();
    // By their numbers: where in the journal they began.
    let mut syncs = BTreeMap::new();
    let mut last = None;
    for entry in 0.. {
        let Some((head, rest)) = bytes.split_at_checked(HEAD_BYTES) else { break };
        let half = |at: usize| u32::from_ne_bytes(head[at..at + 4].try_into().expect("four bytes"));
        let word = |at: usize| u64::from_ne_bytes(head[at..at + 8].try_into().expect("eight bytes"));
        let (kind, name_bytes, at, data_bytes) = (half(0), half(4) as usize, word(8), word(16) as usize);
        // Killed while it wrote the entry: nothing was done yet.
        let Some((name, rest)) = rest.split_at_checked(name_bytes) else { break };
        let Some((data, rest)) = rest.split_at_checked(data_bytes) else { break };
        let name = std::str::from_utf8(name).expect("the journal is whole, and its names are UTF-8");
        bytes = rest;
        last = (kind <= REMOVED).then_some(name);
        let change = match kind {
            WRITE => Change::Write { at, data },
            LENGTH => Change::Length(at),
            REMOVED => Change::Removed,
            SYNC_BEGUN => {
                syncs.insert(at, entry);
                continue;
            }
            SYNCED | SYNC_FAILED => {
                let begun = syncs.remove(&at).expect("a sync begins before it ends");
                let fate = if kind == SYNCED { Fate::Durable } else { Fate::Dropped };
                match (name, kind) {
                    (FOLDER, SYNCED) => histories.values_mut().for_each(|history| history.folder_synced(begun)),
                    (FOLDER, _) => {}
                    _ => histories.entry(name.to_owned()).or_default().synced(begun, fate),
                }
                continue;
            }
            kind => panic!("the journal is whole, and has no kind {kind}"),
        };
        let history = histories.entry(name.to_owned()).or_default();
        history.changes.push(Done { change, fate: Fate::Open, entry });
    }
    (histories, last)
}

impl History<'_> {
    fn synced(&mut self, begun: usize, fate: Fate) {
        let open = self.changes.iter_mut().filter(|done| done.entry < begun && done.fate == Fate::Open);
        open.for_each(|done| done.fate = fate);
    }

    fn folder_synced(&mut self, begun: usize) {
        let removals = self.changes.iter_mut().filter(|done| matches!(done.change, Change::Removed));
        removals.filter(|done| done.entry < begun).for_each(|done| done.fate = Fate::Durable);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::faulty::{CONTROL_BYTES, library};

    #[test]
    fn who_comes_after_a_killed_process_does_not_go_on_within_its_entry() {
        let folder = tempfile::tempdir().unwrap();
        let [files, control, journal] = ["files", "control", "journal"].map(|name| folder.path().join(name));
        File::create(&control).unwrap().set_len(CONTROL_BYTES).unwrap();
        let mut entries = Vec::new();
        entry(&mut entries, WRITE, "", 0, b"whole");
        let whole = entries.len();
        entry(&mut entries, WRITE, "", 5, b"half of it");
        for bytes in [whole, whole + HEAD_BYTES - 1, whole + HEAD_BYTES, entries.len() - 1] {
            fs::write(&journal, &entries[..bytes]).unwrap();
            let mut process = std::process::Command::new("true");
            process.env("LD_PRELOAD", library::compiled()).env("TOWPATH_FAULTY_FILES", &files);
            process.env("TOWPATH_FAULTY_CONTROL", &control).env("TOWPATH_FAULTY_JOURNAL", &journal);
            assert!(process.status().unwrap().success());
            assert_eq!(fs::read(&journal).unwrap(), entries[..whole], "of {bytes} bytes");
        }
    }
}
