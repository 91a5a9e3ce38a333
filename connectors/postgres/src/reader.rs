//! The capture: one task that reads the stream, spools what is in progress, and tells the server what was recorded.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_postgres::Client;

use towpath_contract::{
    Action, BATCH_BYTES, Batch, Capture, Error, ErrorKind, Fut, Position, Progress, Result, SnapshotRequest, StateEntry,
};

use crate::assemble::{Assembler, is_bare};
use crate::decode::{Message, decode};
use crate::failure::ServerError;
use crate::feedback::Feedback;
use crate::monitor::{Monitor, uncaptured};
use crate::open::explain_refusal;
use crate::position::{LogPosition, Lsn};
use crate::relation::Describer;
use crate::slot;
use crate::spool::{Replay, Spool};
use crate::wire::{Frame, POSTGRES_EPOCH_US, WalSender};

const OPERATION: &str = "reading the replication stream";
/// A position without a change is recorded this often at most: it costs a write to the outbox.
const QUIET_POSITION_EVERY: Duration = Duration::from_secs(2);
/// How often the server is asked how far it is, while a snapshot's chunk waits for the answer.
const ASK_EVERY: Duration = Duration::from_millis(50);
const CLOSE_WITHIN: Duration = Duration::from_secs(3);

/// What [`crate::open`] puts together.
pub(crate) struct ReaderParts {
    pub(crate) source: String,
    pub(crate) slot: String,
    pub(crate) publication: String,
    pub(crate) identity: String,
    pub(crate) wire: WalSender,
    pub(crate) client: Arc<Client>,
    pub(crate) describer: Describer,
    pub(crate) assembler: Assembler,
    pub(crate) spool: Spool,
    pub(crate) feedback: Feedback,
    pub(crate) monitor: Monitor,
    pub(crate) read_timeout: Duration,
    /// The start position is to be recorded at once, so that an interrupted first run is told from a lost outbox.
    pub(crate) first_run: bool,
    /// State entries that go with the first batch.
    pub(crate) first_state: Vec<StateEntry>,
}

pub(crate) struct Reader {
    parts: ReaderParts,
    /// Between Stream Start and Stream Stop: the transaction in progress whose messages arrive.
    block: Option<u32>,
    replay: Option<Delivery>,
    /// Relation messages of this connection so far.
    arrivals: u64,
    quiet: Quiet,
    silence: Silence,
    next_ask: Instant,
}

/// A committed transaction that is being read back from the spool.
struct Delivery {
    xid: u32,
    end: Lsn,
    replay: Replay,
}

/// A position that nothing but itself needs to record.
struct Quiet {
    last_recorded: Instant,
    at_once: bool,
}

/// How long the server has said nothing while we listened.
struct Silence {
    since: Instant,
    asked: bool,
}

/// What stopped the delivery.
enum Stop {
    /// The batch is full.
    Full,
    /// Nothing more is at hand.
    Drained,
    /// The open transaction must wait for the snapshot.
    Held,
}

impl Reader {
    pub(crate) fn new(parts: ReaderParts) -> Reader {
        let now = Instant::now();
        Reader {
            quiet: Quiet { last_recorded: now, at_once: parts.first_run },
            silence: Silence { since: now, asked: false },
            next_ask: now,
            parts,
            block: None,
            replay: None,
            arrivals: 0,
        }
    }

    async fn next_changes(&mut self, batch: &mut Batch) -> Result<()> {
        self.parts.assembler.enter(batch);
        // Before all that follows from them: the last entry of a name counts.
        batch.state.append(&mut self.parts.first_state);
        loop {
            self.check_publication()?;
            self.check_stream()?;
            batch.state.append(&mut self.parts.monitor.take_news());
            let stop = self.deliver(batch).await?;
            // A position within a transaction is as good to resume from as one after it.
            if matches!(stop, Stop::Full | Stop::Held) && !is_bare(batch) {
                self.parts.assembler.close(batch);
            }
            self.offer_position(batch);
            self.tell_server().await?;
            if self.is_due(batch, &stop) {
                self.quiet.last_recorded = Instant::now();
                return Ok(());
            }
            self.wait(batch, &stop).await?;
        }
    }

    /// Everything in the batch is right, and is read again after the gap; what the server left out is not in it.
    fn check_publication(&self) -> Result<()> {
        let parts = &self.parts;
        match parts.monitor.lost() {
            Some(what) => {
                let operation = format!("watching the publication {}", parts.publication);
                Err(slot::gap(&parts.source, operation, what.to_owned()))
            }
            None => parts.monitor.watches(),
        }
    }

    /// See [`crate::snapshot::Snapshotter::awaits_stream_from`].
    fn check_stream(&self) -> Result<()> {
        let from = self.parts.assembler.snapshotter.awaits_stream_from();
        match from.filter(|from| self.parts.feedback.recorded() >= *from) {
            Some(_) => Err(Error::retry(
                ErrorKind::Setup,
                OPERATION,
                "a table that was published meanwhile needs a new stream",
            )),
            None => Ok(()),
        }
    }

    /// Inside a transaction the rest is on its way, so that a batch ends between two of them unless it is full.
    fn is_due(&self, batch: &Batch, stop: &Stop) -> bool {
        match stop {
            Stop::Full => true,
            Stop::Drained | Stop::Held => !batch.is_empty() && batch.position.is_some(),
        }
    }

    /// A transaction that ends soon ends in this batch: routes put what they have of one into one message.
    fn is_full(&self, batch: &Batch) -> bool {
        let in_transaction = self.parts.assembler.in_transaction();
        batch.bytes() >= if in_transaction { BATCH_BYTES + BATCH_BYTES / 4 } else { BATCH_BYTES }
    }

    /// Reads on until the batch is full or nothing is at hand.
    async fn deliver(&mut self, batch: &mut Batch) -> Result<Stop> {
        loop {
            if self.is_full(batch) {
                return Ok(Stop::Full);
            }
            if self.parts.assembler.must_wait() {
                return Ok(Stop::Held);
            }
            if self.replay.is_some() {
                self.replay_next(batch).await?;
            } else if !self.read_next(batch).await? {
                if !self.parts.wire.fill_now().await? {
                    return Ok(Stop::Drained);
                }
                self.heard();
                self.tell_server().await?;
            }
        }
    }

    /// Handles the next message in the buffer; `false` when no whole one is there.
    async fn read_next(&mut self, batch: &mut Batch) -> Result<bool> {
        let parts = &mut self.parts;
        let (frame, length) = match parts.wire.peek()? {
            Ok(Some(found)) => found,
            Ok(None) => return Ok(false),
            Err(reported) => return Err(self.refused(reported).await),
        };
        match frame {
            Frame::Aside => {}
            Frame::Notice(warning) => {
                if let Some(error) = publication_missing(&parts.source, &parts.publication, &warning) {
                    return Err(error);
                }
                tracing::warn!(code = warning.code, "the server warns: {}", warning.message);
            }
            Frame::Keepalive { end, reply } => {
                if reply {
                    parts.feedback.on_reply_wanted();
                }
                // The WAL sender sends in the order of the log: whatever was committed below `end` came before this.
                // Transactions in progress do not matter: they commit later, and what commits later is sent again
                // (`confirmed_flush_lsn`: "data corresponding to the transactions committed before this LSN is not
                // available anymore"; their log is held by the slot's restart_lsn).
                if !parts.assembler.in_transaction() && self.block.is_none() {
                    parts.feedback.on_received(end);
                    parts.assembler.advance(end);
                    parts.assembler.pass(end, batch)?;
                }
            }
            Frame::Data { lsn, body } => {
                let decoded = decode(body, self.block.is_some()).map_err(malformed)?;
                match (decoded.message, self.block) {
                    (Message::StreamStop, Some(_)) => {
                        parts.spool.end_block()?;
                        self.block = None;
                    }
                    (Message::Origin, _) => {}
                    (message, Some(xid)) => {
                        let lsn = match message {
                            // It has no address: its arrival stands in, see `Relations::settle`.
                            Message::Relation(_) => {
                                self.arrivals += 1;
                                Lsn(self.arrivals)
                            }
                            _ => lsn,
                        };
                        parts.spool.append(decoded.xid.unwrap_or(xid), lsn, body)?;
                    }
                    (Message::Relation(_), None) => {
                        let relation = parts.describer.describe(body, false, self.arrivals + 1).await?;
                        self.arrivals += 1;
                        parts.assembler.relations.insert(relation, false);
                    }
                    (Message::Type { oid, schema, name }, None) => parts.describer.note_type(oid, schema, name),
                    (Message::Begin { final_lsn, commit_time, xid }, None) => {
                        let commit_time = commit_time.saturating_add(POSTGRES_EPOCH_US);
                        parts.assembler.begin(xid, final_lsn, commit_time, false, batch)?;
                    }
                    (Message::Commit { end_lsn, .. }, None) => {
                        parts.feedback.on_received(end_lsn);
                        parts.assembler.commit(end_lsn, batch)?;
                    }
                    (Message::StreamStart { xid, first }, None) => {
                        parts.spool.start_block(xid, first)?;
                        self.block = Some(xid);
                    }
                    (Message::StreamAbort { xid, sub_xid }, None) if xid == sub_xid => parts.spool.remove(xid)?,
                    (Message::StreamAbort { xid, sub_xid }, None) => parts.spool.abort_sub(xid, sub_xid)?,
                    (Message::StreamCommit { xid, commit_lsn, end_lsn, commit_time }, None) => {
                        let replay = parts.spool.replay(xid)?;
                        let commit_time = commit_time.saturating_add(POSTGRES_EPOCH_US);
                        parts.assembler.begin(xid, commit_lsn, commit_time, true, batch)?;
                        parts.feedback.on_received(end_lsn);
                        self.replay = Some(Delivery { xid, end: end_lsn, replay });
                    }
                    (change, None) => parts.assembler.change(&change, lsn, None, batch)?,
                }
            }
        }
        self.parts.wire.consume(length);
        Ok(true)
    }

    /// Handles the next message of the transaction that is read back, or its end.
    async fn replay_next(&mut self, batch: &mut Batch) -> Result<()> {
        let parts = &mut self.parts;
        let Some(delivery) = &mut self.replay else { return Ok(()) };
        let Some((record, length)) = delivery.replay.peek()? else {
            parts.spool.remove(delivery.xid)?;
            let end = delivery.end;
            self.replay = None;
            return parts.assembler.commit(end, batch);
        };
        let decoded = decode(record.message, true).map_err(malformed)?;
        match decoded.message {
            Message::Relation(_) => {
                let relation = parts.describer.describe(record.message, true, record.lsn.0).await?;
                parts.assembler.relations.insert(relation, true);
            }
            Message::Type { oid, schema, name } => parts.describer.note_type(oid, schema, name),
            change => parts.assembler.change(&change, record.lsn, decoded.xid, batch)?,
        }
        delivery.replay.consume(length);
        Ok(())
    }

    /// An idle database, or a neighbour that writes all the log: the position moves on with no change to go with it. Not
    /// for every keepalive, and at once only where something waits for it.
    fn offer_position(&mut self, batch: &mut Batch) {
        let assembler = &self.parts.assembler;
        if assembler.in_transaction() {
            return;
        }
        let newer = assembler.last().commit > self.parts.feedback.recorded();
        let due = self.quiet.last_recorded.elapsed() >= QUIET_POSITION_EVERY && newer;
        if !is_bare(batch) || self.quiet.at_once || due {
            batch.position = Some(assembler.last().encode());
            self.quiet.at_once = false;
        }
    }

    /// Waits for the server, the snapshot, or the next thing to do.
    async fn wait(&mut self, batch: &mut Batch, stop: &Stop) -> Result<()> {
        self.ask_if_silent(stop)?;
        self.ask_for_snapshot();
        self.tell_server().await?;
        let wake = self.wake_at(stop);
        let parts = &mut self.parts;
        let held = matches!(stop, Stop::Held);
        tokio::select! {
            biased;
            filled = parts.wire.fill(), if !held => {
                filled?;
                self.heard();
            }
            ready = parts.assembler.snapshotter.ready() => {
                ready?;
                let passed = parts.assembler.passed();
                parts.assembler.pass(passed, batch)?;
            }
            () = tokio::time::sleep_until(wake.into()) => {}
        }
        Ok(())
    }

    fn wake_at(&self, stop: &Stop) -> Instant {
        let now = Instant::now();
        let mut wake = self.parts.feedback.due_at(now);
        if self.parts.assembler.last().commit > self.parts.feedback.recorded() {
            wake = wake.min(self.quiet.last_recorded + QUIET_POSITION_EVERY);
        }
        if self.waits_for_high() {
            wake = wake.min(self.next_ask);
        }
        if !matches!(stop, Stop::Held) {
            let share = if self.silence.asked { 1 } else { 2 };
            wake = wake.min(self.silence.since + self.parts.read_timeout / share);
        }
        // Never in a tight loop, whatever is due.
        wake.max(now + Duration::from_millis(1))
    }

    fn waits_for_high(&self) -> bool {
        let assembler = &self.parts.assembler;
        let high = assembler.snapshotter.pending_high();
        high.is_some_and(|high| assembler.passed() < high)
    }

    /// A chunk waits for the stream to pass its address: on a quiet database only an answer can tell that it did.
    fn ask_for_snapshot(&mut self) {
        let now = Instant::now();
        if self.waits_for_high() && now >= self.next_ask {
            self.next_ask = now + ASK_EVERY;
            let status = self.parts.feedback.take(now);
            self.parts.wire.queue_status(status, true);
        }
    }

    /// At half the time the server is asked for a sign of life; at the end it is taken for dead.
    fn ask_if_silent(&mut self, stop: &Stop) -> Result<()> {
        if matches!(stop, Stop::Held) {
            self.heard();
            return Ok(());
        }
        let (silent, limit) = (self.silence.since.elapsed(), self.parts.read_timeout);
        if silent >= limit {
            let message = format!("the server has sent nothing for {} s, not even a keepalive", silent.as_secs());
            return Err(Error::retry(ErrorKind::Timeout, OPERATION, message));
        }
        if silent >= limit / 2 && !self.silence.asked {
            self.silence.asked = true;
            let status = self.parts.feedback.take(Instant::now());
            self.parts.wire.queue_status(status, true);
        }
        Ok(())
    }

    fn heard(&mut self) {
        self.silence = Silence { since: Instant::now(), asked: false };
    }

    async fn tell_server(&mut self) -> Result<()> {
        let now = Instant::now();
        if self.parts.feedback.due_at(now) <= now {
            let status = self.parts.feedback.take(now);
            self.parts.wire.queue_status(status, false);
        }
        self.parts.wire.flush().await
    }

    async fn refused(&mut self, reported: ServerError) -> Error {
        let parts = &self.parts;
        if let Some(gap) = publication_missing(&parts.source, &parts.publication, &reported) {
            return gap;
        }
        let error = reported.into_error(OPERATION);
        match error.action {
            Action::Retry => error,
            _ => {
                let parts = &self.parts;
                explain_refusal(&parts.client, &parts.source, &parts.slot, parts.feedback.recorded(), error).await
            }
        }
    }

    async fn shut(mut self: Box<Self>) -> Result<()> {
        let status = self.parts.feedback.take(Instant::now());
        self.parts.wire.queue_status(status, false);
        match tokio::time::timeout(CLOSE_WITHIN, self.parts.wire.end()).await {
            Ok(ended) => ended,
            Err(_) => {
                let message = "the server did not end the stream in time; the slot may stay in use for a while";
                Err(Error::retry(ErrorKind::Timeout, "ending the replication stream", message))
            }
        }
    }
}

/// The server decodes by the catalogue as it was: a publication that was missing for a while stays missing for what was
/// written then, even if it was made again. PostgreSQL 18 leaves such changes out with a warning, earlier ones stop with
/// an error; either way they cannot be had any more.
fn publication_missing(source: &str, publication: &str, reported: &ServerError) -> Option<Error> {
    let about =
        matches!(reported.code.as_str(), "42704" | "55000") && reported.message.contains(&format!("\"{publication}\""));
    about.then(|| {
        let message = format!(
            "the publication {publication} did not exist when this part of the log was written: its changes are unknown"
        );
        slot::gap(source, OPERATION.to_owned(), message)
    })
}

fn malformed(error: crate::decode::Malformed) -> Error {
    Error::new(ErrorKind::Protocol, Action::Bug, OPERATION, error)
}

impl Capture for Reader {
    fn identity(&self) -> &str {
        &self.parts.identity
    }

    fn next<'a>(&'a mut self, batch: &'a mut Batch) -> Fut<'a, Result<()>> {
        Box::pin(self.next_changes(batch))
    }

    fn recorded(&mut self, position: &Position) {
        if let Some(position) = LogPosition::decode(position) {
            self.parts.feedback.on_recorded(position.commit);
        }
    }

    fn keep_alive(&mut self) -> Fut<'_, Result<()>> {
        Box::pin(async {
            // A server that is told to stop ends all sessions but those of the log, and waits for these until all is confirmed.
            self.parts.monitor.watches()?;
            // We are not listening: what the server says meanwhile waits in the socket.
            self.heard();
            let status = self.parts.feedback.take(Instant::now());
            self.parts.wire.queue_status(status, false);
            self.parts.wire.flush().await
        })
    }

    fn snapshot(&mut self, request: SnapshotRequest) -> Result<Vec<StateEntry>> {
        let snapshotter = &mut self.parts.assembler.snapshotter;
        snapshotter.request(request)?;
        Ok(snapshotter.take_entries())
    }

    fn progress(&self) -> Progress {
        let parts = &self.parts;
        let recorded = parts.feedback.recorded();
        let log_end = parts.monitor.log_end().max(parts.feedback.received());
        let snapshotter = &parts.assembler.snapshotter;
        let uncovered = parts.monitor.uncovered();
        let then = format!("; then `towpath snapshot {}`", parts.source);
        let refused = snapshotter.refused().map(|line| format!("{line}{then}"));
        Progress {
            complete_as_of: parts.monitor.complete_as_of(recorded),
            behind_bytes: Some(log_end.0.saturating_sub(recorded.0)),
            position_text: recorded.to_string(),
            spooled_bytes: parts.spool.bytes(),
            uncaptured: uncovered.iter().map(|table| uncaptured(table, &parts.publication)).chain(refused).collect(),
            snapshot: snapshotter.progress(),
        }
    }

    fn close(self: Box<Self>) -> Fut<'static, Result<()>> {
        Box::pin(self.shut())
    }
}
