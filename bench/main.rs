//! `make bench`: Towpath beside Debezium's engine and beside the limits of the machine, counted at the queue.

mod amqp;
mod case;
mod contestant;
mod meter;
mod pipe;
mod plot;
mod record;
mod steady;
mod world;

use std::path::PathBuf;
use std::process::ExitCode;

use case::{Case, Size};
use clap::Parser;
use contestant::Contestant;
use record::{Results, Run};
use world::World;

#[derive(Debug, Parser)]
#[command(about, version)]
struct Arguments {
    #[command(subcommand)]
    part: Option<Part>,
    /// Only these; all without it.
    #[arg(long, value_enum, value_delimiter = ',')]
    cases: Vec<Case>,
    /// How often each contestant has its turn.
    #[arg(long, default_value_t = 5)]
    runs: u32,
    /// Only contestants whose name has this in it.
    #[arg(long)]
    only: Option<String>,
    /// Debezium stays out.
    #[arg(long)]
    without_peers: bool,
    /// Changes of the backlog, a multiple of ten.
    #[arg(long, default_value_t = 500_000)]
    backlog: u64,
    /// Changes of the large backlog.
    #[arg(long, default_value_t = 5_000_000)]
    growth: u64,
    /// Rows of the table for the snapshot.
    #[arg(long, default_value_t = 1_000_000)]
    snapshot: u64,
    /// Rows of the one transaction.
    #[arg(long, default_value_t = 2_000_000)]
    transaction: u64,
    /// How long 500 transactions per second are made.
    #[arg(long, default_value_t = 30)]
    steady_seconds: u64,
    /// Where the results go.
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/bench/results"))]
    results: PathBuf,
}

#[derive(Debug, clap::Subcommand)]
enum Part {
    /// The bare pipe, a process of its own.
    #[command(hide = true)]
    Pipe(pipe::Arguments),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let outcome = match &arguments.part {
        Some(Part::Pipe(pipe)) => pipe::run(pipe).map_err(|error| format!("the bare pipe: {error}")),
        None => {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
            runtime.map_err(|error| error.to_string()).and_then(|runtime| runtime.block_on(bench(&arguments)))
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("{problem}");
            ExitCode::FAILURE
        }
    }
}

async fn bench(arguments: &Arguments) -> Result<(), String> {
    if !arguments.without_peers && !contestant::has_debezium() {
        return Err("Debezium is not there: run `make bench`, or leave it out with --without-peers".into());
    }
    let cases = if arguments.cases.is_empty() { Case::ALL.to_vec() } else { arguments.cases.clone() };
    let growth = cases.contains(&Case::Growth);
    let size = Size {
        backlog: arguments.backlog,
        growth: arguments.growth.max(arguments.backlog),
        snapshot: arguments.snapshot,
        transaction: arguments.transaction,
        steady_seconds: arguments.steady_seconds,
    };
    eprintln!("starting private servers and loading them …");
    let mut world = World::start().await;
    world.load_backlog(if growth { size.growth } else { size.backlog }, size.backlog).await;
    if cases.contains(&Case::Snapshot) {
        world.load_snapshot_table(size.snapshot).await;
    }
    let titles: Vec<String> = cases.iter().map(|case| case.title(&size)).collect();
    let mut results = Results::open(&arguments.results, setting(&world).await, &titles)?;

    // Not counted: caches are warm then, and the size of Towpath's messages is known.
    eprintln!("a first run, to warm up …");
    let warm_up = Case::Drain.run(Contestant::Towpath, &mut world, &size).await?;
    let [body, message] = ["body_bytes", "message_bytes"].map(|name| warm_up.get(name).unwrap_or(0.0) as u64);
    let mut failed = Vec::new();
    for case in cases {
        for round in 1..=arguments.runs {
            let mut again = false;
            for contestant in case.contestants(body, message) {
                if arguments.without_peers && contestant.is_debezium() {
                    continue;
                }
                let mut name = contestant.name();
                if arguments.only.as_ref().is_some_and(|only| !name.contains(only)) {
                    continue;
                }
                if contestant == Contestant::Towpath && std::mem::replace(&mut again, true) {
                    name += " (control)";
                }
                eprintln!("{case:?}, round {round} of {}: {name} …", arguments.runs);
                match case.run(contestant, &mut world, &size).await {
                    Ok(figures) => results.add(Run { case: case.title(&size), contestant: name, figures })?,
                    Err(problem) => failed.push(format!("{case:?}, {name}: {problem}")),
                }
            }
        }
    }
    eprintln!("results: {}", arguments.results.join("table.md").display());
    if failed.is_empty() { Ok(()) } else { Err(format!("runs that failed:\n{}", failed.join("\n"))) }
}

/// What was measured on.
async fn setting(world: &World) -> String {
    let of = |file: &str, name: &str| {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or("?");
        line.trim_matches([' ', '\t', ':']).to_owned()
    };
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let build = if cfg!(debug_assertions) { "\n- **a debug build: the figures mean nothing**" } else { "" };
    format!(
        "- {cores} cores ({}), {} of memory, Linux {}\n- {}\n- RabbitMQ {}; everything on this one machine, durable\n- Towpath {}, outbox on and fsynced; \
         Debezium engine 3.6.3{build}",
        of("/proc/cpuinfo", "model name"),
        of("/proc/meminfo", "MemTotal"),
        of("/proc/sys/kernel/osrelease", ""),
        world.postgres.value("SELECT version()").await,
        world.rabbit.ctl(&["version"]).await.trim(),
        env!("CARGO_PKG_VERSION"),
    )
}
