//! A lean AMQP 0-9-1 connection for publishing: frames written straight into one buffer, many per write; many confirms per read.
//!
//! It knows the protocol and nothing of events, shards or routes. Sources: the AMQP 0-9-1 specification (sections 2.3 and 4.2)
//! and RabbitMQ's extensions (publisher confirms, `connection.blocked`, `authentication_failure_close`).

mod connection;
mod decode;
mod encode;
mod endpoint;
mod handshake;
mod socket;
mod tls;

pub(crate) use connection::{Connection, Turn};
pub(crate) use decode::Incoming;
#[cfg(any(test, fuzzing))]
pub(crate) use decode::read_frames;
pub(crate) use encode::{Content, FRAME_OVERHEAD_BYTES, HEADER_FIXED_BYTES, SHORT_STRING_BYTES_MAX, method, publish};
pub use endpoint::Endpoint;
pub(crate) use handshake::{FRAME_BYTES_MIN, open};
pub use tls::TlsSettings;
