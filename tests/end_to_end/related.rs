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
        .config_file(root().join("config/chinook.yaml"));
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

const ORDERS: &str = "CREATE TABLE orders (id int PRIMARY KEY, customer int, note text);
    CREATE TABLE order_lines (order_id int, line int, qty int, PRIMARY KEY (order_id, line));
    CREATE TABLE customers (id int PRIMARY KEY, name text); INSERT INTO customers SELECT g, 'customer ' || g FROM generate_series(1, 5) g;
    INSERT INTO orders SELECT g, g % 7, repeat('note ', g * 100) FROM generate_series(1, 20) g;
    INSERT INTO order_lines SELECT o, l, 1 FROM generate_series(1, 20) o, generate_series(1, o % 4) l";

const ROUTE: &str = "routes:
  - from: db.public.orders
    aggregate: { lines: { from: public.order_lines, on: { order_id: id }, transform: [drop: [order_id]] } }
    lookup: { buyer: { from: public.customers, on: { id: customer } } }
    transform: [drop: [note]]
";

/// A transaction that touches an order, lines of it, or both; or one that never was.
fn transaction(random: &mut fastrand::Rng) -> String {
    let (order, line) = (random.u32(1..40), random.u32(1..5));
    let statements = [
        format!("INSERT INTO orders VALUES ({order}, {}, 'new') ON CONFLICT DO NOTHING", random.u32(0..7)),
        format!(
            "INSERT INTO order_lines VALUES ({order}, {line}, 1) ON CONFLICT (order_id, line) DO UPDATE SET qty = order_lines.qty + 1"
        ),
        format!("UPDATE order_lines SET qty = qty + 1 WHERE order_id = {order}"),
        format!("UPDATE orders SET customer = {} WHERE id = {order}", random.u32(0..7)),
        format!("DELETE FROM order_lines WHERE order_id = {order} AND line = {line}"),
        format!("DELETE FROM order_lines WHERE order_id = {order}; DELETE FROM orders WHERE id = {order}"),
        format!(
            "UPDATE order_lines SET order_id = {} WHERE order_id = {order} AND line = {line} AND NOT EXISTS (SELECT FROM order_lines WHERE order_id = {0} AND line = {line})",
            random.u32(1..40)
        ),
        format!(
            "UPDATE orders SET id = id + 100 WHERE id = {order} AND NOT EXISTS (SELECT FROM orders WHERE id = {order} + 100)"
        ),
    ];
    let some: Vec<&String> = (0..random.usize(1..5)).map(|_| &statements[random.usize(0..statements.len())]).collect();
    let body = some.into_iter().cloned().collect::<Vec<_>>().join("; ");
    format!("BEGIN; {body}; {}", if random.u8(0..8) == 0 { "ROLLBACK" } else { "COMMIT" })
}

#[tokio::test]
async fn whatever_dies_each_order_ends_with_its_lines() {
    let seed =
        std::env::var("TOWPATH_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(|| fastrand::u64(..));
    eprintln!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let mut rig = Rig::new().await;
    rig.postgres.sql(ORDERS).await;
    let mut towpath = rig.towpath("postgres", ROUTE).run();
    let client = rig.postgres.client("postgres").await;
    for round in 0..300 {
        let text = transaction(&mut random);
        client.batch_execute(&text).await.unwrap_or_else(|error| panic!("{text}: {error:?}"));
        if round % 60 == 30 {
            towpath.kill();
            towpath.start_again();
        }
        if round % 60 == 45 {
            rig.source_link.cut();
            rig.source_link.heal();
        }
    }
    let query = "SELECT coalesce(jsonb_object_agg(o.id, jsonb_build_object('id', o.id, 'customer', o.customer, 'lines', lines, 'buyer', to_jsonb(c))), '{}')::text
        FROM orders o LEFT JOIN customers c ON c.id = o.customer,
        LATERAL (SELECT coalesce(jsonb_agg(jsonb_build_object('line', line, 'qty', qty) ORDER BY line), '[]') AS lines FROM order_lines WHERE order_id = o.id) l";
    let wanted: Json = serde_json::from_str(&rig.postgres.value(query).await).expect("JSON");
    let mut reread = (0, 0);
    rig.inbox
        .until("each order as the database has it", PATIENCE, |all| {
            let mut orders = serde_json::Map::new();
            reread = (0, 0);
            for event in all {
                let mut event = event.json();
                let id = event["key"]["id"].to_string();
                if event["op"] == "delete" {
                    orders.remove(&id);
                    continue;
                }
                let row = event["after"].as_object_mut().expect("a row");
                match row.remove("reread") {
                    Some(Json::Null) => reread.0 += 1,
                    _ => reread.1 += 1,
                }
                orders.insert(id, Json::Object(std::mem::take(row)));
            }
            if Json::Object(orders.clone()) == wanted { Ok(()) } else { Err(orders.len()) }
        })
        .await;
    assert!(reread.0 == 0 && reread.1 > 20, "lines may be there before their order: {reread:?}");
    assert!(towpath.terminate(PATIENCE).await.success(), "{}", towpath.log());
}
