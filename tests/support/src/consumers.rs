//! Consumers in other languages, as their teams would run them.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

/// Whoever takes longer hangs.
const WITHIN: Duration = Duration::from_secs(60);

/// Runs a program of `tests/consumers` and gives what it prints.
///
/// # Panics
/// When it fails or hangs, and when what it needs is not installed.
pub async fn run(program: &Path, args: &[&str]) -> String {
    let is_python = program.extension().is_some_and(|extension| extension == "py");
    let mut command = if is_python { Command::new("/usr/bin/python3") } else { Command::new("node") };
    command.arg(program).args(args).env("NODE_MODULES", node_modules()).kill_on_drop(true).stdin(Stdio::null());
    let name = program.display();
    let output = tokio::time::timeout(WITHIN, command.output()).await.unwrap_or_else(|_| panic!("{name} hangs"));
    let output = output.unwrap_or_else(|error| panic!("{name}: {error}; `make install` installs what it needs"));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name}: {}; `make install` installs what it needs\n{errors}", output.status);
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Where `install.sh` puts the packages of npm.
fn node_modules() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../target/consumers/node_modules")
}
