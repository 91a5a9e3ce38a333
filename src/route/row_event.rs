//! A row that is an event itself, as applications write them into an outbox table of their own.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde_json::value::RawValue;
use towpath_contract::{Change, Op, Value};

use super::format::Facts;
use super::properties::{is_reserved_header, write_header};
use super::transform::View;

/// The slots of its parts.
#[derive(Clone, Debug)]
pub(super) struct RowEvent {
    pub(super) id: usize,
    /// Type and id, columns of the source both: order goes by them.
    pub(super) aggregate: [usize; 2],
    pub(super) payload: usize,
    pub(super) content_type: &'static str,
    pub(super) headers: Option<usize>,
    pub(super) traceparent: Option<usize>,
    /// A row that a snapshot reads is one, too.
    pub(super) reads: bool,
}

impl RowEvent {
    /// New rows alone are events; the application may mark them, and take them away.
    pub(super) fn takes(&self, change: &Change<'_>) -> bool {
        match change.op() {
            // A row that gets another key is no new one.
            Op::Insert => change.linked().is_none(),
            Op::Read => self.reads,
            Op::Update | Op::Delete | Op::Truncate | Op::Message => false,
        }
    }

    /// CloudEvents, as the row says it, and the row's own. What the route sets itself is left to it.
    ///
    /// # Errors
    /// What of them no message can carry, without any value.
    pub(super) fn write_headers(&self, facts: &Facts<'_>, out: &mut Vec<u8>) -> Result<(), String> {
        let Some(row) = facts.row() else { return Ok(()) };
        write_header(out, "cloudEvents:specversion", b"1.0");
        write_header(out, "cloudEvents:id", text(row, self.id).unwrap_or(facts.id.as_bytes()));
        write_header(out, "cloudEvents:source", facts.cloud_source.as_bytes());
        write_header(out, "cloudEvents:type", facts.event_type.as_bytes());
        write_header(out, "cloudEvents:time", facts.time.as_bytes());
        if let Some(subject) = text(row, self.aggregate[1]) {
            write_header(out, "cloudEvents:subject", subject);
        }
        write_header(out, "cloudEvents:partitionkey", facts.key);
        write_header(out, "cloudEvents:sequence", facts.sequence.as_bytes());
        let by_route = |name: &str| facts.form.headers.iter().any(|(known, _)| known == name);
        let trace = self.traceparent.and_then(|slot| text(row, slot));
        if let Some(trace) = trace.filter(|_| !by_route(TRACEPARENT)) {
            write_header(out, TRACEPARENT, trace);
        }
        let is_set = |name: &str| by_route(name) || (name == TRACEPARENT && trace.is_some());
        match self.headers.and_then(|slot| text(row, slot)) {
            Some(object) => write_own(object, is_set, out),
            None => Ok(()),
        }
    }

    /// The payload, untouched.
    pub(super) fn write_body(&self, facts: &Facts<'_>, out: &mut Vec<u8>) {
        out.extend_from_slice(facts.row().and_then(|row| text(row, self.payload)).unwrap_or_default());
    }
}

const TRACEPARENT: &str = "traceparent";

fn text(row: View<'_>, slot: usize) -> Option<&[u8]> {
    match row.value(slot) {
        Value::Data(bytes) => Some(bytes),
        Value::Null | Value::Unavailable => None,
    }
}

/// The members of an object: texts as they are, all else as JSON.
fn write_own(object: &[u8], is_set: impl Fn(&str) -> bool, out: &mut Vec<u8>) -> Result<(), String> {
    let members: Option<BTreeMap<Cow<'_, str>, &RawValue>> =
        serde_json::from_slice(object).map_err(|_| "the headers of the row are no JSON object".to_owned())?;
    for (name, value) in members.into_iter().flatten() {
        if name.is_empty() || name.len() > 255 || is_reserved_header(&name) {
            return Err("a header of the row has a name that is Towpath's or the broker's (`cloudEvents:…`, `CC`, `x-death`, …), or \
                        none of 1 to 255 bytes"
                .into());
        }
        let raw = value.get();
        if raw == "null" || is_set(&name) {
            continue;
        }
        match raw.starts_with('"').then(|| serde_json::from_str::<Cow<'_, str>>(raw)) {
            Some(Ok(text)) => write_header(out, &name, text.as_bytes()),
            _ => write_header(out, &name, raw.as_bytes()),
        }
    }
    Ok(())
}
