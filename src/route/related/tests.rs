//! Invoices with their lines, and the customers that they name.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value as Json, json};
use towpath_contract::{Batch, Column, Found, KeyKind, Kind, Lookup, Op, Position, TableSchema, Transaction, Value};

use super::{Missing, Related, Relations};
use crate::event::EventBatch;
use crate::route::plan::{OnError, Route};
use crate::route::transform::examples::step;
use crate::route::transform_tests::route;
use crate::route::{Need, Router, Unfit};

fn table(name: &str, columns: &[(&str, Kind, bool)]) -> Arc<TableSchema> {
    let column = |(name, kind, key): &(&str, Kind, bool)| Column {
        name: (*name).into(),
        kind: kind.clone(),
        type_name: "any".into(),
        key: *key,
    };
    Arc::new(TableSchema::new("shop".into(), name.into(), columns.iter().map(column).collect(), KeyKind::Columns))
}

fn invoice() -> Arc<TableSchema> {
    table("invoice", &[("id", Kind::Int, true), ("customer", Kind::Int, false), ("total", Kind::Decimal, false)])
}

fn line() -> Arc<TableSchema> {
    table("line", &[("no", Kind::Int, true), ("invoice", Kind::Int, false), ("what", Kind::Text, false)])
}

fn customer() -> Arc<TableSchema> {
    table("customer", &[("id", Kind::Int, true), ("name", Kind::Text, false)])
}

fn related(from: &str, on: &[(&str, &str)], steps: &[&str]) -> Related {
    Related {
        from: from.into(),
        on: on.iter().map(|(there, here)| ((*there).to_owned(), (*here).to_owned())).collect(),
        transform: steps.iter().map(|yaml| step(yaml)).collect(),
        owned: from == "shop.line",
        missing: Missing::default(),
    }
}

fn relations(steps: &[&str]) -> Relations {
    Relations {
        aggregate: BTreeMap::from([("lines".to_owned(), related("shop.line", &[("invoice", "id")], steps))]),
        lookup: BTreeMap::from([(
            "buyer".to_owned(),
            related("shop.customer", &[("id", "customer")], &["drop: [id]"]),
        )]),
    }
}

fn invoices(relations: Relations) -> Route {
    Route { relations, ..route("db.shop.invoice", &[]) }
}

type Texts<'t> = [&'t str; 3];

fn values<'v>(row: &Texts<'v>) -> impl Iterator<Item = Value<'v>> + use<'v> {
    (*row).into_iter().map(|text| match text {
        "?" => Value::Unavailable,
        "-" => Value::Null,
        text => Value::Data(text.as_bytes()),
    })
}

/// Transactions of changes: op, table, row before, row after.
type Change<'t> = (Op, &'t Arc<TableSchema>, Option<Texts<'t>>, Option<Texts<'t>>);

/// The last transaction has no end if it is said so.
fn batch(transactions: &[&[Change<'_>]], is_open: bool) -> Batch {
    let mut batch = Batch::new();
    let mut position = 0;
    for (nth, changes) in transactions.iter().enumerate() {
        batch.begin_transaction(Transaction { id: format!("t{nth}"), commit_time_us: 1 });
        for (op, table, before, after) in *changes {
            position += 1;
            let mut change = batch.change(*op, table, Position::from_bytes(&[position]).expect("short"));
            if let Some(before) = before {
                change = change.before(values(before));
            }
            if let Some(after) = after {
                change.after(values(after));
            }
        }
        if !is_open || nth + 1 < transactions.len() {
            batch.end_transaction();
        }
    }
    batch
}

/// What the tables hold when they are asked.
#[derive(Default)]
struct Held {
    invoices: Vec<Texts<'static>>,
    lines: Vec<Texts<'static>>,
    customers: Vec<[&'static str; 2]>,
    asked: Vec<String>,
}

impl Held {
    fn look_up(&mut self, lookup: &Lookup) -> Found {
        let keys: Vec<&str> = lookup.keys.iter().map(|key| std::str::from_utf8(&key[0]).expect("text")).collect();
        self.asked.push(format!("{} {}", lookup.table, keys.join(" ")));
        let (table, by, rows): (_, _, Vec<Vec<&str>>) = match lookup.table.as_str() {
            "invoice" => (invoice(), 0, self.invoices.iter().map(|row| row.to_vec()).collect()),
            "line" => (line(), 1, self.lines.iter().map(|row| row.to_vec()).collect()),
            _ => (customer(), 0, self.customers.iter().map(|row| row.to_vec()).collect()),
        };
        assert_eq!(lookup.columns, [table.columns[by].name.clone()]);
        let mut found = Found { table: table.clone(), rows: Batch::new(), keys: Vec::new() };
        found.rows.begin_transaction(Transaction::default());
        for (nth, key) in keys.iter().enumerate() {
            for row in rows.iter().filter(|row| row[by] == *key) {
                let values = row.iter().map(|text| Value::Data(text.as_bytes()));
                found.rows.change(Op::Read, &table, Position::from_bytes(&[]).expect("short")).after(values);
                found.keys.push(nth);
            }
        }
        found
    }

    fn route(&mut self, router: &mut Router, batch: &Batch) -> Result<EventBatch, Unfit> {
        router.gather(batch)?;
        loop {
            let wanted = router.wanted(batch);
            if wanted.is_empty() {
                break;
            }
            for wanted in wanted {
                let found = self.look_up(&wanted.lookup);
                router.found(&wanted, 0, found)?;
            }
        }
        let mut events = EventBatch::new();
        router.route("1-1", 0, batch, &mut events)?;
        Ok(events)
    }
}

/// A router that has seen a whole transaction, so that it knows where the next one begins.
fn ready(route: Route) -> Router {
    let mut router = Router::new("db", &[route]);
    let other = table("other", &[("id", Kind::Int, true), ("a", Kind::Int, false), ("b", Kind::Int, false)]);
    let first = batch(&[&[(Op::Insert, &other, None, Some(["1", "2", "3"]))]], false);
    router.gather(&first).expect("nothing of it is routed");
    assert!(router.wanted(&first).is_empty());
    router
}

fn rows(events: &EventBatch) -> Vec<(String, Json)> {
    let row = |event: crate::event::Event<'_>| {
        let body: Json = serde_json::from_slice(event.body).expect("JSON");
        let row = if body["after"].is_null() { body["before"].clone() } else { body["after"].clone() };
        (body["op"].as_str().unwrap_or_default().to_owned(), row)
    };
    events.iter().map(row).collect()
}

fn bought() -> Held {
    Held {
        invoices: vec![["1", "7", "9.90"]],
        lines: vec![["10", "1", "tea"], ["11", "1", "cups"], ["12", "2", "milk"]],
        customers: vec![["7", "Ada"], ["8", "Bob"]],
        asked: Vec::new(),
    }
}

#[test]
fn what_one_transaction_says_whole_is_one_event_and_nothing_of_it_is_looked_up() {
    let (invoice, line) = (invoice(), line());
    let batch = batch(
        &[
            &[
                (Op::Insert, &invoice, None, Some(["1", "7", "0"])),
                (Op::Insert, &line, None, Some(["10", "1", "tea"])),
                (Op::Insert, &line, None, Some(["11", "1", "cups"])),
                (Op::Update, &invoice, None, Some(["1", "7", "9.90"])),
                (Op::Insert, &invoice, None, Some(["2", "-", "0"])),
            ],
            &[(Op::Delete, &invoice, Some(["3", "?", "?"]), None)],
        ],
        false,
    );
    let mut held = bought();
    let events = held.route(&mut ready(invoices(relations(&[]))), &batch).expect("it fits");
    let expected = [
        (
            "insert",
            json!({ "id": 1, "customer": 7, "total": "9.90", "buyer": { "name": "Ada" }, "reread": null,
            "lines": [{ "no": 10, "invoice": 1, "what": "tea" }, { "no": 11, "invoice": 1, "what": "cups" }] }),
        ),
        ("insert", json!({ "id": 2, "customer": null, "total": "0", "buyer": null, "lines": [], "reread": null })),
        ("delete", json!({ "id": 3 })),
    ];
    let expected = expected.map(|(op, row)| (op.to_owned(), row));
    let mut got = rows(&events);
    got[2].1 = json!({ "id": events.get(2).key.contains('3').then_some(3) });
    assert_eq!(got, expected);
    assert_eq!(held.asked, ["customer 7"]);
}

#[test]
fn what_the_transaction_does_not_say_is_looked_up_and_labelled() {
    let (invoice, line) = (invoice(), line());
    let changed = [(Op::Update, &line, Some(["10", "1", "te"]), Some(["10", "1", "tea"]))];
    let header = [(Op::Update, &invoice, None, Some(["1", "8", "9.90"]))];
    let read = [(Op::Read, &invoice, None, Some(["1", "7", "9.90"]))];
    for (changes, reread, buyer) in [
        (&changed, json!(["row", "lines"]), "Ada"),
        (&header, json!(["lines"]), "Bob"),
        (&read, json!(["lines"]), "Ada"),
    ] {
        let events = bought().route(&mut ready(invoices(relations(&[]))), &batch(&[changes], false)).expect("it fits");
        let [(_, row)] = &rows(&events)[..] else { panic!("one event of {changes:?}") };
        assert_eq!((&row["reread"], &row["buyer"]["name"]), (&reread, &json!(buyer)));
        assert_eq!(row["lines"].as_array().map(Vec::len), Some(2), "{row}");
    }
}

#[test]
fn what_may_be_there_before_its_owner_is_always_looked_up() {
    let (invoice, line) = (invoice(), line());
    let changes =
        [(Op::Insert, &invoice, None, Some(["1", "7", "0"])), (Op::Insert, &line, None, Some(["10", "1", "tea"]))];
    let mut relations = relations(&[]);
    relations.aggregate.get_mut("lines").expect("it is there").owned = false;
    let events = bought().route(&mut ready(invoices(relations)), &batch(&[&changes], false)).expect("it fits");
    let row = &rows(&events)[0].1;
    assert_eq!((&row["reread"], row["lines"].as_array().map(Vec::len)), (&json!(["lines"]), Some(2)));
}

#[test]
fn of_a_torn_transaction_nothing_is_taken_for_whole() {
    let (invoice, line) = (invoice(), line());
    let first =
        [(Op::Insert, &invoice, None, Some(["1", "7", "0"])), (Op::Insert, &line, None, Some(["10", "1", "tea"]))];
    let mut held = bought();
    let mut router = ready(invoices(relations(&[])));
    let events = held.route(&mut router, &batch(&[&first], true)).expect("it fits");
    assert_eq!(rows(&events)[0].1["reread"], json!(["lines"]));
    // The rest of it, which begins the next batch; then one that is whole.
    let events = held.route(&mut router, &batch(&[&first, &first], false)).expect("it fits");
    let reread: Vec<Json> = rows(&events).into_iter().map(|(_, row)| row["reread"].clone()).collect();
    assert_eq!(reread, [json!(["lines"]), Json::Null]);
    // After a source was opened nobody knows.
    router.opened();
    let events = held.route(&mut router, &batch(&[&first], false)).expect("it fits");
    assert_eq!(rows(&events)[0].1["reread"], json!(["lines"]));
}

#[test]
fn a_row_that_is_deleted_and_made_again_is_there_anew() {
    let invoice = invoice();
    let changes = [
        (Op::Delete, &invoice, Some(["1", "7", "5"]), None),
        (Op::Insert, &invoice, None, Some(["1", "8", "6"])),
        (Op::Update, &invoice, Some(["2", "7", "1"]), Some(["2", "7", "2"])),
        (Op::Update, &invoice, Some(["2", "7", "2"]), Some(["2", "7", "3"])),
    ];
    let events = bought().route(&mut ready(invoices(relations(&[]))), &batch(&[&changes], false)).expect("it fits");
    let bodies: Vec<Json> = events.iter().map(|event| serde_json::from_slice(event.body).expect("JSON")).collect();
    let told: Vec<_> =
        bodies.iter().map(|body| (&body["op"], &body["before"]["total"], &body["after"]["total"])).collect();
    assert_eq!(told, [(&json!("insert"), &Json::Null, &json!("6")), (&json!("update"), &json!("1"), &json!("3"))]);
}

#[test]
fn a_row_that_goes_to_another_owner_is_a_change_of_both() {
    let line = line();
    let moved = [(Op::Update, &line, Some(["12", "1", "milk"]), Some(["12", "2", "milk"]))];
    let mut held = Held { invoices: vec![["1", "7", "9.90"], ["2", "7", "1"]], ..bought() };
    let events = held.route(&mut ready(invoices(relations(&[]))), &batch(&[&moved], false)).expect("it fits");
    let ids: Vec<Json> = rows(&events).into_iter().map(|(_, row)| row["id"].clone()).collect();
    assert_eq!(ids, [1, 2]);
    // One of which the owner is gone has no event: its own deletion has.
    held.invoices.clear();
    let events = held.route(&mut ready(invoices(relations(&[]))), &batch(&[&moved], false)).expect("it fits");
    assert!(events.is_empty());
    // What belongs to nobody concerns nobody.
    let nobody = [(Op::Insert, &line, None, Some(["12", "-", "milk"]))];
    assert!(
        bought().route(&mut ready(invoices(relations(&[]))), &batch(&[&nobody], false)).expect("it fits").is_empty()
    );
}

#[test]
fn a_change_whose_owner_is_not_known_is_parked_with_the_way_out() {
    let line = line();
    let deleted = [(Op::Delete, &line, Some(["10", "?", "?"]), None)];
    let emptied = [(Op::Truncate, &line, None, None)];
    for (change, why) in [(&deleted[..], "REPLICA IDENTITY FULL"), (&emptied, "emptied")] {
        let events = bought().route(&mut ready(invoices(relations(&[]))), &batch(&[change], false)).expect("it fits");
        let parked: Vec<&str> = events.iter().map(|event| event.parked.expect("it is parked")).collect();
        assert!(parked.len() == 1 && parked[0].contains(why) && parked[0].contains("towpath snapshot"), "{parked:?}");
    }
    let whole = [(Op::Delete, &line, Some(["10", "1", "tea"]), None)];
    let events = bought().route(&mut ready(invoices(relations(&[]))), &batch(&[&whole], false)).expect("it fits");
    assert_eq!(rows(&events)[0].1["id"], 1);
}

#[test]
fn related_rows_have_steps_of_their_own() {
    let invoice = invoice();
    let change = [(Op::Update, &invoice, None, Some(["1", "7", "9.90"]))];
    let steps = ["filter: what != 'cups'", "rename: { no: line_no }", "drop: [invoice]", "mask: { what: redact }"];
    let events = bought().route(&mut ready(invoices(relations(&steps))), &batch(&[&change], false)).expect("it fits");
    assert_eq!(rows(&events)[0].1["lines"], json!([{ "line_no": 10, "what": "***" }]));
    // One that cannot be done is told, and stops the route that wants to.
    let failing = relations(&["cast: { what: int }"]);
    let events = bought().route(&mut ready(invoices(failing.clone())), &batch(&[&change], false)).expect("it fits");
    let parked = events.get(0).parked.expect("it is parked");
    assert!(parked.starts_with("aggregate `lines`: transform[0] (`cast`) cannot be done on `what`"), "{parked}");
    let stopping = Route { on_error: OnError::Stop, ..invoices(failing) };
    assert!(bought().route(&mut ready(stopping), &batch(&[&change], false)).is_err());
}

#[test]
fn two_rows_are_no_answer_to_a_lookup() {
    let invoice = invoice();
    let change = [(Op::Update, &invoice, None, Some(["1", "7", "9.90"]))];
    let mut held = Held { customers: vec![["7", "Ada"], ["7", "Eve"]], ..bought() };
    let events = held.route(&mut ready(invoices(relations(&[]))), &batch(&[&change], false)).expect("it fits");
    assert!(events.get(0).parked.is_some_and(|why| why.contains("2 rows of shop.customer")), "{:?}", events.get(0));
}

#[test]
fn a_row_that_points_to_none_is_parked_where_it_should_be() {
    let invoice = invoice();
    let mut relations = relations(&[]);
    relations.lookup.get_mut("buyer").expect("it is there").missing = Missing::Park;
    for (customer, is_parked) in [("7", false), ("9", true), ("-", false)] {
        let change = [(Op::Update, &invoice, None, Some(["1", customer, "9.90"]))];
        let events =
            bought().route(&mut ready(invoices(relations.clone())), &batch(&[&change], false)).expect("it fits");
        assert_eq!(events.get(0).parked.is_some(), is_parked, "{customer}");
    }
}

#[test]
fn the_same_content_has_the_same_id_and_other_content_another() {
    let invoice = invoice();
    let change = [(Op::Update, &invoice, None, Some(["1", "7", "9.90"]))];
    let id = |held: &mut Held| {
        let events = held.route(&mut ready(invoices(relations(&[]))), &batch(&[&change], false)).expect("it fits");
        events.get(0).id.to_owned()
    };
    let first = id(&mut bought());
    assert_eq!(first, id(&mut bought()));
    assert_ne!(first, id(&mut Held { customers: vec![["7", "Eve"]], ..bought() }));
}

#[test]
fn what_does_not_fit_the_tables_is_said_with_its_place() {
    let tables: Vec<TableSchema> = [invoice(), line(), customer()].map(|table| (*table).clone()).into();
    let fault = |relations: Relations, tables: &[TableSchema]| {
        let unfit = Router::new("db", &[invoices(relations)]).try_on(tables).expect_err("it does not fit");
        (unfit.fault.message, unfit.place)
    };
    let aggregate =
        |name: &str, related| Relations { aggregate: BTreeMap::from([(name.into(), related)]), ..Relations::default() };
    let by = |on: &[(&str, &str)], steps: &[&str]| related("shop.line", on, steps);
    for (relations, expected) in [
        (aggregate("total", by(&[("invoice", "id")], &[])), "has a column `total` of its own"),
        (aggregate("lines", by(&[("invoice", "nr")], &[])), "has no column `nr`"),
        (aggregate("lines", by(&[("invoice", "customer")], &[])), "by its key, which is id"),
        (aggregate("lines", by(&[("invoices", "id")], &[])), "shop.line has no column `invoices`"),
        (aggregate("lines", by(&[("invoice", "id")], &["trim: [no]"])), "no"),
        (aggregate("lines", related("shop.lines", &[("invoice", "id")], &[])), "captures no table shop.lines"),
    ] {
        let (message, _) = fault(relations, &tables);
        assert!(message.contains(expected), "{message}");
    }
    assert!(Router::new("db", &[invoices(relations(&[]))]).try_on(&tables).is_ok());
    let needs: Vec<Need> = Router::new("db", &[invoices(relations(&[]))]).needing_old_rows(&tables);
    assert_eq!(needs.iter().map(|need| need.table.1.as_str()).collect::<Vec<_>>(), ["line"]);
}
