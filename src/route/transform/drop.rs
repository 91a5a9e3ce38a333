//! `drop`

use schemars::JsonSchema;
use serde::Deserialize;

use super::shape::{Fault, Shape};
use super::{Step, fields};

/// Leaves columns out: `drop: [filler, upd_usr]`. `*` stands for any characters in a name.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
pub struct Drop(Vec<String>);

impl Step for Drop {
    fn faults(&self) -> Vec<Fault> {
        fields::faults(&self.0)
    }

    fn compile(&self, shape: &mut Shape) -> Result<(), Fault> {
        for (index, pattern) in self.0.iter().enumerate() {
            // From the last to the first: each removal leaves the indices before it as they are.
            for found in shape.find_all(pattern).map_err(|fault| fault.index(index))?.into_iter().rev() {
                shape.fields().remove(found);
            }
        }
        Ok(())
    }
}
