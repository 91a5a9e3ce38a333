//! The task that reads chunks, on a connection of its own.

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::TryStreamExt;
use tokio::sync::mpsc;
use tokio::time::{sleep, sleep_until, timeout};
use tokio_postgres::Client;
use towpath_contract::{Error, ErrorKind, Fut, Result};

use crate::catalog::{CapturedTable, Shape};
use crate::position::Lsn;
use crate::snapshot::chunk::{Chunk, Part};
use crate::snapshot::gate::Gate;
use crate::snapshot::rows::Rows;
use crate::snapshot::session::{Locked, Session, Writers};
use crate::snapshot::state::KeyTexts;
use crate::snapshot::statement::{self, Which};
use crate::snapshot::view::View;
use crate::sql;

/// Makes an SQL connection whose session writes values as the stream does.
pub(crate) type Connect = Box<dyn Fn() -> Fut<'static, Result<Client>> + Send + Sync>;

/// What is to be read next.
#[derive(Clone, Debug)]
pub(super) struct Job {
    pub(super) table: CapturedTable,
    /// First, all transactions that have written to the table must end: these, if there are some already, else those of now.
    pub(super) await_writers: Option<Vec<String>>,
    /// What `after` and `reread` speak of; empty at a table's beginning.
    pub(super) key: Vec<String>,
    pub(super) after: Option<KeyTexts>,
    /// Not empty: only these.
    pub(super) reread: Vec<KeyTexts>,
}

#[derive(Debug)]
pub(super) enum Report {
    Chunk(Box<Chunk>),
    /// Whoever waits at the gate may ask again.
    GateMoved,
    /// The table is not there any more.
    Gone,
    /// What was written to the table before it was published, is in the log below this.
    WritersEnded(Lsn),
    /// These still write to it.
    Busy(Vec<String>),
    /// A right to read the table is missing. The others go on.
    Refused(Error),
}

/// Bounds of what is read, from the config.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) chunk_rows: usize,
    pub(super) rows_per_second_max: Option<u32>,
}

/// A piece of a table that is read as a whole. The next one is read while it is delivered.
const PIECE_BYTES: usize = 1 << 20;
/// The stream waits while a snapshot is taken: for no longer than this in one go.
const CLOSED_MAX: Duration = Duration::from_millis(100);
/// Nothing to read: the connection is closed.
const IDLE_MAX: Duration = Duration::from_secs(10);
const LOCK_WITHIN: &str = "5s";
const LOCK_AGAIN_WITHIN: &str = "50ms";

pub(super) struct Reader {
    pub(super) connect: Connect,
    pub(super) publication: Option<String>,
    pub(super) limits: Limits,
    pub(super) gate: Arc<Gate>,
    pub(super) jobs: mpsc::UnboundedReceiver<Job>,
    pub(super) reports: mpsc::Sender<Result<Report>>,
}

impl Reader {
    /// Until the other side is gone, or an error was reported.
    pub(super) async fn run(mut self) {
        let mut session = None;
        let mut pace = Pace { rows_per_second_max: self.limits.rows_per_second_max, next: Instant::now() };
        loop {
            let job = match timeout(IDLE_MAX, self.jobs.recv()).await {
                Ok(Some(job)) => job,
                Ok(None) => return,
                Err(_) => {
                    session = None;
                    continue;
                }
            };
            let done = self.work(&mut session, &mut pace, &job).await;
            self.gate_moved().await;
            if let Err(error) = done {
                self.gate.open();
                // The other side may be gone already; then nobody asks.
                let _ = self.reports.send(Err(error)).await;
                return;
            }
        }
    }

    async fn work(&self, session: &mut Option<Session>, pace: &mut Pace, job: &Job) -> Result<()> {
        sleep_until(pace.next.into()).await;
        let session = match session {
            Some(open) if !open.client.is_closed() => open,
            _ => session.insert(Session::open((self.connect)().await?).await?),
        };
        if !self.gate.is_settled() {
            session.await_undecided().await?;
            self.gate.settle();
        }
        match self.read(session, pace, job).await {
            Err(error) if error.kind == ErrorKind::Privilege => {
                self.gate.open();
                session.end().await?;
                self.report(Report::Refused(error)).await
            }
            read => read,
        }
    }

    async fn read(&self, session: &mut Session, pace: &mut Pace, job: &Job) -> Result<()> {
        if let Some(writers) = &job.await_writers {
            match session.await_writers(&job.table, writers).await? {
                Writers::None => {}
                Writers::Ended => {
                    let log_end = session.view().await?.high;
                    return self.report(Report::WritersEnded(log_end)).await;
                }
                Writers::Busy(writers) => return self.report(Report::Busy(writers)).await,
            }
        }
        let started = Instant::now();
        let Some((view, shape)) = self.begin(session, job).await? else {
            session.end().await?;
            return self.report(Report::Gone).await;
        };
        let rows = match &shape.key {
            _ if shape.types.is_empty() => {
                let part = Part::Whole { first: true, last: true };
                self.report(Report::Chunk(Box::new(Chunk::new(shape, view, part, Rows::new(0))))).await?;
                0
            }
            Some(_) => {
                let mut chunk = session.read_chunk(job, shape, view, &self.limits).await?;
                chunk.took = started.elapsed();
                let rows = chunk.rows.len();
                session.end().await?;
                self.report(Report::Chunk(Box::new(chunk))).await?;
                rows
            }
            None => self.read_whole(session, shape, view, pace).await?,
        };
        pace.count(rows);
        Ok(())
    }

    /// Begins a transaction, locks the table against alteration and takes a snapshot that sees all that was delivered.
    async fn begin(&self, session: &mut Session, job: &Job) -> Result<Option<(Arc<View>, Arc<Shape>)>> {
        let mut pause = Duration::from_millis(20);
        let mut warned = Instant::now();
        loop {
            // Whoever altered the table before us is seen by the snapshot that is taken after; nobody alters it meanwhile.
            match session.lock(&job.table, LOCK_WITHIN).await? {
                Locked::Yes => {
                    self.gate.close();
                    let viewed = self.view_all_delivered(session, job).await;
                    if let Ok(Some(view)) = viewed {
                        return self.shape(session, job, view).await;
                    }
                    self.gate.open();
                    self.gate_moved().await;
                    session.end().await?;
                    viewed?;
                }
                Locked::Gone => return Ok(None),
                Locked::Busy => {}
            }
            if warned.elapsed() > Duration::from_secs(10) {
                warned = Instant::now();
                let table = job.table.full_name();
                tracing::warn!(
                    table,
                    "the snapshot waits: the table is locked, or a synchronous standby does not answer"
                );
            }
            sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(1));
        }
    }

    /// `None`: for now some of what was delivered is not visible. Between tries the gate stays closed, or a busy stream
    /// would always be ahead.
    async fn view_all_delivered(&self, session: &mut Session, job: &Job) -> Result<Option<Arc<View>>> {
        let closed = Instant::now();
        loop {
            let view = session.view().await?;
            if self.gate.fix(&view) {
                return Ok(Some(view));
            }
            if closed.elapsed() > CLOSED_MAX {
                return Ok(None);
            }
            sleep(Duration::from_millis(2)).await;
            // A transaction keeps its first snapshot: take another one.
            if session.lock(&job.table, LOCK_AGAIN_WITHIN).await? != Locked::Yes {
                return Ok(None);
            }
        }
    }

    async fn shape(
        &self,
        session: &mut Session,
        job: &Job,
        view: Arc<View>,
    ) -> Result<Option<(Arc<View>, Arc<Shape>)>> {
        let Some(shape) = session.shape(&job.table, self.publication.as_deref()).await? else {
            self.gate.open();
            return Ok(None);
        };
        if shape.oid != job.table.oid {
            // Whether it is published, and since when, is known to whoever opens the source.
            let message = format!("{} is another table now than when this capture began", job.table.full_name());
            return Err(Error::retry(ErrorKind::Setup, "reading a snapshot", message));
        }
        if shape.key.is_none() {
            self.gate.read_whole();
        }
        self.gate_moved().await;
        Ok(Some((view, Arc::new(shape))))
    }

    /// Reads in pieces, each delivered before the next but one is read: as fast as the other side takes them.
    async fn read_whole(
        &self,
        session: &mut Session,
        shape: Arc<Shape>,
        view: Arc<View>,
        pace: &mut Pace,
    ) -> Result<usize> {
        let estimated_rows = session.estimate(&shape).await?;
        let operation = format!("reading {}.{}", shape.table.schema, shape.table.name);
        let copy = statement::copy(&shape, &[], &Which::All);
        let lines = session.client.copy_out(&copy).await.map_err(|error| sql::failed(&operation, &error))?;
        let mut lines = pin!(lines);
        let mut total = 0;
        let mut first = true;
        loop {
            let started = Instant::now();
            let mut rows = Rows::new(shape.types.len());
            let mut last = false;
            while !last && rows.bytes() < PIECE_BYTES && rows.len() < self.limits.chunk_rows {
                match lines.try_next().await.map_err(|error| sql::failed(&operation, &error))? {
                    Some(line) => rows.push_copied(&line)?,
                    None => last = true,
                }
            }
            let count = rows.len();
            let mut chunk = Chunk::new(shape.clone(), view.clone(), Part::Whole { first, last }, rows);
            chunk.took = started.elapsed();
            chunk.estimated_rows = estimated_rows;
            if last {
                session.end().await?;
            }
            self.report(Report::Chunk(Box::new(chunk))).await?;
            total += count;
            first = false;
            if last {
                return Ok(total);
            }
            pace.count(count);
            sleep_until(pace.next.into()).await;
        }
    }

    async fn report(&self, report: Report) -> Result<()> {
        let closed = |_| Error::bug("reading a snapshot", "nobody takes its rows");
        self.reports.send(Ok(report)).await.map_err(closed)
    }

    async fn gate_moved(&self) {
        if self.gate.take_refused() {
            let _ = self.reports.send(Ok(Report::GateMoved)).await;
        }
    }
}

/// Keeps to the rows per second that are allowed.
struct Pace {
    rows_per_second_max: Option<u32>,
    next: Instant,
}

impl Pace {
    fn count(&mut self, rows: usize) {
        if let Some(rate) = self.rows_per_second_max {
            self.next = self.next.max(Instant::now()) + Duration::from_secs_f64(rows as f64 / f64::from(rate.max(1)));
        }
    }
}
