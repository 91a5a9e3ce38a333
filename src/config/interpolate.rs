//! `${NAME}`, `${NAME:-default}` and `${file:/path}` in string values; `$${` stands for `${`.

use std::fs;
use std::io::Read;

use config::{Value, ValueKind};

use super::Environment;
use super::origin::Origins;
use super::path::KeyPath;
use super::problem::Problem;

/// The largest file that `${file:…}` reads, in bytes.
const FILE_BYTES_MAX: u64 = 64 << 10;

/// Replaces references in every string of the tree but those that a variable overrode: these are taken as they are.
pub(super) fn interpolate(tree: &mut Value, environment: &Environment, origins: &mut Origins) -> Vec<Problem> {
    let mut problems = Vec::new();
    visit(tree, &KeyPath::root(), environment, origins, &mut problems);
    problems
}

fn visit(
    value: &mut Value,
    path: &KeyPath,
    environment: &Environment,
    origins: &mut Origins,
    problems: &mut Vec<Problem>,
) {
    if origins.variables.contains_key(path) {
        return;
    }
    match &mut value.kind {
        ValueKind::Table(table) => {
            for (key, value) in table.iter_mut() {
                visit(value, &path.key(key), environment, origins, problems);
            }
        }
        ValueKind::Array(items) => {
            for (index, value) in items.iter_mut().enumerate() {
                visit(value, &path.index(index), environment, origins, problems);
            }
        }
        ValueKind::String(text) if text.contains("${") => {
            origins.interpolated.insert(path.clone());
            match expand(text, environment) {
                Ok(expanded) => *text = expanded,
                Err(Refusal { message, help }) => {
                    problems.push(Problem::new(path.clone(), message).help(help));
                    // The other checks go on without this key.
                    value.kind = ValueKind::Nil;
                }
            }
        }
        _ => {}
    }
}

#[derive(Debug, PartialEq)]
struct Refusal {
    message: String,
    help: String,
}

fn refusal(message: impl Into<String>, help: impl Into<String>) -> Refusal {
    Refusal { message: message.into(), help: help.into() }
}

fn expand(text: &str, environment: &Environment) -> Result<String, Refusal> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        if let Some(before) = rest[..at].strip_suffix('$') {
            out.push_str(before);
            out.push_str("${");
            rest = &rest[at + 2..];
            continue;
        }
        out.push_str(&rest[..at]);
        let (reference, after) = rest[at + 2..].split_once('}').ok_or_else(|| {
            refusal("`${` without its `}`", "write `${NAME}`, or `$${` where the two characters are meant")
        })?;
        out.push_str(&look_up(reference, environment)?);
        rest = after;
    }
    out.push_str(rest);
    Ok(out)
}

fn look_up(reference: &str, environment: &Environment) -> Result<String, Refusal> {
    if let Some(path) = reference.strip_prefix("file:") {
        return read(path);
    }
    let (name, default) = match reference.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (reference, None),
    };
    let is_name =
        name.bytes().enumerate().all(|(at, b)| b == b'_' || b.is_ascii_alphabetic() || at > 0 && b.is_ascii_digit());
    if name.is_empty() || !is_name {
        return Err(refusal(
            "`${…}` does not name a variable",
            "write `${NAME}`, `${NAME:-default}` or `${file:/path}`; `$${` stands for the two characters themselves",
        ));
    }
    match (environment.get(name), default) {
        (Some(value), None) => Ok(value.to_owned()),
        // As in the shell: an empty variable counts as none where a default is given.
        (Some(value), Some(_)) if !value.is_empty() => Ok(value.to_owned()),
        (_, Some(default)) => Ok(default.to_owned()),
        (None, None) => Err(refusal(
            format!("the environment variable {name} is not set"),
            format!("set it, or give a default: `${{{name}:-default}}`"),
        )),
    }
}

fn read(path: &str) -> Result<String, Refusal> {
    let refused =
        |reason: String| refusal(format!("the file {path} {reason}"), "`${file:/path}` takes a small text file");
    let unreadable = |error: std::io::Error| refused(format!("cannot be read: {error}"));
    let mut text = String::new();
    let file = fs::File::open(path).map_err(unreadable)?;
    file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text).map_err(unreadable)?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(refused(format!("is larger than {FILE_BYTES_MAX} bytes")));
    }
    let text = text.strip_suffix('\n').map_or(&*text, |text| text.strip_suffix('\r').unwrap_or(text));
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment() -> Environment {
        Environment::of([("NAME", "value"), ("EMPTY", ""), ("NESTED", "${NAME}")])
    }

    #[test]
    fn references_are_replaced_and_nothing_else_is() {
        let cases = [
            ("${NAME}", "value"),
            ("a${NAME}b${NAME}", "avaluebvalue"),
            ("${NAME:-other}", "value"),
            ("${UNSET:-other}", "other"),
            ("${UNSET:-}", ""),
            ("${EMPTY:-other}", "other"),
            ("${EMPTY}", ""),
            ("$${NAME}", "${NAME}"),
            ("$$${NAME}", "$${NAME}"),
            ("${NESTED}", "${NAME}"),
            ("$NAME {NAME} $", "$NAME {NAME} $"),
        ];
        for (text, expected) in cases {
            assert_eq!(expand(text, &environment()).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn a_file_gives_its_text_without_the_last_newline() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        for (written, read) in
            [("hunter2\n", "hunter2"), ("hunter2\r\n", "hunter2"), ("two\nlines\n\n", "two\nlines\n")]
        {
            std::fs::write(&path, written).unwrap();
            assert_eq!(expand(&format!("${{file:{}}}", path.display()), &environment()).as_deref(), Ok(read));
        }
    }

    #[test]
    fn what_cannot_be_replaced_says_why() {
        let message = |text: &str| expand(text, &environment()).unwrap_err().message;
        assert_eq!(message("${UNSET}"), "the environment variable UNSET is not set");
        assert_eq!(message("a${NAME"), "`${` without its `}`");
        assert_eq!(message("${}"), "`${…}` does not name a variable");
        assert_eq!(message("${1X}"), "`${…}` does not name a variable");
        assert!(message("${file:/does/not/exist}").starts_with("the file /does/not/exist cannot be read"));
    }
}
