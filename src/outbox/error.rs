//! What can go wrong with the outbox, and the way out.

use std::path::{Path, PathBuf};

use rusqlite::ErrorCode;
use rusqlite::ffi;
use towpath_contract::Position;

use crate::event::Seq;

/// What was found. [`OutboxError::help`] is the way out. Neither carries row data.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OutboxError {
    #[error("the folder {} of the outbox does not exist", .0.display())]
    NoFolder(PathBuf),
    #[error("the outbox {} is in use by {}", path.display(), holder(*pid))]
    Held { path: PathBuf, pid: Option<u32> },
    #[error("the outbox {} lies on a network file system ({file_system}), where locks and shared memory cannot be relied on", path.display())]
    NetworkFileSystem { path: PathBuf, file_system: &'static str },
    #[error("{} is not an outbox: found {found}, expected an SQLite file with application_id 0x746f7770", path.display())]
    NotAnOutbox { path: PathBuf, found: String },
    #[error("the outbox {} has version {found}, this Towpath knows versions up to {expected}", path.display())]
    Newer { path: PathBuf, found: i64, expected: i64 },
    #[error("{} is missing or empty, but its log {} is not: committed events are in there", path.display(), log.display())]
    LogWithoutFile { path: PathBuf, log: PathBuf },
    #[error("the outbox {} and its log {} do not belong together: an older copy of the file was put beside the log", path.display(), log.display())]
    ForeignLog { path: PathBuf, log: PathBuf },
    #[error("the outbox {} is damaged: {found}", path.display())]
    Corrupt { path: PathBuf, found: String },
    #[error("{operation} the outbox {}: {found}", path.display())]
    Io { operation: &'static str, path: PathBuf, found: String },
    #[error("more than {max} routes were ever configured for this outbox")]
    TooManyRoutes { max: u16 },

    #[error("source {name}: position {given} was to be recorded after {stored}, which is later")]
    PositionWentBack { name: String, stored: Position, given: Position },
    #[error("source {0}: nothing more is recorded until it is opened anew, since a record of it was refused")]
    SourceRefused(String),
    #[error("an event of {bytes} bytes (id {id}) does not fit: {max} bytes are the most")]
    EventTooLarge { id: String, bytes: usize, max: usize },
    #[error("no route has the number {0}")]
    UnknownRoute(u16),

    #[error("no event {0} is parked")]
    NotParked(Seq),
    #[error("event {seq} cannot go out yet: event {behind} of its key is parked before it")]
    WaitsBehind { seq: Seq, behind: Seq },
    #[error("event {0} cannot be published: its route could not make it whole")]
    Unfit(Seq),
    #[error("event {0} is neither waiting to be published nor parked")]
    NoSuchEvent(Seq),

    #[error("the outbox was closed")]
    Closed,
    #[error("inside the outbox: {0}")]
    Bug(String),
}

fn holder(pid: Option<u32>) -> String {
    match pid {
        Some(pid) => format!("process {pid}"),
        None => "another process".into(),
    }
}

impl OutboxError {
    /// One record was refused, and the outbox is well.
    pub fn is_refusal(&self) -> bool {
        matches!(
            self,
            OutboxError::PositionWentBack { .. }
                | OutboxError::SourceRefused(_)
                | OutboxError::EventTooLarge { .. }
                | OutboxError::UnknownRoute(_)
        )
    }

    /// What to do about it; `None` where the error is the caller's fault, or only says that the end has come.
    pub fn help(&self) -> Option<String> {
        Some(match self {
            OutboxError::NoFolder(folder) => {
                format!("create {}, writable for Towpath's user, or correct `outbox.sqlite`", folder.display())
            }
            OutboxError::Held { .. } => {
                "stop that process first, or give this one an outbox of its own (`outbox.sqlite`)".into()
            }
            OutboxError::NetworkFileSystem { .. } => "put `outbox.sqlite` on a local disk".into(),
            OutboxError::NotAnOutbox { .. } => "correct `outbox.sqlite`, or move that file away".into(),
            OutboxError::Newer { .. } => "start the newer Towpath that wrote it, or restore the file's backup".into(),
            OutboxError::LogWithoutFile { path, .. } => format!(
                "put {} back beside its log; if it is lost, move the log away and let every source take a new snapshot",
                path.display()
            ),
            OutboxError::ForeignLog { path, log } => format!(
                "put the newer {path} back; if only the older copy is left, move {log} and the file ending in -shm away: then the outbox \
                 stands where the copy does, and sources that have forgotten what came after it report a gap",
                path = path.display(),
                log = log.display()
            ),
            OutboxError::Unfit(_) => {
                "mend what its reason names, discard it, and read its row again with `towpath snapshot`".into()
            }
            OutboxError::Corrupt { path, .. } => corrupt_help(path),
            OutboxError::Io { .. } => {
                "look at the disk and at the system's log, then start Towpath again: it goes on from what is on disk"
                    .into()
            }
            OutboxError::TooManyRoutes { .. } => {
                "settle everything, move the file away, and let every source take a new snapshot".into()
            }
            OutboxError::WaitsBehind { behind, .. } => format!("retry or discard event {behind} first"),
            OutboxError::PositionWentBack { .. } | OutboxError::Bug(_) => {
                "please report this: Towpath is wrong, and has stopped before doing harm".into()
            }
            _ => return None,
        })
    }
}

fn corrupt_help(path: &Path) -> String {
    let path = path.display();
    format!(
        "stop Towpath and keep a copy of {path}, {path}-wal and {path}-shm; then try `sqlite3 {path} .recover | sqlite3 recovered.db` and \
         put recovered.db in its place, or set the files aside and let every source take a new snapshot"
    )
}

/// What a failure of SQLite asks for.
#[derive(Debug)]
pub(super) enum Failure {
    /// Nothing was written and nothing is lost: roll back, wait, try again.
    Stall(Stall),
    /// What memory holds of the file can no longer be trusted: stop.
    Fatal(OutboxError),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stall {
    DiskFull,
    /// Another program holds the file's write lock.
    Locked,
}

impl Failure {
    pub(super) fn of(operation: &'static str, path: &Path, error: &rusqlite::Error) -> Failure {
        let path = path.to_path_buf();
        let Some(code) = error.sqlite_error() else {
            return Failure::Fatal(OutboxError::Bug(format!("{operation}: {error}")));
        };
        let found = format!("{error} (SQLite code {})", code.extended_code);
        match code.code {
            ErrorCode::DiskFull => Failure::Stall(Stall::DiskFull),
            // The index of the log is a file too; this is how SQLite says that it could not grow.
            _ if code.extended_code == ffi::SQLITE_IOERR_SHMSIZE => Failure::Stall(Stall::DiskFull),
            ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => Failure::Stall(Stall::Locked),
            ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase => {
                Failure::Fatal(OutboxError::Corrupt { path, found })
            }
            ErrorCode::SystemIoFailure
            | ErrorCode::CannotOpen
            | ErrorCode::ReadOnly
            | ErrorCode::PermissionDenied
            | ErrorCode::AuthorizationForStatementDenied
            | ErrorCode::OutOfMemory => Failure::Fatal(OutboxError::Io { operation, path, found }),
            _ => Failure::Fatal(OutboxError::Bug(format!("{operation}: {found}"))),
        }
    }

    /// For calls outside of the writer, which cannot wait.
    pub(super) fn into_error(self, operation: &'static str, path: &Path) -> OutboxError {
        match self {
            Failure::Fatal(error) => error,
            Failure::Stall(stall) => OutboxError::Io {
                operation,
                path: path.to_path_buf(),
                found: match stall {
                    Stall::DiskFull => "the disk is full".into(),
                    Stall::Locked => "another program holds its write lock".into(),
                },
            },
        }
    }
}
