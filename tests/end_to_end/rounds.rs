//! Seeded rounds of random faults over a random workload. `TOWPATH_ROUNDS` and `TOWPATH_SEED` choose how many and which;
//! `make rounds` runs hundreds.

use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use rustix::process::Signal;
use towpath_test_support::Towpath;

use crate::chinook::{CHANGED, TABLES, script, without_foreign_keys};
use crate::crash::POINTS;
use crate::rig::{PATIENCE, Rig, setting};
use crate::workload::Workload;

#[derive(Clone, Copy, Debug)]
enum Fault {
    KillTowpath,
    /// It kills itself at a named crash point, whenever the work that follows brings it there.
    CrashTowpath,
    StopTowpath,
    KillBroker,
    StopBroker,
    RestartPostgres,
    CrashPostgres,
    CutSourceLink,
    CutBrokerLink,
    HalfOpenSourceLink,
    HalfOpenBrokerLink,
    ResetBothLinks,
}

const FAULTS: [Fault; 12] = [
    Fault::KillTowpath,
    Fault::CrashTowpath,
    Fault::StopTowpath,
    Fault::KillBroker,
    Fault::StopBroker,
    Fault::RestartPostgres,
    Fault::CrashPostgres,
    Fault::CutSourceLink,
    Fault::CutBrokerLink,
    Fault::HalfOpenSourceLink,
    Fault::HalfOpenBrokerLink,
    Fault::ResetBothLinks,
];

async fn inflict(fault: Fault, random: &mut fastrand::Rng, rig: &mut Rig, towpath: &mut Towpath) {
    match fault {
        Fault::CrashTowpath => {
            let (point, _) = POINTS[random.usize(0..POINTS.len())];
            let point = format!("{point}:{}", random.u32(1..20));
            eprintln!("  at {point}");
            towpath.start_again_with_failpoint(&point);
        }
        Fault::KillTowpath => {
            towpath.kill();
            towpath.start_again();
        }
        Fault::StopTowpath => {
            let status = towpath.terminate(PATIENCE).await;
            // A process that was started a moment ago may not have come to listening for signals.
            let too_early = status.signal() == Some(Signal::TERM.as_raw());
            assert!(status.success() || too_early, "a clean stop: {status}");
            towpath.start_again();
        }
        Fault::KillBroker => {
            rig.rabbit.kill().await;
            rig.rabbit.start_again().await;
        }
        Fault::StopBroker => {
            rig.rabbit.stop().await;
            rig.rabbit.start_again().await;
        }
        Fault::RestartPostgres => {
            rig.postgres.stop().await;
            rig.postgres.start_again().await;
        }
        Fault::CrashPostgres => {
            rig.postgres.crash().await;
            rig.postgres.start_again().await;
        }
        Fault::CutSourceLink => rig.source_link.cut(),
        Fault::CutBrokerLink => rig.broker_link.cut(),
        Fault::HalfOpenSourceLink => rig.source_link.half_open(),
        Fault::HalfOpenBrokerLink => rig.broker_link.half_open(),
        Fault::ResetBothLinks => {
            rig.source_link.reset();
            rig.broker_link.reset();
        }
    }
}

#[tokio::test]
async fn random_faults_lose_nothing() {
    let Some(script) = script() else { return };
    let rounds = setting("TOWPATH_ROUNDS", 3);
    let seed = setting("TOWPATH_SEED", fastrand::u64(..u64::from(u32::MAX)));
    eprintln!("TOWPATH_SEED={seed} TOWPATH_ROUNDS={rounds}");
    let mut random = fastrand::Rng::with_seed(seed);
    let mut rig = Rig::with_own_broker().await;
    rig.postgres.sql(&script).await;
    let mut workload = Workload::new(random.u64(..), rig.postgres.major(), 100_000, CHANGED);
    let mut towpath = rig.towpath("postgres", "").run();
    let client = rig.postgres.client("postgres").await;
    let mut checker = towpath_test_support::Checker::new(&client, TABLES).await;
    drop(client);
    for round in 1..=rounds {
        let client = rig.postgres.client("postgres").await;
        without_foreign_keys(&client).await;
        for _ in 0..random.u32(1..=3) {
            let fault = FAULTS[random.usize(0..FAULTS.len())];
            let before = random.u32(0..150);
            let client = rig.postgres.client("postgres").await;
            without_foreign_keys(&client).await;
            for _ in 0..before {
                workload.transaction(&client).await.expect("the workload is valid SQL");
            }
            eprintln!("round {round}: {fault:?} after {before} transactions");
            inflict(fault, &mut random, &mut rig, &mut towpath).await;
        }
        rig.source_link.heal();
        rig.broker_link.heal();
        let client = rig.postgres.client("postgres").await;
        without_foreign_keys(&client).await;
        for _ in 0..20 {
            workload.transaction(&client).await.expect("the workload is valid SQL");
        }
        // Whether or not it has come to its crash point: from here on it lives.
        towpath.start_again();
        let report = checker.settle(&client, &mut rig.inbox, PATIENCE + Duration::from_secs(60)).await;
        eprintln!("round {round}: {} events, {} duplicates, none lost", report.events, report.duplicates);
    }
}
