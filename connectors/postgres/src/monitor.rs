//! What is asked of the server beside the stream: how far its log goes, whether the publication still covers what it did,
//! and the optional heartbeat.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};
use tokio_postgres::Client;
use towpath_contract::{Error, ErrorKind, Result, StateEntry};
use tracing::Instrument;

use crate::coverage::{self, Coverage};
use crate::position::Lsn;
use crate::selection::Selection;
use crate::sql::{self, ident};

/// The stream does not tell how far the log goes: its messages carry their own address, its keepalives that of what was
/// decoded. The lag in bytes is therefore asked for. Nor does it tell what it leaves out.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// One look in this many is at the publication, too.
const LOOKS_PER_PUBLICATION: u32 = 5;
/// A publication that was not seen for this long is not watched, however short the config's patience with a silent server is.
const UNSEEN_MIN: Duration = Duration::from_secs(15);

/// Where the log ends that can be streamed. A standby cannot say where it writes, for it does not; it says what it replayed.
const LOG_END: &str =
    "SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_flush_lsn() END";

/// Moves the log on, so that the slot can follow. Needs no table; no transaction id is used up.
const HEARTBEAT: &str = "SELECT pg_logical_emit_message(false, 'towpath.heartbeat', '')";

/// The publication as it was when the stream began.
pub(crate) struct Published {
    pub(crate) publication: String,
    pub(crate) selection: Selection,
    pub(crate) coverage: Coverage,
    /// The coverage's entry, where it is not what was recorded.
    pub(crate) news: Vec<StateEntry>,
    pub(crate) fingerprint: String,
    pub(crate) server_version: u32,
}

/// What the task found, for the reader.
struct Found {
    log_end: AtomicU64,
    /// When the publication was last seen.
    seen: Mutex<Instant>,
    ends: Mutex<Ends>,
    lost: OnceLock<String>,
    /// To be recorded: what the publication covers now.
    news: Mutex<Vec<StateEntry>>,
    /// Tables that are asked for and not published.
    uncovered: Mutex<Vec<String>>,
}

/// Since when nothing was missing: an end of the log that is not recorded yet, with the time when it was asked for, and the
/// time of the newest one that is.
#[derive(Default)]
struct Ends {
    awaited: Option<(std::time::Instant, Lsn)>,
    reached: Option<std::time::Instant>,
}

/// Runs until it is dropped.
pub(crate) struct Monitor {
    task: JoinHandle<()>,
    client: Arc<Client>,
    found: Arc<Found>,
    unseen_max: Duration,
}

impl Monitor {
    pub(crate) fn start(
        client: Arc<Client>,
        log_end: Lsn,
        published: Published,
        heartbeat: Option<Duration>,
        read_timeout: Duration,
    ) -> Monitor {
        let found = Arc::new(Found {
            log_end: AtomicU64::new(log_end.0),
            seen: Mutex::new(Instant::now()),
            ends: Mutex::default(),
            lost: OnceLock::new(),
            news: Mutex::default(),
            uncovered: Mutex::new(published.coverage.uncovered().map(str::to_owned).collect()),
        });
        let task = tokio::spawn(watch(client.clone(), found.clone(), published, heartbeat).in_current_span());
        Monitor { task, client, found, unseen_max: read_timeout.max(UNSEEN_MIN) }
    }

    /// An error when the publication is not watched any more. What it leaves out from then on nobody would see, so that the
    /// capture must end: the next one looks at it first of all, and compares it with what was recorded.
    pub(crate) fn watches(&self) -> Result<()> {
        let operation = "watching the publication";
        if self.client.is_closed() {
            return Err(Error::retry(ErrorKind::Connection, operation, "the SQL session beside the stream has ended"));
        }
        let unseen = lock(&self.found.seen).elapsed();
        if unseen >= self.unseen_max {
            let message = format!("it could not be looked at for {} s", unseen.as_secs());
            return Err(Error::retry(ErrorKind::Timeout, operation, message));
        }
        Ok(())
    }

    /// Where the server's log ended, as last heard.
    pub(crate) fn log_end(&self) -> Lsn {
        log_end(&self.found)
    }

    /// Everything that was in the log at this time is `recorded`.
    pub(crate) fn complete_as_of(&self, recorded: Lsn) -> Option<std::time::Instant> {
        let mut ends = lock(&self.found.ends);
        if let Some((at, _)) = ends.awaited.take_if(|(_, end)| *end <= recorded) {
            ends.reached = Some(at);
        }
        ends.reached
    }

    /// Tables that are asked for and not published.
    pub(crate) fn uncovered(&self) -> Vec<String> {
        lock(&self.found.uncovered).clone()
    }

    /// State entries to be recorded.
    pub(crate) fn take_news(&self) -> Vec<StateEntry> {
        std::mem::take(&mut *lock(&self.found.news))
    }

    /// The publication left something out, and what is unknown by that. It does not end.
    pub(crate) fn lost(&self) -> Option<&str> {
        self.found.lost.get().map(String::as_str)
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn log_end(found: &Found) -> Lsn {
    Lsn(found.log_end.load(Ordering::Relaxed))
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every change under these locks is complete in itself.
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn watch(client: Arc<Client>, found: Arc<Found>, mut published: Published, heartbeat: Option<Duration>) {
    let mut next_look = Instant::now();
    let mut next_beat = heartbeat.map(|every| Instant::now() + every);
    let (mut healthy, mut looks) = (true, 0);
    // Where the log ended before the publication was last found to cover all. Before the first look that is where it ended when the
    // source was opened, which looked too.
    let mut covered_to = log_end(&found);
    loop {
        sleep_until(next_beat.map_or(next_look, |beat| beat.min(next_look))).await;
        let now = Instant::now();
        if next_beat.is_some_and(|beat| beat <= now) {
            next_beat = heartbeat.map(|every| now + every);
            let sent = sql::rows(&client, "sending the heartbeat", HEARTBEAT).await;
            // The stream itself is not hurt by it: one line when it starts to fail, one when it works again.
            match &sent {
                Err(error) if healthy => tracing::warn!(%error, "the heartbeat fails"),
                Ok(_) if !healthy => tracing::info!("the heartbeat works again"),
                _ => {}
            }
            healthy = sent.is_ok();
        }
        if next_look <= now {
            next_look = now + LOOK_EVERY;
            looks += 1;
            // What cannot be asked now is asked next time; the reader sees for how long it could not.
            if looks % LOOKS_PER_PUBLICATION == 0 {
                let before = log_end(&found);
                match look_at_publication(&client, &found, &mut published).await {
                    Ok(None) => {
                        covered_to = before;
                        *lock(&found.seen) = Instant::now();
                    }
                    Ok(Some(what)) => {
                        let _ = found.lost.set(format!("{what}: such changes since {covered_to} are unknown"));
                    }
                    Err(_) => {}
                }
                lock(&found.news).append(&mut published.news);
            }
            look_at_log_end(&client, &found).await;
        }
    }
}

async fn look_at_log_end(client: &Client, found: &Found) {
    let asked = std::time::Instant::now();
    if let Ok(rows) = sql::rows(client, "asking for the end of the log", LOG_END).await
        && let Some(Ok(lsn)) = rows.first().map(|row| sql::text(row, 0).parse::<Lsn>())
    {
        found.log_end.store(lsn.0, Ordering::Relaxed);
        lock(&found.ends).awaited.get_or_insert((asked, lsn));
    }
}

/// What the publication covered and covers no more.
async fn look_at_publication(client: &Client, found: &Found, published: &mut Published) -> Result<Option<String>> {
    let (name, version) = (published.publication.as_str(), published.server_version);
    let fingerprint = coverage::fingerprint(client, name, version).await?;
    if fingerprint == published.fingerprint {
        return Ok(None);
    }
    // A table that was dropped meanwhile is not in it, nor one whose new name is not asked for.
    let now = Coverage::look_up(client, name, &published.selection, version).await?;
    let lost = published.coverage.lost(&now);
    let uncovered: Vec<String> = now.uncovered().map(str::to_owned).collect();
    for table in uncovered.iter().filter(|table| published.coverage.uncovered().all(|known| known != **table)) {
        tracing::warn!("{}", uncaptured(table, &published.publication));
    }
    *lock(&found.uncovered) = uncovered;
    published.fingerprint = fingerprint;
    if lost.is_none() && published.coverage != now {
        published.news.push(now.entry()?);
        published.coverage = now;
    }
    Ok(lost)
}

/// For people: a table that is asked for and not published.
pub(crate) fn uncaptured(table: &str, publication: &str) -> String {
    format!(
        "{table} is asked for in `tables` and not published: its changes are not captured. Once `towpath doctor` \
         has nothing against the table, its owner adds it (ALTER PUBLICATION {} ADD TABLE …), or `tables` names the others; then pause and resume the source",
        ident(publication)
    )
}
