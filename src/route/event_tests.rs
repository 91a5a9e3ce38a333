//! What consumers get, byte for byte. `TOWPATH_BLESS` is not needed here: insta's `INSTA_UPDATE=always` rewrites the files.

use std::fmt::Write as _;
use std::sync::Arc;

use amq_protocol::protocol::basic::parse_properties;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use serde_json::{Value as Json, json};
use towpath_contract::{Batch, Column, KeyKind, Kind, Op, Position, TableSchema, Transaction, Value};

use super::super::Router;
use super::super::matching::RouteFrom;
use super::super::plan::{EventForm, OnError, Route};
use super::super::related::Relations;
use crate::event::{EventBatch, RouteId};

fn column(name: &str, kind: Kind, key: bool) -> Column {
    Column { name: name.into(), kind, type_name: "any".into(), key }
}

fn orders() -> Arc<TableSchema> {
    let columns =
        vec![column("id", Kind::Int, true), column("note", Kind::Text, false), column("amount", Kind::Decimal, false)];
    Arc::new(TableSchema::new("public".into(), "orders".into(), columns, KeyKind::Columns))
}

fn route(id: u16, name: &str, from: &str) -> Route {
    Route {
        id: RouteId(id),
        name: name.into(),
        from: RouteFrom::parse(from).expect("valid"),
        event: EventForm::new("towpath"),
        steps: Vec::new(),
        relations: Relations::default(),
        on_error: OnError::default(),
    }
}

fn begin() -> Batch {
    let mut batch = Batch::new();
    batch.begin_transaction(Transaction { id: "743".into(), commit_time_us: 1_700_000_000_123_456 });
    batch
}

fn at(bytes: &[u8]) -> Position {
    Position::from_bytes(bytes).expect("short")
}

fn routed(batch: &Batch, routes: &[Route]) -> EventBatch {
    let mut events = EventBatch::new();
    Router::new("db", routes).route("7301-1", 0, batch, &mut events).expect("the steps fit");
    events
}

/// Everything a consumer sees of each event, as text.
fn shown(events: &EventBatch) -> String {
    let mut text = String::new();
    for event in events.iter() {
        let (_, properties) = parse_properties(event.properties).expect("well-formed properties");
        writeln!(text, "exchange {} routing key {}", event.exchange, event.routing_key).expect("text");
        writeln!(
            text,
            "  {:?} {:?} delivery {:?} at {:?} id {:?} app {:?}",
            properties.content_type().as_ref().expect("content type").as_str(),
            properties.kind().as_ref().expect("type").as_str(),
            properties.delivery_mode(),
            properties.timestamp(),
            properties.message_id().as_ref().expect("id").as_str(),
            properties.app_id().as_ref().expect("app").as_str(),
        )
        .expect("text");
        for (name, value) in properties.headers().as_ref().expect("headers") {
            let amq_protocol::types::AMQPValue::LongString(value) = value else { panic!("{name} is no string") };
            writeln!(text, "  {name}: {value}").expect("text");
        }
        writeln!(text, "  {}", String::from_utf8_lossy(event.body)).expect("text");
        serde_json::from_slice::<serde_json::Value>(event.body).expect("the body is JSON");
        if let Some(reason) = event.parked {
            writeln!(text, "  parked: {reason}").expect("text");
        }
    }
    text
}

#[test]
fn every_kind_of_change_has_its_golden_bytes() {
    let orders = orders();
    let (one, two) = (Value::Data(b"1"), Value::Data(b"2"));
    let gone = Value::Unavailable;
    let mut batch = begin();
    batch.change(Op::Insert, &orders, at(&[0, 1])).after([one, Value::Data(b"a \"b\"\n"), Value::Null]);
    batch.change(Op::Update, &orders, at(&[0, 2])).after([one, gone, Value::Data(b"12.50")]);
    batch.change(Op::Update, &orders, at(&[0, 3])).before([one, Value::Data(b"old"), Value::Null]).after([
        one,
        Value::Data(b"new"),
        Value::Null,
    ]);
    batch.change(Op::Delete, &orders, at(&[0, 4, 0])).before([one, gone, gone]).linked([two, gone, gone]);
    batch.change(Op::Insert, &orders, at(&[0, 4, 1])).after([two, gone, Value::Null]).linked([one, gone, gone]);
    batch.change(Op::Delete, &orders, at(&[0, 5])).before([two, Value::Data(b"x"), gone]);
    batch.change(Op::Truncate, &orders, at(&[0, 6]));
    batch.begin_transaction(Transaction { id: String::new(), commit_time_us: 1_700_000_001_000_000 });
    batch.change(Op::Read, &orders, at(&[0, 7])).after([one, Value::Data("é".as_bytes()), Value::Data(b"NaN")]);
    insta::assert_snapshot!(shown(&routed(&batch, &[route(1, "all", "db")])));
}

#[test]
fn the_widest_values_have_their_golden_bytes() {
    let kinds = [
        ("k1", Kind::Text, "k\u{1}ey"),
        ("big", Kind::Int, "-9223372036854775808"),
        ("dec", Kind::Decimal, "-0.00000000000000000000000000000000000001"),
        ("inf", Kind::Float, "-Infinity"),
        ("bc", Kind::TimestampTz, "0044-03-15 00:00:00+00 BC"),
        ("doc", Kind::Json, "{\"n\": 1.10, \"n\": [] }"),
        ("arr", Kind::Array(Box::new(Kind::Int)), "[1,null,\"9007199254740993\"]"),
        ("raw", Kind::Bytes, "\u{0}\u{7f}"),
        ("rng", Kind::Other, "[1,\"10\\\")"),
    ];
    let columns = kinds.iter().map(|(name, kind, _)| column(name, kind.clone(), *name == "k1")).collect();
    let table = Arc::new(TableSchema::new("we.ird".into(), "t\"é".into(), columns, KeyKind::Columns));
    let mut batch = begin();
    batch
        .change(Op::Insert, &table, at(&[255; 47]))
        .after(kinds.iter().map(|(_, _, text)| Value::Data(text.as_bytes())));
    insta::assert_snapshot!(shown(&routed(&batch, &[route(1, "all", "db")])));
}

#[test]
fn a_value_that_json_cannot_carry_is_parked_and_never_altered() {
    let mut batch = begin();
    batch.change(Op::Insert, &orders(), at(&[1])).after([Value::Data(b"1"), Value::Data(&[0xff]), Value::Null]);
    let events = routed(&batch, &[route(1, "all", "db")]);
    let event = events.get(0);
    assert!(event.parked.expect("parked").contains("column \"note\" holds bytes that are not UTF-8"));
    assert!(String::from_utf8_lossy(event.body).contains("\"note\":{\"$base64\":\"/w==\"}"));
}

#[test]
fn the_id_depends_on_the_change_and_not_on_the_config() {
    let mut batch = begin();
    batch.change(Op::Insert, &orders(), at(&[1])).after([Value::Data(b"1"), Value::Null, Value::Null]);
    let ids =
        |routes: &[Route]| -> Vec<String> { routed(&batch, routes).iter().map(|event| event.id.into()).collect() };
    assert_eq!(ids(&[route(1, "all", "db")]), ["db-7301-1-0000000001"]);
    assert_eq!(ids(&[route(9, "other", "db.public.*")]), ["db-7301-1-0000000001"]);
    assert_eq!(
        ids(&[route(1, "a", "db"), route(2, "b", "db.*.orders")]),
        ["db-7301-1-0000000001", "db-7301-1-0000000001-29622ee9"]
    );
    assert_eq!(ids(&[route(1, "a", "elsewhere"), route(2, "b", "db.public.customers")]), [""; 0]);
}

#[test]
fn a_routing_key_that_amqp_cannot_carry_parks_the_event() {
    let mut long = route(1, "all", "db");
    long.event.routing_key = "x".repeat(256);
    let mut batch = begin();
    batch.change(Op::Truncate, &orders(), at(&[1]));
    let events = routed(&batch, &[long]);
    assert_eq!(events.get(0).parked, Some("event.routing_key has 256 bytes for public.orders; AMQP allows 255"));
}

#[test]
fn order_is_kept_by_key_and_by_table_where_there_is_no_key() {
    let keyless =
        Arc::new(TableSchema::new("public".into(), "log".into(), orders().columns.clone(), KeyKind::WholeRow));
    let mut batch = begin();
    for (table, id) in [(&orders(), "1"), (&orders(), "1"), (&orders(), "2"), (&keyless, "1"), (&keyless, "2")] {
        batch.change(Op::Insert, table, at(&[1])).after([Value::Data(id.as_bytes()), Value::Null, Value::Null]);
    }
    let events = routed(&batch, &[route(1, "all", "db")]);
    let hashes: Vec<u64> = events.iter().map(|event| event.key_hash).collect();
    assert_eq!(hashes[0], hashes[1]);
    assert_ne!(hashes[0], hashes[2]);
    assert_eq!(hashes[3], hashes[4]);
    assert_eq!((events.get(0).key, events.get(3).key), ("{\"id\":1}", ""));
}

#[test]
fn a_row_that_no_message_carries_is_parked_without_its_body() {
    let huge = vec![b'x'; (128 << 20) + 1];
    let mut batch = begin();
    batch.change(Op::Insert, &orders(), at(&[1])).after([Value::Data(b"1"), Value::Data(&huge), Value::Null]);
    batch.change(Op::Insert, &orders(), at(&[2])).after([Value::Data(b"2"), Value::Data(b"small"), Value::Null]);
    let events = routed(&batch, &[route(1, "all", "db")]);
    let (large, small) = (events.get(0), events.get(1));
    assert!(large.parked.expect("parked").contains("no message carries more than 134217728"));
    assert!(large.body.len() < 1000 && large.key == "{\"id\":1}");
    assert_eq!((small.parked, events.parked()), (None, 1));
}

/// No step was done on it, no mask either: nothing looks into it.
#[test]
fn of_a_row_that_no_message_carries_nothing_is_shown_anywhere() {
    let huge = vec![b'x'; (128 << 20) + 1];
    let mut batch = begin();
    batch.change(Op::Insert, &orders(), at(&[1])).after([
        Value::Data(b"1"),
        Value::Data(&huge),
        Value::Data(b"777.77"),
    ]);
    let mut route = route(1, "all", "db.public.orders");
    let steps = ["set: { twice: \"amount * 2\" }", "mask: { amount: drop }", "rename: { id: amount }"];
    route.steps = steps.map(super::super::transform::examples::step).into();
    route.event.event_type = "of {{ row.amount }}".into();
    route.event.routing_key = "{{ type }}.{{ row.twice }}".into();
    route.event.headers = [("twice".to_owned(), "{{ row.twice }}".to_owned())].into();
    route.event.properties = vec![(crate::route::Property::CorrelationId, "{{ row.twice }}".into())];
    let events = routed(&batch, &[route]);
    let event = events.get(0);
    assert!(event.parked.expect("parked").contains("no message carries more than 134217728"));
    assert_eq!(event.routing_key, "");
    assert!(!shown(&events).contains("777.77"), "{}", shown(&events));
}

/// A column's kind, the bytes that a connector hands over, and what a reader of JSON is to find.
fn any_value() -> impl Strategy<Value = (Kind, Vec<u8>, Json)> {
    let integer = |number: i64| match number.unsigned_abs() < 1 << 53 {
        true => json!(number),
        false => json!(number.to_string()),
    };
    // How a float's digits are read is checked beside the encoder.
    let float = |number: f64| {
        let digits = format!("{number:e}");
        (Kind::Float, digits.clone().into_bytes(), serde_json::from_str(&digits).expect("a number"))
    };
    let text = |kind: Kind| move |text: String| (kind.clone(), text.clone().into_bytes(), json!(text));
    let document = |member: (String, bool)| {
        let document = json!({ member.0: [member.1, null, "x"] });
        (Kind::Json, document.to_string().into_bytes(), document)
    };
    prop_oneof![
        any::<bool>().prop_map(|yes| (Kind::Bool, yes.to_string().into_bytes(), json!(yes))),
        any::<i64>().prop_map(move |number| (Kind::Int, number.to_string().into_bytes(), integer(number))),
        (-1e300..1e300f64).prop_map(float),
        "-?[0-9]{1,40}(\\.[0-9]{1,40})?".prop_map(text(Kind::Decimal)),
        any::<String>().prop_map(text(Kind::Text)),
        any::<String>().prop_map(text(Kind::Other)),
        vec(any::<u8>(), 0..40).prop_map(|bytes| (Kind::Bytes, bytes.clone(), json!(STANDARD.encode(bytes)))),
        any::<(String, bool)>().prop_map(document),
        vec(any::<String>(), 0..4).prop_map(|texts| {
            (Kind::Array(Box::new(Kind::Text)), json!(texts).to_string().into_bytes(), json!(texts))
        }),
    ]
}

proptest! {
    /// Whatever the names and the values: body, key and headers say what the change says.
    #[test]
    fn any_change_reads_back_from_its_event(
        (schema, name) in ("\\PC{1,9}", "\\PC{1,9}"),
        columns in btree_map(any::<String>(), (any_value(), 0..4u8), 1..7),
        position in vec(any::<u8>(), 0..=Position::BYTES_MAX),
        updates in any::<bool>(),
    ) {
        let described = columns.iter().enumerate().map(|(index, (name, ((kind, ..), _)))| column(name, kind.clone(), index == 0));
        let table = Arc::new(TableSchema::new(schema.clone(), name.clone(), described.collect(), KeyKind::Columns));
        let old = || columns.values().map(|((_, bytes, _), _)| Value::Data(bytes));
        let new = columns.values().enumerate().map(|(index, ((_, bytes, _), state))| match state {
            // An update's key may be known from the old row alone.
            0 if index > 0 || updates => Value::Unavailable,
            1 if index > 0 => Value::Null,
            _ => Value::Data(bytes),
        });
        let new: Vec<Value<'_>> = new.collect();
        let mut batch = begin();
        let op = if updates { Op::Update } else { Op::Insert };
        let change = batch.change(op, &table, at(&position));
        let change = if updates { change.before(old()) } else { change };
        change.after(new.iter().copied());

        let mut after = serde_json::Map::new();
        let mut unavailable = Vec::new();
        for ((name, ((_, _, json), _)), value) in columns.iter().zip(&new) {
            match value {
                Value::Unavailable => unavailable.push(name.clone()),
                Value::Null => drop(after.insert(name.clone(), Json::Null)),
                Value::Data(_) => drop(after.insert(name.clone(), json.clone())),
            }
        }
        let (key_name, ((_, _, key_json), _)) = columns.iter().next().expect("one at least");
        let key = json!({ key_name: key_json });
        let subject = format!("{schema}.{name}");
        let mut expected = json!({
            "op": op.name(), "table": subject, "key": key, "after": after, "tx": "743", "committed_at": "2023-11-14T22:13:20.123456Z"
        });
        if updates {
            expected["before"] = columns.iter().map(|(name, ((_, _, json), _))| (name.clone(), json.clone())).collect();
        }
        if !unavailable.is_empty() {
            expected["unavailable"] = json!(unavailable);
        }

        let events = routed(&batch, &[route(1, "all", "db")]);
        let event = events.get(0);
        prop_assert_eq!(event.parked, None);
        prop_assert_eq!(serde_json::from_slice::<Json>(event.body).expect("JSON"), expected);
        prop_assert_eq!(&serde_json::from_str::<Json>(event.key).expect("JSON"), &key);
        let (_, properties) = parse_properties(event.properties).expect("well-formed");
        let headers = properties.headers().as_ref().expect("headers").inner();
        let header = |name: &str| match &headers[name] {
            amq_protocol::types::AMQPValue::LongString(text) => String::from_utf8(text.as_bytes().to_vec()).expect("text"),
            other => panic!("{other:?}"),
        };
        prop_assert_eq!(header("cloudEvents:partitionkey"), event.key);
        prop_assert_eq!(header("cloudEvents:subject"), subject);
        let sequence: String = [&[0; 4], &position[..]].concat().iter().map(|byte| format!("{byte:02x}")).collect();
        prop_assert_eq!(header("cloudEvents:id"), format!("db-7301-1-{sequence}"));
        prop_assert_eq!(header("cloudEvents:sequence"), sequence);
    }
}
