//! The steps of a route's `transform`: one file each, pure, settled once per table.
//!
//! A step is written in the config ([`StepConfig`]), judged by itself when the config is checked, and compiled against the
//! columns of every table that its route takes. What it does to the shape (names, kinds, which fields there are) is done then;
//! what is left for an event is a list of [`Action`]s, each on one value.

mod cast;
mod decode;
mod drop;
#[cfg(test)]
pub(crate) mod examples;
mod fields;
mod implied_decimal;
mod legacy_date;
mod mask;
mod null_if;
mod rename;
mod run;
mod select;
mod shape;
mod trim;

use schemars::JsonSchema;
use serde::Deserialize;
use towpath_contract::TableSchema;

pub(super) use run::{Failure, Made, Program, View};
pub(super) use shape::Compiled;
use shape::Shape;
pub use shape::{At, Fault};

/// One step. They are done in the order in which they are written; each sees what the one before it left.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum StepConfig {
    Cast(cast::Cast),
    Decode(decode::Decode),
    Drop(drop::Drop),
    ImpliedDecimal(implied_decimal::ImpliedDecimal),
    LegacyDate(legacy_date::LegacyDate),
    Mask(mask::Mask),
    NullIf(null_if::NullIf),
    Rename(rename::Rename),
    Select(select::Select),
    Trim(trim::Trim),
}

/// What every step is.
trait Step {
    /// What is wrong with it whatever the table is.
    fn faults(&self) -> Vec<Fault>;

    /// Changes the shape, and adds what is to be done to each row.
    fn compile(&self, shape: &mut Shape) -> Result<(), Fault>;
}

impl StepConfig {
    /// As the config writes it.
    pub fn name(&self) -> &'static str {
        match self {
            StepConfig::Cast(_) => "cast",
            StepConfig::Decode(_) => "decode",
            StepConfig::Drop(_) => "drop",
            StepConfig::ImpliedDecimal(_) => "implied_decimal",
            StepConfig::LegacyDate(_) => "legacy_date",
            StepConfig::Mask(_) => "mask",
            StepConfig::NullIf(_) => "null_if",
            StepConfig::Rename(_) => "rename",
            StepConfig::Select(_) => "select",
            StepConfig::Trim(_) => "trim",
        }
    }

    /// What is wrong with it whatever the table is.
    pub fn faults(&self) -> Vec<Fault> {
        self.step().faults()
    }

    fn step(&self) -> &dyn Step {
        match self {
            StepConfig::Cast(step) => step,
            StepConfig::Decode(step) => step,
            StepConfig::Drop(step) => step,
            StepConfig::ImpliedDecimal(step) => step,
            StepConfig::LegacyDate(step) => step,
            StepConfig::Mask(step) => step,
            StepConfig::NullIf(step) => step,
            StepConfig::Rename(step) => step,
            StepConfig::Select(step) => step,
            StepConfig::Trim(step) => step,
        }
    }
}

/// Settles a route's steps for one table.
///
/// `lenient`: the route takes tables by a pattern, and a column that this one does not have is no fault.
///
/// # Errors
/// The index of the step that cannot be done on this table, and why.
pub(super) fn compile(steps: &[StepConfig], table: &TableSchema, lenient: bool) -> Result<Compiled, (usize, Fault)> {
    let mut shape = Shape::of(table, lenient);
    for (index, step) in steps.iter().enumerate() {
        shape.begin_step(index);
        step.step().compile(&mut shape).map_err(|fault| (index, fault))?;
    }
    Ok(shape.finish())
}
