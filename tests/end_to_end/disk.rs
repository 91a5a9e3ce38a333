//! Disks that fill up, fail, tear, lie and lose their power, and clocks that jump: below the real binary, which knows nothing of it.

mod clock;
mod power;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::task::JoinHandle;
use towpath_test_support::{Disk, Folder, Odds, Postgres, RabbitMq, Towpath, eventually};

use crate::rig::{PATIENCE, Rig};

const TABLE: &str = "CREATE TABLE t (id int PRIMARY KEY, note text)";

/// Its outbox is small, so that the log is emptied all the time.
fn towpath(rig: &Rig, retain: &str) -> (Towpath, Disk) {
    let config = rig.config("postgres", "");
    let outbox = format!("sqlite: outbox.db\n  max_size: 16MiB\n  retain: {retain}");
    let config = config.replace("sqlite: outbox.db", &outbox);
    let builder = Towpath::binary(env!("CARGO_BIN_EXE_towpath")).config(&config);
    let (builder, disk) = builder.faulty_disk("outbox.db");
    (builder.run(), disk)
}

/// Changes rows, a few hundred in a second, until it is stopped.
struct Load {
    stop: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

impl Load {
    async fn start(rig: &Rig) -> Load {
        let client = rig.postgres.client("postgres").await;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let task = tokio::spawn(async move {
            let mut pace = tokio::time::interval(Duration::from_millis(8));
            while !stopped.load(Ordering::Relaxed) {
                pace.tick().await;
                let change =
                    "WITH new AS (INSERT INTO t SELECT coalesce(max(id), 0) + 1, repeat('x', 2000) FROM t RETURNING id)
                     UPDATE t SET note = new.id FROM new WHERE t.id = new.id / 2";
                client.batch_execute(change).await.expect("valid SQL");
            }
        });
        Load { stop, task }
    }

    async fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.expect("the load did not fail");
    }
}

async fn ready(rig: &Rig) {
    eventually("/readyz to be green", PATIENCE, async || match rig.admin().get("/readyz").await {
        (200, _) => Ok(()),
        other => Err(other),
    })
    .await;
}

/// The server was told that everything up to now is recorded.
async fn told(rig: &Rig) {
    let now = rig.postgres.value("SELECT pg_current_wal_lsn()").await;
    let told = format!("SELECT confirmed_flush_lsn >= '{now}' FROM pg_replication_slots");
    eventually("the server to be told", PATIENCE, async || match rig.postgres.value(&told).await.as_str() {
        "t" => Ok(()),
        other => Err(other.to_owned()),
    })
    .await;
}

/// The process is dead. What PostgreSQL was told to be recorded must be in the outbox, as it will be found: else the words that say
/// how it is not.
async fn broken_promise(rig: &Rig, folder: &Path) -> Option<String> {
    // What was still on its way to the server has arrived once the server knows of the end.
    let query = "SELECT active, confirmed_flush_lsn - '0/0'::pg_lsn FROM pg_replication_slots";
    let confirmed = eventually("the server to let go of the slot", PATIENCE, async || {
        let rows = rig.postgres.rows(query).await;
        let slot = rows.first().map(|row| (row[0].as_deref() == Some("t"), row[1].clone().unwrap_or_default()));
        match slot {
            Some((true, _)) => Err(rows),
            Some((false, lsn)) => Ok(lsn.parse::<u64>().expect("a number")),
            None => Ok(0),
        }
    })
    .await;
    match stored_lsn(folder) {
        Ok(stored) if stored >= confirmed => None,
        Ok(stored) => Some(format!("{confirmed:X} is confirmed, and the outbox ends at {stored:X}")),
        Err(error) => Some(format!("{confirmed:X} is confirmed, and the outbox cannot be read: {error}")),
    }
}

/// Up to where the outbox has recorded the source. Read from a copy: whoever opens the file itself changes it.
fn stored_lsn(folder: &Path) -> rusqlite::Result<u64> {
    let copies = Folder::new("copy");
    for name in ["outbox.db", "outbox.db-wal", "outbox.db-journal"] {
        // Not all of them are there.
        let _ = std::fs::copy(folder.join(name), copies.path().join(name));
    }
    let copy = rusqlite::Connection::open(copies.path().join("outbox.db"))?;
    let position: Vec<u8> = copy.query_row("SELECT position FROM source", [], |row| row.get(0))?;
    // The connector's position begins with what it may confirm.
    Ok(u64::from_be_bytes(*position.first_chunk().expect("a position of PostgreSQL's connector")))
}

/// A full disk, and one where writes run short and then find it full: Towpath waits and says so.
#[tokio::test]
async fn a_full_disk_is_waited_for() {
    let mut rig = Rig::new().await;
    rig.postgres.sql(TABLE).await;
    let (mut towpath, mut disk) = towpath(&rig, "1h");
    ready(&rig).await;
    let load = Load::start(&rig).await;
    let full: [fn(&mut Disk); 2] = [|disk| disk.no_space(Odds::Always), |disk| disk.short_writes(Odds::Of1000(900))];
    for fault in full {
        fault(&mut disk);
        said(&rig, "the disk is full").await;
        assert_eq!(rig.admin().get("/healthz").await.0, 200, "it passes");
        disk.heal();
        ready(&rig).await;
    }
    assert_eq!(towpath.ended(), None);
    // Whoever makes room may start it again, too, whatever it was moving into the file at that moment.
    for _ in 0..2 {
        disk.no_space(Odds::Always);
        said(&rig, "the disk is full").await;
        towpath.kill();
        // Too soon.
        towpath.start_again();
        assert_eq!(towpath.wait_for_end(PATIENCE).await.code(), Some(1));
        let log = towpath.log();
        assert!(log.contains("the outbox outbox.db: the disk is full"), "{log}");
        disk.heal();
        towpath.start_again();
        ready(&rig).await;
    }
    load.stop().await;
    let client = rig.postgres.client("postgres").await;
    rig.settle(&client, &["public.t"]).await;
    assert!(towpath.terminate(PATIENCE).await.success());
}

async fn said(rig: &Rig, wrong: &str) {
    eventually("/readyz to say what is wrong with the disk", PATIENCE, async || {
        let answer = rig.admin().get("/readyz").await;
        if answer.0 == 503 && answer.1.contains(wrong) { Ok(()) } else { Err(answer) }
    })
    .await;
}

/// What is on the disk while a transaction is in progress, the server sends again.
#[tokio::test]
async fn a_disk_that_fails_a_transaction_in_progress_is_tried_again() {
    let settings = "wal_sender_timeout = '5s'\nlogical_decoding_work_mem = '64kB'";
    let (rabbit, postgres) = tokio::join!(RabbitMq::shared(), Postgres::builder().settings(settings).start());
    let mut rig = Rig::with(rabbit, postgres).await;
    rig.postgres.sql(TABLE).await;
    let (builder, mut disk) = rig.towpath("postgres", "").faulty_disk("outbox.db.spool");
    let mut towpath = builder.run();
    ready(&rig).await;
    let client = rig.postgres.client("postgres").await;
    let failing: [fn(&mut Disk); 2] = [|disk| disk.write_errors(Odds::Always), |disk| disk.no_space(Odds::Always)];
    for (fault, wrong) in failing.into_iter().zip(["Input/output error", "the disk is full"]) {
        fault(&mut disk);
        let rows = "INSERT INTO t SELECT (SELECT coalesce(max(id), 0) FROM t) + n, 'n' FROM generate_series(1, 5000) n";
        client.batch_execute(rows).await.expect("valid SQL");
        said(&rig, wrong).await;
        disk.heal();
        ready(&rig).await;
    }
    rig.settle(&client, &["public.t"]).await;
    assert!(towpath.terminate(PATIENCE).await.success());
}

/// Towpath ends with words that help, and as often as it is started while the fault lasts. What it told the source is recorded, and
/// when the disk is mended all arrives.
#[tokio::test]
async fn a_disk_that_fails_ends_it_with_a_clear_error() {
    let mut rig = Rig::new().await;
    rig.postgres.sql(TABLE).await;
    let (mut towpath, mut disk) = towpath(&rig, "1s");
    ready(&rig).await;
    let load = Load::start(&rig).await;
    let failing: [fn(&mut Disk); 4] = [
        |disk| disk.write_errors(Odds::Always),
        |disk| disk.write_errors(Odds::Of1000(30)),
        |disk| disk.sync_errors(Odds::Always),
        |disk| disk.sync_errors(Odds::Of1000(100)),
    ];
    let mut already = 0;
    for (round, fault) in failing.into_iter().enumerate() {
        disk.seed(round as u64);
        fault(&mut disk);
        for _ in 0..2 {
            let status = towpath.wait_for_end(PATIENCE).await;
            assert_eq!(status.code(), Some(1), "an error, not a panic");
            let log = towpath.log();
            let said = &log[already..];
            already = log.len();
            // SQLite cannot tell why the index of its log could not be made longer: Towpath then says that the disk is full.
            let named =
                ["disk I/O error", "Input/output error", "the disk is full"].iter().any(|name| said.contains(name));
            assert!(said.contains("the outbox") && named, "{said}");
            assert!(said.contains("look at the disk"), "{said}");
            assert_eq!(broken_promise(&rig, towpath.folder()).await, None);
            towpath.start_again();
        }
        disk.heal();
        towpath.start_again();
        ready(&rig).await;
    }
    load.stop().await;
    let client = rig.postgres.client("postgres").await;
    rig.settle(&client, &["public.t"]).await;
    assert!(towpath.terminate(PATIENCE).await.success());
}
