//! A table whose columns the tests' expressions name, and those of `fuzz/`.

use towpath_contract::Kind;

use super::{Column, Expression, Scope, Type};
use crate::route::transform::Fault;

/// The columns that every expression here may name.
pub(super) const COLUMNS: &[(&str, Kind)] = &[
    ("id", Kind::Int),
    ("status", Kind::Text),
    ("amount", Kind::Decimal),
    ("rate", Kind::Float),
    ("paid", Kind::Bool),
    ("due", Kind::Date),
    ("seen", Kind::TimestampTz),
    ("doc", Kind::Json),
    ("Cust No", Kind::Text),
    ("note", Kind::Text),
];

pub(super) struct Table;

impl Scope for Table {
    fn column(&mut self, name: &str) -> Result<Option<Column>, Fault> {
        let found = COLUMNS.iter().position(|(column, _)| *column == name);
        match found {
            Some(slot) => Ok(Some(Column { slot, of: Type::of(&COLUMNS[slot].1) })),
            None => Err(Fault::new(format!("no column `{name}`"))),
        }
    }
}

/// Reads an expression and settles it, whatever it is. For `fuzz/`.
pub(crate) fn compile_expression(text: &str) {
    drop(Expression::new(text.to_owned()).compile(&mut Table));
}
