//! From text to a checked config, every step together.

use std::time::Duration;

use proptest::prelude::*;
use towpath_contract::{ByteSize, Span};

use super::checked::Checked;
use super::load::{Purpose, load_text};
use super::locate::Syntax;
use super::model::SourceConfig;
use super::problem::ProblemRecord;
use super::{ConfigError, Environment};

pub(super) const MINIMAL: &str = "\
sources:
  orders-db:
    type: postgres
    url: ${ORDERS_DB_URL}
outbox:
  sqlite: outbox.db
rabbitmq:
  url: ${RABBITMQ_URL:-amqp://localhost}
";

pub(super) fn variables<'a>(more: &[(&'a str, &'a str)]) -> Environment {
    Environment::of([("ORDERS_DB_URL", "postgres://app:hunter2@db/orders")].into_iter().chain(more.iter().copied()))
}

pub(super) fn good(text: &str, environment: &Environment) -> Checked {
    load_text(text, Syntax::Yaml, environment, Purpose::Run).unwrap_or_else(|problems| panic!("{problems:#?}"))
}

pub(super) fn bad(text: &str, environment: &Environment) -> Vec<String> {
    let problems = load_text(text, Syntax::Yaml, environment, Purpose::Run).expect_err("must be refused");
    let error = ConfigError { file: "t.yaml".into(), problems };
    assert!(!error.to_string().contains("hunter2"), "{error}");
    error.records().iter().map(ProblemRecord::to_string).collect()
}

fn postgres(checked: &Checked) -> &towpath_postgres::PostgresConfig {
    match &checked.sources[0].config {
        SourceConfig::Postgres(config) => config,
        other => panic!("expected a PostgreSQL source, found {other:?}"),
    }
}

#[test]
fn a_source_an_outbox_and_a_broker_are_a_whole_config() {
    let checked = good(MINIMAL, &variables(&[]));
    assert_eq!(postgres(&checked).url.reveal(), "postgres://app:hunter2@db/orders");
    assert_eq!(checked.broker.urls[0].reveal(), "amqp://localhost");
    assert_eq!(checked.routes.len(), 1);
    assert_eq!(checked.routes[0].name, "orders-db");
    assert_eq!(checked.routes[0].event.exchange, "towpath");
    assert_eq!(checked.routes[0].from.to_string(), "orders-db.*.*");
    assert_eq!(checked.outbox.retain, Span(Duration::from_secs(7 * 86_400)));
    assert_eq!(checked.outbox.max_size, ByteSize(10 << 30));
    assert!(!format!("{checked:?}").contains("hunter2"));
}

#[test]
fn a_variable_overrides_a_key_of_any_type() {
    let environment = variables(&[
        ("TOWPATH__RABBITMQ__URL", "amqp://other"),
        ("TOWPATH__RABBITMQ__WINDOW", "500"),
        ("TOWPATH__SOURCES__ORDERS_DB__CREATE", "FALSE"),
        ("TOWPATH__SOURCES__ORDERS_DB__TABLES", "public.a, public.b"),
        ("TOWPATH__SOURCES__ORDERS_DB__PASSWORD", "0123"),
        ("TOWPATH__SOURCES__ORDERS_DB__TLS__MODE", "disable"),
        ("towpath__outbox__retain", "another program's"),
        ("TOWPATH_LOG", "debug"),
    ]);
    let checked = good(MINIMAL, &environment);
    assert_eq!(checked.broker.urls[0].reveal(), "amqp://other");
    assert_eq!(checked.broker.window, 500);
    assert!(!postgres(&checked).create);
    assert_eq!(postgres(&checked).tables, ["public.a", "public.b"]);
    assert_eq!(postgres(&checked).password.as_ref().unwrap().reveal(), "0123");
}

#[test]
fn an_override_replaces_an_item_of_a_list_and_what_it_refers_to() {
    let text = MINIMAL.to_owned() + "routes: [{ from: \"${UNSET}\", name: a }]\n";
    let environment =
        variables(&[("TOWPATH__ROUTES__0__FROM", "orders-db"), ("TOWPATH__ROUTES__1__FROM", "orders-db.a.b")]);
    let checked = good(&text, &environment);
    assert_eq!(checked.routes.iter().map(|route| &*route.name).collect::<Vec<_>>(), ["a", "orders-db.a.b"]);
}

#[test]
fn an_override_that_fits_no_key_names_the_variable() {
    let environment = variables(&[
        ("TOWPATH__RABBITMQ__WINDOW", "hunter2"),
        ("TOWPATH__RABBITMQ__URI", "hunter2"),
        ("TOWPATH__ROUTES____FROM", "x"),
    ]);
    let problems = bad(MINIMAL, &environment).join("\n");
    for expected in [
        "$TOWPATH__RABBITMQ__WINDOW: rabbitmq.window: found the value (withheld), expected a whole number from 1 to 65535",
        "$TOWPATH__RABBITMQ__URI: rabbitmq.uri: unknown key\n    did you mean `url`?",
        "$TOWPATH__ROUTES____FROM: routes: the variable's name has an empty key",
    ] {
        assert!(problems.contains(expected), "{expected}\n--- in\n{problems}");
    }
}

#[test]
fn text_stays_as_it_was_written() {
    let text = MINIMAL.replace("type: postgres", "type: postgres\n    password: 0123\n    slot: 1_000");
    let checked = good(&text, &variables(&[]));
    assert_eq!(postgres(&checked).password.as_ref().unwrap().reveal(), "0123");
    assert_eq!(postgres(&checked).slot.as_deref(), Some("1_000"));
    for written in ["1.50", "True", "0x1F", "1e3", "007"] {
        let text = MINIMAL.replace("type: postgres", &format!("type: postgres\n    password: {written}"));
        assert_eq!(postgres(&good(&text, &variables(&[]))).password.as_ref().unwrap().reveal(), written);
    }
}

#[test]
fn nothing_is_rounded_and_no_word_becomes_a_number() {
    for (written, found) in
        [("1.7", "`1.7`"), ("true", "`true`"), ("\"500\"", "text"), ("70000", "`70000`"), ("[1]", "a list")]
    {
        let problems = bad(&MINIMAL.replace("rabbitmq:", &format!("rabbitmq:\n  window: {written}")), &variables(&[]));
        assert_eq!(
            problems,
            [format!("t.yaml:8:3: rabbitmq.window: found {found}, expected a whole number from 1 to 65535")]
        );
    }
    let problems = bad(&MINIMAL.replace("type: postgres", "type: postgres\n    create: 1"), &variables(&[]));
    assert_eq!(problems, ["t.yaml:4:5: sources.orders-db.create: found `1`, expected true or false"]);
}

#[test]
fn a_key_with_nothing_after_it_counts_as_not_written() {
    let text = MINIMAL.to_owned() + "admin:\n  # listen: 0.0.0.0:9187\nroutes:\n";
    assert_eq!(good(&text, &variables(&[])).routes.len(), 1);
}

#[test]
fn every_problem_of_a_stage_comes_in_one_run() {
    let text = "sources:\n  Orders:\n    type: postgres\n    url: postgres://app:hunter2/x@db\n    read_timeout: 1s\n\
                routes:\n  - from: orders\n  - from: Orders\n    event: { routing_key: \"{{ tabel }}\" }\n\
                outbox: { sqlite: /does/not/exist/outbox.db, max_size: 1MiB }\nrabbitmq: { urls: [] }\n";
    let problems = bad(text, &variables(&[]));
    let starts = [
        "t.yaml:2:3: sources.Orders: `Orders` is no name for a source",
        "t.yaml:4:5: sources.Orders.url: there is an `@` in the wrong place",
        "t.yaml:5:5: sources.Orders.read_timeout: `1s` is too little",
        "t.yaml:7:5: routes[0].from: there is no source `orders`",
        "t.yaml:9:14: routes[1].event.routing_key: the template uses `tabel`, which it does not have\n    did you mean `table`?",
        "t.yaml:10:11: outbox.sqlite: the folder `/does/not/exist` does not exist",
        "t.yaml:10:46: outbox.max_size: `1 MiB` is too little",
        "t.yaml:11:1: rabbitmq: neither `url` nor `urls` is given",
    ];
    assert_eq!(problems.len(), starts.len(), "{problems:#?}");
    for (problem, start) in problems.iter().zip(starts) {
        assert!(problem.starts_with(start), "{start}\n--- but\n{problem}");
    }
}

#[test]
fn what_came_from_a_reference_is_never_shown() {
    let environment = variables(&[("S", "hunter2"), ("T", "{{ hunter2 }}")]);
    let text = "sources:\n  db: { type: \"${S}\", url: \"${S}\" }\noutbox: { sqlite: \"${S}/x\", retain: \"${S}\" }\n\
                rabbitmq: { url: \"${S}\", window: \"${S}\", hunter: \"${S}\" }\nadmin: { listen: \"${S}\", token: \"${S}\" }\n";
    assert!(bad(text, &environment).len() >= 4);
    let text = MINIMAL.to_owned()
        + "routes:\n  - { from: \"${S}\" }\n  - { from: \"${S}.\" }\n  - { from: orders-db, event: { type: \"${T}\" } }\n\
           admin: { token: \"${S}\" }\n";
    let problems = bad(
        &text.replace("sqlite: outbox.db", "sqlite: ${S}/x\n  max_size: ${N}"),
        &variables(&[("S", "hunter2"), ("T", "{{ hunter2 }}"), ("N", "1")]),
    );
    assert!(problems.len() >= 5, "{problems:#?}");
    let problems = bad(&(MINIMAL.to_owned() + "admin: { listen: \"${S}\" }\n"), &environment);
    assert_eq!(problems[0].lines().next(), Some("t.yaml:9:10: admin.listen: the value (withheld) is not valid here"));
}

#[test]
fn a_secret_written_in_the_wrong_place_is_not_shown() {
    for text in [
        "rabbitmq: amqp://u:hunter2@host\n",
        "rabbitmq: { url: [hunter2] }\n",
        "rabbitmq: { url: { hunter: hunter2 } }\n",
        "rabbitmq: { passwd: hunter2 }\n",
        "rabbitmq: { declare: hunter2, window: hunter2, tls: [hunter2] }\n",
        "rabbitmq: { url: \"amqp://u:hunter2\n",
        "rabbitmq:\n  url: amqp://u:hunter2@h\n   urls: x\n",
    ] {
        bad(text, &variables(&[]));
    }
}

#[test]
fn an_empty_file_says_what_is_missing() {
    let problems = bad("", &variables(&[]));
    let first: Vec<&str> = problems.iter().filter_map(|problem| problem.lines().next()).collect();
    assert_eq!(first, ["outbox", "rabbitmq", "sources"].map(|key| format!("t.yaml: {key}: this key is missing")),);
    assert!(bad("- a\n", &variables(&[]))[0].contains("the top of the file is not a map of keys"));
}

#[test]
fn toml_is_read_alike() {
    let text = "[sources.db]\ntype = \"postgres\"\nurl = \"${ORDERS_DB_URL}\"\n[outbox]\nsqlite = \"outbox.db\"\n\
                [rabbitmq]\nurl = \"amqp://localhost\"\nwindow = 7\n[[routes]]\nfrom = \"db.public.*\"\n";
    let checked = load_text(text, Syntax::Toml, &variables(&[]), Purpose::Run).unwrap();
    assert_eq!((checked.broker.window, &*checked.routes[0].name), (7, "db.public.*"));
    let problems =
        load_text(&text.replace("sqlite", "sqlit"), Syntax::Toml, &variables(&[]), Purpose::Run).unwrap_err();
    let error = ConfigError { file: "t.toml".into(), problems };
    assert!(error.to_string().contains("t.toml:5:1: outbox.sqlit: unknown key\n    did you mean `sqlite`?"), "{error}");
}

#[test]
fn a_template_is_rendered_for_every_op_before_anything_runs() {
    let fault = |template: &str| {
        let text =
            format!("{MINIMAL}routes:\n  - from: orders-db.public.t\n    event: {{ routing_key: '{template}' }}\n");
        load_text(&text, Syntax::Yaml, &variables(&[]), Purpose::Run)
            .err()
            .map(|problems| problems[0].problem.message.clone())
    };
    assert_eq!(fault("{{ source }}.{{ op | upper }}{% if op == \"read\" %}.snapshot{% endif %}"), None);
    assert_eq!(fault("{% set x = table %}{{ x }}"), None);
    assert_eq!(fault(&"k".repeat(256)).as_deref(), Some("this makes 256 bytes"));
    assert!(fault("{{ op | nofilter }}").unwrap().starts_with("the template fails for op `insert`: unknown filter"));
    assert!(fault("{{ op.x.y }}").unwrap().contains("undefined value"));
    assert!(fault("{% if op == \"message\" %}{{ 1 / 0 }}{% endif %}").unwrap().contains("for op `message`"));
}

#[test]
fn a_route_whose_table_is_not_captured_is_refused() {
    let text = MINIMAL.replace("type: postgres", "type: postgres\n    tables: [public.*, sales.ord*]");
    for (table, captured) in [("public.a", true), ("sales.orders", true), ("sales.people", false), ("sales.*", true)] {
        let text = format!("{text}routes:\n  - from: orders-db.{table}\n");
        assert_eq!(load_text(&text, Syntax::Yaml, &variables(&[]), Purpose::Run).is_ok(), captured, "{table}");
    }
}

#[test]
fn a_source_that_no_route_takes_from_is_a_warning() {
    let text = MINIMAL.replace("outbox:", "  crm: { type: postgres, url: postgres://app@crm }\noutbox:")
        + "routes: [{ from: crm }]\n";
    let checked = good(&text, &variables(&[]));
    assert_eq!(checked.warnings[0].problem.path.to_string(), "sources.orders-db");
}

#[test]
fn an_unknown_key_with_nothing_after_it_is_unknown_too() {
    assert!(bad(&(MINIMAL.to_owned() + "admni:\n"), &variables(&[]))[0].contains("did you mean `admin`?"));
}

const PLAIN: &str = "\
sources:
  db: { type: postgres, url: \"postgres://app:hunter2@db/orders\", password: hunter2 }
routes:
  - from: db.public.orders
    event: { type: \"order.{{ op }}\" }
outbox: { sqlite: ${NAME}/outbox.db, retain: 7d }
rabbitmq:
  url: amqp://app:hunter2@rabbit/
  window: 100
admin: { token: hunter2hunter2hunter2 }
";

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    /// Slips of the pen anywhere but within a secret: whatever they break, no error shows one, and nothing panics.
    #[test]
    fn no_slip_of_the_pen_brings_a_secret_into_an_error(
        slips in proptest::collection::vec((0usize..PLAIN.len(), 0usize..5, "[ :{}\\[\\]\"'#\\-\n&*!|>%@`,?$=a]{0,2}"), 1..4),
    ) {
        let mut text = PLAIN.to_owned();
        for (at, removed, inserted) in slips {
            let at = at.min(text.len());
            let end = (at + removed).min(text.len());
            let mut slipped = text.clone();
            slipped.replace_range(at..end, &inserted);
            if slipped.matches("hunter2").count() == text.matches("hunter2").count() {
                text = slipped;
            }
        }
        for syntax in [Syntax::Yaml, Syntax::Toml] {
            if let Err(problems) = load_text(&text, syntax, &variables(&[("NAME", "/hunter2")]), Purpose::Run) {
                let error = ConfigError { file: "t.yaml".into(), problems };
                let shown = format!("{error}\n{}", serde_json::to_string(&error.records()).unwrap());
                prop_assert!(!shown.contains("hunter2"), "{shown}\n--- of\n{text}");
            }
        }
    }
}

#[test]
fn a_bundle_is_judged_as_the_message_that_it_is() {
    let said = |event: &str| -> Vec<String> {
        let text = format!("{MINIMAL}routes:\n  - from: orders-db\n    event: {event}\n");
        let problems = load_text(&text, Syntax::Yaml, &variables(&[]), Purpose::Run).err().unwrap_or_default();
        problems.iter().map(|placed| format!("{}: {}", placed.problem.path, placed.problem.message)).collect()
    };
    assert_eq!(said("{ bundle: transaction }"), Vec::<String>::new());
    for (event, wanted) in [
        (
            "{ bundle: transaction, routing_key: '{{ table }}' }",
            "routing_key: this is not one and the same for all events of a message",
        ),
        (
            "{ bundle: capture, exchange: '{{ row.x }}' }",
            "exchange: this is not one and the same for all events of a message",
        ),
        (
            "{ bundle: capture, headers: { a: b } }",
            "headers: headers are of one event, and a message of several has none",
        ),
        (
            "{ bundle: { by: capture, max_bytes: 17MiB } }",
            "bundle: a message may have 17 MiB here, and 16 MiB by rabbitmq.max_message_size",
        ),
        ("{ headers: { x-a: b } }", "headers.x-a: this is no name for a header"),
    ] {
        let problems = said(event);
        assert!(problems.iter().any(|problem| problem.contains(wanted)), "{event}: {problems:#?}");
    }
}

fn files(table: &str) -> String {
    format!(
        "sources: {{ nightly: {{ type: files, folder: /srv/drop, tables: [{table}] }} }}\noutbox: {{ sqlite: o.db }}\nrabbitmq: {{ url: amqp://localhost }}\n"
    )
}

#[test]
fn a_source_of_files_is_judged_with_its_formats() {
    let environment = variables(&[]);
    let columns = "format: { delimited: { columns: [{ name: id, type: int }] } }";
    let checked = good(&files(&format!("{{ name: t, files: '*.csv', {columns}, key: [id] }}")), &environment);
    assert!(
        matches!(&checked.sources[0].config, SourceConfig::Files(config) if config.record_max == ByteSize(64 << 20))
    );
    for (table, says) in [
        (
            format!("{{ name: t, files: '*.csv', {columns}, key: [no] }}"),
            "sources.nightly.tables[0].key: there is no column",
        ),
        (format!("{{ name: t, files: '../*.csv', {columns} }}"), "sources.nightly.tables[0].files"),
        (
            format!("{{ name: t, files: x, {columns}, complete: {{ stable: 10ms }} }}"),
            "sources.nightly.tables[0].complete.stable",
        ),
        (
            "{ name: t, files: x, format: { copybook: { file: /no/such.cpy } } }".to_owned(),
            "format.copybook.file: /no/such.cpy",
        ),
        ("{ name: t, files: x, format: { delimited: { delimitre: x } } }".to_owned(), "delimitre"),
    ] {
        let problems = bad(&files(&table), &environment);
        assert!(problems.iter().any(|problem| problem.contains(says)), "{problems:#?}\nexpected: {says}");
    }
}
