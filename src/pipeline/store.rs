//! Connects the relay to the outbox, which do not know each other.

use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::sync::mpsc::UnboundedReceiver;
use towpath_contract::{Error, ErrorKind, Fut, Result};

use crate::event::{RouteId, Seq};
use crate::outbox::{self, Outbox, OutboxError, Parking, RouteSet};
use crate::relay::{self, Parked, ParkedKey, Store};

pub(super) struct OutboxStore(pub(super) Outbox);

/// For the relay an outbox that fails is passing trouble: whether the process ends is decided by the outbox's own state.
fn failed(operation: &'static str) -> impl Fn(OutboxError) -> Error {
    move |error| Error::retry(ErrorKind::Storage, operation, error)
}

impl Store for OutboxStore {
    fn read(&self, route: RouteId, after: Seq, bytes_max: usize) -> Fut<'static, Result<relay::Stretch>> {
        let outbox = self.0.clone();
        Box::pin(async move {
            let stretch = outbox.read(RouteSet::from_iter([route]), after, bytes_max).await;
            let outbox::Stretch { events, released, through } = stretch.map_err(failed("reading the outbox"))?;
            Ok(relay::Stretch { events: Arc::new(events), released, through })
        })
    }

    fn settle(&self, route: RouteId, shard: u16, through: Seq) {
        self.0.settle(route, shard, through);
    }

    fn park(&self, _: RouteId, parked: Vec<Parked>) -> Fut<'static, Result<()>> {
        let outbox = self.0.clone();
        Box::pin(async move {
            for Parked { seq, reason } in parked {
                let parking = reason.map_or(Parking::Behind, Parking::Because);
                outbox.park(seq, parking).await.map_err(failed("parking an event"))?;
            }
            Ok(())
        })
    }

    fn parked_keys(&self, route: RouteId, through: Seq, keys_max: usize) -> Fut<'static, Result<Vec<ParkedKey>>> {
        let outbox = self.0.clone();
        Box::pin(async move {
            let keys = outbox.parked_keys(route, through, keys_max).await.map_err(failed("reading parked keys"))?;
            let key = |outbox::ParkedKey { key_hash, parked, released }| ParkedKey { key_hash, parked, released };
            Ok(keys.into_iter().map(key).collect())
        })
    }
}

/// What the outbox tells of what it recorded, in the relay's words.
pub(super) struct Feed(pub(super) UnboundedReceiver<outbox::News>);

impl relay::Feed for Feed {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<relay::News>> {
        self.0.poll_recv(cx).map(|news| {
            news.map(|news| match news {
                outbox::News::Recorded { events, released } => relay::News::Recorded { events, released },
                outbox::News::Changed { route, through } => relay::News::Changed { route, through },
            })
        })
    }
}
