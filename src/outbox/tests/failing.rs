//! Disks that are full or broken, and other programs on the file.

use std::process::Command;

use super::super::State;
use super::crash::test_process;
use super::*;

/// A disk of its own size: a tmpfs in a mount namespace, which root may make, and where user namespaces are allowed
/// everyone.
fn on_a_small_disk(test: &str) {
    let place = Place::new();
    let inner = test_process(test);
    let script =
        format!("mount -t tmpfs -o size=64m none '{}' || exit 77; exec \"$0\" \"$@\"", place.folder.path().display());
    let namespaces: &[&str] = if rustix::process::geteuid().is_root() { &["-m"] } else { &["-rm"] };
    let output = Command::new("unshare")
        .args(namespaces)
        .args(["sh", "-c", &script])
        .arg(inner.get_program())
        .args(inner.get_args())
        .env("OUTBOX_FOLDER", place.folder.path())
        .output();
    let output = match output {
        Ok(output) => output,
        Err(error) => {
            eprintln!("not tested: unshare (util-linux) cannot be run: {error}");
            return;
        }
    };
    let said = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    if output.status.code() == Some(77) || said.contains("unshare failed") {
        eprintln!("not tested: a tmpfs needs root or user namespaces: {said}");
        return;
    }
    assert!(output.status.success(), "{said}");
}

/// The folder, in the process that was started for it.
fn inner_path() -> Option<PathBuf> {
    std::env::var_os("OUTBOX_FOLDER").map(|folder| PathBuf::from(folder).join("outbox.db"))
}

#[test]
fn nothing_is_lost_while_the_disk_is_full() {
    on_a_small_disk("failing::in_a_process_on_a_small_disk");
}

#[tokio::test]
async fn in_a_process_on_a_small_disk() {
    let Some(path) = inner_path() else { return };
    let place = Place::new();
    let open = place.open_at(&path).unwrap();
    open.record(many(A, "0", 100, 1000), 0).await;
    let filler = path.with_file_name("filler");
    std::fs::write(&filler, vec![0; 52 << 20]).unwrap();

    let mut state = open.outbox.watch_state();
    let mut pending = Vec::new();
    for number in 1..=255 {
        let record = record(many(A, &number.to_string(), 100, 1000), number);
        tokio::select! {
            permit = open.outbox.reserve(record.events.bytes()) => {
                pending.push(open.outbox.record(permit.unwrap(), record));
            }
            full = state.wait_for(|state| *state == State::DiskFull) => {
                full.unwrap();
                break;
            }
        }
    }
    assert_eq!(open.read_ids(A, 0).await.first().map(String::as_str), Some("0-0"), "reading goes on");

    std::fs::remove_file(&filler).unwrap();
    let records = pending.len() as u64;
    for (number, recording) in (1..).zip(pending) {
        assert_eq!(recording.await.unwrap(), number * 100 + 1..(number + 1) * 100 + 1);
    }
    state.wait_for(|state| *state == State::Ok).await.unwrap();
    assert_eq!(open.read_ids(A, 0).await.len() as u64, (records + 1) * 100);
    open.close().await;
}

/// A write that fails for another reason than a full disk: past the limit on a file's size, with its signal ignored, it
/// gives EFBIG, which SQLite reports as SQLITE_IOERR_WRITE.
#[tokio::test]
async fn a_failed_write_ends_everything_and_leaves_what_was_durable() {
    let place = Place::new();
    let inner = test_process("failing::in_a_process_whose_writes_fail");
    let output = Command::new("sh")
        .args(["-c", "trap '' XFSZ; ulimit -f 4096; exec \"$0\" \"$@\""])
        .arg(inner.get_program())
        .args(inner.get_args())
        .env("OUTBOX_FOLDER", place.folder.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    let told = said.lines().filter_map(|line| line.strip_prefix("durable ")?.parse::<u64>().ok()).max().unwrap();

    let open = place.open();
    let position = u64::from(open.stored.sources["db"].position.unwrap().as_bytes()[0]);
    assert!(position >= told, "told durable: {told}, found: {position}");
    assert_eq!(open.stored.last_seq, position * 100);
    assert_eq!(open.read_ids(A, 0).await.len() as u64, position * 100);
    open.close().await;
}

#[tokio::test]
async fn in_a_process_whose_writes_fail() {
    let Some(path) = inner_path() else { return };
    let open = Place::new().open_at(&path).unwrap();
    let mut failed = None;
    for number in 1..=255 {
        match open.try_record(record(many(A, &number.to_string(), 100, 1000), number)).await {
            Ok(_) => println!("durable {number}"),
            Err(error) => {
                failed = Some(error);
                break;
            }
        }
    }
    let error = failed.expect("the limit on the file's size is reached");
    assert!(matches!(error, OutboxError::Io { .. }), "{error}");
    assert_eq!(open.outbox.state(), State::Failed(error.clone()));
    assert_eq!(open.outbox.reserve(1).await.unwrap_err(), error);
    assert_eq!(open.outbox.close().await.unwrap_err(), error);
}

#[tokio::test]
async fn another_program_that_writes_is_waited_for() {
    let place = Place::new();
    let open = place.open();
    let other = place.sqlite();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let permit = open.outbox.reserve(1).await.unwrap();
    let recording = open.outbox.record(permit, record(many(A, "a", 1, 10), 1));
    let mut state = open.outbox.watch_state();
    state.wait_for(|state| *state == State::Locked).await.unwrap();
    other.execute_batch("ROLLBACK").unwrap();
    assert_eq!(recording.await.unwrap(), 1..2);
    state.wait_for(|state| *state == State::Ok).await.unwrap();
}

#[tokio::test]
async fn a_long_reading_by_another_program_holds_up_nothing() {
    let place = Place::new();
    let open = place.open();
    open.record(many(A, "a", 1, 10), 1).await;
    let other = place.sqlite();
    other.execute_batch("BEGIN; SELECT count(*) FROM event").unwrap();
    for _ in 0..90 {
        open.record(many(A, "a", 1000, 1000), 1).await;
    }
    let log_bytes = open.stats(|stats| stats.last_seq == 90_001).await.wal_bytes;
    assert!(log_bytes > 90_000_000, "the log cannot begin anew while the reading goes on: {log_bytes}");
    other.execute_batch("COMMIT").unwrap();
    open.stats(|stats| stats.wal_bytes < 64 << 20).await;
    open.close().await;
}
