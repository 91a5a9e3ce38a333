//! What a consumer does: declare, bind, receive.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, ExchangeDeclareOptions,
    ExchangeDeleteOptions, QueueBindOptions, QueueDeclareOptions, QueueDeleteOptions, QueuePurgeOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties, Consumer, ExchangeKind};

use super::RabbitMq;

/// A call to a broker that is well.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueueKind {
    Quorum,
    Classic,
    Stream,
}

impl QueueKind {
    fn name(self) -> &'static str {
        match self {
            QueueKind::Quorum => "quorum",
            QueueKind::Classic => "classic",
            QueueKind::Stream => "stream",
        }
    }
}

/// A message as a consumer received it.
#[derive(Clone, Debug, PartialEq)]
pub struct Delivery {
    /// Empty where the message has none.
    pub message_id: String,
    pub exchange: String,
    pub routing_key: String,
    /// The AMQP property `type`.
    pub event_type: String,
    /// Headers that are strings, as strings; others as their debug text.
    pub headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
    pub redelivered: bool,
    pub properties: BasicProperties,
}

impl Delivery {
    /// # Panics
    /// When the body is not JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&self.body)))
    }

    fn new(delivery: lapin::message::Delivery) -> Delivery {
        let properties = delivery.properties;
        let text = |value: &Option<lapin::types::ShortString>| value.as_ref().map(|text| text.to_string());
        let headers = properties.headers().iter().flat_map(|table| table.inner().iter());
        Delivery {
            message_id: text(properties.message_id()).unwrap_or_default(),
            exchange: delivery.exchange.to_string(),
            routing_key: delivery.routing_key.to_string(),
            event_type: text(properties.kind()).unwrap_or_default(),
            headers: headers.map(|(name, value)| (name.to_string(), header(value))).collect(),
            body: delivery.data,
            redelivered: delivery.redelivered,
            properties,
        }
    }
}

fn header(value: &AMQPValue) -> String {
    match value {
        AMQPValue::LongString(text) => String::from_utf8_lossy(text.as_bytes()).into_owned(),
        AMQPValue::ShortString(text) => text.to_string(),
        other => format!("{other:?}"),
    }
}

impl RabbitMq {
    /// A connection of lapin's, for what is not offered here.
    ///
    /// # Panics
    /// When it cannot be made.
    pub async fn connect(&self) -> Connection {
        self.try_connect().await.unwrap_or_else(|error| panic!("cannot connect to the broker: {error}"))
    }

    async fn try_connect(&self) -> lapin::Result<Connection> {
        Connection::connect(&self.url(), ConnectionProperties::default()).await
    }

    /// Runs `work` on a channel of its own.
    ///
    /// # Panics
    /// When the broker refuses, or does not answer.
    async fn on_channel<T>(&self, what: &str, work: impl AsyncFnOnce(&Channel) -> lapin::Result<T>) -> T {
        let done = async {
            let connection = self.try_connect().await?;
            let done = work(&connection.create_channel().await?).await;
            let _ = connection.close(200, "done".into()).await;
            done
        };
        let done = tokio::time::timeout(ANSWER_WITHIN, done).await.unwrap_or_else(|_| panic!("{what}: no answer"));
        done.unwrap_or_else(|error| panic!("{what}: {error}"))
    }

    /// Declares a durable topic exchange.
    pub async fn declare_exchange(&self, name: &str) {
        let options = ExchangeDeclareOptions { durable: true, ..Default::default() };
        let work = async |channel: &Channel| {
            channel.exchange_declare(name.into(), ExchangeKind::Topic, options, FieldTable::default()).await
        };
        self.on_channel(&format!("declaring the exchange {name}"), work).await;
    }

    /// Declares a durable queue.
    pub async fn declare_queue(&self, name: &str, kind: QueueKind) {
        let mut arguments = FieldTable::default();
        arguments.insert("x-queue-type".into(), AMQPValue::LongString(kind.name().into()));
        let options = QueueDeclareOptions { durable: true, ..Default::default() };
        let work = async |channel: &Channel| channel.queue_declare(name.into(), options, arguments).await;
        self.on_channel(&format!("declaring the queue {name}"), work).await;
    }

    pub async fn bind(&self, queue: &str, exchange: &str, pattern: &str) {
        let (options, arguments) = (QueueBindOptions::default(), FieldTable::default());
        let work = async |channel: &Channel| {
            channel.queue_bind(queue.into(), exchange.into(), pattern.into(), options, arguments).await
        };
        self.on_channel(&format!("binding {queue} to {exchange} by {pattern}"), work).await;
    }

    pub async fn unbind(&self, queue: &str, exchange: &str, pattern: &str) {
        let work = async |channel: &Channel| {
            channel.queue_unbind(queue.into(), exchange.into(), pattern.into(), FieldTable::default()).await
        };
        self.on_channel(&format!("unbinding {queue} from {exchange} by {pattern}"), work).await;
    }

    /// The exchange `towpath`, and a quorum queue bound to it by `#`: all that Towpath publishes by default.
    pub async fn declare_queue_of_everything(&self, queue: &str) {
        self.declare_exchange("towpath").await;
        self.declare_queue(queue, QueueKind::Quorum).await;
        self.bind(queue, "towpath", "#").await;
    }

    /// Deletes an exchange, and its bindings with it.
    pub async fn delete_exchange(&self, name: &str) {
        let work =
            async |channel: &Channel| channel.exchange_delete(name.into(), ExchangeDeleteOptions::default()).await;
        self.on_channel(&format!("deleting the exchange {name}"), work).await;
    }

    pub async fn delete_queue(&self, name: &str) {
        let work = async |channel: &Channel| channel.queue_delete(name.into(), QueueDeleteOptions::default()).await;
        self.on_channel(&format!("deleting the queue {name}"), work).await;
    }

    pub async fn purge_queue(&self, name: &str) {
        let work = async |channel: &Channel| channel.queue_purge(name.into(), QueuePurgeOptions::default()).await;
        self.on_channel(&format!("purging the queue {name}"), work).await;
    }

    /// Messages ready in the queue: neither delivered nor acknowledged.
    pub async fn depth(&self, queue: &str) -> u32 {
        let options = QueueDeclareOptions { passive: true, ..Default::default() };
        let work = async |channel: &Channel| channel.queue_declare(queue.into(), options, FieldTable::default()).await;
        self.on_channel(&format!("asking for the queue {queue}"), work).await.message_count()
    }

    /// Publishes a plain message, for tests of the test support itself and for poison.
    pub async fn publish(&self, exchange: &str, routing_key: &str, message_id: &str, body: &[u8]) {
        let properties = BasicProperties::default().with_message_id(message_id.into());
        let work = async |channel: &Channel| {
            channel.confirm_select(Default::default()).await?;
            let options = BasicPublishOptions { mandatory: true, ..Default::default() };
            channel.basic_publish(exchange.into(), routing_key.into(), options, body, properties).await?.await
        };
        let confirm = self.on_channel("publishing", work).await;
        assert!(confirm.is_ack() && confirm.take_message().is_none(), "the message was not taken: {routing_key}");
    }

    /// Receives all that comes to the queue, and acknowledges it.
    pub fn inbox(&self, queue: &str) -> Inbox {
        Inbox { url: self.url(), queue: queue.into(), link: None, received: Vec::new() }
    }
}

/// Messages unacknowledged at a time.
const PREFETCH: u16 = 1000;
/// After this long without a message, all that is at hand has come.
const AT_HAND: Duration = Duration::from_millis(20);

/// A consumer that keeps what it received. It connects when it is first asked, and again after the broker was away.
#[derive(Debug)]
pub struct Inbox {
    url: String,
    queue: String,
    link: Option<Link>,
    received: Vec<Delivery>,
}

#[derive(Debug)]
struct Link {
    consumer: Consumer,
    _channel: Channel,
    _connection: Connection,
}

impl Inbox {
    /// All that was received so far, in the order of arrival, duplicates too.
    pub fn received(&self) -> &[Delivery] {
        &self.received
    }

    /// Hands over what was received so far and forgets it.
    pub fn take(&mut self) -> Vec<Delivery> {
        std::mem::take(&mut self.received)
    }

    /// Receives until `condition` is `Ok` with all that was received, and returns what it found.
    ///
    /// # Panics
    /// After `within`, naming `what` was waited for and the last `Err`.
    pub async fn until<T, S: Debug>(
        &mut self,
        what: &str,
        within: Duration,
        mut condition: impl FnMut(&[Delivery]) -> Result<T, S>,
    ) -> T {
        let deadline = Instant::now() + within;
        loop {
            match condition(&self.received) {
                Ok(found) => return found,
                Err(state) if Instant::now() >= deadline => panic!(
                    "waited {within:?} for: {what}; {} messages received; last seen: {state:?}",
                    self.received.len()
                ),
                Err(_) => self.pump().await,
            }
        }
    }

    /// Receives until there are at least `count` messages.
    ///
    /// # Panics
    /// After `within`.
    pub async fn until_count(&mut self, count: usize, within: Duration) -> &[Delivery] {
        let enough = |all: &[Delivery]| if all.len() >= count { Ok(()) } else { Err(all.len()) };
        self.until(&format!("{count} messages"), within, enough).await;
        &self.received
    }

    /// Whether the broker is away, or told that the queue was deleted. Then all that it sent before was received.
    pub fn is_cut_off(&self) -> bool {
        self.link.is_none()
    }

    /// Receives what is at hand, and acknowledges it. Returns when nothing came for a moment, or the broker is away.
    pub async fn pump(&mut self) {
        if self.link.is_none() {
            self.link = tokio::time::timeout(Duration::from_secs(5), self.open()).await.ok().and_then(Result::ok);
        }
        let Some(link) = &mut self.link else { return tokio::time::sleep(AT_HAND).await };
        let mut last = None;
        let mut lost = false;
        // At most the prefetch between two acknowledgements.
        for _ in 0..PREFETCH / 2 {
            match tokio::time::timeout(AT_HAND, link.consumer.next()).await {
                Ok(Some(Ok(delivery))) => {
                    last = Some(delivery.acker.clone());
                    self.received.push(Delivery::new(delivery));
                }
                Ok(_) => {
                    lost = true;
                    break;
                }
                Err(_) => break,
            }
        }
        if let Some(acker) = last {
            lost |= acker.ack(BasicAckOptions { multiple: true }).await.is_err();
        }
        if lost {
            self.link = None;
        }
    }

    async fn open(&self) -> lapin::Result<Link> {
        let connection = Connection::connect(&self.url, ConnectionProperties::default()).await?;
        let channel = connection.create_channel().await?;
        channel.basic_qos(PREFETCH, BasicQosOptions::default()).await?;
        let (options, arguments) = (BasicConsumeOptions::default(), FieldTable::default());
        let consumer = channel.basic_consume(self.queue.as_str().into(), "".into(), options, arguments).await?;
        Ok(Link { consumer, _channel: channel, _connection: connection })
    }
}
