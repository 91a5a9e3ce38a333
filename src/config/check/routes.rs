//! Routes: where they take from, and whether their templates can be rendered.

use std::collections::BTreeMap;

use towpath_contract::{ByteSize, TablePattern};

use super::Checker;
use super::templates::{Makes, template_fault};
use crate::config::checked::{CheckedRoute, CheckedSource};
use crate::config::model::{AfterParked, DEFAULT_EXCHANGE, EventConfig, RouteConfig, SourceConfig, Unroutable};
use crate::config::path::{KeyPath, Segment};
use crate::config::problem::Problem;
use crate::config::shape::alternatives;
use crate::route::format::{Bundle, BundleForm, Bundling, Format};
use crate::route::is_reserved_header;
use crate::route::matching::RouteFrom;
use crate::route::plan::{EventForm, OnError, id_suffix};
use crate::route::template::{environment, wants};
use crate::route::transform::{At, Fault, StepConfig};

/// Of a message of several events, when a route says nothing.
const BUNDLE_ROUTING_KEY: &str = "{{ source }}.bundle";

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
            let checked = CheckedRoute {
                name,
                event: event_form(&route.event, &route.transform),
                steps: route.transform.clone(),
                on_error: route.on_error,
                unroutable: route.unroutable,
                after_parked: route.after_parked,
                from,
            };
            self.steps(&path.key("transform"), &checked);
            let event = path.key("event");
            self.template(&event.key("type"), Makes::Type, &checked.event.event_type, &checked.from);
            self.template(&event.key("exchange"), Makes::Exchange, &checked.event.exchange, &checked.from);
            self.template(&event.key("routing_key"), Makes::RoutingKey, &checked.event.routing_key, &checked.from);
            for (header, template) in &checked.event.headers {
                let path = event.key("headers").key(header);
                if header.is_empty() || header.len() > 255 || header.starts_with("x-") || is_reserved_header(header) {
                    let help = "1 to 255 bytes; `x-…`, `CC` and `BCC` are the broker's, `cloudEvents:…` is Towpath's";
                    self.problem(&path, "this is no name for a header", help);
                }
                self.template(&path, Makes::Header, template, &checked.from);
            }
            for (property, template) in &checked.event.properties {
                let path = event.key("properties").key(property.name());
                self.template(&path, Makes::Property, template, &checked.from);
                let is_fixed = !template.contains("{{") && !template.contains("{%");
                if let Some(why) = property.fault(template).filter(|_| is_fixed && !template.is_empty()) {
                    let found = self.origins.quote(&path, template);
                    self.problem(&path, format!("{found} {why}"), "or a template that makes one");
                }
            }
            self.outbox_table(&path, &checked);
            if let Some(bundling) = checked.event.bundle {
                self.bundle(&event, bundling, &checked);
            }
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
        let wanted = format!("{}.{}", from.schema, from.table);
        let exact = !wanted.contains('*') && from.schema != "pg_logical";
        let captured = |pattern: &String| {
            // One that cannot be read is a problem of its own.
            TablePattern::parse(pattern).is_none_or(|pattern| pattern.matches(&from.schema, &from.table))
        };
        let is_captured = match &source.config {
            SourceConfig::Postgres(config) => config.tables.iter().any(captured),
            SourceConfig::Files(config) => towpath_files::captures(config, &from.schema, &from.table),
        };
        if exact && !is_captured {
            let found = self.origins.quote(path, &wanted);
            let help = format!("add it to sources.{}.tables", source.name);
            self.problem(path, format!("the source {} does not capture {found}", source.name), help);
        }
        Some(from)
    }

    /// A message that is larger than the broker's is parked whole.
    pub(super) fn bundles_fit(&mut self, written: &[RouteConfig], max: ByteSize) {
        for (index, route) in written.iter().enumerate() {
            let bytes = route.event.bundle.map_or(0, |bundle| bundle.settled().bytes_max as u64);
            if bytes > max.0 {
                let path = KeyPath::root().key("routes").index(index).key("event").key("bundle");
                let message =
                    format!("a message may have {} here, and {max} by rabbitmq.max_message_size", ByteSize(bytes));
                self.problem(&path, message, "lower its `max_bytes`, or raise the other as far as the broker allows");
            }
        }
    }

    /// A message of many events is of no one table.
    fn bundle(&mut self, event: &KeyPath, bundling: Bundling, route: &CheckedRoute) {
        let path = event.key("bundle");
        if bundling.events_max == 0 || bundling.bytes_max == 0 {
            self.problem(&path, "a message of no events", "`max_events` and `max_bytes` are at least 1");
        }
        let names = [("exchange", &route.event.exchange), ("routing_key", &route.event.routing_key)];
        for (key, template) in names {
            let environment = environment();
            let Ok(template) = environment.template_from_str(template) else { continue };
            let (columns, names) = wants(&template);
            if !columns.is_empty() || names.iter().any(|name| name != "source") {
                let help = "with `bundle`, only `{{ source }}`: its events are of several tables and kinds";
                self.problem(&event.key(key), "this is not one and the same for all events of a message", help);
            }
        }
        for (key, is_set) in
            [("headers", !route.event.headers.is_empty()), ("properties", !route.event.properties.is_empty())]
        {
            if is_set {
                self.problem(
                    &event.key(key),
                    format!("{key} are of one event, and a message of several has none"),
                    "leave them out, or `bundle`",
                );
            }
        }
        let tells_type =
            bundling.form == BundleForm::CloudeventsBatch || route.event.format == Format::CloudeventsStructured;
        for step in &route.steps {
            let help = match step.name() {
                "outbox_table" => "leave out `bundle`: a row of it is a message",
                "branch" => "make a route of each branch, with a `filter`",
                "emit_when" if !tells_type => "`form: cloudevents_batch` has the type with every event",
                _ => continue,
            };
            self.problem(&path, format!("`{}` gives each event a form of its own", step.name()), help);
        }
    }

    /// A row of an outbox table says itself what its event is.
    fn outbox_table(&mut self, path: &KeyPath, route: &CheckedRoute) {
        let Some(at) = route.steps.iter().position(|step| step.name() == "outbox_table") else { return };
        if route.event.format != Format::default() {
            let help = "leave it out: the row's payload is the body, its other columns are the headers";
            self.problem(&path.key("event").key("format"), "`outbox_table` makes events of a form of its own", help);
        }
        if route.on_error == OnError::Nullify {
            let help = "`park` or `stop`";
            self.problem(
                &path.key("on_error"),
                "a part of an event of `outbox_table` that is null would be left out",
                help,
            );
        }
        if let Some(behind) = route.steps.get(at + 1) {
            let path = path.key("transform").index(at + 1).key(behind.name());
            self.problem(&path, "a step behind `outbox_table` does nothing", "put it in front");
        }
    }

    /// The steps by themselves, whatever tables they meet.
    fn steps(&mut self, path: &KeyPath, route: &CheckedRoute) {
        let mut chooses = None;
        for (index, step) in route.steps.iter().enumerate() {
            let path = path.index(index).key(step.name());
            for fault in step.faults() {
                self.problems.push(place_fault(&path, fault));
            }
            let variants = step.variants();
            if !variants.is_empty()
                && let Some(first) = chooses.replace(index)
            {
                let message = format!("step {first} of this route already says which events there are");
                self.problem(&path, message, "a route has one `branch` or one `emit_when`; make another route");
            }
            for (at, variant) in variants {
                // What stands below a transition is the type alone; a branch has a key for each.
                let whole = matches!(at.last(), Some(At::Key(_)));
                let path = at.into_iter().map(segment).fold(path.clone(), |path, segment| path.with(segment));
                let templates = [
                    (Makes::Type, variant.event_type),
                    (Makes::Exchange, variant.exchange),
                    (Makes::RoutingKey, variant.routing_key),
                ];
                for (makes, text) in templates {
                    let Some(text) = text else { continue };
                    let fault = template_fault(&text, &route.from, makes, self.origins.may_show(&path));
                    if let Some((message, help)) = fault {
                        let path = if whole { path.clone() } else { path.key(makes.key()) };
                        self.problem(&path, message, help);
                    }
                }
            }
        }
    }
}

/// A fault of a step of `transform`, whose own key is `path`.
pub fn place_fault(path: &KeyPath, fault: Fault) -> Problem {
    let path = fault.at.into_iter().map(segment).fold(path.clone(), |path, segment| path.with(segment));
    let problem = Problem::new(path, fault.message);
    if fault.help.is_empty() { problem } else { problem.help(fault.help) }
}

fn segment(at: At) -> Segment {
    match at {
        At::Key(key) => Segment::Key(key),
        At::Index(index) => Segment::Index(index),
    }
}

fn event_form(written: &EventConfig, steps: &[StepConfig]) -> EventForm {
    let mut default = EventForm::new(DEFAULT_EXCHANGE);
    for of_step in steps.iter().map(StepConfig::defaults) {
        default.event_type = of_step.event_type.unwrap_or(default.event_type);
        default.routing_key = of_step.routing_key.unwrap_or(default.routing_key);
    }
    let bundle = written.bundle.map(Bundle::settled);
    if bundle.is_some() {
        default.routing_key = BUNDLE_ROUTING_KEY.into();
    }
    EventForm {
        event_type: written.event_type.clone().unwrap_or(default.event_type),
        exchange: written.exchange.clone().unwrap_or(default.exchange),
        routing_key: written.routing_key.clone().unwrap_or(default.routing_key),
        headers: written.headers.clone(),
        properties: written.properties.set(),
        format: written.format,
        bundle,
    }
}

fn implicit(source: &str) -> CheckedRoute {
    CheckedRoute {
        name: source.into(),
        from: RouteFrom { source: source.into(), schema: "*".into(), table: "*".into() },
        event: EventForm::new(DEFAULT_EXCHANGE),
        steps: Vec::new(),
        on_error: OnError::default(),
        unroutable: Unroutable::default(),
        after_parked: AfterParked::default(),
    }
}
