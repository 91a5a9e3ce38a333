//! Resident memory is bounded, whatever the size of a transaction or of the backlog.
//!
//! `make memory` runs both at full size: a transaction of two million rows, a backlog of five million changes.

use std::time::Duration;

use towpath_test_support::eventually;

use crate::rig::{PATIENCE, Rig, setting};

const RSS_KB_MAX: u64 = 100 << 10;

/// Without progress for this long, something hangs.
const STALLED: Duration = Duration::from_secs(60);

const TABLE: &str = "CREATE TABLE t (id bigint PRIMARY KEY, customer text, amount numeric(12,2), note text)";

fn rows(first: u64, last: u64) -> String {
    format!(
        "INSERT INTO t SELECT g, 'customer ' || g % 1000, g * 0.01, repeat(md5(g::text), 6) FROM generate_series({first}, {last}) g"
    )
}

/// Receives until `expected` different events came after the one of sequence `highest`, and holds on to none. One route
/// publishes in the order of recording, so that an event whose sequence is not above the highest one is a redelivery.
async fn receive(rig: &mut Rig, expected: u64, mut highest: String) {
    let mut distinct = 0;
    while distinct < expected {
        eventually("more events", STALLED, async || {
            rig.inbox.pump().await;
            if rig.inbox.received().is_empty() { Err((distinct, expected)) } else { Ok(()) }
        })
        .await;
        for event in rig.inbox.take() {
            let sequence = &event.headers["cloudEvents:sequence"];
            if *sequence > highest {
                highest.clone_from(sequence);
                distinct += 1;
            }
        }
    }
    assert_eq!(distinct, expected);
}

#[tokio::test]
async fn memory_is_bounded_whatever_the_size_of_a_transaction() {
    let count = setting("TOWPATH_TRANSACTION_ROWS", 200_000);
    let mut rig = Rig::new().await;
    rig.postgres.sql(TABLE).await;
    let mut towpath = rig.towpath("postgres", "").run();
    towpath.wait_for_log("capturing", PATIENCE).await;
    rig.postgres.sql(&rows(1, count)).await;
    receive(&mut rig, count, String::new()).await;
    let peak = towpath.rss_peak_kb();
    eprintln!("a transaction of {count} rows: at most {peak} kB resident");
    assert!(peak < RSS_KB_MAX, "{peak} kB");
    assert!(towpath.terminate(PATIENCE).await.success());
}

#[tokio::test]
async fn memory_is_bounded_whatever_the_size_of_the_backlog() {
    let count = setting("TOWPATH_BACKLOG_CHANGES", 200_000);
    let mut rig = Rig::with_own_broker().await;
    rig.postgres.sql(TABLE).await;
    rig.postgres.sql(&rows(0, 0)).await;
    let mut towpath = rig.towpath("postgres", "").run();
    rig.inbox.until_count(1, PATIENCE).await;
    let first = rig.inbox.take().remove(0).headers["cloudEvents:sequence"].clone();
    rig.rabbit.stop().await;
    // Applications commit little at a time.
    for first in (1..=count).step_by(1000) {
        rig.postgres.sql(&rows(first, count.min(first + 999))).await;
    }
    let written = rig.postgres.value("SELECT pg_current_wal_lsn()").await;
    let recorded = format!("SELECT confirmed_flush_lsn >= '{written}'::pg_lsn FROM pg_replication_slots");
    eventually("all of it to be in the outbox", STALLED * 10, async || {
        match rig.postgres.value(&recorded).await.as_str() {
            "t" => Ok(()),
            _ => Err(rig.postgres.value("SELECT confirmed_flush_lsn FROM pg_replication_slots").await),
        }
    })
    .await;
    let recorded = towpath.rss_peak_kb();
    rig.rabbit.start_again().await;
    receive(&mut rig, count, first).await;
    let peak = towpath.rss_peak_kb();
    eprintln!("a backlog of {count} changes: at most {recorded} kB resident while it grew, {peak} kB when it was gone");
    assert!(peak < RSS_KB_MAX, "{peak} kB");
    assert!(towpath.terminate(PATIENCE).await.success());
}
