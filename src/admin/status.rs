//! What is known of a towpath at one moment: filled by the pipeline, served as JSON, printed by `towpath status`, and the
//! ground of health and metrics. One truth for all of them.
//!
//! Rates are per second over the last ten seconds. Times are seconds. No row data and no secret is in it.

use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    pub version: String,
    /// False when no process runs and this was read from the outbox alone.
    pub running: bool,
    /// It was told to stop, and finishes what is in flight.
    pub stopping: bool,
    pub uptime_seconds: u64,
    pub sources: Vec<SourceStatus>,
    pub outbox: OutboxStatus,
    pub broker: BrokerStatus,
    pub routes: Vec<RouteStatus>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SourceStatus {
    pub name: String,
    #[serde(flatten)]
    pub state: SourceState,
    /// The system that the positions belong to; `None` before the first connection.
    pub identity: Option<String>,
    /// The newest recorded position, in the source's own notation.
    pub position: Option<String>,
    /// Log written by the source and not yet recorded here. `None` where the source has no such measure, or before it is known.
    pub lag_bytes: Option<u64>,
    /// Age of the newest recorded change while more is known to wait; 0 when nothing waits.
    pub lag_seconds: Option<f64>,
    /// Changes recorded since this process started.
    pub changes_total: u64,
    /// Changes recorded per second.
    pub rate: f64,
    /// Spooled to disk for transactions in progress.
    pub spooled_bytes: u64,
    /// What the config asks for and is not captured: one line each, with the way out.
    #[serde(default)]
    pub uncaptured: Vec<String>,
    /// A gap was accepted, and the tables have not all been read since: what changed in it has not all come.
    #[serde(default)]
    pub unread_after_gap: bool,
    /// Tables being read, and those still to be.
    pub snapshot: Vec<TableProgress>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum SourceState {
    /// No process runs.
    NotRunning,
    Starting,
    /// Reads existing rows, and streams.
    Snapshotting,
    Streaming,
    /// By a person.
    Paused,
    /// The outbox is at its bound.
    WaitingForOutbox,
    /// Passing trouble; it tries again by itself.
    Retrying {
        error: String,
        next_in_seconds: f64,
    },
    /// A person must change something.
    Stopped {
        error: String,
        help: Option<String>,
    },
    /// Changes may be missing; `error` names the range.
    Gap {
        error: String,
        help: Option<String>,
    },
}

impl SourceState {
    pub const NAMES: [&str; 9] = [
        "not_running",
        "starting",
        "snapshotting",
        "streaming",
        "paused",
        "waiting_for_outbox",
        "retrying",
        "stopped",
        "gap",
    ];

    pub fn name(&self) -> &'static str {
        match self {
            SourceState::NotRunning => "not_running",
            SourceState::Starting => "starting",
            SourceState::Snapshotting => "snapshotting",
            SourceState::Streaming => "streaming",
            SourceState::Paused => "paused",
            SourceState::WaitingForOutbox => "waiting_for_outbox",
            SourceState::Retrying { .. } => "retrying",
            SourceState::Stopped { .. } => "stopped",
            SourceState::Gap { .. } => "gap",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TableProgress {
    /// `schema.table`.
    pub table: String,
    pub rows_done: u64,
    /// The source's own estimate.
    pub rows_total: Option<u64>,
    /// 0 to 1, by the estimate.
    pub share: Option<f64>,
    /// By the speed so far.
    pub seconds_left: Option<f64>,
}

impl TableProgress {
    /// `seconds`: time spent reading so far.
    pub fn new(table: String, rows_done: u64, rows_total: Option<u64>, seconds: f64) -> TableProgress {
        let share = rows_total.map(|total| if total == 0 { 1.0 } else { (rows_done as f64 / total as f64).min(1.0) });
        let seconds_left = match (rows_total, rows_done) {
            (Some(total), 1..) => Some(seconds / rows_done as f64 * total.saturating_sub(rows_done) as f64),
            _ => None,
        };
        TableProgress { table, rows_done, rows_total, share, seconds_left }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OutboxStatus {
    pub path: String,
    #[serde(flatten)]
    pub state: OutboxState,
    /// Recorded and not yet settled; the parked ones not counted.
    pub unsettled_events: u64,
    pub unsettled_bytes: u64,
    /// Age of the oldest unsettled event; 0 when there is none.
    pub oldest_age_seconds: f64,
    pub file_bytes: u64,
    pub max_bytes: u64,
    /// Events set aside.
    pub parked: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum OutboxState {
    Open,
    /// At its bound in size or age: sources wait, nothing is dropped.
    Full,
    /// It cannot be written to for now: the disk is full, another program holds it. It is tried again.
    Stalled {
        reason: String,
    },
    /// It cannot be written to.
    Failed {
        error: String,
        help: Option<String>,
    },
}

impl OutboxState {
    pub fn name(&self) -> &'static str {
        match self {
            OutboxState::Open => "open",
            OutboxState::Full => "full",
            OutboxState::Stalled { .. } => "stalled",
            OutboxState::Failed { .. } => "failed",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BrokerStatus {
    /// What is wrong with exchanges, queues and bindings: one line each, with the way out.
    #[serde(default)]
    pub topology: Vec<String>,
    /// `host:port` of the node that is connected or tried; never the URL.
    pub host: Option<String>,
    #[serde(flatten)]
    pub state: BrokerState,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum BrokerState {
    /// No process runs.
    NotConnected,
    Up,
    /// Why it is not up yet, or no more.
    Connecting {
        reason: String,
    },
    /// The broker takes nothing at the moment (`connection.blocked`): its memory or disk alarm.
    Blocked {
        reason: String,
        since_seconds: f64,
    },
}

impl BrokerState {
    pub fn name(&self) -> &'static str {
        match self {
            BrokerState::NotConnected => "not_connected",
            BrokerState::Up => "up",
            BrokerState::Connecting { .. } => "connecting",
            BrokerState::Blocked { .. } => "blocked",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RouteStatus {
    pub name: String,
    pub state: RouteState,
    /// Events recorded and not yet settled, the parked ones not counted.
    pub unsettled: u64,
    /// Events settled since this process started.
    pub published_total: u64,
    /// Events settled per second.
    pub rate: f64,
    pub parked: u64,
    /// Why it does not run, with the routing key where that is the reason.
    pub detail: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RouteState {
    /// No process runs.
    NotRunning,
    Running,
    /// The broker does not take its events (unroutable, a missing exchange, nacks); it goes on by itself when that passes.
    Waiting,
    /// It does not go on by itself.
    Stopped,
}

impl RouteState {
    pub fn name(self) -> &'static str {
        match self {
            RouteState::NotRunning => "not_running",
            RouteState::Running => "running",
            RouteState::Waiting => "waiting",
            RouteState::Stopped => "stopped",
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// One source, streaming, one route, running: nothing wrong.
    pub(crate) fn healthy() -> Status {
        Status {
            version: "0.1.0".into(),
            running: true,
            stopping: false,
            uptime_seconds: 11_520,
            sources: vec![SourceStatus {
                name: "orders_db".into(),
                state: SourceState::Streaming,
                identity: Some("7301234567890123456-1".into()),
                position: Some("0/1A2B3C4D".into()),
                lag_bytes: Some(2048),
                lag_seconds: Some(0.2),
                changes_total: 1_234_567,
                rate: 120.4,
                spooled_bytes: 0,
                uncaptured: vec![],
                unread_after_gap: false,
                snapshot: Vec::new(),
            }],
            outbox: OutboxStatus {
                path: "/var/lib/towpath/outbox.db".into(),
                state: OutboxState::Open,
                unsettled_events: 12,
                unsettled_bytes: 4096,
                oldest_age_seconds: 0.4,
                file_bytes: 120 << 20,
                max_bytes: 10 << 30,
                parked: 0,
            },
            broker: BrokerStatus { topology: vec![], host: Some("rabbit.example:5672".into()), state: BrokerState::Up },
            routes: vec![RouteStatus {
                name: "orders_db".into(),
                state: RouteState::Running,
                unsettled: 12,
                published_total: 1_234_555,
                rate: 119.0,
                parked: 0,
                detail: None,
            }],
        }
    }

    #[test]
    fn status_reads_back_from_its_json() {
        let mut status = healthy();
        status.sources[0].state = SourceState::Retrying { error: "no route to host".into(), next_in_seconds: 2.5 };
        status.broker.state = BrokerState::Blocked { reason: "low on disk".into(), since_seconds: 12.0 };
        let json = serde_json::to_value(&status).unwrap();
        assert_eq!(json["sources"][0]["state"], "retrying");
        assert_eq!(json["sources"][0]["error"], "no route to host");
        assert_eq!(json["broker"]["state"], "blocked");
        assert_eq!(json["routes"][0]["state"], "running");
        assert_eq!(serde_json::from_value::<Status>(json).unwrap(), status);
    }

    #[test]
    fn progress_is_told_by_the_speed_so_far() {
        let progress = TableProgress::new("public.orders".into(), 250, Some(1000), 10.0);
        assert_eq!((progress.share, progress.seconds_left), (Some(0.25), Some(30.0)));
        let more_than_estimated = TableProgress::new("t".into(), 20, Some(10), 1.0);
        assert_eq!((more_than_estimated.share, more_than_estimated.seconds_left), (Some(1.0), Some(0.0)));
        let unknown = TableProgress::new("t".into(), 0, None, 0.0);
        assert_eq!((unknown.share, unknown.seconds_left), (None, None));
        assert_eq!(TableProgress::new("t".into(), 0, Some(0), 0.0).share, Some(1.0));
    }
}
