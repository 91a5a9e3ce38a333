//! What a route's steps do to whole events.

use std::sync::Arc;

use proptest::prelude::*;
use towpath_contract::{Batch, Column, KeyKind, Kind, Op, Position, TableSchema, Transaction, Value};

use super::Router;
use super::matching::RouteFrom;
use super::plan::{EventForm, OnError, Place, Route, Unfit};
use super::related::Relations;
use super::transform::examples::step;
use crate::event::{EventBatch, RouteId};

pub(super) fn customers() -> Arc<TableSchema> {
    let column =
        |name: &str, kind, type_name: &str, key| Column { name: name.into(), kind, type_name: type_name.into(), key };
    let columns = vec![
        column("CUST_NO", Kind::Text, "character(12)", true),
        column("EMAIL", Kind::Text, "text", false),
        column("STATUS", Kind::Text, "character(2)", false),
        column("SINCE", Kind::Int, "integer", false),
    ];
    Arc::new(TableSchema::new("public".into(), "customers".into(), columns, KeyKind::Columns))
}

pub(super) fn route(from: &str, steps: &[&str]) -> Route {
    Route {
        id: RouteId(1),
        name: "customers".into(),
        from: RouteFrom::parse(from).expect("valid"),
        event: EventForm::new("towpath"),
        steps: steps.iter().map(|yaml| step(yaml)).collect(),
        relations: Relations::default(),
        on_error: OnError::default(),
    }
}

fn batch(table: &Arc<TableSchema>, rows: &[(Op, [Option<&str>; 4])]) -> Batch {
    let mut batch = Batch::new();
    batch.begin_transaction(Transaction { id: "7".into(), commit_time_us: 1 });
    for (nth, (op, row)) in rows.iter().enumerate() {
        let values = row.iter().map(|value| value.map_or(Value::Unavailable, |text| Value::Data(text.as_bytes())));
        let change = batch.change(*op, table, Position::from_bytes(&[nth as u8]).expect("short"));
        if *op == Op::Delete {
            change.before(values)
        } else {
            change.after(values)
        };
    }
    batch
}

pub(super) fn routed(batch: &Batch, route: Route) -> Result<EventBatch, Unfit> {
    let mut events = EventBatch::new();
    Router::new("db", &[route]).route("1-1", 0, batch, &mut events)?;
    Ok(events)
}

const STEPS: [&str; 6] = [
    "trim: [\"*\"]",
    "null_if: { SINCE: [\"0\"] }",
    "decode: { STATUS: { A: active, S: shipped } }",
    "legacy_date: { SINCE: yyyymmdd }",
    "mask: { EMAIL: { hmac: 0123456789abcdef } }",
    "rename: snake_case",
];

pub(super) fn body(events: &EventBatch, index: usize) -> String {
    String::from_utf8(events.get(index).body.to_vec()).expect("JSON")
}

#[test]
fn a_legacy_row_becomes_a_readable_event() {
    let table = customers();
    let rows = [
        (Op::Insert, [Some("K-7         "), Some("jane@example.com"), Some("A "), Some("20240229")]),
        (Op::Update, [Some("K-7         "), None, Some("S "), Some("0")]),
        (Op::Delete, [Some("K-7         "), None, None, None]),
    ];
    let batch = batch(&table, &rows);
    let events = routed(&batch, route("db.public.customers", &STEPS)).expect("the steps fit");
    let hmac = "f84dee15f4a2ba90cd3ca2b0ca1b3a5ec8bfbb1d2a9a2a9ad32b9ad1dcc3e02f";
    let inserted = body(&events, 0);
    let start = inserted.find(",\"key\"").expect("a key");
    let end = inserted.find(",\"tx\"").expect("a transaction");
    let shown = &inserted[start..end];
    let masked = shown.split("\"email\":\"").nth(1).and_then(|rest| rest.get(..64)).expect("64 digits");
    assert!(masked.bytes().all(|byte| byte.is_ascii_hexdigit()) && masked.len() == hmac.len());
    assert_eq!(
        shown.replace(masked, "…"),
        r#","key":{"cust_no":"K-7"},"after":{"cust_no":"K-7","email":"…","status":"active","since":"2024-02-29"}"#
    );
    assert!(
        body(&events, 1)
            .contains(r#""after":{"cust_no":"K-7","status":"shipped","since":null},"unavailable":["email"]"#)
    );
    assert!(body(&events, 2).contains(r#","key":{"cust_no":"K-7"},"tx""#));
    assert!((0..3).all(|index| events.get(index).parked.is_none() && events.get(index).key == r#"{"cust_no":"K-7"}"#));
    let plain = routed(&batch, route("db.public.customers", &[])).expect("no steps");
    assert!(events.iter().zip(plain.iter()).all(|(a, b)| a.key_hash == b.key_hash && a.id == b.id));
}

#[test]
fn a_value_that_a_step_cannot_be_done_on_parks_the_event_and_is_not_told() {
    let table = customers();
    let batch = batch(&table, &[(Op::Insert, [Some("K-7"), Some("a@b.c"), Some("Q?"), Some("20240231")])]);
    let events = routed(&batch, route("db.public.customers", &STEPS)).expect("the steps fit");
    let event = events.get(0);
    assert_eq!(event.parked, Some("transform[2] (`decode`) cannot be done on `STATUS`: the code is not in the list"));
    let body = body(&events, 0);
    assert!(body.contains(r#""status":"Q?","since":"20240231""#) && !body.contains("a@b.c"), "{body}");
}

#[test]
fn a_column_that_is_not_there_is_told_before_anything_is_made() {
    let batch = batch(&customers(), &[(Op::Insert, [Some("K-7"), None, None, None])]);
    let unfit = |from, steps| routed(&batch, route(from, steps)).map(|events| body(&events, 0));
    let error = unfit("db.public.customers", &["rename: snake_case", "trim: [cust_no, STATUS]"]).expect_err("renamed");
    assert_eq!(
        (error.place, error.fault.message.as_str()),
        (Place::Step(1), "at this step column `STATUS` of public.customers is called `status`")
    );
    let error = unfit("db.public.customers", &["trim: [STATUSS]"]).expect_err("unknown");
    assert_eq!(error.fault.message, "public.customers has no column `STATUSS`");
    assert!(error.fault.help.starts_with("did you mean `STATUS`?"), "{}", error.fault.help);
    let error = unfit("db.public.customers", &["trim: [SINCE]"]).expect_err("a number");
    assert_eq!(error.fault.message, "column `SINCE` is integer, and this step needs a text");
    for (from, steps) in
        [("db.public.customers", &["trim: [\"STATE?\", \"SINCE?\"]"]), ("db.public.*", &["trim: [STATE]"])]
    {
        unfit(from, steps).expect("they need not be there");
    }
}

/// In a route that takes many tables, where a column need not be there, a mask that comes too late would hide nothing.
#[test]
fn a_name_that_an_earlier_step_changed_is_told_wherever_it_is_written() {
    let batch = batch(&customers(), &[(Op::Insert, [Some("K-7"), None, None, None])]);
    let steps = ["rename: { EMAIL: mail }", "mask: { EMAIL: redact }"];
    let error = routed(&batch, route("db", &steps)).map(drop).expect_err("it hides nothing");
    assert_eq!(error.fault.message, "at this step column `EMAIL` of public.customers is called `mail`");
    let gone = ["drop: [EMAIL]", "mask: { EMAIL: redact }"];
    routed(&batch, route("db", &gone)).expect("nothing to hide");
}

/// A slip of the pen would hide nothing.
#[test]
fn a_name_that_no_table_of_a_pattern_has_is_told_before_anything_is_captured() {
    let tried = |steps: &[&str]| Router::new("db", &[route("db", steps)]).try_on(&[(*customers()).clone()]);
    let error = tried(&["mask: { EMIAL: redact }"]).expect_err("a typo");
    assert_eq!(error.fault.message, "no table that db.*.* takes has a column `EMIAL`");
    tried(&["mask: { \"EMIAL?\": redact }"]).expect("it need not be there");
    tried(&["mask: { EMAIL: redact }", "trim: [\"*\"]"]).expect("it is there");
    let error = tried(&["select: [ref, note]"]).expect_err("nothing is left");
    assert!(error.fault.message.starts_with("none of these columns"), "{}", error.fault.message);
}

#[test]
fn a_column_may_be_called_with_a_question_mark() {
    let column = |name: &str| Column { name: name.into(), kind: Kind::Text, type_name: "text".into(), key: false };
    let table =
        Arc::new(TableSchema::new("public".into(), "t".into(), vec![column("ssn"), column("ssn?")], KeyKind::None));
    let mut batch = Batch::new();
    batch.begin_transaction(Transaction { id: "7".into(), commit_time_us: 1 });
    let change = batch.change(Op::Insert, &table, Position::from_bytes(&[1]).expect("short"));
    change.after([Value::Data(b"open"), Value::Data(b"hidden")]);
    let events = routed(&batch, route("db.public.t", &["mask: { \"ssn?\": redact }"])).expect("it is there");
    assert!(body(&events, 0).contains(r#""after":{"ssn":"open","ssn?":"***"}"#), "{}", body(&events, 0));
}

/// Whatever a step makes of a key's type, what was recorded before it and after is of one key.
#[test]
fn a_key_of_another_type_is_the_same_key() {
    let column = Column { name: "id".into(), kind: Kind::Int, type_name: "bigint".into(), key: true };
    let table = Arc::new(TableSchema::new("public".into(), "t".into(), vec![column], KeyKind::Columns));
    let mut batch = Batch::new();
    batch.begin_transaction(Transaction { id: "7".into(), commit_time_us: 1 });
    batch.change(Op::Insert, &table, Position::from_bytes(&[1]).expect("short")).after([Value::Data(b"7")]);
    let hash = |steps: &[&str]| routed(&batch, route("db", steps)).expect("it fits").get(0).key_hash;
    for step in ["cast: { id: text }", "cast: { id: decimal }", "cast: { id: float }", "rename: { id: no }"] {
        assert_eq!(hash(&[step]), hash(&[]), "{step}");
    }
}

#[test]
fn two_columns_of_one_name_are_refused() {
    let batch = batch(&customers(), &[(Op::Insert, [Some("K-7"), None, None, None])]);
    let refused = |steps: &[&str]| routed(&batch, route("db", steps)).map(drop).expect_err("a clash").fault.message;
    assert_eq!(refused(&["rename: { EMAIL: STATUS }"]), "there is a column `STATUS` already");
    assert_eq!(refused(&["rename: { EMAIL: status }", "rename: snake_case"]), "two columns become `status`");
    routed(&batch, route("db", &["rename: { EMAIL: STATUS, STATUS: EMAIL }"])).expect("a swap");
}

proptest! {
    /// Whatever else is done, and whatever fails: what is masked is nowhere, and order and ids are those of the real key.
    #[test]
    fn what_is_masked_is_nowhere(
        mut order in Just(STEPS.iter().chain(&["mask: { CUST_NO: redact, STATUS: { keep_end: 0 } }"]).copied().take(5)
            .chain(["mask: { CUST_NO: redact, STATUS: { keep_end: 0 } }"]).collect::<Vec<_>>()).prop_shuffle(),
        key in "canary[a-z]{6} {0,3}",
        email in "canary[a-z]{6}",
        status in prop::option::of("canary[a-z]{2}|A|"),
        since in prop::option::of("[0-9]{8}"),
        op in prop::sample::select(vec![Op::Insert, Op::Update, Op::Delete, Op::Read]),
        renamed in any::<bool>(),
    ) {
        if renamed {
            order.push("rename: snake_case");
        }
        let table = customers();
        let row = [Some(key.as_str()), Some(&email), status.as_deref(), since.as_deref()];
        let batch = batch(&table, &[(op, row)]);
        let plain = routed(&batch, route("db", &[])).expect("no steps");
        // A text that became a date, or was decoded, can be masked; a masked one is of no other kind any more.
        let Ok(events) = routed(&batch, route("db", &order)) else { return Ok(()) };
        let (event, plain) = (events.get(0), plain.get(0));
        let everything = [event.id.as_bytes(), event.key.as_bytes(), event.properties, event.body,
            event.parked.unwrap_or_default().as_bytes()].concat();
        prop_assert!(!String::from_utf8_lossy(&everything).contains("canary"), "{}", String::from_utf8_lossy(&everything));
        prop_assert_eq!((event.id, event.key_hash), (plain.id, plain.key_hash));
    }
}
