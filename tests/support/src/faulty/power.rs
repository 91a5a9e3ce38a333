//! What a disk may hold after the power went away.
//!
//! The model, for each file by itself:
//!
//! * What was written before an fsync or fdatasync began that then succeeded is durable: content, length, and the file's name
//!   (on Linux a name is its folder's, and SQLite syncs that too; here it comes with the file).
//! * Of every other write any 512-byte sectors may be there, and others not, in the order of the writes; bytes of a sector that
//!   were not written stay as they were (SQLite's "powersafe overwrite"). A file that grows may have its new length without
//!   the data: zeros.
//! * A truncation, and a removal, may or may not have happened: independent of the writes around it.
//! * What was written before an fsync that failed never becomes durable by a later one; only by being written again.
//! * A file that was never synced may be gone. The index of SQLite's log (`-shm`) always is: it is memory.
//!
//! This is wider than what one file system does. SQLite asks no more of a disk (sqlite.org/atomiccommit.html, section 2).

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use fastrand::Rng;

const SECTOR: u64 = 512;

/// What a cut took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PowerCut {
    /// Writes, truncations and removals that no fsync had made durable.
    pub unsynced: usize,
    /// Of these, the ones that are not there, or not whole.
    pub lost: usize,
}

/// `enum kind` of `preload.c`.
const WRITE: u32 = 1;
const LENGTH: u32 = 2;
const REMOVED: u32 = 3;
const SYNC_BEGUN: u32 = 4;
const SYNCED: u32 = 5;
const SYNC_FAILED: u32 = 6;
const HEAD_BYTES: usize = 24;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// Some fsync may still make it durable.
    Open,
    Durable,
    /// The fsync that was to make it durable failed.
    Dropped,
}

#[derive(Debug)]
enum Change<'a> {
    Write { at: u64, data: &'a [u8] },
    Length(u64),
    Removed,
}

/// What was done to one file, in order.
#[derive(Debug, Default)]
struct History<'a> {
    changes: Vec<(Change<'a>, Fate)>,
    /// By the sync's number: how many changes came before it.
    syncs: BTreeMap<u64, usize>,
}

/// A file's content; `None` where there is no such file.
type Content = Option<Vec<u8>>;

/// What is there at the start is durable.
pub(super) fn start_journal(files: &Path, journal: &Path) {
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

fn entry(entries: &mut Vec<u8>, kind: u32, name: &str, at: u64, data: &[u8]) {
    entries.extend(kind.to_ne_bytes());
    entries.extend((name.len() as u32).to_ne_bytes());
    entries.extend(at.to_ne_bytes());
    entries.extend((data.len() as u64).to_ne_bytes());
    entries.extend(name.as_bytes());
    entries.extend(data);
}

/// The process is dead. Rewrites its files, and starts their journal anew.
pub(super) fn cut(files: &Path, journal: &Path, seed: u64) -> PowerCut {
    let bytes = fs::read(journal).unwrap_or_else(|error| panic!("{}: {error}", journal.display()));
    let (histories, last) = read(&bytes);
    let mut random = Rng::with_seed(seed);
    // How much survives differs from cut to cut: nothing, all, or some.
    let share = f64::from(random.u32(0..=4)) / 4.0;
    let mut cut = PowerCut::default();
    for (name, history) in &histories {
        let path = at(files, name);
        assert_complete(&path, history, last == Some(name.as_str()));
        let content = history.after_power_cut(share, &mut random, &mut cut);
        let done = match content {
            Some(content) => fs::write(&path, content),
            None if path.exists() => fs::remove_file(&path),
            None => Ok(()),
        };
        done.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }
    // It may not be there.
    let _ = fs::remove_file(at(files, "-shm"));
    start_journal(files, journal);
    cut
}

fn at(files: &Path, name: &str) -> PathBuf {
    let mut path = files.as_os_str().to_os_string();
    path.push(name);
    path.into()
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
fn read(mut bytes: &[u8]) -> (BTreeMap<String, History<'_>>, Option<&str>) {
    let mut histories = BTreeMap::<String, History<'_>>::new();
    let mut last = None;
    while let Some((head, rest)) = bytes.split_at_checked(HEAD_BYTES) {
        let half = |at: usize| u32::from_ne_bytes(head[at..at + 4].try_into().expect("four bytes"));
        let word = |at: usize| u64::from_ne_bytes(head[at..at + 8].try_into().expect("eight bytes"));
        let (kind, name_bytes, at, data_bytes) = (half(0), half(4) as usize, word(8), word(16) as usize);
        // Killed while it wrote the entry: nothing was done yet.
        let Some((name, rest)) = rest.split_at_checked(name_bytes) else { break };
        let Some((data, rest)) = rest.split_at_checked(data_bytes) else { break };
        let name = std::str::from_utf8(name).expect("the journal is whole, and its names are UTF-8");
        histories.entry(name.to_owned()).or_default().add(kind, at, data);
        last = (kind <= REMOVED).then_some(name);
        bytes = rest;
    }
    (histories, last)
}

impl<'a> History<'a> {
    fn add(&mut self, kind: u32, at: u64, data: &'a [u8]) {
        let change = match kind {
            WRITE => Change::Write { at, data },
            LENGTH => Change::Length(at),
            REMOVED => Change::Removed,
            SYNC_BEGUN => {
                self.syncs.insert(at, self.changes.len());
                return;
            }
            SYNCED | SYNC_FAILED => {
                let before = self.syncs.remove(&at).expect("a sync begins before it ends");
                let fate = if kind == SYNCED { Fate::Durable } else { Fate::Dropped };
                let open = self.changes[..before].iter_mut().filter(|(_, fate)| *fate == Fate::Open);
                open.for_each(|(_, old)| *old = fate);
                return;
            }
            kind => panic!("the journal is whole, and has no kind {kind}"),
        };
        self.changes.push((change, Fate::Open));
    }

    /// As the process saw it after the first `count` of its changes.
    fn seen(&self, count: usize) -> Content {
        let mut content = None;
        self.changes[..count].iter().for_each(|(change, _)| change.apply(&mut content));
        content
    }

    fn after_power_cut(&self, share: f64, random: &mut Rng, cut: &mut PowerCut) -> Content {
        let mut content = None;
        for (change, fate) in &self.changes {
            if *fate == Fate::Durable {
                change.apply(&mut content);
                continue;
            }
            cut.unsynced += 1;
            cut.lost += usize::from(!change.apply_some(&mut content, share, random));
        }
        content
    }
}

impl Change<'_> {
    fn apply(&self, content: &mut Content) {
        match self {
            Change::Write { at, data } => write(content, *at, data),
            Change::Length(length) => content.get_or_insert_default().resize(*length as usize, 0),
            Change::Removed => *content = None,
        }
    }

    /// Returns whether all of it is there.
    fn apply_some(&self, content: &mut Content, share: f64, random: &mut Rng) -> bool {
        let survives = |random: &mut Rng| random.f64() < share;
        match self {
            // Torn, or at once.
            Change::Write { at, data } if random.bool() => {
                let end = at + data.len() as u64;
                let mut whole = true;
                let mut from = *at;
                while from < end {
                    let to = (from / SECTOR * SECTOR + SECTOR).min(end);
                    match survives(random) {
                        true => write(content, from, &data[(from - at) as usize..(to - at) as usize]),
                        false => whole = false,
                    }
                    from = to;
                }
                lengthen(content, end, share, random);
                whole
            }
            Change::Write { at, data } if !survives(random) => {
                lengthen(content, at + data.len() as u64, share, random);
                false
            }
            Change::Length(_) | Change::Removed if !survives(random) => false,
            _ => {
                self.apply(content);
                true
            }
        }
    }
}

/// The length may be there without the data.
fn lengthen(content: &mut Content, end: u64, share: f64, random: &mut Rng) {
    if random.f64() < share && content.as_ref().is_none_or(|content| (content.len() as u64) < end) {
        content.get_or_insert_default().resize(end as usize, 0);
    }
}

fn write(content: &mut Content, at: u64, data: &[u8]) {
    let content = content.get_or_insert_default();
    let (at, end) = (at as usize, at as usize + data.len());
    if content.len() < end {
        content.resize(end, 0);
    }
    content[at..end].copy_from_slice(data);
}

/// The journal has all that happened to the file. Of the very last change nothing or a part may have been done: the process was
/// killed.
fn assert_complete(path: &Path, history: &History<'_>, was_last: bool) {
    let found = fs::read(path).unwrap_or_default();
    let all = history.changes.len();
    let explained = found == history.seen(all).unwrap_or_default()
        || match history.changes.last().filter(|_| was_last) {
            Some((Change::Write { at, data }, _)) => {
                let there = found.get(*at as usize..).unwrap_or_default();
                let done = data.iter().zip(there).take_while(|(data, there)| data == there).count();
                let mut content = history.seen(all - 1);
                write(&mut content, *at, &data[..done]);
                content.as_ref() == Some(&found)
            }
            Some(_) => found == history.seen(all - 1).unwrap_or_default(),
            None => false,
        };
    assert!(explained, "{} was changed by a call that preload.c does not know", path.display());
}

#[cfg(test)]
mod tests;
