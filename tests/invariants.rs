//! What must stay true of the code itself: who may import whom, and what nobody may do.

use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Every Rust file below `folder`, with its text up to its tests.
fn sources(folder: &str) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder of the project") {
            let path = entry.expect("an entry").path();
            let name = path.file_name().expect("a name").to_string_lossy().into_owned();
            if path.is_dir() {
                if name != "tests" && name != "snapshots" {
                    folders.push(path);
                }
            } else if name.ends_with(".rs") && !name.ends_with("tests.rs") {
                let text = fs::read_to_string(&path).expect("UTF-8");
                let text = text.split("#[cfg(test)]").next().expect("a first part").to_owned();
                found.push((path, text));
            }
        }
    }
    assert!(!found.is_empty(), "no sources below {folder}");
    found
}

fn shown(path: &Path) -> String {
    path.strip_prefix(root()).expect("below the root").display().to_string()
}

/// Lines of code (not comments) of `folder` that hold one of `needles`.
fn lines_with(folder: &str, needles: &[&str]) -> Vec<String> {
    let mut hits = Vec::new();
    for (path, text) in sources(folder) {
        for (number, line) in text.lines().enumerate() {
            let code = line.trim_start();
            if !code.starts_with("//") && needles.iter().any(|needle| code.contains(needle)) {
                hits.push(format!("{}:{}: {}", shown(&path), number + 1, code));
            }
        }
    }
    hits
}

#[test]
fn route_outbox_and_relay_do_not_know_each_other() {
    let parts = ["route", "outbox", "relay"];
    for part in parts {
        let others = parts.iter().filter(|other| **other != part);
        let needles: Vec<String> = others.map(|other| format!("crate::{other}")).collect();
        let needles: Vec<&str> = needles.iter().map(String::as_str).collect();
        assert_eq!(lines_with(&format!("src/{part}"), &needles), [""; 0], "imports of {part}");
    }
}

#[test]
fn the_parts_do_not_know_what_drives_them() {
    for part in ["route", "outbox", "relay", "config"] {
        let needles = ["crate::pipeline", "crate::cli", "crate::admin"];
        assert_eq!(lines_with(&format!("src/{part}"), &needles), [""; 0], "imports of {part}");
    }
}

#[test]
fn only_the_registry_and_the_config_name_connectors() {
    let hits = lines_with("src", &["towpath_postgres", "towpath_files"]);
    let elsewhere: Vec<_> =
        hits.into_iter().filter(|hit| !hit.starts_with("src/registry.rs") && !hit.starts_with("src/config/")).collect();
    assert_eq!(elsewhere, [""; 0]);
}

#[test]
fn a_connector_imports_the_contract_alone() {
    for entry in fs::read_dir(root().join("connectors")).expect("connectors") {
        let folder = entry.expect("an entry").path();
        let name = folder.file_name().expect("a name").to_string_lossy().into_owned();
        let manifest = fs::read_to_string(folder.join("Cargo.toml")).expect("a manifest");
        let dependencies = manifest.split("[dependencies]").nth(1).expect("dependencies");
        let dependencies = dependencies.split("\n[").next().expect("a first part");
        let ours: Vec<&str> = dependencies.lines().filter(|line| line.starts_with("towpath-")).collect();
        let allowed: &[&str] = if name == "contract" { &[] } else { &["towpath-contract.workspace = true"] };
        assert_eq!(ours, allowed, "{name}");
    }
}

#[test]
fn nothing_panics_on_what_comes_from_outside() {
    let needles = [".unwrap()", "panic!(", "todo!(", "unimplemented!(", "unreachable!("];
    let mut hits = lines_with("src", &needles);
    hits.extend(lines_with("connectors/contract/src", &needles));
    hits.extend(lines_with("connectors/postgres/src", &needles));
    hits.extend(lines_with("connectors/files/src", &needles));
    // Crash points are for tests, and compiled out of releases.
    hits.retain(|hit| !hit.starts_with("src/failpoint.rs"));
    assert_eq!(hits, [""; 0]);
}

#[test]
fn only_the_config_reads_the_environment() {
    let hits = lines_with("src", &["env::var", "env::vars"]);
    let elsewhere: Vec<_> = hits
        .into_iter()
        // The crash points are for tests and compiled out of releases.
        .filter(|hit| !hit.starts_with("src/config/") && !hit.starts_with("src/failpoint.rs"))
        .collect();
    assert_eq!(elsewhere, [""; 0]);
}

#[test]
fn only_one_file_knows_the_backoff_crate() {
    let hits = lines_with("src", &["backoff::"]);
    assert!(hits.iter().all(|hit| hit.starts_with("src/retry.rs")), "{hits:?}");
}

#[test]
fn no_file_of_code_is_longer_than_five_hundred_lines() {
    for folder in [
        "src",
        "connectors/contract/src",
        "connectors/conformance/src",
        "connectors/postgres/src",
        "connectors/files/src",
        "tests/support/src",
    ] {
        for (path, text) in sources(folder) {
            let lines = text.lines().count();
            assert!(lines <= 500, "{} has {lines} lines: split it by meaning", shown(&path));
        }
    }
}
