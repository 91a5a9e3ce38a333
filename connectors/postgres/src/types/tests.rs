//! Types and values against a real server.

use std::sync::Arc;

use towpath_test_support::Postgres;

use super::*;
use crate::testing::{server, session};
use crate::value::canonical;

async fn resolved(client: &Client, types: &mut TypeCatalog, type_name: &str) -> Arc<TypeInfo> {
    let query = format!("SELECT {}::regtype::oid", sql::literal(type_name));
    let row = sql::row(client, "test", &query).await.unwrap();
    types.resolve(client, sql::text(&row, 0).parse().unwrap(), -1, None).await.unwrap()
}

#[tokio::test]
async fn the_names_of_built_in_types_are_the_servers_own() {
    let postgres = server().await;
    let client = session(&postgres.url("postgres")).await;
    // Modifiers as columns have them, and none.
    let query = "SET search_path = ''; SELECT t.oid, m, format_type(t.oid, m) FROM pg_type t, unnest(ARRAY[-1, 0, 3, 6, 7, 24, \
                 786438, 655362 + 4, (5 << 16 | 2043) + 4, (1000 << 16) + 4]) m WHERE t.oid < 10000 AND t.typtype <> 'p' \
                 AND (m = -1 OR t.oid NOT IN (1186, 1187))";
    let mut known = 0;
    for row in sql::rows(&client, "test", query).await.unwrap() {
        let (oid, modifier) = (sql::text(&row, 0).parse().unwrap(), sql::text(&row, 1).parse().unwrap());
        // The header's length is part of some modifiers, and only numeric's are large.
        let (with_header, numeric) = ([1042, 1043, 1014, 1015].contains(&oid), [1231, 1700].contains(&oid));
        let plausible =
            if numeric { modifier > 8 } else { modifier < 8 && !(with_header && (0..5).contains(&modifier)) };
        let plausible = plausible || modifier == -1;
        // A scale below zero came with PostgreSQL 15.
        let plausible = plausible && (postgres.major() >= 15 || modifier != (5 << 16 | 2043) + 4);
        if let Some(info) = builtin(oid, modifier).filter(|_| plausible) {
            assert_eq!(info.name, sql::text(&row, 2), "oid {oid}, modifier {modifier}");
            known += 1;
        }
    }
    assert!(known > 150, "{known} names compared");
}

#[tokio::test]
async fn types_of_the_users_own_are_followed_to_what_they_are() {
    let postgres = server().await;
    let client = session(&postgres.url("postgres")).await;
    client
        .batch_execute(
            "CREATE EXTENSION citext; CREATE EXTENSION hstore; CREATE EXTENSION ltree; CREATE SCHEMA s; \
             CREATE DOMAIN s.money AS numeric(12,2); CREATE DOMAIN s.price AS s.money CHECK (value > 0); \
             CREATE DOMAIN s.path AS int[]; CREATE TYPE s.mood AS ENUM ('sad', 'ok'); CREATE TYPE s.pair AS (a int, b text); \
             CREATE TYPE s.span AS RANGE (subtype = float8); CREATE DOMAIN s.flag AS boolean; CREATE TABLE gone (v s.mood)",
        )
        .await
        .unwrap();
    let mut types = TypeCatalog::default();
    let array = |kind: Kind| Kind::Array(Box::new(kind));
    for (name, kind, written) in [
        ("s.price", Kind::Decimal, "s.price"),
        ("s.flag", Kind::Bool, "s.flag"),
        ("s.price[]", array(Kind::Decimal), "s.price[]"),
        ("s.path", array(Kind::Int), "s.path"),
        ("s.path[]", array(array(Kind::Int)), "s.path[]"),
        ("s.mood", Kind::Other, "s.mood"),
        ("s.mood[]", array(Kind::Other), "s.mood[]"),
        ("s.pair[]", array(Kind::Other), "s.pair[]"),
        ("s.span", Kind::Other, "s.span"),
        ("public.citext", Kind::Other, "public.citext"),
        ("public.hstore", Kind::Other, "public.hstore"),
        ("public.ltree[]", array(Kind::Other), "public.ltree[]"),
        ("int2vector", Kind::Other, "int2vector"),
        ("public.gone", Kind::Other, "public.gone"),
        ("box[]", array(Kind::Other), "box[]"),
    ] {
        // Arrays of domains came with PostgreSQL 11.
        if postgres.major() < 11 && ["s.price[]", "s.path[]"].contains(&name) {
            continue;
        }
        let info = resolved(&client, &mut types, name).await;
        assert_eq!((&info.kind, info.name.as_str()), (&kind, written), "{name}");
    }

    let mood = sql::row(&client, "test", "SELECT 's.mood'::regtype::oid").await.unwrap();
    let mood: u32 = sql::text(&mood, 0).parse().unwrap();
    client.batch_execute("DROP TABLE public.gone; DROP TYPE s.mood").await.unwrap();
    let known = types.resolve(&client, mood, -1, None).await.unwrap();
    assert_eq!(known.name, "s.mood", "what was learnt stays");
    let mut types = TypeCatalog::default();
    assert_eq!(types.resolve(&client, mood, -1, Some("s.mood")).await.unwrap().name, "s.mood");
    let mut types = TypeCatalog::default();
    let info = types.resolve(&client, mood, -1, None).await.unwrap();
    assert_eq!((info.kind.clone(), info.name.clone()), (Kind::Other, format!("oid {mood}")));
}

/// Type, and an expression that gives a value of it for a row `i` with `r` between 0 and 1, `h` 32 random characters.
const RANDOM: &[(&str, &str)] = &[
    ("boolean", "r > 0.5"),
    ("smallint", "(r * 65535 - 32768)::int2"),
    ("integer", "(r * 4294967295 - 2147483648)::int4"),
    (
        "bigint",
        "CASE i % 3 WHEN 0 THEN (r * 1e6)::int8 WHEN 1 THEN -9223372036854775807 - 1 ELSE 9007199254740990 + i % 5 END",
    ),
    ("oid", "(r * 4294967295)::int8::oid"),
    (
        "numeric",
        "CASE i % 4 WHEN 0 THEN 'NaN' WHEN 1 THEN (repeat('9', i * 5) || '.' || repeat('01', i))::numeric ELSE (r * 1e6)::numeric END",
    ),
    ("numeric(12,2)", "((r - 0.5) * 1e9)::numeric(12,2)"),
    ("real", "CASE i % 5 WHEN 0 THEN 'NaN' WHEN 1 THEN '-Infinity' ELSE ((r - 0.5) * 10 ^ (i % 60 - 30))::float4 END"),
    (
        "double precision",
        "CASE i % 5 WHEN 0 THEN 'NaN' WHEN 1 THEN 'Infinity' WHEN 2 THEN '-0' ELSE (r - 0.5) * 10 ^ (i % 600 - 300) END",
    ),
    (
        "text",
        "CASE i % 4 WHEN 0 THEN '' WHEN 1 THEN E'tab\\t new\\n \\\\ \" \\' {},' || h ELSE h || chr(128 + i * 97) END",
    ),
    ("character(40)", "h::char(40)"),
    ("character varying(50)", "h"),
    ("name", "h::name"),
    ("\"char\"", "substr(h, 1, 1)::\"char\""),
    ("bytea", "CASE i % 3 WHEN 0 THEN ''::bytea ELSE decode(substr(h, 1, i % 16 * 2), 'hex') END"),
    (
        "date",
        "CASE i % 6 WHEN 0 THEN 'infinity' WHEN 1 THEN '-infinity' WHEN 2 THEN '0044-03-15 BC' WHEN 3 THEN '12345-06-07' ELSE '2000-01-01'::date + (r * 1e5)::int END::date",
    ),
    ("time without time zone", "CASE i % 9 WHEN 0 THEN '24:00' ELSE '00:00'::time + r * interval '23 hours' END::time"),
    (
        "time with time zone",
        "CASE i % 4 WHEN 0 THEN '01:02:03+00' WHEN 1 THEN '01:02:03.5-05:30' WHEN 2 THEN '01:02:03+01:02:03' ELSE '23:59:59.999999+14' END::timetz",
    ),
    (
        "timestamp without time zone",
        "CASE i % 7 WHEN 0 THEN 'infinity' WHEN 1 THEN '-infinity' WHEN 2 THEN '0044-03-15 12:00:00.5 BC' WHEN 3 THEN '123456-06-07 01:02:03' ELSE '0500-01-01'::timestamp + r * interval '9000 years' END::timestamp",
    ),
    (
        "timestamp with time zone",
        "CASE i % 7 WHEN 0 THEN 'infinity' WHEN 1 THEN '-infinity' WHEN 2 THEN '4000-03-15 12:00:00.5+03 BC' WHEN 3 THEN '99999-06-07 01:02:03-08' ELSE '0500-01-01Z'::timestamptz + r * interval '9000 years' END::timestamptz",
    ),
    (
        "interval",
        "(r - 0.5) * interval '20 years 3 months 100 days 1000 hours' + (i - 50) * interval '1 month -7 days 1.000001 seconds'",
    ),
    ("uuid", "h::uuid"),
    ("json", "('{\"a\" : ' || r || ', \"b\": [null, \"' || h || '\"], \"a\":1.0}')::json"),
    ("jsonb", "jsonb_build_object('k', h, 'n', r)"),
    ("inet", "('10.1.2.' || i % 256)::inet"),
    ("money", "(r * 1e6)::numeric::money"),
    ("point", "point(r, -r)"),
    ("int4range", "int4range(i, i + 3)"),
    ("bit(8)", "(i % 256)::bit(8)"),
    ("tsvector", "to_tsvector('simple', h)"),
    ("pg_lsn", "'16/B374D848'::pg_lsn"),
];

async fn rows_of(postgres: &Postgres, expression: &str, type_name: &str) -> Vec<(Vec<u8>, String)> {
    let client = session(&postgres.url("postgres")).await;
    let query = format!(
        "SELECT setseed(0.42); SELECT v::text, quote_literal(v::text), v FROM (SELECT ({expression})::{type_name} AS v FROM ( \
         SELECT i, random() AS r, md5(random()::text) AS h FROM generate_series(1, 100) i) AS dice) AS x"
    );
    let rows = sql::rows(&client, "test", &query).await.unwrap_or_else(|error| panic!("{type_name}: {error}"));
    // The first row is the seed's. The third column is what the type's output function writes: `char(n)::text` is cut.
    rows[1..].iter().map(|row| (sql::text(row, 2).as_bytes().to_vec(), sql::text(row, 1).to_owned())).collect()
}

#[tokio::test]
async fn canonical_values_are_read_back_as_the_same_by_the_server() {
    let postgres = server().await;
    let client = session(&postgres.url("postgres")).await;
    let mut types = TypeCatalog::default();
    for (type_name, expression) in RANDOM {
        let info = resolved(&client, &mut types, type_name).await;
        for (text, literal) in rows_of(&postgres, expression, type_name).await {
            let mut bytes = Vec::new();
            canonical(&info.plan, &text, &mut bytes).unwrap_or_else(|error| panic!("{type_name}: {text:?}: {error}"));
            let back = match info.kind {
                Kind::Bytes => {
                    format!("decode('{}', 'hex')", bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>())
                }
                _ => sql::literal(std::str::from_utf8(&bytes).unwrap()),
            };
            let query = format!("SELECT {back}::{type_name}::text = {literal}");
            let row = sql::row(&client, "test", &query).await.unwrap_or_else(|error| panic!("{query}: {error}"));
            assert!(sql::is_true(&row, 0), "{query}");
        }
    }
}

#[tokio::test]
async fn arrays_of_every_type_are_json_whose_elements_are_the_same_values() {
    let postgres = server().await;
    let client = session(&postgres.url("postgres")).await;
    let mut types = TypeCatalog::default();
    for (type_name, expression) in RANDOM {
        let info = resolved(&client, &mut types, &format!("{type_name}[]")).await;
        let single = resolved(&client, &mut types, type_name).await;
        let query = format!(
            "SELECT setseed(0.42); SELECT v, ARRAY[[v, NULL], [v, v]], ARRAY[]::{type_name}[], ('[7:8]={{NULL,NULL}}')::{type_name}[] \
             FROM (SELECT ({expression})::{type_name} AS v FROM ( \
             SELECT i, random() AS r, md5(random()::text) AS h FROM generate_series(1, 100) i) AS dice) AS x"
        );
        for row in &sql::rows(&client, "test", &query).await.unwrap_or_else(|error| panic!("{type_name}: {error}"))[1..]
        {
            let json = |column| {
                let mut bytes = Vec::new();
                canonical(&info.plan, sql::text(row, column).as_bytes(), &mut bytes)
                    .unwrap_or_else(|e| panic!("{type_name}: {e}"));
                serde_json::from_slice::<serde_json::Value>(&bytes).unwrap_or_else(|e| panic!("{type_name}: {e}"))
            };
            let mut element = Vec::new();
            canonical(&single.plan, sql::text(row, 0).as_bytes(), &mut element).unwrap();
            let found = json(1);
            assert_eq!(
                (&found[0][1], &found[1][0], &found[1][1]),
                (&serde_json::Value::Null, &found[0][0], &found[0][0])
            );
            let text = String::from_utf8_lossy(&element).into_owned();
            let expected = match &single.kind {
                Kind::Bool | Kind::Json => serde_json::from_slice(&element).unwrap(),
                Kind::Float => serde_json::from_slice(&element).unwrap_or(serde_json::Value::from(text)),
                Kind::Int => match text.parse::<i64>() {
                    Ok(number) if number.unsigned_abs() < 1 << 53 => number.into(),
                    _ => text.into(),
                },
                Kind::Bytes => base64::Engine::encode(&base64::engine::general_purpose::STANDARD, &element).into(),
                _ => text.into(),
            };
            assert_eq!(found[0][0], expected, "{type_name}");
            assert_eq!(json(2), serde_json::json!([]));
            assert_eq!(json(3), serde_json::json!("[7:8]={NULL,NULL}"));
        }
    }
}
