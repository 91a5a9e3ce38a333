//! A source, a broker, a queue that gets everything, and Towpath between them.

use std::time::Duration;

use crate::admin::Admin;

use towpath_test_support::tokio_postgres::Client;
use towpath_test_support::{Checker, Inbox, Port, Postgres, Proxy, RabbitMq, Report, Towpath, TowpathBuilder};

/// Long enough for two busy and slow cores; whoever waits this long has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

pub(crate) const QUEUE: &str = "everything";

/// How large a test is, from the environment: `make test` runs it small, other targets at full size.
pub(crate) fn setting(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name}: `{text}` is not a number")),
        Err(_) => default,
    }
}

pub(crate) struct Rig {
    pub(crate) postgres: Postgres,
    pub(crate) rabbit: RabbitMq,
    pub(crate) inbox: Inbox,
    /// Stands between Towpath and PostgreSQL.
    pub(crate) source_link: Proxy,
    /// Stands between Towpath and RabbitMQ.
    pub(crate) broker_link: Proxy,
    pub(crate) admin: Port,
}

/// A server that stops waits for its subscribers, also for one behind a dead link: not for long, so that tests go on.
async fn postgres() -> Postgres {
    Postgres::builder().settings("wal_sender_timeout = '5s'").start().await
}

impl Rig {
    /// With a broker shared with other tests, in a vhost of its own.
    pub(crate) async fn new() -> Rig {
        Rig::with(RabbitMq::shared().await, postgres().await).await
    }

    /// With a broker that the test may stop.
    pub(crate) async fn with_own_broker() -> Rig {
        Rig::with(RabbitMq::own().await, postgres().await).await
    }

    pub(crate) async fn with(rabbit: RabbitMq, postgres: Postgres) -> Rig {
        rabbit.declare_exchange("towpath").await;
        rabbit.declare_queue_of_everything(QUEUE).await;
        Rig {
            inbox: rabbit.inbox(QUEUE),
            source_link: Proxy::start(postgres.port()),
            broker_link: Proxy::start(rabbit.port()),
            admin: Port::free(),
            rabbit,
            postgres,
        }
    }

    pub(crate) fn admin(&self) -> Admin {
        Admin { port: self.admin.number(), token: String::new() }
    }

    /// The smallest config, through the proxies; `more` is appended.
    pub(crate) fn config(&self, database: &str, more: &str) -> String {
        let source = self
            .postgres
            .url(database)
            .replace(&format!(":{}", self.postgres.port()), &format!(":{}", self.source_link.port()));
        let broker = self.rabbit.url_through(self.broker_link.port());
        let admin = self.admin.number();
        format!(
            "sources:\n  db:\n    type: postgres\n    url: {source}\n    read_timeout: 5s\noutbox:\n  sqlite: outbox.db\n\
             rabbitmq:\n  url: {broker}\n  confirm_timeout: 5s\n  heartbeat: 2s\nadmin:\n  listen: 127.0.0.1:{admin}\n{more}"
        )
    }

    pub(crate) fn towpath(&self, database: &str, more: &str) -> TowpathBuilder {
        Towpath::binary(env!("CARGO_BIN_EXE_towpath")).config(&self.config(database, more))
    }

    /// Receives until the consumer's rows equal those of the tables, and asserts that no promise was broken.
    pub(crate) async fn settle(&mut self, client: &Client, tables: &[&str]) -> Report {
        let mut checker = Checker::new(client, tables).await;
        checker.settle(client, &mut self.inbox, PATIENCE).await
    }
}
