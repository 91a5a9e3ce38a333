//! A disk and a wall clock that misbehave on command, below one process.
//!
//! A small C library (`faulty/preload.h`), loaded by `LD_PRELOAD`, stands between Towpath and libc. It looks at a file that it
//! maps, and that [`Disk`] writes: faults come and go while the process runs, and stay over its restarts. [`Disk::power_cut`]
//! is in `faulty/power.rs`, with what it takes a disk for. Linux with glibc, on x86_64 and aarch64.

mod journal;
mod library;
mod power;

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::{Folder, Towpath, TowpathBuilder};

pub use power::PowerCut;

/// Which of the calls that a fault is for it strikes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Odds {
    Always,
    /// So many of a thousand, chosen by the disk's seed ([`Disk::seed`]).
    Of1000(u16),
}

/// The faulty disk below a Towpath: the files whose path begins with that of its outbox, and nothing else that it writes. And its
/// wall clock; the monotonic one is left alone.
#[derive(Debug)]
pub struct Disk {
    /// What the paths of its files begin with.
    files: PathBuf,
    control: File,
    active: u8,
    settings: Settings,
    journal: PathBuf,
    _folder: Arc<Folder>,
}

/// As `struct settings` in `preload.h`.
#[derive(Clone, Copy, Debug, Default)]
struct Settings {
    no_space: u64,
    write_error: u64,
    short_write: u64,
    sync_error: u64,
    slow_sync_ms: u64,
    lie_about_sync: u64,
    clock_step_s: i64,
    seed: u64,
}

const WORDS: usize = 8;
const SETTINGS_AT: u64 = 8;
const FAULTS_AT: u64 = SETTINGS_AT + 2 * SETTINGS_BYTES;
const SETTINGS_BYTES: u64 = WORDS as u64 * 8;
/// More than `struct control` has.
const CONTROL_BYTES: u64 = 4096;

impl Settings {
    fn words(&self) -> [u64; WORDS] {
        let Settings { no_space, write_error, short_write, sync_error, slow_sync_ms, lie_about_sync, .. } = *self;
        let (step, seed) = (self.clock_step_s.cast_unsigned(), self.seed);
        [no_space, write_error, short_write, sync_error, slow_sync_ms, lie_about_sync, step, seed]
    }
}

impl Odds {
    fn of_1000(self) -> u64 {
        match self {
            Odds::Always => 1000,
            Odds::Of1000(odds) => u64::from(odds),
        }
    }
}

impl Disk {
    /// Writes that would make a file longer fail with ENOSPC.
    pub fn no_space(&mut self, odds: Odds) {
        self.settings.no_space = odds.of_1000();
        self.apply();
    }

    /// Writes fail with EIO; what lay before a sector of theirs may have been written.
    pub fn write_errors(&mut self, odds: Odds) {
        self.settings.write_error = odds.of_1000();
        self.apply();
    }

    /// Writes take fewer bytes than they were given; the next one then sometimes finds the disk full.
    pub fn short_writes(&mut self, odds: Odds) {
        self.settings.short_write = odds.of_1000();
        self.apply();
    }

    /// fsync fails with EIO. What it was to make durable never will be by another one: Linux takes the pages for clean
    /// (`fsync(2)`, and "Fsync Errors" in PostgreSQL's wiki).
    pub fn sync_errors(&mut self, odds: Odds) {
        self.settings.sync_error = odds.of_1000();
        self.apply();
    }

    /// Every fsync takes this much longer.
    pub fn slow_sync(&mut self, by: Duration) {
        self.settings.slow_sync_ms = u64::try_from(by.as_millis()).expect("a time that a test waits");
        self.apply();
    }

    /// fsync does nothing, and says that all went well.
    pub fn lie_about_sync(&mut self) {
        self.settings.lie_about_sync = 1;
        self.apply();
    }

    /// The wall clock is this far from the machine's; 0 sets it right.
    pub fn clock_step(&mut self, seconds: i64) {
        self.settings.clock_step_s = seconds;
        self.apply();
    }

    /// What [`Odds`] choose by.
    pub fn seed(&mut self, seed: u64) {
        self.settings.seed = seed;
        self.apply();
    }

    /// Ends all faults of the disk. The clock stays as it is.
    pub fn heal(&mut self) {
        let Settings { clock_step_s, seed, .. } = self.settings;
        self.settings = Settings { clock_step_s, seed, ..Settings::default() };
        self.apply();
    }

    /// How often a fault has struck so far.
    pub fn faults(&self) -> u64 {
        let mut word = [0; 8];
        self.control.read_exact_at(&mut word, FAULTS_AT).expect("the control file can be read");
        u64::from_ne_bytes(word)
    }

    /// Kills the process, and takes from the files what was not synced: some of it, or all; see [`PowerCut`].
    ///
    /// # Panics
    /// When the files are not what the process was seen to make of them.
    pub fn power_cut(&mut self, towpath: &mut Towpath, seed: u64) -> PowerCut {
        towpath.kill();
        power::cut(&self.files, &self.journal, seed)
    }

    /// The other settings are filled, and one byte then says that they count: nobody reads half of them.
    fn apply(&mut self) {
        let next = 1 - self.active;
        let bytes: Vec<u8> = self.settings.words().iter().flat_map(|word| word.to_ne_bytes()).collect();
        let at = SETTINGS_AT + u64::from(next) * SETTINGS_BYTES;
        let written = self.control.write_all_at(&bytes, at).and_then(|()| self.control.write_all_at(&[next], 0));
        written.expect("the control file can be written");
        self.active = next;
    }
}

impl TowpathBuilder {
    /// Puts a faulty disk below the files in its folder whose path begins with `files`: for the outbox `outbox.db`, which takes in
    /// its log, its lock and its spool. Without a fault it is as the machine's.
    ///
    /// # Panics
    /// When the library cannot be compiled.
    pub fn faulty_disk(self, files: &str) -> (TowpathBuilder, Disk) {
        let library = library::compiled();
        let run = fs::canonicalize(self.folder()).expect("the run's folder is there");
        let own = run.join("disk");
        fs::create_dir(&own).expect("a Towpath has one faulty disk");
        let (files, control, journal) = (run.join(files), own.join("control"), own.join("journal"));
        let made = File::options().read(true).write(true).create_new(true).open(&control);
        let made = made.and_then(|file| file.set_len(CONTROL_BYTES).map(|()| file)).expect("a file can be made");
        journal::start(&files, &journal);
        let folder = self.shared_folder();
        let builder = self
            .env("LD_PRELOAD", library)
            .env("TOWPATH_FAULTY_FILES", &files)
            .env("TOWPATH_FAULTY_CONTROL", control)
            .env("TOWPATH_FAULTY_JOURNAL", &journal);
        let settings = Settings::default();
        (builder, Disk { files, control: made, active: 0, settings, journal, _folder: folder })
    }
}
