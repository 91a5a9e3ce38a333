//! `select`

use schemars::JsonSchema;
use serde::Deserialize;

use super::shape::{Fault, Shape};
use super::{Step, fields};

/// Keeps these columns, in this order, and leaves out all others, those that the table will get one day too: `select: [id, status]`.
/// An event's `key` has those of the key's columns that are kept; its order and its id are the whole key's all the same.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
pub struct Select(Vec<String>);

impl Step for Select {
    fn faults(&self) -> Vec<Fault> {
        fields::faults(&self.0)
    }

    fn compile(&self, shape: &mut Shape) -> Result<(), Fault> {
        let mut kept = Vec::with_capacity(self.0.len());
        for (index, name) in self.0.iter().enumerate() {
            for found in shape.find_all(name).map_err(|fault| fault.index(index))? {
                if !kept.contains(&found) {
                    kept.push(found);
                }
            }
        }
        if kept.is_empty() {
            return Err(Fault::new("none of these columns is in the table: nothing of it would be left")
                .help("give the table a route of its own"));
        }
        let fields = kept.into_iter().map(|index| shape.fields()[index].clone()).collect();
        *shape.fields() = fields;
        Ok(())
    }
}
