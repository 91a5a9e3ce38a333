//! Routes: where they take from, and whether their templates can be rendered.

use std::collections::BTreeMap;

use towpath_contract::{Op, TablePattern};

use super::Checker;
use crate::config::checked::{CheckedRoute, CheckedSource};
use crate::config::model::{AfterParked, DEFAULT_EXCHANGE, RouteConfig, SourceConfig, Unroutable};
use crate::config::path::{KeyPath, Segment};
use crate::config::problem::Problem;
use crate::config::shape::alternatives;
use crate::route::matching::RouteFrom;
use crate::route::plan::{DEFAULT_NAME_TEMPLATE, Names, SHORT_STRING_BYTES_MAX, environment, id_suffix, render};
use crate::route::transform::{At, Fault};

/// What a template may use.
const NAMES: [&str; 4] = ["source", "schema", "table", "op"];

/// The longest name of a route, which is a label of metrics.
const ROUTE_NAME_BYTES_MAX: usize = 200;

impl Checker<'_> {
    /// The routes of the file, or one per source where it has none.
    pub(super) fn routes(&mut self, written: &[RouteConfig], sources: &[CheckedSource]) -> Vec<CheckedRoute> {
        if written.is_empty() {
            return sources.iter().map(|source| implicit(&source.name)).collect();
        }
        let written_name = |index: usize| {
            let route: &RouteConfig = &written[index];
            route.name.clone().unwrap_or_else(|| route.from.clone())
        };
        let mut names: BTreeMap<String, usize> = BTreeMap::new();
        let mut suffixes: BTreeMap<String, usize> = BTreeMap::new();
        let mut routes = Vec::new();
        for (index, route) in written.iter().enumerate() {
            let path = KeyPath::root().key("routes").index(index);
            let name = written_name(index);
            let name_path = path.key(if route.name.is_some() { "name" } else { "from" });
            if name.is_empty() || name.len() > ROUTE_NAME_BYTES_MAX || name.chars().any(char::is_control) {
                self.problem(&name_path, "this is no name for a route", "1 to 200 bytes, no control characters");
            }
            if let Some(first) = names.insert(name.clone(), index) {
                let found = self.origins.quote(&name_path, &name);
                let help = "give one of them a `name` of its own";
                self.problem(&name_path, format!("routes[{first}] is called {found} too"), help);
            }
            if let Some(first) = suffixes.insert(id_suffix(&name), index).filter(|first| written_name(*first) != name) {
                let help = "give one of them another `name`";
                let message = format!("this name and that of routes[{first}] would give events the same id");
                self.problem(&name_path, message, help);
            }
            let Some(from) = self.from(&path.key("from"), &route.from, sources) else { continue };
            let template = |text: &Option<String>, default: &str| text.clone().unwrap_or_else(|| default.to_owned());
            let checked = CheckedRoute {
                name,
                event_type: template(&route.event.event_type, DEFAULT_NAME_TEMPLATE),
                exchange: template(&route.event.exchange, DEFAULT_EXCHANGE),
                routing_key: template(&route.event.routing_key, DEFAULT_NAME_TEMPLATE),
                steps: route.transform.clone(),
                unroutable: route.unroutable,
                after_parked: route.after_parked,
                from,
            };
            for (index, step) in route.transform.iter().enumerate() {
                let path = path.key("transform").index(index).key(step.name());
                for fault in step.faults() {
                    self.problems.push(place_fault(&path, fault));
                }
            }
            let event = path.key("event");
            self.template(&event.key("type"), &checked.event_type, &checked.from, false);
            self.template(&event.key("exchange"), &checked.exchange, &checked.from, false);
            self.template(&event.key("routing_key"), &checked.routing_key, &checked.from, true);
            routes.push(checked);
        }
        for source in sources.iter().filter(|source| routes.iter().all(|route| route.from.source != source.name)) {
            let path = KeyPath::root().key("sources").key(&source.name);
            self.warning(
                &path,
                "no route takes from this source: nothing of it is published",
                "add a route, or leave it out",
            );
        }
        routes
    }

    fn from(&mut self, path: &KeyPath, text: &str, sources: &[CheckedSource]) -> Option<RouteFrom> {
        let Some(from) = RouteFrom::parse(text) else {
            let found = self.origins.quote(path, text);
            let help = "`source`, or `source.schema.table`, with `*` for any: `orders_db.public.*`";
            self.problem(path, format!("{found} is neither a source nor a table of one"), help);
            return None;
        };
        let Some(source) = sources.iter().find(|source| source.name == from.source) else {
            let found = self.origins.quote(path, &from.source);
            let names = sources.iter().map(|source| source.name.as_str());
            let help = match self.origins.may_show(path) {
                true => alternatives(&from.source, names),
                false => format!("allowed: {}", names.collect::<Vec<_>>().join(", ")),
            };
            self.problem(path, format!("there is no source {found}"), help);
            return None;
        };
        let SourceConfig::Postgres(config) = &source.config;
        let wanted = format!("{}.{}", from.schema, from.table);
        let exact = !wanted.contains('*') && from.schema != "pg_logical";
        let captured = |pattern: &String| {
            // One that cannot be read is a problem of its own.
            TablePattern::parse(pattern).is_none_or(|pattern| pattern.matches(&from.schema, &from.table))
        };
        if exact && !config.tables.iter().any(captured) {
            let found = self.origins.quote(path, &wanted);
            let help = format!("add it to sources.{}.tables", source.name);
            self.problem(path, format!("the source {} does not capture {found}", source.name), help);
        }
        Some(from)
    }

    /// Compiles, knows its names, and renders for every op within a short string.
    fn template(&mut self, path: &KeyPath, text: &str, from: &RouteFrom, escape_dots: bool) {
        if let Some((message, help)) = template_fault(text, from, escape_dots, self.origins.may_show(path)) {
            self.problem(path, message, help);
        }
    }
}

/// A fault of a step of `transform`, whose own key is `path`.
pub fn place_fault(path: &KeyPath, fault: Fault) -> Problem {
    let segment = |at: At| match at {
        At::Key(key) => Segment::Key(key),
        At::Index(index) => Segment::Index(index),
    };
    let path = fault.at.into_iter().map(segment).fold(path.clone(), |path, segment| path.with(segment));
    let problem = Problem::new(path, fault.message);
    if fault.help.is_empty() { problem } else { problem.help(fault.help) }
}

/// What is wrong with a template, and what is allowed. With `show` false nothing of its text is told.
fn template_fault(text: &str, from: &RouteFrom, escape_dots: bool, show: bool) -> Option<(String, String)> {
    // `detail` may quote the template's text.
    let reason = |error: &minijinja::Error| match error.detail() {
        Some(detail) if show => format!("{}: {detail}", error.kind()),
        _ => error.kind().to_string(),
    };
    let environment = environment();
    let template = match environment.template_from_str(text) {
        Ok(template) => template,
        Err(error) => {
            return Some((
                format!("the template cannot be read: {}", reason(&error)),
                "for example `orders.{{ op }}`".into(),
            ));
        }
    };
    let known =
        |name: &String| NAMES.contains(&name.as_str()) || environment.globals().any(|(global, _)| global == name);
    if let Some(name) = template.undeclared_variables(false).into_iter().filter(|name| !known(name)).min() {
        let (shown, near) = if show { (format!("`{name}`"), name.as_str()) } else { ("a name".into(), "") };
        let message = format!("the template uses {shown}, which it does not have");
        return Some((message, alternatives(near, NAMES.into_iter())));
    }
    let sample = |pattern: &str| if pattern.contains('*') { "name".to_owned() } else { pattern.to_owned() };
    let (schema, table) = (sample(&from.schema), sample(&from.table));
    Op::ALL.into_iter().find_map(|op| {
        let names = Names { source: &from.source, schema: &schema, table: &table, op: op.name() };
        match render(text, &names, escape_dots) {
            Ok(rendered) if rendered.len() > SHORT_STRING_BYTES_MAX => {
                Some((format!("this makes {} bytes", rendered.len()), "AMQP allows at most 255 bytes".into()))
            }
            Ok(_) => None,
            Err(error) => {
                let message = format!("the template fails for op `{}`: {}", op.name(), reason(&error));
                Some((message, "it must give text for every op".into()))
            }
        }
    })
}

fn implicit(source: &str) -> CheckedRoute {
    CheckedRoute {
        name: source.into(),
        from: RouteFrom { source: source.into(), schema: "*".into(), table: "*".into() },
        event_type: DEFAULT_NAME_TEMPLATE.into(),
        exchange: DEFAULT_EXCHANGE.into(),
        routing_key: DEFAULT_NAME_TEMPLATE.into(),
        steps: Vec::new(),
        unroutable: Unroutable::default(),
        after_parked: AfterParked::default(),
    }
}
