//! `towpath doctor`: every source and the broker, looked at live. Changes nothing.

use towpath_contract::{Finding, Known, OldRows, Severity, Source};

use super::{related, unfit};
use crate::cli::engine::Examined;
use crate::config::Checked;
use crate::config::checked::{CheckedRoute, CheckedSource};
use crate::event::RouteId;
use crate::outbox::{self, OutboxError};
use crate::route::Router;
use crate::{registry, relay};

pub(super) async fn examine(config: &Checked) -> Vec<Examined> {
    let mut examined = Vec::new();
    let peeked = outbox::peek(&config.outbox.sqlite);
    if let Err(error) = &peeked {
        examined.push(Examined { subject: "outbox".into(), findings: vec![unusable(error)] });
    }
    let stored = peeked.unwrap_or_default();
    for source in &config.sources {
        let live = registry::source(&source.name, &source.config, &super::spool_folder(&config.outbox.sqlite));
        let (unfit, old_rows) = held_against_routes(config, source, &*live).await.unwrap_or_default();
        let resume = stored.get(&source.name).cloned();
        let mut findings = live.doctor(Known { resume, outbox_bytes_max: config.outbox.max_size.0, old_rows }).await;
        findings.extend(unfit);
        examined.push(Examined { subject: format!("source {}", source.name), findings });
    }
    let exchanges = config.routes.iter().flat_map(CheckedRoute::exchanges);
    let findings = relay::doctor(&config.broker, exchanges.collect()).await;
    examined.push(Examined { subject: "rabbitmq".into(), findings });
    examined
}

/// On the tables as they are now: what of the routes does not fit them, and what of them the routes need. A source that cannot be
/// asked says so itself.
async fn held_against_routes(
    config: &Checked,
    source: &CheckedSource,
    live: &dyn Source,
) -> Option<(Vec<Finding>, Vec<OldRows>)> {
    let routes: Vec<_> = config.routes.iter().map(|route| route.route(RouteId(0))).collect();
    let router = Router::new(&source.name, &routes);
    if !router.looks_into_rows() {
        return None;
    }
    let mut tables = live.tables().await.ok()?;
    let missing = related::add_looked_up(live, &router, &mut tables).await.err().map(|error| Finding {
        severity: Severity::Error,
        code: "lookup",
        message: format!("{}: {}", error.operation, error.message),
        fix: error.help,
        who: Some("the owner of the table, or whoever writes the config".into()),
    });
    let unfit = router.unfit(&tables).into_iter().map(|unfit| {
        let error = unfit::error(unfit, &config.routes, &config.places);
        Finding {
            severity: Severity::Error,
            code: "transform",
            message: format!("{}: {}", error.operation, error.message),
            fix: error.help,
            who: Some("whoever writes the config".into()),
        }
    });
    let old_rows = router.needing_old_rows(&tables).into_iter().map(|need| {
        let (schema, table) = need.table;
        OldRows { schema, table, needed_by: unfit::path(&need.route, &need.place, &config.routes).to_string() }
    });
    Some((unfit.chain(missing).collect(), old_rows.collect()))
}

fn unusable(error: &OutboxError) -> Finding {
    Finding {
        severity: Severity::Error,
        code: "outbox",
        message: error.to_string(),
        fix: error.help(),
        who: Some("whoever runs Towpath".into()),
    }
}
