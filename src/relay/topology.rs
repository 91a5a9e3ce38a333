//! Exchanges, queues and bindings: looked at or declared once per connection, before anything is published.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use lapin::options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::tcp::{AsyncTcpStream, RustlsConnectorConfig};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{Channel, Connection, ConnectionProperties, ErrorKind, ExchangeKind};

use super::wire::{Endpoint, TlsSettings};
use crate::config::model::{DeclareConfig, ExchangeConfig, QueueConfig};

/// AMQP 0-9-1, reply codes.
const ACCESS_REFUSED: u16 = 403;

/// For all of it: connecting, declaring, closing.
const SECONDS_MAX: u64 = 30;

/// What must be there, and what is put there.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// Exchanges that routes name and the config does not declare.
    verify: Vec<String>,
    exchanges: BTreeMap<String, String>,
    queues: BTreeMap<String, QueueConfig>,
}

impl Plan {
    /// `named`: the exchanges that routes name without a template.
    pub fn new(declare: &DeclareConfig, named: impl IntoIterator<Item = String>) -> Plan {
        let kind_of = |exchange: &ExchangeConfig| exchange.exchange_type.clone();
        let mut plan = Plan {
            verify: Vec::new(),
            exchanges: declare
                .exchanges
                .iter()
                .flatten()
                .map(|(name, exchange)| (name.clone(), kind_of(exchange)))
                .collect(),
            queues: declare.queues.clone(),
        };
        for name in named {
            // The default exchange and the predeclared ones exist, and may not be declared (specification 3.1.3).
            let reserved = name.is_empty() || name.starts_with("amq.");
            if declare.exchanges.is_none() && !reserved {
                plan.exchanges.insert(name, "topic".into());
            } else if !name.is_empty() && !plan.exchanges.contains_key(&name) && !plan.verify.contains(&name) {
                plan.verify.push(name);
            }
        }
        plan
    }

    /// Only looks: for the exchanges of `named` that [`Plan::new`] would not declare.
    pub(super) fn verifying(declare: &DeclareConfig, named: &[String]) -> Plan {
        let Plan { verify, .. } = Plan::new(declare, named.iter().cloned());
        Plan { verify, ..Plan::default() }
    }

    fn is_empty(&self) -> bool {
        self.verify.is_empty() && self.exchanges.is_empty() && self.queues.is_empty()
    }
}

/// Declares and verifies on the node at `address`. Returns what is wrong, one line each; publishing goes on regardless, for
/// other routes may be well.
pub(super) async fn apply(
    plan: &Plan,
    endpoint: &Endpoint,
    address: SocketAddr,
    tls: Option<&TlsSettings>,
) -> Vec<String> {
    if plan.is_empty() {
        return Vec::new();
    }
    let work = async {
        let connection = connect(endpoint, address, tls).await?;
        let mut bench = Bench { connection, channel: None, findings: Vec::new() };
        bench.run(plan).await?;
        // Dropping it closes it too, but less politely.
        _ = bench.connection.close(200, "done".into()).await;
        Ok::<_, lapin::Error>(bench.findings)
    };
    match tokio::time::timeout(Duration::from_secs(SECONDS_MAX), work).await {
        Ok(Ok(findings)) => findings,
        Ok(Err(why)) => vec![format!("exchanges and queues could not be looked at: {}", broker_words(&why))],
        Err(_) => vec![format!("exchanges and queues could not be looked at: no answer within {SECONDS_MAX} s")],
    }
}

/// lapin's own way to TLS adds the system's authorities to ours; and without its TLS features an `amqps` URL would go out in
/// plain text. So the stream is made here, to the very node that the relay is connected to.
async fn connect(endpoint: &Endpoint, address: SocketAddr, tls: Option<&TlsSettings>) -> lapin::Result<Connection> {
    let mut uri = endpoint.uri.clone();
    uri.query.heartbeat = Some(10);
    let tls = if endpoint.is_tls() { tls.cloned() } else { None };
    let properties = ConnectionProperties::default().with_connection_name("towpath topology".into());
    Connection::connector(
        uri,
        lapin::runtime::default_runtime()?,
        async move |uri, runtime| {
            let stream = AsyncTcpStream::connect(&runtime, address).await?;
            let Some(tls) = &tls else { return Ok(stream) };
            let mut config = RustlsConnectorConfig::default();
            config.add_parsable_certificates(tls.authorities.clone());
            let connector = match &tls.identity {
                None => config.connector_with_no_client_auth()?,
                Some(identity) => {
                    config.connector_with_single_cert(identity.chain.clone(), identity.key.clone_key())?
                }
            };
            Ok(stream.into_rustls(&connector, &uri.authority.host).await?)
        },
        properties,
    )
    .await
}

struct Bench {
    connection: Connection,
    /// The broker closes it over every refusal; then the next one is opened.
    channel: Option<Channel>,
    findings: Vec<String>,
}

impl Bench {
    async fn run(&mut self, plan: &Plan) -> lapin::Result<()> {
        for (name, kind) in &plan.exchanges {
            let expected = format!("exchange `{name}` should be a durable {kind} exchange");
            let Some(short) = self.short(name) else { continue };
            let options = ExchangeDeclareOptions { durable: true, ..Default::default() };
            let channel = self.channel().await?;
            let declared = channel.exchange_declare(short, exchange_kind(kind), options, FieldTable::default()).await;
            self.note(
                declared,
                &expected,
                "delete it, or write its type under rabbitmq.declare.exchanges, or leave it out there",
            )?;
        }
        for name in &plan.verify {
            let Some(short) = self.short(name) else { continue };
            let options = ExchangeDeclareOptions { passive: true, ..Default::default() };
            let channel = self.channel().await?;
            let found = channel.exchange_declare(short, ExchangeKind::Topic, options, FieldTable::default()).await;
            let way_out = "declare it in the broker, or list it under rabbitmq.declare.exchanges";
            self.note(found, &format!("exchange `{name}`, which a route names, should exist"), way_out)?;
        }
        for (name, queue) in &plan.queues {
            self.queue(name, queue).await?;
        }
        Ok(())
    }

    async fn queue(&mut self, name: &str, queue: &QueueConfig) -> lapin::Result<()> {
        let Some(short) = self.short(name) else { return Ok(()) };
        let mut arguments = FieldTable::default();
        arguments.insert("x-queue-type".into(), AMQPValue::LongString(queue.queue_type.as_str().into()));
        let options = QueueDeclareOptions { durable: true, ..Default::default() };
        let declared = self.channel().await?.queue_declare(short.clone(), options, arguments).await.map(drop);
        let expected = format!("queue `{name}` should be a durable {} queue", queue.queue_type);
        self.note(declared, &expected, "delete it when it is empty, or write its type under rabbitmq.declare.queues")?;
        for pattern in &queue.bind {
            let (Some(exchange), Some(routing_key)) = (self.short(&queue.exchange), self.short(pattern)) else {
                continue;
            };
            let channel = self.channel().await?;
            let bound = channel
                .queue_bind(short.clone(), exchange, routing_key, QueueBindOptions::default(), FieldTable::default())
                .await;
            let expected = format!("queue `{name}` should be bound to exchange `{}` by `{pattern}`", queue.exchange);
            self.note(bound, &expected, "see that both exist and that the user may bind them")?;
        }
        Ok(())
    }

    async fn channel(&mut self) -> lapin::Result<Channel> {
        if let Some(channel) = self.channel.as_ref().filter(|channel| channel.status().connected()) {
            return Ok(channel.clone());
        }
        let channel = self.connection.create_channel().await?;
        self.channel = Some(channel.clone());
        Ok(channel)
    }

    /// A refusal by the broker is a finding; anything else ends the work.
    fn note(&mut self, outcome: lapin::Result<()>, expected: &str, way_out: &str) -> lapin::Result<()> {
        let Err(why) = outcome else { return Ok(()) };
        if !matches!(why.kind(), ErrorKind::ProtocolError(_)) {
            return Err(why);
        }
        self.channel = None;
        let way_out = match why.kind() {
            ErrorKind::ProtocolError(said) if said.get_id() == ACCESS_REFUSED => {
                "give the user the right to it (`rabbitmqctl set_permissions`: configure to declare, write and read to bind)"
            }
            _ => way_out,
        };
        self.findings.push(format!("{expected}, but the broker says: {}; {way_out}", broker_words(&why)));
        Ok(())
    }

    fn short(&mut self, name: &str) -> Option<ShortString> {
        match ShortString::try_new(name) {
            Ok(short) => Some(short),
            Err(why) => {
                let start: String = name.chars().take(40).collect();
                self.findings.push(format!("`{start}…` is too long a name: {why}"));
                None
            }
        }
    }
}

fn exchange_kind(kind: &str) -> ExchangeKind {
    match kind {
        "topic" => ExchangeKind::Topic,
        "direct" => ExchangeKind::Direct,
        "fanout" => ExchangeKind::Fanout,
        "headers" => ExchangeKind::Headers,
        plugin => ExchangeKind::Custom(plugin.to_owned()),
    }
}

fn broker_words(why: &lapin::Error) -> String {
    match why.kind() {
        ErrorKind::ProtocolError(said) => format!("{} {}", said.get_id(), said.get_message()),
        _ => why.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(declare: &DeclareConfig, named: &[&str]) -> (Vec<String>, Vec<(String, String)>) {
        let plan = Plan::new(declare, named.iter().map(|name| (*name).to_owned()));
        (plan.verify, plan.exchanges.into_iter().collect())
    }

    #[test]
    fn by_default_the_exchanges_that_routes_name_are_declared_as_topics() {
        let found = plan(&DeclareConfig::default(), &["towpath", "", "amq.topic", "towpath", "legacy"]);
        let topic = |name: &str| (name.to_owned(), "topic".to_owned());
        assert_eq!(found, (vec!["amq.topic".to_owned()], vec![topic("legacy"), topic("towpath")]));
    }

    #[test]
    fn with_a_list_only_what_it_names_is_declared_and_the_rest_is_verified() {
        let direct = ExchangeConfig { exchange_type: "direct".into() };
        let declare = DeclareConfig { exchanges: Some([("a".to_owned(), direct)].into()), ..Default::default() };
        let found = plan(&declare, &["a", "b", "b", ""]);
        assert_eq!(found, (vec!["b".to_owned()], vec![("a".to_owned(), "direct".to_owned())]));
    }
}
