//! AMQP 0-9-1 basic properties as they stand in a content header: flags, then values (specification, section 4.2.6.1).

/// The flags of the properties that every event has, in the order in which their values follow.
const FLAGS: u16 = CONTENT_TYPE | HEADERS | DELIVERY_MODE | MESSAGE_ID | TIMESTAMP | TYPE | APP_ID;
const CONTENT_TYPE: u16 = 1 << 15;
const HEADERS: u16 = 1 << 13;
const DELIVERY_MODE: u16 = 1 << 12;
const MESSAGE_ID: u16 = 1 << 7;
const TIMESTAMP: u16 = 1 << 6;
const TYPE: u16 = 1 << 5;
const APP_ID: u16 = 1 << 3;

/// Survives a restart of the broker.
const PERSISTENT: u8 = 2;

pub(super) const APP: &str = "towpath";

pub(super) struct Properties<'a> {
    pub(super) content_type: &'a str,
    /// Seconds since 1970-01-01 UTC.
    pub(super) timestamp: u64,
    pub(super) message_id: &'a str,
    pub(super) event_type: &'a str,
}

impl Properties<'_> {
    /// Appends the properties; `headers` writes the header table's entries with [`write_header`].
    ///
    /// Short strings must be at most 255 bytes: the caller checks, once per table.
    pub(super) fn write(&self, out: &mut Vec<u8>, headers: impl FnOnce(&mut Vec<u8>)) {
        out.extend_from_slice(&FLAGS.to_be_bytes());
        write_short(out, self.content_type);
        let length_at = out.len();
        out.extend_from_slice(&[0; 4]);
        headers(out);
        let length = (out.len() - length_at - 4) as u32;
        out[length_at..length_at + 4].copy_from_slice(&length.to_be_bytes());
        out.push(PERSISTENT);
        write_short(out, self.message_id);
        out.extend_from_slice(&self.timestamp.to_be_bytes());
        write_short(out, self.event_type);
        write_short(out, APP);
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
        ) {
            let properties =
                Properties { content_type: &content_type, timestamp, message_id: &message_id, event_type: &event_type };
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
            let read = parsed.headers().as_ref().unwrap().inner();
            prop_assert_eq!(read.len(), headers.len());
            for (name, value) in &headers {
                prop_assert_eq!(&read[name.as_str()], &AMQPValue::LongString(value.clone().into()));
            }
        }
    }
}
