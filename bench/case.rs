//! What is measured, and how. Everything is counted at the queue; what a contestant says of itself is not asked.

use std::time::{Duration, Instant};

use towpath_test_support::{QueueKind, eventually};

use crate::contestant::{self, Contestant, Running, Work};
use crate::meter::{Meter, Reading};
use crate::record::Figures;
use crate::steady;
use crate::world::{LAST_OF_BACKLOG, WHOLE_BACKLOG, World};

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Case {
    /// A backlog of the server's log, into a quorum queue.
    Drain,
    /// The same, into a stream.
    Stream,
    /// A table that is there already.
    Snapshot,
    /// Five hundred transactions per second, for half a minute.
    Steady,
    /// From the start of the process to the first event at a consumer.
    Start,
    /// One transaction of very many rows.
    Transaction,
    /// A backlog ten times as large as that of `drain`.
    Growth,
}

/// How much of everything.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size {
    pub(crate) backlog: u64,
    pub(crate) growth: u64,
    pub(crate) snapshot: u64,
    pub(crate) transaction: u64,
    pub(crate) steady_seconds: u64,
}

impl Case {
    pub(crate) const ALL: [Case; 7] =
        [Case::Drain, Case::Stream, Case::Snapshot, Case::Steady, Case::Start, Case::Transaction, Case::Growth];

    pub(crate) fn title(self, size: &Size) -> String {
        match self {
            Case::Drain => format!("A backlog of {} changes, into a quorum queue", size.backlog),
            Case::Stream => format!("A backlog of {} changes, into a stream", size.backlog),
            Case::Snapshot => format!("A snapshot of {} rows, into a quorum queue", size.snapshot),
            Case::Steady => format!("500 transactions per second for {} s, into a quorum queue", size.steady_seconds),
            Case::Start => "From the start of the process to the first event at a consumer".into(),
            Case::Transaction => format!("One transaction of {} rows, into a quorum queue", size.transaction),
            Case::Growth => format!("A backlog of {} changes, into a quorum queue", size.growth),
        }
    }

    /// Those that the case compares, in the order in which they take turns. The bare pipe has as many bytes as a message of Towpath's
    /// (`body`, and with properties `message`): all of them in the body, or with as many in headers.
    pub(crate) fn contestants(self, body: u64, message: u64) -> Vec<Contestant> {
        use Contestant::{
            Debezium, DebeziumDefault, DebeziumPolling, Pipe, PipeBundled, Towpath, TowpathBundled, TowpathDefault,
            TowpathSteps,
        };
        let pipe = Pipe { body_bytes: message, header_bytes: 0 };
        let pipe_with_headers = Pipe { body_bytes: body, header_bytes: message - body };
        match self {
            // Towpath twice: what differs between its two rows is noise.
            Case::Drain => {
                let bundled = PipeBundled { body_bytes: body };
                let towpaths = [Towpath, TowpathSteps, TowpathBundled, bundled, TowpathDefault];
                [&[Towpath, pipe, pipe_with_headers, Debezium], &towpaths[..], &[DebeziumDefault]].concat()
            }
            Case::Stream => vec![Towpath, pipe, pipe_with_headers],
            Case::Snapshot => vec![Towpath, Debezium],
            Case::Steady => vec![Towpath, pipe, DebeziumPolling { every_ms: 1 }, DebeziumDefault],
            Case::Start => vec![Towpath, pipe, Debezium],
            Case::Transaction => vec![Towpath, Debezium],
            Case::Growth => vec![Towpath],
        }
    }

    pub(crate) async fn run(self, contestant: Contestant, world: &mut World, size: &Size) -> Result<Figures, String> {
        let kind = if self == Case::Stream { QueueKind::Stream } else { QueueKind::Quorum };
        world.fresh_queue(kind).await;
        settle().await;
        let outcome = match self {
            Case::Drain | Case::Stream => drain(contestant, world, LAST_OF_BACKLOG, size.backlog, kind).await,
            Case::Growth => drain(contestant, world, WHOLE_BACKLOG, size.growth, kind).await,
            Case::Snapshot => snapshot(contestant, world, size.snapshot).await,
            Case::Steady => steady::run(contestant, world, size.steady_seconds).await,
            Case::Start => steady::start(contestant, world).await,
            Case::Transaction => transaction(contestant, world, size.transaction).await,
        };
        world.drop_slots().await;
        outcome
    }
}

async fn drain(
    contestant: Contestant,
    world: &mut World,
    slot: &str,
    changes: u64,
    kind: QueueKind,
) -> Result<Figures, String> {
    let work = Work::Changes(world.slot(Some(slot)).await);
    let mut running = contestant::start(contestant, world, &work).await?;
    let meter = meter(&running, world);
    let each = contestant.changes_in_a_message();
    let count = count(world, &mut running, &meter, changes / each, kind).await?;
    let figures = count.figures(world, &meter, changes, each, kind).await;
    figures.map_err(|problem| format!("{problem}{}", running.warnings()))
}

async fn snapshot(contestant: Contestant, world: &mut World, rows: u64) -> Result<Figures, String> {
    let mut running = contestant::start(contestant, world, &Work::Snapshot).await?;
    let meter = meter(&running, world);
    let count = count(world, &mut running, &meter, rows, QueueKind::Quorum).await?;
    count.figures(world, &meter, rows, 1, QueueKind::Quorum).await
}

async fn transaction(contestant: Contestant, world: &mut World, rows: u64) -> Result<Figures, String> {
    let slot = world.slot(None).await;
    let active = format!("SELECT active FROM pg_replication_slots WHERE slot_name = '{}'", slot.name);
    let mut running = contestant::start(contestant, world, &Work::Changes(slot)).await?;
    eventually("the contestant to read the log", Duration::from_secs(60), async || {
        if let Some(log) = running.ended() {
            return Ok(Err(log));
        }
        if world.postgres.value(&active).await == "t" { Ok(Ok(())) } else { Err("not yet") }
    })
    .await?;
    let meter = meter(&running, world);
    let before = meter.read();
    world.one_transaction(rows).await;
    let committed = Instant::now();
    let count = count(world, &mut running, &meter, rows, QueueKind::Quorum).await?;
    let mut figures = count.figures(world, &meter, rows, 1, QueueKind::Quorum).await?;
    figures.set("connector_cpu_s_per_million", per_million(count.last.reading.since(&before).connector_cpu, rows));
    figures.set("commit_to_last_s", count.last.at.duration_since(committed).as_secs_f64());
    Ok(figures)
}

pub(crate) fn meter(running: &Running, world: &World) -> Meter {
    Meter { connector: running.pid(), broker: world.broker_pid, database: world.postgres.pid() }
}

struct Moment {
    at: Instant,
    depth: u64,
    reading: Reading,
}

/// The queue's first events, and its last.
struct Count {
    first: Moment,
    last: Moment,
}

const LOOK_EVERY: Duration = Duration::from_millis(10);
const STILL_AT_MOST: Duration = Duration::from_secs(120);
/// Time for what would be too much.
const EXCESS_WITHIN: Duration = Duration::from_millis(500);

async fn count(
    world: &World,
    running: &mut Running,
    meter: &Meter,
    wanted: u64,
    kind: QueueKind,
) -> Result<Count, String> {
    let mut first = None;
    let mut moved = (0, Instant::now());
    loop {
        let depth = world.depth(kind).await;
        if depth >= wanted {
            let last = Moment { at: Instant::now(), depth, reading: meter.read() };
            tokio::time::sleep(EXCESS_WITHIN).await;
            let depth = world.depth(kind).await;
            return match first {
                // A stream numbers more than messages.
                Some(first) if depth == wanted || kind == QueueKind::Stream => Ok(Count { first, last }),
                Some(_) => Err(format!("{depth} events at the queue, expected {wanted}")),
                None => Err("too few events to measure anything".into()),
            };
        }
        if depth > 0 && depth < wanted && first.is_none() {
            first = Some(Moment { at: Instant::now(), depth, reading: meter.read() });
        }
        if depth != moved.0 {
            moved = (depth, Instant::now());
        } else if moved.1.elapsed() > STILL_AT_MOST {
            return Err(format!("stands still at {depth} of {wanted} events"));
        }
        if let Some(log) = running.ended() {
            return Err(log);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

impl Count {
    /// Rates are of what came after the first look that found something, `each` of them in a message.
    async fn figures(
        &self,
        world: &World,
        meter: &Meter,
        events: u64,
        each: u64,
        kind: QueueKind,
    ) -> Result<Figures, String> {
        let used = self.last.reading.since(&self.first.reading);
        let counted = events - self.first.depth * each;
        let seconds = self.last.at.duration_since(self.first.at).as_secs_f64();
        let mut figures = Figures::default();
        figures.set("events_per_second", counted as f64 / seconds);
        figures.set("connector_cpu_s_per_million", per_million(used.connector_cpu, counted));
        figures.set("broker_cpu_s_per_million", per_million(used.broker_cpu, counted));
        figures.set("postgres_cpu_s_per_million", per_million(used.database_cpu, counted));
        figures.set("machine_busy_percent", used.machine_cpu / seconds / cores() * 100.0);
        figures.set("resident_mb", meter.resident_kb() as f64 / 1024.0);
        figures.set("disk_bytes_per_event", used.disk_bytes as f64 / counted as f64);
        // A stream is not read by `basic.get`.
        if kind != QueueKind::Stream {
            let (body, message) = world.message_bytes().await;
            figures.set("body_bytes", body as f64);
            figures.set("message_bytes", message as f64);
        }
        Ok(figures)
    }
}

fn cores() -> f64 {
    std::thread::available_parallelism().map_or(1.0, |cores| cores.get() as f64)
}

fn per_million(seconds: f64, events: u64) -> f64 {
    seconds / events as f64 * 1e6
}

/// Waits until the servers are done with the run before: a busy tenth of the machine at most.
async fn settle() {
    const LOOK: Duration = Duration::from_millis(500);
    for _ in 0..60 {
        let before = crate::meter::machine_cpu();
        tokio::time::sleep(LOOK).await;
        if crate::meter::machine_cpu() - before < 0.1 * LOOK.as_secs_f64() * cores() {
            return;
        }
    }
}
