//! The templates of a route's events: what does not look into the row is text once and for all, the rest is rendered for every change.

use std::borrow::Cow;
use std::collections::BTreeMap;

use minijinja::{Environment, UndefinedBehavior, Value as Shown};
use towpath_contract::{Kind, Op, Value};

use super::plan::ColumnPlan;
use super::transform::{Fault, Rows, View};

/// Work and memory that one rendering may take, about 64 bytes a piece: thousands of times what a name of 255 bytes needs.
const TEMPLATE_FUEL: u64 = 20_000;

/// What a template may use that does not differ from row to row.
#[derive(Clone, Copy)]
pub struct Names<'a> {
    pub source: &'a str,
    pub schema: &'a str,
    pub table: &'a str,
    pub op: &'a str,
    /// What became of the event's type, for the templates of where it goes.
    pub event_type: Option<&'a str>,
}

/// What became of the event's type: `{{ type }}`.
const TYPE: &str = "type";

/// The rows that a template may look into: `{{ row.country }}`.
const ROWS: [&str; 3] = ["row", "before", "after"];

/// Where a template's text goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Goes {
    /// Anywhere: a name's dots are dots.
    Plain,
    /// Into a routing key, where a dot separates words: one that stands in a name or a value is written `%2E`, and `%` is `%25`, so
    /// that a consumer's pattern counts words as it expects.
    RoutingKey,
}

impl Goes {
    fn word(self, text: &str) -> Cow<'_, str> {
        match self {
            Goes::RoutingKey if text.contains(['%', '.']) => text.replace('%', "%25").replace('.', "%2E").into(),
            _ => text.into(),
        }
    }
}

/// The language of a route's templates.
pub fn environment<'s>() -> Environment<'s> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_fuel(Some(TEMPLATE_FUEL));
    environment
}

/// The columns that a template looks for, as `(row, column)`, and other names that it has no value for.
pub fn wants(template: &minijinja::Template<'_, '_>) -> (Vec<(String, String)>, Vec<String>) {
    let (mut columns, mut names) = (Vec::new(), Vec::new());
    let globals: Vec<String> = environment().globals().map(|(name, _)| name.to_owned()).collect();
    for name in template.undeclared_variables(true) {
        match name.split_once('.') {
            Some((row, column)) if ROWS.contains(&row) => columns.push((row.to_owned(), column.to_owned())),
            parts => {
                let first = parts.map_or(name.as_str(), |(first, _)| first);
                if !globals.iter().any(|global| global == first) {
                    names.push(first.to_owned());
                }
            }
        }
    }
    columns.sort();
    names.sort();
    (columns, names)
}

fn context(names: &Names<'_>, goes: Goes) -> BTreeMap<&'static str, Shown> {
    let name = |text: &str| Shown::from(goes.word(text).into_owned());
    let mut context = BTreeMap::from([
        ("source", name(names.source)),
        ("schema", name(names.schema)),
        ("table", name(names.table)),
        ("op", Shown::from(names.op)),
    ]);
    // Its dots separate words, as whoever wrote it means them to.
    context.extend(names.event_type.map(|event_type| (TYPE, Shown::from(event_type))));
    context
}

/// Renders a template that looks into no row.
///
/// # Errors
/// It is not well-formed, uses what it does not have, or does too much.
pub fn render(template: &str, names: &Names<'_>, goes: Goes) -> Result<String, minijinja::Error> {
    no_multiplication(template)?;
    environment().render_str(template, context(names, goes))
}

/// What a template that looks into rows calls and nobody has, as far as one try shows it.
pub fn unknown_call(template: &str, names: &Names<'_>, goes: Goes) -> Option<minijinja::Error> {
    let environment = environment();
    let template = environment.template_from_str(template).ok()?;
    let mut context = context(names, goes);
    for row in ROWS {
        let columns = wants(&template).0.into_iter().filter(|(of, _)| of == row);
        let values: BTreeMap<String, Shown> = columns.map(|(_, column)| (column, Shown::from("1"))).collect();
        context.insert(row, Shown::from(values));
    }
    use minijinja::ErrorKind::{UnknownFilter, UnknownFunction, UnknownMethod, UnknownTest};
    let unknown = |error: &minijinja::Error| {
        matches!(error.kind(), UnknownFilter | UnknownFunction | UnknownMethod | UnknownTest)
    };
    template.render(context).err().filter(unknown)
}

/// Repeating a list costs no fuel, only memory.
fn no_multiplication(template: &str) -> Result<(), minijinja::Error> {
    if template.contains('*') {
        let why = "a template cannot multiply, nor hold a `*`";
        return Err(minijinja::Error::new(minijinja::ErrorKind::InvalidOperation, why));
    }
    Ok(())
}

/// A template, as one table and op have it.
#[derive(Debug)]
pub(super) enum Text {
    Fixed(String),
    Each(Box<Each>),
}

/// One that is rendered for every change.
#[derive(Debug)]
pub(super) struct Each {
    environment: Environment<'static>,
    names: BTreeMap<&'static str, Shown>,
    columns: Vec<Wanted>,
    goes: Goes,
}

#[derive(Debug)]
struct Wanted {
    row: &'static str,
    name: String,
    slot: usize,
    kind: Kind,
}

const TEMPLATE: &str = "template";

/// Why a template has no text for a table, or for a change. Nothing of a row is in it.
#[derive(Debug)]
pub(super) enum Refusal {
    /// It is wrong, whatever rows come.
    Wrong(Fault),
    /// It fails for this op.
    Fails(String),
}

impl Text {
    pub(super) fn new(template: &str, names: &Names<'_>, goes: Goes, columns: &[ColumnPlan]) -> Result<Text, Refusal> {
        let fails = |error: minijinja::Error| Refusal::Fails(error.kind().to_string());
        no_multiplication(template).map_err(fails)?;
        let (wanted, others) = wants(&environment().template_from_str(template).map_err(fails)?);
        // Its type may differ from row to row.
        let of_each = names.event_type.is_none() && others.iter().any(|name| name == TYPE);
        if wanted.is_empty() && !of_each {
            return render(template, names, goes).map(Text::Fixed).map_err(fails);
        }
        let mut found = Vec::with_capacity(wanted.len());
        for (row, name) in wanted {
            let Some(column) = columns.iter().find(|column| column.name == name) else {
                let known: Vec<&str> = columns.iter().map(|column| column.name.as_str()).collect();
                let message = format!("the template uses `{row}.{name}`, and the events have no such column");
                return Err(Refusal::Wrong(Fault::new(message).help(format!("they have: {}", known.join(", ")))));
            };
            let row = ROWS.into_iter().find(|known| *known == row).expect("only those are wanted");
            found.push(Wanted { row, name, slot: column.slot, kind: column.kind.clone() });
        }
        let mut environment = environment();
        environment.add_template_owned(TEMPLATE, template.to_owned()).map_err(fails)?;
        Ok(Text::Each(Box::new(Each { environment, names: context(names, goes), columns: found, goes })))
    }

    /// # Errors
    /// Why it has no text for this change, without any value.
    ///
    /// `event_type`: what became of the type of the event; empty for the type itself.
    pub(super) fn of(&self, rows: Option<&Rows<'_>>, event_type: &str) -> Result<Cow<'_, str>, String> {
        match (self, rows) {
            (Text::Fixed(text), _) => Ok(Cow::Borrowed(text)),
            (Text::Each(_), None) => Err("the row is not looked into".into()),
            (Text::Each(each), Some(rows)) => each.render(rows, event_type).map(Cow::Owned),
        }
    }

    /// It may have no text where only the columns in `sent` are known of a row before it is updated or deleted.
    pub(super) fn needs_old_row(&self, op: Op, sent: &dyn Fn(usize) -> bool) -> bool {
        match self {
            Text::Fixed(_) => false,
            Text::Each(each) => each.is_short_of_values(op, sent),
        }
    }

    pub(super) fn fixed(&self) -> Option<&str> {
        match self {
            Text::Fixed(text) => Some(text),
            Text::Each(_) => None,
        }
    }
}

impl Each {
    fn render(&self, rows: &Rows<'_>, event_type: &str) -> Result<String, String> {
        let value = |column: &Wanted| {
            let view = match column.row {
                "before" => rows.old(),
                "after" => rows.after,
                _ => rows.after.or(rows.before),
            };
            self.value(column, view?)
        };
        self.render_with(value, event_type).map_err(|error| match error.kind() {
            minijinja::ErrorKind::UndefinedError => {
                "a value that it needs is null, or was not sent; `{{ row.x | default('none') }}` says what to write then".into()
            }
            kind => kind.to_string(),
        })
    }

    fn render_with(
        &self,
        value: impl Fn(&Wanted) -> Option<Shown>,
        event_type: &str,
    ) -> Result<String, minijinja::Error> {
        let mut context: BTreeMap<&str, Shown> = self.names.clone();
        context.entry(TYPE).or_insert_with(|| Shown::from(event_type));
        for row in ROWS {
            let columns = self.columns.iter().filter(|column| column.row == row);
            let values: BTreeMap<String, Shown> =
                columns.filter_map(|column| Some((column.name.clone(), value(column)?))).collect();
            context.insert(row, Shown::from(values));
        }
        self.environment.get_template(TEMPLATE).expect("it was added").render(context)
    }

    /// Tried on a row whose values are all alike.
    fn is_short_of_values(&self, op: Op, sent: &dyn Fn(usize) -> bool) -> bool {
        let value = |column: &Wanted| {
            let known = match (op, column.row) {
                // An update's old row is sent whole or, under the same key, not at all.
                (Op::Update, "before") | (Op::Delete, "after") => false,
                (Op::Update, _) => true,
                _ => sent(column.slot),
            };
            known.then(|| Shown::from(1))
        };
        let undefined = |error: minijinja::Error| error.kind() == minijinja::ErrorKind::UndefinedError;
        self.render_with(value, "").is_err_and(undefined)
    }

    /// Nothing for null and what was not sent: neither has a text.
    fn value(&self, column: &Wanted, view: View<'_>) -> Option<Shown> {
        let Value::Data(bytes) = view.value(column.slot) else { return None };
        let text = String::from_utf8_lossy(bytes);
        Some(match column.kind {
            Kind::Bool => Shown::from(bytes == b"true"),
            Kind::Int => text.parse::<i64>().map_or_else(|_| Shown::from(&*text), Shown::from),
            _ => Shown::from(&*self.goes.word(&text)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::plan::DEFAULT_NAME_TEMPLATE;
    use super::*;

    const NAMES: Names<'static> =
        Names { source: "db", schema: "public", table: "my.table", op: "insert", event_type: None };

    #[test]
    fn a_dot_within_a_name_is_no_separator_in_a_routing_key() {
        let rendered = |goes| render(DEFAULT_NAME_TEMPLATE, &NAMES, goes).expect("valid");
        assert_eq!(rendered(Goes::RoutingKey), "db.public.my%2Etable.insert");
        assert_eq!(rendered(Goes::Plain), "db.public.my.table.insert");
    }

    #[test]
    fn an_unknown_name_is_an_error() {
        assert!(render("{{ tabel }}", &NAMES, Goes::Plain).is_err());
    }

    #[test]
    fn a_template_that_makes_too_much_is_an_error() {
        let doubled = format!("{{% set x = table %}}{}{{{{ x }}}}", "{% set x = x ~ x %}".repeat(40));
        for (template, kind) in [
            (doubled.as_str(), minijinja::ErrorKind::OutOfFuel),
            ("{{ [table] * 13533323 }}", minijinja::ErrorKind::InvalidOperation),
        ] {
            let error = render(template, &NAMES, Goes::Plain).expect_err("it would take gigabytes");
            assert_eq!(error.kind(), kind, "{template}");
        }
    }
}
