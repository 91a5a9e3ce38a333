//! How it all is, at one moment: the parts' own words, in the words of the admin API.

use std::collections::HashMap;
use std::time::{Duration, Instant, SystemTime};

use towpath_contract::{ErrorKind, Progress};

use super::board::{SourceState, View};
use super::control::SourceControl;
use crate::admin::rate::Rate;
use crate::admin::status::{
    self, BrokerState, BrokerStatus, OutboxState, OutboxStatus, RouteStatus, SourceStatus, Status, TableProgress,
};
use crate::outbox::{RouteStats, State, Stats};
use crate::relay::{ConnectionState, RelayStatus, RouteState};

/// Makes the status; remembers what rates need.
#[derive(Default)]
pub(super) struct Reporter {
    rates: HashMap<String, Rate>,
}

/// What a status is made of.
pub(super) struct Parts<'a> {
    pub(super) uptime: Duration,
    pub(super) stopping: bool,
    pub(super) sources: &'a [SourceControl],
    pub(super) outbox_path: String,
    pub(super) outbox_max_bytes: u64,
    pub(super) outbox_state: State,
    pub(super) outbox: Stats,
    /// Those of the config.
    pub(super) routes: &'a [String],
    /// `None` when no process runs.
    pub(super) relay: Option<&'a RelayStatus>,
}

impl Reporter {
    pub(super) fn status(&mut self, parts: Parts<'_>) -> Status {
        let now = Instant::now();
        let sources = parts.sources.iter().map(|source| source.board.read(|view| self.source(now, &source.name, view)));
        let sources = sources.collect();
        let routes = parts.outbox.routes.iter().filter(|route| concerned(route, parts.routes));
        let routes = routes.map(|route| self.route(now, route, parts.relay)).collect();
        Status {
            version: env!("CARGO_PKG_VERSION").into(),
            running: parts.relay.is_some(),
            stopping: parts.stopping,
            uptime_seconds: parts.uptime.as_secs(),
            sources,
            outbox: outbox(&parts),
            broker: broker(parts.relay),
            routes,
        }
    }

    fn source(&mut self, now: Instant, name: &str, view: &View) -> SourceStatus {
        let Progress { position_text, spooled_bytes, uncaptured, snapshot, .. } = &view.progress;
        SourceStatus {
            name: name.into(),
            state: source_state(view),
            identity: view.identity.clone(),
            position: (!position_text.is_empty()).then(|| position_text.clone()),
            lag_bytes: view.behind_bytes(),
            lag_seconds: view.lag().map(|lag| lag.as_secs_f64()),
            changes_total: view.changes,
            rate: self.rate(now, "source", name, view.changes),
            spooled_bytes: *spooled_bytes,
            uncaptured: uncaptured.clone(),
            unread_after_gap: view.unread_after_gap,
            snapshot: snapshot
                .iter()
                .map(|table| TableProgress::new(table.table.clone(), table.rows_done, table.rows_total, table.seconds))
                .collect(),
        }
    }

    fn route(&mut self, now: Instant, stored: &RouteStats, relay: Option<&RelayStatus>) -> RouteStatus {
        let live = relay.and_then(|relay| relay.routes.iter().find(|route| route.route == stored.id));
        let confirmed = live.map_or(0, |route| route.confirmed);
        let (state, detail) = match live {
            Some(route) => route_state(&route.state),
            None => (status::RouteState::NotRunning, None),
        };
        RouteStatus {
            name: stored.name.to_string(),
            state,
            unsettled: stored.unsettled.events,
            published_total: confirmed,
            rate: self.rate(now, "route", &stored.name, confirmed),
            parked: stored.parked_events,
            detail,
        }
    }

    fn rate(&mut self, now: Instant, kind: &str, name: &str, total: u64) -> f64 {
        self.rates.entry(format!("{kind} {name}")).or_default().per_second(now, total)
    }
}

/// A route that is no longer configured is of interest as long as something is left of it.
fn concerned(route: &RouteStats, configured: &[String]) -> bool {
    configured.iter().any(|name| **name == *route.name) || route.unsettled.events > 0 || route.parked_events > 0
}

fn source_state(view: &View) -> status::SourceState {
    match &view.state {
        SourceState::Starting => status::SourceState::Starting,
        SourceState::Capturing if view.progress.snapshot.is_empty() => status::SourceState::Streaming,
        SourceState::Capturing => status::SourceState::Snapshotting,
        SourceState::Paused => status::SourceState::Paused,
        SourceState::WaitingForOutbox => status::SourceState::WaitingForOutbox,
        SourceState::Retrying { error, pause } => status::SourceState::Retrying {
            error: format!("{}: {}", error.operation, error.message),
            next_in_seconds: pause
                .saturating_sub(view.since.map_or(Duration::ZERO, |since| since.elapsed()))
                .as_secs_f64(),
        },
        SourceState::Stopped { error } => {
            let (text, help) = (format!("{}: {}", error.operation, error.message), error.help.clone());
            match error.kind {
                ErrorKind::Gap => status::SourceState::Gap { error: text, help },
                _ => status::SourceState::Stopped { error: text, help },
            }
        }
        SourceState::Ended => status::SourceState::NotRunning,
    }
}

fn outbox(parts: &Parts<'_>) -> OutboxStatus {
    let stats = &parts.outbox;
    let since = stats.routes.iter().filter_map(|route| route.unsettled_since_ms).min();
    let age = since.map_or(Duration::ZERO, |ms| {
        let since = SystemTime::UNIX_EPOCH + Duration::from_millis(ms.max(0) as u64);
        since.elapsed().unwrap_or_default()
    });
    OutboxStatus {
        path: parts.outbox_path.clone(),
        state: match &parts.outbox_state {
            State::Ok => OutboxState::Open,
            State::Full { .. } | State::TooOld { .. } => OutboxState::Full,
            State::Failed(error) => OutboxState::Failed { error: error.to_string(), help: error.help() },
            State::DiskFull | State::Locked => OutboxState::Stalled { reason: parts.outbox_state.to_string() },
            State::Closed => OutboxState::Failed { error: parts.outbox_state.to_string(), help: None },
        },
        unsettled_events: stats.routes.iter().map(|route| route.unsettled.events).sum(),
        unsettled_bytes: stats.routes.iter().map(|route| route.unsettled.bytes).sum(),
        oldest_age_seconds: age.as_secs_f64(),
        file_bytes: stats.file_bytes,
        max_bytes: parts.outbox_max_bytes,
        parked: stats.routes.iter().map(|route| route.parked_events).sum(),
    }
}

fn broker(relay: Option<&RelayStatus>) -> BrokerStatus {
    let since = |since: &SystemTime| since.elapsed().unwrap_or_default().as_secs_f64();
    let topology = relay.map(|relay| relay.topology.clone()).unwrap_or_default();
    match relay.map(|relay| &relay.connection) {
        None | Some(ConnectionState::Stopped) => {
            BrokerStatus { topology: Vec::new(), host: None, state: BrokerState::NotConnected }
        }
        Some(ConnectionState::Connecting { host, reason, .. }) => BrokerStatus {
            topology: Vec::new(),
            host: Some(host.clone()),
            state: BrokerState::Connecting { reason: reason.clone().unwrap_or_else(|| "connecting".into()) },
        },
        Some(ConnectionState::Up { host, .. }) => {
            BrokerStatus { topology, host: Some(host.clone()), state: BrokerState::Up }
        }
        Some(ConnectionState::Blocked { host, reason, since: at }) => BrokerStatus {
            topology,
            host: Some(host.clone()),
            state: BrokerState::Blocked { reason: reason.clone(), since_seconds: since(at) },
        },
    }
}

fn route_state(state: &RouteState) -> (status::RouteState, Option<String>) {
    let kind = match state {
        RouteState::TooManyParked { .. } => status::RouteState::Stopped,
        state if state.is_stopped() => status::RouteState::Waiting,
        _ => status::RouteState::Running,
    };
    (kind, state.trouble())
}
