//! The forms that events have on the wire. Documented for consumers in `docs/events.md`; golden files hold their bytes.

use schemars::JsonSchema;
use serde::Deserialize;
use towpath_contract::{ByteSize, Op};

use super::debezium;
use super::foreign;
use super::form::OpPlan;
use super::json::write_string;
use super::plan::ColumnPlan;
use super::properties::write_header;
use super::rows::{Unwritable, write_row_alone, write_rows, write_unavailable_names};
use super::transform::{Rows, View};

/// How an event is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// CloudEvents 1.0 in AMQP binary mode: what describes the event stands in headers, the body holds the rows.
    #[default]
    Cloudevents,
    /// CloudEvents 1.0 as one JSON object: the body holds all of it.
    CloudeventsStructured,
    /// The envelope of Debezium's connectors, as they write it with `schemas.enable=false`, `decimal.handling.mode=string` and
    /// `interval.handling.mode=string`.
    Debezium,
    /// The row alone: after the change, or before it when it is deleted.
    Row,
    /// The row as a Celery task's first argument, the operation as its second; the event's `type` is the task's name.
    Celery,
    /// The row for EasyNetQ; the event's `type` is the class: `Shop.Contracts.OrderChanged, Shop.Contracts`.
    Easynetq,
    /// The row in MassTransit's envelope; the event's `type` is the class: `Shop.Contracts:OrderChanged`.
    Masstransit,
    /// The row for MassTransit's raw JSON; the event's `type` as for `masstransit`.
    MasstransitRaw,
    /// The row for NServiceBus; the event's `type` is the class: `Shop.Contracts.OrderChanged`.
    Nservicebus,
    /// The row for Spring AMQP's JSON converter; the event's `type` is the class, or the id that consumers map to one.
    Spring,
    /// The row for Wolverine; the event's `type` is the message's type name.
    Wolverine,
}

/// Several events in one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bundling {
    pub by: BundleBy,
    pub form: BundleForm,
    pub events_max: usize,
    pub bytes_max: usize,
}

/// What goes together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BundleBy {
    /// The events of one source transaction.
    Transaction,
    /// What was captured together: many transactions under load, one when there is little to do.
    Capture,
}

/// The body of a bundle.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BundleForm {
    /// One event's body per line.
    #[default]
    Lines,
    /// A JSON array of whole CloudEvents.
    CloudeventsBatch,
}

/// `transaction`, `capture`, or with options.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Bundle {
    By(BundleBy),
    Full(BundleConfig),
}

/// Several events in one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BundleConfig {
    by: BundleBy,
    /// How they stand in the body. Default `lines`.
    #[serde(default)]
    form: BundleForm,
    /// The most events of one message. Default 1000.
    #[serde(default = "default_max_events")]
    #[schemars(range(min = 1))]
    max_events: u32,
    /// The most bytes of one message's body; an event that is larger goes alone. Default `1MiB`.
    #[serde(default = "default_max_bytes")]
    max_bytes: ByteSize,
}

fn default_max_events() -> u32 {
    1000
}

fn default_max_bytes() -> ByteSize {
    ByteSize(1 << 20)
}

impl Bundle {
    pub fn settled(self) -> Bundling {
        let config = match self {
            Bundle::Full(config) => config,
            Bundle::By(by) => BundleConfig {
                by,
                form: BundleForm::default(),
                max_events: default_max_events(),
                max_bytes: default_max_bytes(),
            },
        };
        Bundling {
            by: config.by,
            form: config.form,
            events_max: config.max_events as usize,
            bytes_max: usize::try_from(config.max_bytes.0).unwrap_or(usize::MAX),
        }
    }
}

/// An event that is to be written, whatever its form.
pub(super) struct Facts<'a> {
    pub(super) form: &'a OpPlan,
    pub(super) columns: &'a [ColumnPlan],
    /// Nothing for a row that no message can carry.
    pub(super) rows: Option<&'a Rows<'a>>,
    pub(super) id: &'a str,
    pub(super) sequence: &'a str,
    pub(super) source: &'a str,
    pub(super) cloud_source: &'a str,
    pub(super) event_type: &'a str,
    pub(super) subject: &'a str,
    /// As JSON; empty for a table without one.
    pub(super) key: &'a [u8],
    /// The commit, as RFC 3339.
    pub(super) time: &'a str,
    pub(super) commit_time_us: i64,
    pub(super) transaction: &'a str,
    pub(super) op: Op,
    /// Columns that a step could not be done on, and that are null instead.
    pub(super) nullified: &'a [String],
    /// The members of the body about the transaction, and its closing brace.
    pub(super) body_end: &'a [u8],
}

impl Format {
    pub(super) fn content_type(self) -> &'static str {
        match self {
            Format::CloudeventsStructured => "application/cloudevents+json; charset=utf-8",
            Format::Masstransit => "application/vnd.masstransit+json",
            _ => "application/json",
        }
    }

    /// The headers that this form has.
    pub(super) fn headers(self, facts: &Facts<'_>, out: &mut Vec<u8>) {
        if self == Format::CloudeventsStructured {
            return;
        }
        write_header(out, "cloudEvents:specversion", b"1.0");
        write_header(out, "cloudEvents:id", facts.id.as_bytes());
        write_header(out, "cloudEvents:source", facts.cloud_source.as_bytes());
        write_header(out, "cloudEvents:type", facts.event_type.as_bytes());
        write_header(out, "cloudEvents:time", facts.time.as_bytes());
        write_header(out, "cloudEvents:subject", facts.subject.as_bytes());
        if !facts.key.is_empty() {
            write_header(out, "cloudEvents:partitionkey", facts.key);
        }
        write_header(out, "cloudEvents:sequence", facts.sequence.as_bytes());
        if !matches!(self, Format::Cloudevents | Format::Debezium) {
            write_header(out, "cloudEvents:op", facts.op.name().as_bytes());
            let mut names = Vec::new();
            if let Some(row) = facts.row() {
                write_unavailable_names(row, facts.columns, &mut names);
            }
            if !names.is_empty() {
                write_header(out, "cloudEvents:unavailable", &names);
            }
            foreign::headers(self, facts, out);
        }
    }

    pub(super) fn body<'a>(self, facts: &Facts<'a>, out: &mut Vec<u8>, unfit: &mut Unwritable<'a>) {
        match self {
            Format::Cloudevents => write_data(facts, out, unfit),
            Format::CloudeventsStructured => write_structured(facts, out, unfit),
            Format::Debezium => debezium::write_envelope(facts, out, unfit),
            Format::Row => match facts.row() {
                Some(row) => write_row_alone(row, facts.columns, out, unfit),
                None => out.extend_from_slice(b"{}"),
            },
            _ => foreign::body(self, facts, out, unfit),
        }
    }
}

impl<'a> Facts<'a> {
    /// As it is now, or as it was before a delete.
    pub(super) fn row(&self) -> Option<View<'a>> {
        self.rows.and_then(|rows| rows.after.or(rows.before))
    }
}

/// The body of binary mode, which is the `data` of structured mode.
fn write_data<'a>(facts: &Facts<'a>, out: &mut Vec<u8>, unfit: &mut Unwritable<'a>) {
    out.extend_from_slice(&facts.form.body_start);
    if let Some(rows) = facts.rows {
        if !facts.key.is_empty() {
            out.extend_from_slice(b",\"key\":");
            out.extend_from_slice(facts.key);
        }
        write_rows(rows, facts.op, facts.columns, out, unfit);
        for (nth, name) in facts.nullified.iter().enumerate() {
            out.extend_from_slice(if nth == 0 { b",\"nullified\":[" } else { b"," });
            write_string(name, out);
        }
        if !facts.nullified.is_empty() {
            out.push(b']');
        }
    }
    out.extend_from_slice(facts.body_end);
}

/// CloudEvents' JSON format, version 1.0.2.
pub(super) fn write_structured<'a>(facts: &Facts<'a>, out: &mut Vec<u8>, unfit: &mut Unwritable<'a>) {
    out.extend_from_slice(b"{\"specversion\":\"1.0\"");
    let texts = [
        ("id", facts.id),
        ("source", facts.cloud_source),
        ("type", facts.event_type),
        ("time", facts.time),
        ("subject", facts.subject),
        ("sequence", facts.sequence),
    ];
    for (name, text) in texts {
        out.extend_from_slice(b",\"");
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b"\":");
        write_string(text, out);
    }
    if let (false, Ok(key)) = (facts.key.is_empty(), std::str::from_utf8(facts.key)) {
        out.extend_from_slice(b",\"partitionkey\":");
        write_string(key, out);
    }
    out.extend_from_slice(b",\"datacontenttype\":\"application/json\",\"data\":");
    write_data(facts, out, unfit);
    out.push(b'}');
}
