//! The forms of a route's events: what they are called and where they go, settled once per table and op.

use std::collections::BTreeMap;

use towpath_contract::{Op, TableSchema};

use super::json::write_string;
use super::plan::{ColumnPlan, EventForm, SHORT_STRING_BYTES_MAX};
use super::properties::Property;
use super::template::{Goes, Names, Refusal, Text};
use super::transform::{Fault, Field, Variant};

/// One form of a route's events.
pub(super) struct FormPlan {
    /// By op.
    ops: Vec<OpPlan>,
    /// What its rows have, where that is not what the route's have.
    pub(super) columns: Option<Vec<ColumnPlan>>,
}

pub(super) struct OpPlan {
    pub(super) event_type: Text,
    pub(super) exchange: Text,
    pub(super) routing_key: Text,
    /// By name.
    pub(super) headers: Vec<(String, Text)>,
    pub(super) properties: Vec<(Property, Text)>,
    /// The body up to the first member that differs from event to event.
    pub(super) body_start: Vec<u8>,
    /// Why no event of this kind can be published.
    pub(super) refusal: Option<String>,
}

/// The table that events are of.
#[derive(Clone, Copy)]
pub(super) struct About<'a> {
    pub(super) source: &'a str,
    pub(super) table: &'a TableSchema,
    /// See [`super::plan::TablePlan`].
    pub(super) subject: &'a str,
}

/// The templates of one form of a route's events.
#[derive(Clone, Copy)]
struct Form<'a> {
    event_type: &'a str,
    exchange: &'a str,
    routing_key: &'a str,
    headers: &'a BTreeMap<String, String>,
    properties: &'a [(Property, String)],
}

impl<'a> Form<'a> {
    /// The route's own, and those that its steps may choose.
    fn all(event: &'a EventForm, variants: &'a [Variant]) -> impl Iterator<Item = Form<'a>> {
        let own = Form {
            event_type: &event.event_type,
            exchange: &event.exchange,
            routing_key: &event.routing_key,
            headers: &event.headers,
            properties: &event.properties,
        };
        let other = move |variant: &'a Variant| Form {
            event_type: variant.event_type.as_deref().unwrap_or(own.event_type),
            exchange: variant.exchange.as_deref().unwrap_or(own.exchange),
            routing_key: variant.routing_key.as_deref().unwrap_or(own.routing_key),
            headers: own.headers,
            properties: own.properties,
        };
        std::iter::once(own).chain(variants.iter().map(other))
    }
}

impl FormPlan {
    /// The route's own form, then the variants, of which `parts` have columns of their own.
    ///
    /// # Errors
    /// As those of [`OpPlan::new`].
    pub(super) fn all(
        event: &EventForm,
        about: About<'_>,
        fields: &[ColumnPlan],
        variants: &[Variant],
        parts: Vec<Option<Vec<Field>>>,
    ) -> Result<Vec<FormPlan>, (Vec<String>, Fault)> {
        let plan = |(form, part): (Form<'_>, Option<Vec<Field>>)| {
            let columns = part.map(|part| part.iter().map(ColumnPlan::of).collect::<Vec<_>>());
            let seen = columns.as_deref().unwrap_or(fields);
            let ops = Op::ALL.into_iter().map(|op| OpPlan::new(form, about, seen, op));
            Ok(FormPlan { ops: ops.collect::<Result<_, _>>()?, columns })
        };
        Form::all(event, variants).zip(std::iter::once(None).chain(parts)).map(plan).collect()
    }

    pub(super) fn of(&self, op: Op) -> &OpPlan {
        &self.ops[op as usize]
    }
}

impl OpPlan {
    /// Where below `event` the templates stand that may have no text.
    pub(super) fn needing_old_row(&self, op: Op, sent: &dyn Fn(usize) -> bool) -> Vec<Vec<String>> {
        let names = [("type", &self.event_type), ("exchange", &self.exchange), ("routing_key", &self.routing_key)];
        let names = names.into_iter().map(|(key, text)| (vec![key.to_owned()], text));
        let headers = self.headers.iter().map(|(name, text)| (vec!["headers".to_owned(), name.clone()], text));
        let properties =
            self.properties.iter().map(|(of, text)| (vec!["properties".to_owned(), of.name().to_owned()], text));
        names
            .chain(headers)
            .chain(properties)
            .filter(|(_, text)| text.needs_old_row(op, sent))
            .map(|(place, _)| place)
            .collect()
    }

    /// # Errors
    /// What is wrong with a template whatever rows come, and where below `event` it stands.
    fn new(
        form: Form<'_>,
        About { source, table, subject }: About<'_>,
        columns: &[ColumnPlan],
        op: Op,
    ) -> Result<OpPlan, (Vec<String>, Fault)> {
        let mut body_start = format!("{{\"op\":\"{}\",\"table\":", op.name()).into_bytes();
        write_string(subject, &mut body_start);
        let mut refusal = None;
        let mut text = |key: &[&str], template: &str, names: &Names<'_>, goes| {
            let shown = || format!("event.{}", key.join("."));
            let short = key[0] != "headers";
            let why = match Text::new(template, names, goes, columns) {
                Ok(text) => match text.fixed().map(str::len).filter(|length| short && *length > SHORT_STRING_BYTES_MAX)
                {
                    None => return Ok(text),
                    Some(length) => {
                        format!("{} has {length} bytes for {subject}; AMQP allows {SHORT_STRING_BYTES_MAX}", shown())
                    }
                },
                Err(Refusal::Wrong(fault)) => return Err((key.iter().map(|key| (*key).to_owned()).collect(), fault)),
                Err(Refusal::Fails(why)) => format!("{} cannot be rendered for {subject}: {why}", shown()),
            };
            refusal.get_or_insert(why);
            Ok(Text::Fixed(String::new()))
        };
        let mut names = Names { source, schema: &table.schema, table: &table.name, op: op.name(), event_type: None };
        let event_type = text(&["type"], form.event_type, &names, Goes::Plain)?;
        names.event_type = event_type.fixed();
        let exchange = text(&["exchange"], form.exchange, &names, Goes::Plain)?;
        let routing_key = text(&["routing_key"], form.routing_key, &names, Goes::RoutingKey)?;
        let headers = form
            .headers
            .iter()
            .map(|(name, template)| Ok((name.clone(), text(&["headers", name], template, &names, Goes::Plain)?)));
        let headers = headers.collect::<Result<_, (Vec<String>, Fault)>>()?;
        let properties = form.properties.iter().map(|(property, template)| {
            Ok((*property, text(&["properties", property.name()], template, &names, Goes::Plain)?))
        });
        let properties = properties.collect::<Result<_, (Vec<String>, Fault)>>()?;
        Ok(OpPlan { event_type, exchange, routing_key, headers, properties, body_start, refusal })
    }
}
