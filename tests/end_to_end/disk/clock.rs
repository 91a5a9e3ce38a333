//! The wall clock jumps: it was wrong and is set right, or a machine wakes up. What waits, waits by the monotonic clock.

use std::time::Duration;

use towpath_test_support::{Checker, eventually};

use super::{Load, TABLE, ready, towpath};
use crate::rig::{PATIENCE, Rig, get};

const DAY: i64 = 86_400;

/// No time-out is a day.
const SOON: Duration = Duration::from_secs(20);

#[tokio::test]
async fn a_clock_that_jumps_loses_nothing() {
    let mut rig = Rig::new().await;
    rig.postgres.sql(TABLE).await;
    let client = rig.postgres.client("postgres").await;
    let mut checker = Checker::new(&client, &["public.t"]).await;
    let (mut towpath, mut disk) = towpath(&rig, "1m");
    ready(&rig).await;
    for step in [-DAY, DAY, -10, 0] {
        let load = Load::start(&rig).await;
        rig.inbox.until_count(10, SOON).await;
        // Both links fall silent, which only a time-out notices, and the clock jumps while it runs.
        let accepted = (rig.source_link.accepted(), rig.broker_link.accepted());
        if step == -DAY {
            rig.source_link.half_open();
            rig.broker_link.half_open();
        }
        disk.clock_step(step);
        if step == -DAY {
            eventually("both links to be tried again", SOON, async || {
                let tried = (rig.source_link.accepted(), rig.broker_link.accepted());
                if tried.0 > accepted.0 && tried.1 > accepted.1 { Ok(()) } else { Err(tried) }
            })
            .await;
            rig.source_link.heal();
            rig.broker_link.heal();
        }
        rig.inbox.take().iter().for_each(|delivery| checker.add(delivery));
        rig.inbox.until_count(10, SOON).await;
        ready(&rig).await;
        for name in ["towpath_source_lag_seconds", "towpath_outbox_oldest_age_seconds"] {
            let seconds = metric(&rig, name).await;
            assert!((0.0..60.0).contains(&seconds), "{name} {seconds}, the clock at {step}");
        }
        load.stop().await;
        checker.settle(&client, &mut rig.inbox, SOON).await;
    }
    assert!(towpath.terminate(SOON).await.success());
}

/// The time of settled events is over a day sooner; those that the broker does not have yet stay.
#[tokio::test]
async fn a_clock_that_jumps_ahead_deletes_no_unsettled_event() {
    let mut rig = Rig::new().await;
    rig.postgres.sql(&format!("{TABLE}; INSERT INTO t SELECT g, 'settled' FROM generate_series(1, 100) g")).await;
    let (towpath, mut disk) = towpath(&rig, "1m");
    rig.inbox.until_count(100, PATIENCE).await;
    let outbox = rusqlite::Connection::open_with_flags(
        towpath.folder().join("outbox.db"),
        rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY,
    )
    .expect("the outbox is a file");
    let events = async |settled: i64, unsettled: i64| {
        eventually(&format!("{settled} settled and {unsettled} unsettled events"), PATIENCE, async || {
            let count = |of: &str| {
                outbox.query_row(&format!("SELECT count(*) FROM {of}"), [], |row| row.get::<_, i64>(0))
            };
            let found = (count("event"), count("unsettled"));
            if found == (Ok(settled + unsettled), Ok(unsettled)) { Ok(()) } else { Err(found) }
        })
        .await;
    };
    events(100, 0).await;
    rig.broker_link.refuse();
    rig.broker_link.cut();
    rig.postgres.sql("INSERT INTO t SELECT g, 'not yet' FROM generate_series(101, 200) g").await;
    events(100, 100).await;
    disk.clock_step(DAY);
    events(0, 100).await;
    rig.broker_link.heal();
    let client = rig.postgres.client("postgres").await;
    rig.settle(&client, &["public.t"]).await;
}

async fn metric(rig: &Rig, name: &str) -> f64 {
    let metrics = get(rig, "/metrics").await.1;
    let line = metrics.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("no {name}:\n{metrics}"));
    let value = line.rsplit(' ').next().and_then(|value| value.parse().ok());
    value.unwrap_or_else(|| panic!("{line}"))
}
