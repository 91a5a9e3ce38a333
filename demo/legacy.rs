//! The legacy system: its database, and what its users do.

use std::time::Duration;

use towpath_test_support::tokio_postgres::Client;
use towpath_test_support::{Postgres, try_eventually};

pub(crate) const TABLES: [&str; 3] = ["public.custmst", "public.ordhdr", "public.orddtl"];

pub(crate) struct Legacy {
    client: Client,
    pub(crate) rows_loaded: usize,
    /// Rows inserted, updated and deleted since then.
    pub(crate) changes: usize,
}

impl Legacy {
    pub(crate) async fn load(postgres: &Postgres) -> Legacy {
        let client = postgres.client("postgres").await;
        client.batch_execute(include_str!("schema.sql")).await.expect("the schema is valid");
        let mut legacy = Legacy { client, rows_loaded: 0, changes: 0 };
        legacy.rows_loaded = legacy.counts().await.iter().map(|(_, rows)| rows).sum();
        legacy
    }

    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// Rows by table.
    pub(crate) async fn counts(&self) -> Vec<(&'static str, usize)> {
        let mut counts = Vec::new();
        for (table, what) in TABLES.iter().zip(["custmst  customers", "ordhdr   orders", "orddtl   order lines"]) {
            let row = self.client.query_one(&format!("select count(*) from {table}"), &[]).await;
            let rows: i64 = row.expect("the table is there").get(0);
            counts.push((what, rows as usize));
        }
        counts
    }

    /// A few changes, each of which tells something.
    pub(crate) async fn a_day_at_the_counter(&mut self) {
        for statements in [
            // One transaction: an order and its lines.
            &[
                "insert into ordhdr values (500001, '10042', 20261123, '10', 139.50, null)",
                "insert into orddtl values (500001, 1, 'A-000310', 2, 50.0000), (500001, 2, 'A-000017', 12, 3.2917)",
            ][..],
            &["update ordhdr set ordsts = '20' where ordno = 500001"],
            &["update orddtl set qty = 1.500 where ordno = 500001 and linno = 1"],
            &["update ordhdr set ordsts = '30', memo = 'SHIPPED BY RAIL' where ordno = 500001"],
            &["update custmst set cusnam = 'CUSTOMER 42 & SONS', cussts = 'S' where cusno = '10042'"],
            &["delete from orddtl where ordno = 400001", "delete from ordhdr where ordno = 400001"],
        ] {
            self.transaction(statements).await;
        }
    }

    /// Many changes, in many transactions.
    pub(crate) async fn a_busy_night(&mut self) {
        for n in 0..200 {
            let order = 600_000 + n;
            let add = format!("insert into ordhdr values ({order}, '{}', 20261124, '10', {n}.25, null)", 10_001 + n);
            let lines = format!(
                "insert into orddtl select {order}, line, 'A-000' || 100 + line, {n} + line, 1.5 from generate_series(1, 3) line"
            );
            let release = format!("update ordhdr set ordsts = '20' where ordno = {}", 400_100 + n);
            let cancel = format!("delete from orddtl where ordno = {}", 400_500 + n);
            self.transaction(&[&add, &lines]).await;
            self.transaction(&[&release, &cancel]).await;
        }
    }

    async fn transaction(&mut self, statements: &[&str]) {
        let transaction = self.client.transaction().await.expect("the database answers");
        let mut rows = 0;
        for statement in statements {
            rows += transaction.execute(*statement, &[]).await.expect("the statement is valid");
        }
        transaction.commit().await.expect("the database answers");
        self.changes += rows as usize;
    }

    /// Up to where Towpath told PostgreSQL that it may forget.
    pub(crate) async fn confirmed_position(&self) -> String {
        let query = "select coalesce(max(confirmed_flush_lsn)::text, 'none') from pg_replication_slots";
        self.client.query_one(query, &[]).await.expect("the database answers").get(0)
    }

    /// Waits until that is past all that was committed by now.
    pub(crate) async fn wait_for_confirmation(&self, within: Duration) -> Result<String, String> {
        let now: String =
            self.client.query_one("select pg_current_wal_insert_lsn()::text", &[]).await.expect("it answers").get(0);
        let query =
            format!("select coalesce(bool_or(confirmed_flush_lsn >= '{now}'), false) from pg_replication_slots");
        let confirmed = try_eventually(within, async || {
            let done: bool = self.client.query_one(&query, &[]).await.expect("the database answers").get(0);
            if done { Ok(()) } else { Err(self.confirmed_position().await) }
        });
        match confirmed.await {
            Ok(()) => Ok(self.confirmed_position().await),
            Err(stands) => Err(format!("the slot stands at {stands:?}, before {now}: WAL is pinned")),
        }
    }
}
