//! `towpath pause`

use serde_json::json;

use super::ask::Asker;
use super::{Call, Failure};
use crate::config::Purpose;

#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The source, by its name in the config
    source: String,
}

pub(super) fn pause(call: &Call<'_>, arguments: &Arguments) -> Result<(), Failure> {
    tell(call, arguments, "pause")
}

/// `pause` and `resume` differ in the word.
pub(super) fn tell(call: &Call<'_>, arguments: &Arguments, verb: &str) -> Result<(), Failure> {
    let config = call.load(Purpose::Ask)?;
    let path = ["api", "sources", arguments.source.as_str(), verb];
    let done = call.block_on(Asker::new(call, &config).post(&path, json!({})))?;
    call.print(|| json!({ "done": done }), || done.clone());
    Ok(())
}
