//! Rows of an application's own outbox table, and the properties that a route sets.

use std::sync::Arc;

use amq_protocol::protocol::basic::AMQPProperties;
use towpath_contract::{Batch, Column, KeyKind, Kind, Op, Position, TableSchema, Transaction, Value};

use super::Property;
use super::plan::Route;
use super::transform_tests::{body, customers, route, routed};
use crate::event::EventBatch;

fn table(payload: Kind) -> Arc<TableSchema> {
    let column = |name: &str, kind, key| Column { name: name.into(), kind, type_name: String::new(), key };
    let columns = vec![
        column("id", Kind::Uuid, true),
        column("aggregatetype", Kind::Text, false),
        column("aggregateid", Kind::Text, false),
        column("type", Kind::Text, false),
        column("body", payload, false),
        column("meta", Kind::Json, false),
        column("trace", Kind::Text, false),
    ];
    Arc::new(TableSchema::new("public".into(), "outbox".into(), columns, KeyKind::Columns))
}

type Row = [Option<&'static str>; 7];

const ROW: Row = [
    Some("0b8e5a1c-5b4e-4a8a-9a3e-2f0f7f3f7c11"),
    Some("order"),
    Some("42"),
    Some("order.placed"),
    Some("{ \"total\": 12.50 }"),
    Some(r#"{"tenant": "a\u00e4", "retries": 3, "none": null}"#),
    Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
];

const STEP: &str = "outbox_table: { payload: body, headers: meta, traceparent: trace }";

fn of(step: &str, table: &Arc<TableSchema>, changes: &[(Op, Row)]) -> EventBatch {
    let mut batch = Batch::new();
    batch.begin_transaction(Transaction { id: "7".into(), commit_time_us: 1 });
    for (nth, (op, row)) in changes.iter().enumerate() {
        let values = row.iter().map(|value| value.map_or(Value::Null, |text| Value::Data(text.as_bytes())));
        let change = batch.change(*op, table, Position::from_bytes(&[nth as u8]).expect("short"));
        if *op == Op::Delete {
            change.before(values)
        } else {
            change.after(values)
        };
    }
    let mut route = route("db.public.outbox", &[step]);
    let defaults = route.steps[0].defaults();
    route.event.event_type = defaults.event_type.expect("it has one");
    route.event.routing_key = defaults.routing_key.expect("it has one");
    routed(&batch, route).expect("it fits")
}

fn properties(events: &EventBatch, index: usize) -> AMQPProperties {
    amq_protocol::protocol::basic::parse_properties(events.get(index).properties).expect("well-formed").1
}

fn header(properties: &AMQPProperties, name: &str) -> Option<String> {
    let headers = properties.headers().as_ref().expect("headers").inner();
    headers.get(name).map(|value| value.as_long_string().expect("text").to_string())
}

#[test]
fn an_inserted_row_is_the_event_that_it_holds() {
    let events = of(STEP, &table(Kind::Json), &[(Op::Insert, ROW)]);
    let event = events.get(0);
    assert_eq!(event.parked, None);
    assert_eq!(event.routing_key, "order.order.placed");
    assert_eq!(event.key, r#"{"aggregatetype":"order","aggregateid":"42"}"#);
    assert_eq!(body(&events, 0), "{ \"total\": 12.50 }", "byte for byte");
    let properties = properties(&events, 0);
    assert_eq!(properties.content_type().as_ref().map(|text| text.as_str()), Some("application/json"));
    assert_eq!(properties.kind().as_ref().map(|text| text.as_str()), Some("order.placed"));
    assert_eq!(properties.message_id().as_ref().map(|text| text.as_str()), Some(event.id));
    let seen =
        ["cloudEvents:id", "cloudEvents:type", "cloudEvents:subject", "tenant", "retries", "none", "traceparent"]
            .map(|name| header(&properties, name));
    let wanted = [ROW[0], Some("order.placed"), Some("42"), Some("aä"), Some("3"), None, ROW[6]];
    assert_eq!(seen, wanted.map(|text| text.map(str::to_owned)));
}

#[test]
fn other_changes_are_none_and_the_order_is_the_aggregates() {
    let other = [Some("1b8e5a1c-5b4e-4a8a-9a3e-2f0f7f3f7c11"), ROW[1], ROW[2], Some("order.paid"), None, None, None];
    let table = table(Kind::Bytes);
    let all = [(Op::Insert, ROW), (Op::Update, ROW), (Op::Delete, ROW), (Op::Read, ROW), (Op::Insert, other)];
    let events = of(STEP, &table, &all);
    let keys: Vec<_> = events.iter().map(|event| event.routing_key).collect();
    assert_eq!(keys, ["order.order.placed", "order.order.paid"]);
    assert_eq!(events.get(0).key_hash, events.get(1).key_hash, "two rows of one order");
    assert_ne!(events.get(0).id, events.get(1).id);
    assert_eq!(body(&events, 1), "");
    let content_type = properties(&events, 0).content_type().as_ref().map(|text| text.as_str().to_owned());
    assert_eq!(content_type.as_deref(), Some("application/octet-stream"));
    let reads = of("outbox_table: { payload: body, reads: new }", &table, &[(Op::Read, ROW)]);
    assert_eq!(reads.len(), 1);
}

#[test]
fn what_is_no_header_is_told_and_not_sent() {
    let with = |meta| {
        let mut row = ROW;
        row[5] = Some(meta);
        of(STEP, &table(Kind::Json), &[(Op::Insert, row)]).get(0).parked.map(str::to_owned)
    };
    assert_eq!(with("[1]").as_deref(), Some("the headers of the row are no JSON object"));
    for meta in [r#"{"x-death": 1}"#, r#"{"cloudEvents:id": "forged"}"#, r#"{"": 1}"#, r#"{"CC": "x"}"#] {
        let why = with(meta).unwrap_or_default();
        assert!(why.starts_with("a header of the row has a name that is Towpath's or the broker's"), "{meta}: {why}");
    }
    for meta in [r#"{"x-request-id": "7"}"#, "null"] {
        assert_eq!(with(meta), None, "{meta}");
    }
}

/// Whatever the steps make of the aggregate, and whatever they cannot do.
#[test]
fn the_order_goes_by_the_aggregate_as_the_source_has_it() {
    let table = table(Kind::Json);
    let mut batch = Batch::new();
    batch.begin_transaction(Transaction::default());
    for (nth, id) in ["42", "43", "42"].into_iter().enumerate() {
        let mut row = ROW;
        row[2] = Some(id);
        row[3] = Some(["known", "known", "unknown"][nth]);
        let values = row.iter().map(|value| value.map_or(Value::Null, |text| Value::Data(text.as_bytes())));
        batch.change(Op::Insert, &table, Position::from_bytes(&[nth as u8]).expect("short")).after(values);
    }
    // One whose filter needs what a delete does not have: it is none, and is not set aside.
    let gone = ROW.iter().enumerate().map(|(at, value)| match value {
        Some(text) if at == 0 => Value::Data(text.as_bytes()),
        _ => Value::Unavailable,
    });
    batch.change(Op::Delete, &table, Position::from_bytes(&[9]).expect("short")).before(gone);
    let mut masked = route(
        "db.public.outbox",
        &["filter: \"type != 'x'\"", "decode: { type: { known: known } }", "mask: { aggregateid: redact }", STEP],
    );
    masked.event.event_type = "x".into();
    let events = routed(&batch, masked).expect("it fits");
    assert_eq!(events.len(), 3);
    assert!(events.get(2).parked.is_some(), "its type is not known");
    assert_eq!(events.get(0).key_hash, events.get(2).key_hash);
    assert_ne!(events.get(0).key_hash, events.get(1).key_hash);
    assert_eq!(events.get(0).key, r#"{"aggregatetype":"order","aggregateid":"***"}"#);
    let made = route("db.public.outbox", &["set: { aggregateid: \"aggregateid + '!'\" }", STEP]);
    assert!(routed(&batch, made).map(drop).expect_err("made").fault.message.contains("is made by a step"));
}

/// While such a table is read its inserts come as read rows, and not besides.
#[test]
fn without_a_key_read_rows_are_not_left_out() {
    let keyed = table(Kind::Json);
    let unkeyed = TableSchema::new("public".into(), "outbox".into(), keyed.columns.clone(), KeyKind::WholeRow);
    let fits = |step: &str| {
        let router = super::Router::new("db", &[route("db.public.outbox", &[step])]);
        router.try_on(std::slice::from_ref(&unkeyed)).map_err(|unfit| unfit.fault.message)
    };
    for step in [STEP, "emit_when: { type: { 'new -> A': B } }"] {
        assert!(fits(step).expect_err("it would lose them").contains("has no key: rows that are inserted"), "{step}");
    }
    assert_eq!(fits("outbox_table: { payload: body, reads: new }"), Ok(()));
    assert_eq!(fits("emit_when: { transitions: { type: { 'new -> A': B } }, reads: new }"), Ok(()));
}

fn with_properties(properties: &[(Property, &str)]) -> Route {
    let mut route = route("db.public.customers", &[]);
    route.event.properties = properties.iter().map(|(of, template)| (*of, (*template).to_owned())).collect();
    route
}

#[test]
fn a_route_sets_properties_from_the_row() {
    let mut batch = Batch::new();
    batch.begin_transaction(Transaction::default());
    for (nth, since) in [Value::Data(b"7"), Value::Data(b"700"), Value::Null].into_iter().enumerate() {
        let values = [Value::Data(b"K-7"), Value::Data(b"a@b.c"), Value::Null, since];
        batch.change(Op::Insert, &customers(), Position::from_bytes(&[nth as u8]).expect("short")).after(values);
    }
    let set = [
        (Property::CorrelationId, "{{ row.CUST_NO }}/{{ type }}"),
        (Property::ReplyTo, "{{ row.STATUS | default('') }}"),
        (Property::Priority, "{{ row.SINCE | default(0) }}"),
        (Property::Expiration, "60000"),
        (Property::ContentType, "application/vnd.customer+json"),
        (Property::AppId, "crm"),
    ];
    let events = routed(&batch, with_properties(&set)).expect("it fits");
    let properties = |index| properties(&events, index);
    let text = |short: &Option<amq_protocol::types::ShortString>| short.as_ref().map(|text| text.as_str().to_owned());
    let first = properties(0);
    assert_eq!(text(first.correlation_id()).as_deref(), Some("K-7/db.public.customers.insert"));
    assert_eq!((first.priority(), text(first.expiration()).as_deref()), (&Some(7), Some("60000")));
    assert_eq!(text(first.content_type()).as_deref(), Some("application/vnd.customer+json"));
    assert_eq!((text(first.app_id()).as_deref(), first.reply_to()), (Some("crm"), &None), "what is empty is not set");
    assert_eq!(events.get(0).parked, None);
    let why = "event.properties.priority is no whole number from 0 to 255 for this row";
    assert_eq!(events.get(1).parked, Some(why));
    assert_eq!(properties(2).priority(), &Some(0));
}
