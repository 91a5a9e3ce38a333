//! Towpath's engine and command line.

pub mod admin;
pub mod cli;
pub mod config;
pub mod event;
mod failpoint;
pub mod memory;
pub mod outbox;
pub mod pipeline;
mod registry;
pub mod relay;
mod retry;
pub mod route;
