//! Keeps the shared status in step with the shards, once per turn of the loop and not per event.

use std::time::{Instant, SystemTime};

use tokio::sync::watch;

use super::marks::Marks;
use super::shard::Shard;
use super::status::{ConnectionState, RelayStatus, RouteState, RouteStatus};

/// Weight of the newest second in a route's rate.
const RATE_WEIGHT: f64 = 0.4;

pub(super) struct Report {
    status: watch::Sender<RelayStatus>,
    /// Routes whose shards changed.
    changed: Marks,
    /// By route: its shards, and what was confirmed at the last measurement.
    routes: Vec<(std::ops::Range<usize>, u64)>,
    measured: Instant,
}

impl Report {
    pub(super) fn new(status: watch::Sender<RelayStatus>, shards: &[Shard]) -> Report {
        let count = shards.last().map_or(0, |shard| shard.route + 1);
        let range_of = |route: usize| {
            let first = shards.iter().position(|shard| shard.route == route).unwrap_or(0);
            first..first + shards.iter().filter(|shard| shard.route == route).count()
        };
        Report {
            status,
            changed: Marks::new(count),
            routes: (0..count).map(|route| (range_of(route), 0)).collect(),
            measured: Instant::now(),
        }
    }

    pub(super) fn connection(&self, state: ConnectionState) {
        self.status.send_modify(|status| status.connection = state);
    }

    pub(super) fn connected(&self, state: ConnectionState, findings: Vec<String>) {
        self.status.send_modify(|status| {
            status.connection = state;
            status.topology = findings;
        });
    }

    pub(super) fn has_findings(&self) -> bool {
        !self.status.borrow().topology.is_empty()
    }

    /// One log line for each that is new.
    pub(super) fn topology(&self, findings: Vec<String>) {
        self.status.send_if_modified(|status| {
            for finding in findings.iter().filter(|finding| !status.topology.contains(finding)) {
                tracing::warn!("{finding}");
            }
            if findings.is_empty() && !status.topology.is_empty() {
                tracing::info!("exchanges, queues and bindings are as they should be");
            }
            let changed = status.topology != findings;
            status.topology = findings;
            changed
        });
    }

    /// One log line per state: a host that is tried in vain again and again, for the same reason, is no news.
    pub(super) fn connecting(&self, host: String, reason: String, needs_operator: bool, now: SystemTime) {
        self.status.send_modify(|status| {
            let since = match &status.connection {
                ConnectionState::Connecting { since, .. } => *since,
                _ => now,
            };
            let known = matches!(&status.connection, ConnectionState::Connecting { reason: Some(before), .. } if *before == reason);
            if !known {
                tracing::warn!(next = host, "{reason}");
            }
            status.connection = ConnectionState::Connecting { host, reason: Some(reason), needs_operator, since };
        });
    }

    pub(super) fn shard(&mut self, shard: &Shard) {
        self.changed.mark(shard.route);
    }

    /// Publishes what changed.
    pub(super) fn flush(&mut self, shards: &[Shard]) {
        if self.changed.len() == 0 {
            return;
        }
        self.status.send_modify(|status| {
            while let Some(route) = self.changed.take() {
                fill(&mut status.routes[route], &shards[self.routes[route].0.clone()]);
            }
        });
    }

    pub(super) fn rates(&mut self, shards: &[Shard], now: Instant) {
        let seconds = now.saturating_duration_since(self.measured).as_secs_f64();
        if seconds < 0.9 {
            return;
        }
        self.measured = now;
        let routes = &mut self.routes;
        self.status.send_modify(|status| {
            for (route, (range, before)) in routes.iter_mut().enumerate() {
                let confirmed: u64 = shards[range.clone()].iter().map(|shard| shard.counts.confirmed).sum();
                let newest = (confirmed - *before) as f64 / seconds;
                *before = confirmed;
                let rate = &mut status.routes[route].rate;
                *rate += RATE_WEIGHT * (newest - *rate);
                if *rate < 0.01 {
                    *rate = 0.0;
                }
            }
        });
    }
}

/// A route's numbers are its shards' sums; its state is that of the shard that is worst off.
fn fill(route: &mut RouteStatus, shards: &[Shard]) {
    let sum = |value: fn(&Shard) -> u64| shards.iter().map(value).sum();
    route.in_flight = sum(|shard| shard.window.len() as u64);
    route.published = sum(|shard| shard.counts.published);
    route.confirmed = sum(|shard| shard.counts.confirmed);
    route.returned = sum(|shard| shard.counts.returned);
    route.nacked = sum(|shard| shard.counts.nacked);
    route.redelivered = sum(|shard| shard.counts.redelivered);
    route.parked = sum(|shard| shard.counts.parked);
    route.next_seq = shards.iter().map(|shard| shard.settled + 1).min().unwrap_or(0);
    let rank = |state: &RouteState| match state {
        RouteState::Idle => 0,
        RouteState::Publishing => 1,
        RouteState::Behind => 2,
        _ => 3,
    };
    if let Some(state) = shards.iter().map(Shard::state).max_by_key(rank) {
        route.state = state;
    }
}
