use std::collections::BTreeSet;

use super::*;
use crate::faulty::journal::{FOLDER, LENGTH, REMOVED, SYNC_BEGUN, SYNC_FAILED, SYNCED, WRITE, entry, read};

const SEEDS: u64 = 200;

/// A journal of one file.
#[derive(Default)]
struct Journal {
    bytes: Vec<u8>,
    syncs: u64,
}

impl Journal {
    fn write(mut self, at: u64, data: &[u8]) -> Journal {
        entry(&mut self.bytes, WRITE, "", at, data);
        self
    }

    fn length(mut self, length: u64) -> Journal {
        entry(&mut self.bytes, LENGTH, "", length, &[]);
        self
    }

    fn remove(mut self) -> Journal {
        entry(&mut self.bytes, REMOVED, "", 0, &[]);
        self
    }

    fn begin_sync(mut self) -> Journal {
        self.syncs += 1;
        entry(&mut self.bytes, SYNC_BEGUN, "", self.syncs, &[]);
        self
    }

    fn end_sync(mut self, kind: u32) -> Journal {
        entry(&mut self.bytes, kind, "", self.syncs, &[]);
        self
    }

    fn sync_folder(mut self) -> Journal {
        self.syncs += 1;
        entry(&mut self.bytes, SYNC_BEGUN, FOLDER, self.syncs, &[]);
        entry(&mut self.bytes, SYNCED, FOLDER, self.syncs, &[]);
        self
    }

    fn sync(self) -> Journal {
        self.begin_sync().end_sync(SYNCED)
    }

    /// Everything that a power cut may leave, as far as the seeds show it.
    fn outcomes(&self) -> BTreeSet<Content> {
        let (histories, _) = read(&self.bytes);
        let outcome = |seed| {
            let mut random = Rng::with_seed(seed);
            let share = f64::from(random.u32(0..=4)) / 4.0;
            histories[""].after_power_cut(share, &mut random, &mut PowerCut::default())
        };
        (0..SEEDS).map(outcome).collect()
    }
}

fn contents<const N: usize>(all: [&[u8]; N]) -> BTreeSet<Content> {
    all.iter().map(|content| Some(content.to_vec())).collect()
}

#[test]
fn what_was_synced_stays_and_of_the_rest_anything_may() {
    let journal = Journal::default().write(0, b"aaaa").sync();
    assert_eq!(journal.outcomes(), contents([b"aaaa"]));
    let journal = journal.write(2, b"bbb");
    // Before, after, and longer without the data.
    assert_eq!(journal.outcomes(), contents([b"aaaa", b"aabbb", b"aaaa\0"]));
    assert_eq!(journal.sync().outcomes(), contents([b"aabbb"]));
}

#[test]
fn a_write_is_torn_at_sectors_and_nowhere_else() {
    let journal = Journal::default().write(0, &[b'a'; 1536]).sync().write(256, &[b'b'; 1024]);
    let outcomes = journal.outcomes();
    assert_eq!(outcomes.len(), 8, "three sectors, each with or without");
    for content in outcomes.iter().flatten() {
        let pieces = [&content[..256], &content[256..512], &content[512..1024], &content[1024..1280], &content[1280..]];
        assert!(pieces.iter().all(|piece| piece.iter().all(|byte| byte == &piece[0])), "torn within a sector");
        assert_eq!((pieces[0][0], pieces[4][0]), (b'a', b'a'));
    }
}

#[test]
fn a_sync_covers_what_came_before_it_began() {
    let journal = Journal::default().write(0, b"a").begin_sync().write(0, b"b").end_sync(SYNCED);
    assert_eq!(journal.outcomes(), contents([b"a", b"b"]));
    let journal = Journal::default().write(0, b"a").begin_sync();
    assert!(journal.outcomes().contains(&None), "a sync that did not end makes nothing durable");
}

#[test]
fn what_a_failed_sync_dropped_is_durable_only_when_it_is_written_again() {
    let journal = Journal::default().write(0, b"a").sync().write(0, b"b").begin_sync().end_sync(SYNC_FAILED).sync();
    assert_eq!(journal.outcomes(), contents([b"a", b"b"]));
    assert_eq!(journal.write(0, b"b").sync().outcomes(), contents([b"b"]));
}

#[test]
fn a_truncation_and_a_removal_may_be_undone_until_they_are_synced() {
    let journal = Journal::default().write(0, b"abc").sync().length(1);
    assert_eq!(journal.outcomes(), contents([b"abc", b"a"]));
    assert_eq!(journal.sync().outcomes(), contents([b"a"]));
    let journal = Journal::default().write(0, b"abc").sync().remove();
    assert_eq!(journal.outcomes(), BTreeSet::from([None, Some(b"abc".to_vec())]));
    let again = |journal: Journal| journal.write(0, b"d").sync();
    assert_eq!(again(journal).outcomes(), contents([b"d"]));
    let journal = Journal::default().write(0, b"abc").sync().remove().sync_folder();
    assert_eq!(journal.outcomes(), BTreeSet::from([None]));
    assert_eq!(again(journal).outcomes(), contents([b"d"]));
}

/// A process that was killed: the last change was not done, or in part.
#[test]
fn a_file_that_is_not_what_was_seen_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let (files, journal) = (folder.path().join("f"), folder.path().join("journal"));
    let explained = |content: &[u8]| {
        fs::write(&files, content).unwrap();
        fs::write(&journal, Journal::default().write(0, b"aaaa").write(1, b"bb").bytes).unwrap();
        std::panic::catch_unwind(|| cut(&files, &journal, 1)).is_ok()
    };
    for content in [b"abba", b"abaa", b"aaaa"] {
        assert!(explained(content), "{content:?}");
    }
    for content in [b"acba", b"aaba", b"cbba"] {
        assert!(!explained(content), "{content:?}");
    }
}

#[test]
fn after_a_cut_what_is_there_is_durable() {
    let folder = tempfile::tempdir().unwrap();
    let (files, journal) = (folder.path().join("f"), folder.path().join("journal"));
    fs::write(&files, b"abba").unwrap();
    fs::write(folder.path().join("f-shm"), b"memory").unwrap();
    fs::write(&journal, Journal::default().write(0, b"abba").sync().bytes).unwrap();
    for _ in 0..2 {
        assert_eq!(cut(&files, &journal, 7), PowerCut::default());
        assert_eq!(fs::read(&files).unwrap(), b"abba");
    }
    assert!(!folder.path().join("f-shm").exists());
}
