//! A database of its own for each test, and a stand-in for the engine that keeps what an outbox would.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use serde_json::{Value as Json, json};
use tokio::sync::OnceCell;
use towpath_contract::{
    Action, Batch, Capture, Change, Error, Position, Resume, Row, SnapshotRequest, Source, StateEntry, Value,
};
use towpath_postgres::{PostgresConfig, PostgresSource};
use towpath_test_support::tokio_postgres::Client;
use towpath_test_support::{Folder, Postgres};

/// One server for the tests of a process, with a database for each.
pub(crate) async fn server() -> &'static Postgres {
    static SERVER: OnceCell<Postgres> = OnceCell::const_new();
    SERVER.get_or_init(|| Postgres::builder().settings(SETTINGS).start()).await
}

/// Some things came to PostgreSQL late: a test of them has nothing to do before.
pub(crate) async fn major() -> u32 {
    server().await.major()
}

const SETTINGS: &str =
    "max_replication_slots = 100\nmax_wal_senders = 100\nmax_connections = 200\nwal_sender_timeout = 60s";

pub(crate) struct Db {
    pub(crate) name: String,
    pub(crate) url: String,
    pub(crate) client: Client,
    spool: Folder,
}

impl Db {
    /// A new database on the shared server, with these tables.
    pub(crate) async fn new(setup: &str) -> Db {
        Db::on(server().await, setup).await
    }

    pub(crate) async fn on(server: &Postgres, setup: &str) -> Db {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("db{}_{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        server.sql(&format!("CREATE DATABASE {name}")).await;
        let client = server.client(&name).await;
        let db = Db { url: server.url(&name), name, client, spool: Folder::new("spool") };
        db.sql("CREATE TABLE fence (id int PRIMARY KEY)").await;
        db.sql(setup).await;
        db
    }

    pub(crate) async fn sql(&self, text: &str) {
        if let Err(error) = self.client.batch_execute(text).await {
            panic!("{text}\n{error:?}");
        }
    }

    pub(crate) async fn value(&self, query: &str) -> String {
        let row = self.client.query_one(&format!("SELECT ({query})::text"), &[]).await;
        row.unwrap_or_else(|error| panic!("{query}\n{error:?}")).get::<_, Option<String>>(0).unwrap_or_default()
    }

    /// Named after the database: slots are shared by all of the server.
    pub(crate) fn source(&self, more: Json) -> PostgresSource {
        self.source_named(&self.name, more)
    }

    pub(crate) fn source_named(&self, name: &str, more: Json) -> PostgresSource {
        let mut config = json!({ "url": self.url, "snapshot": { "mode": "never" } });
        for (key, value) in more.as_object().unwrap() {
            config[key] = value.clone();
        }
        let config: PostgresConfig = serde_json::from_value(config).unwrap();
        PostgresSource::new(name, config, self.spool.path().to_owned())
    }

    pub(crate) async fn tap(&self, more: Json) -> Tap {
        Tap::open(self.source(more), Resume::default()).await
    }
}

/// One change, as text that says everything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) text: String,
    pub(crate) position: Position,
    pub(crate) transaction: String,
}

/// An engine with an outbox in memory.
pub(crate) struct Tap {
    pub(crate) source: PostgresSource,
    pub(crate) capture: Box<dyn Capture>,
    pub(crate) resume: Resume,
    pub(crate) seen: Vec<Seen>,
}

const WITHIN: Duration = Duration::from_secs(60);

impl Tap {
    pub(crate) async fn open(source: PostgresSource, resume: Resume) -> Tap {
        Tap::try_open(source, resume).await.unwrap_or_else(|error| panic!("{error}"))
    }

    pub(crate) async fn try_open(source: PostgresSource, mut resume: Resume) -> Result<Tap, Error> {
        // An own slot may still be in use by a session that the server has not ended yet.
        let capture = loop {
            match source.open(resume.clone()).await {
                Err(error) if error.message.contains("in use by the server process") => {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                other => break other?,
            }
        };
        resume.identity = Some(capture.identity().to_owned());
        Ok(Tap { source, capture, resume, seen: Vec::new() })
    }

    /// Takes batches until one has it. Where the capture asks for a new one, that goes on, as the engine does it.
    pub(crate) async fn until(mut self, text: &str) -> Tap {
        while !self.texts().iter().any(|seen| seen == text) {
            if let Err(error) = self.try_next().await {
                assert_eq!(error.action, Action::Retry, "{error}");
                let seen = std::mem::take(&mut self.seen);
                self = Tap { seen, ..self.reopen().await };
            }
        }
        self
    }

    /// Asks for the table's rows.
    pub(crate) fn snapshot(&mut self, table: &str) {
        let entries = self.capture.snapshot(SnapshotRequest { tables: vec![table.to_owned()] }).unwrap();
        let value = |entry: StateEntry| (entry.key, entry.value.expect("a request removes nothing"));
        self.resume.state.extend(entries.into_iter().map(value));
    }

    /// One batch, recorded. An error of the capture is given back.
    pub(crate) async fn try_next(&mut self) -> Result<usize, Error> {
        let mut batch = Batch::new();
        let next = tokio::time::timeout(WITHIN, self.capture.next(&mut batch)).await;
        next.unwrap_or_else(|_| panic!("nothing within {WITHIN:?}; seen {:#?}", self.texts()))?;
        let count = batch.len();
        self.take(&batch);
        Ok(count)
    }

    fn take(&mut self, batch: &Batch) {
        for change in batch.changes() {
            let seen =
                Seen { text: text(&change), position: change.position(), transaction: change.transaction().id.clone() };
            if let Some(last) = self.seen.last() {
                assert!(seen.position > last.position, "{seen:?} after {last:?}");
            }
            self.seen.push(seen);
        }
        for entry in &batch.state {
            match &entry.value {
                Some(value) => self.resume.state.insert(entry.key.clone(), value.clone()),
                None => self.resume.state.remove(&entry.key),
            };
        }
        let position = batch.position.expect("a batch ends where a restart can resume");
        assert!(self.resume.position.is_none_or(|before| before <= position));
        if let Some(last) = self.seen.last() {
            // A snapshot's row sorts right after the change before it, whose position is what a restart resumes from.
            let length = position.as_bytes().len();
            assert!(last.position.as_bytes()[..length] <= *position.as_bytes());
        }
        self.resume.position = Some(position);
        self.capture.recorded(&position);
    }

    /// Everything that was committed so far.
    pub(crate) async fn drain(&mut self, db: &Db) -> Vec<String> {
        let fence = db.value("SELECT coalesce(max(id), 0) + 1 FROM fence").await;
        db.sql(&format!("INSERT INTO fence VALUES ({fence})")).await;
        let last = format!("insert fence [{fence}]");
        while self.seen.last().is_none_or(|seen| seen.text != last) {
            self.try_next().await.unwrap_or_else(|error| panic!("{error}"));
        }
        self.seen.pop();
        self.texts()
    }

    pub(crate) fn texts(&self) -> Vec<String> {
        self.seen.iter().map(|seen| seen.text.clone()).filter(|text| !text.contains("fence")).collect()
    }

    /// As after a crash: the connection is dropped, what was recorded is known.
    pub(crate) async fn reopen(self) -> Tap {
        let Tap { source, capture, resume, .. } = self;
        drop(capture);
        Tap::open(source, resume).await
    }

    pub(crate) async fn close(self) -> Resume {
        self.capture.close().await.unwrap_or_else(|error| panic!("{error}"));
        self.resume
    }
}

/// `update t [1 old] > [1 new]`; `?` is unavailable, `∅` NULL.
fn text(change: &Change<'_>) -> String {
    let mut text = format!("{} {}", change.op().name(), change.table().name);
    if let Some(before) = change.before() {
        text += &format!(" [{}]", row(before));
    }
    if let (Some(_), Some(_)) = (change.before(), change.after()) {
        text += " >";
    }
    if let Some(after) = change.after() {
        text += &format!(" [{}]", row(after));
    }
    if let Some(linked) = change.linked() {
        text += &format!(" ~ [{}]", row(linked));
    }
    text
}

fn row(row: Row<'_>) -> String {
    let value = |value: Value<'_>| match value {
        Value::Null => "∅".to_owned(),
        Value::Unavailable => "?".to_owned(),
        Value::Data(bytes) if bytes.len() > 100 => format!("({})", bytes.len()),
        Value::Data(bytes) => String::from_utf8_lossy(bytes).into_owned(),
    };
    row.values().map(value).collect::<Vec<_>>().join(" ")
}
