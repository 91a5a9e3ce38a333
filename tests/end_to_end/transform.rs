//! Routes with steps, from a live table to the queue.

use std::fs;

use serde_json::json;
use towpath_test_support::eventually;

use crate::rig::{PATIENCE, Rig};

const CUSTOMERS: &str = "CREATE TABLE customers (cusno char(10) PRIMARY KEY, cusnam char(30), cussts char(2), cussin numeric(7), email text);
    INSERT INTO customers VALUES ('10042', 'Jane Doe', 'A', 1240229, 'canary-jane@example.com'), ('10043', 'John Roe', 'S', 0, NULL)";

const STEPS: &str = "routes:
  - from: db.public.customers
    transform:
      - trim: [\"*\"]
      - null_if: { cussin: [\"0\"] }
      - legacy_date: { cussin: cyymmdd }
      - decode: { cussts: { A: active, S: suspended } }
      - mask: { email: { hmac: 0123456789abcdef } }
      - rename: { cusno: customer_no, cusnam: name, cussts: status, cussin: since }
";

#[tokio::test]
async fn legacy_rows_become_readable_events_and_what_is_masked_is_nowhere() {
    let mut rig = Rig::new().await;
    rig.postgres.sql(CUSTOMERS).await;
    let mut towpath = rig.towpath("postgres", STEPS).run();
    rig.inbox.until_count(2, PATIENCE).await;
    rig.postgres
        .sql(
            "UPDATE customers SET cussts = 'S', email = 'canary-new@example.com' WHERE cusno = '10042';
             INSERT INTO customers VALUES ('10044', 'Kim', 'Q', 0, 'canary-kim@example.com');
             DELETE FROM customers WHERE cusno = '10043'",
        )
        .await;
    let all = rig.inbox.until_count(4, PATIENCE).await;
    let after = |index: usize| {
        let mut row = all[index].json()["after"].clone();
        let email = row["email"].take();
        (row, email.as_str().map(str::len))
    };
    let jane = |status| json!({"customer_no": "10042", "name": "Jane Doe", "status": status, "since": "2024-02-29", "email": null});
    assert_eq!(after(0), (jane("active"), Some(64)));
    let john = json!({"customer_no": "10043", "name": "John Roe", "status": "suspended", "since": null, "email": null});
    assert_eq!(after(1), (john, None));
    assert_eq!(after(2), (jane("suspended"), Some(64)));
    assert_ne!(all[0].json()["after"]["email"], all[2].json()["after"]["email"]);
    assert_eq!(
        (all[3].json()["op"].clone(), all[3].json()["key"].clone()),
        (json!("delete"), json!({"customer_no": "10043"}))
    );

    let (_, listed) = rig.admin().get("/api/parked").await;
    assert!(
        listed.contains("transform[3] (`decode`) cannot be done on `cussts`: the code is not in the list"),
        "{listed}"
    );
    assert!(towpath.terminate(PATIENCE).await.success(), "{}", towpath.log());
    let files = fs::read_dir(towpath.folder()).expect("the folder").flatten().map(|entry| entry.path());
    for file in files.filter(|path| path.is_file()) {
        let bytes = fs::read(&file).expect("a file of ours");
        assert!(!bytes.windows(6).any(|window| window == b"canary"), "{}", file.display());
    }
    assert!(!towpath.log().contains("canary"));
}

#[tokio::test]
async fn a_column_that_is_not_there_is_told_with_its_line_before_anything_is_captured() {
    let rig = Rig::new().await;
    rig.postgres.sql(CUSTOMERS).await;
    let builder = rig.towpath("postgres", &STEPS.replace("cussts: {", "cusstat: {"));
    let doctor = builder.command(&["doctor", "--config", "{config}"]).await;
    let told = String::from_utf8_lossy(&doctor.stdout).split_whitespace().collect::<Vec<_>>().join(" ");
    let expected = "routes[0].transform[3].decode.cusstat: public.customers has no column `cusstat`";
    assert!(doctor.status.code() == Some(1) && told.contains(expected), "{told}");
    let mut towpath = builder.run();
    let log = towpath.wait_for_log("stopped:", PATIENCE).await;
    assert!(log.contains(expected) && log.contains("did you mean `cussts`?"), "{log}");
    let slots = rig.postgres.value("SELECT count(*)::text FROM pg_replication_slots").await;
    assert_eq!(slots, "0", "nothing was made in the database");
    assert!(towpath.terminate(PATIENCE).await.success());
}

/// What is hidden stays hidden: under a new name the column stops the source, and the way on loses nothing.
#[tokio::test]
async fn a_column_that_is_renamed_under_a_step_stops_the_source_until_the_config_says_what_it_is() {
    let mut rig = Rig::new().await;
    rig.postgres.sql(CUSTOMERS).await;
    let mut towpath = rig.towpath("postgres", STEPS).run();
    rig.inbox.until_count(2, PATIENCE).await;
    rig.postgres
        .sql(
            "BEGIN; INSERT INTO customers VALUES ('1', 'one', 'A', 0, 'canary-1');
             ALTER TABLE customers RENAME email TO mail; INSERT INTO customers VALUES ('2', 'two', 'A', 0, 'canary-2'); COMMIT",
        )
        .await;
    towpath.wait_for_log("public.customers has no column `email`", PATIENCE).await;
    eventually("status to tell", PATIENCE, async || {
        let (_, status) = rig.admin().get("/api/status").await;
        if status.contains("routes[0].transform[4].mask.email") { Ok(()) } else { Err(status) }
    })
    .await;
    assert!(towpath.terminate(PATIENCE).await.success());

    let file = towpath.folder().join("towpath.yaml");
    let written = fs::read_to_string(&file).expect("the config");
    let mask = "mask: { \"email?\": { hmac: 0123456789abcdef }, \"mail?\": { hmac: 0123456789abcdef } }";
    fs::write(&file, written.replace("mask: { email: { hmac: 0123456789abcdef } }", mask)).expect("the config");
    towpath.start_again();
    let all = rig.inbox.until_count(4, PATIENCE).await;
    let names: Vec<_> = all[2..].iter().map(|event| event.json()["after"]["name"].clone()).collect();
    assert_eq!(names, [json!("one"), json!("two")]);
    assert!(all.iter().all(|event| !String::from_utf8_lossy(&event.body).contains("canary")));
}

#[tokio::test]
async fn a_business_event_is_made_of_a_transition_and_goes_where_its_row_says() {
    let mut rig = Rig::new().await;
    rig.postgres
        .sql(
            "CREATE TABLE orders (id int PRIMARY KEY, status char(1), country text, qty int, price numeric(9,2));
             ALTER TABLE orders REPLICA IDENTITY FULL;
             INSERT INTO orders VALUES (1, 'A', 'DE', 3, 19.90), (2, 'A', 'test.org', 1, 5), (3, 'A', NULL, 2, 1)",
        )
        .await;
    let routes = "routes:
  - from: db.public.orders
    transform:
      - filter: \"id != 2\"
      - set: { total: \"qty * price\" }
      - emit_when: { status: { \"A -> S\": \"{{ table }}.shipped\" } }
    event: { routing_key: \"{{ type }}.{{ row.country | default('nowhere') | lower }}\", headers: { total: \"{{ row.total }}\" } }
";
    let mut towpath = rig.towpath("postgres", routes).run();
    towpath.wait_for_log("replication started", PATIENCE).await;
    rig.postgres.sql("UPDATE orders SET qty = qty + 1; UPDATE orders SET status = 'S'").await;
    let all = rig.inbox.until_count(2, PATIENCE).await;
    let shown: Vec<_> =
        all.iter().map(|event| (event.routing_key.as_str(), event.json()["after"]["total"].clone())).collect();
    assert_eq!(shown, [("orders.shipped.de", json!("79.60")), ("orders.shipped.nowhere", json!("3.00"))]);
    assert_eq!(all[0].headers["total"], "79.60");
    assert!(towpath.terminate(PATIENCE).await.success(), "{}", towpath.log());
}

/// A transaction is one message, whatever dies in between; no row of it is missing, and none stands in another's.
#[tokio::test]
async fn a_transaction_travels_in_one_message() {
    let mut rig = Rig::new().await;
    rig.postgres.sql("CREATE TABLE items (batch int, id int, PRIMARY KEY (batch, id))").await;
    let routes = "routes:
  - { from: db, event: { bundle: transaction, routing_key: \"{{ source }}.changes\" } }
";
    let mut towpath = rig.towpath("postgres", routes).run();
    // Or it would be read, with rows in it, after a restart: messages more.
    towpath.wait_for_log("the table was read", PATIENCE).await;
    let client = rig.postgres.client("postgres").await;
    for batch in 0..60 {
        let insert = format!("INSERT INTO items SELECT {batch}, g FROM generate_series(1, {}) g", batch % 7 + 1);
        client.batch_execute(&insert).await.expect("it inserts");
        if batch == 20 || batch == 40 {
            towpath.kill();
            towpath.start_again();
        }
    }
    rig.inbox
        .until("every transaction", PATIENCE, |all| {
            let mut ids: Vec<_> = all.iter().map(|message| message.message_id.clone()).collect();
            ids.sort();
            ids.dedup();
            if ids.len() == 60 { Ok(()) } else { Err(ids.len()) }
        })
        .await;
    for message in rig.inbox.received() {
        assert_eq!((message.routing_key.as_str(), message.event_type.as_str()), ("db.changes", "db.bundle"));
        let text = String::from_utf8_lossy(&message.body);
        let lines: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        let batch = lines[0]["after"]["batch"].as_u64().expect("a number");
        let ids: Vec<u64> = lines.iter().map(|line| line["after"]["id"].as_u64().expect("a number")).collect();
        assert!(lines.iter().all(|line| line["after"]["batch"] == batch), "{text}");
        assert_eq!(ids, (1..=batch % 7 + 1).collect::<Vec<_>>(), "{text}");
    }
    assert!(towpath.terminate(PATIENCE).await.success(), "{}", towpath.log());
}

#[tokio::test]
async fn a_preview_shows_every_step_and_nothing_that_is_masked() {
    let rig = Rig::new().await;
    rig.postgres.sql(CUSTOMERS).await;
    let steps = STEPS.replace("      - decode:", "      - filter: \"cusno != '10044'\"\n      - decode:");
    let builder = rig.towpath("postgres", &steps);
    rig.postgres.sql("INSERT INTO customers VALUES ('10044', 'Kim', 'A', 0, 'canary-kim@example.com')").await;
    let shown = builder.command(&["preview", "db.public.customers", "--config", "{config}"]).await;
    let page = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(shown.status.success(), "{page}{}", String::from_utf8_lossy(&shown.stderr));
    for part in [
        "route db.public.customers: 3 rows",
        "filter       no event",
        r#"the table    {"cusno":"10042     ","cusnam":"Jane Doe                      ","cussts":"A ","cussin":"1240229","email":"***"}"#,
        r#"decode       {"cusno":"10042","cusnam":"Jane Doe","cussts":"active","cussin":"2024-02-29","email":"***"}"#,
        r#"event        to exchange "towpath", routing key "db.public.customers.read""#,
        r#""after":{"customer_no":"10043","name":"John Roe","status":"suspended","since":null,"email":null}"#,
    ] {
        assert!(page.contains(part), "{part}\n--- in\n{page}");
    }
    assert!(!page.contains("canary"), "{page}");
    let slots = rig.postgres.value("SELECT count(*)::text FROM pg_replication_slots").await;
    assert_eq!(slots, "0", "nothing was made in the database");
    let wrong = builder.command(&["preview", "db.public.custmers", "--config", "{config}"]).await;
    let told = String::from_utf8_lossy(&wrong.stderr).into_owned();
    assert!(wrong.status.code() == Some(1) && told.contains("it captures: public.customers"), "{told}");
}

/// Rows of an application's own outbox: written and taken away again within their transaction.
#[tokio::test]
async fn rows_of_an_outbox_table_are_the_events_that_they_hold() {
    let mut rig = Rig::new().await;
    rig.postgres
        .sql(
            "CREATE TABLE outbox (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), aggregatetype text, aggregateid text, type text, \
             payload json, meta jsonb); \
             INSERT INTO outbox (aggregatetype, aggregateid, type, payload) VALUES ('order', '1', 'Old', '{}')",
        )
        .await;
    let routes = "routes:
  - from: db.public.outbox
    transform: [{ outbox_table: { headers: meta } }]
    event: { properties: { correlation_id: \"{{ row.aggregateid }}\" } }
";
    let mut towpath = rig.towpath("postgres", routes).run();
    towpath.wait_for_log("the table was read", PATIENCE).await;
    rig.postgres
        .sql(
            "BEGIN; INSERT INTO outbox (aggregatetype, aggregateid, type, payload, meta) VALUES \
               ('order', '7', 'order.placed', '{\"total\":  12.50}', '{\"tenant\": \"a\"}'), \
               ('order', '7', 'order.paid', '[1 ,2]', NULL); \
             UPDATE outbox SET payload = '{}' WHERE type = 'Old'; DELETE FROM outbox; COMMIT; \
             INSERT INTO outbox (aggregatetype, aggregateid, type, payload) VALUES ('order', '8', 'order.placed', NULL)",
        )
        .await;
    let all = rig.inbox.until_count(3, PATIENCE).await;
    let shown: Vec<_> = all
        .iter()
        .map(|event| (event.routing_key.as_str(), String::from_utf8_lossy(&event.body).into_owned()))
        .collect();
    let wanted = [
        ("order.order.placed", "{\"total\":  12.50}".to_owned()),
        ("order.order.paid", "[1 ,2]".to_owned()),
        ("order.order.placed", String::new()),
    ];
    assert_eq!(shown, wanted);
    assert_eq!((all[0].headers["tenant"].as_str(), all[0].headers["cloudEvents:subject"].as_str()), ("a", "7"));
    assert!(towpath.terminate(PATIENCE).await.success(), "{}", towpath.log());
}

#[tokio::test]
async fn a_config_that_is_discovered_is_one_and_shows_what_it_makes() {
    let rig = Rig::new().await;
    rig.postgres.sql(CUSTOMERS).await;
    rig.postgres
        .sql(
            "INSERT INTO customers SELECT g, 'name ' || g, CASE g % 2 WHEN 0 THEN 'A' ELSE 'S' END, 1240100 + g % 28 + 1, \
             'mail' || g || '@example.com' FROM generate_series(1, 40) g; CREATE TABLE \"Odd Name\" (\"Some Key\" int PRIMARY KEY); \
             CREATE TABLE nokey (v text)",
        )
        .await;
    let url = rig.postgres.url("postgres");
    let builder = rig.towpath("postgres", "").env("DB_URL", &url).env("RABBITMQ_URL", "amqp://guest:guest@127.0.0.1/");
    let found = builder.command(&["discover", &url, "--table", "public.*"]).await;
    let (page, told) = (String::from_utf8_lossy(&found.stdout), String::from_utf8_lossy(&found.stderr));
    assert!(found.status.success(), "{page}{told}");
    for part in [
        "url: ${DB_URL}",
        "# public.customers: key: cusno; looked at 42 rows",
        "      - trim: [cusnam, cussts]",
        "# - trim: [cusno]",
        "# - legacy_date: { cussin: cyymmdd }",
        "# - mask: { email: redact }",
        "- from: \"db.public.Odd Name\"",
        "# no key: see `towpath doctor` before it is published",
    ] {
        assert!(page.contains(part), "{part}\n--- in\n{page}");
    }
    assert!(!page.contains(&url), "{page}");
    std::fs::write(builder.folder().join("found.yaml"), page.as_bytes()).expect("a file");
    let checked = builder.command(&["check", "--config", "found.yaml"]).await;
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
    let shown = builder.command(&["preview", "db.public.customers", "--config", "found.yaml"]).await;
    assert!(String::from_utf8_lossy(&shown.stdout).contains(r#""cusnam":"Jane Doe""#), "{shown:?}");
    let slots = rig.postgres.value("SELECT count(*)::text FROM pg_replication_slots").await;
    assert_eq!(slots, "0", "nothing was made in the database");
    let wrong = builder.command(&["discover", &url, "--table", "nowhere.*"]).await;
    assert_eq!(wrong.status.code(), Some(1));
    let none = builder.command(&["discover", "${NOT_SET}"]).await;
    let told = String::from_utf8_lossy(&none.stderr);
    assert!(none.status.code() == Some(2) && told.contains("NOT_SET"), "{told}");
}
