//! `make demo`: a legacy database, a broker, and Towpath between them. Everything is private, real, and counted at the
//! consumer.

mod legacy;
mod screen;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use legacy::Legacy;
use towpath_test_support::{Checker, Delivery, Inbox, Port, Postgres, QueueKind, RabbitMq, Report, Towpath};

const CONFIG: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/config/demo.yaml");
const QUEUE: &str = "demo";
/// Far more than each step takes, on any machine.
const WITHIN: Duration = Duration::from_secs(60);

#[tokio::main]
async fn main() -> ExitCode {
    let outcome = tokio::select! {
        outcome = demo() => outcome,
        // What was started ends as the demo is dropped.
        _ = tokio::signal::ctrl_c() => Err("interrupted; everything that was started has been stopped".into()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            screen::problem(&problem);
            ExitCode::FAILURE
        }
    }
}

async fn demo() -> Result<(), String> {
    let started = Instant::now();
    screen::title("Towpath: changes of a legacy database, in a queue, and none is lost");
    let (postgres, mut rabbit) = tokio::join!(Postgres::start(), RabbitMq::own());
    let mut legacy = Legacy::load(&postgres).await;
    screen::say(&format!(
        "PostgreSQL {} and RabbitMQ run in a temporary folder, on ports of their own: {} and {}.",
        postgres.major(),
        postgres.port(),
        rabbit.port()
    ));
    screen::say("The database looks as such databases do: cryptic names, padded CHARs, codes, dates that are numbers.");
    screen::table(&legacy.counts().await);

    let mut towpath = start_towpath(&postgres, &rabbit)?;
    let mut consumer = Consumer::new(&rabbit, &legacy).await;

    screen::title("1  What is there already: the snapshot");
    screen::say("towpath run --config config/demo.yaml");
    let rows = legacy.rows_loaded;
    let step = Instant::now();
    consumer.receive(rows, &mut towpath).await?;
    screen::done(&format!("{} rows arrived as `read` events", screen::number(rows)), step.elapsed());
    screen::say("One of them, as a consumer gets it:");
    screen::whole(consumer.last_of("custmst").ok_or("no customer among the events")?);

    screen::title("2  Live: the legacy application works on");
    legacy.a_day_at_the_counter().await;
    consumer.receive(rows + legacy.changes, &mut towpath).await?;
    screen::say("An order comes in, is released, changed, shipped; a customer moves; an order is cancelled:");
    for event in &consumer.newest[..] {
        screen::line(event);
    }

    screen::title("3  The broker goes down. Nobody waits for it, nothing is lost");
    rabbit.stop().await;
    screen::say("RabbitMQ is stopped. The application does not know:");
    let before = legacy.confirmed_position().await;
    let made = legacy.changes;
    legacy.a_busy_night().await;
    screen::say(&format!("  {} more changes are committed.", screen::number(legacy.changes - made)));
    let after = legacy.wait_for_confirmation(WITHIN).await?;
    screen::say("Towpath has them in its outbox, on disk, and PostgreSQL may already forget them:");
    screen::say(&format!("  the slot's confirmed position went from {before} to {after} with no broker there."));
    let step = Instant::now();
    rabbit.start_again().await;
    screen::done("RabbitMQ is back", step.elapsed());
    let step = Instant::now();
    consumer.receive(rows + legacy.changes, &mut towpath).await?;
    screen::done("the rest arrived", step.elapsed());

    let client = postgres.client("postgres").await;
    let report = consumer.settle(&client, &towpath).await?;
    let stopped = towpath.terminate(WITHIN).await;
    if !stopped.success() {
        return Err(format!("towpath ended with {stopped}; its log:\n{}", towpath.log()));
    }
    summary(&legacy, rows, &report, started.elapsed()).await
}

fn start_towpath(postgres: &Postgres, rabbit: &RabbitMq) -> Result<Towpath, String> {
    let binary = binary()?;
    // Reserved while it starts, so that the default port of the machine's own Towpath stays free.
    let admin = Port::free();
    let builder = Towpath::binary(binary);
    let outbox = builder.folder().join("outbox.db");
    let towpath = builder
        .config_file(CONFIG)
        .env("SOURCE_URL", postgres.url("postgres"))
        .env("RABBITMQ_URL", rabbit.url())
        .env("OUTBOX", outbox)
        .env("TOWPATH__ADMIN__LISTEN", format!("127.0.0.1:{}", admin.number()))
        .run();
    Ok(towpath)
}

/// Cargo builds this program as `…/examples/demo`, and the binary two levels up.
fn binary() -> Result<PathBuf, String> {
    let exe = std::env::current_exe().map_err(|error| format!("cannot find myself: {error}"))?;
    let binary = exe.parent().and_then(Path::parent).map(|folder| folder.join("towpath")).unwrap_or_default();
    match binary.exists() {
        true => Ok(binary),
        false => Err(format!("{} is missing: `make demo` builds it first", binary.display())),
    }
}

/// The new system: it reads the queue and keeps its own copy of the tables.
struct Consumer {
    inbox: Inbox,
    checker: Checker,
    /// What the last step brought.
    newest: Vec<Delivery>,
}

impl Consumer {
    async fn new(rabbit: &RabbitMq, legacy: &Legacy) -> Consumer {
        // Usually Towpath declares the queue first; a consumer that is early declares the same one.
        rabbit.declare_queue(QUEUE, QueueKind::Quorum).await;
        let checker = Checker::new(legacy.client(), &legacy::TABLES).await;
        Consumer { inbox: rabbit.inbox(QUEUE), checker, newest: Vec::new() }
    }

    /// Receives until there were `distinct` different events in all.
    async fn receive(&mut self, distinct: usize, towpath: &mut Towpath) -> Result<(), String> {
        let deadline = Instant::now() + WITHIN;
        self.newest.clear();
        while self.distinct() < distinct {
            self.inbox.pump().await;
            for event in self.inbox.take() {
                self.checker.add(&event);
                self.newest.push(event);
            }
            if let Some(status) = towpath.ended() {
                return Err(format!("towpath ended ({status}); its log:\n{}", towpath.log()));
            }
            if Instant::now() > deadline {
                let missing = distinct - self.distinct();
                return Err(format!(
                    "{missing} events are missing after {WITHIN:?}; Towpath's log:\n{}",
                    towpath.log()
                ));
            }
        }
        Ok(())
    }

    fn distinct(&self) -> usize {
        self.checker.report().distinct()
    }

    fn last_of(&self, table: &str) -> Option<&Delivery> {
        self.newest.iter().rev().find(|event| event.routing_key.contains(table))
    }

    /// What is still coming (duplicates, if any), and the comparison with the database.
    async fn settle(&mut self, client: &tokio_postgres::Client, towpath: &Towpath) -> Result<Report, String> {
        self.inbox.pump().await;
        for event in self.inbox.take() {
            self.checker.add(&event);
        }
        let report = self.checker.compare(client).await.clone();
        match report.violations.first() {
            Some(violation) => Err(format!("a promise was broken: {violation}\n{}", towpath.log())),
            None => Ok(report),
        }
    }
}

async fn summary(legacy: &Legacy, rows: usize, report: &Report, took: Duration) -> Result<(), String> {
    let expected = rows + legacy.changes;
    let missing = expected.saturating_sub(report.distinct());
    screen::title("Counted at the consumer");
    screen::table(&[
        ("rows in the snapshot", rows),
        ("changes made", legacy.changes),
        ("events received", report.events),
        ("missing", missing),
        ("duplicates", report.duplicates),
    ]);
    if missing > 0 || !report.differences.is_empty() {
        return Err(format!("the consumer's copy differs from the database:\n{}", report.differences.join("\n")));
    }
    screen::say("The consumer's own copy of the three tables, made from nothing but its queue, equals the database:");
    screen::table(&legacy.counts().await);
    screen::say(&format!("Everything is stopped and deleted again. That took {} seconds.", took.as_secs()));
    Ok(())
}
