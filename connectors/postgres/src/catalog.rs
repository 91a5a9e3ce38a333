//! Which tables the config selects, as the database's catalogue has them now.
//!
//! PostgreSQL 10 to 18. What a table looks like is in [`shape`].

mod shape;

use std::collections::HashMap;

use tokio_postgres::Client;
use towpath_contract::{Result, TableSchema};

use crate::sql;
use crate::types::TypeCatalog;

pub(crate) use shape::{ChunkKey, KeyColumn, Shape, assemble, describe, primary_key};

/// A table whose changes are captured: published under this name, read under this name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CapturedTable {
    pub(crate) oid: u32,
    pub(crate) schema: String,
    pub(crate) name: String,
    /// The root of a partitioned table, which stands for all its partitions.
    pub(crate) partitioned: bool,
    /// `pg_class.relreplident`: `d`efault, `n`othing, `f`ull, `i`ndex.
    pub(crate) identity: u8,
    /// Has a unique key by which its rows can be read in chunks.
    pub(crate) keyed: bool,
    /// By the last VACUUM or ANALYZE; `None` where there was none. Of a partitioned table: all its partitions.
    pub(crate) estimated_rows: Option<u64>,
}

impl CapturedTable {
    /// `schema.table`, for people and as the config writes it.
    pub(crate) fn full_name(&self) -> String {
        format!("{}.{}", self.schema, self.name)
    }

    pub(crate) fn sql_name(&self) -> String {
        sql::qualified(&self.schema, &self.name)
    }
}

/// What the patterns of the config select.
#[derive(Debug, Default)]
pub(crate) struct Captured {
    /// By schema and name.
    pub(crate) tables: Vec<CapturedTable>,
    /// Selected by a pattern, and yet impossible to capture.
    pub(crate) left_out: Vec<LeftOut>,
    /// Patterns that select nothing.
    pub(crate) unmatched: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LeftOut {
    pub(crate) schema: String,
    pub(crate) name: String,
    pub(crate) reason: Reason,
    /// By a pattern without `*`: the user means this one.
    pub(crate) named: bool,
}

/// Why a relation cannot be captured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    Foreign,
    View,
    MaterializedView,
    Unlogged,
}

struct Relation {
    table: CapturedTable,
    kind: u8,
    unlogged: bool,
    parent: Option<u32>,
}

/// What the captured tables look like, as their changes will say it.
pub(crate) async fn schemas(client: &Client, patterns: &[String], publication: &str) -> Result<Vec<TableSchema>> {
    let version = sql::server_version(client).await?;
    let mut types = TypeCatalog::default();
    let mut schemas = Vec::new();
    for table in captured(client, patterns, Some(publication)).await?.tables {
        // One that is dropped meanwhile has no shape.
        if let Some(shape) = describe(client, version, &mut types, table.oid, Some(publication)).await? {
            schemas.push((*shape.table).clone());
        }
    }
    Ok(schemas)
}

/// Selects tables by `schema.table` patterns, where `*` stands for any characters. The system's own schemas and
/// temporary tables are never selected.
///
/// Partitions are captured through the topmost selected table above them (PostgreSQL 13+ and a publication with
/// `publish_via_partition_root`, or none yet). Where somebody's publication does not publish them so, those are captured
/// that are selected by their own names. Before 13, all partitions of a selected table are, one by one.
pub(crate) async fn captured(client: &Client, patterns: &[String], publication: Option<&str>) -> Result<Captured> {
    let version = sql::server_version(client).await?;
    let can_publish_roots = version >= 130_000;
    let via_root = can_publish_roots && publishes_via_root(client, publication).await?;
    let relations = relations(client, version).await?;

    let mut found = Captured::default();
    let mut matched = vec![false; patterns.len()];
    let mut selected = HashMap::new();
    for relation in &relations {
        let mut named = None;
        for (index, pattern) in patterns.iter().enumerate() {
            if matches(pattern, &relation.table.schema, &relation.table.name) {
                matched[index] = true;
                named = Some(named.unwrap_or(false) || !pattern.contains('*'));
            }
        }
        if let Some(named) = named {
            selected.insert(relation.table.oid, named);
        }
    }
    let parents: HashMap<u32, u32> = relations.iter().filter_map(|r| Some((r.table.oid, r.parent?))).collect();
    for relation in relations {
        let own = selected.get(&relation.table.oid).copied();
        let above = any_ancestor(&parents, relation.table.oid, |ancestor| selected.contains_key(&ancestor));
        let (is_root, is_partition) = (relation.kind == b'p', relation.parent.is_some());
        let wanted = match via_root {
            true => own.is_some() && !(is_partition && above),
            false => (own.is_some() || above && !can_publish_roots) && !is_root,
        };
        if !wanted {
            continue;
        }
        match relation.reason() {
            None => found.tables.push(relation.table),
            Some(reason) => found.left_out.push(LeftOut {
                schema: relation.table.schema,
                name: relation.table.name,
                reason,
                named: own == Some(true),
            }),
        }
    }
    found.unmatched = patterns.iter().zip(matched).filter(|(_, matched)| !matched).map(|(p, _)| p.clone()).collect();
    Ok(found)
}

impl Relation {
    fn reason(&self) -> Option<Reason> {
        match self.kind {
            b'f' => Some(Reason::Foreign),
            b'v' => Some(Reason::View),
            b'm' => Some(Reason::MaterializedView),
            _ if self.unlogged => Some(Reason::Unlogged),
            _ => None,
        }
    }
}

fn any_ancestor(parents: &HashMap<u32, u32>, oid: u32, is_it: impl Fn(u32) -> bool) -> bool {
    let mut current = oid;
    // The tree has no cycle; a bound costs nothing.
    for _ in 0..parents.len() {
        match parents.get(&current) {
            Some(parent) if is_it(*parent) => return true,
            Some(parent) => current = *parent,
            None => return false,
        }
    }
    false
}

async fn publishes_via_root(client: &Client, publication: Option<&str>) -> Result<bool> {
    let Some(publication) = publication else { return Ok(true) };
    let query = format!("SELECT pubviaroot FROM pg_publication WHERE pubname = {}", sql::literal(publication));
    let rows = sql::rows(client, "reading the publication", &query).await?;
    // Not there yet: Towpath makes it so.
    Ok(rows.first().is_none_or(|row| sql::is_true(row, 0)))
}

async fn relations(client: &Client, version: u32) -> Result<Vec<Relation>> {
    let operation = "listing the tables";
    let query = "SELECT c.oid, n.nspname, c.relname, c.relkind, c.relpersistence, c.relreplident, \
         (SELECT i.inhparent FROM pg_inherits i WHERE c.relispartition AND i.inhrelid = c.oid LIMIT 1), \
         CASE WHEN c.relkind <> 'p' THEN c.reltuples ELSE ( \
           WITH RECURSIVE tree(oid) AS ( \
             SELECT c.oid UNION ALL SELECT i.inhrelid FROM pg_inherits i JOIN tree ON i.inhparent = tree.oid) \
           SELECT sum(greatest(leaf.reltuples, 0)) FROM tree JOIN pg_class leaf ON leaf.oid = tree.oid WHERE leaf.relkind <> 'p') END::bigint \
       FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
       WHERE c.relkind IN ('r', 'p', 'f', 'v', 'm') AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' \
       ORDER BY n.nspname, c.relname";
    let keys = shape::Keys::of_all(client, version).await?;
    let mut relations = Vec::new();
    for row in sql::rows(client, operation, query).await? {
        let byte = |column| sql::text(&row, column).bytes().next().unwrap_or(0);
        let kind = byte(3);
        let oid = sql::number(operation, &row, 0)?;
        relations.push(Relation {
            kind,
            unlogged: byte(4) == b'u',
            parent: sql::text(&row, 6).parse().ok(),
            table: CapturedTable {
                oid,
                schema: sql::text(&row, 1).to_owned(),
                name: sql::text(&row, 2).to_owned(),
                partitioned: kind == b'p',
                identity: byte(5),
                keyed: keys.allow_chunks(oid, byte(5)),
                // −1 since PostgreSQL 14 and 0 before: never counted (or empty).
                estimated_rows: sql::text(&row, 7).parse().ok().filter(|rows| *rows > 0),
            },
        });
    }
    Ok(relations)
}

/// Whether `pattern` (`schema.table`, `*` for any characters) selects this table. The first dot parts the two; without
/// one it is a table of any schema.
pub(crate) fn matches(pattern: &str, schema: &str, name: &str) -> bool {
    let (schemas, names) = pattern.split_once('.').unwrap_or(("*", pattern));
    matches_part(schemas, schema) && matches_part(names, name)
}

fn matches_part(pattern: &str, text: &str) -> bool {
    let Some((head, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(mut text) = text.strip_prefix(head) else { return false };
    let mut parts: Vec<&str> = rest.split('*').collect();
    let Some(tail) = parts.pop() else { return true };
    for part in parts {
        match text.find(part) {
            Some(at) => text = &text[at + part.len()..],
            None => return false,
        }
    }
    text.ends_with(tail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_select_by_schema_and_table() {
        for (pattern, schema, name, expected) in [
            ("public.orders", "public", "orders", true),
            ("public.orders", "public", "orders2", false),
            ("*.*", "any", "thing", true),
            ("public.*", "other", "t", false),
            ("*.ord*s", "a", "orders", true),
            ("*.ord*s", "a", "ords", true),
            ("*.ord*s", "a", "order", false),
            ("*.a*b*c", "s", "a1b2c", true),
            ("*.a*b*c", "s", "acb", false),
            ("s.with.dot", "s", "with.dot", true),
            ("orders", "public", "orders", true),
        ] {
            assert_eq!(matches(pattern, schema, name), expected, "{pattern} {schema}.{name}");
        }
    }
}

#[cfg(test)]
mod server_tests;
