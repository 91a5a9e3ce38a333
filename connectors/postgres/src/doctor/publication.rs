//! The publication and the replication slot.

use std::collections::HashSet;

use serde_json::Value;
use tokio_postgres::SimpleQueryRow;
use towpath_contract::{Finding, Result, Severity};

use super::{Mended, SUPERUSER, Subject, bytes_text, finding};
use crate::catalog::{Captured, CapturedTable};
use crate::sql::{self, ident, literal};

/// A row of the catalogue as JSON: columns come and go from version to version.
async fn as_json(subject: &Subject<'_>, operation: &str, query: &str) -> Result<Option<Value>> {
    let rows = sql::rows(subject.client, operation, query).await?;
    let parsed = |row: &SimpleQueryRow| serde_json::from_str(sql::text(row, 0)).ok();
    Ok(rows.first().and_then(parsed))
}

pub(super) async fn publication(subject: &Subject<'_>, captured: &Captured) -> Result<Vec<Finding>> {
    let name = &subject.facts.publication;
    let query = format!("SELECT row_to_json(p) FROM pg_publication p WHERE pubname = {}", literal(name));
    let Some(row) = as_json(subject, "reading the publication", &query).await? else {
        return missing(subject, captured).await;
    };
    let owner = format!("the owner of the publication {name}");
    let mut found = Vec::new();
    let omitted: Vec<&str> =
        [("pubinsert", "insert"), ("pubupdate", "update"), ("pubdelete", "delete"), ("pubtruncate", "truncate")]
            .iter()
            .filter(|(column, _)| row[*column] == Value::Bool(false))
            .map(|(_, operation)| *operation)
            .collect();
    if !omitted.is_empty() {
        let message = format!("the publication {name} leaves out {}: such changes will be missing", omitted.join(", "));
        let truncate = if subject.facts.version >= 110_000 { ", truncate" } else { "" };
        let fix = format!("ALTER PUBLICATION {} SET (publish = 'insert, update, delete{truncate}');", ident(name));
        found.push(finding(Severity::Error, "publication_operations", message).mended_by(fix, owner.as_str()));
    }
    let all_tables = row["puballtables"] == Value::Bool(true);
    if !all_tables {
        found.extend(missing_tables(subject, captured, &owner).await?);
    }
    if row["pubviaroot"] == Value::Bool(false) && has_partitions(subject).await? {
        let message =
            format!("the publication {name} publishes partitions under their own names, not under their table's");
        let fix = format!("ALTER PUBLICATION {} SET (publish_via_partition_root = true);", ident(name));
        found.push(finding(Severity::Note, "publication_via_root", message).mended_by(fix, owner.as_str()));
    }
    if subject.facts.version >= 150_000 {
        found.extend(filters(subject).await?);
    }
    Ok(found)
}

async fn has_partitions(subject: &Subject<'_>) -> Result<bool> {
    let query = format!(
        "SELECT count(*) > 0 FROM pg_publication_tables p JOIN pg_namespace n ON n.nspname = p.schemaname \
         JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = p.tablename WHERE c.relispartition AND p.pubname = {}",
        literal(&subject.facts.publication)
    );
    Ok(sql::is_true(&sql::row(subject.client, "looking for partitions", &query).await?, 0))
}

/// Towpath makes it on its first run, where it may.
async fn missing(subject: &Subject<'_>, captured: &Captured) -> Result<Vec<Finding>> {
    let name = &subject.facts.publication;
    let oids: Vec<String> = captured.tables.iter().map(|table| table.oid.to_string()).collect();
    let query = format!(
        "SELECT has_database_privilege(current_database(), 'CREATE'), quote_ident(current_database()), \
         (SELECT count(*) FROM pg_class WHERE oid = ANY ('{{{}}}'::oid[]) AND NOT pg_has_role(relowner, 'USAGE'))",
        oids.join(",")
    );
    let row = sql::row(subject.client, "looking at what the role may publish", &query).await?;
    let (may_create, foreign) = (sql::is_true(&row, 0), sql::text(&row, 2));
    if subject.config.create && may_create && foreign == "0" {
        return Ok(Vec::new());
    }
    let why = match (subject.config.create, may_create) {
        (false, _) => "and `create` is false".to_owned(),
        (true, false) => format!("and the role {} may not create it", subject.facts.role),
        (true, true) => format!("and the role {} does not own {foreign} of its tables", subject.facts.role),
    };
    let via_root = if subject.facts.version >= 130_000 { " WITH (publish_via_partition_root = true)" } else { "" };
    let tables =
        if captured.tables.is_empty() { String::new() } else { format!(" FOR TABLE {}", names(&captured.tables)) };
    let fix = format!("CREATE PUBLICATION {}{tables}{via_root};", ident(name));
    let message = format!("the publication {name} does not exist, {why}");
    let who = "the owner of the tables, with CREATE on the database";
    Ok(vec![finding(Severity::Error, "publication_missing", message).mended_by(fix, who)])
}

async fn missing_tables(subject: &Subject<'_>, captured: &Captured, owner: &str) -> Result<Option<Finding>> {
    let name = &subject.facts.publication;
    let query = format!("SELECT schemaname, tablename FROM pg_publication_tables WHERE pubname = {}", literal(name));
    let rows = sql::rows(subject.client, "reading the publication's tables", &query).await?;
    let published: HashSet<(&str, &str)> = rows.iter().map(|row| (sql::text(row, 0), sql::text(row, 1))).collect();
    let is_missing = |table: &&CapturedTable| !published.contains(&(table.schema.as_str(), table.name.as_str()));
    let missing: Vec<CapturedTable> = captured.tables.iter().filter(is_missing).cloned().collect();
    if missing.is_empty() {
        return Ok(None);
    }
    let listed = missing.iter().map(CapturedTable::full_name).collect::<Vec<_>>().join(", ");
    let oids: Vec<String> = missing.iter().map(|table| table.oid.to_string()).collect();
    let query = format!(
        "SELECT pg_has_role(pubowner, 'USAGE') AND NOT EXISTS (SELECT FROM pg_class WHERE oid = ANY ('{{{}}}'::oid[]) \
         AND NOT pg_has_role(relowner, 'USAGE')) FROM pg_publication WHERE pubname = {}",
        oids.join(","),
        literal(name)
    );
    let row = sql::row(subject.client, "looking at what the role may publish", &query).await?;
    let may_add = subject.config.create && sql::is_true(&row, 0);
    let (severity, then) = match may_add {
        true => (Severity::Note, "Towpath adds them when it starts"),
        false => (Severity::Error, "their changes will be missing"),
    };
    let message = format!("the publication {name} does not publish {listed}: {then}");
    let fix = format!("ALTER PUBLICATION {} ADD TABLE {};", ident(name), names(&missing));
    let who = format!("{owner} and the tables");
    Ok(Some(finding(severity, "publication_tables", message).mended_by(fix, who)))
}

fn names(tables: &[CapturedTable]) -> String {
    tables.iter().map(CapturedTable::sql_name).collect::<Vec<_>>().join(", ")
}

/// Row filters and column lists are somebody's choice, and worth knowing.
async fn filters(subject: &Subject<'_>) -> Result<Vec<Finding>> {
    let name = &subject.facts.publication;
    let query = format!(
        "SELECT pr.prrelid::regclass, pr.prqual IS NOT NULL, pr.prattrs IS NOT NULL FROM pg_publication_rel pr \
         JOIN pg_publication p ON p.oid = pr.prpubid WHERE p.pubname = {} AND (pr.prqual IS NOT NULL OR pr.prattrs IS NOT NULL)",
        literal(name)
    );
    let rows = sql::rows(subject.client, "reading the publication's filters", &query).await?;
    let found = rows.iter().map(|row| {
        let table = sql::text(row, 0);
        let (code, what) = match (sql::is_true(row, 1), sql::is_true(row, 2)) {
            (true, true) => ("publication_filter", "some rows and some columns"),
            (true, false) => ("publication_filter", "some rows"),
            _ => ("publication_columns", "some columns"),
        };
        // No statement for it. A table that is set anew gets another entry, in one transaction too, and by SET TABLE no less: that
        // cannot be told from one that was left out for a while.
        let message = format!(
            "the publication {name} publishes only {what} of {table}: events and snapshots have no more. Once it is \
             captured, changing that is a gap: the source stops until `towpath snapshot {} --after-gap` reads every table again",
            subject.source
        );
        finding(Severity::Note, code, message)
    });
    Ok(found.collect())
}

/// Behind by more than this, a slot that nobody reads is worth a warning.
const FAR_BEHIND_BYTES: i64 = 1 << 30;

pub(super) async fn slot(subject: &Subject<'_>) -> Result<Vec<Finding>> {
    let name = &subject.facts.slot;
    let query = format!(
        "SELECT row_to_json(s) FROM (SELECT *, pg_wal_lsn_diff(CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() \
         ELSE pg_current_wal_lsn() END, restart_lsn)::bigint AS behind, current_database() AS here \
         FROM pg_replication_slots WHERE slot_name = {}) s",
        literal(name)
    );
    // Before the first run there is none.
    let Some(row) = as_json(subject, "reading the slot", &query).await? else { return no_slot(subject) };
    let text = |column: &str| row[column].as_str().unwrap_or_default();
    let drop = format!("SELECT pg_drop_replication_slot({});", literal(name));
    let mut found = Vec::new();
    if text("plugin") != "pgoutput" || text("database") != text("here") {
        let message = format!(
            "the slot {name} is of the plugin {} and the database {}: Towpath needs its own, with pgoutput, in {}",
            if text("plugin").is_empty() { "none" } else { text("plugin") },
            if text("database").is_empty() { "none" } else { text("database") },
            text("here")
        );
        let fix = "slot: another_name # in the source's config";
        found.push(finding(Severity::Error, "slot_foreign", message).mended_by(fix, "whoever writes Towpath's config"));
        return Ok(found);
    }
    let lost = text("wal_status") == "lost"
        || row["invalidation_reason"].is_string()
        || row["conflicting"] == Value::Bool(true);
    if lost {
        found.push(lost_slot(subject, drop));
        return Ok(found);
    }
    let behind = row["behind"].as_i64().unwrap_or(0);
    let kept = bytes_text(behind.max(0) as u64);
    if text("wal_status") == "unreserved" {
        let message = format!(
            "the slot {name} is about to be lost: it keeps {kept} of log, more than max_slot_wal_keep_size allows"
        );
        let fix = "ALTER SYSTEM SET max_slot_wal_keep_size = -1; SELECT pg_reload_conf();";
        found.push(finding(Severity::Error, "slot_at_risk", message).mended_by(fix, SUPERUSER));
    }
    let active = row["active_pid"].as_i64();
    if let Some(pid) = active {
        let message =
            format!("the slot {name} is in use by process {pid}: fine if that is Towpath, else Towpath cannot start");
        let fix =
            format!("SELECT application_name, client_addr, backend_start FROM pg_stat_replication WHERE pid = {pid};");
        found.push(finding(Severity::Note, "slot_active", message).mended_by(fix, "anybody, to see who it is"));
    } else if behind > FAR_BEHIND_BYTES {
        let message = format!(
            "nobody reads the slot {name}, and it keeps {kept} of log on the server's disk: start Towpath, or drop it"
        );
        found.push(
            finding(Severity::Warning, "slot_behind", message)
                .mended_by(drop, "Towpath's role or a superuser, if it is not needed any more"),
        );
    }
    Ok(found)
}

/// Towpath makes it anew when a person accepts the gap, if it may.
fn lost_slot(subject: &Subject<'_>, drop: String) -> Finding {
    let (name, accept) = (&subject.facts.slot, format!("towpath snapshot {} --after-gap", subject.source));
    let lost =
        format!("the slot {name} is lost: the server has removed log that was not read yet, and the changes in it");
    if subject.config.create {
        let message = format!("{lost}. Towpath makes another one and reads every table again, when it is told to");
        return finding(Severity::Error, "slot_lost", message).mended_by(accept, "whoever runs Towpath");
    }
    let message = format!("{lost}. Make it anew, then run `{accept}`, which reads every table again");
    let fix = format!("{drop} {}", crate::slot::by_hand_sql(name, &subject.facts.publication));
    finding(Severity::Error, "slot_lost", message)
        .mended_by(fix, "the owner of the publication, with REPLICATION, in this database")
}

fn no_slot(subject: &Subject<'_>) -> Result<Vec<Finding>> {
    if subject.config.create {
        return Ok(Vec::new());
    }
    let name = &subject.facts.slot;
    let fix = crate::slot::by_hand_sql(name, &subject.facts.publication);
    let message = format!("the slot {name} does not exist, and `create` is false. Make it after the publication");
    Ok(vec![
        finding(Severity::Error, "slot_missing", message)
            .mended_by(fix, "the owner of the publication, with REPLICATION, in this database"),
    ])
}
