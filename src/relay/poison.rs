//! What can never be published, found before it is tried.

use super::wire::{FRAME_OVERHEAD_BYTES, HEADER_FIXED_BYTES, SHORT_STRING_BYTES_MAX};
use crate::event::Event;

/// What the broker takes, as far as known.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// The largest frame, overhead included, as negotiated.
    pub(super) frame_bytes_max: usize,
    /// The configured limit, or the broker's own where it was learnt.
    pub(super) body_bytes_max: u64,
}

/// Why this event cannot be published, if it cannot. Names sizes and limits, no row data.
pub(super) fn poison(event: &Event<'_>, limits: &Limits) -> Option<String> {
    if event.body.len() as u64 > limits.body_bytes_max {
        let limit = limits.body_bytes_max;
        return Some(format!(
            "the body has {} bytes; the limit is {limit} (rabbitmq.max_message_size)",
            event.body.len()
        ));
    }
    let header_bytes = FRAME_OVERHEAD_BYTES + HEADER_FIXED_BYTES + event.properties.len();
    if header_bytes > limits.frame_bytes_max {
        let limit = limits.frame_bytes_max;
        return Some(format!(
            "properties and headers make a frame of {header_bytes} bytes; the broker takes {limit} (frame_max)"
        ));
    }
    let texts =
        [("the routing key", event.routing_key), ("the message-id", event.id), ("the exchange's name", event.exchange)];
    let (what, text) = texts.into_iter().find(|(_, text)| text.len() > SHORT_STRING_BYTES_MAX)?;
    Some(format!("{what} has {} bytes; AMQP takes {SHORT_STRING_BYTES_MAX}", text.len()))
}

/// The limit in RabbitMQ's words, when it closed a channel over a body: "message size 5 is larger than configured max size 4"
/// (`rabbit_channel`, since 3.8). `None` for any other reason, 0 when the limit is not named.
pub(super) fn learnt_body_limit(code: u16, text: &str) -> Option<u64> {
    const CONTENT_TOO_LARGE: u16 = 311;
    match text.rsplit_once("max size ") {
        Some((_, rest)) if text.contains("message size") => {
            let digits = rest.find(|c: char| !c.is_ascii_digit()).map_or(rest, |end| &rest[..end]);
            Some(digits.parse().unwrap_or(0))
        }
        _ => (code == CONTENT_TOO_LARGE).then_some(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::RouteId;

    const LIMITS: Limits = Limits { frame_bytes_max: 4096, body_bytes_max: 10 };

    fn event<'a>() -> Event<'a> {
        Event {
            seq: 1,
            route: RouteId(0),
            key_hash: 0,
            id: "",
            key: "",
            exchange: "",
            routing_key: "",
            properties: &[0, 0],
            body: b"0123456789",
            parked: None,
        }
    }

    #[test]
    fn an_event_at_every_limit_passes_and_one_byte_more_is_parked() {
        let longest = "x".repeat(255);
        let too_long = "x".repeat(256);
        let headers = vec![0; 4096 - 8 - 12];
        let too_many = vec![0; 4096 - 8 - 12 + 1];
        let fits = Event { id: &longest, routing_key: &longest, exchange: &longest, properties: &headers, ..event() };
        assert_eq!(poison(&fits, &LIMITS), None);
        for (found, word) in [
            (Event { id: &too_long, ..event() }, "message-id"),
            (Event { routing_key: &too_long, ..event() }, "routing key"),
            (Event { exchange: &too_long, ..event() }, "exchange"),
            (Event { properties: &too_many, ..event() }, "frame_max"),
            (Event { body: b"0123456789a", ..event() }, "11 bytes"),
        ] {
            let reason = poison(&found, &LIMITS).unwrap();
            assert!(reason.contains(word), "{reason}");
        }
    }

    #[test]
    fn the_brokers_own_limit_is_learnt_from_its_words() {
        let words = "PRECONDITION_FAILED - message size 134217729 is larger than configured max size 134217728";
        assert_eq!(learnt_body_limit(406, words), Some(134_217_728));
        assert_eq!(learnt_body_limit(311, "CONTENT_TOO_LARGE"), Some(0));
        assert_eq!(learnt_body_limit(404, "NOT_FOUND - no exchange 'x' in vhost '/'"), None);
        assert_eq!(learnt_body_limit(406, "PRECONDITION_FAILED - invalid expiration"), None);
    }
}
