//! The chunk reader's SQL session.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::TryStreamExt;
use tokio::time::sleep;
use tokio_postgres::Client;
use towpath_contract::{Error, ErrorKind, Result};

use crate::catalog::{self, CapturedTable, Shape};
use crate::position::Lsn;
use crate::snapshot::chunk::{Chunk, Part, key_texts};
use crate::snapshot::reader::{Job, Limits};
use crate::snapshot::rows::Rows;
use crate::snapshot::statement::{self, Which};
use crate::snapshot::view::{LogLayout, View};
use crate::sql;
use crate::types::TypeCatalog;

/// A chunk ends when its rows hold this much; the row that crosses it is still in.
const CHUNK_BYTES: usize = 1 << 20;
/// Rows of a table's first chunk, at most, since the size of its rows is a guess.
const FIRST_CHUNK_ROWS: usize = 1_000;

pub(super) struct Session {
    pub(super) client: Client,
    version: u32,
    log: LogLayout,
    types: TypeCatalog,
    /// Mean size of a row, by the table's oid.
    row_bytes: HashMap<u32, usize>,
    in_transaction: bool,
}

/// Those who wrote to a table before it was known to be published.
#[derive(Debug)]
pub(super) enum Writers {
    None,
    Ended,
    /// These are still at it.
    Busy(Vec<String>),
}

/// Other tables go first then.
const WRITERS_WITHIN: Duration = Duration::from_secs(5);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Locked {
    Yes,
    /// Somebody alters it.
    Busy,
    Gone,
}

impl Session {
    pub(super) async fn open(client: Client) -> Result<Session> {
        let operation = "preparing the snapshot's session";
        // Row-level security would hide rows in silence: off, the server refuses instead.
        let settings = "SET statement_timeout = 0; SET idle_in_transaction_session_timeout = 0; SET row_security = off; \
                        SET search_path = ''";
        client.batch_execute(settings).await.map_err(|error| sql::failed(operation, &error))?;
        let query = "SELECT pg_is_in_recovery(), current_setting('wal_block_size'), \
                     pg_size_bytes(current_setting('wal_segment_size')), current_setting('server_version_num')";
        let row = sql::row(&client, operation, query).await?;
        if sql::is_true(&row, 0) {
            let found = "this server is a standby: where its log ends cannot be told, and snapshots need that";
            return Err(Error::operator(ErrorKind::Setup, operation, found)
                .with_help("connect to the primary, or set snapshot.mode: never"));
        }
        let log = LogLayout { page: sql::number(operation, &row, 1)?, segment: sql::number(operation, &row, 2)? };
        let version = sql::number(operation, &row, 3)?;
        Ok(Session {
            client,
            version,
            log,
            types: TypeCatalog::default(),
            row_bytes: HashMap::new(),
            in_transaction: false,
        })
    }

    /// Begins a transaction in which the table cannot be altered. It has no snapshot yet: the next query takes it.
    pub(super) async fn lock(&mut self, table: &CapturedTable, within: &str) -> Result<Locked> {
        self.end().await?;
        let name = table.full_name();
        let operation = format!("locking {name} against alteration, in order to read it");
        // Of a partitioned table the partitions too: the right to read the root allows it (13+, and before they come one by one).
        let only = if table.partitioned { "" } else { "ONLY " };
        let sql = format!(
            "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL lock_timeout = '{within}'; \
             LOCK TABLE {only}{} IN ACCESS SHARE MODE",
            table.sql_name()
        );
        self.in_transaction = true;
        match self.client.batch_execute(&sql).await.map_err(|error| sql::failed(&operation, &error)) {
            Ok(()) => Ok(Locked::Yes),
            Err(error) if sql::has_state(&error, "55P03") => Ok(Locked::Busy),
            Err(error) if sql::has_state(&error, "42P01") || sql::has_state(&error, "3F000") => Ok(Locked::Gone),
            Err(error) if error.kind == ErrorKind::Privilege => {
                let grant = format!("GRANT SELECT ON {} TO CURRENT_USER", table.sql_name());
                Err(error
                    .with_help(format!("let the owner of {name} run {grant}, with Towpath's role for CURRENT_USER")))
            }
            Err(error) => Err(error),
        }
    }

    /// Ends the transaction, if there is one, whatever state it is in.
    ///
    /// By COMMIT: reading prunes, which writes log; on a quiet server nobody would flush that for many seconds, and the next chunk
    /// waits for the stream to pass it. A commit without a transaction id asks the WAL writer for it (xact.c,
    /// RecordTransactionCommit), a rollback does not.
    pub(super) async fn end(&mut self) -> Result<()> {
        if !std::mem::take(&mut self.in_transaction) {
            return Ok(());
        }
        let ended = self.client.batch_execute("COMMIT").await;
        ended.map_err(|error| sql::failed("ending a snapshot's transaction", &error))
    }

    /// What the transaction sees. The log's end is asked for in the same statement: functions are called after the
    /// statement's snapshot is fixed.
    pub(super) async fn view(&self) -> Result<Arc<View>> {
        let operation = "taking a snapshot";
        let snapshot = match self.version {
            130_000.. => "pg_current_snapshot()",
            _ => "txid_current_snapshot()",
        };
        let query = format!(
            "SELECT {snapshot}, pg_current_wal_insert_lsn(), (extract(epoch FROM clock_timestamp()) * 1000000)::bigint"
        );
        let row = sql::row(&self.client, operation, &query).await?;
        let insert: Lsn =
            sql::text(&row, 1).parse().map_err(|_| Error::bug(operation, "the log's end is no address"))?;
        View::parse(sql::text(&row, 0), self.log.reported_end(insert), sql::number(operation, &row, 2)?)
    }

    pub(super) async fn shape(&mut self, table: &CapturedTable, publication: Option<&str>) -> Result<Option<Shape>> {
        let query = format!("SELECT {}::regclass::oid", sql::literal(&table.sql_name()));
        let operation = "finding the table";
        // By name: a table of that name that was made anew is read as what it is now.
        let oid = sql::number(operation, &sql::row(&self.client, operation, &query).await?, 0)?;
        catalog::describe(&self.client, self.version, &mut self.types, oid, publication).await
    }

    /// The planner's guess: from the table's present size, also where it was never analysed.
    pub(super) async fn estimate(&self, shape: &Shape) -> Result<Option<u64>> {
        let query = format!("EXPLAIN (FORMAT JSON) SELECT FROM {}", statement::from(shape));
        let row = sql::row(&self.client, "estimating a table's rows", &query).await.map_err(with_rls_help)?;
        let plan: Option<serde_json::Value> = serde_json::from_str(sql::text(&row, 0)).ok();
        Ok(plan.and_then(|plan| plan.pointer("/0/Plan/Plan Rows")?.as_u64()))
    }

    /// Reads the rows that `job` asks for, in the transaction that took `view`.
    pub(super) async fn read_chunk(
        &mut self,
        job: &Job,
        shape: Arc<Shape>,
        view: Arc<View>,
        limits: &Limits,
    ) -> Result<Chunk> {
        let key = shape.key.clone().unwrap_or_default();
        let same_key = shape.oid == job.table.oid && key.columns.iter().map(|column| &column.name).eq(&job.key);
        let goes_on = same_key && (job.after.is_some() || !job.reread.is_empty());
        let starts_over = !goes_on && job.after.is_some();
        let estimated_rows = if goes_on { None } else { self.estimate(&shape).await? };

        let row_bytes = match self.row_bytes.get(&shape.oid) {
            Some(mean) => *mean,
            None => self.guess_row_bytes(&shape).await?,
        };
        let limit = rows_that_fit(row_bytes, limits);
        let (last, keys) = if goes_on { (job.after.as_ref(), &job.reread[..]) } else { (None, &[][..]) };
        let which = match keys {
            [] => Which::After { key: &key, last, limit },
            keys => Which::Keys { key: &key, keys },
        };
        let names: Vec<&str> = key.columns.iter().map(|column| column.name.as_str()).collect();
        let extra: Vec<&str> = names.iter().copied().filter(|name| column_of(&shape, name).is_none()).collect();
        let (rows, cut) = self.copy(&shape, &statement::copy(&shape, &extra, &which), &extra).await?;

        let part = match keys {
            [] => {
                let at = names.iter().map(|name| {
                    column_of(&shape, name).or_else(|| Some(shape.types.len() + extra.iter().position(|e| e == name)?))
                });
                let at: Vec<usize> = at.collect::<Option<_>>().unwrap_or_default();
                let last_row = rows.len().checked_sub(1);
                let last_key = last_row.and_then(|row| key_texts(at.iter().map(|column| rows.value(row, *column))));
                Part::Range { last_key, end: !cut && rows.len() < limit }
            }
            keys => Part::Reread { keys: keys.len() },
        };
        let mut chunk = Chunk::new(shape, view, part, rows);
        chunk.starts_over = starts_over;
        chunk.estimated_rows = estimated_rows;
        Ok(chunk)
    }

    /// The rows, and whether the chunk was full before they came to their end.
    async fn copy(&mut self, shape: &Shape, copy: &str, extra: &[&str]) -> Result<(Rows, bool)> {
        let operation = format!("reading {}.{}", shape.table.schema, shape.table.name);
        let failed = |error: tokio_postgres::Error| with_rls_help(sql::failed(&operation, &error));
        let mut rows = Rows::new(shape.types.len() + extra.len());
        let mut cut = false;
        let mut lines = pin!(self.client.copy_out(copy).await.map_err(failed)?);
        while let Some(line) = lines.try_next().await.map_err(failed)? {
            rows.push_copied(&line)?;
            if rows.bytes() >= CHUNK_BYTES {
                // What the server still sends is discarded.
                cut = true;
                break;
            }
        }
        if let Some(mean) = rows.bytes().checked_div(rows.len()) {
            self.row_bytes.insert(shape.oid, mean);
        }
        Ok((rows, cut))
    }

    /// Before any row was read: what the table has on disk, large values included, by the planner's count of its rows. Compressed it
    /// may be several times more, which the first chunk shows.
    pub(super) async fn guess_row_bytes(&self, shape: &Shape) -> Result<usize> {
        let rows = self.estimate(shape).await?.unwrap_or(1).max(1);
        let query = format!(
            "WITH RECURSIVE tree(oid) AS (SELECT {}::oid UNION ALL SELECT i.inhrelid FROM pg_inherits i JOIN tree ON i.inhparent = tree.oid) \
             SELECT coalesce(sum(pg_table_size(oid)), 0)::bigint FROM tree",
            shape.oid
        );
        let operation = "estimating the size of a table's rows";
        let bytes: u64 = sql::number(operation, &sql::row(&self.client, operation, &query).await?, 0)?;
        Ok(((bytes / rows) as usize).max(CHUNK_BYTES.div_ceil(FIRST_CHUNK_ROWS)))
    }

    /// Waits for the transactions in progress, for as long as one may have its commit in the log already.
    ///
    /// The stream began with what was committed after some address. A transaction whose commit lies before it was
    /// delivered in an earlier run, or never will be; and while it is not visible yet (a commit is in the log first), a
    /// snapshot would show its rows as they were before it. Such a transaction is among those in progress now. One that
    /// begins another statement, or waits for its client, was not committing.
    pub(super) async fn await_undecided(&mut self) -> Result<()> {
        let since = self.view().await?.read_at_us;
        let in_progress = self.in_progress(since).await?;
        let mut undecided: Vec<String> = in_progress.into_iter().map(|(xid, _)| xid).collect();
        let (began, mut warned) = (Instant::now(), Instant::now());
        let mut pause = Duration::from_millis(5);
        while !undecided.is_empty() {
            sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(1));
            let in_progress = self.in_progress(since).await?;
            let waits = |idle: bool| !idle || began.elapsed() < LOOK_CLOSER_AFTER;
            undecided.retain(|xid| in_progress.iter().any(|(other, idle)| other == xid && waits(*idle)));
            if warned.elapsed() > Duration::from_secs(30) && !undecided.is_empty() {
                warned = Instant::now();
                let transactions = undecided.len();
                tracing::warn!(
                    transactions,
                    "the snapshot waits for transactions in progress to end; the role pg_read_all_stats would let Towpath see \
                     which of them need not be waited for"
                );
            }
        }
        Ok(())
    }

    /// Waits for the transactions that have written to the table, those of now where none are named, but not for long: a writer
    /// keeps its lock until it ends.
    pub(super) async fn await_writers(&self, table: &CapturedTable, named: &[String]) -> Result<Writers> {
        let now = self.writers(table).await?;
        if named.is_empty() && now.is_empty() {
            return Ok(Writers::None);
        }
        let mut writers = if named.is_empty() { now } else { named.to_vec() };
        let began = Instant::now();
        let mut pause = Duration::from_millis(5);
        loop {
            let in_progress = self.writers(table).await?;
            writers.retain(|writer| in_progress.contains(writer));
            if writers.is_empty() {
                return Ok(Writers::Ended);
            }
            if began.elapsed() > WRITERS_WITHIN {
                return Ok(Writers::Busy(writers));
            }
            sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(1));
        }
    }

    /// Locks that a change of rows takes, on the table or its partitions. Weaker ones read; VACUUM and the like change no row.
    async fn writers(&self, table: &CapturedTable) -> Result<Vec<String>> {
        let query = format!(
            "WITH RECURSIVE tree(oid) AS (SELECT {}::oid UNION ALL SELECT i.inhrelid FROM pg_inherits i JOIN tree ON i.inhparent = tree.oid) \
             SELECT DISTINCT l.virtualtransaction FROM pg_locks l JOIN tree ON tree.oid = l.relation \
             WHERE l.locktype = 'relation' AND l.granted AND l.pid IS DISTINCT FROM pg_backend_pid() \
               AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database()) \
               AND l.mode IN ('RowExclusiveLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')",
            table.oid
        );
        let rows = sql::rows(&self.client, "looking at who writes to a table", &query).await?;
        Ok(rows.iter().map(|row| sql::text(row, 0).to_owned()).collect())
    }

    /// The ids of the transactions in progress, and whether each one is known not to be committing.
    ///
    /// From the lock that each holds on its own id until it is visible as ended: a snapshot does not list those above
    /// its `xmax`. Committing is waiting for the log, for a standby, or for the locks (`LWLock`) on shared memory around
    /// both; or, for an instant, nothing. A prepared transaction has no process.
    async fn in_progress(&self, since_us: i64) -> Result<Vec<(String, bool)>> {
        let query = format!(
            "SELECT l.transactionid, l.pid IS NULL OR a.state LIKE 'idle in transaction%' \
               OR extract(epoch FROM a.query_start) * 1000000 > {since_us} \
               OR a.state = 'active' AND coalesce(a.wait_event_type, '') <> 'LWLock' AND coalesce(a.wait_event, '') !~* \
                  '^(SyncRep|WalSync|WalWrite|ProcArrayGroupUpdate|XactGroupUpdate)$' \
             FROM pg_locks l LEFT JOIN pg_stat_activity a ON a.pid = l.pid \
             WHERE l.locktype = 'transactionid' AND l.mode = 'ExclusiveLock' AND l.granted"
        );
        let rows = sql::rows(&self.client, "looking at the transactions in progress", &query).await?;
        Ok(rows.iter().map(|row| (sql::text(row, 0).to_owned(), sql::is_true(row, 1))).collect())
    }
}

/// Rows to ask for: no more than what fits, for the server would read the rest for nothing, and the stream waits meanwhile.
fn rows_that_fit(row_bytes: usize, limits: &Limits) -> usize {
    let paced = limits.rows_per_second_max.map_or(usize::MAX, |rate| rate as usize);
    CHUNK_BYTES.div_ceil(row_bytes.max(1)).min(limits.chunk_rows).min(paced).max(1)
}

/// Nearly all transactions end within this.
const LOOK_CLOSER_AFTER: Duration = Duration::from_secs(3);

fn column_of(shape: &Shape, name: &str) -> Option<usize> {
    shape.table.columns.iter().position(|column| column.name == name)
}

pub(super) fn with_rls_help(error: Error) -> Error {
    match error.kind {
        ErrorKind::Privilege => error.with_help(
            "GRANT SELECT on the table to Towpath's role; where the table has row-level security, the role also needs BYPASSRLS",
        ),
        _ => error,
    }
}
