//! `towpath doctor`: every source and the broker, looked at live. Changes nothing.

use towpath_contract::{Finding, Known, Severity, Source};

use super::unfit;
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
        let known = Known { resume: stored.get(&source.name).cloned(), outbox_bytes_max: config.outbox.max_size.0 };
        let mut findings = live.doctor(known).await;
        findings.extend(steps_that_cannot_be_done(config, source, &*live).await);
        examined.push(Examined { subject: format!("source {}", source.name), findings });
    }
    let exchanges = config.routes.iter().flat_map(CheckedRoute::exchanges);
    let findings = relay::doctor(&config.broker, exchanges.collect()).await;
    examined.push(Examined { subject: "rabbitmq".into(), findings });
    examined
}

/// On the tables as they are now. A source that cannot be asked has said so itself.
async fn steps_that_cannot_be_done(config: &Checked, source: &CheckedSource, live: &dyn Source) -> Option<Finding> {
    let routes: Vec<_> = config.routes.iter().map(|route| super::routed(route, RouteId(0))).collect();
    let router = Router::new(&source.name, &routes);
    if !router.looks_into_rows() {
        return None;
    }
    let unfit = router.try_on(&live.tables().await.ok()?).err()?;
    let error = unfit::error(unfit, &config.routes, &config.places);
    Some(Finding {
        severity: Severity::Error,
        code: "transform",
        message: format!("{}: {}", error.operation, error.message),
        fix: error.help,
        who: Some("whoever writes the config".into()),
    })
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
