//! Reads a config file and takes it through every step.

use std::fs;
use std::io::Read;
use std::path::Path;

use config::{File, FileFormat, Value};

use super::check::check;
use super::checked::Checked;
use super::locate::{FILE_BYTES_MAX, Marks, Syntax, SyntaxError};
use super::model::Config;
use super::origin::Origins;
use super::path::KeyPath;
use super::problem::{ConfigError, Place, Placed, Problem};
use super::{Environment, interpolate, overrides, schema, shape};

/// What the config is loaded for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// To run on it, now or later: what must be written to can be.
    Run,
    /// To ask a process that runs on it: its outbox need not be writable to us.
    Ask,
}

/// Reads, resolves and checks. Touches the local file system, and nothing else.
pub fn load(file: &Path, environment: &Environment, purpose: Purpose) -> Result<Checked, ConfigError> {
    let text = read(file)?;
    let syntax = syntax_of(file)?;
    match load_text(&text, syntax, environment, purpose) {
        Ok(mut checked) => {
            checked.places.file = file.into();
            Ok(checked)
        }
        Err(problems) => Err(ConfigError { file: file.into(), problems }),
    }
}

pub(crate) fn load_text(
    text: &str,
    syntax: Syntax,
    environment: &Environment,
    purpose: Purpose,
) -> Result<Checked, Vec<Placed>> {
    let marks = Marks::parse(text, syntax).map_err(|error| vec![syntax_problem(text, error)])?;
    let mut origins = Origins { marks, ..Origins::default() };
    let mut tree = parse(text, syntax).map_err(|problem| vec![origins.placed(problem)])?;

    let mut problems = overrides::apply(&mut tree, environment, &mut origins);
    problems.extend(interpolate::interpolate(&mut tree, environment, &mut origins));
    problems.extend(shape::conform(&mut tree, &origins));
    let checked = match problems.is_empty() {
        true => deserialize(tree, &origins).and_then(|written| check(written, &origins, purpose)),
        false => Err(problems),
    };
    checked.map_err(|problems| {
        let mut placed: Vec<Placed> = problems.into_iter().map(|problem| origins.placed(problem)).collect();
        placed.sort_by_key(|placed| match placed.place {
            Place::File { line, column } => (line, column),
            Place::Variable(_) | Place::Whole => (0, 0),
        });
        placed
    })
}

fn read(file: &Path) -> Result<String, ConfigError> {
    let refuse = |message: String, help: &str| ConfigError::whole(file, message, help);
    let unreadable = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::NotFound => {
            refuse("there is no such file".into(), "name the config with `--config FILE` or in TOWPATH_CONFIG")
        }
        std::io::ErrorKind::InvalidData => refuse("the file is not UTF-8".into(), "save it in UTF-8"),
        _ => refuse(format!("cannot be read: {error}"), "the user that runs towpath must be able to read it"),
    };
    let mut text = String::new();
    let open = fs::File::open(file).map_err(unreadable)?;
    open.take(FILE_BYTES_MAX + 1).read_to_string(&mut text).map_err(unreadable)?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(refuse(
            format!("larger than {FILE_BYTES_MAX} bytes"),
            "a config is a few kilobytes: is it the right file?",
        ));
    }
    Ok(text)
}

fn syntax_of(file: &Path) -> Result<Syntax, ConfigError> {
    match file.extension().and_then(|extension| extension.to_str()) {
        Some("yaml" | "yml") => Ok(Syntax::Yaml),
        Some("toml") => Ok(Syntax::Toml),
        _ => Err(ConfigError::whole(file, "the file's name does not say its syntax", "end it in .yaml, .yml or .toml")),
    }
}

/// The values. [`Marks`] found the text well-formed before: what is left to refuse is a top that is not a map.
fn parse(text: &str, syntax: Syntax) -> Result<Value, Problem> {
    let format = match syntax {
        Syntax::Yaml => FileFormat::Yaml,
        Syntax::Toml => FileFormat::Toml,
    };
    let built = config::Config::builder().add_source(File::from_str(text, format)).build();
    match built {
        Ok(built) => Ok(built.cache),
        // The cause is left out: it may quote a value.
        Err(_) => Err(Problem::new(KeyPath::root(), "the top of the file is not a map of keys")
            .help("it holds `sources`, `outbox` and `rabbitmq`, and may hold `routes` and `admin`")),
    }
}

fn syntax_problem(text: &str, SyntaxError { line, column, message }: SyntaxError) -> Placed {
    let mut problem = Problem::new(KeyPath::root(), message);
    let near = text.lines().skip(line.saturating_sub(2)).take(2);
    if near.into_iter().any(|line| line.contains("${")) {
        problem = problem.help("between { } and [ ], and in TOML, quote references: \"${NAME}\"");
    }
    Placed { problem, place: Place::File { line, column } }
}

/// After [`shape`] this fails only where a type has rules of its own that the schema does not tell.
fn deserialize(tree: Value, origins: &Origins) -> Result<Config, Vec<Problem>> {
    serde_path_to_error::deserialize(tree).map_err(|error| {
        let path = KeyPath::from(error.path());
        let expected =
            schema::node_at(schema::config_schema(), path.segments()).map(schema::description).unwrap_or_default();
        let message = match origins.may_show(&path) {
            true => format!("not valid here: {}", error.inner()),
            false => "the value (withheld) is not valid here".into(),
        };
        vec![Problem::new(path, message).help(expected.replace('\n', " "))]
    })
}
