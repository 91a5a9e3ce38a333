//! `towpath doctor`: every source and the broker, looked at live. Changes nothing.

use towpath_contract::{Finding, Known, Severity};

use crate::cli::engine::Examined;
use crate::config::Checked;
use crate::outbox::{self, OutboxError};
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
        examined.push(Examined { subject: format!("source {}", source.name), findings: live.doctor(known).await });
    }
    let exchanges = config.routes.iter().map(|route| route.exchange.clone()).filter(|name| !name.contains("{{"));
    let findings = relay::doctor(&config.broker, exchanges.collect()).await;
    examined.push(Examined { subject: "rabbitmq".into(), findings });
    examined
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
