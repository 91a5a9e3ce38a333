//! `towpath copybook`

use std::path::PathBuf;

use serde_json::json;

use super::{Call, Failure, say, table};
use crate::registry;

#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Try every framing and code page on the first records of a file, and show which read it best
    Probe {
        /// The file of records
        file: PathBuf,
        /// Its copybook
        #[arg(long, value_name = "FILE")]
        copybook: PathBuf,
        /// The level 01, where the copybook has several
        #[arg(long, value_name = "NAME")]
        record: Option<String>,
    },
}

/// Guesses that are shown to a person.
const SHOWN: usize = 6;

pub(super) fn copybook(call: &Call<'_>, arguments: &Arguments) -> Result<(), Failure> {
    let What::Probe { file, copybook, record } = &arguments.what;
    let guesses = registry::probe_copybook(file, copybook, record.as_deref())
        .map_err(|message| Failure::work(message, Some("see docs/copybooks.md for what a copybook may hold".into())))?;
    if call.global.json {
        say(&format!("{:#}", json!({ "guesses": guesses })));
        return Ok(());
    }
    let mut rows = vec![["score", "framing", "charset", "records", "unreadable"].map(str::to_owned)];
    for guess in guesses.iter().take(SHOWN) {
        let [score, records, bad] = [u64::from(guess.score), guess.records, guess.bad].map(|number| number.to_string());
        rows.push([score, guess.framing.into(), guess.charset.into(), records, bad]);
    }
    let mut page = table::aligned(&rows, 0);
    if let Some(best) = guesses.first().filter(|best| best.score > 0) {
        page.push_str(&format!(
            "\nThe first record as {} in {}:\n  {}\n",
            best.framing,
            best.charset,
            best.first.join("\n  ")
        ));
        page.push_str(
            "\nCode pages differ in a few characters alone: look at names with umlauts, brackets or the euro sign.",
        );
    } else {
        page.push_str("\nNothing reads this file: is it the copybook's?");
    }
    say(&page);
    Ok(())
}
