//! Chunks by any kind of key, in the database's own order.

use super::*;
use crate::testing::since;

const SETUP: &str = "
    CREATE EXTENSION citext WITH SCHEMA public;
    CREATE SCHEMA \"Odd.schema\";
    CREATE COLLATION german (provider = icu, locale = 'de');
    CREATE TYPE public.state AS ENUM ('new', 'done', 'aborted');
    CREATE DOMAIN public.code AS varchar(20) COLLATE german CHECK (value <> 'x');
    CREATE TABLE k_int (id int PRIMARY KEY, v text);
    INSERT INTO k_int SELECT i, 'v' FROM generate_series(-50, 50) i;
    CREATE TABLE k_pair (a int, b text COLLATE german, v int, PRIMARY KEY (b, a));
    INSERT INTO k_pair SELECT i, chr(96 + i % 7) || chr(196 + i % 3) || '''\\', i FROM generate_series(1, 100) i;
    CREATE TABLE k_uuid (id uuid PRIMARY KEY);
    INSERT INTO k_uuid SELECT md5(i::text)::uuid FROM generate_series(1, 100) i;
    CREATE TABLE k_citext (id public.citext, n int, PRIMARY KEY (n, id));
    INSERT INTO k_citext SELECT CASE i % 2 WHEN 0 THEN 'KEY' ELSE 'key' END || i, i % 3 FROM generate_series(1, 100) i;
    CREATE TABLE k_numeric (id numeric PRIMARY KEY);
    INSERT INTO k_numeric SELECT i / 7.0 FROM generate_series(1, 100) i UNION ALL SELECT 'NaN' UNION ALL SELECT -1e300;
    CREATE TABLE k_bytea (id bytea PRIMARY KEY);
    INSERT INTO k_bytea SELECT decode(md5(i::text), 'hex') FROM generate_series(1, 100) i UNION ALL SELECT '';
    CREATE TABLE k_time (id timestamptz, d date, i interval, PRIMARY KEY (id, d, i));
    INSERT INTO k_time SELECT '2024-01-01Z'::timestamptz + i * interval '1.5 days', 'infinity'::date, i * interval '1 month 2 hours -3 seconds'
        FROM generate_series(1, 100) i UNION ALL SELECT '-infinity', '0044-03-15 BC', '0';
    CREATE TABLE k_char (id char(5) PRIMARY KEY);
    INSERT INTO k_char SELECT i::text FROM generate_series(1, 100) i;
    CREATE TABLE k_enum (id public.state, f float8, PRIMARY KEY (id, f));
    INSERT INTO k_enum SELECT s, i / 3.0::float8 FROM generate_series(1, 33) i, unnest(enum_range(NULL::public.state)) s
        UNION ALL SELECT 'new', 'NaN';
    CREATE TABLE k_domain (id public.code PRIMARY KEY);
    INSERT INTO k_domain SELECT 'c' || i FROM generate_series(1, 100) i;
    CREATE TABLE k_array (id int[] PRIMARY KEY, r int4range);
    INSERT INTO k_array SELECT ARRAY[i % 10, i], int4range(i, i + 5) FROM generate_series(1, 100) i;
    CREATE TABLE \"Odd.schema\".\"k \"\"quoted\" (\"the id\" int PRIMARY KEY, \"select\" text);
    INSERT INTO \"Odd.schema\".\"k \"\"quoted\" SELECT i, E'tab\\t\\\\ \\n' FROM generate_series(1, 100) i;
    CREATE TABLE k_identity (a int NOT NULL, b int NOT NULL, body text);
    CREATE UNIQUE INDEX k_identity_b ON k_identity (b);
    ALTER TABLE k_identity REPLICA IDENTITY USING INDEX k_identity_b;
    INSERT INTO k_identity SELECT i, 100 - i, 'x' FROM generate_series(1, 100) i;
    CREATE TABLE k_full (id int PRIMARY KEY, v int);
    ALTER TABLE k_full REPLICA IDENTITY FULL;
    INSERT INTO k_full SELECT i, i FROM generate_series(1, 100) i;
    CREATE TABLE k_parent (id int PRIMARY KEY, v int);
    CREATE TABLE k_child (PRIMARY KEY (id)) INHERITS (k_parent);
    INSERT INTO k_parent SELECT i, i FROM generate_series(1, 50) i;
    INSERT INTO k_child SELECT i, i FROM generate_series(1, 60) i;
    CREATE TABLE k_empty (id int PRIMARY KEY);
    CREATE TABLE k_nothing ();
";

/// Nondeterministic collations.
const SETUP_12: &str = "
    CREATE COLLATION ci (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
    CREATE TABLE k_ci (id text COLLATE ci PRIMARY KEY);
    INSERT INTO k_ci SELECT CASE i % 2 WHEN 0 THEN 'Key' ELSE 'kEY' END || i FROM generate_series(1, 100) i;
";

/// Partitions, published by their root.
const SETUP_13: &str = "
    CREATE TABLE k_parts (id int, day date, PRIMARY KEY (day, id)) PARTITION BY RANGE (day);
    CREATE TABLE k_parts_1 PARTITION OF k_parts FOR VALUES FROM ('2024-01-01') TO ('2024-02-01');
    CREATE TABLE k_parts_2 PARTITION OF k_parts FOR VALUES FROM ('2024-02-01') TO ('2025-01-01');
    INSERT INTO k_parts SELECT i, '2024-01-01'::date + i FROM generate_series(0, 99) i;
";

/// The operators of `citext` are found without a `search_path` that would change how a `regclass` is written.
#[tokio::test]
async fn values_are_written_alike_whatever_the_key() {
    let postgres = server().await;
    let setup = "CREATE EXTENSION citext WITH SCHEMA public; CREATE TABLE other (id int PRIMARY KEY); \
                 CREATE TABLE k (id public.citext, n int, r regclass, PRIMARY KEY (id, n)); \
                 INSERT INTO k SELECT 'a' || i / 3, i % 3, 'public.other' FROM generate_series(0, 20) i";
    let mut bench = Bench::start(&postgres, setup, 4).await;
    bench.run().await;
    let names: Vec<_> = bench.consumer.tables["k"].values().map(|row| row[2].as_deref()).collect();
    assert_eq!(names, vec![Some("public.other"); 21]);
}

#[tokio::test]
async fn tables_of_any_key_are_read_once_and_whole() {
    let postgres = server().await;
    let setup = [SETUP, since(&postgres, 12, SETUP_12), since(&postgres, 13, SETUP_13)].concat();
    let mut bench = Bench::start(&postgres, &setup, 7).await;
    bench.run().await;
    for (table, rows) in [
        ("k_int", 101),
        ("k_pair", 100),
        ("k_uuid", 100),
        ("k_ci", 100),
        ("k_citext", 100),
        ("k_numeric", 102),
        ("k_bytea", 101),
        ("k_time", 101),
        ("k_char", 100),
        ("k_enum", 100),
        ("k_domain", 100),
        ("k_array", 100),
        ("k \"quoted", 100),
        ("k_identity", 100),
        ("k_full", 100),
        ("k_parts", 100),
        ("k_parent", 50),
        ("k_child", 60),
    ] {
        let missing = match table {
            "k_ci" => postgres.major() < 12,
            "k_parts" => postgres.major() < 13,
            _ => false,
        };
        if missing {
            continue;
        }
        let reads: Vec<_> = bench.consumer.events.iter().filter(|event| event.table == table).collect();
        assert!(reads.iter().all(|event| event.op == Op::Read), "{table}");
        assert_eq!(reads.len(), rows, "{table}: rows read");
        assert_eq!(bench.consumer.tables[table].len(), rows, "{table}: distinct rows");
    }
    assert!(bench.consumer.multisets.is_empty(), "every table has a key");
    assert_eq!(bench.dropped, 0);
    let states = bench.consumer.state.values().map(|json| serde_json::from_slice::<serde_json::Value>(json).unwrap());
    assert!(states.into_iter().all(|state| state["status"] == "done"));
}

#[tokio::test]
async fn the_next_chunk_starts_in_the_index_and_not_at_its_beginning() {
    let postgres = server().await;
    let client = session(&postgres.url("postgres")).await;
    let setup = "CREATE TABLE t (a int, b text, v text, PRIMARY KEY (a, b)); \
                 INSERT INTO t SELECT i, i, repeat('x', 100) FROM generate_series(1, 50000) i; ANALYZE t";
    client.batch_execute(setup).await.unwrap();
    let mut types = crate::types::TypeCatalog::default();
    let version = crate::sql::server_version(&client).await.unwrap();
    let oid = crate::sql::row(&client, "test", "SELECT 't'::regclass::oid").await.unwrap();
    let oid = crate::sql::text(&oid, 0).parse().unwrap();
    let shape = catalog::describe(&client, version, &mut types, oid, None).await.unwrap().unwrap();
    let key = shape.key.clone().unwrap();
    let last = vec![super::super::state::KeyText(b"40000".to_vec()), super::super::state::KeyText(b"40000".to_vec())];
    let which = super::super::statement::Which::After { key: &key, last: Some(&last), limit: 100 };
    let copy = super::super::statement::copy(&shape, &[], &which);
    let query = copy.strip_prefix("COPY (").unwrap().strip_suffix(") TO STDOUT").unwrap();
    let plan = crate::sql::rows(&client, "test", &format!("EXPLAIN {query}")).await.unwrap();
    let plan: Vec<&str> = plan.iter().map(|row| crate::sql::text(row, 0)).collect();
    let plan = plan.join("\n");
    assert!(
        plan.contains("Index Scan using t_pkey") && plan.contains("Index Cond: (ROW(a, b) > ROW(40000, "),
        "{plan}"
    );
    assert!(!plan.contains("Sort"), "{plan}");
}
