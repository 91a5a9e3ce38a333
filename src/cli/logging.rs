//! The log, on standard error: text for people, JSON by a flag.

use std::fmt;
use std::io::IsTerminal;

use jiff::Timestamp;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;

use super::{Call, Failure, LogFormat};

pub(super) fn start(call: &Call<'_>) -> Result<(), Failure> {
    let named =
        call.global.log_level.as_deref().or_else(|| call.environment.get("TOWPATH_LOG")).filter(|l| !l.is_empty());
    let level = named.unwrap_or("info");
    // Its errors come back to us and are told in our words; in its own they would be told twice.
    let quiet = if level.contains("lapin") { level.to_owned() } else { format!("{level},lapin=off") };
    let filter = EnvFilter::builder().parse(quiet).map_err(|error| Failure::Call {
        message: format!("`{level}` is no log level: {error}"),
        help: Some("for example info, debug, or info,towpath::relay=debug".into()),
    })?;
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let started = match call.global.log_format {
        LogFormat::Json => log.json().flatten_event(true).with_timer(Clock::WithDate).try_init(),
        LogFormat::Text => {
            let colours = std::io::stderr().is_terminal() && call.environment.get("NO_COLOR").is_none_or(str::is_empty);
            log.with_timer(Clock::TimeOfDay).with_target(false).with_ansi(colours).try_init()
        }
    };
    started.map_err(|error| Failure::work(format!("no log: {error}"), None))
}

/// Times in UTC: logs of several machines are read together.
enum Clock {
    /// `12:34:56.789Z`: whoever collects lines for people adds a date of its own.
    TimeOfDay,
    /// RFC 3339.
    WithDate,
}

impl FormatTime for Clock {
    fn format_time(&self, w: &mut Writer<'_>) -> fmt::Result {
        let now = Timestamp::now();
        match self {
            Clock::TimeOfDay => write!(w, "{}", now.strftime("%H:%M:%S.%3fZ")),
            Clock::WithDate => write!(w, "{now:.3}"),
        }
    }
}
