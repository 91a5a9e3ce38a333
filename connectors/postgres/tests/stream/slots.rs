//! Slots and publications: what is made, what is a gap, and the ways out.

use serde_json::json;
use towpath_contract::{Action, Error, ErrorKind, Known, Resume, Severity, Source};
use towpath_test_support::{Postgres, eventually};

use crate::harness::{Db, Tap, major, server};

async fn refused(source: &impl Source, resume: Resume) -> Error {
    match source.open(resume).await {
        Ok(_) => panic!("opened in spite of it"),
        Err(error) => error,
    }
}

pub(crate) async fn failure(tap: &mut Tap) -> Error {
    loop {
        if let Err(error) = tap.try_next().await {
            return error;
        }
    }
}

/// As after a crash, when it is refused.
pub(crate) async fn refused_again(tap: Tap) -> Error {
    let Tap { source, capture, resume, .. } = tap;
    drop(capture);
    match Tap::try_open(source, resume).await {
        Ok(_) => panic!("opened in spite of it"),
        Err(error) => error,
    }
}

/// A slot with a recorded position, and a change after it.
async fn recorded(db: &Db) -> Resume {
    let mut tap = db.tap(json!({})).await;
    db.sql("INSERT INTO t VALUES (1)").await;
    tap.drain(db).await;
    let resume = tap.close().await;
    db.sql("INSERT INTO t VALUES (2)").await;
    resume
}

pub(crate) fn assert_gap(error: &Error, db: &Db) {
    assert_eq!((error.kind, error.action), (ErrorKind::Gap, Action::Operator), "{error}");
    assert!(error.to_string().contains(&format!("towpath snapshot {} --after-gap", db.name)), "{error}");
}

pub(crate) const T: &str = "CREATE TABLE t (id int PRIMARY KEY)";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slot_that_was_dropped_is_a_gap_and_can_be_made_anew() {
    let db = Db::new(T).await;
    let mut resume = recorded(&db).await;
    db.sql(&format!("SELECT pg_drop_replication_slot('towpath_{}')", db.name)).await;
    let error = refused(&db.source(json!({})), resume.clone()).await;
    assert_gap(&error, &db);
    assert!(error.message.contains("does not exist any more: the changes from"), "{error}");
    // `doctor` says so before anything is started.
    let known = Known { resume: Some(resume.clone()), outbox_bytes_max: 1 << 30, ..Known::default() };
    let found = db.source(json!({})).doctor(known).await;
    let gap = found.iter().find(|finding| finding.code == "gap").expect("told");
    assert!(gap.severity == Severity::Error && gap.fix.as_ref().unwrap().contains("--after-gap"), "{gap:?}");

    resume.state.insert("after_gap".to_owned(), Vec::new());
    let mut tap = Tap::open(db.source(json!({})), resume).await;
    db.sql("INSERT INTO t VALUES (3)").await;
    assert_eq!(tap.drain(&db).await, ["insert t [3]"]);
    assert!(!tap.resume.state.contains_key("after_gap"));
    let mut tap = tap.reopen().await;
    db.sql("INSERT INTO t VALUES (4)").await;
    assert_eq!(tap.drain(&db).await, ["insert t [4]"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slot_that_was_moved_ahead_is_a_gap() {
    if major().await < 11 {
        return;
    }
    let db = Db::new(T).await;
    let resume = recorded(&db).await;
    db.sql(&format!("SELECT pg_replication_slot_advance('towpath_{}', pg_current_wal_lsn())", db.name)).await;
    let error = refused(&db.source(json!({})), resume).await;
    assert_gap(&error, &db);
    assert!(error.message.contains("moved it ahead"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slot_whose_outbox_was_lost_is_a_gap() {
    let db = Db::new(T).await;
    recorded(&db).await;
    let error = refused(&db.source(json!({})), Resume::default()).await;
    assert_gap(&error, &db);
    // A publication that has to be made makes no new slot of an old one.
    db.sql(&format!("DROP PUBLICATION towpath_{}", db.name)).await;
    assert_gap(&refused(&db.source(json!({})), Resume::default()).await, &db);
}

/// The server leaves out, without a word, what is written while a table is not published.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_that_is_taken_out_of_the_publication_is_a_gap_when_it_happens() {
    let db = Db::new(T).await;
    let mut tap = db.tap(json!({})).await;
    db.sql("INSERT INTO t VALUES (1)").await;
    assert_eq!(tap.drain(&db).await, ["insert t [1]"]);
    db.sql(&format!("ALTER PUBLICATION towpath_{} DROP TABLE t; INSERT INTO t VALUES (2)", db.name)).await;
    let error = failure(&mut tap).await;
    assert_gap(&error, &db);
    assert!(error.message.contains("it did not publish public.t, if only for a while"), "{error}");
    // It stays one after a restart, which puts the table back.
    let mut resume = tap.resume.clone();
    assert_gap(&refused_again(tap).await, &db);
    resume.state.insert("after_gap".to_owned(), Vec::new());
    let mut tap = Tap::open(db.source(json!({})), resume).await;
    db.sql("INSERT INTO t VALUES (3)").await;
    assert_eq!(tap.drain(&db).await, ["insert t [3]"]);
}

/// No publication covers it, and the server's log does not have what is written to it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_that_becomes_unlogged_is_a_gap() {
    let db = Db::new(&format!("{T}; CREATE PUBLICATION every FOR ALL TABLES")).await;
    let mut tap = db.tap(json!({ "publication": "every" })).await;
    db.sql("INSERT INTO t VALUES (1)").await;
    assert_eq!(tap.drain(&db).await, ["insert t [1]"]);
    db.sql("ALTER TABLE t SET UNLOGGED; INSERT INTO t VALUES (2)").await;
    let error = failure(&mut tap).await;
    assert_gap(&error, &db);
    assert!(error.message.contains("public.t (it is unlogged)"), "{error}");
}

/// What a transaction wrote before the table was published is not streamed, though it commits after.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_that_is_added_is_read_when_its_writers_have_ended() {
    // Also by who had begun without snapshots, asks for one, or whose first run was cut before anything was recorded.
    tokio::join!(
        added_while_written("initial", "initial", false),
        added_while_written("never", "initial", false),
        added_while_written("never", "never", false),
        added_while_written("initial", "initial", true),
    );
}

async fn added_while_written(before: &str, after: &str, cut: bool) {
    let db = Db::new(&format!("{T}; CREATE TABLE late (id int PRIMARY KEY); INSERT INTO late VALUES (1)")).await;
    let config = |mode: &str, tables: &[&str]| json!({ "tables": tables, "snapshot": { "mode": mode } });
    let mut tap = db.tap(config(before, &["public.t"])).await;
    while !cut && !tap.capture.progress().snapshot.is_empty() {
        tap.try_next().await.unwrap();
    }
    let resume = tap.close().await;
    let resume = if cut { Resume::default() } else { resume };
    let writer = server().await.client(&db.name).await;
    writer.batch_execute("BEGIN; INSERT INTO late VALUES (2)").await.unwrap();
    let mut tap = Tap::open(db.source(config(after, &["public.t", "public.late"])), resume).await;
    if after == "never" {
        tap.snapshot("public.late");
    }
    // For longer than a session that only may be committing is waited for. Other tables go on.
    for second in 0..4 {
        db.sql(&format!("INSERT INTO t VALUES ({second}); SELECT pg_sleep(1)")).await;
        tap = tap.until(&format!("insert t [{second}]")).await;
    }
    assert!(!tap.texts().iter().any(|seen| seen.contains("late")), "{:?}", tap.texts());
    writer.batch_execute("INSERT INTO late VALUES (3); COMMIT").await.unwrap();
    tap = tap.until("read late [2]").await;
    assert!(tap.texts().contains(&"read late [1]".to_owned()), "{:?}", tap.texts());
    // A server that takes the table for unpublished, because of what that transaction wrote first, would leave this out.
    db.sql("INSERT INTO late VALUES (4)").await;
    tap.until("insert late [4]").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_that_waits_for_its_writers_holds_up_no_other() {
    let db = Db::new(&format!("{T}; CREATE TABLE late (id int PRIMARY KEY); INSERT INTO t VALUES (1)")).await;
    let config = |tables: &[&str]| json!({ "tables": tables, "snapshot": { "mode": "never" } });
    let resume = db.tap(config(&["public.t"])).await.close().await;
    let writer = server().await.client(&db.name).await;
    writer.batch_execute("BEGIN; INSERT INTO late VALUES (1)").await.unwrap();
    let mut tap = Tap::open(db.source(config(&["public.t", "public.late"])), resume).await;
    tap.snapshot("public.late");
    tap.snapshot("public.t");
    tap = tap.until("read t [1]").await;
    assert_eq!(tap.texts(), ["read t [1]"]);
    writer.batch_execute("COMMIT").await.unwrap();
    tap.until("read late [1]").await;
}

/// The publication goes on with the old table, whatever it is called.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_whose_name_another_takes_is_a_gap() {
    let db = Db::new(&format!("{T}; CREATE TABLE t_new (id int PRIMARY KEY)")).await;
    let mut tap = db.tap(json!({ "tables": ["public.t"] })).await;
    db.sql("INSERT INTO t VALUES (1)").await;
    tap = tap.until("insert t [1]").await;
    db.sql("BEGIN; ALTER TABLE t RENAME TO t_old; ALTER TABLE t_new RENAME TO t; COMMIT; INSERT INTO t VALUES (2)")
        .await;
    let error = failure(&mut tap).await;
    assert_gap(&error, &db);
    assert!(error.message.contains("public.t (another table has its name now)"), "{error}");
    assert_gap(&refused_again(tap).await, &db);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unlogged_partition_is_refused_and_a_gap_when_it_comes() {
    if major().await < 13 {
        return;
    }
    let setup = "CREATE TABLE m (id int PRIMARY KEY) PARTITION BY RANGE (id); \
        CREATE TABLE m1 PARTITION OF m FOR VALUES FROM (0) TO (10)";
    let db = Db::new(setup).await;
    let config = || json!({ "tables": ["public.m", "public.fence"] });
    let mut tap = db.tap(config()).await;
    db.sql("INSERT INTO m VALUES (1)").await;
    assert_eq!(tap.drain(&db).await, ["insert m [1]"]);
    db.sql("CREATE UNLOGGED TABLE m2 PARTITION OF m FOR VALUES FROM (10) TO (20); INSERT INTO m VALUES (11)").await;
    let error = failure(&mut tap).await;
    assert_gap(&error, &db);
    assert!(error.message.contains("public.m2 (it is unlogged)"), "{error}");
    let mut resume = tap.resume.clone();
    resume.state.insert("after_gap".to_owned(), Vec::new());
    drop(tap);
    let error = refused(&db.source(config()), resume.clone()).await;
    assert!(error.kind == ErrorKind::Setup && error.message.starts_with("public.m2: an unlogged partition"), "{error}");
    let found = db.source(config()).doctor(Known::default()).await;
    let fix = found.iter().find(|finding| finding.code == "unlogged_partition").and_then(|found| found.fix.clone());
    db.sql(&fix.expect("a statement that mends it")).await;
    let tap = Tap::open(db.source(config()), resume).await;
    tap.until("read m [11]").await;
}

/// Its changes were delivered: then those while Towpath is down are not part of a first read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_without_a_key_that_was_followed_is_not_read_as_if_it_were_new() {
    let db =
        Db::new("CREATE TABLE k (v int); ALTER TABLE k REPLICA IDENTITY FULL; INSERT INTO k VALUES (1), (2)").await;
    let config = |mode: &str| json!({ "tables": ["public.k", "public.fence"], "snapshot": { "mode": mode } });
    let mut tap = db.tap(config("never")).await;
    db.sql("INSERT INTO k VALUES (3)").await;
    assert_eq!(tap.drain(&db).await, ["insert k [3]"]);
    let resume = tap.close().await;
    db.sql("DELETE FROM k WHERE v = 3").await;
    let tap = Tap::open(db.source(config("initial")), resume).await;
    tap.until("delete k [3]").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_that_was_out_of_the_publication_for_a_moment_is_a_gap() {
    let db = Db::new(T).await;
    let resume = recorded(&db).await;
    let publication = format!("ALTER PUBLICATION towpath_{}", db.name);
    db.sql(&format!("{publication} DROP TABLE t; INSERT INTO t VALUES (3); {publication} ADD TABLE t")).await;
    let error = refused(&db.source(json!({})), resume.clone()).await;
    assert_gap(&error, &db);
    // Who no longer asks for the table does not miss it.
    let mut tap = Tap::open(db.source(json!({ "tables": ["public.fence"] })), resume).await;
    assert_eq!(tap.drain(&db).await, [""; 0]);
}

/// Also by a single statement: the table has another entry, and nobody can say what the log was read by in between.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_filter_that_is_changed_is_a_gap_and_doctor_gives_no_statement_for_it() {
    if major().await < 15 {
        return;
    }
    let db = Db::new(T).await;
    let publication = format!("PUBLICATION towpath_{}", db.name);
    db.sql(&format!("CREATE {publication} FOR TABLE t WHERE (id > 0), fence")).await;
    let resume = recorded(&db).await;
    let found = db
        .source(json!({}))
        .doctor(Known { resume: Some(resume.clone()), outbox_bytes_max: 1 << 30, ..Known::default() })
        .await;
    let filter = found.iter().find(|finding| finding.code == "publication_filter").expect("told");
    let way_out = format!("is a gap: the source stops until `towpath snapshot {} --after-gap`", db.name);
    assert!(filter.fix.is_none() && filter.message.contains(&way_out), "{filter:?}");
    db.sql(&format!("ALTER {publication} SET TABLE t, fence")).await;
    assert_gap(&refused(&db.source(json!({})), resume).await, &db);
}

/// What is to be read again is recorded with the batch that accepts the gap: who dies right after it has not forgotten.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_gap_every_table_is_read_whenever_it_is_interrupted() {
    for mode in ["initial", "never"] {
        let db = Db::new(&format!(
            "{T}; CREATE TABLE u (id int PRIMARY KEY); INSERT INTO t VALUES (1); INSERT INTO u VALUES (1)"
        ))
        .await;
        let config = || json!({ "snapshot": { "mode": mode } });
        let mut tap = db.tap(config()).await;
        tap.drain(&db).await;
        while tap.capture.progress().snapshot.iter().any(|table| table.table != "public.fence") {
            tap.try_next().await.unwrap();
        }
        let mut resume = tap.close().await;
        db.sql(&format!("SELECT pg_drop_replication_slot('towpath_{}')", db.name)).await;
        resume.state.insert("after_gap".to_owned(), Vec::new());
        let mut tap = Tap::open(db.source(config()), resume).await;
        // The first batch, and no more.
        tap.try_next().await.unwrap();
        assert!(!tap.resume.state.contains_key("after_gap"));
        let mut tap = tap.reopen().await;
        let all_read =
            |tap: &Tap| ["read t [1]", "read u [1]"].iter().all(|row| tap.texts().iter().any(|seen| seen == row));
        while !all_read(&tap) {
            tap.try_next().await.unwrap_or_else(|error| panic!("{mode}: {error}"));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_was_set_back_is_a_gap() {
    let db = Db::new(T).await;
    let mut resume = recorded(&db).await;
    let bytes = resume.position.unwrap().as_bytes().to_vec();
    // As recorded before the server was replaced by an older copy of itself.
    let far = [&[0xFF; 8][..], &bytes[8..]].concat();
    resume.position = towpath_contract::Position::from_bytes(&far);
    let error = refused(&db.source(json!({})), resume).await;
    assert_gap(&error, &db);
    assert!(error.message.contains("was set back"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn options_that_were_changed_and_changed_back_are_a_gap() {
    let db = Db::new(T).await;
    let resume = recorded(&db).await;
    let publication = format!("ALTER PUBLICATION towpath_{}", db.name);
    db.sql(&format!("{publication} SET (publish = 'insert'); UPDATE t SET id = id + 100")).await;
    let all = if major().await < 11 { "insert, update, delete" } else { "insert, update, delete, truncate" };
    db.sql(&format!("{publication} SET (publish = '{all}')")).await;
    let error = refused(&db.source(json!({})), resume).await;
    assert_gap(&error, &db);
    assert!(error.message.contains("changed back"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partitioned_table_whose_partitions_come_by_names_not_asked_for_is_refused() {
    if major().await < 13 {
        return;
    }
    let db = Db::new(
        "CREATE TABLE p (id int PRIMARY KEY) PARTITION BY RANGE (id); CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (9)",
    )
    .await;
    db.sql(&format!("CREATE PUBLICATION towpath_{} FOR TABLE p, fence", db.name)).await;
    let error = refused(&db.source(json!({ "tables": ["public.p"] })), Resume::default()).await;
    assert_eq!((error.kind, error.action), (ErrorKind::Setup, Action::Operator), "{error}");
    assert!(error.help.unwrap().contains("SET (publish_via_partition_root = true)"));
    db.sql(&format!("ALTER PUBLICATION towpath_{} SET (publish_via_partition_root = true)", db.name)).await;
    let mut tap = db.tap(json!({ "tables": ["public.p", "public.fence"] })).await;
    db.sql("INSERT INTO p VALUES (1)").await;
    assert_eq!(tap.drain(&db).await, ["insert p [1]"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operation_that_the_publication_leaves_out_is_a_gap() {
    let db = Db::new(T).await;
    let resume = recorded(&db).await;
    db.sql(&format!("ALTER PUBLICATION towpath_{} SET (publish = 'insert, update')", db.name)).await;
    let error = refused(&db.source(json!({})), resume).await;
    assert_gap(&error, &db);
    assert!(error.message.contains("delete"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_publication_that_is_altered_and_covers_what_it_covered_is_no_gap() {
    let db =
        Db::new(&format!("{T}; CREATE TABLE gone (id int PRIMARY KEY); CREATE TABLE named (id int PRIMARY KEY)")).await;
    let mut tap = db.tap(json!({})).await;
    tap.drain(&db).await;
    let publication = format!("ALTER PUBLICATION towpath_{}", db.name);
    db.sql("CREATE TABLE more (id int PRIMARY KEY)").await;
    while tap.capture.progress().uncaptured.is_empty() {
        tap.try_next().await.unwrap();
    }
    db.sql(&format!("{publication} ADD TABLE more; DROP TABLE gone")).await;
    while !tap.capture.progress().uncaptured.is_empty() {
        tap.try_next().await.unwrap();
    }
    db.sql("ALTER TABLE named RENAME TO renamed; INSERT INTO t VALUES (1); INSERT INTO renamed VALUES (1)").await;
    assert_eq!(tap.drain(&db).await, ["insert t [1]", "insert renamed [1]"]);
    let mut tap = tap.reopen().await;
    db.sql("INSERT INTO more VALUES (2); INSERT INTO t VALUES (2)").await;
    assert_eq!(tap.drain(&db).await, ["insert more [2]", "insert t [2]"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_server_is_a_gap() {
    let db = Db::new(T).await;
    let resume = recorded(&db).await;
    let (system, _) = resume.identity.as_deref().unwrap().rsplit_once('-').unwrap();
    for other in ["42-1".to_owned(), format!("{system}-7")] {
        let error = refused(&db.source(json!({})), Resume { identity: Some(other.clone()), ..resume.clone() }).await;
        assert_gap(&error, &db);
        assert!(error.message.contains(&other), "{error}");
    }
}

/// Its log is the old one's up to where it was promoted; what was recorded is in that part, or it is not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_promoted_standby_that_has_the_slot_and_all_that_was_recorded_goes_on() {
    if major().await < 12 {
        return;
    }
    let mut server = Postgres::start().await;
    let db = Db::on(&server, T).await;
    let resume = recorded(&db).await;
    let old = resume.identity.clone().unwrap();
    server.fail_over().await;
    let client = server.client(&db.name).await;
    client.batch_execute("INSERT INTO t VALUES (3)").await.unwrap();

    let bytes = resume.position.unwrap().as_bytes().to_vec();
    let beyond = [&[0xFF; 8][..], &bytes[8..]].concat();
    let beyond = Resume { position: towpath_contract::Position::from_bytes(&beyond), ..resume.clone() };
    let error = refused(&db.source(json!({})), beyond).await;
    assert_gap(&error, &db);
    assert!(error.message.contains(&format!("left that of {old} at ")), "{error}");

    let mut tap = Tap::open(db.source(json!({})), resume).await;
    let (system, timeline) = old.rsplit_once('-').unwrap();
    assert_eq!((timeline, tap.capture.identity()), ("1", format!("{system}-2").as_str()));
    while tap.texts().len() < 2 {
        tap.try_next().await.unwrap();
    }
    assert_eq!(tap.texts(), ["insert t [2]", "insert t [3]"]);
    // From now on it is the server that it was.
    let mut tap = tap.reopen().await;
    client.batch_execute("INSERT INTO t VALUES (4)").await.unwrap();
    while tap.texts().is_empty() {
        tap.try_next().await.unwrap();
    }
    assert_eq!(tap.texts(), ["insert t [4]"]);
}

/// PostgreSQL's own way to keep a slot over a failover.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slot_that_was_synchronised_to_a_standby_goes_on_there() {
    if major().await < 17 {
        return;
    }
    let mut primary = Postgres::start().await;
    let mut db = Db::on(&primary, T).await;
    let slot = format!("towpath_{}", db.name);
    for _ in ["publication", "slot"] {
        let error = refused(&db.source(json!({ "create": false })), Resume::default()).await;
        let by_hand = error.help.unwrap().split_once(": ").unwrap().1.to_owned();
        db.sql(&by_hand.replace("'pgoutput')", "'pgoutput', failover => true)")).await;
    }
    primary.sql("SELECT pg_create_physical_replication_slot('standby')").await;
    let settings = "primary_slot_name = 'standby'\nhot_standby_feedback = on\nsync_replication_slots = on";
    let standby = primary.standby(settings).await;
    db.client = primary.client(&db.name).await;

    let mut tap = db.tap(json!({ "create": false })).await;
    db.sql("INSERT INTO t VALUES (1)").await;
    let synced =
        format!("SELECT count(*) FROM pg_replication_slots WHERE slot_name = '{slot}' AND synced AND NOT temporary");
    eventually("the slot to be synchronised", std::time::Duration::from_secs(120), async || {
        // The standby takes it over when it has come to where the standby keeps the log from.
        db.sql("SELECT pg_log_standby_snapshot()").await;
        tap.drain(&db).await;
        match standby.value(&synced).await.as_str() {
            "1" => Ok(()),
            _ => Err(standby.log()),
        }
    })
    .await;
    assert_eq!(tap.drain(&db).await, ["insert t [1]"]);
    let resume = tap.close().await;
    db.sql("INSERT INTO t VALUES (2)").await;
    primary.stop().await;
    assert_eq!(standby.value("SELECT pg_promote()").await, "t");

    let there = db.source(json!({ "create": false, "url": standby.url(&db.name) }));
    let mut tap = Tap::open(there, resume).await;
    standby.sql_in(&db.name, "INSERT INTO t VALUES (3)").await;
    while tap.texts().len() < 2 {
        tap.try_next().await.unwrap();
    }
    assert_eq!(tap.texts(), ["insert t [2]", "insert t [3]"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slot_whose_log_was_removed_is_a_gap() {
    if major().await < 13 {
        return;
    }
    let settings = "max_slot_wal_keep_size = 1MB\nmax_wal_size = 32MB\nmin_wal_size = 32MB\nwal_keep_size = 0";
    let server = Postgres::builder().settings(settings).start().await;
    let db = Db::on(&server, T).await;
    let resume = recorded(&db).await;
    eventually("the slot to be lost", std::time::Duration::from_secs(60), async || {
        db.sql(
            "INSERT INTO t SELECT i FROM generate_series(10, 1000) i; TRUNCATE t; SELECT pg_switch_wal(); CHECKPOINT",
        )
        .await;
        match db.value("SELECT wal_status FROM pg_replication_slots").await.as_str() {
            "lost" => Ok(()),
            status => Err(status.to_owned()),
        }
    })
    .await;
    let error = refused(&db.source(json!({})), resume).await;
    assert_gap(&error, &db);
    assert!(error.message.contains("max_slot_wal_keep_size") || error.message.contains("wal_removed"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slot_of_another_plugin_or_database_is_not_ours() {
    let db = Db::new(T).await;
    db.sql("SELECT pg_create_logical_replication_slot('plugin_' || current_database(), 'test_decoding')").await;
    let error = refused(&db.source(json!({ "slot": format!("plugin_{}", db.name) })), Resume::default()).await;
    assert_eq!((error.kind, error.action), (ErrorKind::Setup, Action::Operator), "{error}");
    let other = Db::new(T).await;
    let tap = other.tap(json!({})).await;
    tap.close().await;
    let error = refused(&db.source(json!({ "slot": format!("towpath_{}", other.name) })), Resume::default()).await;
    assert!(error.message.contains("it belongs to the database"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_gap_somebody_elses_slot_of_that_name_is_left_alone() {
    let db = Db::new(T).await;
    let mut resume = recorded(&db).await;
    let slot = format!("'towpath_{}'", db.name);
    db.sql(&format!("SELECT pg_drop_replication_slot({slot})")).await;
    db.sql(&format!("SELECT pg_create_logical_replication_slot({slot}, 'test_decoding')")).await;
    assert_gap(&refused(&db.source(json!({})), resume.clone()).await, &db);
    resume.state.insert("after_gap".to_owned(), Vec::new());
    let error = refused(&db.source(json!({})), resume.clone()).await;
    assert_eq!((error.kind, error.action), (ErrorKind::Setup, Action::Operator), "{error}");
    assert!(error.to_string().contains("choose another name with `slot`"), "{error}");
    let plugin = format!("SELECT plugin FROM pg_replication_slots WHERE slot_name = {slot}");
    assert_eq!(db.value(&plugin).await, "test_decoding");
    let mut tap = Tap::open(db.source(json!({ "slot": format!("other_{}", db.name) })), resume).await;
    db.sql("INSERT INTO t VALUES (3)").await;
    assert_eq!(tap.drain(&db).await, ["insert t [3]"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slot_in_use_names_the_process_and_is_retried() {
    let db = Db::new(T).await;
    let tap = db.tap(json!({})).await;
    let error =
        refused(&db.source(json!({})), Resume { identity: tap.resume.identity.clone(), ..Resume::default() }).await;
    assert_eq!(error.action, Action::Retry, "{error}");
    let pid =
        db.value(&format!("SELECT active_pid FROM pg_replication_slots WHERE slot_name = 'towpath_{}'", db.name)).await;
    assert!(error.message.contains(&pid), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_first_run_that_was_cut_before_anything_was_recorded_goes_on() {
    let db = Db::new(T).await;
    let tap = db.tap(json!({})).await;
    drop(tap);
    db.sql("INSERT INTO t VALUES (1)").await;
    let mut tap = db.tap(json!({})).await;
    assert_eq!(tap.drain(&db).await, ["insert t [1]"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_right_to_create_the_sql_is_given_and_works() {
    let db = Db::new(T).await;
    let by_hand = || db.source(json!({ "create": false }));
    for expected in ["CREATE PUBLICATION", "pg_create_logical_replication_slot"] {
        let error = refused(&by_hand(), Resume::default()).await;
        assert_eq!((error.kind, error.action), (ErrorKind::Setup, Action::Operator), "{error}");
        let help = error.help.unwrap();
        assert!(help.contains(expected), "{help}");
        db.sql(help.split_once(": ").unwrap().1).await;
    }
    let mut tap = Tap::open(by_hand(), Resume::default()).await;
    db.sql("INSERT INTO t VALUES (1)").await;
    assert_eq!(tap.drain(&db).await, ["insert t [1]"]);
    let resume = tap.close().await;

    // One table more that nobody published is told, and no reason to let go of the others.
    db.sql("CREATE TABLE \"New\" (id int PRIMARY KEY)").await;
    let mut tap = Tap::open(by_hand(), resume).await;
    db.sql("INSERT INTO \"New\" VALUES (0); INSERT INTO t VALUES (2)").await;
    assert_eq!(tap.drain(&db).await, ["insert t [2]"]);
    let told = tap.capture.progress().uncaptured;
    assert!(told.len() == 1 && told[0].contains("public.New is asked for"), "{told:?}");
    let resume = tap.close().await;
    db.sql(&format!("ALTER PUBLICATION towpath_{} ADD TABLE \"New\"", db.name)).await;
    db.sql(&format!("ALTER PUBLICATION towpath_{} SET (publish = 'insert')", db.name)).await;
    let error = refused(&by_hand(), resume.clone()).await;
    assert!(error.message.contains("update, delete"), "{error}");
    db.sql(error.help.unwrap().split_once(": ").unwrap().1).await;
    // What was updated and deleted meanwhile is not known.
    assert_gap(&refused(&by_hand(), resume.clone()).await, &db);
    let mut resume = resume;
    resume.state.insert("after_gap".to_owned(), Vec::new());
    let mut tap = Tap::open(by_hand(), resume).await;
    db.sql("INSERT INTO \"New\" VALUES (1)").await;
    assert!(tap.drain(&db).await.contains(&"insert New [1]".to_owned()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn odd_names_are_quoted_everywhere() {
    let db = Db::new("CREATE SCHEMA \"Odd \"\"s'\"; CREATE TABLE \"Odd \"\"s'\".\"t.'\"\"\" (\"i d\" int PRIMARY KEY)")
        .await;
    let mut tap = db.tap(json!({ "publication": "Pub \"of' all" })).await;
    db.sql("INSERT INTO \"Odd \"\"s'\".\"t.'\"\"\" VALUES (1)").await;
    assert_eq!(tap.drain(&db).await, ["insert t.'\" [1]"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_publication_dropped_in_mid_stream_stops_the_source() {
    let db = Db::new(T).await;
    let mut tap = db.tap(json!({})).await;
    tap.drain(&db).await;
    db.sql(&format!("DROP PUBLICATION towpath_{}; INSERT INTO t VALUES (1)", db.name)).await;
    let error = failure(&mut tap).await;
    assert_gap(&error, &db);
    assert!(error.message.contains(&format!("the publication towpath_{} did not exist", db.name)), "{error}");
    // Made again, it is still missing for what was written meanwhile.
    assert_gap(&refused_again(tap).await, &db);
}
