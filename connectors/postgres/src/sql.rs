//! Running statements: rows as text, names and literals quoted, the server's errors sorted by who can mend them.

use std::fmt::Display;
use std::str::FromStr;
use std::time::Duration;

use tokio_postgres::{Client, SimpleQueryMessage, SimpleQueryRow};
use towpath_contract::{Error, ErrorKind, Result};

/// The catalogue answers in milliseconds. A session that does not in this time hangs, and with it whoever waits: the source is
/// to be opened anew.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);

/// Runs one or several statements by the simple protocol and gives the rows of all of them, as text: no type of the
/// server needs to be known for it.
pub(crate) async fn rows(client: &Client, operation: &str, sql: &str) -> Result<Vec<SimpleQueryRow>> {
    match tokio::time::timeout(ANSWER_WITHIN, rows_however_long(client, operation, sql)).await {
        Ok(rows) => rows,
        Err(_) => {
            let message = format!("the server did not answer within {} s", ANSWER_WITHIN.as_secs());
            Err(Error::retry(ErrorKind::Timeout, operation, message))
        }
    }
}

/// For what must wait for others.
pub(crate) async fn rows_however_long(client: &Client, operation: &str, sql: &str) -> Result<Vec<SimpleQueryRow>> {
    let messages = client.simple_query(sql).await.map_err(|error| failed(operation, &error))?;
    Ok(messages
        .into_iter()
        .filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(row),
            _ => None,
        })
        .collect())
}

/// The first row; an error when there is none.
pub(crate) async fn row(client: &Client, operation: &str, sql: &str) -> Result<SimpleQueryRow> {
    let mut rows = rows(client, operation, sql).await?;
    match rows.is_empty() {
        true => Err(Error::bug(operation, "the query gave no row")),
        false => Ok(rows.swap_remove(0)),
    }
}

/// A column's text; empty for NULL and for a column that the query does not have.
pub(crate) fn text(row: &SimpleQueryRow, column: usize) -> &str {
    row.try_get(column).ok().flatten().unwrap_or_default()
}

pub(crate) fn is_true(row: &SimpleQueryRow, column: usize) -> bool {
    text(row, column) == "t"
}

pub(crate) fn number<N: FromStr>(operation: &str, row: &SimpleQueryRow, column: usize) -> Result<N>
where
    N::Err: Display,
{
    let found = text(row, column);
    found.parse().map_err(|error| Error::bug(operation, format_args!("column {column} of the answer: {error}")))
}

/// `server_version_num`: 150004 for 15.4.
pub(crate) async fn server_version(client: &Client) -> Result<u32> {
    let operation = "asking for the server's version";
    number(operation, &row(client, operation, "SHOW server_version_num").await?, 0)
}

/// A name in double quotes.
pub(crate) fn ident(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// `"schema"."name"`.
pub(crate) fn qualified(schema: &str, name: &str) -> String {
    format!("{}.{}", ident(schema), ident(name))
}

/// A string literal, read the same whatever `standard_conforming_strings` says.
pub(crate) fn literal(text: &str) -> String {
    let quoted = text.replace('\'', "''");
    match quoted.contains('\\') {
        true => format!("E'{}'", quoted.replace('\\', "\\\\")),
        false => format!("'{quoted}'"),
    }
}

/// The server's answer, by its SQLSTATE (manual, appendix A). The text carries the server's message and never its
/// detail, which quotes rows.
pub(crate) fn failed(operation: &str, error: &tokio_postgres::Error) -> Error {
    let Some(db) = error.as_db_error() else {
        return Error::retry(ErrorKind::Connection, operation, format_args!("the connection failed: {error}"));
    };
    let code = db.code().code();
    let message = format!("{} ({code})", db.message());
    match code {
        "42501" => Error::operator(ErrorKind::Privilege, operation, message),
        "42P01" | "3F000" | "42704" => Error::operator(ErrorKind::Setup, operation, message),
        "57014" | "55P03" => Error::retry(ErrorKind::Timeout, operation, message),
        // A standby cannot say where the log ends: "recovery is in progress".
        "55000" => Error::operator(ErrorKind::Setup, operation, message),
        _ => match &code[..2] {
            "08" | "57" | "58" | "53" | "40" => Error::retry(ErrorKind::Connection, operation, message),
            "28" => Error::operator(ErrorKind::Authentication, operation, message),
            "42" => Error::bug(operation, message),
            _ => Error::operator(ErrorKind::Setup, operation, message),
        },
    }
}

/// The SQLSTATE behind an error that [`failed`] made.
pub(crate) fn has_state(error: &Error, state: &str) -> bool {
    error.message.strip_suffix(')').is_some_and(|message| message.ends_with(state))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_literals_are_quoted() {
        assert_eq!(qualified("Odd \"schema\"", "t"), r#""Odd ""schema"""."t""#);
        assert_eq!(literal("it's"), "'it''s'");
        assert_eq!(literal("a\\b'"), "E'a\\\\b'''");
    }
}
