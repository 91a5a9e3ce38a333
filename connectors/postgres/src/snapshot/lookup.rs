//! The rows of a table that have certain values, for routes that put related rows into one event.

use std::pin::pin;
use std::sync::Arc;

use futures_util::TryStreamExt;
use tokio_postgres::Client;
use towpath_contract::{Batch, Error, ErrorKind, FOUND_BYTES_MAX, Found, Lookup, Result};

use crate::catalog::{self, ChunkKey, KeyColumn, Shape};
use crate::snapshot::rows::Rows;
use crate::snapshot::sample::{begin, delivered};
use crate::snapshot::statement;
use crate::sql::{self, literal};
use crate::types::TypeCatalog;

/// Of a table that is captured, the columns that are published; of another, all.
pub(crate) async fn look_up(client: &Client, publication: &str, lookup: &Lookup) -> Result<Found> {
    let Lookup { schema, table, keys, .. } = lookup;
    let operation = format!("looking up rows of {schema}.{table}");
    begin(client, &operation).await?;
    let shape = Arc::new(shape(client, publication, lookup, &operation).await?);
    let role = sql::text(&sql::row(client, &operation, "SELECT current_user").await?, 0).to_owned();
    let failed = |error: tokio_postgres::Error| may_read(sql::failed(&operation, &error), &shape, &role);
    if keys.is_empty() {
        // Whether it may be read is seen now, and not with the first row that is wanted.
        client.batch_execute(&statement::nothing(&shape)).await.map_err(failed)?;
        return Ok(Found { table: shape.table.clone(), rows: Batch::new(), keys: Vec::new() });
    }
    let by = columns(client, &shape, lookup, &operation).await?;
    let mut rows = Rows::new(shape.types.len() + 1);
    let mut found = Vec::new();
    {
        let copy = client.copy_out(&statement::copy_found(&shape, &by, keys)?).await.map_err(failed)?;
        let mut lines = pin!(copy);
        while let Some(line) = lines.try_next().await.map_err(failed)? {
            rows.push_copied(&line)?;
            let key = rows.value(found.len(), shape.types.len()).and_then(|text| std::str::from_utf8(text).ok());
            let key = key.and_then(|text| text.parse().ok()).filter(|key| *key < keys.len());
            found.push(key.ok_or_else(|| Error::bug(&operation, "a row came without the number of its key"))?);
            if rows.bytes() > FOUND_BYTES_MAX {
                let message = format!("the rows of {} keys have more than {FOUND_BYTES_MAX} bytes", keys.len());
                return Err(Error::operator(ErrorKind::Limit, operation, message));
            }
        }
    }
    let table = shape.table.clone();
    Ok(Found { rows: delivered(client, &operation, shape, rows).await?, table, keys: found })
}

fn may_read(error: Error, shape: &Shape, role: &str) -> Error {
    match error.kind {
        ErrorKind::Privilege => {
            let table = sql::qualified(&shape.table.schema, &shape.table.name);
            let also = "where the table has row-level security, the role also needs BYPASSRLS";
            error.with_help(format!("GRANT SELECT ON {table} TO {}; -- {also}", sql::ident(role)))
        }
        _ => error,
    }
}

async fn shape(client: &Client, publication: &str, lookup: &Lookup, operation: &str) -> Result<Shape> {
    let Lookup { schema, table, .. } = lookup;
    let query = format!(
        "SELECT c.oid FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
         WHERE n.nspname = {} AND c.relname = {} AND c.relkind IN ('r', 'p', 'v', 'm', 'f')",
        literal(schema),
        literal(table)
    );
    let (version, mut types) = (sql::server_version(client).await?, TypeCatalog::default());
    let shape = match sql::rows(client, operation, &query).await?.first() {
        Some(row) => {
            let oid = sql::number(operation, row, 0)?;
            catalog::describe(client, version, &mut types, oid, Some(publication)).await?
        }
        None => None,
    };
    shape.ok_or_else(|| {
        let help = "write it as `schema.table`, as the database spells it";
        Error::operator(ErrorKind::Setup, operation, format!("there is no table {schema}.{table}")).with_help(help)
    })
}

/// How the columns are compared: each by the `=` of its type, which stands in the schema of the type itself; of an enum or an array
/// in the system's.
async fn columns(client: &Client, shape: &Shape, lookup: &Lookup, operation: &str) -> Result<ChunkKey> {
    let names: Vec<String> = lookup.columns.iter().map(|name| literal(name)).collect();
    let query = format!(
        "SELECT a.attname, pg_catalog.format_type(b.oid, -1), \
           CASE WHEN t.typtype = 'e' OR t.typcategory = 'A' THEN 'pg_catalog' ELSE n.nspname END \
         FROM pg_catalog.pg_attribute a \
         CROSS JOIN LATERAL ( \
           WITH RECURSIVE base(oid, under) AS ( \
             SELECT t.oid, t.typbasetype FROM pg_catalog.pg_type t WHERE t.oid = a.atttypid \
             UNION ALL SELECT t.oid, t.typbasetype FROM base JOIN pg_catalog.pg_type t ON t.oid = base.under) \
           SELECT oid FROM base WHERE under = 0) AS b \
         JOIN pg_catalog.pg_type t ON t.oid = b.oid JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace \
         WHERE a.attrelid = {} AND a.attnum > 0 AND a.attname IN ({})",
        shape.oid,
        names.join(", ")
    );
    let known: Vec<KeyColumn> = sql::rows(client, operation, &query)
        .await?
        .iter()
        .map(|row| KeyColumn {
            name: sql::text(row, 0).to_owned(),
            cast: sql::text(row, 1).to_owned(),
            operator_schema: sql::text(row, 2).to_owned(),
        })
        .collect();
    let column = |name: &String| {
        known.iter().find(|column| column.name == *name).cloned().ok_or_else(|| {
            let message = format!("{}.{} has no column {name}", lookup.schema, lookup.table);
            Error::operator(ErrorKind::Setup, operation, message)
        })
    };
    Ok(ChunkKey { columns: lookup.columns.iter().map(column).collect::<Result<_>>()? })
}
