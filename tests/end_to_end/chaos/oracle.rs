//! The server's own account of what was committed: a second slot, read by PostgreSQL's `test_decoding`, which shares no code with
//! Towpath.

use std::collections::BTreeSet;

use towpath_test_support::{Changes, Postgres};

/// Begins (anew) here. What was written before is not accounted for.
pub(super) async fn begin(postgres: &Postgres) {
    postgres
        .sql("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = 'oracle'")
        .await;
    postgres.sql("SELECT pg_create_logical_replication_slot('oracle', 'test_decoding')").await;
}

/// What was committed since the last call, counted by transaction, table and op. `None` when the slot was lost.
pub(super) async fn committed(postgres: &Postgres) -> Option<Changes> {
    let status = "SELECT wal_status FROM pg_replication_slots WHERE slot_name = 'oracle'";
    if postgres.value(status).await == "lost" {
        return None;
    }
    let query = "SELECT xid::text, found[1], lower(found[2]), count(*)
         FROM pg_logical_slot_get_changes('oracle', NULL, NULL, 'include-timestamp', '0'),
             regexp_match(data, '^table ([^:]+): (INSERT|UPDATE|DELETE|TRUNCATE):') found
         WHERE found[1] <> 'public.marker' GROUP BY 1, 2, 3";
    let mut changes = Changes::new();
    for row in postgres.rows(query).await {
        let [Some(tx), Some(tables), Some(op), Some(count)] = &row[..] else { panic!("a column is null: {row:?}") };
        // A TRUNCATE names all its tables in one line, a partitioned table with its partitions.
        for table in tables.split(", ").map(root).collect::<BTreeSet<_>>() {
            *changes.entry((tx.clone(), table.to_owned(), op.clone())).or_default() +=
                count.parse::<usize>().expect("a count");
        }
    }
    Some(changes)
}

/// Changes of partitions are published as their root's.
fn root(table: &str) -> &str {
    if table.starts_with("public.part_") { "public.part" } else { table }
}

/// (2) what was committed and did not come; (3) what came and was not committed.
pub(super) fn differences(committed: &Changes, received: &Changes) -> Vec<(u8, String)> {
    let mut found = Vec::new();
    for change in committed.keys().chain(received.keys()).collect::<BTreeSet<_>>() {
        let (tx, table, op) = change;
        let count = |changes: &Changes| match (changes.get(change).copied().unwrap_or(0), op.as_str()) {
            // One event, however many partitions it has.
            (count, "truncate") => count.min(1),
            (count, _) => count,
        };
        let (expected, came) = (count(committed), count(received));
        let line = format!("transaction {tx}: {table}: {expected} times {op} were committed, {came} came");
        match came.cmp(&expected) {
            std::cmp::Ordering::Less => found.push((2, line)),
            std::cmp::Ordering::Greater => found.push((3, line)),
            std::cmp::Ordering::Equal => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changes(of: &[(&str, usize)]) -> Changes {
        of.iter().map(|(op, count)| (("7".into(), "public.t".into(), (*op).into()), *count)).collect()
    }

    #[test]
    fn what_is_missing_and_what_is_too_much_is_found() {
        let found = differences(
            &changes(&[("insert", 3), ("truncate", 3)]),
            &changes(&[("insert", 2), ("delete", 1), ("truncate", 1)]),
        );
        assert_eq!(found.iter().map(|(number, _)| *number).collect::<Vec<_>>(), [3, 2], "{found:?}");
    }
}
