//! What is asked of the server beside the stream: how far its log goes, and the optional heartbeat.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};
use tokio_postgres::Client;
use tracing::Instrument;

use crate::position::Lsn;
use crate::sql;

/// The stream does not tell how far the log goes: its messages carry their own address, its keepalives that of what was
/// decoded. The lag in bytes is therefore asked for.
const LOG_END_EVERY: Duration = Duration::from_secs(5);

/// A standby cannot say where it writes, for it does not; it says what it replayed.
const LOG_END: &str =
    "SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END";

/// Moves the log on, so that the slot can follow. Needs no table; no transaction id is used up.
const HEARTBEAT: &str = "SELECT pg_logical_emit_message(false, 'towpath.heartbeat', '')";

/// Runs until it is dropped.
pub(crate) struct Monitor {
    task: JoinHandle<()>,
    log_end: Arc<AtomicU64>,
}

impl Monitor {
    pub(crate) fn start(client: Arc<Client>, log_end: Lsn, heartbeat: Option<Duration>) -> Monitor {
        let shared = Arc::new(AtomicU64::new(log_end.0));
        let task = tokio::spawn(watch(client, shared.clone(), heartbeat).in_current_span());
        Monitor { task, log_end: shared }
    }

    /// Where the server's log ended, as last heard.
    pub(crate) fn log_end(&self) -> Lsn {
        Lsn(self.log_end.load(Ordering::Relaxed))
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn watch(client: Arc<Client>, log_end: Arc<AtomicU64>, heartbeat: Option<Duration>) {
    let mut next_look = Instant::now();
    let mut next_beat = heartbeat.map(|every| Instant::now() + every);
    let mut healthy = true;
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
            next_look = now + LOG_END_EVERY;
            if let Ok(rows) = sql::rows(&client, "asking for the end of the log", LOG_END).await
                && let Some(Ok(lsn)) = rows.first().map(|row| sql::text(row, 0).parse::<Lsn>())
            {
                log_end.store(lsn.0, Ordering::Relaxed);
            }
        }
    }
}
