//! The connection: slow engines, dead peers, restarts, idle databases.

use std::time::Duration;

use serde_json::json;
use towpath_contract::{Action, Batch, Error, ErrorKind, Position};
use towpath_test_support::{Postgres, Proxy, eventually};

use crate::harness::{Db, Tap, major};

const T: &str = "CREATE TABLE t (id int PRIMARY KEY, note text)";

async fn failure(tap: &mut Tap) -> Error {
    loop {
        if let Err(error) = tap.try_next().await {
            return error;
        }
    }
}

async fn confirmed(db: &Db) -> u64 {
    let query =
        format!("SELECT confirmed_flush_lsn - '0/0' FROM pg_replication_slots WHERE slot_name = 'towpath_{}'", db.name);
    db.value(&query).await.parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_engine_stays_connected_by_keep_alive() {
    // Longer than the insert below takes on a busy machine, for nobody answers the server meanwhile.
    let server = Postgres::builder().settings("wal_sender_timeout = 4s").start().await;
    let db = Db::on(&server, T).await;
    let mut tap = db.tap(json!({})).await;
    // More than the sockets hold, so that the server is stuck in sending.
    db.sql("INSERT INTO t SELECT i, repeat('a', 1000) FROM generate_series(1, 30000) i").await;
    let before = tap.seen.len();
    let start = std::time::Instant::now();
    while start.elapsed() < Duration::from_secs(10) {
        tap.capture.keep_alive().await.unwrap();
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    assert_eq!(tap.seen.len(), before);
    assert_eq!(tap.drain(&db).await.len(), 30_000);
    assert!(!server.log().contains("terminating walsender process due to replication timeout"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_went_silent_is_taken_for_dead() {
    let db = Db::new(T).await;
    let proxy = Proxy::start(crate::harness::server().await.port());
    let url = db.url.replace(&format!(":{}", crate::harness::server().await.port()), &format!(":{}", proxy.port()));
    let mut tap = db.tap(json!({ "url": url, "read_timeout": "2s" })).await;
    tap.drain(&db).await;
    // Nothing happens, and yet it lives: the server is asked and answers.
    let mut batch = Batch::new();
    let quiet = tokio::time::timeout(Duration::from_millis(3500), async {
        loop {
            tap.capture.next(&mut batch).await.unwrap();
            batch.clear(0);
        }
    });
    assert!(quiet.await.is_err());
    proxy.half_open();
    let error = failure(&mut tap).await;
    assert_eq!((error.kind, error.action), (ErrorKind::Timeout, Action::Retry), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_reads_from_the_server_that_the_stream_comes_from() {
    let db = Db::new(T).await;
    db.sql("INSERT INTO t VALUES (1, 'ours')").await;
    let other = Postgres::start().await;
    other.sql(&format!("CREATE DATABASE {}", db.name)).await;
    other.sql_in(&db.name, &format!("{T}; INSERT INTO t VALUES (1, 'of another server')")).await;
    let proxy = Proxy::start(crate::harness::server().await.port());
    let hosts = format!("127.0.0.1:{},127.0.0.1:{}/", proxy.port(), other.port());
    let url = db.url.replace(&format!("127.0.0.1:{}/", crate::harness::server().await.port()), &hosts);
    let mut tap = db.tap(json!({ "url": url })).await;
    tap.drain(&db).await;
    // The stream's server takes no more sessions; the second host of the URL would.
    proxy.refuse();
    let connects = async || tokio::net::TcpStream::connect(("127.0.0.1", proxy.port())).await.is_ok();
    let within = Duration::from_secs(10);
    eventually("connections to be refused", within, async || if connects().await { Err(()) } else { Ok(()) }).await;
    tap.snapshot("public.t");
    let error = failure(&mut tap).await;
    assert_eq!((error.kind, error.action), (ErrorKind::Connection, Action::Retry), "{error}");
    assert_eq!(tap.texts(), [""; 0]);
    proxy.heal();
    eventually("connections to be taken", within, async || if connects().await { Ok(()) } else { Err(()) }).await;
    let mut tap = tap.reopen().await;
    while tap.texts().is_empty() {
        tap.try_next().await.unwrap();
    }
    assert_eq!(tap.texts(), ["read t [1 ours]"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_stops_crashes_or_ends_us_is_tried_again() {
    let mut server = Postgres::start().await;
    let db = Db::on(&server, T).await;
    let mut tap = db.tap(json!({})).await;
    tap.drain(&db).await;
    db.sql("SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots").await;
    let error = failure(&mut tap).await;
    assert_eq!(error.action, Action::Retry, "{error}");

    let mut tap = tap.reopen().await;
    let (error, ()) = tokio::join!(failure(&mut tap), server.stop());
    assert_eq!((error.kind, error.action), (ErrorKind::Connection, Action::Retry), "{error}");
    let error = tap.source_open_error().await;
    assert_eq!((error.kind, error.action), (ErrorKind::Connection, Action::Retry), "{error}");
    assert!(error.message.contains("refuses connections"), "{error}");

    server.start_again().await;
    let mut tap = tap.reopen().await;
    let (error, ()) = tokio::join!(failure(&mut tap), server.crash());
    assert_eq!((error.kind, error.action), (ErrorKind::Connection, Action::Retry), "{error}");
}

impl Tap {
    async fn source_open_error(&self) -> Error {
        use towpath_contract::Source;
        self.source.open(self.resume.clone()).await.err().expect("the server is stopped")
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_database_confirms_what_its_neighbour_writes() {
    let db = Db::new(T).await;
    let neighbour = Db::new(T).await;
    let mut tap = db.tap(json!({})).await;
    tap.drain(&db).await;
    neighbour.sql("INSERT INTO t SELECT i, repeat('a', 500) FROM generate_series(1, 20000) i").await;
    let end: u64 = neighbour.value("SELECT pg_current_wal_lsn() - '0/0'").await.parse().unwrap();
    while confirmed(&db).await < end {
        assert_eq!(tap.try_next().await.unwrap(), 0, "a position and no change");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_confirmed_before_it_is_recorded() {
    let db = Db::new(T).await;
    let mut tap = db.tap(json!({})).await;
    tap.drain(&db).await;
    let recorded = u64::from_be_bytes(tap.resume.position.unwrap().as_bytes()[..8].try_into().unwrap());
    db.sql("INSERT INTO t VALUES (1, 'n')").await;
    let mut batch = Batch::new();
    while batch.changes().len() == 0 {
        tap.capture.next(&mut batch).await.unwrap();
    }
    for _ in 0..5 {
        tap.capture.keep_alive().await.unwrap();
    }
    // An answer to a later question shows that the server has read all of it.
    let other = Db::new(T).await;
    assert!(confirmed(&db).await <= recorded);
    let position: Position = batch.position.unwrap();
    tap.capture.recorded(&position);
    eventually("the confirmation of what was recorded", Duration::from_secs(20), async || {
        tap.capture.keep_alive().await.unwrap();
        let expected = u64::from_be_bytes(position.as_bytes()[..8].try_into().unwrap());
        match confirmed(&db).await {
            lsn if lsn >= expected => Ok(()),
            lsn => Err(lsn),
        }
    })
    .await;
    drop(other);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_heartbeat_moves_the_slot_where_it_is_switched_on() {
    let db = Db::new(T).await;
    let mut tap = db.tap(json!({ "heartbeat": { "every": "1s" } })).await;
    tap.drain(&db).await;
    let before = confirmed(&db).await;
    while confirmed(&db).await == before {
        assert_eq!(tap.try_next().await.unwrap(), 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_is_dropped_at_any_moment_loses_nothing() {
    let db = Db::new(T).await;
    let streamed = if major().await < 14 { "" } else { "?options=-c%20logical_decoding_work_mem%3D64kB" };
    let mut tap = db.tap(json!({ "url": format!("{}{streamed}", db.url) })).await;
    db.sql(
        "INSERT INTO t SELECT i, repeat('a', 100) FROM generate_series(1, 3000) i; INSERT INTO t VALUES (3001, 'z')",
    )
    .await;
    let mut seen = Vec::new();
    let mut batch = Batch::new();
    let mut polls = 0u32;
    while seen.len() < 3001 {
        let mut next = tap.capture.next(&mut batch);
        polls = polls % 7 + 1;
        // Polled a few times, then dropped: the batch keeps what was put in.
        let mut left = polls;
        let done = std::future::poll_fn(|cx| match next.as_mut().poll(cx) {
            std::task::Poll::Pending if left == 0 => std::task::Poll::Ready(None),
            std::task::Poll::Pending => {
                left -= 1;
                cx.waker().wake_by_ref();
                std::task::Poll::Pending
            }
            std::task::Poll::Ready(result) => std::task::Poll::Ready(Some(result)),
        })
        .await;
        drop(next);
        if let Some(result) = done {
            result.unwrap();
            seen.extend(batch.changes().map(|change| String::from_utf8_lossy(id_of(&change)).into_owned()));
            batch.clear(1 << 20);
        }
    }
    assert!(seen.iter().enumerate().all(|(i, id)| *id == (i + 1).to_string()));
}

fn id_of<'a>(change: &towpath_contract::Change<'a>) -> &'a [u8] {
    match change.keyed_row().map(|row| row.value(0)) {
        Some(towpath_contract::Value::Data(id)) => id,
        _ => b"",
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn progress_tells_how_far_behind_it_is() {
    let db = Db::new(T).await;
    let mut tap = db.tap(json!({})).await;
    tap.drain(&db).await;
    db.sql("INSERT INTO t SELECT i, repeat('a', 1000) FROM generate_series(1, 5000) i").await;
    eventually("the lag to show", Duration::from_secs(30), async || {
        tap.capture.keep_alive().await.unwrap();
        match tap.capture.progress().behind_bytes {
            Some(bytes) if bytes > 5_000_000 => Ok(()),
            other => Err(other),
        }
    })
    .await;
    assert!(tap.capture.progress().position_text.contains('/'));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn closing_lets_the_slot_go_at_once() {
    let db = Db::new(T).await;
    let mut tap = db.tap(json!({})).await;
    db.sql("INSERT INTO t SELECT i, repeat('a', 1000) FROM generate_series(1, 3000) i").await;
    tap.try_next().await.unwrap();
    let resume = tap.close().await;
    let active =
        db.value(&format!("SELECT active FROM pg_replication_slots WHERE slot_name = 'towpath_{}'", db.name)).await;
    assert_eq!(active, "false");
    let mut tap = Tap::open(db.source(json!({})), resume).await;
    assert_eq!(tap.drain(&db).await.last().unwrap(), "insert t [3000 (1000)]");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_value_of_a_hundred_megabytes_passes() {
    let db = Db::new(T).await;
    let mut tap = db.tap(json!({})).await;
    db.sql("INSERT INTO t VALUES (1, repeat('0123456789', 10000000)); INSERT INTO t VALUES (2, 'small')").await;
    assert_eq!(tap.drain(&db).await, ["insert t [1 (100000000)]", "insert t [2 small]"]);
}
