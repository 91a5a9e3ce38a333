//! What can be asked of a towpath, by the admin API or by the command line when no process runs: one vocabulary for both.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::parked::{ParkedEvent, ParkedPage, ParkedQuery, ParkedSelection};
use super::status::Status;
use crate::event::Seq;

/// Where an answer goes. An asker that gave up has dropped its end: sending then fails, and that is fine.
pub type Reply<T> = oneshot::Sender<T>;

/// A sentence that says what was done, or why not.
pub type Outcome = Result<String, Refusal>;

#[derive(Debug)]
pub enum Command {
    /// Answered at once: the time that it takes is the measure of the event loop's health.
    Status(Reply<Status>),
    PauseSource {
        source: String,
        reply: Reply<Outcome>,
    },
    ResumeSource {
        source: String,
        reply: Reply<Outcome>,
    },
    /// Reads tables again. With `after_gap` the source's gap is accepted: it starts anew from now, and reads all that it captures.
    Snapshot {
        source: String,
        tables: Vec<String>,
        after_gap: bool,
        reply: Reply<Outcome>,
    },
    ParkedList {
        query: ParkedQuery,
        reply: Reply<Result<ParkedPage, Refusal>>,
    },
    ParkedShow {
        seq: Seq,
        reply: Reply<Result<ParkedEvent, Refusal>>,
    },
    /// Back into the flow, in the order of their `seq`.
    ParkedRetry {
        selection: ParkedSelection,
        reply: Reply<Outcome>,
    },
    /// Gone for good.
    ParkedDiscard {
        selection: ParkedSelection,
        reply: Reply<Outcome>,
    },
}

/// Why something was not done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    pub kind: RefusalKind,
    pub message: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefusalKind {
    /// There is no such source, route, table or event.
    NotFound,
    /// It is there, and in a state in which this cannot be done.
    Conflict,
    /// The call itself is wrong.
    Invalid,
    /// It was tried and failed.
    Failed,
    /// No answer came in time.
    Silent,
}

impl Refusal {
    pub fn new(kind: RefusalKind, message: impl Into<String>) -> Refusal {
        Refusal { kind, message: message.into(), help: None }
    }

    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Refusal {
        self.help = Some(help.into());
        self
    }
}

/// Commands waiting for the event loop.
const QUEUE_COMMANDS_MAX: usize = 16;

/// An event loop that does not tell its status within this is not alive.
pub const STATUS_SECONDS_MAX: u64 = 2;

/// Other commands touch the disk or a source.
const ANSWER_SECONDS_MAX: u64 = 10;

/// The asking end.
#[derive(Clone, Debug)]
pub struct Handle(mpsc::Sender<Command>);

/// The asking and the answering end.
pub fn channel() -> (Handle, mpsc::Receiver<Command>) {
    let (sender, receiver) = mpsc::channel(QUEUE_COMMANDS_MAX);
    (Handle(sender), receiver)
}

impl Handle {
    /// `None`: no answer in time.
    pub async fn status(&self) -> Option<Status> {
        self.ask(Duration::from_secs(STATUS_SECONDS_MAX), Command::Status).await
    }

    pub async fn outcome<T>(&self, command: impl FnOnce(Reply<Result<T, Refusal>>) -> Command) -> Result<T, Refusal> {
        let limit = Duration::from_secs(ANSWER_SECONDS_MAX);
        self.ask(limit, command).await.unwrap_or_else(|| {
            Err(Refusal::new(RefusalKind::Silent, format!("no answer within {ANSWER_SECONDS_MAX} s")))
        })
    }

    async fn ask<T>(&self, limit: Duration, command: impl FnOnce(Reply<T>) -> Command) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        let asked = async {
            self.0.send(command(reply)).await.ok()?;
            answer.await.ok()
        };
        timeout(limit, asked).await.ok().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::status::tests::healthy;

    #[tokio::test(start_paused = true)]
    async fn an_event_loop_that_hangs_gives_no_status() {
        let (handle, receiver) = channel();
        assert_eq!(handle.status().await, None);
        let pause = |reply| Command::PauseSource { source: "a".into(), reply };
        assert_eq!(handle.outcome(pause).await.unwrap_err().kind, RefusalKind::Silent);
        drop(receiver);
        assert_eq!(handle.status().await, None);
    }

    #[tokio::test]
    async fn an_answer_comes_back() {
        let (handle, mut receiver) = channel();
        let answering = async {
            match receiver.recv().await {
                Some(Command::Status(reply)) => reply.send(healthy()).is_ok(),
                _ => false,
            }
        };
        let (status, answered) = tokio::join!(handle.status(), answering);
        assert!(answered);
        assert_eq!(status, Some(healthy()));
    }
}
