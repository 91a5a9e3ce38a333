//! The relay's one task: it waits for events, answers, the socket and the clock, and lets the shards act.

mod intake;
mod link;

use std::future::poll_fn;
use std::hash::RandomState;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;

use self::intake::Job;
use self::link::{Attempts, Link, Suspects};
use super::marks::Marks;
use super::parked_keys::KEYS_MAX;
use super::poison::Limits;
use super::report::Report;
use super::ring::Ring;
use super::shard::{ChannelState, Shard};
use super::status::{ConnectionState, RelayStatus};
use super::store::{Feed, Store};
use super::{Command, Settings};
use crate::event::Seq;
use crate::failpoint::failpoint;

/// Recently recorded events in memory.
const RING_BYTES_MAX: usize = 8 << 20;

/// Reads of the outbox that may be under way or at hand, over all routes: with [`super::source::READ_BYTES`] each, 8 MiB.
const READS_MAX: usize = 16;

/// Batches taken from the input before the socket's turn.
const BATCHES_AT_ONCE: usize = 64;

/// How often idle shards' cursors move along, and missing exchanges and queues are declared again.
const SKIP_EVERY: Duration = Duration::from_secs(5);

/// What is confirmed late is waited for so long when stopping.
const STOP_SECONDS_MAX: u64 = 5;

pub(super) struct Driver {
    pub(super) settings: Arc<Settings>,
    /// Routes that are held back, and what must be settled first.
    held_back: Vec<HeldBack>,
    /// The topology is being declared again.
    declaring: bool,
    pub(super) store: Arc<dyn Store>,
    feed: Box<dyn Feed>,
    commands: mpsc::Receiver<Command>,
    pub(super) shards: Vec<Shard>,
    /// By route id: index of the route's first shard and how many it has.
    places: Vec<Option<(usize, u16)>>,
    ring: Ring,
    link: Link,
    attempts: Attempts,
    /// The last event that is known to be recorded.
    recorded: Seq,
    ready: Marks,
    changed: Marks,
    unread: Marks,
    reads: Arc<Semaphore>,
    jobs: JoinSet<Job>,
    clock: Instant,
    ids: RandomState,
    limits: Limits,
    suspects: Suspects,
    next_tick: Instant,
    next_wake: Option<Instant>,
    next_skip: Instant,
    stopping: Option<Instant>,
    report: Report,
}

/// A shard that waits for the shards of a former route.
struct HeldBack {
    shard: usize,
    former: std::ops::Range<usize>,
    through: Seq,
}

impl Driver {
    pub(super) fn new(
        settings: Arc<Settings>,
        store: Arc<dyn Store>,
        feed: Box<dyn Feed>,
        commands: mpsc::Receiver<Command>,
        status: watch::Sender<RelayStatus>,
    ) -> Driver {
        let shards = settings.shards();
        let ids = settings.routes.iter().map(|route| usize::from(route.id.0) + 1).max().unwrap_or(0);
        let mut places = vec![None; ids];
        for (index, shard) in shards.iter().enumerate().rev() {
            let route = &settings.routes[shard.route];
            places[usize::from(route.id.0)] = Some((index, route.shards()));
        }
        let limits =
            Limits { frame_bytes_max: super::wire::FRAME_BYTES_MIN as usize, body_bytes_max: settings.body_bytes_max };
        let now = Instant::now();
        let recorded = settings.recorded;
        let mut changed = Marks::new(shards.len());
        (0..shards.len()).for_each(|index| changed.mark(index));
        let held_back = shards.iter().enumerate().flat_map(|(shard, held)| {
            let behind = settings.routes[held.route].behind.iter();
            let held_back = behind.filter_map(|behind| {
                let (first, count) = places.get(usize::from(behind.route.0)).copied().flatten()?;
                Some(HeldBack { shard, former: first..first + usize::from(count), through: behind.through })
            });
            held_back.collect::<Vec<_>>()
        });
        Driver {
            held_back: held_back.collect(),
            declaring: false,
            ring: Ring::new(shards.len(), RING_BYTES_MAX),
            ready: Marks::new(shards.len()),
            changed,
            unread: Marks::new(shards.len()),
            report: Report::new(status, &shards),
            settings,
            store,
            feed,
            commands,
            shards,
            places,
            link: Link::Down { until: now },
            attempts: Attempts::new(),
            recorded,
            reads: Arc::new(Semaphore::new(READS_MAX)),
            jobs: JoinSet::new(),
            clock: now,
            ids: RandomState::new(),
            limits,
            suspects: Suspects::default(),
            next_tick: now,
            next_wake: None,
            next_skip: now + SKIP_EVERY,
            stopping: None,
        }
    }

    pub(super) async fn run(mut self) {
        let mut feed_open = true;
        loop {
            let wake = self.next_wake.map_or(self.next_tick, |wake| wake.min(self.next_tick));
            tokio::select! {
                event = self.link.next() => self.on_link(event),
                news = poll_fn(|cx| self.feed.poll_next(cx)), if feed_open => match news {
                    Some(news) => self.on_news(news),
                    None => feed_open = false,
                },
                Some(job) = self.jobs.join_next(), if !self.jobs.is_empty() => self.on_job(job),
                command = self.commands.recv(), if self.stopping.is_none() => self.on_command(command),
                () = tokio::time::sleep_until(wake.into()) => self.on_clock(),
            }
            self.take_news(BATCHES_AT_ONCE);
            self.settle();
            self.publish();
            self.settle();
            self.report.flush(&self.shards);
            if self.stopping.is_some_and(|deadline| self.may_stop(deadline)) {
                break;
            }
        }
        if let Link::Up(session) = self.link {
            session.close().await;
        }
        self.report.connection(ConnectionState::Stopped);
        // What was read or parked for us has no more use, except for the store itself, which finishes it.
        self.jobs.detach_all();
    }

    fn now_ms(&self) -> u64 {
        self.clock.elapsed().as_millis() as u64
    }

    /// Lets shards publish as far as the socket takes it, and starts the reads that they want.
    fn publish(&mut self) {
        let now_ms = self.now_ms();
        if let Link::Up(session) = &mut self.link
            && self.stopping.is_none()
            && self.ready.len() > 0
        {
            failpoint!("relay.before_publish");
            let context = (&self.limits, &self.ids, now_ms);
            let (shards, ready) = (&mut self.shards, &mut self.ready);
            if self.suspects.among.is_empty() {
                session.publish(shards, ready, &mut self.changed, &mut self.unread, context);
            } else {
                session.publish_carefully(shards, ready, &mut self.changed, &mut self.unread, context);
            }
        }
        for _ in 0..self.unread.len() {
            let Ok(permit) = self.reads.clone().try_acquire_owned() else { break };
            let Some(shard) = self.unread.take() else { break };
            self.read(shard, permit);
        }
    }

    fn on_command(&mut self, command: Option<Command>) {
        match command {
            Some(Command::Stop) | None => {
                self.skip_idle();
                self.stopping = Some(Instant::now() + Duration::from_secs(STOP_SECONDS_MAX));
            }
        }
    }

    fn may_stop(&mut self, deadline: Instant) -> bool {
        let connected = matches!(self.link, Link::Up(_));
        let quiet = |shard: &Shard| shard.is_quiet() || (!connected && shard.is_saved());
        let done = self.shards.iter().all(quiet) || Instant::now() >= deadline;
        self.next_tick = self.next_tick.min(deadline);
        done
    }

    fn on_clock(&mut self) {
        let now = Instant::now();
        if self.next_wake.is_some_and(|wake| wake <= now) {
            self.next_wake = None;
            for index in 0..self.shards.len() {
                let shard = &mut self.shards[index];
                match shard.paused_until() {
                    Some(until) if until <= now => {
                        shard.resume();
                        if let Link::Up(session) = &mut self.link
                            && shard.is_refused()
                        {
                            session.renew_channel(shard, now);
                        }
                        self.ready.mark(index);
                        self.changed.mark(index);
                    }
                    Some(until) => self.next_wake = Some(self.next_wake.map_or(until, |wake| wake.min(until))),
                    None => {}
                }
            }
        }
        if self.next_tick <= now {
            self.next_tick = now + self.settings.tick();
            let now_ms = self.now_ms();
            if let Link::Up(session) = &mut self.link
                && let Err(lost) =
                    session.tick(&mut self.shards, &mut self.changed, self.settings.confirm_timeout, now_ms)
            {
                self.on_lost(lost);
            }
            self.report.rates(&self.shards, now);
            if self.next_skip <= now {
                self.next_skip = now + SKIP_EVERY;
                self.skip_idle();
                self.declare_again();
            }
        }
    }

    /// Cursors of shards without events move along with the others: what is left behind would be read again at the next start,
    /// and a route counts as settled up to the least of its shards' cursors.
    fn skip_idle(&mut self) {
        for (index, shard) in self.shards.iter_mut().enumerate() {
            if shard.is_quiet() && shard.source.taken() < self.recorded {
                shard.source.skip_to(self.recorded);
                self.changed.mark(index);
            }
            shard.give_back_memory();
        }
    }

    /// Shards whose former routes are done publish from now on.
    fn let_go(&mut self) {
        if self.held_back.is_empty() {
            return;
        }
        let shards = &mut self.shards;
        let done = |held: &HeldBack| shards[held.former.clone()].iter().all(|former| former.settled >= held.through);
        let (free, held): (Vec<_>, Vec<_>) = self.held_back.drain(..).partition(done);
        for HeldBack { shard, .. } in free {
            if held.iter().all(|held| held.shard != shard) {
                shards[shard].held_back_by = None;
                self.ready.mark(shard);
                self.changed.mark(shard);
            }
        }
        self.held_back = held;
    }

    fn open_channels(&mut self) {
        let Link::Up(session) = &mut self.link else { return };
        for shard in &mut self.shards {
            if shard.channel_state == ChannelState::Closed && shard.paused_until().is_none() {
                session.open_channel(shard);
            }
        }
    }

    /// After what happened to the shards: park, settle, see what they need.
    fn settle(&mut self) {
        if self.changed.len() == 0 {
            return;
        }
        let mut needs_channel = false;
        for _ in 0..self.changed.len() {
            let Some(index) = self.changed.take() else { break };
            let shard = &mut self.shards[index];
            let confirmed = shard.counts.confirmed;
            shard.after_answers();
            self.attempts.confirmed |= shard.counts.confirmed > confirmed;
            let route = &self.settings.routes[shard.route];
            if let Some(through) = shard.wants_keys()
                && shard.paused_until().is_none()
            {
                let asked = shard.keys().asked();
                let keys = self.store.parked_keys(route.id, through, KEYS_MAX + 1);
                self.jobs.spawn(async move { Job::Keys { shard: index, asked, outcome: keys.await } });
            }
            if let Some(parked) = shard.parks_to_save() {
                let park = self.store.park(route.id, parked);
                self.jobs.spawn(async move { Job::Parked { shard: index, outcome: park.await } });
            }
            let through = shard.settled_through();
            if through > shard.settled {
                failpoint!("relay.before_settle");
                shard.settled = through;
                self.store.settle(route.id, shard.number, through);
            }
            if let Some(until) = shard.paused_until() {
                self.next_wake = Some(self.next_wake.map_or(until, |wake| wake.min(until)));
            } else if shard.may_take() && shard.source.has_more() {
                self.ready.mark(index);
            }
            needs_channel |= shard.channel_state == ChannelState::Closed && shard.paused_until().is_none();
            self.report.shard(shard);
        }
        if needs_channel {
            self.open_channels();
        }
        self.let_go();
        let shards = &self.shards;
        self.suspects
            .among
            .retain(|(index, until)| shards[*index].done_through() < *until && !shards[*index].is_stopped());
    }
}
