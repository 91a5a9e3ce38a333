//! Parked events, as they are listed, shown and chosen.

use serde::{Deserialize, Serialize};

use crate::event::Seq;

/// The most that one page lists.
pub const PAGE_EVENTS_MAX: usize = 1000;

/// The most of a body that is shown, in bytes.
pub const SHOWN_BODY_BYTES_MAX: usize = 1 << 20;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ParkedQuery {
    /// Only this route's.
    #[serde(default)]
    pub route: Option<String>,
    /// Only those after this one.
    #[serde(default)]
    pub after: Seq,
    /// At most this many, 1 to [`PAGE_EVENTS_MAX`].
    #[serde(default = "default_limit")]
    pub limit: usize,
}

fn default_limit() -> usize {
    100
}

impl Default for ParkedQuery {
    fn default() -> Self {
        ParkedQuery { route: None, after: 0, limit: default_limit() }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ParkedPage {
    /// By `seq`.
    pub events: Vec<ParkedHead>,
    /// Parked events that the query selects, those beyond this page included.
    pub total: u64,
}

/// A parked event without its body. Holds no row data but the key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ParkedHead {
    pub seq: Seq,
    pub route: String,
    /// The `message-id`.
    pub id: String,
    pub key: String,
    pub exchange: String,
    pub routing_key: String,
    pub reason: String,
    /// Milliseconds since 1970-01-01 UTC.
    pub parked_at_ms: i64,
    pub body_bytes: u64,
}

/// A parked event, whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ParkedEvent {
    #[serde(flatten)]
    pub head: ParkedHead,
    /// The AMQP properties and headers, by name, as text.
    pub properties: Vec<(String, String)>,
    /// At most [`SHOWN_BODY_BYTES_MAX`] of it.
    pub body: Body,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Body {
    Text(String),
    /// Not UTF-8.
    Base64(String),
}

/// Which parked events a call is about. One of the three must say something.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ParkedSelection {
    #[serde(default)]
    pub seqs: Vec<Seq>,
    /// All of this route's.
    #[serde(default)]
    pub route: Option<String>,
    #[serde(default)]
    pub all: bool,
}

impl ParkedSelection {
    /// One choice and no more than one: a call that names none, or two that contradict, is a mistake.
    pub fn is_clear(&self) -> bool {
        let choices = [!self.seqs.is_empty(), self.route.is_some(), self.all];
        choices.into_iter().filter(|chosen| *chosen).count() == 1 && self.seqs.len() <= PAGE_EVENTS_MAX
    }
}

impl Body {
    /// The head of a body, as text where it is text.
    pub fn shown(bytes: &[u8]) -> Body {
        use base64::Engine;
        let head = &bytes[..bytes.len().min(SHOWN_BODY_BYTES_MAX)];
        match std::str::from_utf8(head) {
            Ok(text) => Body::Text(text.into()),
            // Cut within a character.
            Err(error) if error.error_len().is_none() && head.len() < bytes.len() => {
                Body::Text(String::from_utf8_lossy(&head[..error.valid_up_to()]).into_owned())
            }
            Err(_) => Body::Base64(base64::engine::general_purpose::STANDARD.encode(head)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_text_where_it_can_be() {
        assert_eq!(Body::shown(b"{\"a\":1}"), Body::Text("{\"a\":1}".into()));
        assert_eq!(Body::shown(&[0xff, 0]), Body::Base64("/wA=".into()));
        let long = "ü".repeat(SHOWN_BODY_BYTES_MAX);
        match Body::shown(&long.as_bytes()[1..]) {
            Body::Base64(_) => {}
            other => panic!("starts within a character: {other:?}"),
        }
        match Body::shown(format!("a{long}").as_bytes()) {
            Body::Text(text) => assert_eq!(text.len(), SHOWN_BODY_BYTES_MAX - 1),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_selection_says_one_thing() {
        let clear = |seqs: &[Seq], route: Option<&str>, all| {
            ParkedSelection { seqs: seqs.into(), route: route.map(Into::into), all }.is_clear()
        };
        assert!(clear(&[1], None, false) && clear(&[], Some("r"), false) && clear(&[], None, true));
        assert!(!clear(&[], None, false) && !clear(&[1], None, true) && !clear(&[1], Some("r"), false));
    }
}
