//! `towpath status`

use std::fmt::Write;
use std::time::Duration;

use serde_json::json;

use super::ask::Asker;
use super::{Call, Failure, table, units};
use crate::admin::Status;
use crate::admin::health::{Reason, reasons};
use crate::admin::status::{RouteStatus, SourceStatus, TableProgress};
use crate::config::Purpose;

pub(super) fn status(call: &Call<'_>) -> Result<(), Failure> {
    let config = call.load(Purpose::Ask)?;
    let status = call.block_on(Asker::new(call, &config).status())?;
    call.print(|| json!(status), || page(&status, config.admin.ready_lag_max.0));
    // Told, and yet not what was asked for: how a *running* towpath is.
    if status.running { Ok(()) } else { Err(Failure::Said) }
}

/// What is wrong comes first; then each part, one line each.
fn page(status: &Status, lag_max: Duration) -> String {
    let wrong = reasons(status, lag_max);
    let mut page = headline(status, wrong.len());
    wrong.iter().for_each(|reason| attention(&mut page, reason));
    page.push('\n');
    page.push_str(&sources(&status.sources));
    page.push_str(&snapshots(&status.sources));
    page.push('\n');
    page.push_str(&outbox_and_broker(status));
    page.push('\n');
    page.push_str(&routes(&status.routes));
    page
}

fn headline(status: &Status, wrong: usize) -> String {
    let state = match status.running {
        true => format!("up {}", units::duration(status.uptime_seconds as f64)),
        false => "not running; this is what its outbox says".into(),
    };
    let verdict = match wrong {
        0 => "all is well".to_owned(),
        1 => "1 thing to look at".to_owned(),
        wrong => format!("{wrong} things to look at"),
    };
    format!("towpath {}, {state}: {verdict}\n", status.version)
}

fn attention(page: &mut String, reason: &Reason) {
    let mark = match reason {
        Reason { note: true, .. } => "- ",
        Reason { lasting: true, .. } => "!!",
        _ => "! ",
    };
    let _ = write!(page, "\n{mark} {}: {}\n", reason.subject, reason.message);
    reason.help.iter().flat_map(|help| help.lines()).for_each(|line| page.push_str(&format!("     {line}\n")));
}

fn sources(sources: &[SourceStatus]) -> String {
    let head = ["SOURCE", "STATE", "LAG", "CHANGES", "RATE", "POSITION"].map(String::from);
    let rows = sources.iter().map(|source| {
        [
            source.name.clone(),
            words(source.state.name()),
            lag(source),
            units::count(source.changes_total),
            units::rate(source.rate),
            source.position.clone().unwrap_or_else(|| "unknown".into()),
        ]
    });
    table::aligned(&std::iter::once(head).chain(rows).collect::<Vec<_>>(), 0)
}

fn lag(source: &SourceStatus) -> String {
    let spooled = if source.spooled_bytes > 0 {
        format!(" +{} spooled", units::bytes(source.spooled_bytes))
    } else {
        String::new()
    };
    let text = match (source.lag_seconds, source.lag_bytes) {
        (Some(seconds), Some(bytes)) => format!("{}, {}", units::duration(seconds), units::bytes(bytes)),
        (Some(seconds), None) => units::duration(seconds),
        (None, Some(bytes)) => units::bytes(bytes),
        (None, None) => "unknown".into(),
    };
    text + &spooled
}

fn snapshots(sources: &[SourceStatus]) -> String {
    let reading = sources.iter().flat_map(|source| source.snapshot.iter().map(|table| (source.name.as_str(), table)));
    let rows: Vec<[String; 5]> = reading.map(|(source, table)| snapshot(source, table)).collect();
    if rows.is_empty() {
        return String::new();
    }
    let head = ["SNAPSHOT", "TABLE", "ROWS", "DONE", "LEFT"].map(String::from);
    format!("\n{}", table::aligned(&std::iter::once(head).chain(rows).collect::<Vec<_>>(), 0))
}

fn snapshot(source: &str, progress: &TableProgress) -> [String; 5] {
    let rows = match progress.rows_total {
        Some(total) => format!("{} of about {}", units::count(progress.rows_done), units::count(total)),
        None => units::count(progress.rows_done),
    };
    let share = progress.share.map_or_else(|| "unknown".into(), |share| format!("{:.0} %", share * 100.0));
    let left = progress.seconds_left.map_or_else(|| "unknown".into(), units::duration);
    [source.into(), progress.table.clone(), rows, share, left]
}

fn outbox_and_broker(status: &Status) -> String {
    let outbox = &status.outbox;
    let waiting = match outbox.unsettled_events {
        0 => "nothing waits".to_owned(),
        events => format!(
            "{} unsettled ({}, the oldest {})",
            units::count(events),
            units::bytes(outbox.unsettled_bytes),
            units::duration(outbox.oldest_age_seconds)
        ),
    };
    let room = format!("{} of {}", units::bytes(outbox.file_bytes), units::bytes(outbox.max_bytes));
    let parked = format!("{} parked", units::count(outbox.parked));
    let broker = &status.broker;
    let rows = [
        ["OUTBOX".into(), words(outbox.state.name()), [waiting, parked, room, outbox.path.clone()].join("; ")],
        ["BROKER".into(), words(broker.state.name()), broker.host.clone().unwrap_or_default()],
    ];
    table::aligned(&rows, 0)
}

fn routes(routes: &[RouteStatus]) -> String {
    let head = ["ROUTE", "STATE", "UNSETTLED", "PUBLISHED", "RATE", "PARKED"].map(String::from);
    let rows = routes.iter().map(|route| {
        [
            route.name.clone(),
            words(route.state.name()),
            units::count(route.unsettled),
            units::count(route.published_total),
            units::rate(route.rate),
            units::count(route.parked),
        ]
    });
    table::aligned(&std::iter::once(head).chain(rows).collect::<Vec<_>>(), 0)
}

/// `waiting_for_outbox` → `waiting for outbox`
fn words(name: &str) -> String {
    name.replace('_', " ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::status::tests::healthy;
    use crate::admin::status::{BrokerState, RouteState, SourceState};

    const BOUND: Duration = Duration::from_secs(60);

    #[test]
    fn a_healthy_towpath_fits_on_a_few_lines() {
        insta::assert_snapshot!(page(&healthy(), BOUND), @r"
        towpath 0.1.0, up 3 h 12 min: all is well

        SOURCE     STATE      LAG           CHANGES    RATE   POSITION
        orders_db  streaming  0.2 s, 2 KiB  1,234,567  120/s  0/1A2B3C4D

        OUTBOX  open  12 unsettled (4 KiB, the oldest 0.4 s); 0 parked; 120 MiB of 10 GiB; /var/lib/towpath/outbox.db
        BROKER  up    rabbit.example:5672

        ROUTE      STATE    UNSETTLED  PUBLISHED  RATE   PARKED
        orders_db  running  12         1,234,555  119/s  0
        ");
    }

    #[test]
    fn what_is_wrong_comes_first() {
        let mut status = healthy();
        let mut crm = status.sources[0].clone();
        crm.name = "crm".into();
        crm.state = SourceState::Gap {
            error: "the slot towpath_crm is lost; changes after 0/1A2B3C4D are unknown".into(),
            help: Some("towpath snapshot crm --after-gap".into()),
        };
        status.sources.push(crm);
        status.sources[0].state = SourceState::Snapshotting;
        status.sources[0].snapshot = vec![
            TableProgress::new("public.orders".into(), 12_000, Some(40_000), 60.0),
            TableProgress::new("public.order_lines".into(), 0, None, 0.0),
        ];
        status.broker.state = BrokerState::Blocked { reason: "low on disk".into(), since_seconds: 75.0 };
        status.routes[0].state = RouteState::Waiting;
        status.routes[0].detail = Some("no queue takes the routing key `orders_db.public.orders.insert`".into());
        status.outbox.parked = 3;
        insta::assert_snapshot!(page(&status, BOUND), @r"
        towpath 0.1.0, up 3 h 12 min: 3 things to look at

        !! source crm: the slot towpath_crm is lost; changes after 0/1A2B3C4D are unknown
             towpath snapshot crm --after-gap

        !  broker: has taken nothing for 75 s: low on disk

        !  route orders_db: no queue takes the routing key `orders_db.public.orders.insert`

        SOURCE     STATE         LAG           CHANGES    RATE   POSITION
        orders_db  snapshotting  0.2 s, 2 KiB  1,234,567  120/s  0/1A2B3C4D
        crm        gap           0.2 s, 2 KiB  1,234,567  120/s  0/1A2B3C4D

        SNAPSHOT   TABLE               ROWS                    DONE     LEFT
        orders_db  public.orders       12,000 of about 40,000  30 %     2 min
        orders_db  public.order_lines  0                       unknown  unknown

        OUTBOX  open     12 unsettled (4 KiB, the oldest 0.4 s); 3 parked; 120 MiB of 10 GiB; /var/lib/towpath/outbox.db
        BROKER  blocked  rabbit.example:5672

        ROUTE      STATE    UNSETTLED  PUBLISHED  RATE   PARKED
        orders_db  waiting  12         1,234,555  119/s  0
        ");
    }

    #[test]
    fn a_stopped_towpath_says_so() {
        let mut status = healthy();
        status.running = false;
        status.sources[0].state = SourceState::NotRunning;
        status.broker.state = BrokerState::NotConnected;
        status.routes[0].state = RouteState::NotRunning;
        let page = page(&status, BOUND);
        assert!(
            page.starts_with("towpath 0.1.0, not running; this is what its outbox says: 1 thing to look at\n"),
            "{page}"
        );
        assert!(page.contains("towpath run"), "{page}");
    }
}
