//! Rows and changes in one order, per key.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::Semaphore;

use super::*;
use crate::snapshot::session::Session;

/// `version` comes from one sequence, taken while the row is locked: per key it grows from commit to commit.
const SETUP: &str = "CREATE SEQUENCE versions CACHE 1; \
    CREATE TABLE t (id int PRIMARY KEY, version bigint NOT NULL, body text); \
    ALTER TABLE t ALTER body SET STORAGE EXTERNAL; \
    INSERT INTO t SELECT i, nextval('versions'), repeat(i::text, 3000) FROM generate_series(1, 3000) i; \
    CREATE TABLE big (id int PRIMARY KEY, body text); ";

/// A small generator: the same numbers from the same seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % below
    }
}

/// Random transactions, one per permit: the stream that the tests drive is slow, and must not fall behind for ever.
async fn write(url: String, seed: u64, permits: Arc<Semaphore>) {
    let client = session(&url).await;
    let mut dice = Dice(seed);
    while let Ok(permit) = permits.acquire().await {
        permit.forget();
        let mut sql = String::from("BEGIN;");
        for _ in 0..=dice.roll(4) {
            let (id, other) = (dice.roll(4000), dice.roll(4000));
            sql += &match dice.roll(10) {
                0..=3 => format!("UPDATE t SET version = nextval('versions') WHERE id = {id};"),
                4 => format!("UPDATE t SET version = nextval('versions'), body = repeat('x', 2500) WHERE id = {id};"),
                5 => format!("DELETE FROM t WHERE id = {id};"),
                6 => format!(
                    "UPDATE t SET id = {other}, version = nextval('versions') WHERE id = {id} \
                     AND NOT EXISTS (SELECT FROM t WHERE id = {other});"
                ),
                7 => format!("SAVEPOINT s; UPDATE t SET version = nextval('versions') WHERE id = {id}; ROLLBACK TO s;"),
                _ => format!(
                    "INSERT INTO t VALUES ({id}, nextval('versions'), repeat('n', 2500)) \
                     ON CONFLICT (id) DO UPDATE SET version = nextval('versions');"
                ),
            };
        }
        sql += if dice.roll(8) == 0 { "ROLLBACK" } else { "COMMIT" };
        // A deadlock or a lost race for a key is as good as a rollback.
        if client.batch_execute(&sql).await.is_err() {
            client.batch_execute("ROLLBACK").await.unwrap();
        }
    }
}

/// Per key, what a consumer hears never goes back.
fn check_order(consumer: &Consumer) {
    let mut heard: BTreeMap<String, i64> = BTreeMap::new();
    for event in consumer.events.iter().filter(|event| event.table == "t") {
        let key = event.row[0].clone().unwrap();
        if event.op == Op::Delete {
            continue;
        }
        let version: i64 = event.row[1].clone().unwrap().parse().unwrap();
        let before = heard.insert(key.clone(), version).unwrap_or(0);
        assert!(before <= version, "key {key}: version {version} ({:?}) after {before}", event.op);
    }
}

fn check_same(consumer: &Consumer, table: &str, expected: &[Vec<String>]) {
    let empty = BTreeMap::new();
    let rows = consumer.tables.get(table).unwrap_or(&empty);
    let found: Vec<Vec<String>> = rows
        .values()
        .map(|row| row.iter().map(|value| value.clone().expect("no value is missing in the end")).collect())
        .collect();
    assert_eq!(found.len(), expected.len(), "rows of {table}");
    let sorted = |mut rows: Vec<Vec<String>>| {
        rows.sort();
        rows
    };
    assert!(sorted(found) == sorted(expected.to_vec()), "the rows of {table} differ");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_and_changes_of_busy_tables_come_in_order_and_complete() {
    let postgres = server().await;
    // What the tasks make of it differs from run to run; the statements do not.
    let seed = std::env::var("TOWPATH_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| u64::from(std::process::id()));
    println!("TOWPATH_TEST_SEED={seed}");
    let mut bench = Bench::start(&postgres, SETUP, 150).await;
    let permits = Arc::new(Semaphore::new(100));
    let writers: Vec<_> = (0..3).map(|n| tokio::spawn(write(bench.url.clone(), seed + n, permits.clone()))).collect();
    let mut dice = Dice(seed);
    // Several snapshots, with crashes in between; the last one while nobody writes any more would prove nothing.
    for round in 0..4 {
        while !bench.done() {
            match dice.roll(2) {
                0 => bench.step().await,
                _ => bench.step_without_fetching().await,
            }
            permits.add_permits(10);
            if dice.roll(20) == 0 {
                bench.restart(&config(150)).await;
            }
        }
        if round < 3 {
            bench.snapshotter.request(towpath_contract::SnapshotRequest { tables: vec![] }).unwrap();
        }
    }
    permits.close();
    for writer in writers {
        writer.await.unwrap();
    }
    bench.run().await;
    println!("{} events, held {} times", bench.consumer.events.len(), bench.held);
    check_order(&bench.consumer);
    let reads = bench.consumer.events.iter().filter(|event| event.op == Op::Read).count();
    assert!(reads >= 4 * 1000, "{reads} rows were read");
    check_same(&bench.consumer, "t", &bench.rows("SELECT * FROM t").await);
}

#[tokio::test]
async fn a_row_is_emitted_right_before_the_first_change_that_its_chunk_does_not_see() {
    let postgres = server().await;
    let setup = "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t VALUES (1, 'a'), (2, 'a'), (3, 'a')";
    let mut bench = Bench::start(&postgres, setup, 100).await;
    // Seen by the chunk, and streamed after it was read.
    bench.sql("UPDATE t SET v = 'b' WHERE id = 1").await;
    // More of the log, so that the stream passes the chunk's end only after what comes then.
    bench.sql("SELECT pg_logical_emit_message(false, 'test', repeat('x', 1000))").await;
    while bench.snapshotter.pending_high().is_none() {
        bench.snapshotter.ready().await.unwrap();
    }
    // Not seen.
    bench.sql("UPDATE t SET v = 'c' WHERE id = 1; DELETE FROM t WHERE id = 3; INSERT INTO t VALUES (4, 'd')").await;
    bench.run().await;
    let heard: Vec<String> = bench
        .consumer
        .events
        .iter()
        .map(|event| {
            format!(
                "{} {} {}",
                event.op.name(),
                event.row[0].clone().unwrap(),
                event.row[1].clone().unwrap_or_default()
            )
        })
        .collect();
    assert_eq!(heard[0], "update 1 b");
    let at =
        |text: &str| heard.iter().position(|event| event == text).unwrap_or_else(|| panic!("no {text} in {heard:?}"));
    assert_eq!(at("read 1 b") + 1, at("update 1 c"), "{heard:?}");
    assert!(at("read 3 a") < at("delete 3 NULL"), "{heard:?}");
    assert!(at("read 2 a") > 0 && at("insert 4 d") > 0);
    assert_eq!(heard.len(), 7, "{heard:?}");
    let reads: Vec<_> = bench.consumer.events.iter().filter(|event| event.op == Op::Read).collect();
    assert!(reads.iter().all(|event| event.position.len() == 33 && event.transaction.is_empty()));
    let changes = bench.consumer.events.iter().filter(|event| event.op != Op::Read);
    assert!(changes.into_iter().all(|event| !event.transaction.is_empty()), "the stream's transaction goes on");
}

#[tokio::test]
async fn a_row_that_moves_behind_the_reader_keeps_its_toast_value() {
    let postgres = server().await;
    let setup = "CREATE TABLE t (id int PRIMARY KEY, v int, body text); ALTER TABLE t ALTER body SET STORAGE EXTERNAL; \
                 INSERT INTO t SELECT i, 0, repeat(i::text, 3000) FROM generate_series(10, 30) i";
    let mut bench = Bench::start(&postgres, setup, 5).await;
    while bench.consumer.tables.is_empty() {
        bench.step().await;
    }
    // From what was not read yet to what was: the stream's insert has no body.
    bench.sql("UPDATE t SET id = 1 WHERE id = 30; UPDATE t SET id = 2 WHERE id = 29").await;
    bench.run().await;
    let body = |id: &str| bench.consumer.tables["t"][&vec![id.to_owned()]][2].clone();
    assert_eq!(body("1"), Some("30".repeat(3000)));
    assert_eq!(body("2"), Some("29".repeat(3000)));
    check_same(&bench.consumer, "t", &bench.rows("SELECT * FROM t").await);
}

/// Waits long enough between chunks for a test to change something there.
pub(super) fn paced(chunk_rows: u32) -> SnapshotConfig {
    SnapshotConfig { rows_per_second_max: Some(chunk_rows), ..config(chunk_rows) }
}

const LARGE_VALUES: &str = "CREATE TABLE t (id int PRIMARY KEY, mail text NOT NULL UNIQUE, body text); \
    ALTER TABLE t ALTER body SET STORAGE EXTERNAL; \
    INSERT INTO t SELECT i, 'm' || i, repeat(i::text, 3000) FROM generate_series(10, 14) i UNION ALL SELECT 99, 'm99', repeat('99', 3000)";

/// The last chunk finds no row, and the change that took it away comes only then.
#[tokio::test]
async fn the_last_row_that_moves_behind_the_reader_keeps_its_toast_value() {
    let postgres = server().await;
    let mut bench = Bench::start_with(&postgres, LARGE_VALUES, &paced(5)).await;
    while bench.consumer.tables.is_empty() {
        bench.step().await;
    }
    bench.sql("UPDATE t SET id = 1 WHERE id = 99").await;
    // The chunk is read, and the stream has not come to the update.
    while bench.snapshotter.pending_high().is_none() && !bench.done() {
        bench.snapshotter.ready().await.unwrap();
        bench.stream_passed();
    }
    bench.run().await;
    assert_eq!(bench.consumer.tables["t"][&vec!["1".to_owned()]][2], Some("99".repeat(3000)));
}

/// A table is read in the order of the key by which its changes are told: a row that moves in another order does not say so.
#[tokio::test]
async fn a_row_whose_primary_key_is_not_its_identity_may_move_in_that() {
    let postgres = server().await;
    let setup = format!("{LARGE_VALUES}; ALTER TABLE t REPLICA IDENTITY USING INDEX t_mail_key");
    let mut bench = Bench::start_with(&postgres, &setup, &paced(5)).await;
    while bench.consumer.tables.is_empty() {
        bench.step().await;
    }
    bench.sql("UPDATE t SET id = 1 WHERE id = 99").await;
    bench.run().await;
    check_same(&bench.consumer, "t", &bench.rows("SELECT * FROM t").await);
}

#[tokio::test]
async fn a_first_chunk_of_huge_rows_asks_for_few() {
    let postgres = server().await;
    let setup = "CREATE TABLE t (id int PRIMARY KEY, body text); ALTER TABLE t ALTER body SET STORAGE EXTERNAL; \
                 INSERT INTO t SELECT i, repeat('x', 300000) FROM generate_series(1, 30) i; ANALYZE t";
    let bench = Bench::start(&postgres, setup, 1_000).await;
    let mut session = Session::open(session(&bench.url).await).await.unwrap();
    let captured = catalog::captured(&bench.client, &["public.t".into()], Some(SLOT)).await.unwrap();
    let shape = session.shape(&captured.tables[0], Some(SLOT)).await.unwrap().unwrap();
    let bytes = session.guess_row_bytes(&shape).await.unwrap();
    assert!((250_000..500_000).contains(&bytes), "{bytes}");
}

#[tokio::test]
async fn a_truncate_comes_after_the_rows_that_it_removes() {
    let postgres = server().await;
    if postgres.major() < 11 {
        // It does not publish TRUNCATE.
        return;
    }
    let setup =
        "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t SELECT i, 'a' FROM generate_series(1, 20) i";
    let mut bench = Bench::start(&postgres, setup, 100).await;
    while bench.snapshotter.pending_high().is_none() {
        bench.snapshotter.ready().await.unwrap();
    }
    bench.sql("TRUNCATE t; INSERT INTO t VALUES (5, 'new')").await;
    bench.run().await;
    let truncate = bench.consumer.events.iter().position(|event| event.op == Op::Truncate).unwrap();
    let last_read = bench.consumer.events.iter().rposition(|event| event.op == Op::Read).unwrap();
    assert!(last_read < truncate);
    check_same(&bench.consumer, "t", &bench.rows("SELECT * FROM t").await);
}

#[tokio::test]
async fn huge_rows_end_a_chunk_early_and_large_limits_shrink() {
    let postgres = server().await;
    let setup = "CREATE TABLE t (id int PRIMARY KEY, body text); \
                 INSERT INTO t SELECT i, repeat('x', 300000) FROM generate_series(1, 100) i";
    let mut bench = Bench::start(&postgres, setup, 1_000_000).await;
    let mut chunks = 0;
    while !bench.done() {
        let before = bench.consumer.events.len();
        bench.step().await;
        let read = bench.consumer.events.len() - before;
        chunks += usize::from(read > 0);
        assert!(read <= 15, "{read} rows of 300 kB in one chunk");
    }
    assert!(chunks >= 7, "{chunks} chunks");
    assert_eq!(bench.consumer.tables["t"].len(), 100);
}

#[tokio::test]
async fn the_pace_is_kept_and_progress_is_told() {
    let postgres = server().await;
    let setup = "CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t SELECT generate_series(1, 3000); ANALYZE t";
    let config = SnapshotConfig { mode: SnapshotMode::Initial, chunk_rows: 100_000, rows_per_second_max: Some(2000) };
    let mut bench = Bench::start_with(&postgres, setup, &config).await;
    let began = std::time::Instant::now();
    let mut seen = Vec::new();
    while !bench.done() {
        seen.extend(bench.snapshotter.progress());
        bench.step().await;
    }
    assert!(began.elapsed().as_secs_f64() >= 0.5, "the second chunk waits for the first one's second");
    assert!(seen.iter().any(|progress| progress.table == "public.t"
        && progress.rows_done == 1000
        && progress.rows_total == Some(3000)));
}
