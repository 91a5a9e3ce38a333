//! How fast the outbox records: many events in batches of 1 MiB, and one at a time. Every figure includes the fsync.
//!
//!     cargo bench --bench outbox -- [events] [folder]

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use towpath::config::model::OutboxConfig;
use towpath::event::{EventBatch, RouteId};
use towpath::outbox::{News, Outbox, Record, RouteSet, RouteSetup, Setup};
use towpath_contract::{ByteSize, Position, Span};

const BATCH_BYTES: usize = 1 << 20;
const BODY_BYTES: usize = 500;

fn main() {
    let mut arguments = std::env::args().skip(1).filter(|argument| !argument.starts_with("--"));
    let events = arguments.next().map_or(1_000_000, |text| text.parse().expect("a number of events"));
    let folder = arguments.next().map_or_else(std::env::temp_dir, PathBuf::from);
    let folder = tempfile::tempdir_in(folder).expect("a folder to write to");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(measure(folder.path().join("outbox.db"), events));
}

async fn measure(path: PathBuf, events: u64) {
    let config = OutboxConfig {
        sqlite: path,
        retain: Span(Duration::from_secs(7 * 86_400)),
        max_size: ByteSize(100 << 30),
        max_age: None,
    };
    let (news, mut heard) = mpsc::unbounded_channel();
    let routes = vec![RouteSetup { name: "orders".into(), waits: true }];
    let (outbox, stored) = Outbox::open(&config, Setup { routes, shards: 1, news }).expect("a new outbox");
    let route = stored.routes[0].id;

    let mut source = Source { route, made: 0, filling: Duration::ZERO };
    let (started, cpu) = (Instant::now(), cpu());
    while source.made < events {
        let record = source.record(BATCH_BYTES);
        let permit = outbox.reserve(record.events.bytes()).await.expect("room");
        drop(outbox.record(permit, record));
        settle_heard(&outbox, route, &mut heard);
    }
    outbox.resume("orders_db").await.expect("everything before is durable");
    let (wall, cpu) = (started.elapsed(), self::cpu() - cpu - source.filling);
    let stats = outbox.stats();
    let each = |duration: Duration| duration.as_secs_f64() * 1e6 / source.made as f64;
    println!(
        "record: {:.0} events/s of {} bytes, {:.2} µs wall and {:.2} µs CPU each; {} commits, p50 {:?}, p99 {:?}",
        source.made as f64 / wall.as_secs_f64(),
        stats.recorded_bytes / stats.recorded_events,
        each(wall),
        each(cpu),
        stats.commits,
        stats.commit_p50,
        stats.commit_p99,
    );

    let (started, cpu) = (Instant::now(), self::cpu());
    let (mut after, mut read) = (0, 0);
    while after < source.made {
        let stretch = outbox.read(RouteSet::from_iter([route]), after, BATCH_BYTES).await.expect("readable");
        (after, read) = (stretch.through, read + stretch.events.len() as u64);
    }
    let (wall, cpu) = (started.elapsed(), self::cpu() - cpu);
    println!("read: {:.0} events/s, {:.2} µs CPU each", read as f64 / wall.as_secs_f64(), each(cpu));

    let mut latencies = Vec::new();
    for _ in 0..1000 {
        let record = source.record(1);
        let permit = outbox.reserve(record.events.bytes()).await.expect("room");
        let started = Instant::now();
        outbox.record(permit, record).await.expect("durable");
        latencies.push(started.elapsed());
        settle_heard(&outbox, route, &mut heard);
    }
    latencies.sort();
    println!("lone record: p50 {:?}, p99 {:?}", latencies[500], latencies[990]);
    println!("resident: {} KiB at most", peak_resident_kib());
    outbox.close().await.expect("closed");
}

struct Source {
    route: RouteId,
    made: u64,
    /// CPU time spent on making events, which is not the outbox's.
    filling: Duration,
}

impl Source {
    fn record(&mut self, bytes: usize) -> Record {
        let own = Path::new("/proc/thread-self/schedstat");
        let before = run_time(own);
        let mut events = EventBatch::new();
        let body = [b'x'; BODY_BYTES];
        while events.bytes() < bytes {
            self.made += 1;
            let mut event = events.start(self.route);
            write(event.buffer(), format_args!("orders_db-7123456789012345678-1-{:032x}", self.made));
            event.end_field();
            write(event.buffer(), format_args!("{{\"id\":{}}}", self.made % 100_000));
            event.end_field();
            for field in ["towpath".as_bytes(), b"orders_db.public.orders.insert", &[b'p'; 150], &body] {
                event.buffer().extend_from_slice(field);
                event.end_field();
            }
            event.finish(self.made.wrapping_mul(0x9e37_79b9_7f4a_7c15), None);
        }
        let position = Position::from_bytes(&self.made.to_be_bytes());
        self.filling += run_time(own) - before;
        Record { source: "orders_db".into(), identity: "71234567".into(), events, position, state: Vec::new() }
    }
}

fn write(buffer: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    use std::io::Write;
    buffer.write_fmt(text).expect("memory takes it");
}

/// As a broker would that confirms at once.
fn settle_heard(outbox: &Outbox, route: RouteId, heard: &mut mpsc::UnboundedReceiver<News>) {
    while let Ok(News::Recorded { events, .. }) = heard.try_recv() {
        outbox.settle(route, 0, events.get(events.len() - 1).seq);
    }
}

/// Of the whole process: the first number of each thread's schedstat, in ns (proc(5)).
fn cpu() -> Duration {
    let threads = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    threads.map(|thread| run_time(&thread.path().join("schedstat"))).sum()
}

fn run_time(schedstat: &Path) -> Duration {
    let text = std::fs::read_to_string(schedstat).unwrap_or_default();
    Duration::from_nanos(text.split_whitespace().next().and_then(|ns| ns.parse().ok()).unwrap_or(0))
}

fn peak_resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|text| text.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}
