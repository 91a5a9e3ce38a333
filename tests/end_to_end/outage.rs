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

/// A backup of the whole machine was put in place: the same system and timeline, and a log that ends before what was recorded.
#[tokio::test]
async fn a_server_that_was_set_back_is_a_gap_and_the_way_back_leads_back() {
    let mut rig = Rig::new().await;
    rig.postgres.sql("CREATE TABLE t (id int PRIMARY KEY, note text); INSERT INTO t SELECT g, 'old' FROM generate_series(1, 3) g").await;
    let builder = rig.towpath("postgres", "");
    let mut towpath = builder.clone().run();
    rig.inbox.until_count(3, PATIENCE).await;
    rig.postgres.stop().await;
    rig.postgres.set_aside();
    rig.postgres.start_again().await;
    rig.postgres.sql("UPDATE t SET note = 'later'; UPDATE t SET note = 'latest' WHERE id = 1").await;
    rig.inbox.until_count(7, PATIENCE).await;
    assert!(towpath.terminate(PATIENCE).await.success());

    rig.postgres.stop().await;
    rig.postgres.set_back();
    rig.postgres.start_again().await;
    rig.postgres.sql("UPDATE t SET note = 'otherwise' WHERE id = 2").await;
    towpath.start_again();
    let line = towpath.wait_for_log("was set back", PATIENCE).await;
    assert!(line.contains("towpath snapshot db --after-gap"), "{line}");
    let health = builder.command(&["status", "--json"]).await;
    assert!(String::from_utf8_lossy(&health.stdout).contains(r#""state": "gap""#));

    let accepted = builder.command(&["snapshot", "db", "--after-gap"]).await;
    assert!(accepted.status.success(), "{}", String::from_utf8_lossy(&accepted.stderr));
    let client = rig.postgres.client("postgres").await;
    rig.settle(&client, &["public.t"]).await;
    rig.postgres.sql("UPDATE t SET note = 'goes on'; INSERT INTO t VALUES (4, 'new')").await;
    // What comes after the gap counts as newer than all before it, and no id stands for two events.
    let report = rig.settle(&client, &["public.t"]).await;
    assert_eq!((report.duplicates, report.out_of_order), (0, 0));
    assert!(towpath.terminate(PATIENCE).await.success());
}

/// Just when people ask: nothing else moves, and the answers come.
#[tokio::test]
async fn whoever_asks_is_answered_while_everything_waits() {
    let mut rig = Rig::with_own_broker().await;
    rig.postgres.sql("CREATE TABLE t (id int PRIMARY KEY, note text); INSERT INTO t VALUES (0, '')").await;
    let builder = rig.towpath("postgres", "").env("TOWPATH__OUTBOX__MAX_SIZE", "16MiB");
    let mut towpath = builder.clone().run();
    rig.inbox.until_count(1, PATIENCE).await;
    rig.rabbit.stop().await;
    rig.postgres.sql("INSERT INTO t SELECT g, repeat('x', 1000) FROM generate_series(1, 15000) g").await;
    let status = async || String::from_utf8_lossy(&builder.command(&["status", "--json"]).await.stdout).into_owned();
    eventually("the source to wait for the outbox", PATIENCE, async || {
        let status = status().await;
        if status.contains("waiting_for_outbox") { Ok(()) } else { Err(status) }
    })
    .await;
    let asked = builder.command(&["snapshot", "db"]).await;
    assert!(asked.status.success(), "{}", String::from_utf8_lossy(&asked.stderr));
    assert!(status().await.contains("waiting_for_outbox"));
    let paused = builder.command(&["pause", "db"]).await;
    assert!(paused.status.success(), "{}", String::from_utf8_lossy(&paused.stderr));
    eventually("the source to be paused", PATIENCE, async || {
        let status = status().await;
        if status.contains(r#""state": "paused""#) { Ok(()) } else { Err(status) }
    })
    .await;
    assert!(builder.command(&["resume", "db"]).await.status.success());
    eventually("the source to wait for the outbox again", PATIENCE, async || {
        let status = status().await;
        if status.contains("waiting_for_outbox") { Ok(()) } else { Err(status) }
    })
    .await;
    // The server need not wait until there is room.
    rig.postgres.stop().await;
    rig.postgres.start_again().await;
    rig.rabbit.start_again().await;
    let client = rig.postgres.client("postgres").await;
    rig.settle(&client, &["public.t"]).await;
    assert!(towpath.terminate(PATIENCE).await.success());
}

/// A new slot waits for the transactions in progress: what is asked meanwhile is done afterwards, and who asked is told so.
#[tokio::test]
async fn a_snapshot_that_is_asked_for_while_the_source_is_opened_is_made() {
    let mut rig = Rig::new().await;
    rig.postgres.sql("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)").await;
    let client = rig.postgres.client("postgres").await;
    client.batch_execute("BEGIN; INSERT INTO t VALUES (2)").await.expect("it inserts");
    let builder = rig.towpath("postgres", "").env("TOWPATH__SOURCES__DB__SNAPSHOT__MODE", "never");
    let mut towpath = builder.clone().run();
    towpath.wait_for_log("this waits for transactions that are running now", PATIENCE).await;
    let asked = builder.command(&["snapshot", "db"]).await;
    let (said, refused) = (String::from_utf8_lossy(&asked.stdout), String::from_utf8_lossy(&asked.stderr));
    assert!(asked.status.success() && said.contains("as soon as the source streams"), "{said}{refused}");
    client.batch_execute("COMMIT").await.expect("it commits");
    let both = rig.inbox.until_count(2, PATIENCE).await;
    assert!(both.iter().all(|event| event.routing_key.ends_with(".read")), "{both:?}");
    assert!(towpath.terminate(PATIENCE).await.success());
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

/// Whoever was told that a snapshot will be made need not ask again.
#[tokio::test]
async fn a_snapshot_is_answered_for_when_a_crash_cannot_undo_it() {
    let mut rig = Rig::new().await;
    rig.postgres.sql("CREATE TABLE t (id int PRIMARY KEY, note text); INSERT INTO t VALUES (1, 'a')").await;
    let builder = rig.towpath("postgres", "");
    let mut towpath = builder.clone().run();
    rig.inbox.until_count(1, PATIENCE).await;
    towpath.wait_for_log("the table was read", PATIENCE).await;
    assert!(towpath.terminate(PATIENCE).await.success());

    // It dies before the request is on disk.
    let said = towpath.log().len();
    towpath.start_again_with_failpoint("pipeline.before_record:1");
    towpath.wait_for_log_after(said, "capturing", PATIENCE).await;
    let asked = builder.command(&["snapshot", "db"]).await;
    assert!(!asked.status.success(), "{}", String::from_utf8_lossy(&asked.stdout));
    towpath.wait_for_end(PATIENCE).await;

    for reads in 2..5 {
        towpath.start_again();
        eventually("the request to be answered for", PATIENCE, async || {
            let asked = builder.command(&["snapshot", "db"]).await;
            if asked.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&asked.stderr).into_owned()) }
        })
        .await;
        towpath.kill();
        towpath.start_again();
        let all = rig.inbox.until_count(reads, PATIENCE).await;
        assert!(all.iter().all(|event| event.json()["op"] == "read"));
        assert!(towpath.terminate(PATIENCE).await.success());
    }
}

/// What changed in a gap comes with the rows that are read: until they are, the source is not ready.
#[tokio::test]
async fn after_a_gap_nothing_is_green_before_the_tables_were_read() {
    let mut rig = Rig::new().await;
    rig.postgres.sql("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t SELECT generate_series(1, 200)").await;
    let builder = rig
        .towpath("postgres", "")
        .env("TOWPATH__SOURCES__DB__SNAPSHOT__CHUNK_ROWS", "20")
        .env("TOWPATH__SOURCES__DB__SNAPSHOT__ROWS_PER_SECOND_MAX", "50");
    let mut towpath = builder.clone().run();
    rig.inbox.until_count(200, PATIENCE).await;
    assert!(towpath.terminate(PATIENCE).await.success());
    rig.postgres.sql("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots").await;
    rig.postgres.sql("INSERT INTO t VALUES (1000)").await;
    towpath.start_again();
    towpath.wait_for_log("--after-gap", PATIENCE).await;
    let accepted = builder.command(&["snapshot", "db", "--after-gap"]).await;
    assert!(accepted.status.success(), "{}", String::from_utf8_lossy(&accepted.stderr));
    let admin = rig.admin();
    let readiness = async || admin.get("/readyz").await;
    eventually("the reading to be told", PATIENCE, async || match readiness().await {
        (503, said) if said.contains("reads its tables again after a gap") => Ok(()),
        other => Err(other),
    })
    .await;
    // Whenever it is green, the row has come.
    eventually("it to be ready", PATIENCE, async || match readiness().await {
        (200, _) => Ok(()),
        other => Err(other),
    })
    .await;
    let all = rig.inbox.until_count(401, PATIENCE).await;
    assert!(all[200..].iter().any(|event| event.json()["key"]["id"] == 1000));
    // A restart has forgotten nothing of it.
    towpath.kill();
    towpath.start_again();
    eventually("it to be ready again", PATIENCE, async || match readiness().await {
        (200, _) => Ok(()),
        other => Err(other),
    })
    .await;
    assert!(towpath.terminate(PATIENCE).await.success());
}
