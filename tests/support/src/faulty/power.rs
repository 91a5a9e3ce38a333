//! What a disk may hold after the power went away.
//!
//! The model, for each file by itself:
//!
//! * What was written before an fsync or fdatasync began that then succeeded is durable: content, length, and that there is such
//!   a file (on Linux that is its folder's matter; here it comes with the file).
//! * Of every other write any 512-byte sectors may be there, and others not, in the order of the writes; bytes of a sector that
//!   were not written stay as they were (SQLite's "powersafe overwrite"). A file that grows may have its new length without
//!   the data: zeros.
//! * A truncation, and a removal, may or may not have happened: independent of the writes around it. A removal is durable once
//!   the folder was synced, or a file of that name that was made later.
//! * What was written before an fsync that failed never becomes durable by a later one; only by being written again.
//! * A file that was never synced may be gone. The index of SQLite's log (`-shm`) always is: it is memory.
//!
//! This is wider than what one file system does, and what SQLite expects (sqlite.org/atomiccommit.html, section 2, and
//! sqlite.org/psow.html).

use std::fs;
use std::path::{Path, PathBuf};

use fastrand::Rng;

use super::journal::{self, Change, Done, Fate, History};

const SECTOR: u64 = 512;

/// What a cut took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PowerCut {
    /// Writes, truncations and removals that no fsync had made durable.
    pub unsynced: usize,
    /// Of these, the ones that are not there, or not whole.
    pub lost: usize,
}

/// A file's content; `None` where there is no such file.
type Content = Option<Vec<u8>>;

/// The process is dead. Rewrites its files, and starts their journal anew.
pub(super) fn cut(files: &Path, journal: &Path, seed: u64) -> PowerCut {
    let bytes = fs::read(journal).unwrap_or_else(|error| panic!("{}: {error}", journal.display()));
    let (histories, last) = journal::read(&bytes);
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
    journal::start(files, journal);
    cut
}

fn at(files: &Path, name: &str) -> PathBuf {
    let mut path = files.as_os_str().to_os_string();
    path.push(name);
    path.into()
}

impl History<'_> {
    /// As the process saw it after the first `count` of its changes.
    fn seen(&self, count: usize) -> Content {
        let mut content = None;
        self.changes[..count].iter().for_each(|done| done.change.apply(&mut content));
        content
    }

    fn after_power_cut(&self, share: f64, random: &mut Rng, cut: &mut PowerCut) -> Content {
        let mut content = None;
        for Done { change, fate, .. } in &self.changes {
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
        || match history.changes.last().filter(|_| was_last).map(|done| &done.change) {
            Some(Change::Write { at, data }) => {
                let there = found.get(*at as usize..).unwrap_or_default();
                let done = data.iter().zip(there).take_while(|(data, there)| data == there).count();
                let mut content = history.seen(all - 1);
                write(&mut content, *at, &data[..done]);
                content.as_ref() == Some(&found)
            }
            Some(_) => found == history.seen(all - 1).unwrap_or_default(),
            None => false,
        };
    assert!(explained, "{} was changed by a call that the library does not know", path.display());
}

#[cfg(test)]
mod tests;
