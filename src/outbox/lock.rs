//! One process per outbox, on a disk that keeps its promises.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::event::Seq;

use super::error::OutboxError;

/// Held for the life of the process; the kernel lets go of it however the process ends. The file itself stays, since
/// removing it would let two processes lock two files of one name.
#[derive(Debug)]
pub(super) struct FileLock {
    file: File,
}

/// What the last holder wrote down.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Note {
    pid: Option<u32>,
    /// The newest seq that it had made durable: a file that ends before it is an older copy.
    pub(super) last_seq: Option<Seq>,
}

pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_os_string();
    name.push(suffix);
    name.into()
}

impl FileLock {
    pub(super) fn take(path: &Path) -> Result<(FileLock, Note), OutboxError> {
        let lock_path = beside(path, ".lock");
        let failed = |error: std::io::Error| OutboxError::Io {
            operation: "locking",
            path: path.to_path_buf(),
            found: format!("{}: {error}", lock_path.display()),
        };
        let mut file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&lock_path).map_err(failed)?;
        let locked = flock(file.as_fd(), FlockOperation::NonBlockingLockExclusive);
        let mut text = String::new();
        // An unreadable note says nothing; the lock alone decides.
        let _ = Read::by_ref(&mut file).take(256).read_to_string(&mut text);
        let note = Note::parse(&text);
        match locked {
            Ok(()) => Ok((FileLock { file }, note)),
            Err(Errno::WOULDBLOCK) => Err(OutboxError::Held { path: path.to_path_buf(), pid: note.pid }),
            Err(error) => Err(failed(error.into())),
        }
    }

    /// For people and for the next start. Not synced: after a power failure an older note only says less.
    pub(super) fn note(&self, last_seq: Seq) -> std::io::Result<()> {
        let mut file = &self.file;
        file.rewind()?;
        // Of fixed width, so that a longer text of before leaves no rest.
        writeln!(file, "pid {:<10} last_seq {last_seq:<20}", std::process::id())
    }
}

impl Note {
    fn parse(text: &str) -> Note {
        let words = text.split_whitespace().collect::<Vec<_>>();
        let value = |name: &str| words.iter().position(|word| *word == name).and_then(|at| words.get(at + 1));
        Note {
            pid: value("pid").and_then(|text| text.parse().ok()),
            last_seq: value("last_seq").and_then(|text| text.parse().ok()),
        }
    }
}

/// By `statfs(2)`'s magic numbers (linux/magic.h). These share files between machines: SQLite's WAL mode needs memory
/// shared by all who use the file (sqlite.org/wal.html, section 1), and flock may mean nothing to the others.
const NETWORK: [(u32, &str); 11] = [
    (0x6969, "NFS"),
    (0x517b, "SMB"),
    (0xff53_4d42, "CIFS"),
    (0xfe53_4d42, "SMB 2"),
    (0x5346_414f, "AFS"),
    (0x6b41_4653, "AFS"),
    (0x00c3_6400, "Ceph"),
    (0x0102_1997, "9P"),
    (0x0bd0_0bd0, "Lustre"),
    (0x7461_636f, "OCFS2"),
    (0x0116_1970, "GFS2"),
];

/// These may be fine, and may not be.
const DOUBTFUL: [(u32, &str); 3] = [
    (0x6573_5546, "is on a FUSE file system, which may be a network's; use a local disk if it is"),
    (0x0102_1994, "is in memory (tmpfs): what it holds is lost with the machine"),
    (0x8584_58f6, "is in memory (ramfs): what it holds is lost with the machine"),
];

/// Refuses network file systems; returns a warning where the file system's promises are in doubt.
pub(super) fn check_file_system(folder: &Path, path: &Path) -> Result<Option<String>, OutboxError> {
    let statfs = rustix::fs::statfs(folder).map_err(|error| OutboxError::Io {
        operation: "looking at the file system of",
        path: path.to_path_buf(),
        found: error.to_string(),
    })?;
    judge(statfs.f_type as u32, path)
}

fn judge(magic: u32, path: &Path) -> Result<Option<String>, OutboxError> {
    if let Some((_, file_system)) = NETWORK.iter().find(|(network, _)| *network == magic) {
        return Err(OutboxError::NetworkFileSystem { path: path.to_path_buf(), file_system });
    }
    let doubt = DOUBTFUL.iter().find(|(doubtful, _)| *doubtful == magic);
    Ok(doubt.map(|(_, doubt)| format!("the outbox {} {doubt}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn network_file_systems_are_refused_and_doubtful_ones_warned_of() {
        let path = Path::new("/mnt/outbox.db");
        let refused = judge(0x6969, path).unwrap_err();
        assert!(refused.to_string().contains("NFS") && refused.help().unwrap().contains("local disk"));
        assert!(judge(0x0102_1994, path).unwrap().unwrap().contains("tmpfs"));
        assert_eq!(judge(0xef53, path).unwrap(), None, "ext4");
    }

    #[test]
    fn a_note_is_read_back_and_nonsense_says_nothing() {
        assert_eq!(Note::parse("pid 42         last_seq 7        \n"), Note { pid: Some(42), last_seq: Some(7) });
        assert_eq!(Note::parse("pid x"), Note::default());
    }
}
