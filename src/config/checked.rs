//! The config after every check: what the engine runs on. Nothing here can be wrong in a way that a file can show.

use std::path::PathBuf;

use super::model::{AdminConfig, AfterParked, OutboxConfig, RabbitmqConfig, SourceConfig, Unroutable};
use super::origin::Origins;
use super::path::KeyPath;
use super::problem::{Placed, Problem, ProblemRecord};
use crate::event::RouteId;
use crate::route::matching::RouteFrom;
use crate::route::plan::{EventForm, OnError, Route};
use crate::route::related::Relations;
use crate::route::transform::StepConfig;

#[derive(Clone, Debug)]
pub struct Checked {
    /// By name, in the order of the names. At least one.
    pub sources: Vec<CheckedSource>,
    /// In the order of the file; one per source where the file has none. At least one.
    pub routes: Vec<CheckedRoute>,
    /// In a folder that exists and can be written to.
    pub outbox: OutboxConfig,
    /// All addresses are in `urls`, at least one.
    pub broker: RabbitmqConfig,
    pub admin: AdminConfig,
    /// What works and is probably not meant.
    pub warnings: Vec<Placed>,
    pub places: Places,
}

/// Where in the file everything stands, for what is only found out with a live source.
#[derive(Clone, Debug, Default)]
pub struct Places {
    pub(super) file: PathBuf,
    pub(super) origins: Origins,
}

impl Places {
    /// Whether an error may quote what stands there.
    pub fn may_show(&self, path: &KeyPath) -> bool {
        self.origins.may_show(path)
    }

    pub fn record(&self, problem: Problem) -> ProblemRecord {
        ProblemRecord::new(&self.file, &self.origins.placed(problem))
    }
}

#[derive(Clone, Debug)]
pub struct CheckedSource {
    /// 1 to 40 of `a-z`, `0-9`, `_`, `-`.
    pub name: String,
    pub config: SourceConfig,
}

#[derive(Clone, Debug)]
pub struct CheckedRoute {
    /// Unique.
    pub name: String,
    /// Its source is one of the config's.
    pub from: RouteFrom,
    /// Its templates compile, use no unknown name, and render for every op, as far as that can be seen without a row.
    pub event: EventForm,
    /// Each of another table, that is captured where an event follows from it.
    pub relations: Relations,
    /// Right by themselves; whether the tables have their columns is seen when the source is open.
    pub steps: Vec<StepConfig>,
    pub on_error: OnError,
    pub unroutable: Unroutable,
    pub after_parked: AfterParked,
}

impl CheckedRoute {
    /// As the engine needs it.
    pub fn route(&self, id: RouteId) -> Route {
        Route {
            id,
            name: self.name.clone(),
            from: self.from.clone(),
            event: self.event.clone(),
            relations: self.relations.clone(),
            steps: self.steps.clone(),
            on_error: self.on_error,
        }
    }

    /// The exchanges that it names without a template.
    pub fn exchanges(&self) -> Vec<String> {
        let chosen = self.steps.iter().flat_map(|step| step.variants());
        let chosen = chosen.filter_map(|(_, variant)| variant.exchange);
        let mut named: Vec<String> = std::iter::once(self.event.exchange.clone()).chain(chosen).collect();
        named.retain(|name| !name.contains("{{") && !name.contains("{%"));
        named.sort();
        named.dedup();
        named
    }
}
