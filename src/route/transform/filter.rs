//! `filter`

use schemars::JsonSchema;
use serde::Deserialize;

use super::Step;
use super::run::{Choice, Chosen, Reason};
use super::shape::{Fault, Shape};
use crate::route::expression::{Expression, Input, Program};

#[derive(Clone, Debug, Deserialize, JsonSchema)]
pub struct Filter(Form);

/// Makes events of those changes alone for which an [expression](#expressions) is true: `filter: "status != 'X'"`. It is asked of
/// the row after the change, and of the one before it when it is deleted. A row that comes to be left out is not taken back from
/// consumers: `filter: "status == 'A' || before.status == 'A'"` tells them of its last change. A truncate passes, for it concerns
/// all rows. Where the expression needs a value that the source did not send, as for the deletes of a table that logs keys alone,
/// the event is parked, unless the long form says better: `filter: { when: "status == 'A'", unknown: keep }`, or `drop`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
enum Form {
    When(Expression),
    Full(FilterConfig),
}

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct FilterConfig {
    /// True for the changes that become events.
    when: Expression,
    /// What becomes of a change when the expression needs a value that the source did not send. Default `park`.
    #[serde(default)]
    unknown: Unknown,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Unknown {
    /// Its event is parked with the reason.
    #[default]
    Park,
    /// It becomes an event.
    Keep,
    /// It does not.
    Drop,
}

impl Filter {
    fn parts(&self) -> (&Expression, Unknown) {
        match &self.0 {
            Form::When(when) => (when, Unknown::Park),
            Form::Full(full) => (&full.when, full.unknown),
        }
    }

    fn place(&self, fault: Fault) -> Fault {
        match self.0 {
            Form::When(_) => fault,
            Form::Full(_) => fault.key("when"),
        }
    }
}

impl Step for Filter {
    fn faults(&self) -> Vec<Fault> {
        self.parts().0.condition_fault().map(|fault| self.place(fault)).into_iter().collect()
    }

    fn compile(&self, shape: &mut Shape) -> Result<(), Fault> {
        let (when, unknown) = self.parts();
        if let Some(when) = shape.condition(when).map_err(|fault| self.place(fault))? {
            shape.choose(Filtering { when, unknown });
        }
        Ok(())
    }
}

#[derive(Debug)]
struct Filtering {
    when: Program,
    unknown: Unknown,
}

impl Choice for Filtering {
    fn choose(&self, input: &Input<'_>, chosen: &mut Chosen) -> Result<(), Reason> {
        if input.row.is_none() {
            return Ok(());
        }
        chosen.dropped = match (self.when.holds(input)?, self.unknown) {
            (Some(holds), _) => !holds,
            (None, Unknown::Keep) => false,
            (None, Unknown::Drop) => true,
            (None, Unknown::Park) => return Err("it needs a value that the source did not send".into()),
        };
        Ok(())
    }

    fn needs_old_row(&self, sent: &dyn Fn(usize) -> bool) -> bool {
        self.unknown == Unknown::Park && (self.when.looks_back() || self.when.looks_at_deleted(sent))
    }
}
