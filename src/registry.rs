//! The only file that names the connectors.

use std::path::Path;

use towpath_contract::Source;
use towpath_postgres::PostgresSource;

use crate::config::model::SourceConfig;

/// The source that a part of the config describes. `spool_dir` is a folder of this outbox's own, for what a connector must put aside.
pub(crate) fn source(name: &str, config: &SourceConfig, spool_dir: &Path) -> Box<dyn Source> {
    match config {
        SourceConfig::Postgres(config) => Box::new(PostgresSource::new(name, config.clone(), spool_dir.to_owned())),
    }
}
