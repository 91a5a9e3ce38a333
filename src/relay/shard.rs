//! One shard of one route on its own channel: what it publishes next, what it waits for, and what it does about trouble.
//!
//! Pure: it writes frames into a buffer and changes state; sockets, timers and the store are the driver's.

mod returns;
mod trouble;

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use towpath_contract::planted;

use self::returns::Returned;
pub(super) use self::trouble::Trouble;
use super::parked_keys::ParkedKeys;
use super::poison::{Limits, poison};
use super::ring::Run;
use super::source::{Next, Source};
use super::status::RouteState;
use super::store::Parked;
use super::window::{Answer, UnknownTag, Window};
use super::wire::{Content, publish};
use crate::config::model::{AfterParked, Unroutable};
use crate::event::{Event, Seq};
use crate::retry::{Pauses, pauses};

/// Events are parked in batches of about this many.
const PARKS_AT_ONCE: usize = 500;

const TELL_OF_PARKED_EVERY: Duration = Duration::from_secs(60);

const PAUSE_FIRST: Duration = Duration::from_millis(100);
const PAUSE_LONGEST: Duration = Duration::from_secs(5);

#[derive(Clone, Copy, Debug)]
pub(super) struct Policy {
    pub(super) unroutable: Unroutable,
    pub(super) after_parked: AfterParked,
}

#[derive(Debug)]
pub(super) struct Shard {
    /// The route's, for people.
    name: Arc<str>,
    /// Publishes nothing before the events of that former route are out.
    pub(super) held_back_by: Option<Arc<str>>,
    /// Index of the route, number of the shard within it.
    pub(super) route: usize,
    pub(super) number: u16,
    pub(super) channel: u16,
    pub(super) channel_state: ChannelState,
    pub(super) source: Source,
    pub(super) window: Window,
    window_max: usize,
    /// Slow start: after trouble one event goes out alone, and each confirm allows one more.
    allowed: usize,
    flow: Flow,
    trouble: Option<(Trouble, SystemTime)>,
    pauses: Pauses,
    policy: Policy,
    keys: ParkedKeys,
    /// To be parked, in order, and being parked.
    parks: Vec<Parked>,
    parking: Vec<Parked>,
    /// Messages of this window that came back.
    returns: Vec<Returned>,
    /// The method of a return is here, its header not yet.
    returning: Option<Returned>,
    /// Parked keys changed: begin again, without taking more before.
    refreshing: bool,
    rewound_while_parking: bool,
    /// The broker (or its connection) broke over this event.
    condemned: Option<(Seq, String)>,
    /// When the log was last told that events are parked.
    parked_told: Option<Instant>,
    /// Events up to here were published at least once.
    highest: Seq,
    /// The store was told so.
    pub(super) settled: Seq,
    pub(super) counts: Counts,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ChannelState {
    Closed,
    Opening,
    Open,
    /// We asked to close it, at that time.
    Closing(Instant),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flow {
    Running,
    /// Publishes nothing until every event of the window is answered.
    Draining,
    Paused(Instant),
}

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    pub(super) published: u64,
    pub(super) confirmed: u64,
    pub(super) returned: u64,
    pub(super) nacked: u64,
    pub(super) redelivered: u64,
    pub(super) parked: u64,
}

/// What [`Shard::take`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    Published,
    Parked,
    /// The next event is in the outbox.
    Unread,
    /// There is none, or none may go out now.
    Nothing,
}

impl Shard {
    pub(super) fn new(
        name: Arc<str>,
        (route, number, channel): (usize, u16, u16),
        source: Source,
        window_max: usize,
        policy: Policy,
    ) -> Shard {
        Shard {
            name,
            held_back_by: None,
            route,
            number,
            channel,
            channel_state: ChannelState::Closed,
            settled: source.taken(),
            highest: source.taken(),
            source,
            window: Window::new(),
            window_max,
            allowed: window_max,
            flow: Flow::Running,
            trouble: None,
            pauses: pauses(PAUSE_FIRST, PAUSE_LONGEST),
            policy,
            keys: ParkedKeys::new(policy.after_parked),
            parks: Vec::new(),
            parking: Vec::new(),
            returns: Vec::new(),
            returning: None,
            refreshing: false,
            rewound_while_parking: false,
            condemned: None,
            parked_told: None,
            counts: Counts::default(),
        }
    }

    pub(super) fn may_take(&self) -> bool {
        self.channel_state == ChannelState::Open
            && self.held_back_by.is_none()
            && self.flow == Flow::Running
            && self.window.len() < self.allowed
            && self.parking.is_empty()
            && self.keys.are_known()
            && !self.refreshing
    }

    /// Publishes or parks the next event.
    pub(super) fn take(&mut self, out: &mut Vec<u8>, limits: &Limits, ids: &RandomState, now_ms: u64) -> Taken {
        if !self.may_take() {
            return Taken::Nothing;
        }
        if self.keys.are_incomplete() {
            if self.is_quiet() {
                self.fall(Trouble::TooManyParked);
                self.keys.forget(); // asked anew when it is tried again
            }
            return Taken::Nothing;
        }
        let (event, released) = match self.source.next() {
            Next::Event(event, released) => (event, released),
            Next::Unread => return Taken::Unread,
            Next::Nothing => {
                // What made the trouble is gone from the outbox: parked or discarded by a person.
                if self.is_quiet() {
                    self.recover();
                    self.keys.nothing_is_to_come();
                }
                return Taken::Nothing;
            }
        };
        let (seq, key_hash) = (event.seq, event.key_hash);
        if event.parked.is_some() {
            // A reminder: the store has set it aside itself.
            if self.keys.are_too_many() {
                if self.is_quiet() {
                    self.fall(Trouble::TooManyParked);
                }
                return Taken::Nothing;
            }
            self.keys.park(key_hash);
            self.source.advance(seq);
            return Taken::Parked;
        }
        let unfit = match &self.condemned {
            Some((condemned, reason)) if *condemned == seq => Some(reason.clone()),
            _ => poison(&event, limits),
        };
        if unfit.is_some() && self.keys.are_too_many() {
            if self.is_quiet() {
                self.fall(Trouble::TooManyParked);
            }
            return Taken::Nothing;
        }
        if self.keys.must_wait(key_hash, released) || unfit.is_some() {
            self.keys.park(key_hash);
            self.parks.push(Parked { seq, reason: unfit });
            self.source.advance(seq);
            return Taken::Parked;
        }
        let Event { id, exchange, routing_key, properties, body, .. } = event;
        publish(out, self.channel, limits.frame_bytes_max, &Content { exchange, routing_key, properties, body });
        self.window.push(seq, key_hash, ids.hash_one(id), now_ms);
        self.source.advance(seq);
        self.counts.published += 1;
        if seq > self.highest {
            self.highest = seq;
        } else {
            self.counts.redelivered += 1;
        }
        Taken::Published
    }

    /// # Errors
    /// The broker answered what it was never sent; the connection makes no sense any more.
    pub(super) fn answered(&mut self, tag: u64, multiple: bool, answer: Answer) -> Result<(), UnknownTag> {
        if self.channel_state != ChannelState::Open {
            return Ok(()); // on its way when we closed the channel
        }
        let answer = if planted("settle_on_a_nack") { Answer::Ack } else { answer };
        let before = self.window.unanswered();
        self.window.answer(tag, multiple, answer)?;
        if answer == Answer::Nack {
            self.counts.nacked += (before - self.window.unanswered()) as u64;
            self.flow = Flow::Draining;
        }
        Ok(())
    }

    /// After a batch of answers: settles what can be, and decides what follows once the window has drained.
    pub(super) fn after_answers(&mut self) {
        if self.returning.is_some() {
            return;
        }
        // Something came back that no one can name: nothing in this window can be trusted.
        let vetoed = self.returns.iter().any(|returned| returned.seq == 0);
        let mut confirmed = 0;
        while !vetoed && self.window.pop_settled().is_some() {
            confirmed += 1;
        }
        self.confirmed(confirmed);
        if self.flow == Flow::Draining && self.window.unanswered() == 0 {
            self.drained(vetoed);
        }
        self.refresh();
    }

    fn confirmed(&mut self, count: usize) {
        if count == 0 {
            return;
        }
        self.counts.confirmed += count as u64;
        self.allowed = (self.allowed + count).min(self.window_max);
        // While paused, what is confirmed went out before the trouble.
        if !matches!(self.flow, Flow::Paused(_)) {
            self.recover();
        }
        if self.allowed > self.window_max / 2 {
            self.pauses.reset();
        }
    }

    fn recover(&mut self) {
        if self.trouble.take().is_some() {
            tracing::info!(route = &*self.name, "the route goes on");
            self.source.unhold();
        }
    }

    /// A person moved parked events of this route: what is to come must be read again, up to `through`.
    pub(super) fn parked_changed(&mut self, through: Seq) {
        self.source.look_again(through);
        if self.policy.after_parked == AfterParked::Wait {
            self.refreshing = true;
            self.refresh();
        }
    }

    /// As soon as nothing is under way: begins again behind what is settled.
    fn refresh(&mut self) {
        if self.refreshing && self.window.is_empty() {
            self.rewind();
        }
    }

    /// The first event that has to be published (again) is the one after this.
    pub(super) fn done_through(&self) -> Seq {
        if planted("settle_before_confirm") {
            return self.source.taken();
        }
        self.window.front().map_or(self.source.taken(), |entry| entry.seq - 1)
    }

    /// What the store may be told: everything up to here is confirmed, or durable as parked.
    pub(super) fn settled_through(&self) -> Seq {
        let first_park = self.parking.iter().chain(&self.parks).map(|parked| parked.seq - 1).min();
        first_park.unwrap_or(u64::MAX).min(self.done_through())
    }

    fn rewind(&mut self) {
        let through = if planted("retry_skips_the_prefix") { self.source.taken() } else { self.done_through() };
        self.source.rewind(through);
        match std::mem::take(&mut self.refreshing) {
            true => self.keys.forget(),
            false => self.keys.rewound(),
        }
        self.rewound_while_parking = !self.parking.is_empty();
        self.parks.retain(|parked| parked.seq <= through); // the others will be met again
    }

    /// Stops, with growing pauses between attempts that publish one event.
    pub(super) fn fall(&mut self, trouble: Trouble) {
        let same = |before: &Trouble| std::mem::discriminant(before) == std::mem::discriminant(&trouble);
        let since = match &self.trouble {
            Some((before, since)) if same(before) => *since,
            _ => {
                let now = SystemTime::now();
                let why = trouble.state(now).trouble().unwrap_or_default();
                tracing::warn!(route = &*self.name, "the route waits, and tries again by itself: {why}");
                now
            }
        };
        self.trouble = Some((trouble, since));
        self.allowed = 1;
        self.source.hold();
        self.flow = Flow::Paused(Instant::now() + self.pauses.next_pause());
    }

    /// The channel is gone, for the reason given or with the connection: everything unsettled is to be published again.
    pub(super) fn channel_lost(&mut self, trouble: Option<Trouble>) {
        self.after_answers();
        self.rewind();
        self.window.reset();
        self.returns.clear();
        self.returning = None;
        self.channel_state = ChannelState::Closed;
        match trouble {
            Some(trouble) => self.fall(trouble),
            None if matches!(self.flow, Flow::Draining) => self.flow = Flow::Running,
            None => {}
        }
    }

    /// The broker refused the one event that is on its way: never publish it again, but park it.
    pub(super) fn condemn_if_alone(&mut self, reason: String) {
        if self.window.len() == 1
            && let Some(entry) = self.window.front()
        {
            self.condemned = Some((entry.seq, reason));
        }
    }

    pub(super) fn parks_are_many(&self) -> bool {
        self.parks.len() >= PARKS_AT_ONCE
    }

    pub(super) fn paused_until(&self) -> Option<Instant> {
        match self.flow {
            Flow::Paused(until) => Some(until),
            _ => None,
        }
    }

    /// It waits because the broker answered an event by a nack.
    pub(super) fn is_refused(&self) -> bool {
        matches!(self.trouble, Some((Trouble::Nacked, _)))
    }

    pub(super) fn resume(&mut self) {
        self.flow = Flow::Running;
    }

    /// Events to be parked now. Until [`Shard::parked`] nothing more is taken, so that they stay few.
    pub(super) fn parks_to_save(&mut self) -> Option<Vec<Parked>> {
        if self.parks.is_empty() || !self.parking.is_empty() || self.paused_until().is_some() {
            return None;
        }
        self.parking = std::mem::take(&mut self.parks);
        Some(self.parking.clone())
    }

    pub(super) fn parked(&mut self, outcome: Result<(), String>) {
        let parking = std::mem::take(&mut self.parking);
        let rewound = std::mem::take(&mut self.rewound_while_parking);
        match outcome {
            Ok(()) => {
                self.counts.parked += parking.len() as u64;
                self.tell_of_parked(&parking);
                if rewound {
                    // What was read before may show them as they were.
                    self.source.rewind(self.source.taken());
                }
                if self.flow == Flow::Running && self.window.is_empty() {
                    self.recover();
                }
            }
            Err(reason) => {
                self.parks.splice(0..0, parking);
                self.fall(Trouble::StoreFailed { reason });
            }
        }
    }

    /// A line for the first, and for more of them now and then.
    fn tell_of_parked(&mut self, parked: &[Parked]) {
        let due = self.parked_told.is_none_or(|told| told.elapsed() >= TELL_OF_PARKED_EVERY);
        if let Some(reason) = parked.iter().find_map(|parked| parked.reason.as_ref()).filter(|_| due) {
            self.parked_told = Some(Instant::now());
            let total = self.counts.parked;
            tracing::warn!(route = &*self.name, total, "events are parked, see `towpath parked list`: {reason}");
        }
    }

    /// Where the store is to be asked about parked keys, if it is. Say so with [`ParkedKeys::asked`].
    pub(super) fn wants_keys(&self) -> Option<Seq> {
        let steady = self.window.is_empty() && self.is_saved();
        (self.keys.are_wanted() && steady).then(|| self.source.taken())
    }

    pub(super) fn keys(&mut self) -> &mut ParkedKeys {
        &mut self.keys
    }

    /// Newly recorded events of this shard.
    pub(super) fn push(&mut self, run: Run) {
        if run.released() {
            run.places().for_each(|place| self.keys.released(place.key_hash));
        }
        self.source.push(run);
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.trouble.is_some()
    }

    /// Of many routes most are idle.
    pub(super) fn give_back_memory(&mut self) {
        self.window.give_back_memory();
    }

    /// Nothing is under way.
    pub(super) fn is_quiet(&self) -> bool {
        self.window.is_empty() && self.parks.is_empty() && self.parking.is_empty()
    }

    /// Nothing is on its way to the store.
    pub(super) fn is_saved(&self) -> bool {
        self.parks.is_empty() && self.parking.is_empty()
    }

    pub(super) fn state(&self) -> RouteState {
        match (&self.trouble, &self.held_back_by) {
            (Some((trouble, since)), _) => trouble.state(*since),
            (None, Some(route)) if self.source.has_more() => RouteState::HeldBack { route: route.clone() },
            (None, _) if self.source.is_behind() => RouteState::Behind,
            (None, _) if self.is_quiet() && !self.source.has_more() => RouteState::Idle,
            (None, _) => RouteState::Publishing,
        }
    }
}
