//! The log beside the file (`-wal`): whether it is the file's own, and whether it is on the disk.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::error::OutboxError;
use super::lock::beside;

const COPY_BYTES: usize = 1 << 20;

/// The file's name for the log, whose length counts towards `max_size`.
pub(super) fn log_path(path: &Path) -> Arc<Path> {
    beside(path, "-wal").into()
}

/// The run before may have ended between a write and its fsync, or because an fsync failed. What it wrote is then in the
/// page cache, where we read it, and not on the disk; after a failed fsync no later one puts it there either, for Linux takes
/// the pages for clean (`fsync(2)`). So all of it is written once more, as it is, before anybody is told that it is recorded.
/// Nobody else writes to it: the file is ours, and locked.
pub(super) fn write_again(path: &Path) -> Result<(), OutboxError> {
    let written = OpenOptions::new().read(true).write(true).open(beside(path, "-wal")).and_then(|log| {
        let mut buffer = vec![0; COPY_BYTES];
        let mut at = 0;
        loop {
            match log.read_at(&mut buffer, at)? {
                0 => return log.sync_all(),
                read => {
                    log.write_all_at(&buffer[..read], at)?;
                    at += read as u64;
                }
            }
        }
    });
    match written {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(OutboxError::Io {
            operation: "making sure of the log of",
            path: path.to_path_buf(),
            found: error.to_string(),
        }),
        _ => Ok(()),
    }
}

/// What the file alone says, without its log. 0 where it says nothing: it is new, or was never written to. `None` where it
/// cannot be read alone: the run before ended while it moved the log into it (the first page comes first, and says that the file
/// is as long as it will be), and only both together are whole.
pub(super) fn generation_of_file(path: &Path) -> Option<i64> {
    let mut uri = String::from("file:");
    for byte in path.as_os_str().as_encoded_bytes() {
        match byte {
            b'/' | b'.' | b'-' | b'_' => uri.push(char::from(*byte)),
            byte if byte.is_ascii_alphanumeric() => uri.push(char::from(*byte)),
            byte => uri.push_str(&format!("%{byte:02X}")),
        }
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let alone = Connection::open_with_flags(format!("{uri}?immutable=1"), flags);
    match alone.and_then(|conn| conn.query_row("SELECT generation FROM log", [], |row| row.get(0))) {
        Ok(generation) => Some(generation),
        // No file yet; no such table.
        Err(error) => {
            matches!(error.sqlite_error_code(), Some(ErrorCode::CannotOpen | ErrorCode::Unknown)).then_some(0)
        }
    }
}

/// The log begins anew only after all of it went into the file, and is counted then: see `Writer::checkpoint`.
pub(super) fn check_log(conn: &Connection, path: &Path, of_file: Option<i64>) -> Result<(), OutboxError> {
    let both = conn.query_row("SELECT generation FROM log", [], |row| row.get::<_, i64>(0));
    match (both, of_file) {
        (Ok(both), Some(of_file)) if !(0..=1).contains(&(both - of_file)) => {
            Err(OutboxError::ForeignLog { path: path.to_path_buf(), log: beside(path, "-wal") })
        }
        _ => Ok(()),
    }
}

/// To be called whenever the whole log is in the file: the next thing written may begin it anew.
pub(super) fn next_generation(conn: &Connection) -> rusqlite::Result<()> {
    conn.execute("UPDATE log SET generation = generation + 1", []).map(drop)
}
