//! Tables without a key: one consistent read, exact as multisets.

use super::*;

const SETUP: &str = "CREATE TABLE t (a int, b text); ALTER TABLE t REPLICA IDENTITY FULL; \
    INSERT INTO t SELECT i % 100, 'x' FROM generate_series(1, 2000) i";

async fn check(bench: &Bench) {
    let expected = bench.rows("SELECT a, b, count(*) FROM t GROUP BY 1, 2").await;
    let found: Vec<_> = bench.consumer.multisets["t"].iter().filter(|(_, count)| **count != 0).collect();
    assert_eq!(found.len(), expected.len());
    for row in expected {
        let key = vec![Some(row[0].clone()), Some(row[1].clone())];
        assert_eq!(bench.consumer.multisets["t"].get(&key).copied().unwrap_or_default().to_string(), row[2], "{key:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_busy_table_without_a_key_comes_out_exact() {
    let postgres = server().await;
    let mut bench = Bench::start(&postgres, SETUP, 100).await;
    // Before the snapshot is taken: part of it.
    bench.sql("INSERT INTO t VALUES (1, 'x'), (500, 'early'); DELETE FROM t WHERE a = 2").await;
    let url = bench.url.clone();
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let stopped = stop.clone();
    let writer = tokio::spawn(async move {
        let client = session(&url).await;
        for i in 0.. {
            let sql = format!(
                "INSERT INTO t VALUES ({}, 'x'); UPDATE t SET b = 'u{}' WHERE a = {}; DELETE FROM t WHERE a = {}",
                i % 100,
                i % 5,
                i % 90,
                i % 7
            );
            client.batch_execute(&sql).await.unwrap();
            if stopped.load(std::sync::atomic::Ordering::Relaxed) {
                return;
            }
        }
    });
    while !bench.done() {
        bench.step().await;
    }
    for _ in 0..50 {
        bench.step().await;
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    writer.await.unwrap();
    bench.run().await;
    assert!(bench.dropped > 0, "what the snapshot contains is not delivered besides");
    check(&bench).await;
}

#[tokio::test]
async fn what_is_to_be_dropped_is_known_after_a_restart() {
    let postgres = server().await;
    let mut bench = Bench::start(&postgres, SETUP, 10_000).await;
    bench.sql("INSERT INTO t VALUES (7, 'seen')").await;
    // The rows are delivered while the stream has not come to that insert yet.
    while !bench.done() {
        bench.snapshotter.ready().await.unwrap();
        bench.stream_passed();
    }
    bench.restart(&config(10_000)).await;
    assert!(bench.done(), "it is not read again");
    bench.run().await;
    assert_eq!(bench.dropped, 1);
    check(&bench).await;
    let state: serde_json::Value = serde_json::from_slice(&bench.consumer.state["snapshot/public.t"]).unwrap();
    assert_eq!((&state["status"], state.get("drop")), (&"done".into(), None));
    bench.sql("INSERT INTO t VALUES (8, 'later')").await;
    bench.run().await;
    check(&bench).await;
}

/// Consumers have rows of it: what is deleted now, they must hear of.
#[tokio::test]
async fn a_table_that_is_read_anew_after_an_interruption_drops_nothing() {
    let postgres = server().await;
    let mut bench = Bench::start(&postgres, SETUP, 100).await;
    while bench.consumer.events.is_empty() {
        bench.snapshotter.ready().await.unwrap();
        bench.stream_passed();
    }
    bench.sql("DELETE FROM t WHERE a = 5").await;
    bench.restart(&config(100)).await;
    bench.run().await;
    assert_eq!(bench.dropped, 0);
    bench.restart(&config(100)).await;
    assert!(bench.done());
}

#[tokio::test]
async fn a_table_that_loses_its_key_while_it_is_read_drops_nothing() {
    let postgres = server().await;
    let setup = "CREATE TABLE t (a int PRIMARY KEY, b text); ALTER TABLE t REPLICA IDENTITY FULL; \
        INSERT INTO t SELECT i, 'x' FROM generate_series(1, 400) i";
    let mut bench = Bench::start_with(&postgres, setup, &merge::paced(100)).await;
    while bench.consumer.events.is_empty() {
        bench.step().await;
    }
    bench.sql("ALTER TABLE t DROP CONSTRAINT t_pkey; DELETE FROM t WHERE a = 5").await;
    bench.run().await;
    assert_eq!(bench.dropped, 0);
}

#[tokio::test]
async fn a_table_that_is_asked_for_while_it_is_read_is_read_again() {
    let postgres = server().await;
    let mut bench = Bench::start(&postgres, SETUP, 100).await;
    while bench.consumer.events.is_empty() {
        bench.step().await;
    }
    bench.snapshotter.request(towpath_contract::SnapshotRequest { tables: vec!["public.t".into()] }).unwrap();
    bench.run().await;
    assert_eq!(bench.consumer.events.len(), 2 * 2000);
}

#[tokio::test]
async fn a_requested_reread_drops_nothing() {
    let postgres = server().await;
    let mut bench = Bench::start(&postgres, SETUP, 10_000).await;
    bench.run().await;
    let before = bench.consumer.events.len();
    bench.sql("INSERT INTO t VALUES (7, 'seen')").await;
    bench.snapshotter.request(towpath_contract::SnapshotRequest { tables: vec!["public.t".into()] }).unwrap();
    bench.run().await;
    assert_eq!(bench.dropped, 0);
    assert_eq!(bench.consumer.events.len() - before, 2001 + 1);
}
