//! Cases that are right and cases that are not, and what is said of them.

use super::*;
use crate::config::{Environment, Purpose, Syntax, load_text};

const CONFIG: &str = r#"
sources: { db: { type: postgres, url: "postgres://app@db.example/x" } }
outbox: { sqlite: outbox.db }
rabbitmq: { url: "amqp://app:pw@mq.example" }
routes:
  - from: db.public.orders
    name: orders
    transform:
      - trim: ["*"]
      - decode: { origin: { "1": web, "2": phone } }
      - emit_when: { status: { "A -> S": OrderShipped, "new -> A": OrderPlaced } }
      - drop: [secret]
    event: { routing_key: "orders.{{ type }}", headers: { origin: "{{ row.origin | default('none') }}" }, properties: { correlation_id: "{{ row.id }}" } }
"#;

const HEAD: &str = "
from: db.public.orders
columns: { id: int, status: text, origin: int, total: decimal, secret: text, meta: json }
key: [id]
cases:
";

fn config() -> Checked {
    load_text(CONFIG, Syntax::Yaml, &Environment::default(), Purpose::Ask).expect("valid")
}

/// What is said of each case.
fn said(cases: &str) -> Vec<Vec<String>> {
    read(&format!("{HEAD}{cases}")).expect("well-formed").run(&config()).expect("a route takes it")
}

#[test]
fn cases_that_hold_say_nothing() {
    let cases = r#"
  - name: an order is shipped
    update: { before: { id: 1, status: A }, after: { id: 1, status: "S ", origin: 1, total: 12.50, secret: x, meta: { a: [1, null] } } }
    events:
      - route: orders
        type: OrderShipped
        exchange: towpath
        routing_key: orders.OrderShipped
        correlation_id: 1
        key: { id: 1 }
        headers: { origin: web, "cloudEvents:subject": public.orders, none: null }
        body: { op: update, after: { id: 1, status: S, origin: web, total: "12.50", meta: { a: [1, null] } } }
  - insert: { id: 2, status: B }
    events: []
  - name: an origin that nobody knows
    insert: { id: 2, status: A, origin: 7 }
    parked: the code is not in the list
  - delete: { id: 3 }
    parked: needs a value
  - truncate: true
    events: []
  - read: { id: 4, status: A }
    events: []
"#;
    // A delete is no transition that is watched for.
    let mut said = said(cases);
    let deleted = said.remove(3);
    assert_eq!(deleted, [r#"parked: expected "needs a value", and there is no event"#]);
    assert!(said.iter().all(Vec::is_empty), "{said:#?}");
}

#[test]
fn what_differs_is_told_where_it_stands() {
    let cases = r#"
  - insert: { id: 2, status: A, origin: 1, total: 1.50, secret: x }
    events:
      - { type: OrderShipped, key: { id: "2" }, headers: { origin: phone, more: x }, body: { op: insert, after: { id: 2, status: A, total: 1.50, meta: null }, moved: 1 } }
      - { type: Another }
  - insert: { id: 2, status: A, origin: 1 }
    events: []
  - insert: { id: 2, status: A, origin: 1 }
    parked: some reason
  - insert: { id: 2, status: A, origin: 9 }
    events: [{ type: OrderPlaced }]
  - insert: { id: 2, status: A, origin: 9 }
    parked: another reason
"#;
    let said = said(cases);
    let first = [
        "events: expected 2, found 1: OrderPlaced (orders.OrderPlaced)",
        r#"events[0].type: expected "OrderShipped", found "OrderPlaced""#,
        r#"events[0].headers.origin: expected "phone", found "web""#,
        r#"events[0].headers.more: expected "x", and there is none"#,
        r#"events[0].key.id: expected "2", found 2"#,
        r#"events[0].body.after.total: expected 1.50, found "1.50""#,
        r#"events[0].body.after.origin: expected none, found "web""#,
        "events[0].body.moved: expected 1, and there is none",
    ];
    assert_eq!(said[0], first);
    assert_eq!(said[1], ["events: expected 0, found 1: OrderPlaced (orders.OrderPlaced)"]);
    assert_eq!(said[2], [r#"parked: expected "some reason", and the event is published"#]);
    assert!(said[3][0].starts_with("events[0].parked: it is set aside: transform[1] (`decode`)"), "{said:#?}");
    assert!(said[4][0].starts_with(r#"parked: expected "another reason", found "transform[1]"#), "{said:#?}");
}

#[test]
fn a_file_that_is_wrong_is_told_with_its_line() {
    for (text, expected) in [
        ("", "1: the file is empty"),
        ("a: [", ": not YAML"),
        ("a: 1", "1: `a` is not known here; there are: from, columns, key, cases"),
        ("from: db.public.*\ncolumns: {}\ncases: [x]", "1: `from` is one table"),
        ("from: db.public.t\ncolumns:\n  id: number\ncases: []", "3: `number` is no type; there are: text, int"),
        ("from: db.public.t\ncolumns: { id: int }\nkey: [no]\ncases: []", "3: `key` names `no`"),
        (
            "from: db.public.t\ncolumns: { id: int }\ncases:\n  - insert: { id: x }\n    events: []",
            "4: `x` is no whole number",
        ),
        (
            "from: db.public.t\ncolumns: { id: int }\ncases:\n  - insert: { no: 1 }\n    events: []",
            "4: `no` is not known here",
        ),
        (
            "from: db.public.t\ncolumns: { id: int }\ncases:\n  - insert: { id: 1 }",
            "4: a case says either which `events`",
        ),
        ("from: db.public.t\ncolumns: { id: int }\ncases:\n  - events: []", "4: a case has one change"),
        (
            "from: db.public.t\ncolumns: { id: int }\ncases:\n  - insert: { id: 1 }\n    events: [{ typ: x }]",
            "5: `typ` is not known here; there are: route, type",
        ),
        ("a: 1\na: 2", "2: `a` stands here twice"),
        ("a: 1\n---\nb: 1", ": a second document starts here"),
        ("from: db.public.t\ncolumns: { id: int }\ncases: []", "3: there is no case"),
        (
            "from: db.public.t\ncolumns: { id: int }\nkey: [id]\ncases:\n  - update: { before: { id: 1 }, after: { id: 2 } }\n    events: []",
            "5: an update that changes the key comes as a delete and an insert",
        ),
    ] {
        let wrong = read(text).expect_err("it is wrong").to_string();
        assert!(wrong.contains(expected), "{expected}\n--- in\n{wrong}");
    }
    let other = HEAD.replace("public.orders", "public.others") + "  - { truncate: true, events: [] }";
    let why = read(&other).expect("well-formed").run(&config()).expect_err("no route takes it");
    assert_eq!(why, "no route takes db.public.others");
}

#[test]
fn a_route_that_does_not_fit_the_columns_fails_every_case() {
    let other = HEAD.replace(", origin: int", "") + "  - { insert: { id: 1 }, events: [] }";
    let said = read(&other).expect("well-formed").run(&config()).expect("a route takes it");
    assert_eq!(said[0], ["route orders: public.orders has no column `origin`"]);
}

#[test]
fn values_stay_as_they_are_written() {
    let read = |text: &str| yaml::read(text).expect("well-formed").json();
    assert_eq!(
        read("[007, 1.50, 'x', true, null, ~, yes, -1, 1e5, 0x10, '1']"),
        r#"["007",1.50,"x",true,null,null,"yes",-1,1e5,"0x10","1"]"#
    );
    let deep = "[".repeat(100) + &"]".repeat(100);
    assert!(yaml::read(&deep).is_err());
}
