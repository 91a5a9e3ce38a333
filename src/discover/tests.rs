//! What is guessed of tables, and that the config that is written is one.

use std::sync::Arc;

use proptest::prelude::*;
use towpath_contract::{Batch, Column, KeyKind, Kind, Op, Position, TableSchema, Transaction, Value};

use super::*;
use crate::config::{Environment, Purpose, Syntax, load_text};

fn sampled(name: &str, columns: &[(&str, Kind, &str, bool)], rows: &[Vec<Option<String>>]) -> Sampled {
    let column = |(name, kind, type_name, key): &(&str, Kind, &str, bool)| Column {
        name: (*name).into(),
        kind: kind.clone(),
        type_name: (*type_name).into(),
        key: *key,
    };
    let key = if columns.iter().any(|column| column.3) { KeyKind::Columns } else { KeyKind::None };
    let table = TableSchema::new("public".into(), name.into(), columns.iter().map(column).collect(), key);
    let shared = Arc::new(table.clone());
    let mut batch = Batch::new();
    batch.begin_transaction(Transaction::default());
    for row in rows {
        let values = row.iter().map(|value| value.as_ref().map_or(Value::Null, |text| Value::Data(text.as_bytes())));
        batch.change(Op::Read, &shared, Position::from_bytes(&[0]).expect("short")).after(values);
    }
    Sampled::new(table, Ok(batch))
}

fn customers() -> Sampled {
    let row = |n: usize| -> Vec<Option<String>> {
        [
            n.to_string(),
            format!("{:10}", ["Jane", "MÃ¼ller"][n % 2]),
            ["A", "S", "X"][n % 3].to_owned(),
            if n.is_multiple_of(5) { "0".into() } else { format!("124{:02}{:02}", 1 + n % 12, 1 + n % 28) },
            format!("c{n}@example.com"),
            format!("{:8}", if n.is_multiple_of(2) { "" } else { "0958" }),
            (10_000_000 + n * 7919).to_string(),
        ]
        .map(Some)
        .into()
    };
    let columns = [
        ("CUSNO", Kind::Int, "integer", true),
        ("cusnam", Kind::Text, "character(10)", false),
        ("cussts", Kind::Text, "character(1)", false),
        ("cussin", Kind::Int, "numeric(7,0)", false),
        ("contact", Kind::Text, "text", false),
        ("phone", Kind::Text, "character(8)", false),
        ("amount", Kind::Int, "integer", false),
    ];
    sampled("custmst", &columns, &(0..60).map(row).collect::<Vec<_>>())
}

fn lines() -> Sampled {
    let columns = [("CUSNO", Kind::Int, "integer", true), ("LINE", Kind::Int, "integer", true)];
    sampled("cust.lines", &columns, &[])
}

/// As a person would who finds every guess right.
fn uncommented(page: &str) -> String {
    page.lines()
        .map(|line| {
            line.replace("# transform:", "transform:")
                .replace("# aggregate:", "aggregate:")
                .replace("      # - ", "      - ")
                + "\n"
        })
        .collect()
}

fn check(text: &str) -> Result<crate::config::Checked, Vec<String>> {
    let variables = [("LEGACY_URL", "postgres://app@db.example/x"), ("RABBITMQ_URL", "amqp://app:pw@mq.example")];
    load_text(text, Syntax::Yaml, &Environment::of(variables), Purpose::Ask)
        .map_err(|problems| problems.iter().map(|placed| placed.problem.message.clone()).collect())
}

#[test]
fn a_legacy_table_is_understood_with_evidence() {
    let all = [customers(), lines()];
    let page = page("legacy", "postgres", "${LEGACY_URL}", &["public.*".into()], &all);
    insta::assert_snapshot!("discovered", page);
    let as_it_is = check(&page).expect("what is written is a config");
    let steps = |checked: &crate::config::Checked| {
        checked.routes[0].steps.iter().map(|step| step.name()).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(steps(&as_it_is), "trim");
    let all_right = check(&uncommented(&page)).expect("and with all guesses, too");
    assert_eq!(steps(&all_right), "trim charset_repair null_if legacy_date decode mask");
}

#[test]
fn numbers_that_are_no_dates_are_left_alone() {
    for (name, values, form) in [
        ("paid_on", ["20240229", "20231231", "19991231", "20240101", "20240102"], Some("yyyymmdd")),
        ("amount", ["20240230", "20231231", "19991231", "20240101", "20240102"], None),
        ("due", ["290101", "300101", "991231", "000229", "010101"], Some("cyymmdd")),
        ("due", ["290101", "300101", "991232", "000229", "010101"], None),
        ("order_no", ["290101", "300101", "991231", "000229", "010101"], None),
        ("start_dt", ["2024001", "2024366", "1999365", "2001001", "2001002"], Some("yyyyddd")),
    ] {
        assert_eq!(dates::form(name, values.into_iter()), form, "{name} {values:?}");
    }
}

proptest! {
    /// Whatever tables are called and hold.
    #[test]
    fn what_is_written_is_always_a_config(
        names in proptest::collection::btree_set("\\PC{1,12}|[a-z]{1,8}|true|12|a: b|# c|- d", 1..5),
        values in proptest::collection::vec("\\PC{0,8}|[AB]|20240229|0| {1,4}|a@b.c|Ã¼", 40),
        table in "\\PC{1,12}|[a-z_]{1,9}",
        kind in prop_oneof![Just(Kind::Text), Just(Kind::Int), Just(Kind::Other), Just(Kind::Date)],
    ) {
        let columns: Vec<_> = names.iter().enumerate().map(|(at, name)| (name.as_str(), kind.clone(), "t", at == 0)).collect();
        let rows: Vec<Vec<Option<String>>> =
            values.iter().map(|value| columns.iter().map(|_| Some(value.clone())).collect()).collect();
        let all = [sampled(&table, &columns, &rows)];
        let page = page("legacy", "postgres", "${LEGACY_URL}", &["*.*".into()], &all);
        for text in [page.clone(), uncommented(&page)] {
            let checked = check(&text);
            prop_assert!(checked.is_ok(), "{:?}\n{text}", checked.err());
        }
    }
}
