//! From a config and what is known of earlier runs to a running stream.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use tokio_postgres::Client;
use towpath_contract::{AFTER_GAP, Error, ErrorKind, Result, Resume, SnapshotRequest, StateEntry};

use crate::assemble::Assembler;
use crate::catalog;
use crate::config::{PostgresConfig, SnapshotMode};
use crate::connect::{Server, Target};
use crate::coverage::{self, Coverage};
use crate::feedback::Feedback;
use crate::monitor::{Monitor, Published};
use crate::position::{LogPosition, Lsn};
use crate::publication;
use crate::reader::{Reader, ReaderParts};
use crate::relation::{Describer, RelationReader};
use crate::selection::Selection;
use crate::slot::{self, Mark, Plan, Slot};
use crate::snapshot::{self, Connect, History, Snapshotter};
use crate::spool::Spool;
use crate::timeline;
use crate::wire::WalSender;

pub(crate) async fn open(name: &str, config: &PostgresConfig, spool: &Path, resume: Resume) -> Result<Reader> {
    let names = Names::of(name, config)?;
    let selection = Selection::new(&config.tables);
    let (server, client) = Target::parse(config)?.connect().await?;
    let client = Arc::new(client);
    if !config.messages.is_empty() && server.version < 140_000 {
        return Err(Error::operator(
            ErrorKind::Setup,
            "reading `messages`",
            "logical messages need PostgreSQL 14 or newer",
        )
        .with_help("remove the key `messages`"));
    }
    let mut wire = server.wal_sender().await?;
    let system = wire.identify_system().await?;
    let identity = timeline::identity(&system);
    let left_at = timeline::left_at(&mut wire, resume.identity.as_deref(), &system).await?;

    let begin =
        Begin { source: name, names: &names, config, server: &server, client: &client, identity: &identity, left_at };
    let start = begin.start(&selection, &resume, system.flushed).await?;
    begin.replicate(&mut wire, start.from.commit).await?;
    let mut published = begin.published(&selection, &resume, &start).await?;
    let mut snapshotter = begin.snapshotter(&resume, &start, &published.coverage).await?;

    if let Some(left_at) = left_at.filter(|_| !start.first_run) {
        tracing::info!(identity, %left_at, "the server is on a new timeline, which goes on from what was recorded");
    }
    let mut first_state = std::mem::take(&mut published.news);
    if start.after_gap {
        // All that was known of tables goes with the gap, in one transaction with what is wanted now.
        let old = resume.state.keys().filter(|name| *name == AFTER_GAP || name.starts_with(snapshot::PREFIX));
        first_state.extend(old.map(|name| StateEntry { key: name.clone(), value: None }));
    }
    first_state.append(&mut snapshotter.take_entries());
    let heartbeat = config.heartbeat.as_ref().map(|heartbeat| heartbeat.every.0);
    let monitor = Monitor::start(client.clone(), system.flushed, published, heartbeat, config.read_timeout.0);
    tracing::info!(slot = names.slot, from = %start.from.commit, "replication started");
    Ok(Reader::new(ReaderParts {
        source: name.to_owned(),
        slot: names.slot,
        publication: names.publication,
        identity,
        wire,
        describer: Describer::new(RelationReader::new(client.clone(), selection, server.version)),
        client,
        assembler: Assembler::new(start.from, config.messages.clone(), snapshotter),
        spool: Spool::open(spool.join(name), config.spool_max)?,
        feedback: Feedback::new(start.from.commit),
        monitor,
        read_timeout: config.read_timeout.0,
        first_run: start.first_run,
        first_state,
    }))
}

pub(crate) struct Names {
    slot: String,
    pub(crate) publication: String,
}

impl Names {
    pub(crate) fn of(source: &str, config: &PostgresConfig) -> Result<Names> {
        let slot = config.slot.clone().unwrap_or_else(|| format!("towpath_{}", source.replace('-', "_")));
        slot::check_name(&slot)?;
        let publication = config.publication.clone().unwrap_or_else(|| slot.clone());
        Ok(Names { slot, publication })
    }
}

struct Begin<'a> {
    source: &'a str,
    names: &'a Names,
    config: &'a PostgresConfig,
    server: &'a Server,
    client: &'a Client,
    identity: &'a str,
    left_at: Option<Lsn>,
}

struct Start {
    from: LogPosition,
    first_run: bool,
    after_gap: bool,
    /// What was published before the slot was made, if that was just now.
    covered_before: Option<Coverage>,
}

impl Begin<'_> {
    /// The slot is looked at before anything is changed, and made after the publication: what commits after the slot's first
    /// address is then published.
    async fn start(&self, selection: &Selection, resume: &Resume, flushed: Lsn) -> Result<Start> {
        let after_gap = resume.state.contains_key(AFTER_GAP);
        let position = match &resume.position {
            Some(position) if !after_gap => Some(LogPosition::decode(position).ok_or_else(|| {
                Error::bug("reading the recorded position", "it is not one of the PostgreSQL connector's")
            })?),
            _ => None,
        };
        let mut wanted = slot::Wanted {
            source: self.source,
            slot: &self.names.slot,
            publication: &self.names.publication,
            database: self.server.database(),
            identity: self.identity,
            recorded_identity: resume.identity.as_deref().filter(|_| resume.position.is_some()),
            left_at: self.left_at,
            position,
            after_gap,
            create: self.config.create,
            mark: None,
            flushed,
        };
        let found = Slot::look_up(self.client, &self.names.slot).await?;
        if position.is_some() {
            slot::judge(found.as_ref(), &wanted)?;
        }
        wanted.mark = publication::prepare(
            self.client,
            &publication::Wanted {
                publication: &self.names.publication,
                slot: &self.names.slot,
                selection,
                create: self.config.create,
                first_run: resume.position.is_none(),
                server_version: self.server.version,
            },
        )
        .await?;
        let plan = slot::judge(found.as_ref(), &wanted)?;
        if plan == Plan::Recreate {
            slot::drop(self.client, &self.names.slot).await?;
        }
        let (lsn, covered_before) = match plan {
            Plan::Resume(from) => return Ok(Start { from, first_run: false, after_gap, covered_before: None }),
            Plan::Start(lsn) => {
                self.mark(Mark::CreatedAt(lsn)).await?;
                (lsn, None)
            }
            Plan::Create | Plan::Recreate => {
                let covered = self.coverage(selection).await?;
                (self.create_slot().await?, Some(covered))
            }
        };
        Ok(Start { from: LogPosition::after(lsn), first_run: true, after_gap, covered_before })
    }

    async fn coverage(&self, selection: &Selection) -> Result<Coverage> {
        Coverage::look_up(self.client, &self.names.publication, selection, self.server.version).await
    }

    /// What the publication covers, which must never have been less since the last run.
    async fn published(&self, selection: &Selection, resume: &Resume, start: &Start) -> Result<Published> {
        let publication = self.names.publication.as_str();
        let version = self.server.version;
        let fingerprint = coverage::fingerprint(self.client, publication, version).await?;
        let coverage = self.coverage(selection).await?;
        let recorded = if start.after_gap { None } else { Coverage::recorded(&resume.state)? };
        // On a first run it may have been less while the slot was made.
        let before = recorded.as_ref().or(start.covered_before.as_ref());
        if let Some(what) = before.and_then(|before| before.lost(&coverage)) {
            let message = format!("{what}: such changes since Towpath last captured are unknown");
            return Err(slot::gap(self.source, format!("checking the publication {publication}"), message));
        }
        let unlogged: Vec<&str> = coverage.unlogged_parts().collect();
        if !unlogged.is_empty() {
            let message = format!("{}: an unlogged partition, whose changes are not in the log", unlogged.join(", "));
            return Err(Error::operator(ErrorKind::Setup, "looking at what is captured", message)
                .with_help("ALTER TABLE … SET LOGGED, as its owner; or leave the partitioned table out of `tables`"));
        }
        let news = if recorded.as_ref() == Some(&coverage) { Vec::new() } else { vec![coverage.entry()?] };
        Ok(Published {
            publication: publication.to_owned(),
            news,
            selection: selection.clone(),
            coverage,
            fingerprint,
            server_version: version,
        })
    }

    /// The snapshots that are wanted, or were interrupted. After a gap every table is read, whatever the config says.
    /// What is not published is not read either: it would be read once, and never followed.
    async fn snapshotter(&self, resume: &Resume, start: &Start, coverage: &Coverage) -> Result<Snapshotter> {
        let publication = self.names.publication.clone();
        let mut captured = catalog::captured(self.client, &self.config.tables, Some(&publication)).await?;
        captured.tables.retain(|table| coverage.covers(table.oid));
        for left_out in captured.left_out.iter().filter(|left_out| left_out.named) {
            let table = format_args!("{}.{}", left_out.schema, left_out.name);
            tracing::warn!(%table, reason = ?left_out.reason, "cannot be captured");
        }
        for pattern in &captured.unmatched {
            tracing::warn!(
                pattern,
                "the database has no table that this pattern of `tables` takes: correct it, or remove it"
            );
        }
        let server = self.server.clone();
        let connect: Connect = Box::new(move || {
            let server = server.clone();
            Box::pin(async move { server.sql().await })
        });
        let nothing = BTreeMap::new();
        let state = if start.after_gap { &nothing } else { &resume.state };
        let recorded = Coverage::recorded(&resume.state)?;
        let history = History {
            state,
            before_slot: &|oid| start.covered_before.as_ref().is_some_and(|covered| covered.covers(oid)),
            followed: &|oid| start.after_gap || recorded.as_ref().is_some_and(|covered| covered.covers(oid)),
            resumed: start.from.commit,
        };
        let mut snapshotter =
            Snapshotter::start(connect, &self.config.snapshot, Some(publication), captured.tables, &history)?;
        if start.after_gap && self.config.snapshot.mode == SnapshotMode::Never {
            snapshotter.request(SnapshotRequest { tables: Vec::new() })?;
        }
        Ok(snapshotter)
    }

    async fn create_slot(&self) -> Result<Lsn> {
        self.mark(Mark::Creating).await?;
        let lsn = slot::create(self.client, &self.names.slot).await?;
        self.mark(Mark::CreatedAt(lsn)).await?;
        Ok(lsn)
    }

    async fn mark(&self, mark: Mark) -> Result<()> {
        publication::set_mark(self.client, &self.names.publication, &self.names.slot, mark).await
    }

    async fn replicate(&self, wire: &mut WalSender, from: Lsn) -> Result<()> {
        let operation = format!("starting replication from slot {}", self.names.slot);
        let command = start_command(self.names, from, self.server.version, !self.config.messages.is_empty());
        match wire.start(&command, &operation).await? {
            Ok(()) => Ok(()),
            Err(refused) => {
                let error = refused.into_error(operation);
                Err(explain_refusal(self.client, self.source, &self.names.slot, from, error).await)
            }
        }
    }
}

/// PostgreSQL manual, "Logical Streaming Replication Parameters". Parallel streaming is not asked for: it would only add
/// the LSN of aborts.
fn start_command(names: &Names, from: Lsn, server_version: u32, messages: bool) -> String {
    let (version, streaming) = match server_version {
        160_000.. => (4, ", streaming 'on'"),
        150_000.. => (3, ", streaming 'on'"),
        140_000.. => (2, ", streaming 'on'"),
        _ => (1, ""),
    };
    let messages = if messages { ", messages 'true'" } else { "" };
    // A list of identifiers within a literal: quoted twice.
    let publication = format!("\"{}\"", names.publication.replace('"', "\"\"")).replace('\'', "''");
    format!(
        "START_REPLICATION SLOT \"{}\" LOGICAL {from} (proto_version '{version}', publication_names '{publication}'{streaming}{messages})",
        names.slot
    )
}

/// Whether the server's log of a slot is lost, asked after it refused to stream from it.
pub(crate) async fn explain_refusal(client: &Client, source: &str, slot: &str, recorded: Lsn, error: Error) -> Error {
    let operation = format!("streaming from the replication slot {slot}");
    let gone = match Slot::look_up(client, slot).await {
        Ok(None) => "it does not exist any more".to_owned(),
        Ok(Some(found)) => match found.lost() {
            Some(why) => why,
            None => return error,
        },
        Err(_) => return error,
    };
    let message = format!("{gone}: the changes from {recorded} on are unknown");
    slot::gap(source, operation, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_protocol_follows_the_servers_version_and_names_are_quoted() {
        let names = Names { slot: "s".into(), publication: "My \"p'".into() };
        let command = |version, messages| start_command(&names, Lsn(0x10), version, messages);
        assert_eq!(
            command(130_000, false),
            r#"START_REPLICATION SLOT "s" LOGICAL 0/10 (proto_version '1', publication_names '"My ""p''"')"#
        );
        assert!(command(140_005, true).ends_with("streaming 'on', messages 'true')"));
        for (version, protocol) in [(100_000, 1), (140_000, 2), (150_000, 3), (160_000, 4), (180_000, 4)] {
            assert!(command(version, false).contains(&format!("proto_version '{protocol}'")));
        }
    }
}
