//! The publication: which tables the server sends. Made on the first run, added to when the config matches more.

use serde::Deserialize;
use std::collections::HashMap;

use tokio_postgres::Client;
use towpath_contract::{Error, ErrorKind, Result};

use crate::selection::Selection;
use crate::slot::Mark;
use crate::sql::{self, ident, literal, qualified};

/// What this run wants of the publication.
pub(crate) struct Wanted<'a> {
    pub(crate) publication: &'a str,
    pub(crate) slot: &'a str,
    pub(crate) selection: &'a Selection,
    pub(crate) create: bool,
    /// Nothing was captured yet: then all that is asked for must be published. Later, one table more that cannot be added is
    /// no reason to let go of the others.
    pub(crate) first_run: bool,
    pub(crate) server_version: u32,
}

type Table = (String, String);

/// A row of `pg_publication`, as far as the server's version has the columns.
#[derive(Debug, Deserialize)]
struct Publication {
    puballtables: bool,
    pubinsert: bool,
    pubupdate: bool,
    pubdelete: bool,
    /// 11+
    #[serde(default = "is_true")]
    pubtruncate: bool,
    /// 13+
    #[serde(default)]
    pubviaroot: bool,
}

fn is_true() -> bool {
    true
}

/// Makes the publication cover what the config asks for, as far as `create` allows, and gives the mark that an earlier
/// first run left on it.
pub(crate) async fn prepare(client: &Client, wanted: &Wanted<'_>) -> Result<Option<Mark>> {
    let operation = format!("preparing the publication {}", wanted.publication);
    let listed = list_tables(client, wanted.selection).await?;
    let halved = roots_with_unselected_leaves(&listed);
    let exposed = exposed(&listed, wanted.server_version >= 130_000);
    let tables = publishable(listed, wanted.server_version >= 130_000);
    let tables: Vec<Table> = tables.into_iter().map(|listed| listed.table).collect();
    let Some(found) = look_up(client, wanted, &operation).await? else {
        let exposed: Vec<&Exposed> = exposed.iter().filter(|exposed| tables.contains(&exposed.table)).collect();
        if !exposed.is_empty() {
            let (message, help) = breaks(&exposed);
            return Err(Error::operator(ErrorKind::Setup, operation, message).with_help(help));
        }
        if !wanted.create {
            return Err(Error::operator(ErrorKind::Setup, operation, "it does not exist, and `create` is false")
                .with_help(format!("create it: {}", creation_sql(wanted, &tables))));
        }
        sql::rows(client, &operation, &creation_sql(wanted, &tables)).await?;
        tracing::info!(publication = wanted.publication, tables = tables.len(), "created the publication");
        // No mark: a slot that is older than its publication was not made by a first run of ours.
        return Ok(None);
    };
    check_operations(&found, wanted, &operation)?;
    if !found.pubviaroot && wanted.server_version >= 130_000 && !halved.is_empty() {
        let message = format!(
            "it publishes partitions under their own names, and `tables` asks for {} without its partitions: nothing of them \
             would be captured",
            table_list(&halved)
        );
        let fix = format!("ALTER PUBLICATION {} SET (publish_via_partition_root = true);", ident(wanted.publication));
        return Err(Error::operator(ErrorKind::Setup, operation, message)
            .with_help(format!("its owner runs: {fix} (or `tables` names the partitions)")));
    }
    if !found.puballtables {
        add_missing(client, wanted, &found, &tables, &exposed, &operation).await?;
    }
    warn_of_filters(client, wanted, &operation).await?;
    mark(client, wanted.publication, wanted.slot).await
}

async fn look_up(client: &Client, wanted: &Wanted<'_>, operation: &str) -> Result<Option<Publication>> {
    let query = format!(
        "SELECT pg_catalog.row_to_json(p) FROM pg_catalog.pg_publication p WHERE p.pubname = {}",
        literal(wanted.publication)
    );
    let rows = sql::rows(client, operation, &query).await?;
    let Some(row) = rows.first() else { return Ok(None) };
    serde_json::from_str(sql::text(row, 0)).map(Some).map_err(|error| Error::bug(operation, error))
}

/// The tables that the config matches, as a publication lists them: the root of a partitioned table for all of it, and
/// before PostgreSQL 13, which cannot publish a root, its leaves.
pub(crate) async fn wanted_tables(client: &Client, selection: &Selection, by_root: bool) -> Result<Vec<Listed>> {
    Ok(publishable(list_tables(client, selection).await?, by_root))
}

/// As the server finds a row's identity (`RelationGetIndexList`): where there is none, UPDATE and DELETE on a published table fail.
pub(crate) const WITHOUT_IDENTITY: &str = "c.relkind = 'r' AND (c.relreplident = 'n' OR c.relreplident IN ('d', 'i') AND NOT EXISTS \
     (SELECT FROM pg_catalog.pg_index x WHERE x.indrelid = c.oid AND x.indisvalid AND x.indimmediate \
     AND CASE c.relreplident WHEN 'd' THEN x.indisprimary ELSE x.indisreplident END))";

async fn list_tables(client: &Client, selection: &Selection) -> Result<Vec<Listed>> {
    let query = format!(
        "SELECT c.oid, n.nspname, c.relname, c.relkind, i.inhparent, {WITHOUT_IDENTITY} FROM pg_catalog.pg_class c \
         JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
         LEFT JOIN pg_catalog.pg_inherits i ON c.relispartition AND i.inhrelid = c.oid \
         WHERE c.relkind IN ('r', 'p') AND c.relpersistence = 'p' AND n.nspname !~ '^pg_' ORDER BY n.nspname, c.relname"
    );
    let rows = sql::rows(client, "listing the tables", &query).await?;
    let tables = rows
        .iter()
        .map(|row| {
            let [oid, schema, name, kind, parent] = [0, 1, 2, 3, 4].map(|column| sql::text(row, column).to_owned());
            let selected = selection.matches(&schema, &name);
            Listed {
                oid,
                parent: (!parent.is_empty()).then_some(parent),
                table: (schema, name),
                root: kind == "p",
                selected,
                without_identity: sql::text(row, 5) == "t",
            }
        })
        .collect();
    Ok(tables)
}

pub(crate) struct Listed {
    pub(crate) oid: String,
    parent: Option<String>,
    pub(crate) table: Table,
    /// A partitioned table, which holds no rows of its own.
    root: bool,
    selected: bool,
    /// Once it is published, nobody can update it or delete from it.
    without_identity: bool,
}

/// Partitioned tables that are selected, and of which a leaf is not by its own name.
fn roots_with_unselected_leaves(tables: &[Listed]) -> Vec<Table> {
    let halved = |root: &&Listed| {
        root.root
            && root.selected
            && tables.iter().any(|leaf| !leaf.root && !leaf.selected && is_below(leaf, root, tables))
    };
    tables.iter().filter(halved).map(|root| root.table.clone()).collect()
}

fn is_below(table: &Listed, root: &Listed, tables: &[Listed]) -> bool {
    let mut parent = table.parent.as_ref();
    while let Some(oid) = parent.filter(|oid| **oid != root.oid) {
        parent = tables.iter().find(|other| other.oid == *oid).and_then(|ancestor| ancestor.parent.as_ref());
    }
    parent.is_some()
}

/// A table that is not to be published, and the one that stands in the way: itself, or a partition of it.
struct Exposed {
    table: Table,
    culprit: Table,
}

/// Of the tables that are to be published, those that would break for every application.
fn exposed(tables: &[Listed], by_root: bool) -> Vec<Exposed> {
    let by_oid: HashMap<&str, &Listed> = tables.iter().map(|table| (table.oid.as_str(), table)).collect();
    // Publishing a root publishes what is below it.
    let mut through: HashMap<&str, &Listed> = HashMap::new();
    for culprit in tables.iter().filter(|table| table.without_identity) {
        let mut at = Some(culprit);
        while let Some(table) = at {
            through.entry(&table.oid).or_insert(culprit);
            at = table.parent.as_deref().and_then(|parent| by_oid.get(parent).copied());
        }
    }
    let wanted = tables.iter().filter(|table| table.selected || !by_root);
    let exposed = |table: &Listed| {
        let culprit = through.get(table.oid.as_str())?;
        Some(Exposed { table: table.table.clone(), culprit: culprit.table.clone() })
    };
    wanted.filter_map(exposed).collect()
}

fn breaks(exposed: &[&Exposed]) -> (String, String) {
    let mut culprits: Vec<&Table> = exposed.iter().map(|exposed| &exposed.culprit).collect();
    culprits.sort();
    culprits.dedup();
    let names: Vec<String> = culprits.iter().map(|(schema, name)| format!("{schema}.{name}")).collect();
    let (names, has) = (names.join(", "), if names.len() == 1 { "has" } else { "have" });
    let message = format!(
        "{names} {has} no usable REPLICA IDENTITY: once published, UPDATE and DELETE fail there for every application"
    );
    let fix = |(schema, name): &&Table| format!("ALTER TABLE {} REPLICA IDENTITY FULL;", qualified(schema, name));
    let fixes: Vec<String> = culprits.iter().map(fix).collect();
    (message, format!("a primary key, or the owner runs: {} Or `tables` names the others", fixes.join(" ")))
}

fn publishable(tables: Vec<Listed>, by_root: bool) -> Vec<Listed> {
    let ancestor_selected = |table: &Listed| {
        let mut parent = table.parent.as_ref();
        while let Some(oid) = parent {
            match tables.iter().find(|other| other.oid == *oid) {
                Some(ancestor) if ancestor.selected => return true,
                Some(ancestor) => parent = ancestor.parent.as_ref(),
                None => return false,
            }
        }
        false
    };
    let wanted = |table: &Listed| match by_root {
        true => table.selected && !ancestor_selected(table),
        false => !table.root && (table.selected || ancestor_selected(table)),
    };
    let wanted: Vec<bool> = tables.iter().map(wanted).collect();
    tables.into_iter().zip(wanted).filter_map(|(table, wanted)| wanted.then_some(table)).collect()
}

fn creation_sql(wanted: &Wanted<'_>, tables: &[Table]) -> String {
    let list = if tables.is_empty() { String::new() } else { format!(" FOR TABLE {}", table_list(tables)) };
    let by_root = if wanted.server_version >= 130_000 { " WITH (publish_via_partition_root = true)" } else { "" };
    format!("CREATE PUBLICATION {}{list}{by_root};", ident(wanted.publication))
}

fn addition_sql(publication: &str, tables: &[Table]) -> String {
    format!("ALTER PUBLICATION {} ADD TABLE {};", ident(publication), table_list(tables))
}

fn table_list(tables: &[Table]) -> String {
    tables.iter().map(|(schema, name)| qualified(schema, name)).collect::<Vec<_>>().join(", ")
}

fn check_operations(found: &Publication, wanted: &Wanted<'_>, operation: &str) -> Result<()> {
    let published = [
        ("insert", found.pubinsert),
        ("update", found.pubupdate),
        ("delete", found.pubdelete),
        ("truncate", found.pubtruncate),
    ];
    let omitted: Vec<_> = published.iter().filter(|(_, published)| !published).map(|(name, _)| *name).collect();
    if omitted.is_empty() {
        return Ok(());
    }
    let all =
        if wanted.server_version >= 110_000 { "insert, update, delete, truncate" } else { "insert, update, delete" };
    let message = format!("it leaves out {}: such changes would be missing", omitted.join(", "));
    let fix = format!("ALTER PUBLICATION {} SET (publish = '{all}');", ident(wanted.publication));
    if !wanted.create {
        return Err(Error::operator(ErrorKind::Setup, operation, message).with_help(format!("its owner runs: {fix}")));
    }
    tracing::warn!(publication = wanted.publication, fix, "{message}");
    Ok(())
}

async fn add_missing(
    client: &Client,
    wanted: &Wanted<'_>,
    found: &Publication,
    tables: &[Table],
    exposed: &[Exposed],
    operation: &str,
) -> Result<()> {
    let query = format!(
        "SELECT schemaname, tablename FROM pg_catalog.pg_publication_tables WHERE pubname = {}",
        literal(wanted.publication)
    );
    let rows = sql::rows(client, operation, &query).await?;
    let published: Vec<Table> =
        rows.iter().map(|row| (sql::text(row, 0).to_owned(), sql::text(row, 1).to_owned())).collect();
    let mut missing: Vec<Table> = tables.iter().filter(|table| !published.contains(table)).cloned().collect();
    if !found.pubviaroot && wanted.server_version >= 130_000 {
        // The view then shows the leaves of a published root, and the stream names them.
        missing = without_published_roots(client, wanted, missing, operation).await?;
    }
    let exposed: Vec<&Exposed> = exposed.iter().filter(|exposed| missing.contains(&exposed.table)).collect();
    if !exposed.is_empty() {
        let (message, help) = breaks(&exposed);
        if wanted.first_run {
            return Err(Error::operator(ErrorKind::Setup, operation, message).with_help(help));
        }
        tracing::warn!("not added to the publication: {message}; {help}");
        missing.retain(|table| !exposed.iter().any(|exposed| exposed.table == *table));
    }
    if missing.is_empty() {
        return Ok(());
    }
    let fix = addition_sql(wanted.publication, &missing);
    if !wanted.create && !wanted.first_run {
        tracing::warn!(fix, "the publication does not publish {}, which the config asks for", table_list(&missing));
        return Ok(());
    }
    if !wanted.create {
        let message = format!("it does not publish {}, which the config asks for", table_list(&missing));
        return Err(Error::operator(ErrorKind::Setup, operation, message)
            .with_help(format!("the owner of the publication and the tables runs: {fix}")));
    }
    match sql::rows(client, operation, &fix).await {
        Err(error) if error.kind == ErrorKind::Privilege && !wanted.first_run => {
            tracing::warn!(fix, "{} cannot be added to the publication: {}", table_list(&missing), error.message);
            return Ok(());
        }
        Err(error) if error.kind == ErrorKind::Privilege => {
            return Err(error.with_help(format!("the owner of the publication and the tables runs: {fix}")));
        }
        added => added?,
    };
    tracing::info!(publication = wanted.publication, tables = table_list(&missing), "added tables to the publication");
    Ok(())
}

async fn without_published_roots(
    client: &Client,
    wanted: &Wanted<'_>,
    missing: Vec<Table>,
    operation: &str,
) -> Result<Vec<Table>> {
    let query = format!(
        "SELECT n.nspname, c.relname FROM pg_catalog.pg_publication_rel r \
         JOIN pg_catalog.pg_publication p ON p.oid = r.prpubid JOIN pg_catalog.pg_class c ON c.oid = r.prrelid \
         JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind = 'p' AND p.pubname = {}",
        literal(wanted.publication)
    );
    let rows = sql::rows(client, operation, &query).await?;
    let roots: Vec<Table> =
        rows.iter().map(|row| (sql::text(row, 0).to_owned(), sql::text(row, 1).to_owned())).collect();
    if !roots.is_empty() {
        let fix = format!("ALTER PUBLICATION {} SET (publish_via_partition_root = true);", ident(wanted.publication));
        tracing::warn!(
            publication = wanted.publication,
            fix,
            "it publishes partitions under their own names: only those that `tables` matches are captured"
        );
    }
    Ok(missing.into_iter().filter(|table| !roots.contains(table)).collect())
}

/// Row filters and column lists (PostgreSQL 15+) are somebody's choice; what they leave out is missing from the events.
async fn warn_of_filters(client: &Client, wanted: &Wanted<'_>, operation: &str) -> Result<()> {
    if wanted.server_version < 150_000 {
        return Ok(());
    }
    let query = format!(
        "SELECT n.nspname, c.relname, r.prqual IS NOT NULL, r.prattrs IS NOT NULL FROM pg_catalog.pg_publication_rel r \
         JOIN pg_catalog.pg_publication p ON p.oid = r.prpubid JOIN pg_catalog.pg_class c ON c.oid = r.prrelid \
         JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
         WHERE p.pubname = {} AND (r.prqual IS NOT NULL OR r.prattrs IS NOT NULL)",
        literal(wanted.publication)
    );
    for row in sql::rows(client, operation, &query).await? {
        tracing::warn!(
            publication = wanted.publication,
            table = format!("{}.{}", sql::text(&row, 0), sql::text(&row, 1)),
            row_filter = sql::text(&row, 2) == "t",
            column_list = sql::text(&row, 3) == "t",
            "the publication leaves out rows or columns of a captured table"
        );
    }
    Ok(())
}

async fn comment(client: &Client, publication: &str) -> Result<String> {
    let query = format!(
        "SELECT pg_catalog.obj_description(oid, 'pg_publication') FROM pg_catalog.pg_publication WHERE pubname = {}",
        literal(publication)
    );
    let rows = sql::rows(client, "reading the publication's comment", &query).await?;
    Ok(rows.first().map(|row| sql::text(row, 0).to_owned()).unwrap_or_default())
}

/// Where an earlier first run of this slot was.
pub(crate) async fn mark(client: &Client, publication: &str, slot: &str) -> Result<Option<Mark>> {
    Ok(Mark::parse(&comment(client, publication).await?, slot))
}

/// Notes on the publication where the first run is. Somebody else's comment is left alone; so is a publication that is not
/// ours to comment on: then a first run that ends at once must be acknowledged as a gap, which loses nothing.
pub(crate) async fn set_mark(client: &Client, publication: &str, slot: &str, mark: Mark) -> Result<()> {
    if !Mark::is_ours(&comment(client, publication).await?) {
        return Ok(());
    }
    let query = format!("COMMENT ON PUBLICATION {} IS {}", ident(publication), literal(&mark.text(slot)));
    match sql::rows(client, "noting the first run on the publication", &query).await {
        Err(error) if error.kind != ErrorKind::Privilege => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(oid: &str, parent: Option<&str>, root: bool, selected: bool) -> Listed {
        let table = ("s".to_owned(), format!("t{oid}"));
        Listed { oid: oid.into(), parent: parent.map(str::to_owned), table, root, selected, without_identity: false }
    }

    fn names(tables: &[(&str, Option<&str>, bool, bool)], by_root: bool) -> Vec<String> {
        let tables = tables.iter().map(|(oid, parent, root, selected)| listed(oid, *parent, *root, *selected));
        publishable(tables.collect(), by_root).into_iter().map(|listed| listed.table.1).collect()
    }

    #[test]
    fn a_partitioned_table_is_published_by_its_root_or_else_by_its_leaves() {
        let tables = [
            ("1", None, false, true),
            ("2", None, true, true),
            ("3", Some("2"), true, false),
            ("4", Some("3"), false, true),
            ("5", Some("2"), false, false),
            ("6", None, false, false),
        ];
        assert_eq!(names(&tables, true), ["t1", "t2"]);
        assert_eq!(names(&tables, false), ["t1", "t4", "t5"]);
    }

    #[test]
    fn a_root_whose_leaves_are_not_all_selected_is_found() {
        let tables = |leaf_selected| {
            [
                listed("1", None, true, true),
                listed("2", Some("1"), true, false),
                listed("3", Some("2"), false, leaf_selected),
            ]
        };
        assert_eq!(roots_with_unselected_leaves(&tables(false)), [("s".to_owned(), "t1".to_owned())]);
        assert_eq!(roots_with_unselected_leaves(&tables(true)), []);
    }

    #[test]
    fn a_leaf_that_is_asked_for_alone_is_published_alone() {
        let tables = [("2", None, true, false), ("4", Some("2"), false, true), ("5", Some("2"), false, false)];
        assert_eq!(names(&tables, true), ["t4"]);
        assert_eq!(names(&tables, false), ["t4"]);
    }

    #[test]
    fn names_are_quoted() {
        let selection = Selection::new(&[]);
        let wanted = Wanted {
            publication: "My \"pub\"",
            slot: "s",
            selection: &selection,
            create: true,
            first_run: true,
            server_version: 150_000,
        };
        assert_eq!(
            creation_sql(&wanted, &[("A b".into(), "c\"d".into())]),
            r#"CREATE PUBLICATION "My ""pub""" FOR TABLE "A b"."c""d" WITH (publish_via_partition_root = true);"#
        );
        let old = Wanted { server_version: 120_000, ..wanted };
        assert_eq!(creation_sql(&old, &[]), r#"CREATE PUBLICATION "My ""pub""";"#);
    }
}
