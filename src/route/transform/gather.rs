//! What the steps have in common that make one field of several.

use std::collections::BTreeMap;

use towpath_contract::{Kind, Value};

use super::fields;
use super::run::{Reason, View};
use super::shape::{Fault, Field, Shape};

/// By the name of the new field: the columns that it is made of.
pub(super) fn faults(written: &BTreeMap<String, Vec<String>>) -> Vec<Fault> {
    let of_each = written
        .iter()
        .flat_map(|(name, columns)| fields::faults(columns).into_iter().map(move |fault| fault.key(name)));
    fields::faults_of_map(written.len()).into_iter().chain(of_each).collect()
}

pub(super) struct Gathered {
    /// The new field's.
    pub(super) slot: usize,
    /// Those that it is made of, which are no longer there; at least one.
    pub(super) fields: Vec<Field>,
}

/// Takes fields away, and puts one of the name `name` where the first of them was. `kind`: what it is, if it can be made of them.
/// `None`: the table has none of them, and need not.
pub(super) fn gather(
    shape: &mut Shape,
    name: &str,
    patterns: &[String],
    kind: impl Fn(&[Field]) -> Result<Kind, Fault>,
) -> Result<Option<Gathered>, Fault> {
    let mut found: Vec<usize> = Vec::new();
    for (index, pattern) in patterns.iter().enumerate() {
        let more = shape.find_all(pattern).map_err(|fault| fault.index(index).key(name))?;
        let more = more.into_iter().filter(|field| !pattern.contains('*') || !shape.fields()[*field].key);
        let more: Vec<usize> = more.filter(|field| !found.contains(field)).collect();
        found.extend(more);
    }
    let Some(first) = found.first().copied() else { return Ok(None) };
    let taken: Vec<Field> = found.iter().map(|index| shape.fields()[*index].clone()).collect();
    if let Some(key) = taken.iter().find(|field| field.key) {
        let message = format!("`{}` is part of the key, which stays as columns", key.name);
        return Err(Fault::new(message).help("leave it out").key(name));
    }
    let kind = kind(&taken).map_err(|fault| fault.key(name))?;
    let is_taken = |field: &Field| taken.iter().any(|taken| taken.name == field.name);
    let before = shape.fields()[..first].iter().filter(|field| !is_taken(field)).count();
    shape.fields().retain(|field| !is_taken(field));
    if shape.fields().iter().any(|field| field.name == name) {
        return Err(Fault::new("there is a column of this name").help("give what is made another").key(name));
    }
    let slot = shape.new_slot();
    let mut made = Field { name: name.to_owned(), kind: kind.clone(), type_name: String::new(), key: false, slot };
    made.becomes(kind);
    shape.fields().insert(before, made);
    Ok(Some(Gathered { slot, fields: taken }))
}

/// Whether what is made of these is known. The source sends all or, where it sends the key alone or none of them changed, nothing.
///
/// # Errors
/// Some were sent, and may have changed: what is made of them and the rest is not known, and not what it was either.
pub(super) fn are_sent(row: View<'_>, slots: impl Iterator<Item = usize> + Clone) -> Result<bool, Reason> {
    let sent = |slot: &usize| row.value(*slot) != Value::Unavailable;
    match slots.clone().filter(sent).count() {
        0 => Ok(false),
        sent if sent == slots.count() => Ok(true),
        _ => Err("the source sent some of the values that it is made of, and not the others".into()),
    }
}
