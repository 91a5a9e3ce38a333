//! From the stream's rows to values, with nothing allocated per row.

use towpath_contract::{Action, Error, ErrorKind, Result, TableSchema, Value};

use crate::decode::{Field, Old, Tuple};
use crate::relation::Relation;
use crate::value::{self, Plan};

/// The values of one row that are not in the stream as their kind wants them.
#[derive(Default)]
pub(crate) struct Converted {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

/// One huge value must not stay resident.
const KEEP_BYTES_MAX: usize = 256 << 10;

impl Converted {
    /// Converts what must be; [`Converted::values`] then gives the row.
    pub(crate) fn load(&mut self, relation: &Relation, tuple: Tuple<'_>) -> Result<()> {
        if tuple.width() != relation.plans.len() {
            let message = format!(
                "a row of {}.{} has {} columns, its description {}",
                relation.table.schema,
                relation.table.name,
                tuple.width(),
                relation.plans.len()
            );
            return Err(Error::new(ErrorKind::Protocol, Action::Bug, "reading a row from the stream", message));
        }
        self.bytes.clear();
        self.bytes.shrink_to(KEEP_BYTES_MAX);
        self.ends.clear();
        if !relation.converts {
            return Ok(());
        }
        for (index, (field, plan)) in tuple.fields().zip(&relation.plans).enumerate() {
            if let (Field::Text(text), true) = (field, *plan != Plan::AsIs) {
                value::canonical(plan, text, &mut self.bytes).map_err(|error| malformed(relation, index, error))?;
                self.ends.push(self.bytes.len());
            }
        }
        Ok(())
    }

    /// The row that was loaded last.
    pub(crate) fn values<'a>(&'a self, relation: &'a Relation, tuple: Tuple<'a>) -> impl Iterator<Item = Value<'a>> {
        let mut ends = self.ends.iter();
        let mut start = 0;
        tuple.fields().zip(&relation.plans).map(move |(field, plan)| match (field, plan) {
            (Field::Null, _) => Value::Null,
            (Field::Unchanged, _) => Value::Unavailable,
            (Field::Text(text), Plan::AsIs) => Value::Data(text),
            (Field::Text(_), _) => {
                let end = *ends.next().expect("load converted every such field");
                Value::Data(&self.bytes[std::mem::replace(&mut start, end)..end])
            }
        })
    }
}

fn malformed(relation: &Relation, column: usize, error: value::Malformed) -> Error {
    let table = &relation.table;
    let message = format!("column {} of {}.{}: {error}", table.columns[column].name, table.schema, table.name);
    Error::new(ErrorKind::Protocol, Action::Bug, "reading a row from the stream", message)
}

/// The key's columns of a row; of the others nothing is said.
pub(crate) fn key_only<'a>(
    table: &'a TableSchema,
    values: impl Iterator<Item = Value<'a>> + 'a,
) -> impl Iterator<Item = Value<'a>> + 'a {
    table.columns.iter().zip(values).map(|(column, value)| if column.key { value } else { Value::Unavailable })
}

/// An old row. Where only its key was sent (`sparse`), the rest says nothing; and a NULL in the key then means that this
/// column was not sent either: a partition's replica identity can be narrower than its table's.
pub(crate) fn old_row<'a>(
    table: &'a TableSchema,
    values: impl Iterator<Item = Value<'a>> + 'a,
    sparse: bool,
) -> impl Iterator<Item = Value<'a>> + 'a {
    table.columns.iter().zip(values).map(move |(column, value)| match value {
        Value::Null if sparse => Value::Unavailable,
        _ if sparse && !column.key => Value::Unavailable,
        _ => value,
    })
}

/// What the new row leaves out, from the old one.
pub(crate) fn filled<'a>(
    new: impl Iterator<Item = Value<'a>> + 'a,
    old: impl Iterator<Item = Value<'a>> + 'a,
) -> impl Iterator<Item = Value<'a>> + 'a {
    new.zip(old).map(|(new, old)| if new == Value::Unavailable { old } else { new })
}

/// Whether an update moved the row to another key. Text is compared as the server writes it; an unchanged TOAST value is
/// unchanged.
pub(crate) fn key_differs(table: &TableSchema, old: Old<'_>, new: Tuple<'_>) -> bool {
    let sparse = matches!(old, Old::Key(_));
    let pairs = old.tuple().fields().zip(new.fields());
    table.columns.iter().zip(pairs).any(|(column, (old, new))| {
        let known = new != Field::Unchanged && !(sparse && old == Field::Null);
        column.key && known && new != old
    })
}
