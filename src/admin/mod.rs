//! Health, metrics and the API that the command line asks, over HTTP on the configured address.
//!
//! The pipeline answers [`Command`]s; everything else here is made from the [`Status`] that it tells.

mod api;
pub mod command;
mod guard;
pub mod health;
pub mod metrics;
pub mod parked;
pub mod rate;
mod server;
pub mod status;

pub use api::SnapshotCall;
pub use command::{Command, Handle, Outcome, Refusal, RefusalKind, Reply, channel};
pub use metrics::Metrics;
pub use server::Server;
pub use status::Status;
