//! Outgoing frames, appended to a buffer. A publish is three or more frames and no allocation beyond the buffer's own growth.

use amq_protocol::frame::{AMQPFrame, gen_frame};
use amq_protocol::protocol::AMQPClass;
use amq_protocol::protocol::constants::{FRAME_BODY, FRAME_END, FRAME_HEADER, FRAME_HEARTBEAT, FRAME_METHOD};

/// Type, channel and length before a payload, and the end mark after it (specification 4.2.3).
pub(crate) const FRAME_OVERHEAD_BYTES: usize = 8;

/// A content header's class, weight and body size, before the properties (4.2.6.1).
pub(crate) const HEADER_FIXED_BYTES: usize = 12;

/// A short string's length is one byte (4.2.5.3).
pub(crate) const SHORT_STRING_BYTES_MAX: usize = 255;

const BASIC_CLASS: u16 = 60;
const PUBLISH_METHOD: u16 = 40;
/// Bit 0 of `basic.publish`'s flags; bit 1 would be `immediate`.
const MANDATORY: u8 = 1;

/// A message as the wire wants it. `exchange` and `routing_key` are at most 255 bytes, `properties` are flags and values.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Content<'a> {
    pub(crate) exchange: &'a str,
    pub(crate) routing_key: &'a str,
    pub(crate) properties: &'a [u8],
    pub(crate) body: &'a [u8],
}

/// Appends a mandatory `basic.publish`, its header and its body, the latter split so that no frame exceeds `frame_max` bytes.
///
/// The caller has checked that the short strings and the header fit: what does not fit cannot be published at all.
pub(crate) fn publish(out: &mut Vec<u8>, channel: u16, frame_max: usize, content: &Content<'_>) {
    let Content { exchange, routing_key, properties, body } = *content;
    debug_assert!(exchange.len() <= SHORT_STRING_BYTES_MAX && routing_key.len() <= SHORT_STRING_BYTES_MAX);
    let piece_bytes_max = frame_max - FRAME_OVERHEAD_BYTES;
    debug_assert!(HEADER_FIXED_BYTES + properties.len() <= piece_bytes_max);
    let method_bytes = 9 + exchange.len() + routing_key.len();
    let header_bytes = HEADER_FIXED_BYTES + properties.len();
    let pieces = body.len().div_ceil(piece_bytes_max);
    out.reserve(method_bytes + header_bytes + body.len() + (2 + pieces) * FRAME_OVERHEAD_BYTES);

    begin(out, FRAME_METHOD, channel, method_bytes);
    out.extend_from_slice(&BASIC_CLASS.to_be_bytes());
    out.extend_from_slice(&PUBLISH_METHOD.to_be_bytes());
    out.extend_from_slice(&[0, 0]); // reserved: the ticket of older versions
    short_string(out, exchange);
    short_string(out, routing_key);
    out.push(MANDATORY);
    out.push(FRAME_END);

    begin(out, FRAME_HEADER, channel, header_bytes);
    out.extend_from_slice(&BASIC_CLASS.to_be_bytes());
    out.extend_from_slice(&[0, 0]); // weight
    out.extend_from_slice(&(body.len() as u64).to_be_bytes());
    out.extend_from_slice(properties);
    out.push(FRAME_END);

    // An empty body has no frame at all.
    for piece in body.chunks(piece_bytes_max) {
        begin(out, FRAME_BODY, channel, piece.len());
        out.extend_from_slice(piece);
        out.push(FRAME_END);
    }
}

/// Appends any other method. Rare, so that the crate's own generator will do.
pub(crate) fn method(out: &mut Vec<u8>, channel: u16, class: AMQPClass) {
    let frame = AMQPFrame::Method(channel, class);
    let generated = gen_frame(&frame)(Vec::new().into()).expect("a Vec takes any frame");
    out.extend_from_slice(&generated.into_inner().0);
}

pub(crate) fn heartbeat(out: &mut Vec<u8>) {
    begin(out, FRAME_HEARTBEAT, 0, 0);
    out.push(FRAME_END);
}

fn begin(out: &mut Vec<u8>, kind: u8, channel: u16, payload_bytes: usize) {
    let mut head = [0; 7];
    head[0] = kind;
    head[1..3].copy_from_slice(&channel.to_be_bytes());
    head[3..7].copy_from_slice(&(payload_bytes as u32).to_be_bytes());
    out.extend_from_slice(&head);
}

fn short_string(out: &mut Vec<u8>, text: &str) {
    out.push(text.len() as u8);
    out.extend_from_slice(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use amq_protocol::frame::parse_frame;
    use amq_protocol::protocol::basic::{self, AMQPProperties, gen_properties};
    use amq_protocol::types::{AMQPValue, FieldTable, ShortString};
    use proptest::prelude::*;

    use super::*;

    const FRAME_MIN_SIZE: usize = 4096;

    fn properties_bytes(properties: &AMQPProperties) -> Vec<u8> {
        gen_properties(properties)(Vec::new().into()).unwrap().into_inner().0
    }

    /// Publishes, parses with the crate's own parser, and compares.
    fn check(
        channel: u16,
        frame_max: usize,
        exchange: &str,
        routing_key: &str,
        properties: &AMQPProperties,
        body: &[u8],
    ) {
        let mut out = b"before".to_vec();
        let properties_bytes = properties_bytes(properties);
        publish(&mut out, channel, frame_max, &Content { exchange, routing_key, properties: &properties_bytes, body });
        let mut rest = &out[6..];
        let mut frames = Vec::new();
        while !rest.is_empty() {
            let (after, frame) = parse_frame(rest).unwrap();
            assert!(rest.len() - after.len() <= frame_max);
            frames.push(frame);
            rest = after;
        }
        let publish = basic::Publish {
            exchange: ShortString::try_new(exchange).unwrap(),
            routing_key: ShortString::try_new(routing_key).unwrap(),
            mandatory: true,
            immediate: false,
        };
        assert_eq!(frames[0], AMQPFrame::Method(channel, AMQPClass::Basic(basic::AMQPMethod::Publish(publish))));
        let AMQPFrame::Header(of, header) = &frames[1] else { panic!("{:?}", frames[1]) };
        assert_eq!((*of, header.class_id, header.body_size), (channel, 60, body.len() as u64));
        assert_eq!(&header.properties, properties);
        let mut joined = Vec::new();
        for frame in &frames[2..] {
            let AMQPFrame::Body(of, piece) = frame else { panic!("{frame:?}") };
            assert_eq!(*of, channel);
            assert!(!piece.is_empty());
            joined.extend_from_slice(piece);
        }
        assert_eq!(joined, body);
        assert_eq!(frames.len() - 2, body.len().div_ceil(frame_max - FRAME_OVERHEAD_BYTES));
    }

    proptest! {
        #[test]
        fn every_publish_is_read_back_as_it_was(
            channel in 1u16..,
            frame_max in FRAME_MIN_SIZE..20_000,
            exchange in "[ -~]{0,255}",
            routing_key in "\\PC{0,60}",
            id in "[ -~]{0,255}",
            header in proptest::collection::vec(("[a-z]{1,20}", "\\PC{0,40}"), 0..8),
            body in proptest::collection::vec(any::<u8>(), 0..50_000),
        ) {
            let mut headers = FieldTable::default();
            for (name, value) in header {
                headers.insert(ShortString::try_new(name).unwrap(), AMQPValue::LongString(value.into()));
            }
            let properties = AMQPProperties::default()
                .with_message_id(ShortString::try_new(id).unwrap())
                .with_delivery_mode(2)
                .with_headers(headers);
            check(channel, frame_max, &exchange, &routing_key, &properties, &body);
        }
    }

    #[test]
    fn the_smallest_publish_has_no_body_frame() {
        check(1, FRAME_MIN_SIZE, "", "", &AMQPProperties::default(), b"");
    }

    #[test]
    fn bodies_at_the_edges_of_a_frame_are_split_where_they_must_be() {
        let piece = FRAME_MIN_SIZE - FRAME_OVERHEAD_BYTES;
        let longest = "x".repeat(SHORT_STRING_BYTES_MAX);
        for length in [1, piece - 1, piece, piece + 1, 2 * piece, 2 * piece + 1] {
            check(u16::MAX, FRAME_MIN_SIZE, &longest, &longest, &AMQPProperties::default(), &vec![0xCE; length]);
        }
    }

    #[test]
    fn a_header_may_fill_a_frame_to_the_last_byte() {
        let mut headers = FieldTable::default();
        headers.insert("h".into(), AMQPValue::LongString("".into()));
        let empty = properties_bytes(&AMQPProperties::default().with_headers(headers.clone())).len();
        let room = FRAME_MIN_SIZE - FRAME_OVERHEAD_BYTES - HEADER_FIXED_BYTES - empty;
        headers.insert("h".into(), AMQPValue::LongString("v".repeat(room).into()));
        check(1, FRAME_MIN_SIZE, "e", "r", &AMQPProperties::default().with_headers(headers), b"b");
    }

    #[test]
    fn a_heartbeat_is_the_one_of_the_specification() {
        let mut out = Vec::new();
        heartbeat(&mut out);
        assert_eq!(parse_frame(&out[..]).unwrap(), (&[][..], AMQPFrame::Heartbeat));
    }
}
