//! `outbox_table`

use schemars::JsonSchema;
use serde::Deserialize;
use towpath_contract::Kind;

use super::shape::{Fault, Field, Shape};
use super::{Defaults, Reads, Step};
use crate::route::row_event::RowEvent;

/// The rows of an application's own outbox table are events: `outbox_table: {}`. Of every row that is inserted the payload becomes the
/// body, byte for byte, and the other columns say what describes it: the type is the event's, the id its `cloudEvents:id`, the
/// aggregate's id its subject, aggregate type and id its key, by which its order goes. The routing key is
/// `{{ row.aggregatetype }}.{{ type }}`, unless the route has one. Updates and deletes become none: the application may mark its
/// rows or take them away. A null payload is an empty body; where the id is null, Towpath's stands in its place; without a type the
/// event is parked.
///
/// A column that is not called as here is named: `outbox_table: { aggregate_type: agg_type, payload: body }`. The columns are those that
/// the step before left, and no step comes behind. `message-id` and the sequence are Towpath's, as of all events. A header of the row that
/// the route or `traceparent` sets is left out; one whose name is Towpath's or the broker's (`cloudEvents:…`, `CC`, `x-death`) parks the event.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OutboxTable {
    /// What the event is about. Default `aggregateid`.
    #[serde(default = "aggregate_id")]
    aggregate_id: String,
    /// The kind of what it is about. Default `aggregatetype`.
    #[serde(default = "aggregate_type")]
    aggregate_type: String,
    /// A JSON object whose members are headers. Default: none.
    #[serde(default)]
    headers: Option<String>,
    /// What names the event. Default `id`.
    #[serde(default = "id")]
    id: String,
    /// The body: `application/json` of JSON, `application/octet-stream` of bytes, else `text/plain`; `properties.content_type` of the
    /// route says otherwise. Default `payload`.
    #[serde(default = "payload")]
    payload: String,
    /// What a row is that a snapshot reads. Default `nothing`. With `new` rows come in the order of the table's key, not in that in
    /// which they were written. What was inserted in a gap comes as read rows alone: with `nothing` it is no event.
    #[serde(default)]
    reads: Reads,
    /// Goes into the header `traceparent`. Default: none.
    #[serde(default)]
    traceparent: Option<String>,
    /// The event's type. Default `type`.
    #[serde(default = "event_type", rename = "type")]
    event_type: String,
}

fn aggregate_id() -> String {
    "aggregateid".into()
}

fn aggregate_type() -> String {
    "aggregatetype".into()
}

fn id() -> String {
    "id".into()
}

fn payload() -> String {
    "payload".into()
}

fn event_type() -> String {
    "type".into()
}

impl Step for OutboxTable {
    fn faults(&self) -> Vec<Fault> {
        let optional = [("headers", &self.headers), ("traceparent", &self.traceparent)];
        let optional = optional.into_iter().filter_map(|(key, name)| Some((key, name.as_ref()?)));
        let named = [
            ("aggregate_id", &self.aggregate_id),
            ("aggregate_type", &self.aggregate_type),
            ("id", &self.id),
            ("payload", &self.payload),
            ("type", &self.event_type),
        ];
        let empty = named.into_iter().chain(optional).filter(|(_, name)| name.is_empty());
        let empty = empty.map(|(key, _)| Fault::new("this is no column's name").key(key));
        let in_templates = [("aggregate_type", &self.aggregate_type), ("type", &self.event_type)];
        let unnamed = in_templates.into_iter().filter(|(_, name)| !is_word(name));
        let unnamed = unnamed.map(|(key, _)| {
            let help = "`rename` it in a step before: the templates of type and routing key name it";
            Fault::new("this column's name is no word").help(help).key(key)
        });
        empty.chain(unnamed).collect()
    }

    fn compile(&self, shape: &mut Shape) -> Result<(), Fault> {
        shape.can_tell_new_rows(self.reads)?;
        // A route of many tables, too, takes none that lacks a part: its rows would go out as any other.
        let field = |shape: &mut Shape, key: &str, name: &str| -> Result<Field, Fault> {
            let found = shape.find(name).map_err(|fault| fault.key(key))?;
            let lacks = || {
                let help = "a route of its own takes a table that is no outbox table";
                Fault::new(format!("a table that the route takes has no column `{name}`")).help(help).key(key)
            };
            found.map(|index| shape.fields()[index].clone()).ok_or_else(lacks)
        };
        let optional = |shape: &mut Shape, key: &str, name: &Option<String>| {
            name.as_ref().map(|name| field(shape, key, name)).transpose()
        };
        let headers = optional(shape, "headers", &self.headers)?;
        if let Some(headers) = headers.as_ref().filter(|field| field.kind != Kind::Json) {
            super::fields::wrong_kind(headers, "", "JSON").map_err(|fault| fault.key("headers"))?;
        }
        let traceparent = optional(shape, "traceparent", &self.traceparent)?;
        field(shape, "type", &self.event_type)?;
        let id = field(shape, "id", &self.id)?;
        let payload = field(shape, "payload", &self.payload)?;
        let aggregate_type = field(shape, "aggregate_type", &self.aggregate_type)?;
        let aggregate_id = field(shape, "aggregate_id", &self.aggregate_id)?;
        for (key, part) in [("aggregate_type", &aggregate_type), ("aggregate_id", &aggregate_id)] {
            if !shape.is_column(part.slot) {
                let message = format!("`{}` is made by a step, and the order of events goes by it", part.name);
                return Err(Fault::new(message).help("name a column of the table").key(key));
            }
        }
        // The order is the aggregate's, not the row's.
        let aggregate = [aggregate_type.slot, aggregate_id.slot];
        for field in shape.fields() {
            field.key = aggregate.contains(&field.slot);
        }
        shape.is_event(RowEvent {
            id: id.slot,
            aggregate,
            payload: payload.slot,
            content_type: match payload.kind {
                Kind::Json => "application/json",
                Kind::Bytes => "application/octet-stream",
                _ => "text/plain; charset=utf-8",
            },
            headers: headers.map(|field| field.slot),
            traceparent: traceparent.map(|field| field.slot),
            reads: self.reads == Reads::New,
        });
        Ok(())
    }

    fn defaults(&self) -> Defaults {
        Defaults {
            event_type: Some(format!("{{{{ row.{} }}}}", self.event_type)),
            // The dots of a type separate words, as whoever wrote it means them to.
            routing_key: Some(format!("{{{{ row.{} }}}}.{{{{ type }}}}", self.aggregate_type)),
        }
    }
}

/// Templates name columns so.
fn is_word(name: &str) -> bool {
    !name.starts_with(|first: char| first.is_ascii_digit())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}
