//! The only file that names the connectors.

use std::path::Path;

use towpath_contract::Source;
use towpath_files::{FilesSource, Guess};
use towpath_postgres::PostgresSource;

use crate::config::model::SourceConfig;

/// The source that a part of the config describes. `spool_dir` is a folder of this outbox's own, for what a connector must put aside.
pub(crate) fn source(name: &str, config: &SourceConfig, spool_dir: &Path) -> Box<dyn Source> {
    match config {
        SourceConfig::Postgres(config) => Box::new(PostgresSource::new(name, config.clone(), spool_dir.to_owned())),
        SourceConfig::Files(config) => Box::new(FilesSource::new(name, config.clone(), spool_dir.to_owned())),
    }
}

/// Tries every framing and code page on a file of COBOL records.
pub(crate) fn probe_copybook(file: &Path, copybook: &Path, record: Option<&str>) -> Result<Vec<Guess>, String> {
    towpath_files::probe(file, copybook, record)
}
