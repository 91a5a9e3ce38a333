//! What is settled once per table and route, so that an event costs copies and nothing else.

use minijinja::{Environment, UndefinedBehavior, context};
use towpath_contract::{Column, Kind, Op, TableSchema};

use super::json::{Form, write_string};
use super::matching::RouteFrom;
use super::transform::{self, Compiled, Failure, Fault, Program, StepConfig};
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
    /// Templates over `source`, `schema`, `table`, `op`.
    pub event_type: String,
    pub exchange: String,
    pub routing_key: String,
    pub steps: Vec<StepConfig>,
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
    pub(super) form: Form,
    pub(super) key: bool,
}

pub(super) struct RoutePlan {
    pub(super) route: RouteId,
    /// Appended to the id of the event, so that two routes' events of one change have two ids. Empty for the first route: with
    /// one route to a table, an id depends on the change alone.
    pub(super) id_suffix: String,
    pub(super) columns: Vec<ColumnPlan>,
    pub(super) program: Program,
    step_names: Vec<&'static str>,
    /// The steps change the key: order goes by the real one all the same.
    pub(super) changes_key: bool,
    ops: [OpPlan; Op::ALL.len()],
}

pub(super) struct OpPlan {
    pub(super) event_type: String,
    pub(super) exchange: String,
    pub(super) routing_key: String,
    /// The body up to the first member that differs from event to event.
    pub(super) body_start: Vec<u8>,
    /// Why no event of this kind can be published.
    pub(super) refusal: Option<String>,
}

impl RoutePlan {
    /// Why an event is parked whose row a step could not be done on.
    pub(super) fn explain(&self, failure: &Failure) -> String {
        let Failure { step, field, reason } = failure;
        format!("transform[{step}] (`{}`) cannot be done on `{field}`: {reason}", self.step_names[*step])
    }

    pub(super) fn op(&self, op: Op) -> &OpPlan {
        &self.ops[op as usize]
    }
}

/// A route whose steps cannot be done on a table.
#[derive(Debug)]
pub struct Unfit {
    pub route: String,
    /// The index of the step.
    pub step: usize,
    pub fault: Fault,
}

impl TablePlan {
    pub(super) fn new(source: &str, table: &TableSchema, routes: &[Route]) -> Result<TablePlan, Unfit> {
        let subject = match table.schema.as_str() {
            "" => table.name.clone(),
            schema => format!("{schema}.{}", table.name),
        };
        let raw = |(slot, column): (usize, &Column)| ColumnPlan::new(&column.name, &column.kind, slot, column.key);
        let columns: Vec<ColumnPlan> = table.columns.iter().enumerate().map(raw).collect();
        let taking = routes.iter().filter(|route| route.from.matches(&table.schema, &table.name));
        let routes = taking.enumerate().map(|(nth, route)| {
            let Compiled { fields, program, .. } = transform::compile(&route.steps, table, route.from.is_pattern())
                .map_err(|(step, fault)| Unfit { route: route.name.clone(), step, fault })?;
            let fields: Vec<ColumnPlan> =
                fields.iter().map(|field| ColumnPlan::new(&field.name, &field.kind, field.slot, field.key)).collect();
            let keys = |columns: &[ColumnPlan]| -> Vec<_> {
                columns
                    .iter()
                    .filter(|column| column.key)
                    .map(|column| (column.slot, column.label.clone(), column.form))
                    .collect()
            };
            let changes_key = keys(&fields) != keys(&columns)
                || columns.iter().any(|column| column.key && program.touches(column.slot));
            Ok(RoutePlan {
                route: route.id,
                id_suffix: if nth == 0 { String::new() } else { id_suffix(&route.name) },
                columns: fields,
                program,
                step_names: route.steps.iter().map(StepConfig::name).collect(),
                changes_key,
                ops: Op::ALL.map(|op| OpPlan::new(route, source, table, &subject, op)),
            })
        });
        let routes = routes.collect::<Result<_, Unfit>>()?;
        Ok(TablePlan { columns, routes, subject })
    }
}

impl ColumnPlan {
    fn new(name: &str, kind: &Kind, slot: usize, key: bool) -> ColumnPlan {
        let mut label = Vec::new();
        write_string(name, &mut label);
        label.push(b':');
        ColumnPlan { name: name.to_owned(), slot, label, form: Form::of(kind), key }
    }
}

/// A route's name as part of an id, at any length of the name. `check` refuses two names of one suffix. FNV-1a, folded to 32 bits: stable across builds, which `std`'s hashers do not promise.
pub fn id_suffix(name: &str) -> String {
    let mut hash = 0xcbf2_9ce4_8422_2325u64;
    for byte in name.bytes() {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    format!("-{:08x}", (hash >> 32) as u32 ^ hash as u32)
}

impl OpPlan {
    fn new(route: &Route, source: &str, table: &TableSchema, subject: &str, op: Op) -> OpPlan {
        let mut body_start = format!("{{\"op\":\"{}\",\"table\":", op.name()).into_bytes();
        write_string(subject, &mut body_start);
        let names = Names { source, schema: &table.schema, table: &table.name, op: op.name() };
        let mut plan = OpPlan {
            event_type: String::new(),
            exchange: String::new(),
            routing_key: String::new(),
            body_start,
            refusal: None,
        };
        let fields = [
            (&mut plan.event_type, "event.type", &route.event_type, false),
            (&mut plan.exchange, "event.exchange", &route.exchange, false),
            (&mut plan.routing_key, "event.routing_key", &route.routing_key, true),
        ];
        for (field, key, template, escape_dots) in fields {
            match render(template, &names, escape_dots) {
                Ok(text) if text.len() <= SHORT_STRING_BYTES_MAX => *field = text,
                Ok(text) => {
                    plan.refusal.get_or_insert(format!(
                        "{key} has {} bytes for {subject}; AMQP allows {SHORT_STRING_BYTES_MAX}",
                        text.len()
                    ));
                }
                Err(error) => {
                    plan.refusal.get_or_insert(format!("{key} cannot be rendered for {subject}: {error}"));
                }
            }
        }
        plan
    }
}

/// What a template may use.
pub struct Names<'a> {
    pub source: &'a str,
    pub schema: &'a str,
    pub table: &'a str,
    pub op: &'a str,
}

/// Work and memory that one rendering may take, about 64 bytes a piece: thousands of times what a name of 255 bytes needs.
const TEMPLATE_FUEL: u64 = 20_000;

/// The language of a route's templates.
pub fn environment<'s>() -> Environment<'s> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_fuel(Some(TEMPLATE_FUEL));
    environment
}

/// Renders one of a route's templates. In a routing key a dot separates words: one that stands in a name is written `%2E`
/// (and `%` is `%25`), so that a consumer's pattern counts words as it expects.
pub fn render(template: &str, names: &Names<'_>, escape_dots: bool) -> Result<String, minijinja::Error> {
    let name = |text: &str| match escape_dots {
        true => text.replace('%', "%25").replace('.', "%2E"),
        false => text.to_owned(),
    };
    // Repeating a list costs no fuel, only memory.
    if template.contains('*') {
        let why = "a template cannot multiply, nor hold a `*`";
        return Err(minijinja::Error::new(minijinja::ErrorKind::InvalidOperation, why));
    }
    environment().render_str(
        template,
        context! { source => name(names.source), schema => name(names.schema), table => name(names.table), op => names.op },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: Names<'static> = Names { source: "db", schema: "public", table: "my.table", op: "insert" };

    #[test]
    fn a_dot_within_a_name_is_no_separator_in_a_routing_key() {
        assert_eq!(render(DEFAULT_NAME_TEMPLATE, &NAMES, true).expect("valid"), "db.public.my%2Etable.insert");
        assert_eq!(render(DEFAULT_NAME_TEMPLATE, &NAMES, false).expect("valid"), "db.public.my.table.insert");
    }

    #[test]
    fn an_unknown_name_is_an_error() {
        assert!(render("{{ tabel }}", &NAMES, false).is_err());
    }

    #[test]
    fn a_template_that_makes_too_much_is_an_error() {
        let doubled = format!("{{% set x = table %}}{}{{{{ x }}}}", "{% set x = x ~ x %}".repeat(40));
        for (template, kind) in [
            (doubled.as_str(), minijinja::ErrorKind::OutOfFuel),
            ("{{ [table] * 13533323 }}", minijinja::ErrorKind::InvalidOperation),
        ] {
            let error = render(template, &NAMES, false).expect_err("it would take gigabytes");
            assert_eq!(error.kind(), kind, "{template}");
        }
    }
}
