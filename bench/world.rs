//! The servers of a benchmark, and what is put into them.

use std::time::Duration;

use futures_util::StreamExt;
use towpath_test_support::lapin::options::{
    BasicConsumeOptions, BasicGetOptions, BasicQosOptions, QueueDeclareOptions,
};
use towpath_test_support::lapin::types::{AMQPValue, FieldTable};
use towpath_test_support::lapin::{self, Channel};
use towpath_test_support::{Postgres, QueueKind, RabbitMq, eventually};

/// The queue of every run.
pub(crate) const QUEUE: &str = "bench";
/// The publication of the table `orders`.
pub(crate) const PUBLICATION: &str = "bench";
/// Slots that begin before the backlog, and before its last part. Runs read copies.
pub(crate) const WHOLE_BACKLOG: &str = "whole";
pub(crate) const LAST_OF_BACKLOG: &str = "last";
/// Changes of one transaction of the backlog: six inserts, three updates, one delete.
pub(crate) const TRANSACTION_CHANGES: u64 = 10;

/// As a production server is set, but for its size.
const POSTGRES_SETTINGS: &str =
    "shared_buffers = 512MB\nmax_wal_size = 8GB\ncheckpoint_timeout = 30min\nmax_slot_wal_keep_size = -1";
const RABBITMQ_SETTINGS: &str = "vm_memory_high_watermark.absolute = 8GB\ndisk_free_limit.absolute = 1GB";

const TABLE: &str =
    "(id bigint primary key, customer_id bigint, status text, amount numeric(12,2), note text, updated_at timestamptz)";

pub(crate) struct World {
    pub(crate) postgres: Postgres,
    pub(crate) rabbit: RabbitMq,
    pub(crate) broker_pid: u32,
    channel: Channel,
    connection: lapin::Connection,
    slots: u32,
}

impl World {
    pub(crate) async fn start() -> World {
        let (postgres, mut rabbit) = tokio::join!(
            Postgres::builder().fsync().settings(POSTGRES_SETTINGS).start(),
            RabbitMq::builder().settings(RABBITMQ_SETTINGS).start()
        );
        let connection = rabbit.connect().await;
        let channel = connection.create_channel().await.expect("the broker gives channels");
        let broker_pid = rabbit.pid();
        postgres.sql(&format!("CREATE TABLE orders {TABLE}; CREATE PUBLICATION {PUBLICATION} FOR TABLE orders")).await;
        postgres
            .sql("INSERT INTO orders SELECT g, g % 1000, 'new', g::numeric / 7, repeat('x', 200), clock_timestamp() FROM generate_series(1, 12) g")
            .await;
        World { postgres, rabbit, broker_pid, channel, connection, slots: 0 }
    }

    /// Transactions of ten changes with a note of 200 bytes. The second slot begins before the last `last` changes.
    pub(crate) async fn load_backlog(&self, changes: u64, last: u64) {
        self.create_slot(WHOLE_BACKLOG).await;
        let split = (changes - last) / TRANSACTION_CHANGES;
        self.transactions(0, split).await;
        self.create_slot(LAST_OF_BACKLOG).await;
        self.transactions(split, changes / TRANSACTION_CHANGES).await;
        self.postgres.sql("CHECKPOINT").await;
    }

    async fn create_slot(&self, name: &str) {
        self.postgres
            .value(&format!("SELECT slot_name FROM pg_create_logical_replication_slot('{name}', 'pgoutput')"))
            .await;
    }

    async fn transactions(&self, from: u64, to: u64) {
        // Twelve rows are there, six more come with each transaction.
        self.postgres
            .sql(&format!(
                "DO $$ DECLARE base bigint; BEGIN SET synchronous_commit = off; FOR k IN {}..{} LOOP base := 6 * k;
                   INSERT INTO orders SELECT base + g, (base + g) % 1000, 'new', (base + g)::numeric / 7,
                     rpad('note ' || (base + g) || ' ', 200, 'abcdefghij'), clock_timestamp() FROM generate_series(1, 6) g;
                   UPDATE orders SET status = 'paid', amount = amount + 1, updated_at = clock_timestamp()
                     WHERE id BETWEEN base - 10 AND base - 8;
                   DELETE FROM orders WHERE id = base - 11;
                   COMMIT; END LOOP; END $$",
                from + 2,
                to + 1
            ))
            .await;
    }

    /// The table `orders_snapshot`, and its publication `snapshot`.
    pub(crate) async fn load_snapshot_table(&self, rows: u64) {
        self.postgres
            .sql(&format!(
                "CREATE TABLE orders_snapshot {TABLE};
                 INSERT INTO orders_snapshot SELECT g, g % 1000, 'new', g::numeric / 7,
                   rpad('note ' || g || ' ', 200, 'abcdefghij'), clock_timestamp() FROM generate_series(1, {rows}) g;
                 CREATE PUBLICATION snapshot FOR TABLE orders_snapshot"
            ))
            .await;
        self.postgres.sql("VACUUM ANALYZE orders_snapshot").await;
        self.postgres.sql("CHECKPOINT").await;
    }

    /// One transaction that inserts `rows` rows of the backlog's shape.
    pub(crate) async fn one_transaction(&self, rows: u64) {
        self.postgres
            .sql(&format!(
                "INSERT INTO orders SELECT 1000000000 + (SELECT coalesce(max(id), 0) FROM orders) + g, g % 1000, 'new', g::numeric / 7,
                   rpad('note ' || g || ' ', 200, 'abcdefghij'), clock_timestamp() FROM generate_series(1, {rows}) g"
            ))
            .await;
    }

    /// A slot for one run: a copy that stands where the other stood, or a new one.
    pub(crate) async fn slot(&mut self, copy_of: Option<&str>) -> Slot {
        self.slots += 1;
        let name = format!("run_{}", self.slots);
        match copy_of {
            Some(other) => {
                let copy = format!("SELECT slot_name FROM pg_copy_logical_replication_slot('{other}', '{name}')");
                self.postgres.value(&copy).await;
            }
            None => self.create_slot(&name).await,
        }
        let lsn = format!("SELECT confirmed_flush_lsn FROM pg_replication_slots WHERE slot_name = '{name}'");
        Slot { from: self.postgres.value(&lsn).await, name }
    }

    pub(crate) async fn drop_slots(&self) {
        for row in self.postgres.rows("SELECT slot_name FROM pg_replication_slots WHERE slot_name LIKE 'run_%'").await {
            let slot = row[0].clone().unwrap_or_default();
            eventually(&format!("the slot {slot} to be free"), Duration::from_secs(30), async || {
                let active = format!("SELECT active FROM pg_replication_slots WHERE slot_name = '{slot}'");
                if self.postgres.value(&active).await == "f" { Ok(()) } else { Err("active") }
            })
            .await;
            self.postgres.value(&format!("SELECT pg_drop_replication_slot('{slot}')")).await;
        }
    }

    /// An empty queue of this kind.
    pub(crate) async fn fresh_queue(&self, kind: QueueKind) {
        self.rabbit.delete_queue(QUEUE).await;
        self.rabbit.declare_queue(QUEUE, kind).await;
    }

    /// Messages in the queue. A stream's own count lags by seconds: its last message is looked at instead.
    pub(crate) async fn depth(&self, kind: QueueKind) -> u64 {
        match kind {
            QueueKind::Stream => self.last_offset().await.map_or(0, |offset| offset + 1),
            _ => self.count().await,
        }
    }

    async fn last_offset(&self) -> Option<u64> {
        const QUIET: Duration = Duration::from_millis(20);
        let channel = self.connection.create_channel().await.expect("the broker gives channels");
        channel.basic_qos(1000, BasicQosOptions::default()).await.expect("the broker takes a prefetch");
        let mut from = FieldTable::default();
        from.insert("x-stream-offset".into(), AMQPValue::LongString("last".into()));
        let options = BasicConsumeOptions::default();
        let consumer = channel.basic_consume(QUEUE.into(), "".into(), options, from).await;
        let mut consumer = consumer.expect("the stream is there");
        let mut last = None;
        // The last chunk, message by message.
        while let Ok(Some(Ok(delivery))) = tokio::time::timeout(QUIET, consumer.next()).await {
            let headers = delivery.properties.headers().as_ref().and_then(|table| table.inner().get("x-stream-offset"));
            last = match headers {
                Some(AMQPValue::LongLongInt(offset)) => Some(*offset as u64),
                _ => last,
            };
            // Messages that come later belong to later looks.
            if delivery.delivery_tag >= 1000 {
                break;
            }
        }
        let _ = channel.close(200, "looked".into()).await;
        last
    }

    async fn count(&self) -> u64 {
        let options = QueueDeclareOptions { passive: true, ..Default::default() };
        let queue = self.channel.queue_declare(QUEUE.into(), options, FieldTable::default()).await;
        queue.expect("the queue is there").message_count().into()
    }

    /// Bytes of a message on average over the first hundred: the body, and the body with the properties.
    pub(crate) async fn message_bytes(&self) -> (u64, u64) {
        let (mut bodies, mut properties) = (0, 0);
        const SAMPLE: u64 = 100;
        for _ in 0..SAMPLE {
            let got = self.channel.basic_get(QUEUE.into(), BasicGetOptions { no_ack: true }).await;
            let message = got.expect("the queue is there").expect("the queue holds the run's messages");
            bodies += message.data.len() as u64;
            properties += properties_bytes(&message.properties);
        }
        (bodies / SAMPLE, (bodies + properties) / SAMPLE)
    }
}

/// Where a run reads.
pub(crate) struct Slot {
    pub(crate) name: String,
    pub(crate) from: String,
}

/// As they are encoded: a length and the text; for headers a name, a type and a value.
fn properties_bytes(properties: &lapin::BasicProperties) -> u64 {
    let texts = [
        properties.content_type(),
        properties.content_encoding(),
        properties.correlation_id(),
        properties.reply_to(),
        properties.expiration(),
        properties.message_id(),
        properties.kind(),
        properties.user_id(),
        properties.app_id(),
    ];
    let texts: usize = texts.into_iter().flatten().map(|text| 1 + text.as_str().len()).sum();
    let headers = properties.headers().iter().flat_map(|table| table.inner().iter());
    let headers: usize = headers.map(|(name, value)| 1 + name.as_str().len() + 1 + value_bytes(value)).sum();
    let timestamp = if properties.timestamp().is_some() { 8 } else { 0 };
    (texts + headers + timestamp) as u64
}

fn value_bytes(value: &AMQPValue) -> usize {
    match value {
        AMQPValue::LongString(text) => 4 + text.as_bytes().len(),
        AMQPValue::ShortString(text) => 1 + text.as_str().len(),
        _ => 8,
    }
}
