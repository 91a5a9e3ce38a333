//! The wall clock jumps: it was wrong and is set right, or a machine wakes up. What waits, waits by the monotonic clock.

use std::time::{Duration, UNIX_EPOCH};

use towpath_test_support::{Checker, Towpath, eventually};

use super::{Load, TABLE, ready, towpath};
use crate::rig::{PATIENCE, Rig};

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
    let load = Load::start(&rig).await;
    let outbox = reader(&towpath);
    for step in [-DAY, DAY, -10] {
        rig.inbox.until_count(10, SOON).await;
        let tried = |before: (u64, u64)| (rig.source_link.accepted() - before.0, rig.broker_link.accepted() - before.1);
        let before = tried((0, 0));
        if step == -DAY {
            // Both links fall silent, which only a time-out notices, and the clock jumps while it runs.
            rig.source_link.half_open();
            rig.broker_link.half_open();
        }
        disk.clock_step(step);
        if step == -DAY {
            eventually("both links to be tried again", SOON, async || match tried(before) {
                (1.., 1..) => Ok(()),
                tried => Err(tried),
            })
            .await;
            rig.source_link.heal();
            rig.broker_link.heal();
        }
        eventually("an event to be recorded by the new time", SOON, async || {
            let newest = "SELECT recorded_at / 1000 FROM event ORDER BY seq DESC LIMIT 1";
            let recorded = outbox.query_row(newest, [], |row| row.get::<_, i64>(0));
            let now = UNIX_EPOCH.elapsed().expect("it is after 1970").as_secs() as i64;
            let off = recorded.map(|recorded| recorded - now - step);
            if off.as_ref().is_ok_and(|off| off.abs() < 5) { Ok(()) } else { Err(off) }
        })
        .await;
        rig.inbox.take().iter().for_each(|delivery| checker.add(delivery));
        rig.inbox.until_count(10, SOON).await;
        ready(&rig).await;
        for name in ["towpath_source_lag_seconds", "towpath_outbox_oldest_age_seconds"] {
            let seconds = metric(&rig, name).await;
            assert!((0.0..60.0).contains(&seconds), "{name} {seconds}, the clock at {step}");
        }
    }
    load.stop().await;
    checker.settle(&client, &mut rig.inbox, SOON).await;
    assert!(towpath.terminate(SOON).await.success());
}

/// The time of settled events is over a day sooner; those that the broker does not have yet stay.
#[tokio::test]
async fn a_clock_that_jumps_ahead_deletes_no_unsettled_event() {
    let mut rig = Rig::new().await;
    rig.postgres.sql(&format!("{TABLE}; INSERT INTO t SELECT g, 'settled' FROM generate_series(1, 100) g")).await;
    let (towpath, mut disk) = towpath(&rig, "1m");
    rig.inbox.until_count(100, PATIENCE).await;
    let outbox = reader(&towpath);
    let events = async |settled: i64, unsettled: i64| {
        eventually(&format!("{settled} settled and {unsettled} unsettled events"), PATIENCE, async || {
            let count =
                |of: &str| outbox.query_row(&format!("SELECT count(*) FROM {of}"), [], |row| row.get::<_, i64>(0));
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
    // All that was committed is recorded, whatever the clock says.
    eventually("the source's lag to be none", PATIENCE, async || {
        match metric(&rig, "towpath_source_lag_seconds").await {
            0.0 => Ok(()),
            lag => Err(lag),
        }
    })
    .await;
    rig.broker_link.heal();
    let client = rig.postgres.client("postgres").await;
    rig.settle(&client, &["public.t"]).await;
}

/// The outbox, as a person reads it beside Towpath.
fn reader(towpath: &Towpath) -> rusqlite::Connection {
    let path = towpath.folder().join("outbox.db");
    let opened = rusqlite::Connection::open_with_flags(path, rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY);
    opened.expect("the outbox is a file")
}

async fn metric(rig: &Rig, name: &str) -> f64 {
    let metrics = rig.admin().get("/metrics").await.1;
    let line = metrics.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("no {name}:\n{metrics}"));
    let value = line.rsplit(' ').next().and_then(|value| value.parse().ok());
    value.unwrap_or_else(|| panic!("{line}"))
}
