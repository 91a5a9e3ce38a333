//! `unpivot`

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;
use towpath_contract::{Kind, Value};

use super::run::{Maker, Outcome, Reason, View};
use super::shape::{Fault, Field, Shape};
use super::{Step, fields};
use crate::route::json::Form;

/// Columns that are one list in truth become one: `unpivot: { amounts: ["AMT*"] }`. `*` stands for any characters in a name. The columns
/// go, and their values stand in the list in the order of the table, or of the names that are written. They are of one type. Where
/// the source did not send one of them, the list is not known.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
pub struct Unpivot(BTreeMap<String, Vec<String>>);

impl Step for Unpivot {
    fn faults(&self) -> Vec<Fault> {
        let lists = self
            .0
            .iter()
            .flat_map(|(name, columns)| fields::faults(columns).into_iter().map(move |fault| fault.key(name)));
        fields::faults_of_map(self.0.len()).into_iter().chain(lists).collect()
    }

    fn compile(&self, shape: &mut Shape) -> Result<(), Fault> {
        for (name, patterns) in &self.0 {
            let place = |fault: Fault| fault.key(name);
            let mut found: Vec<usize> = Vec::new();
            for (index, pattern) in patterns.iter().enumerate() {
                let more = shape.find_all(pattern).map_err(|fault| place(fault.index(index)))?;
                found.extend(more.into_iter().filter(|field| !found.contains(field)).collect::<Vec<_>>());
            }
            let Some(first) = found.first().copied() else { continue };
            let taken: Vec<Field> = found.iter().map(|index| shape.fields()[*index].clone()).collect();
            let kind = taken[0].kind.clone();
            if let Some(other) = taken.iter().find(|field| field.kind != kind || field.key) {
                let message = match other.key {
                    true => format!("`{}` is part of the key, which stays as columns", other.name),
                    false => format!(
                        "`{}` is {}, and `{}` is {}",
                        taken[0].name, taken[0].type_name, other.name, other.type_name
                    ),
                };
                return Err(place(
                    Fault::new(message).help("a list has values of one type; `cast` them first, or leave it out"),
                ));
            }
            let slots: Vec<usize> = taken.iter().map(|field| field.slot).collect();
            let slot = shape.new_slot();
            let mut list = Field { name: name.clone(), kind: kind.clone(), type_name: String::new(), key: false, slot };
            list.becomes(Kind::Array(Box::new(kind.clone())));
            let before = shape.fields()[..first].iter().filter(|field| !slots.contains(&field.slot)).count();
            shape.fields().retain(|field| !slots.contains(&field.slot));
            if shape.fields().iter().any(|field| field.name == *name) {
                return Err(place(Fault::new("there is a column of this name").help("give the list another")));
            }
            shape.fields().insert(before, list);
            shape.make(name, slot, Listing { slots, form: Form::of(&kind) });
        }
        Ok(())
    }
}

#[derive(Debug)]
struct Listing {
    slots: Vec<usize>,
    form: Form,
}

impl Maker for Listing {
    fn make(&self, row: View<'_>, out: &mut Vec<u8>) -> Result<Outcome, Reason> {
        if self.slots.iter().any(|slot| row.value(*slot) == Value::Unavailable) {
            return Ok(Outcome::Unavailable);
        }
        for (nth, slot) in self.slots.iter().enumerate() {
            out.push(if nth == 0 { b'[' } else { b',' });
            match row.value(*slot) {
                Value::Data(bytes) => {
                    self.form.write(bytes, out).map_err(|_| Reason::from("one of its values is not UTF-8"))?;
                }
                Value::Null | Value::Unavailable => out.extend_from_slice(b"null"),
            }
        }
        out.push(b']');
        Ok(Outcome::Made)
    }
}
