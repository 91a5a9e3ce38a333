//! `towpath discover`: the tables of a live source and their first rows. Changes nothing.

use towpath_contract::{Error, ErrorKind};

use super::spool_folder;
use crate::config::Checked;
use crate::discover::Sampled;
use crate::registry;

/// Of so many tables rows are looked at; of more it would take long.
const TABLES_MAX: usize = 500;

/// Of the config's one source. `rows`: of each table, at most.
pub(super) async fn discover(config: &Checked, rows: usize) -> Result<Vec<Sampled>, Error> {
    let Some(source) = config.sources.first() else {
        return Err(Error::bug("looking at the tables", "there is no source"));
    };
    let live = registry::source(&source.name, &source.config, &spool_folder(&config.outbox.sqlite));
    let mut all = Vec::new();
    for table in live.tables().await? {
        let rows = match all.len() {
            TABLES_MAX.. => Err(format!("{TABLES_MAX} tables were before it")),
            _ => match live.sample(&table.schema, &table.name, rows).await {
                Ok(batch) => Ok(batch),
                // One table may be closed to us, the next one open.
                Err(error) if error.kind == ErrorKind::Privilege => Err(error.message),
                Err(error) => return Err(error),
            },
        };
        // What was seen of the rows is kept, not the rows.
        all.push(Sampled::new(table, rows));
    }
    Ok(all)
}
