//! Which events a route makes of a change, and what their templates see of its row.

use proptest::prelude::*;
use towpath_contract::{Batch, Op, Position, Transaction, Value};

use super::Router;
use super::plan::{OnError, Place, Route};
use super::transform::examples::step;
use super::transform_tests::{body, customers, route, routed};
use crate::event::EventBatch;

type Row = [Option<&'static str>; 4];

fn values(row: Row) -> impl Iterator<Item = Value<'static>> {
    row.into_iter().map(|value| value.map_or(Value::Unavailable, |text| Value::Data(text.as_bytes())))
}

fn changes(changes: &[(Op, Option<Row>, Option<Row>)]) -> Batch {
    let table = customers();
    let mut batch = Batch::new();
    batch.begin_transaction(Transaction { id: "7".into(), commit_time_us: 1 });
    for (nth, (op, before, after)) in changes.iter().enumerate() {
        let mut change = batch.change(*op, &table, Position::from_bytes(&[nth as u8]).expect("short"));
        if let Some(before) = before {
            change = change.before(values(*before));
        }
        if let Some(after) = after {
            change.after(values(*after));
        }
    }
    batch
}

fn row(status: &'static str) -> Row {
    [Some("K-7"), Some("jane@example.com"), Some(status), Some("20240229")]
}

const KEY: Row = [Some("K-7"), None, None, None];

fn types(events: &EventBatch) -> Vec<String> {
    events.iter().map(|event| header(event.properties, "cloudEvents:type")).collect()
}

fn header(properties: &[u8], name: &str) -> String {
    let (_, read) = amq_protocol::protocol::basic::parse_properties(properties).expect("well-formed");
    read.headers().as_ref().expect("headers").inner()[name].as_long_string().expect("text").to_string()
}

fn made(steps: &[&str], of: &[(Op, Option<Row>, Option<Row>)]) -> EventBatch {
    routed(&changes(of), route("db.public.customers", steps)).expect("the steps fit")
}

#[test]
fn a_filter_leaves_out_what_it_says_and_nothing_else() {
    let all = [
        (Op::Insert, None, Some(row("A"))),
        (Op::Insert, None, Some(row("X"))),
        (Op::Delete, Some(row("A")), None),
        (Op::Delete, Some(row("X")), None),
        (Op::Truncate, None, None),
    ];
    let events = made(&["filter: \"STATUS == 'A'\""], &all);
    let ops: Vec<String> =
        types(&events).iter().map(|name| name.rsplit('.').next().unwrap_or_default().into()).collect();
    assert_eq!(ops, ["insert", "delete", "truncate"], "a truncate concerns every row");
    // The source logs keys alone: whether the row was one of them is not known, and it is not guessed.
    let unknown = [(Op::Delete, Some(KEY), None)];
    let events = made(&["filter: \"STATUS == 'A'\""], &unknown);
    let reason = events.get(0).parked.expect("it is set aside");
    assert_eq!(reason, "transform[0] (`filter`) cannot be done: it needs a value that the source did not send");
    let said =
        |unknown_is: &str| made(&[&format!("filter: {{ when: \"STATUS == 'A'\", unknown: {unknown_is} }}")], &unknown);
    assert_eq!((said("keep").len(), said("drop").len()), (1, 0));
    assert_eq!(said("keep").get(0).parked, None);
}

#[test]
fn a_filter_after_a_step_that_failed_decides_nothing() {
    let steps = ["decode: { STATUS: { A: active } }", "filter: \"STATUS == 'active'\""];
    let events = made(&steps, &[(Op::Insert, None, Some(row("?")))]);
    let reason = events.get(0).parked.expect("it is set aside, not left out");
    assert!(reason.starts_with("transform[0] (`decode`) cannot be done on `STATUS`"), "{reason}");
}

#[test]
fn transitions_alone_become_events() {
    let steps = [
        "emit_when: { STATUS: { 'A -> S': OrderShipped, '* -> X': OrderCancelled, 'new -> A': OrderPlaced, 'S -> gone': OrderErased } }",
    ];
    let update = |before, after| (Op::Update, Some(row(before)), Some(row(after)));
    let events = made(
        &steps,
        &[
            (Op::Insert, None, Some(row("A "))),
            update("A", "S"),
            update("S", "S "),
            update("S", "X"),
            update("X", "A"),
            (Op::Read, None, Some(row("A"))),
            (Op::Delete, Some(row("S")), None),
            (Op::Delete, Some(row("A")), None),
            (Op::Truncate, None, None),
        ],
    );
    assert_eq!(types(&events), ["OrderPlaced", "OrderShipped", "OrderCancelled", "OrderErased"]);
    // What was not sent with an update is as it was.
    assert!(made(&steps, &[(Op::Update, Some(row("A")), Some(KEY))]).is_empty());
    // The row before is not known: it is not guessed.
    for before in [None, Some(KEY)] {
        let events = made(&steps, &[(Op::Update, before, Some(row("S")))]);
        assert!(events.get(0).parked.expect("set aside").contains("did not send"), "{before:?}");
        assert!(made(&steps, &[(Op::Update, before, Some(row("B")))]).is_empty(), "no transition ends there");
    }
    let reads = ["emit_when: { transitions: { STATUS: { 'new -> A': OrderPlaced } }, reads: new }"];
    assert_eq!(types(&made(&reads, &[(Op::Read, None, Some(row("A")))])), ["OrderPlaced"]);
}

/// One half of an update that changed the key comes as a delete, the other as an insert.
#[test]
fn a_row_that_gets_another_key_is_neither_gone_nor_new() {
    let table = customers();
    let mut batch = Batch::new();
    batch.begin_transaction(Transaction { id: "7".into(), commit_time_us: 1 });
    let at = |byte: u8| Position::from_bytes(&[byte]).expect("short");
    batch.change(Op::Delete, &table, at(0)).before(values(row("S"))).linked(values(KEY));
    batch.change(Op::Insert, &table, at(1)).after(values(row("A"))).linked(values(row("S")));
    batch.change(Op::Insert, &table, at(2)).after(values(row("A"))).linked(values(row("A")));
    // The source logs keys alone.
    batch.change(Op::Insert, &table, at(3)).after(values(row("A"))).linked(values(KEY));
    batch.change(Op::Insert, &table, at(4)).after(values(row("B"))).linked(values(KEY));
    let steps = ["emit_when: { STATUS: { 'S -> gone': Erased, 'new -> A': Placed, 'S -> A': Back } }"];
    let events = routed(&batch, route("db.public.customers", &steps)).expect("it fits");
    let reasons: Vec<_> = events.iter().map(|event| event.parked).collect();
    let unknown =
        "transform[0] (`emit_when`) cannot be done: it needs a value before the change that the source did not send";
    assert_eq!(reasons, [None, Some(unknown)], "what may have become A in the same update is not guessed");
    assert_eq!(types(&events)[0], "Back");
    let changed = routed(&batch, route("db.public.customers", &["filter: \"changed('STATUS')\""])).expect("it fits");
    let reasons: Vec<_> = changed.iter().map(|event| event.parked.is_some()).collect();
    assert_eq!(reasons, [false, false, true, true], "the delete and the first insert; the others are not known");
}

#[test]
fn several_transitions_of_one_change_are_events_of_their_own() {
    let both = |several: &str| {
        let transitions = "{ EMAIL: { '* -> b@c.de': Moved }, STATUS: { 'A -> S': OrderShipped } }";
        let steps = format!("emit_when: {{ transitions: {transitions}, several: {several} }}");
        let after = [Some("K-7"), Some("b@c.de"), Some("S"), None];
        made(&[&steps], &[(Op::Update, Some(row("A")), Some(after))])
    };
    assert_eq!(types(&both("first")), ["Moved"]);
    let events = both("all");
    assert_eq!(types(&events), ["Moved", "OrderShipped"]);
    let (first, second) = (events.get(0), events.get(1));
    assert!(second.id.starts_with(first.id) && second.id != first.id, "{} {}", first.id, second.id);
    assert_eq!(first.key_hash, second.key_hash, "they stay in order");
    let sequence = |event: crate::event::Event<'_>| header(event.properties, "cloudEvents:sequence");
    assert!(sequence(first) < sequence(second), "{} {}", sequence(first), sequence(second));
}

#[test]
fn a_branch_sends_changes_where_it_says() {
    let steps = [
        "branch: [{ when: \"SINCE > 20250000\", routing_key: 'recent.{{ op }}' }, { when: \"STATUS == 'X'\", type: gone, exchange: other }]",
    ];
    let recent = [Some("K-8"), None, Some("X"), Some("20250101")];
    let events = made(
        &steps,
        &[(Op::Insert, None, Some(recent)), (Op::Insert, None, Some(row("X"))), (Op::Insert, None, Some(row("A")))],
    );
    let shown: Vec<_> = events.iter().map(|event| (event.exchange, event.routing_key)).collect();
    let own = "db.public.customers.insert";
    assert_eq!(shown, [("towpath", "recent.insert"), ("other", own), ("towpath", own)]);
    assert_eq!(types(&events), [own, "gone", own]);
}

#[test]
fn parts_of_a_row_are_events_of_their_own() {
    let steps = [
        "rename: snake_case",
        "split: [{ type: mail, select: [email], when: \"status != 'X'\" }, { type: 'state.{{ row.status }}', select: [status], set: { year: \"since / 10000\" } }]",
    ];
    let events = made(
        &steps,
        &[
            (Op::Insert, None, Some(row("A"))),
            (Op::Insert, None, Some(row("X"))),
            (Op::Delete, Some([Some("K-8"), None, None, None]), None),
        ],
    );
    let shown: Vec<_> = types(&events).into_iter().zip(events.iter().map(|event| event.parked.is_some())).collect();
    let (mail, state) = (body(&events, 0), body(&events, 1));
    assert!(mail.contains(r#""after":{"cust_no":"#) && mail.contains("email") && !mail.contains("status"), "{mail}");
    assert!(state.contains(r#""status":"A""#) && state.contains(r#""year":"#) && !state.contains("email"), "{state}");
    let ids: std::collections::BTreeSet<&str> = events.iter().map(|event| event.id).collect();
    assert_eq!(ids.len(), events.len());
    assert_eq!(shown.len(), 4, "two, one, and one that cannot be decided: {shown:?}");
}

fn with_templates(steps: &[&str]) -> Route {
    let mut route = route("db.public.customers", steps);
    route.event.routing_key = "customers.{{ row.STATUS | lower }}.{{ op }}".into();
    route.event.headers = [("mail".to_owned(), "{{ row.EMAIL | default('none') }}".to_owned())].into();
    route
}

#[test]
fn templates_see_the_row_as_the_steps_left_it() {
    let batch = changes(&[
        (Op::Insert, None, Some(row("A.B"))),
        (Op::Delete, Some([Some("K-7"), None, Some("X"), None]), None),
        (Op::Delete, Some(KEY), None),
    ]);
    let events = routed(&batch, with_templates(&["mask: { EMAIL: redact }"])).expect("it fits");
    assert_eq!(events.get(0).parked, None);
    assert_eq!(events.get(0).routing_key, "customers.a%2eb.insert", "a dot within a value is no separator");
    assert_eq!(header(events.get(0).properties, "mail"), "***");
    assert_eq!(events.get(1).routing_key, "customers.x.delete");
    assert_eq!(header(events.get(1).properties, "mail"), "none");
    let reason = events.get(2).parked.expect("nothing to route it by");
    assert!(
        reason.starts_with("event.routing_key cannot be rendered: a value that it needs is null, or was not sent"),
        "{reason}"
    );
    let error = routed(&batch, with_templates(&["drop: [STATUS]"])).map(drop).expect_err("it is not there");
    assert!(error.fault.message.contains("`row.STATUS`"), "{}", error.fault.message);
}

#[test]
fn where_an_event_goes_may_depend_on_a_type_that_depends_on_the_row() {
    let mut route = route("db.public.customers", &["emit_when: { STATUS: { '* -> S': 'Order.{{ row.CUST_NO }}' } }"]);
    route.event.event_type = "{{ row.STATUS }}".into();
    route.event.routing_key = "orders.{{ type }}".into();
    route.event.headers = [("kind".to_owned(), "{{ type | upper }}".to_owned())].into();
    let events = routed(&changes(&[(Op::Update, Some(row("A")), Some(row("S")))]), route.clone()).expect("it fits");
    let event = events.get(0);
    assert_eq!((event.parked, event.routing_key), (None, "orders.Order.K-7"));
    assert_eq!(header(event.properties, "kind"), "ORDER.K-7");
    route.steps.clear();
    let events = routed(&changes(&[(Op::Delete, Some(KEY), None)]), route).expect("it fits");
    let reason = events.get(0).parked.expect("it has no type");
    assert!(reason.starts_with("event.type cannot be rendered"), "{reason}");
}

#[test]
fn what_of_a_route_needs_the_row_before_a_change_is_known_beforehand() {
    let needs = |steps: &[&str], routing_key: Option<&str>| {
        let mut route = route("db.public.customers", steps);
        route.event.routing_key = routing_key.unwrap_or("x").into();
        let found = Router::new("db", &[route]).needing_old_rows(&[(*customers()).clone()]);
        found.into_iter().map(|need| need.place).collect::<Vec<_>>()
    };
    let nothing: &[Place] = &[];
    let step = |step| vec![Place::Step(step)];
    assert_eq!(needs(&["trim: [EMAIL]", "emit_when: { STATUS: { 'A -> S': Shipped } }"], None), step(1));
    assert_eq!(needs(&["emit_when: { STATUS: { 'new -> A': Placed } }"], None), nothing);
    assert_eq!(needs(&["filter: \"changed('EMAIL')\""], None), step(0));
    assert_eq!(needs(&["filter: \"CUST_NO != ''\""], None), nothing, "the key is always sent");
    assert_eq!(needs(&["filter: \"STATUS == 'A'\""], None), step(0), "it is not known of a row that is deleted");
    assert_eq!(needs(&["filter: { when: \"STATUS == 'A'\", unknown: keep }"], None), nothing);
    assert_eq!(needs(&["filter: \"op == 'insert'\""], None), nothing);
    assert_eq!(needs(&["branch: [{ when: \"STATUS == 'A'\", type: a }]"], None), step(0));
    assert_eq!(needs(&["set: { was: before.STATUS }"], None), step(0));
    assert_eq!(needs(&["set: { twice: SINCE * 2 }"], None), nothing);
    let routing_key = vec![Place::Event(vec!["routing_key".into()])];
    assert_eq!(needs(&[], Some("{{ row.STATUS }}")), routing_key);
    assert_eq!(needs(&[], Some("{{ before.CUST_NO }}")), routing_key);
    assert_eq!(needs(&[], Some("{{ row.CUST_NO }}")), nothing);
    assert_eq!(needs(&[], Some("{{ row.STATUS | default('none') }}")), nothing);
}

#[test]
fn what_is_set_is_a_column_like_others() {
    let steps = [
        "set: { since_year: \"SINCE / 10000\", moved: \"changed('EMAIL')\", STATUS: \"STATUS + '!'\" }",
        "rename: { moved: has_moved }",
    ];
    let update = (Op::Update, Some(row("A")), Some(row("S")));
    let shown = body(&made(&steps, &[update]), 0);
    assert!(shown.contains(r#""after":{"CUST_NO":"K-7","EMAIL":"jane@example.com","STATUS":"S!","SINCE":20240229,"has_moved":false,"since_year":2024}"#), "{shown}");
    assert!(shown.contains(r#""STATUS":"A!""#) && shown.contains(r#""before_unavailable":["has_moved"]"#), "{shown}");
    let shown = body(&made(&steps, &[(Op::Update, None, Some([Some("K-7"), Some("a@b.c"), None, None]))]), 0);
    assert!(shown.contains(r#""unavailable":["STATUS","SINCE","has_moved","since_year"]"#), "{shown}");
}

#[test]
fn a_value_that_a_step_cannot_take_is_null_where_the_route_says_so() {
    let steps = [
        "decode: { STATUS: { A: active } }",
        "set: { years: \"SINCE / (SINCE - 20240229)\" }",
        "mask: { EMAIL: redact }",
    ];
    let mut nullify = route("db.public.customers", &steps);
    nullify.on_error = OnError::Nullify;
    let batch = changes(&[(Op::Insert, None, Some(row("?")))]);
    let events = routed(&batch, nullify.clone()).expect("it fits");
    assert_eq!(events.get(0).parked, None);
    let shown = body(&events, 0);
    assert!(
        shown.contains(r#""EMAIL":"***","STATUS":null,"SINCE":20240229,"years":null},"nullified":["STATUS","years"]"#),
        "{shown}"
    );
    // Of what decides about the whole change, there is nothing to make null.
    nullify.steps = vec![step("filter: \"1 / (SINCE - 20240229) > 0\"")];
    assert!(routed(&batch, nullify).expect("it fits").get(0).parked.is_some());
}

#[test]
fn a_route_that_is_to_stop_says_where_and_why_and_not_the_value() {
    let mut stop = route("db.public.customers", &["decode: { STATUS: { A: active } }"]);
    stop.on_error = OnError::Stop;
    let unfit = routed(&changes(&[(Op::Insert, None, Some(row("canary")))]), stop).map(drop).expect_err("it stops");
    assert_eq!(unfit.place, Place::Step(0));
    let said = "cannot be done on `STATUS` of a row of public.customers (event db-1-1-0000000000): the code is not in the list";
    assert_eq!(unfit.fault.message, said);
}

#[test]
fn of_a_row_in_the_sample_every_change_is_an_event() {
    for number in ["1", "2", "3", "4", "5", "6", "7", "8"] {
        let key = [Some(number), None, None, None];
        let whole = [Some(number), Some("a@b.c"), Some("A"), Some("1")];
        let all = [(Op::Insert, None, Some(whole)), (Op::Update, None, Some(whole)), (Op::Delete, Some(key), None)];
        let events = made(&["rename: { CUST_NO: id }", "mask: { id: redact }", "sample: 0.5"], &all);
        assert!(matches!(events.len(), 0 | 3), "{number}: {}", events.len());
        assert_eq!(made(&["sample: 1"], &all).len(), 3);
        assert_eq!(made(&["sample: 0.000000001"], &all).len(), 0);
    }
    assert_eq!(made(&["sample: 0.000000001"], &[(Op::Truncate, None, None)]).len(), 1);
}

#[test]
fn columns_that_belong_together_become_an_object_and_come_apart_again() {
    let insert = |row| [(Op::Insert, None, Some(row))];
    let nest = "nest: { about: [\"*\"] }";
    let shown = body(&made(&[nest], &insert(row("say \"A\""))), 0);
    let object = r#"{"EMAIL":"jane@example.com","STATUS":"say \"A\"","SINCE":20240229}"#;
    assert!(shown.contains(&format!(r#""after":{{"CUST_NO":"K-7","about":{object}}}"#)), "{shown}");
    let flatten = "flatten: { about: { EMAIL: text, STATUS: text, SINCE: int, none: text } }";
    let shown = body(&made(&[nest, flatten], &insert(row("say \"A\""))), 0);
    let apart = r#""EMAIL":"jane@example.com","SINCE":20240229,"STATUS":"say \"A\"","none":null"#;
    assert!(shown.contains(apart), "{shown}");
    // A part that was not sent may be as it was or not: the object is not known, nor is it what it was.
    let update = |row| [(Op::Update, None, Some(row))];
    let partly = made(&[nest], &update([Some("K-7"), None, Some("A"), Some("1")]));
    assert!(partly.get(0).parked.expect("set aside").contains("`about`: the source sent some"), "not guessed");
    let shown = body(&made(&[nest], &update(KEY)), 0);
    assert!(shown.contains(r#""unavailable":["about"]"#), "{shown}");
    let shown = body(&made(&[nest], &[(Op::Delete, Some(KEY), None)]), 0);
    assert!(!shown.contains("about"), "{shown}");
    let set = made(&["set: { who: \"EMAIL + STATUS\" }"], &update([Some("K-7"), None, Some("A"), Some("1")]));
    assert!(set.get(0).parked.expect("set aside").contains("`who`: the source sent some"));
    let unfit = routed(&changes(&insert(row("A"))), route("db.public.customers", &["nest: { x: [CUST_NO] }"]));
    assert!(unfit.map(drop).expect_err("the key").fault.message.contains("part of the key"));
    let unfit = routed(&changes(&insert(row("A"))), route("db.public.customers", &["flatten: { EMAIL: { x: text } }"]));
    assert!(unfit.map(drop).expect_err("no JSON").fault.message.contains("needs JSON"));
}

proptest! {
    #[test]
    fn what_is_nested_comes_apart_as_it_was(mail in "\\PC{0,12}", status in "\\PC{0,3}", since in any::<i64>()) {
        let table = customers();
        let mut batch = Batch::new();
        batch.begin_transaction(Transaction::default());
        let since = since.to_string();
        let row = [Value::Data(b"K-7"), Value::Data(mail.as_bytes()), Value::Data(status.as_bytes()), Value::Data(since.as_bytes())];
        batch.change(Op::Insert, &table, Position::from_bytes(&[1]).expect("short")).after(row);
        let there = routed(&batch, route("db.public.customers", &["select: [CUST_NO, EMAIL, SINCE, STATUS]"])).expect("it fits");
        let steps = ["nest: { about: [EMAIL, STATUS, SINCE] }", "flatten: { about: { EMAIL: text, STATUS: text, SINCE: int } }"];
        let back = routed(&batch, route("db.public.customers", &steps)).expect("it fits");
        prop_assert_eq!(body(&there, 0), body(&back, 0));
    }
}

#[test]
fn columns_that_are_a_list_become_one() {
    // A text and a number have no list.
    let unfit = routed(
        &changes(&[(Op::Insert, None, Some(row("A")))]),
        route("db.public.customers", &["unpivot: { both: [\"S*\"] }"]),
    );
    assert!(unfit.map(drop).expect_err("two types").fault.message.contains("`SINCE` is integer"));
    let unfit = routed(
        &changes(&[(Op::Insert, None, Some(row("A")))]),
        route("db.public.customers", &["unpivot: { x: [CUST_NO] }"]),
    );
    assert!(unfit.map(drop).expect_err("the key").fault.message.contains("part of the key"));
    let texts = ["cast: { SINCE: text }", "unpivot: { both: [\"S*\"] }"];
    let shown = body(&made(&texts, &[(Op::Insert, None, Some(row("say \"A\"")))]), 0);
    assert!(
        shown.contains(r#""after":{"CUST_NO":"K-7","EMAIL":"jane@example.com","both":["say \"A\"","20240229"]}"#),
        "{shown}"
    );
    let shown = body(&made(&texts, &[(Op::Update, None, Some(KEY))]), 0);
    assert!(shown.contains(r#""unavailable":["EMAIL","both"]"#), "{shown}");
    let partly = made(&texts, &[(Op::Update, None, Some([Some("K-7"), None, None, Some("1")]))]);
    assert!(partly.get(0).parked.expect("set aside").contains("the source sent some"));
}
