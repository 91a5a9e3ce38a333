//! The power goes away: what was not synced is gone, all of it or any part.

use std::time::Duration;

use towpath_test_support::{Checker, Odds, PowerCut, eventually};

use super::{Load, TABLE, broken_promise, ready, told, towpath};
use crate::rig::{PATIENCE, Rig, setting};

#[tokio::test]
async fn a_power_cut_at_any_moment_loses_nothing() {
    let rounds = setting("TOWPATH_POWER_CUTS", 8);
    let seed = setting("TOWPATH_SEED", fastrand::u64(..u64::from(u32::MAX)));
    eprintln!("TOWPATH_SEED={seed} TOWPATH_POWER_CUTS={rounds}");
    let mut random = fastrand::Rng::with_seed(seed);
    let mut rig = Rig::new().await;
    rig.postgres.sql(&format!("{TABLE}; INSERT INTO t SELECT g, 'old' FROM generate_series(1, 1000) g")).await;
    let client = rig.postgres.client("postgres").await;
    let mut checker = Checker::new(&client, &["public.t"]).await;
    let (mut towpath, mut disk) = towpath(&rig, "1h");
    let load = Load::start(&rig).await;
    let mut all = PowerCut::default();
    for round in 1..=rounds {
        disk.slow_sync(Duration::from_millis(random.u64(0..20)));
        if round == 1 {
            towpath.wait_for_log("reading the table in chunks", PATIENCE).await;
        } else {
            rig.inbox.until_count(random.usize(0..400), PATIENCE).await;
        }
        if round % 3 == 0 {
            // What this one wrote is in the page cache alone, and the next one builds on it.
            disk.seed(random.u64(..));
            disk.sync_errors(Odds::Of1000(random.u16(10..300)));
            towpath.wait_for_end(PATIENCE).await;
            disk.heal();
            let already = towpath.log().len();
            towpath.start_again();
            towpath.wait_for_log_after(already, "capturing", PATIENCE).await;
            rig.inbox.until_count(rig.inbox.received().len() + random.usize(0..50), PATIENCE).await;
        }
        if round % 4 == 0 {
            // Clean, unless it was started a moment ago and does not listen for signals yet.
            towpath.terminate(PATIENCE).await;
        }
        let cut = disk.power_cut(&mut towpath, random.u64(..));
        eprintln!("round {round}: {cut:?}");
        // In the middle of its start it has promised nothing yet.
        let broken = broken_promise(&rig, towpath.folder()).await.filter(|_| round > 1);
        assert_eq!(broken, None, "round {round}");
        all = PowerCut { unsynced: all.unsynced + cut.unsynced, lost: all.lost + cut.lost };
        towpath.start_again();
        rig.inbox.take().iter().for_each(|delivery| checker.add(delivery));
    }
    assert!(all.lost > 0, "no cut came while something was unsynced");
    load.stop().await;
    checker.settle(&client, &mut rig.inbox, PATIENCE).await;
    assert!(towpath.terminate(PATIENCE).await.success());
    let outbox = rusqlite::Connection::open(towpath.folder().join("outbox.db")).expect("the outbox is a file");
    let intact = outbox.query_row("PRAGMA integrity_check", [], |row| row.get::<_, String>(0));
    assert_eq!(intact.as_deref(), Ok("ok"));
}

/// The commit is in the page cache and not on the disk: fsync failed, or Towpath was killed while it lasted. The next run finds it in
/// the file, and must not tell the source of it before it is on the disk.
#[tokio::test]
async fn what_only_the_page_cache_holds_is_not_taken_for_recorded() {
    let mut rig = Rig::new().await;
    rig.postgres.sql(TABLE).await;
    let (mut towpath, mut disk) = towpath(&rig, "1s");
    ready(&rig).await;
    for (round, killed) in [false, true, false, true].into_iter().enumerate() {
        // Nothing is settled, and no commit comes of that.
        rig.broker_link.refuse();
        rig.broker_link.cut();
        let faults = disk.faults();
        match killed {
            true => disk.slow_sync(PATIENCE),
            false => disk.sync_errors(Odds::Always),
        }
        rig.postgres.sql(&format!("INSERT INTO t VALUES ({round}, repeat('x', 5000))")).await;
        if killed {
            let begun = async || if disk.faults() > faults { Ok(()) } else { Err(()) };
            eventually("an fsync to be in progress", PATIENCE, begun).await;
        } else {
            towpath.wait_for_end(PATIENCE).await;
        }
        towpath.kill();
        disk.heal();
        towpath.start_again();
        told(&rig).await;
        let cut = disk.power_cut(&mut towpath, round as u64);
        assert_eq!(broken_promise(&rig, towpath.folder()).await, None, "round {round}: {cut:?}");
        rig.broker_link.heal();
        towpath.start_again();
        ready(&rig).await;
    }
    let client = rig.postgres.client("postgres").await;
    rig.settle(&client, &["public.t"]).await;
}

/// These tests can fail: a disk that only says that it syncs loses what was promised.
#[tokio::test]
async fn a_disk_that_lies_about_fsync_breaks_the_promise() {
    const SEED: u64 = 1;
    let rig = Rig::new().await;
    rig.postgres.sql(TABLE).await;
    let (mut towpath, mut disk) = towpath(&rig, "1s");
    for lies in [false, true] {
        ready(&rig).await;
        if lies {
            disk.lie_about_sync();
        }
        rig.postgres.sql("INSERT INTO t SELECT coalesce(max(id), 0) + 1, repeat('x', 5000) FROM t").await;
        told(&rig).await;
        let cut = disk.power_cut(&mut towpath, SEED);
        let broken = broken_promise(&rig, towpath.folder()).await;
        assert_eq!(broken.is_some(), lies, "{cut:?}: {broken:?}");
        towpath.start_again();
    }
}
