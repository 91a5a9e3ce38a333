//! The checker: folds what a consumer received into rows, and compares them with the database's own.
//!
//! It does what `docs/delivery.md` asks of a consumer, and nothing that only a test could: it applies by key, ignores what is not
//! newer by `cloudEvents:sequence`, and carries unavailable values over. On the way it asserts what is promised of ids and order.

mod database;
mod state;
mod values;

use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use serde::Deserialize;
use serde_json::value::RawValue;
use tokio_postgres::Client;

use crate::{Delivery, Inbox, try_eventually};
use state::TableState;

/// A row as JSON texts, exactly as they were published.
type RawRow = BTreeMap<String, Box<RawValue>>;

/// The body of the default event.
#[derive(Debug, Deserialize)]
struct Body {
    op: String,
    table: String,
    key: Option<RawRow>,
    before: Option<RawRow>,
    after: Option<RawRow>,
    #[serde(default)]
    unavailable: Vec<String>,
    #[serde(default)]
    tx: String,
    moved_to: Option<RawRow>,
    moved_from: Option<RawRow>,
}

/// Folds the events of one source's tables. Feed it with [`Checker::add`] or [`Checker::settle`].
#[derive(Debug)]
pub struct Checker {
    tables: BTreeMap<String, TableState>,
    /// A hash of each event's bytes, by its id.
    seen: HashMap<String, u64>,
    /// A hash of each event's id, by a hash of its sequence.
    ids: HashMap<u64, u64>,
    /// The sequence of the newest event of each key.
    newest: HashMap<String, String>,
    refusals_expected: bool,
    reads_are_equal: bool,
    rolled_back: Option<String>,
    changes: Changes,
    report: Report,
}

/// How many different changes came, by transaction, table (`schema.table`) and op. A change of a key is one `update`, though it
/// comes as a delete and an insert. Rows of snapshots are no changes.
pub type Changes = BTreeMap<(String, String, String), usize>;

/// What was found so far. Each violation is one line that begins with the number of the invariant, as in `docs/proof.md`, and
/// names the event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Events received, duplicates included.
    pub events: usize,
    /// Of these, the ones whose id had come before.
    pub duplicates: usize,
    /// Distinct events by op.
    pub ops: BTreeMap<String, usize>,
    /// Events that a truncate of their table overtook. Harmless to a consumer that compares sequences.
    pub overtaken_by_truncate: usize,
    /// First occurrences that came after a newer event of their key: a violation, unless [`Checker::expect_refusals`] was called.
    pub out_of_order: usize,
    /// Broken promises: an id with two contents, a key out of order, a body that cannot be read.
    pub violations: Vec<String>,
    /// Rows that differ from the database's, as of the last comparison.
    pub differences: Vec<String>,
}

impl Report {
    /// Different events received.
    pub fn distinct(&self) -> usize {
        self.events - self.duplicates
    }
}

/// Lines of a kind in a report; a broken run may have millions.
const LINES_MAX: usize = 30;

impl Checker {
    /// For these tables (`schema.table`) of the database that `client` is connected to. The catalogue says which of them have a key.
    ///
    /// # Panics
    /// When there is no such table.
    pub async fn new(client: &Client, tables: &[&str]) -> Checker {
        let mut states = BTreeMap::new();
        for name in tables {
            let keyed = !database::key_columns(client, name).await.is_empty();
            states.insert((*name).to_owned(), TableState::new(keyed));
        }
        Checker {
            tables: states,
            seen: HashMap::new(),
            ids: HashMap::new(),
            newest: HashMap::new(),
            refusals_expected: false,
            reads_are_equal: false,
            rolled_back: None,
            changes: Changes::new(),
            report: Report::default(),
        }
    }

    /// Whether the broker refuses events (nack, return): then a first occurrence may come after a newer event of its key, and only
    /// then.
    pub fn expect_refusals(&mut self, refusals: bool) {
        self.refusals_expected = refusals;
    }

    /// Nothing else changes from here on: a row that a snapshot reads again must be, byte for byte, what its last change said.
    pub fn expect_equal_reads(&mut self, equal: bool) {
        self.reads_are_equal = equal;
    }

    /// No event may hold this text: only what is rolled back does.
    pub fn expect_none_with(&mut self, rolled_back: &str) {
        self.rolled_back = Some(rolled_back.to_owned());
    }

    /// After a gap that was accepted every row comes again, and deletes in between were missed: a consumer begins with none.
    pub fn forget_rows(&mut self) {
        self.tables.values_mut().for_each(TableState::forget_rows);
    }

    /// Hands over what came since the last call.
    pub fn take_changes(&mut self) -> Changes {
        std::mem::take(&mut self.changes)
    }

    /// Takes the next event as it was received. Events of other tables are counted and else ignored.
    pub fn add(&mut self, delivery: &Delivery) {
        self.report.events += 1;
        if self.is_duplicate(delivery) {
            self.report.duplicates += 1;
            return;
        }
        if let Some(text) = &self.rolled_back
            && String::from_utf8_lossy(&delivery.body).contains(text)
        {
            self.violation(3, format!("{}: was rolled back", delivery.message_id));
        }
        match serde_json::from_slice::<Body>(&delivery.body) {
            Ok(body) => {
                *self.report.ops.entry(body.op.clone()).or_default() += 1;
                self.fold(delivery, body);
            }
            Err(error) => {
                let body = String::from_utf8_lossy(&delivery.body);
                self.violation(2, format!("{}: not a default event: {error}: {body}", delivery.message_id));
            }
        }
    }

    fn is_duplicate(&mut self, delivery: &Delivery) -> bool {
        let mut hasher = DefaultHasher::new();
        (&delivery.exchange, &delivery.routing_key, &delivery.body).hash(&mut hasher);
        // A queue that delivers a message again adds headers of its own (`x-delivery-count`): they are not the event's.
        let own = |name: &&String| !name.starts_with("x-");
        for name in delivery.headers.keys().filter(own) {
            (name, &delivery.headers[name]).hash(&mut hasher);
        }
        let properties = &delivery.properties;
        let (kind, at) = (properties.kind(), properties.timestamp());
        format!("{kind:?} {at:?} {:?} {:?}", properties.content_type(), properties.delivery_mode()).hash(&mut hasher);
        let bytes = hasher.finish();
        if delivery.message_id.is_empty() {
            self.violation(4, format!("an event without a message-id: {}", delivery.routing_key));
            return false;
        }
        match self.seen.insert(delivery.message_id.clone(), bytes) {
            Some(before) if before != bytes => {
                self.violation(4, format!("{}: two contents under one id", delivery.message_id));
                true
            }
            seen => seen.is_some(),
        }
    }

    fn fold(&mut self, delivery: &Delivery, body: Body) {
        if !self.tables.contains_key(&body.table) {
            return;
        }
        let sequence = delivery.headers.get("cloudEvents:sequence").cloned().unwrap_or_default();
        if sequence.is_empty() {
            return self.violation(5, format!("{}: no header cloudEvents:sequence", delivery.message_id));
        }
        let id = hash(&delivery.message_id);
        if self.ids.insert(hash(&sequence), id).is_some_and(|before| before != id) {
            return self.violation(4, format!("{}: one change under two ids", delivery.message_id));
        }
        if body.op != "read" && body.moved_from.is_none() {
            let op = if body.moved_to.is_some() { "update" } else { &body.op };
            *self.changes.entry((body.tx.clone(), body.table.clone(), op.to_owned())).or_default() += 1;
        }
        if let Some(key) = &body.key {
            let key = format!("{} {}", body.table, state::key_text(key));
            if !self.is_newer(delivery, key, &sequence, body.op == "read") {
                return;
            }
        }
        let state = self.tables.get_mut(&body.table).expect("looked up above");
        let differs = (self.reads_are_equal && body.op == "read").then(|| state.differs_from(&body)).flatten();
        match state.apply(&sequence, body) {
            Ok(overtaken) => self.report.overtaken_by_truncate += usize::from(overtaken),
            Err(problem) => self.violation(2, format!("{}: {problem}", delivery.message_id)),
        }
        if let Some(difference) = differs {
            self.violation(10, format!("{}: {difference}", delivery.message_id));
        }
    }

    /// Whether a key's event is newer than what was applied. One that is not breaks the order; but the rows of one snapshot chunk
    /// share a position, and one that was sent early may be read again.
    fn is_newer(&mut self, delivery: &Delivery, key: String, sequence: &str, is_read: bool) -> bool {
        match self.newest.get(&key) {
            Some(newest) if sequence <= newest.as_str() => {
                if sequence < newest.as_str() || !is_read {
                    self.report.out_of_order += 1;
                    if !self.refusals_expected {
                        let line = format!("{}: {key}: sequence {sequence} came after {newest}", delivery.message_id);
                        self.violation(if is_read { 10 } else { 5 }, line);
                    }
                }
                false
            }
            _ => {
                self.newest.insert(key, sequence.to_owned());
                true
            }
        }
    }

    fn violation(&mut self, invariant: u8, line: String) {
        if self.report.violations.len() < LINES_MAX {
            self.report.violations.push(format!("({invariant}) {line}"));
        }
    }

    /// Compares the folded rows with the database's, typed, and returns all that was found.
    pub async fn compare(&mut self, client: &Client) -> &Report {
        let mut differences = Vec::new();
        for (name, state) in &self.tables {
            let table = database::read(client, name).await;
            state.compare(name, &table, &mut differences);
            if differences.len() > LINES_MAX {
                let more = differences.len() - LINES_MAX;
                differences.truncate(LINES_MAX);
                differences.push(format!("and {more} more"));
                break;
            }
        }
        self.report.differences = differences;
        &self.report
    }

    /// Receives from the inbox until the folded rows equal the database's, and asserts that no promise was broken.
    ///
    /// # Panics
    /// After `within`, with the differences; at once when a promise was broken.
    pub async fn settle(&mut self, client: &Client, inbox: &mut Inbox, within: Duration) -> Report {
        let equal = try_eventually(within, async || {
            inbox.pump().await;
            for delivery in inbox.take() {
                self.add(&delivery);
            }
            let report = self.compare(client).await;
            assert!(report.violations.is_empty(), "promises broken:\n{}", report.violations.join("\n"));
            if report.differences.is_empty() { Ok(report.clone()) } else { Err(report.clone()) }
        })
        .await;
        match equal {
            Ok(report) => report,
            Err(Some(report)) => panic!(
                "after {within:?} and {} events the consumer's rows differ from the database's:\n{}",
                report.events,
                report.differences.join("\n")
            ),
            Err(None) => panic!("the comparison did not end in {within:?}"),
        }
    }

    pub fn report(&self) -> &Report {
        &self.report
    }
}

fn hash(text: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests;
