//! A row that is an event itself, as applications write them into an outbox table of their own.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde_json::value::RawValue;
use towpath_contract::Value;

use super::format::Facts;
use super::properties::write_header;
use super::transform::View;

/// The slots of its parts.
#[derive(Clone, Debug)]
pub(super) struct RowEvent {
    pub(super) id: usize,
    pub(super) aggregate_id: usize,
    pub(super) payload: usize,
    pub(super) content_type: &'static str,
    pub(super) headers: Option<usize>,
    pub(super) traceparent: Option<usize>,
}

impl RowEvent {
    /// CloudEvents, as the row says it, and the row's own.
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
        if let Some(subject) = text(row, self.aggregate_id) {
            write_header(out, "cloudEvents:subject", subject);
        }
        write_header(out, "cloudEvents:partitionkey", facts.key);
        write_header(out, "cloudEvents:sequence", facts.sequence.as_bytes());
        if let Some(trace) = self.traceparent.and_then(|slot| text(row, slot)) {
            write_header(out, "traceparent", trace);
        }
        match self.headers.and_then(|slot| text(row, slot)) {
            Some(object) => write_own(object, out),
            None => Ok(()),
        }
    }

    /// The payload, untouched.
    pub(super) fn write_body(&self, facts: &Facts<'_>, out: &mut Vec<u8>) {
        out.extend_from_slice(facts.row().and_then(|row| text(row, self.payload)).unwrap_or_default());
    }
}

fn text(row: View<'_>, slot: usize) -> Option<&[u8]> {
    match row.value(slot) {
        Value::Data(bytes) => Some(bytes),
        Value::Null | Value::Unavailable => None,
    }
}

/// The members of an object: texts as they are, all else as JSON.
fn write_own(object: &[u8], out: &mut Vec<u8>) -> Result<(), String> {
    let members: BTreeMap<Cow<'_, str>, &RawValue> =
        serde_json::from_slice(object).map_err(|_| "the headers of the row are no JSON object".to_owned())?;
    for (name, value) in members {
        if name.is_empty() || name.len() > 255 || name.starts_with("x-") || name.starts_with("cloudEvents:") {
            return Err("a header of the row has a name that no message takes from it".into());
        }
        let raw = value.get();
        match raw.starts_with('"').then(|| serde_json::from_str::<Cow<'_, str>>(raw)) {
            Some(Ok(text)) => write_header(out, &name, text.as_bytes()),
            _ if raw == "null" => {}
            _ => write_header(out, &name, raw.as_bytes()),
        }
    }
    Ok(())
}
