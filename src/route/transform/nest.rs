//! `nest`

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;
use towpath_contract::{Kind, Value};

use super::Step;
use super::gather::{self, gather};
use super::run::{Maker, Outcome, Reason, View};
use super::shape::{Fault, Shape};
use crate::route::json::{Form, write_string};

/// Columns that belong together become one object: `nest: { address: [street, zip, "city*"] }`. `*` stands for any characters in a name.
/// The columns go, and are the members of the object in the order of the table, or of the names that are written; where all of them
/// are null, so is the object. Parts of the key stay columns.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
pub struct Nest(BTreeMap<String, Vec<String>>);

impl Step for Nest {
    fn faults(&self) -> Vec<Fault> {
        gather::faults(&self.0)
    }

    fn compile(&self, shape: &mut Shape) -> Result<(), Fault> {
        for (name, patterns) in &self.0 {
            let Some(taken) = gather(shape, name, patterns, |_| Ok(Kind::Json))? else { continue };
            let member = |field: &super::shape::Field| {
                let mut label = Vec::new();
                write_string(&field.name, &mut label);
                label.push(b':');
                Member { slot: field.slot, label, form: Form::of(&field.kind) }
            };
            let members: Vec<Member> = taken.fields.iter().map(member).collect();
            let slots = members.iter().map(|member| member.slot).collect();
            shape.make(name, taken.slot, slots, Nesting { members });
        }
        Ok(())
    }
}

#[derive(Debug)]
struct Nesting {
    members: Vec<Member>,
}

#[derive(Debug)]
struct Member {
    slot: usize,
    /// `"name":`
    label: Vec<u8>,
    form: Form,
}

impl Maker for Nesting {
    fn make(&self, row: View<'_>, out: &mut Vec<u8>) -> Result<Outcome, Reason> {
        if !gather::are_sent(row, self.members.iter().map(|member| member.slot))? {
            return Ok(Outcome::Unavailable);
        }
        if self.members.iter().all(|member| row.value(member.slot) == Value::Null) {
            return Ok(Outcome::Null);
        }
        for (nth, member) in self.members.iter().enumerate() {
            out.push(if nth == 0 { b'{' } else { b',' });
            out.extend_from_slice(&member.label);
            match row.value(member.slot) {
                Value::Data(bytes) => {
                    member.form.write(bytes, out).map_err(|_| Reason::from("one of its values is not UTF-8"))?;
                }
                Value::Null | Value::Unavailable => out.extend_from_slice(b"null"),
            }
        }
        out.push(b'}');
        Ok(Outcome::Made)
    }
}
