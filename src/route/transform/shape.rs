//! A table's columns on their way through the steps, and what a step may do with them.

use towpath_contract::{Kind, TablePattern, TableSchema};

use super::fields::is_optional;
use super::run::{Action, Program};

/// One field of an event's rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::route) struct Field {
    /// As events have it.
    pub(in crate::route) name: String,
    pub(in crate::route) kind: Kind,
    /// As the database calls the type; for people.
    pub(super) type_name: String,
    pub(in crate::route) key: bool,
    /// The column of the source's row that its value comes from.
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
    step: usize,
    /// Names that a step has and this table has not, without a `?`.
    missed: Vec<(usize, String)>,
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
            program: Program::default(),
            lenient,
            step: 0,
            missed: Vec::new(),
        }
    }

    pub(super) fn begin_step(&mut self, index: usize) {
        self.step = index;
    }

    pub(super) fn finish(self) -> Compiled {
        Compiled { fields: self.fields, program: self.program, missed: self.missed }
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
        let renamed = self.fields.iter().find(|field| self.columns[field.slot] == plain);
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
        self.program.push(field.slot, self.step, field.name.clone(), Box::new(action));
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

/// A route's steps, settled for one table.
#[derive(Debug)]
pub(in crate::route) struct Compiled {
    /// What the events of the table have.
    pub(in crate::route) fields: Vec<Field>,
    pub(in crate::route) program: Program,
    /// By the index of their step: names that the table does not have, which in a route of many tables is no fault.
    pub(in crate::route) missed: Vec<(usize, String)>,
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
