//! The connection's life: made, lost, made again on the next host.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use towpath_contract::{Action, Error, ErrorKind, Result};

use super::Driver;
use super::intake::Job;
use crate::event::Seq;
use crate::failpoint::failpoint;
use crate::relay::session::{Lost, Session};
use crate::relay::shard::Shard;
use crate::relay::status::RouteState;
use crate::relay::wire::{Connection, Turn, open};
use crate::relay::{Settings, topology};
use crate::retry::{Pauses, pauses};

const RECONNECT_FIRST: Duration = Duration::from_millis(100);
const RECONNECT_LONGEST: Duration = Duration::from_secs(5);
const OPERATOR_FIRST: Duration = Duration::from_secs(2);
const OPERATOR_LONGEST: Duration = Duration::from_secs(30);

/// AMQP 0-9-1, reply codes.
const NOT_FOUND: u16 = 404;

/// A connection that lived so long, or confirmed something, was a good one: the next attempt comes at once.
const GOOD_AFTER: Duration = Duration::from_secs(10);

/// Which host is next, and when.
pub(super) struct Attempts {
    host: usize,
    failures: usize,
    pauses: Pauses,
    operator_pauses: Pauses,
    pub(super) confirmed: bool,
}

impl Attempts {
    pub(super) fn new() -> Attempts {
        Attempts {
            host: 0,
            failures: 0,
            pauses: pauses(RECONNECT_FIRST, RECONNECT_LONGEST),
            operator_pauses: pauses(OPERATOR_FIRST, OPERATOR_LONGEST),
            confirmed: false,
        }
    }
}

/// Events that may be the one over which the broker broke the connection.
#[derive(Default)]
pub(super) struct Suspects {
    /// Shards with events under way at that time, and the last of these. As long as there are any, events go out one by one.
    pub(super) among: Vec<(usize, Seq)>,
    /// It was alone under way when the broker broke. Once may be chance.
    alone: Option<(usize, Seq)>,
}

pub(super) type Established = Result<(Session, Vec<String>)>;

pub(super) enum Link {
    Down { until: Instant },
    Connecting(Pin<Box<dyn Future<Output = Established> + Send>>),
    Up(Box<Session>),
}

pub(super) enum LinkEvent {
    Retry,
    Established(Box<Established>),
    Turned(std::io::Result<Turn>),
}

impl Link {
    pub(super) async fn next(&mut self) -> LinkEvent {
        match self {
            Link::Down { until } => {
                tokio::time::sleep_until((*until).into()).await;
                LinkEvent::Retry
            }
            Link::Connecting(attempt) => LinkEvent::Established(Box::new(attempt.await)),
            Link::Up(session) => LinkEvent::Turned(session.connection.turn().await),
        }
    }
}

/// Connects, and declares or verifies the topology before anything is published.
async fn establish(settings: Arc<Settings>, host: usize) -> Established {
    let endpoint = &settings.endpoints[host];
    let tls = settings.tls.as_ref();
    let mut connection = open(endpoint, tls, settings.heartbeat).await?;
    let lost = |why| Error::retry(ErrorKind::Connection, format!("connecting to {}", endpoint.label()), why);
    let address = connection.peer().map_err(lost)?;
    let findings = tokio::select! {
        findings = topology::apply(&settings.topology, endpoint, address, tls) => findings,
        ended = keep_alive(&mut connection) => return Err(lost(ended)),
    };
    Ok((Session::new(connection, endpoint.label().to_owned()), findings))
}

/// Sends and takes heartbeats until the connection ends.
async fn keep_alive(connection: &mut Connection) -> std::io::Error {
    let mut beat = tokio::time::interval(connection.tuning.heartbeat / 4);
    loop {
        tokio::select! {
            _ = beat.tick() => connection.keep_alive(Instant::now()),
            turned = connection.turn() => if let Err(why) = turned {
                return why;
            },
        }
    }
}

impl Driver {
    pub(super) fn on_link(&mut self, event: LinkEvent) {
        match event {
            LinkEvent::Retry if self.stopping.is_some() => self.link = Link::Down { until: far_away() },
            LinkEvent::Retry => self.connect(),
            LinkEvent::Established(outcome) => match *outcome {
                Ok((session, findings)) => self.on_established(session, findings),
                Err(why) => self.on_refused(&why),
            },
            LinkEvent::Turned(Err(why)) => {
                // The broker's last words may have come with the end.
                let reason = Lost::new(why);
                let lost = self.receive().err().unwrap_or(reason);
                self.on_lost(lost);
            }
            LinkEvent::Turned(Ok(turn)) => {
                if turn.wrote {
                    failpoint!("relay.after_publish");
                }
                if let Err(lost) = self.receive() {
                    self.on_lost(lost);
                }
            }
        }
    }

    fn receive(&mut self) -> Result<(), Lost> {
        let now_ms = self.now_ms();
        let Link::Up(session) = &mut self.link else { return Ok(()) };
        let was_blocked = session.blocked.is_some();
        let outcome = session.receive(&mut self.shards, &mut self.changed, (&mut self.limits, &self.ids, now_ms));
        if was_blocked != session.blocked.is_some() {
            self.report.connection(session.state());
            (0..self.shards.len()).for_each(|index| self.ready.mark(index));
        }
        outcome
    }

    fn connect(&mut self) {
        self.link = Link::Connecting(Box::pin(establish(self.settings.clone(), self.attempts.host)));
    }

    fn on_established(&mut self, session: Session, findings: Vec<String>) {
        tracing::info!(host = session.host, "connected to RabbitMQ");
        for finding in &findings {
            tracing::warn!(host = session.host, "{finding}");
        }
        self.limits.frame_bytes_max = session.connection.tuning.frame_max;
        self.attempts.failures = 0;
        self.attempts.operator_pauses.reset();
        self.attempts.confirmed = false;
        self.report.connected(session.state(), findings);
        self.link = Link::Up(Box::new(session));
        self.open_channels();
    }

    /// Something that was to be declared is not there: it could not be, or was deleted. It is declared again, before the routes
    /// that miss it try again.
    pub(super) fn declare_again(&mut self) {
        let Link::Up(session) = &self.link else { return };
        let misses = |shard: &Shard| matches!(shard.state(), RouteState::ChannelClosed { code: NOT_FOUND, .. });
        let wanted = self.report.has_findings() || self.shards.iter().any(misses);
        let (false, true, Ok(address)) = (self.declaring, wanted, session.connection.peer()) else { return };
        self.declaring = true;
        let (settings, host) = (self.settings.clone(), self.attempts.host);
        self.jobs.spawn(async move {
            let (endpoint, tls) = (&settings.endpoints[host], settings.tls.as_ref());
            Job::Declared { findings: topology::apply(&settings.topology, endpoint, address, tls).await }
        });
    }

    pub(super) fn on_declared(&mut self, findings: Vec<String>) {
        self.declaring = false;
        self.report.topology(findings);
    }

    /// No connection. The next host is tried at once; after a round of all of them there is a pause.
    fn on_refused(&mut self, why: &Error) {
        let needs_operator = why.action != Action::Retry;
        self.attempts.failures += 1;
        let pause = match (self.attempts.failures.is_multiple_of(self.settings.endpoints.len()), needs_operator) {
            (false, _) => Duration::ZERO,
            (true, false) => self.attempts.pauses.next_pause(),
            (true, true) => self.attempts.operator_pauses.next_pause(),
        };
        self.down(pause, why.to_string(), needs_operator);
    }

    pub(super) fn on_lost(&mut self, lost: Lost) {
        let Link::Up(session) = std::mem::replace(&mut self.link, Link::Down { until: far_away() }) else { return };
        if lost.hard {
            self.suspect(&lost.reason);
        }
        for (index, shard) in self.shards.iter_mut().enumerate() {
            shard.channel_lost(None);
            self.changed.mark(index);
        }
        let was_good = self.attempts.confirmed || session.opened.elapsed() > GOOD_AFTER;
        if was_good {
            self.attempts.pauses.reset();
        }
        let pause = if was_good { Duration::ZERO } else { self.attempts.pauses.next_pause() };
        let reason = format!("connection to {} lost: {}", session.host, lost.reason);
        self.jobs.spawn(async move {
            session.flush().await;
            Job::Done
        });
        self.down(pause, reason, false);
    }

    fn down(&mut self, pause: Duration, reason: String, needs_operator: bool) {
        self.attempts.host = (self.attempts.host + 1) % self.settings.endpoints.len();
        self.link = Link::Down { until: Instant::now() + pause };
        let host = self.settings.endpoints[self.attempts.host].label().to_owned();
        self.report.connecting(host, reason, needs_operator, SystemTime::now());
    }

    /// The broker broke over something that we sent. Events are then sent one by one, so that the next time it is known which it
    /// was; the one over which it breaks twice is parked.
    fn suspect(&mut self, reason: &str) {
        let under_way = |(_, shard): &(usize, &Shard)| shard.window.unanswered() > 0;
        let among: Vec<(usize, &Shard)> = self.shards.iter().enumerate().filter(under_way).collect();
        let alone = match among[..] {
            [(index, shard)] if shard.window.len() == 1 => Some((index, shard.done_through() + 1)),
            _ => None,
        };
        if alone.is_some() && alone == self.suspects.alone {
            let index = among[0].0;
            self.shards[index].condemn_if_alone(format!("the broker broke over it, twice: {reason}"));
        } else {
            self.suspects.among = among.into_iter().map(|(index, shard)| (index, shard.source.taken())).collect();
            self.suspects.alone = alone;
        }
    }
}

/// No moment to wait for: something else ends the wait.
pub(super) fn far_away() -> Instant {
    Instant::now() + Duration::from_secs(86_400)
}
