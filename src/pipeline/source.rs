//! One source's task: capture → route → record, and the source is told what it may forget.
//!
//! The only place that calls a [`Capture`]. Connectors report errors and never retry; here is where a source is tried again,
//! stopped, paused and resumed. A source that fails never stops another.

use std::collections::VecDeque;
use std::future::pending;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Interval, MissedTickBehavior, interval, sleep};
use towpath_contract::{
    Action, BATCH_BYTES, Batch, Capture, Error, ErrorKind, KEEP_ALIVE_SECONDS_MAX, Position, Resume, SnapshotRequest,
    Source, planted,
};
use tracing::{error, info, warn};

use super::board::{SourceBoard, SourceState, View};
use super::{epoch, related, unfit};
use crate::config::checked::{CheckedRoute, Places};
use crate::event::EventBatch;
use crate::failpoint::failpoint;
use crate::outbox::{Outbox, OutboxError, Record, Recording};
use crate::retry::{Pauses, pauses};
use crate::route::{Router, Unfit};

/// What a person asks of a running source.
#[derive(Debug)]
pub(super) enum Command {
    Pause,
    Resume,
    Snapshot { request: SnapshotRequest, answer: oneshot::Sender<Result<(), String>> },
}

/// The first and the longest pause before a source is tried again.
const PAUSE_FIRST: Duration = Duration::from_millis(250);
const PAUSE_LONGEST: Duration = Duration::from_secs(15);

/// A session that lasted this long was a success: the pauses start again from the first.
const SESSION_GOOD: Duration = Duration::from_secs(30);

const TELL_OF_PARKED_EVERY: Duration = Duration::from_secs(60);

pub(super) struct SourceTask {
    pub(super) name: Arc<str>,
    pub(super) source: Box<dyn Source>,
    pub(super) router: Router,
    pub(super) outbox: Outbox,
    pub(super) board: Arc<SourceBoard>,
    pub(super) commands: mpsc::Receiver<Command>,
    /// True once the process is to stop.
    pub(super) stopping: watch::Receiver<bool>,
    /// The config's, for what is wrong with them on a table.
    pub(super) routes: Vec<CheckedRoute>,
    pub(super) places: Places,
    /// What was logged of the attempts since it last captured.
    pub(super) trouble: Option<String>,
    /// Snapshots that were asked for while the source was being opened.
    pub(super) asked: Vec<Command>,
    /// When the log was last told that events cannot be published.
    pub(super) parked_told: Option<Instant>,
}

/// Why a session with the source ended.
enum Ended {
    Stopping,
    Paused,
    Failed(Error),
    /// Nothing can be recorded any more: the process ends, and the outbox's state says why.
    OutboxFailed,
}

impl From<Error> for Ended {
    fn from(error: Error) -> Ended {
        Ended::Failed(error)
    }
}

impl From<OutboxError> for Ended {
    fn from(error: OutboxError) -> Ended {
        if !error.is_refusal() {
            return Ended::OutboxFailed;
        }
        let help = error.help();
        let error = Error::bug("recording what was captured", error);
        Ended::Failed(match help {
            Some(help) => error.with_help(help),
            None => error,
        })
    }
}

impl SourceTask {
    /// Until the process stops. Never returns an error: what goes wrong is on the board and in the log.
    pub(super) async fn run(mut self) {
        let mut pauses = pauses(PAUSE_FIRST, PAUSE_LONGEST);
        loop {
            let started = tokio::time::Instant::now();
            let ended = self.session().await;
            // A local disk that fails under a large transaction lets each session last until it is there again.
            let by_disk = matches!(&ended, Ended::Failed(error) if error.kind == ErrorKind::Storage);
            if started.elapsed() > SESSION_GOOD && !by_disk {
                pauses.reset();
            }
            let go_on = match ended {
                Ended::Stopping | Ended::OutboxFailed => false,
                Ended::Paused => {
                    self.board.set_state(SourceState::Paused);
                    info!("paused");
                    self.wait_for_resume().await
                }
                Ended::Failed(error) if error.action == Action::Retry => self.wait_to_retry(error, &mut pauses).await,
                Ended::Failed(error) => {
                    error!(kind = ?error.kind, "stopped: {error}");
                    self.board.set_state(SourceState::Stopped { error });
                    self.wait_for_resume().await
                }
            };
            if !go_on {
                self.board.set_state(SourceState::Ended);
                return;
            }
        }
    }

    /// False when the process is to stop.
    async fn wait_to_retry(&mut self, error: Error, pauses: &mut Pauses) -> bool {
        let pause = pauses.next_pause();
        // One line per trouble: what is tried in vain again and again, for the same reason, is no news.
        let text = error.to_string();
        if self.trouble.as_ref() != Some(&text) {
            warn!(kind = ?error.kind, retry_in_ms = pause.as_millis() as u64, "{text}");
            self.trouble = Some(text);
        }
        self.board.set_state(SourceState::Retrying { error, pause });
        let mut pausing = std::pin::pin!(sleep(pause));
        loop {
            tokio::select! {
                () = stop(&mut self.stopping) => return false,
                command = self.commands.recv() => match command {
                    Some(Command::Pause) => {
                        self.board.set_state(SourceState::Paused);
                        return self.wait_for_resume().await;
                    }
                    Some(Command::Resume) => return true,
                    Some(Command::Snapshot { answer, .. }) => refuse_snapshot(answer, "the source is not connected; try again when it is"),
                    None => return false,
                },
                () = &mut pausing => return true,
            }
        }
    }

    /// Nothing of the table is recorded: what the steps hide would be seen, and what they make would be missing.
    fn stopped_by(&self, unfit: Unfit) -> Error {
        let error = unfit::error(unfit, &self.routes, &self.places);
        let help = error.help.clone().unwrap_or_default();
        error.with_help(format!("{help}\ncorrect the config and start again: what was not recorded is read then"))
    }

    /// A line for the first, and for more of them now and then.
    fn tell_of_parked(&mut self, events: &EventBatch) {
        let due = self.parked_told.is_none_or(|told| told.elapsed() >= TELL_OF_PARKED_EVERY);
        if events.parked() > 0
            && due
            && let Some(reason) = events.iter().find_map(|event| event.parked)
        {
            self.parked_told = Some(Instant::now());
            warn!(events = events.parked(), "events are parked, see `towpath parked list`: {reason}");
        }
    }

    async fn wait_for_resume(&mut self) -> bool {
        loop {
            tokio::select! {
                () = stop(&mut self.stopping) => return false,
                command = self.commands.recv() => match command {
                    Some(Command::Resume) => return true,
                    Some(Command::Pause) => {}
                    Some(Command::Snapshot { answer, .. }) => refuse_snapshot(answer, self.board.read(View::why_not_now)),
                    None => return false,
                },
            }
        }
    }

    /// Opens the source where the outbox says that it stands, and captures until something ends it.
    async fn session(&mut self) -> Ended {
        self.board.set_state(SourceState::Starting);
        match self.open().await {
            Ok(mut session) => {
                let ended = session.capture(self).await.err().unwrap_or(Ended::Stopping);
                session.finish(self, ended).await
            }
            Err(ended) => ended,
        }
    }

    async fn open(&mut self) -> Result<Session, Ended> {
        let resume = self.outbox.resume(&self.name).await?;
        let epoch = epoch::of(&resume.state);
        let unread_after_gap = epoch::is_unread(&resume.state);
        self.router.opened();
        let mut opening = std::pin::pin!(opened(&*self.source, &self.router, resume));
        let capture = loop {
            tokio::select! {
                opened = &mut opening => break opened?,
                () = stop(&mut self.stopping) => return Err(Ended::Stopping),
                // Opening may take long: a new slot waits for the transactions that are in progress.
                command = self.commands.recv() => match command {
                    Some(Command::Pause) => return Err(Ended::Paused),
                    Some(Command::Resume) => {}
                    // Taken up as soon as it streams; who asked hears when it is recorded, or that it is not yet.
                    Some(asking @ Command::Snapshot { .. }) => self.asked.push(asking),
                    None => return Err(Ended::Stopping),
                },
            }
        };
        let capture = capture.map_err(|unfit| self.stopped_by(unfit))?;
        let mut ticks = interval(Duration::from_secs(KEEP_ALIVE_SECONDS_MAX));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let identity: Arc<str> = capture.identity().into();
        info!(identity = %identity, position = %capture.progress().position_text, "capturing");
        self.trouble = None;
        self.board.opened(&identity, unread_after_gap);
        self.board.set_state(SourceState::Capturing);
        let mut session = Session {
            capture,
            identity,
            epoch,
            unread_after_gap,
            batch: Batch::new(),
            ticks,
            in_flight: VecDeque::new(),
            unanswered: Vec::new(),
        };
        self.asked.drain(..).try_for_each(|asking| session.obey(Some(asking)))?;
        Ok(session)
    }
}

/// The capture, unless the routes' steps cannot be done on the tables as they are now.
async fn opened(
    source: &dyn Source,
    router: &Router,
    resume: Resume,
) -> Result<Result<Box<dyn Capture>, Unfit>, Error> {
    if router.looks_into_rows()
        && let Err(unfit) = router.try_on(&related::tables(source, router).await?)
    {
        return Ok(Err(unfit));
    }
    Ok(Ok(source.open(resume).await?))
}

/// Pends until the process is to stop. Cancel-safe.
async fn stop(stopping: &mut watch::Receiver<bool>) {
    // The sender lives as long as the process works: gone means stopping too.
    let _ = stopping.wait_for(|stopping| *stopping).await;
}

fn refuse_snapshot(answer: oneshot::Sender<Result<(), String>>, why: impl Into<String>) {
    // Nobody waits any more: then nobody misses the answer.
    let _ = answer.send(Err(why.into()));
}

/// A commit that has not been reported yet, with what it makes durable.
struct Commit {
    position: Option<Position>,
    /// Of the newest change.
    commit_time_us: Option<i64>,
    /// Of those who asked for what it makes durable.
    answers: Vec<Answer>,
    recording: Recording,
}

type Answer = oneshot::Sender<Result<(), String>>;

/// What became durable.
#[derive(Clone, Copy)]
struct Recorded {
    position: Option<Position>,
    commit_time_us: Option<i64>,
}

/// An open capture, and what of it is on its way into the outbox.
struct Session {
    capture: Box<dyn Capture>,
    identity: Arc<str>,
    /// See [`epoch`].
    epoch: u32,
    /// See [`epoch::unread`].
    unread_after_gap: bool,
    batch: Batch,
    ticks: Interval,
    /// In the order in which they were handed over, which is the order in which they are committed.
    in_flight: VecDeque<Commit>,
    /// Of those whose request goes with the batch in hand.
    unanswered: Vec<Answer>,
}

impl Session {
    async fn capture(&mut self, task: &mut SourceTask) -> Result<(), Ended> {
        loop {
            tokio::select! {
                biased;
                () = stop(&mut task.stopping) => return Err(Ended::Stopping),
                recorded = next_recorded(&mut self.in_flight) => self.recorded(recorded?, task),
                command = task.commands.recv() => self.obey(command)?,
                _ = self.ticks.tick() => self.tick(task),
                captured = self.capture.next(&mut self.batch) => {
                    captured?;
                    self.hand_over(task).await?;
                }
            }
        }
    }

    fn tick(&mut self, task: &SourceTask) {
        let progress = self.capture.progress();
        if self.unread_after_gap && progress.snapshot.is_empty() {
            self.unread_after_gap = false;
            self.batch.state.push(epoch::read());
            task.board.read_after_gap();
        }
        task.board.tick(progress);
    }

    fn recorded(&mut self, recorded: Recorded, task: &SourceTask) {
        if let Some(position) = recorded.position {
            self.capture.recorded(&position);
        }
        if let Some(commit_time_us) = recorded.commit_time_us {
            task.board.recorded(commit_time_us);
        }
    }

    fn obey(&mut self, command: Option<Command>) -> Result<(), Ended> {
        match command {
            Some(Command::Pause) => Err(Ended::Paused),
            Some(Command::Resume) => Ok(()),
            Some(Command::Snapshot { request, answer }) => {
                info!(tables = ?request.tables, "snapshot requested");
                match self.capture.snapshot(request) {
                    Ok(entries) => {
                        self.batch.state.extend(entries);
                        self.unanswered.push(answer);
                    }
                    Err(error) => refuse_snapshot(answer, error.to_string()),
                }
                Ok(())
            }
            None => Err(Ended::Stopping),
        }
    }

    /// Makes events of the batch and queues them for recording, as soon as the outbox has room. While it has none, the
    /// source is kept alive and nothing is read: that is the back pressure.
    async fn hand_over(&mut self, task: &mut SourceTask) -> Result<(), Ended> {
        self.look_up(task).await?;
        let mut events = EventBatch::new();
        let routed = task.router.route(&self.identity, self.epoch, &self.batch, &mut events);
        routed.map_err(|unfit| task.stopped_by(unfit))?;
        let commit_time_us = task.board.captured(&self.batch);
        task.tell_of_parked(&events);
        let room = task.outbox.reserve(events.bytes());
        let mut room = std::pin::pin!(room);
        let permit = loop {
            tokio::select! {
                biased;
                permit = &mut room => break permit?,
                () = stop(&mut task.stopping) => return Err(Ended::Stopping),
                recorded = next_recorded(&mut self.in_flight) => self.recorded(recorded?, task),
                // What is in hand is read again.
                command = task.commands.recv() => self.obey(command)?,
                _ = self.ticks.tick() => {
                    task.board.set_state(SourceState::WaitingForOutbox);
                    task.board.tick(self.capture.progress());
                    self.capture.keep_alive().await?;
                }
            }
        };
        task.board.set_state(SourceState::Capturing);
        failpoint!("pipeline.before_record");
        if planted("acknowledge_before_fsync")
            && let Some(position) = &self.batch.position
        {
            self.capture.recorded(position);
        }
        let record = Record {
            source: task.name.clone(),
            identity: self.identity.clone(),
            events,
            position: self.batch.position,
            state: std::mem::take(&mut self.batch.state),
        };
        let (position, recording) = (self.batch.position, task.outbox.record(permit, record));
        let answers = std::mem::take(&mut self.unanswered);
        self.in_flight.push_back(Commit { position, commit_time_us, answers, recording });
        self.batch.clear(BATCH_BYTES);
        Ok(())
    }

    /// What routes need beside the batch is asked of the source, which is kept alive meanwhile.
    async fn look_up(&mut self, task: &mut SourceTask) -> Result<(), Ended> {
        task.router.gather(&self.batch).map_err(|unfit| task.stopped_by(unfit))?;
        loop {
            let wanted = task.router.wanted(&self.batch);
            if wanted.is_empty() {
                return Ok(());
            }
            for wanted in wanted {
                let mut looking_up = std::pin::pin!(related::look_up(&*task.source, &wanted.lookup));
                let found = loop {
                    tokio::select! {
                        biased;
                        found = &mut looking_up => break found?,
                        () = stop(&mut task.stopping) => return Err(Ended::Stopping),
                        _ = self.ticks.tick() => self.capture.keep_alive().await?,
                    }
                };
                for (first, found) in found {
                    task.router.found(&wanted, first, found).map_err(|unfit| task.stopped_by(unfit))?;
                }
            }
        }
    }

    /// Waits for what is on its way into the outbox, tells the source about it, and lets go of it.
    async fn finish(mut self, task: &SourceTask, ended: Ended) -> Ended {
        if matches!(ended, Ended::OutboxFailed) {
            return ended;
        }
        while !self.in_flight.is_empty() {
            match next_recorded(&mut self.in_flight).await {
                Ok(recorded) => self.recorded(recorded, task),
                Err(error) if error.is_refusal() => break,
                Err(_) => return Ended::OutboxFailed,
            }
        }
        // After an error the contract wants the capture dropped.
        if !matches!(ended, Ended::Failed(_))
            && let Err(error) = self.capture.close().await
        {
            warn!("closing: {error}");
        }
        ended
    }
}

/// The oldest commit on its way, when it is durable. Pends while there is none. Cancel-safe.
async fn next_recorded(in_flight: &mut VecDeque<Commit>) -> Result<Recorded, OutboxError> {
    let Some(Commit { position, commit_time_us, recording, .. }) = in_flight.front_mut() else {
        return pending().await;
    };
    let recorded = Recorded { position: *position, commit_time_us: *commit_time_us };
    let outcome = recording.await;
    let done = in_flight.pop_front();
    outcome?;
    for answer in done.into_iter().flat_map(|commit| commit.answers) {
        let _ = answer.send(Ok(())); // as in `refuse_snapshot`
    }
    Ok(recorded)
}
