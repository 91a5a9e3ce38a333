//! AMQP 0-9-1 basic properties as they stand in a content header: flags, then values (specification, section 4.2.6.1).

use std::borrow::Cow;

/// The flags of the properties that every event has.
const FLAGS: u16 = CONTENT_TYPE | HEADERS | DELIVERY_MODE | MESSAGE_ID | TIMESTAMP | TYPE | APP_ID;
const CONTENT_TYPE: u16 = 1 << 15;
const CONTENT_ENCODING: u16 = 1 << 14;
const HEADERS: u16 = 1 << 13;
const DELIVERY_MODE: u16 = 1 << 12;
const PRIORITY: u16 = 1 << 11;
const CORRELATION_ID: u16 = 1 << 10;
const REPLY_TO: u16 = 1 << 9;
const EXPIRATION: u16 = 1 << 8;
const MESSAGE_ID: u16 = 1 << 7;
const TIMESTAMP: u16 = 1 << 6;
const TYPE: u16 = 1 << 5;
const APP_ID: u16 = 1 << 3;

/// Survives a restart of the broker.
const PERSISTENT: u8 = 2;

pub(super) const APP: &str = "towpath";

/// A property that a route may set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Property {
    ContentType,
    ContentEncoding,
    Priority,
    CorrelationId,
    ReplyTo,
    Expiration,
    AppId,
}

impl Property {
    /// As the config calls it.
    pub fn name(self) -> &'static str {
        match self {
            Property::ContentType => "content_type",
            Property::ContentEncoding => "content_encoding",
            Property::Priority => "priority",
            Property::CorrelationId => "correlation_id",
            Property::ReplyTo => "reply_to",
            Property::Expiration => "expiration",
            Property::AppId => "app_id",
        }
    }

    /// What is wrong with a value of it.
    pub fn fault(self, value: &str) -> Option<&'static str> {
        match self {
            Property::Priority if value.parse::<u8>().is_err() => Some("is no whole number from 0 to 255"),
            // RabbitMQ closes the channel over any other.
            Property::Expiration if value.parse::<u32>().is_err() => Some("is no whole number of milliseconds"),
            // A name that RabbitMQ takes from its own consumers alone.
            Property::ReplyTo if value.starts_with("amq.rabbitmq.reply-to") => Some("is no queue of an event's"),
            _ => None,
        }
    }
}

/// A header that Towpath writes, or that the broker acts on: it takes some in one form alone, and closes the channel over another.
pub fn is_reserved_header(name: &str) -> bool {
    const BROKERS: [&str; 6] = ["x-death", "x-first-death", "x-last-death", "x-delay", "x-stream-", "x-opt-"];
    name.starts_with("cloudEvents:")
        || ["cc", "bcc"].contains(&name.to_ascii_lowercase().as_str())
        || BROKERS.iter().any(|reserved| name.to_ascii_lowercase().starts_with(reserved))
}

pub(super) struct Properties<'a> {
    pub(super) content_type: &'a str,
    /// Seconds since 1970-01-01 UTC.
    pub(super) timestamp: u64,
    pub(super) message_id: &'a str,
    pub(super) event_type: &'a str,
    /// Those that the route sets, without fault and none of them empty.
    pub(super) own: &'a [(Property, Cow<'a, str>)],
}

impl Properties<'_> {
    /// Appends the properties, in the order of the specification; `headers` writes the header table's entries with [`write_header`].
    ///
    /// Short strings must be at most 255 bytes: the caller checks.
    pub(super) fn write(&self, out: &mut Vec<u8>, headers: impl FnOnce(&mut Vec<u8>)) {
        let own =
            |property: Property| self.own.iter().find(|(known, _)| *known == property).map(|(_, text)| text.as_ref());
        let optional = [
            (Property::ContentEncoding, CONTENT_ENCODING),
            (Property::Priority, PRIORITY),
            (Property::CorrelationId, CORRELATION_ID),
            (Property::ReplyTo, REPLY_TO),
            (Property::Expiration, EXPIRATION),
        ];
        let set = optional.iter().filter(|(property, _)| own(*property).is_some());
        let flags = set.fold(FLAGS, |flags, (_, flag)| flags | flag);
        out.extend_from_slice(&flags.to_be_bytes());
        write_short(out, own(Property::ContentType).unwrap_or(self.content_type));
        if let Some(encoding) = own(Property::ContentEncoding) {
            write_short(out, encoding);
        }
        let length_at = out.len();
        out.extend_from_slice(&[0; 4]);
        headers(out);
        let length = (out.len() - length_at - 4) as u32;
        out[length_at..length_at + 4].copy_from_slice(&length.to_be_bytes());
        out.push(PERSISTENT);
        if let Some(priority) = own(Property::Priority) {
            out.push(priority.parse().unwrap_or(0));
        }
        for property in [Property::CorrelationId, Property::ReplyTo, Property::Expiration] {
            if let Some(text) = own(property) {
                write_short(out, text);
            }
        }
        write_short(out, self.message_id);
        out.extend_from_slice(&self.timestamp.to_be_bytes());
        write_short(out, self.event_type);
        write_short(out, own(Property::AppId).unwrap_or(APP));
    }
}

/// Appends a header whose value is text.
pub(super) fn write_header(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    write_short(out, name);
    out.push(b'S');
    out.extend_from_slice(&(value.len() as u32).to_be_bytes());
    out.extend_from_slice(value);
}

fn write_short(out: &mut Vec<u8>, text: &str) {
    debug_assert!(text.len() <= 255);
    out.push(text.len() as u8);
    out.extend_from_slice(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use amq_protocol::protocol::basic::parse_properties;
    use amq_protocol::types::AMQPValue;
    use proptest::collection::{btree_map, vec};
    use proptest::prelude::*;

    /// At most 255 bytes.
    const SHORT: &str = "\\PC{0,63}";

    proptest! {
        #[test]
        fn an_independent_parser_reads_what_was_written(
            (content_type, message_id, event_type) in (SHORT, SHORT, SHORT),
            timestamp in any::<u64>(),
            headers in btree_map(SHORT, vec(any::<u8>(), 0..300), 0..9),
            own in proptest::option::of((SHORT, any::<u8>(), SHORT, SHORT, any::<u32>())),
        ) {
            let set = own.iter().flat_map(|(encoding, priority, correlation, reply_to, expiration)| {
                [
                    (Property::ContentEncoding, encoding.into()),
                    (Property::Priority, priority.to_string().into()),
                    (Property::CorrelationId, correlation.into()),
                    (Property::ReplyTo, reply_to.into()),
                    (Property::Expiration, expiration.to_string().into()),
                ]
            });
            let set: Vec<(Property, Cow<'_, str>)> = set.collect();
            let properties = Properties {
                content_type: &content_type, timestamp, message_id: &message_id, event_type: &event_type, own: &set,
            };
            let mut out = Vec::new();
            properties.write(&mut out, |out| headers.iter().for_each(|(name, value)| write_header(out, name, value)));
            let (rest, parsed) = parse_properties(&out[..]).expect("well-formed");
            prop_assert!(rest.is_empty());
            prop_assert_eq!(parsed.content_type().as_ref().unwrap().as_str(), content_type);
            prop_assert_eq!(parsed.delivery_mode(), &Some(2));
            prop_assert_eq!(parsed.message_id().as_ref().unwrap().as_str(), message_id);
            prop_assert_eq!(parsed.timestamp(), &Some(timestamp));
            prop_assert_eq!(parsed.kind().as_ref().unwrap().as_str(), event_type);
            prop_assert_eq!(parsed.app_id().as_ref().unwrap().as_str(), "towpath");
            let text = |short: &Option<amq_protocol::types::ShortString>| short.as_ref().map(|text| text.as_str().to_owned());
            let read = (
                text(parsed.content_encoding()), *parsed.priority(), text(parsed.correlation_id()), text(parsed.reply_to()),
                text(parsed.expiration()),
            );
            let wanted = own.map_or((None, None, None, None, None), |(encoding, priority, correlation, reply_to, expiration)| {
                (Some(encoding), Some(priority), Some(correlation), Some(reply_to), Some(expiration.to_string()))
            });
            prop_assert_eq!(read, wanted);
            let read = parsed.headers().as_ref().unwrap().inner();
            prop_assert_eq!(read.len(), headers.len());
            for (name, value) in &headers {
                prop_assert_eq!(&read[name.as_str()], &AMQPValue::LongString(value.clone().into()));
            }
        }
    }
}
