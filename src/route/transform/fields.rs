//! What the lists and maps of fields have in common.

use super::shape::{Fault, Field};

/// A list of names that is empty, or names one twice.
pub(super) fn faults(names: &[String]) -> Vec<Fault> {
    if names.is_empty() {
        return vec![Fault::new("the list is empty").help("name a column, or leave the step out")];
    }
    let twice = names.iter().enumerate().filter(|(index, name)| names[..*index].contains(name));
    twice.map(|(index, _)| Fault::new("this column is named twice").index(index)).collect()
}

/// A map of columns that is empty.
pub(super) fn faults_of_map(columns: usize) -> Vec<Fault> {
    if columns > 0 {
        return Vec::new();
    }
    vec![Fault::new("the map is empty").help("name a column, or leave the step out")]
}

/// What a step that works on other kinds says of a field; nothing where the name says that it need not be one of them.
pub(super) fn wrong_kind(field: &Field, name: &str, wanted: &str) -> Result<(), Fault> {
    if is_optional(name) {
        return Ok(());
    }
    let message = format!("column `{}` is {}, and this step needs {wanted}", field.name, field.type_name);
    Err(Fault::new(message).help("`cast` it first, or leave it out"))
}

/// `status?`: where the table has such a column, of a kind that the step is for.
pub(super) fn is_optional(name: &str) -> bool {
    name.ends_with('?')
}
