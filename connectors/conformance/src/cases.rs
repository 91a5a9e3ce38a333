//! The cases. Each starts its own system, so that they do not know each other.

use std::collections::BTreeMap;
use std::time::Duration;

use towpath_contract::{Action, BATCH_BYTES, ErrorKind, KEEP_ALIVE_SECONDS_MAX, Op, Resume};

use crate::drive::{DEADLINE, Driver, Seen, refused, seen};
use crate::{Harness, Write};

fn insert(id: i64, note: impl Into<String>) -> Write {
    Write::Insert { id, note: note.into() }
}

fn update(id: i64, note: impl Into<String>) -> Write {
    Write::Update { id, note: note.into() }
}

/// Transactions of every size, one of them larger than a batch.
fn script() -> Vec<Vec<Write>> {
    let wide = |id: i64| insert(id, format!("{id} ").repeat(BATCH_BYTES / 4 / 5));
    vec![
        vec![insert(1, "one")],
        vec![insert(2, "two"), update(1, "uno"), insert(3, "three")],
        (10..20).map(wide).collect(),
        vec![Write::Delete { id: 3 }, update(2, "due")],
        vec![update(2, "deux"), Write::Delete { id: 2 }],
        vec![insert(99, "last")],
    ]
}

/// What a consumer would hold after these changes.
fn fold<'a>(changes: impl IntoIterator<Item = &'a Seen>) -> BTreeMap<i64, String> {
    let mut rows = BTreeMap::new();
    for change in changes {
        match change.op {
            Op::Delete => {
                rows.remove(&change.id());
            }
            _ => {
                rows.insert(change.id(), change.note().unwrap_or("unavailable").to_owned());
            }
        }
    }
    rows
}

fn apply(rows: &mut BTreeMap<i64, String>, writes: &[Write]) {
    for write in writes {
        match write {
            Write::Insert { id, note } | Write::Update { id, note } => rows.insert(*id, note.clone()),
            Write::Delete { id } => rows.remove(id),
        };
    }
}

fn ops_and_ids(changes: &[Seen]) -> Vec<(Op, i64)> {
    changes.iter().map(|change| (change.op, change.id())).collect()
}

fn expected(transactions: &[Vec<Write>]) -> Vec<(Op, i64)> {
    let op = |write: &Write| match write {
        Write::Insert { id, .. } => (Op::Insert, *id),
        Write::Update { id, .. } => (Op::Update, *id),
        Write::Delete { id } => (Op::Delete, *id),
    };
    transactions.iter().flatten().map(op).collect()
}

/// A system that has been opened once on its empty table, with the position from which everything later is streamed.
async fn opened<H: Harness>() -> (H, Resume) {
    let system = H::start().await;
    let source = system.source();
    let mut driver = Driver::open(&*source, Resume::default()).await;
    // A first change makes sure that there is a position to resume from.
    system.commit(&[insert(-1, "marker")]).await;
    driver.until_id(-1).await;
    // The snapshot, which may read that row too, is to be behind us.
    let read = tokio::time::timeout(DEADLINE, async {
        while !driver.capture.progress().snapshot.is_empty() {
            driver.step().await.expect("stepping to the snapshot's end");
        }
    });
    read.await.expect("the end of the first snapshot");
    let resume = settled(&mut driver).await;
    driver.record();
    driver.capture.close().await.expect("closing");
    (system, resume)
}

/// Waits for a position after everything seen.
async fn settled(driver: &mut Driver) -> Resume {
    let wanted = driver.seen.len();
    let reached = tokio::time::timeout(DEADLINE, async {
        while driver.resume_points.last().is_none_or(|(seen, _)| *seen < wanted) {
            driver.step().await.expect("stepping to a position");
        }
    });
    reached.await.expect("a position after the last change");
    driver.resume.clone()
}

async fn commit_all<H: Harness>(system: &H, transactions: &[Vec<Write>]) {
    for writes in transactions {
        system.commit(writes).await;
    }
}

pub(crate) async fn delivers_every_committed_change_once_in_order<H: Harness>() {
    let (system, resume) = opened::<H>().await;
    let source = system.source();
    let mut driver = Driver::open(&*source, resume).await;
    commit_all(&system, &script()).await;
    driver.until_id(99).await;
    assert_eq!(ops_and_ids(&driver.seen), expected(&script()));
    let mut rows = BTreeMap::new();
    script().iter().for_each(|writes| apply(&mut rows, writes));
    assert_eq!(fold(&driver.seen), rows);
}

pub(crate) async fn tells_what_its_tables_look_like<H: Harness>() {
    let (system, resume) = opened::<H>().await;
    let source = system.source();
    commit_all(&system, &script()).await;
    let told = source.tables().await.expect("the source is there");
    let mut driver = Driver::open(&*source, resume).await;
    driver.until_id(99).await;
    let came: Vec<_> = driver.tables.iter().map(|table| (**table).clone()).collect();
    assert_eq!(told, came, "what is told, and what the changes came with");
}

pub(crate) async fn shows_a_few_rows<H: Harness>() {
    let system = H::start().await;
    let source = system.source();
    commit_all(&system, &script()).await;
    let mut rows = BTreeMap::new();
    script().iter().for_each(|writes| apply(&mut rows, writes));
    for limit in [0, 2, 1000] {
        let table = source.tables().await.expect("the source is there").remove(0);
        let batch = source.sample(&table.schema, &table.name, limit).await.expect("the table is there");
        let seen = seen(&batch);
        assert!(seen.iter().all(|change| change.op == Op::Read));
        if source.capabilities().snapshots {
            let all = seen.len() == limit.min(rows.len());
            assert!(all || seen.len() < limit && batch.bytes() >= BATCH_BYTES, "{} of {}", seen.len(), rows.len());
            assert!(fold(&seen).iter().all(|row| rows.get(row.0) == Some(row.1)), "{seen:?}");
        }
    }
}

pub(crate) async fn resumes_at_every_position<H: Harness>() {
    let (system, resume) = opened::<H>().await;
    let source = system.source();
    commit_all(&system, &script()).await;
    let mut driver = Driver::open(&*source, resume).await;
    driver.until_id(99).await;
    settled(&mut driver).await;
    let (all, points) = (driver.seen.clone(), driver.resume_points.clone());
    drop(driver);
    assert!(points.iter().any(|(seen, _)| *seen > 0 && *seen < all.len()), "batches end within the script");
    for (seen, resume) in points {
        // Nothing was recorded, so that the source still has all of it.
        let mut driver = Driver::open(&*source, resume.clone()).await;
        if seen < all.len() {
            driver.until(&format!("the rest after {seen} changes"), |got| got.len() >= all.len() - seen).await;
        }
        assert_eq!(driver.seen, all[seen..], "resumed after {seen} changes, at {resume:?}");
    }
}

pub(crate) async fn delivers_the_same_change_the_same_way_again<H: Harness>() {
    let (system, resume) = opened::<H>().await;
    let source = system.source();
    commit_all(&system, &script()).await;
    let mut first = Driver::open(&*source, resume.clone()).await;
    first.until_id(99).await;
    let all = first.seen.clone();
    drop(first);
    let mut second = Driver::open(&*source, resume).await;
    second.until_id(99).await;
    assert_eq!(second.seen, all, "positions and values are the same each time");
}

pub(crate) async fn loses_nothing_when_cancelled_at_every_await<H: Harness>() {
    let (system, resume) = opened::<H>().await;
    let source = system.source();
    commit_all(&system, &script()).await;
    for polls in 1..=3 {
        let mut driver = Driver::open(&*source, resume.clone()).await;
        let done = tokio::time::timeout(DEADLINE, async {
            while !driver.seen.iter().any(|change| change.id() == 99) {
                driver.step_cancelled(polls).await.expect("a cancelled next is no error");
            }
        });
        done.await.unwrap_or_else(|_| panic!("no progress when cancelled after {polls} polls"));
        assert_eq!(ops_and_ids(&driver.seen), expected(&script()), "cancelled after {polls} polls");
    }
}

pub(crate) async fn goes_on_after_a_consumer_that_was_slow<H: Harness>() {
    let (system, resume) = opened::<H>().await;
    let source = system.source();
    let mut driver = Driver::open(&*source, resume).await;
    commit_all(&system, &script()).await;
    // The engine has no room: it calls keep_alive only. Harnesses set their system's patience to a few seconds.
    let mut ticks = tokio::time::interval(Duration::from_secs(KEEP_ALIVE_SECONDS_MAX));
    for _ in 0..6 {
        ticks.tick().await;
        driver.capture.keep_alive().await.expect("keep_alive while slow");
    }
    driver.until_id(99).await;
    assert_eq!(ops_and_ids(&driver.seen), expected(&script()));
}

pub(crate) async fn goes_on_after_the_connection_was_cut<H: Harness>() {
    let (system, resume) = opened::<H>().await;
    let source = system.source();
    let mut driver = Driver::open(&*source, resume).await;
    system.commit(&[insert(1, "before the cut")]).await;
    driver.until_id(1).await;
    let resume = settled(&mut driver).await;
    driver.record();
    system.disconnect().await;
    let lost = tokio::time::timeout(DEADLINE, async {
        loop {
            if let Err(error) = driver.step().await {
                break error;
            }
        }
    });
    let error = lost.await.expect("a cut connection is noticed");
    assert_eq!(error.action, Action::Retry, "a cut connection is worth another try: {error}");
    drop(driver);
    system.commit(&[insert(99, "after the cut")]).await;
    let mut driver = Driver::open(&*source, resume).await;
    driver.until_id(99).await;
    assert_eq!(ops_and_ids(&driver.seen), [(Op::Insert, 99)]);
}

pub(crate) async fn waits_on_an_empty_source_and_closes_quickly<H: Harness>() {
    let system = H::start().await;
    let source = system.source();
    let mut driver = Driver::open(&*source, Resume::default()).await;
    let quiet = tokio::time::timeout(Duration::from_secs(2), async {
        loop {
            driver.step().await.expect("nothing to fail at");
        }
    });
    assert!(quiet.await.is_err());
    assert_eq!(driver.seen, [], "an empty source has no changes");
    let closed = tokio::time::timeout(Duration::from_secs(5), driver.capture.close()).await;
    closed.expect("close is bounded").expect("close succeeds");
}

pub(crate) async fn carries_awkward_values_unaltered<H: Harness>() {
    let (system, resume) = opened::<H>().await;
    let source = system.source();
    let mut driver = Driver::open(&*source, resume).await;
    let notes =
        ["", " ", "NULL", "\\N", "'\"\\\n\r\t\u{1}\u{7f}", "𝄞 é \u{feff}", "␀", &"large ".repeat(BATCH_BYTES / 2)];
    for (id, note) in (1..).zip(notes) {
        system.commit(&[insert(id, note)]).await;
    }
    system.commit(&[insert(99, "last")]).await;
    driver.until_id(99).await;
    for (id, note) in (1..).zip(notes) {
        let change = driver.seen.iter().find(|change| change.id() == id).expect("delivered");
        assert!(change.note() == Some(note), "value {id} was altered: {} bytes", change.note().map_or(0, str::len));
    }
}

pub(crate) async fn refuses_a_position_of_another_source<H: Harness>() {
    let (system, resume) = opened::<H>().await;
    let source = system.source();
    let error = refused(&*source, Resume { identity: Some("another-system-1".into()), ..resume }).await;
    assert_eq!((error.kind, error.action), (ErrorKind::Gap, Action::Operator), "{error}");
    assert!(error.help.is_some(), "a gap names the way back: {error}");
}

pub(crate) async fn reads_existing_rows_once_and_lets_the_stream_win<H: Harness>() {
    let system = H::start().await;
    let mut rows: BTreeMap<i64, String> = BTreeMap::new();
    let existing: Vec<Write> = (1..=500).map(|id| insert(id, format!("row {id}"))).collect();
    apply(&mut rows, &existing);
    system.commit(&existing).await;

    let source = system.source();
    let mut driver = Driver::open(&*source, Resume::default()).await;
    // Writers go on while the snapshot is read.
    for id in (1..=500).step_by(7) {
        let writes = [update(id, format!("newer {id}")), insert(1000 + id, "new"), Write::Delete { id: id + 1 }];
        system.commit(&writes).await;
        apply(&mut rows, &writes);
        tokio::time::timeout(Duration::from_millis(1), driver.step()).await.map_or(Ok(()), |step| step).expect("step");
    }
    system.commit(&[insert(9999, "last")]).await;
    apply(&mut rows, &[insert(9999, "last")]);
    driver.until("the source's own final state", |seen| fold(seen) == rows).await;
}

pub(crate) async fn resumes_a_snapshot_that_was_interrupted<H: Harness>() {
    let system = H::start().await;
    let wide = "wide ".repeat(2000);
    let mut rows: BTreeMap<i64, String> = BTreeMap::new();
    for chunk in 0..10 {
        let writes: Vec<Write> = (0..200).map(|n| insert(chunk * 200 + n, format!("{n} {wide}"))).collect();
        system.commit(&writes).await;
        apply(&mut rows, &writes);
    }
    let source = system.source();
    let mut changes = Vec::new();
    let mut resume = Resume::default();
    // Cut after every few batches, and go on from what would be on disk.
    let finished = tokio::time::timeout(DEADLINE, async {
        while fold(&changes) != rows {
            let mut driver = Driver::open(&*source, resume.clone()).await;
            for _ in 0..2 {
                driver.step().await.expect("stepping");
                if fold(changes.iter().chain(&driver.seen)) == rows {
                    break;
                }
            }
            changes.append(&mut driver.seen);
            resume = driver.resume.clone();
        }
    });
    finished.await.expect("an interrupted snapshot comes to its end");
}
