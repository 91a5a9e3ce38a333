//! The Chinook shop: its rows, and ten thousand random changes to them, reach a consumer that ends up with the same state.

use std::path::PathBuf;

use towpath_test_support::tokio_postgres::Client;

use crate::rig::Rig;
use crate::workload::{Table, Workload};

pub(crate) const TABLES: &[&str] = &[
    "public.album",
    "public.artist",
    "public.customer",
    "public.employee",
    "public.genre",
    "public.invoice",
    "public.invoice_line",
    "public.media_type",
    "public.playlist",
    "public.playlist_track",
    "public.track",
];

pub(crate) const CHANGED: &[Table] = &[
    Table { name: "album", key: &["album_id"], text: Some("title"), truncatable: false },
    Table { name: "artist", key: &["artist_id"], text: Some("name"), truncatable: false },
    Table { name: "customer", key: &["customer_id"], text: Some("email"), truncatable: false },
    Table { name: "invoice", key: &["invoice_id"], text: Some("billing_address"), truncatable: false },
    Table { name: "invoice_line", key: &["invoice_line_id"], text: None, truncatable: true },
    Table { name: "playlist_track", key: &["playlist_id", "track_id"], text: None, truncatable: true },
    Table { name: "track", key: &["track_id"], text: Some("composer"), truncatable: false },
];

/// The script's statements after it made and entered its database. `None`, with a word on why, where the data is not there.
pub(crate) fn script() -> Option<String> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared/data/chinook/chinook.postgres.sql");
    match std::fs::read_to_string(&path) {
        Ok(text) => text.split_once("\\c chinook;").map(|(_, rest)| rest.to_owned()),
        Err(error) => {
            eprintln!("skipped: the Chinook script is not at {}: {error}", path.display());
            None
        }
    }
}

/// Foreign keys are off in this session: the workload changes tables one by one.
pub(crate) async fn without_foreign_keys(client: &Client) {
    client.batch_execute("SET session_replication_role = replica").await.expect("a superuser's setting");
}

#[tokio::test]
async fn chinook_and_ten_thousand_random_changes_reach_the_consumer() {
    let Some(script) = script() else { return };
    let mut rig = Rig::new().await;
    rig.postgres.sql(&script).await;
    let mut towpath = rig.towpath("postgres", "").run();
    let client = rig.postgres.client("postgres").await;
    without_foreign_keys(&client).await;
    let seed = fastrand::u64(..);
    eprintln!("seed {seed}");
    let mut workload = Workload::new(seed, rig.postgres.major(), 100_000, CHANGED);
    let mut statements = 0;
    while statements < 10_000 {
        statements += workload.transaction(&client).await.expect("the workload is valid SQL");
    }
    let report = rig.settle(&client, TABLES).await;
    assert_eq!(report.duplicates, 0, "nothing failed, so nothing comes twice");
    assert!(report.ops["read"] > 1_000 && report.ops["insert"] > 100 && report.ops["delete"] > 100, "{report:?}");
    assert!(towpath.terminate(crate::rig::PATIENCE).await.success());
}
