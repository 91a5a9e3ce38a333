//! The session beside the stream, which watches what the publication leaves out.

use std::time::Duration;

use serde_json::json;
use tokio::time::timeout;
use towpath_contract::{Action, Error, ErrorKind};

use crate::harness::{Db, Tap};
use crate::slots::{T, assert_gap, failure, refused_again};

async fn failure_within(tap: &mut Tap, seconds: u64) -> Error {
    timeout(Duration::from_secs(seconds), failure(tap)).await.expect("it ends by an error")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_publication_that_nobody_watches_any_more_ends_the_capture() {
    let db = Db::new(T).await;
    let mut tap = db.tap(json!({})).await;
    db.sql("INSERT INTO t VALUES (1)").await;
    assert_eq!(tap.drain(&db).await, ["insert t [1]"]);
    let watching = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
                    WHERE application_name = 'towpath' AND datname = current_database() AND backend_type = 'client backend'";
    assert_eq!(db.value(watching).await, "1");
    let publication = format!("ALTER PUBLICATION towpath_{}", db.name);
    db.sql(&format!("{publication} DROP TABLE t; INSERT INTO t VALUES (2); {publication} ADD TABLE t")).await;
    let error = failure_within(&mut tap, 30).await;
    assert_eq!((error.kind, error.action), (ErrorKind::Connection, Action::Retry), "{error}");
    assert_gap(&refused_again(tap).await, &db);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_publication_that_cannot_be_looked_at_ends_the_capture() {
    let db = Db::new(T).await;
    let mut tap = db.tap(json!({ "read_timeout": "2s" })).await;
    tap.drain(&db).await;
    // The stream has what it needs to know of the publication, and goes on.
    db.sql("BEGIN; LOCK TABLE pg_publication").await;
    let error = failure_within(&mut tap, 50).await;
    assert_eq!((error.kind, error.action), (ErrorKind::Timeout, Action::Retry), "{error}");
    assert!(error.to_string().contains("watching the publication"), "{error}");
    db.sql("COMMIT").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gap_names_the_log_since_the_publication_was_last_seen() {
    let db = Db::new(T).await;
    let mut tap = db.tap(json!({})).await;
    tap.drain(&db).await;
    // A table that is not published shows when the publication is looked at: the next look is seconds away.
    db.sql("CREATE TABLE more (id int PRIMARY KEY)").await;
    while tap.capture.progress().uncaptured.is_empty() {
        tap.try_next().await.unwrap();
    }
    let end = async || db.value("SELECT pg_current_wal_insert_lsn() - '0/0'").await.parse::<u64>().unwrap();
    let before = end().await;
    db.sql(&format!("ALTER PUBLICATION towpath_{} DROP TABLE t; INSERT INTO t VALUES (1)", db.name)).await;
    let missed_before = end().await;
    let error = failure_within(&mut tap, 30).await;
    assert_gap(&error, &db);
    let since = error.message.split("changes since ").nth(1).unwrap().split(' ').next().unwrap();
    let since: u64 = db.value(&format!("SELECT '{since}'::pg_lsn - '0/0'")).await.parse().unwrap();
    assert!(
        since <= before && before < missed_before,
        "{since}, though {before} to {missed_before} was missed: {error}"
    );
}
