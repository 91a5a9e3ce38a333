//! `towpath doctor`: every source and the broker, looked at live. Changes nothing.

use crate::cli::engine::Examined;
use crate::config::Checked;
use crate::{registry, relay};

pub(super) async fn examine(config: &Checked) -> Vec<Examined> {
    let mut examined = Vec::new();
    for source in &config.sources {
        let live = registry::source(&source.name, &source.config, &super::spool_folder(&config.outbox.sqlite));
        examined.push(Examined { subject: format!("source {}", source.name), findings: live.doctor().await });
    }
    let exchanges = config.routes.iter().map(|route| route.exchange.clone()).filter(|name| !name.contains("{{"));
    let findings = relay::doctor(&config.broker, exchanges.collect()).await;
    examined.push(Examined { subject: "rabbitmq".into(), findings });
    examined
}
