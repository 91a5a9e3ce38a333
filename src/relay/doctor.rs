//! Looks at the broker for `towpath doctor`: reaches every node, logs in, and finds what routes name. Declares nothing.

use std::time::Duration;

use towpath_contract::{Error, ErrorKind, Finding, Secret, Severity};

use super::topology::{self, Plan};
use super::wire::{Endpoint, TlsSettings, open};
use crate::config::model::RabbitmqConfig;

/// For connecting to one node and logging in.
const CONNECT_MAX: Duration = Duration::from_secs(10);

/// `exchanges`: those that routes name without a template.
pub async fn doctor(config: &RabbitmqConfig, exchanges: Vec<String>) -> Vec<Finding> {
    let tls = &config.tls;
    let tls = match TlsSettings::load(tls.ca.as_ref(), tls.certificate.as_ref(), tls.key.as_ref()) {
        Ok(tls) => tls,
        Err(error) => return vec![finding("broker_tls", &error)],
    };
    let mut findings = Vec::new();
    for url in &config.urls {
        findings.extend(node(url, config, &tls, &exchanges).await);
    }
    findings.extend(no_queue(config));
    findings
}

/// Bindings cannot be asked for by AMQP.
fn no_queue(config: &RabbitmqConfig) -> Option<Finding> {
    config.declare.queues.is_empty().then(|| Finding {
        severity: Severity::Note,
        code: "broker_queues",
        message: "rabbitmq.declare names no queue: an event that no queue is bound for stops its route until one is, and whether one \
                  is cannot be seen from here"
            .into(),
        fix: None,
        who: None,
    })
}

async fn node(url: &Secret, config: &RabbitmqConfig, tls: &TlsSettings, exchanges: &[String]) -> Vec<Finding> {
    let endpoint = match Endpoint::parse(url) {
        Ok(endpoint) => endpoint,
        Err(error) => return vec![finding("broker_url", &error)],
    };
    let tls = endpoint.is_tls().then_some(tls);
    let connection = match tokio::time::timeout(CONNECT_MAX, open(&endpoint, tls, config.heartbeat.0)).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => return vec![finding("broker_unreachable", &error)],
        Err(_) => {
            let operation = format!("connecting to {}", endpoint.label());
            let error =
                Error::retry(ErrorKind::Timeout, operation, format!("no answer within {} s", CONNECT_MAX.as_secs()));
            return vec![finding("broker_unreachable", &error)];
        }
    };
    let Ok(address) = connection.peer() else { return Vec::new() };
    let missing = topology::apply(&Plan::verifying(&config.declare, exchanges), &endpoint, address, tls).await;
    let missing = missing.into_iter().map(|message| Finding {
        severity: Severity::Error,
        code: "broker_topology",
        message,
        fix: None,
        who: Some("whoever administers RabbitMQ".into()),
    });
    missing.collect()
}

fn finding(code: &'static str, error: &Error) -> Finding {
    Finding {
        severity: Severity::Error,
        code,
        message: format!("{}: {}", error.operation, error.message),
        fix: error.help.clone(),
        who: None,
    }
}
