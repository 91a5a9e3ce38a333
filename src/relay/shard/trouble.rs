//! The troubles of a shard, and how they are shown.

use std::time::SystemTime;

use crate::relay::status::RouteState;

/// Why a shard does not go on.
#[derive(Clone, Debug)]
pub(in crate::relay) enum Trouble {
    Unroutable { exchange: String, routing_key: String },
    Nacked,
    Unconfirmed,
    ChannelClosed { code: u16, reason: String },
    StoreFailed { reason: String },
    TooManyParked,
}

impl Trouble {
    pub(super) fn state(&self, since: SystemTime) -> RouteState {
        match self.clone() {
            Trouble::Unroutable { exchange, routing_key } => RouteState::Unroutable { exchange, routing_key, since },
            Trouble::Nacked => RouteState::Nacked { since },
            Trouble::Unconfirmed => RouteState::Unconfirmed { since },
            Trouble::ChannelClosed { code, reason } => RouteState::ChannelClosed { code, reason, since },
            Trouble::StoreFailed { reason } => RouteState::StoreFailed { reason, since },
            Trouble::TooManyParked => RouteState::TooManyParked { since },
        }
    }
}
