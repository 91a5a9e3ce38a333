//! Rows by the values of some columns: the database compares.

use towpath_contract::{ErrorKind, Found, Lookup};

use super::*;
use crate::snapshot::look_up;

fn wanted(table: &str, columns: &[&str], keys: &[&[&str]]) -> Lookup {
    let key = |key: &&[&str]| key.iter().map(|value| value.as_bytes().to_vec()).collect();
    Lookup {
        schema: "public".into(),
        table: table.into(),
        columns: columns.iter().map(|name| (*name).to_owned()).collect(),
        keys: keys.iter().map(key).collect(),
    }
}

/// Of each row the key that it was found by, and its first value.
fn seen(found: &Found) -> Vec<(usize, String)> {
    let first = |change: towpath_contract::Change<'_>| match change.after().map(|row| row.value(0)) {
        Some(Value::Data(bytes)) => String::from_utf8_lossy(bytes).into_owned(),
        other => panic!("{other:?}"),
    };
    found.keys.iter().copied().zip(found.rows.changes().map(first)).collect()
}

fn pairs(expected: &[(usize, &str)]) -> Vec<(usize, String)> {
    expected.iter().map(|(key, first)| (*key, (*first).to_owned())).collect()
}

#[tokio::test]
async fn rows_are_found_as_the_database_compares() {
    let postgres = server().await;
    let client = session(&postgres.url("postgres")).await;
    let setup = "CREATE EXTENSION citext WITH SCHEMA public;
        CREATE TYPE public.state AS ENUM ('new', 'done');
        CREATE DOMAIN public.code AS varchar(20);
        CREATE TABLE line (id int PRIMARY KEY, head numeric, \"~n\" int, n int, word public.citext, state public.state, padded char(5), code public.code);
        INSERT INTO line VALUES (3, 1.0, 0, 0, 'Key', 'new', 'A', 'it''s \\'), (1, 1, 0, 0, 'kEY', 'done', 'B', 'x'), (2, 2, 0, 0, NULL, 'new', 'A', 'x');
        CREATE VIEW seen AS SELECT id, head FROM line";
    client.batch_execute(setup).await.expect("a new database");
    for (columns, keys, expected) in [
        // In the order of the keys, then of the table's own key; whatever the scale is.
        (&["head"][..], &[&["2.00"][..], &["1"], &["7"]][..], &[(0, "2"), (1, "1"), (1, "3")][..]),
        (&["word"], &[&["KEY"]], &[(0, "1"), (0, "3")]),
        (&["state"], &[&["done"]], &[(0, "1")]),
        (&["padded", "head"], &[&["A    ", "1"]], &[(0, "3")]),
        (&["code"], &[&["it's \\"]], &[(0, "3")]),
        (&["~n"], &[&["0"]], &[(0, "1"), (0, "2"), (0, "3")]),
    ] {
        let found = look_up(&client, "none", &wanted("line", columns, keys)).await.expect("it is there");
        assert_eq!(seen(&found), pairs(expected), "{columns:?}");
        assert_eq!((found.table.name.as_str(), found.table.columns.len()), ("line", 8));
    }
    let found = look_up(&client, "none", &wanted("seen", &["id"], &[&["2"]])).await.expect("a view will do");
    assert_eq!(seen(&found), pairs(&[(0, "2")]));
    let found = look_up(&client, "none", &wanted("line", &["head"], &[])).await.expect("no key, no row");
    assert_eq!((found.rows.len(), found.table.columns.len()), (0, 8));
}

#[tokio::test]
async fn what_is_not_there_and_what_is_too_much_is_said() {
    let postgres = server().await;
    let client = session(&postgres.url("postgres")).await;
    let setup =
        "CREATE TABLE wide (id int PRIMARY KEY, head int, body text); ALTER TABLE wide ALTER body SET STORAGE EXTERNAL;
        INSERT INTO wide SELECT i, i % 2, repeat('wide ', 2000000) FROM generate_series(1, 14) i";
    client.batch_execute(setup).await.expect("a new database");
    for (lookup, kind) in [
        (wanted("none", &["id"], &[]), ErrorKind::Setup),
        (wanted("wide", &["ID"], &[&["1"]]), ErrorKind::Setup),
        (wanted("wide", &["head"], &[&["0"], &["1"]]), ErrorKind::Limit),
    ] {
        let error = look_up(&client, "none", &lookup).await.expect_err("it cannot be found");
        assert_eq!(error.kind, kind, "{error}");
    }
    // Before any row is wanted.
    client.batch_execute("CREATE ROLE nobody LOGIN").await.expect("a role");
    let nobody = session(&postgres.url_as("nobody", "postgres")).await;
    let error = look_up(&nobody, "none", &wanted("wide", &["id"], &[])).await.expect_err("it may not read");
    let statement = "GRANT SELECT ON \"public\".\"wide\" TO \"nobody\";";
    assert!(error.kind == ErrorKind::Privilege && error.to_string().contains(statement), "{error}");
    // The same session, and fewer keys.
    let found = look_up(&client, "none", &wanted("wide", &["id"], &[&["3"]])).await.expect("the session works");
    assert_eq!(found.keys, [0]);
}
