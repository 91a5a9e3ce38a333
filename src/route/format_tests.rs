//! The other forms of an event, and messages of several, byte for byte: `INSTA_UPDATE=always` rewrites the files.

use std::fmt::Write as _;
use std::sync::Arc;

use amq_protocol::protocol::basic::parse_properties;
use towpath_contract::{Batch, Column, KeyKind, Kind, Op, Position, TableSchema, Transaction, Value};

use super::Router;
use super::format::{BundleBy, BundleForm, Bundling, Format};
use super::matching::RouteFrom;
use super::plan::{EventForm, OnError, Route};
use super::related::Relations;
use crate::event::{EventBatch, RouteId};

fn orders() -> Arc<TableSchema> {
    let column =
        |name: &str, kind, type_name: &str, key| Column { name: name.into(), kind, type_name: type_name.into(), key };
    let columns = vec![
        column("id", Kind::Int, "bigint", true),
        column("note", Kind::Text, "text", false),
        column("amount", Kind::Decimal, "numeric(9,2)", false),
        column("due", Kind::Date, "date", false),
        column("at", Kind::Timestamp, "timestamp without time zone", false),
        column("ms", Kind::Timestamp, "timestamp(3) without time zone", false),
        column("seen", Kind::TimestampTz, "timestamp with time zone", false),
        column("hour", Kind::Time, "time without time zone", false),
        column("doc", Kind::Json, "jsonb", false),
        column("raw", Kind::Bytes, "bytea", false),
    ];
    Arc::new(TableSchema::new("public".into(), "orders".into(), columns, KeyKind::Columns))
}

const ROW: [Value<'static>; 10] = [
    Value::Data(b"9223372036854775807"),
    Value::Data(b"say \"hi\""),
    Value::Data(b"-12.50"),
    Value::Data(b"1969-12-31"),
    Value::Data(b"2024-02-29T12:00:00.000001"),
    Value::Data(b"1969-12-31T23:59:59.999"),
    Value::Data(b"2024-02-29T12:00:00.5Z"),
    Value::Data(b"23:59:59.000001"),
    Value::Data(b"{\"a\": 1}"),
    Value::Data(b"\x00\xff"),
];

fn route(format: Format, bundle: Option<Bundling>) -> Route {
    let mut event = EventForm::new("towpath");
    event.format = format;
    if bundle.is_some() {
        event.routing_key = "{{ source }}.bundle".into();
    }
    event.bundle = bundle;
    Route {
        id: RouteId(1),
        name: "orders".into(),
        from: RouteFrom::parse("db").expect("valid"),
        event,
        steps: Vec::new(),
        relations: Relations::default(),
        on_error: OnError::default(),
    }
}

fn changes() -> Batch {
    let orders = orders();
    let at = |byte: u8| Position::from_bytes(&[0, byte]).expect("short");
    let mut toast = ROW;
    toast[1] = Value::Unavailable;
    toast[3] = Value::Data(b"infinity");
    let mut key = [Value::Unavailable; 10];
    key[0] = ROW[0];
    let mut batch = Batch::new();
    batch.begin_transaction(Transaction { id: "743".into(), commit_time_us: 1_700_000_000_123_456 });
    batch.change(Op::Insert, &orders, at(1)).after(ROW);
    batch.change(Op::Update, &orders, at(2)).before(ROW).after(toast);
    batch.begin_transaction(Transaction { id: "744".into(), commit_time_us: 1_700_000_001_000_000 });
    batch.change(Op::Delete, &orders, at(3)).before(key);
    batch.change(Op::Truncate, &orders, at(4));
    batch.begin_transaction(Transaction { id: String::new(), commit_time_us: 1_700_000_002_000_000 });
    batch.change(Op::Read, &orders, at(5)).after(ROW);
    batch
}

fn routed(batch: &Batch, route: Route) -> EventBatch {
    let mut events = EventBatch::new();
    Router::new("db", &[route]).route("7301-1", 0, batch, &mut events).expect("it fits");
    events
}

fn shown(events: &EventBatch) -> String {
    let mut text = String::new();
    for event in events.iter() {
        let (_, properties) = parse_properties(event.properties).expect("well-formed properties");
        let content_type = properties.content_type().as_ref().expect("content type").as_str();
        writeln!(text, "{} {} {content_type}", event.id, event.routing_key).expect("text");
        let others = [("correlation id", properties.correlation_id()), ("encoding", properties.content_encoding())];
        for (name, value) in others {
            if let Some(value) = value.as_ref() {
                writeln!(text, "  ({name}: {value})").expect("text");
            }
        }
        for (name, value) in properties.headers().as_ref().expect("headers") {
            writeln!(text, "  {name}: {}", value.as_long_string().expect("text")).expect("text");
        }
        writeln!(text, "  {}", String::from_utf8_lossy(event.body)).expect("text");
        if let Some(reason) = event.parked {
            writeln!(text, "  parked: {reason}").expect("text");
        }
    }
    text
}

#[test]
fn structured_events_have_their_golden_bytes() {
    let events = routed(&changes(), route(Format::CloudeventsStructured, None));
    insta::assert_snapshot!(shown(&events));
    for event in events.iter() {
        let event: serde_json::Value = serde_json::from_slice(event.body).expect("JSON");
        assert_eq!((&event["specversion"], &event["data"]["table"]), (&"1.0".into(), &"public.orders".into()));
    }
}

#[test]
fn the_envelope_of_debezium_has_its_golden_bytes() {
    let events = routed(&changes(), route(Format::Debezium, None));
    insta::assert_snapshot!(shown(&events));
    let bodies: Vec<serde_json::Value> =
        events.iter().map(|event| serde_json::from_slice(event.body).expect("JSON")).collect();
    // What its own documentation says of these types.
    let after = &bodies[0]["after"];
    assert_eq!((&after["due"], &after["ms"], &after["hour"]), (&(-1).into(), &(-1).into(), &86_399_000_001u64.into()));
    assert_eq!(after["at"], 1_709_208_000_000_001u64);
    assert_eq!(bodies[1]["after"]["note"], "__debezium_unavailable_value");
    assert_eq!(
        (&bodies[2]["op"], &bodies[2]["after"], &bodies[2]["before"]["note"]),
        (&"d".into(), &().into(), &().into())
    );
}

#[test]
fn plain_rows_have_their_golden_bytes() {
    insta::assert_snapshot!(shown(&routed(&changes(), route(Format::Row, None))));
}

#[test]
fn what_frameworks_take_has_its_golden_bytes() {
    let mut text = String::new();
    for format in [
        Format::Celery,
        Format::Easynetq,
        Format::Masstransit,
        Format::MasstransitRaw,
        Format::Nservicebus,
        Format::Spring,
        Format::Wolverine,
    ] {
        let mut route = route(format, None);
        route.event.event_type = "Shop.Contracts:Order".into();
        let events = routed(&changes(), route);
        for event in events.iter() {
            let _: serde_json::Value = serde_json::from_slice(event.body).expect("JSON");
        }
        write!(text, "{format:?}\n\n{}\n", shown(&events)).expect("text");
    }
    insta::assert_snapshot!(text);
}

fn bundled(by: BundleBy, form: BundleForm, events_max: usize, bytes_max: usize) -> EventBatch {
    routed(&changes(), route(Format::Cloudevents, Some(Bundling { by, form, events_max, bytes_max })))
}

#[test]
fn a_transaction_in_one_message_has_its_golden_bytes() {
    let lines = bundled(BundleBy::Transaction, BundleForm::Lines, 1000, 1 << 20);
    let batch = bundled(BundleBy::Capture, BundleForm::CloudeventsBatch, 3, 1 << 20);
    insta::assert_snapshot!(format!("{}\n{}", shown(&lines), shown(&batch)));
    let hashes: Vec<u64> = lines.iter().map(|event| event.key_hash).collect();
    assert!(hashes.windows(2).all(|two| two[0] == two[1]), "their order is one");
}

#[test]
fn a_bundle_is_split_at_its_bounds_and_loses_nothing() {
    let single = routed(&changes(), route(Format::Cloudevents, None));
    let alone: Vec<&[u8]> = single.iter().map(|event| event.body).collect();
    for (events_max, bytes_max) in [(1, 1 << 20), (2, 1 << 20), (1000, 1), (1000, 700), (1000, 1 << 20)] {
        let events = bundled(BundleBy::Transaction, BundleForm::Lines, events_max, bytes_max);
        let lines: Vec<&[u8]> = events
            .iter()
            .flat_map(|event| event.body.strip_suffix(b"\n").expect("a line ends").split(|byte| *byte == b'\n'))
            .collect();
        assert_eq!(lines, alone, "{events_max} {bytes_max}");
        let mut ids: Vec<&str> = events.iter().map(|event| event.id).collect();
        ids.dedup();
        assert_eq!(ids.len(), events.len());
        for event in events.iter() {
            let lines = event.body.iter().filter(|byte| **byte == b'\n').count();
            assert!(lines <= events_max && (lines == 1 || event.body.len() <= bytes_max));
        }
    }
}

#[test]
fn a_row_that_cannot_go_is_parked_in_its_place_between_bundles() {
    let orders = orders();
    let mut bad = ROW;
    bad[1] = Value::Data(b"\xff");
    let mut batch = Batch::new();
    batch.begin_transaction(Transaction { id: "743".into(), commit_time_us: 0 });
    for (nth, row) in [ROW, bad, ROW].into_iter().enumerate() {
        batch.change(Op::Insert, &orders, Position::from_bytes(&[nth as u8]).expect("short")).after(row);
    }
    let bundling = Bundling { by: BundleBy::Transaction, form: BundleForm::Lines, events_max: 10, bytes_max: 1 << 20 };
    let events = routed(&batch, route(Format::Cloudevents, Some(bundling)));
    let parked: Vec<bool> = events.iter().map(|event| event.parked.is_some()).collect();
    assert_eq!(parked, [false, true, false]);
    assert!(events.iter().all(|event| event.key_hash == events.get(0).key_hash), "what comes behind waits for it");
}
