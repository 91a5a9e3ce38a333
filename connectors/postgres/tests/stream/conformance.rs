//! The suite that every connector passes.

use serde_json::json;
use tokio::sync::OnceCell;
use towpath_conformance::{Harness, Write};
use towpath_contract::Source;
use towpath_test_support::Postgres;

use crate::harness::Db;

struct System(Db);

async fn impatient() -> &'static Postgres {
    static SERVER: OnceCell<Postgres> = OnceCell::const_new();
    SERVER.get_or_init(|| Postgres::builder().settings("wal_sender_timeout = 3s").start()).await
}

impl Harness for System {
    async fn start() -> System {
        // Starting a server waits by an async closure, of which the compiler cannot tell yet that it may change threads.
        let started = tokio::task::spawn_blocking(|| {
            let start =
                async { Db::on(impatient().await, "CREATE TABLE items (id integer PRIMARY KEY, note text)").await };
            tokio::runtime::Handle::current().block_on(start)
        });
        System(started.await.expect("the server starts"))
    }

    fn source(&self) -> Box<dyn Source> {
        Box::new(self.0.source(json!({ "tables": ["public.items"], "snapshot": { "mode": "initial" } })))
    }

    fn table(&self) -> (&str, &str) {
        ("public", "items")
    }

    async fn commit(&self, writes: &[Write]) {
        let quoted = |note: &String| note.replace('\'', "''");
        let statements: Vec<String> = writes
            .iter()
            .map(|write| match write {
                Write::Insert { id, note } => format!("INSERT INTO items VALUES ({id}, '{}')", quoted(note)),
                Write::Update { id, note } => format!("UPDATE items SET note = '{}' WHERE id = {id}", quoted(note)),
                Write::Delete { id } => format!("DELETE FROM items WHERE id = {id}"),
            })
            .collect();
        self.0.sql(&format!("BEGIN; {}; COMMIT", statements.join("; "))).await;
    }

    async fn disconnect(&self) {
        let ended = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
             WHERE application_name = 'towpath' AND datname = current_database()";
        self.0.sql(ended).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_connector_passes_the_suite() {
    towpath_conformance::run::<System>().await;
}
