//! Killed at every named point: nothing is lost, order is kept, what comes twice is the same.

use crate::rig::{PATIENCE, Rig};

/// Every crash point of the code, and how often it may be passed before the process dies there.
pub(crate) const POINTS: &[(&str, u32)] = &[
    ("pipeline.before_record", 3),
    ("outbox.before_commit", 3),
    ("outbox.after_commit", 3),
    ("outbox.before_settle", 2),
    ("outbox.after_settle", 2),
    ("relay.before_publish", 2),
    ("relay.after_publish", 2),
    ("relay.before_settle", 2),
];

#[tokio::test]
async fn nothing_is_lost_at_any_crash_point() {
    let mut rig = Rig::new().await;
    rig.postgres.sql("CREATE TABLE t (id int PRIMARY KEY, note text); INSERT INTO t SELECT g, 'old' FROM generate_series(1, 500) g").await;
    let client = rig.postgres.client("postgres").await;
    let mut towpath = rig.towpath("postgres", "").failpoint(&format!("{}:{}", POINTS[0].0, POINTS[0].1)).run();
    for (round, (point, _)) in POINTS.iter().enumerate() {
        // Work goes on until the process has died at its point.
        let mut writes = 0;
        while towpath.ended().is_none() {
            writes += 1;
            assert!(writes < 50_000, "{point} was never reached");
            let id = 100_000 * (round + 1) + writes;
            client
                .batch_execute(&format!(
                    "BEGIN; INSERT INTO t VALUES ({id}, 'new'); UPDATE t SET note = '{id}' WHERE id = {}; COMMIT; DELETE FROM t WHERE id = {}",
                    writes % 500,
                    id - 7,
                ))
                .await
                .expect("valid SQL");
        }
        match POINTS.get(round + 1) {
            Some((next, passes)) => towpath.start_again_with_failpoint(&format!("{next}:{passes}")),
            None => towpath.start_again(),
        }
    }
    let report = rig.settle(&client, &["public.t"]).await;
    eprintln!("{} events, {} duplicates", report.events, report.duplicates);
    assert!(towpath.terminate(PATIENCE).await.success());
}

/// A point that the list above does not know is not tested.
#[test]
fn every_crash_point_of_the_code_is_in_the_list() {
    let mut folders = vec![std::path::PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src")];
    let mut missing = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let text = std::fs::read_to_string(&path).unwrap_or_default();
            for part in text.split("failpoint!(\"").skip(1) {
                let name = part.split('"').next().unwrap_or_default().to_owned();
                // Pruning has its own crash tests beside the outbox: it needs settled events older than the retention.
                if !name.contains("prune") && !POINTS.iter().any(|(point, _)| *point == name) {
                    missing.push(name);
                }
            }
        }
    }
    assert_eq!(missing, [""; 0]);
}
