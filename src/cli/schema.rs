//! `towpath schema`

use super::{Call, Failure, say};
use crate::config::config_schema;

#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// The JSON Schema of the config file, for editors: `# yaml-language-server: $schema=towpath.schema.json`
    Config,
}

pub(super) fn schema(_: &Call<'_>, arguments: &Arguments) -> Result<(), Failure> {
    match arguments.what {
        What::Config => say(&format!("{:#}", config_schema())),
    }
    Ok(())
}
