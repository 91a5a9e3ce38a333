//! What is settled once per table and route, so that an event costs copies and nothing else.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;
use towpath_contract::{Column, Kind, Op, TableSchema};

use super::form::{About, FormPlan, OpPlan};
use super::format::{Bundling, Format};
use super::hash::fnv1a;
use super::json::{self, write_string};
use super::matching::RouteFrom;
use super::properties::Property;
use super::related::Relations;
use super::row_event::RowEvent;
use super::transform::{self, Compiled, Failure, Fault, Field, Program, StepConfig};
use crate::event::RouteId;

/// The longest routing key, event type or message id, in bytes: an AMQP short string.
pub const SHORT_STRING_BYTES_MAX: usize = 255;

/// Routing key and event type when a route says nothing.
pub const DEFAULT_NAME_TEMPLATE: &str = "{{ source }}.{{ schema }}.{{ table }}.{{ op }}";

/// A route as the engine needs it.
#[derive(Clone, Debug)]
pub struct Route {
    pub id: RouteId,
    pub name: String,
    pub from: RouteFrom,
    pub event: EventForm,
    pub relations: Relations,
    pub steps: Vec<StepConfig>,
    pub on_error: OnError,
}

/// What happens when a step cannot be done on a row, for its values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnError {
    #[default]
    Park,
    Stop,
    Nullify,
}

/// The form of a route's events: templates over `source`, `schema`, `table`, `op` and the rows' columns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventForm {
    pub event_type: String,
    pub exchange: String,
    pub routing_key: String,
    /// By name.
    pub headers: BTreeMap<String, String>,
    pub properties: Vec<(Property, String)>,
    pub format: Format,
    pub bundle: Option<Bundling>,
}

impl EventForm {
    /// What a route has that says nothing.
    pub fn new(exchange: &str) -> EventForm {
        EventForm {
            event_type: DEFAULT_NAME_TEMPLATE.into(),
            exchange: exchange.into(),
            routing_key: DEFAULT_NAME_TEMPLATE.into(),
            headers: BTreeMap::new(),
            properties: Vec::new(),
            format: Format::default(),
            bundle: None,
        }
    }

    /// Some template may name a column.
    pub(super) fn looks_into_rows(&self) -> bool {
        let names = [&self.event_type, &self.exchange, &self.routing_key];
        let properties = self.properties.iter().map(|(_, template)| template);
        let mut templates = names.into_iter().chain(self.headers.values()).chain(properties);
        templates.any(|template| ["row.", "before.", "after."].iter().any(|row| template.contains(row)))
    }
}

/// A table as its events are written.
pub(super) struct TablePlan {
    /// As the source has them.
    pub(super) columns: Vec<ColumnPlan>,
    /// `schema.table`, or the table's name alone where the source has no schemas.
    pub(super) subject: String,
    /// The routes that take this table, in the order of the config.
    pub(super) routes: Vec<RoutePlan>,
}

/// One member of an event's rows.
pub(super) struct ColumnPlan {
    pub(super) name: String,
    /// The column of the source's row.
    pub(super) slot: usize,
    /// `"name":`
    pub(super) label: Vec<u8>,
    pub(super) kind: Kind,
    /// As the database calls the type.
    pub(super) type_name: String,
    pub(super) form: json::Form,
    pub(super) key: bool,
}

pub(super) struct RoutePlan {
    pub(super) route: RouteId,
    pub(super) name: String,
    /// Appended to the id of the event, so that two routes' events of one change have two ids. Empty for the first route: with
    /// one route to a table, an id depends on the change alone.
    pub(super) id_suffix: String,
    /// Events hold what was looked up: the same change may be told another way when it is read again, and has another id then.
    pub(super) is_by_content: bool,
    pub(super) columns: Vec<ColumnPlan>,
    pub(super) program: Program,
    /// The rows are events themselves.
    pub(super) row_event: Option<RowEvent>,
    pub(super) on_error: OnError,
    pub(super) format: Format,
    pub(super) bundle: Option<Bundling>,
    step_names: Vec<&'static str>,
    /// The steps change the key: order goes by the real one all the same.
    pub(super) changes_key: bool,
    /// What order goes by where it is not the table's key.
    pub(super) order: Option<Vec<ColumnPlan>>,
    /// The route's own form, then the ones that a step may choose.
    forms: Vec<FormPlan>,
    /// The event types of those as they are written.
    variant_names: Vec<String>,
}

impl RoutePlan {
    /// Why an event is parked whose row a step could not be done on.
    pub(super) fn explain(&self, failure: &Failure) -> String {
        let Failure { step, field, reason } = failure;
        let on = if field.is_empty() { String::new() } else { format!(" on `{field}`") };
        format!("transform[{step}] (`{}`) cannot be done{on}: {reason}", self.step_names[*step])
    }

    /// Why the source stops at a change that a step could not be done on.
    pub(super) fn stop(&self, failure: &Failure, subject: &str, id: &str) -> Unfit {
        let on = if failure.field.is_empty() { String::new() } else { format!("`{}` of ", failure.field) };
        let message = format!("cannot be done on {on}a row of {subject} (event {id}): {}", failure.reason);
        let help = "let the step take such a value, or set `on_error: park` for this route and look at the row with `towpath parked`";
        Unfit { route: self.name.clone(), place: Place::Step(failure.step), fault: Fault::new(message).help(help) }
    }

    /// What tells the id of an event of this form from those of the change's other events.
    pub(super) fn variant_suffix(&self, variant: usize) -> String {
        id_suffix(&self.variant_names[variant])
    }

    /// What of it cannot do without the row as it was before a change of which the source sends the table's key alone: `sent`.
    pub(super) fn needing_old_rows(&self, sent: &dyn Fn(usize) -> bool) -> Vec<Place> {
        let mut places: Vec<Place> = self.program.needing_old_row(sent).into_iter().map(Place::Step).collect();
        // Of rows that are events themselves only new ones are.
        let of_texts = if self.row_event.is_some() { &[][..] } else { &[Op::Update, Op::Delete][..] };
        for (form, op) in self.forms.iter().flat_map(|form| of_texts.iter().map(move |op| (form, *op))) {
            for place in form.of(op).needing_old_row(op, sent).into_iter().map(Place::Event) {
                if !places.contains(&place) {
                    places.push(place);
                }
            }
        }
        places
    }

    /// `variant`: the one that a step chose.
    pub(super) fn form(&self, variant: Option<usize>, op: Op) -> &OpPlan {
        self.forms[variant.map_or(0, |variant| variant + 1)].of(op)
    }

    /// What the rows of events of that form have.
    pub(super) fn columns(&self, variant: Option<usize>) -> &[ColumnPlan] {
        self.forms[variant.map_or(0, |variant| variant + 1)].columns.as_ref().unwrap_or(&self.columns)
    }
}

/// A route that does not fit a table.
#[derive(Debug, PartialEq, Eq)]
pub struct Unfit {
    pub route: String,
    pub place: Place,
    pub fault: Fault,
}

/// Where in a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// The index of a step.
    Step(usize),
    /// Below `event`.
    Event(Vec<String>),
    /// Below `aggregate` or `lookup`: the column's name, and the index of a step of its `transform`.
    Related { key: &'static str, name: String, step: Option<usize> },
}

impl TablePlan {
    pub(super) fn new(source: &str, table: &TableSchema, routes: &[Route]) -> Result<TablePlan, Unfit> {
        let subject = match table.schema.as_str() {
            "" => table.name.clone(),
            schema => format!("{schema}.{}", table.name),
        };
        let raw = |(slot, column): (usize, &Column)| {
            ColumnPlan::new(&column.name, &column.kind, &column.type_name, slot, column.key)
        };
        let columns: Vec<ColumnPlan> = table.columns.iter().enumerate().map(raw).collect();
        let taking = routes.iter().filter(|route| route.from.matches(&table.schema, &table.name));
        let routes = taking.enumerate().map(|(nth, route)| {
            let Compiled { fields, program, variants, parts, row_event, .. } =
                transform::compile(&route.steps, table, route.from.is_pattern()).map_err(|(step, fault)| Unfit {
                    route: route.name.clone(),
                    place: Place::Step(step),
                    fault,
                })?;
            let fields: Vec<ColumnPlan> = fields.iter().map(ColumnPlan::of).collect();
            let keys = |columns: &[ColumnPlan]| -> Vec<_> {
                columns
                    .iter()
                    .filter(|column| column.key)
                    .map(|column| (column.slot, column.label.clone(), column.form))
                    .collect()
            };
            let changes_key = keys(&fields) != keys(&columns)
                || columns.iter().any(|column| column.key && program.touches(column.slot));
            let order = row_event.as_ref().map(|row_event| {
                let of = |slot: &usize| table.columns.get(*slot).map(|column| (*slot, column));
                let columns = row_event.aggregate.iter().filter_map(of);
                let plan = |(slot, column): (usize, &Column)| {
                    ColumnPlan::new(&column.name, &column.kind, &column.type_name, slot, true)
                };
                columns.map(plan).collect()
            });
            let about = About { source, table, subject: &subject };
            let forms = FormPlan::all(&route.event, about, &fields, &variants, parts);
            let unfit = |(place, fault)| Unfit { route: route.name.clone(), place: Place::Event(place), fault };
            let forms = forms.map_err(unfit)?;
            Ok(RoutePlan {
                route: route.id,
                name: route.name.clone(),
                id_suffix: if nth == 0 && route.relations.is_empty() { String::new() } else { id_suffix(&route.name) },
                is_by_content: !route.relations.is_empty(),
                columns: fields,
                program,
                row_event,
                on_error: route.on_error,
                format: route.event.format,
                bundle: route.event.bundle,
                step_names: route.steps.iter().map(StepConfig::name).collect(),
                changes_key: changes_key || order.is_some(),
                order,
                forms,
                variant_names: variants.into_iter().map(|variant| variant.event_type.unwrap_or_default()).collect(),
            })
        });
        let routes = routes.collect::<Result<_, Unfit>>()?;
        Ok(TablePlan { columns, routes, subject })
    }
}

impl ColumnPlan {
    pub(super) fn of(field: &Field) -> ColumnPlan {
        ColumnPlan::new(&field.name, &field.kind, &field.type_name, field.slot, field.key)
    }

    fn new(name: &str, kind: &Kind, type_name: &str, slot: usize, key: bool) -> ColumnPlan {
        let mut label = Vec::new();
        write_string(name, &mut label);
        label.push(b':');
        ColumnPlan {
            name: name.to_owned(),
            slot,
            label,
            kind: kind.clone(),
            type_name: type_name.to_owned(),
            form: json::Form::of(kind),
            key,
        }
    }
}

/// A route's name as part of an id, at any length of the name. `check` refuses two names of one suffix.
pub fn id_suffix(name: &str) -> String {
    let hash = fnv1a(name.bytes());
    format!("-{:08x}", (hash >> 32) as u32 ^ hash as u32)
}
