//! Times of single events, from the commit to a consumer.

use std::time::{Duration, Instant, UNIX_EPOCH};

use futures_util::StreamExt;
use tokio::task::JoinSet;
use tokio::time::{interval, timeout};
use towpath_test_support::lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions};
use towpath_test_support::lapin::types::FieldTable;
use towpath_test_support::lapin::{Connection, Consumer};

use crate::case::meter;
use crate::contestant::{self, Contestant, Work};
use crate::meter;
use crate::record::Figures;
use crate::world::{QUEUE, WHOLE_BACKLOG, World};

const SESSIONS: u32 = 4;
const TRANSACTIONS_PER_SECOND: u32 = 500;
const WARM_UP: Duration = Duration::from_secs(5);
/// Idle after the load, to see what that costs.
const IDLE: Duration = Duration::from_secs(10);
const FIRST_WITHIN: Duration = Duration::from_secs(60);

/// The row carries the time at which its insert ran; the commit follows at once.
const INSERT: &str = "INSERT INTO orders VALUES (nextval('steady'), 7, 'new', 12.34,
    'T=' || (extract(epoch FROM clock_timestamp()) * 1000000)::bigint || ';' || repeat('x', 180), clock_timestamp())";
const STAMP: &[u8] = b"T=";

pub(crate) async fn run(contestant: Contestant, world: &mut World, seconds: u64) -> Result<Figures, String> {
    world.postgres.sql("CREATE SEQUENCE IF NOT EXISTS steady START 5000000000").await;
    let work = Work::Changes(world.slot(None).await);
    let mut receiver = Receiver::open(world).await;
    let mut running = contestant::start(contestant, world, &work).await?;
    let meter = meter(&running, world);

    // Until the first comes through, which may take a JVM's start.
    let begun = Instant::now();
    loop {
        world.postgres.sql(INSERT).await;
        if timeout(Duration::from_millis(200), receiver.next()).await.is_ok() {
            break;
        }
        if let Some(log) = running.ended() {
            return Err(log);
        }
        if begun.elapsed() > FIRST_WITHIN {
            return Err("no event came".into());
        }
    }
    load(world, &mut receiver, WARM_UP).await;
    let before = meter.read();
    let mut delays = load(world, &mut receiver, Duration::from_secs(seconds)).await;
    let used = meter.read().since(&before);
    let idle = meter::cpu(meter.connector);
    tokio::time::sleep(IDLE).await;
    let idle = meter::cpu(meter.connector) - idle;

    delays.sort_unstable();
    let made = seconds * u64::from(TRANSACTIONS_PER_SECOND);
    if (delays.len() as u64) < made * 99 / 100 {
        return Err(format!("{} events came of about {made}", delays.len()));
    }
    let share = |share: f64| delays[((delays.len() - 1) as f64 * share) as usize] as f64 / 1000.0;
    let mut figures = Figures::default();
    figures.set("p50_ms", share(0.5));
    figures.set("p99_ms", share(0.99));
    figures.set("p999_ms", share(0.999));
    figures.set("max_ms", share(1.0));
    figures.set("connector_cpu_percent", used.connector_cpu / seconds as f64 * 100.0);
    figures.set("broker_cpu_percent", used.broker_cpu / seconds as f64 * 100.0);
    figures.set("idle_cpu_percent", idle / IDLE.as_secs_f64() * 100.0);
    figures.set("resident_mb", meter.resident_kb() as f64 / 1024.0);
    Ok(figures)
}

/// From the start of the process to the first event, of a backlog that waits.
pub(crate) async fn start(contestant: Contestant, world: &mut World) -> Result<Figures, String> {
    let work = Work::Changes(world.slot(Some(WHOLE_BACKLOG)).await);
    let mut receiver = Receiver::open(world).await;
    let started = Instant::now();
    let _running = contestant::start(contestant, world, &work).await?;
    timeout(FIRST_WITHIN, receiver.next()).await.map_err(|_| "no event came")?;
    let mut figures = Figures::default();
    figures.set("first_event_ms", started.elapsed().as_secs_f64() * 1000.0);
    Ok(figures)
}

/// Makes transactions for so long, and gives the delays of what was received meanwhile, in microseconds.
async fn load(world: &World, receiver: &mut Receiver, length: Duration) -> Vec<u64> {
    let end = Instant::now() + length;
    let mut sessions = JoinSet::new();
    for _ in 0..SESSIONS {
        let client = world.postgres.client("postgres").await;
        sessions.spawn(async move {
            let insert = client.prepare(INSERT).await.expect("the statement is right");
            let mut ticks = interval(Duration::from_secs(1) * SESSIONS / TRANSACTIONS_PER_SECOND);
            while Instant::now() < end {
                ticks.tick().await;
                client.execute(&insert, &[]).await.expect("the server takes rows");
            }
        });
    }
    let mut delays = Vec::new();
    loop {
        tokio::select! {
            delay = receiver.next() => delays.push(delay),
            session = sessions.join_next() => match session {
                Some(session) => session.expect("a session ends well"),
                None => break,
            },
        }
    }
    // The last are still on their way.
    while let Ok(delay) = timeout(Duration::from_secs(1), receiver.next()).await {
        delays.push(delay);
    }
    delays
}

struct Receiver {
    consumer: Consumer,
    received: u64,
    _connection: Connection,
}

const PREFETCH: u16 = 1000;
const ACKNOWLEDGE_EVERY: u64 = 100;

impl Receiver {
    async fn open(world: &World) -> Receiver {
        let connection = world.rabbit.connect().await;
        let channel = connection.create_channel().await.expect("the broker gives channels");
        channel.basic_qos(PREFETCH, BasicQosOptions::default()).await.expect("the broker takes a prefetch");
        let options = BasicConsumeOptions::default();
        let consumer = channel.basic_consume(QUEUE.into(), "".into(), options, FieldTable::default()).await;
        Receiver { consumer: consumer.expect("the queue is there"), received: 0, _connection: connection }
    }

    /// The delay of the next event since its stamp, in microseconds; 0 without a stamp. Cancel-safe but for acknowledgements.
    async fn next(&mut self) -> u64 {
        let delivery = self.consumer.next().await.expect("the broker goes on").expect("the channel stays open");
        let now = UNIX_EPOCH.elapsed().unwrap_or_default().as_micros() as u64;
        self.received += 1;
        if self.received.is_multiple_of(ACKNOWLEDGE_EVERY) {
            let options = BasicAckOptions { multiple: true };
            delivery.acker.ack(options).await.expect("the channel stays open");
        }
        let digits = delivery.data.windows(STAMP.len()).position(|window| window == STAMP);
        let digits = digits.map_or(&[][..], |at| &delivery.data[at + STAMP.len()..]);
        let digits = digits.iter().take_while(|byte| byte.is_ascii_digit());
        let stamp = digits.fold(0, |number, digit| number * 10 + u64::from(digit - b'0'));
        if stamp == 0 { 0 } else { now.saturating_sub(stamp) }
    }
}
