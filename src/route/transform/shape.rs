//! A table's columns on their way through the steps, and what a step may do with them.

use towpath_contract::{KeyKind, Kind, TablePattern, TableSchema};

use super::Reads;
use super::fields::is_optional;
use super::run::{Action, Choice, Doing, Maker, Program, What};
use crate::route::expression::{self, Expression, Type};
use crate::route::row_event::RowEvent;

/// One field of an event's rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::route) struct Field {
    /// As events have it.
    pub(in crate::route) name: String,
    pub(in crate::route) kind: Kind,
    /// As the database calls the type; for people.
    pub(in crate::route) type_name: String,
    pub(in crate::route) key: bool,
    /// The column of the source's row that its value comes from, or the place behind them that a step fills.
    pub(in crate::route) slot: usize,
}

impl Field {
    pub(super) fn becomes(&mut self, kind: Kind) {
        self.type_name = format!("{} by an earlier step", format!("{kind:?}").to_lowercase());
        self.kind = kind;
    }
}

/// What the next step sees.
pub(super) struct Shape {
    table: String,
    /// The names of the source's columns, by slot.
    columns: Vec<String>,
    fields: Vec<Field>,
    program: Program,
    lenient: bool,
    is_keyed: bool,
    step: usize,
    /// Names that a step has and this table has not, without a `?`.
    missed: Vec<(usize, String)>,
    variants: Vec<Variant>,
    /// Of those that have columns of their own, which.
    parts: Vec<Option<Vec<Field>>>,
    hidden: Vec<usize>,
    /// The slots of the source's key.
    keys: Vec<usize>,
    /// Of values that were made of others: which.
    made_of: Vec<(usize, Vec<usize>)>,
    row_event: Option<RowEvent>,
}

/// A form that the route's events can have beside its own, as a step chooses for each change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Variant {
    /// Templates; nothing where the route's own holds.
    pub(crate) event_type: Option<String>,
    pub(crate) exchange: Option<String>,
    pub(crate) routing_key: Option<String>,
}

impl Shape {
    pub(super) fn of(table: &TableSchema, lenient: bool) -> Shape {
        let fields = table.columns.iter().enumerate().map(|(slot, column)| Field {
            name: column.name.clone(),
            kind: column.kind.clone(),
            type_name: column.type_name.clone(),
            key: column.key,
            slot,
        });
        Shape {
            table: format!("{}.{}", table.schema, table.name),
            columns: table.columns.iter().map(|column| column.name.clone()).collect(),
            fields: fields.collect(),
            program: Program { doings: Vec::new(), slots: table.columns.len() },
            lenient,
            is_keyed: table.key == KeyKind::Columns,
            step: 0,
            missed: Vec::new(),
            variants: Vec::new(),
            parts: Vec::new(),
            hidden: Vec::new(),
            keys: (0..table.columns.len()).filter(|slot| table.columns[*slot].key).collect(),
            made_of: Vec::new(),
            row_event: None,
        }
    }

    pub(super) fn begin_step(&mut self, index: usize) {
        self.step = index;
    }

    pub(super) fn finish(self) -> Compiled {
        Compiled {
            fields: self.fields,
            program: self.program,
            variants: self.variants,
            parts: self.parts,
            hidden: self.hidden,
            missed: self.missed,
            row_event: self.row_event,
        }
    }

    pub(super) fn fields(&mut self) -> &mut Vec<Field> {
        &mut self.fields
    }

    /// The index of a field. `None` when there is none of that name and the route, or a `?` behind the name, says that it need not
    /// be there.
    pub(super) fn find(&mut self, name: &str) -> Result<Option<usize>, Fault> {
        // A column may be called so, `?` and all.
        let is_whole = self.fields.iter().any(|field| field.name == name);
        let plain = if is_whole { name } else { name.strip_suffix('?').unwrap_or(name) };
        if let Some(found) = self.fields.iter().position(|field| field.name == plain) {
            return Ok(Some(found));
        }
        // It need not be there; but it is, and whoever wrote its old name, to mask it perhaps, means it.
        let renamed =
            self.fields.iter().find(|field| self.columns.get(field.slot).is_some_and(|column| column == plain));
        match renamed {
            Some(field) => {
                let message = format!("at this step column `{plain}` of {} is called `{}`", self.table, field.name);
                Err(Fault::new(message).help("name it so, or do this step before it is renamed"))
            }
            None if is_optional(name) => Ok(None),
            None if self.lenient => {
                self.missed.push((self.step, name.to_owned()));
                Ok(None)
            }
            None => Err(self.unknown(plain)),
        }
    }

    /// The indices of the fields that a name with `*` stands for; of a plain name, its own.
    pub(super) fn find_all(&mut self, pattern: &str) -> Result<Vec<usize>, Fault> {
        if !pattern.contains('*') {
            return Ok(self.find(pattern)?.into_iter().collect());
        }
        let matches = |field: &Field| TablePattern::new("*", pattern).matches("", &field.name);
        let found = self.fields.iter().enumerate().filter(|(_, field)| matches(field));
        Ok(found.map(|(index, _)| index).collect())
    }

    /// From here on the field's value is what `action` makes of it.
    pub(super) fn act(&mut self, index: usize, action: impl Action + 'static) {
        let field = &self.fields[index];
        let (slot, name) = (field.slot, field.name.clone());
        self.push(name, What::Act { slot, action: Box::new(action) });
    }

    /// A place for a value that no column of the source's row has.
    pub(super) fn new_slot(&mut self) -> usize {
        self.program.slots += 1;
        self.program.slots - 1
    }

    /// The value at `slot`, which is new, is what the expression says.
    pub(super) fn set(&mut self, name: &str, slot: usize, expression: expression::Program) {
        self.made_of.push((slot, expression.slots()));
        self.push(name.to_owned(), What::Set { slot, expression });
    }

    /// The value at `slot`, which is new, is what `maker` makes of the values at `of`.
    pub(super) fn make(&mut self, name: &str, slot: usize, of: Vec<usize>, maker: impl Maker + 'static) {
        self.made_of.push((slot, of));
        self.push(name.to_owned(), What::Make { slot, maker: Box::new(maker) });
    }

    pub(super) fn choose(&mut self, choice: impl Choice + 'static) {
        self.push(String::new(), What::Choose(Box::new(choice)));
    }

    /// The value comes from the source, and not from a step that added it.
    pub(super) fn is_column(&self, slot: usize) -> bool {
        slot < self.columns.len()
    }

    /// What was inserted while a table without a key was read comes with the rows that were read, and not besides: a step that leaves
    /// those out would lose it.
    pub(super) fn can_tell_new_rows(&self, reads: Reads) -> Result<(), Fault> {
        if self.is_keyed || reads == Reads::New {
            return Ok(());
        }
        let message =
            format!("{} has no key: rows that are inserted while it is read come as read rows alone", self.table);
        Err(Fault::new(message).help("`reads: new` makes events of those too; or give the table a primary key"))
    }

    /// The rows are events themselves.
    pub(super) fn is_event(&mut self, row_event: RowEvent) {
        self.row_event = Some(row_event);
    }

    /// Nobody is to see what the field's value was before this step, nor what it was made of.
    pub(super) fn hide(&mut self, index: usize) {
        let mut hidden = vec![self.fields[index].slot];
        let mut seen = 0;
        while let Some(slot) = hidden.get(seen).copied() {
            seen += 1;
            hidden.extend(self.made_of.iter().filter(|(made, _)| *made == slot).flat_map(|(_, of)| of));
        }
        self.hidden.append(&mut hidden);
    }

    /// The slots of the source's key, whatever became of its columns.
    pub(super) fn key_columns(&self) -> Vec<usize> {
        self.keys.clone()
    }

    pub(super) fn variant(&mut self, variant: Variant) -> usize {
        self.variants.push(variant);
        self.parts.push(None);
        self.variants.len() - 1
    }

    /// One whose rows have these columns, and no others.
    pub(super) fn part(&mut self, variant: Variant, fields: Vec<Field>) -> usize {
        let nth = self.variant(variant);
        self.parts[nth] = Some(fields);
        nth
    }

    fn push(&mut self, field: String, what: What) {
        self.program.doings.push(Doing { step: self.step, field, what });
    }

    /// An expression over the fields as they are at this step. `None`: it names a column that this table need not have.
    pub(super) fn expression(&mut self, written: &Expression) -> Result<Option<expression::Program>, Fault> {
        written.compile(self)
    }

    /// One that says yes or no.
    pub(super) fn condition(&mut self, written: &Expression) -> Result<Option<expression::Program>, Fault> {
        written.condition(self)
    }

    fn unknown(&self, name: &str) -> Fault {
        let distance = |field: &Field| strsim::damerau_levenshtein(&name.to_lowercase(), &field.name.to_lowercase());
        let near = self.fields.iter().map(|field| (distance(field), &field.name)).min();
        let near = near.filter(|(distance, _)| *distance <= (name.len() / 3).max(1));
        let names: Vec<&str> = self.fields.iter().map(|field| field.name.as_str()).collect();
        let mut help = format!(
            "at this step it has: {}\nif it has, or had, this column at other times, write `{name}?`",
            names.join(", ")
        );
        if let Some((_, near)) = near {
            help.insert_str(0, &format!("did you mean `{near}`?\n"));
        }
        Fault::new(format!("{} has no column `{name}`", self.table)).help(help)
    }
}

impl expression::Scope for Shape {
    fn column(&mut self, name: &str) -> Result<Option<expression::Column>, Fault> {
        let found = self.find(name)?;
        Ok(found.map(|index| {
            let field = &self.fields[index];
            expression::Column { slot: field.slot, of: Type::of(&field.kind) }
        }))
    }
}

/// A route's steps, settled for one table.
#[derive(Debug)]
pub(in crate::route) struct Compiled {
    /// What the events of the table have.
    pub(in crate::route) fields: Vec<Field>,
    pub(in crate::route) program: Program,
    pub(in crate::route) variants: Vec<Variant>,
    /// Of each variant its columns, where they are not all.
    pub(in crate::route) parts: Vec<Option<Vec<Field>>>,
    /// Slots whose values are masked.
    pub(in crate::route) hidden: Vec<usize>,
    /// By the index of their step: names that the table does not have, which in a route of many tables is no fault.
    pub(in crate::route) missed: Vec<(usize, String)>,
    /// The rows are events themselves.
    pub(in crate::route) row_event: Option<RowEvent>,
}

/// Where in a step something stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum At {
    Key(String),
    Index(usize),
}

/// Why a step cannot be done. The texts hold nothing of any row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Below the step's own key.
    pub at: Vec<At>,
    pub message: String,
    pub help: String,
}

impl Fault {
    pub(in crate::route) fn new(message: impl Into<String>) -> Fault {
        Fault { at: Vec::new(), message: message.into(), help: String::new() }
    }

    pub(in crate::route) fn help(mut self, help: impl Into<String>) -> Fault {
        self.help = help.into();
        self
    }

    pub(super) fn key(mut self, key: &str) -> Fault {
        self.at.insert(0, At::Key(key.to_owned()));
        self
    }

    pub(super) fn index(mut self, index: usize) -> Fault {
        self.at.insert(0, At::Index(index));
        self
    }
}
