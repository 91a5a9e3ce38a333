//! What must hold at every moment, looked at all the time while faults come and go.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rusqlite::{Connection, OpenFlags};
use towpath_test_support::tokio_postgres::{Client, NoTls};
use towpath_test_support::{Inbox, Postgres, RabbitMq};

use super::schema::MARKER;
use crate::admin::Admin;

const EVERY: Duration = Duration::from_millis(200);

/// `admin.ready_lag_max` of the run, and how much later than that a green `/readyz` is a lie: a busy machine of two cores, and a
/// consumer that comes back after its broker did.
pub(super) const READY_LAG_MAX: Duration = Duration::from_secs(5);
const GRACE: Duration = Duration::from_secs(15);
/// What waited in the queue of markers while this consumer was away.
const QUEUE_READ_WITHIN: Duration = Duration::from_secs(3);

#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    pub(super) broken: Vec<(u8, String)>,
    /// How often each was looked at.
    pub(super) acknowledged: u64,
    pub(super) positions: u64,
    pub(super) health: u64,
    pub(super) green: u64,
}

pub(super) struct Watch {
    seen: Arc<Mutex<Seen>>,
    /// Nobody looks at the outbox while this is held.
    pub(super) outbox: Arc<tokio::sync::Mutex<Outbox>>,
    task: tokio::task::JoinHandle<()>,
}

/// The outbox as another program sees it.
#[derive(Debug)]
pub(super) struct Outbox {
    path: PathBuf,
    /// The newest position seen, with its source's identity.
    newest: Option<(String, Vec<u8>)>,
    /// Somebody else moves the slot.
    in_gap: bool,
}

impl Outbox {
    /// From a fault that tears a gap until it was accepted: what the server says of the slot is not what Towpath told it.
    pub(super) fn in_gap(&mut self, in_gap: bool) {
        (self.in_gap, self.newest) = (in_gap, None);
    }

    /// The ids of the events that are settled, as far as they are kept.
    pub(super) fn settled(&self) -> Vec<String> {
        let file =
            Connection::open_with_flags(&self.path, OpenFlags::SQLITE_OPEN_READ_ONLY).expect("the outbox is a file");
        let query =
            "SELECT id FROM event WHERE seq <= (SELECT min(through) FROM settled WHERE settled.route = event.route)";
        let mut query = file.prepare(query).expect("docs/outbox.md shows it");
        let ids = query.query_map([], |row| row.get(0)).expect("it can be read");
        ids.collect::<Result<_, _>>().expect("ids are text")
    }

    fn position(&self) -> Option<(String, Vec<u8>)> {
        let file = Connection::open_with_flags(&self.path, OpenFlags::SQLITE_OPEN_READ_ONLY).ok()?;
        file.query_row("SELECT identity, position FROM source WHERE name = 'db'", [], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
        .ok()
    }
}

impl Watch {
    pub(super) async fn start(postgres: &Postgres, rabbit: &RabbitMq, admin: Admin, outbox: PathBuf) -> Watch {
        rabbit.declare_queue("markers", towpath_test_support::QueueKind::Quorum).await;
        rabbit.bind("markers", "towpath", "db.public.marker.*").await;
        let seen = Arc::new(Mutex::new(Seen::default()));
        let outbox = Arc::new(tokio::sync::Mutex::new(Outbox { path: outbox, newest: None, in_gap: false }));
        let mut looks = Looks {
            url: postgres.url("postgres"),
            client: None,
            inbox: rabbit.inbox("markers"),
            admin,
            markers: 0,
            open: BTreeSet::new(),
            lies_since: None,
            seen: Arc::clone(&seen),
            outbox: Arc::clone(&outbox),
        };
        let task = tokio::spawn(async move {
            loop {
                looks.look().await;
                tokio::time::sleep(EVERY).await;
            }
        });
        Watch { seen, outbox, task }
    }

    /// What was seen so far.
    pub(super) fn seen(&self) -> Seen {
        assert!(!self.task.is_finished(), "the watch has ended");
        self.seen.lock().expect("no look panics").clone()
    }

    pub(super) fn end(&self) -> Seen {
        let seen = self.seen();
        self.task.abort();
        seen
    }
}

struct Looks {
    url: String,
    client: Option<Client>,
    inbox: Inbox,
    admin: Admin,
    markers: i64,
    /// Markers that were written and have not come, with when that was.
    open: BTreeSet<(Instant, i64)>,
    lies_since: Option<Instant>,
    seen: Arc<Mutex<Seen>>,
    outbox: Arc<tokio::sync::Mutex<Outbox>>,
}

impl Looks {
    async fn look(&mut self) {
        self.write_marker().await;
        self.acknowledged().await;
        self.inbox.pump().await;
        for came in self.inbox.take() {
            let id = came.json()["key"]["id"].as_i64().expect("a marker's key");
            self.open.retain(|(_, open)| *open != id);
        }
        self.health().await;
    }

    fn note<T>(&self, note: impl FnOnce(&mut Seen) -> T) -> T {
        note(&mut self.seen.lock().expect("no look panics"))
    }

    async fn ask(&mut self, query: &str) -> Option<Vec<Option<String>>> {
        if self.client.as_ref().is_none_or(Client::is_closed) {
            let (client, connection) = towpath_test_support::tokio_postgres::connect(&self.url, NoTls).await.ok()?;
            tokio::spawn(connection);
            self.client = Some(client);
        }
        let answer = tokio::time::timeout(GRACE, self.client.as_ref()?.simple_query(query)).await.ok()?.ok()?;
        answer.iter().find_map(|message| match message {
            towpath_test_support::tokio_postgres::SimpleQueryMessage::Row(row) => {
                Some((0..row.len()).map(|index| row.get(index).map(str::to_owned)).collect())
            }
            _ => None,
        })
    }

    async fn write_marker(&mut self) {
        self.markers += 1;
        let marker = self.markers;
        // Known as open before it is written: it may come at once.
        self.open.insert((Instant::now(), marker));
        let insert = format!("INSERT INTO {MARKER} VALUES ({marker}) RETURNING id");
        if self.ask(&insert).await.is_none() {
            // Whether it was committed is not known.
            self.open.retain(|(_, open)| *open != marker);
        }
    }

    /// (7) and (8). The server is asked first: what the outbox then holds can only be newer.
    async fn acknowledged(&mut self) {
        let query =
            "SELECT confirmed_flush_lsn - '0/0'::pg_lsn FROM pg_replication_slots WHERE slot_name = 'towpath_db'";
        let outbox = Arc::clone(&self.outbox);
        let mut outbox = outbox.lock().await;
        if outbox.in_gap {
            return;
        }
        let told = self.ask(query).await.and_then(|row| row[0].as_deref()?.parse::<u64>().ok());
        let Some((identity, position)) = outbox.position() else { return };
        let recorded = u64::from_be_bytes(position[..8].try_into().expect("a position begins with a commit's address"));
        self.note(|seen| {
            seen.positions += 1;
            match &outbox.newest {
                Some((of, newest)) if *of == identity && *newest > position => {
                    seen.broken.push((8, format!("the stored position went back from {newest:x?} to {position:x?}")));
                }
                _ => {}
            }
            if let Some(told) = told {
                seen.acknowledged += 1;
                if told > recorded {
                    seen.broken.push((7, format!("{told:X} is acknowledged, and {recorded:X} is recorded")));
                }
            }
        });
        outbox.newest = Some((identity, position));
    }

    /// (14). For a while, for the markers that waited in the queue while this consumer was away come in that moment.
    async fn health(&mut self) {
        let oldest = self.open.first().map_or(Duration::ZERO, |(written, _)| written.elapsed());
        let green = self.admin.get("/readyz").await.0 == 200;
        let lies = green && oldest > READY_LAG_MAX + GRACE;
        self.lies_since = lies.then(|| self.lies_since.unwrap_or_else(Instant::now));
        let lasting = self.lies_since.is_some_and(|since| since.elapsed() > QUEUE_READ_WITHIN);
        self.note(|seen| {
            (seen.health, seen.green) = (seen.health + 1, seen.green + u64::from(green));
            if lasting {
                seen.broken.push((14, format!("/readyz is green, and what was committed {oldest:?} ago has not come")));
            }
        });
    }
}
