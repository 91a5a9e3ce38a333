//! The checks must be able to fail. Each scenario runs as Towpath is, when they must find nothing, and then with bugs planted, of
//! which they must catch every one. The numbers are those of the invariants in `docs/proof.md`.

use std::time::Duration;

use towpath_test_support::tokio_postgres::Client;
use towpath_test_support::{Checker, Report, Towpath, TowpathBuilder, eventually, try_eventually};

use crate::rig::{PATIENCE, QUEUE, Rig};

/// An invariant that does not hold, and how it shows.
type Broken = (u8, String);

/// A planted bug is given this long to be caught, or to have done its harm.
const HARM_WITHIN: Duration = Duration::from_secs(12);

/// Runs the scenario honestly, then with each bug.
async fn catches(bugs: &[(&'static str, u8)], scenario: impl AsyncFn(&Plant) -> Vec<Broken>) {
    let found = scenario(&Plant(None)).await;
    assert!(found.is_empty(), "without a bug: {found:?}");
    for (bug, invariant) in bugs {
        let found = scenario(&Plant(Some(bug))).await;
        let Some((_, what)) = found.iter().find(|(number, _)| number == invariant) else {
            panic!("the planted bug {bug} survived; invariant {invariant} should have caught it, found: {found:?}");
        };
        let what: String = what.chars().take(160).collect();
        eprintln!("planted {bug}: caught by invariant {invariant}: {what}");
    }
}

struct Plant(Option<&'static str>);

impl Plant {
    fn into(&self, towpath: TowpathBuilder) -> TowpathBuilder {
        match self.0 {
            Some(bug) => towpath.env("TOWPATH_PLANTED", bug),
            None => towpath,
        }
    }

    /// How long to wait for what comes only without the bug.
    fn patience(&self) -> Duration {
        if self.0.is_some() { HARM_WITHIN } else { PATIENCE }
    }

    async fn folded(&self, rig: &mut Rig, refusals: bool) -> Vec<Broken> {
        let client = rig.postgres.client("postgres").await;
        let mut checker = Checker::new(&client, &["public.t"]).await;
        if refusals {
            checker.expect_refusals(true);
        }
        self.fold(rig, &client, &mut checker).await
    }

    /// Receives until the consumer's rows are the source's, a promise is broken, or patience ends.
    async fn fold(&self, rig: &mut Rig, client: &Client, checker: &mut Checker) -> Vec<Broken> {
        let judged = try_eventually(self.patience(), async || {
            rig.inbox.pump().await;
            rig.inbox.take().iter().for_each(|delivery| checker.add(delivery));
            let report = checker.compare(client).await.clone();
            match report.differences.is_empty() || !report.violations.is_empty() {
                true => Ok(report),
                false => Err(report),
            }
        })
        .await;
        match judged {
            Ok(report) => broken(&report),
            // Judged by what came, once nothing more is to come: late is not lost.
            Err(_) => {
                self.dry(rig, checker).await;
                broken(checker.compare(client).await)
            }
        }
    }

    /// Receives until Towpath has nothing unsettled, and nothing more comes.
    async fn dry(&self, rig: &mut Rig, checker: &mut Checker) {
        eventually("Towpath to have settled everything", PATIENCE, async || {
            rig.inbox.pump().await;
            let came = rig.inbox.take();
            came.iter().for_each(|delivery| checker.add(delivery));
            let metrics = rig.admin().get("/metrics").await.1;
            let settled = metrics.lines().any(|line| line.starts_with("towpath_outbox_unsettled_events 0"));
            if settled && came.is_empty() { Ok(()) } else { Err(came.len()) }
        })
        .await;
    }
}

/// What the checker found: its violations begin with their number, and a difference of rows is (1).
pub(crate) fn broken(report: &Report) -> Vec<Broken> {
    let numbered = report.violations.iter().map(|line| {
        let number = line.strip_prefix('(').and_then(|rest| rest.split(')').next()?.parse().ok());
        (number.expect("a violation has a number"), line.clone())
    });
    numbered.chain(report.differences.iter().map(|line| (1, line.clone()))).collect()
}

const TABLE: &str = "CREATE TABLE t (id int PRIMARY KEY, note text DEFAULT repeat('x', 100))";

/// Its snapshot is over: it would bring again what a planted bug loses of the stream.
async fn started(rig: &Rig, plant: &Plant) -> Towpath {
    let mut towpath = plant.into(rig.towpath("postgres", "")).run();
    towpath.wait_for_log("the table was read", PATIENCE).await;
    towpath
}

#[tokio::test]
async fn a_place_within_a_transaction_is_found_again() {
    catches(&[("lsn_only_resume", 1), ("position_off_by_one", 1)], async |plant| {
        let mut rig = Rig::new().await;
        rig.postgres.sql(TABLE).await;
        let mut towpath = started(&rig, plant).await;
        assert!(towpath.terminate(PATIENCE).await.success());
        // Batches enough. Rows of one multi-insert share an address: batches end within them.
        let note = "x".repeat(300);
        rig.postgres.sql(&format!("COPY t (id, note) FROM PROGRAM 'seq -f \"%.0f\t{note}\" 1 14000'")).await;
        // No more than two are in flight at a time: a part of them is recorded, the last ones are not.
        towpath.start_again_with_failpoint("pipeline.before_record:4");
        towpath.wait_for_end(PATIENCE).await;
        towpath.start_again();
        plant.folded(&mut rig, false).await
    })
    .await;
}

#[tokio::test]
async fn a_transaction_in_progress_keeps_its_rows() {
    catches(&[("rows_lost_at_stream_stop", 1)], async |plant| {
        let mut rig = Rig::new().await;
        rig.postgres.configure("logical_decoding_work_mem = '64kB'");
        rig.postgres.sql("SELECT pg_reload_conf()").await;
        rig.postgres.sql(TABLE).await;
        let _towpath = started(&rig, plant).await;
        rig.postgres.sql("INSERT INTO t SELECT g FROM generate_series(1, 5000) g").await;
        plant.folded(&mut rig, false).await
    })
    .await;
}

#[tokio::test]
async fn a_snapshot_has_the_large_values() {
    catches(&[("snapshot_drops_large_value", 1)], async |plant| {
        let mut rig = Rig::new().await;
        rig.postgres.sql(TABLE).await;
        rig.postgres
            .sql(
                "ALTER TABLE t ALTER note SET STORAGE external; INSERT INTO t VALUES (1, repeat('y', 10000)), (2, 'z')",
            )
            .await;
        let _towpath = started(&rig, plant).await;
        plant.folded(&mut rig, false).await
    })
    .await;
}

#[tokio::test]
async fn what_the_broker_returns_is_published_again() {
    catches(&[("ignore_a_return", 1), ("retry_skips_the_prefix", 1)], async |plant| {
        let mut rig = Rig::new().await;
        rig.postgres.sql(TABLE).await;
        let towpath = started(&rig, plant).await;
        rig.rabbit.unbind(QUEUE, "towpath", "#").await;
        rig.postgres.sql("INSERT INTO t SELECT g FROM generate_series(1, 100) g").await;
        refused_or_settled(&rig, &towpath).await;
        rig.rabbit.bind(QUEUE, "towpath", "#").await;
        plant.folded(&mut rig, true).await
    })
    .await;
}

#[tokio::test]
async fn what_the_broker_nacks_is_published_again() {
    catches(&[("settle_on_a_nack", 1)], async |plant| {
        let mut rig = Rig::new().await;
        rig.postgres.sql(TABLE).await;
        let towpath = started(&rig, plant).await;
        let full = r#"{"max-length":1,"overflow":"reject-publish"}"#;
        rig.rabbit.set_policy("full", "^everything$", full).await;
        rig.postgres.sql("INSERT INTO t SELECT g FROM generate_series(1, 5000) g").await;
        refused_or_settled(&rig, &towpath).await;
        rig.rabbit.delete_policy("full").await;
        plant.folded(&mut rig, true).await
    })
    .await;
}

/// The route waits, as it should, or everything counts as settled, as it does with a bug.
async fn refused_or_settled(rig: &Rig, towpath: &Towpath) {
    let settled = try_eventually(HARM_WITHIN, async || {
        let metrics = rig.admin().get("/metrics").await.1;
        let unsettled = metrics.lines().find_map(|line| line.strip_prefix("towpath_outbox_unsettled_events "));
        let published =
            metrics.lines().any(|line| line.starts_with("towpath_route_published_total{") && !line.ends_with(" 0"));
        let done = towpath.log().contains("the route waits")
            || (published && unsettled.is_some_and(|count| count.starts_with('0')));
        if done { Ok(()) } else { Err(metrics) }
    });
    settled.await.unwrap_or_else(|last| panic!("neither refused nor settled: {last:?}"));
}

#[tokio::test]
async fn what_was_not_confirmed_is_published_again() {
    catches(&[("settle_before_confirm", 1)], async |plant| {
        let mut rig = Rig::new().await;
        rig.postgres.sql(TABLE).await;
        let _towpath = started(&rig, plant).await;
        rig.postgres.sql("INSERT INTO t VALUES (0)").await;
        rig.inbox.until_count(1, PATIENCE).await;
        rig.broker_link.half_open();
        rig.postgres.sql("INSERT INTO t SELECT g FROM generate_series(1, 100) g").await;
        // Published into the silence: they wait, unless the bug settles what nobody confirmed.
        if plant.0.is_some() {
            // The bug's harm shows nowhere: that is what is wrong with it.
            tokio::time::sleep(HARM_WITHIN).await;
        } else {
            eventually("a hundred events to wait", PATIENCE, async || {
                let metrics = rig.admin().get("/metrics").await.1;
                if metrics.contains("towpath_outbox_unsettled_events 100.0") { Ok(()) } else { Err(metrics) }
            })
            .await;
        }
        rig.broker_link.reset();
        rig.broker_link.heal();
        plant.folded(&mut rig, false).await
    })
    .await;
}

#[tokio::test]
async fn events_of_a_key_come_in_order() {
    catches(&[("parallel_publish_of_a_key", 5)], async |plant| {
        let mut rig = Rig::new().await;
        rig.postgres.sql(TABLE).await;
        let _towpath = started(&rig, plant).await;
        rig.postgres.sql("INSERT INTO t VALUES (1, '0')").await;
        let updates: String = (1..200).map(|note| format!("UPDATE t SET note = '{note}' WHERE id = 1;")).collect();
        rig.postgres.sql(&format!("BEGIN; {updates} COMMIT")).await;
        plant.folded(&mut rig, false).await
    })
    .await;
}

/// Two outboxes that never heard of each other read the same log.
#[tokio::test]
async fn a_change_has_one_id() {
    catches(&[("id_from_the_clock", 4)], async |plant| {
        let mut rig = Rig::new().await;
        rig.postgres.sql(&format!("{TABLE}; CREATE PUBLICATION p FOR TABLE t")).await;
        rig.postgres.sql("SELECT pg_create_logical_replication_slot('a', 'pgoutput')").await;
        rig.postgres.sql("SELECT pg_copy_logical_replication_slot('a', 'b')").await;
        rig.postgres.sql("INSERT INTO t SELECT g FROM generate_series(1, 100) g; DELETE FROM t WHERE id < 10").await;
        let client = rig.postgres.client("postgres").await;
        let mut checker = Checker::new(&client, &["public.t"]).await;
        for slot in ["a", "b"] {
            let from = format!("SELECT confirmed_flush_lsn FROM pg_replication_slots WHERE slot_name = '{slot}'");
            let from = rig.postgres.value(&from).await;
            rig.postgres.sql(&format!("COMMENT ON PUBLICATION p IS 'towpath: slot {slot} created at {from}'")).await;
            let keys = format!("type: postgres\n    slot: {slot}\n    publication: p\n    snapshot: {{ mode: never }}");
            let config = rig.config("postgres", "").replace("type: postgres", &keys);
            let mut towpath = plant.into(Towpath::binary(env!("CARGO_BIN_EXE_towpath")).config(&config)).run();
            let all = rig.inbox.until_count(109, PATIENCE).await;
            assert_eq!(all.len(), 109);
            rig.inbox.take().iter().for_each(|delivery| checker.add(delivery));
            assert!(towpath.terminate(PATIENCE).await.success());
        }
        broken(checker.compare(&client).await)
    })
    .await;
}

/// (14) Health is never green while the broker is away.
#[tokio::test]
async fn health_tells_the_truth() {
    catches(&[("health_is_always_green", 14)], async |plant| {
        let rig = Rig::new().await;
        rig.postgres.sql(TABLE).await;
        let _towpath = started(&rig, plant).await;
        eventually("/readyz to be green", PATIENCE, async || match rig.admin().get("/readyz").await {
            (200, _) => Ok(()),
            other => Err(other),
        })
        .await;
        rig.broker_link.refuse();
        rig.broker_link.cut();
        let told = try_eventually(plant.patience(), async || {
            let answer = rig.admin().get("/readyz").await;
            if answer.0 == 503 { Ok(()) } else { Err(answer) }
        });
        told.await
            .err()
            .map(|last| (14, format!("the broker is away, and /readyz says {last:?}")))
            .into_iter()
            .collect()
    })
    .await;
}

/// (15) No secret in the log, at any level.
#[tokio::test]
async fn the_log_holds_no_secret() {
    const CANARY: &str = "canary-5e1f";
    catches(&[("secret_in_a_debug_line", 15)], async |plant| {
        let mut rig = Rig::new().await;
        rig.postgres.sql(&format!("{TABLE}; INSERT INTO t VALUES (1)")).await;
        let config = rig.config("postgres", "").replace("postgres@", &format!("postgres:{CANARY}@"));
        assert!(config.contains(CANARY));
        let towpath = Towpath::binary(env!("CARGO_BIN_EXE_towpath")).config(&config).arg("--log-level").arg("trace");
        let towpath = plant.into(towpath).run();
        rig.inbox.until_count(1, PATIENCE).await;
        towpath.log().lines().filter(|line| line.contains(CANARY)).map(|line| (15, line.to_owned())).collect()
    })
    .await;
}

/// (7) The source is told only of what is on disk in the outbox.
#[tokio::test]
async fn the_source_is_told_after_the_outbox_is_written() {
    catches(&[("acknowledge_before_fsync", 7)], async |plant| {
        let rig = Rig::new().await;
        rig.postgres.sql(TABLE).await;
        let towpath = started(&rig, plant).await;
        // Another program writes to the file: nothing can be recorded.
        let other = rusqlite::Connection::open(towpath.folder().join("outbox.db")).expect("the outbox is a file");
        other.busy_timeout(PATIENCE).expect("a time-out");
        other.execute_batch("BEGIN IMMEDIATE").expect("the file can be locked");
        rig.postgres.sql("INSERT INTO t VALUES (1)").await;
        let inserted = rig.postgres.value("SELECT pg_current_wal_lsn()").await;
        let told = format!(
            "SELECT confirmed_flush_lsn >= '{inserted}' FROM pg_replication_slots WHERE slot_name = 'towpath_db'"
        );
        let acknowledged = try_eventually(HARM_WITHIN, async || match rig.postgres.value(&told).await.as_str() {
            "t" => Ok(()),
            _ => Err(()),
        });
        let broken = acknowledged.await.is_ok();
        drop(other);
        broken.then(|| (7, format!("{inserted} is confirmed and was not recorded"))).into_iter().collect()
    })
    .await;
}

/// A bug that no scenario knows is not caught.
#[test]
fn every_bug_that_can_be_planted_is_caught_by_a_scenario() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut folders = vec![root.join("src"), root.join("connectors")];
    let mut bugs = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("a folder").flatten() {
            let text = std::fs::read_to_string(entry.path()).unwrap_or_default();
            bugs.extend(text.split("planted(\"").skip(1).filter_map(|part| Some(part.split('"').next()?.to_owned())));
            if entry.path().is_dir() {
                folders.push(entry.path());
            }
        }
    }
    assert!(bugs.len() >= 13, "{bugs:?}");
    let scenarios = include_str!("planted.rs");
    bugs.retain(|bug| !scenarios.contains(&format!("(\"{bug}\", ")));
    assert_eq!(bugs, [""; 0]);
}
