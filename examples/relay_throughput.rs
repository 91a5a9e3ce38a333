//! What the relay alone reaches: events from memory into a queue, and the CPU time of its thread.
//!
//! `cargo run --release --example relay_throughput -- private|amqp://… [events] [body bytes] [window]` declares the quorum queue
//! `relay_throughput`, on a broker of its own or on the one named, and publishes into it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use tokio::sync::{Notify, mpsc};
use towpath::config::model::{AfterParked, RabbitmqConfig, Unroutable};
use towpath::event::{Event, EventBatch, RouteId, Seq};
use towpath::relay::{News, Parked, ParkedKey, Relay, RouteSetup, Settings, Store, Stretch};
use towpath_contract::{Error, Fut, Result};

const BATCH_EVENTS: u64 = 500;

/// Bytes recorded and not settled; less than the relay keeps in memory, so that nothing must be read back.
const AHEAD_BYTES_MAX: u64 = 4 << 20;

#[derive(Default)]
struct Settled {
    through: AtomicU64,
    changed: Notify,
}

struct NoStore(Arc<Settled>);

impl Store for NoStore {
    fn read(&self, _: RouteId, _: Seq, _: usize) -> Fut<'static, Result<Stretch>> {
        Box::pin(async { Err(Error::bug("reading", "events went beyond what is kept in memory")) })
    }

    fn settle(&self, _: RouteId, _: u16, through: Seq) {
        self.0.through.store(through, Ordering::Release);
        self.0.changed.notify_one();
    }

    fn park(&self, _: RouteId, parked: Vec<Parked>) -> Fut<'static, Result<()>> {
        Box::pin(async move { Err(Error::bug("parking", format!("{parked:?}"))) })
    }

    fn parked_keys(&self, _: RouteId, _: Seq, _: usize) -> Fut<'static, Result<Vec<ParkedKey>>> {
        Box::pin(async { Ok(Vec::new()) })
    }
}

fn batch(first: Seq, count: u64, body: &[u8]) -> EventBatch {
    let mut batch = EventBatch::new();
    for seq in first..first + count {
        let id = format!("bench-0011223344556677-{seq:016x}");
        // Flags, delivery mode 2, message-id; the size of a CloudEvents header besides.
        let mut properties = vec![0x30, 0x80];
        let headers = b"\x15cloudEvents:partitionS\x00\x00\x00\xc0";
        properties.extend_from_slice(&(headers.len() as u32 + 0xc0).to_be_bytes());
        properties.extend_from_slice(headers);
        properties.extend_from_slice(&[b'h'; 0xc0]);
        properties.push(2);
        properties.push(id.len() as u8);
        properties.extend_from_slice(id.as_bytes());
        batch.push(Event {
            seq,
            route: RouteId(1),
            key_hash: seq % 1000,
            id: &id,
            key: "{\"id\":1}",
            exchange: "",
            routing_key: "relay_throughput",
            properties: &properties,
            body,
            parked: None,
        });
    }
    batch
}

fn thread_cpu_seconds() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux tells a thread's time on the CPU");
    let nanoseconds: f64 =
        text.split(' ').next().and_then(|word| word.parse().ok()).expect("its first word is a number");
    nanoseconds / 1e9
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let number = |at: usize, default: u64| args.get(at).map_or(default, |text| text.parse().expect("a number"));
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let (url, _broker) = match args.get(1).map(String::as_str) {
        None | Some("private") => {
            let broker = runtime.block_on(towpath_test_support::RabbitMq::own());
            (broker.url(), Some(broker))
        }
        Some(url) => (url.to_owned(), None),
    };
    let (events, body_bytes, window) = (number(2, 1_000_000), number(3, 750), number(4, 2000));
    let config =
        serde_json::json!({ "url": url, "window": window, "declare": { "queues": { "relay_throughput": {} } } });
    let config: RabbitmqConfig = serde_json::from_value(config).expect("a valid config");
    let route = RouteSetup {
        id: RouteId(1),
        name: "bench".into(),
        settled: vec![0],
        unroutable: Unroutable::Stop,
        after_parked: AfterParked::Wait,
        exchanges: Vec::new(),
        behind: Vec::new(),
    };
    let settled = Arc::new(Settled::default());
    let (news, feed) = mpsc::unbounded_channel();
    let (started_out, started) = std::sync::mpsc::channel();
    let store = Arc::new(NoStore(settled.clone()));
    let (done_out, done) = tokio::sync::oneshot::channel::<()>();
    let relay = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let settings = Settings::new(&config, vec![route], 0).expect("valid settings");
            let relay = Relay::start(settings, store, feed);
            let mut status = relay.status();
            status
                .wait_for(|status| matches!(status.connection, towpath::relay::ConnectionState::Up { .. }))
                .await
                .expect("it runs");
            let before = thread_cpu_seconds();
            started_out.send(()).expect("main waits");
            done.await.expect("main tells");
            let cpu = thread_cpu_seconds() - before;
            relay.stop().await;
            cpu
        })
    });
    started.recv().expect("the relay connects");
    let body = vec![b'x'; body_bytes as usize];
    let start = Instant::now();
    let feeder = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    feeder.block_on(async {
        let mut first = 1;
        while settled.through.load(Ordering::Acquire) < events {
            let through = settled.through.load(Ordering::Acquire);
            if first <= events && (first - through) * (body_bytes + 400) < AHEAD_BYTES_MAX {
                let count = BATCH_EVENTS.min(events - first + 1);
                let events = Arc::new(batch(first, count, &body));
                news.send(News::Recorded { events, released: false }).expect("the relay listens");
                first += count;
            } else {
                settled.changed.notified().await;
            }
        }
    });
    let seconds = start.elapsed().as_secs_f64();
    done_out.send(()).expect("the relay waits");
    let cpu = relay.join().expect("the relay ends well");
    let million = events as f64 / 1e6;
    println!(
        "{events} events of {body_bytes} bytes, window {window}: {:.0}/s, {:.2} CPU s per million in the relay's thread",
        events as f64 / seconds,
        cpu / million
    );
}
