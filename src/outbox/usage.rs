//! How much the outbox takes on disk, and moving its log into the file.

use std::fs;
use std::path::Path;
use std::time::Duration;

use rusqlite::Connection;

use super::open::BUSY;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Usage {
    pub(super) file_bytes: u64,
    free_bytes: u64,
    /// The length of the log's file.
    pub(super) log_bytes: u64,
    /// What of it is not yet in the file.
    pub(super) log_pending_bytes: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Checkpoint {
    /// As far as readers allow.
    Passive,
    /// Waits for readers, briefly, and shrinks the log to nothing.
    Truncate,
}

/// Our own readings take a few milliseconds; a person's may take hours, and are not waited for.
const READERS: Duration = Duration::from_millis(50);

impl Usage {
    pub(super) fn measure(conn: &Connection, log: &Path) -> rusqlite::Result<Usage> {
        let number = |sql| conn.prepare_cached(sql)?.query_row([], |row| row.get::<_, i64>(0));
        let page_bytes = number("PRAGMA page_size")? as u64;
        let log_now = Log::ask(conn, "PRAGMA wal_checkpoint(NOOP)")?;
        Ok(Usage {
            file_bytes: number("PRAGMA page_count")? as u64 * page_bytes,
            free_bytes: number("PRAGMA freelist_count")? as u64 * page_bytes,
            // Not there before the first write.
            log_bytes: fs::metadata(log).map_or(0, |metadata| metadata.len()),
            log_pending_bytes: log_now.frames.saturating_sub(log_now.moved) * page_bytes,
        })
    }

    /// Nothing of the log is not in the file, or there is no log: the next write may begin it anew.
    pub(super) fn log_is_in_file(conn: &Connection) -> rusqlite::Result<bool> {
        let log = Log::ask(conn, "PRAGMA wal_checkpoint(NOOP)")?;
        Ok(log.frames == log.moved)
    }

    /// What `max_size` bounds.
    pub(super) fn used_bytes(&self) -> u64 {
        self.file_bytes - self.free_bytes + self.log_bytes
    }

    /// Returns whether readers left nothing to be done.
    pub(super) fn checkpoint(conn: &Connection, mode: Checkpoint) -> rusqlite::Result<bool> {
        match mode {
            Checkpoint::Passive => {
                let log = Log::ask(conn, "PRAGMA wal_checkpoint(PASSIVE)")?;
                Ok(log.frames == log.moved)
            }
            Checkpoint::Truncate => {
                conn.busy_timeout(READERS)?;
                let log = Log::ask(conn, "PRAGMA wal_checkpoint(TRUNCATE)");
                conn.busy_timeout(BUSY)?;
                Ok(!log?.busy)
            }
        }
    }
}

/// What `wal_checkpoint` answers (sqlite.org/pragma.html#pragma_wal_checkpoint).
struct Log {
    busy: bool,
    frames: u64,
    /// Those that are in the file.
    moved: u64,
}

impl Log {
    fn ask(conn: &Connection, pragma: &str) -> rusqlite::Result<Log> {
        conn.prepare_cached(pragma)?.query_row([], |row| {
            // -1 where there is no log yet.
            let number = |column| Ok::<_, rusqlite::Error>(row.get::<_, i64>(column)?.max(0) as u64);
            Ok(Log { busy: row.get(0)?, frames: number(1)?, moved: number(2)? })
        })
    }
}
