//! Everything at once: many sessions change many tables while seeded faults come and go, and every promise is checked by number.
//!
//! `TOWPATH_SECONDS` says for how long faults are inflicted, `TOWPATH_SEED` which ones, `TOWPATH_FAULTS` of which only; `make chaos`
//! runs it for long. The choices
//! are the same for the same seed; how sessions and faults meet in time is the machine's.

mod faults;
mod oracle;
mod schema;
mod sessions;
mod verdict;
mod watch;

use std::time::{Duration, Instant};

use towpath_test_support::{AmqpProxy, Checker, Postgres, RabbitMq, eventually, try_eventually};

use crate::admin::Admin;
use crate::planted::broken;
use crate::rig::{PATIENCE, QUEUE, Rig, setting};
use faults::{Fault, Ground};
use sessions::Sessions;
use verdict::Verdict;
use watch::{READY_LAG_MAX, Watch};

/// What is part of `make test` draws the same faults every time; `make chaos` draws others.
const SHORT_FORM_SEED: u64 = 2_207_422_228;

/// After the faults of a round, all that was committed must have come within this, and as much longer as there is so much that
/// [`EVENTS_MIN`] new events come in every such time: on a slow machine a hundred thousand rows take minutes.
const DRAIN_WITHIN: Duration = Duration::from_secs(90);
const EVENTS_MIN: usize = 20_000;

/// Transactions that the sessions make while a fault lasts.
const MEANWHILE: u64 = 100;

const WINDOW: u64 = 500;
/// What is confirmed within the 50 ms that a crash may forget.
const CONFIRMED_MEANWHILE: u64 = 1_000;

const OUTBOX_MIB_MAX: u64 = 64;
/// A test build, which is larger than a release.
const RSS_KB_MAX: u64 = 100_000;

/// They stand in the config, and may be found nowhere else.
const CANARIES: [&str; 3] = ["canary-source-7f3", "canary-broker-7f3", "canary-admin-7f3"];

struct Run {
    ground: Ground,
    checker: Checker,
    verdict: Verdict,
    next: i64,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_happens_every_promise_holds() {
    let seed = setting("TOWPATH_SEED", SHORT_FORM_SEED);
    let time = Duration::from_secs(setting("TOWPATH_SECONDS", 60));
    eprintln!("TOWPATH_SEED={seed} TOWPATH_SECONDS={}", time.as_secs());
    let mut run = Run::begin(seed).await;
    let began = Instant::now();
    let mut deck = Vec::new();
    for round in 1.. {
        if began.elapsed() > time || !run.verdict.is_clean() {
            break;
        }
        let faults = run.draw(&mut deck);
        run.round(round, &faults).await;
    }
    run.end().await.conclude();
}

impl Run {
    async fn begin(seed: u64) -> Run {
        let settings = "wal_sender_timeout = '5s'\nlogical_decoding_work_mem = '64kB'\nmax_connections = 50";
        let (rabbit, postgres) = tokio::join!(RabbitMq::own(), Postgres::builder().settings(settings).start());
        let rig = Rig::with(rabbit, postgres).await;
        rig.postgres.sql(&schema::script()).await;
        rig.rabbit.create_user("towpath", CANARIES[1]).await;
        let more = format!("  token: {}\n  ready_lag_max: {}s\n", CANARIES[2], READY_LAG_MAX.as_secs());
        let confirms = AmqpProxy::start(rig.broker_link.port());
        let config = rig
            .config("postgres", &more)
            .replace(&format!("@127.0.0.1:{}", rig.broker_link.port()), &format!("@127.0.0.1:{}", confirms.port()))
            .replace("postgres@", &format!("postgres:{}@", CANARIES[0]))
            .replace("guest:guest@", &format!("towpath:{}@", CANARIES[1]))
            .replace("heartbeat: 2s", &format!("heartbeat: 2s\n  window: {WINDOW}"))
            .replace("sqlite: outbox.db", &format!("sqlite: outbox.db\n  max_size: {OUTBOX_MIB_MAX}MiB"));
        let builder = rig.towpath("postgres", "").config(&config).arg("--log-level").arg("debug");
        // Whoever else is run (a second instance, a command) has the machine's own disk.
        let (faulty, disk) = builder.clone().faulty_disk("outbox.db");
        let towpath = faulty.run();
        let admin = Admin { port: rig.admin.number(), token: CANARIES[2].into() };
        let watch = Watch::start(&rig.postgres, &rig.rabbit, admin.clone(), towpath.folder().join("outbox.db")).await;
        let client = rig.postgres.client("postgres").await;
        let names = schema::names();
        let mut checker = Checker::new(&client, &names.iter().map(String::as_str).collect::<Vec<_>>()).await;
        checker.expect_none_with(sessions::ROLLED_BACK);
        let ground =
            Ground { rig, confirms, builder, towpath, disk, watch, admin, random: fastrand::Rng::with_seed(seed) };
        let mut run = Run { ground, checker, verdict: Verdict::default(), next: 1_000 };
        run.begin_account(0).await;
        run
    }

    /// Every change is accounted for from here on. Before, every table must have been read for the first time, since changes that
    /// the rows of a table without a key contain are not sent besides. `log` is how long the log was when reading began.
    async fn begin_account(&mut self, log: usize) {
        let tables = schema::names().len() + 1;
        eventually("every table to be read", DRAIN_WITHIN, async || {
            let read = self.ground.towpath.log()[log..].matches("the table was read").count();
            if read >= tables { Ok(()) } else { Err(read) }
        })
        .await;
        self.drain().await;
        self.checker.take_changes();
        oracle::begin(&self.ground.rig.postgres).await;
    }

    /// One to three faults. Every fault comes before one comes again; one that tears a gap comes alone.
    fn draw(&mut self, deck: &mut Vec<Fault>) -> Vec<Fault> {
        let random = &mut self.ground.random;
        let mut drawn: Vec<Fault> = Vec::new();
        for _ in 0..random.u32(1..=3) {
            if deck.is_empty() {
                let chosen = std::env::var("TOWPATH_FAULTS").unwrap_or_default();
                let wanted =
                    |fault: &&Fault| chosen.is_empty() || chosen.split(' ').any(|name| name == format!("{fault:?}"));
                deck.extend(faults::ALL.iter().filter(wanted));
                assert!(!deck.is_empty(), "TOWPATH_FAULTS={chosen}: no such fault");
                random.shuffle(deck);
            }
            let next = *deck.last().expect("filled above");
            if !drawn.is_empty() && (next.is_gap() || drawn[0].is_gap() || drawn.contains(&next)) {
                break;
            }
            drawn.extend(deck.pop());
        }
        drawn
    }

    async fn round(&mut self, round: u32, faults: &[Fault]) {
        eprintln!("round {round}: {faults:?}");
        let connections = self.ground.rig.broker_link.accepted();
        let refused = self.ground.confirms.nacked() + self.ground.confirms.returned();
        let duplicates = self.checker.report().duplicates as u64;
        self.checker.expect_refusals(faults.iter().any(|fault| fault.refuses()));
        let rows_max = setting("TOWPATH_ROWS_MAX", 3_000) as i64;
        let sessions = Sessions::start(&self.ground.rig.postgres, self.ground.random.u64(..), self.next, rows_max);
        for fault in faults {
            let before = self.ground.random.u64(10..150);
            sessions.work(before).await;
            sessions.allow(MEANWHILE);
            self.ground.inflict(*fault).await;
        }
        sessions.work(50).await;
        self.next = sessions.stop().await;
        if faults.contains(&Fault::DeleteQueue) {
            self.delete_queue().await;
        }
        self.receive().await;
        self.ground.heal(faults).await;
        if faults.iter().any(|fault| fault.is_gap()) {
            self.way_back().await;
        }
        // It may be ending just now.
        if faults.iter().any(|fault| fault.ends_it()) {
            let _ = try_eventually(Duration::from_secs(3), async || self.ground.towpath.ended().ok_or(())).await;
            if self.ground.towpath.ended().is_some() {
                self.ground.towpath.start_again();
            }
        }
        let took = self.drain().await;
        self.judge().await;
        let refused = self.ground.confirms.nacked() + self.ground.confirms.returned() - refused;
        // Each fault may end the process, or have a confirm time out twice.
        let others = 2 * faults.len() as u64 + 1;
        let disruptions = self.ground.rig.broker_link.accepted() - connections + refused + others;
        let came_twice = self.checker.report().duplicates as u64 - duplicates;
        self.verdict.must(11, came_twice <= disruptions * (WINDOW + CONFIRMED_MEANWHILE), || {
            format!("{came_twice} duplicates after {disruptions} disruptions of a window of {WINDOW}")
        });
        let report = self.checker.report();
        eprintln!(
            "round {round}: drained in {took:.1?}; {} events, {came_twice} came twice, {refused} were refused",
            report.events
        );
    }

    /// What it held was received, and nothing comes into it: its binding is gone.
    async fn delete_queue(&mut self) {
        eventually("the queue to be empty", DRAIN_WITHIN, async || {
            self.receive().await;
            match self.ground.rig.rabbit.depth(QUEUE).await {
                0 => Ok(()),
                more => Err(more),
            }
        })
        .await;
        self.ground.rig.rabbit.delete_queue(QUEUE).await;
        let told = async || {
            self.receive().await;
            self.ground.rig.inbox.is_cut_off().then_some(()).ok_or(())
        };
        eventually("the consumer to be told of the end of its queue", DRAIN_WITHIN, told).await;
    }

    async fn receive(&mut self) -> usize {
        self.ground.rig.inbox.pump().await;
        let came = self.ground.rig.inbox.take();
        for delivery in &came {
            let body = String::from_utf8_lossy(&delivery.body);
            let leak = CANARIES.iter().find(|canary| body.contains(**canary));
            self.verdict.must(15, leak.is_none(), || format!("{leak:?} in an event: {body}"));
            self.checker.add(delivery);
        }
        came.len()
    }

    /// Waits for something as long as [`EVENTS_MIN`] new events come within each [`DRAIN_WITHIN`].
    async fn while_events_come<T, S>(
        &mut self,
        mut condition: impl AsyncFnMut(&mut Run) -> Result<T, S>,
    ) -> Result<T, Option<S>> {
        loop {
            let before = self.checker.report().distinct();
            let met = try_eventually(DRAIN_WITHIN, async || condition(self).await).await;
            if met.is_ok() || self.checker.report().distinct() - before < EVENTS_MIN {
                return met;
            }
        }
    }

    /// (12) Receives until Towpath has told the source of all that was written, has nothing unsettled, and nothing more comes.
    async fn drain(&mut self) -> Duration {
        let began = Instant::now();
        let written = self.ground.rig.postgres.value("SELECT pg_current_wal_lsn()").await;
        let told = format!(
            "SELECT confirmed_flush_lsn >= '{written}' FROM pg_replication_slots WHERE slot_name = 'towpath_db'"
        );
        let drained = self
            .while_events_come(async |run| {
                // In the order of a change's way, so that none is overlooked that goes on meanwhile.
                let told = run.ground.rig.postgres.value(&told).await;
                let reading = run.ground.admin.metric("towpath_source_snapshot_tables{source=\"db\"}").await;
                let unsettled = run.ground.admin.metric("towpath_outbox_unsettled_events").await;
                let came = run.receive().await;
                // The watch goes on writing its markers.
                let quiet =
                    came < 10 && unsettled.is_some_and(|events| events < 10.0) && told == "t" && reading == Some(0.0);
                // A consumer whose queue was deleted receives nothing either.
                if quiet && run.ground.rig.rabbit.depth(QUEUE).await < 10 {
                    return Ok(());
                }
                Err(format!("{came} came, {unsettled:?} unsettled, source told: {told}, {reading:?} tables being read"))
            })
            .await;
        if drained.is_err() {
            let status = self.ground.builder.command(&["status", "--config", "{config}"]).await;
            eprintln!("not drained: {drained:?}\n{}", String::from_utf8_lossy(&status.stdout));
        }
        self.verdict.must(12, drained.is_ok(), || format!("not drained after {:.0?}: {drained:?}", began.elapsed()));
        began.elapsed()
    }

    /// The gap must be told, and health be red; then a person takes the way back.
    async fn way_back(&mut self) {
        let told = try_eventually(PATIENCE, async || match self.ground.admin.get("/healthz").await {
            (503, answer) if answer.contains("gap") => Ok(()),
            other => Err(other),
        })
        .await;
        self.verdict.must(2, told.is_ok(), || format!("changes are missing and no gap is reported: {told:?}"));
        self.verdict.looked(14, 1);
        // What was recorded before the gap still comes.
        eventually("what was recorded to be settled", DRAIN_WITHIN, async || {
            let came = self.receive().await;
            let unsettled = self.ground.admin.metric("towpath_outbox_unsettled_events").await;
            let settled = came == 0 && unsettled == Some(0.0) && self.ground.rig.rabbit.depth(QUEUE).await == 0;
            if settled && self.receive().await == 0 { Ok(()) } else { Err((came, unsettled)) }
        })
        .await;
        let received = self.checker.take_changes();
        // What became of the slot may have become of the oracle's.
        if let Some(committed) = oracle::committed(&self.ground.rig.postgres).await {
            let found = oracle::differences(&committed, &received);
            self.verdict.broke(found.into_iter().filter(|(invariant, _)| *invariant == 3));
        }
        self.checker.forget_rows();
        let log = self.ground.towpath.log().len();
        let accepted = self.ground.builder.command(&["snapshot", "--config", "{config}", "db", "--after-gap"]).await;
        assert!(accepted.status.success(), "{}", String::from_utf8_lossy(&accepted.stderr));
        self.begin_account(log).await;
        self.ground.watch.outbox.lock().await.in_gap(false);
    }

    async fn judge(&mut self) {
        let client = self.ground.rig.postgres.client("postgres").await;
        self.checker.compare(&client).await;
        let report = self.checker.report().clone();
        self.verdict.looked(1, 1);
        self.verdict.broke(broken(&report));
        for (invariant, looks) in [(3, report.events), (4, report.events), (5, report.distinct())] {
            self.verdict.looked(invariant, looks as u64);
        }
        let committed = oracle::committed(&self.ground.rig.postgres).await.expect("the oracle's slot is whole");
        let received = self.checker.take_changes();
        self.verdict.looked(2, committed.values().sum::<usize>() as u64);
        self.verdict.broke(oracle::differences(&committed, &received).into_iter().take(20));
        self.verdict.broke(self.ground.watch.seen().broken);
        let settled = self.ground.watch.outbox.lock().await.settled();
        self.verdict.looked(9, settled.len() as u64);
        let unconfirmed = settled.iter().filter(|id| !self.ground.confirms.was_confirmed(id));
        self.verdict.broke(unconfirmed.take(20).map(|id| (9, format!("{id} is settled, and was never confirmed"))));
        self.bounded().await;
    }

    /// (13)
    async fn bounded(&mut self) {
        let rss = self.ground.towpath.rss_peak_kb();
        self.verdict.must(13, rss < RSS_KB_MAX, || format!("{rss} kB resident"));
        let file = self.ground.towpath.folder().join("outbox.db");
        let size = std::fs::metadata(&file).map_or(0, |file| file.len());
        self.verdict.must(13, size <= (OUTBOX_MIB_MAX + 8) << 20, || format!("the outbox has {size} bytes"));
        let kept = "SELECT (pg_current_wal_lsn() - restart_lsn)::bigint FROM pg_replication_slots WHERE slot_name = 'towpath_db'";
        let let_go = try_eventually(PATIENCE, async || {
            self.ground.rig.postgres.sql("CHECKPOINT").await;
            match self.ground.rig.postgres.value(kept).await.parse::<u64>() {
                Ok(bytes) if bytes < 16 << 20 => Ok(()),
                other => Err(other),
            }
        })
        .await;
        self.verdict.must(13, let_go.is_ok(), || format!("the slot keeps the server's log: {let_go:?}"));
    }

    /// (10) Nothing changes any more: what a snapshot reads must be what the stream said. (15) The log of it all.
    async fn end(mut self) -> Verdict {
        let seen = self.ground.watch.end();
        self.drain().await;
        self.checker.expect_equal_reads(true);
        let before = self.checker.report().ops.get("read").copied().unwrap_or(0);
        let counts = schema::keyed_names().into_iter().map(|table| format!("(SELECT count(*) FROM {table})"));
        let rows = self.ground.rig.postgres.value(&format!("SELECT {}", counts.collect::<Vec<_>>().join(" + "))).await;
        let rows: usize = rows.parse().expect("a count");
        self.ground.snapshot().await;
        let read = self
            .while_events_come(async |run| {
                run.receive().await;
                let reads = run.checker.report().ops.get("read").copied().unwrap_or(0) - before;
                if reads >= rows { Ok(()) } else { Err(reads) }
            })
            .await;
        self.verdict.must(10, read.is_ok(), || format!("of {rows} rows not all were read again: {read:?}"));
        self.verdict.looked(10, rows as u64);
        self.verdict.broke(broken(self.checker.report()).into_iter().filter(|(invariant, _)| *invariant == 10));
        self.verdict.looked(7, seen.acknowledged);
        self.verdict.looked(8, seen.positions);
        self.verdict.looked(14, seen.health);
        self.verdict.must(14, seen.green > 0, || "/readyz was never green".into());
        let status = self.ground.builder.command(&["status", "--config", "{config}", "--json"]).await;
        let said = [
            self.ground.towpath.log(),
            self.ground.admin.get("/metrics").await.1,
            String::from_utf8_lossy(&status.stdout).into_owned(),
        ];
        for line in said.iter().flat_map(|text| text.lines()) {
            let leak = CANARIES.iter().find(|canary| line.contains(**canary));
            self.verdict.must(15, leak.is_none(), || format!("{leak:?} in: {line}"));
        }
        self.verdict
    }
}
