//! The suite that every connector passes. A connector's own test file implements [`Harness`] and calls [`run`].
//!
//! The suite works on one table, `items(id integer primary key, note text)`, that the harness makes; it knows nothing of the
//! source but the contract. Each case is a function whose name says what must hold.

mod cases;
mod drive;

use std::future::Future;

use towpath_contract::{Capabilities, Source};

pub use drive::{Seen, seen};

/// One statement on `items`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    Insert { id: i64, note: String },
    Update { id: i64, note: String },
    Delete { id: i64 },
}

/// A live legacy system, private to one case.
pub trait Harness: Sized + Send {
    /// A fresh system with an empty table `items`.
    fn start() -> impl Future<Output = Self> + Send;

    /// A connector to it that captures `items` alone. Every call gives a new one to the same system.
    fn source(&self) -> Box<dyn Source>;

    /// The name under which changes of `items` come: (schema, table).
    fn table(&self) -> (&str, &str);

    /// Commits the writes as one transaction (where the source has any), and returns when that is durable.
    fn commit(&self, writes: &[Write]) -> impl Future<Output = ()> + Send;

    /// Cuts every connection that Towpath has to the system, from the system's side; new ones work.
    fn disconnect(&self) -> impl Future<Output = ()> + Send;
}

/// Runs every case that the source's capabilities select, each against a fresh system.
pub async fn run<H: Harness>() {
    let capabilities: Capabilities = H::start().await.source().capabilities();
    cases::delivers_every_committed_change_once_in_order::<H>().await;
    cases::tells_what_its_tables_look_like::<H>().await;
    cases::shows_a_few_rows::<H>().await;
    cases::resumes_at_every_position::<H>().await;
    cases::delivers_the_same_change_the_same_way_again::<H>().await;
    cases::loses_nothing_when_cancelled_at_every_await::<H>().await;
    cases::goes_on_after_a_consumer_that_was_slow::<H>().await;
    cases::goes_on_after_the_connection_was_cut::<H>().await;
    cases::waits_on_an_empty_source_and_closes_quickly::<H>().await;
    cases::carries_awkward_values_unaltered::<H>().await;
    cases::refuses_a_position_of_another_source::<H>().await;
    if capabilities.snapshots {
        cases::reads_existing_rows_once_and_lets_the_stream_win::<H>().await;
        cases::resumes_a_snapshot_that_was_interrupted::<H>().await;
    }
}
