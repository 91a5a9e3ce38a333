//! Running statements: rows as text, names and literals quoted.

use std::fmt::Display;
use std::str::FromStr;
use std::time::Duration;

use tokio_postgres::{Client, SimpleQueryMessage, SimpleQueryRow};
use towpath_contract::{Error, ErrorKind, Result};

use crate::failure;
pub(crate) use crate::failure::has_state;

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

/// What went wrong, as [`failure`] sorts it.
pub(crate) fn failed(operation: &str, error: &tokio_postgres::Error) -> Error {
    failure::sql(error, operation)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::ServerError;

    /// A statement's refusal means the same as the stream's.
    #[tokio::test]
    async fn a_refused_statement_is_sorted_by_the_one_table() {
        let postgres = towpath_test_support::Postgres::start().await;
        let client = crate::testing::session(&postgres.url("postgres")).await;
        for code in ["XX000", "XX001", "42601", "42501", "53400", "55006", "57014", "40P01", "22012"] {
            let raise = format!(
                "DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '{code}', MESSAGE = 'm', DETAIL = 'a row'; END $$"
            );
            let error = rows(&client, "testing", &raise).await.unwrap_err();
            let told = ServerError { code: code.into(), message: "m".into(), hint: None }.into_error("testing");
            assert_eq!((error.kind, error.action, error.to_string()), (told.kind, told.action, told.to_string()));
            assert!(has_state(&error, code) && !error.to_string().contains("a row"), "{error}");
        }
    }

    #[test]
    fn names_and_literals_are_quoted() {
        assert_eq!(qualified("Odd \"schema\"", "t"), r#""Odd ""schema"""."t""#);
        assert_eq!(literal("it's"), "'it''s'");
        assert_eq!(literal("a\\b'"), "E'a\\\\b'''");
    }
}
