//! Templates of a route's events, as far as they can be judged without a row.

use towpath_contract::Op;

use super::Checker;
use crate::config::path::KeyPath;
use crate::config::shape::alternatives;
use crate::route::matching::RouteFrom;
use crate::route::plan::SHORT_STRING_BYTES_MAX;
use crate::route::template::{Goes, Names, environment, render, unknown_call, wants};

/// What a template may use.
const NAMES: [&str; 5] = ["source", "schema", "table", "op", "type"];

/// A template, by what it makes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Makes {
    Type,
    Exchange,
    RoutingKey,
    Header,
    Property,
}

impl Makes {
    pub(super) fn key(self) -> &'static str {
        match self {
            Makes::Type => "type",
            Makes::Exchange => "exchange",
            Makes::RoutingKey => "routing_key",
            Makes::Header => "headers",
            Makes::Property => "properties",
        }
    }

    /// A type cannot be made of itself.
    fn names(self) -> &'static [&'static str] {
        if self == Makes::Type { &NAMES[..4] } else { &NAMES }
    }
}

impl Checker<'_> {
    /// Compiles, knows its names, and renders for every op within a short string.
    pub(super) fn template(&mut self, path: &KeyPath, makes: Makes, text: &str, from: &RouteFrom) {
        if let Some((message, help)) = template_fault(text, from, makes, self.origins.may_show(path)) {
            self.problem(path, message, help);
        }
    }
}

const TEMPLATE_HELP: &str = "for example `orders.{{ row.status | lower | default('none') }}`";

/// What is wrong with a template, and what is allowed. With `show` false nothing of its text is told.
pub(super) fn template_fault(text: &str, from: &RouteFrom, makes: Makes, show: bool) -> Option<(String, String)> {
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
    let (columns, names) = wants(&template);
    if let Some(name) = names.into_iter().find(|name| !makes.names().contains(&name.as_str())) {
        if ["row", "before", "after"].contains(&name.as_str()) {
            let help = "one column of it: `{{ row.country }}`";
            return Some(("the template uses a whole row".into(), help.into()));
        }
        let (shown, near) = if show { (format!("`{name}`"), name.as_str()) } else { ("a name".into(), "") };
        let message = format!("the template uses {shown}, which it does not have");
        let mut help = alternatives(near, makes.names().iter().copied());
        if show {
            help += &format!("\na column is written `row.{name}`");
        }
        return Some((message, help));
    }
    let sample = |pattern: &str| if pattern.contains('*') { "name".to_owned() } else { pattern.to_owned() };
    let (schema, table) = (sample(&from.schema), sample(&from.table));
    let event_type = (makes != Makes::Type).then_some("type");
    let names = |op: Op| Names { source: &from.source, schema: &schema, table: &table, op: op.name(), event_type };
    let goes = if makes == Makes::RoutingKey { Goes::RoutingKey } else { Goes::Plain };
    if !columns.is_empty() {
        // What it makes is seen when there is a row.
        let error = unknown_call(text, &names(Op::Insert), goes)?;
        return Some((format!("the template cannot be rendered: {}", reason(&error)), TEMPLATE_HELP.into()));
    }
    Op::ALL.into_iter().find_map(|op| {
        let names = names(op);
        match render(text, &names, goes) {
            Ok(rendered) if makes != Makes::Header && rendered.len() > SHORT_STRING_BYTES_MAX => {
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
