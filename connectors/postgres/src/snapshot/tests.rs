//! The snapshot against a real server, with a stream that the tests drive: pgoutput, fetched by SQL.

mod consumer;
mod keys;
mod lookup;
mod merge;
mod obstacles;
mod stream;
mod whole;

use std::collections::BTreeMap;

use tokio_postgres::Client;
use towpath_contract::{Batch, Op, Position, Transaction, Value};
use towpath_test_support::Postgres;

use super::{History, Snapshotter};
use crate::catalog;
use crate::config::{SnapshotConfig, SnapshotMode};
use crate::position::Lsn;
use crate::testing::{connector, server, session};
use consumer::Consumer;
use stream::{Stream, StreamChange, StreamRow, StreamTransaction};

/// The stream's owner, as far as the snapshotter needs one.
struct Bench {
    url: String,
    client: Client,
    stream: Stream,
    snapshotter: Snapshotter,
    consumer: Consumer,
    batch: Batch,
    last: Position,
    passed: Lsn,
    /// Changes that were dropped.
    dropped: usize,
    /// Transactions that had to wait.
    held: usize,
}

fn config(chunk_rows: u32) -> SnapshotConfig {
    SnapshotConfig { mode: SnapshotMode::Initial, chunk_rows, rows_per_second_max: None }
}

/// Of tables that were published before the slot was made, and of which nothing was delivered.
fn history(state: &BTreeMap<String, Vec<u8>>) -> History<'_> {
    History { state, before_slot: &|_| true, followed: &|_| false, resumed: Lsn(0) }
}

async fn snapshotter(url: &str, slot: &str, config: &SnapshotConfig, state: &BTreeMap<String, Vec<u8>>) -> Snapshotter {
    let client = session(url).await;
    let captured = catalog::captured(&client, &["*.*".into()], Some(slot)).await.unwrap();
    let history = history(state);
    Snapshotter::start(connector(url.to_owned()), config, Some(slot.to_owned()), captured.tables, &history).unwrap()
}

const SLOT: &str = "bench";

impl Bench {
    /// Runs `setup`, creates slot and publication, starts the snapshot of all tables.
    async fn start(postgres: &Postgres, setup: &str, chunk_rows: u32) -> Bench {
        Bench::start_with(postgres, setup, &config(chunk_rows)).await
    }

    async fn start_with(postgres: &Postgres, setup: &str, config: &SnapshotConfig) -> Bench {
        let url = postgres.url("postgres");
        let client = session(&url).await;
        client.batch_execute(setup).await.unwrap_or_else(|error| panic!("{setup}: {error:?}"));
        let stream = Stream::create(&url, SLOT).await;
        let mut snapshotter = snapshotter(&url, SLOT, config, &BTreeMap::new()).await;
        let mut batch = Batch::new();
        batch.state = snapshotter.take_entries();
        Bench {
            url,
            client,
            stream,
            snapshotter,
            consumer: Consumer::default(),
            batch,
            last: position(Lsn(0), 0),
            passed: Lsn(0),
            dropped: 0,
            held: 0,
        }
    }

    /// As after a crash: what was recorded is all that is known.
    async fn restart(&mut self, config: &SnapshotConfig) {
        self.snapshotter = snapshotter(&self.url, SLOT, config, &self.consumer.state).await;
        self.batch.state.append(&mut self.snapshotter.take_entries());
    }

    async fn sql(&self, sql: &str) {
        self.client.batch_execute(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    }

    async fn rows(&self, query: &str) -> Vec<Vec<String>> {
        let rows = crate::sql::rows(&self.client, "test", query).await.unwrap();
        rows.iter().map(|row| (0..row.len()).map(|at| row.get(at).unwrap_or("NULL").to_owned()).collect()).collect()
    }

    fn done(&self) -> bool {
        self.snapshotter.progress().is_empty()
    }

    /// Streams and snapshots until all tables were read and all that was committed before the call was delivered.
    async fn run(&mut self) {
        let end: Lsn = self.rows("SELECT pg_current_wal_flush_lsn()").await[0][0].parse().unwrap();
        while !self.done() || self.stream.fetched < end || !self.stream.queue.is_empty() {
            self.step().await;
        }
    }

    /// One round of the stream's owner.
    async fn step(&mut self) {
        self.stream.fetch(2000).await;
        self.step_without_fetching().await;
    }

    /// The stream is behind.
    async fn step_without_fetching(&mut self) {
        while let Some(transaction) = self.stream.queue.pop_front() {
            self.deliver(transaction).await;
        }
        self.passed = self.passed.max(self.stream.fetched);
        self.stream_passed();
        tokio::select! {
            biased;
            ready = self.snapshotter.ready() => ready.unwrap(),
            () = tokio::task::yield_now() => {}
        }
        self.stream_passed();
    }

    fn stream_passed(&mut self) {
        self.snapshotter.stream_passed(self.passed, &mut self.batch, &self.last).unwrap();
        self.consumer.take(&mut self.batch);
    }

    async fn deliver(&mut self, transaction: StreamTransaction) {
        let StreamTransaction { xid, commit, end, changes } = transaction;
        while self.snapshotter.holds(xid, commit) {
            self.held += 1;
            self.snapshotter.ready().await.unwrap();
            self.stream_passed();
        }
        for (ordinal, change) in changes.into_iter().enumerate() {
            self.change(xid, change, position(commit, ordinal as u64 + 1));
        }
        self.passed = end;
        self.stream_passed();
    }

    fn change(&mut self, xid: u32, change: StreamChange, position: Position) {
        if self.batch.current_transaction().is_none() {
            self.batch.begin_transaction(Transaction { id: xid.to_string(), commit_time_us: 0 });
        }
        let (snapshotter, batch, last) = (&mut self.snapshotter, &mut self.batch, &self.last);
        match change {
            StreamChange::Truncate { tables } => {
                for (oid, table) in tables {
                    if snapshotter.drops(xid, oid) {
                        self.dropped += 1;
                        continue;
                    }
                    snapshotter.before_truncate(xid, oid, batch, last).unwrap();
                    batch.change(Op::Truncate, &table, position);
                }
            }
            StreamChange::Insert { oid, table, new } => {
                if snapshotter.drops(xid, oid) {
                    self.dropped += 1;
                    return;
                }
                snapshotter.before_change(xid, &table, oid, &values(&new), batch, last).unwrap();
                add(batch, Op::Insert, &table, position, None, &new);
            }
            StreamChange::Delete { oid, table, old } => {
                if snapshotter.drops(xid, oid) {
                    self.dropped += 1;
                    return;
                }
                snapshotter.before_change(xid, &table, oid, &values(&old), batch, last).unwrap();
                add(batch, Op::Delete, &table, position, Some(&old), &[]);
            }
            StreamChange::Update { oid, table, old, new } => {
                if snapshotter.drops(xid, oid) {
                    self.dropped += 1;
                    return;
                }
                snapshotter
                    .before_change(xid, &table, oid, &values(old.as_ref().unwrap_or(&new)), batch, last)
                    .unwrap();
                let same_key = |old: &StreamRow| table.key_columns().all(|column| old[column] == new[column]);
                match old {
                    Some(old) if !same_key(&old) && table.key == towpath_contract::KeyKind::Columns => {
                        add(batch, Op::Delete, &table, position, Some(&old), &[]);
                        let (old, row) = (values(&old), values(&new));
                        batch.change(Op::Insert, &table, position).after(row).linked(old);
                        if new.contains(&None) {
                            snapshotter.key_moved(&table, oid, &values(&new), batch).unwrap();
                        }
                    }
                    old => add(batch, Op::Update, &table, position, old.as_ref(), &new),
                }
            }
        }
        self.last = position;
    }
}

fn add(
    batch: &mut Batch,
    op: Op,
    table: &std::sync::Arc<towpath_contract::TableSchema>,
    position: Position,
    old: Option<&StreamRow>,
    new: &[Option<Option<Vec<u8>>>],
) {
    let mut change = batch.change(op, table, position);
    if let Some(old) = old {
        change = change.before(values(old));
    }
    if op != Op::Delete {
        change.after(values(new));
    }
}

/// 21 bytes, as the connector's.
fn position(commit: Lsn, ordinal: u64) -> Position {
    let bytes = [&commit.0.to_be_bytes()[..], &ordinal.to_be_bytes(), &[0; 5]].concat();
    Position::from_bytes(&bytes).unwrap()
}

fn values(row: &[Option<Option<Vec<u8>>>]) -> Vec<Value<'_>> {
    row.iter()
        .map(|value| match value {
            None => Value::Unavailable,
            Some(None) => Value::Null,
            Some(Some(text)) => Value::Data(text),
        })
        .collect()
}
