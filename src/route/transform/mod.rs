//! The steps of a route's `transform`: one file each, pure, settled once per table.
//!
//! A step is written in the config ([`StepConfig`]), judged by itself when the config is checked, and compiled against the
//! columns of every table that its route takes. What it does to the shape (names, kinds, which fields there are) is done then;
//! what is left for an event is a list of [`Action`]s, each on one value.

mod branch;
mod cast;
mod charset_repair;
mod code_file;
mod decode;
mod drop;
mod emit_when;
#[cfg(test)]
pub(crate) mod examples;
mod fields;
mod filter;
mod flatten;
mod gather;
mod images;
mod implied_decimal;
mod legacy_date;
mod mask;
mod nest;
mod null_if;
mod outbox_table;
mod rename;
mod run;
mod sample;
mod select;
mod set;
mod shape;
mod split;
mod trim;
mod unpivot;
mod zone;

use schemars::JsonSchema;
use serde::Deserialize;
use towpath_contract::TableSchema;

pub(super) use images::{Images, Rows};
pub(super) use run::{Failure, Program, View};
use shape::Shape;
pub(crate) use shape::Variant;
pub use shape::{At, Fault};
pub(super) use shape::{Compiled, Field};

/// One step. They are done in the order in which they are written; each sees what the one before it left.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum StepConfig {
    Branch(branch::Branch),
    Cast(cast::Cast),
    CharsetRepair(charset_repair::CharsetRepair),
    Decode(decode::Decode),
    Drop(drop::Drop),
    EmitWhen(emit_when::EmitWhen),
    Filter(filter::Filter),
    Flatten(flatten::Flatten),
    ImpliedDecimal(implied_decimal::ImpliedDecimal),
    LegacyDate(legacy_date::LegacyDate),
    Mask(mask::Mask),
    Nest(nest::Nest),
    NullIf(null_if::NullIf),
    OutboxTable(outbox_table::OutboxTable),
    Rename(rename::Rename),
    Sample(sample::Sample),
    Select(select::Select),
    Set(set::Set),
    Split(split::Split),
    Trim(trim::Trim),
    Unpivot(unpivot::Unpivot),
    Zone(zone::Zone),
}

/// What every step is.
trait Step {
    /// What is wrong with it whatever the table is.
    fn faults(&self) -> Vec<Fault>;

    /// Changes the shape, and adds what is to be done to each row.
    fn compile(&self, shape: &mut Shape) -> Result<(), Fault>;

    /// The forms that it may give to events, and where in the step each stands.
    fn variants(&self) -> Vec<(Vec<At>, Variant)> {
        Vec::new()
    }

    /// What the route's event has where the route says nothing.
    fn defaults(&self) -> Defaults {
        Defaults::default()
    }
}

/// Templates.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Defaults {
    pub(crate) event_type: Option<String>,
    pub(crate) routing_key: Option<String>,
}

/// What a row is that a snapshot reads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Reads {
    /// None that the step is for.
    #[default]
    Nothing,
    /// A new row.
    New,
}

impl StepConfig {
    /// What the route's event has where the route says nothing.
    pub(crate) fn defaults(&self) -> Defaults {
        self.step().defaults()
    }

    /// As the config writes it.
    pub fn name(&self) -> &'static str {
        match self {
            StepConfig::Branch(_) => "branch",
            StepConfig::Cast(_) => "cast",
            StepConfig::CharsetRepair(_) => "charset_repair",
            StepConfig::Decode(_) => "decode",
            StepConfig::Drop(_) => "drop",
            StepConfig::EmitWhen(_) => "emit_when",
            StepConfig::Filter(_) => "filter",
            StepConfig::Flatten(_) => "flatten",
            StepConfig::ImpliedDecimal(_) => "implied_decimal",
            StepConfig::LegacyDate(_) => "legacy_date",
            StepConfig::Mask(_) => "mask",
            StepConfig::Nest(_) => "nest",
            StepConfig::NullIf(_) => "null_if",
            StepConfig::OutboxTable(_) => "outbox_table",
            StepConfig::Rename(_) => "rename",
            StepConfig::Sample(_) => "sample",
            StepConfig::Select(_) => "select",
            StepConfig::Set(_) => "set",
            StepConfig::Split(_) => "split",
            StepConfig::Trim(_) => "trim",
            StepConfig::Unpivot(_) => "unpivot",
            StepConfig::Zone(_) => "zone",
        }
    }

    /// What is wrong with it whatever the table is.
    pub fn faults(&self) -> Vec<Fault> {
        self.step().faults()
    }

    /// The forms that it may give to events, and where in the step each stands.
    pub(crate) fn variants(&self) -> Vec<(Vec<At>, Variant)> {
        self.step().variants()
    }

    fn step(&self) -> &dyn Step {
        match self {
            StepConfig::Branch(step) => step,
            StepConfig::Cast(step) => step,
            StepConfig::CharsetRepair(step) => step,
            StepConfig::Decode(step) => step,
            StepConfig::Drop(step) => step,
            StepConfig::EmitWhen(step) => step,
            StepConfig::Filter(step) => step,
            StepConfig::Flatten(step) => step,
            StepConfig::ImpliedDecimal(step) => step,
            StepConfig::LegacyDate(step) => step,
            StepConfig::Mask(step) => step,
            StepConfig::Nest(step) => step,
            StepConfig::NullIf(step) => step,
            StepConfig::OutboxTable(step) => step,
            StepConfig::Rename(step) => step,
            StepConfig::Sample(step) => step,
            StepConfig::Select(step) => step,
            StepConfig::Set(step) => step,
            StepConfig::Split(step) => step,
            StepConfig::Trim(step) => step,
            StepConfig::Unpivot(step) => step,
            StepConfig::Zone(step) => step,
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
