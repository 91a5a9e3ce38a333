//! Rows that routes need beside what was captured, asked of the live source.

use towpath_contract::{Error, ErrorKind, Found, Lookup, Source, TableSchema};

use crate::route::Router;

/// What the routes must fit: the tables that are captured, and those of which rows are looked up.
pub(super) async fn tables(source: &dyn Source, router: &Router) -> Result<Vec<TableSchema>, Error> {
    let mut tables = source.tables().await?;
    add_looked_up(source, router, &mut tables).await?;
    Ok(tables)
}

/// # Errors
/// A table of which rows are to be looked up is not there, or may not be read.
pub(super) async fn add_looked_up(
    source: &dyn Source,
    router: &Router,
    tables: &mut Vec<TableSchema>,
) -> Result<(), Error> {
    for lookup in router.looked_up() {
        let found = source.look_up(&lookup).await?;
        if !tables.iter().any(|table| (&table.schema, &table.name) == (&lookup.schema, &lookup.table)) {
            tables.push((*found.table).clone());
        }
    }
    Ok(())
}

/// What is found for each key, in pieces: with the index of its first key.
///
/// # Errors
/// Those of [`Source::look_up`]; of too large an answer, only where it is that to a single key.
pub(super) async fn look_up(source: &dyn Source, lookup: &Lookup) -> Result<Vec<(usize, Found)>, Error> {
    let mut found = Vec::new();
    let mut pieces = vec![(0, lookup.clone())];
    while let Some((first, lookup)) = pieces.pop() {
        match source.look_up(&lookup).await {
            Ok(answer) => found.push((first, answer)),
            Err(error) if error.kind == ErrorKind::Limit && lookup.keys.len() > 1 => {
                let half = lookup.keys.len() / 2;
                let of = |keys: &[Vec<Vec<u8>>]| Lookup { keys: keys.to_vec(), ..lookup.clone() };
                pieces.push((first + half, of(&lookup.keys[half..])));
                pieces.push((first, of(&lookup.keys[..half])));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}
