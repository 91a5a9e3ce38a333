//! Seeded rounds of random faults over a random workload. `TOWPATH_ROUNDS` and `TOWPATH_SEED` choose how many and which;
//! `make rounds` runs hundreds.

use std::time::Duration;

use towpath_test_support::Towpath;

use crate::chinook::{CHANGED, TABLES, script, without_foreign_keys};
use crate::rig::{PATIENCE, Rig};
use crate::workload::Workload;

#[derive(Clone, Copy, Debug)]
enum Fault {
    KillTowpath,
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

const FAULTS: [Fault; 11] = [
    Fault::KillTowpath,
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

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

async fn inflict(fault: Fault, rig: &mut Rig, towpath: &mut Towpath) {
    match fault {
        Fault::KillTowpath => {
            towpath.kill();
            towpath.start_again();
        }
        Fault::StopTowpath => {
            assert!(towpath.terminate(PATIENCE).await.success(), "a clean stop");
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
    let rounds = setting("TOWPATH_ROUNDS", 6);
    let seed = setting("TOWPATH_SEED", fastrand::u64(..u64::from(u32::MAX)));
    eprintln!("TOWPATH_SEED={seed} TOWPATH_ROUNDS={rounds}");
    let mut random = fastrand::Rng::with_seed(seed);
    let mut rig = Rig::with_own_broker().await;
    rig.postgres.sql(&script).await;
    let mut workload = Workload::new(random.u64(..), 100_000, CHANGED);
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
            inflict(fault, &mut rig, &mut towpath).await;
        }
        rig.source_link.heal();
        rig.broker_link.heal();
        let client = rig.postgres.client("postgres").await;
        without_foreign_keys(&client).await;
        for _ in 0..20 {
            workload.transaction(&client).await.expect("the workload is valid SQL");
        }
        let report = checker.settle(&client, &mut rig.inbox, PATIENCE + Duration::from_secs(60)).await;
        eprintln!("round {round}: {} events, {} duplicates, none lost", report.events, report.duplicates);
    }
}
