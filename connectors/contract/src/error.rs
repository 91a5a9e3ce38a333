//! What failed, what to do about it, and the way out.

use std::fmt;

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What failed. Closed: the engine's policy looks at [`Action`], people look at the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// No connection, or it was lost.
    Connection,
    /// The source did not answer in time.
    Timeout,
    /// The source refused the identity (password, certificate, host rule).
    Authentication,
    /// The identity lacks a right.
    Privilege,
    /// The source is not set up for this: a setting, a missing table, a publication that omits something.
    Setup,
    /// Changes exist, or may exist, that can no longer be read. **Fatal for the source until a person decides.**
    Gap,
    /// Bytes that the protocol does not allow, or an event that is neither understood nor ignorable.
    Protocol,
    /// A limit of Towpath's own was reached.
    Limit,
    /// Local files: the spool, a certificate.
    Storage,
    /// A broken promise inside Towpath.
    Internal,
}

/// Who can mend it. The engine acts on this and on nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Passing: try again with growing pauses. Connectors never retry themselves.
    Retry,
    /// A person must change something. The source stops and says so; other sources go on.
    Operator,
    /// Towpath is wrong. The source stops; the report should reach the makers.
    Bug,
}

/// Kind × action, the operation that failed, what was found, and the way out. The text carries no secret and no row data.
#[derive(Debug)]
pub struct Error {
    pub kind: ErrorKind,
    pub action: Action,
    /// What was being done, as a gerund: "starting replication from slot towpath_orders".
    pub operation: String,
    /// What was found, and what was expected.
    pub message: String,
    /// What to do, complete enough to be pasted.
    pub help: Option<String>,
}

impl Error {
    pub fn new(kind: ErrorKind, action: Action, operation: impl Into<String>, message: impl fmt::Display) -> Error {
        Error { kind, action, operation: operation.into(), message: message.to_string(), help: None }
    }

    pub fn retry(kind: ErrorKind, operation: impl Into<String>, message: impl fmt::Display) -> Error {
        Error::new(kind, Action::Retry, operation, message)
    }

    pub fn operator(kind: ErrorKind, operation: impl Into<String>, message: impl fmt::Display) -> Error {
        Error::new(kind, Action::Operator, operation, message)
    }

    pub fn bug(operation: impl Into<String>, message: impl fmt::Display) -> Error {
        Error::new(ErrorKind::Internal, Action::Bug, operation, message)
    }

    pub fn with_help(mut self, help: impl Into<String>) -> Error {
        self.help = Some(help.into());
        self
    }
}

/// One line: operation, what was found, the way out.
impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.operation, self.message)?;
        match &self.help {
            Some(help) => write!(f, "; {help}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Error {}
