//! Which files are taken, and which are refused with what words.

use std::fs;
use std::io::{Seek, SeekFrom, Write};

use super::super::State;
use super::*;

fn refusal(place: &Place) -> OutboxError {
    place.try_open().map(|_| ()).unwrap_err()
}

#[test]
fn a_missing_folder_is_named() {
    let place = Place::new();
    let mut config = place.config();
    config.sqlite = place.folder.path().join("missing/outbox.db");
    let (news, _) = mpsc::unbounded_channel();
    let error = Outbox::open(&config, Setup { routes: Vec::new(), shards: 1, news }).unwrap_err();
    assert_eq!(error, OutboxError::NoFolder(place.folder.path().join("missing")));
    assert!(error.help().unwrap().starts_with("create "));
}

#[tokio::test]
async fn a_second_user_is_told_who_holds_it() {
    let place = Place::new();
    let open = place.open();
    let error = refusal(&place);
    assert_eq!(error, OutboxError::Held { path: place.path(), pid: Some(std::process::id()) });
    assert!(error.to_string().ends_with(&format!("is in use by process {}", std::process::id())));
    open.close().await;
    place.open();
}

#[tokio::test]
async fn it_is_free_again_once_the_last_handle_is_dropped() {
    let place = Place::new();
    let Open { outbox, .. } = place.open();
    let mut state = outbox.watch_state();
    drop(outbox);
    state.wait_for(|state| *state == State::Closed).await.unwrap();
    place.open();
}

#[test]
fn files_of_others_are_refused_and_left_as_they_are() {
    let place = Place::new();
    fs::write(place.path(), "id,name\n1,a\n".repeat(100)).unwrap();
    let error = refusal(&place);
    assert!(matches!(error, OutboxError::NotAnOutbox { .. }), "{error}");
    assert!(error.to_string().contains("not SQLite's"), "{error}");

    fs::remove_file(place.path()).unwrap();
    place.sqlite().execute_batch("CREATE TABLE t (x); PRAGMA user_version = 1").unwrap();
    let before = fs::read(place.path()).unwrap();
    let error = refusal(&place);
    assert!(error.to_string().contains("application_id 0x0 and 1 tables"), "{error}");
    assert_eq!(fs::read(place.path()).unwrap(), before);
}

#[tokio::test]
async fn a_newer_version_is_refused_with_both_numbers() {
    let place = Place::new();
    place.open().close().await;
    place.sqlite().execute_batch("PRAGMA user_version = 2").unwrap();
    let error = refusal(&place);
    assert_eq!(error, OutboxError::Newer { path: place.path(), found: 2, expected: 1 });
}

#[tokio::test]
async fn a_log_whose_file_is_gone_is_not_thrown_away() {
    let place = Place::new();
    let open = place.open();
    open.record(many(A, "a", 10, 10), 1).await;
    let log = fs::read(place.folder.path().join("outbox.db-wal")).unwrap();
    open.close().await;
    fs::remove_file(place.path()).unwrap();
    fs::write(place.folder.path().join("outbox.db-wal"), &log).unwrap();
    assert!(matches!(refusal(&place), OutboxError::LogWithoutFile { .. }));
    assert_eq!(fs::read(place.folder.path().join("outbox.db-wal")).unwrap(), log);
}

#[tokio::test]
async fn an_older_copy_is_noticed() {
    let place = Place::new();
    let open = place.open();
    open.record(many(A, "a", 10, 10), 1).await;
    open.close().await;
    let copy = fs::read(place.path()).unwrap();
    let open = place.open();
    assert_eq!(open.stored.warnings.iter().filter(|warning| warning.contains("older copy")).count(), 0);
    open.record(many(A, "b", 5, 10), 2).await;
    open.close().await;
    fs::write(place.path(), copy).unwrap();
    let warnings = place.open().stored.warnings;
    assert!(warnings.iter().any(|warning| warning.contains("ends at event 10") && warning.contains("up to 15")));
}

/// Overwrites a piece of the closed file.
fn damage(place: &Place, offset: SeekFrom, length: usize) {
    let mut file = fs::OpenOptions::new().write(true).open(place.path()).unwrap();
    file.seek(offset).unwrap();
    file.write_all(&vec![0xa5; length]).unwrap();
}

async fn filled() -> Place {
    let place = Place::new();
    let open = place.open();
    open.record(many(A, "a", 5_000, 1_000), 1).await;
    open.close().await;
    place
}

#[tokio::test]
async fn damage_at_the_ends_is_found_at_the_start() {
    let place = filled().await;
    damage(&place, SeekFrom::Start(0), 100);
    assert!(matches!(refusal(&place), OutboxError::NotAnOutbox { .. }));

    let place = filled().await;
    damage(&place, SeekFrom::End(-16 * 1024), 1024);
    let error = refusal(&place);
    assert!(matches!(error, OutboxError::Corrupt { .. }), "{error}");
    assert!(error.help().unwrap().contains(".recover"));

    let place = filled().await;
    let file = fs::OpenOptions::new().write(true).open(place.path()).unwrap();
    file.set_len(file.metadata().unwrap().len() / 2).unwrap();
    assert!(matches!(refusal(&place), OutboxError::Corrupt { .. }), "cut off");
}

#[tokio::test]
async fn damage_in_the_middle_stops_everything_when_it_is_met() {
    let place = filled().await;
    let middle = fs::metadata(place.path()).unwrap().len() / 2 / (16 * 1024) * (16 * 1024);
    damage(&place, SeekFrom::Start(middle), 1024);
    let open = place.open();
    let waiting = open.outbox.reserve(usize::MAX).await.unwrap();
    let error = open.outbox.read(RouteSet::from_iter([A]), 0, usize::MAX).await.unwrap_err();
    assert!(matches!(error, OutboxError::Corrupt { .. }), "{error}");
    assert_eq!(open.outbox.state(), State::Failed(error.clone()));
    assert_eq!(open.outbox.reserve(1).await.unwrap_err(), error);
    let refused = open.outbox.record(waiting, record(EventBatch::new(), 1)).await;
    assert_eq!(refused.unwrap_err(), error);
    assert_eq!(open.outbox.close().await.unwrap_err(), error);
}

#[tokio::test]
async fn nothing_is_taken_after_the_end() {
    let place = Place::new();
    let open = place.open();
    let permit = open.outbox.reserve(1).await.unwrap();
    open.outbox.close().await.unwrap();
    assert_eq!(open.outbox.record(permit, record(EventBatch::new(), 1)).await.unwrap_err(), OutboxError::Closed);
    assert_eq!(open.outbox.reserve(1).await.unwrap_err(), OutboxError::Closed);
    assert_eq!(open.outbox.park(1, Parking::Behind).await.unwrap_err(), OutboxError::Closed);
    assert!(open.outbox.read(RouteSet::default(), 0, 1).await.is_err());
    open.outbox.close().await.unwrap();
}

/// The files of an open outbox, as a kill leaves them. The writer may be moving its log just then: copies that differ are none.
fn as_killed(place: &Place) -> TempDir {
    let read = || ["outbox.db", "outbox.db-wal"].map(|file| (file, fs::read(place.folder.path().join(file)).unwrap()));
    let mut files = read();
    loop {
        let again = read();
        if std::mem::replace(&mut files, again.clone()) == again {
            break;
        }
    }
    let folder = TempDir::new().unwrap();
    files.iter().for_each(|(file, bytes)| fs::write(folder.path().join(file), bytes).unwrap());
    folder
}

#[tokio::test]
async fn an_older_copy_beside_a_log_that_is_not_its_own_is_refused() {
    let place = Place::new();
    let open = place.open();
    open.record(many(A, "old", 100, 1000), 1).await;
    open.close().await;
    let older = fs::read(place.path()).unwrap();
    // Far enough for the log to begin anew several times.
    let open = place.open();
    for round in 0..60 {
        open.record(many(A, &format!("new{round}"), 100, 10_000), round + 2).await;
    }
    let (killed, put_back) = (as_killed(&place), as_killed(&place));
    open.close().await;
    assert_eq!(place.open_at(&killed.path().join("outbox.db")).unwrap().stored.last_seq, 6100);

    let path = put_back.path().join("outbox.db");
    let log = put_back.path().join("outbox.db-wal");
    fs::write(&path, older).unwrap();
    let error = place.open_at(&path).map(|_| ()).unwrap_err();
    assert_eq!(error, OutboxError::ForeignLog { path: path.clone(), log: log.clone() });
    // The way out that it names.
    fs::remove_file(log).unwrap();
    // Made by the look that was taken.
    let _ = fs::remove_file(put_back.path().join("outbox.db-shm"));
    assert_eq!(place.open_at(&path).unwrap().stored.last_seq, 100);
}

/// Killed while it moved the log into the file: of that the first page is done, which says how long the file is to be.
#[tokio::test]
async fn a_file_into_which_a_part_of_its_log_was_moved_is_no_older_copy() {
    const PAGE: usize = 16 * 1024;
    let place = Place::new();
    // Its log began anew a few times.
    for _ in 0..3 {
        place.open().close().await;
    }
    let open = place.open();
    open.record(many(A, "a", 100, 1000), 1).await;
    let killed = as_killed(&place);
    open.close().await;
    let (path, log) = (killed.path().join("outbox.db"), fs::read(killed.path().join("outbox.db-wal")).unwrap());
    // sqlite.org/fileformat2.html#the_write_ahead_log
    let first_page = log[32..].chunks_exact(24 + PAGE).rfind(|frame| frame[..4] == [0, 0, 0, 1]);
    let first_page = &first_page.expect("the file grew, and so its first page changed")[24..];
    let mut file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.write_all(first_page).unwrap();
    assert_eq!(place.open_at(&path).unwrap().stored.last_seq, 100);
}

#[tokio::test]
async fn nobody_else_may_read_it() {
    use std::os::unix::fs::PermissionsExt;
    let place = Place::new();
    let open = place.open();
    open.record(many(A, "a", 1, 10), 1).await;
    for file in ["outbox.db", "outbox.db-wal", "outbox.db-shm"] {
        let mode = fs::metadata(place.folder.path().join(file)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
}
