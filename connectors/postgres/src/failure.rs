//! What PostgreSQL reports, turned into an error with kind, action and the way out. The one place that says what an SQLSTATE
//! means to us; some others ask for a single one.
//!
//! Codes: PostgreSQL manual, appendix "PostgreSQL Error Codes". The server's message is passed on; its detail is not,
//! for it may quote a row.

use std::io;

use towpath_contract::{Action, Error, ErrorKind};

/// An error that the server reported.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub(crate) struct ServerError {
    /// SQLSTATE, five characters.
    pub(crate) code: String,
    pub(crate) message: String,
    pub(crate) hint: Option<String>,
}

impl ServerError {
    /// Parses the body of an ErrorResponse: fields of one type byte and a string each, a zero byte at the end.
    pub(crate) fn parse(body: &[u8]) -> ServerError {
        let mut error = ServerError::default();
        let mut rest = body;
        while let Some((&field, after)) = rest.split_first() {
            let Some(end) = memchr::memchr(0, after) else { break };
            let text = String::from_utf8_lossy(&after[..end]);
            match field {
                b'C' => error.code = text.into_owned(),
                b'M' => error.message = text.into_owned(),
                b'H' => error.hint = Some(text.into_owned()),
                _ => {}
            }
            rest = &after[end + 1..];
        }
        error
    }

    pub(crate) fn into_error(self, operation: impl Into<String>) -> Error {
        let (kind, action, help) = advice(&self.code, &self.message);
        let message = format!("the server says: {} (SQLSTATE {})", self.message, self.code);
        let error = Error::new(kind, action, operation, message);
        match help.map(str::to_owned).or(self.hint) {
            Some(help) => error.with_help(help),
            None => error,
        }
    }
}

impl From<&tokio_postgres::error::DbError> for ServerError {
    fn from(error: &tokio_postgres::error::DbError) -> ServerError {
        ServerError {
            code: error.code().code().to_owned(),
            message: error.message().to_owned(),
            hint: error.hint().map(str::to_owned),
        }
    }
}

/// By meaning: who can mend it.
///
/// * What passes by itself is tried again, with growing pauses, and shows as such until it has passed. An internal error (`XX000`) is
///   among it: most of them are races with somebody's DDL ("tuple concurrently updated", "cache lookup failed"), and a person could
///   do nothing else about one that is not. Damaged data (`XX001`, `XX002`) is no such thing.
/// * What the database lacks, or has in the way, a person must mend: a right, a setting, a table.
/// * Other faults of a statement (class 42) are ours: Towpath wrote it.
fn advice(code: &str, message: &str) -> (ErrorKind, Action, Option<&'static str>) {
    use Action::{Bug, Operator, Retry};
    use ErrorKind::{Authentication, Connection, Gap, Internal, Privilege, Setup, Timeout};
    match code {
        "28P01" => (
            Authentication,
            Operator,
            Some("check the user in `url`, and the password in `password`, `url` or the .pgpass file"),
        ),
        "28000" => (
            Authentication,
            Operator,
            Some(
                "the role must be allowed to log in, and pg_hba.conf must let it in from this machine to this database \
                 (logical replication needs no line of its own): `host <database> <user> <address> scram-sha-256`, then \
                 `SELECT pg_reload_conf()`",
            ),
        ),
        "42501" => (
            Privilege,
            Operator,
            Some(
                "`towpath doctor` lists every missing right with the SQL that grants it (replication needs `ALTER ROLE … REPLICATION`)",
            ),
        ),
        "3D000" => (Setup, Operator, Some("check the database name at the end of `url`")),
        // The slot's log is gone, or the slot was invalidated; the text covers servers that reuse the code.
        "58P01" if message.contains("WAL segment") => (Gap, Operator, None),
        "55000" if message.contains("can no longer") => (Gap, Operator, None),
        "55000" => (Setup, Operator, Some("`towpath doctor` names the setting and the statement that changes it")),
        "55006" => (Connection, Retry, None),
        // All slots are in use, and the like.
        "53400" => (Setup, Operator, None),
        // A statement that was cancelled, a conflict, a lock that was not had.
        "57014" | "40001" | "40P01" | "55P03" => (Timeout, Retry, None),
        "25006" => (Setup, Operator, Some("this server is a standby: point `url` at the primary")),
        "XX001" | "XX002" => (
            Setup,
            Operator,
            Some("the server found its own data damaged: look at its log, and repair or restore what it names"),
        ),
        // A table, a publication or a slot is not there, is there already, or is something else.
        "42P01" | "42704" | "42710" | "42809" => (Setup, Operator, DOCTOR),
        _ => match code.get(..2) {
            // The server starts, stops, crashed; too many connections; resources short; an internal error.
            Some("08" | "40" | "53" | "57" | "58" | "XX") => (Connection, Retry, None),
            Some("28") => (Authentication, Operator, DOCTOR),
            Some("42") => (Internal, Bug, None),
            _ => (Setup, Operator, DOCTOR),
        },
    }
}

const DOCTOR: Option<&str> = Some("`towpath doctor` looks for everything that stands in the way");

/// Whether an error that was made here carries this SQLSTATE.
pub(crate) fn has_state(error: &Error, state: &str) -> bool {
    error.message.strip_suffix(')').is_some_and(|message| message.ends_with(state))
}

/// An error of the SQL client. Its own text is used only where it cannot carry what was sent.
pub(crate) fn sql(error: &tokio_postgres::Error, operation: impl Into<String>) -> Error {
    if let Some(reported) = error.as_db_error() {
        return ServerError::from(reported).into_error(operation);
    }
    let io_error = std::error::Error::source(error).and_then(|source| source.downcast_ref::<io::Error>());
    match io_error {
        Some(cause) => lost(cause, operation),
        None if error.is_closed() => {
            Error::retry(ErrorKind::Connection, operation, "the server closed the SQL connection")
        }
        // "error parsing response", "error deserializing column 1": text of the library's own.
        None => Error::new(ErrorKind::Protocol, Action::Bug, operation, error),
    }
}

/// The connection failed below PostgreSQL's protocol.
pub(crate) fn lost(cause: &io::Error, operation: impl Into<String>) -> Error {
    match cause.kind() {
        io::ErrorKind::TimedOut => Error::retry(ErrorKind::Timeout, operation, "the server did not answer in time"),
        io::ErrorKind::UnexpectedEof => {
            Error::retry(ErrorKind::Connection, operation, "the server closed the connection")
        }
        _ => Error::retry(ErrorKind::Connection, operation, format!("the connection was lost ({})", cause.kind())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reported(code: &str, message: &str) -> Error {
        let body = format!("SERROR\0VERROR\0C{code}\0M{message}\0DKey (id)=(secret)\0\0");
        ServerError::parse(body.as_bytes()).into_error("testing")
    }

    #[test]
    fn what_passes_is_retried_and_what_a_person_must_mend_is_not() {
        for code in [
            "57P01", "57P02", "57P03", "57014", "53300", "53100", "55006", "55P03", "40001", "40003", "08006", "58030",
            "XX000",
        ] {
            assert_eq!(reported(code, "m").action, Action::Retry, "{code}");
        }
        for (code, kind) in [
            ("28P01", ErrorKind::Authentication),
            ("28000", ErrorKind::Authentication),
            ("3D000", ErrorKind::Setup),
            ("42501", ErrorKind::Privilege),
            ("42704", ErrorKind::Setup),
            ("42P01", ErrorKind::Setup),
            ("3F000", ErrorKind::Setup),
            ("55000", ErrorKind::Setup),
            ("XX001", ErrorKind::Setup),
        ] {
            let error = reported(code, "m");
            assert_eq!((error.kind, error.action), (kind, Action::Operator), "{code}");
            assert!(error.help.is_some(), "{code}");
        }
        assert_eq!(reported("53400", "all replication slots are in use").action, Action::Operator);
        for code in ["42601", "42703", "42883"] {
            assert_eq!(reported(code, "a statement of ours").action, Action::Bug, "{code}");
        }
    }

    #[test]
    fn an_error_tells_its_code() {
        assert!(has_state(&reported("55P03", "m"), "55P03"));
        assert!(!has_state(&reported("55P03", "m"), "42P01"));
    }

    #[test]
    fn an_invalidated_slot_is_a_gap() {
        assert_eq!(reported("55000", "can no longer get changes from replication slot \"s\"").kind, ErrorKind::Gap);
        assert_eq!(
            reported("58P01", "requested WAL segment 000000010000000000000001 has already been removed").kind,
            ErrorKind::Gap
        );
    }

    #[test]
    fn the_detail_which_may_quote_a_row_is_left_out() {
        let error = reported("57P01", "terminating connection due to administrator command");
        assert_eq!(
            error.to_string(),
            "testing: the server says: terminating connection due to administrator command (SQLSTATE 57P01)"
        );
    }

    #[test]
    fn a_cut_report_is_read_as_far_as_it_goes() {
        assert_eq!(ServerError::parse(b"C57P01\0Mcut").code, "57P01");
        assert_eq!(ServerError::parse(b""), ServerError::default());
    }
}
