//! A small but whole connector, and its pass through the suite. `docs/new-connector.md` walks through this file.
//!
//! The legacy system is a journal: a file whose first line names it, and whose every further line is one committed transaction,
//! a JSON array of `["insert", id, note]`, `["update", id, note]` and `["delete", id]`.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write as _};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value as Json, json};
use towpath_conformance::{Harness, Write};
use towpath_contract::*;

// ---- config.rs: what the user writes, and the source that it makes ----

struct JournalSource {
    path: PathBuf,
}

impl Source for JournalSource {
    fn capabilities(&self) -> Capabilities {
        Capabilities { sees_deletes: true, sees_before_images: false, sees_transactions: true, snapshots: false }
    }

    fn open(&self, resume: Resume) -> Fut<'_, Result<Box<dyn Capture>>> {
        Box::pin(async move {
            let capture = JournalCapture::open(&self.path)?;
            if let Some(wanted) = resume.identity.filter(|identity| *identity != capture.identity) {
                let message = format!("this is journal {}, the stored position belongs to {wanted}", capture.identity);
                return Err(Error::operator(ErrorKind::Gap, "opening the journal", message)
                    .with_help("point the source at the journal that it read before, or forget its position"));
            }
            Ok(Box::new(capture.starting_after(resume.position)) as Box<dyn Capture>)
        })
    }

    fn tables(&self) -> Fut<'_, Result<Vec<TableSchema>>> {
        Box::pin(async { Ok(vec![items()]) })
    }

    /// A journal has changes, and no rows to look at.
    fn sample<'a>(&'a self, _: &'a str, _: &'a str, _: usize) -> Fut<'a, Result<Batch>> {
        Box::pin(async { Ok(Batch::new()) })
    }

    fn doctor(&self, _: Known) -> Fut<'_, Vec<Finding>> {
        Box::pin(async move {
            let problem = File::open(&self.path).err();
            let finding = |error: std::io::Error| Finding {
                severity: Severity::Error,
                code: "journal_unreadable",
                message: format!("{} cannot be read: {error}", self.path.display()),
                fix: Some(format!("chmod o+r {}", self.path.display())),
                who: Some("the owner of the journal".into()),
            };
            problem.map(finding).into_iter().collect()
        })
    }
}

fn items() -> TableSchema {
    let column = |name: &str, kind, key| Column { name: name.into(), kind, type_name: "journal".into(), key };
    let columns = vec![column("id", Kind::Int, true), column("note", Kind::Text, false)];
    TableSchema::new(String::new(), "items".into(), columns, KeyKind::Columns)
}

// ---- position.rs: (offset of the transaction's line, ordinal within it), big-endian so that bytes sort as numbers ----

fn position(line_offset: u64, ordinal: u32) -> Position {
    let mut bytes = line_offset.to_be_bytes().to_vec();
    bytes.extend_from_slice(&ordinal.to_be_bytes());
    Position::from_bytes(&bytes).expect("12 bytes fit")
}

/// The offset of the line to read first. A position after a whole transaction is (offset of the next line, 0).
fn line_of(position: &Position) -> u64 {
    u64::from_be_bytes(position.as_bytes()[..8].try_into().expect("a position of ours has 12 bytes"))
}

// ---- reader.rs: the capture ----

struct JournalCapture {
    path: PathBuf,
    file: File,
    inode: u64,
    identity: String,
    table: Arc<TableSchema>,
    /// What was read and not yet handed over; it starts at `offset`.
    unread: Vec<u8>,
    offset: u64,
    /// Changes at or before this were handed over in an earlier run.
    after: Option<Position>,
}

impl JournalCapture {
    fn open(path: &PathBuf) -> Result<JournalCapture> {
        let failed = |error: std::io::Error| Error::retry(ErrorKind::Connection, "opening the journal", error);
        let mut file = File::open(path).map_err(failed)?;
        let inode = file.metadata().map_err(failed)?.ino();
        let mut head = [0; 16];
        file.read_exact(&mut head).map_err(failed)?;
        Ok(JournalCapture {
            path: path.clone(),
            file,
            inode,
            identity: String::from_utf8_lossy(&head[..15]).into_owned(),
            table: Arc::new(items()),
            unread: Vec::new(),
            offset: 16,
            after: None,
        })
    }

    fn starting_after(mut self, after: Option<Position>) -> JournalCapture {
        self.offset = after.as_ref().map_or(16, line_of);
        self.after = after;
        self
    }

    /// Hands over whole lines until the batch is full. Cancel-safe: it does not await.
    fn decode(&mut self, batch: &mut Batch) -> Result<()> {
        while let Some(end) = self.unread.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.unread.drain(..=end).collect();
            self.change_lines(&line, batch)?;
            self.offset += line.len() as u64;
            batch.position = Some(position(self.offset, 0));
            if batch.bytes() >= BATCH_BYTES {
                break;
            }
        }
        Ok(())
    }

    fn change_lines(&self, line: &[u8], batch: &mut Batch) -> Result<()> {
        let broken = |found: &dyn std::fmt::Display| {
            Error::operator(ErrorKind::Protocol, format!("reading the journal at byte {}", self.offset), found)
        };
        let writes: Vec<(String, i64, Option<String>)> = serde_json::from_slice::<Vec<Json>>(line)
            .map_err(|error| broken(&error))?
            .into_iter()
            .map(|write| Some((write[0].as_str()?.into(), write[1].as_i64()?, write[2].as_str().map(Into::into))))
            .collect::<Option<_>>()
            .ok_or_else(|| broken(&"expected [op, id, note]"))?;
        batch.begin_transaction(Transaction { id: self.offset.to_string(), commit_time_us: 0 });
        for (ordinal, (op, id, note)) in (1..).zip(writes) {
            let position = position(self.offset, ordinal);
            if self.after.is_some_and(|after| position <= after) {
                continue;
            }
            let (id, note) = (id.to_string(), note.unwrap_or_default());
            match op.as_str() {
                "insert" | "update" => {
                    let op = if op == "insert" { Op::Insert } else { Op::Update };
                    let row = [Value::Data(id.as_bytes()), Value::Data(note.as_bytes())];
                    batch.change(op, &self.table, position).after(row);
                }
                "delete" => {
                    let row = [Value::Data(id.as_bytes()), Value::Unavailable];
                    batch.change(Op::Delete, &self.table, position).before(row);
                }
                // Never skipped: what is not understood stops the source.
                unknown => return Err(broken(&format!("unknown operation {unknown:?}"))),
            }
        }
        Ok(())
    }

    fn read_more(&mut self) -> std::io::Result<usize> {
        self.file.seek(SeekFrom::Start(self.offset + self.unread.len() as u64))?;
        (&mut self.file).take(1 << 20).read_to_end(&mut self.unread)
    }
}

impl Capture for JournalCapture {
    fn identity(&self) -> &str {
        &self.identity
    }

    fn next<'a>(&'a mut self, batch: &'a mut Batch) -> Fut<'a, Result<()>> {
        Box::pin(async move {
            loop {
                self.decode(batch)?;
                if !batch.is_empty() {
                    return Ok(());
                }
                let read = self.read_more();
                match read {
                    Ok(0) => tokio::time::sleep(Duration::from_millis(2)).await,
                    Ok(_) => {}
                    Err(error) => return Err(Error::retry(ErrorKind::Connection, "reading the journal", error)),
                }
                if fs::metadata(&self.path).map_or(0, |metadata| metadata.ino()) != self.inode {
                    let message = "the file was replaced while it was being read";
                    return Err(Error::retry(ErrorKind::Connection, "reading the journal", message));
                }
            }
        })
    }

    fn recorded(&mut self, _: &Position) {} // a journal is never told to forget

    fn keep_alive(&mut self) -> Fut<'_, Result<()>> {
        Box::pin(async { Ok(()) }) // and has no connection that could be lost by silence
    }

    fn snapshot(&mut self, _: SnapshotRequest) -> Result<Vec<StateEntry>> {
        Err(Error::operator(ErrorKind::Setup, "asking for a snapshot", "a journal holds changes only"))
    }

    fn progress(&self) -> Progress {
        Progress { position_text: self.offset.to_string(), ..Progress::default() }
    }

    fn close(self: Box<Self>) -> Fut<'static, Result<()>> {
        Box::pin(async { Ok(()) })
    }
}

// ---- tests/conformance.rs: the harness, and the one call ----

struct JournalHarness {
    folder: tempfile::TempDir,
}

impl JournalHarness {
    fn path(&self) -> PathBuf {
        self.folder.path().join("journal")
    }
}

impl Harness for JournalHarness {
    async fn start() -> Self {
        let harness = JournalHarness { folder: tempfile::tempdir().expect("a folder") };
        fs::write(harness.path(), "journal-0000001\n").expect("a journal");
        harness
    }

    fn source(&self) -> Box<dyn Source> {
        Box::new(JournalSource { path: self.path() })
    }

    fn table(&self) -> (&str, &str) {
        ("", "items")
    }

    async fn commit(&self, writes: &[Write]) {
        let write = |write: &Write| match write {
            Write::Insert { id, note } => json!(["insert", id, note]),
            Write::Update { id, note } => json!(["update", id, note]),
            Write::Delete { id } => json!(["delete", id]),
        };
        let line = Json::Array(writes.iter().map(write).collect());
        let mut file = fs::OpenOptions::new().append(true).open(self.path()).expect("the journal");
        file.write_all(format!("{line}\n").as_bytes()).expect("written");
    }

    async fn disconnect(&self) {
        let copy = self.folder.path().join("copy");
        fs::copy(self.path(), &copy).expect("copied");
        fs::rename(copy, self.path()).expect("replaced");
    }
}

#[tokio::test]
async fn a_journal_passes_the_suite() {
    towpath_conformance::run::<JournalHarness>().await;
}
