//! REPLICA IDENTITY: what the server logs of a row as it was, and whether it lets the row be changed at all.

use towpath_contract::{Finding, OldRows, Result, Severity};

use super::tables::Table;
use super::{Mended, Subject, finding};
use crate::publication::WITHOUT_IDENTITY;
use crate::sql::{self, qualified};

const BREAKS: &str = "once it is published, UPDATE and DELETE on it fail for every application";

/// Whether updates and deletes can be published, and with what of the row as it was.
pub(super) fn identity(subject: &Subject<'_>, table: &Table<'_>) -> Option<Finding> {
    let name = table.table.full_name();
    let set = |identity: &str| format!("ALTER TABLE {} REPLICA IDENTITY {identity};", table.table.sql_name());
    let owner = format!("the owner of {name} ({})", table.owner);
    let needed_by = old_rows_needed_by(subject, table);
    let mend = if table.has_primary_key && needed_by.is_empty() { "DEFAULT" } else { "FULL" };
    match table.table.identity {
        b'd' if !table.has_primary_key => {
            let message = format!(
                "{name} has no primary key, and its REPLICA IDENTITY is DEFAULT: {BREAKS}. A primary key is best; FULL works \
                 at once, and logs whole rows"
            );
            Some(finding(Severity::Error, "table_without_key", message).mended_by(set("FULL"), owner))
        }
        b'n' => {
            let message = format!("the REPLICA IDENTITY of {name} is NOTHING: {BREAKS}");
            Some(finding(Severity::Error, "replica_identity_nothing", message).mended_by(set(mend), owner))
        }
        b'i' if !table.has_identity_index => {
            let message = format!("the index that is the REPLICA IDENTITY of {name} is gone or invalid: {BREAKS}");
            Some(finding(Severity::Error, "replica_identity_index", message).mended_by(set(mend), owner))
        }
        b'd' | b'i' if !needed_by.is_empty() && !table.table.partitioned => {
            Some(old_rows_missing(&name, &needed_by).mended_by(set("FULL"), owner))
        }
        b'f' if table.has_primary_key && needed_by.is_empty() => {
            let message = format!(
                "the REPLICA IDENTITY of {name} is FULL: events have whole rows as they were before, and every update and \
                 delete logs them. Its primary key alone would do for order"
            );
            Some(finding(Severity::Note, "replica_identity_full", message).mended_by(set("DEFAULT"), owner))
        }
        b'f' if !table.has_primary_key => {
            let message = format!(
                "{name} has no primary key: equal rows cannot be told apart, and its events are ordered by the whole row"
            );
            Some(finding(Severity::Note, "table_without_key", message))
        }
        _ => None,
    }
}

fn old_rows_missing(name: &str, needed_by: &[&str]) -> Finding {
    let message = format!(
        "{} may need the row of {name} as it was before a change, and its REPLICA IDENTITY has PostgreSQL log the key alone: \
         such events are parked, or lack what is made of it",
        needed_by.join(", ")
    );
    finding(Severity::Warning, "old_rows", message)
}

/// What comes under a partitioned table's name is logged by the identity of each partition, and read by its own.
pub(super) async fn partitions(subject: &Subject<'_>, roots: &[Table<'_>]) -> Result<Vec<Finding>> {
    let roots: Vec<&Table<'_>> = roots.iter().filter(|table| table.table.partitioned).collect();
    if roots.is_empty() {
        return Ok(Vec::new());
    }
    let list: Vec<String> = roots.iter().map(|root| root.table.oid.to_string()).collect();
    let query = format!(
        "WITH RECURSIVE below (root, oid) AS (SELECT inhparent, inhrelid FROM pg_inherits WHERE inhparent IN ({}) \
           UNION ALL SELECT root, inhrelid FROM below JOIN pg_inherits ON inhparent = below.oid) \
         SELECT root, n.nspname, c.relname, c.relreplident, {WITHOUT_IDENTITY} FROM below JOIN pg_class c ON c.oid = below.oid \
         JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind = 'r' ORDER BY 2, 3",
        list.join(", ")
    );
    let leaves = sql::rows(subject.client, "looking at the partitions", &query).await?;
    let mut found = Vec::new();
    for root in roots {
        let name = root.table.full_name();
        let owner = format!("the owner of {name} ({})", root.owner);
        let oid = root.table.oid.to_string();
        let fix = |table: &str| format!("ALTER TABLE {table} REPLICA IDENTITY FULL;");
        let (mut broken, mut keys_alone) = (Vec::new(), Vec::new());
        if root.table.identity != b'f' {
            keys_alone.push(fix(&root.table.sql_name()));
        }
        for leaf in leaves.iter().filter(|leaf| sql::text(leaf, 0) == oid) {
            let table = qualified(sql::text(leaf, 1), sql::text(leaf, 2));
            if sql::is_true(leaf, 4) {
                broken.push(fix(&table));
            }
            if sql::text(leaf, 3) != "f" {
                keys_alone.push(fix(&table));
            }
        }
        if !broken.is_empty() {
            let message = format!("partitions of {name} have no usable REPLICA IDENTITY: {BREAKS}");
            found.push(
                finding(Severity::Error, "partition_without_identity", message)
                    .mended_by(broken.join("\n"), owner.clone()),
            );
        }
        let needed_by = old_rows_needed_by(subject, root);
        if !needed_by.is_empty() && !keys_alone.is_empty() {
            found.push(old_rows_missing(&name, &needed_by).mended_by(keys_alone.join("\n"), owner));
        }
    }
    Ok(found)
}

fn old_rows_needed_by<'a>(subject: &'a Subject<'_>, table: &Table<'_>) -> Vec<&'a str> {
    let of_table = |old: &&OldRows| (&old.schema, &old.table) == (&table.table.schema, &table.table.name);
    subject.known.old_rows.iter().filter(of_table).map(|old| old.needed_by.as_str()).collect()
}
