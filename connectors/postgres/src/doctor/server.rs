//! Settings, capacity, the role, and transactions that stand in the way.

use std::collections::HashMap;

use towpath_contract::{Finding, Result, Severity};

use super::{Mended, SUPERUSER, Subject, bytes_text, finding};
use crate::config::SnapshotMode;
use crate::sql;

/// Versions that the tests run against.
const VERSIONS: std::ops::Range<u32> = 100_000..190_000;

/// Settings as `pg_settings` gives them: numbers in the setting's own unit.
async fn read_settings(subject: &Subject<'_>) -> Result<HashMap<String, String>> {
    let query = "SELECT name, setting FROM pg_settings WHERE name IN ('wal_level', 'max_slot_wal_keep_size', \
                 'wal_sender_timeout', 'logical_decoding_work_mem', 'server_encoding', 'statement_timeout') \
                 UNION ALL SELECT 'in_recovery', pg_is_in_recovery()::text";
    let rows = sql::rows(subject.client, "reading the settings", query).await?;
    Ok(rows.iter().map(|row| (sql::text(row, 0).to_owned(), sql::text(row, 1).to_owned())).collect())
}

pub(super) async fn settings(subject: &Subject<'_>) -> Result<Vec<Finding>> {
    let settings = read_settings(subject).await?;
    let text = |name: &str| settings.get(name).map(String::as_str).unwrap_or_default();
    let number = |name: &str| text(name).parse::<i64>().ok();
    let version = subject.facts.version;
    let mut found = Vec::new();

    if version < VERSIONS.start {
        let message =
            format!("the server is of version {version}: PostgreSQL 10 is the oldest with logical replication");
        found.push(finding(Severity::Error, "server_version", message));
    } else if version >= VERSIONS.end {
        let message =
            format!("the server is of version {version}, newer than those that Towpath was tested with (10 to 18)");
        found.push(finding(Severity::Note, "server_version", message));
    }

    if text("wal_level") != "logical" {
        let message =
            format!("wal_level is {}: the log does not carry what logical replication needs", text("wal_level"));
        found.push(
            finding(Severity::Error, "wal_level", message)
                .mended_by("ALTER SYSTEM SET wal_level = 'logical'; -- then restart PostgreSQL", SUPERUSER),
        );
    }
    found.extend(standby(subject, text("in_recovery") == "true"));

    let outbox = bytes_text(subject.known.outbox_bytes_max);
    // 13+, in megabytes.
    match number("max_slot_wal_keep_size") {
        Some(-1) if version >= 130_000 => found.push(finding(
            Severity::Note,
            "max_slot_wal_keep_size",
            format!(
                "max_slot_wal_keep_size is unlimited: while Towpath is stopped, or its outbox ({outbox} at most) is full, the server \
                 keeps all its log for it, until the disk is full"
            ),
        )),
        Some(megabytes) if megabytes >= 0 => {
            let limit = bytes_text((megabytes as u64) << 20);
            let message = format!(
                "max_slot_wal_keep_size is {limit}: a broker that is down fills the outbox ({outbox} at most) first; when that is \
                 full, or Towpath is stopped, for longer than so much log takes, the slot is lost and changes with it (Towpath will \
                 say so)"
            );
            found.push(
                finding(Severity::Note, "max_slot_wal_keep_size", message)
                    .mended_by("ALTER SYSTEM SET max_slot_wal_keep_size = -1; SELECT pg_reload_conf();", SUPERUSER),
            );
        }
        _ => {}
    }
    // Milliseconds; 0 is off.
    if let Some(ms) = number("wal_sender_timeout").filter(|ms| (1..10_000).contains(ms)) {
        let message =
            format!("wal_sender_timeout is {ms} ms: a short stall of the network ends the replication connection");
        found.push(
            finding(Severity::Warning, "wal_sender_timeout", message)
                .mended_by("ALTER SYSTEM SET wal_sender_timeout = '60s'; SELECT pg_reload_conf();", SUPERUSER),
        );
    }
    // Kilobytes, 13+.
    if let Some(kilobytes) = number("logical_decoding_work_mem").filter(|kilobytes| *kilobytes < 16 << 10) {
        let message = format!(
            "logical_decoding_work_mem is {}: larger transactions are written to the server's disk, or streamed, early",
            bytes_text((kilobytes as u64) << 10)
        );
        found.push(
            finding(Severity::Note, "logical_decoding_work_mem", message)
                .mended_by("ALTER SYSTEM SET logical_decoding_work_mem = '64MB'; SELECT pg_reload_conf();", SUPERUSER),
        );
    }
    if text("server_encoding") == "SQL_ASCII" {
        found.push(finding(
            Severity::Warning,
            "server_encoding",
            "the database has no encoding (SQL_ASCII): text is passed on as the bytes it is, and rows whose text is not UTF-8 \
             are parked by formats that need UTF-8",
        ));
    }
    if number("statement_timeout").is_some_and(|ms| ms > 0) {
        let message =
            "statement_timeout is set for this role or database; Towpath turns it off for its snapshots' own sessions";
        found.push(finding(Severity::Note, "statement_timeout", message));
    }
    Ok(found)
}

fn standby(subject: &Subject<'_>, in_recovery: bool) -> Option<Finding> {
    if !in_recovery {
        return None;
    }
    let found = if subject.facts.version < 160_000 {
        finding(
            Severity::Error,
            "standby",
            "this server is a standby: before PostgreSQL 16 only a primary can decode its log",
        )
    } else if subject.config.snapshot.mode == SnapshotMode::Initial {
        let message = "this server is a standby: changes can be read from it, snapshots cannot";
        finding(Severity::Error, "standby", message)
    } else {
        finding(Severity::Note, "standby", "this server is a standby: snapshots on request cannot be made here")
    };
    Some(
        found.mended_by(
            "snapshot: { mode: never } # or the primary's address in `url`",
            "whoever writes Towpath's config",
        ),
    )
}

/// Slots and senders: one of each is needed.
pub(super) async fn capacity(subject: &Subject<'_>) -> Result<Vec<Finding>> {
    let operation = "counting slots and senders";
    let query = "SELECT (SELECT count(*) FROM pg_replication_slots), current_setting('max_replication_slots'), \
                 (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'walsender'), current_setting('max_wal_senders')";
    let row = sql::row(subject.client, operation, query).await?;
    let mut found = Vec::new();
    for (at, name, code, needed) in [
        (0, "max_replication_slots", "replication_slots", !subject.facts.slot_exists),
        (2, "max_wal_senders", "wal_senders", true),
    ] {
        let used: u64 = sql::number(operation, &row, at)?;
        let most: u64 = sql::number(operation, &row, at + 1)?;
        if needed && used >= most {
            let message = format!("{name} is {most}, and {used} are in use: none is left for Towpath");
            let fix = format!("ALTER SYSTEM SET {name} = {}; -- then restart PostgreSQL", used + 5);
            found.push(finding(Severity::Error, code, message).mended_by(fix, SUPERUSER));
        }
    }
    Ok(found)
}

pub(super) async fn role(subject: &Subject<'_>) -> Result<Vec<Finding>> {
    let facts = subject.facts;
    let mut found = Vec::new();
    if facts.superuser {
        let message =
            format!("the role {} is a superuser: REPLICATION and SELECT on the tables are enough", facts.role);
        found.push(finding(Severity::Note, "superuser", message));
        return Ok(found);
    }
    // Amazon RDS gives the right by membership.
    let query = "SELECT rolreplication OR EXISTS (SELECT FROM pg_roles managed WHERE managed.rolname = 'rds_replication' \
                 AND pg_has_role(own.oid, managed.oid, 'MEMBER')), pg_has_role(own.oid, 'pg_read_all_stats', 'USAGE'), \
                 EXISTS (SELECT FROM pg_roles WHERE rolname = 'rds_replication') \
                 FROM pg_roles own WHERE own.rolname = current_user";
    let row = sql::row(subject.client, "looking at the role", query).await?;
    if !sql::is_true(&row, 0) {
        let message = format!("the role {} may not replicate", facts.role);
        let fix = match sql::is_true(&row, 2) {
            true => format!("GRANT rds_replication TO {};", facts.role_ident()),
            false => format!("ALTER ROLE {} REPLICATION;", facts.role_ident()),
        };
        found.push(finding(Severity::Error, "role_replication", message).mended_by(fix, SUPERUSER));
    }
    if !sql::is_true(&row, 1) && subject.config.snapshot.mode == SnapshotMode::Initial {
        let message = "the role does not see what other sessions do: a snapshot then waits, when it begins, for every \
                       transaction in progress, also for idle ones";
        let fix = format!("GRANT pg_read_all_stats TO {};", facts.role_ident());
        found.push(finding(Severity::Note, "activity_hidden", message).mended_by(fix, SUPERUSER));
    }
    Ok(found)
}

/// A transaction is old after this.
const OLD_TRANSACTION: &str = "5 minutes";

/// A slot can only be made when the transactions in progress have ended.
pub(super) async fn transactions(subject: &Subject<'_>) -> Result<Vec<Finding>> {
    if subject.facts.slot_exists {
        return Ok(Vec::new());
    }
    let query = format!(
        "SELECT 'SELECT pg_terminate_backend(' || pid || ');', 'of process ' || pid || ', ' || coalesce(state, 'state unknown'), \
           date_trunc('second', now() - xact_start) \
         FROM pg_stat_activity WHERE backend_xid IS NOT NULL AND xact_start < now() - interval '{OLD_TRANSACTION}' \
         UNION ALL SELECT 'ROLLBACK PREPARED ' || quote_literal(gid) || ';', 'prepared, ' || quote_literal(gid), \
           date_trunc('second', now() - prepared) \
         FROM pg_prepared_xacts WHERE prepared < now() - interval '{OLD_TRANSACTION}'"
    );
    let rows = sql::rows(subject.client, "looking at the transactions in progress", &query).await?;
    let found = rows.iter().map(|row| {
        let message = format!(
            "a transaction ({}) has been in progress for {}: the slot cannot be made before it ends",
            sql::text(row, 1),
            sql::text(row, 2)
        );
        finding(Severity::Warning, "old_transaction", message)
            .mended_by(sql::text(row, 0), "its owner or a superuser, if the transaction may be undone")
    });
    Ok(found.collect())
}
