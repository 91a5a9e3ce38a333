//! The replication slot: made on the first run, looked at on every other, and never made anew in silence.

use serde::Deserialize;
use tokio_postgres::Client;
use towpath_contract::{Error, ErrorKind, Result};

use crate::position::{LogPosition, Lsn};
use crate::sql::{self, literal};

/// What this run knows before it looks at the slot.
pub(crate) struct Wanted<'a> {
    /// For the command in a gap's way out.
    pub(crate) source: &'a str,
    pub(crate) slot: &'a str,
    pub(crate) publication: &'a str,
    pub(crate) database: &'a str,
    /// `<system identifier>-<timeline>` of the server, and of the run that recorded the position.
    pub(crate) identity: &'a str,
    pub(crate) recorded_identity: Option<&'a str>,
    /// Where this server's log left the recorded one: see [`crate::timeline`].
    pub(crate) left_at: Option<Lsn>,
    pub(crate) position: Option<LogPosition>,
    /// `towpath snapshot --after-gap` was run: start anew, all tables are read again.
    pub(crate) after_gap: bool,
    pub(crate) create: bool,
    /// What an earlier first run noted about the slot: see [`Mark`].
    pub(crate) mark: Option<Mark>,
    /// Up to where the server has written its log.
    pub(crate) flushed: Lsn,
}

/// Where a first run was when it ended before its first position was on disk, as noted on the publication. It tells a slot
/// that was never confirmed from one whose outbox was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mark {
    Creating,
    CreatedAt(Lsn),
}

impl Mark {
    const PREFIX: &str = "towpath: slot ";

    pub(crate) fn parse(comment: &str, slot: &str) -> Option<Mark> {
        let rest = comment.strip_prefix(Self::PREFIX)?.strip_prefix(slot)?;
        match rest.strip_prefix(" created at ") {
            Some(lsn) => lsn.parse().ok().map(Mark::CreatedAt),
            None => (rest == " is being created").then_some(Mark::Creating),
        }
    }

    pub(crate) fn text(self, slot: &str) -> String {
        match self {
            Mark::Creating => format!("{}{slot} is being created", Self::PREFIX),
            Mark::CreatedAt(lsn) => format!("{}{slot} created at {lsn}", Self::PREFIX),
        }
    }

    pub(crate) fn is_ours(comment: &str) -> bool {
        comment.is_empty() || comment.starts_with(Self::PREFIX)
    }
}

/// What to do about the slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Plan {
    Create,
    /// After a gap that an operator has acknowledged.
    Recreate,
    /// Go on from here.
    Resume(LogPosition),
    /// It is there and was never confirmed: the first run goes on.
    Start(Lsn),
}

/// A row of `pg_replication_slots`, as far as the server's version has the columns.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct Slot {
    plugin: Option<String>,
    database: Option<String>,
    active_pid: Option<i32>,
    restart_lsn: Option<String>,
    confirmed_flush_lsn: Option<String>,
    /// 13+
    wal_status: Option<String>,
    /// 16+
    conflicting: Option<bool>,
    /// 17+
    invalidation_reason: Option<String>,
}

impl Slot {
    pub(crate) async fn look_up(client: &Client, name: &str) -> Result<Option<Slot>> {
        let operation = format!("looking at the replication slot {name}");
        // As JSON, so that one query fits every version.
        let query = format!(
            "SELECT pg_catalog.row_to_json(s) FROM pg_catalog.pg_replication_slots s WHERE s.slot_name = {}",
            literal(name)
        );
        let rows = sql::rows(client, &operation, &query).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        serde_json::from_str(sql::text(row, 0)).map(Some).map_err(|error| Error::bug(operation, error))
    }

    fn confirmed(&self) -> Option<Lsn> {
        self.confirmed_flush_lsn.as_deref().and_then(|text| text.parse().ok())
    }

    /// Why it can no longer be read, if so.
    pub(crate) fn lost(&self) -> Option<String> {
        match (&self.invalidation_reason, self.wal_status.as_deref()) {
            (Some(reason), _) => Some(format!("the server invalidated it ({reason})")),
            (_, Some("lost")) => Some("the server removed log that it needs (max_slot_wal_keep_size)".to_owned()),
            _ if self.conflicting == Some(true) => {
                Some("the server invalidated it (conflict with recovery)".to_owned())
            }
            _ if self.restart_lsn.is_none() => Some("it holds no log".to_owned()),
            _ => None,
        }
    }
}

/// Decides, from what was recorded and what was found, whether the stream can go on without a gap.
pub(crate) fn judge(found: Option<&Slot>, wanted: &Wanted<'_>) -> Result<Plan> {
    let operation = || format!("checking the replication slot {}", wanted.slot);
    if wanted.after_gap {
        return after_gap(found, wanted);
    }
    if let Some(recorded) = wanted.recorded_identity {
        goes_on_here(recorded, wanted, &operation())?;
    }
    let Some(slot) = found else {
        return match wanted.position {
            None if wanted.create => Ok(Plan::Create),
            None => Err(Error::operator(ErrorKind::Setup, operation(), "it does not exist, and `create` is false")
                .with_help(format!("create it: {}", by_hand_sql(wanted.slot, wanted.publication)))),
            Some(_) => Err(gap(
                wanted.source,
                operation(),
                format!("it does not exist any more: {}", unknown_to(wanted, wanted.flushed)),
            )),
        };
    };
    usable(slot, wanted, &operation())?;
    let confirmed = slot.confirmed().unwrap_or(wanted.flushed);
    match wanted.position {
        Some(position) if position.commit > wanted.flushed => {
            let message = format!(
                "the server's log ends at {}, before {}, which was recorded: the server was set back (a backup was put in \
                 its place), and what it commits until it comes there again is unknown",
                wanted.flushed, position.commit
            );
            Err(gap(wanted.source, operation(), message))
        }
        Some(position) if confirmed > position.commit => {
            let message = format!("somebody moved it ahead: {}", unknown_to(wanted, confirmed));
            Err(gap(wanted.source, operation(), message))
        }
        Some(position) => Ok(Plan::Resume(position)),
        None if wanted.mark == Some(Mark::Creating) || wanted.mark == Some(Mark::CreatedAt(confirmed)) => {
            Ok(Plan::Start(confirmed))
        }
        None => {
            let message = format!(
                "it was used before, and this outbox holds no position: what was committed before {confirmed} was confirmed \
                 by another outbox and may be missing from this one"
            );
            Err(gap(wanted.source, operation(), message))
        }
    }
}

/// Whether the recorded position is one of this server's log.
fn goes_on_here(recorded: &str, wanted: &Wanted<'_>, operation: &str) -> Result<()> {
    let (here, since) = (wanted.identity, since(wanted));
    let message = match (wanted.left_at, wanted.position) {
        _ if recorded == here => return Ok(()),
        // A commit record that starts where the timelines part is on the old one alone.
        (Some(left_at), Some(position)) if position <= LogPosition::after(left_at) => return Ok(()),
        (Some(left_at), _) => format!(
            "this is the server {here} (system identifier and timeline), whose log left that of {recorded} at {left_at}, before \
             {since}, which was recorded: what {recorded} committed in between never happened here, and what this server \
             committed since {left_at} is unknown"
        ),
        (None, _) => format!(
            "this is the server {here}, and the recorded position belongs to {recorded} (system identifier and timeline): \
             changes after {since} of the old one may be missing"
        ),
    };
    Err(gap(wanted.source, operation.to_owned(), message))
}

fn usable(slot: &Slot, wanted: &Wanted<'_>, operation: &str) -> Result<()> {
    match (foreign(slot, wanted), wanted.position) {
        (Some(what), None) => return Err(not_ours(operation, what)),
        (Some(what), Some(_)) => {
            let error =
                gap(wanted.source, operation.to_owned(), format!("{what}: {}", unknown_to(wanted, wanted.flushed)));
            let way_out = error.help.as_deref().unwrap_or_default();
            let help = format!("{ANOTHER_NAME}; then {way_out}");
            return Err(error.with_help(help));
        }
        (None, _) => {}
    }
    if let Some(why) = slot.lost() {
        return Err(gap(wanted.source, operation.to_owned(), format!("{why}: {}", unknown_to(wanted, wanted.flushed))));
    }
    in_use(slot, operation)
}

/// Why it is not a slot of ours, if so. It is never dropped: somebody else reads by it.
fn foreign(slot: &Slot, wanted: &Wanted<'_>) -> Option<String> {
    match (slot.plugin.as_deref(), slot.database.as_deref()) {
        (Some("pgoutput"), Some(database)) if database == wanted.database => None,
        (Some("pgoutput"), database) => {
            Some(format!("it belongs to the database {}, expected {}", database.unwrap_or("?"), wanted.database))
        }
        (plugin, _) => {
            Some(format!("its output plugin is {}, expected pgoutput", plugin.unwrap_or("none (a physical slot)")))
        }
    }
}

const ANOTHER_NAME: &str = "choose another name with `slot`";

fn not_ours(operation: &str, what: String) -> Error {
    Error::operator(ErrorKind::Setup, operation, what).with_help(ANOTHER_NAME)
}

fn in_use(slot: &Slot, operation: &str) -> Result<()> {
    match slot.active_pid {
        // Often our own session of before, whose end the server has not noticed yet.
        Some(pid) => {
            Err(Error::retry(ErrorKind::Connection, operation, format!("it is in use by the server process {pid}"))
                .with_help(format!(
                    "if that is no other Towpath, it ends by itself, or with `SELECT pg_terminate_backend({pid})`"
                )))
        }
        None => Ok(()),
    }
}

fn after_gap(found: Option<&Slot>, wanted: &Wanted<'_>) -> Result<Plan> {
    let operation = format!("starting anew after a gap with the replication slot {}", wanted.slot);
    match found {
        None if wanted.create => Ok(Plan::Create),
        None => Err(Error::operator(ErrorKind::Setup, operation, "it does not exist, and `create` is false")
            .with_help(format!("create it: {}", by_hand_sql(wanted.slot, wanted.publication)))),
        Some(slot) => {
            if let Some(what) = foreign(slot, wanted) {
                return Err(not_ours(&operation, what));
            }
            in_use(slot, &operation)?;
            if wanted.create {
                return Ok(Plan::Recreate);
            }
            match (slot.lost(), slot.confirmed()) {
                (None, Some(confirmed)) => Ok(Plan::Start(confirmed)),
                (why, _) => {
                    let why = why.unwrap_or_else(|| "it reports no address".to_owned());
                    let name = literal(wanted.slot);
                    Err(Error::operator(ErrorKind::Setup, operation, format!("{why}, and `create` is false"))
                        .with_help(format!(
                            "make it anew: SELECT pg_drop_replication_slot({name}); {}",
                            by_hand_sql(wanted.slot, wanted.publication)
                        )))
                }
            }
        }
    }
}

fn since(wanted: &Wanted<'_>) -> String {
    wanted.position.map_or_else(|| "the start".to_owned(), |position| position.commit.to_string())
}

fn unknown_to(wanted: &Wanted<'_>, end: Lsn) -> String {
    format!("the changes from {} to {end} are unknown", since(wanted))
}

/// The one way out of every gap: a person decides, then all tables are read again.
pub(crate) fn gap(source: &str, operation: String, message: String) -> Error {
    Error::operator(ErrorKind::Gap, operation, message).with_help(format!(
        "run `towpath snapshot {} --after-gap` to start anew and read every table again (rows deleted in between are not reported)",
        source
    ))
}

fn creation_sql(slot: &str) -> String {
    format!("SELECT pg_create_logical_replication_slot({}, 'pgoutput');", literal(slot))
}

/// For an operator: with the [`Mark`], so that the first run knows the slot for unused.
pub(crate) fn by_hand_sql(slot: &str, publication: &str) -> String {
    let mark = Mark::CreatedAt(Lsn::NONE).text(slot);
    let prefix = mark.strip_suffix(&Lsn::NONE.to_string()).unwrap_or(&mark);
    format!(
        "{} DO $towpath$ BEGIN EXECUTE (SELECT pg_catalog.format('COMMENT ON PUBLICATION %I IS %L', {}, {} || confirmed_flush_lsn) \
         FROM pg_catalog.pg_replication_slots WHERE slot_name = {}); END $towpath$;",
        creation_sql(slot),
        literal(publication),
        literal(prefix),
        literal(slot)
    )
}

/// Creates the slot and gives the address from which it delivers: everything that commits later. Waits for the transactions
/// that run now to end (PostgreSQL manual, "Logical Decoding Concepts": the consistent point).
pub(crate) async fn create(client: &Client, slot: &str) -> Result<Lsn> {
    let operation = format!("creating the replication slot {slot}");
    tracing::info!(slot, "creating the replication slot; this waits for transactions that are running now");
    sql::rows_however_long(client, &operation, &creation_sql(slot)).await?;
    let made = Slot::look_up(client, slot).await?;
    made.and_then(|slot| slot.confirmed()).ok_or_else(|| Error::bug(operation, "the slot reports no address"))
}

pub(crate) async fn drop(client: &Client, slot: &str) -> Result<()> {
    let query = format!("SELECT pg_drop_replication_slot({})", literal(slot));
    sql::rows(client, &format!("dropping the replication slot {slot}"), &query).await.map(|_| ())
}

/// Logical slot names: PostgreSQL manual, "Replication Slots": lower-case letters, digits, underscore.
pub(crate) fn check_name(slot: &str) -> Result<()> {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    if !slot.is_empty() && slot.len() <= 63 && slot.bytes().all(allowed) {
        return Ok(());
    }
    let message = format!("{slot:?} is no name that PostgreSQL allows for a replication slot");
    Err(Error::operator(ErrorKind::Setup, "reading `slot`", message)
        .with_help("use 1 to 63 lower-case letters, digits and underscores"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use towpath_contract::Action;

    fn slot() -> Slot {
        Slot {
            plugin: Some("pgoutput".into()),
            database: Some("db".into()),
            restart_lsn: Some("0/80".into()),
            confirmed_flush_lsn: Some("0/100".into()),
            ..Slot::default()
        }
    }

    fn wanted() -> Wanted<'static> {
        Wanted {
            source: "orders",
            slot: "towpath_orders",
            publication: "towpath_orders",
            database: "db",
            identity: "7-1",
            recorded_identity: Some("7-1"),
            left_at: None,
            position: Some(LogPosition::after(Lsn(0x120))),
            after_gap: false,
            create: true,
            mark: None,
            flushed: Lsn(0x900),
        }
    }

    fn first_run() -> Wanted<'static> {
        Wanted { position: None, recorded_identity: None, ..wanted() }
    }

    fn gap_text(found: Option<Slot>, wanted: Wanted<'_>) -> String {
        let error = judge(found.as_ref(), &wanted).unwrap_err();
        assert_eq!((error.kind, error.action), (ErrorKind::Gap, Action::Operator), "{error}");
        assert!(error.to_string().contains("towpath snapshot orders --after-gap"), "{error}");
        error.message
    }

    #[test]
    fn a_slot_that_is_behind_the_recorded_position_goes_on() {
        assert_eq!(judge(Some(&slot()), &wanted()).unwrap(), Plan::Resume(LogPosition::after(Lsn(0x120))));
    }

    #[test]
    fn every_way_to_lose_changes_is_a_gap_that_names_the_range() {
        assert!(gap_text(None, wanted()).contains("from 0/120 to 0/900"));
        for lost in [
            Slot { wal_status: Some("lost".into()), ..slot() },
            Slot { invalidation_reason: Some("wal_removed".into()), ..slot() },
            Slot { conflicting: Some(true), ..slot() },
            Slot { restart_lsn: None, ..slot() },
            Slot { plugin: Some("test_decoding".into()), ..slot() },
            Slot { plugin: None, ..slot() },
            Slot { database: Some("other".into()), ..slot() },
        ] {
            assert!(gap_text(Some(lost), wanted()).contains("from 0/120 to 0/900"));
        }
        let ahead = Slot { confirmed_flush_lsn: Some("0/121".into()), ..slot() };
        assert!(gap_text(Some(ahead), wanted()).contains("from 0/120 to 0/121"));
        assert!(gap_text(Some(slot()), Wanted { identity: "7-2", ..wanted() }).contains("7-1"));
    }

    #[test]
    fn a_promoted_standby_goes_on_unless_more_was_recorded_than_it_has() {
        let promoted = |left_at| Wanted { identity: "7-2", left_at: Some(Lsn(left_at)), ..wanted() };
        for left_at in [0x120, 0x121, 0x900] {
            let plan = judge(Some(&slot()), &promoted(left_at)).unwrap();
            assert_eq!(plan, Plan::Resume(LogPosition::after(Lsn(0x120))));
        }
        assert!(gap_text(Some(slot()), promoted(0x11F)).contains("left that of 7-1 at 0/11F, before 0/120"));
        // Within the transaction whose commit record starts there.
        let within = LogPosition { change: Lsn(0x90), ..LogPosition::after(Lsn(0x120)) };
        gap_text(Some(slot()), Wanted { position: Some(within), ..promoted(0x120) });
        // The timeline alone is not enough.
        assert!(gap_text(None, promoted(0x900)).contains("does not exist any more"));
    }

    #[test]
    fn a_server_that_was_set_back_is_a_gap() {
        let back = Wanted { flushed: Lsn(0x11F), ..wanted() };
        assert!(gap_text(Some(slot()), back).contains("ends at 0/11F, before 0/120"));
        let there = Wanted { flushed: Lsn(0x120), ..wanted() };
        assert!(judge(Some(&slot()), &there).is_ok());
    }

    #[test]
    fn a_used_slot_without_a_recorded_position_is_a_lost_outbox() {
        assert!(gap_text(Some(slot()), first_run()).contains("before 0/100"));
        let moved = Wanted { mark: Some(Mark::CreatedAt(Lsn(0xF0))), ..first_run() };
        assert!(gap_text(Some(slot()), moved).contains("before 0/100"));
    }

    #[test]
    fn a_first_run_that_was_cut_short_goes_on() {
        assert_eq!(judge(None, &first_run()).unwrap(), Plan::Create);
        for mark in [Mark::Creating, Mark::CreatedAt(Lsn(0x100))] {
            let wanted = Wanted { mark: Some(mark), ..first_run() };
            assert_eq!(judge(Some(&slot()), &wanted).unwrap(), Plan::Start(Lsn(0x100)));
        }
    }

    #[test]
    fn a_slot_in_use_is_waited_for() {
        let error = judge(Some(&Slot { active_pid: Some(42), ..slot() }), &wanted()).unwrap_err();
        assert_eq!(error.action, Action::Retry);
        assert!(error.message.contains("42"));
    }

    #[test]
    fn after_an_acknowledged_gap_it_starts_anew() {
        let anew = || Wanted { after_gap: true, ..wanted() };
        assert_eq!(judge(None, &anew()).unwrap(), Plan::Create);
        assert_eq!(judge(Some(&Slot { wal_status: Some("lost".into()), ..slot() }), &anew()).unwrap(), Plan::Recreate);
        let by_hand = Wanted { create: false, ..anew() };
        assert_eq!(judge(Some(&slot()), &by_hand).unwrap(), Plan::Start(Lsn(0x100)));
        let error = judge(None, &by_hand).unwrap_err();
        assert!(error.help.unwrap().contains("pg_create_logical_replication_slot('towpath_orders', 'pgoutput')"));
    }

    #[test]
    fn somebody_elses_slot_is_never_dropped() {
        for foreign in [
            Slot { plugin: Some("test_decoding".into()), ..slot() },
            Slot { plugin: None, database: None, ..slot() },
            Slot { database: Some("other".into()), ..slot() },
        ] {
            assert!(judge(Some(&foreign), &wanted()).unwrap_err().help.unwrap().starts_with(ANOTHER_NAME));
            for create in [true, false] {
                let error = judge(Some(&foreign), &Wanted { after_gap: true, create, ..wanted() }).unwrap_err();
                assert_eq!((error.kind, error.action), (ErrorKind::Setup, Action::Operator), "{error}");
                assert_eq!(error.help.as_deref(), Some(ANOTHER_NAME));
            }
        }
    }

    #[test]
    fn marks_read_back() {
        for mark in [Mark::Creating, Mark::CreatedAt(Lsn(0x16_0000_0000))] {
            assert_eq!(Mark::parse(&mark.text("s"), "s"), Some(mark));
            assert_eq!(Mark::parse(&mark.text("s2"), "s"), None);
        }
        assert!(Mark::is_ours("") && !Mark::is_ours("for reporting"));
    }

    #[test]
    fn slot_names_are_checked() {
        assert!(check_name("towpath_orders_1").is_ok());
        for name in ["", "Orders", "a-b", "a b", "ä"] {
            assert!(check_name(name).is_err(), "{name}");
        }
    }
}
