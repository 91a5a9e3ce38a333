//! Towpath's engine and command line.

pub mod admin;
pub mod cases;
pub mod cli;
pub mod config;
pub mod discover;
pub mod event;
mod failpoint;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
pub mod memory;
pub mod outbox;
pub mod pipeline;
mod registry;
pub mod relay;
mod retry;
pub mod route;
