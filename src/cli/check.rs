//! `towpath check`

use std::fmt::Write;
use std::path::Path;

use serde_json::json;

use super::{Call, Failure, table};
use crate::config::Purpose;
use crate::config::checked::{Checked, CheckedRoute};
use crate::config::model::SourceConfig;
use crate::config::problem::ProblemRecord;
use crate::route::format::{BundleBy, Format};
use crate::route::plan::EventForm;

pub(super) fn check(call: &Call<'_>) -> Result<(), Failure> {
    let file = call.config_file();
    match crate::config::load(&file, call.environment, Purpose::Run) {
        Ok(config) => {
            let warnings: Vec<ProblemRecord> =
                config.warnings.iter().map(|found| ProblemRecord::new(&file, found)).collect();
            call.print(
                || json!({ "valid": true, "problems": [], "warnings": warnings }),
                || page(&file, &config, &warnings),
            );
            Ok(())
        }
        Err(error) if call.global.json => {
            super::say(&format!("{:#}", json!({ "valid": false, "problems": error.records(), "warnings": [] })));
            // The exit code is that of a wrong config, and everything is said.
            Err(Failure::ConfigSaid)
        }
        Err(error) => Err(Failure::Config(error)),
    }
}

/// What the file means, defaults filled in: the reader sees whether it is what was meant.
fn page(file: &Path, config: &Checked, warnings: &[ProblemRecord]) -> String {
    let mut page = format!("{} is valid.\n\n", file.display());
    let mut rows: Vec<[String; 3]> = Vec::new();
    for source in &config.sources {
        let what = match &source.config {
            SourceConfig::Postgres(postgres) => format!("postgres, tables {}", postgres.tables.join(", ")),
            SourceConfig::Files(files) => {
                let tables: Vec<&str> = files.tables.iter().map(|table| table.name.as_str()).collect();
                format!("files of {}, tables {}", files.folder.display(), tables.join(", "))
            }
        };
        rows.push(["source".into(), source.name.clone(), what]);
    }
    for route in &config.routes {
        rows.push(["route".into(), route.name.clone(), route_line(route)]);
    }
    let outbox = &config.outbox;
    let room = format!("at most {}, settled events kept for {}", outbox.max_size, outbox.retain);
    rows.push(["outbox".into(), outbox.sqlite.display().to_string(), room]);
    let token = if config.admin.token.is_some() { "with a token" } else { "loopback only" };
    rows.push(["admin".into(), config.admin.listen.to_string(), token.into()]);
    page.push_str(&table::aligned(&rows, 2));
    for warning in warnings {
        let _ = write!(page, "\nwarning: {warning}\n");
    }
    page.push_str("\nNo connection was made; `towpath doctor` looks at the live systems.");
    page
}

fn route_line(route: &CheckedRoute) -> String {
    let steps: Vec<&str> = route.steps.iter().map(|step| step.name()).collect();
    let through = if steps.is_empty() { String::new() } else { format!(" through {},", steps.join(", ")) };
    let form = match (route.event.format, route.event.bundle.map(|bundling| bundling.by)) {
        (Format::Cloudevents, None) => "",
        (Format::CloudeventsStructured, None) => " as structured CloudEvents",
        (Format::Debezium, None) => " in Debezium's envelope",
        (Format::Row, None) => " as plain rows",
        (_, Some(BundleBy::Transaction)) => " with each transaction in one message",
        (_, Some(BundleBy::Capture)) => " with several changes in one message",
    };
    let EventForm { exchange, routing_key, .. } = &route.event;
    format!("{}{through}{form} to exchange {exchange}, routing key {routing_key}", route.from)
}
