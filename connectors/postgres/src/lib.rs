//! Towpath's PostgreSQL connector: logical replication by pgoutput, snapshots in chunks.
//!
//! The way of a change: [`wire`] reads the stream, [`decode`] understands it, [`spool`] keeps what is in progress,
//! [`assemble`] makes changes of it, [`reader`] hands them over and tells the server what was recorded. [`open`] sets all
//! of it up, and stops where something may be missing.

mod assemble;
mod catalog;
mod config;
mod connect;
mod coverage;
pub mod decode;
mod doctor;
mod failure;
mod feedback;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod monitor;
mod open;
mod pgpass;
pub mod position;
mod publication;
mod reader;
mod relation;
mod row;
mod selection;
mod slot;
mod snapshot;
mod spool;
mod sql;
#[cfg(test)]
mod testing;
mod timeline;
mod tls;
mod types;
mod value;
mod wire;

use std::path::PathBuf;

use towpath_contract::{
    Batch, Capabilities, Capture, Finding, Found, Fut, Known, Lookup, Result, Resume, Severity, Source, TableSchema,
};

pub use config::PostgresConfig;

/// What in `url` keeps a connection from being made at all. Connects to nothing; the error repeats nothing that may be a secret.
pub fn check_url(config: &PostgresConfig) -> Result<()> {
    connect::Target::parse(config).map(drop)
}

/// A PostgreSQL database, configured and not yet connected.
pub struct PostgresSource {
    name: String,
    config: PostgresConfig,
    spool: PathBuf,
    /// Of [`Source::look_up`].
    lookups: tokio::sync::Mutex<Option<tokio_postgres::Client>>,
}

impl PostgresSource {
    /// `name`: the source's name in the config. `spool_dir`: a folder on a local disk for transactions in progress; a
    /// folder of the source's name is made in it.
    pub fn new(name: &str, config: PostgresConfig, spool_dir: PathBuf) -> PostgresSource {
        PostgresSource { name: name.to_owned(), config, spool: spool_dir, lookups: tokio::sync::Mutex::default() }
    }
}

impl PostgresSource {
    async fn sql(&self) -> Result<tokio_postgres::Client> {
        let (_, client) = connect::Target::parse(&self.config)?.connect().await?;
        Ok(client)
    }
}

impl Source for PostgresSource {
    fn capabilities(&self) -> Capabilities {
        Capabilities { sees_deletes: true, sees_before_images: true, sees_transactions: true, snapshots: true }
    }

    fn open(&self, resume: Resume) -> Fut<'_, Result<Box<dyn Capture>>> {
        Box::pin(async move {
            let reader = open::open(&self.name, &self.config, &self.spool, resume).await?;
            Ok(Box::new(reader) as Box<dyn Capture>)
        })
    }

    fn tables(&self) -> Fut<'_, Result<Vec<TableSchema>>> {
        Box::pin(async move {
            let client = self.sql().await?;
            let publication = open::Names::of(&self.name, &self.config)?.publication;
            let mut tables = catalog::schemas(&client, &self.config.tables, &publication).await?;
            if !self.config.messages.is_empty() {
                tables.push((*relation::message_table()).clone());
            }
            Ok(tables)
        })
    }

    fn sample<'a>(&'a self, schema: &'a str, table: &'a str, rows: usize) -> Fut<'a, Result<Batch>> {
        Box::pin(async move {
            let client = self.sql().await?;
            let publication = open::Names::of(&self.name, &self.config)?.publication;
            snapshot::sample(&client, &self.config.tables, &publication, (schema, table), rows).await
        })
    }

    fn look_up<'a>(&'a self, lookup: &'a Lookup) -> Fut<'a, Result<Found>> {
        Box::pin(async move {
            let publication = open::Names::of(&self.name, &self.config)?.publication;
            // One session for all: a route may ask for every batch. Whoever fails leaves none.
            let mut session = self.lookups.lock().await;
            let client = match session.take().filter(|client| !client.is_closed()) {
                Some(client) => client,
                None => self.sql().await?,
            };
            let found = snapshot::look_up(&client, &publication, lookup).await;
            if found.is_ok() {
                *session = Some(client);
            }
            found
        })
    }

    fn doctor(&self, known: Known) -> Fut<'_, Vec<Finding>> {
        Box::pin(async move {
            match self.sql().await {
                Ok(client) => doctor::examine(&client, &self.config, &self.name, &known).await,
                Err(error) => vec![Finding {
                    severity: Severity::Error,
                    code: "unreachable",
                    message: format!("{}: {}", error.operation, error.message),
                    fix: error.help,
                    who: None,
                }],
            }
        })
    }
}
