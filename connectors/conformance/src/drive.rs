//! Drives a capture as the engine does, and notes what came out.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use towpath_contract::{Action, Batch, Capture, Error, Op, Position, Result, Resume, Source, TableSchema, Value};

/// Long enough for a loaded machine; a case that waits this long has failed.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// One change, as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    pub position: Position,
    pub op: Op,
    pub table: String,
    pub before: Option<Vec<Option<String>>>,
    pub after: Option<Vec<Option<String>>>,
}

impl Seen {
    /// The `id` of the row, from whichever image has it.
    pub(crate) fn id(&self) -> i64 {
        let row = self.after.as_ref().or(self.before.as_ref()).expect("a change of items has a row");
        row[0].as_ref().expect("the key is never unavailable").parse().expect("id is an integer")
    }

    pub(crate) fn note(&self) -> Option<&str> {
        self.after.as_ref().and_then(|row| row[1].as_deref())
    }
}

/// The changes of a batch. Values as text; NULL as `␀`, an unavailable value as `None`.
pub fn seen(batch: &Batch) -> Vec<Seen> {
    let text = |value: Value<'_>| match value {
        Value::Null => Some("␀".to_string()),
        Value::Unavailable => None,
        Value::Data(bytes) => Some(String::from_utf8(bytes.to_vec()).expect("items holds text")),
    };
    let change = |change: towpath_contract::Change<'_>| Seen {
        position: change.position(),
        op: change.op(),
        table: change.table().name.clone(),
        before: change.before().map(|row| row.values().map(text).collect()),
        after: change.after().map(|row| row.values().map(text).collect()),
    };
    batch.changes().map(change).collect()
}

/// A capture with what it has handed over so far, and a memory like the outbox's.
pub(crate) struct Driver {
    pub(crate) capture: Box<dyn Capture>,
    pub(crate) seen: Vec<Seen>,
    /// The tables of the last batch that had any.
    pub(crate) tables: Vec<Arc<TableSchema>>,
    /// Every batch position, with the number of changes that came before it.
    pub(crate) resume_points: Vec<(usize, Resume)>,
    pub(crate) resume: Resume,
    batch: Batch,
}

impl Driver {
    pub(crate) async fn open(source: &dyn Source, resume: Resume) -> Driver {
        Driver::try_open(source, resume).await.unwrap_or_else(|error| panic!("opening: {error}"))
    }

    /// Opens as the engine does: errors that pass are tried again.
    pub(crate) async fn try_open(source: &dyn Source, resume: Resume) -> Result<Driver> {
        let started = tokio::time::Instant::now();
        let capture = loop {
            match source.open(resume.clone()).await {
                Ok(capture) => break capture,
                Err(error) if error.action == Action::Retry && started.elapsed() < DEADLINE => {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                Err(error) => return Err(error),
            }
        };
        let resume = Resume { identity: Some(capture.identity().to_owned()), ..resume };
        Ok(Driver {
            capture,
            seen: Vec::new(),
            tables: Vec::new(),
            resume_points: Vec::new(),
            resume,
            batch: Batch::new(),
        })
    }

    /// Takes one batch.
    pub(crate) async fn step(&mut self) -> Result<()> {
        self.capture.next(&mut self.batch).await?;
        self.take_batch();
        Ok(())
    }

    /// Polls `next` at most `polls` times and drops it, as a `select!` may.
    pub(crate) async fn step_cancelled(&mut self, polls: usize) -> Result<()> {
        let mut left = polls;
        let outcome = {
            let mut next = pin!(self.capture.next(&mut self.batch));
            poll_fn(|context| {
                left -= 1;
                match next.as_mut().poll(context) {
                    Poll::Ready(result) => Poll::Ready(Some(result)),
                    Poll::Pending if left == 0 => Poll::Ready(None),
                    Poll::Pending => Poll::Pending,
                }
            })
            .await
        };
        match outcome {
            Some(result) => {
                result?;
                self.take_batch();
            }
            None => tokio::time::sleep(Duration::from_millis(1)).await, // lets I/O arrive; not a condition
        }
        Ok(())
    }

    fn take_batch(&mut self) {
        let changes = seen(&self.batch);
        let streamed = |list: &[Seen]| list.iter().rev().find(|seen| seen.op != Op::Read).map(|seen| seen.position);
        let mut last = streamed(&self.seen);
        for change in changes.iter().filter(|change| change.op != Op::Read) {
            assert!(last.is_none_or(|last| change.position > last), "positions must grow: {last:?} then {change:?}");
            last = Some(change.position);
        }
        self.seen.extend(changes);
        if !self.batch.tables().is_empty() {
            self.tables = self.batch.tables().to_vec();
        }
        for entry in self.batch.state.drain(..) {
            match entry.value {
                Some(value) => self.resume.state.insert(entry.key, value),
                None => self.resume.state.remove(&entry.key),
            };
        }
        if let Some(position) = self.batch.position {
            assert!(self.resume.position.is_none_or(|old| position >= old), "batch positions must not go back");
            self.resume.position = Some(position);
            self.resume_points.push((self.seen.len(), self.resume.clone()));
        }
        self.batch.clear(1 << 20);
    }

    /// Takes batches until `enough` holds for what was seen.
    pub(crate) async fn until(&mut self, what: &str, enough: impl Fn(&[Seen]) -> bool) {
        let reached = tokio::time::timeout(DEADLINE, async {
            while !enough(&self.seen) {
                self.step().await.unwrap_or_else(|error| panic!("waiting for {what}: {error}"));
            }
        });
        if reached.await.is_err() {
            panic!("waited {DEADLINE:?} for {what}; saw {} changes, the last {:?}", self.seen.len(), self.seen.last());
        }
    }

    /// Tells the capture that all of it is durable, as the engine does after a commit.
    pub(crate) fn record(&mut self) {
        if let Some(position) = self.resume.position {
            self.capture.recorded(&position);
        }
    }

    /// Takes batches until the source's present end, with a marker that the caller committed.
    pub(crate) async fn until_id(&mut self, id: i64) {
        self.until(&format!("the change of id {id}"), |seen| seen.iter().any(|change| change.id() == id)).await;
    }
}

/// The error of an open that must fail.
pub(crate) async fn refused(source: &dyn Source, resume: Resume) -> Error {
    match Driver::try_open(source, resume).await {
        Ok(_) => panic!("expected a refusal, but the source opened"),
        Err(error) => error,
    }
}
