//! What reaches the queue when nothing fails.

use std::time::Duration;

use serde_json::json;

use crate::rig::{PATIENCE, Rig};

#[tokio::test]
async fn rows_that_exist_and_changes_to_them_arrive_in_order() {
    let mut rig = Rig::new().await;
    rig.postgres.sql("CREATE TABLE t (id int PRIMARY KEY, note text); INSERT INTO t VALUES (1, 'a'), (2, 'b')").await;
    let mut towpath = rig.towpath("postgres", "").run();
    rig.inbox.until_count(2, PATIENCE).await;
    rig.postgres
        .sql("INSERT INTO t VALUES (3, 'c'); UPDATE t SET note = 'A' WHERE id = 1; DELETE FROM t WHERE id = 2")
        .await;
    let all = rig.inbox.until_count(5, PATIENCE).await;
    let ops: Vec<_> =
        all.iter().map(|delivery| (delivery.json()["op"].clone(), delivery.json()["key"]["id"].clone())).collect();
    let expected = [("read", 1), ("read", 2), ("insert", 3), ("update", 1), ("delete", 2)];
    assert_eq!(ops, expected.map(|(op, id)| (json!(op), json!(id))));
    let update = &all[3];
    assert_eq!(update.routing_key, "db.public.t.update");
    assert_eq!(update.json()["after"], json!({"id": 1, "note": "A"}));
    assert_eq!(update.headers["cloudEvents:partitionkey"], "{\"id\":1}");
    assert!(towpath.terminate(PATIENCE).await.success());
}

#[tokio::test]
async fn a_restart_goes_on_where_the_last_run_ended() {
    let mut rig = Rig::new().await;
    rig.postgres.sql("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)").await;
    let mut towpath = rig.towpath("postgres", "").run();
    rig.inbox.until_count(1, PATIENCE).await;
    assert!(towpath.terminate(PATIENCE).await.success());
    rig.postgres.sql("INSERT INTO t SELECT generate_series(2, 100)").await;
    towpath.start_again();
    let client = rig.postgres.client("postgres").await;
    rig.inbox.until_count(100, PATIENCE).await;
    let report = rig.settle(&client, &["public.t"]).await;
    assert_eq!((report.events, report.duplicates), (100, 0));
}

#[tokio::test]
async fn a_large_transaction_arrives_whole_and_an_aborted_one_not_at_all() {
    let mut rig = Rig::new().await;
    rig.postgres.configure("logical_decoding_work_mem = '64kB'");
    rig.postgres.sql("SELECT pg_reload_conf()").await;
    rig.postgres.sql("CREATE TABLE t (id int PRIMARY KEY, note text)").await;
    let mut towpath = rig.towpath("postgres", "").run();
    towpath.wait_for_log("capturing", PATIENCE).await;
    let client = rig.postgres.client("postgres").await;
    client
        .batch_execute(
            "BEGIN; INSERT INTO t SELECT g, repeat('x', 300) FROM generate_series(1, 6000) g; ROLLBACK;
             BEGIN; INSERT INTO t SELECT g, repeat('y', 300) FROM generate_series(1, 3000) g;
             SAVEPOINT s; INSERT INTO t SELECT g, repeat('z', 300) FROM generate_series(3001, 6000) g; ROLLBACK TO s;
             INSERT INTO t SELECT g, 'last' FROM generate_series(6001, 9000) g; COMMIT;",
        )
        .await
        .expect("valid SQL");
    let report = rig.settle(&client, &["public.t"]).await;
    assert_eq!(report.ops["insert"], 6_000);
}

#[tokio::test]
async fn every_type_arrives_as_the_database_holds_it() {
    let mut rig = Rig::new().await;
    rig.postgres
        .sql(
            "CREATE TYPE mood AS ENUM ('sad', 'happy'); CREATE TYPE pair AS (a int, b text); CREATE DOMAIN money2 AS numeric(12,2);
             CREATE TABLE t (id bigint PRIMARY KEY, b bool, i2 smallint, i8 bigint, n numeric, m money2, f4 real, f8 double precision,
               c char(10), v varchar(20), x text, y bytea, d date, tm time, tz timetz, ts timestamp, tstz timestamptz, iv interval,
               u uuid, j json, jb jsonb, ia int[], ta text[], na numeric[][], e mood, p pair, r int4range, inet inet, bits bit(4),
               g int GENERATED ALWAYS AS (id + 1) STORED)",
        )
        .await;
    let rows = "INSERT INTO t VALUES
      (@, true, -32768, 9223372036854775807, 1e-20, 12.5, 1.5e-45, 'NaN', 'ab', 'é', E'q\\'\"\\\\\\n\\t', '\\x00ff', 'infinity', '24:00', '12:00+05:30',
       '0044-03-15 12:00 BC', '2026-01-31 12:00:00.123456+02', '1 year -2 days 03:04:05.6', gen_random_uuid(), '{\"a\": 1.10}', '{\"b\": [1, null]}',
       '{1,NULL,3}', '{\"a,b\",\"NULL\",NULL,\"q\\\\\\\"\"}', '{{1.5,NaN},{3,4}}', 'happy', '(1,\"x y\")', '[1,10)', '10.0.0.1/8', '1010'),
      (@ + 1, null, null, null, 'NaN', null, '-Infinity', 0.1, null, '', '', '', '-infinity', '00:00:00.000001', null, 'infinity', '-infinity', '-1 mon', null,
       'null', '\"s\"', '{}', '{{a},{b}}', null, null, null, 'empty', null, null),
      (@ + 2, false, 0, -9007199254740993, repeat('9', 500)::numeric / 7, -0.01, '3.4e38', '-0', 'padded', 'x', repeat('long ', 5000), repeat('y', 9000)::bytea,
       '9999-12-31', '23:59:59', '00:00-12', '99999-01-01', '0001-01-01 BC', '0', 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', '[]', '{}', null, null, null, 'sad', null, '(,)', '::1', '0000')";
    rig.postgres.sql(&rows.replace('@', "1")).await;
    let mut towpath = rig.towpath("postgres", "").run();
    rig.inbox.until_count(3, PATIENCE).await;
    rig.postgres.sql(&rows.replace('@', "101")).await;
    rig.postgres.sql("UPDATE t SET b = NOT b; UPDATE t SET id = id + 1000 WHERE id > 100").await;
    let client = rig.postgres.client("postgres").await;
    let report = rig.settle(&client, &["public.t"]).await;
    assert_eq!(report.duplicates, 0);
    assert!(towpath.terminate(PATIENCE).await.success());
}

#[tokio::test]
async fn a_stopped_route_does_not_stop_another() {
    let mut rig = Rig::new().await;
    rig.postgres.sql("CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE b (id int PRIMARY KEY)").await;
    let routes = "routes:
  - from: db.public.a
    event: { exchange: nowhere }
  - from: db.public.b
";
    rig.rabbit.declare_exchange("nowhere").await;
    let mut towpath = rig.towpath("postgres", routes).run();
    towpath.wait_for_log("capturing", PATIENCE).await;
    rig.postgres.sql("INSERT INTO a VALUES (1); INSERT INTO b SELECT generate_series(1, 50)").await;
    rig.inbox.until_count(50, PATIENCE).await;
    rig.rabbit.bind(crate::rig::QUEUE, "nowhere", "#").await;
    rig.inbox.until_count(51, Duration::from_secs(20)).await;
    let client = rig.postgres.client("postgres").await;
    rig.settle(&client, &["public.b"]).await;
}
