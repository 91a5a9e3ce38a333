//! The database's own rows, as text with its types.

use tokio_postgres::{Client, SimpleQueryMessage};

use super::values::{self, Kind};

#[derive(Debug)]
pub(super) struct DatabaseTable {
    pub(super) columns: Vec<Column>,
    /// In the order of `columns`, in the one form that [`values`] fixes.
    pub(super) rows: Vec<Vec<String>>,
    key: Vec<usize>,
}

#[derive(Debug)]
pub(super) struct Column {
    pub(super) name: String,
    pub(super) kind: Kind,
    /// Computed by the database, which need not tell others of it.
    pub(super) generated: bool,
}

impl DatabaseTable {
    /// The values of the key's columns, or of all where there is no key.
    pub(super) fn identity_of(&self, row: &[String]) -> Vec<String> {
        match self.key.is_empty() {
            true => row.to_vec(),
            false => self.key.iter().map(|column| row[*column].clone()).collect(),
        }
    }
}

/// The columns by which changes are addressed: of the index chosen as replica identity, else of the primary key.
pub(super) async fn key_columns(client: &Client, table: &str) -> Vec<String> {
    let query = format!(
        "select a.attname from pg_class c
         join pg_index i on i.indrelid = c.oid and case c.relreplident when 'i' then i.indisreplident else i.indisprimary end
         join pg_attribute a on a.attrelid = c.oid and a.attnum = any (i.indkey)
         where c.oid = {}::regclass order by a.attnum",
        quoted(table)
    );
    rows(client, &query).await.into_iter().filter_map(|mut row| row.swap_remove(0)).collect()
}

pub(super) async fn read(client: &Client, table: &str) -> DatabaseTable {
    // A domain is its base type; an array is known by its element. `attgenerated` is unknown before PostgreSQL 12.
    let query = format!(
        "with recursive base as (
             select attnum, attname, atttypid as type, coalesce(to_jsonb(a) ->> 'attgenerated', '') <> '' as generated
             from pg_attribute a
             where attrelid = {}::regclass and attnum > 0 and not attisdropped
             union all
             select attnum, attname, typbasetype, generated from base join pg_type on pg_type.oid = type where typtype = 'd')
         select attname, generated, t.typname, (select e.typname from pg_type e where e.oid = t.typelem and t.typlen = -1 and t.typcategory = 'A')
         from base join pg_type t on t.oid = type where t.typtype <> 'd' order by attnum",
        quoted(table)
    );
    let columns: Vec<Column> = rows(client, &query)
        .await
        .into_iter()
        .map(|mut row| {
            let element = row.pop().flatten();
            let name = row.pop().flatten().unwrap_or_default();
            let kind = match element {
                Some(element) => Kind::Array(Box::new(Kind::of(&element))),
                None => Kind::of(&name),
            };
            let generated = row.pop().flatten().as_deref() == Some("t");
            Column { name: row.pop().flatten().unwrap_or_default(), kind, generated }
        })
        .collect();
    let key = key_columns(client, table).await;
    let key = (0..columns.len()).filter(|index| key.contains(&columns[*index].name)).collect();

    // The protocol's text form is the output function's: a cast to text would strip the padding of CHAR.
    let names: Vec<String> = columns.iter().map(|column| format!("\"{}\"", column.name.replace('"', "\"\""))).collect();
    let query = format!(
        "set datestyle = 'ISO, YMD'; set timezone = 'UTC'; set intervalstyle = 'iso_8601'; set extra_float_digits = 3;
         set bytea_output = 'hex'; select {} from {table}",
        names.join(", ")
    );
    let rows = rows(client, &query).await.into_iter().map(|row| {
        let cells = row.into_iter().zip(&columns);
        cells.map(|(text, column)| values::from_database(&column.kind, text.as_deref())).collect()
    });
    DatabaseTable { rows: rows.collect(), columns, key }
}

async fn rows(client: &Client, query: &str) -> Vec<Vec<Option<String>>> {
    let messages = client.simple_query(query).await.unwrap_or_else(|error| panic!("{query}: {error:?}"));
    let rows = messages.iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some((0..row.len()).map(|index| row.get(index).map(str::to_owned)).collect()),
        _ => None,
    });
    rows.collect()
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}
