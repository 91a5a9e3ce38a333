//! Random changes, the same for the same seed: inserts, updates of values and of keys, deletes, truncates, transactions of
//! several statements, rollbacks and savepoints.

use towpath_test_support::tokio_postgres::Client;

/// A table that the workload knows how to change.
pub(crate) struct Table {
    pub(crate) name: &'static str,
    /// Integer columns; the last one gets new values.
    pub(crate) key: &'static [&'static str],
    /// A column that updates may set to any text.
    pub(crate) text: Option<&'static str>,
    pub(crate) truncatable: bool,
}

pub(crate) struct Workload {
    random: fastrand::Rng,
    next_key: i64,
    tables: &'static [Table],
    truncates: bool,
}

impl Workload {
    /// For a server of this major version. New keys start at `first_key`.
    pub(crate) fn new(seed: u64, major: u32, first_key: i64, tables: &'static [Table]) -> Workload {
        // PostgreSQL 10 does not publish TRUNCATE.
        Workload { random: fastrand::Rng::with_seed(seed), next_key: first_key, tables, truncates: major >= 11 }
    }

    /// One transaction of 1 to 8 statements, committed or rolled back. Returns how many statements it had.
    pub(crate) async fn transaction(
        &mut self,
        client: &Client,
    ) -> Result<usize, towpath_test_support::tokio_postgres::Error> {
        let statements = self.random.usize(1..=8);
        let mut script = String::from("BEGIN;\n");
        for _ in 0..statements {
            let statement = self.statement();
            match self.random.u32(0..100) {
                0..10 => script += &format!("SAVEPOINT s; {statement}; ROLLBACK TO SAVEPOINT s;\n"),
                10..15 => script += &format!("SAVEPOINT s; {statement}; RELEASE SAVEPOINT s;\n"),
                _ => script += &format!("{statement};\n"),
            }
        }
        script += if self.random.u32(0..100) < 10 { "ROLLBACK" } else { "COMMIT" };
        client.batch_execute(&script).await.map(|()| statements)
    }

    fn statement(&mut self) -> String {
        let table = &self.tables[self.random.usize(0..self.tables.len())];
        let Table { name, key, .. } = table;
        let new_key = self.next_key;
        self.next_key += 1;
        let moving = key[key.len() - 1];
        // A row near a random place in key order: cheap, and the same for the same seed and state.
        let near = self.random.i64(0..new_key);
        let one = format!(
            "({keys}) = (SELECT {keys} FROM {name} WHERE {moving} >= {near} ORDER BY {moving}, {keys} LIMIT 1)",
            keys = key.join(", ")
        );
        match self.random.u32(0..1000) {
            0..400 => format!(
                "INSERT INTO {name} SELECT (jsonb_populate_record(t, jsonb_build_object('{moving}', {new_key}))).* \
                 FROM {name} t WHERE {moving} >= {near} ORDER BY {moving} LIMIT 1"
            ),
            400..700 => match table.text {
                Some(text) => format!("UPDATE {name} SET {text} = left(md5('{new_key}'), 20) WHERE {one}"),
                None => format!("UPDATE {name} SET {moving} = {moving} WHERE {one}"),
            },
            700..800 => format!("UPDATE {name} SET {moving} = {new_key} WHERE {one}"),
            800..997 => format!("DELETE FROM {name} WHERE {one}"),
            _ if table.truncatable && self.truncates => format!("TRUNCATE {name}"),
            _ => format!("DELETE FROM {name} WHERE {moving} BETWEEN {near} AND {near} + 20"),
        }
    }
}
