//! The capture: what the engine calls, over the thread that reads.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::mpsc;
use towpath_contract::{
    AFTER_GAP, Batch, Capture, Error, ErrorKind, Fut, Position, Progress, Result, Resume, SnapshotRequest, StateEntry,
};

use crate::config::FilesConfig;
use crate::extract::Extracts;
use crate::folder::Folder;
use crate::history::History;
use crate::position::FilePosition;
use crate::table::Table;
use crate::worker::{Shared, Worker};

pub(crate) struct FilesCapture {
    identity: String,
    batches: mpsc::Receiver<Result<Batch>>,
    /// `None` once it is closed.
    control: Option<std::sync::mpsc::Sender<FilePosition>>,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    recorded: Option<FilePosition>,
    /// To be told to the thread.
    untold: bool,
}

/// Batches read ahead of the one that is being recorded.
const AHEAD: usize = 1;

pub(crate) fn open(
    config: &FilesConfig,
    spool: PathBuf,
    tables: Arc<Vec<Table>>,
    resume: Resume,
) -> Result<FilesCapture> {
    let opening = || format!("opening the folder {}", config.folder.display());
    let folder = Folder::open(config).map_err(|error| {
        Error::retry(ErrorKind::Connection, opening(), error)
            .with_help("see that the folder is there and that Towpath may write to it")
    })?;
    let identity = identity(folder.path());
    let after_gap = resume.state.contains_key(AFTER_GAP);
    if let Some(stored) = resume.identity.as_ref().filter(|stored| **stored != identity && !after_gap) {
        let message = format!("this folder is {identity}, and the stored position belongs to {stored}");
        return Err(Error::operator(ErrorKind::Gap, opening(), message).with_help(
            "set `folder` to the path that it had before, or accept the gap with `towpath snapshot SOURCE --after-gap`",
        ));
    }
    let mut history = History::read(&resume.state, config.remember)
        .map_err(|key| Error::bug(opening(), format!("the stored entry {key} is not of this version's making")))?;
    let at = match &resume.position {
        None => FilePosition { generation: 1, record: 0 },
        Some(position) => FilePosition::decode(position).ok_or_else(|| {
            Error::bug(opening(), format!("the stored position {position} is not of this connector's making"))
        })?,
    };
    let mut forget = Vec::new();
    if after_gap {
        forget.push(AFTER_GAP.to_owned());
        forget.extend(history.forget_extracts());
    }
    // After a gap what was left of the file that was begun is given up, by a person's word.
    let at = match after_gap {
        true => FilePosition { generation: at.generation.max(history.last_generation()) + 1, record: 0 },
        false => at,
    };
    let (out, batches) = mpsc::channel(AHEAD);
    let (control, told) = std::sync::mpsc::channel();
    let shared = Arc::new(Shared::default());
    let worker = Worker {
        tables,
        folder,
        extracts: Extracts::new(spool),
        history,
        at,
        record_max: config.record_max.0 as usize,
        scan_every: config.scan_every.0,
        out,
        control: told,
        shared: shared.clone(),
        forget,
        finished: Vec::new(),
    };
    let thread = std::thread::Builder::new()
        .name("files".into())
        .spawn(move || worker.run())
        .map_err(|error| Error::retry(ErrorKind::Limit, opening(), error))?;
    Ok(FilesCapture {
        identity,
        batches,
        control: Some(control),
        shared,
        thread: Some(thread),
        recorded: resume.position.as_ref().and_then(FilePosition::decode),
        untold: false,
    })
}

/// The folder's path, hashed (FNV-1a, 64 bits): the same after a restart, on the same path.
fn identity(folder: &std::path::Path) -> String {
    let mut hash = 0xcbf2_9ce4_8422_2325u64;
    for byte in folder.as_os_str().as_encoded_bytes() {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    format!("files-{hash:016x}")
}

impl FilesCapture {
    fn tell(&mut self) {
        if let (true, Some(recorded), Some(control)) = (self.untold, self.recorded, &self.control) {
            // A thread that ended has nothing to move any more; why it ended comes with the next batch.
            let _ = control.send(recorded);
            self.untold = false;
        }
    }
}

impl Capture for FilesCapture {
    fn identity(&self) -> &str {
        &self.identity
    }

    fn next<'a>(&'a mut self, batch: &'a mut Batch) -> Fut<'a, Result<()>> {
        Box::pin(async move {
            self.tell();
            match self.batches.recv().await {
                Some(read) => append(&read?, batch),
                None => return Err(Error::bug("reading files", "the thread that reads ended without a word")),
            }
            Ok(())
        })
    }

    fn recorded(&mut self, position: &Position) {
        self.recorded = FilePosition::decode(position);
        self.untold = true;
    }

    fn keep_alive(&mut self) -> Fut<'_, Result<()>> {
        Box::pin(async move {
            self.tell();
            Ok(())
        })
    }

    fn snapshot(&mut self, _: SnapshotRequest) -> Result<Vec<StateEntry>> {
        Err(Error::operator(ErrorKind::Setup, "asking for a snapshot", "files have no rows that could be read again")
            .with_help(
                "put a file into the folder again under another name, changed by a byte, to have it captured again",
            ))
    }

    fn progress(&self) -> Progress {
        let position_text = match self.recorded {
            None => String::new(),
            Some(FilePosition { generation, record: 0 }) => format!("before file {generation}"),
            Some(FilePosition { generation, record }) => format!("file {generation}, record {record}"),
        };
        let uncaptured = self.shared.refused.lock().map(|refused| refused.clone()).unwrap_or_default();
        Progress { position_text, uncaptured, ..Progress::default() }
    }

    fn close(mut self: Box<Self>) -> Fut<'static, Result<()>> {
        Box::pin(async move {
            self.tell();
            self.batches.close();
            self.control = None;
            let Some(thread) = self.thread.take() else { return Ok(()) };
            // It moves what was recorded, and ends; a slow disk is not waited for.
            let ended = async {
                while !thread.is_finished() {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            };
            let _ = tokio::time::timeout(Duration::from_secs(2), ended).await;
            Ok(())
        })
    }
}

impl Drop for FilesCapture {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::Relaxed);
    }
}

/// What the thread read, into the engine's batch. It is of one file, and so of one transaction.
fn append(read: &Batch, batch: &mut Batch) {
    if let Some(first) = read.changes().next() {
        batch.begin_transaction(first.transaction().clone());
    }
    for change in read.changes() {
        let mut builder = batch.change(change.op(), change.table(), change.position());
        if let Some(row) = change.before() {
            builder = builder.before(row.values());
        }
        if let Some(row) = change.after() {
            builder.after(row.values());
        }
    }
    batch.position = read.position;
    for entry in &read.state {
        batch.put_state(entry.key.clone(), entry.value.clone());
    }
}
