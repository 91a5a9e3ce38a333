//! A server for the tests, and a session whose values look as the stream's do.

use towpath_contract::{Error, Fut, Result};
use towpath_test_support::Postgres;
use towpath_test_support::tokio_postgres::{Client, NoTls};

use crate::snapshot::Connect;

/// As the connector's own SQL sessions.
pub(crate) const SESSION: &str = "SET DateStyle = 'ISO'; SET IntervalStyle = 'iso_8601'; SET TimeZone = 'UTC'; \
                                  SET extra_float_digits = 3; SET bytea_output = 'hex'; SET client_encoding = 'UTF8'";

pub(crate) async fn session(url: &str) -> Client {
    let (client, connection) =
        tokio_postgres::connect(url, NoTls).await.expect("the test's server accepts connections");
    tokio::spawn(async move {
        // Its end shows in the client's next call.
        let _ = connection.await;
    });
    client.batch_execute(SESSION).await.expect("settings that every version has");
    client
}

pub(crate) fn connector(url: String) -> Connect {
    Box::new(move || -> Fut<'static, Result<Client, Error>> {
        let url = url.clone();
        Box::pin(async move { Ok(session(&url).await) })
    })
}

/// `sql` on servers of this major version and newer, else nothing.
pub(crate) fn since<'a>(postgres: &Postgres, major: u32, sql: &'a str) -> &'a str {
    if postgres.major() >= major { sql } else { "" }
}

/// A server with the extensions and types that the tests speak of.
pub(crate) async fn server() -> Postgres {
    Postgres::builder().settings("max_prepared_transactions = 5").start().await
}
