//! One change as its events: where they go, what they are called, and their bytes.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io::Write as _;

use smallvec::SmallVec;
use towpath_contract::{Change, KeyKind, Value, planted};

use super::bundle::{Item, Open};
use super::foreign;
use super::form::OpPlan;
use super::format::{BundleForm, Facts, write_structured};
use super::hash::fnv1a;
use super::json::write_string;
use super::plan::{OnError, RoutePlan, SHORT_STRING_BYTES_MAX, TablePlan, Unfit};
use super::properties::{Properties, Property, write_header};
use super::rows::{Unwritable, write_key};
use super::template::Text;
use super::transform::{Images, Rows};
use crate::event::EventBatch;

/// RabbitMQ 3's own default limit of a message (4: 16 MiB). As JSON a row may have six times that, which the outbox still takes.
pub(super) const ROW_BYTES_MAX: usize = 128 << 20;

/// Buffers that are filled again for every event, and what stays the same within a batch or a transaction.
#[derive(Default)]
pub(super) struct Scratch {
    source: String,
    /// `<source>-<identity>-`
    id_prefix: String,
    epoch: u32,
    /// CloudEvents `source`: a URI reference.
    cloud_source: String,
    transaction: Option<usize>,
    transaction_id: String,
    commit_time_us: i64,
    /// Commit time as RFC 3339.
    time: String,
    timestamp_s: u64,
    /// The body's members about the transaction, and its closing brace.
    body_end: Vec<u8>,
    id: String,
    sequence: String,
    /// The key as a JSON object, as the route's steps left it; empty for a table without one.
    key: Vec<u8>,
    /// The key as the source has it, where the steps change it.
    real_key: Vec<u8>,
    images: Images,
    /// The bytes of a row that no message can carry.
    too_large: Option<usize>,
    /// Why the change's event cannot go out, as was found before.
    refusal: Option<String>,
    /// Of routes that put several events into one message.
    bundles: Vec<Open>,
    /// An event's body on its way into a bundle.
    item: Vec<u8>,
}

impl Scratch {
    pub(super) fn begin_batch(&mut self, source: &str, identity: &str, epoch: u32) {
        self.epoch = epoch;
        source.clone_into(&mut self.source);
        self.id_prefix = format!("{source}-{identity}-");
        self.cloud_source = format!("towpath:{source}");
        self.transaction = None;
    }

    /// The events that a route makes of one change: one, if its steps do not say otherwise. `refusal`: why they cannot go out.
    ///
    /// # Errors
    /// A step could not be done, and the route is to stop then.
    pub(super) fn write(
        &mut self,
        change: &Change<'_>,
        plan: &TablePlan,
        route: &RoutePlan,
        refusal: Option<String>,
        events: &mut EventBatch,
    ) -> Result<(), Unfit> {
        self.refusal = refusal;
        if self.transaction != Some(change.transaction_index()) {
            self.begin_transaction(change);
        }
        if route.row_event.as_ref().is_some_and(|row_event| !row_event.takes(change)) {
            return Ok(());
        }
        self.too_large = Some(change.bytes()).filter(|bytes| *bytes > ROW_BYTES_MAX);
        if self.too_large.is_some() {
            self.images.leave_out();
        } else {
            self.images.transform(change, &route.program, route.on_error == OnError::Nullify);
        }
        if let (OnError::Stop, Some(failure)) = (route.on_error, self.images.failure().cloned()) {
            self.name(change, route, 0, None);
            // What was put into bundles is read again.
            self.bundles.clear();
            return Err(route.stop(&failure, &plan.subject, &self.id));
        }
        if self.images.chosen().dropped {
            return Ok(());
        }
        let chosen = self.images.chosen().variants.len();
        for nth in 0..chosen.max(1) {
            let variant = self.images.chosen().variants.get(nth).copied();
            self.name(change, route, nth, variant);
            self.event(change, plan, route, variant, events);
        }
        Ok(())
    }

    /// Sets id and sequence. Of several events of one change, the later ones' ids go on with what tells them apart.
    fn name(&mut self, change: &Change<'_>, route: &RoutePlan, nth: usize, variant: Option<usize>) {
        self.sequence.clear();
        write_hex(&self.epoch.to_be_bytes(), &mut self.sequence);
        write_hex(change.position().as_bytes(), &mut self.sequence);
        self.id.clear();
        self.id.extend([self.id_prefix.as_str(), &self.sequence, &route.id_suffix]);
        if route.is_by_content {
            let _ = write!(self.id, "-{:016x}", content_hash(change));
        }
        if nth > 0 {
            let variant = variant.expect("several events are of several forms");
            self.id += &route.variant_suffix(variant);
            write_hex(&[nth as u8], &mut self.id);
            write_hex(&[nth as u8], &mut self.sequence);
        }
        if planted("id_from_the_clock") {
            self.id += &std::time::UNIX_EPOCH.elapsed().unwrap_or_default().as_nanos().to_string();
        }
    }

    fn event(
        &mut self,
        change: &Change<'_>,
        plan: &TablePlan,
        route: &RoutePlan,
        variant: Option<usize>,
        events: &mut EventBatch,
    ) {
        let (form, columns) = (route.form(variant, change.op()), route.columns(variant));
        let rows = self.images.of(change);
        let too_large = self.too_large;
        // The first column whose value JSON cannot carry.
        let mut unfit = Unwritable::default();
        self.key.clear();
        self.real_key.clear();
        if change.table().key == KeyKind::Columns || route.row_event.is_some() {
            // A key that was not transformed might show what a step hides.
            if !(route.changes_key && too_large.is_some()) {
                write_key(&rows, columns, &mut self.key, &mut unfit);
            }
            if route.changes_key {
                let columns = route.order.as_ref().unwrap_or(&plan.columns);
                write_key(&Rows::raw(change), columns, &mut self.real_key, &mut Unwritable::default());
            }
        }

        let mut refusal = None;
        // Of a row that no message can carry nothing was transformed, and nothing masked.
        let shown = (too_large.is_none()).then_some(&rows);
        let event_type = short(|| "type".into(), &form.event_type, shown, "", &mut refusal);
        let facts = Facts {
            form,
            columns,
            rows: if too_large.is_some() { None } else { Some(&rows) },
            id: &self.id,
            sequence: &self.sequence,
            source: &self.source,
            cloud_source: &self.cloud_source,
            event_type: &event_type,
            subject: &plan.subject,
            key: &self.key,
            time: &self.time,
            commit_time_us: self.commit_time_us,
            transaction: &self.transaction_id,
            op: change.op(),
            nullified: self.images.nullified(),
            body_end: &self.body_end,
        };
        let why = |refusal: Option<String>, unfit: &Unwritable<'_>| {
            let of_row = || match (too_large, self.images.failure(), unfit.0) {
                (Some(bytes), ..) => Some(format!(
                    "the row has {bytes} bytes, and no message carries more than {ROW_BYTES_MAX}; the body leaves it out"
                )),
                (None, Some(failure), _) => Some(route.explain(failure)),
                (None, None, Some(column)) => Some(format!(
                    "column {column:?} holds bytes that are not UTF-8, which JSON cannot carry; the body shows them as base64"
                )),
                (None, None, None) => None,
            };
            form.refusal.clone().or_else(|| self.refusal.clone()).or_else(of_row).or(refusal)
        };

        let mut bundle = match route.bundle {
            None => None,
            Some(bundling) => {
                self.item.clear();
                match bundling.form {
                    BundleForm::Lines => route.format.body(&facts, &mut self.item, &mut unfit),
                    BundleForm::CloudeventsBatch => {
                        write_structured(&facts, &mut self.item, &mut unfit);
                    }
                }
                let index = self.bundles.iter().position(|open| open.route == route.route).unwrap_or_else(|| {
                    // The message is of the route's own form, whatever its events are.
                    let own = route.form(None, change.op());
                    let texts = [&own.exchange, &own.routing_key].map(|text| text.fixed().unwrap_or_default());
                    self.bundles.push(Open::new(route, bundling, &self.source, texts));
                    self.bundles.len() - 1
                });
                let open = &mut self.bundles[index];
                if why(refusal.clone(), &unfit).is_none() {
                    let item = Item {
                        id: &self.id,
                        sequence: &self.sequence,
                        transaction: &self.transaction_id,
                        timestamp_s: self.timestamp_s,
                        body: &self.item,
                    };
                    open.add(&item, events);
                    return;
                }
                // It is parked by itself, in its place.
                open.close(events);
                Some(open.key_hash)
            }
        };

        let exchange = short(|| "exchange".into(), &form.exchange, shown, &event_type, &mut refusal);
        let routing_key = short(|| "routing_key".into(), &form.routing_key, shown, &event_type, &mut refusal);
        let mut event = events.start(route.route);
        for field in [self.id.as_bytes(), &self.key, exchange.as_bytes(), routing_key.as_bytes()] {
            event.buffer().extend_from_slice(field);
            event.end_field();
        }
        let mut own = own_properties(form, shown, &event_type, &mut refusal);
        for (property, text) in foreign::properties(route.format, &self.id) {
            if !own.iter().any(|(known, _)| *known == property) {
                own.push((property, text));
            }
        }
        let properties = Properties {
            content_type: match &route.row_event {
                Some(row_event) => row_event.content_type,
                None => route.format.content_type(),
            },
            timestamp: self.timestamp_s,
            message_id: &self.id,
            event_type: &event_type,
            own: &own,
        };
        properties.write(event.buffer(), |out| {
            match &route.row_event {
                None => route.format.headers(&facts, out),
                Some(row_event) => {
                    if let Err(why) = row_event.write_headers(&facts, out) {
                        refusal.get_or_insert(why);
                    }
                }
            }
            for (name, template) in &form.headers {
                match template.of(shown, &event_type) {
                    Ok(text) => write_header(out, name, text.as_bytes()),
                    Err(why) => {
                        refusal.get_or_insert(format!("event.headers.{name} cannot be rendered: {why}"));
                    }
                }
            }
        });
        event.end_field();
        match &route.row_event {
            None => route.format.body(&facts, event.buffer(), &mut unfit),
            Some(row_event) => row_event.write_body(&facts, event.buffer()),
        }
        event.end_field();
        let key = if route.changes_key { &self.real_key } else { &self.key };
        let hash = bundle.take().unwrap_or_else(|| key_hash(&plan.subject, key));
        event.finish(hash, why(refusal, &unfit).map(String::into_boxed_str));
    }

    /// What was captured together is written: no bundle waits for more.
    pub(super) fn end_batch(&mut self, events: &mut EventBatch) {
        self.bundles.iter_mut().for_each(|open| open.close(events));
    }

    fn begin_transaction(&mut self, change: &Change<'_>) {
        self.transaction = Some(change.transaction_index());
        let transaction = change.transaction();
        transaction.id.clone_into(&mut self.transaction_id);
        self.commit_time_us = transaction.commit_time_us;
        self.timestamp_s = u64::try_from(transaction.commit_time_us / 1_000_000).unwrap_or(0);
        self.time = match jiff::Timestamp::from_microsecond(transaction.commit_time_us) {
            Ok(time) => format!("{time:.6}"),
            // Beyond the year 9999: a clock that is off must not stop the source.
            Err(_) => format!("{:.6}", jiff::Timestamp::MAX),
        };
        self.body_end.clear();
        if !transaction.id.is_empty() {
            self.body_end.extend_from_slice(b",\"tx\":");
            write_string(&transaction.id, &mut self.body_end);
        }
        write!(self.body_end, ",\"committed_at\":\"{}\"}}", self.time).expect("a Vec takes all");
    }
}

/// The properties that the route sets; what is empty is not set.
fn own_properties<'t>(
    form: &'t OpPlan,
    rows: Option<&Rows<'_>>,
    event_type: &str,
    refusal: &mut Option<String>,
) -> SmallVec<[(Property, Cow<'t, str>); 2]> {
    let mut own = SmallVec::new();
    for (property, template) in &form.properties {
        let key = || format!("properties.{}", property.name());
        let text = short(key, template, rows, event_type, refusal);
        if text.is_empty() {
            continue;
        }
        match property.fault(&text) {
            None => own.push((*property, text)),
            Some(why) => {
                refusal.get_or_insert_with(|| format!("event.{} {why} for this row", key()));
            }
        }
    }
    own
}

/// A template's text for an AMQP short string; empty, and a refusal, where there is none.
fn short<'t>(
    key: impl Fn() -> String,
    template: &'t Text,
    rows: Option<&Rows<'_>>,
    event_type: &str,
    refusal: &mut Option<String>,
) -> Cow<'t, str> {
    let why = match template.of(rows, event_type) {
        Ok(text) if text.len() <= SHORT_STRING_BYTES_MAX => return text,
        Ok(text) => {
            format!("event.{} has {} bytes for this row; AMQP allows {SHORT_STRING_BYTES_MAX}", key(), text.len())
        }
        Err(why) => format!("event.{} cannot be rendered: {why}", key()),
    };
    refusal.get_or_insert(why);
    Cow::Borrowed("")
}

/// Of table and key. A table without a key has one hash, so its events stay in order.
pub(super) fn key_hash(subject: &str, key: &[u8]) -> u64 {
    fnv1a(subject.bytes().chain([0]).chain(key.iter().copied()))
}

/// Of all that its rows say.
fn content_hash(change: &Change<'_>) -> u64 {
    let rows = [change.before(), change.after()].into_iter().flatten();
    let bytes = |value| match value {
        Value::Data(bytes) => (bytes, 0xff),
        Value::Null => (&[][..], 0xfe),
        Value::Unavailable => (&[][..], 0xfd),
    };
    // No text has those bytes.
    let marked = rows.flat_map(|row| row.values()).map(bytes);
    fnv1a(marked.flat_map(|(bytes, mark)| bytes.iter().copied().chain([mark])))
}

fn write_hex(bytes: &[u8], out: &mut String) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    for byte in bytes {
        out.push(char::from(HEX[usize::from(byte >> 4)]));
        out.push(char::from(HEX[usize::from(byte & 15)]));
    }
}

#[cfg(test)]
#[path = "event_tests.rs"]
mod tests;
