//! Messages as other messaging frameworks write them, so that their consumers take them without code of their own. The row is the
//! message; the event's `type` names it in the framework's own way. Documented in `docs/frameworks.md`, with what each was tested with.

use std::borrow::Cow;

use super::format::{Facts, Format};
use super::json::write_string;
use super::properties::{Property, write_header};
use super::rows::{Unwritable, write_row_alone};

/// Their headers, beside those of the form `row`.
pub(super) fn headers(format: Format, facts: &Facts<'_>, out: &mut Vec<u8>) {
    match format {
        // spring-amqp, AbstractJavaTypeMapper: the class, or the id that the consumer maps to one.
        Format::Spring => write_header(out, "__TypeId__", facts.event_type.as_bytes()),
        // MassTransit, MessageHeaders.MessageType: read from the transport where the body has no envelope.
        Format::MasstransitRaw => write_header(out, "MT-MessageType", urn(facts.event_type).as_bytes()),
        // NServiceBus, "Message Headers"; the time in its own form, with microseconds behind a colon.
        Format::Nservicebus => {
            write_header(out, "NServiceBus.EnclosedMessageTypes", facts.event_type.as_bytes());
            write_header(out, "NServiceBus.ContentType", b"application/json");
            write_header(out, "NServiceBus.MessageIntent", b"Publish");
            write_header(out, "NServiceBus.MessageId", facts.id.as_bytes());
            write_header(out, "NServiceBus.TimeSent", wire_time(facts.time).as_bytes());
        }
        // Celery, "Message Protocol", version 2.
        Format::Celery => {
            for (name, value) in [("lang", "py"), ("task", facts.event_type), ("id", facts.id), ("root_id", facts.id)] {
                write_header(out, name, value.as_bytes());
            }
        }
        _ => {}
    }
}

/// Properties that they need.
pub(super) fn properties<'f>(format: Format, id: &'f str) -> Vec<(Property, Cow<'f, str>)> {
    match format {
        Format::Spring => vec![(Property::ContentEncoding, "UTF-8".into())],
        Format::Celery => vec![(Property::ContentEncoding, "utf-8".into()), (Property::CorrelationId, id.into())],
        _ => Vec::new(),
    }
}

pub(super) fn body<'a>(format: Format, facts: &Facts<'a>, out: &mut Vec<u8>, unfit: &mut Unwritable<'a>) {
    match format {
        Format::Masstransit => {
            out.extend_from_slice(b"{\"messageId\":");
            write_string(&uuid(facts.id), out);
            out.extend_from_slice(b",\"messageType\":[");
            write_string(&urn(facts.event_type), out);
            out.extend_from_slice(b"],\"message\":");
            write_row(facts, out, unfit);
            out.extend_from_slice(b",\"sentTime\":");
            write_string(facts.time, out);
            out.extend_from_slice(b",\"headers\":{}}");
        }
        // Positional arguments, named ones, and what is to be done afterwards.
        Format::Celery => {
            out.extend_from_slice(b"[[");
            write_row(facts, out, unfit);
            out.extend_from_slice(b",");
            write_string(facts.op.name(), out);
            out.extend_from_slice(b"],{},{\"callbacks\":null,\"errbacks\":null,\"chain\":null,\"chord\":null}]");
        }
        _ => write_row(facts, out, unfit),
    }
}

fn write_row<'a>(facts: &Facts<'a>, out: &mut Vec<u8>, unfit: &mut Unwritable<'a>) {
    match facts.row() {
        Some(row) => write_row_alone(row, facts.columns, out, unfit),
        None => out.extend_from_slice(b"{}"),
    }
}

/// MassTransit names types so: `urn:message:Namespace:Type`.
fn urn(event_type: &str) -> Cow<'_, str> {
    match event_type.starts_with("urn:message:") {
        true => event_type.into(),
        false => format!("urn:message:{event_type}").into(),
    }
}

/// The same id in the form that MassTransit insists on: a UUID of version 8 (RFC 9562, section 5.8), the first bits of its SHA-256.
fn uuid(id: &str) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, id.as_bytes());
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest.as_ref()[..16]);
    bytes[6] = bytes[6] & 0x0f | 0x80;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}

/// `2024-02-29T12:00:00.000001Z` as `2024-02-29 12:00:00:000001 Z`.
fn wire_time(time: &str) -> String {
    time.replacen('T', " ", 1).replacen('.', ":", 1).replacen('Z', " Z", 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_and_times_have_the_forms_that_they_must() {
        // Reckoned by another program: SHA-256 of "db-1-00".
        assert_eq!(uuid("db-1-00"), "aa0df853-12e6-84d3-8eef-a44dfc9d325b");
        assert_eq!(wire_time("2024-02-29T12:00:00.000001Z"), "2024-02-29 12:00:00:000001 Z");
        assert_eq!(urn("Shop:Order"), "urn:message:Shop:Order");
        assert_eq!(urn("urn:message:Shop:Order"), "urn:message:Shop:Order");
    }
}
