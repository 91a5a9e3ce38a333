//! Transactions in progress, on disk until they commit.
//!
//! One plain file per top-level transaction, in the order of arrival: 16 bytes of head (length of the message, id of the
//! (sub)transaction, log address; big-endian), then the message as it came. Nothing here outlives the connection: the
//! server sends again what was not confirmed, so files are never synced, and removed at the start and the end.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::PathBuf;

use towpath_contract::{ByteSize, Error, ErrorKind, Result, planted};

use crate::position::Lsn;

/// Written to the file when it holds this much, and at the end of a block.
const WRITE_BYTES: usize = 128 << 10;
const READ_BYTES: usize = 128 << 10;
const HEAD_BYTES: usize = 16;
/// What the memory of an aborted subtransaction counts against the bound.
const ABORTED_BYTES: u64 = 16;
const EXTENSION: &str = "spool";

pub(crate) struct Spool {
    folder: PathBuf,
    bytes_max: u64,
    bytes: u64,
    transactions: HashMap<u32, Spooled>,
    /// The block that is arriving: its transaction, its file, what is not yet written.
    block: Option<(u32, File)>,
    unwritten: Vec<u8>,
}

#[derive(Default)]
struct Spooled {
    bytes: u64,
    aborted: HashSet<u32>,
}

impl Spool {
    /// Takes the folder for its own and empties it.
    pub(crate) fn open(folder: PathBuf, max: ByteSize) -> Result<Spool> {
        let spool = Spool {
            folder,
            bytes_max: max.0,
            bytes: 0,
            transactions: HashMap::new(),
            block: None,
            unwritten: Vec::new(),
        };
        let created = fs::DirBuilder::new().recursive(true).mode(0o700).create(&spool.folder);
        created.and_then(|()| spool.remove_files()).map_err(|error| spool.failed(&error))?;
        Ok(spool)
    }

    /// Bytes on disk for transactions in progress.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Stream Start.
    pub(crate) fn start_block(&mut self, xid: u32, first: bool) -> Result<()> {
        if self.block.is_some() || first == self.transactions.contains_key(&xid) {
            return Err(Error::bug("spooling a transaction", "its blocks came out of order"));
        }
        let mut options = OpenOptions::new();
        options.append(true).mode(0o600);
        if first {
            options.create_new(true);
        }
        let file = options.open(self.path(xid)).map_err(|error| self.failed(&error))?;
        self.transactions.entry(xid).or_default();
        self.block = Some((xid, file));
        Ok(())
    }

    /// A message of the block that is arriving.
    ///
    /// Blocking writes, on purpose: they go to the page cache in large pieces, which takes less than handing them to
    /// another thread would.
    pub(crate) fn append(&mut self, xid: u32, lsn: Lsn, message: &[u8]) -> Result<()> {
        let Some((top, _)) = self.block else {
            return Err(Error::bug("spooling a transaction", "a change came outside of its block"));
        };
        let length = (HEAD_BYTES + message.len()) as u64;
        self.grow(top, length)?;
        self.unwritten.extend_from_slice(&(message.len() as u32).to_be_bytes());
        self.unwritten.extend_from_slice(&xid.to_be_bytes());
        self.unwritten.extend_from_slice(&lsn.0.to_be_bytes());
        self.unwritten.extend_from_slice(message);
        if self.unwritten.len() >= WRITE_BYTES { self.write() } else { Ok(()) }
    }

    /// Stream Stop.
    pub(crate) fn end_block(&mut self) -> Result<()> {
        if planted("rows_lost_at_stream_stop") {
            self.unwritten.clear();
        }
        self.write()?;
        self.block = None;
        Ok(())
    }

    /// Stream Abort of a subtransaction: its own rows will be left out. Its children are named by aborts of their own.
    pub(crate) fn abort_sub(&mut self, xid: u32, sub_xid: u32) -> Result<()> {
        self.grow(xid, ABORTED_BYTES)?;
        if let Some(transaction) = self.transactions.get_mut(&xid) {
            transaction.aborted.insert(sub_xid);
        }
        Ok(())
    }

    /// The transaction was rolled back, or read to its end.
    pub(crate) fn remove(&mut self, xid: u32) -> Result<()> {
        let Some(transaction) = self.transactions.remove(&xid) else { return Ok(()) };
        self.bytes -= transaction.bytes;
        fs::remove_file(self.path(xid)).map_err(|error| self.failed(&error))
    }

    /// Stream Commit: the transaction's messages, to be read in order and then removed.
    pub(crate) fn replay(&mut self, xid: u32) -> Result<Replay> {
        let transaction = self.transactions.get_mut(&xid).ok_or_else(|| {
            Error::bug("reading a spooled transaction", "the server committed a transaction that it did not stream")
        })?;
        let aborted = std::mem::take(&mut transaction.aborted);
        let file = File::open(self.path(xid)).map_err(|error| self.failed(&error))?;
        Ok(Replay { file, buffer: Vec::new(), start: 0, aborted, folder: self.folder.clone() })
    }

    fn grow(&mut self, xid: u32, bytes: u64) -> Result<()> {
        let Some(transaction) = self.transactions.get_mut(&xid) else { return Ok(()) };
        transaction.bytes += bytes;
        self.bytes += bytes;
        if self.bytes <= self.bytes_max {
            return Ok(());
        }
        let message = format!("transactions in progress need more than spool_max ({})", ByteSize(self.bytes_max));
        Err(Error::operator(ErrorKind::Limit, "spooling a transaction", message).with_help(
            "raise `spool_max` if the disk has room, or end the long transaction on the server (pg_stat_activity shows it)",
        ))
    }

    fn write(&mut self) -> Result<()> {
        if let Some((_, file)) = &mut self.block {
            let written = file.write_all(&self.unwritten);
            written.map_err(|error| self.failed(&error))?;
        }
        self.unwritten.clear();
        self.unwritten.shrink_to(2 * WRITE_BYTES);
        Ok(())
    }

    fn path(&self, xid: u32) -> PathBuf {
        self.folder.join(format!("{xid}.{EXTENSION}"))
    }

    fn remove_files(&self) -> io::Result<()> {
        for entry in fs::read_dir(&self.folder)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == EXTENSION) {
                fs::remove_file(path)?;
            }
        }
        Ok(())
    }

    fn failed(&self, error: &io::Error) -> Error {
        failed(&self.folder, error)
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        // What stays behind is removed at the next start.
        let _ = self.remove_files();
    }
}

fn failed(folder: &std::path::Path, error: &io::Error) -> Error {
    let operation = format!("spooling transactions in {}", folder.display());
    match error.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::NotADirectory => {
            Error::operator(ErrorKind::Storage, operation, error)
                .with_help("the folder must be writable for Towpath's user")
        }
        io::ErrorKind::FileTooLarge | io::ErrorKind::InvalidFilename => {
            Error::operator(ErrorKind::Storage, operation, error).with_help("put the outbox on another file system")
        }
        // These pass when somebody makes room, or with the disk's trouble; meanwhile nothing is confirmed and nothing lost.
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            Error::retry(ErrorKind::Storage, operation, "the disk is full").with_help("make room there")
        }
        _ => {
            Error::retry(ErrorKind::Storage, operation, error).with_help("see to the disk: the system's log says more")
        }
    }
}

/// A committed transaction, read back.
pub(crate) struct Replay {
    file: File,
    buffer: Vec<u8>,
    start: usize,
    aborted: HashSet<u32>,
    folder: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Record<'a> {
    pub(crate) lsn: Lsn,
    pub(crate) message: &'a [u8],
}

impl Replay {
    /// The next message that was not rolled back, and its length for [`Replay::consume`]; `None` at the end.
    pub(crate) fn peek(&mut self) -> Result<Option<(Record<'_>, usize)>> {
        loop {
            let Some(head) = self.available(HEAD_BYTES)? else { return Ok(None) };
            let (length, xid) = (be_u32(&head[0..4]) as usize, be_u32(&head[4..8]));
            if self.aborted.contains(&xid) {
                self.skip(HEAD_BYTES + length)?;
                continue;
            }
            let total = HEAD_BYTES + length;
            let cut = || Error::bug("reading a spooled transaction", "its file ends within a message");
            let record = self.available(total)?.ok_or_else(cut)?;
            let lsn = Lsn(u64::from(be_u32(&record[8..12])) << 32 | u64::from(be_u32(&record[12..16])));
            return Ok(Some((Record { lsn, message: &record[HEAD_BYTES..] }, total)));
        }
    }

    pub(crate) fn consume(&mut self, length: usize) {
        self.start += length;
        if self.start == self.buffer.len() && self.buffer.capacity() > 2 * READ_BYTES {
            (self.buffer, self.start) = (Vec::new(), 0);
        }
    }

    fn skip(&mut self, length: usize) -> Result<()> {
        self.available(length)?;
        self.consume(length);
        Ok(())
    }

    /// The next `length` bytes; `None` where the file ends before them.
    fn available(&mut self, length: usize) -> Result<Option<&[u8]>> {
        if self.buffer.len() - self.start < length {
            self.buffer.drain(..self.start);
            self.start = 0;
            let wanted = length.max(READ_BYTES) - self.buffer.len();
            let read = (&mut self.file).take(wanted as u64).read_to_end(&mut self.buffer);
            read.map_err(|error| failed(&self.folder, &error))?;
        }
        Ok(self.buffer.get(self.start..self.start + length))
    }
}

fn be_u32(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0, |number, byte| number << 8 | u32::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn spool(max: u64) -> (tempfile::TempDir, Spool) {
        let folder = tempfile::tempdir().unwrap();
        let spool = Spool::open(folder.path().join("source"), ByteSize(max)).unwrap();
        (folder, spool)
    }

    fn read_all(mut replay: Replay) -> Vec<(u64, Vec<u8>)> {
        let mut found = Vec::new();
        while let Some((record, length)) = replay.peek().unwrap() {
            found.push((record.lsn.0, record.message.to_vec()));
            replay.consume(length);
        }
        found
    }

    fn files(spool: &Spool) -> usize {
        fs::read_dir(&spool.folder).unwrap().count()
    }

    #[test]
    fn interleaved_transactions_are_read_back_in_their_own_order() {
        let (_folder, mut spool) = spool(1 << 20);
        for block in 0..3u64 {
            for xid in [7, 9] {
                spool.start_block(xid, block == 0).unwrap();
                for change in 0..10 {
                    spool.append(xid, Lsn(block * 100 + change), format!("{xid}:{block}:{change}").as_bytes()).unwrap();
                }
                spool.end_block().unwrap();
            }
        }
        assert!(spool.bytes() > 0);
        for xid in [9, 7] {
            let found = read_all(spool.replay(xid).unwrap());
            assert_eq!(found.len(), 30);
            assert_eq!(found[13], (103, format!("{xid}:1:3").into_bytes()));
            spool.remove(xid).unwrap();
        }
        assert_eq!((spool.bytes(), files(&spool)), (0, 0));
    }

    #[test]
    fn the_bound_stops_it_with_the_way_out() {
        let (_folder, mut spool) = spool(1000);
        spool.start_block(1, true).unwrap();
        spool.append(1, Lsn(1), &[0; 900]).unwrap();
        let error = spool.append(1, Lsn(2), &[0; 900]).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Limit);
        assert!(error.to_string().contains("spool_max"), "{error}");
    }

    #[test]
    fn old_files_are_removed_at_the_start_and_own_ones_at_the_end() {
        let (folder, mut first) = spool(1 << 20);
        first.start_block(1, true).unwrap();
        first.append(1, Lsn(1), b"left behind").unwrap();
        first.end_block().unwrap();
        assert_eq!(files(&first), 1);
        let second = Spool::open(folder.path().join("source"), ByteSize(1)).unwrap();
        assert_eq!(files(&second), 0);
        drop((first, second));
        assert_eq!(fs::read_dir(folder.path().join("source")).unwrap().count(), 0);
    }

    proptest! {
        #[test]
        fn aborted_subtransactions_lose_exactly_their_own_messages(
            messages in proptest::collection::vec((1..5u32, 0..300_000usize), 0..30),
            aborted in proptest::collection::hash_set(2..5u32, 0..3),
            end_block_every in 1..5usize,
        ) {
            let (_folder, mut spool) = spool(1 << 30);
            spool.start_block(1, true).unwrap();
            for (index, (xid, length)) in messages.iter().enumerate() {
                spool.append(*xid, Lsn(index as u64), &vec![index as u8; *length]).unwrap();
                if index % end_block_every == 0 {
                    spool.end_block().unwrap();
                    spool.start_block(1, false).unwrap();
                }
            }
            spool.end_block().unwrap();
            for sub_xid in &aborted {
                spool.abort_sub(1, *sub_xid).unwrap();
            }
            let expected: Vec<_> = messages.iter().enumerate().filter(|(_, (xid, _))| !aborted.contains(xid))
                .map(|(index, (_, length))| (index as u64, vec![index as u8; *length])).collect();
            prop_assert_eq!(read_all(spool.replay(1).unwrap()), expected);
        }
    }
}
