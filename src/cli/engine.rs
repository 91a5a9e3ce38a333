//! What the command line needs of the engine. The one place where the two meet.

use serde::Serialize;
use towpath_contract::{Error, Finding, Fut, Severity};

use crate::admin::Handle;
use crate::config::Checked;
use crate::discover::Sampled;
use crate::route::Previewed;

pub trait Engine: Sync {
    /// Runs until told to stop (SIGTERM, SIGINT), then finishes what is in flight. Serves the admin API meanwhile.
    fn run(&self, config: Checked) -> Fut<'_, Result<(), Error>>;

    /// Looks at every source and at the broker. Changes nothing. What cannot be reached is a finding, too.
    fn doctor<'a>(&'a self, config: &'a Checked) -> Fut<'a, Vec<Examined>>;

    /// The tables of the config's source, and at most so many rows of each. Changes nothing.
    fn discover<'a>(&'a self, config: &'a Checked, rows: usize) -> Fut<'a, Result<Vec<Sampled>, Error>>;

    /// Some rows of a live table through the routes that take it. Changes nothing. `None`: the config has no such source.
    fn preview<'a>(&'a self, config: &'a Checked, wanted: &'a Wanted) -> Fut<'a, Result<Option<Vec<Preview>>, Error>>;

    /// Answers [`crate::admin::Command`]s from the outbox alone, while no process runs on it: status and parked events.
    /// Other commands are refused. Fails where there is no outbox yet, or another process holds it.
    fn stopped<'a>(&'a self, config: &'a Checked) -> Fut<'a, Result<Handle, Error>>;
}

/// Rows of a table that are to be looked at.
#[derive(Clone, Debug)]
pub struct Wanted {
    pub source: String,
    pub schema: String,
    pub table: String,
    /// At most.
    pub rows: usize,
}

/// What a route makes of them.
#[derive(Debug)]
pub struct Preview {
    pub route: String,
    /// The names of its steps.
    pub steps: Vec<&'static str>,
    pub rows: Vec<Previewed>,
}

/// What `doctor` found at one source or at the broker.
#[derive(Clone, Debug)]
pub struct Examined {
    /// `source orders_db`, `rabbitmq`.
    pub subject: String,
    pub findings: Vec<Finding>,
}

/// A finding for machines.
#[derive(Clone, Debug, Serialize)]
pub struct FindingRecord<'a> {
    pub severity: &'static str,
    pub code: &'a str,
    pub message: &'a str,
    pub fix: Option<&'a str>,
    pub who: Option<&'a str>,
}

impl<'a> From<&'a Finding> for FindingRecord<'a> {
    fn from(finding: &'a Finding) -> FindingRecord<'a> {
        FindingRecord {
            severity: severity_name(finding.severity),
            code: finding.code,
            message: &finding.message,
            fix: finding.fix.as_deref(),
            who: finding.who.as_deref(),
        }
    }
}

pub fn severity_name(severity: Severity) -> &'static str {
    match severity {
        Severity::Note => "note",
        Severity::Warning => "warning",
        Severity::Error => "error",
    }
}
