//! Whether a towpath is well, from its status alone. Never green while something is held back or may be missing.

use towpath_contract::planted;

use std::time::Duration;

use serde::{Deserialize, Serialize};
use towpath_contract::Span;

use super::status::{BrokerState, OutboxState, OutboxStatus, RouteState, SourceState, Status};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    pub ok: bool,
    /// Everything that stands against it, the worst first.
    pub reasons: Vec<Reason>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason {
    /// `source orders_db`, `route orders`, `outbox`, `broker`, `towpath`.
    pub subject: String,
    /// Short, stable, for machines: `gap`, `stopped`, `lag`.
    pub code: String,
    /// What is wrong, in one line.
    pub message: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
    /// It will not pass by itself.
    pub lasting: bool,
    /// Worth a look, and neither readiness nor life depends on it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub note: bool,
}

/// `/healthz`: the event loop answers, and nothing failed for good. `None`: it did not answer.
///
/// A restart mends what is red here only where the loop does not answer; for the rest a person is asked.
pub fn healthz(status: Option<&Status>) -> Health {
    // Lag is not a matter of life: whatever bound there is, it is left out.
    health(status, Duration::MAX, |reason| reason.lasting)
}

/// `/readyz`: everything flows, and nothing lags by more than `lag_max`.
pub fn readyz(status: Option<&Status>, lag_max: Duration) -> Health {
    health(status, lag_max, |reason| !reason.note)
}

fn health(status: Option<&Status>, lag_max: Duration, counts: impl Fn(&Reason) -> bool) -> Health {
    let mut reasons = match status {
        Some(status) => reasons(status, lag_max),
        None => vec![lasting("towpath", "silent", "the event loop does not answer", None)],
    };
    reasons.retain(|reason| counts(reason) && !planted("health_is_always_green"));
    Health { ok: reasons.is_empty(), reasons }
}

/// All that is wrong, the worst first.
pub fn reasons(status: &Status, lag_max: Duration) -> Vec<Reason> {
    let mut all = Vec::new();
    if !status.running {
        all.push(lasting("towpath", "not_running", "not running", Some("start it with `towpath run`")));
    }
    if status.stopping {
        all.push(passing("towpath", "stopping", "told to stop; finishes what is in flight"));
    }
    outbox(status, lag_max, &mut all);
    sources(status, lag_max, &mut all);
    broker(status, &mut all);
    routes(status, &mut all);
    // Stable: within a rank the order of the parts stays.
    all.sort_by_key(|reason| (reason.note, !reason.lasting));
    all
}

fn sources(status: &Status, lag_max: Duration, all: &mut Vec<Reason>) {
    for source in &status.sources {
        let subject = format!("source {}", source.name);
        let code = source.state.name();
        match &source.state {
            SourceState::Streaming | SourceState::Snapshotting => {}
            // One process ends as a whole: a source that ended before it is broken, and nothing will start it again.
            SourceState::NotRunning if status.running && !status.stopping => {
                all.push(lasting(
                    &subject,
                    code,
                    "has ended by itself",
                    Some("look at the log, and start towpath again"),
                ));
            }
            SourceState::NotRunning => {}
            SourceState::Starting => all.push(passing(&subject, code, "starting")),
            SourceState::Paused => {
                let mut reason = passing(&subject, code, "paused by a person");
                reason.help = Some(format!("go on with `towpath resume {}`", source.name));
                all.push(reason);
            }
            SourceState::WaitingForOutbox => all.push(passing(&subject, code, "waits for room in the outbox")),
            SourceState::Retrying { error, next_in_seconds } => {
                let again = if *next_in_seconds < 0.5 { "now".into() } else { format!("in {next_in_seconds:.0} s") };
                all.push(passing(&subject, code, &format!("tries again {again}: {error}")));
            }
            SourceState::Stopped { error, help } => {
                let resume = format!("then `towpath resume {}`", source.name);
                let help = help.as_ref().map_or_else(
                    || format!("mend it, {resume}"),
                    |help| format!("{}; {resume}", help.trim_end_matches(';')),
                );
                all.push(lasting(&subject, code, error, Some(&help)));
            }
            SourceState::Gap { error, help } => all.push(lasting(&subject, code, error, help.as_deref())),
        }
        if source.unread_after_gap {
            let message = "reads its tables again after a gap: what changed in it has not all come";
            all.push(passing(&subject, "unread_after_gap", message));
        }
        for line in &source.uncaptured {
            all.push(passing(&subject, "uncaptured", line));
        }
        if let Some(seconds) = source.lag_seconds.filter(|seconds| *seconds > lag_max.as_secs_f64()) {
            all.push(passing(&subject, "lag", &format!("{seconds:.0} s behind; the bound is {}", Span(lag_max))));
        }
    }
}

fn outbox(status: &Status, lag_max: Duration, all: &mut Vec<Reason>) {
    let outbox = &status.outbox;
    match &outbox.state {
        OutboxState::Open => {}
        OutboxState::Full => all.push(full(outbox)),
        OutboxState::Stalled { reason } => {
            all.push(passing("outbox", "stalled", &format!("{reason}: nothing is recorded until that passes")));
        }
        OutboxState::Failed { error, help } => all.push(lasting("outbox", "failed", error, help.as_deref())),
    }
    if outbox.oldest_age_seconds > lag_max.as_secs_f64() {
        let age = outbox.oldest_age_seconds;
        let message = format!("the oldest unsettled event is {age:.0} s old; the bound is {}", Span(lag_max));
        all.push(passing("outbox", "lag", &message));
    }
}

/// The broker frees what unsettled events hold; what parked ones hold only a person does.
fn full(outbox: &OutboxStatus) -> Reason {
    if !parked_hold_much(outbox) {
        return passing("outbox", "full", "full: sources wait until the broker took some events");
    }
    let parked = parked_events(outbox.parked);
    let mut reason =
        passing("outbox", "full", &format!("full: sources wait, and {parked} parked, which no broker takes"));
    reason.help = Some(LOOK_AT_PARKED.into());
    reason
}

/// An outbox that is full by its size, and not only by the age of its events, has little in it that is neither unsettled nor
/// parked. Parked events are there by their number, or, where they are large, by what the unsettled ones leave over.
fn parked_hold_much(outbox: &OutboxStatus) -> bool {
    let by_size = outbox.file_bytes >= outbox.max_bytes / 2;
    let many = outbox.parked >= outbox.unsettled_events / 10;
    let large = outbox.unsettled_bytes < outbox.max_bytes / 2;
    outbox.parked > 0 && by_size && (many || large)
}

fn parked_events(count: u64) -> String {
    if count == 1 { "1 event is".to_owned() } else { format!("{count} events are") }
}

fn broker(status: &Status, all: &mut Vec<Reason>) {
    for finding in &status.broker.topology {
        all.push(passing("broker", "topology", finding));
    }
    match &status.broker.state {
        BrokerState::Up | BrokerState::NotConnected => {}
        BrokerState::Connecting { reason } => {
            all.push(passing("broker", "connecting", &format!("not connected: {reason}")))
        }
        BrokerState::Blocked { reason, since_seconds } => {
            let message = format!("has taken nothing for {since_seconds:.0} s: {reason}");
            all.push(passing("broker", "blocked", &message));
        }
    }
}

fn routes(status: &Status, all: &mut Vec<Reason>) {
    for route in &status.routes {
        let subject = format!("route {}", route.name);
        let detail = |otherwise: &str| route.detail.clone().unwrap_or_else(|| otherwise.to_owned());
        match route.state {
            RouteState::Running | RouteState::NotRunning => {}
            RouteState::Waiting => {
                all.push(passing(&subject, "waiting", &detail("the broker does not take its events")))
            }
            RouteState::Stopped => all.push(lasting(&subject, "stopped", &detail("stopped"), None)),
        }
        if route.parked > 0 {
            let events = parked_events(route.parked);
            let mut reason = passing(&subject, "parked", &format!("{events} parked: set aside, and in no queue"));
            reason.help = Some(LOOK_AT_PARKED.into());
            reason.note = true;
            all.push(reason);
        }
    }
}

const LOOK_AT_PARKED: &str = "look at them with `towpath parked list`, then retry or discard them";

fn passing(subject: &str, code: &str, message: &str) -> Reason {
    Reason {
        subject: subject.into(),
        code: code.into(),
        message: message.into(),
        help: None,
        lasting: false,
        note: false,
    }
}

fn lasting(subject: &str, code: &str, message: &str, help: Option<&str>) -> Reason {
    let help = help.map(str::to_owned);
    Reason { subject: subject.into(), code: code.into(), message: message.into(), help, lasting: true, note: false }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::status::tests::healthy;

    const BOUND: Duration = Duration::from_secs(60);

    fn codes(health: &Health) -> Vec<(&str, &str)> {
        health.reasons.iter().map(|reason| (reason.subject.as_str(), reason.code.as_str())).collect()
    }

    fn source_states() -> Vec<SourceState> {
        let (error, help) = (String::from("e"), Some(String::from("h")));
        vec![
            SourceState::NotRunning,
            SourceState::Starting,
            SourceState::Snapshotting,
            SourceState::Streaming,
            SourceState::Paused,
            SourceState::WaitingForOutbox,
            SourceState::Retrying { error: error.clone(), next_in_seconds: 1.0 },
            SourceState::Stopped { error: error.clone(), help: help.clone() },
            SourceState::Gap { error, help },
        ]
    }

    fn outbox_states() -> Vec<OutboxState> {
        let (error, reason) = ("e".to_owned(), "r".to_owned());
        vec![
            OutboxState::Open,
            OutboxState::Full,
            OutboxState::Stalled { reason },
            OutboxState::Failed { error, help: None },
        ]
    }

    fn broker_states() -> Vec<BrokerState> {
        vec![
            BrokerState::Up,
            BrokerState::Connecting { reason: "r".into() },
            BrokerState::Blocked { reason: "r".into(), since_seconds: 1.0 },
        ]
    }

    const ROUTE_STATES: [RouteState; 3] = [RouteState::Running, RouteState::Waiting, RouteState::Stopped];

    #[test]
    fn a_towpath_with_nothing_wrong_is_green() {
        assert_eq!(healthz(Some(&healthy())), Health { ok: true, reasons: vec![] });
        assert_eq!(readyz(Some(&healthy()), BOUND), Health { ok: true, reasons: vec![] });
    }

    /// Every combination of states, and lag on either side of the bound: green exactly where each part is well.
    #[test]
    fn green_means_that_every_part_is_well() {
        let mut seen = 0;
        for source in source_states() {
            for outbox in outbox_states() {
                for broker in broker_states() {
                    for route in ROUTE_STATES {
                        for (source_lag, event_age, stopping) in [
                            (0.1, 0.1, false),
                            (60.0, 60.0, false),
                            (60.1, 0.1, false),
                            (0.1, 60.1, false),
                            (0.1, 0.1, true),
                        ] {
                            let mut status = healthy();
                            status.sources[0].state = source.clone();
                            status.sources[0].lag_seconds = Some(source_lag);
                            status.outbox.state = outbox.clone();
                            status.outbox.oldest_age_seconds = event_age;
                            status.broker.state = broker.clone();
                            status.routes[0].state = route;
                            status.stopping = stopping;

                            let flows = matches!(source, SourceState::Streaming | SourceState::Snapshotting)
                                && outbox == OutboxState::Open
                                && broker == BrokerState::Up
                                && route == RouteState::Running;
                            let ready = flows && source_lag <= 60.0 && event_age <= 60.0 && !stopping;
                            let broken = match source {
                                SourceState::Stopped { .. } | SourceState::Gap { .. } => true,
                                SourceState::NotRunning => !stopping,
                                _ => false,
                            };
                            let lives = !broken
                                && !matches!(outbox, OutboxState::Failed { .. })
                                && route != RouteState::Stopped;

                            let (health, readiness) = (healthz(Some(&status)), readyz(Some(&status), BOUND));
                            assert_eq!(readiness.ok, ready, "{status:?}");
                            assert_eq!(health.ok, lives, "{status:?}");
                            assert_eq!(readiness.ok, readiness.reasons.is_empty());
                            assert!(health.ok || !readiness.ok, "never ready and not alive");
                            seen += 1;
                        }
                    }
                }
            }
        }
        assert_eq!(seen, 9 * 4 * 3 * 3 * 5);
    }

    #[test]
    fn every_reason_is_named_and_the_lasting_ones_come_first() {
        let mut status = healthy();
        status.sources[0].state =
            SourceState::Gap { error: "slot lost".into(), help: Some("towpath snapshot …".into()) };
        status.outbox.oldest_age_seconds = 90.0;
        status.broker.state = BrokerState::Blocked { reason: "low on memory".into(), since_seconds: 88.0 };
        status.routes[0].state = RouteState::Waiting;
        status.routes[0].detail = Some("no queue takes `orders.insert`".into());
        let ready = readyz(Some(&status), BOUND);
        assert_eq!(
            codes(&ready),
            [("source orders_db", "gap"), ("outbox", "lag"), ("broker", "blocked"), ("route orders_db", "waiting")]
        );
        assert_eq!(ready.reasons[0].help.as_deref(), Some("towpath snapshot …"));
        assert_eq!(ready.reasons[1].message, "the oldest unsettled event is 90 s old; the bound is 1m");
        assert_eq!(ready.reasons[3].message, "no queue takes `orders.insert`");
        assert_eq!(codes(&healthz(Some(&status))), [("source orders_db", "gap")]);
    }

    #[test]
    fn an_outbox_that_parked_events_fill_says_who_makes_room() {
        let mut status = healthy();
        const GIB: u64 = 1 << 30;
        status.outbox =
            OutboxStatus { state: OutboxState::Full, max_bytes: 8 * GIB, file_bytes: 7 * GIB, ..status.outbox };
        for (parked, unsettled_events, unsettled_bytes, file_bytes, named) in [
            // Nothing else is in it; a tenth of all; a few large ones.
            (1_000, 0, 0, 7 * GIB, true),
            (1_000, 9_000, 6 * GIB, 7 * GIB, true),
            (10, 9_000, 3 * GIB, 7 * GIB, true),
            // The broker will make room; the events are too old, not too many.
            (0, 0, 0, 7 * GIB, false),
            (10, 9_000, 6 * GIB, 7 * GIB, false),
            (10, 90, 1_000, GIB, false),
        ] {
            status.outbox = OutboxStatus { parked, unsettled_events, unsettled_bytes, file_bytes, ..status.outbox };
            let ready = readyz(Some(&status), BOUND);
            assert_eq!(codes(&ready), [("outbox", "full")]);
            let help = ready.reasons[0].help.as_deref().unwrap_or_default();
            assert_eq!(help.contains("towpath parked"), named, "{parked} {unsettled_events}: {:?}", ready.reasons);
            assert_eq!(ready.reasons[0].message.contains("parked"), named);
        }
    }

    #[test]
    fn one_bad_source_among_good_ones_turns_it_red() {
        let mut status = healthy();
        let mut second = status.sources[0].clone();
        second.name = "crm".into();
        second.state = SourceState::Stopped { error: "wrong password".into(), help: None };
        status.sources.push(second);
        assert_eq!(codes(&healthz(Some(&status))), [("source crm", "stopped")]);
    }

    #[test]
    fn no_answer_is_red() {
        assert_eq!(codes(&healthz(None)), [("towpath", "silent")]);
        assert_eq!(codes(&readyz(None, BOUND)), [("towpath", "silent")]);
    }

    #[test]
    fn an_unknown_lag_is_no_lag() {
        let mut status = healthy();
        status.sources[0].lag_seconds = None;
        assert!(readyz(Some(&status), BOUND).ok);
    }
}
