//! `towpath pause`

use serde_json::json;

use super::ask::Asker;
use super::{Call, Failure};

#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The source, by its name in the config
    #[arg(required_unless_present = "route")]
    source: Option<String>,

    /// A route instead of a source
    #[arg(long, value_name = "ROUTE", conflicts_with = "source")]
    route: Option<String>,
}

pub(super) fn pause(call: &Call<'_>, arguments: &Arguments) -> Result<(), Failure> {
    tell(call, arguments, "pause")
}

/// `pause` and `resume` differ in the word.
pub(super) fn tell(call: &Call<'_>, arguments: &Arguments, verb: &str) -> Result<(), Failure> {
    let config = call.load()?;
    let (kind, name) = match (&arguments.source, &arguments.route) {
        (Some(source), _) => ("sources", source),
        (None, Some(route)) => ("routes", route),
        (None, None) => return Err(Failure::Call { message: "name a source, or a --route".into(), help: None }),
    };
    let done = call.block_on(Asker::new(call, &config).post(&["api", kind, name, verb], json!({})))?;
    call.print(|| json!({ "done": done }), || done.clone());
    Ok(())
}
