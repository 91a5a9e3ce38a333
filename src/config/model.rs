//! The config file, as written. One definition per option: the JSON Schema, the reference page and the errors come from here.
//! Every doc comment states meaning, unit, default, limits and the reason, for the reference is made of them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use towpath_contract::{ByteSize, Secret, Span};
use towpath_files::FilesConfig;
use towpath_postgres::PostgresConfig;

use crate::route::Property;
use crate::route::format::{Bundle, Format};
use crate::route::plan::OnError;
use crate::route::transform::StepConfig;

/// Towpath's configuration: sources, routes, the outbox and the broker.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The legacy systems to read, by a name of your choice: lower-case letters, digits, `_` and `-`, at most 40
    /// characters. The name is part of every event's id and routing key: choose it once.
    pub sources: BTreeMap<String, SourceConfig>,

    /// Which changes become which events. Without routes, every change of every source is published as it is.
    #[serde(default)]
    pub routes: Vec<RouteConfig>,

    pub outbox: OutboxConfig,

    pub rabbitmq: RabbitmqConfig,

    #[serde(default)]
    pub admin: AdminConfig,
}

/// One source. `type` says which connector reads it; the other keys are that connector's.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum SourceConfig {
    /// PostgreSQL 10 to 18, by logical replication.
    Postgres(PostgresConfig),
    /// Files in a folder: delimited, fixed width, JSON lines, DBF, or COBOL records by copybook.
    Files(FilesConfig),
}

/// One route: the changes of some tables become events of one form.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RouteConfig {
    /// `source`, `source.schema.table`, or with `*` for any schema or table: `orders_db.public.*`.
    pub from: String,

    /// The route's name in status, metrics and the outbox. Default: the text of `from`. Must be unique; renaming a route
    /// makes it a new one.
    #[serde(default)]
    pub name: Option<String>,

    /// What is done to each row on its way to an event, in this order: see [the transforms](transforms.md). A column that a step
    /// names must be there, in every table where `from` names one, and in those that have it where `from` has a `*`: a step that
    /// cannot be done on a table stops the source before anything of that table is recorded. An event whose row a step cannot be
    /// done on, for its value, is parked with the reason.
    #[serde(default)]
    pub transform: Vec<StepConfig>,

    /// What happens when a step cannot be done on a row, for its values. `park` (default): the event is set aside with the reason.
    /// `stop`: the source stops before anything of that row's transaction is recorded, until the config or the row can be dealt with.
    /// `nullify`: the value becomes null, the event goes out, and names the column under `nullified`; a step that decides about the
    /// whole change (`filter`, `emit_when`, `branch`) parks it all the same.
    #[serde(default)]
    pub on_error: OnError,

    #[serde(default)]
    pub event: EventConfig,

    /// What happens when the broker has no queue for an event. `stop` (default): the route waits, visibly, and goes on by
    /// itself when a binding appears; other routes go on. `park`: the event is set aside with its reason.
    #[serde(default)]
    pub unroutable: Unroutable,

    /// What happens to later events of a key whose earlier event was parked. `wait` (default): they are parked behind it, so
    /// that the key's order holds. `pass`: they go out.
    #[serde(default)]
    pub after_parked: AfterParked,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Unroutable {
    #[default]
    Stop,
    Park,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AfterParked {
    #[default]
    Wait,
    Pass,
}

/// The form of a route's events. Templates may use `{{ source }}`, `{{ schema }}`, `{{ table }}` and `{{ op }}` (`insert`,
/// `update`, `delete`, `read`, `truncate`, `message`), `{{ type }}` where the event's type is known before its row, and the columns
/// that the steps left: `{{ row.country }}` of the row as it is now, or as it was before a delete, `{{ before.country }}`,
/// `{{ after.country }}`. They have filters (`{{ table | upper }}`) and conditions, and hold no `*`. A value that is null or was
/// not sent has no text: the event is parked, unless the template says what to write (`{{ row.country | default('none') }}`).
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EventConfig {
    /// The AMQP `type` property and CloudEvents `type`, a template. Default: `{{ source }}.{{ schema }}.{{ table }}.{{ op }}`.
    #[serde(default, rename = "type")]
    pub event_type: Option<String>,

    /// The exchange to publish to, a template. Default: `towpath`.
    #[serde(default)]
    pub exchange: Option<String>,

    /// How an event is written: see [what a consumer receives](events.md#formats). Default `cloudevents`.
    #[serde(default)]
    pub format: Format,

    /// Puts several events into one message, for consumers that take many at a time: `transaction` or `capture`, or with options
    /// `{ by: transaction, form: lines, max_events: 1000, max_bytes: 1MiB }`. Exchange and routing key are then those of the
    /// message: their templates use `{{ source }}` alone, and the routing key is `{{ source }}.bundle` by default.
    #[serde(default)]
    pub bundle: Option<Bundle>,

    /// Headers of your own, by name, each a template: `{ region: "{{ row.region }}" }`. No name begins with `x-` or `cloudEvents:`.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,

    /// Other properties of the messages, each a template: `{ correlation_id: "{{ row.order_no }}" }`. One that is empty is not set.
    #[serde(default)]
    pub properties: PropertiesConfig,

    /// The routing key, a template, at most 255 bytes. Default: `{{ source }}.{{ schema }}.{{ table }}.{{ op }}`, where dots
    /// within a name are written `%2E`.
    #[serde(default)]
    pub routing_key: Option<String>,
}

/// AMQP properties.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PropertiesConfig {
    /// The application that the message comes from. Default `towpath`.
    #[serde(default)]
    pub app_id: Option<String>,

    /// How the body is packed. Not set by default.
    #[serde(default)]
    pub content_encoding: Option<String>,

    /// What the body is. Default: the format's.
    #[serde(default)]
    pub content_type: Option<String>,

    /// What the message belongs to. Not set by default.
    #[serde(default)]
    pub correlation_id: Option<String>,

    /// Milliseconds after which the broker drops the message from its queue, taken or not. Not set by default.
    #[serde(default)]
    pub expiration: Option<String>,

    /// Of queues that have priorities: 0 to 255. Not set by default.
    #[serde(default)]
    pub priority: Option<String>,

    /// Where an answer goes. Not set by default.
    #[serde(default)]
    pub reply_to: Option<String>,
}

impl PropertiesConfig {
    /// Those that are set.
    pub fn set(&self) -> Vec<(Property, String)> {
        let all = [
            (Property::AppId, &self.app_id),
            (Property::ContentEncoding, &self.content_encoding),
            (Property::ContentType, &self.content_type),
            (Property::CorrelationId, &self.correlation_id),
            (Property::Expiration, &self.expiration),
            (Property::Priority, &self.priority),
            (Property::ReplyTo, &self.reply_to),
        ];
        all.into_iter().filter_map(|(property, template)| Some((property, template.clone()?))).collect()
    }
}

/// The durable store of events between capture and broker.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OutboxConfig {
    /// The SQLite file, on a local disk (not NFS). Its folder must exist; a lock file and SQLite's own `-wal` and `-shm` files stand
    /// beside it.
    pub sqlite: PathBuf,

    /// How long settled events are kept for replay. Default `7d`. They go earlier where `max_size` needs the room.
    #[serde(default = "default_retain")]
    pub retain: Span,

    /// What the file may hold, settled and unsettled; a few MiB more are possible while events are in flight. Default `10GiB`, at
    /// least `16MiB`. When unsettled events alone fill it, sources are paused until the broker took some: nothing is dropped.
    #[serde(default = "default_max_size")]
    pub max_size: ByteSize,

    /// Sources are paused while the oldest unsettled event is older than this. Default: no such bound.
    #[serde(default)]
    pub max_age: Option<Span>,
}

fn default_retain() -> Span {
    Span(Duration::from_secs(7 * 86_400))
}

fn default_max_size() -> ByteSize {
    ByteSize(10 << 30)
}

/// The broker.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RabbitmqConfig {
    /// `amqp://user:password@host:port/vhost` or `amqps://…`. Either this or `urls`.
    #[serde(default)]
    pub url: Option<Secret>,

    /// Several nodes of one cluster; the next is tried when one fails.
    #[serde(default)]
    pub urls: Vec<Secret>,

    #[serde(default)]
    pub tls: BrokerTlsConfig,

    /// Exchanges, queues and bindings to declare at start (durable; queues are quorum queues unless said otherwise). What is not
    /// listed is only verified.
    #[serde(default)]
    pub declare: DeclareConfig,

    /// Events published and not yet confirmed, per route. Default 2000, 1 to 65535. Also the most that one fault can duplicate.
    #[serde(default = "default_window")]
    #[schemars(range(min = 1))]
    pub window: u16,

    /// A confirm that does not come within this closes its route's channel, and what is unconfirmed there is published again. Default `30s`.
    #[serde(default = "default_confirm_timeout")]
    pub confirm_timeout: Span,

    /// Heartbeats are exchanged this often; a peer silent for twice as long is dead. Default `10s`, at least `1s`.
    #[serde(default = "default_heartbeat")]
    pub heartbeat: Span,

    /// The largest body to publish; a larger one is parked. Default `16MiB`, RabbitMQ 4's own default limit (3.x: 128 MiB).
    #[serde(default = "default_max_message_size")]
    pub max_message_size: ByteSize,
}

fn default_window() -> u16 {
    2000
}

fn default_confirm_timeout() -> Span {
    Span(Duration::from_secs(30))
}

fn default_heartbeat() -> Span {
    Span(Duration::from_secs(10))
}

fn default_max_message_size() -> ByteSize {
    ByteSize(16 << 20)
}

/// TLS to the broker, for `amqps://`. The server's certificate is always verified.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BrokerTlsConfig {
    /// PEM file of the authorities to trust. Default: the system's.
    #[serde(default)]
    pub ca: Option<PathBuf>,
    /// PEM file of the client's certificate chain.
    #[serde(default)]
    pub certificate: Option<PathBuf>,
    /// PEM file of the client's private key.
    #[serde(default)]
    pub key: Option<PathBuf>,
}

/// What Towpath declares at start.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DeclareConfig {
    /// Exchanges by name. Default: the ones that routes name without a template, as durable topic exchanges. Write `{}` to declare none.
    #[serde(default)]
    pub exchanges: Option<BTreeMap<String, ExchangeConfig>>,

    /// Queues by name.
    #[serde(default)]
    pub queues: BTreeMap<String, QueueConfig>,
}

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExchangeConfig {
    /// `topic` (default), `direct`, `fanout`, `headers`, or a plugin's.
    #[serde(default = "default_exchange_type", rename = "type")]
    pub exchange_type: String,
}

fn default_exchange_type() -> String {
    "topic".into()
}

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct QueueConfig {
    /// `quorum` (default), `classic` or `stream`.
    #[serde(default = "default_queue_type", rename = "type")]
    pub queue_type: String,

    /// Binding patterns, on the exchange `exchange`.
    #[serde(default)]
    pub bind: Vec<String>,

    /// The exchange to bind to. Default `towpath`.
    #[serde(default = "default_exchange")]
    pub exchange: String,
}

fn default_queue_type() -> String {
    "quorum".into()
}

/// The exchange that events go to when nothing else is said.
pub const DEFAULT_EXCHANGE: &str = "towpath";

fn default_exchange() -> String {
    DEFAULT_EXCHANGE.into()
}

/// Health, metrics and the API that `towpath status` asks.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AdminConfig {
    /// Address and port. Default `127.0.0.1:9187`. Any but a loopback address needs a `token`.
    pub listen: SocketAddr,

    /// Asked of every caller but `/healthz` and `/readyz`, as `Authorization: Bearer …`.
    pub token: Option<Secret>,

    /// `/readyz` turns red when the oldest unsettled event is older than this. Default `60s`.
    pub ready_lag_max: Span,
}

impl Default for AdminConfig {
    fn default() -> Self {
        AdminConfig {
            listen: SocketAddr::from(([127, 0, 0, 1], 9187)),
            token: None,
            ready_lag_max: Span(Duration::from_secs(60)),
        }
    }
}
