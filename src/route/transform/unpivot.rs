//! `unpivot`

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;
use towpath_contract::{Kind, Value};

use super::Step;
use super::gather::{self, gather};
use super::run::{Maker, Outcome, Reason, View};
use super::shape::{Fault, Field, Shape};
use crate::route::json::Form;

/// Columns that are one list in truth become one: `unpivot: { amounts: ["AMT*"] }`. `*` stands for any characters in a name. The columns
/// go, and their values stand in the list in the order of the table, or of the names that are written. They are of one type.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
pub struct Unpivot(BTreeMap<String, Vec<String>>);

impl Step for Unpivot {
    fn faults(&self) -> Vec<Fault> {
        gather::faults(&self.0)
    }

    fn compile(&self, shape: &mut Shape) -> Result<(), Fault> {
        for (name, patterns) in &self.0 {
            let Some(taken) = gather(shape, name, patterns, list_of)? else { continue };
            let form = Form::of(&taken.fields[0].kind);
            let slots: Vec<usize> = taken.fields.iter().map(|field| field.slot).collect();
            shape.make(name, taken.slot, slots.clone(), Listing { slots, form });
        }
        Ok(())
    }
}

fn list_of(fields: &[Field]) -> Result<Kind, Fault> {
    let first = &fields[0];
    match fields.iter().find(|field| field.kind != first.kind) {
        None => Ok(Kind::Array(Box::new(first.kind.clone()))),
        Some(other) => {
            let message =
                format!("`{}` is {}, and `{}` is {}", first.name, first.type_name, other.name, other.type_name);
            Err(Fault::new(message).help("a list has values of one type; `cast` them first, or leave it out"))
        }
    }
}

#[derive(Debug)]
struct Listing {
    slots: Vec<usize>,
    form: Form,
}

impl Maker for Listing {
    fn make(&self, row: View<'_>, out: &mut Vec<u8>) -> Result<Outcome, Reason> {
        if !gather::are_sent(row, self.slots.iter().copied())? {
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
