//! What the relay shows of itself, for status, readiness and metrics.

use std::sync::Arc;
use std::time::SystemTime;

use crate::event::{RouteId, Seq};

/// Updated in place, once per batch of writes and confirms.
#[derive(Clone, Debug, PartialEq)]
pub struct RelayStatus {
    pub connection: ConnectionState,
    /// What is wrong with exchanges, queues and bindings, as of the last connection. One line each, with the way out.
    pub topology: Vec<String>,
    /// In the order in which the routes were given.
    pub routes: Vec<RouteStatus>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum ConnectionState {
    Connecting {
        /// `host:port` of the node that is tried, or will be tried next.
        host: String,
        /// Why there is no connection yet, or no longer.
        reason: Option<String>,
        /// A person must change something: a login, a vhost, a certificate.
        needs_operator: bool,
        since: SystemTime,
    },
    Up {
        host: String,
        since: SystemTime,
    },
    /// The broker takes nothing for now: an alarm of memory or disk. Not a failure.
    Blocked {
        host: String,
        reason: String,
        since: SystemTime,
    },
    Stopped,
}

#[derive(Clone, Debug, PartialEq)]
pub struct RouteStatus {
    pub route: RouteId,
    pub name: Arc<str>,
    pub state: RouteState,
    /// Published and not yet confirmed.
    pub in_flight: u64,
    /// Totals since start, redelivered ones included.
    pub published: u64,
    pub confirmed: u64,
    pub returned: u64,
    pub nacked: u64,
    /// Published before: each of them may have reached the queues twice.
    pub redelivered: u64,
    pub parked: u64,
    /// The first event that is not settled, or that will be next.
    pub next_seq: Seq,
    /// Confirmed events per second, over the last seconds.
    pub rate: f64,
}

#[derive(Clone, Debug, PartialEq)]
pub enum RouteState {
    Idle,
    Publishing,
    /// Publishing what the outbox holds, not yet what is recorded now.
    Behind,
    /// Its events wait until those of a former route, which the config no longer has, are out: they may be older ones of the
    /// same keys.
    HeldBack {
        route: Arc<str>,
    },
    /// No queue is bound for the event at `next_seq`. It is tried again by itself.
    Unroutable {
        exchange: String,
        routing_key: String,
        since: SystemTime,
    },
    /// The broker refused the event at `next_seq`, as a full queue does. It is tried again by itself.
    Nacked {
        since: SystemTime,
    },
    /// A confirm did not come in time; the channel was closed. It is tried again by itself.
    Unconfirmed {
        since: SystemTime,
    },
    /// The broker closed the route's channel: 404 for a missing exchange, 403 for a missing right. It is tried again by itself.
    ChannelClosed {
        code: u16,
        reason: String,
        since: SystemTime,
    },
    /// The outbox could not be read or written. It is tried again by itself.
    StoreFailed {
        reason: String,
        since: SystemTime,
    },
    /// More keys wait behind parked events than are kept in memory. Goes on when parked events are released.
    TooManyParked {
        since: SystemTime,
    },
}

impl RouteState {
    /// One word, for metrics and tables.
    pub fn name(&self) -> &'static str {
        match self {
            RouteState::Idle => "idle",
            RouteState::Publishing => "publishing",
            RouteState::Behind => "behind",
            RouteState::HeldBack { .. } => "held_back",
            RouteState::Unroutable { .. } => "unroutable",
            RouteState::Nacked { .. } => "nacked",
            RouteState::Unconfirmed { .. } => "unconfirmed",
            RouteState::ChannelClosed { .. } => "channel_closed",
            RouteState::StoreFailed { .. } => "store_failed",
            RouteState::TooManyParked { .. } => "too_many_parked",
        }
    }

    /// Why nothing of this route goes out, and the way out where there is one. `None` while it goes on.
    pub fn trouble(&self) -> Option<String> {
        Some(match self {
            RouteState::Idle | RouteState::Publishing | RouteState::Behind => return None,
            RouteState::HeldBack { route } => format!(
                "waits until the older events of the route {route:?}, which the config no longer has, are out; if they cannot be \
                 published, put that route back with `unroutable: park`"
            ),
            RouteState::Unroutable { exchange, routing_key, .. } => format!(
                "no queue is bound to exchange {exchange:?} for routing key {routing_key:?}; bind one, and it goes on by itself"
            ),
            RouteState::Nacked { .. } => "the broker refuses its events (nack), as a full queue does".into(),
            RouteState::Unconfirmed { .. } => {
                "the broker did not confirm in time; if it stays so, look at the state of the queues there".into()
            }
            RouteState::ChannelClosed { code, reason, .. } => format!("the broker closed its channel: {code} {reason}"),
            RouteState::StoreFailed { reason, .. } => format!("the outbox failed: {reason}"),
            RouteState::TooManyParked { .. } => {
                "more keys wait behind parked events than fit in memory; see `towpath parked`".into()
            }
        })
    }

    /// Nothing of this route goes out until something changes.
    pub fn is_stopped(&self) -> bool {
        !matches!(self, RouteState::Idle | RouteState::Publishing | RouteState::Behind)
    }
}
