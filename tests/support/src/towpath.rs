//! The real binary, as a user runs it.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::Signal;

use crate::process::{Launch, Process};
use crate::{Folder, eventually};

/// A running `towpath`. Killed on drop; its folder is deleted with it. When the test fails, its log is shown.
#[derive(Debug)]
pub struct Towpath {
    process: Process,
    launch: Launch,
    folder: Arc<Folder>,
    log: PathBuf,
}

/// How to run it. Nothing of the test's own environment reaches it but the PATH.
#[derive(Clone, Debug)]
pub struct TowpathBuilder {
    launch: Launch,
    folder: Arc<Folder>,
    config: Option<PathBuf>,
    extra: Vec<OsString>,
}

impl Towpath {
    /// `binary` is `env!("CARGO_BIN_EXE_towpath")` of the calling test.
    pub fn binary(binary: impl Into<PathBuf>) -> TowpathBuilder {
        let folder = Arc::new(Folder::new("run"));
        let mut launch = Launch::new(binary, folder.path()).env("HOME", folder.path()).env("RUST_BACKTRACE", "1");
        launch.env_clear = true;
        for kept in ["PATH", "LLVM_PROFILE_FILE"] {
            if let Some(value) = std::env::var_os(kept) {
                launch = launch.env(kept, value);
            }
        }
        TowpathBuilder { launch, folder, config: None, extra: Vec::new() }
    }

    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// The folder that it runs in: config, log, and what the config names by a relative path.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// All that it logged so far, over restarts.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).map(|text| text.to_owned()).unwrap_or_default()
    }

    /// Waits for a log line that contains `text`, and returns the line.
    ///
    /// # Panics
    /// After `within`, or when Towpath ended without it; with the log.
    pub async fn wait_for_log(&mut self, text: &str, within: Duration) -> String {
        self.wait_for_log_after(0, text, within).await
    }

    /// As [`Towpath::wait_for_log`], but looks only at what came after the first `bytes` of the log.
    ///
    /// # Panics
    /// After `within`, or when Towpath ended without it; with the log.
    pub async fn wait_for_log_after(&mut self, bytes: usize, text: &str, within: Duration) -> String {
        eventually(&format!("the log line {text:?}"), within, async || {
            // Looked at before the log is read: what an ended process wrote is all there.
            let ended = self.process.ended();
            let log = self.log();
            let found = log.get(bytes..).unwrap_or_default().lines().find(|line| line.contains(text));
            match (found, ended) {
                (Some(line), _) => Ok(line.to_owned()),
                (None, Some(status)) => panic!("towpath ended ({status}) without the log line {text:?}:\n{log}"),
                (None, None) => Err(Log(log)),
            }
        })
        .await
    }

    /// How it ended, if it did.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.process.ended()
    }

    /// Waits for it to end by itself: a fatal error, a crash point.
    ///
    /// # Panics
    /// After `within`; with the log.
    pub async fn wait_for_end(&mut self, within: Duration) -> ExitStatus {
        match self.process.end(within).await {
            Some(status) => status,
            None => panic!("towpath still runs after {within:?}:\n{}", self.log()),
        }
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// SIGTERM, and waits for the end.
    ///
    /// # Panics
    /// When it does not end `within`; with the log.
    pub async fn terminate(&mut self, within: Duration) -> ExitStatus {
        self.process.signal(Signal::TERM);
        self.wait_for_end(within).await
    }

    /// Starts it again after its end, with the same config and folder, and without a crash point.
    pub fn start_again(&mut self) {
        self.process.kill();
        self.launch.env.retain(|(name, _)| name != FAILPOINT);
        self.process = self.launch.start(&self.log);
    }

    /// As [`Towpath::start_again`], with a crash point.
    pub fn start_again_with_failpoint(&mut self, failpoint: &str) {
        self.process.kill();
        self.launch.env.retain(|(name, _)| name != FAILPOINT);
        self.launch.env.push((FAILPOINT.into(), failpoint.into()));
        self.process = self.launch.start(&self.log);
    }

    /// The most memory that it had resident, in kB. 0 when it has ended.
    pub fn rss_peak_kb(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
    }
}

impl Drop for Towpath {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let (log, pid) = (self.log(), self.pid());
            let lines: Vec<&str> = log.lines().collect();
            eprintln!("the last lines of the log of towpath {pid}:");
            lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..].iter().for_each(|line| eprintln!("  {line}"));
        }
    }
}

const LOG_LINES_SHOWN: usize = 100;

const FAILPOINT: &str = "TOWPATH_FAILPOINT";

impl TowpathBuilder {
    /// The config, written to `towpath.yaml` in the run's folder.
    pub fn config(mut self, yaml: &str) -> Self {
        self.config = Some(self.folder.write("towpath.yaml", yaml));
        self
    }

    /// A config file that is there already.
    pub fn config_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.config = Some(path.into());
        self
    }

    pub fn env(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.launch = self.launch.env(name, value.into());
        self
    }

    /// Aborts at a named crash point: `outbox.before_commit`, or `outbox.before_commit:3` for the third time. Needs a binary built
    /// with the feature `failpoints`.
    pub fn failpoint(self, failpoint: &str) -> Self {
        self.env(FAILPOINT, failpoint)
    }

    /// Another argument, after `run --config FILE`.
    pub fn arg(mut self, arg: impl Into<OsString>) -> Self {
        self.extra.push(arg.into());
        self
    }

    /// The folder that it will run in.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn shared_folder(&self) -> Arc<Folder> {
        self.folder.clone()
    }

    /// `towpath run --config FILE`.
    ///
    /// # Panics
    /// When it cannot be started, or no config was given.
    pub fn run(self) -> Towpath {
        let config = self.config.expect("a config was given");
        let launch = self.launch.args(["run", "--config"]).arg(config).args(&self.extra);
        let log = self.folder.path().join("log");
        Towpath { process: launch.start(&log), launch, folder: self.folder, log }
    }

    /// Another command, run to its end: `status`, `check`. `{config}` in an argument stands for the config's path.
    ///
    /// # Panics
    /// When it cannot be started.
    pub async fn command(&self, args: &[&str]) -> std::process::Output {
        let config = self.config.as_deref().map(|path| path.display().to_string()).unwrap_or_default();
        let args = args.iter().map(|arg| arg.replace("{config}", &config));
        let mut command = tokio::process::Command::new(&self.launch.program);
        command.args(args).env_clear().envs(self.launch.env.iter().map(|(name, value)| (name, value)));
        command.current_dir(self.folder.path()).kill_on_drop(true);
        command.output().await.unwrap_or_else(|error| panic!("{}: {error}", self.launch.program.display()))
    }
}

/// A log in a panic message, with its line breaks.
struct Log(String);

impl std::fmt::Debug for Log {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the log\n{}", self.0)
    }
}
