//! What is wrong with a config file, and how it is said.

use std::fmt;
use std::path::PathBuf;

use serde::Serialize;

use super::path::KeyPath;

/// One thing that is wrong. The texts hold no secret and nothing that came from `${…}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub path: KeyPath,
    /// What was found and what is wrong with it, in lower case, without a full stop.
    pub message: String,
    /// What is allowed, or the way out.
    pub help: Option<String>,
}

impl Problem {
    pub fn new(path: KeyPath, message: impl Into<String>) -> Problem {
        Problem { path, message: message.into(), help: None }
    }

    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Problem {
        self.help = Some(help.into());
        self
    }
}

/// Where a value was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// Counted from 1, in characters.
    File { line: usize, column: usize },
    /// An environment variable that overrides the file.
    Variable(String),
    /// No single place: the file as a whole, or a file that cannot be read.
    Whole,
}

/// A problem with its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed {
    pub problem: Problem,
    pub place: Place,
}

/// Why a config cannot be used: everything that was found in one go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    pub file: PathBuf,
    pub problems: Vec<Placed>,
}

impl ConfigError {
    pub fn whole(file: impl Into<PathBuf>, message: impl Into<String>, help: impl Into<String>) -> ConfigError {
        let problem = Problem::new(KeyPath::root(), message).help(help);
        ConfigError { file: file.into(), problems: vec![Placed { problem, place: Place::Whole }] }
    }

    pub fn records(&self) -> Vec<ProblemRecord> {
        self.problems.iter().map(|placed| ProblemRecord::new(&self.file, placed)).collect()
    }
}

/// A problem for machines.
#[derive(Clone, Debug, Serialize)]
pub struct ProblemRecord {
    pub file: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub column: Option<usize>,
    /// The environment variable that the value came from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub variable: Option<String>,
    pub path: String,
    pub message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
}

impl ProblemRecord {
    pub fn new(file: &std::path::Path, Placed { problem, place }: &Placed) -> ProblemRecord {
        let (line, column, variable) = match place {
            Place::File { line, column } => (Some(*line), Some(*column), None),
            Place::Variable(name) => (None, None, Some(name.clone())),
            Place::Whole => (None, None, None),
        };
        ProblemRecord {
            file: file.display().to_string(),
            line,
            column,
            variable,
            path: problem.path.to_string(),
            message: problem.message.clone(),
            help: problem.help.clone(),
        }
    }
}

/// `file:line:column: path: message`, which editors and terminals make a link of, then what is allowed, indented.
impl fmt::Display for ProblemRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.variable, self.line, self.column) {
            (Some(variable), ..) => write!(f, "${variable}: ")?,
            (None, Some(line), Some(column)) => write!(f, "{}:{line}:{column}: ", self.file)?,
            _ => write!(f, "{}: ", self.file)?,
        }
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.message)?;
        for line in self.help.iter().flat_map(|help| help.lines()) {
            write!(f, "\n    {line}")?;
        }
        Ok(())
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, record) in self.records().iter().enumerate() {
            write!(f, "{}{record}", if index == 0 { "" } else { "\n" })?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}
