//! What holds while something is down.

use towpath_test_support::eventually;

use crate::rig::{PATIENCE, Rig};

async fn confirmed_lsn(rig: &Rig) -> String {
    rig.postgres.value("SELECT confirmed_flush_lsn FROM pg_replication_slots").await
}

#[tokio::test]
async fn a_broker_that_is_down_pins_no_wal_and_loses_nothing() {
    let mut rig = Rig::with_own_broker().await;
    rig.postgres.sql("CREATE TABLE t (id int PRIMARY KEY, note text); INSERT INTO t VALUES (0, '')").await;
    let _towpath = rig.towpath("postgres", "").run();
    rig.inbox.until_count(1, PATIENCE).await;
    rig.rabbit.stop().await;
    for round in 0..5 {
        let (first, last) = (round * 1000 + 1, round * 1000 + 1000);
        rig.postgres
            .sql(&format!("INSERT INTO t SELECT g, repeat('x', 500) FROM generate_series({first}, {last}) g"))
            .await;
        let written = rig.postgres.value("SELECT pg_current_wal_lsn()").await;
        let behind = format!("SELECT confirmed_flush_lsn >= '{written}'::pg_lsn FROM pg_replication_slots");
        eventually("the slot's confirmed_flush_lsn moves on while the broker is down", PATIENCE, async || {
            match rig.postgres.value(&behind).await.as_str() {
                "t" => Ok(()),
                _ => Err(confirmed_lsn(&rig).await),
            }
        })
        .await;
        rig.postgres.sql("CHECKPOINT").await;
    }
    let pinned = "SELECT (pg_current_wal_lsn() - restart_lsn)::bigint < 16 * 1024 * 1024 FROM pg_replication_slots";
    assert_eq!(rig.postgres.value(pinned).await, "t", "the slot lets go of the WAL");
    rig.rabbit.start_again().await;
    let client = rig.postgres.client("postgres").await;
    let report = rig.settle(&client, &["public.t"]).await;
    assert_eq!(report.ops["insert"], 5000);
}

#[tokio::test]
async fn an_idle_database_pins_no_wal_while_its_neighbour_writes() {
    let mut rig = Rig::new().await;
    rig.postgres.sql("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)").await;
    rig.postgres.sql("CREATE DATABASE neighbour").await;
    let _towpath = rig.towpath("postgres", "").run();
    rig.inbox.until_count(1, PATIENCE).await;
    rig.postgres.sql_in("neighbour", "CREATE TABLE n AS SELECT generate_series(1, 100000)").await;
    let written = rig.postgres.value("SELECT pg_current_wal_lsn()").await;
    eventually("the slot follows the neighbour's WAL", PATIENCE, async || {
        let behind = format!("SELECT confirmed_flush_lsn >= '{written}'::pg_lsn FROM pg_replication_slots");
        match rig.postgres.value(&behind).await.as_str() {
            "t" => Ok(()),
            _ => Err(confirmed_lsn(&rig).await),
        }
    })
    .await;
}

#[tokio::test]
async fn a_slot_that_was_dropped_stops_the_source_and_is_not_made_again() {
    let mut rig = Rig::new().await;
    rig.postgres.sql("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)").await;
    let mut towpath = rig.towpath("postgres", "").run();
    rig.inbox.until_count(1, PATIENCE).await;
    assert!(towpath.terminate(PATIENCE).await.success());
    rig.postgres.sql("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots").await;
    rig.postgres.sql("INSERT INTO t VALUES (2)").await;
    towpath.start_again();
    let line = towpath.wait_for_log("--after-gap", PATIENCE).await;
    assert!(line.contains("towpath_db"), "the slot is named: {line}");
    assert_eq!(rig.postgres.value("SELECT count(*) FROM pg_replication_slots").await, "0");
}
