//! What is left of the steps for an event: actions on single values, in buffers that are filled again.

use std::borrow::Cow;
use std::fmt::Debug;

use towpath_contract::{Row, Value};

/// What a step does to one value. Never called for null or for what the source did not say.
pub(super) trait Action: Debug + Send + Sync {
    /// Appends the new value to `out`, which is empty, unless it says that there is none.
    ///
    /// # Errors
    /// Why it cannot be done, without the value.
    fn apply(&self, value: &[u8], out: &mut Vec<u8>) -> Result<Outcome, Cow<'static, str>>;

    /// It hides the value: it is done even after another step failed on it.
    fn protects(&self) -> bool {
        false
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Same,
    Null,
    Made,
}

/// The actions of a route on a table's rows, in order.
#[derive(Debug, Default)]
pub(in crate::route) struct Program {
    actions: Vec<Planned>,
}

#[derive(Debug)]
struct Planned {
    slot: usize,
    step: usize,
    field: String,
    action: Box<dyn Action>,
}

/// The step that could not be done on a row, and why. No value is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::route) struct Failure {
    pub(in crate::route) step: usize,
    pub(in crate::route) field: String,
    pub(in crate::route) reason: Cow<'static, str>,
}

impl Program {
    pub(super) fn push(&mut self, slot: usize, step: usize, field: String, action: Box<dyn Action>) {
        self.actions.push(Planned { slot, step, field, action });
    }

    pub(in crate::route) fn touches(&self, slot: usize) -> bool {
        self.actions.iter().any(|planned| planned.slot == slot)
    }

    /// Does everything to one row. The first failure is in `made` afterwards, which was empty.
    pub(in crate::route) fn run(&self, row: Row<'_>, made: &mut Made) {
        if self.actions.is_empty() {
            return;
        }
        made.cells.resize(row.values().len(), Cell::Raw);
        if made.buffers.len() < made.cells.len() {
            made.buffers.resize_with(row.values().len(), Vec::new);
        }
        for planned in &self.actions {
            let slot = planned.slot;
            let input = match (made.cells[slot], row.value(slot)) {
                (Cell::Raw, Value::Data(bytes)) => bytes,
                (Cell::Made, _) => &made.buffers[slot],
                (Cell::Failed { made: false }, Value::Data(bytes)) if planned.action.protects() => bytes,
                (Cell::Failed { made: true }, _) if planned.action.protects() => &made.buffers[slot],
                _ => continue,
            };
            made.spare.clear();
            match planned.action.apply(input, &mut made.spare) {
                Ok(Outcome::Same) => {}
                Ok(Outcome::Null) => made.cells[slot] = Cell::Null,
                Ok(Outcome::Made) => {
                    made.cells[slot] = Cell::Made;
                    std::mem::swap(&mut made.buffers[slot], &mut made.spare);
                }
                Err(reason) => {
                    made.cells[slot] = Cell::Failed { made: made.cells[slot] == Cell::Made };
                    made.failure.get_or_insert_with(|| Failure {
                        step: planned.step,
                        field: planned.field.clone(),
                        reason,
                    });
                }
            }
        }
    }
}

/// The values that actions made of one row.
#[derive(Debug, Default)]
pub(in crate::route) struct Made {
    /// One per column of the row, or none where there are no actions.
    cells: Vec<Cell>,
    /// The bytes of those that were made, by column.
    buffers: Vec<Vec<u8>>,
    spare: Vec<u8>,
    pub(in crate::route) failure: Option<Failure>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cell {
    /// As the source said it.
    Raw,
    Null,
    Made,
    /// A step failed on it: it is what it was before that step.
    Failed {
        made: bool,
    },
}

/// A huge value must not stay resident.
const BUFFER_BYTES_KEPT: usize = 64 << 10;

impl Made {
    pub(in crate::route) fn clear(&mut self) {
        for buffer in &mut self.buffers[..self.cells.len()] {
            buffer.clear();
            buffer.shrink_to(BUFFER_BYTES_KEPT);
        }
        self.cells.clear();
        self.failure = None;
        self.spare.shrink_to(BUFFER_BYTES_KEPT);
    }
}

/// A row as the steps left it.
#[derive(Clone, Copy)]
pub(in crate::route) struct View<'a> {
    pub(in crate::route) row: Row<'a>,
    pub(in crate::route) made: &'a Made,
}

static NOTHING_MADE: Made = Made { cells: Vec::new(), buffers: Vec::new(), spare: Vec::new(), failure: None };

impl<'a> View<'a> {
    /// The row as the source said it.
    pub(in crate::route) fn raw(row: Row<'a>) -> View<'a> {
        View { row, made: &NOTHING_MADE }
    }

    pub(in crate::route) fn value(self, slot: usize) -> Value<'a> {
        match self.made.cells.get(slot) {
            None | Some(Cell::Raw | Cell::Failed { made: false }) => self.row.value(slot),
            Some(Cell::Null) => Value::Null,
            Some(Cell::Made | Cell::Failed { made: true }) => Value::Data(&self.made.buffers[slot]),
        }
    }

    /// Its value is not of the kind that the field has now.
    pub(in crate::route) fn has_failed(self, slot: usize) -> bool {
        matches!(self.made.cells.get(slot), Some(Cell::Failed { .. }))
    }
}
