//! The thread that reads files. It blocks as files do; batches go out through a bounded channel.

use std::fs::File;
use std::io::{Seek, SeekFrom};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::mpsc::Sender;
use towpath_contract::{BATCH_BYTES, Batch, Error, ErrorKind, Op, Result, Transaction, Value};

use crate::config::{BadRecords, Complete};
use crate::extract::{Comparison, Extracts, Fault, deleted_row};
use crate::folder::{Candidate, Folder, Look, fingerprint};
use crate::format::{Next, Reader};
use crate::history::{History, Taken};
use crate::inspect::inspect;
use crate::position::FilePosition;
use crate::row::RowBuffer;
use crate::table::{Shape, Table, bad_schema};

pub(crate) struct Worker {
    pub(crate) tables: Arc<Vec<Table>>,
    pub(crate) folder: Folder,
    pub(crate) extracts: Extracts,
    pub(crate) history: History,
    /// Where to go on: within a file, or in the gap before the next.
    pub(crate) at: FilePosition,
    pub(crate) record_max: usize,
    pub(crate) scan_every: Duration,
    pub(crate) out: Sender<Result<Batch>>,
    /// What was recorded. Closed: the capture is gone.
    pub(crate) control: Receiver<FilePosition>,
    pub(crate) shared: Arc<Shared>,
    /// Entries of the state that go with the first batch.
    pub(crate) forget: Vec<String>,
    pub(crate) finished: Vec<Finished>,
}

/// What the capture reads at any time.
#[derive(Default)]
pub(crate) struct Shared {
    pub(crate) stopped: AtomicBool,
    /// Files that were refused, for people.
    pub(crate) refused: Mutex<Vec<String>>,
}

/// A file that was handed over, and goes to the archive once it is recorded.
pub(crate) struct Finished {
    generation: u64,
    name: String,
    table: usize,
    look: Look,
}

/// Why the thread ends.
enum End {
    /// Nobody listens any more.
    Gone,
    Failed(Error),
}

impl From<Error> for End {
    fn from(error: Error) -> End {
        End::Failed(error)
    }
}

impl From<Fault> for End {
    fn from(fault: Fault) -> End {
        let comparing = "comparing an extract with the one before it";
        let lost = |path: &std::path::Path| {
            format!("{} is not there: what the extract before held is not known", path.display())
        };
        End::Failed(match fault {
            Fault::Refused(reason) => Error::bug(comparing, reason),
            Fault::Storage(message) => storage(comparing, message),
            Fault::Lost(path) => Error::operator(ErrorKind::Gap, comparing, lost(&path)).with_help(
                "put the spool folder back, or accept the gap with `towpath snapshot SOURCE --after-gap`: \
                 the next extract then gives inserts alone",
            ),
        })
    }
}

fn storage(operation: impl Into<String>, error: impl std::fmt::Display) -> Error {
    Error::retry(ErrorKind::Storage, operation, error)
}

/// One file on its way.
struct Job<'a> {
    table: &'a Table,
    candidate: Candidate,
    generation: u64,
    file: File,
    look: Look,
    taken: Taken,
}

impl Worker {
    pub(crate) fn run(mut self) {
        if let Err(End::Failed(error)) = self.work() {
            // Where nobody listens, nobody needs to know.
            let _ = self.out.blocking_send(Err(error));
        }
    }

    fn work(&mut self) -> std::result::Result<(), End> {
        loop {
            self.listen(Duration::ZERO)?;
            let scanning = || format!("looking at {}", self.folder.path().display());
            if !self.folder.is_same().map_err(|error| storage(scanning(), error))? {
                let message = "the folder was replaced by another: a file system was mounted or unmounted, or the folder made anew";
                return Err(Error::retry(ErrorKind::Connection, scanning(), message).into());
            }
            let tables = self.tables.clone();
            let next = match self.at.record {
                0 => {
                    let found = self.folder.scan(&tables);
                    let found = found
                        .map_err(|error| storage(format!("looking at {}", self.folder.path().display()), error))?;
                    let waiting =
                        |candidate: &Candidate| self.finished.iter().any(|finished| finished.name == candidate.name);
                    found.into_iter().find(|candidate| !waiting(candidate))
                }
                _ => Some(self.begun(&tables)?),
            };
            match next {
                Some(candidate) => self.take(&tables, candidate)?,
                None => self.listen(self.scan_every)?,
            }
        }
    }

    /// The file that was begun in an earlier run.
    fn begun(&self, tables: &[Table]) -> Result<Candidate> {
        let Some(taken) = self.history.get(self.at.generation) else {
            return Err(self.gone("it is not known which file that was"));
        };
        let table = tables.iter().position(|table| table.config.name == taken.table);
        match (table, self.folder.file(&taken.name)) {
            (None, _) => Err(self.gone(&format!("its table {} is not in the config any more", taken.table))),
            (_, Err(error)) => Err(self.gone(&format!("it cannot be opened ({error})"))),
            (Some(table), Ok(_)) => Ok(Candidate { name: taken.name.clone(), table }),
        }
    }

    /// Takes what was recorded, for at most so long, and moves those files away.
    fn listen(&mut self, wait: Duration) -> std::result::Result<(), End> {
        let mut wait = wait;
        loop {
            match self.control.recv_timeout(wait) {
                Ok(recorded) => {
                    let (done, rest) = std::mem::take(&mut self.finished)
                        .into_iter()
                        .partition(|finished: &Finished| finished.generation < recorded.generation);
                    self.finished = rest;
                    done.iter().try_for_each(|finished| self.archive(finished))?;
                    wait = Duration::ZERO;
                }
                Err(RecvTimeoutError::Timeout) => break,
                Err(RecvTimeoutError::Disconnected) => return Err(End::Gone),
            }
        }
        if let (Ok(mut refused), Ok((mut lines, count))) = (self.shared.refused.lock(), self.folder.refused(20)) {
            if count > lines.len() {
                lines.push(format!("{} more files were refused", count - lines.len()));
            }
            lines.extend(self.folder.passed_over().iter().take(20).cloned());
            *refused = lines;
        }
        Ok(())
    }

    fn marker(&self, table: usize) -> Option<String> {
        match &self.tables[table].config.complete {
            Complete::Marker(suffix) => Some(suffix.clone()),
            _ => None,
        }
    }

    fn archive(&self, finished: &Finished) -> Result<()> {
        let moving = || format!("moving {} to the archive", finished.name);
        let table = &self.tables[finished.table].config;
        if table.extract.is_some() {
            let kept = self.extracts.keep_from(&table.name, finished.generation);
            kept.map_err(|error| storage(format!("forgetting old extracts of {}", table.name), error))?;
        }
        // Another file of that name is left where it is: it is taken in its turn.
        let same = self
            .folder
            .file(&finished.name)
            .and_then(|file| Look::at(&file))
            .is_ok_and(|look| look.id == finished.look.id);
        if !same {
            return Ok(());
        }
        let marker = self.marker(finished.table);
        self.folder
            .archive(&finished.name, finished.generation, marker.as_deref())
            .map_err(|error| storage(moving(), error))
    }

    fn gone(&self, what: &str) -> Error {
        let name = self.history.get(self.at.generation).map_or("a file", |taken| taken.name.as_str());
        Error::operator(
            ErrorKind::Gap,
            format!("going on with {name} after record {}", self.at.record),
            format!("{what}, and its further records were not captured"),
        )
        .with_help("put the file back as it was, or accept the gap with `towpath snapshot SOURCE --after-gap`")
    }

    fn take(&mut self, tables: &[Table], candidate: Candidate) -> std::result::Result<(), End> {
        let reading = format!("reading {}", candidate.name);
        let failed = |error: std::io::Error| storage(reading.clone(), error);
        let mut file = match self.folder.file(&candidate.name) {
            // Taken away again since the scan.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            file => file.map_err(failed)?,
        };
        let look = Look::at(&file).map_err(failed)?;
        let shared = self.shared.clone();
        let stopped = || shared.stopped.load(Ordering::Relaxed);
        let Some((sha256, bytes)) = fingerprint(&mut file, &stopped).map_err(failed)? else { return Err(End::Gone) };
        if bytes != look.bytes || Look::at(&file).map_err(failed)? != look {
            // Someone writes to it: it was not complete. It is looked at again.
            return self.listen(self.scan_every);
        }
        let table = &tables[candidate.table];
        let taken = Taken {
            name: candidate.name.clone(),
            table: table.config.name.clone(),
            sha256,
            bytes,
            modified_us: look.modified_us,
            records: None,
        };
        let resumed = self.at.record > 0;
        if resumed && self.history.get(self.at.generation).map(|begun| &begun.sha256) != Some(&taken.sha256) {
            return Err(self.gone("its content is another now").into());
        }
        let job = Job { table, generation: self.at.generation, file, look, taken, candidate };
        if !resumed && self.is_known(&job)? {
            return Ok(());
        }
        let last = self.history.last_name(&job.taken.table);
        let refused = match table.out_of_order(&job.taken.name, last).filter(|_| !resumed) {
            Some(reason) => Some(reason),
            None => self.read(&job, resumed, &stopped)?,
        };
        match refused {
            None => Ok(()),
            Some(_) if stopped() => Err(End::Gone),
            Some(reason) => self.refuse(&job, &reason),
        }
    }

    /// Moves a file away whose content was captured before.
    fn is_known(&self, job: &Job) -> Result<bool> {
        let Some((generation, known)) = self.history.finished(&job.taken.table, &job.taken.sha256) else {
            return Ok(false);
        };
        let (name, marker) = (&job.candidate.name, self.marker(job.candidate.table));
        let moving = |error| storage(format!("moving {name} to the archive"), error);
        if known.name == *name && known.modified_us == job.taken.modified_us {
            // It was recorded; a stop came before it was moved.
            self.folder.archive(name, generation, marker.as_deref()).map_err(moving)?;
        } else {
            tracing::warn!(file = %name, first = %known.name, "this content was delivered before: the file is skipped");
            self.folder.archive_again(name, generation, marker.as_deref()).map_err(moving)?;
        }
        Ok(true)
    }

    fn refuse(&mut self, job: &Job, reason: &str) -> std::result::Result<(), End> {
        let name = &job.candidate.name;
        tracing::error!(file = %name, %reason, "the file was refused: nothing of it is captured");
        let marker = self.marker(job.candidate.table);
        let moved = self.folder.refuse(name, reason, marker.as_deref());
        moved.map_err(|error| storage(format!("moving {name} to the folder of errors"), error))?;
        self.listen(Duration::ZERO)
    }

    /// Checks the file and hands its records over. Returns why it is refused.
    fn read(
        &mut self,
        job: &Job,
        resumed: bool,
        stopped: &dyn Fn() -> bool,
    ) -> std::result::Result<Option<String>, End> {
        let rewound = || {
            let mut file = job.file.try_clone()?;
            file.seek(SeekFrom::Start(0))?;
            Ok::<_, std::io::Error>(file)
        };
        let failed = |error: std::io::Error| storage(format!("reading {}", job.candidate.name), error);
        let record_max = self.record_max;
        let open = |file: File| job.table.format.open(Box::new(file), record_max);
        let mut reader = match open(rewound().map_err(failed)?) {
            Ok(reader) => reader,
            Err(fault) => return Ok(Some(fault.to_string())),
        };
        let shape = match Shape::new(&job.table.config, reader.fields()) {
            Ok(shape) => shape,
            Err((key, message)) => return Ok(Some(format!("{message} (`{key}`)"))),
        };
        let records = match inspect(job.table, &shape, &mut *reader, stopped) {
            Ok(records) => records,
            Err(reason) if resumed && !stopped() => {
                return Err(self.gone(&format!("it is refused now ({reason})")).into());
            }
            Err(reason) => return Ok(Some(reason)),
        };
        let compared = match job.table.config.extract {
            None => None,
            Some(_) => {
                let mut reader = match open(rewound().map_err(failed)?) {
                    Ok(reader) => reader,
                    Err(fault) => return Ok(Some(fault.to_string())),
                };
                match self.compare(job, &shape, &mut *reader) {
                    Ok(compared) => Some(compared),
                    Err(Fault::Refused(reason)) if resumed => {
                        return Err(self.gone(&format!("it is refused now ({reason})")).into());
                    }
                    Err(Fault::Refused(reason)) => return Ok(Some(reason)),
                    Err(fault) => return Err(fault.into()),
                }
            }
        };
        let changed = || {
            let message = "the file changed while it was read, and some of its records may have gone out";
            Error::operator(ErrorKind::Gap, format!("reading {}", job.candidate.name), message)
                .with_help("see that files are not written to once they are complete; for what may be lost, compare the file with the table")
        };
        let mut reader = open(rewound().map_err(failed)?).map_err(|_| changed())?;
        self.hand_over(job, &shape, &mut *reader, records, compared.as_ref(), &changed)?;
        self.finish(job, records);
        Ok(None)
    }

    /// Holds an extract against the one before it.
    fn compare(&self, job: &Job, shape: &Shape, reader: &mut dyn Reader) -> std::result::Result<Comparison, Fault> {
        let table = &job.taken.table;
        let before = self.history.extract(table);
        let compared = self.extracts.compare(table, before, job.generation, shape, reader)?;
        let (rows, deleted) = compared.deletes()?;
        let max = job.table.config.extract.as_ref().map_or(100, |extract| extract.deletes_max_percent);
        match u128::from(deleted) * 100 > u128::from(rows) * u128::from(max) {
            true => Err(Fault::Refused(format!(
                "{deleted} of the {rows} rows of the extract before are missing, more than {max} percent (`deletes_max_percent`)"
            ))),
            false => Ok(compared),
        }
    }

    fn begin(&self, job: &Job) -> Batch {
        let mut batch = Batch::new();
        batch.begin_transaction(Transaction { id: job.generation.to_string(), commit_time_us: job.taken.modified_us });
        batch
    }

    fn hand_over(
        &mut self,
        job: &Job,
        shape: &Shape,
        reader: &mut dyn Reader,
        records: u64,
        compared: Option<&Comparison>,
        changed: &dyn Fn() -> Error,
    ) -> std::result::Result<(), End> {
        let bad_table = bad_schema(&job.table.config.name);
        let mut batch = self.begin(job);
        let mut begun = self.at.record > 0;
        let mut row = RowBuffer::default();
        let (mut record, mut key) = (0, Vec::new());
        loop {
            row.clear();
            let offset = reader.offset();
            let next = reader.next(&mut row).map_err(|_| changed())?;
            let bad = match next {
                Next::End => break,
                Next::Trailer(_) => continue,
                Next::Record => None,
                Next::Bad { bytes, reason } => Some((bytes, reason)),
            };
            record += 1;
            if record <= self.at.record {
                continue;
            }
            let position = FilePosition { generation: job.generation, record }.encode();
            let op = match bad {
                None => match compared {
                    None => shape.op(&row).map_err(|reason| (Vec::new(), reason)),
                    Some(compared) => match compared.op(shape, &row, &mut key)? {
                        Some(op) => Ok(op),
                        None => continue,
                    },
                },
                Some(bad) => Err(bad),
            };
            match op {
                Ok(Op::Delete) => {
                    batch.change(Op::Delete, &shape.schema, position).before(shape.key_values(&row));
                }
                Ok(op) => {
                    batch.change(op, &shape.schema, position).after(shape.values(&row));
                }
                Err(_) if job.table.config.bad_records == BadRecords::RefuseFile => return Err(changed().into()),
                Err((bytes, reason)) => {
                    let (number, offset) = (record.to_string(), offset.to_string());
                    let texts =
                        [job.taken.name.as_bytes(), number.as_bytes(), offset.as_bytes(), &bytes, reason.as_bytes()];
                    batch.change(Op::Insert, &bad_table, position).after(texts.map(Value::Data));
                }
            }
            if batch.bytes() >= BATCH_BYTES && record < records {
                if !begun {
                    self.history.put(job.generation, job.taken.clone(), &mut batch);
                    begun = true;
                }
                batch.position = Some(position);
                let full = std::mem::replace(&mut batch, self.begin(job));
                self.send(full)?;
            }
        }
        if record != records || Look::at(&job.file).ok() != Some(job.look) {
            return Err(changed().into());
        }
        if let Some(compared) = compared {
            let skip = self.at.record.saturating_sub(records);
            let mut number = records + skip;
            compared.each_deleted(skip, |key| {
                number += 1;
                let position = FilePosition { generation: job.generation, record: number }.encode();
                batch.change(Op::Delete, &shape.schema, position).before(deleted_row(shape, key));
                if batch.bytes() >= BATCH_BYTES {
                    if !begun {
                        self.history.put(job.generation, job.taken.clone(), &mut batch);
                        begun = true;
                    }
                    batch.position = Some(position);
                    let full = std::mem::replace(&mut batch, self.begin(job));
                    self.send(full)?;
                }
                Ok::<_, End>(())
            })?;
            self.history.put_extract(&job.taken.table, job.generation, &mut batch);
        }
        self.at = FilePosition { generation: job.generation + 1, record: 0 };
        let taken = Taken { records: Some(records), ..job.taken.clone() };
        self.history.put(job.generation, taken, &mut batch);
        batch.position = Some(self.at.encode());
        self.send(batch)
    }

    fn finish(&mut self, job: &Job, records: u64) {
        tracing::info!(file = %job.candidate.name, records, "all of the file was handed over");
        self.finished.push(Finished {
            generation: job.generation,
            name: job.candidate.name.clone(),
            table: job.candidate.table,
            look: job.look,
        });
    }

    fn send(&mut self, mut batch: Batch) -> std::result::Result<(), End> {
        for key in std::mem::take(&mut self.forget) {
            if !batch.state.iter().any(|entry| entry.key == key) {
                batch.put_state(key, None);
            }
        }
        self.out.blocking_send(Ok(batch)).map_err(|_| End::Gone)
    }
}
