//! From recorded events to settled ones: publishes to RabbitMQ in order per key, and settles what the broker confirmed and did
//! not return.
//!
//! One task ([`driver`]) owns one connection ([`wire`], [`session`]). Each route has a [`shard`] with a channel of its own, so
//! that what the broker closes over one route leaves the others alone. A shard takes events from a [`source`] (memory while it
//! keeps up, the outbox while it is behind), and awaits confirms in a [`window`]. After trouble (a return, a nack, a closed
//! channel, an overdue confirm) it drains its window, waits with growing pauses, and begins again with the first unsettled event,
//! alone at first. The relay knows neither routes nor outbox: the pipeline gives it a [`Store`].

mod doctor;
mod driver;
mod marks;
mod parked_keys;
mod poison;
mod report;
mod ring;
mod session;
mod shard;
mod source;
mod status;
mod store;
mod topology;
mod window;
mod wire;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::{mpsc, watch};
use towpath_contract::{Error, ErrorKind, Result};

pub use self::doctor::doctor;
pub use self::status::{ConnectionState, RelayStatus, RouteState, RouteStatus};
pub use self::store::{Feed, News, Parked, ParkedKey, Store, Stretch};
pub use self::topology::Plan;
#[cfg(any(test, fuzzing))]
pub(crate) use self::wire::read_frames;
pub use self::wire::{Endpoint, TlsSettings};
use crate::config::model::{AfterParked, RabbitmqConfig, Unroutable};
use crate::event::{RouteId, Seq};

/// Commands that may wait to be heard.
const COMMANDS_MAX: usize = 64;

/// One route, as far as the relay is concerned.
#[derive(Clone, Debug)]
pub struct RouteSetup {
    pub id: RouteId,
    pub name: Arc<str>,
    /// For each shard, the last event that is settled. Its length is the number of shards, usually one.
    pub settled: Vec<Seq>,
    pub unroutable: Unroutable,
    pub after_parked: AfterParked,
    /// The exchanges that the route names without a template.
    pub exchanges: Vec<String>,
    /// Nothing goes out before these do: routes that the config no longer has may hold older events of the same keys.
    pub behind: Vec<Behind>,
}

/// A former route whose events up to `through` must be settled first.
#[derive(Clone, Debug)]
pub struct Behind {
    pub route: RouteId,
    pub name: Arc<str>,
    pub through: Seq,
}

impl RouteSetup {
    fn shards(&self) -> u16 {
        self.settled.len().try_into().unwrap_or(u16::MAX)
    }
}

/// Everything that the relay is told at start.
#[derive(Clone, Debug)]
pub struct Settings {
    endpoints: Vec<Endpoint>,
    tls: Option<TlsSettings>,
    topology: Plan,
    window: usize,
    confirm_timeout: Duration,
    heartbeat: Duration,
    body_bytes_max: u64,
    routes: Vec<RouteSetup>,
    recorded: Seq,
}

impl Settings {
    /// `recorded`: the last event in the outbox. Reads the files that `tls` names.
    ///
    /// # Errors
    /// No URL or one that cannot be read; TLS files that cannot be used.
    pub fn new(config: &RabbitmqConfig, routes: Vec<RouteSetup>, recorded: Seq) -> Result<Settings> {
        let endpoints: Vec<Endpoint> =
            config.url.iter().chain(&config.urls).map(Endpoint::parse).collect::<Result<_>>()?;
        if endpoints.is_empty() {
            return Err(Error::operator(ErrorKind::Setup, "reading rabbitmq", "neither `url` nor `urls` is given")
                .with_help("write rabbitmq.url: amqp://user:password@host:port/vhost"));
        }
        let tls = match endpoints.iter().any(Endpoint::is_tls) {
            true => {
                let tls = &config.tls;
                Some(TlsSettings::load(tls.ca.as_ref(), tls.certificate.as_ref(), tls.key.as_ref())?)
            }
            false => None,
        };
        Ok(Settings {
            endpoints,
            tls,
            topology: Plan::new(&config.declare, routes.iter().flat_map(|route| route.exchanges.iter().cloned())),
            window: usize::from(config.window.max(1)),
            confirm_timeout: config.confirm_timeout.0,
            heartbeat: config.heartbeat.0,
            body_bytes_max: config.max_message_size.0,
            routes,
            recorded,
        })
    }

    fn shards(&self) -> Vec<shard::Shard> {
        let mut shards = Vec::new();
        for (index, route) in self.routes.iter().enumerate() {
            let policy = shard::Policy { unroutable: route.unroutable, after_parked: route.after_parked };
            let count = route.shards();
            for number in 0..count {
                let source =
                    source::Source::new(route.id, number, count, route.settled[usize::from(number)], self.recorded);
                let window_max = (self.window / usize::from(count)).max(1);
                // Channel 0 is the connection's own.
                let channel = u16::try_from(shards.len() + 1).unwrap_or(u16::MAX);
                let place = (index, number, channel);
                let mut shard = shard::Shard::new(route.name.clone(), place, source, window_max, policy);
                shard.held_back_by = route.behind.first().map(|behind| behind.name.clone());
                shards.push(shard);
            }
        }
        shards
    }

    /// How often heartbeats and overdue confirms are looked at.
    fn tick(&self) -> Duration {
        let least = (self.confirm_timeout / 4).min(self.heartbeat / 4);
        least.clamp(Duration::from_millis(10), Duration::from_secs(1))
    }
}

#[derive(Debug)]
enum Command {
    Stop,
}

/// The running relay.
#[derive(Debug)]
pub struct Relay {
    commands: mpsc::Sender<Command>,
    status: watch::Receiver<RelayStatus>,
    task: tokio::task::JoinHandle<()>,
}

impl Relay {
    /// Starts the relay's task on the current runtime. `feed` tells of everything that is recorded after `settings`' `recorded`.
    pub fn start(settings: Settings, store: Arc<dyn Store>, feed: impl Feed) -> Relay {
        let (commands, commands_of_driver) = mpsc::channel(COMMANDS_MAX);
        let (status_of_driver, status) = watch::channel(first_status(&settings));
        let driver =
            driver::Driver::new(Arc::new(settings), store, Box::new(feed), commands_of_driver, status_of_driver);
        Relay { commands, status, task: tokio::spawn(driver.run()) }
    }

    /// To look at, or to await a state.
    pub fn status(&self) -> watch::Receiver<RelayStatus> {
        self.status.clone()
    }

    /// Publishes nothing more, waits a few seconds for the confirms that are due, settles them, and says goodbye to the broker.
    ///
    /// # Panics
    /// If the relay's task did.
    pub async fn stop(self) {
        _ = self.commands.send(Command::Stop).await;
        if let Err(failed) = self.task.await
            && let Ok(panic) = failed.try_into_panic()
        {
            std::panic::resume_unwind(panic);
        }
    }
}

fn first_status(settings: &Settings) -> RelayStatus {
    let routes = settings.routes.iter().map(|route| RouteStatus {
        route: route.id,
        name: route.name.clone(),
        state: RouteState::Behind,
        in_flight: 0,
        published: 0,
        confirmed: 0,
        returned: 0,
        nacked: 0,
        redelivered: 0,
        parked: 0,
        next_seq: route.settled.iter().min().map_or(0, |settled| settled + 1),
        rate: 0.0,
    });
    RelayStatus {
        connection: ConnectionState::Connecting {
            host: settings.endpoints[0].label().to_owned(),
            reason: None,
            needs_operator: false,
            since: SystemTime::now(),
        },
        topology: Vec::new(),
        routes: routes.collect(),
    }
}
