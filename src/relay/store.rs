//! What the relay needs from the durable store. The pipeline connects this to the outbox.

use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::sync::mpsc;
use towpath_contract::{Fut, Result};

use crate::event::{EventBatch, RouteId, Seq};

/// What became durable, told in the order of `seq`.
#[derive(Clone, Debug)]
pub enum News {
    /// An event that its route could not make publishable is among them too, marked as parked: a reminder for those of its key
    /// that wait behind it. `released`: these were parked before and go out before all others of their key.
    Recorded { events: Arc<EventBatch>, released: bool },
    /// A person retried or discarded parked events of a route: it is to be read again from where it is settled, up to `through`
    /// at least.
    Changed { route: RouteId, through: Seq },
}

/// Where news come from. Never blocked by the relay for longer than a turn of its loop, whatever the broker does.
pub trait Feed: Send + 'static {
    /// `None`: there will be no more.
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<News>>;
}

impl Feed for mpsc::Receiver<News> {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<News>> {
        self.poll_recv(cx)
    }
}

impl Feed for mpsc::UnboundedReceiver<News> {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<News>> {
        self.poll_recv(cx)
    }
}

/// A part of one route's events, read back.
#[derive(Clone, Debug, Default)]
pub struct Stretch {
    /// In the order of `seq`. A parked event stands where it was recorded, as a reminder, without properties and body.
    pub events: Arc<EventBatch>,
    /// The seqs of those that were parked before and are released; in order.
    pub released: Vec<Seq>,
    /// Nothing of the route is left out up to here.
    pub through: Seq,
}

/// An event to be set aside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parked {
    pub seq: Seq,
    /// For people, without row data. `None`: nothing is wrong with it, but an earlier event of its key is parked and the route says
    /// `wait`. Should that one have been released meanwhile, it comes again as [`News::Recorded`], released.
    pub reason: Option<String>,
}

/// How a key stands whose events were parked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ParkedKey {
    pub key_hash: u64,
    /// Parked events that were recorded up to the place asked for. While there is one, the key's later events wait.
    pub parked: u32,
    /// Released events after that place. While there is one to come, only these go out.
    pub released: u32,
}

/// The durable side of relaying. Called from the relay's task: no call may block before its future is polled.
pub trait Store: Send + Sync + 'static {
    /// The events of `route` after `after`, about `bytes_max` of them, one at least if there is one.
    fn read(&self, route: RouteId, after: Seq, bytes_max: usize) -> Fut<'static, Result<Stretch>>;

    /// Every event of this route and shard up to and including `through` is confirmed, or durable as parked. May be lost in a
    /// crash: its events are then published again. Calls supersede each other, so that only the latest needs to be kept.
    fn settle(&self, route: RouteId, shard: u16, through: Seq);

    /// Sets events of one route aside, one after the other. They are durable as parked when the future is done; only then are
    /// they counted as settled. Told twice, it does nothing the second time.
    fn park(&self, route: RouteId, parked: Vec<Parked>) -> Fut<'static, Result<()>>;

    /// The keys of a route with events parked or released, as they stand for one who reads on after `through`.
    /// At most `keys_max` of them.
    fn parked_keys(&self, route: RouteId, through: Seq, keys_max: usize) -> Fut<'static, Result<Vec<ParkedKey>>>;
}
