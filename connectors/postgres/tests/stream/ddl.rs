//! Shapes change while the stream goes on: rows are read by the shape that they were written with.

use serde_json::json;

use crate::harness::{Db, Tap};

const ALTERATIONS: &str = "INSERT INTO t VALUES (1, 'a');
    ALTER TABLE t ADD extra int DEFAULT 7; INSERT INTO t VALUES (2, 'b', 8); UPDATE t SET note = 'c' WHERE id = 1;
    ALTER TABLE t RENAME note TO remark; ALTER TABLE t ALTER id TYPE text; INSERT INTO t VALUES ('x', 'd', 9);
    ALTER TABLE t DROP extra; INSERT INTO t VALUES ('y', 'e');
    ALTER TABLE t RENAME TO u; INSERT INTO u VALUES ('z', 'f')";

const SEEN: [&str; 7] = [
    "insert t [1 a]",
    "insert t [2 b 8]",
    "update t [1 c 7]",
    "insert t [x d 9]",
    "insert t [y e]",
    "insert u [z f]",
    "",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn alterations_count_from_the_next_row_on() {
    let db = Db::new("CREATE TABLE t (id int PRIMARY KEY, note text)").await;
    let mut tap = db.tap(json!({})).await;
    db.sql(ALTERATIONS).await;
    assert_eq!(tap.drain(&db).await, SEEN[..6]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn alterations_within_one_transaction_count_from_the_next_row_on() {
    let db = Db::new("CREATE TABLE t (id int PRIMARY KEY, note text)").await;
    let mut tap = db.tap(json!({})).await;
    db.sql(&format!("BEGIN; {ALTERATIONS}; COMMIT")).await;
    assert_eq!(tap.drain(&db).await, SEEN[..6]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn alterations_while_nobody_listens_change_no_earlier_row() {
    let db = Db::new("CREATE TABLE t (id int PRIMARY KEY, note text)").await;
    let mut tap = db.tap(json!({})).await;
    tap.drain(&db).await;
    let resume = tap.close().await;
    db.sql(ALTERATIONS).await;
    db.sql("DROP TABLE u").await;
    let mut tap = Tap::open(db.source(json!({})), resume).await;
    assert_eq!(tap.drain(&db).await, SEEN[..6]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_type_that_is_gone_is_named_by_the_stream() {
    let db = Db::new("CREATE TYPE mood AS ENUM ('sad', 'ok'); CREATE TABLE t (id int PRIMARY KEY, mood mood)").await;
    let mut tap = db.tap(json!({})).await;
    tap.drain(&db).await;
    let resume = tap.close().await;
    db.sql("INSERT INTO t VALUES (1, 'ok'); DROP TABLE t; DROP TYPE mood").await;
    let mut tap = Tap::open(db.source(json!({})), resume).await;
    let mut batch = towpath_contract::Batch::new();
    while batch.changes().len() == 0 {
        tap.capture.next(&mut batch).await.unwrap();
    }
    let change = batch.changes().next().unwrap();
    assert_eq!(change.table().columns[1].type_name, "public.mood");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_that_the_config_matches_later_is_captured_from_then_on() {
    let db = Db::new("CREATE TABLE a (id int PRIMARY KEY)").await;
    let mut tap = db.tap(json!({})).await;
    db.sql("CREATE TABLE b (id int PRIMARY KEY); INSERT INTO b VALUES (1); INSERT INTO a VALUES (1)").await;
    assert_eq!(tap.drain(&db).await, ["insert a [1]"]);
    let resume = tap.close().await;
    let mut tap = Tap::open(db.source(json!({})), resume).await;
    db.sql("INSERT INTO b VALUES (2)").await;
    assert_eq!(tap.drain(&db).await, ["insert b [2]"]);
}
