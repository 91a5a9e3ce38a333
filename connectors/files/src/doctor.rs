//! What stands in the way of capturing from a folder.

use std::fs;

use rustix::fs::Access;
use towpath_contract::{Finding, Known, Severity};

use crate::config::{BadRecords, FilesConfig};
use crate::folder::table_of;
use crate::table::{ConfigFault, Table};

fn finding(severity: Severity, code: &'static str, message: String, fix: Option<String>) -> Finding {
    Finding { severity, code, message, fix, who: Some("the operating system's administrator".into()) }
}

pub(crate) fn config_faults(faults: &[ConfigFault]) -> Vec<Finding> {
    let one = |fault: &ConfigFault| Finding {
        severity: Severity::Error,
        code: "config",
        message: format!("{}: {}", fault.path, fault.message),
        fix: None,
        who: None,
    };
    faults.iter().map(one).collect()
}

pub(crate) fn examine(config: &FilesConfig, tables: &[Table], known: &Known) -> Vec<Finding> {
    let mut findings = fidelity(tables);
    findings.extend(old_rows(known));
    let folder = &config.folder;
    let entries = match fs::read_dir(folder) {
        Err(error) => {
            let fix = format!("mkdir -p {0} && chmod u+rwx {0}", folder.display());
            findings.push(finding(
                Severity::Error,
                "folder",
                format!("{} cannot be read: {error}", folder.display()),
                Some(fix),
            ));
            return findings;
        }
        Ok(entries) => entries,
    };
    for path in [folder.clone(), folder.join(&config.archive), folder.join(&config.errors)] {
        let there = path.exists();
        if there && rustix::fs::access(&path, Access::WRITE_OK | Access::EXEC_OK).is_err() {
            let message =
                format!("Towpath may not write to {}, and files are moved there or away from there", path.display());
            findings.push(finding(
                Severity::Error,
                "folder_not_writable",
                message,
                Some(format!("chmod u+wx {}", path.display())),
            ));
        }
    }
    let names = entries.filter_map(|entry| {
        let entry = entry.ok()?;
        let link = entry.file_type().ok()?.is_symlink();
        Some((entry.file_name().to_string_lossy().into_owned(), link, entry.file_type().ok()?.is_file()))
    });
    let markers: Vec<_> = tables
        .iter()
        .filter_map(|table| match &table.config.complete {
            crate::config::Complete::Marker(suffix) => Some(suffix.as_str()),
            _ => None,
        })
        .collect();
    for (name, link, file) in names {
        if link && table_of(tables, &name).is_some() {
            let message = format!("{name} is a symbolic link, and those are not followed: it is not captured");
            findings.push(finding(Severity::Warning, "symbolic_link", message, None));
        } else if file && table_of(tables, &name).is_none() && !markers.iter().any(|suffix| name.ends_with(suffix)) {
            findings.push(finding(
                Severity::Note,
                "file_of_no_table",
                format!("{name} fits no table's `files`: it is left alone"),
                None,
            ));
        }
    }
    let refused = fs::read_dir(folder.join(&config.errors))
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let refused = refused.filter(|name| name.ends_with(".reason")).count();
    if refused > 0 {
        let message = format!(
            "{refused} files were refused and lie in {}, each with its reason",
            folder.join(&config.errors).display()
        );
        findings.push(finding(Severity::Warning, "files_refused", message, None));
    }
    findings
}

/// Parts of the config that need what no file has.
fn old_rows(known: &Known) -> impl Iterator<Item = Finding> + '_ {
    known.old_rows.iter().map(|wanted| Finding {
        severity: Severity::Warning,
        code: "old_rows",
        message: format!(
            "{} looks at rows of {}.{} as they were before a change, and files do not have them",
            wanted.needed_by, wanted.schema, wanted.table
        ),
        fix: None,
        who: None,
    })
}

/// What this way of capturing can see, and what it cannot.
fn fidelity(tables: &[Table]) -> Vec<Finding> {
    let one = |table: &Table| {
        let deletes = table.config.operation.as_ref().is_some_and(|operation| !operation.delete.is_empty());
        let sees = if table.config.extract.is_some() {
            "inserts, updates and deletes between two extracts"
        } else if deletes {
            "inserts, updates and deletes as the file says them"
        } else {
            "what the file holds, and no deletes"
        };
        let bad = if table.config.bad_records == BadRecords::Deliver {
            "; bad records come as rows of their own"
        } else {
            ""
        };
        Finding {
            severity: Severity::Note,
            code: "fidelity",
            message: format!(
                "{}: sees {sees}; no states between two files, no rows as they were before, each file as one transaction{bad}",
                table.config.name
            ),
            fix: None,
            who: None,
        }
    };
    tables.iter().map(one).collect()
}
