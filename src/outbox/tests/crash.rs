//! The process dies at every named point, and at any other; what it left behind is whole.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};

use towpath_contract::StateEntry;

use super::*;

const EVENTS_PER_BATCH: u64 = 50;
const BATCHES: u64 = 200;
const KILLED: i32 = 9;

fn place() -> Place {
    Place { retain: Duration::ZERO, ..Place::new() }
}

/// Runs one test of this very binary in a process of its own.
pub(super) fn test_process(test: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", &format!("outbox::tests::{test}"), "--nocapture", "--test-threads=1"]);
    command
}

fn spawn(place: &Place, failpoint: &str) -> Child {
    test_process("crash::in_a_process_of_its_own")
        .env("OUTBOX_FOLDER", place.folder.path())
        .env("TOWPATH_FAILPOINT", failpoint)
        // What it leaves behind goes with the folder.
        .env("TMPDIR", place.folder.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// The child of the tests below; by itself it does nothing.
///
/// Event n has the id n, batch n moves the position to n, and half of what is durable is settled.
#[tokio::test]
async fn in_a_process_of_its_own() {
    let Ok(folder) = std::env::var("OUTBOX_FOLDER") else { return };
    let path = std::path::Path::new(&folder).join("outbox.db");
    let open = place().open_at(&path).unwrap();
    let mut number = open.stored.last_seq / EVENTS_PER_BATCH;
    while number < BATCHES {
        number += 1;
        let ids = (1..=EVENTS_PER_BATCH).map(|index| ((number - 1) * EVENTS_PER_BATCH + index).to_string());
        let ids = ids.collect::<Vec<_>>();
        let record = Record {
            position: Position::from_bytes(&number.to_be_bytes()),
            state: vec![StateEntry { key: "batch".into(), value: Some(number.to_be_bytes().to_vec()) }],
            ..record(batch(ids.iter().map(|id| event(A, id, 1))), 0)
        };
        let seqs = open.try_record(record).await.unwrap();
        // Told only once it is durable.
        println!("durable {number}");
        std::io::stdout().flush().unwrap();
        open.outbox.settle(A, 0, seqs.end / 2);
        if number.is_multiple_of(16) {
            // Settled by itself, and pruned.
            open.stats(|stats| stats.routes[0].unsettled.events <= seqs.end / 2 + 1).await;
        }
    }
    open.close().await;
}

/// The newest batch that the child was told to be durable, until `enough` of them or its end.
fn durable(child: &mut Child, enough: u64) -> u64 {
    let lines = BufReader::new(child.stdout.as_mut().unwrap()).lines();
    let mut newest = 0;
    for line in lines.map_while(Result::ok) {
        newest = line.strip_prefix("durable ").map_or(newest, |number| number.parse().unwrap());
        if newest >= enough {
            break;
        }
    }
    newest
}

async fn check(place: &Place, durable: u64) {
    let open = place.open();
    let source = open.stored.sources.get("db").cloned().unwrap_or_default();
    let position = source.position.map_or(0, |position| u64::from_be_bytes(position.as_bytes().try_into().unwrap()));
    let state = source.state.get("batch").map_or(0, |value| u64::from_be_bytes(value[..].try_into().unwrap()));
    assert!(position >= durable, "told durable: {durable}, found: {position}");
    assert_eq!(state, position);
    assert_eq!(open.stored.last_seq, position * EVENTS_PER_BATCH, "events and position are there, or neither");

    let settled = open.stored.routes[0].settled[0];
    assert_eq!(open.stored.routes[0].unsettled.events, open.stored.last_seq - settled);
    let stretch = open.outbox.read(RouteSet::from_iter([A]), settled, usize::MAX).await.unwrap();
    let found = stretch.events.iter().map(|event| (event.seq, event.id.parse().unwrap()));
    let expected = (settled + 1..=open.stored.last_seq).map(|seq| (seq, seq));
    assert_eq!(found.collect::<Vec<(u64, u64)>>(), expected.collect::<Vec<_>>(), "all that is unsettled is there");
    let intact = place.sqlite().query_row("PRAGMA integrity_check", [], |row| row.get::<_, String>(0)).unwrap();
    assert_eq!(intact, "ok");
    open.close().await;
}

async fn crash_at(point: &str) {
    let place = place();
    // The third one meets a file that was left by the one before.
    for hit in [1, 2, 7] {
        let mut child = spawn(&place, &format!("{point}:{hit}"));
        let told = durable(&mut child, u64::MAX);
        let status = child.wait().unwrap();
        assert_eq!(status.signal(), Some(KILLED), "{point} was not reached {hit} times: {status}");
        check(&place, told).await;
    }
}

#[tokio::test]
async fn dying_before_a_commit_loses_nothing_that_was_told() {
    crash_at("outbox.before_commit").await;
}

#[tokio::test]
async fn dying_after_a_commit_repeats_nothing() {
    crash_at("outbox.after_commit").await;
}

#[tokio::test]
async fn dying_before_settling_leaves_the_events() {
    crash_at("outbox.before_settle").await;
}

#[tokio::test]
async fn dying_after_settling_leaves_cursor_and_events_in_step() {
    crash_at("outbox.after_settle").await;
}

#[tokio::test]
async fn dying_before_pruning_leaves_the_events() {
    crash_at("outbox.before_prune").await;
}

#[tokio::test]
async fn dying_amid_pruning_leaves_what_is_unsettled() {
    crash_at("outbox.mid_prune").await;
}

#[tokio::test]
async fn dying_at_any_time_leaves_a_whole_file() {
    let place = place();
    let mut last = 0;
    for round in 1..=8 {
        let mut child = spawn(&place, "");
        last = durable(&mut child, last + 1 + round * 5 % 7).max(last);
        child.kill().unwrap();
        child.wait().unwrap();
        check(&place, last).await;
    }
}

#[tokio::test]
async fn a_second_process_is_told_who_holds_it() {
    let place = place();
    let open = place.open();
    let output =
        test_process("crash::in_a_process_of_its_own").env("OUTBOX_FOLDER", place.folder.path()).output().unwrap();
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert!(
        said.contains(&format!("Held {{ path: {:?}, pid: Some({}) }}", place.path(), std::process::id())),
        "{said}"
    );
    open.close().await;
}
