//! The rows of a change as JSON: the members of an event's body, and its key.

use towpath_contract::{Op, Value};

use super::json::{Form, write_base64, write_string};
use super::plan::ColumnPlan;
use super::transform::{Rows, View};

/// The first column whose value JSON cannot carry.
#[derive(Default)]
pub(super) struct Unwritable<'p>(pub(super) Option<&'p str>);

/// The key's columns, from the old row where the new one does not have them.
pub(super) fn write_key<'p>(rows: &Rows<'_>, columns: &'p [ColumnPlan], out: &mut Vec<u8>, unfit: &mut Unwritable<'p>) {
    let (Some(row), old) = (rows.after.or(rows.before), rows.before) else { return };
    let mut keys = columns.iter().filter(|column| column.key).peekable();
    if keys.peek().is_none() {
        return;
    }
    out.push(b'{');
    for column in keys {
        let row = match (row.value(column.slot), old) {
            (Value::Unavailable, Some(old)) => old,
            _ => row,
        };
        write_member(column, row, out, unfit);
    }
    out.push(b'}');
}

/// The members `before`, `after`, `moved_to` and `moved_from`, and the names of what is not known.
pub(super) fn write_rows<'p>(
    rows: &Rows<'_>,
    op: Op,
    columns: &'p [ColumnPlan],
    body: &mut Vec<u8>,
    unfit: &mut Unwritable<'p>,
) {
    // An old row of which only the key is known says no more than the key does.
    if let Some(row) = rows.before.filter(|row| says_more_than_key(*row, columns)) {
        write_row("before", row, columns, body, unfit);
        write_unavailable("before_unavailable", row, columns, body);
    }
    if let Some(row) = rows.after {
        write_row("after", row, columns, body, unfit);
        write_unavailable("unavailable", row, columns, body);
    }
    if let Some(row) = rows.linked {
        let label: &[u8] = if op == Op::Delete { b",\"moved_to\":" } else { b",\"moved_from\":" };
        body.extend_from_slice(label);
        write_object(row, columns.iter().filter(|column| column.key), body, unfit);
    }
}

/// The row and nothing else.
pub(super) fn write_row_alone<'p>(
    row: View<'_>,
    columns: &'p [ColumnPlan],
    out: &mut Vec<u8>,
    unfit: &mut Unwritable<'p>,
) {
    write_object(row, columns.iter(), out, unfit);
}

fn write_row<'p>(label: &str, row: View<'_>, columns: &'p [ColumnPlan], out: &mut Vec<u8>, unfit: &mut Unwritable<'p>) {
    out.extend_from_slice(b",\"");
    out.extend_from_slice(label.as_bytes());
    out.extend_from_slice(b"\":");
    write_object(row, columns.iter(), out, unfit);
}

fn write_object<'p>(
    row: View<'_>,
    columns: impl Iterator<Item = &'p ColumnPlan>,
    out: &mut Vec<u8>,
    unfit: &mut Unwritable<'p>,
) {
    out.push(b'{');
    for column in columns {
        write_member(column, row, out, unfit);
    }
    out.push(b'}');
}

/// `"name":value`, with a comma before all but the first; nothing for an unavailable value.
fn write_member<'p>(column: &'p ColumnPlan, row: View<'_>, out: &mut Vec<u8>, unfit: &mut Unwritable<'p>) {
    let value = row.value(column.slot);
    if value == Value::Unavailable {
        return;
    }
    if out.last() != Some(&b'{') {
        out.push(b',');
    }
    out.extend_from_slice(&column.label);
    let Value::Data(bytes) = value else {
        out.extend_from_slice(b"null");
        return;
    };
    // What a step failed on is not yet what the column's form is for.
    let form = if row.has_failed(column.slot) { Form::Text } else { column.form };
    column.write_as(form, bytes, out, unfit);
}

impl ColumnPlan {
    pub(super) fn write<'p>(&'p self, bytes: &[u8], out: &mut Vec<u8>, unfit: &mut Unwritable<'p>) {
        self.write_as(self.form, bytes, out, unfit);
    }

    fn write_as<'p>(&'p self, form: Form, bytes: &[u8], out: &mut Vec<u8>, unfit: &mut Unwritable<'p>) {
        if form.write(bytes, out).is_err() {
            unfit.0.get_or_insert(&self.name);
            out.extend_from_slice(b"{\"$base64\":");
            write_base64(bytes, out);
            out.push(b'}');
        }
    }
}

fn write_unavailable(label: &str, row: View<'_>, columns: &[ColumnPlan], out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(b",\"");
    out.extend_from_slice(label.as_bytes());
    out.extend_from_slice(b"\":");
    let names_at = out.len();
    write_unavailable_names(row, columns, out);
    if out.len() == names_at {
        out.truncate(start);
    }
}

/// A JSON array of the columns that the source did not send; nothing when it sent all.
pub(super) fn write_unavailable_names(row: View<'_>, columns: &[ColumnPlan], out: &mut Vec<u8>) {
    let mut names = columns.iter().filter(|column| row.value(column.slot) == Value::Unavailable);
    let Some(first) = names.next() else { return };
    out.push(b'[');
    write_string(&first.name, out);
    for column in names {
        out.push(b',');
        write_string(&column.name, out);
    }
    out.push(b']');
}

fn says_more_than_key(row: View<'_>, columns: &[ColumnPlan]) -> bool {
    let known = |column: &ColumnPlan| !column.key && row.value(column.slot) != Value::Unavailable;
    columns.iter().all(|column| column.key) || columns.iter().any(known)
}
