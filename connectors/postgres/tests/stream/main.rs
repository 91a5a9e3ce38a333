//! The streaming half against a real server.

#![expect(clippy::unwrap_used, reason = "a test fails by a panic")]

mod conformance;
mod ddl;
mod differential;
mod harness;
mod link;
mod login;
mod rows;
mod slots;
mod transactions;
mod watch;
