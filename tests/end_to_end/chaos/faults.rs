//! What can happen, one at a time or on top of each other.

use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use rustix::process::Signal;
use towpath_test_support::{AmqpProxy, Confirms, Disk, Odds, Port, QueueKind, Towpath, TowpathBuilder, eventually};

use super::watch::Watch;
use crate::admin::Admin;
use crate::crash::POINTS;
use crate::rig::{PATIENCE, QUEUE, Rig};

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Fault {
    KillTowpath,
    /// It kills itself at a named crash point, whenever the work that follows brings it there.
    CrashTowpath,
    StopTowpath,
    /// SIGSTOP, for longer than every time-out of it and its peers.
    FreezeTowpath,
    /// A second process on the same outbox.
    SecondInstance,

    /// The outbox's disk.
    FillDisk,
    FailWrites,
    FailSyncs,
    ShortWrites,
    SlowDisk,
    /// What was not synced is gone, or a part of it.
    CutPower,
    /// The wall clock jumps, by seconds or by a day.
    StepClock,

    RestartPostgres,
    CrashPostgres,
    /// Its backends are ended by an administrator.
    EndBackends,
    CutSourceLink,
    HalfOpenSourceLink,
    SlowSourceLink,

    KillBroker,
    StopBroker,
    FreezeBroker,
    BlockBroker,
    CutBrokerLink,
    HalfOpenBrokerLink,
    SlowBrokerLink,
    ResetBothLinks,

    DelayConfirms,
    WithholdConfirms,
    ReorderConfirms,
    /// Said of messages that are in the queue.
    ForgeNacks,
    ForgeReturns,

    Unbind,
    DeleteQueue,
    DeleteExchange,
    RejectPublish,

    /// Every row is read again while it changes.
    Snapshot,

    // After these, changes are missing, and Towpath must say so.
    DropSlot,
    AdvanceSlot,
    InvalidateSlot,
    LeaveOutTable,
}

pub(super) const ALL: &[Fault] = &[
    Fault::KillTowpath,
    Fault::CrashTowpath,
    Fault::StopTowpath,
    Fault::FreezeTowpath,
    Fault::SecondInstance,
    Fault::FillDisk,
    Fault::FailWrites,
    Fault::FailSyncs,
    Fault::ShortWrites,
    Fault::SlowDisk,
    Fault::CutPower,
    Fault::StepClock,
    Fault::RestartPostgres,
    Fault::CrashPostgres,
    Fault::EndBackends,
    Fault::CutSourceLink,
    Fault::HalfOpenSourceLink,
    Fault::SlowSourceLink,
    Fault::KillBroker,
    Fault::StopBroker,
    Fault::FreezeBroker,
    Fault::BlockBroker,
    Fault::CutBrokerLink,
    Fault::HalfOpenBrokerLink,
    Fault::SlowBrokerLink,
    Fault::ResetBothLinks,
    Fault::DelayConfirms,
    Fault::WithholdConfirms,
    Fault::ReorderConfirms,
    Fault::ForgeNacks,
    Fault::ForgeReturns,
    Fault::Unbind,
    Fault::DeleteQueue,
    Fault::DeleteExchange,
    Fault::RejectPublish,
    Fault::Snapshot,
    Fault::DropSlot,
    Fault::AdvanceSlot,
    Fault::InvalidateSlot,
    Fault::LeaveOutTable,
];

impl Fault {
    /// Whether what happens between its beginning and the way back may be missing.
    pub(super) fn is_gap(self) -> bool {
        matches!(self, Fault::DropSlot | Fault::AdvanceSlot | Fault::InvalidateSlot | Fault::LeaveOutTable)
    }

    /// Whether Towpath ends by itself, as it should when its disk does not keep what it is given. A supervisor starts it again.
    pub(super) fn ends_it(self) -> bool {
        matches!(self, Fault::FillDisk | Fault::FailWrites | Fault::FailSyncs | Fault::ShortWrites)
    }

    /// Whether the broker says no to events that it was given, so that later ones of their key are in the queue before them.
    pub(super) fn refuses(self) -> bool {
        matches!(
            self,
            Fault::Unbind
                | Fault::DeleteQueue
                | Fault::DeleteExchange
                | Fault::RejectPublish
                | Fault::ForgeNacks
                | Fault::ForgeReturns
        )
    }
}

/// What faults are inflicted on.
pub(super) struct Ground {
    pub(super) rig: Rig,
    /// Between Towpath and the rig's own link to the broker: falsifies confirms, and notes which ones Towpath was given.
    pub(super) confirms: AmqpProxy,
    pub(super) builder: TowpathBuilder,
    pub(super) towpath: Towpath,
    pub(super) disk: Disk,
    pub(super) watch: Watch,
    pub(super) admin: Admin,
    pub(super) random: fastrand::Rng,
}

/// Longer than `read_timeout`, `confirm_timeout`, two heartbeats and `wal_sender_timeout` of the run.
const BEYOND_TIMEOUTS: Duration = Duration::from_secs(8);

/// The share of confirms that are forged.
const FORGED: f64 = 0.01;

impl Ground {
    /// Begins the fault, and ends it where it does not end by [`Ground::heal`].
    pub(super) async fn inflict(&mut self, fault: Fault) {
        if fault.is_gap() {
            self.watch.outbox.lock().await.in_gap(true);
        }
        match fault {
            Fault::KillTowpath => {
                self.towpath.kill();
                self.towpath.start_again();
            }
            Fault::CrashTowpath => {
                let (point, _) = POINTS[self.random.usize(0..POINTS.len())];
                self.towpath.start_again_with_failpoint(&format!("{point}:{}", self.random.u32(1..20)));
            }
            Fault::StopTowpath => {
                let (ended, struck) = (self.towpath.ended().is_some(), self.disk.faults());
                let status = self.towpath.terminate(PATIENCE).await;
                // A process that was started a moment ago may not have come to listening for signals; a disk that fails ends it.
                let too_early = status.signal() == Some(Signal::TERM.as_raw());
                let failed = ended || self.disk.faults() > struck;
                assert!(status.success() || too_early || failed, "a clean stop: {status}");
                self.towpath.start_again();
            }
            Fault::FreezeTowpath => {
                self.towpath.freeze(true);
                tokio::time::sleep(BEYOND_TIMEOUTS).await;
                self.towpath.freeze(false);
            }
            Fault::SecondInstance => self.second_instance().await,
            Fault::FillDisk => self.disk.no_space(Odds::Always),
            Fault::FailWrites => self.disk.write_errors(Odds::Of1000(100)),
            Fault::FailSyncs => self.disk.sync_errors(Odds::Of1000(100)),
            Fault::ShortWrites => self.disk.short_writes(Odds::Of1000(100)),
            Fault::SlowDisk => self.disk.slow_sync(Duration::from_millis(200)),
            Fault::CutPower => {
                // Nobody else has the files open.
                let _nobody_looks = self.watch.outbox.lock().await;
                self.disk.power_cut(&mut self.towpath, self.random.u64(..));
                self.towpath.start_again();
            }
            Fault::StepClock => {
                let steps = [-86_400, -10, 10, 86_400];
                self.disk.clock_step(steps[self.random.usize(0..steps.len())]);
            }
            Fault::RestartPostgres => {
                self.rig.postgres.stop().await;
                self.rig.postgres.start_again().await;
            }
            Fault::CrashPostgres => {
                self.rig.postgres.crash().await;
                self.rig.postgres.start_again().await;
            }
            Fault::EndBackends => {
                let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()";
                self.rig.postgres.sql(end).await;
            }
            Fault::KillBroker => {
                self.rig.rabbit.kill().await;
                self.rig.rabbit.start_again().await;
            }
            Fault::StopBroker => {
                self.rig.rabbit.stop().await;
                self.rig.rabbit.start_again().await;
            }
            Fault::FreezeBroker => {
                self.rig.rabbit.freeze(true);
                tokio::time::sleep(BEYOND_TIMEOUTS).await;
                self.rig.rabbit.freeze(false);
            }
            Fault::BlockBroker => self.rig.rabbit.alarm(true).await,
            Fault::CutSourceLink => self.rig.source_link.cut(),
            Fault::CutBrokerLink => self.rig.broker_link.cut(),
            Fault::HalfOpenSourceLink => self.rig.source_link.half_open(),
            Fault::HalfOpenBrokerLink => self.rig.broker_link.half_open(),
            Fault::SlowSourceLink => self.rig.source_link.throttle(20_000),
            Fault::SlowBrokerLink => self.rig.broker_link.delay(Duration::from_millis(300)),
            Fault::ResetBothLinks => {
                self.rig.source_link.reset();
                self.rig.broker_link.reset();
            }
            Fault::DelayConfirms => self.confirms.confirms(Confirms::Delayed(Duration::from_millis(400))),
            Fault::WithholdConfirms => {
                self.confirms.confirms(Confirms::Withheld);
                tokio::time::sleep(BEYOND_TIMEOUTS).await;
                self.confirms.confirms(Confirms::Honest);
            }
            Fault::ReorderConfirms => self.confirms.confirms(Confirms::Reordered { seed: self.random.u64(..) }),
            Fault::ForgeNacks => {
                self.confirms.confirms(Confirms::Nacked { seed: self.random.u64(..), share: FORGED });
            }
            Fault::ForgeReturns => {
                self.confirms.confirms(Confirms::Returned { seed: self.random.u64(..), share: FORGED });
            }
            Fault::Unbind => self.rig.rabbit.unbind(QUEUE, "towpath", "#").await,
            Fault::DeleteQueue => self.rig.rabbit.unbind(QUEUE, "towpath", "#").await,
            Fault::DeleteExchange => self.rig.rabbit.delete_exchange("towpath").await,
            Fault::RejectPublish => {
                let full = r#"{"max-length":1,"overflow":"reject-publish"}"#;
                self.rig.rabbit.set_policy("full", &format!("^{QUEUE}$"), full).await;
            }
            Fault::Snapshot => self.snapshot().await,
            Fault::DropSlot => self.without_slot("pg_drop_replication_slot('towpath_db')").await,
            Fault::AdvanceSlot => {
                self.without_slot("pg_replication_slot_advance('towpath_db', pg_current_wal_lsn())").await;
            }
            Fault::InvalidateSlot => self.invalidate_slot().await,
            Fault::LeaveOutTable => {
                let publication = "ALTER PUBLICATION towpath_db";
                let leave_out = format!(
                    "{publication} DROP TABLE by_int; INSERT INTO by_int (id) VALUES (-1); {publication} ADD TABLE by_int"
                );
                self.rig.postgres.sql(&format!("{leave_out}; DELETE FROM by_int WHERE id = -1")).await;
            }
        }
    }

    /// Ends what has not ended by itself.
    pub(super) async fn heal(&mut self, faults: &[Fault]) {
        self.disk.seed(self.random.u64(..));
        self.rig.source_link.heal();
        self.rig.broker_link.heal();
        self.confirms.confirms(Confirms::Honest);
        self.disk.heal();
        self.disk.clock_step(0);
        let had = |fault| faults.contains(&fault);
        if had(Fault::DeleteQueue) {
            self.rig.rabbit.declare_queue(QUEUE, QueueKind::Quorum).await;
        }
        if had(Fault::DeleteExchange) {
            self.rig.rabbit.declare_exchange("towpath").await;
            self.rig.rabbit.bind("markers", "towpath", "db.public.marker.*").await;
        }
        if faults.iter().any(|fault| matches!(fault, Fault::Unbind | Fault::DeleteQueue | Fault::DeleteExchange)) {
            self.rig.rabbit.bind(QUEUE, "towpath", "#").await;
        }
        if had(Fault::RejectPublish) {
            self.rig.rabbit.delete_policy("full").await;
        }
        if had(Fault::BlockBroker) {
            self.rig.rabbit.alarm(false).await;
        }
        if had(Fault::InvalidateSlot) {
            self.rig.postgres.sql("ALTER SYSTEM RESET max_slot_wal_keep_size").await;
            self.rig.postgres.sql("SELECT pg_reload_conf()").await;
        }
        // Whether or not it has come to its crash point: from here on it lives.
        if had(Fault::CrashTowpath) || self.towpath.ended().is_some() {
            self.towpath.start_again();
        }
    }

    /// It must leave at once, with a word on why, and the first goes on.
    async fn second_instance(&mut self) {
        let first = self.towpath.ended().is_none();
        let port = Port::free();
        let second = self.builder.clone().env("TOWPATH__ADMIN__LISTEN", format!("127.0.0.1:{}", port.number()));
        let output = second.command(&["run", "--config", "{config}"]);
        let output = tokio::time::timeout(PATIENCE, output).await.expect("a second instance leaves");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(
            !first || (!output.status.success() && said.contains("outbox")),
            "a second instance on one outbox: {said}"
        );
    }

    /// Asks for it, as long as there is somebody to ask.
    pub(super) async fn snapshot(&mut self) {
        let tables = super::schema::keyed_names();
        let mut args = vec!["snapshot", "--config", "{config}", "db"];
        args.extend(tables.iter().map(String::as_str));
        eventually("a snapshot to begin", PATIENCE, async || {
            let asked = self.builder.command(&args).await;
            // A disk that fails ends it, until `heal`.
            if asked.status.success() || self.towpath.ended().is_some() {
                return Ok(());
            }
            Err(String::from_utf8_lossy(&asked.stderr).into_owned())
        })
        .await;
    }

    /// Towpath is killed, so that its slot is free for what a person might do to it.
    async fn without_slot(&mut self, does: &str) {
        self.towpath.kill();
        eventually("the slot to be free", PATIENCE, async || {
            match self
                .rig
                .postgres
                .value("SELECT active FROM pg_replication_slots WHERE slot_name = 'towpath_db'")
                .await
                .as_str()
            {
                "f" => Ok(()),
                other => Err(other.to_owned()),
            }
        })
        .await;
        // So that something is missing.
        self.rig.postgres.sql("INSERT INTO by_int (id) VALUES (-1); DELETE FROM by_int WHERE id = -1").await;
        self.rig.postgres.sql(&format!("SELECT {does}")).await;
        self.towpath.start_again();
    }

    async fn invalidate_slot(&mut self) {
        self.towpath.kill();
        self.rig.postgres.sql("ALTER SYSTEM SET max_slot_wal_keep_size = '1MB'").await;
        self.rig.postgres.sql("SELECT pg_reload_conf()").await;
        eventually("the slot to be lost", PATIENCE, async || {
            self.rig.postgres.sql("INSERT INTO by_int (id) VALUES (-1); DELETE FROM by_int WHERE id = -1; SELECT pg_switch_wal(); CHECKPOINT").await;
            match self.rig.postgres.value("SELECT wal_status FROM pg_replication_slots WHERE slot_name = 'towpath_db'").await.as_str() {
                "lost" => Ok(()),
                other => Err(other.to_owned()),
            }
        })
        .await;
        self.towpath.start_again();
    }
}
