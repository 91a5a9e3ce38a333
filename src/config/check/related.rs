//! Related rows of a route: of which tables, and whether they can be captured.

use std::collections::BTreeSet;

use towpath_contract::TablePattern;

use super::Checker;
use super::routes::place_fault;
use crate::config::checked::{CheckedRoute, CheckedSource};
use crate::config::model::SourceConfig;
use crate::config::path::KeyPath;
use crate::route::related::Missing;

/// Steps that say which events there are: of related rows there are none.
const CHOOSING: [&str; 5] = ["branch", "emit_when", "outbox_table", "sample", "split"];

impl Checker<'_> {
    pub(super) fn relations(&mut self, route_path: &KeyPath, route: &CheckedRoute, sources: &[CheckedSource]) {
        if route.relations.is_empty() {
            return;
        }
        if route.from.is_pattern() {
            let help = "name one table: `source.schema.table`";
            self.problem(
                &route_path.key("from"),
                "related rows are of one table's rows, and this may take several",
                help,
            );
        }
        for name in route.relations.aggregate.keys().filter(|name| route.relations.lookup.contains_key(*name)) {
            self.problem(
                &route_path.key("lookup").key(name),
                "an aggregate has this name",
                "call one of them otherwise",
            );
        }
        let mut on: Option<BTreeSet<&String>> = None;
        for (key, name, related) in route.relations.all() {
            let path = route_path.key(key).key(name);
            let is_aggregate = key == "aggregate";
            let parts = related.from.split_once('.').filter(|(schema, table)| !schema.is_empty() && !table.is_empty());
            match parts.filter(|_| !related.from.contains('*')) {
                None => {
                    let found = self.origins.quote(&path.key("from"), &related.from);
                    let help = "`schema.table`, of the same source";
                    self.problem(&path.key("from"), format!("{found} is no table"), help);
                }
                Some((schema, table)) if is_aggregate => {
                    let source = sources.iter().find(|source| source.name == route.from.source);
                    let is_captured = source.is_some_and(|source| captures(&source.config, schema, table));
                    if !is_captured {
                        let found = self.origins.quote(&path.key("from"), &related.from);
                        let message = format!("the source {} does not capture {found}", route.from.source);
                        self.problem(
                            &path.key("from"),
                            message,
                            format!("add it to sources.{}.tables", route.from.source),
                        );
                    }
                    if (schema, table) == (&route.from.schema, &route.from.table) {
                        self.problem(&path.key("from"), "this is the route's own table", "`lookup` finds rows of it");
                    }
                }
                Some(_) => {}
            }
            if is_aggregate && related.missing != Missing::default() {
                let help = "leave it out: a list without rows is empty";
                self.problem(&path.key("missing"), "`missing` is of a `lookup`", help);
            }
            if !is_aggregate && related.owned {
                self.problem(
                    &path.key("owned"),
                    "`owned` is of an `aggregate`",
                    "leave it out: a lookup is always looked up",
                );
            }
            if related.on.is_empty() {
                let help = "`on: { column_there: column_here }`";
                self.problem(&path.key("on"), "it is not said which rows belong to which", help);
            }
            let here: BTreeSet<&String> = related.on.values().collect();
            if here.len() < related.on.len() {
                self.problem(
                    &path.key("on"),
                    "a column here stands twice",
                    "each column there has one of its own here",
                );
            } else if is_aggregate && on.get_or_insert_with(|| here.clone()) != &here {
                let help = "the columns of the route's table are those of its key, in each `on`";
                self.problem(&path.key("on"), "this aggregate goes by other columns than the first", help);
            }
            for (index, step) in related.transform.iter().enumerate() {
                let path = path.key("transform").index(index).key(step.name());
                for fault in step.faults() {
                    self.problems.push(place_fault(&path, fault));
                }
                if CHOOSING.contains(&step.name()) {
                    let message =
                        format!("`{}` says which events there are, and related rows are part of one", step.name());
                    self.problem(&path, message, "`filter` leaves rows out");
                }
            }
        }
    }
}

pub(super) fn captures(source: &SourceConfig, schema: &str, table: &str) -> bool {
    let SourceConfig::Postgres(config) = source;
    // One that cannot be read is a problem of its own.
    config.tables.iter().any(|text| TablePattern::parse(text).is_none_or(|pattern| pattern.matches(schema, table)))
}
