//! What a connector gives the engine, and what it may rely on. A leaf crate: no I/O, no dependency.
//!
//! Read in this order: [`Source`] and [`Capture`] (the calls and their rules), [`Batch`] (what is handed over),
//! [`Position`] (where a change stands), [`Kind`] (what a value's bytes mean), [`Error`] (what to do about a failure).

mod batch;
mod config;
mod error;
mod pattern;
mod planted;
mod position;
mod schema;
mod source;

pub use batch::{Batch, Change, Op, Row, RowBuilder, StateEntry, Transaction, Value};
pub use config::{ByteSize, Secret, Span};
pub use error::{Action, Error, ErrorKind, Result};
pub use pattern::TablePattern;
#[doc(hidden)]
pub use planted::planted;
pub use position::Position;
pub use schema::{Column, KeyKind, Kind, TableSchema, TableVersion};
pub use source::{
    AFTER_GAP, BATCH_BYTES, Capabilities, Capture, FOUND_BYTES_MAX, Finding, Found, Fut, KEEP_ALIVE_SECONDS_MAX, Known,
    Lookup, OldRows, Progress, Resume, Severity, SnapshotProgress, SnapshotRequest, Source,
};
