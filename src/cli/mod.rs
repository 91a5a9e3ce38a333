//! The command line: one file per command. Parse → load → do → exit code.

mod ask;
mod check;
mod client;
mod copybook;
mod discover;
mod doctor;
pub mod engine;
mod logging;
mod parked;
mod pause;
mod preview;
mod resume;
mod run;
mod schema;
mod snapshot;
mod status;
mod table;
mod test;
mod units;

use std::fmt;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};
use serde_json::json;

use crate::config::{Checked, ConfigError, Environment, Purpose};
use engine::Engine;

/// Change data capture out of legacy systems, into RabbitMQ, with nothing lost.
#[derive(Debug, Parser)]
#[command(name = "towpath", version, max_term_width = 100)]
#[command(after_help = "Exit codes: 0 done, 1 the work failed, 2 the call or the config is wrong.")]
pub struct Arguments {
    #[command(flatten)]
    pub global: Global,

    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Args)]
pub struct Global {
    /// The config file (.yaml, .yml or .toml) [default: $TOWPATH_CONFIG, else towpath.yaml]
    #[arg(short, long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Print JSON on standard output
    #[arg(long, global = true)]
    pub json: bool,

    /// How log lines look, on standard error
    #[arg(long, global = true, value_enum, default_value_t, value_name = "FORMAT")]
    pub log_format: LogFormat,

    /// What is logged: error, warn, info, debug, trace, or per module: `info,towpath::relay=debug` [default: $TOWPATH_LOG,
    /// else info]
    #[arg(long, global = true, value_name = "LEVEL")]
    pub log_level: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    #[default]
    Text,
    Json,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Capture, record and publish until told to stop (SIGTERM or Ctrl-C)
    Run,
    /// Judge the config file: no connection is made
    Check,
    /// Look at the live sources and the broker: everything that stands in the way, with what mends it
    Doctor,
    /// Write a starter config from a live database: print it on standard output
    Discover(discover::Arguments),
    /// Show what the routes make of some rows of a live table: nothing is published
    Preview(preview::Arguments),
    /// Try the routes on cases of your own: a change in, events out. No connection is made
    Test(test::Arguments),
    /// Tell how a running towpath is, what is wrong first
    Status,
    /// Pause a source
    Pause(pause::Arguments),
    /// Go on with a paused source
    Resume(pause::Arguments),
    /// Read tables of a source again while its changes go on
    Snapshot(snapshot::Arguments),
    /// Events that were set aside: list, show, retry, discard
    Parked(parked::Arguments),
    /// Files of COBOL records: which framing and code page one has
    Copybook(copybook::Arguments),
    /// Schemas for other programs
    Schema(schema::Arguments),
}

/// Does what was asked, prints, and gives the exit code.
pub fn main(arguments: Arguments, engine: &dyn Engine) -> ExitCode {
    let environment = Environment::of_process();
    let call = Call { global: &arguments.global, environment: &environment, engine };
    let done = match &arguments.command {
        Command::Run => run::run(&call),
        Command::Check => check::check(&call),
        Command::Doctor => doctor::doctor(&call),
        Command::Discover(arguments) => discover::discover(&call, arguments),
        Command::Preview(arguments) => preview::preview(&call, arguments),
        Command::Test(arguments) => test::test(&call, arguments),
        Command::Status => status::status(&call),
        Command::Pause(arguments) => pause::pause(&call, arguments),
        Command::Resume(arguments) => resume::resume(&call, arguments),
        Command::Snapshot(arguments) => snapshot::snapshot(&call, arguments),
        Command::Parked(arguments) => parked::parked(&call, arguments),
        Command::Copybook(arguments) => copybook::copybook(&call, arguments),
        Command::Schema(arguments) => schema::schema(&call, arguments),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.print(call.global.json);
            failure.exit_code()
        }
    }
}

/// What every command is given.
struct Call<'a> {
    global: &'a Global,
    environment: &'a Environment,
    engine: &'a dyn Engine,
}

impl Call<'_> {
    fn config_file(&self) -> PathBuf {
        let named = || self.environment.get("TOWPATH_CONFIG").filter(|name| !name.is_empty()).map(PathBuf::from);
        self.global.config.clone().or_else(named).unwrap_or_else(|| PathBuf::from("towpath.yaml"))
    }

    fn load(&self, purpose: Purpose) -> Result<Checked, Failure> {
        crate::config::load(&self.config_file(), self.environment, purpose).map_err(Failure::Config)
    }

    /// For commands that ask and are done; `run` has a runtime of its own.
    fn block_on<T>(&self, work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.map_err(|error| Failure::work(format!("no runtime: {error}"), None))?.block_on(work)
    }

    /// One of the two, by `--json`.
    fn print(&self, json: impl FnOnce() -> serde_json::Value, text: impl FnOnce() -> String) {
        match self.global.json {
            true => say(&format!("{:#}", json())),
            false => say(&text()),
        }
    }
}

/// Why a command did not do what was asked.
#[derive(Debug)]
enum Failure {
    Config(ConfigError),
    /// The call is wrong.
    Call {
        message: String,
        help: Option<String>,
    },
    Work {
        message: String,
        help: Option<String>,
    },
    /// All is said; only the exit code is left.
    Said,
    /// As [`Failure::Config`], and all is said.
    ConfigSaid,
}

impl Failure {
    fn work(message: impl Into<String>, help: Option<String>) -> Failure {
        Failure::Work { message: message.into(), help }
    }

    fn exit_code(&self) -> ExitCode {
        match self {
            Failure::Config(_) | Failure::ConfigSaid | Failure::Call { .. } => ExitCode::from(2),
            Failure::Work { .. } | Failure::Said => ExitCode::from(1),
        }
    }

    fn print(&self, json: bool) {
        let value = match self {
            Failure::Said | Failure::ConfigSaid => return,
            Failure::Config(error) => {
                json!({ "error": { "message": "the config is wrong", "problems": error.records() } })
            }
            Failure::Call { message, help } | Failure::Work { message, help } => {
                json!({ "error": { "message": message, "help": help } })
            }
        };
        match json {
            true => say(&format!("{value:#}")),
            // A reader that is gone is no reason to fail differently.
            false => drop(writeln!(std::io::stderr(), "{self}")),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Said | Failure::ConfigSaid => Ok(()),
            Failure::Config(error) => {
                let problems = match error.problems.len() {
                    1 => "1 problem".to_owned(),
                    count => format!("{count} problems"),
                };
                write!(f, "{error}\n\n{problems} in {}; nothing was started.", error.file.display())
            }
            Failure::Call { message, help } | Failure::Work { message, help } => {
                write!(f, "towpath: {message}")?;
                help.iter().flat_map(|help| help.lines()).try_for_each(|line| write!(f, "\n    {line}"))
            }
        }
    }
}

impl From<towpath_contract::Error> for Failure {
    fn from(error: towpath_contract::Error) -> Failure {
        Failure::work(format!("{}: {}", error.operation, error.message), error.help)
    }
}

impl From<crate::admin::Refusal> for Failure {
    fn from(refusal: crate::admin::Refusal) -> Failure {
        use crate::admin::RefusalKind;
        match refusal.kind {
            RefusalKind::NotFound | RefusalKind::Invalid => {
                Failure::Call { message: refusal.message, help: refusal.help }
            }
            RefusalKind::Conflict | RefusalKind::Failed | RefusalKind::Silent => {
                Failure::work(refusal.message, refusal.help)
            }
        }
    }
}

/// Writes to standard output. `println!` would panic where the reader is gone (`towpath status | head`).
fn say(text: &str) {
    drop(writeln!(std::io::stdout().lock(), "{}", text.trim_end()));
}
