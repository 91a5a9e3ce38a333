//! Answers people: status, pause and resume, snapshots, parked events.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{MissedTickBehavior, timeout};
use towpath_contract::{Error, ErrorKind, SnapshotRequest, StateEntry};

use super::board::{SourceBoard, SourceState};
use super::epoch;
use super::source::Command as SourceCommand;
use super::status::{Parts, Reporter};
use crate::admin::command::{Command, Outcome, Refusal, RefusalKind};
use crate::admin::parked::{Body, PAGE_EVENTS_MAX, ParkedEvent, ParkedHead, ParkedPage, ParkedQuery, ParkedSelection};
use crate::admin::{self, Status};
use crate::config::Checked;
use crate::event::{EventBatch, RouteId, Seq};
use crate::outbox::{self, Outbox, OutboxError, Record};
use crate::relay::RelayStatus;

/// Who asks for a snapshot hears that it is recorded, or after this that it is not yet.
const RECORDED_WITHIN: Duration = Duration::from_secs(5);

/// A source's end of the wire.
pub(super) struct SourceControl {
    pub(super) name: Arc<str>,
    pub(super) board: Arc<SourceBoard>,
    pub(super) commands: mpsc::Sender<SourceCommand>,
}

impl SourceControl {
    /// Of a source that no process captures.
    fn idle(name: &str) -> SourceControl {
        let board = SourceBoard::default();
        board.set_state(SourceState::Ended);
        let (commands, _) = mpsc::channel(1);
        SourceControl { name: name.into(), board: Arc::new(board), commands }
    }
}

/// Answers status at once, whatever else is asked: that may take its time, and is answered in tasks of its own.
pub(super) struct Control {
    started: Instant,
    outbox_path: String,
    outbox_max_bytes: u64,
    /// Those of the config.
    routes: Vec<String>,
    /// `None` when no process runs.
    relay: Option<watch::Receiver<RelayStatus>>,
    reporter: Reporter,
    desk: Arc<Desk>,
}

/// What is asked of sources and of parked events.
struct Desk {
    outbox: Outbox,
    sources: Vec<SourceControl>,
}

/// Answers from the outbox alone, while no process runs on it.
pub(super) async fn stopped(config: &Checked) -> Result<admin::Handle, Error> {
    if !config.outbox.sqlite.exists() {
        let message = format!("there is no outbox at {}", config.outbox.sqlite.display());
        return Err(Error::operator(ErrorKind::Setup, "opening the outbox", message));
    }
    let (news, _) = mpsc::unbounded_channel();
    let (outbox, _) = super::open_outbox(config, news)?;
    let (handle, commands) = admin::channel();
    // The sender stays with the task: never stopping but with the process.
    let (stop, stopping) = watch::channel(false);
    let sources = config.sources.iter().map(|source| SourceControl::idle(&source.name)).collect();
    let control = Control::new(config, outbox, None, sources);
    tokio::spawn(async move {
        control.run(commands, stopping).await;
        drop(stop);
    });
    Ok(handle)
}

impl Control {
    pub(super) fn new(
        config: &Checked,
        outbox: Outbox,
        relay: impl Into<Option<watch::Receiver<RelayStatus>>>,
        sources: Vec<SourceControl>,
    ) -> Control {
        Control {
            started: Instant::now(),
            outbox_path: config.outbox.sqlite.display().to_string(),
            outbox_max_bytes: config.outbox.max_size.0,
            routes: config.routes.iter().map(|route| route.name.clone()).collect(),
            relay: relay.into(),
            reporter: Reporter::default(),
            desk: Arc::new(Desk { outbox, sources }),
        }
    }

    /// Until nobody can ask any more.
    pub(super) async fn run(mut self, mut commands: mpsc::Receiver<Command>, stopping: watch::Receiver<bool>) {
        // Rates are measured whether or not anybody asks.
        let mut measure = tokio::time::interval(Duration::from_secs(1));
        measure.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let command = tokio::select! {
                command = commands.recv() => command,
                _ = measure.tick() => {
                    self.status(*stopping.borrow());
                    continue;
                }
            };
            let Some(command) = command else { return };
            match command {
                Command::Status(reply) => drop(reply.send(self.status(*stopping.borrow()))),
                command => {
                    let desk = self.desk.clone();
                    tokio::spawn(async move { desk.answer(command).await });
                }
            }
        }
    }

    fn status(&mut self, stopping: bool) -> Status {
        let relay = self.relay.as_ref().map(|relay| relay.borrow().clone());
        self.reporter.status(Parts {
            uptime: self.started.elapsed(),
            stopping,
            sources: &self.desk.sources,
            outbox_path: self.outbox_path.clone(),
            outbox_max_bytes: self.outbox_max_bytes,
            outbox_state: self.desk.outbox.state(),
            outbox: self.desk.outbox.stats(),
            routes: &self.routes,
            relay: relay.as_ref(),
        })
    }
}

impl Desk {
    /// An asker that gave up has dropped its end.
    async fn answer(&self, command: Command) {
        match command {
            Command::Status(_) => {}
            Command::PauseSource { source, reply } => {
                drop(reply.send(self.tell(&source, SourceCommand::Pause, "paused")))
            }
            Command::ResumeSource { source, reply } => {
                drop(reply.send(self.tell(&source, SourceCommand::Resume, "resumed")))
            }
            Command::Snapshot { source, tables, after_gap, reply } => {
                drop(reply.send(self.snapshot(&source, tables, after_gap).await));
            }
            Command::ParkedList { query, reply } => drop(reply.send(self.parked_list(query).await)),
            Command::ParkedShow { seq, reply } => drop(reply.send(self.parked_show(seq).await)),
            Command::ParkedRetry { selection, reply } => drop(reply.send(self.parked_settle(selection, true).await)),
            Command::ParkedDiscard { selection, reply } => drop(reply.send(self.parked_settle(selection, false).await)),
        }
    }

    fn source(&self, name: &str) -> Result<&SourceControl, Refusal> {
        self.sources.iter().find(|source| &*source.name == name).ok_or_else(|| {
            let names: Vec<&str> = self.sources.iter().map(|source| &*source.name).collect();
            Refusal::new(RefusalKind::NotFound, format!("there is no source {name:?}"))
                .help(format!("there are: {}", names.join(", ")))
        })
    }

    fn tell(&self, name: &str, command: SourceCommand, done: &str) -> Outcome {
        let source = self.source(name)?;
        source.commands.try_send(command).map_err(|error| {
            let why = match error {
                TrySendError::Full(_) => "the source has not heard earlier commands yet; try again",
                TrySendError::Closed(_) => "the process is stopping",
            };
            Refusal::new(RefusalKind::Conflict, why)
        })?;
        Ok(format!("{name} {done}"))
    }

    async fn snapshot(&self, name: &str, tables: Vec<String>, after_gap: bool) -> Outcome {
        let source = self.source(name)?;
        if after_gap {
            return self.accept_gap(source).await;
        }
        let (answer, outcome) = oneshot::channel();
        let what = match &tables[..] {
            [] => "all tables".to_owned(),
            [table] => table.clone(),
            several => format!("{} tables", several.len()),
        };
        self.tell(name, SourceCommand::Snapshot { request: SnapshotRequest { tables }, answer }, "")?;
        match timeout(RECORDED_WITHIN, outcome).await {
            Ok(Ok(Ok(()))) => Ok(format!("reading {what} of {name} again; see `towpath status`")),
            Ok(Ok(Err(why))) => Err(Refusal::new(RefusalKind::Conflict, why)),
            Ok(Err(_)) => {
                Err(Refusal::new(RefusalKind::Conflict, format!("{name} stopped before it was recorded; ask again")))
            }
            Err(_) => Ok(format!(
                "{what} of {name} will be read again as soon as the source streams and the outbox has room; until then it is not recorded, and a stop forgets it"
            )),
        }
    }

    /// Makes the decision durable, then starts the source again: it begins anew from now and reads everything.
    async fn accept_gap(&self, source: &SourceControl) -> Outcome {
        let stopped_by_gap = source.board.read(|view| view.is_gap());
        if !stopped_by_gap {
            let refusal = Refusal::new(RefusalKind::Conflict, format!("{} is not stopped by a gap", source.name));
            return Err(refusal.help("leave out --after-gap to read tables again while changes go on"));
        }
        let failed = |error: OutboxError| Refusal::new(RefusalKind::Failed, error.to_string());
        let resume = self.outbox.resume(&source.name).await.map_err(failed)?;
        let record = Record {
            source: source.name.clone(),
            identity: resume.identity.as_deref().unwrap_or_default().into(),
            events: EventBatch::new(),
            position: None,
            state: vec![
                StateEntry { key: towpath_contract::AFTER_GAP.into(), value: Some(Vec::new()) },
                epoch::after(epoch::of(&resume.state)),
                epoch::unread(),
            ],
        };
        let permit = self.outbox.reserve(0).await.map_err(failed)?;
        self.outbox.record(permit, record).await.map_err(failed)?;
        self.tell(&source.name, SourceCommand::Resume, "starts anew from now, and reads all its tables")
    }

    fn route_id(&self, name: &str) -> Result<RouteId, Refusal> {
        let stats = self.outbox.stats();
        let found = stats.routes.iter().find(|route| &*route.name == name).map(|route| route.id);
        found.ok_or_else(|| Refusal::new(RefusalKind::NotFound, format!("there is no route {name:?}")))
    }

    async fn parked_list(&self, query: ParkedQuery) -> Result<ParkedPage, Refusal> {
        let route = query.route.as_deref().map(|name| self.route_id(name)).transpose()?;
        let stats = self.outbox.stats();
        let selected = stats.routes.iter().filter(|stats| route.is_none_or(|route| route == stats.id));
        let total = selected.map(|route| route.parked_events).sum();
        let events = self.parked(route, query.after, query.limit).await?;
        Ok(ParkedPage { events: events.iter().map(|event| head(event, &stats)).collect(), total })
    }

    async fn parked(
        &self,
        route: Option<RouteId>,
        after: Seq,
        limit: usize,
    ) -> Result<Vec<outbox::ParkedEvent>, Refusal> {
        let limit = limit.clamp(1, PAGE_EVENTS_MAX) as u32;
        let events = self.outbox.parked(route, after, limit).await;
        events.map_err(|error| Refusal::new(RefusalKind::Failed, error.to_string()))
    }

    async fn parked_show(&self, seq: Seq) -> Result<ParkedEvent, Refusal> {
        let event = self.outbox.parked_event(seq).await;
        let event = event.map_err(|error| Refusal::new(RefusalKind::Failed, error.to_string()))?;
        let event = event.ok_or_else(|| {
            Refusal::new(RefusalKind::NotFound, format!("no event {seq} is parked"))
                .help("list them with `towpath parked list`")
        })?;
        Ok(ParkedEvent {
            head: head(&event, &self.outbox.stats()),
            properties: Vec::new(),
            body: Body::shown(event.body.as_deref().unwrap_or_default()),
        })
    }

    async fn parked_settle(&self, selection: ParkedSelection, retry: bool) -> Outcome {
        if !selection.is_clear() {
            return Err(Refusal::new(RefusalKind::Invalid, "name events, or a route, or all: one of the three"));
        }
        let seqs = match (&selection.route, selection.all) {
            (Some(route), _) => self.all_parked(Some(self.route_id(route)?)).await?,
            (None, true) => self.all_parked(None).await?,
            (None, false) => selection.seqs,
        };
        let several = seqs.len() > 1;
        let (mut released, mut discarded, mut unfit) = (0, 0, 0);
        // Those that wait behind one that is discarded are discarded themselves, before they would be let go.
        let mut seqs = seqs;
        if !retry {
            seqs.sort_unstable_by(|a, b| b.cmp(a));
        }
        for seq in seqs {
            let moved = if retry { self.outbox.retry(seq).await } else { self.outbox.discard(seq).await };
            match moved {
                Ok(moved) => {
                    released += moved.released;
                    discarded += moved.discarded;
                }
                // It went with one before it: those that only waited go out together.
                Err(OutboxError::NotParked(_)) if released + discarded > 0 => {}
                // What waits behind one that can only be discarded stays with it.
                Err(OutboxError::Unfit(_) | OutboxError::WaitsBehind { .. }) if several => unfit += 1,
                Err(error) => {
                    let kind = if matches!(error, OutboxError::NotParked(_)) {
                        RefusalKind::NotFound
                    } else {
                        RefusalKind::Conflict
                    };
                    let mut refusal = Refusal::new(kind, error.to_string());
                    refusal.help = error.help();
                    return Err(refusal);
                }
            }
        }
        tracing::info!(released, discarded, "parked events: a person decided");
        let events = |count: u64| if count == 1 { "1 event".to_owned() } else { format!("{count} events") };
        let mut said = match (released, discarded) {
            (0, 0) => "nothing is parked there".to_owned(),
            (released, 0) => format!("{} on the way again", events(released)),
            (0, discarded) => format!("{} discarded", events(discarded)),
            (released, discarded) => {
                format!("{} discarded, {} that waited behind on the way", events(discarded), events(released))
            }
        };
        if unfit > 0 {
            said += &format!("; {} stay: they can only be discarded, or wait behind such a one", events(unfit));
        }
        Ok(said)
    }

    async fn all_parked(&self, route: Option<RouteId>) -> Result<Vec<Seq>, Refusal> {
        let mut seqs: Vec<Seq> = Vec::new();
        loop {
            let page = self.parked(route, seqs.last().copied().unwrap_or(0), PAGE_EVENTS_MAX).await?;
            let last = page.len() < PAGE_EVENTS_MAX;
            // Those that only wait go with the one that they wait for.
            seqs.extend(page.iter().map(|event| event.seq));
            if last {
                return Ok(seqs);
            }
        }
    }
}

fn head(event: &outbox::ParkedEvent, stats: &outbox::Stats) -> ParkedHead {
    let route = stats.routes.iter().find(|route| route.id == event.route);
    let waiting = event.waiting_for.map(|seq| format!("waits behind event {seq} of its key"));
    ParkedHead {
        seq: event.seq,
        route: route.map_or_else(String::new, |route| route.name.to_string()),
        id: event.id.clone(),
        key: event.key.clone(),
        exchange: event.exchange.clone(),
        routing_key: event.routing_key.clone(),
        reason: event.reason.clone().or(waiting).unwrap_or_default(),
        parked_at_ms: event.parked_ms,
        body_bytes: event.body_bytes,
    }
}
