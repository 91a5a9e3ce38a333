//! The examples of `docs/transforms.md`: what comes out is what the code makes of them.

use std::sync::Arc;

use towpath_contract::{Batch, Column, KeyKind, Kind, Op, Position, TableSchema, Transaction, Value};

use super::{Compiled, Images, StepConfig, View, compile};
use crate::route::json::Form;

pub(crate) struct Example {
    pub(crate) step: &'static str,
    /// As the config has it.
    pub(crate) yaml: &'static str,
    columns: &'static [(&'static str, Kind, &'static str)],
    rows: &'static [&'static [&'static str]],
    /// Of updates: the rows as they were.
    before: &'static [&'static [&'static str]],
}

pub(crate) const EXAMPLES: &[Example] = &[
    Example {
        step: "branch",
        yaml: "branch: [{ when: \"amount >= 10000\", type: order.large }, { when: \"status == 'X'\", type: order.cancelled }]",
        columns: &[("amount", Kind::Decimal, "numeric(9,2)"), ("status", Kind::Text, "text")],
        rows: &[&["10000.00", "A"], &["12.50", "X"], &["12.50", "A"]],
        before: &[],
    },
    Example {
        step: "cast",
        yaml: "cast: { qty: int, price: decimal, active: bool }",
        columns: &[
            ("qty", Kind::Text, "character(6)"),
            ("price", Kind::Text, "character(8)"),
            ("active", Kind::Text, "character(1)"),
        ],
        rows: &[&["000012", "  19.90 ", "Y"], &["3.5   ", "0.05    ", "N"]],
        before: &[],
    },
    Example {
        step: "charset_repair",
        yaml: "charset_repair: { name: windows-1252 }",
        columns: &[("name", Kind::Text, "text")],
        rows: &[&["MÃ¼ller"], &["Müller"]],
        before: &[],
    },
    Example {
        step: "decode",
        yaml: "decode: { status: { A: active, S: shipped }, origin: { \"1\": web, \"*\": \"{{ value }}\" } }",
        columns: &[("status", Kind::Text, "character(2)"), ("origin", Kind::Int, "smallint")],
        rows: &[&["A ", "1"], &["S ", "7"], &["X ", "1"]],
        before: &[],
    },
    Example {
        step: "drop",
        yaml: "drop: [\"filler*\", upd_usr]",
        columns: &[
            ("id", Kind::Int, "integer"),
            ("filler1", Kind::Text, "character(9)"),
            ("upd_usr", Kind::Text, "character(8)"),
        ],
        rows: &[&["7", "         ", "KERMIT  "]],
        before: &[],
    },
    Example {
        step: "emit_when",
        yaml: "emit_when: { status: { \"A -> S\": OrderShipped, \"* -> X\": OrderCancelled } }",
        columns: &[("id", Kind::Int, "integer"), ("status", Kind::Text, "character(2)")],
        rows: &[&["7", "S "], &["7", "X "], &["7", "B "]],
        before: &[&["7", "A "], &["7", "S "], &["7", "A "]],
    },
    Example {
        step: "filter",
        yaml: "filter: \"status != 'X' && amount > 0\"",
        columns: &[("status", Kind::Text, "text"), ("amount", Kind::Decimal, "numeric(9,2)")],
        rows: &[&["A", "12.50"], &["X", "12.50"], &["A", "0.00"]],
        before: &[],
    },
    Example {
        step: "flatten",
        yaml: "flatten: { address: { street: text, floor: int } }",
        columns: &[("id", Kind::Int, "integer"), ("address", Kind::Json, "jsonb")],
        rows: &[&["7", r#"{"street": "Via Appia 1", "floor": "02", "lift": true}"#], &["8", r#"{"street": null}"#]],
        before: &[],
    },
    Example {
        step: "implied_decimal",
        yaml: "implied_decimal: { amount: 2 }",
        columns: &[("amount", Kind::Text, "character(9)")],
        rows: &[&["000012345"], &["00000005-"], &["12.5"]],
        before: &[],
    },
    Example {
        step: "legacy_date",
        yaml: "legacy_date: { ordered: cyymmdd, due: { form: yymmdd, pivot: 30 } }",
        columns: &[("ordered", Kind::Int, "numeric(7,0)"), ("due", Kind::Text, "character(6)")],
        rows: &[&["1240229", "290101"], &["991231", "300101"], &["0", "240231"]],
        before: &[],
    },
    Example {
        step: "mask",
        yaml: "mask: { email: { hmac: \"${MASK_KEY}\" }, phone: { keep_end: 3 }, note: redact, ssn: drop }",
        columns: &[
            ("email", Kind::Text, "text"),
            ("phone", Kind::Text, "text"),
            ("note", Kind::Text, "text"),
            ("ssn", Kind::Text, "text"),
        ],
        rows: &[&["jane@example.com", "+44 20 7946 0958", "calls often", "078-05-1120"]],
        before: &[],
    },
    Example {
        step: "nest",
        yaml: "nest: { address: [street, city] }",
        columns: &[("id", Kind::Int, "integer"), ("street", Kind::Text, "text"), ("city", Kind::Text, "text")],
        rows: &[&["7", "Via Appia 1", "Roma"]],
        before: &[],
    },
    Example {
        step: "null_if",
        yaml: "null_if: { ended: [\"0\", \"99999999\"], phone: [\"\"] }",
        columns: &[("ended", Kind::Int, "integer"), ("phone", Kind::Text, "character(8)")],
        rows: &[&["0", "        "], &["20240229", "0958    "]],
        before: &[],
    },
    Example {
        step: "outbox_table",
        yaml: "outbox_table: { headers: headers }",
        columns: &[
            ("id", Kind::Uuid, "uuid"),
            ("aggregatetype", Kind::Text, "text"),
            ("aggregateid", Kind::Text, "text"),
            ("type", Kind::Text, "text"),
            ("payload", Kind::Json, "jsonb"),
            ("headers", Kind::Json, "jsonb"),
        ],
        rows: &[&[
            "0b8e5a1c-5b4e-4a8a-9a3e-2f0f7f3f7c11",
            "order",
            "42",
            "OrderPlaced",
            r#"{"total": "12.50"}"#,
            r#"{"tenant": "a"}"#,
        ]],
        before: &[],
    },
    Example {
        step: "rename",
        yaml: "rename: camelCase",
        columns: &[("CUST_NO", Kind::Int, "integer"), ("LAST_ORDER_DT", Kind::Date, "date")],
        rows: &[&["7", "2024-02-29"]],
        before: &[],
    },
    Example {
        step: "sample",
        yaml: "sample: 0.5",
        columns: &[("id", Kind::Int, "integer")],
        rows: &[&["1"], &["2"], &["3"], &["4"]],
        before: &[],
    },
    Example {
        step: "select",
        yaml: "select: [status, id]",
        columns: &[("id", Kind::Int, "integer"), ("status", Kind::Text, "text"), ("blob", Kind::Bytes, "bytea")],
        rows: &[&["7", "A", "x"]],
        before: &[],
    },
    Example {
        step: "set",
        yaml: "set: { total: \"qty * price\", vip: \"total_due > 1000 || name.startsWith('VIP')\" }",
        columns: &[
            ("qty", Kind::Int, "integer"),
            ("price", Kind::Decimal, "numeric(9,2)"),
            ("total_due", Kind::Decimal, "numeric(9,2)"),
            ("name", Kind::Text, "text"),
        ],
        rows: &[&["3", "19.90", "0.00", "VIP Jane"]],
        before: &[],
    },
    Example {
        step: "split",
        yaml: "split: [{ type: phone.changed, select: [phone] }, { type: address.changed, select: [city], set: { kind: \"'home'\" }, when: \"city != ''\" }]",
        columns: &[("id", Kind::Int, "integer"), ("phone", Kind::Text, "text"), ("city", Kind::Text, "text")],
        rows: &[&["7", "555-0100", "Bonn"], &["8", "555-0101", ""]],
        before: &[],
    },
    Example {
        step: "trim",
        yaml: "trim: [\"*\"]",
        columns: &[("id", Kind::Int, "integer"), ("name", Kind::Text, "character(10)")],
        rows: &[&["7", "Jane      "], &["8", "          "]],
        before: &[],
    },
    Example {
        step: "unpivot",
        yaml: "unpivot: { amounts: [\"AMT*\"] }",
        columns: &[
            ("ACCT", Kind::Text, "character(6)"),
            ("AMT01", Kind::Decimal, "numeric(9,2)"),
            ("AMT02", Kind::Decimal, "numeric(9,2)"),
            ("AMT03", Kind::Decimal, "numeric(9,2)"),
        ],
        rows: &[&["001200", "12.50", "0.00", "7.25"]],
        before: &[],
    },
    Example {
        step: "zone",
        yaml: "zone: { created: Europe/Berlin, changed: { zone: Europe/Berlin, dst: earlier } }",
        columns: &[("created", Kind::Timestamp, "timestamp"), ("changed", Kind::Timestamp, "timestamp")],
        rows: &[
            &["2024-07-01T12:00:00", "2024-10-27T02:30:00"],
            &["2024-10-27T02:30:00", "2024-10-27T02:30:00"],
            &["2024-03-31T02:30:00", "2024-03-31T02:30:00"],
        ],
        before: &[],
    },
];

impl Example {
    /// Each row as JSON, before and after; a failure in words.
    pub(crate) fn run(&self) -> Vec<(String, String)> {
        let step = self.read();
        assert_eq!(step.name(), self.step);
        assert_eq!(step.faults(), [], "{}", self.yaml);
        let column = |(name, kind, type_name): &(&str, Kind, &str)| Column {
            name: (*name).into(),
            kind: kind.clone(),
            type_name: (*type_name).into(),
            key: *name == "id",
        };
        let table = Arc::new(TableSchema::new(
            "s".into(),
            "t".into(),
            self.columns.iter().map(column).collect(),
            if self.columns.iter().any(|(name, ..)| *name == "id") { KeyKind::Columns } else { KeyKind::None },
        ));
        let Compiled { fields, program, variants, parts, row_event, .. } =
            compile(&[step], &table, false).expect("the step fits its example");
        let mut batch = Batch::new();
        batch.begin_transaction(Transaction::default());
        fn values(row: &'static [&'static str]) -> impl Iterator<Item = Value<'static>> {
            row.iter().map(|value| Value::Data(value.as_bytes()))
        }
        for (nth, row) in self.rows.iter().enumerate() {
            let before = self.before.get(nth);
            let op = if before.is_some() { Op::Update } else { Op::Insert };
            let change = batch.change(op, &table, Position::from_bytes(&[1]).expect("short"));
            let change = if let Some(before) = before { change.before(values(before)) } else { change };
            change.after(values(row));
        }
        let mut images = Images::default();
        let show = |change: towpath_contract::Change<'_>| {
            images.transform(&change, &program, false);
            let raw = |row| {
                let columns = table.columns.iter().enumerate();
                object(
                    columns.map(|(slot, column)| (column.name.as_str(), Form::of(&column.kind), slot)),
                    View::raw(row),
                )
            };
            let after = raw(change.after().expect("it has one"));
            let before = match change.before() {
                Some(row) => format!("`{}` → `{after}`", raw(row)),
                None => format!("`{after}`"),
            };
            let made = match images.failure() {
                _ if row_event.is_some() => routed(&batch, &self.read()),
                Some(failure) => format!("parked: `{}`: {}", failure.field, failure.reason),
                None if images.chosen().dropped => "no event".into(),
                None => {
                    let event = |chosen: Option<usize>| {
                        let fields = chosen.and_then(|chosen| parts[chosen].as_ref()).unwrap_or(&fields);
                        let fields =
                            fields.iter().map(|field| (field.name.as_str(), Form::of(&field.kind), field.slot));
                        let event_type = chosen.and_then(|chosen| variants[chosen].event_type.as_ref());
                        let of_type = event_type.map(|event_type| format!("type `{event_type}`: ")).unwrap_or_default();
                        format!("{of_type}`{}`", object(fields, images.of(&change).after.expect("it has one")))
                    };
                    match &images.chosen().variants[..] {
                        [] => event(None),
                        chosen => chosen.iter().map(|chosen| event(Some(*chosen))).collect::<Vec<_>>().join(", "),
                    }
                }
            };
            (before, made)
        };
        batch.changes().map(show).collect()
    }

    fn read(&self) -> StepConfig {
        step(&self.yaml.replace("${MASK_KEY}", "the key of the docs, 32 bytes long"))
    }
}

/// What is published of the rows where they are events themselves.
fn routed(batch: &Batch, step: &StepConfig) -> String {
    let mut route = crate::route::transform_tests::route("db.s.t", &[]);
    let defaults = step.defaults();
    route.steps = vec![step.clone()];
    route.event.event_type = defaults.event_type.expect("it has one");
    route.event.routing_key = defaults.routing_key.expect("it has one");
    let mut events = crate::event::EventBatch::new();
    crate::route::Router::new("db", &[route])
        .route("1", 1, batch, &mut events)
        .map_err(|unfit| unfit.fault)
        .expect("it fits");
    let event = events.get(0);
    format!("routing key `{}`, key `{}`: `{}`", event.routing_key, event.key, String::from_utf8_lossy(event.body))
}

/// A step as a config has it.
pub(crate) fn step(yaml: &str) -> StepConfig {
    let built = config::Config::builder().add_source(config::File::from_str(yaml, config::FileFormat::Yaml)).build();
    built.expect("well-formed").try_deserialize().expect("a step")
}

fn object<'a>(fields: impl Iterator<Item = (&'a str, Form, usize)>, row: View<'_>) -> String {
    let mut out = Vec::new();
    for (name, form, slot) in fields {
        out.extend_from_slice(if out.is_empty() { b"{" } else { b"," });
        out.extend_from_slice(format!("\"{name}\":").as_bytes());
        match row.value(slot) {
            Value::Data(bytes) => form.write(bytes, &mut out).expect("text"),
            _ => out.extend_from_slice(b"null"),
        }
    }
    out.push(b'}');
    String::from_utf8(out).expect("JSON")
}
