//! An outbox in memory that keeps the store's contract, and a relay on it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use towpath::config::model::{AfterParked, RabbitmqConfig, Unroutable};
use towpath::event::{Event, EventBatch, RouteId, Seq};
use towpath::relay::{
    News, Parked, ParkedKey, Relay, RelayStatus, RouteSetup, RouteState, RouteStatus, Settings, Store, Stretch,
};
use towpath_contract::{Fut, Result};

pub(crate) const WITHIN: Duration = Duration::from_secs(30);

/// One event to be.
#[derive(Clone, Debug)]
pub(crate) struct Draft {
    pub(crate) route: u16,
    pub(crate) key: u64,
    pub(crate) exchange: String,
    pub(crate) routing_key: String,
    pub(crate) body: Vec<u8>,
    pub(crate) id: Option<String>,
    pub(crate) extra_properties: usize,
}

pub(crate) fn draft(route: u16, key: u64, routing_key: &str) -> Draft {
    let (exchange, routing_key) = ("towpath".to_owned(), routing_key.to_owned());
    Draft { route, key, exchange, routing_key, body: Vec::new(), id: None, extra_properties: 0 }
}

#[derive(Clone, Debug)]
struct Kept {
    seq: Seq,
    /// The seq that it was first recorded under: its place in its key's order.
    origin: Seq,
    draft: Draft,
    id: String,
    released: bool,
}

#[derive(Debug, Default)]
struct Inner {
    last_seq: Seq,
    events: Vec<Kept>,
    parked: Vec<(Kept, Option<String>)>,
    settled: BTreeMap<(u16, u16), Seq>,
    reads: u64,
}

#[derive(Debug)]
pub(crate) struct MemoryOutbox {
    inner: Mutex<Inner>,
    news: Mutex<mpsc::UnboundedSender<News>>,
    changed: watch::Sender<u64>,
}

/// Flags, delivery mode 2, message-id; and a header `h` of so many bytes, if any.
fn properties(id: &str, extra: usize) -> Vec<u8> {
    let mut bytes = vec![if extra > 0 { 0x30 } else { 0x10 }, 0x80];
    if extra > 0 {
        bytes.extend_from_slice(&(extra as u32 + 7).to_be_bytes());
        bytes.extend_from_slice(b"\x01hS");
        bytes.extend_from_slice(&(extra as u32).to_be_bytes());
        bytes.resize(bytes.len() + extra, b'h');
    }
    bytes.push(2);
    bytes.push(id.len().min(255) as u8);
    bytes.extend_from_slice(&id.as_bytes()[..id.len().min(255)]);
    bytes
}

impl Kept {
    fn push_to(&self, batch: &mut EventBatch, parked: Option<&str>) {
        let properties = properties(&self.id, self.draft.extra_properties);
        batch.push(Event {
            seq: self.seq,
            route: RouteId(self.draft.route),
            key_hash: self.draft.key,
            id: &self.id,
            key: "key",
            exchange: &self.draft.exchange,
            routing_key: &self.draft.routing_key,
            properties: &properties,
            body: &self.draft.body,
            parked,
        });
    }
}

impl MemoryOutbox {
    pub(crate) fn new() -> (Arc<MemoryOutbox>, mpsc::UnboundedReceiver<News>) {
        let (news, feed) = mpsc::unbounded_channel();
        let (changed, _) = watch::channel(0);
        (Arc::new(MemoryOutbox { inner: Mutex::default(), news: Mutex::new(news), changed }), feed)
    }

    fn inner(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap()
    }

    /// Records a batch; the body defaults to the event's id. Returns the last seq.
    pub(crate) fn record(&self, drafts: impl IntoIterator<Item = Draft>) -> Seq {
        let mut inner = self.inner();
        let mut batch = EventBatch::new();
        for mut draft in drafts {
            inner.last_seq += 1;
            let seq = inner.last_seq;
            let id = draft.id.clone().unwrap_or_else(|| format!("id-{seq}"));
            if draft.body.is_empty() {
                draft.body = id.clone().into_bytes();
            }
            let kept = Kept { seq, origin: seq, draft, id, released: false };
            kept.push_to(&mut batch, None);
            inner.events.push(kept);
        }
        // Nobody listens before a relay is started, nor after.
        let _ = self.news.lock().unwrap().send(News::Recorded { events: Arc::new(batch), released: false });
        inner.last_seq
    }

    /// A new feed for a new relay, as after a restart.
    pub(crate) fn feed_again(&self) -> mpsc::UnboundedReceiver<News> {
        let (news, feed) = mpsc::unbounded_channel();
        *self.news.lock().unwrap() = news;
        feed
    }

    pub(crate) fn last_seq(&self) -> Seq {
        self.inner().last_seq
    }

    pub(crate) fn settled(&self, route: u16) -> Seq {
        self.settled_of(route, 0)
    }

    pub(crate) fn settled_of(&self, route: u16, shard: u16) -> Seq {
        self.inner().settled.get(&(route, shard)).copied().unwrap_or(0)
    }

    /// Route and key of every event that is not parked.
    pub(crate) fn places(&self) -> BTreeMap<Seq, (u16, u64)> {
        self.inner().events.iter().map(|kept| (kept.origin, (kept.draft.route, kept.draft.key))).collect()
    }

    pub(crate) fn reads(&self) -> u64 {
        self.inner().reads
    }

    /// Seqs as first recorded, with their reasons; `None` for one that only waits.
    pub(crate) fn parked(&self) -> Vec<(Seq, Option<String>)> {
        let mut parked: Vec<_> =
            self.inner().parked.iter().map(|(kept, reason)| (kept.origin, reason.clone())).collect();
        parked.sort();
        parked
    }

    /// A person retries everything that is parked.
    pub(crate) fn release_all(&self) {
        let mut inner = self.inner();
        let mut parked = std::mem::take(&mut inner.parked);
        parked.sort_by_key(|(kept, _)| kept.origin);
        let routes: std::collections::BTreeSet<u16> = parked.iter().map(|(kept, _)| kept.draft.route).collect();
        for (kept, _) in parked {
            inner.last_seq += 1;
            let seq = inner.last_seq;
            inner.events.push(Kept { seq, released: true, ..kept });
        }
        let through = inner.last_seq;
        for route in routes {
            let _ = self.news.lock().unwrap().send(News::Changed { route: RouteId(route), through });
        }
    }

    /// Waits until everything of the route up to `through` is settled.
    pub(crate) async fn until_settled(&self, route: u16, through: Seq) {
        let mut changed = self.changed.subscribe();
        let reached = changed.wait_for(|_| self.settled(route) >= through);
        tokio::time::timeout(WITHIN, reached)
            .await
            .unwrap_or_else(|_| panic!("route {route} is settled through {} of {through}", self.settled(route)))
            .unwrap();
    }

    pub(crate) async fn until_parked(&self, count: usize) {
        let mut changed = self.changed.subscribe();
        let reached = changed.wait_for(|_| self.inner().parked.len() >= count);
        tokio::time::timeout(WITHIN, reached)
            .await
            .unwrap_or_else(|_| panic!("parked: {:?}, awaited {count}", self.parked()))
            .unwrap();
    }
}

/// The handle that the relay gets.
pub(crate) struct Handle(pub(crate) Arc<MemoryOutbox>);

impl Store for Handle {
    fn read(&self, route: RouteId, after: Seq, bytes_max: usize) -> Fut<'static, Result<Stretch>> {
        let mut inner = self.0.inner();
        inner.reads += 1;
        let mut batch = EventBatch::new();
        let mut through = inner.last_seq;
        let marks =
            inner.parked.iter().map(|(kept, _)| Kept { seq: kept.origin, ..kept.clone() }).map(|kept| (kept, true));
        let mut all: Vec<(Kept, bool)> = inner.events.iter().map(|kept| (kept.clone(), false)).chain(marks).collect();
        all.sort_by_key(|(kept, _)| kept.seq);
        let mut released = Vec::new();
        for (kept, is_mark) in all.iter().filter(|(kept, _)| kept.seq > after && kept.draft.route == route.0) {
            if !batch.is_empty() && batch.bytes() >= bytes_max {
                through = batch.place(batch.len() - 1).seq;
                break;
            }
            if kept.released && !is_mark {
                released.push(kept.seq);
            }
            kept.push_to(&mut batch, is_mark.then_some("parked"));
        }
        Box::pin(std::future::ready(Ok(Stretch { events: Arc::new(batch), released, through })))
    }

    fn settle(&self, route: RouteId, shard: u16, through: Seq) {
        let before = self.0.inner().settled.insert((route.0, shard), through);
        assert!(before.is_none_or(|before| before <= through), "settled backwards: {before:?} to {through}");
        self.0.changed.send_modify(|count| *count += 1);
    }

    fn park(&self, route: RouteId, parked: Vec<Parked>) -> Fut<'static, Result<()>> {
        let mut inner = self.0.inner();
        for Parked { seq, reason } in parked {
            let Some(at) = inner.events.iter().position(|kept| kept.seq == seq && kept.draft.route == route.0) else {
                continue; // told twice
            };
            let kept = inner.events.remove(at);
            let same_key = |other: &Kept| other.draft.route == route.0 && other.draft.key == kept.draft.key;
            let waits = |(other, reason): &(Kept, Option<String>)| {
                same_key(other) && other.origin < kept.origin && reason.is_some()
            };
            if reason.is_none() && !inner.parked.iter().any(waits) {
                // What it was to wait for was released: it follows.
                inner.last_seq += 1;
                let kept = Kept { seq: inner.last_seq, released: true, ..kept };
                let mut batch = EventBatch::new();
                kept.push_to(&mut batch, None);
                inner.events.push(kept);
                let _ = self.0.news.lock().unwrap().send(News::Recorded { events: Arc::new(batch), released: true });
                continue;
            }
            inner.parked.push((Kept { released: false, ..kept }, reason));
        }
        drop(inner);
        self.0.changed.send_modify(|count| *count += 1);
        Box::pin(std::future::ready(Ok(())))
    }

    fn parked_keys(&self, route: RouteId, through: Seq, _: usize) -> Fut<'static, Result<Vec<ParkedKey>>> {
        let inner = self.0.inner();
        let mut found: BTreeMap<u64, (u32, u32)> = BTreeMap::new();
        for (kept, _) in inner.parked.iter().filter(|(kept, _)| kept.draft.route == route.0 && kept.origin <= through) {
            found.entry(kept.draft.key).or_default().0 += 1;
        }
        for kept in
            inner.events.iter().filter(|kept| kept.released && kept.draft.route == route.0 && kept.seq > through)
        {
            found.entry(kept.draft.key).or_default().1 += 1;
        }
        let keys = found.into_iter().map(|(key_hash, (parked, released))| ParkedKey { key_hash, parked, released });
        Box::pin(std::future::ready(Ok(keys.collect())))
    }
}

/// A relay under test.
pub(crate) struct Rig {
    pub(crate) outbox: Arc<MemoryOutbox>,
    pub(crate) relay: Relay,
    pub(crate) status: watch::Receiver<RelayStatus>,
}

/// Routes 1, 2, … with these policies.
pub(crate) fn routes(policies: &[(Unroutable, AfterParked)]) -> Vec<RouteSetup> {
    let route = |(index, (unroutable, after_parked)): (usize, &(Unroutable, AfterParked))| RouteSetup {
        id: RouteId(index as u16 + 1),
        name: format!("route{}", index + 1).into(),
        settled: vec![0],
        unroutable: *unroutable,
        after_parked: *after_parked,
        exchanges: vec!["towpath".into()],
        behind: Vec::new(),
    };
    policies.iter().enumerate().map(route).collect()
}

/// `count` routes that stop at what is unroutable.
pub(crate) fn plain_routes(count: usize) -> Vec<RouteSetup> {
    routes(&vec![(Unroutable::Stop, AfterParked::Wait); count])
}

/// The section `rabbitmq` of a config, from YAML-like pairs in JSON.
pub(crate) fn config(url: &str, more: serde_json::Value) -> RabbitmqConfig {
    let mut value = serde_json::json!({ "urls": [url], "heartbeat": "1s" });
    for (name, option) in more.as_object().unwrap() {
        value[name] = option.clone();
    }
    serde_json::from_value(value).unwrap()
}

impl Rig {
    pub(crate) fn start(config: &RabbitmqConfig, routes: Vec<RouteSetup>) -> Rig {
        let (outbox, feed) = MemoryOutbox::new();
        Rig::on(outbox, feed, config, routes)
    }

    pub(crate) fn on(
        outbox: Arc<MemoryOutbox>,
        feed: mpsc::UnboundedReceiver<News>,
        config: &RabbitmqConfig,
        mut routes: Vec<RouteSetup>,
    ) -> Rig {
        for route in &mut routes {
            for (shard, settled) in (0..).zip(&mut route.settled) {
                *settled = outbox.settled_of(route.id.0, shard);
            }
        }
        let settings = Settings::new(config, routes, outbox.last_seq()).unwrap();
        let relay = Relay::start(settings, Arc::new(Handle(outbox.clone())), feed);
        let status = relay.status();
        Rig { outbox, relay, status }
    }

    pub(crate) async fn until(&mut self, what: &str, condition: impl FnMut(&RelayStatus) -> bool) -> RelayStatus {
        let reached = tokio::time::timeout(WITHIN, self.status.wait_for(condition)).await;
        let reached = reached.map(|status| status.unwrap().clone());
        reached.unwrap_or_else(|_| panic!("waited for: {what}; last seen: {:#?}", self.relay.status().borrow()))
    }

    /// Waits until route `number` (from 1) is in a state.
    pub(crate) async fn until_route(
        &mut self,
        number: usize,
        what: &str,
        mut condition: impl FnMut(&RouteState) -> bool,
    ) -> RouteStatus {
        let status = self.until(what, |status| condition(&status.routes[number - 1].state)).await;
        status.routes[number - 1].clone()
    }

    pub(crate) fn route(&self, number: usize) -> RouteStatus {
        self.status.borrow().routes[number - 1].clone()
    }
}
