//! Transactions: in progress, rolled back in part, larger than a batch; and a resume at every change of one.

use std::time::Duration;

use serde_json::{Value as Json, json};
use towpath_contract::Resume;
use towpath_test_support::eventually;

use crate::harness::{Db, Seen, Tap, major};

/// The server streams a transaction in progress as soon as it holds this much; before PostgreSQL 14 it never does.
fn streaming(db: &Db) -> Json {
    json!({ "url": format!("{}?options=-c%20logical_decoding_work_mem%3D64kB", db.url) })
}

/// Savepoints kept and rolled back, nested, before and after their parents' own rows; alterations and key updates within.
const EVENTFUL: &str = "BEGIN;
    INSERT INTO t SELECT i, repeat('a', 200) FROM generate_series(1, 2000) i;
    SAVEPOINT s1; INSERT INTO t SELECT i, repeat('b', 200) FROM generate_series(2001, 4000) i; ROLLBACK TO s1;
    SAVEPOINT s2; INSERT INTO t SELECT i, repeat('c', 200) FROM generate_series(2001, 3000) i;
      SAVEPOINT s3; UPDATE t SET note = 'gone' WHERE id <= 1000; ROLLBACK TO s3;
      SAVEPOINT s4; UPDATE t SET id = id + 10000 WHERE id <= 500; RELEASE s4;
    RELEASE s2;
    SAVEPOINT s5; SAVEPOINT s6; INSERT INTO t SELECT i, 'x' FROM generate_series(5001, 6000) i; RELEASE s6;
      INSERT INTO t SELECT i, 'y' FROM generate_series(6001, 7000) i; ROLLBACK TO s5;
    SAVEPOINT s7; ALTER TABLE t ADD wrong int; INSERT INTO t SELECT i, 'w', i FROM generate_series(5001, 6000) i; ROLLBACK TO s7;
    ALTER TABLE t ADD extra int DEFAULT 5; INSERT INTO t SELECT i, 'z', i FROM generate_series(7001, 8000) i;
    DELETE FROM t WHERE id BETWEEN 1500 AND 1600; TRUNCATE other, another;
    COMMIT";

const TABLES: &str = "CREATE TABLE t (id int PRIMARY KEY, note text); CREATE TABLE other (id int PRIMARY KEY); CREATE TABLE another (id int PRIMARY KEY)";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_streamed_in_progress_is_the_same_as_one_sent_whole() {
    if major().await < 14 {
        return;
    }
    let db = Db::new(TABLES).await;
    let mut whole = db.tap(json!({})).await;
    let mut streamed = Tap::open(db.source_named(&format!("{}_s", db.name), streaming(&db)), Resume::default()).await;
    db.sql(EVENTFUL).await;
    let expected = whole.drain(&db).await;
    assert_eq!(expected.len(), 2000 + 1000 + 2 * 500 + 1000 + 101 + 2);
    assert!(!expected.iter().any(|text| text.contains("gone") || text.contains(" x]") || text.contains(" w ")));
    streamed.drain(&db).await;
    let of_transaction =
        |tap: &Tap| -> Vec<Seen> { tap.seen.iter().filter(|seen| !seen.text.contains("fence")).cloned().collect() };
    let (a, b) = (of_transaction(&whole), of_transaction(&streamed));
    assert_eq!(a.len(), b.len());
    for (a, b) in a.iter().zip(&b) {
        assert_eq!(a, b);
    }
    eventually("the server's count of streamed transactions", Duration::from_secs(30), async || {
        let query =
            format!("SELECT stream_txns FROM pg_stat_replication_slots WHERE slot_name = 'towpath_{}_s'", db.name);
        match db.value(&query).await.as_str() {
            "0" | "" => Err("it streamed none"),
            _ => Ok(()),
        }
    })
    .await;
}

/// A batch that is full goes on to the end of a transaction that is near: routes put what they have of one into one message.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_small_transaction_comes_in_one_batch() {
    let db = Db::new("CREATE TABLE t (id int, n int, note text, PRIMARY KEY (id, n))").await;
    let mut tap = db.tap(json!({})).await;
    for id in 0..500 {
        db.sql(&format!("INSERT INTO t SELECT {id}, g, repeat('x', 700) FROM generate_series(1, 10) g")).await;
    }
    let mut batches = 0;
    while tap.seen.len() < 5000 {
        let before = tap.seen.len();
        tap.try_next().await.unwrap_or_else(|error| panic!("{error}"));
        let came = &tap.seen[before..];
        let whole = came.chunk_by(|a, b| a.transaction == b.transaction).all(|changes| changes.len() == 10);
        assert!(whole, "a part of a transaction among {} changes", came.len());
        batches += usize::from(!came.is_empty());
    }
    assert!(batches > 2, "one batch has no end in between");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_in_progress_is_spooled_and_appears_when_it_commits() {
    if major().await < 14 {
        return;
    }
    let db = Db::new(TABLES).await;
    let mut tap = db.tap(streaming(&db)).await;
    let other = crate::harness::server().await.client(&db.name).await;
    other
        .batch_execute("BEGIN; INSERT INTO t SELECT i, repeat('a', 200) FROM generate_series(1, 20000) i")
        .await
        .unwrap();
    let rolled_back = crate::harness::server().await.client(&db.name).await;
    rolled_back
        .batch_execute("BEGIN; INSERT INTO t SELECT -i, repeat('r', 200) FROM generate_series(1, 20000) i")
        .await
        .unwrap();
    db.sql("INSERT INTO other VALUES (1)").await;
    assert_eq!(tap.drain(&db).await, ["insert other [1]"]);
    assert!(tap.capture.progress().spooled_bytes > 1_000_000, "{:?}", tap.capture.progress());

    rolled_back.batch_execute("ROLLBACK").await.unwrap();
    other.batch_execute("COMMIT").await.unwrap();
    let seen = tap.drain(&db).await;
    assert_eq!(seen.len(), 1 + 20_000);
    assert!(seen[1..].iter().enumerate().all(|(i, text)| *text == format!("insert t [{} (200)]", i + 1)));
    assert_eq!(tap.capture.progress().spooled_bytes, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_while_a_transaction_is_spooled_loses_nothing() {
    if major().await < 14 {
        return;
    }
    let db = Db::new(TABLES).await;
    let mut tap = db.tap(streaming(&db)).await;
    let other = crate::harness::server().await.client(&db.name).await;
    other
        .batch_execute("BEGIN; INSERT INTO t SELECT i, repeat('a', 200) FROM generate_series(1, 5000) i")
        .await
        .unwrap();
    tap.drain(&db).await;
    let mut tap = tap.reopen().await;
    tap.drain(&db).await;
    other.batch_execute("COMMIT").await.unwrap();
    let mut tap = tap.reopen().await;
    assert_eq!(tap.drain(&db).await.len(), 5000);
}

/// Every change of a transaction, streamed or not, is a place to go on from.
async fn resumes_everywhere(more: impl Fn(&Db) -> Json, rows: u32, step: usize) {
    let db = Db::new(TABLES).await;
    let slot = format!("towpath_{}", db.name);
    let copy = |from: String, to: String| format!("SELECT pg_copy_logical_replication_slot('{from}', '{to}')");
    let mut tap = db.tap(more(&db)).await;
    tap.drain(&db).await;
    let start = tap.close().await;
    db.sql(&copy(slot.clone(), format!("{slot}_start"))).await;

    let mut tap = Tap::open(db.source(more(&db)), start).await;
    db.sql(&format!(
        "BEGIN; INSERT INTO t SELECT i, repeat('a', 200) FROM generate_series(1, {rows}) i; UPDATE t SET id = -id;
         TRUNCATE other, another; COPY other FROM PROGRAM 'seq 5'; COMMIT; INSERT INTO other VALUES (7)"
    ))
    .await;
    tap.drain(&db).await;
    let all = tap.seen.clone();
    assert_eq!(all.len() as u32, rows * 3 + 2 + 5 + 1);

    for at in (0..all.len()).step_by(step) {
        db.sql(&copy(format!("{slot}_start"), format!("{slot}_{at}"))).await;
        let mut config = more(&db);
        config["publication"] = json!(slot);
        let resume = Resume { position: Some(all[at].position), ..tap.resume.clone() };
        let mut again = Tap::open(db.source_named(&format!("{}_{at}", db.name), config), resume).await;
        let rest = &all[at + 1..];
        while again.seen.len() < rest.len() {
            again.try_next().await.unwrap();
        }
        assert_eq!(again.seen[..rest.len()], *rest, "after change {at}");
        again.close().await;
        db.sql(&format!("SELECT pg_drop_replication_slot('{slot}_{at}')")).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_resumes_at_every_change_of_a_transaction() {
    if major().await < 12 {
        return;
    }
    resumes_everywhere(|_| json!({}), 8, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_resumes_within_a_transaction_that_was_streamed_in_progress() {
    if major().await < 14 {
        return;
    }
    resumes_everywhere(streaming, 3000, 997).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_larger_than_a_batch_comes_in_several_that_can_be_resumed_from() {
    let db = Db::new(TABLES).await;
    let mut tap = db.tap(json!({})).await;
    db.sql("INSERT INTO t SELECT i, repeat('a', 1000) FROM generate_series(1, 5000) i").await;
    // Crashes after every batch: the server sends all of it again, and what was recorded is skipped.
    let mut seen = Vec::new();
    while seen.len() < 5000 {
        while tap.seen.is_empty() {
            tap.try_next().await.unwrap();
        }
        seen.append(&mut tap.seen);
        tap = tap.reopen().await;
    }
    assert!(seen.iter().enumerate().all(|(i, seen)| seen.text == format!("insert t [{} (1000)]", i + 1)));
}
