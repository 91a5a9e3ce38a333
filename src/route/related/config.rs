//! What a route says of related rows.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use super::{AGGREGATE, LOOKUP};
use crate::route::transform::StepConfig;

/// Rows of another table, and how they belong to the rows here.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Related {
    /// The other table, `schema.table`, of the same source.
    pub from: String,

    /// Which of its rows: by the name of each column there, the column here that it equals: `{ invoice_id: invoice_id }`.
    pub on: BTreeMap<String, String>,

    /// What is done to each of its rows, as in a route's `transform`; steps that choose events have no place here, but `filter`, which
    /// leaves rows out.
    #[serde(default)]
    pub transform: Vec<StepConfig>,

    /// Of an `aggregate`: no such row is there before the row that it belongs to, because a foreign key holds it. What one transaction
    /// says of a new row and of what belongs to it is then all, and is not looked up. Default `false`: it is always looked up.
    #[serde(default)]
    pub owned: bool,

    /// Of a `lookup`: what becomes of an event whose row points to none. `null` (default): the column is null. `park`: the event is
    /// set aside. Where the row itself has null there is nothing to look up.
    #[serde(default)]
    pub missing: Missing,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Missing {
    #[default]
    Null,
    Park,
}

impl Related {
    /// Schema and name. A table's name may hold dots.
    pub(in crate::route) fn table(&self) -> (&str, &str) {
        self.from.split_once('.').unwrap_or(("", &self.from))
    }
}

/// What a route says of related rows, by the names of the columns that they become.
#[derive(Clone, Debug, Default)]
pub struct Relations {
    /// Lists of rows that belong to one row here: a change of them is a change of it.
    pub aggregate: BTreeMap<String, Related>,
    /// One row each, to which rows here point.
    pub lookup: BTreeMap<String, Related>,
}

impl Relations {
    pub fn is_empty(&self) -> bool {
        self.aggregate.is_empty() && self.lookup.is_empty()
    }

    /// The key of the config under which the column is made.
    pub(crate) fn all(&self) -> impl Iterator<Item = (&'static str, &String, &Related)> {
        let aggregate = self.aggregate.iter().map(|(name, related)| (AGGREGATE, name, related));
        aggregate.chain(self.lookup.iter().map(|(name, related)| (LOOKUP, name, related)))
    }
}
