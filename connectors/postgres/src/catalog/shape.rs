//! What a table looks like: its published columns, its key, and how its rows can be read in key order.

use std::collections::HashMap;
use std::sync::Arc;

use tokio_postgres::{Client, SimpleQueryRow};
use towpath_contract::{Column, KeyKind, Result, TableSchema};

use crate::sql;
use crate::types::{TypeCatalog, TypeInfo};

/// A table at one moment.
#[derive(Clone, Debug)]
pub(crate) struct Shape {
    pub(crate) oid: u32,
    /// Equal to the schema made from the stream's Relation message for the same shape.
    pub(crate) table: Arc<TableSchema>,
    /// One per column of `table`.
    pub(crate) types: Vec<Arc<TypeInfo>>,
    /// How to read it in chunks; `None`: only as a whole.
    pub(crate) key: Option<ChunkKey>,
    pub(crate) partitioned: bool,
    /// The publication's row filter as an SQL condition (15+).
    pub(crate) row_filter: Option<String>,
}

/// A unique B-tree index whose order `ORDER BY` and `>` follow.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ChunkKey {
    pub(crate) columns: Vec<KeyColumn>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KeyColumn {
    pub(crate) name: String,
    /// The type to cast a text to: under domains, without a modifier (`bpchar`, not `character(3)`).
    pub(crate) cast: String,
    /// The schema of the type's `>`.
    pub(crate) operator_schema: String,
}

/// Makes the schema of a table from what both the catalogue and the stream's Relation message say of it, so that the
/// version is the same whichever it came from.
///
/// `columns`: name, type, and the flag that pgoutput sets for columns of the replica identity (all, under FULL).
/// `primary_key`: the columns of the primary key, in any order; empty where there is none.
///
/// The key is the replica identity; under FULL and NOTHING the primary key; failing that, under FULL the whole row, else
/// nothing.
pub(crate) fn assemble<'a>(
    schema: &str,
    name: &str,
    identity: u8,
    columns: impl IntoIterator<Item = (&'a str, &'a TypeInfo, bool)>,
    primary_key: &[String],
) -> TableSchema {
    let full = identity == b'f';
    let mut columns: Vec<Column> = columns
        .into_iter()
        .map(|(name, info, flagged)| Column {
            name: name.to_owned(),
            kind: info.kind.clone(),
            type_name: info.name.clone(),
            key: flagged && !full,
        })
        .collect();
    let by_primary_key = matches!(identity, b'f' | b'n') && !primary_key.is_empty();
    let has_primary_key = by_primary_key && primary_key.iter().all(|key| columns.iter().any(|c| c.name == *key));
    let key = if columns.iter().any(|column| column.key) {
        KeyKind::Columns
    } else if has_primary_key {
        for column in &mut columns {
            column.key = primary_key.contains(&column.name);
        }
        KeyKind::Columns
    } else if full {
        for column in &mut columns {
            column.key = true;
        }
        KeyKind::WholeRow
    } else {
        KeyKind::None
    };
    TableSchema::new(schema.to_owned(), name.to_owned(), columns, key)
}

/// The columns of a table's primary key, in the index's order. Empty where there is none, or no such table.
pub(crate) async fn primary_key(client: &Client, oid: u32) -> Result<Vec<String>> {
    let version = sql::server_version(client).await?;
    let indexes = indexes(client, version, Some(oid)).await?;
    Ok(key_index(&indexes, b'f').map(Index::names_of).unwrap_or_default())
}

/// The index whose columns are the table's key, as [`assemble`] chooses it. By no other may it be read: an update that moves a row
/// in the order of another is not told as such.
///
/// Under FULL a primary key serves that is checked row by row. A deferrable one does not: within a transaction two rows may have
/// the same key for a while, and their changes cannot be told apart by it.
fn key_index(indexes: &[Index], identity: u8) -> Option<&Index> {
    match identity {
        b'f' | b'n' => indexes.iter().find(|index| index.primary && index.firm),
        _ => indexes.iter().find(|index| index.is_identity(identity)),
    }
}

/// Looks at the table as the current transaction sees it; `None` when it is gone.
pub(crate) async fn describe(
    client: &Client,
    version: u32,
    types: &mut TypeCatalog,
    oid: u32,
    publication: Option<&str>,
) -> Result<Option<Shape>> {
    let operation = format!("reading the columns of the table with oid {oid}");
    let rows = sql::rows(client, &operation, &columns_query(version, oid, publication)).await?;
    let Some(first) = rows.first() else { return Ok(None) };
    let (schema, name) = (sql::text(first, 0).to_owned(), sql::text(first, 1).to_owned());
    let identity = sql::text(first, 2).bytes().next().unwrap_or(b'd');
    let partitioned = sql::text(first, 3) == "p";
    let row_filter = first.get(4).map(str::to_owned);

    let indexes = indexes(client, version, Some(oid)).await?;
    let flagged: Vec<String> =
        indexes.iter().find(|index| index.is_identity(identity)).map(Index::names_of).unwrap_or_default();
    let primary_key = key_index(&indexes, b'f').map(Index::names_of).unwrap_or_default();

    let mut infos = Vec::with_capacity(rows.len());
    let mut names = Vec::with_capacity(rows.len());
    for row in &rows {
        // A table without columns gives one row without a column.
        let Some(column) = row.get(5) else { continue };
        let (type_oid, modifier) = (sql::number(&operation, row, 6)?, sql::number(&operation, row, 7)?);
        infos.push(types.resolve(client, type_oid, modifier, None).await?);
        names.push(column.to_owned());
    }
    let columns = names.iter().zip(&infos).map(|(name, info)| (name.as_str(), info.as_ref(), flagged.contains(name)));
    let table = Arc::new(assemble(&schema, &name, identity, columns, &primary_key));
    let key = match table.key {
        KeyKind::Columns => key_index(&indexes, identity)
            .filter(|index| index.orderly)
            .map(|index| ChunkKey { columns: index.columns.clone() }),
        // Nothing in the stream would match a held row.
        KeyKind::WholeRow | KeyKind::None => None,
    };
    Ok(Some(Shape { oid, table, types: infos, key, partitioned, row_filter }))
}

/// One row per published column: schema, table, identity, kind, row filter, column, type, modifier.
fn columns_query(version: u32, oid: u32, publication: Option<&str>) -> String {
    let publication = sql::literal(publication.unwrap_or_default());
    let (filter, listed) = match version {
        150_000.. => ("pg_get_expr(pr.prqual, pr.prrelid)", "(pr.prattrs IS NULL OR a.attnum = ANY (pr.prattrs))"),
        _ => ("NULL", "true"),
    };
    let published = match version {
        // Stored generated columns are published when listed, or when the publication says so; virtual ones never.
        180_000.. => format!(
            "{listed} AND (a.attgenerated = '' OR a.attgenerated = 's' AND (pr.prattrs IS NOT NULL OR p.pubgencols = 's'))"
        ),
        120_000.. => format!("{listed} AND a.attgenerated = ''"),
        _ => listed.to_owned(),
    };
    format!(
        "SET search_path = ''; SELECT n.nspname, c.relname, c.relreplident, c.relkind, {filter}, \
           a.attname, a.atttypid, a.atttypmod \
         FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
         LEFT JOIN pg_publication p ON p.pubname = {publication} \
         LEFT JOIN pg_publication_rel pr ON pr.prpubid = p.oid AND pr.prrelid = c.oid \
         LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND {published} \
         WHERE c.oid = {oid} ORDER BY a.attnum"
    )
}

/// A unique index that is the primary key or marked as replica identity.
struct Index {
    oid: u32,
    table: u32,
    primary: bool,
    marked: bool,
    /// Valid, and checked row by row (not deferrable): the only kind that PostgreSQL takes for an identity.
    firm: bool,
    /// B-tree, ascending, by the columns' own collations and the operator `>`.
    orderly: bool,
    columns: Vec<KeyColumn>,
}

impl Index {
    /// As `RelationGetIdentityKeyBitmap` decides it.
    fn is_identity(&self, identity: u8) -> bool {
        self.firm && (identity == b'd' && self.primary || identity == b'i' && self.marked)
    }

    fn names_of(&self) -> Vec<String> {
        self.columns.iter().map(|column| column.name.clone()).collect()
    }
}

/// The keys of all tables.
pub(super) struct Keys(HashMap<u32, Vec<Index>>);

impl Keys {
    pub(super) async fn of_all(client: &Client, version: u32) -> Result<Keys> {
        let mut keys: HashMap<u32, Vec<Index>> = HashMap::new();
        for index in indexes(client, version, None).await? {
            keys.entry(index.table).or_default().push(index);
        }
        Ok(Keys(keys))
    }

    /// What [`describe`] will find, as far as the published columns have the key.
    pub(super) fn allow_chunks(&self, table: u32, identity: u8) -> bool {
        let Some(indexes) = self.0.get(&table) else { return false };
        key_index(indexes, identity).is_some_and(|index| index.orderly)
    }
}

/// Of one table, or of all. The primary key first.
async fn indexes(client: &Client, version: u32, oid: Option<u32>) -> Result<Vec<Index>> {
    let operation = "reading the keys of the tables";
    let table = oid.map_or_else(|| "true".to_owned(), |oid| format!("i.indrelid = {oid}"));
    // INCLUDE came with PostgreSQL 11: what it adds is no part of the key.
    let width = if version >= 110_000 { "i.indnkeyatts" } else { "i.indnatts" };
    let query = format!(
        "SET search_path = ''; SELECT i.indexrelid, i.indisprimary, i.indisreplident, i.indisvalid AND i.indimmediate, \
           am.amname = 'btree' AND i.indisvalid AND a.attnotnull AND op.oprname = '>' \
             AND i.indcollation[k.n] = a.attcollation AND i.indoption[k.n] & 1 = 0, \
           a.attname, ( \
             WITH RECURSIVE base(oid, under) AS ( \
               SELECT t.oid, t.typbasetype FROM pg_type t WHERE t.oid = a.atttypid \
               UNION ALL SELECT t.oid, t.typbasetype FROM base JOIN pg_type t ON t.oid = base.under) \
             SELECT format_type(oid, -1) FROM base WHERE under = 0), \
           opn.nspname, i.indrelid \
         FROM pg_index i JOIN pg_class ic ON ic.oid = i.indexrelid JOIN pg_am am ON am.oid = ic.relam \
         CROSS JOIN LATERAL generate_series(0, {width} - 1) AS k(n) \
         JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[k.n] \
         JOIN pg_opclass oc ON oc.oid = i.indclass[k.n] \
         LEFT JOIN pg_amop ao ON ao.amopfamily = oc.opcfamily AND ao.amoplefttype = oc.opcintype \
           AND ao.amoprighttype = oc.opcintype AND ao.amopstrategy = 5 AND ao.amoppurpose = 's' \
         LEFT JOIN pg_operator op ON op.oid = ao.amopopr \
         LEFT JOIN pg_namespace opn ON opn.oid = op.oprnamespace \
         WHERE {table} AND i.indisunique AND i.indpred IS NULL AND i.indexprs IS NULL \
           AND (i.indisprimary OR i.indisreplident) \
         ORDER BY i.indrelid, i.indisprimary DESC, i.indexrelid, k.n"
    );
    let mut indexes: Vec<Index> = Vec::new();
    for row in sql::rows(client, operation, &query).await? {
        let index_oid = sql::number(operation, &row, 0)?;
        if indexes.last().is_none_or(|last| last.oid != index_oid) {
            indexes.push(Index {
                oid: index_oid,
                table: sql::number(operation, &row, 8)?,
                primary: sql::is_true(&row, 1),
                marked: sql::is_true(&row, 2),
                firm: sql::is_true(&row, 3),
                orderly: true,
                columns: Vec::new(),
            });
        }
        if let Some(index) = indexes.last_mut() {
            index.orderly &= sql::is_true(&row, 4);
            index.columns.push(key_column(&row));
        }
    }
    Ok(indexes)
}

fn key_column(row: &SimpleQueryRow) -> KeyColumn {
    KeyColumn {
        name: sql::text(row, 5).to_owned(),
        cast: sql::text(row, 6).to_owned(),
        operator_schema: sql::text(row, 7).to_owned(),
    }
}
