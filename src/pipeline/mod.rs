//! Starts the parts, connects them, and stops them: capture → record → relay.
//!
//! [`source`] is a source's task, [`control`] answers people, [`status`] says how it all is. The parts know each other only
//! through here.

mod board;
mod control;
mod discover;
mod doctor;
mod epoch;
mod preview;
mod related;
mod source;
mod status;
mod store;
mod unfit;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;
use towpath_contract::{Error, ErrorKind, Fut};
use tracing::{Instrument, info, info_span, warn};

use crate::admin::{self, Metrics, Server};
use crate::cli::engine::{self, Examined, Preview, Wanted};
use crate::config::Checked;
use crate::config::checked::{CheckedRoute, CheckedSource};
use crate::config::model::AfterParked;
use crate::discover::Sampled;
use crate::outbox::{self, Outbox, OutboxError, State, Stored, StoredRoute};
use crate::registry;
use crate::relay::{self, Relay, Settings};
use crate::route::Router;
use crate::route::plan::Route;

use board::SourceBoard;
use control::{Control, SourceControl};
use source::SourceTask;
use store::{Feed, OutboxStore};

/// Cursors per route. One keeps the order of recording over all keys of a route.
const SHARDS: u16 = 1;

/// Sources finish their batch within this when the process stops; what is not recorded by then is read again.
const SOURCES_STOP_MAX: Duration = Duration::from_secs(8);

/// The outbox writes what is queued within this.
const OUTBOX_CLOSE_MAX: Duration = Duration::from_secs(10);

/// What `main` gives the command line to work with.
pub struct Engine;

impl engine::Engine for Engine {
    fn run(&self, config: Checked) -> Fut<'_, Result<(), Error>> {
        Box::pin(run(config))
    }

    fn preview<'a>(&'a self, config: &'a Checked, wanted: &'a Wanted) -> Fut<'a, Result<Option<Vec<Preview>>, Error>> {
        Box::pin(preview::preview(config, wanted))
    }

    fn discover<'a>(&'a self, config: &'a Checked, rows: usize) -> Fut<'a, Result<Vec<Sampled>, Error>> {
        Box::pin(discover::discover(config, rows))
    }

    fn doctor<'a>(&'a self, config: &'a Checked) -> Fut<'a, Vec<Examined>> {
        Box::pin(doctor::examine(config))
    }

    fn stopped<'a>(&'a self, config: &'a Checked) -> Fut<'a, Result<admin::Handle, Error>> {
        Box::pin(control::stopped(config))
    }
}

/// From a checked config to a clean stop.
async fn run(config: Checked) -> Result<(), Error> {
    let mut signals = Signals::new()?;
    let server = Server::bind(&config.admin).await?;
    let (news, recorded) = mpsc::unbounded_channel();
    let (outbox, stored) = open_outbox(&config, news)?;
    for warning in &stored.warnings {
        warn!("{warning}");
    }
    let configured = |name: &String| config.sources.iter().any(|source| source.name == *name);
    for source in stored.sources.keys().filter(|name| !configured(name)) {
        warn!(
            source,
            "the config no longer has this source. What it made in its system stays there, and may keep the system's log: the \
             replication slot of a PostgreSQL source is in pg_replication_slots. Drop it there if nobody reads from it"
        );
    }
    let settings = Settings::new(&config.broker, relay_routes(&config, &stored.routes), stored.last_seq)?;
    let relay = Relay::start(settings, Arc::new(OutboxStore(outbox.clone())), Feed(recorded));

    let (stop, stopping) = watch::channel(false);
    let mut sources = JoinSet::new();
    let mut controls = Vec::new();
    for source in &config.sources {
        let (task, control) = source_task(source, &config, &stored.routes, &outbox, stopping.clone());
        let span = info_span!("capture", source = %source.name);
        sources.spawn(task.run().instrument(span));
        controls.push(control);
    }

    let metrics = Arc::new(metrics(&config, &stored.routes));
    let (handle, commands) = admin::channel();
    let control = Control::new(&config, outbox.clone(), relay.status(), controls);
    let mut serving = JoinSet::new();
    info!(address = %config.admin.listen, "admin API");
    serving.spawn(server.serve(handle, metrics));
    serving.spawn(control.run(commands, stopping));

    let failed = tokio::select! {
        reason = signals.stop() => {
            info!("{reason}: finishing what is in flight");
            None
        }
        error = failed(&outbox) => Some(error),
    };
    // Nobody listens any more: then nobody needs telling.
    let _ = stop.send(true);
    if timeout(SOURCES_STOP_MAX, async { while sources.join_next().await.is_some() {} }).await.is_err() {
        warn!("a source did not stop in time; what it had not recorded is read again at the next start");
        sources.abort_all();
    }
    relay.stop().await;
    let closed = timeout(OUTBOX_CLOSE_MAX, outbox.close()).await;
    serving.abort_all();
    match (failed, closed) {
        (Some(error), _) | (None, Ok(Err(error))) => Err(outbox_error(error)),
        (None, Err(_)) => Err(Error::operator(ErrorKind::Storage, "closing the outbox", "it did not end in time")),
        (None, Ok(Ok(()))) => {
            info!("stopped");
            Ok(())
        }
    }
}

/// Pends while the outbox works.
async fn failed(outbox: &Outbox) -> OutboxError {
    let mut state = outbox.watch_state();
    match state.wait_for(|state| matches!(state, State::Failed(_) | State::Closed)).await.as_deref() {
        Ok(State::Failed(error)) => error.clone(),
        _ => OutboxError::Closed,
    }
}

fn outbox_error(error: OutboxError) -> Error {
    let help = error.help();
    let error = Error::operator(ErrorKind::Storage, "working with the outbox", error);
    match help {
        Some(help) => error.with_help(help),
        None => error,
    }
}

fn open_outbox(config: &Checked, news: mpsc::UnboundedSender<outbox::News>) -> Result<(Outbox, Stored), Error> {
    let route = |route: &CheckedRoute| outbox::RouteSetup {
        name: route.name.clone(),
        waits: route.after_parked == AfterParked::Wait,
    };
    let setup = outbox::Setup { routes: config.routes.iter().map(route).collect(), shards: SHARDS, news };
    Outbox::open(&config.outbox, setup).map_err(outbox_error)
}

/// Every route that the outbox knows: one that was taken out of the config still has its events published, before those of
/// routes that were made since: they may have the same keys.
fn relay_routes(config: &Checked, stored: &[StoredRoute]) -> Vec<relay::RouteSetup> {
    let former = |route: &&StoredRoute| !route.configured && route.unsettled.events > 0;
    let setup = |route: &StoredRoute| {
        let configured = config.routes.iter().find(|configured| configured.name == route.name);
        let is_older = |former: &&StoredRoute| former.settled.iter().any(|settled| *settled < route.since);
        let older = stored.iter().filter(former).filter(is_older).filter(|_| route.configured);
        let behind = |former: &StoredRoute| relay::Behind {
            route: former.id,
            name: former.name.as_str().into(),
            through: route.since,
        };
        relay::RouteSetup {
            id: route.id,
            name: route.name.as_str().into(),
            settled: route.settled.clone(),
            behind: older.map(behind).collect(),
            unroutable: configured.map(|route| route.unroutable).unwrap_or_default(),
            after_parked: configured.map(|route| route.after_parked).unwrap_or_default(),
            exchanges: configured.map(CheckedRoute::exchanges).unwrap_or_default(),
        }
    };
    stored.iter().filter(|route| is_of_interest(route)).map(setup).collect()
}

fn source_task(
    source: &CheckedSource,
    config: &Checked,
    stored: &[StoredRoute],
    outbox: &Outbox,
    stopping: watch::Receiver<bool>,
) -> (SourceTask, SourceControl) {
    let name: Arc<str> = source.name.as_str().into();
    let board = Arc::new(SourceBoard::default());
    let (sender, commands) = mpsc::channel(4);
    let id = |name: &str| stored.iter().find(|route| route.name == name).map(|route| route.id);
    let routes: Vec<Route> = config.routes.iter().filter_map(|route| Some(route.route(id(&route.name)?))).collect();
    let task = SourceTask {
        name: name.clone(),
        source: registry::source(&source.name, &source.config, &spool_folder(&config.outbox.sqlite)),
        router: Router::new(&source.name, &routes),
        outbox: outbox.clone(),
        board: board.clone(),
        commands,
        stopping,
        routes: config.routes.clone(),
        places: config.places.clone(),
        trouble: None,
        asked: Vec::new(),
        parked_told: None,
    };
    (task, SourceControl { name, board, commands: sender })
}

/// Beside the outbox, on the same disk: transactions in progress wait here.
fn spool_folder(outbox: &Path) -> PathBuf {
    let mut name = outbox.file_name().unwrap_or_default().to_owned();
    name.push(".spool");
    outbox.with_file_name(name)
}

/// A former route is, as long as it holds events.
fn is_of_interest(route: &StoredRoute) -> bool {
    route.configured || route.unsettled.events > 0 || route.parked_events > 0
}

fn metrics(config: &Checked, stored: &[StoredRoute]) -> Metrics {
    let sources: Vec<&str> = config.sources.iter().map(|source| source.name.as_str()).collect();
    let routes: Vec<&str> =
        stored.iter().filter(|route| is_of_interest(route)).map(|route| route.name.as_str()).collect();
    Metrics::new(&sources, &routes)
}

/// SIGTERM and SIGINT ask for a clean stop.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> Result<Signals, Error> {
        let failed = |error| Error::bug("listening for signals", error);
        Ok(Signals {
            terminate: signal(SignalKind::terminate()).map_err(failed)?,
            interrupt: signal(SignalKind::interrupt()).map_err(failed)?,
        })
    }

    async fn stop(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}
