//! Whether the stream can go on where the outbox says that it stands, as [`crate::open`] would judge it.

use towpath_contract::{ErrorKind, Finding, Result, Severity};

use super::{Subject, finding};
use crate::coverage::Coverage;
use crate::position::{LogPosition, Lsn};
use crate::publication;
use crate::selection::Selection;
use crate::slot::{self, Slot};
use crate::sql;

pub(super) async fn goes_on(subject: &Subject<'_>) -> Result<Vec<Finding>> {
    let known = subject.known.resume.clone().unwrap_or_default();
    let resume = &known;
    let position = resume.position.as_ref().and_then(LogPosition::decode);
    // Before the first run there need be no slot; one that is there may have served another outbox.
    let first_run = position.is_none() && !subject.facts.slot_exists;
    if first_run || resume.state.contains_key(towpath_contract::AFTER_GAP) {
        return Ok(Vec::new());
    }
    let (client, facts) = (subject.client, subject.facts);
    // The identity needs a replication connection; a server of another one shows when the source is opened.
    let query = "SELECT current_database(), CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_flush_lsn() END";
    let row = sql::row(client, "asking for the end of the log", query).await?;
    let identity = resume.identity.clone().unwrap_or_default();
    let wanted = slot::Wanted {
        source: subject.source,
        slot: &facts.slot,
        publication: &facts.publication,
        database: sql::text(&row, 0),
        identity: &identity,
        recorded_identity: Some(identity.as_str()).filter(|_| position.is_some()),
        left_at: None,
        position,
        after_gap: false,
        create: subject.config.create,
        mark: publication::mark(client, &facts.publication, &facts.slot).await?,
        flushed: sql::text(&row, 1).parse().unwrap_or(Lsn::NONE),
    };
    let judged = slot::judge(Slot::look_up(client, &facts.slot).await?.as_ref(), &wanted);
    let mut gaps: Vec<(String, Option<String>)> = Vec::new();
    // A slot in use is told elsewhere, and is no gap.
    if let Err(error) = judged.map(drop)
        && error.kind == ErrorKind::Gap
    {
        gaps.push((format!("{}: {}", error.operation, error.message), error.help));
    }
    let selection = Selection::new(&subject.config.tables);
    let covered = Coverage::look_up(client, &facts.publication, &selection, facts.version).await?;
    if let Some(what) = Coverage::recorded(&resume.state)?.and_then(|before| before.lost(&covered)) {
        let error = slot::gap(subject.source, String::new(), format!("the publication {}: {what}", facts.publication));
        gaps.push((error.message, error.help));
    }
    let found = gaps.into_iter().map(|(message, help)| Finding {
        fix: help,
        ..finding(Severity::Error, "gap", format!("{message}: `towpath run` stops this source"))
    });
    Ok(found.collect())
}
