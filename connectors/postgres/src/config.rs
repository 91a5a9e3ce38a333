//! The keys of a source of `type: postgres`.

use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use towpath_contract::{ByteSize, Secret, Span};

/// A PostgreSQL database, read by logical replication.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PostgresConfig {
    /// `postgres://user:password@host:port/database`. Without a password, `password`, then the `.pgpass` file is looked at.
    pub url: Secret,

    /// The password, where it should not stand in `url`.
    #[serde(default)]
    pub password: Option<Secret>,

    #[serde(default)]
    pub tls: TlsConfig,

    /// Tables to capture: `schema.table`, with `*` for any: `public.*`. Default `["*.*"]`: every table but the system's.
    #[serde(default = "default_tables")]
    pub tables: Vec<String>,

    /// The replication slot. Default `towpath_<source name>` (with `-` written `_`).
    #[serde(default)]
    pub slot: Option<String>,

    /// The publication. Default: the slot's name.
    #[serde(default)]
    pub publication: Option<String>,

    /// Whether Towpath may create the slot and the publication on its first run, and add tables to the publication. Default true.
    /// With false, a missing one is reported with the SQL that creates it.
    #[serde(default = "default_true")]
    pub create: bool,

    #[serde(default)]
    pub snapshot: SnapshotConfig,

    /// Capture logical messages (`pg_logical_emit_message`) with these prefixes; `*` is any. They come as changes of the table
    /// `pg_logical.message` with op `message`. Default: none. Needs PostgreSQL 14.
    #[serde(default)]
    pub messages: Vec<String>,

    /// Write into the database every so often, so that the slot moves on even where the server gives no other sign. Off by
    /// default: Towpath writes nothing.
    #[serde(default)]
    pub heartbeat: Option<HeartbeatConfig>,

    /// A server that sends nothing for this long, not even a keepalive, is taken for dead. Default `60s`, at least `2s`.
    #[serde(default = "default_read_timeout")]
    pub read_timeout: Span,

    /// The most that may be spooled to disk for transactions in progress. Default `50GiB`. Beyond it the source stops with the way out.
    #[serde(default = "default_spool_max")]
    pub spool_max: ByteSize,
}

fn default_tables() -> Vec<String> {
    vec!["*.*".into()]
}

fn default_true() -> bool {
    true
}

fn default_read_timeout() -> Span {
    Span(Duration::from_secs(60))
}

fn default_spool_max() -> ByteSize {
    ByteSize(50 << 30)
}

/// TLS to the database.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TlsConfig {
    /// `verify`: encrypted, certificate and host name verified. `disable`: plain text. Default: `verify`, except on Unix sockets and
    /// loopback addresses, where it is `disable`.
    #[serde(default)]
    pub mode: Option<TlsMode>,
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

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TlsMode {
    Verify,
    Disable,
}

/// How existing rows are read.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SnapshotConfig {
    /// `initial` (default): the tables' rows are read once, on the first run and when a table is added. `never`: only changes.
    pub mode: SnapshotMode,
    /// Rows per chunk. Default 10000, 1 to 1000000. A chunk also ends at 1 MiB of row data.
    pub chunk_rows: u32,
    /// At most this many rows per second, to spare the database. Default: no limit.
    pub rows_per_second_max: Option<u32>,
}

impl Default for SnapshotConfig {
    fn default() -> Self {
        SnapshotConfig { mode: SnapshotMode::Initial, chunk_rows: 10_000, rows_per_second_max: None }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SnapshotMode {
    Initial,
    Never,
}

/// A write that keeps the log moving.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HeartbeatConfig {
    /// How often. At least `1s`.
    pub every: Span,
}
