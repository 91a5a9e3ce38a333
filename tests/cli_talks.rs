//! The real binary against a running admin API, whose pipeline is played by the test.

#![allow(clippy::unwrap_used)] // clippy knows tests by their attribute, and not what they call

use std::path::Path;
use std::sync::Arc;

use assert_cmd::Command as Binary;
use towpath::admin::command::Command;
use towpath::admin::parked::{Body, ParkedEvent, ParkedHead, ParkedPage};
use towpath::admin::status::{
    BrokerState, BrokerStatus, OutboxState, OutboxStatus, RouteState, RouteStatus, SourceState, SourceStatus,
};
use towpath::admin::{Metrics, Refusal, RefusalKind, Server, Status, channel};
use towpath::config::model::AdminConfig;
use towpath_contract::Secret;

const TOKEN: &str = "0123456789abcdef";

fn status() -> Status {
    Status {
        version: "9.9.9".into(),
        running: true,
        stopping: false,
        uptime_seconds: 60,
        sources: vec![SourceStatus {
            name: "orders_db".into(),
            state: SourceState::Paused,
            identity: None,
            position: None,
            lag_bytes: None,
            lag_seconds: None,
            changes_total: 0,
            rate: 0.0,
            spooled_bytes: 0,
            uncaptured: vec![],
            unread_after_gap: false,
            snapshot: vec![],
        }],
        outbox: OutboxStatus {
            path: "outbox.db".into(),
            state: OutboxState::Open,
            unsettled_events: 0,
            unsettled_bytes: 0,
            oldest_age_seconds: 0.0,
            file_bytes: 0,
            max_bytes: 10 << 30,
            parked: 1,
        },
        broker: BrokerStatus {
            topology: vec![],
            host: None,
            state: BrokerState::Connecting { reason: "refused".into() },
        },
        routes: vec![RouteStatus {
            name: "orders_db".into(),
            state: RouteState::Running,
            unsettled: 0,
            published_total: 0,
            rate: 0.0,
            parked: 1,
            detail: None,
        }],
    }
}

fn head() -> ParkedHead {
    ParkedHead {
        seq: 7,
        route: "orders_db".into(),
        id: "id-7".into(),
        key: "{\"id\":7}".into(),
        exchange: "towpath".into(),
        routing_key: "orders.insert".into(),
        reason: "too large".into(),
        parked_at_ms: 0,
        body_bytes: 8,
    }
}

/// Answers every command with what it was.
fn answer(command: Command) {
    match command {
        Command::Status(reply) => drop(reply.send(status())),
        Command::PauseSource { source, reply } if source != "orders_db" => {
            let refusal = Refusal::new(RefusalKind::NotFound, format!("there is no source {source}"));
            drop(reply.send(Err(refusal.help("there is: orders_db"))));
        }
        Command::PauseSource { source, reply } => drop(reply.send(Ok(format!("paused {source}")))),
        Command::ResumeSource { source, reply } if source == "db / ü" => {
            drop(reply.send(Err(Refusal::new(RefusalKind::Conflict, "the source is not paused"))));
        }
        Command::ResumeSource { source, reply } => drop(reply.send(Ok(format!("resumed {source}")))),
        Command::Snapshot { source, tables, after_gap, reply } => {
            drop(reply.send(Ok(format!("reads {tables:?} of {source}, after gap: {after_gap}"))));
        }
        Command::ParkedList { query, reply } => {
            let events = if query.route.as_deref() == Some("orders_db") { vec![head()] } else { vec![] };
            drop(reply.send(Ok(ParkedPage { total: events.len() as u64, events })));
        }
        Command::ParkedShow { seq, reply } => {
            let head = ParkedHead { seq, ..head() };
            drop(reply.send(Ok(ParkedEvent { head, properties: vec![], body: Body::Text("{\"a\":1}".into()) })));
        }
        Command::ParkedRetry { selection, reply } => drop(reply.send(Ok(format!("retried {:?}", selection.seqs)))),
        Command::ParkedDiscard { selection, reply } => drop(reply.send(Ok(format!("discarded {:?}", selection.route)))),
    }
}

/// Serves on a port of its own in the background, and writes the config that names it.
fn serve(folder: &Path) -> tokio::runtime::Runtime {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let config = AdminConfig {
        listen: "127.0.0.1:0".parse().unwrap(),
        token: Some(Secret::new(TOKEN)),
        ..AdminConfig::default()
    };
    let server = runtime.block_on(Server::bind(&config)).unwrap();
    write_config(folder, &server.address().unwrap().to_string());
    let (handle, mut commands) = channel();
    runtime.spawn(server.serve(handle, Arc::new(Metrics::new(&["orders_db"], &["orders_db"]))));
    runtime.spawn(async move {
        while let Some(command) = commands.recv().await {
            answer(command);
        }
    });
    runtime
}

fn write_config(folder: &Path, address: &str) {
    let text = format!(
        "sources:\n  orders_db: {{ type: postgres, url: postgres://app@db/orders }}\noutbox: {{ sqlite: outbox.db }}\n\
         rabbitmq: {{ url: amqp://localhost }}\nadmin:\n  listen: {address}\n  token: ${{TOKEN:-{TOKEN}}}\n"
    );
    std::fs::write(folder.join("towpath.yaml"), text).unwrap();
}

/// Exit code, standard output, standard error.
fn towpath(folder: &Path, arguments: &[&str]) -> (i32, String, String) {
    let output =
        Binary::cargo_bin("towpath").unwrap().current_dir(folder).env_clear().args(arguments).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap().trim_end().to_owned();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

#[test]
fn every_command_is_carried_and_its_answer_printed() {
    let folder = tempfile::tempdir().unwrap();
    let _running = serve(folder.path());
    let cases: &[(&[&str], i32, &str)] = &[
        (&["pause", "orders_db"], 0, "paused orders_db"),
        (&["resume", "orders_db"], 0, "resumed orders_db"),
        (
            &["snapshot", "orders_db", "public.a", "public.b"],
            0,
            "reads [\"public.a\", \"public.b\"] of orders_db, after gap: false",
        ),
        (&["snapshot", "orders_db", "--after-gap"], 0, "reads [] of orders_db, after gap: true"),
        (&["parked", "retry", "7", "8"], 0, "retried [7, 8]"),
        (&["parked", "discard", "--route", "a b"], 0, "discarded Some(\"a b\")"),
        (&["parked", "list"], 0, "Nothing is parked."),
        (&["pause", "orders_db", "--json"], 0, "{\n  \"done\": \"paused orders_db\"\n}"),
    ];
    for (arguments, code, expected) in cases {
        assert_eq!(towpath(folder.path(), arguments), (*code, (*expected).to_owned(), String::new()), "{arguments:?}");
    }
}

#[test]
fn status_and_parked_events_are_shown() {
    let folder = tempfile::tempdir().unwrap();
    let _running = serve(folder.path());
    let (code, page, _) = towpath(folder.path(), &["status"]);
    assert_eq!(code, 0);
    assert!(page.starts_with("towpath 9.9.9, up 60 s: 3 things to look at\n"), "{page}");
    assert!(
        page.contains("source orders_db: paused by a person\n     go on with `towpath resume orders_db`"),
        "{page}"
    );
    assert!(page.contains("broker: not connected: refused"), "{page}");
    let (_, json, _) = towpath(folder.path(), &["status", "--json"]);
    assert_eq!(serde_json::from_str::<Status>(&json).unwrap(), status());

    let (_, list, _) = towpath(folder.path(), &["parked", "list", "--route", "orders_db"]);
    assert!(list.contains("too large"), "{list}");
    let (_, event, _) = towpath(folder.path(), &["parked", "show", "9"]);
    assert!(event.starts_with("seq          9\n") && event.ends_with("\n\n{\"a\":1}"), "{event}");
    let (_, json, _) = towpath(folder.path(), &["parked", "show", "9", "--json"]);
    assert_eq!(serde_json::from_str::<ParkedEvent>(&json).unwrap().head.seq, 9);
}

#[test]
fn a_refusal_is_told_with_the_way_out() {
    let folder = tempfile::tempdir().unwrap();
    let _running = serve(folder.path());
    let (code, _, stderr) = towpath(folder.path(), &["pause", "orders"]);
    assert_eq!((code, stderr.as_str()), (2, "towpath: there is no source orders\n    there is: orders_db"));
    let (code, _, stderr) = towpath(folder.path(), &["resume", "db / ü"]);
    assert_eq!((code, stderr.as_str()), (1, "towpath: the source is not paused"));
    let (code, stdout, _) = towpath(folder.path(), &["resume", "db / ü", "--json"]);
    assert_eq!(code, 1);
    assert_eq!(
        serde_json::from_str::<serde_json::Value>(&stdout).unwrap()["error"]["message"],
        "the source is not paused"
    );
}

#[test]
fn where_nothing_runs_that_is_said() {
    let folder = tempfile::tempdir().unwrap();
    // A port that was free a moment ago, and that nobody serves.
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    write_config(folder.path(), &address);
    for arguments in [&["pause", "orders_db"][..], &["status"], &["parked", "list"], &["parked", "retry", "--all"]] {
        let (code, stdout, stderr) = towpath(folder.path(), arguments);
        assert_eq!((code, stdout.as_str()), (1, ""), "{arguments:?}");
        assert!(stderr.starts_with(&format!("towpath: not running: nobody answers on {address}")), "{stderr}");
    }
}
