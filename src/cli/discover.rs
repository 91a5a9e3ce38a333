//! `towpath discover`

use serde_json::json;

use super::{Call, Failure};
use crate::config::{ConfigError, Purpose, Syntax, load_text};
use crate::discover::page;

#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The database: `postgres://user@host/database`, or `${NAME}` for what stands in that variable of the environment
    url: String,

    /// The name that the source has in the config, in events and in routing keys
    #[arg(long, default_value = "db", value_name = "NAME")]
    name: String,

    /// Tables to capture, `schema.table`, with `*` for any; may be given several times
    #[arg(long = "table", default_value = "*.*", value_name = "PATTERN")]
    tables: Vec<String>,

    /// Rows of each table to look at, at most
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    rows: u16,
}

pub(super) fn discover(call: &Call<'_>, arguments: &Arguments) -> Result<(), Failure> {
    let Arguments { url, name, tables, rows } = arguments;
    // The least that is a config: what is wrong with the call is told as of a file.
    let config = json!({
        "sources": { name: { "type": TYPE, "url": url, "tables": tables } },
        "outbox": { "sqlite": "outbox.db" },
        "rabbitmq": { "url": "amqp://localhost" },
    });
    let config = load_text(&config.to_string(), Syntax::Yaml, call.environment, Purpose::Ask)
        .map_err(|problems| Failure::Config(ConfigError { file: "the call".into(), problems }))?;
    let found = call.block_on(async { Ok(call.engine.discover(&config, usize::from(*rows)).await?) })?;
    if found.is_empty() {
        let help =
            "`--table` says which tables are looked for; `towpath doctor` tells what keeps a table from being captured";
        return Err(Failure::work(format!("no table of {} can be captured", tables.join(", ")), Some(help.into())));
    }
    let (url, note) = match is_variable(url) {
        true => (url.clone(), String::new()),
        // It may hold a password, which is not for a file that is passed around.
        false => {
            let variable = format!("{}_URL", name.to_uppercase().replace('-', "_"));
            (format!("${{{variable}}}"), format!(" # export {variable}='postgres://user:password@host/database'"))
        }
    };
    let text = page(name, TYPE, &(url + &note), tables, &found);
    call.print(|| json!({ "config": text }), || text.clone());
    Ok(())
}

const TYPE: &str = "postgres";

/// `${NAME}` and nothing besides: what stands around it may be secret.
fn is_variable(url: &str) -> bool {
    let name = url.strip_prefix("${").and_then(|rest| rest.strip_suffix('}'));
    name.is_some_and(|name| !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_'))
}
