//! Each test feeds the checker by hand and compares with a real table: it must accept what is right and catch what is not.

use super::*;
use crate::Postgres;
use crate::lapin::BasicProperties;

fn event(sequence: u32, body: &str) -> Delivery {
    Delivery {
        message_id: format!("id-{sequence}"),
        exchange: "towpath".into(),
        routing_key: "db.public.t.x".into(),
        event_type: String::new(),
        headers: BTreeMap::from([("cloudEvents:sequence".to_owned(), format!("{sequence:04}"))]),
        body: body.as_bytes().to_vec(),
        redelivered: false,
        properties: BasicProperties::default(),
    }
}

fn insert(sequence: u32, id: u32, note: &str) -> Delivery {
    event(
        sequence,
        &format!(r#"{{"op":"insert","table":"public.t","key":{{"id":{id}}},"after":{{"id":{id},"note":"{note}"}}}}"#),
    )
}

fn truncate(sequence: u32) -> Delivery {
    event(sequence, r#"{"op":"truncate","table":"public.t"}"#)
}

/// The report after these events, against a table with these rows.
async fn check(ddl: &str, rows: &str, events: &[Delivery]) -> Report {
    check_on(&Postgres::start().await, ddl, rows, events).await
}

async fn check_on(postgres: &Postgres, ddl: &str, rows: &str, events: &[Delivery]) -> Report {
    postgres.sql(&format!("create table t ({ddl}); {rows}")).await;
    let client = postgres.client("postgres").await;
    let mut checker = Checker::new(&client, &["public.t"]).await;
    for event in events {
        checker.add(event);
    }
    checker.compare(&client).await.clone()
}

const KEYED: &str = "id int primary key, note text";

#[tokio::test]
async fn equal_rows_are_equal_and_duplicates_are_counted() {
    let events = [insert(1, 1, "a"), insert(2, 2, "b"), insert(1, 1, "a"), insert(2, 2, "b")];
    let report = check(KEYED, "insert into t values (1, 'a'), (2, 'b')", &events).await;
    assert_eq!((report.events, report.duplicates), (4, 2));
    assert_eq!((report.violations, report.differences), (vec![], vec![]));
}

#[tokio::test]
async fn a_generated_column_may_be_left_out() {
    let postgres = Postgres::start().await;
    if postgres.major() < 12 {
        return; // has no generated columns
    }
    let ddl = "id int primary key, note text, twice int generated always as (id * 2) stored";
    let report = check_on(&postgres, ddl, "insert into t values (1, 'a')", &[insert(1, 1, "a")]).await;
    assert_eq!(report.differences, Vec::<String>::new());
}

#[tokio::test]
async fn a_lost_event_an_invented_row_and_a_wrong_value_are_found() {
    let events = [insert(1, 1, "a"), insert(2, 2, "b"), insert(3, 3, "c")];
    let report = check(KEYED, "insert into t values (1, 'a'), (2, 'B'), (4, 'd')", &events).await;
    assert_eq!(
        report.differences,
        [
            "public.t (2): note: database B, consumer b",
            "public.t (3): 1 too many at the consumer",
            "public.t (4): 1 missing at the consumer",
        ]
    );
}

#[tokio::test]
async fn two_contents_under_one_id_and_a_key_out_of_order_are_violations() {
    let mut altered = insert(1, 1, "a");
    altered.body = insert(1, 1, "x").body;
    let report = check(KEYED, "insert into t values (1, 'c')", &[insert(1, 1, "a"), altered]).await;
    assert_eq!(report.violations, ["(4) id-1: two contents under one id"]);

    let report = check(KEYED, "", &[insert(3, 1, "c"), insert(2, 1, "b")]).await;
    assert_eq!(report.violations, ["(5) id-2: public.t id=1: sequence 0002 came after 0003"]);
}

#[tokio::test]
async fn unavailable_values_are_carried_over() {
    let update =
        event(2, r#"{"op":"update","table":"public.t","key":{"id":1},"after":{"id":1},"unavailable":["note"]}"#);
    let report = check(KEYED, "insert into t values (1, 'a')", &[insert(1, 1, "a"), update.clone()]).await;
    assert_eq!(report.differences, Vec::<String>::new());

    let report = check(KEYED, "insert into t values (1, 'a')", &[update]).await;
    assert_eq!(report.differences, ["public.t (1): note: database a, consumer (never came)"]);
}

#[tokio::test]
async fn a_moved_row_keeps_its_unavailable_values_in_whichever_order_its_halves_come() {
    let leaves =
        |sequence| event(sequence, r#"{"op":"delete","table":"public.t","key":{"id":1},"tx":"7","moved_to":{"id":2}}"#);
    let comes = |sequence| {
        let body = r#"{"op":"insert","table":"public.t","key":{"id":2},"after":{"id":2},"unavailable":["note"],"tx":"7","moved_from":{"id":1}}"#;
        event(sequence, body)
    };
    let again =
        event(4, r#"{"op":"update","table":"public.t","key":{"id":2},"after":{"id":2},"unavailable":["note"]}"#);
    for order in [
        vec![insert(1, 1, "a"), leaves(2), comes(3), again.clone()],
        vec![insert(1, 1, "a"), comes(3), again.clone(), leaves(2)],
        vec![comes(3), insert(1, 1, "a"), leaves(2), again],
    ] {
        let report = check(KEYED, "insert into t values (2, 'a')", &order).await;
        assert_eq!((report.violations, report.differences), (vec![], vec![]), "{order:?}");
    }
}

#[tokio::test]
async fn a_truncate_removes_what_is_older_whenever_that_comes() {
    let events = [insert(1, 1, "a"), truncate(3), insert(2, 2, "b"), insert(4, 3, "c")];
    let report = check(KEYED, "insert into t values (3, 'c')", &events).await;
    assert_eq!(report.differences, Vec::<String>::new());
    assert_eq!(report.overtaken_by_truncate, 1);
}

#[tokio::test]
async fn rows_without_a_key_are_counted() {
    let add = |sequence, note: &str| {
        event(sequence, &format!(r#"{{"op":"insert","table":"public.t","after":{{"note":"{note}"}}}}"#))
    };
    let change = event(4, r#"{"op":"update","table":"public.t","before":{"note":"a"},"after":{"note":"b"}}"#);
    let remove = event(5, r#"{"op":"delete","table":"public.t","before":{"note":"a"}}"#);
    let events = [add(1, "a"), add(2, "a"), add(3, "a"), change, remove];
    let report = check("note text", "insert into t values ('a'), ('b')", &events).await;
    assert_eq!((report.violations, report.differences), (vec![], vec![]));
    let report = check("note text", "insert into t values ('a'), ('a')", &events).await;
    assert_eq!(
        report.differences,
        ["public.t (a): 1 missing at the consumer", "public.t (b): 1 too many at the consumer"]
    );
}
