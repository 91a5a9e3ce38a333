//! What becomes of one row's change.

use serde_json::json;
use towpath_contract::{KeyKind, Resume};

use crate::harness::{Db, Tap, major};

async fn changes(setup: &str, statements: &str) -> Vec<String> {
    let db = Db::new(setup).await;
    let mut tap = db.tap(json!({})).await;
    db.sql(statements).await;
    let seen = tap.drain(&db).await;
    tap.close().await;
    seen
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn inserts_updates_and_deletes_come_in_order_with_their_rows() {
    let seen = changes(
        "CREATE TABLE t (id int PRIMARY KEY, note text, yes bool)",
        "INSERT INTO t VALUES (1, 'one', true), (2, NULL, false); UPDATE t SET note = 'uno' WHERE id = 1; DELETE FROM t WHERE id = 2",
    )
    .await;
    assert_eq!(seen, ["insert t [1 one true]", "insert t [2 ∅ false]", "update t [1 uno true]", "delete t [2 ? ?]"]);
}

/// Within a statement two rows may have one key: by that their changes could not be told apart.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deferrable_primary_key_is_no_key() {
    let seen = changes(
        "CREATE TABLE s (id int PRIMARY KEY DEFERRABLE, v text); ALTER TABLE s REPLICA IDENTITY FULL; INSERT INTO s VALUES (1, 'a'), (2, 'b')",
        "UPDATE s SET id = 3 - id",
    )
    .await;
    let linked =
        ["delete s [1 a] ~ [2 a]", "insert s [2 a] ~ [1 a]", "delete s [2 b] ~ [1 b]", "insert s [1 b] ~ [2 b]"];
    assert_eq!(seen, linked);
    let db =
        Db::new("CREATE TABLE s (id int PRIMARY KEY DEFERRABLE, v text); ALTER TABLE s REPLICA IDENTITY FULL").await;
    let mut tap = db.tap(json!({})).await;
    db.sql("INSERT INTO s VALUES (1, 'a')").await;
    let mut batch = towpath_contract::Batch::new();
    while batch.changes().next().is_none() {
        tap.capture.next(&mut batch).await.unwrap();
    }
    assert_eq!(batch.changes().next().unwrap().table().key, KeyKind::WholeRow);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_replica_identity_says_what_is_known_of_the_old_row() {
    let seen = changes(
        "CREATE TABLE def (id int PRIMARY KEY, a text, b text);
         CREATE TABLE ful (id int PRIMARY KEY, a text, b text); ALTER TABLE ful REPLICA IDENTITY FULL;
         CREATE TABLE ind (id int PRIMARY KEY, a text NOT NULL, b text); CREATE UNIQUE INDEX ind_a ON ind (a);
         ALTER TABLE ind REPLICA IDENTITY USING INDEX ind_a;
         CREATE TABLE bag (a text, b text); ALTER TABLE bag REPLICA IDENTITY FULL;
         CREATE TABLE non (id int PRIMARY KEY, a text)",
        "INSERT INTO def VALUES (1, 'a', 'b'); UPDATE def SET a = 'c'; DELETE FROM def;
         INSERT INTO ful VALUES (1, 'a', 'b'); UPDATE ful SET a = 'c'; DELETE FROM ful;
         INSERT INTO ind VALUES (1, 'a', 'b'); UPDATE ind SET b = 'c'; UPDATE ind SET a = 'd'; DELETE FROM ind;
         INSERT INTO bag VALUES ('a', NULL); UPDATE bag SET b = 'c'; UPDATE bag SET b = 'c'; DELETE FROM bag;
         ALTER TABLE non REPLICA IDENTITY NOTHING; INSERT INTO non VALUES (1, 'a')",
    )
    .await;
    assert_eq!(
        seen,
        [
            "insert def [1 a b]",
            "update def [1 c b]",
            "delete def [1 ? ?]",
            "insert ful [1 a b]",
            "update ful [1 a b] > [1 c b]",
            "delete ful [1 c b]",
            "insert ind [1 a b]",
            "update ind [1 a c]",
            "delete ind [? a ?] ~ [? d ?]",
            "insert ind [1 d c] ~ [? a ?]",
            "delete ind [? d ?]",
            "insert bag [a ∅]",
            "delete bag [a ∅] ~ [a c]",
            "insert bag [a c] ~ [a ∅]",
            "update bag [a c] > [a c]",
            "delete bag [a c]",
            "insert non [1 a]",
        ]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_update_is_a_delete_and_an_insert_that_name_each_other() {
    let seen = changes(
        "CREATE TABLE t (id int PRIMARY KEY, note text);
         CREATE TABLE f (id int PRIMARY KEY, note text); ALTER TABLE f REPLICA IDENTITY FULL",
        "INSERT INTO t VALUES (1, 'n'), (2, 'm'); UPDATE t SET id = id + 10; UPDATE t SET id = id, note = 'o';
         INSERT INTO f VALUES (1, 'n'); UPDATE f SET id = 2",
    )
    .await;
    assert_eq!(
        seen[2..],
        [
            "delete t [1 ?] ~ [11 ?]",
            "insert t [11 n] ~ [1 ?]",
            "delete t [2 ?] ~ [12 ?]",
            "insert t [12 m] ~ [2 ?]",
            "update t [11 o]",
            "update t [12 o]",
            "insert f [1 n]",
            "delete f [1 n] ~ [2 ?]",
            "insert f [2 n] ~ [1 n]",
        ]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unchanged_toast_value_is_unavailable_unless_the_old_row_has_it() {
    let toasted = "(SELECT string_agg(md5(i::text), '') FROM generate_series(1, 200) i)";
    let seen = changes(
        "CREATE TABLE t (id int PRIMARY KEY, big text, n int); ALTER TABLE t ALTER big SET STORAGE EXTERNAL;
         CREATE TABLE f (LIKE t INCLUDING ALL); ALTER TABLE f REPLICA IDENTITY FULL",
        &format!(
            "INSERT INTO t VALUES (1, {toasted}, 1); UPDATE t SET n = 2; UPDATE t SET id = 2; UPDATE t SET big = 's';
             INSERT INTO f VALUES (1, {toasted}, 1); UPDATE f SET n = 2; UPDATE f SET id = 2"
        ),
    )
    .await;
    assert_eq!(
        seen,
        [
            "insert t [1 (6400) 1]",
            "update t [1 ? 2]",
            "delete t [1 ? ?] ~ [2 ? ?]",
            "insert t [2 ? 2] ~ [1 ? ?]",
            "update t [2 s 2]",
            "insert f [1 (6400) 1]",
            "update f [1 (6400) 1] > [1 (6400) 2]",
            "delete f [1 (6400) 2] ~ [2 ? ?]",
            "insert f [2 (6400) 2] ~ [1 (6400) 2]",
        ]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_toasted_key_that_did_not_change_makes_no_key_update() {
    let long = "(SELECT string_agg(md5(i::text), '') FROM generate_series(1, 80) i)";
    let seen = changes(
        "CREATE TABLE t (id text PRIMARY KEY, n int); ALTER TABLE t ALTER id SET STORAGE EXTERNAL",
        &format!("INSERT INTO t VALUES ({long}, 1); UPDATE t SET n = 2"),
    )
    .await;
    assert_eq!(seen, ["insert t [(2560) 1]", "update t [(2560) ?] > [(2560) 2]"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_truncate_is_one_change_per_table() {
    if major().await < 11 {
        return;
    }
    let db =
        Db::new("CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE b (id int PRIMARY KEY); CREATE TABLE c (id int)")
            .await;
    let mut tap = db.tap(json!({ "tables": ["public.a", "public.b", "public.fence"] })).await;
    db.sql("INSERT INTO a VALUES (1); TRUNCATE b, a; INSERT INTO b VALUES (2); TRUNCATE c").await;
    assert_eq!(tap.drain(&db).await, ["insert a [1]", "truncate a", "truncate b", "insert b [2]"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn partitions_come_under_the_name_of_their_table() {
    if major().await < 13 {
        return;
    }
    let db = Db::new(
        "CREATE TABLE p (id int, part int, PRIMARY KEY (id, part)) PARTITION BY LIST (part);
         CREATE TABLE p1 PARTITION OF p FOR VALUES IN (1); CREATE TABLE p2 PARTITION OF p FOR VALUES IN (2);
         ALTER TABLE p2 REPLICA IDENTITY FULL",
    )
    .await;
    let mut tap = db.tap(json!({ "tables": ["public.p", "public.fence"] })).await;
    db.sql(
        "INSERT INTO p VALUES (1, 1), (2, 2); CREATE TABLE p3 PARTITION OF p FOR VALUES IN (3); INSERT INTO p VALUES (3, 3);
         UPDATE p SET part = 2 WHERE id = 1; DELETE FROM p WHERE id = 2; TRUNCATE p",
    )
    .await;
    let seen = tap.drain(&db).await;
    // An update across partitions is a delete and an insert to PostgreSQL itself.
    assert_eq!(
        seen,
        [
            "insert p [1 1]",
            "insert p [2 2]",
            "insert p [3 3]",
            "delete p [1 1]",
            "insert p [1 2]",
            "delete p [2 2]",
            "truncate p"
        ]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn before_postgresql_13_partitions_come_under_their_own_names() {
    if major().await >= 13 {
        return;
    }
    let db = Db::new(
        "CREATE TABLE p (id int, part int) PARTITION BY LIST (part);
         CREATE TABLE p1 PARTITION OF p FOR VALUES IN (1); CREATE TABLE p2 PARTITION OF p FOR VALUES IN (2);
         ALTER TABLE p1 REPLICA IDENTITY FULL; ALTER TABLE p2 REPLICA IDENTITY FULL",
    )
    .await;
    let mut tap = db.tap(json!({ "tables": ["public.p", "public.fence"] })).await;
    db.sql("INSERT INTO p VALUES (1, 1), (2, 2)").await;
    assert_eq!(tap.drain(&db).await, ["insert p1 [1 1]", "insert p2 [2 2]"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn generated_and_dropped_columns_are_not_there() {
    if major().await < 12 {
        return;
    }
    let seen = changes(
        "CREATE TABLE t (id int PRIMARY KEY, gone int, twice int GENERATED ALWAYS AS (id * 2) STORED, note text); ALTER TABLE t DROP gone",
        "INSERT INTO t (id, note) VALUES (1, 'n')",
    )
    .await;
    assert_eq!(seen, ["insert t [1 n]"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn copy_gives_every_row_a_position_of_its_own() {
    let db = Db::new("CREATE TABLE t (id int PRIMARY KEY)").await;
    let mut tap = db.tap(json!({})).await;
    let rows: String = (0..3000).map(|id| format!("({id}),")).collect();
    db.sql(&format!("INSERT INTO t VALUES {}", rows.trim_end_matches(','))).await;
    db.sql("COPY t FROM PROGRAM 'seq 3000 5999'").await;
    let seen = tap.drain(&db).await;
    assert_eq!(seen.len(), 6000);
    assert!(seen.iter().enumerate().all(|(id, text)| *text == format!("insert t [{id}]")));
    let shared = tap.seen.iter().filter(|seen| seen.position.as_bytes()[16..20] != [0; 4]).count();
    assert!(shared > 1000, "rows of one log record: {shared}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tables_that_are_not_configured_are_left_out_and_change_no_position() {
    if major().await < 11 {
        return;
    }
    let db = Db::new("CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE b (id int PRIMARY KEY); CREATE SCHEMA s; CREATE TABLE s.a (id int)").await;
    let publish = "CREATE PUBLICATION everything FOR ALL TABLES";
    db.sql(publish).await;
    let some = json!({ "tables": ["public.a", "public.fence"], "publication": "everything" });
    let mut all = Tap::open(
        db.source_named(&format!("{}_all", db.name), json!({ "publication": "everything" })),
        Default::default(),
    )
    .await;
    let mut some = Tap::open(db.source(some), Default::default()).await;
    let mut own = Tap::open(
        db.source_named(&format!("{}_own", db.name), json!({ "tables": ["public.a", "public.fence"] })),
        Default::default(),
    )
    .await;
    db.sql("BEGIN; INSERT INTO b VALUES (1); INSERT INTO a SELECT generate_series(1, 50); INSERT INTO s.a VALUES (1); TRUNCATE b, a; COMMIT").await;
    assert_eq!(all.drain(&db).await.len(), 1 + 50 + 1 + 2);
    assert_eq!(some.drain(&db).await.len(), 50 + 1);
    own.drain(&db).await;
    let of_a = |tap: &Tap| -> Vec<_> {
        tap.seen.iter().filter(|seen| seen.text.contains(" a") && !seen.text.contains("s.a")).cloned().collect()
    };
    let (all, some, own) = (of_a(&all), of_a(&some), of_a(&own));
    assert!(some.iter().all(|seen| all.contains(seen)));
    assert_eq!(some, own);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logical_messages_come_where_they_were_written() {
    if major().await < 14 {
        return;
    }
    let db = Db::new("CREATE TABLE t (id int PRIMARY KEY)").await;
    let mut tap = db.tap(json!({ "messages": ["app.*"] })).await;
    db.sql(
        "SELECT pg_logical_emit_message(false, 'app.loose', 'l');
         BEGIN; SELECT pg_logical_emit_message(true, 'app.first', E'\\\\x0001'::bytea); INSERT INTO t VALUES (1);
         SELECT pg_logical_emit_message(true, 'other', 'o'); SELECT pg_logical_emit_message(true, 'app.last', 'z'); COMMIT;
         BEGIN; SAVEPOINT s; SELECT pg_logical_emit_message(true, 'app.sub', 's'); RELEASE s; INSERT INTO t VALUES (2); COMMIT;
         BEGIN; SELECT pg_logical_emit_message(true, 'app.gone', 'g'); ROLLBACK",
    )
    .await;
    let mut seen = tap.drain(&db).await;
    // Where a subtransaction's message and the next row share an address, PostgreSQL gives them in either order.
    if seen[5].starts_with("message") {
        seen.swap(4, 5);
    }
    assert_eq!(
        seen,
        [
            "message message [app.loose l false]",
            "message message [app.first \0\u{1} true]",
            "insert t [1]",
            "message message [app.last z true]",
            "message message [app.sub s true]",
            "insert t [2]",
        ]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_without_any_key_still_delivers_its_inserts() {
    let db = Db::new("CREATE TABLE t (a int, b int)").await;
    // Somebody published it who knows that it is only inserted into.
    db.sql(&format!("CREATE PUBLICATION towpath_{} FOR TABLE t, fence", db.name)).await;
    let mut tap = db.tap(json!({})).await;
    db.sql("INSERT INTO t VALUES (1, 2)").await;
    let mut batch = towpath_contract::Batch::new();
    while batch.changes().len() == 0 {
        tap.capture.next(&mut batch).await.unwrap();
    }
    assert_eq!(batch.changes().next().unwrap().table().key, KeyKind::None);
}

/// A published table without an identity can be updated by nobody: the applications come before the capture.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_that_would_break_for_its_applications_is_not_published() {
    for table in [
        "CREATE TABLE t (a int, b int)",
        "CREATE TABLE t (a int PRIMARY KEY, b int); ALTER TABLE t REPLICA IDENTITY NOTHING",
        "CREATE TABLE t (a int PRIMARY KEY DEFERRABLE, b int)",
        "CREATE TABLE t (a int NOT NULL, b int); CREATE UNIQUE INDEX t_a ON t (a); ALTER TABLE t REPLICA IDENTITY USING INDEX t_a; DROP INDEX t_a",
    ] {
        let db = Db::new(table).await;
        let error =
            Tap::try_open(db.source(json!({})), Resume::default()).await.map(drop).expect_err("it is not published");
        assert!(error.message.contains("public.t has no usable REPLICA IDENTITY"), "{table}: {error}");
        db.sql("INSERT INTO t VALUES (1, 1); UPDATE t SET b = 2; DELETE FROM t").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_that_would_break_is_not_added_later_and_the_others_go_on() {
    let db = Db::new("CREATE TABLE t (a int PRIMARY KEY)").await;
    let mut tap = db.tap(json!({})).await;
    tap.drain(&db).await;
    let resume = tap.close().await;
    db.sql("CREATE TABLE bare (a int, b int); CREATE TABLE more (a int PRIMARY KEY)").await;
    let mut tap = Tap::open(db.source(json!({})), resume).await;
    db.sql(
        "INSERT INTO bare VALUES (1, 1); UPDATE bare SET b = 2; INSERT INTO more VALUES (1); INSERT INTO t VALUES (1)",
    )
    .await;
    assert_eq!(tap.drain(&db).await, ["insert more [1]", "insert t [1]"]);
    let told = tap.capture.progress().uncaptured;
    assert!(told.len() == 1 && told[0].contains("public.bare"), "{told:?}");
}
