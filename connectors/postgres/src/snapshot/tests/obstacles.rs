//! What stands in a snapshot's way: rights, alterations, commits that are not visible yet.

use std::time::Duration;

use towpath_contract::{Action, ErrorKind};
use towpath_test_support::eventually;

use super::*;

#[tokio::test]
async fn a_commit_that_is_streamed_before_it_is_visible_is_waited_for() {
    // Sessions do not wait for the standby that never comes, unless they say so.
    let settings = "synchronous_standby_names = 'nobody'\nsynchronous_commit = local";
    let postgres = Postgres::builder().settings(settings).start().await;
    let setup = "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t VALUES (1, 'old')";
    let never = SnapshotConfig { mode: SnapshotMode::Never, ..config(100) };
    let mut bench = Bench::start_with(&postgres, setup, &never).await;
    // Committed in the log, and so in the stream; its session waits for a standby, and nobody sees the row.
    let writer = session(&bench.url).await;
    writer.batch_execute("SET synchronous_commit = on").await.unwrap();
    let writer_pid = crate::sql::row(&writer, "test", "SELECT pg_backend_pid()").await.unwrap();
    let writer_pid = crate::sql::text(&writer_pid, 0).to_owned();
    let update = tokio::spawn(async move { writer.batch_execute("UPDATE t SET v = 'new'").await });
    let waits = format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {writer_pid} AND wait_event = 'SyncRep'");
    eventually("the commit to wait for its standby", Duration::from_secs(20), async || {
        match bench.rows(&waits).await[0][0].as_str() {
            "1" => Ok(()),
            other => Err(other.to_owned()),
        }
    })
    .await;
    assert_eq!(bench.rows("SELECT v FROM t").await, [["old"]]);

    // Delivered before the snapshot is asked for, as in an earlier run.
    while bench.consumer.events.is_empty() {
        bench.step().await;
    }
    bench.snapshotter.request(towpath_contract::SnapshotRequest { tables: vec![] }).unwrap();
    let waited = tokio::time::timeout(Duration::from_secs(5), async {
        while bench.snapshotter.pending_high().is_none() {
            bench.snapshotter.ready().await.unwrap();
            bench.snapshotter.stream_passed(bench.passed, &mut bench.batch, &bench.last).unwrap();
        }
    });
    assert!(waited.await.is_err(), "the old row must not be read after its change was delivered");
    bench.consumer.take(&mut bench.batch);

    bench.sql(&format!("SELECT pg_cancel_backend({writer_pid})")).await;
    update.await.unwrap().unwrap();
    bench.run().await;
    let heard: Vec<_> = bench.consumer.events.iter().map(|event| (event.op, event.row[1].clone().unwrap())).collect();
    assert_eq!(heard, [(Op::Update, "new".to_owned()), (Op::Read, "new".to_owned())]);
}

#[tokio::test]
async fn an_idle_transaction_does_not_stand_in_the_way() {
    let postgres = server().await;
    let setup = "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t VALUES (1, 'old')";
    let never = SnapshotConfig { mode: SnapshotMode::Never, ..config(100) };
    let mut bench = Bench::start_with(&postgres, setup, &never).await;
    let idle = session(&bench.url).await;
    idle.batch_execute("BEGIN; UPDATE t SET v = 'new'").await.unwrap();
    let prepared = session(&bench.url).await;
    prepared.batch_execute("BEGIN; INSERT INTO t VALUES (2, 'two'); PREPARE TRANSACTION 'p'").await.unwrap();
    bench.snapshotter.request(towpath_contract::SnapshotRequest { tables: vec![] }).unwrap();
    bench.run().await;
    assert_eq!(bench.consumer.tables["t"].len(), 1);
    idle.batch_execute("COMMIT").await.unwrap();
    prepared.batch_execute("COMMIT PREPARED 'p'").await.unwrap();
    bench.run().await;
    let rows: Vec<_> = bench.consumer.tables["t"].values().map(|row| row[1].clone().unwrap()).collect();
    assert_eq!(rows, ["new", "two"]);
}

#[tokio::test]
async fn alterations_between_chunks_are_taken_as_they_come() {
    let postgres = server().await;
    let setup = "CREATE TABLE t (id int PRIMARY KEY, v int); INSERT INTO t SELECT i, i FROM generate_series(1, 100) i; \
                 CREATE TABLE gone (id int PRIMARY KEY); INSERT INTO gone SELECT generate_series(1, 100)";
    let mut bench = Bench::start(&postgres, setup, 20).await;
    while !bench.consumer.tables.contains_key("gone") {
        bench.step().await;
    }
    bench.sql("DROP TABLE gone").await;
    while !bench.consumer.tables.contains_key("t") {
        bench.step().await;
    }
    assert!(!bench.consumer.state.contains_key("snapshot/public.gone"), "its entry ends with it");
    bench.sql("ALTER TABLE t ADD w text DEFAULT 'w'; UPDATE t SET v = -v WHERE id = 100").await;
    while bench.consumer.events.last().is_none_or(|event| event.row.len() != 3) {
        bench.step().await;
    }
    // Another key: what was read so far is no beginning of it.
    bench.sql("ALTER TABLE t DROP CONSTRAINT t_pkey, ADD PRIMARY KEY (v)").await;
    bench.run().await;
    let rows: Vec<_> =
        bench.consumer.events.iter().filter(|e| e.table == "t" && e.op == Op::Read && e.row.len() == 3).collect();
    let last_hundred = &rows[rows.len() - 100..];
    assert_eq!(last_hundred[0].row[1].as_deref(), Some("-100"), "from the new key's beginning");
}

#[tokio::test]
async fn a_missing_right_is_told_with_what_gives_it() {
    let postgres = server().await;
    postgres.sql("CREATE ROLE reader LOGIN; CREATE TABLE secret (id int PRIMARY KEY); CREATE TABLE hidden (id int PRIMARY KEY); \
                  ALTER TABLE hidden ENABLE ROW LEVEL SECURITY; GRANT SELECT ON hidden TO reader; CREATE PUBLICATION p FOR ALL TABLES").await;
    let client = session(&postgres.url("postgres")).await;
    for (table, help) in [("public.secret", "GRANT SELECT ON \"public\".\"secret\""), ("public.hidden", "BYPASSRLS")] {
        let captured = catalog::captured(&client, &[table.into()], Some("p")).await.unwrap();
        let connect = connector(postgres.url_as("reader", "postgres"));
        let mut snapshotter =
            Snapshotter::start(connect, &config(10), Some("p".into()), captured.tables, &history(&BTreeMap::new()))
                .unwrap();
        snapshotter.take_entries();
        // It does not return: nothing else is to be read.
        while snapshotter.refused().next().is_none() {
            let _ = tokio::time::timeout(Duration::from_millis(100), snapshotter.ready()).await;
        }
        let refused: Vec<&str> = snapshotter.refused().collect();
        assert!(refused[0].contains(table) && refused[0].contains(help), "{refused:?}");
        assert!(snapshotter.progress().is_empty());
    }
}

#[tokio::test]
async fn a_locked_table_is_waited_for_and_a_lost_connection_is_an_error_to_retry() {
    let postgres = server().await;
    let setup = "CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)";
    let mut bench = Bench::start(&postgres, setup, 10).await;
    let altering = session(&bench.url).await;
    altering.batch_execute("BEGIN; LOCK TABLE t IN ACCESS EXCLUSIVE MODE").await.unwrap();
    let waits = "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock'";
    eventually("the snapshot to wait for the lock", Duration::from_secs(20), async || {
        bench.step().await;
        if bench.rows(waits).await.is_empty() && !bench.done() { Err("not yet".to_owned()) } else { Ok(()) }
    })
    .await;
    if !bench.done() {
        bench.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event_type = 'Lock'").await;
        let error = bench.snapshotter.ready().await.unwrap_err();
        assert_eq!(error.action, Action::Retry, "{error}");
        bench.restart(&config(10)).await;
    }
    altering.batch_execute("COMMIT").await.unwrap();
    bench.run().await;
    assert_eq!(bench.consumer.tables["t"].len(), 1);
}

#[tokio::test]
async fn a_table_that_is_not_captured_cannot_be_asked_for() {
    let postgres = server().await;
    let mut bench = Bench::start(&postgres, "CREATE TABLE t (id int PRIMARY KEY)", 10).await;
    let request = towpath_contract::SnapshotRequest { tables: vec!["public.nosuch".into()] };
    let error = bench.snapshotter.request(request).unwrap_err();
    assert!(error.to_string().contains("public.nosuch"), "{error}");
    bench.run().await;
}

#[tokio::test]
async fn a_standby_is_refused_with_the_reason() {
    let mut postgres = server().await;
    if postgres.major() < 12 {
        // No signal file makes a standby of it.
        return;
    }
    postgres.sql("CREATE TABLE t (id int PRIMARY KEY); COPY (SELECT) TO PROGRAM 'touch standby.signal'").await;
    postgres.stop().await;
    postgres.start_again().await;
    let client = session(&postgres.url("postgres")).await;
    let captured = catalog::captured(&client, &["public.t".into()], None).await.unwrap();
    let connect = connector(postgres.url("postgres"));
    let mut snapshotter =
        Snapshotter::start(connect, &config(10), None, captured.tables, &history(&BTreeMap::new())).unwrap();
    snapshotter.take_entries();
    let error = snapshotter.ready().await.unwrap_err();
    assert_eq!((error.kind, error.action), (ErrorKind::Setup, Action::Operator), "{error}");
    assert!(error.to_string().contains("standby"), "{error}");
}
