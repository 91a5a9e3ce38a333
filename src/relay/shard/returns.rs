//! Messages that came back, and what follows once the window has drained.

use std::hash::{BuildHasher, RandomState};

use towpath_contract::planted;

use super::{Flow, Shard, Trouble};
use crate::config::model::{AfterParked, Unroutable};
use crate::event::Seq;
use crate::relay::shard::ChannelState;
use crate::relay::store::Parked;
use crate::relay::window::Answer;

#[derive(Clone, Debug)]
pub(super) struct Returned {
    /// 0: nobody knows which it was.
    pub(super) seq: Seq,
    exchange: String,
    routing_key: String,
    reason: String,
}

impl Shard {
    /// A `basic.return`; its header follows and says which message it is.
    pub(in crate::relay) fn return_begins(&mut self, exchange: &str, routing_key: &str, reason: &str) {
        if self.channel_state != ChannelState::Open || planted("ignore_a_return") {
            return;
        }
        self.counts.returned += 1;
        self.flow = Flow::Draining;
        let (exchange, routing_key) = (exchange.to_owned(), routing_key.to_owned());
        self.returning = Some(Returned { seq: 0, exchange, routing_key, reason: reason.to_owned() });
    }

    /// The header of what came back. A return that matches nothing vetoes everything that is not settled: `seq` stays 0.
    pub(in crate::relay) fn return_ends(&mut self, id: Option<&str>, ids: &RandomState) {
        let Some(mut returned) = self.returning.take() else { return };
        let found = id.and_then(|id| self.window.returned(ids.hash_one(id)));
        // Alone in its window, it needs no name.
        let alone = self.window.front().filter(|_| self.window.len() == 1).map(|entry| (entry.seq, entry.id_hash));
        returned.seq = match (found, alone) {
            (Some(seq), _) => seq,
            (None, Some((_, id_hash))) => self.window.returned(id_hash).unwrap_or(0),
            (None, None) => 0,
        };
        if returned.seq == 0 {
            tracing::error!(
                exchange = returned.exchange,
                routing_key = returned.routing_key,
                "the broker returned a message that is not awaited; what is unsettled is published again"
            );
        }
        self.returns.push(returned);
    }

    /// Every event of the window is answered: park what came back where the route says so, up to the first event that must
    /// be published again.
    pub(super) fn drained(&mut self, vetoed: bool) {
        let mut trouble = vetoed.then(|| self.unroutable(0));
        // Keys of which an event is parked here: those after it in the window must not be taken for done.
        let mut parked_now = Vec::new();
        while trouble.is_none()
            && let Some(entry) = self.window.front().copied()
        {
            if entry.returned && self.policy.unroutable == Unroutable::Stop {
                trouble = Some(self.unroutable(entry.seq));
            } else if entry.returned {
                if self.keys.are_too_many() {
                    trouble = Some(Trouble::TooManyParked);
                    break;
                }
                let reason = Some(self.words_of_return(entry.seq));
                self.parks.push(Parked { seq: entry.seq, reason });
                self.keys.park(entry.key_hash);
                parked_now.push(entry.key_hash);
                self.window.pop();
            } else if entry.answer == Some(Answer::Ack) {
                self.counts.confirmed += 1;
                // It reached its queues before the one that it should have waited for was known to have failed. Parked too,
                // it comes again after that one, and the key ends in the right state.
                if self.policy.after_parked == AfterParked::Wait && parked_now.contains(&entry.key_hash) {
                    self.parks.push(Parked { seq: entry.seq, reason: None });
                }
                self.window.pop();
            } else {
                trouble = Some(Trouble::Nacked);
            }
        }
        match trouble {
            Some(trouble) => {
                self.rewind();
                self.window.forget();
                self.fall(trouble);
            }
            None => self.flow = Flow::Running,
        }
        self.returns.clear();
    }

    fn words_of_return(&self, seq: Seq) -> String {
        match self.returns.iter().find(|returned| returned.seq == seq) {
            Some(Returned { exchange, routing_key, reason, .. }) => {
                format!(
                    "unroutable ({reason}): no queue is bound to exchange `{exchange}` for routing key `{routing_key}`"
                )
            }
            None => "unroutable".to_owned(),
        }
    }

    fn unroutable(&self, seq: Seq) -> Trouble {
        let found = self.returns.iter().find(|returned| returned.seq == seq).or(self.returns.first());
        let (exchange, routing_key) =
            found.map(|returned| (returned.exchange.clone(), returned.routing_key.clone())).unwrap_or_default();
        Trouble::Unroutable { exchange, routing_key }
    }
}
