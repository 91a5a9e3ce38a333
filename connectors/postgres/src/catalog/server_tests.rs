//! The catalogue of a real server.

use super::*;
use crate::testing::{server, session, since};

fn names(found: &Captured) -> Vec<String> {
    found.tables.iter().map(CapturedTable::full_name).collect()
}

#[tokio::test]
async fn patterns_find_what_can_be_captured_and_say_what_cannot() {
    let postgres = server().await;
    if postgres.major() < 13 {
        // Partitions are published one by one.
        postgres
            .sql(
                "CREATE TABLE p (d date, id int) PARTITION BY RANGE (d); \
                 CREATE TABLE p_a PARTITION OF p FOR VALUES FROM ('2024-01-01') TO ('2024-06-01')",
            )
            .await;
        let client = session(&postgres.url("postgres")).await;
        assert_eq!(names(&captured(&client, &["public.p".into()], None).await.unwrap()), ["public.p_a"]);
        return;
    }
    let client = session(&postgres.url("postgres")).await;
    client
        .batch_execute(
            "CREATE TABLE orders (id int PRIMARY KEY); INSERT INTO orders SELECT generate_series(1, 500); ANALYZE orders; \
             CREATE TABLE keyless (v int); CREATE UNLOGGED TABLE cache (id int); CREATE TEMP TABLE passing (id int); \
             CREATE VIEW v AS SELECT * FROM orders; CREATE MATERIALIZED VIEW mv AS SELECT * FROM orders; \
             CREATE SCHEMA sales; CREATE TABLE sales.parts (d date, id int) PARTITION BY RANGE (d); \
             CREATE TABLE sales.parts_a PARTITION OF sales.parts FOR VALUES FROM ('2024-01-01') TO ('2024-06-01') PARTITION BY LIST (id); \
             CREATE TABLE sales.parts_a1 PARTITION OF sales.parts_a FOR VALUES IN (1); \
             CREATE TABLE sales.parts_b PARTITION OF sales.parts DEFAULT; \
             INSERT INTO sales.parts SELECT '2024-01-01', 1 FROM generate_series(1, 30); ANALYZE sales.parts_a1; \
             CREATE PUBLICATION by_root FOR ALL TABLES WITH (publish_via_partition_root = true); \
             CREATE PUBLICATION by_leaf FOR ALL TABLES",
        )
        .await
        .unwrap();

    let all = captured(&client, &["*.*".into()], None).await.unwrap();
    assert_eq!(names(&all), ["public.keyless", "public.orders", "sales.parts"]);
    let left_out: Vec<_> = all.left_out.iter().map(|out| (out.name.as_str(), out.reason, out.named)).collect();
    assert_eq!(
        left_out,
        [("cache", Reason::Unlogged, false), ("mv", Reason::MaterializedView, false), ("v", Reason::View, false)]
    );
    let facts: Vec<_> = all.tables.iter().map(|t| (t.keyed, t.partitioned, t.estimated_rows)).collect();
    assert_eq!(facts, [(false, false, None), (true, false, Some(500)), (false, true, Some(30))]);

    let patterns = ["public.v".into(), "public.nosuch".into(), "sales.parts_a*".into(), "sales.parts".into()];
    let some = captured(&client, &patterns, Some("by_root")).await.unwrap();
    assert_eq!(names(&some), ["sales.parts"]);
    assert_eq!(some.unmatched, ["public.nosuch"]);
    assert!(some.left_out[0].named);

    let only_a = captured(&client, &["sales.parts_a*".into()], Some("by_root")).await.unwrap();
    assert_eq!(names(&only_a), ["sales.parts_a"], "the topmost that is selected");
    let leaves = captured(&client, &["sales.parts".into(), "sales.*b".into()], Some("by_leaf")).await.unwrap();
    assert_eq!(names(&leaves), ["sales.parts_b"], "only what is selected by its own name");
}

#[tokio::test]
async fn the_key_is_the_replica_identity_or_what_comes_next_to_it() {
    let postgres = server().await;
    let client = session(&postgres.url("postgres")).await;
    let include = since(&postgres, 11, " INCLUDE (id)");
    let generated = since(&postgres, 12, ", w int GENERATED ALWAYS AS (v * 2) STORED");
    let (unlisted, list) = (since(&postgres, 15, "v int,"), since(&postgres, 15, " (id, w) WHERE (w > 5)"));
    client
        .batch_execute(&format!(
            "CREATE TABLE by_default (id int PRIMARY KEY, v int); \
             CREATE TABLE by_full (id int PRIMARY KEY, v int); ALTER TABLE by_full REPLICA IDENTITY FULL; \
             CREATE TABLE by_full_keyless (id int, v int); ALTER TABLE by_full_keyless REPLICA IDENTITY FULL; \
             CREATE TABLE by_nothing (id int PRIMARY KEY, v int); ALTER TABLE by_nothing REPLICA IDENTITY NOTHING; \
             CREATE TABLE by_default_keyless (id int, v int); \
             CREATE TABLE by_index (id int PRIMARY KEY, v int NOT NULL); CREATE UNIQUE INDEX u ON by_index (v){include}; \
             ALTER TABLE by_index REPLICA IDENTITY USING INDEX u; \
             CREATE TABLE by_index_desc (id int, v int NOT NULL); CREATE UNIQUE INDEX d ON by_index_desc (v DESC); \
             ALTER TABLE by_index_desc REPLICA IDENTITY USING INDEX d; \
             CREATE TABLE by_deferrable (id int PRIMARY KEY DEFERRABLE, v int); \
             CREATE TABLE generated (id int PRIMARY KEY, v int{generated}); \
             CREATE TABLE listed (id int PRIMARY KEY, {unlisted} w int); \
             CREATE PUBLICATION p FOR TABLE listed{list}"
        ))
        .await
        .unwrap();
    let version = sql::server_version(&client).await.unwrap();
    let mut types = crate::types::TypeCatalog::default();
    for (name, columns, key, kind, chunked) in [
        ("by_default", "id v", "id", towpath_contract::KeyKind::Columns, "id"),
        ("by_full", "id v", "id", towpath_contract::KeyKind::Columns, "id"),
        ("by_full_keyless", "id v", "id v", towpath_contract::KeyKind::WholeRow, ""),
        ("by_nothing", "id v", "id", towpath_contract::KeyKind::Columns, "id"),
        ("by_default_keyless", "id v", "", towpath_contract::KeyKind::None, ""),
        ("by_index", "id v", "v", towpath_contract::KeyKind::Columns, "v"),
        ("by_index_desc", "id v", "v", towpath_contract::KeyKind::Columns, ""),
        ("by_deferrable", "id v", "", towpath_contract::KeyKind::None, ""),
        ("generated", "id v", "id", towpath_contract::KeyKind::Columns, "id"),
        ("listed", "id w", "id", towpath_contract::KeyKind::Columns, "id"),
    ] {
        let oid = sql::row(&client, "test", &format!("SELECT 'public.{name}'::regclass::oid")).await.unwrap();
        let oid = sql::text(&oid, 0).parse().unwrap();
        let shape = describe(&client, version, &mut types, oid, Some("p")).await.unwrap().unwrap();
        let all: Vec<_> = shape.table.columns.iter().map(|column| column.name.as_str()).collect();
        let keys: Vec<_> = shape.table.key_columns().map(|at| all[at]).collect();
        let chunked_by: Vec<_> = shape.key.iter().flat_map(|key| &key.columns).map(|c| c.name.as_str()).collect();
        assert_eq!((all.join(" ").as_str(), keys.join(" ").as_str()), (columns, key), "{name}");
        assert_eq!((shape.table.key, chunked_by.join(" ").as_str()), (kind, chunked), "{name}");
        assert_eq!(
            shape.row_filter.as_deref(),
            (name == "listed" && postgres.major() >= 15).then_some("(w > 5)"),
            "{name}"
        );
    }
    assert!(describe(&client, version, &mut types, 1, None).await.unwrap().is_none());
}
