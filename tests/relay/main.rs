//! The relay against real brokers, with an outbox in memory; and against a scripted one for what no real one can be made to do.

#![allow(clippy::unwrap_used)] // all of it is a test

mod chaos;
mod failures;
mod outbox;
mod parking;
mod publishing;
mod scripted;
mod tls;
