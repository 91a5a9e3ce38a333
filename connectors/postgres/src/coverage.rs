//! By which of its entries a publication covers each captured table. Remembered beside the position, and looked at while
//! the stream runs: the server leaves out, without a word, what was written while a table was not published, and a table
//! that was put back is published by a new entry.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use tokio_postgres::Client;
use towpath_contract::{Error, Result, StateEntry};

use crate::publication::{Listed, wanted_tables};
use crate::selection::Selection;
use crate::sql::{self, literal};

/// The connector's state entry.
pub(crate) const STATE: &str = "publication";

const OPERATION: &str = "comparing the publication with what it was";

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Coverage {
    /// The publication's options. Absent in what an older Towpath recorded.
    #[serde(default)]
    options: Options,
    /// Of `insert`, `update`, `delete`, `truncate`.
    operations: BTreeSet<String>,
    /// By the table's oid, which a new name does not change.
    tables: BTreeMap<String, Covered>,
    /// The oids of unlogged tables that are asked for, of which no publication knows: a captured one may become so.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    unlogged: BTreeSet<String>,
    /// Unlogged partitions of tables that are asked for, by oid. The log says nothing of their rows.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    unlogged_parts: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Options {
    /// Oid and row version in the catalogue, as one text: another one says that somebody altered the publication.
    version: String,
    owner: String,
    via_root: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Covered {
    name: String,
    /// `table 16401`, `schema 16402`, `all 16400`: kind and oid of the entry.
    entries: BTreeSet<String>,
}

impl Coverage {
    /// What the publication covers of what is asked for: of a partitioned table the root, where it publishes by that, else the
    /// partitions.
    pub(crate) async fn look_up(
        client: &Client,
        publication: &str,
        selection: &Selection,
        server_version: u32,
    ) -> Result<Coverage> {
        let operation = "looking at what the publication covers";
        let mut coverage = Coverage::default();
        for row in sql::rows(client, operation, &options_sql(publication, server_version)).await? {
            let [version, owner] = [0, 1].map(|column| sql::text(&row, column).to_owned());
            coverage.options = Options { version, owner, via_root: sql::is_true(&row, 2) };
        }
        for row in sql::rows(client, operation, &operations_sql(publication, server_version)).await? {
            coverage.operations.insert(sql::text(&row, 0).to_owned());
        }
        let rows = sql::rows(client, operation, &entries_sql(publication, server_version)).await?;
        let mut entries: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
        for row in &rows {
            entries.entry(sql::text(row, 0)).or_default().insert(sql::text(row, 1).to_owned());
        }
        let unlogged = "SELECT c.oid, n.nspname, c.relname FROM pg_catalog.pg_class c \
             JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind IN ('r', 'p') AND c.relpersistence = 'u'";
        let unlogged = sql::rows(client, operation, unlogged).await?;
        let asked_for = unlogged.iter().filter(|row| selection.matches(sql::text(row, 1), sql::text(row, 2)));
        coverage.unlogged = asked_for.map(|row| sql::text(row, 0).to_owned()).collect();
        coverage.unlogged_parts = unlogged_parts(client, selection).await?;
        let wanted = wanted_tables(client, selection, coverage.options.via_root).await?;
        for Listed { oid, table: (schema, name), .. } in &wanted {
            let entries = entries.remove(oid.as_str()).unwrap_or_default();
            coverage.tables.insert(oid.clone(), Covered { name: format!("{schema}.{name}"), entries });
        }
        Ok(coverage)
    }

    /// As an earlier run recorded it.
    pub(crate) fn recorded(state: &BTreeMap<String, Vec<u8>>) -> Result<Option<Coverage>> {
        let Some(bytes) = state.get(STATE) else { return Ok(None) };
        serde_json::from_slice(bytes).map(Some).map_err(|error| Error::bug(OPERATION, error))
    }

    pub(crate) fn entry(&self) -> Result<StateEntry> {
        let bytes = serde_json::to_vec(self).map_err(|error| Error::bug(OPERATION, error))?;
        Ok(StateEntry { key: STATE.to_owned(), value: Some(bytes) })
    }

    /// Tables that are asked for, and that no entry covers.
    pub(crate) fn uncovered(&self) -> impl Iterator<Item = &str> {
        self.tables.values().filter(|covered| covered.entries.is_empty()).map(|covered| covered.name.as_str())
    }

    /// See [`unlogged_parts`].
    pub(crate) fn unlogged_parts(&self) -> impl Iterator<Item = &str> {
        self.unlogged_parts.values().map(String::as_str)
    }

    pub(crate) fn covers(&self, oid: u32) -> bool {
        self.tables.get(&oid.to_string()).is_some_and(|covered| !covered.entries.is_empty())
    }

    /// What may be missing if the publication was `self` and is `now`; `None` when nothing is. Tables that are no longer
    /// there or no longer asked for are not missed.
    pub(crate) fn lost(&self, now: &Coverage) -> Option<String> {
        let operations: Vec<&str> = self.operations.difference(&now.operations).map(String::as_str).collect();
        if !operations.is_empty() {
            return Some(format!("it does not publish {} any more", operations.join(", ")));
        }
        if self.options.via_root && !now.options.via_root {
            return Some("it publishes partitions under their own names, and no more under their root's".to_owned());
        }
        let altered = self.options.version != now.options.version && !self.options.version.is_empty();
        let explained = self.operations != now.operations
            || self.options.owner != now.options.owner
            || self.options.via_root != now.options.via_root;
        if altered && !explained {
            return Some(
                "its options were changed, and changed back: it may not have published some operations".to_owned(),
            );
        }
        let lost = |(oid, before): (&String, &Covered)| {
            if !before.entries.is_empty() && now.unlogged.contains(oid) {
                return Some(format!("{} (it is unlogged)", before.name));
            }
            let Some(covered) = now.tables.get(oid) else {
                let replaced = !before.entries.is_empty() && now.tables.values().any(|other| other.name == before.name);
                return replaced.then(|| format!("{} (another table has its name now)", before.name));
            };
            let interrupted = !before.entries.is_empty() && before.entries.is_disjoint(&covered.entries);
            interrupted.then(|| covered.name.clone())
        };
        let new_part = |(oid, name): (&String, &String)| {
            (!self.unlogged_parts.contains_key(oid)).then(|| format!("{name} (it is unlogged)"))
        };
        let lost = self.tables.iter().filter_map(lost).chain(now.unlogged_parts.iter().filter_map(new_part));
        let lost: Vec<String> = lost.collect();
        (!lost.is_empty()).then(|| format!("it did not publish {}, if only for a while", lost.join(", ")))
    }
}

/// One short text that changes whenever an entry or an option of the publication does, or a table is made, named anew, or made
/// unlogged; for looking often.
pub(crate) async fn fingerprint(client: &Client, publication: &str, server_version: u32) -> Result<String> {
    let schemas = match server_version {
        150_000.. => {
            "(SELECT string_agg(s.oid::text, ',' ORDER BY s.oid) FROM pg_catalog.pg_publication_namespace s WHERE s.pnpubid = p.oid)"
        }
        _ => "NULL::text",
    };
    let query = format!(
        "SELECT p.oid::text || ' ' || p.xmin::text || ' ' || md5(concat((SELECT string_agg(r.oid::text, ',' ORDER BY r.oid) \
         FROM pg_catalog.pg_publication_rel r WHERE r.prpubid = p.oid), ';', {schemas}, ';', \
         (SELECT string_agg(concat(c.oid, c.relpersistence, c.relnamespace, c.relname), ',' ORDER BY c.oid) \
         FROM pg_catalog.pg_class c WHERE c.relkind IN ('r', 'p') AND c.relpersistence <> 't'))) FROM pg_catalog.pg_publication p WHERE p.pubname = {}",
        literal(publication)
    );
    let rows = sql::rows(client, "looking whether the publication changed", &query).await?;
    Ok(rows.first().map(|row| sql::text(row, 0).to_owned()).unwrap_or_default())
}

/// Unlogged partitions of tables that are asked for, by oid: full names. What is written to them is nowhere in the log.
pub(crate) async fn unlogged_parts(client: &Client, selection: &Selection) -> Result<BTreeMap<String, String>> {
    let rows = sql::rows(client, "looking for unlogged partitions", UNLOGGED_PARTS).await?;
    let asked_for = rows.iter().filter(|row| selection.matches(sql::text(row, 2), sql::text(row, 3)));
    Ok(asked_for.map(|row| (sql::text(row, 0).to_owned(), sql::text(row, 1).to_owned())).collect())
}

/// Each with the root, or another partitioned table above it.
const UNLOGGED_PARTS: &str = "WITH RECURSIVE up AS (SELECT c.oid AS base, i.inhparent AS at FROM pg_catalog.pg_class c \
    JOIN pg_catalog.pg_inherits i ON i.inhrelid = c.oid WHERE c.relispartition AND c.relpersistence = 'u' \
    UNION ALL SELECT up.base, i.inhparent FROM up JOIN pg_catalog.pg_inherits i ON i.inhrelid = up.at) \
    SELECT up.base, format('%I.%I', n.nspname, c.relname), an.nspname, a.relname FROM up \
    JOIN pg_catalog.pg_class c ON c.oid = up.base JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
    JOIN pg_catalog.pg_class a ON a.oid = up.at JOIN pg_catalog.pg_namespace an ON an.oid = a.relnamespace \
    WHERE a.relpersistence = 'p'";

fn options_sql(publication: &str, server_version: u32) -> String {
    let via_root = if server_version >= 130_000 { "pubviaroot" } else { "false" };
    format!(
        "SELECT oid::text || ' ' || xmin::text, pubowner, {via_root} FROM pg_catalog.pg_publication WHERE pubname = {}",
        literal(publication)
    )
}

fn operations_sql(publication: &str, server_version: u32) -> String {
    let mut operations = vec!["insert", "update", "delete"];
    if server_version >= 110_000 {
        operations.push("truncate");
    }
    let one = |operation: &&str| {
        let publication = literal(publication);
        format!("SELECT '{operation}' FROM pg_catalog.pg_publication WHERE pubname = {publication} AND pub{operation}")
    };
    operations.iter().map(one).collect::<Vec<_>>().join(" UNION ALL ")
}

/// A table is covered by an entry of its own, of the partitioned tables above it, or of a schema of theirs.
fn entries_sql(publication: &str, server_version: u32) -> String {
    let schemas = match server_version {
        150_000.. => {
            "UNION ALL SELECT up.base, 'schema ' || s.oid::text FROM up JOIN pg_catalog.pg_class c ON c.oid = up.at \
             JOIN pg_catalog.pg_publication_namespace s ON s.pnnspid = c.relnamespace JOIN p ON p.oid = s.pnpubid"
        }
        _ => "",
    };
    format!(
        "WITH RECURSIVE p AS (SELECT oid, puballtables FROM pg_catalog.pg_publication WHERE pubname = {}), \
         up AS (SELECT oid AS base, oid AS at, relispartition AS part FROM pg_catalog.pg_class \
           WHERE relkind IN ('r', 'p') AND relpersistence = 'p' \
           UNION ALL SELECT up.base, i.inhparent, c.relispartition FROM up \
           JOIN pg_catalog.pg_inherits i ON up.part AND i.inhrelid = up.at JOIN pg_catalog.pg_class c ON c.oid = i.inhparent) \
         SELECT up.base, 'table ' || r.oid::text FROM up JOIN pg_catalog.pg_publication_rel r ON r.prrelid = up.at \
           JOIN p ON p.oid = r.prpubid \
         UNION ALL SELECT up.base, 'all ' || p.oid::text FROM up JOIN p ON p.puballtables WHERE up.base = up.at {schemas}",
        literal(publication)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn coverage(operations: &[&str], tables: &[(&str, &[&str])]) -> Coverage {
        let text = |text: &&str| (*text).to_owned();
        let covered = |(oid, entries): &(&str, &[&str])| {
            (text(oid), Covered { name: format!("s.t{oid}"), entries: entries.iter().map(text).collect() })
        };
        let options = Options { version: "1 2".into(), owner: "3".into(), via_root: true };
        Coverage {
            options,
            operations: operations.iter().map(text).collect(),
            unlogged: BTreeSet::new(),
            unlogged_parts: BTreeMap::new(),
            tables: tables.iter().map(covered).collect(),
        }
    }

    #[test]
    fn a_table_that_was_out_for_a_while_is_missed_and_one_that_is_gone_is_not() {
        let before = coverage(&["insert"], &[("1", &["table 7"]), ("2", &["table 8"]), ("3", &[])]);
        assert_eq!(before.lost(&before), None);
        let gone = coverage(&["insert", "update"], &[("1", &["table 7"]), ("4", &["table 9"])]);
        assert_eq!(before.lost(&gone), None);
        let out = coverage(&["insert"], &[("1", &[]), ("2", &["table 8"])]);
        assert!(before.lost(&out).unwrap().contains("publish s.t1,"));
        let back = coverage(&["insert"], &[("1", &["table 10"]), ("2", &["table 8"])]);
        assert!(before.lost(&back).unwrap().contains("publish s.t1,"));
        let unlogged = Coverage { unlogged: ["1".to_owned()].into(), ..coverage(&["insert"], &[("2", &["table 8"])]) };
        assert!(before.lost(&unlogged).unwrap().contains("publish s.t1 (it is unlogged),"));
        let never_covered = Coverage { unlogged: ["3".to_owned()].into(), ..before.clone() };
        assert_eq!(before.lost(&never_covered), None);
        // Another one took its name: what is written there is not known.
        let swapped = |entries| {
            let mut now = coverage(&["insert"], &[("2", &["table 8"]), ("9", entries)]);
            now.tables.get_mut("9").unwrap().name = "s.t1".into();
            now
        };
        for entries in [&[][..], &["table 12"]] {
            assert!(before.lost(&swapped(entries)).unwrap().contains("publish s.t1 (another table has its name now),"));
        }
        let part = Coverage { unlogged_parts: [("5".to_owned(), "s.p2".to_owned())].into(), ..before.clone() };
        assert!(before.lost(&part).unwrap().contains("publish s.p2 (it is unlogged),"));
        assert_eq!((part.lost(&part), part.lost(&before)), (None, None));
        // Covered twice for a while, and never by none.
        let twice = coverage(&["insert"], &[("1", &["schema 3", "table 7"]), ("2", &["table 8"])]);
        let other = coverage(&["insert"], &[("1", &["schema 3"]), ("2", &["table 8"])]);
        assert_eq!((before.lost(&twice), twice.lost(&other)), (None, None));
    }

    #[test]
    fn an_operation_that_is_left_out_is_missed() {
        let before = coverage(&["insert", "delete"], &[]);
        assert!(before.lost(&coverage(&["insert"], &[])).unwrap().contains("delete"));
    }

    #[test]
    fn options_that_were_changed_and_changed_back_are_missed() {
        let before = coverage(&["insert"], &[]);
        let mut now = before.clone();
        now.options.version = "1 3".into();
        assert!(before.lost(&now).unwrap().contains("changed back"));
        let owned = Coverage { options: Options { owner: "4".into(), ..now.options.clone() }, ..now.clone() };
        assert_eq!(before.lost(&owned), None);
        let wider = Coverage { options: now.options.clone(), ..coverage(&["insert", "delete"], &[]) };
        assert_eq!(before.lost(&wider), None);
        let by_leaves = Coverage { options: Options { via_root: false, ..now.options }, ..now };
        assert!(before.lost(&by_leaves).unwrap().contains("partitions"));
        assert_eq!(Coverage { options: Options::default(), ..before.clone() }.lost(&before), None);
    }

    #[test]
    fn it_reads_back() {
        let before = coverage(&["insert"], &[("1", &["table 7"])]);
        let entry = before.entry().unwrap();
        let state = BTreeMap::from([(entry.key, entry.value.unwrap())]);
        assert_eq!(Coverage::recorded(&state).unwrap(), Some(before));
        assert_eq!(Coverage::recorded(&BTreeMap::new()).unwrap(), None);
    }
}
