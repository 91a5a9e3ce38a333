//! A few rows of a table, for people who try a route.

use std::pin::pin;
use std::sync::Arc;

use futures_util::TryStreamExt;
use tokio_postgres::Client;
use towpath_contract::{BATCH_BYTES, Batch, Error, ErrorKind, Position, Result};

use crate::catalog::{self, Shape};
use crate::position::Lsn;
use crate::snapshot::chunk::{Chunk, Part};
use crate::snapshot::rows::Rows;
use crate::snapshot::session::with_rls_help;
use crate::snapshot::statement::{self, Which};
use crate::snapshot::view::View;
use crate::sql;
use crate::types::TypeCatalog;

/// At most `limit` rows of a captured table, written as its snapshot writes them.
pub(crate) async fn sample(
    client: &Client,
    patterns: &[String],
    publication: &str,
    (schema, name): (&str, &str),
    limit: usize,
) -> Result<Batch> {
    let operation = format!("reading {schema}.{name}");
    begin(client, &operation).await?;
    let captured = catalog::captured(client, patterns, Some(publication)).await?.tables;
    let table = captured.iter().find(|table| table.schema == schema && table.name == name);
    let (version, mut types) = (sql::server_version(client).await?, TypeCatalog::default());
    let shape = match table {
        Some(table) => catalog::describe(client, version, &mut types, table.oid, Some(publication)).await?,
        None => None,
    };
    let Some(shape) = shape else {
        let names: Vec<String> = captured.iter().map(catalog::CapturedTable::full_name).collect();
        let found = format!("the source captures no table {schema}.{name}");
        let help = format!("it captures: {}", if names.is_empty() { "none".into() } else { names.join(", ") });
        return Err(Error::operator(ErrorKind::Setup, operation, found).with_help(help));
    };
    let which = match &shape.key {
        Some(key) => Which::After { key, last: None, limit },
        None => Which::Some { limit },
    };
    let failed = |error: tokio_postgres::Error| with_rls_help(sql::failed(&operation, &error));
    let mut rows = Rows::new(shape.types.len());
    {
        let copy = client.copy_out(&statement::copy(&shape, &[], &which)).await.map_err(failed)?;
        let mut lines = pin!(copy);
        while let Some(line) = lines.try_next().await.map_err(failed)? {
            rows.push_copied(&line)?;
            if rows.bytes() >= BATCH_BYTES {
                break;
            }
        }
    }
    delivered(client, &operation, Arc::new(shape), rows).await
}

/// Settings under which rows look as they do in a snapshot, and no statement lasts.
pub(super) async fn begin(client: &Client, operation: &str) -> Result<()> {
    let settings = "SET statement_timeout = '30s'; SET row_security = off; SET search_path = ''";
    client.batch_execute(settings).await.map_err(|error| sql::failed(operation, &error))
}

/// The rows as a snapshot delivers them.
pub(super) async fn delivered(client: &Client, operation: &str, shape: Arc<Shape>, rows: Rows) -> Result<Batch> {
    let query = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint";
    let now: i64 = sql::number(operation, &sql::row(client, operation, query).await?, 0)?;
    let mut batch = Batch::new();
    let part = Part::Whole { first: true, last: true };
    let nowhere = Position::from_bytes(&[0]).ok_or_else(|| Error::bug(operation, "a byte is too long"))?;
    Chunk::new(shape, View::parse("1:1:", Lsn(0), now)?, part, rows).emit_rest(&mut batch, &nowhere)?;
    Ok(batch)
}
