//! `towpath test`

use std::fmt::Write;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::{Call, Failure};
use crate::cases::{self, Cases};
use crate::config::{Checked, Purpose};

#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Files of cases, and folders of them (*.yaml, *.yml) [default: the folder `tests` beside the config]
    paths: Vec<PathBuf>,
}

/// A file's cases, by name, and what of each is not as expected.
struct Tested {
    file: PathBuf,
    cases: Vec<(String, usize, Vec<String>)>,
}

pub(super) fn test(call: &Call<'_>, arguments: &Arguments) -> Result<(), Failure> {
    let config = call.load(Purpose::Ask)?;
    let beside = call.config_file().with_file_name("tests");
    let paths = if arguments.paths.is_empty() { vec![beside.clone()] } else { arguments.paths.clone() };
    let mut files = Vec::new();
    for path in paths.iter().filter(|path| **path != beside || path.exists()) {
        collect(path, &mut files)?;
    }
    if files.is_empty() {
        let looked: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
        let help = "a file of cases ends in .yaml; what stands in it: docs/testing.md";
        return Err(Failure::Call {
            message: format!("there is no case in {}", looked.join(", ")),
            help: Some(help.into()),
        });
    }
    let tested = files.into_iter().map(|file| one(file, &config)).collect::<Result<Vec<Tested>, Failure>>()?;
    call.print(|| records(&tested), || page(&tested));
    let failed = tested.iter().flat_map(|file| &file.cases).any(|(.., differences)| !differences.is_empty());
    if failed { Err(Failure::Said) } else { Ok(()) }
}

/// Folders one level deep, in the order of their names.
fn collect(path: &Path, files: &mut Vec<PathBuf>) -> Result<(), Failure> {
    let unreadable = |error: std::io::Error| Failure::Call {
        message: format!("{}: cannot be read: {error}", path.display()),
        help: None,
    };
    if !path.is_dir() {
        files.push(path.into());
        return Ok(());
    }
    let mut found = Vec::new();
    for entry in std::fs::read_dir(path).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?.path();
        if entry.extension().is_some_and(|extension| extension == "yaml" || extension == "yml") {
            found.push(entry);
        }
    }
    found.sort();
    files.append(&mut found);
    Ok(())
}

fn one(file: PathBuf, config: &Checked) -> Result<Tested, Failure> {
    let refuse = |message: String| Failure::Call { message: format!("{}:{message}", file.display()), help: None };
    let text = std::fs::read_to_string(&file).map_err(|error| refuse(format!(" cannot be read: {error}")))?;
    let read: Cases = cases::read(&text).map_err(|wrong| refuse(wrong.to_string()))?;
    let differences = read.run(config).map_err(|why| refuse(format!("1: {why}")))?;
    let named = read.cases.iter().map(|case| (case.name.clone(), case.line));
    let cases = named.zip(differences).map(|((name, line), differences)| (name, line, differences)).collect();
    Ok(Tested { file, cases })
}

fn page(tested: &[Tested]) -> String {
    let mut page = String::new();
    let (mut all, mut failed) = (0, 0);
    for Tested { file, cases } in tested {
        let _ = writeln!(page, "{}", file.display());
        for (name, line, differences) in cases {
            all += 1;
            if differences.is_empty() {
                let _ = writeln!(page, "  ok      {name}");
                continue;
            }
            failed += 1;
            let _ = writeln!(page, "  FAILED  {name} (line {line})");
            for difference in differences {
                let _ = writeln!(page, "            {difference}");
            }
        }
        page.push('\n');
    }
    let cases = if all == 1 { "1 case".to_owned() } else { format!("{all} cases") };
    match failed {
        0 => page + &format!("{cases}, all as expected."),
        failed => page + &format!("{cases}, {failed} not as expected."),
    }
}

fn records(tested: &[Tested]) -> serde_json::Value {
    let case = |(name, line, differences): &(String, usize, Vec<String>)| json!({ "name": name, "line": line, "ok": differences.is_empty(), "differences": differences });
    let file = |tested: &Tested| json!({ "file": tested.file.display().to_string(), "cases": tested.cases.iter().map(case).collect::<Vec<_>>() });
    json!({ "files": tested.iter().map(file).collect::<Vec<_>>() })
}
