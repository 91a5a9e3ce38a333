//! Many sessions at a time that change the tables at random: bulk and single rows, keys, rollbacks, savepoints, truncates, DDL.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use towpath_test_support::tokio_postgres::{Client, Config, NoTls};
use towpath_test_support::{Postgres, eventually};

use super::schema::{Ops, SHAPED, TABLES, Table};
use crate::rig::PATIENCE;

/// What is written only where it is rolled back.
pub(super) const ROLLED_BACK: &str = "ROLLED-BACK";

/// One thread of the application each.
const SESSIONS: u64 = 4;

#[derive(Default)]
struct Shared {
    next: AtomicI64,
    /// How many transactions may still be begun, and how many were made.
    allowed: AtomicI64,
    transactions: AtomicU64,
    stop: AtomicBool,
}

pub(super) struct Sessions {
    shared: Arc<Shared>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Sessions {
    /// Numbers of new rows begin at `next`; a statement changes up to `rows_max` rows.
    pub(super) fn start(postgres: &Postgres, seed: u64, next: i64, rows_max: i64) -> Sessions {
        let shared = Arc::new(Shared { next: next.into(), ..Shared::default() });
        let tasks = (0..SESSIONS).map(|number| {
            let random = fastrand::Rng::with_seed(seed.wrapping_add(number));
            let session = Session { random, rows_max, shapes: number == 0, shared: Arc::clone(&shared) };
            tokio::spawn(session.run(postgres.url("postgres"), postgres.major()))
        });
        Sessions { tasks: tasks.collect(), shared }
    }

    /// So many more transactions are made meanwhile.
    pub(super) fn allow(&self, transactions: u64) {
        self.shared.allowed.fetch_add(transactions as i64, Ordering::Relaxed);
    }

    /// Waits until so many more transactions were made.
    pub(super) async fn work(&self, transactions: u64) {
        let until = self.shared.transactions.load(Ordering::Relaxed) + transactions;
        self.allow(transactions);
        eventually("the sessions to work", PATIENCE * 2, async || {
            let made = self.shared.transactions.load(Ordering::Relaxed);
            if made >= until { Ok(()) } else { Err((made, until)) }
        })
        .await;
    }

    /// Ends all sessions, each after the transaction that it is in, and says at which number the next row begins.
    pub(super) async fn stop(self) -> i64 {
        self.shared.stop.store(true, Ordering::Relaxed);
        for task in self.tasks {
            task.await.expect("a session does not panic");
        }
        self.shared.next.load(Ordering::Relaxed)
    }
}

struct Session {
    random: fastrand::Rng,
    rows_max: i64,
    /// One session alters [`SHAPED`].
    shapes: bool,
    shared: Arc<Shared>,
}

impl Session {
    async fn run(mut self, url: String, major: u32) {
        let config: Config = url.parse().expect("a URL of the test's own");
        while !self.shared.stop.load(Ordering::Relaxed) {
            // The server may be away: that is what the run is about.
            let Ok((client, connection)) = config.connect(NoTls).await else {
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            tokio::spawn(connection);
            let _ = client
                .batch_execute("SET lock_timeout = '2s'; SET statement_timeout = '30s'; SET deadlock_timeout = '100ms'")
                .await;
            while !client.is_closed() && !self.shared.stop.load(Ordering::Relaxed) {
                if self.shared.allowed.fetch_sub(1, Ordering::Relaxed) <= 0 {
                    self.shared.allowed.fetch_add(1, Ordering::Relaxed);
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    continue;
                }
                let script = self.transaction(major);
                match client.batch_execute(&script).await {
                    Ok(()) => drop(self.shared.transactions.fetch_add(1, Ordering::Relaxed)),
                    Err(error) => {
                        self.failed(&client, &script, &error).await;
                        self.shared.allowed.fetch_add(1, Ordering::Relaxed);
                    }
                }
            }
        }
    }

    /// Deadlocks, keys that are taken, time-outs of locks and lost connections belong to it; a statement that cannot run is a fault of this file.
    async fn failed(&self, client: &Client, script: &str, error: &towpath_test_support::tokio_postgres::Error) {
        if let Some(error) = error.as_db_error() {
            let expected = ["23505", "40P01", "40001", "55P03", "57014", "57P01", "57P02", "57P03", "25P03"];
            assert!(expected.contains(&error.code().code()), "{error:?}\n{script}");
        }
        let _ = client.batch_execute("ROLLBACK").await;
    }

    fn transaction(&mut self, major: u32) -> String {
        if self.shapes && self.random.u32(0..12) == 0 {
            return self.reshape();
        }
        let rolls_back = self.random.u32(0..10) == 0;
        let mut script = String::from("BEGIN;\n");
        for _ in 0..self.random.u32(1..=8) {
            let undone = self.random.u32(0..10) == 0;
            let statement = self.statement(rolls_back || undone, major);
            script += &match (undone, self.random.u32(0..10)) {
                (true, 0..5) => format!("SAVEPOINT s; {statement}; ROLLBACK TO SAVEPOINT s;\n"),
                (true, _) => {
                    format!("SAVEPOINT s; SAVEPOINT t; {statement}; RELEASE SAVEPOINT t; ROLLBACK TO SAVEPOINT s;\n")
                }
                (false, 0) => format!("SAVEPOINT s; {statement}; RELEASE SAVEPOINT s;\n"),
                (false, _) => format!("{statement};\n"),
            };
        }
        script + if rolls_back { "ROLLBACK" } else { "COMMIT" }
    }

    fn statement(&mut self, undone: bool, major: u32) -> String {
        let table = &TABLES[self.random.usize(0..TABLES.len())];
        let count = self.count(table);
        let new = self.shared.next.fetch_add(count, Ordering::Relaxed);
        // Mostly what is new, so that sessions meet.
        let near = if self.random.bool() { self.random.i64(0..new) } else { self.random.i64((new - 500).max(0)..new) };
        let note = if undone { ROLLED_BACK.to_owned() } else { format!("note {new}") };
        let Table { name, .. } = table;
        match self.random.u32(0..1000) {
            0..400 => table.insert(new, count, &note),
            _ if table.ops == Ops::Insert => table.insert(new, count, &note),
            400..700 if *name == "hot" => format!("UPDATE hot SET counter = counter + 1, note = '{note}'"),
            400..700 => format!("UPDATE {name} SET note = '{note}' WHERE n >= {near} AND n < {near} + {count}"),
            700..780 => table.move_key(near, new, &note),
            780..997 => format!("DELETE FROM {name} WHERE n >= {near} AND n < {near} + 2 * {count}"),
            // PostgreSQL 10 does not publish it.
            _ if major >= 11 => format!("TRUNCATE {name}"),
            _ => format!("DELETE FROM {name}"),
        }
    }

    /// Mostly a few rows, now and then as many as is allowed.
    fn count(&mut self, table: &Table) -> i64 {
        match self.random.u32(0..1000) {
            0..900 => self.random.i64(1..=3),
            900..990 => self.random.i64(4..=60),
            _ if table.ops == Ops::Bulk => self.random.i64(self.rows_max / 10..=self.rows_max),
            _ => self.random.i64(60..=300),
        }
    }

    /// Adds, drops, renames or retypes a column among changes of rows. Then every row is written anew: a consumer is not told of
    /// DDL but by the rows that follow it.
    fn reshape(&mut self) -> String {
        let new = self.shared.next.fetch_add(3, Ordering::Relaxed);
        let any = format!(
            "SELECT attname FROM pg_attribute WHERE attrelid = '{SHAPED}'::regclass AND attnum > 3 AND NOT attisdropped ORDER BY attname LIMIT 1"
        );
        let alter = match self.random.u32(0..4) {
            0 => format!("'ADD COLUMN c{new} int DEFAULT {}'", new % 100),
            1 => "'DROP COLUMN ' || quote_ident(c)".to_owned(),
            2 => format!("'RENAME COLUMN ' || quote_ident(c) || ' TO r{new}'"),
            _ => "'ALTER COLUMN ' || quote_ident(c) || ' TYPE text'".to_owned(),
        };
        let end = if self.random.u32(0..4) == 0 { "ROLLBACK" } else { "COMMIT" };
        let note = if end == "ROLLBACK" { ROLLED_BACK.to_owned() } else { format!("shape {new}") };
        format!(
            "BEGIN; INSERT INTO {SHAPED} (id, n, note) VALUES ({new}, {new}, '{note}'); UPDATE {SHAPED} SET note = '{note}' WHERE n % 5 = 1;
             DO $$ DECLARE c text := ({any}); BEGIN
                 IF c IS NULL THEN ALTER TABLE {SHAPED} ADD COLUMN c{new} int;
                 ELSE EXECUTE 'ALTER TABLE {SHAPED} ' || {alter}; END IF; END $$;
             DELETE FROM {SHAPED} WHERE n < {new} - 300; UPDATE {SHAPED} SET note = '{note}'; {end}"
        )
    }
}
