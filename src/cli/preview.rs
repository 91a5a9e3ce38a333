//! `towpath preview`

use std::fmt::Write;

use serde_json::json;

use super::engine::{Preview, Wanted};
use super::{Call, Failure};
use crate::config::Purpose;
use crate::event::Event;
use crate::route::{Previewed, Stage};

#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The table: `source.schema.table`
    table: String,

    /// How many rows, at most
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=1000))]
    limit: u16,
}

pub(super) fn preview(call: &Call<'_>, arguments: &Arguments) -> Result<(), Failure> {
    let config = call.load(Purpose::Run)?;
    let wrong = |message: String, help: String| Failure::Call { message, help: Some(help) };
    let parts: Vec<&str> = arguments.table.splitn(3, '.').collect();
    let [source, schema, table] = parts.as_slice() else {
        let message = format!("`{}` names no table", arguments.table);
        return Err(wrong(message, "write `source.schema.table`, as in a route's `from`".into()));
    };
    let wanted = Wanted {
        source: (*source).into(),
        schema: (*schema).into(),
        table: (*table).into(),
        rows: usize::from(arguments.limit),
    };
    let found = call.block_on(async {
        let failed = |error: towpath_contract::Error| {
            Failure::work(format!("{}: {}", error.operation, error.message), error.help)
        };
        call.engine.preview(&config, &wanted).await.map_err(failed)
    })?;
    let Some(previews) = found else {
        let names: Vec<&str> = config.sources.iter().map(|source| source.name.as_str()).collect();
        return Err(wrong(format!("there is no source `{source}`"), format!("there are: {}", names.join(", "))));
    };
    if previews.is_empty() {
        let help = format!("a route with `from: {}` would", arguments.table);
        return Err(Failure::work(format!("no route takes {}", arguments.table), Some(help)));
    }
    call.print(|| records(&previews), || page(&previews));
    Ok(())
}

fn page(previews: &[Preview]) -> String {
    let mut page = String::new();
    for Preview { route, steps, rows } in previews {
        let count = if rows.len() == 1 { "1 row".to_owned() } else { format!("{} rows", rows.len()) };
        let _ = writeln!(page, "route {route}: {count}\n");
        rows.iter().enumerate().for_each(|(nth, row)| one(&mut page, nth + 1, steps, row));
    }
    page.push_str("Nothing was published, and nothing was changed.");
    page
}

/// Steps that changed nothing are left out.
fn one(page: &mut String, number: usize, steps: &[&str], row: &Previewed) {
    let width = steps.iter().map(|step| step.len()).max().unwrap_or(0).max("the table".len());
    let _ = writeln!(page, "  {number}");
    let mut last = "";
    for Stage { step, row } in &row.stages {
        if row != last {
            let name = step.map_or("the table", |step| steps.get(step).copied().unwrap_or_default());
            let _ = writeln!(page, "    {name:width$}  {}", in_short(row));
        }
        last = row;
    }
    if row.events.is_empty() {
        // The step that left it out is the one after the last that is shown.
        let by = row.stages.last().map_or(0, |stage| stage.step.map_or(0, |step| step + 1));
        let _ = writeln!(page, "    {:width$}  no event", steps.get(by).copied().unwrap_or_default());
    }
    for event in row.events.iter() {
        let _ = writeln!(
            page,
            "    {:width$}  to exchange {:?}, routing key {:?}",
            "event", event.exchange, event.routing_key
        );
        let _ = writeln!(page, "    {:width$}  {}", "", in_short(String::from_utf8_lossy(event.body).trim_end()));
        if let Some(reason) = event.parked {
            let _ = writeln!(page, "    {:width$}  is parked: {reason}", "");
        }
    }
    page.push('\n');
}

/// Long texts are cut, with how much there is: `--json` has the whole of them.
fn in_short(json: &str) -> String {
    const SHOWN_CHARS: usize = 120;
    let mut out = String::new();
    let mut rest = json;
    // Texts are what stands between quotes; what is escaped with a backslash ends none.
    while let Some(start) = rest.find('"') {
        let inside = &rest[start + 1..];
        let mut escaped = false;
        let end = inside.find(|char: char| {
            let is_end = char == '"' && !escaped;
            escaped = char == '\\' && !escaped;
            is_end
        });
        let Some(end) = end else { break };
        let text = &inside[..end];
        out.push_str(&rest[..=start]);
        match text.char_indices().nth(SHOWN_CHARS) {
            Some((cut, _)) => {
                let _ = write!(out, "{}… ({} characters)", &text[..cut], text.chars().count());
            }
            None => out.push_str(text),
        }
        out.push('"');
        rest = &inside[end + 1..];
    }
    out + rest
}

fn records(previews: &[Preview]) -> serde_json::Value {
    let event = |event: Event<'_>| {
        json!({
            "exchange": event.exchange,
            "routing_key": event.routing_key,
            "body": String::from_utf8_lossy(event.body),
            "parked": event.parked,
        })
    };
    let row = |steps: &[&'static str], row: &Previewed| {
        let stages = row.stages.iter().map(|stage| {
            let shown: serde_json::Value = serde_json::from_str(&stage.row).unwrap_or_default();
            json!({ "step": stage.step.and_then(|step| steps.get(step)), "row": shown })
        });
        json!({ "stages": stages.collect::<Vec<_>>(), "events": row.events.iter().map(event).collect::<Vec<_>>() })
    };
    let one = |preview: &Preview| {
        let rows = preview.rows.iter().map(|previewed| row(&preview.steps, previewed));
        json!({ "route": preview.route, "rows": rows.collect::<Vec<_>>() })
    };
    json!({ "routes": previews.iter().map(one).collect::<Vec<_>>() })
}

#[cfg(test)]
mod tests {
    use super::in_short;

    #[test]
    fn long_texts_are_cut_and_the_rest_stays() {
        let long = "x".repeat(6400);
        let row = format!(r#"{{"id":1,"note":"{long}","said":"a \"b\" \\","n":null}}"#);
        let cut = format!("{}… (6400 characters)", "x".repeat(120));
        assert_eq!(in_short(&row), row.replace(&long, &cut));
        for whole in ["plain", "{\"a\":\"b", "", "[1,2]"] {
            assert_eq!(in_short(whole), whole);
        }
    }
}
