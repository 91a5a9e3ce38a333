//! Invoices with their lines as one event, from the live Chinook to consumers in other languages.

use std::path::PathBuf;

use serde_json::{Value as Json, json};
use towpath_test_support::{QueueKind, Towpath, consumers};

use crate::chinook::script;
use crate::rig::{PATIENCE, Rig};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Changes of every kind, several of which only lines see.
const CHANGES: &str = "
    BEGIN; INSERT INTO invoice SELECT 9001, customer_id, '2026-01-02', NULL, 'Bonn', NULL, 'Germany', NULL, 0 FROM customer LIMIT 1;
    INSERT INTO invoice_line VALUES (90001, 9001, 1, 0.99, 3), (90002, 9001, 2, 1.99, 1);
    UPDATE invoice SET total = 4.96 WHERE invoice_id = 9001; COMMIT;
    UPDATE invoice_line SET quantity = quantity + 1 WHERE invoice_id IN (1, 2, 9001);
    UPDATE invoice SET total = (SELECT sum(unit_price * quantity) FROM invoice_line l WHERE l.invoice_id = invoice.invoice_id);
    DELETE FROM invoice_line WHERE invoice_line_id IN (5, 6);
    UPDATE invoice_line SET invoice_id = 4 WHERE invoice_id = 3;
    BEGIN; DELETE FROM invoice_line WHERE invoice_id = 7; DELETE FROM invoice WHERE invoice_id = 7; COMMIT;
    BEGIN; INSERT INTO invoice_line VALUES (90003, 9001, 3, 7.77, 7); ROLLBACK;";

async fn wanted(rig: &Rig) -> Json {
    let number = async |query: &str| rig.postgres.value(query).await.parse::<u64>().expect("a number");
    json!({
        "invoices": number("SELECT count(*)::text FROM invoice").await,
        "total": rig.postgres.value("SELECT sum(total)::text FROM invoice").await,
        "lines": number("SELECT count(*)::text FROM invoice_line").await,
        "lines_total": rig.postgres.value("SELECT sum(unit_price * quantity)::text FROM invoice_line").await,
        "named": number("SELECT count(*)::text FROM invoice").await,
    })
}

/// By key, the newest of what came.
fn folded(events: &[towpath_test_support::Delivery]) -> std::collections::BTreeMap<u64, Json> {
    let mut invoices = std::collections::BTreeMap::new();
    for event in events.iter().filter(|event| event.routing_key.starts_with("invoices.")) {
        let event = event.json();
        let id = event["key"]["invoice_id"].as_u64().expect("a key");
        match event["op"].as_str() {
            Some("delete") => invoices.remove(&id),
            _ => invoices.insert(id, event["after"].clone()),
        };
    }
    invoices
}

#[tokio::test]
async fn consumers_in_other_languages_add_up_what_the_database_does() {
    let Some(script) = script() else { return };
    let mut rig = Rig::new().await;
    rig.postgres.sql(&script).await;
    rig.postgres.sql("ALTER TABLE invoice_line REPLICA IDENTITY FULL; ALTER TABLE invoice_line DROP CONSTRAINT invoice_line_track_id_fkey").await;
    for queue in ["python", "node"] {
        rig.rabbit.declare_queue(queue, QueueKind::Quorum).await;
        rig.rabbit.bind(queue, "towpath", "invoices.*").await;
    }
    let builder = Towpath::binary(env!("CARGO_BIN_EXE_towpath"));
    let state = builder.folder().to_owned();
    let builder = builder
        .env("RABBITMQ_URL", rig.rabbit.url())
        .env("CHINOOK_DB_URL", rig.postgres.url("postgres"))
        .env("TOWPATH_STATE", state)
        .env("MASK_KEY", "0123456789abcdef0123456789abcdef")
        .env("TOWPATH__ADMIN__LISTEN", format!("127.0.0.1:{}", rig.admin.number()))
        .config_file(&root().join("config/chinook.yaml"));
    let mut towpath = builder.run();
    // While the tables are read, too.
    towpath.wait_for_log("capturing", PATIENCE).await;
    rig.postgres.sql(CHANGES).await;
    let total = rig.postgres.value("SELECT sum(unit_price * quantity)::text FROM invoice_line").await;
    let count = rig.postgres.value("SELECT count(*)::text FROM invoice_line").await;
    rig.inbox
        .until("the database's own sums", PATIENCE, |all| {
            let invoices = folded(all);
            let lines: Vec<&Json> =
                invoices.values().flat_map(|invoice| invoice["lines"].as_array()).flatten().collect();
            let cents = |text: &Json| text.as_str().unwrap_or("0").replace('.', "").parse::<u64>().unwrap_or(0);
            let sum: u64 =
                lines.iter().map(|line| cents(&line["unit_price"]) * line["quantity"].as_u64().unwrap_or(0)).sum();
            let got = (lines.len().to_string(), format!("{}.{:02}", sum / 100, sum % 100));
            if got == (count.clone(), total.clone()) && invoices.contains_key(&9001) { Ok(()) } else { Err(got) }
        })
        .await;
    let new = folded(rig.inbox.received())[&9001].clone();
    assert_eq!((&new["billing_country"], &new["billing_city"]), (&json!("DE"), &json!("Bonn")));
    let text = String::from_utf8_lossy(&rig.inbox.received().last().expect("events").body).into_owned();
    assert!(!text.contains('@'), "a mail address: {text}");

    let wanted = wanted(&rig).await;
    for (queue, program) in [("python", "fold.py"), ("node", "fold.mjs")] {
        // What came before the state above is in the queue, and nothing comes after it.
        let said = consumers::run(&root().join("tests/consumers").join(program), &[&rig.rabbit.url(), queue]).await;
        let got: Json = serde_json::from_str(&said).unwrap_or_else(|error| panic!("{program}: {error}: {said}"));
        assert_eq!(got, wanted, "{program}");
    }
    assert!(towpath.terminate(PATIENCE).await.success(), "{}", towpath.log());
}
