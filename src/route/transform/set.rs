//! `set`

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use super::shape::{Fault, Field, Shape};
use super::{Step, fields};
use crate::route::expression::Expression;

/// Adds columns, or gives others another value, by [expressions](#expressions): `set: { total: "qty * price", region: "'EU'" }`. All
/// of a step see the columns as the step before left them. They are worked out for the row before a change and for the one after
/// it; one that compares the two (`after.qty - before.qty`) belongs to the row as it is now. What the source did not send makes a
/// value that is not known either, and is named among the unavailable ones; where it sent others that the value is made of, the event
/// is parked.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
pub struct Set(BTreeMap<String, Expression>);

impl Step for Set {
    fn faults(&self) -> Vec<Fault> {
        let unread = self.0.iter().filter_map(|(name, expression)| Some(expression.fault()?.key(name)));
        fields::faults_of_map(self.0.len()).into_iter().chain(unread).collect()
    }

    fn compile(&self, shape: &mut Shape) -> Result<(), Fault> {
        let mut made = Vec::with_capacity(self.0.len());
        for (name, expression) in &self.0 {
            if let Some(program) = shape.expression(expression).map_err(|fault| fault.key(name))? {
                made.push((name, program));
            }
        }
        for (name, program) in made {
            let slot = shape.new_slot();
            let kind = program.of.kind();
            let fields = shape.fields();
            match fields.iter_mut().find(|field| field.name == *name) {
                Some(field) if field.key && program.compares_rows => {
                    let message = format!("`{name}` is part of the key, which is one for both rows of a change");
                    return Err(Fault::new(message).help("give the value another name").key(name));
                }
                Some(field) => {
                    field.becomes(kind);
                    field.slot = slot;
                }
                None => {
                    let mut field =
                        Field { name: name.clone(), kind: kind.clone(), type_name: String::new(), key: false, slot };
                    field.becomes(kind);
                    fields.push(field);
                }
            }
            shape.set(name, slot, program);
        }
        Ok(())
    }
}
