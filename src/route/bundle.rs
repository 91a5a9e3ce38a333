//! Several events of a route in one message: the broker's cost is per message.

use super::event::key_hash;
use super::format::{BundleBy, BundleForm, Bundling};
use super::plan::RoutePlan;
use super::properties::{Properties, write_header};
use crate::event::{EventBatch, RouteId};

/// The message that a route is filling.
pub(super) struct Open {
    pub(super) route: RouteId,
    bundling: Bundling,
    /// What all messages of the route have alike.
    message_type: String,
    exchange: String,
    routing_key: String,
    /// The order of all of them is one.
    pub(super) key_hash: u64,
    first_id: String,
    /// Of the newest event.
    sequence: String,
    transaction: String,
    /// Messages of the transaction before this one.
    part: u32,
    timestamp_s: u64,
    events: usize,
    body: Vec<u8>,
}

/// One event, ready to be put in.
pub(super) struct Item<'a> {
    pub(super) id: &'a str,
    pub(super) sequence: &'a str,
    pub(super) transaction: &'a str,
    pub(super) timestamp_s: u64,
    pub(super) body: &'a [u8],
}

const BODY_BYTES_KEPT: usize = 2 << 20;

impl Open {
    pub(super) fn new(route: &RoutePlan, bundling: Bundling, source: &str, where_to: [&str; 2]) -> Open {
        let [exchange, routing_key] = where_to.map(str::to_owned);
        Open {
            route: route.route,
            bundling,
            message_type: format!("{source}.bundle"),
            exchange,
            routing_key,
            key_hash: key_hash(source, &route.route.0.to_be_bytes()),
            first_id: String::new(),
            sequence: String::new(),
            transaction: String::new(),
            part: 0,
            timestamp_s: 0,
            events: 0,
            body: Vec::new(),
        }
    }

    /// Puts an event in; what does not fit beside it goes out before.
    pub(super) fn add(&mut self, item: &Item<'_>, events: &mut EventBatch) {
        if item.transaction != self.transaction {
            if self.bundling.by == BundleBy::Transaction {
                self.close(events);
            }
            self.part = 0;
            item.transaction.clone_into(&mut self.transaction);
        }
        let is_full = self.events == self.bundling.events_max
            || (self.events > 0 && self.body.len() + item.body.len() + 2 > self.bundling.bytes_max);
        if is_full {
            self.close(events);
        }
        let (open, between) = match self.bundling.form {
            BundleForm::Lines => (&b""[..], &b"\n"[..]),
            BundleForm::CloudeventsBatch => (&b"["[..], &b","[..]),
        };
        if self.events == 0 {
            item.id.clone_into(&mut self.first_id);
            self.timestamp_s = item.timestamp_s;
        }
        self.body.extend_from_slice(if self.events == 0 { open } else { between });
        self.body.extend_from_slice(item.body);
        item.sequence.clone_into(&mut self.sequence);
        self.events += 1;
    }

    /// The message goes out as it is.
    pub(super) fn close(&mut self, events: &mut EventBatch) {
        if self.events == 0 {
            return;
        }
        let (end, content_type) = match self.bundling.form {
            BundleForm::Lines => (&b"\n"[..], "application/x-ndjson"),
            BundleForm::CloudeventsBatch => (&b"]"[..], "application/cloudevents-batch+json; charset=utf-8"),
        };
        self.body.extend_from_slice(end);
        let id = format!("{}-x{}", self.first_id, self.events);
        let mut event = events.start(self.route);
        event.buffer().extend_from_slice(id.as_bytes());
        event.end_field();
        event.end_field(); // no key: it has many
        event.buffer().extend_from_slice(self.exchange.as_bytes());
        event.end_field();
        event.buffer().extend_from_slice(self.routing_key.as_bytes());
        event.end_field();
        let properties = Properties {
            content_type,
            timestamp: self.timestamp_s,
            message_id: &id,
            event_type: &self.message_type,
            own: &[],
        };
        properties.write(event.buffer(), |out| {
            write_header(out, "bundle-count", self.events.to_string().as_bytes());
            if self.bundling.by == BundleBy::Transaction {
                write_header(out, "bundle-part", self.part.to_string().as_bytes());
                // Rows of a snapshot are of none.
                if !self.transaction.is_empty() {
                    write_header(out, "bundle-transaction", self.transaction.as_bytes());
                }
            }
            write_header(out, "bundle-sequence", self.sequence.as_bytes());
        });
        event.end_field();
        event.buffer().extend_from_slice(&self.body);
        event.end_field();
        event.finish(self.key_hash, None);
        self.body.clear();
        self.body.shrink_to(BODY_BYTES_KEPT);
        self.events = 0;
        self.part += 1;
    }
}
