//! `towpath snapshot`

use serde_json::json;

use super::ask::Asker;
use super::{Call, Failure};
use crate::admin::SnapshotCall;
use crate::config::Purpose;

#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The source, by its name in the config
    source: String,

    /// The tables to read, as `schema.table` [default: all that the source captures]
    #[arg(value_name = "TABLE")]
    tables: Vec<String>,

    /// The source stopped because changes may be missing: accept the gap, start anew from now, and read everything again
    #[arg(long, conflicts_with = "tables")]
    after_gap: bool,
}

pub(super) fn snapshot(call: &Call<'_>, arguments: &Arguments) -> Result<(), Failure> {
    let config = call.load(Purpose::Ask)?;
    let body = SnapshotCall { tables: arguments.tables.clone(), after_gap: arguments.after_gap };
    let path = ["api", "sources", arguments.source.as_str(), "snapshot"];
    let done = call.block_on(Asker::new(call, &config).post(&path, json!(body)))?;
    call.print(|| json!({ "done": done }), || done.clone());
    Ok(())
}
