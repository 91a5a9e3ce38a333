//! Metrics in the OpenMetrics text format. Names start with `towpath_`, units are seconds and bytes, labels are names from the
//! config (`source`, `route`) or from a closed set (`state`): their number is settled at start.

use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::status::{
    BrokerState, BrokerStatus, OutboxStatus, RouteState, RouteStatus, SourceState, SourceStatus, Status,
};

pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

type Number = Gauge<f64, AtomicU64>;
type Labels = Vec<(&'static str, String)>;

/// All series, made once. They are set from a [`Status`] when they are asked for.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    up: Number,
    uptime: Number,
    outbox: OutboxSeries,
    broker: BrokerSeries,
    sources: Vec<(String, SourceSeries)>,
    routes: Vec<(String, RouteSeries)>,
}

#[derive(Debug)]
struct SourceSeries {
    changes: Counter,
    rate: Number,
    lag_bytes: Number,
    lag_seconds: Number,
    spooled_bytes: Number,
    snapshot_tables: Number,
    snapshot_rows: Number,
    states: Vec<Number>,
}

#[derive(Debug)]
struct RouteSeries {
    published: Counter,
    unsettled: Number,
    parked: Number,
    running: Number,
}

#[derive(Debug)]
struct OutboxSeries {
    unsettled_events: Number,
    unsettled_bytes: Number,
    oldest_age: Number,
    file_bytes: Number,
    max_bytes: Number,
    parked: Number,
    open: Number,
}

#[derive(Debug)]
struct BrokerSeries {
    up: Number,
    blocked: Number,
}

impl Metrics {
    /// For the sources and routes of a config.
    pub fn new(sources: &[&str], routes: &[&str]) -> Metrics {
        let mut of = Maker { registry: Registry::with_prefix("towpath") };
        of.version();
        let up = of.number("up", "1 while the event loop answers");
        let uptime = of.number("uptime_seconds", "Time since this process started");
        let outbox = OutboxSeries::new(&mut of);
        let broker = BrokerSeries::new(&mut of);
        let sources = source_series(&mut of, sources);
        let routes = route_series(&mut of, routes);
        Metrics { registry: of.registry, up, uptime, outbox, broker, sources, routes }
    }

    /// The text of `/metrics`. `None`: the event loop did not answer; the other series keep what they last were.
    pub fn text(&self, status: Option<&Status>) -> String {
        self.up.set(if status.is_some() { 1.0 } else { 0.0 });
        if let Some(status) = status {
            self.uptime.set(status.uptime_seconds as f64);
            self.outbox.show(&status.outbox);
            self.broker.show(&status.broker);
            for source in &status.sources {
                if let Some((_, series)) = self.sources.iter().find(|(name, _)| *name == source.name) {
                    series.show(source);
                }
            }
            for (name, series) in &self.routes {
                // A former route is left out of the status once nothing is left of it.
                match status.routes.iter().find(|route| route.name == *name) {
                    Some(route) => series.show(route, matches!(status.broker.state, BrokerState::Up)),
                    None => series.is_gone(),
                }
            }
        }
        let mut text = String::new();
        match encode(&mut text, &self.registry) {
            Ok(()) => text,
            // Only a writer that fails could cause this, and a `String` does not.
            Err(std::fmt::Error) => String::new(),
        }
    }
}

/// Registers series under the names that they are found by.
struct Maker {
    registry: Registry,
}

impl Maker {
    fn version(&mut self) {
        let info = prometheus_client::metrics::info::Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]);
        self.registry.register("build", "The version that runs", info);
    }

    fn number(&mut self, name: &str, help: &str) -> Number {
        let number = Number::default();
        self.registry.register(name, help, number.clone());
        number
    }

    fn numbers(&mut self, name: &str, help: &str) -> Family<Labels, Number> {
        let family = Family::default();
        self.registry.register(name, help, family.clone());
        family
    }

    /// `_total` is added by the format.
    fn counters(&mut self, name: &str, help: &str) -> Family<Labels, Counter> {
        let family = Family::default();
        self.registry.register(name, help, family.clone());
        family
    }
}

fn source_series(of: &mut Maker, names: &[&str]) -> Vec<(String, SourceSeries)> {
    let changes = of.counters("source_changes", "Changes recorded");
    let rate = of.numbers("source_changes_per_second", "Changes recorded per second, over the last ten seconds");
    let lag_bytes = of.numbers("source_lag_bytes", "Log written by the source and not yet recorded; NaN where unknown");
    let lag_seconds = of.numbers("source_lag_seconds", "How far recording is behind the source; NaN where unknown");
    let spooled = of.numbers("source_spooled_bytes", "Spooled to disk for transactions in progress");
    let tables = of.numbers("source_snapshot_tables", "Tables being read, and those still to be");
    let rows = of.numbers("source_snapshot_rows", "Rows read so far of the tables being read");
    let states = of.numbers("source_state", "1 for the state that the source is in, 0 for the others");
    let series = |name: &&str| {
        let labels = vec![("source", (*name).to_owned())];
        let state = |state: &&str| made(&states, &vec![labels[0].clone(), ("state", (*state).to_owned())]);
        SourceSeries {
            changes: made(&changes, &labels),
            rate: made(&rate, &labels),
            lag_bytes: made(&lag_bytes, &labels),
            lag_seconds: made(&lag_seconds, &labels),
            spooled_bytes: made(&spooled, &labels),
            snapshot_tables: made(&tables, &labels),
            snapshot_rows: made(&rows, &labels),
            states: SourceState::NAMES.iter().map(state).collect(),
        }
    };
    names.iter().map(|name| ((*name).to_owned(), series(name))).collect()
}

fn route_series(of: &mut Maker, names: &[&str]) -> Vec<(String, RouteSeries)> {
    let published = of.counters("route_published", "Events settled: confirmed by the broker and not returned");
    let unsettled = of.numbers("route_unsettled_events", "Events recorded and not yet settled");
    let parked = of.numbers("route_parked_events", "Events set aside");
    let running = of.numbers("route_running", "1 while nothing keeps the route from publishing");
    let series = |name: &&str| {
        let labels = vec![("route", (*name).to_owned())];
        RouteSeries {
            published: made(&published, &labels),
            unsettled: made(&unsettled, &labels),
            parked: made(&parked, &labels),
            running: made(&running, &labels),
        }
    };
    names.iter().map(|name| ((*name).to_owned(), series(name))).collect()
}

fn made<M: Clone + Default>(family: &Family<Labels, M>, labels: &Labels) -> M {
    family.get_or_create(labels).clone()
}

impl SourceSeries {
    fn show(&self, source: &SourceStatus) {
        self.changes.inner().store(source.changes_total, Ordering::Relaxed);
        self.rate.set(source.rate);
        self.lag_bytes.set(source.lag_bytes.map_or(f64::NAN, |bytes| bytes as f64));
        self.lag_seconds.set(source.lag_seconds.unwrap_or(f64::NAN));
        self.spooled_bytes.set(source.spooled_bytes as f64);
        self.snapshot_tables.set(source.snapshot.len() as f64);
        self.snapshot_rows.set(source.snapshot.iter().map(|table| table.rows_done).sum::<u64>() as f64);
        for (number, name) in self.states.iter().zip(SourceState::NAMES) {
            number.set(if name == source.state.name() { 1.0 } else { 0.0 });
        }
    }
}

impl RouteSeries {
    fn is_gone(&self) {
        for series in [&self.unsettled, &self.parked, &self.running] {
            series.set(0.0);
        }
    }

    fn show(&self, route: &RouteStatus, broker_up: bool) {
        self.published.inner().store(route.published_total, Ordering::Relaxed);
        self.unsettled.set(route.unsettled as f64);
        self.parked.set(route.parked as f64);
        self.running.set(if broker_up && route.state == RouteState::Running { 1.0 } else { 0.0 });
    }
}

impl OutboxSeries {
    fn new(of: &mut Maker) -> OutboxSeries {
        OutboxSeries {
            unsettled_events: of.number("outbox_unsettled_events", "Events recorded and not yet settled"),
            unsettled_bytes: of.number("outbox_unsettled_bytes", "Their size"),
            oldest_age: of.number("outbox_oldest_age_seconds", "Age of the oldest unsettled event"),
            file_bytes: of.number("outbox_file_bytes", "Size of the outbox's file"),
            max_bytes: of.number("outbox_max_bytes", "The most that the file may hold"),
            parked: of.number("outbox_parked_events", "Events set aside"),
            open: of.number("outbox_open", "1 while the outbox takes events: neither full nor failed"),
        }
    }

    fn show(&self, outbox: &OutboxStatus) {
        self.unsettled_events.set(outbox.unsettled_events as f64);
        self.unsettled_bytes.set(outbox.unsettled_bytes as f64);
        self.oldest_age.set(outbox.oldest_age_seconds);
        self.file_bytes.set(outbox.file_bytes as f64);
        self.max_bytes.set(outbox.max_bytes as f64);
        self.parked.set(outbox.parked as f64);
        self.open.set(if outbox.state.name() == "open" { 1.0 } else { 0.0 });
    }
}

impl BrokerSeries {
    fn new(of: &mut Maker) -> BrokerSeries {
        BrokerSeries {
            up: of.number("broker_up", "1 while a connection stands, blocked or not"),
            blocked: of.number("broker_blocked", "1 while the broker takes nothing (connection.blocked)"),
        }
    }

    fn show(&self, broker: &BrokerStatus) {
        let (up, blocked) = match broker.state {
            BrokerState::Up => (1.0, 0.0),
            BrokerState::Blocked { .. } => (1.0, 1.0),
            BrokerState::Connecting { .. } | BrokerState::NotConnected => (0.0, 0.0),
        };
        self.up.set(up);
        self.blocked.set(blocked);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::status::tests::healthy;

    #[test]
    fn the_series_show_what_status_says() {
        let metrics = Metrics::new(&["orders_db"], &["orders_db"]);
        let mut status = healthy();
        status.sources[0].lag_seconds = None;
        let text = metrics.text(Some(&status));
        for line in [
            "towpath_up 1.0",
            "towpath_source_changes_total{source=\"orders_db\"} 1234567",
            "towpath_source_lag_bytes{source=\"orders_db\"} 2048.0",
            "towpath_source_lag_seconds{source=\"orders_db\"} NaN",
            "towpath_source_state{source=\"orders_db\",state=\"streaming\"} 1.0",
            "towpath_source_state{source=\"orders_db\",state=\"gap\"} 0.0",
            "towpath_outbox_unsettled_events 12.0",
            "towpath_broker_up 1.0",
            "towpath_route_published_total{route=\"orders_db\"} 1234555",
            "# EOF",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n--- not in\n{text}");
        }
        assert!(metrics.text(None).contains("\ntowpath_up 0.0\n"));
    }

    #[test]
    fn every_name_has_the_prefix_and_a_help_text() {
        let text = Metrics::new(&["a"], &["b"]).text(Some(&healthy()));
        for line in text.lines().filter(|line| *line != "# EOF") {
            let name = line.trim_start_matches("# HELP ").trim_start_matches("# TYPE ");
            assert!(name.starts_with("towpath_"), "{line}");
        }
        let series = text.lines().filter(|line| !line.starts_with('#')).count();
        assert!(series < 150, "{series} series for one source and one route");
    }

    #[test]
    fn a_name_that_the_config_does_not_have_makes_no_series() {
        let metrics = Metrics::new(&["other"], &[]);
        let text = metrics.text(Some(&healthy()));
        assert!(!text.contains("orders_db"));
    }
}
