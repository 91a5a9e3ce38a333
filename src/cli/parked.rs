//! `towpath parked`

use std::fmt::Write;

use serde_json::json;

use super::ask::Asker;
use super::{Call, Failure, table, units};
use crate::admin::command::Command as Asked;
use crate::admin::parked::{Body, PAGE_EVENTS_MAX, ParkedEvent, ParkedPage, ParkedQuery, ParkedSelection};
use crate::config::Purpose;
use crate::event::Seq;

#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// List parked events, the oldest first
    List {
        /// Only this route's
        #[arg(long)]
        route: Option<String>,
        /// Only those after this number: the next page
        #[arg(long, default_value_t = 0, value_name = "SEQ")]
        after: Seq,
        /// At most this many, up to 1000
        #[arg(long, default_value_t = 100, value_name = "COUNT")]
        limit: usize,
    },
    /// Show one event whole, its body included
    Show {
        /// Its number in the list
        seq: Seq,
    },
    /// Publish events again, in their order
    Retry(Selection),
    /// Remove events for good
    Discard(Selection),
}

#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct Selection {
    /// Their numbers in the list
    seqs: Vec<Seq>,
    /// All of this route's
    #[arg(long)]
    route: Option<String>,
    /// All there are
    #[arg(long)]
    all: bool,
}

pub(super) fn parked(call: &Call<'_>, arguments: &Arguments) -> Result<(), Failure> {
    let config = call.load(Purpose::Ask)?;
    let asker = Asker::new(call, &config);
    match &arguments.what {
        What::List { route, after, limit } => {
            let query = ParkedQuery { route: route.clone(), after: *after, limit: (*limit).clamp(1, PAGE_EVENTS_MAX) };
            let page = call.block_on(asker.parked_list(query))?;
            call.print(|| json!(page), || list(&page));
        }
        What::Show { seq } => {
            let event = call.block_on(asker.parked_show(*seq))?;
            call.print(|| json!(event), || show(&event));
        }
        What::Retry(selection) => {
            let retry = |selection, reply| Asked::ParkedRetry { selection, reply };
            let done = call.block_on(asker.parked_settle("retry", selection.into(), retry))?;
            call.print(|| json!({ "done": done }), || done.clone());
        }
        What::Discard(selection) => {
            let discard = |selection, reply| Asked::ParkedDiscard { selection, reply };
            let done = call.block_on(asker.parked_settle("discard", selection.into(), discard))?;
            call.print(|| json!({ "done": done }), || done.clone());
        }
    }
    Ok(())
}

impl From<&Selection> for ParkedSelection {
    fn from(selection: &Selection) -> ParkedSelection {
        ParkedSelection { seqs: selection.seqs.clone(), route: selection.route.clone(), all: selection.all }
    }
}

fn list(page: &ParkedPage) -> String {
    if page.events.is_empty() {
        return "Nothing is parked.".into();
    }
    let head = ["SEQ", "PARKED", "ROUTE", "ROUTING KEY", "SIZE", "REASON"].map(String::from);
    let rows = page.events.iter().map(|event| {
        [
            event.seq.to_string(),
            units::moment(event.parked_at_ms),
            event.route.clone(),
            event.routing_key.clone(),
            units::bytes(event.body_bytes),
            event.reason.clone(),
        ]
    });
    let rows: Vec<[String; 6]> = std::iter::once(head).chain(rows).collect();
    let mut text = table::aligned(&rows, 0);
    let shown = page.events.len() as u64;
    if let Some(last) = page.events.last().filter(|_| page.total > shown) {
        let _ = write!(text, "\n{shown} of {} shown; the next page: --after {}", units::count(page.total), last.seq);
    }
    text
}

fn show(event: &ParkedEvent) -> String {
    let head = &event.head;
    let mut rows = vec![
        ["seq".into(), head.seq.to_string()],
        ["reason".into(), head.reason.clone()],
        ["parked".into(), units::moment(head.parked_at_ms)],
        ["route".into(), head.route.clone()],
        ["exchange".into(), head.exchange.clone()],
        ["routing key".into(), head.routing_key.clone()],
        ["message-id".into(), head.id.clone()],
        ["key".into(), head.key.clone()],
    ];
    rows.extend(event.properties.iter().map(|(name, value)| [name.clone(), value.clone()]));
    rows.push(["body".into(), units::bytes(head.body_bytes)]);
    let (body, encoding) = match &event.body {
        Body::Text(text) => (text, ""),
        Body::Base64(text) => (text, " (base64)"),
    };
    if let Some(last) = rows.last_mut() {
        last[1].push_str(encoding);
    }
    format!("{}\n{body}", table::aligned(&rows, 0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::parked::ParkedHead;

    fn head(seq: Seq, reason: &str) -> ParkedHead {
        ParkedHead {
            seq,
            route: "orders".into(),
            id: "orders_db-7301-0000".into(),
            key: "{\"id\":7}".into(),
            exchange: "towpath".into(),
            routing_key: "orders.insert".into(),
            reason: reason.into(),
            parked_at_ms: 1_767_225_600_000,
            body_bytes: 2_202_009,
        }
    }

    #[test]
    fn a_list_is_a_table_that_tells_of_its_next_page() {
        let page = ParkedPage {
            events: vec![head(7, "too large for the broker"), head(1_234, "no queue takes it")],
            total: 5_000,
        };
        insta::assert_snapshot!(list(&page), @r"
        SEQ   PARKED                ROUTE   ROUTING KEY    SIZE     REASON
        7     2026-01-01 00:00:00Z  orders  orders.insert  2.1 MiB  too large for the broker
        1234  2026-01-01 00:00:00Z  orders  orders.insert  2.1 MiB  no queue takes it

        2 of 5,000 shown; the next page: --after 1234
        ");
        assert_eq!(list(&ParkedPage::default()), "Nothing is parked.");
    }

    #[test]
    fn an_event_is_shown_whole() {
        let event = ParkedEvent {
            head: head(7, "too large for the broker"),
            properties: vec![("content-type".into(), "application/json".into())],
            body: Body::Text("{\"id\":7}".into()),
        };
        insta::assert_snapshot!(show(&event), @r#"
        seq           7
        reason        too large for the broker
        parked        2026-01-01 00:00:00Z
        route         orders
        exchange      towpath
        routing key   orders.insert
        message-id    orders_db-7301-0000
        key           {"id":7}
        content-type  application/json
        body          2.1 MiB

        {"id":7}
        "#);
    }
}
