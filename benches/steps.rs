//! What each step costs: a thousand changes through a route that has it alone, beside the same route without.
//!
//!     cargo bench --bench steps -- [a step's name]

use std::sync::Arc;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use towpath::event::{EventBatch, RouteId};
use towpath::route::Router;
use towpath::route::matching::RouteFrom;
use towpath::route::plan::{EventForm, OnError, Route};
use towpath::route::related::Relations;
use towpath::route::transform::StepConfig;
use towpath_contract::{Batch, Column, KeyKind, Kind, Op, Position, TableSchema, Transaction, Value};

const CHANGES: u64 = 1000;

/// What the columns below call for.
const STEPS: &[(&str, &[&str])] = &[
    ("none", &[]),
    ("branch", &["branch: [{ when: \"AMOUNT > 10000\", type: large }]"]),
    ("cast", &["cast: { AMOUNT: decimal }"]),
    ("charset_repair", &["charset_repair: { NAME: windows-1252 }"]),
    ("decode", &["decode: { STATUS: { A: active, S: shipped, X: gone } }"]),
    ("drop", &["drop: [FILLER]"]),
    ("emit_when", &["emit_when: { STATUS: { \"A -> S\": shipped } }"]),
    ("filter", &["filter: \"STATUS != 'X' && AMOUNT > 10\""]),
    ("implied_decimal", &["implied_decimal: { AMOUNT: 2 }"]),
    ("legacy_date", &["legacy_date: { SINCE: yyyymmdd }"]),
    ("mask", &["mask: { NAME: { hmac: \"0123456789abcdef\" } }"]),
    ("nest", &["nest: { money: [AMOUNT, SINCE] }"]),
    ("null_if", &["null_if: { SINCE: [\"0\"] }"]),
    ("rename", &["rename: snake_case"]),
    ("sample", &["sample: 0.99"]),
    ("select", &["select: [ID, STATUS]"]),
    ("set", &["set: { total: \"AMOUNT * 3 + 1\" }"]),
    ("trim", &["trim: [\"*\"]"]),
    ("unpivot", &["unpivot: { amounts: [AMOUNT, SINCE] }"]),
    (
        "the five of the drain",
        &[
            "trim: [NAME, STATUS]",
            "legacy_date: { SINCE: yyyymmdd }",
            "decode: { STATUS: { A: active, S: shipped, X: gone } }",
            "mask: { NAME: { hmac: \"0123456789abcdef\" } }",
            "rename: snake_case",
        ],
    ),
];

fn step(yaml: &str) -> StepConfig {
    let built = config::Config::builder().add_source(config::File::from_str(yaml, config::FileFormat::Yaml)).build();
    built.and_then(config::Config::try_deserialize).unwrap_or_else(|error| panic!("{yaml}: {error}"))
}

fn batch() -> Batch {
    let column = |name: &str, kind| Column { name: name.into(), kind, type_name: "any".into(), key: name == "ID" };
    let columns = vec![
        column("ID", Kind::Int),
        column("NAME", Kind::Text),
        column("STATUS", Kind::Text),
        column("SINCE", Kind::Int),
        column("AMOUNT", Kind::Int),
        column("FILLER", Kind::Text),
    ];
    let table = Arc::new(TableSchema::new("public".into(), "customers".into(), columns, KeyKind::Columns));
    let mut batch = Batch::new();
    batch.begin_transaction(Transaction { id: "7".into(), commit_time_us: 1_700_000_000_000_000 });
    for nth in 0..CHANGES {
        let position = Position::from_bytes(&nth.to_be_bytes()).expect("short");
        let (id, amount) = (nth.to_string(), (nth * 37).to_string());
        let row = |status: &'static str| {
            let values = [id.as_str(), "Jane Doe            ", status, "20240229", &amount, "                    "];
            values.map(|text| text.to_owned())
        };
        let (before, after) = (row("A "), row("S "));
        let change = batch.change(Op::Update, &table, position);
        change
            .before(before.iter().map(|text| Value::Data(text.as_bytes())))
            .after(after.iter().map(|text| Value::Data(text.as_bytes())));
    }
    batch
}

fn steps(criterion: &mut Criterion) {
    let batch = batch();
    let mut group = criterion.benchmark_group("steps");
    group.throughput(Throughput::Elements(CHANGES));
    for (name, steps) in STEPS {
        let route = Route {
            id: RouteId(1),
            name: "customers".into(),
            from: RouteFrom::parse("db").expect("a source"),
            event: EventForm::new("towpath"),
            relations: Relations::default(),
            steps: steps.iter().map(|yaml| step(yaml)).collect(),
            on_error: OnError::default(),
        };
        let mut router = Router::new("db", &[route]);
        group.bench_function(*name, |bencher| {
            bencher.iter(|| {
                let mut events = EventBatch::new();
                router.route("1-1", 0, &batch, &mut events).expect("the step fits");
                assert!(events.parked() == 0 && !events.is_empty(), "{name}");
                events
            });
        });
    }
    group.finish();
}

criterion_group! { name = all; config = Criterion::default().sample_size(30); targets = steps }
criterion_main!(all);
