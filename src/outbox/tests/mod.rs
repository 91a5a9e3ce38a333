//! The outbox as its callers see it, on real files.

mod bounds;
mod crash;
mod failing;
mod opening;
mod parking;
mod reading;
mod recording;

use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;
use tokio::sync::mpsc;
use towpath_contract::{ByteSize, Position, Span};

use crate::config::model::OutboxConfig;
use crate::event::{Event, EventBatch, RouteId, Seq};

use super::limits::Limits;
use super::{News, Outbox, OutboxError, Parking, Record, RouteSet, RouteSetup, Setup, Stats, Stored};

const A: RouteId = RouteId(1);
const B: RouteId = RouteId(2);

/// A folder of its own, and how the outbox in it is opened.
struct Place {
    folder: TempDir,
    retain: Duration,
    max_size: u64,
    max_age: Option<Duration>,
    shards: u16,
}

/// An open outbox with the routes `a` (A, its keys wait) and `b` (B, they pass).
struct Open {
    outbox: Outbox,
    stored: Stored,
    news: mpsc::UnboundedReceiver<News>,
}

impl Place {
    fn new() -> Place {
        Place {
            folder: TempDir::new().unwrap(),
            retain: Duration::from_secs(3600),
            max_size: 1 << 30,
            max_age: None,
            shards: 1,
        }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("outbox.db")
    }

    fn config(&self) -> OutboxConfig {
        OutboxConfig {
            sqlite: self.path(),
            retain: Span(self.retain),
            max_size: ByteSize(self.max_size),
            max_age: self.max_age.map(Span),
        }
    }

    fn open(&self) -> Open {
        self.try_open().unwrap()
    }

    fn try_open(&self) -> Result<Open, OutboxError> {
        self.open_at(&self.path())
    }

    /// With these settings, but elsewhere: where the process that started this one said.
    fn open_at(&self, path: &Path) -> Result<Open, OutboxError> {
        let (sender, news) = mpsc::unbounded_channel();
        let routes = [("a", true), ("b", false)];
        let routes = routes.map(|(name, waits)| RouteSetup { name: name.into(), waits }).to_vec();
        let config = OutboxConfig { sqlite: path.to_path_buf(), ..self.config() };
        let limits = Limits { prune_pause: Duration::from_millis(10), ..Limits::new(&config) };
        let (outbox, stored) = Outbox::open_with(&config, Setup { routes, shards: self.shards, news: sender }, limits)?;
        Ok(Open { outbox, stored, news })
    }

    /// As a person sees it, beside Towpath or after it.
    fn sqlite(&self) -> rusqlite::Connection {
        rusqlite::Connection::open(self.path()).unwrap()
    }

    fn count(&self, sql: &str) -> i64 {
        self.sqlite().query_row(sql, [], |row| row.get(0)).unwrap()
    }
}

impl Open {
    async fn record(&self, events: EventBatch, position: u8) -> std::ops::Range<Seq> {
        self.try_record(record(events, position)).await.unwrap()
    }

    async fn try_record(&self, record: Record) -> Result<std::ops::Range<Seq>, OutboxError> {
        let permit = self.outbox.reserve(record.events.bytes()).await?;
        self.outbox.record(permit, record).await
    }

    /// Waits until the numbers say so.
    async fn stats(&self, until: impl FnMut(&Stats) -> bool) -> Stats {
        let mut stats = self.outbox.watch_stats();
        let found = tokio::time::timeout(Duration::from_secs(60), stats.wait_for(until)).await;
        found.unwrap_or_else(|_| panic!("still {:?}", self.outbox.stats())).unwrap().clone()
    }

    async fn read_ids(&self, route: RouteId, after: Seq) -> Vec<String> {
        let stretch = self.outbox.read(RouteSet::from_iter([route]), after, usize::MAX).await.unwrap();
        stretch.events.iter().filter(|event| event.parked.is_none()).map(|event| event.id.to_string()).collect()
    }

    async fn park(&self, seq: Seq, reason: &str) {
        self.outbox.park(seq, Parking::Because(reason.into())).await.unwrap();
    }

    async fn close(self) {
        self.outbox.close().await.unwrap();
    }
}

fn record(events: EventBatch, position: u8) -> Record {
    Record {
        source: "db".into(),
        identity: "system-1".into(),
        events,
        position: Position::from_bytes(&[position]),
        state: Vec::new(),
    }
}

fn event<'a>(route: RouteId, id: &'a str, key_hash: u64) -> Event<'a> {
    Event {
        seq: 0,
        route,
        key_hash,
        id,
        key: "{\"id\":1}",
        exchange: "towpath",
        routing_key: "db.public.t.insert",
        properties: &[0x90, 0, 1],
        body: b"{\"n\":1}",
        parked: None,
    }
}

fn batch<'a>(events: impl IntoIterator<Item = Event<'a>>) -> EventBatch {
    let mut batch = EventBatch::new();
    events.into_iter().for_each(|event| batch.push(event));
    batch
}

/// Events of one route, with ids `prefix-0`, `prefix-1` and so on, and bodies of this size.
fn many(route: RouteId, prefix: &str, count: usize, body_bytes: usize) -> EventBatch {
    let body = vec![b'x'; body_bytes];
    let mut batch = EventBatch::new();
    for index in 0..count {
        let id = format!("{prefix}-{index}");
        batch.push(Event { body: &body, ..event(route, &id, index as u64) });
    }
    batch
}
