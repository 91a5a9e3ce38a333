//! Consumers of other frameworks, as their users would write them.

use std::path::PathBuf;

use serde_json::{Value as Json, json};
use towpath_test_support::{QueueKind, consumers};

use crate::rig::{PATIENCE, Rig};

const ROUTES: &str = "routes:
  - from: db.public.customers
    transform:
      - trim: [name]
    event: { type: crm.customer_changed, routing_key: tasks, format: celery }
";

#[tokio::test]
async fn a_celery_worker_is_called_with_the_rows() {
    let mut rig = Rig::new().await;
    rig.postgres
        .sql("CREATE TABLE customers (id int PRIMARY KEY, name char(10)); INSERT INTO customers VALUES (1, 'Ada')")
        .await;
    // Celery 5.2 asks for a prefetch per channel, which quorum queues do not have.
    rig.rabbit.declare_queue("tasks", QueueKind::Classic).await;
    rig.rabbit.bind("tasks", "towpath", "tasks").await;
    let mut towpath = rig.towpath("postgres", ROUTES).run();
    towpath.wait_for_log("the table was read", PATIENCE).await;
    rig.postgres.sql("UPDATE customers SET name = 'Eve'; DELETE FROM customers").await;
    rig.inbox.until_count(3, PATIENCE).await;
    let program = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/consumers/tasks.py");
    let said = consumers::run(&program, &[&rig.rabbit.url(), "tasks", "3"]).await;
    let calls: Json = serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}"));
    let expected = json!([
        ["read", { "id": 1, "name": "Ada" }],
        ["update", { "id": 1, "name": "Eve" }],
        ["delete", { "id": 1 }],
    ]);
    assert_eq!(calls, expected);
    assert!(towpath.terminate(PATIENCE).await.success(), "{}", towpath.log());
}
