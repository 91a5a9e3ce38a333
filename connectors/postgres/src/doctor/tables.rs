//! The captured tables: rights, keys, what is left out.

use towpath_contract::{Finding, Result, Severity};

use super::identity::{identity, partitions};
use super::{Mended, Subject, finding};
use crate::catalog::{Captured, CapturedTable, LeftOut, Reason};
use crate::config::SnapshotMode;
use crate::coverage;
use crate::selection::Selection;
use crate::sql::{self, ident, qualified};

/// What the patterns select, or do not.
pub(super) fn selection(subject: &Subject<'_>, captured: &Captured) -> Vec<Finding> {
    let mut found = Vec::new();
    for pattern in &captured.unmatched {
        let message = format!("`tables` has {pattern}, and the database has no such table");
        found.push(
            finding(Severity::Warning, "pattern_without_table", message)
                .mended_by("remove it from `tables`, or correct it", "whoever writes Towpath's config"),
        );
    }
    if captured.tables.is_empty() {
        let message = format!("`tables` selects no table that can be captured ({})", subject.config.tables.join(", "));
        found.push(finding(Severity::Error, "no_table", message));
    }
    found.extend(captured.left_out.iter().filter_map(left_out));
    found
}

/// A capture refuses them.
pub(super) async fn unlogged_parts(subject: &Subject<'_>) -> Result<Vec<Finding>> {
    let selection = Selection::new(&subject.config.tables);
    let parts = coverage::unlogged_parts(subject.client, &selection).await?;
    let found = |name: &String| {
        let message = format!("{name} is an unlogged partition: its changes are not in the log");
        finding(Severity::Error, "unlogged_partition", message)
            .mended_by(format!("ALTER TABLE {name} SET LOGGED;"), format!("the owner of {name}"))
    };
    Ok(parts.values().map(found).collect())
}

fn left_out(relation: &LeftOut) -> Option<Finding> {
    let name = format!("{}.{}", relation.schema, relation.name);
    let (what, fix) = match relation.reason {
        Reason::Unlogged => {
            let fix = format!("ALTER TABLE {} SET LOGGED;", qualified(&relation.schema, &relation.name));
            ("an unlogged table: its changes are not in the log", Some(fix))
        }
        Reason::Foreign => ("a foreign table: its changes are in another server's log", None),
        // A pattern with a star does not mean views.
        Reason::View | Reason::MaterializedView if !relation.named => return None,
        Reason::View => ("a view: capture the tables that it reads", None),
        Reason::MaterializedView => {
            ("a materialized view, whose refreshes are not replicated: capture the tables that it reads", None)
        }
    };
    let severity = if relation.named { Severity::Warning } else { Severity::Note };
    let found = finding(severity, "not_capturable", format!("{name} is left out: it is {what}"));
    Some(match fix {
        Some(fix) => found.mended_by(fix, format!("the owner of {name}")),
        None => found,
    })
}

/// What is asked about one table.
pub(super) struct Table<'a> {
    pub(super) table: &'a CapturedTable,
    pub(super) owner: String,
    schema_owner: String,
    may_use_schema: bool,
    may_select: bool,
    row_security: bool,
    pub(super) has_primary_key: bool,
    /// The index that `REPLICA IDENTITY USING INDEX` named is still there.
    pub(super) has_identity_index: bool,
}

pub(super) async fn each(subject: &Subject<'_>, captured: &Captured) -> Result<Vec<Finding>> {
    let mut found = Vec::new();
    // Thousands of tables fit one statement, not all of a large legacy schema.
    for tables in captured.tables.chunks(1000) {
        let mut of_schemas = Vec::new();
        let looked_up = look_up(subject, tables).await?;
        found.extend(partitions(subject, &looked_up).await?);
        for table in looked_up {
            if !table.may_use_schema && !of_schemas.contains(&table.table.schema) {
                of_schemas.push(table.table.schema.clone());
                found.push(schema_right(subject, &table));
            }
            found.extend(table_rights(subject, &table));
            found.extend(identity(subject, &table));
            found.extend(key(subject, &table));
        }
    }
    Ok(found)
}

async fn look_up<'a>(subject: &Subject<'_>, tables: &'a [CapturedTable]) -> Result<Vec<Table<'a>>> {
    if tables.is_empty() {
        return Ok(Vec::new());
    }
    let operation = "looking at the tables' keys and rights";
    let list: Vec<String> = tables.iter().map(|table| table.oid.to_string()).collect();
    // `row_security_active` would be an error without USAGE on the schema: decided from the flags instead.
    let query = format!(
        "SELECT c.oid, pg_get_userbyid(c.relowner), pg_get_userbyid(n.nspowner), has_schema_privilege(n.oid, 'USAGE'), \
           has_table_privilege(c.oid, 'SELECT'), \
           c.relrowsecurity AND NOT own.rolbypassrls AND NOT own.rolsuper \
             AND (c.relforcerowsecurity OR NOT pg_has_role(c.relowner, 'USAGE')), \
           EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisprimary AND i.indisvalid AND i.indimmediate), \
           EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisreplident AND i.indisvalid) \
         FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_roles own ON own.rolname = current_user \
         WHERE c.oid IN ({})",
        list.join(", ")
    );
    let mut looked_up = Vec::with_capacity(tables.len());
    for row in sql::rows(subject.client, operation, &query).await? {
        let oid: u32 = sql::number(operation, &row, 0)?;
        let Some(table) = tables.iter().find(|table| table.oid == oid) else { continue };
        looked_up.push(Table {
            table,
            owner: sql::text(&row, 1).to_owned(),
            schema_owner: sql::text(&row, 2).to_owned(),
            may_use_schema: sql::is_true(&row, 3),
            may_select: sql::is_true(&row, 4),
            row_security: sql::is_true(&row, 5),
            has_primary_key: sql::is_true(&row, 6),
            has_identity_index: sql::is_true(&row, 7),
        });
    }
    looked_up.sort_by_key(|looked_up| tables.iter().position(|table| table.oid == looked_up.table.oid));
    Ok(looked_up)
}

/// Only snapshots select; the stream needs no right on the tables.
fn severity_of_rights(subject: &Subject<'_>) -> Severity {
    match subject.config.snapshot.mode {
        SnapshotMode::Initial => Severity::Error,
        SnapshotMode::Never => Severity::Note,
    }
}

fn schema_right(subject: &Subject<'_>, table: &Table<'_>) -> Finding {
    let schema = &table.table.schema;
    let message = format!("the role {} may not use the schema {schema}: its tables cannot be read", subject.facts.role);
    let fix = format!("GRANT USAGE ON SCHEMA {} TO {};", ident(schema), subject.facts.role_ident());
    let who = format!("the owner of the schema {schema} ({})", table.schema_owner);
    finding(severity_of_rights(subject), "schema_usage", message).mended_by(fix, who)
}

fn table_rights(subject: &Subject<'_>, table: &Table<'_>) -> Vec<Finding> {
    let name = table.table.full_name();
    let role = &subject.facts.role;
    let mut found = Vec::new();
    if !table.may_select {
        let message = format!("the role {role} may not read {name}: its snapshot cannot be made");
        let fix = format!("GRANT SELECT ON {} TO {};", table.table.sql_name(), subject.facts.role_ident());
        found.push(
            finding(severity_of_rights(subject), "table_select", message)
                .mended_by(fix, format!("the owner of {name} ({})", table.owner)),
        );
    }
    if table.row_security {
        let message =
            format!("{name} has row-level security, which would hide rows from {role}: its snapshot is refused");
        let fix = format!("ALTER ROLE {} BYPASSRLS;", subject.facts.role_ident());
        found.push(finding(severity_of_rights(subject), "row_security", message).mended_by(fix, super::SUPERUSER));
    }
    found
}

fn key(subject: &Subject<'_>, table: &Table<'_>) -> Option<Finding> {
    if table.table.keyed || subject.config.snapshot.mode == SnapshotMode::Never {
        return None;
    }
    let rows = table.table.estimated_rows.map_or(String::new(), |rows| format!(" (about {rows} rows)"));
    let message = format!(
        "{}{rows} has no unique key in whose order it could be read: its snapshot is one long transaction, holds the stream \
         back, and begins again after a restart",
        table.table.full_name()
    );
    Some(finding(Severity::Note, "snapshot_as_a_whole", message))
}
