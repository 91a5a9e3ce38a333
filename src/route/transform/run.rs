//! What is left of the steps for an event: what is done to its values, in buffers that are filled again.

use std::borrow::Cow;
use std::fmt::Debug;

use towpath_contract::{Row, Value};

use crate::route::expression::{self, Input};

/// Why a step cannot be done. Never holds a value.
pub(in crate::route) type Reason = Cow<'static, str>;

/// What a step does to one value. Never called for null or for what the source did not say.
pub(super) trait Action: Debug + Send + Sync {
    /// Appends the new value to `out`, which is empty, unless it says that there is none.
    ///
    /// # Errors
    /// Why it cannot be done, without the value.
    fn apply(&self, value: &[u8], out: &mut Vec<u8>) -> Result<Outcome, Reason>;

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
    /// What it would be made of was not sent.
    Unavailable,
}

/// What a route's steps do to a change of one table, in order.
#[derive(Debug, Default)]
pub(in crate::route) struct Program {
    pub(super) doings: Vec<Doing>,
    /// Columns of the source's row, and what steps added.
    pub(super) slots: usize,
}

/// A step, or a part of one.
#[derive(Debug)]
pub(super) struct Doing {
    pub(super) step: usize,
    /// What it works on; empty for one that works on the whole change.
    pub(super) field: String,
    pub(super) what: What,
}

#[derive(Debug)]
pub(super) enum What {
    /// On one value of each row.
    Act { slot: usize, action: Box<dyn Action> },
    /// A new value of each row.
    Set { slot: usize, expression: expression::Program },
    /// One value made of several, of each row.
    Make { slot: usize, maker: Box<dyn Maker> },
    /// On the whole change: is there an event, and which?
    Choose(Box<dyn Choice>),
}

/// What a step makes of several values of a row.
pub(super) trait Maker: Debug + Send + Sync {
    /// Appends the value to `out`, which is empty, unless it says that there is none.
    ///
    /// # Errors
    /// Why it cannot be made, without any value.
    fn make(&self, row: View<'_>, out: &mut Vec<u8>) -> Result<Outcome, Reason>;
}

/// What a step decides about a whole change.
pub(super) trait Choice: Debug + Send + Sync {
    /// # Errors
    /// Why it cannot be decided, without any value.
    fn choose(&self, input: &Input<'_>, chosen: &mut Chosen) -> Result<(), Reason>;

    /// It may not decide where only what `sent` says is known of a row before it is updated or deleted.
    fn needs_old_row(&self, sent: &dyn Fn(usize) -> bool) -> bool;
}

/// What the steps decided about a change.
#[derive(Debug, Default)]
pub(in crate::route) struct Chosen {
    /// No event is made of it.
    pub(in crate::route) dropped: bool,
    /// The forms of its events, by their index in [`super::Compiled::variants`]; none: one event of the route's own form.
    pub(in crate::route) variants: Vec<usize>,
}

/// The step that could not be done on a change, and why. No value is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::route) struct Failure {
    pub(in crate::route) step: usize,
    /// Empty when it is no single one.
    pub(in crate::route) field: String,
    pub(in crate::route) reason: Reason,
}

impl Program {
    pub(in crate::route) fn touches(&self, slot: usize) -> bool {
        self.doings.iter().any(|doing| matches!(&doing.what, What::Act { slot: of, .. } if *of == slot))
    }

    /// The steps that cannot do without the row as it was before a change, where of that only what `sent` says is known.
    pub(in crate::route) fn needing_old_row(&self, sent: &dyn Fn(usize) -> bool) -> Vec<usize> {
        let needs = |what: &What| match what {
            What::Act { .. } | What::Make { .. } => false,
            What::Set { expression, .. } => expression.looks_back(),
            What::Choose(choice) => choice.needs_old_row(sent),
        };
        let mut steps: Vec<usize> =
            self.doings.iter().filter(|doing| needs(&doing.what)).map(|doing| doing.step).collect();
        steps.dedup();
        steps
    }
}

/// The values that steps made of one row.
#[derive(Debug, Default)]
pub(in crate::route) struct Made {
    /// One per slot, or none where there is nothing to do.
    cells: Vec<Cell>,
    /// The bytes of those that were made, by slot.
    buffers: Vec<Vec<u8>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cell {
    /// As the source said it.
    Raw,
    Null,
    Made,
    /// Added by a step that has not been done, or could not say.
    Unavailable,
    /// A step failed on it: it is what it was before that step.
    Failed {
        made: bool,
    },
}

/// A huge value must not stay resident.
pub(super) const BUFFER_BYTES_KEPT: usize = 64 << 10;

impl Made {
    pub(in crate::route) fn clear(&mut self) {
        for buffer in &mut self.buffers[..self.cells.len()] {
            buffer.clear();
            buffer.shrink_to(BUFFER_BYTES_KEPT);
        }
        self.cells.clear();
    }

    /// As the source has the row, and nothing in the slots behind its columns.
    pub(super) fn begin(&mut self, columns: usize, slots: usize) {
        self.cells.resize(columns, Cell::Raw);
        self.cells.resize(slots, Cell::Unavailable);
        if self.buffers.len() < slots {
            self.buffers.resize_with(slots, Vec::new);
        }
    }

    /// The value that an action is done on.
    pub(super) fn input<'a>(&'a self, row: Row<'a>, slot: usize, protects: bool) -> Option<&'a [u8]> {
        let raw = || match row.value(slot) {
            Value::Data(bytes) => Some(bytes),
            Value::Null | Value::Unavailable => None,
        };
        match self.cells[slot] {
            Cell::Raw => raw(),
            Cell::Made => Some(&self.buffers[slot]),
            Cell::Failed { made: false } if protects => raw(),
            Cell::Failed { made: true } if protects => Some(&self.buffers[slot]),
            _ => None,
        }
    }

    /// `out` holds the new value, and the old one afterwards.
    pub(super) fn store(&mut self, slot: usize, outcome: Outcome, out: &mut Vec<u8>) {
        match outcome {
            Outcome::Same => {}
            Outcome::Null => self.cells[slot] = Cell::Null,
            Outcome::Unavailable => self.cells[slot] = Cell::Unavailable,
            Outcome::Made => {
                self.cells[slot] = Cell::Made;
                std::mem::swap(&mut self.buffers[slot], out);
            }
        }
    }

    pub(super) fn fail(&mut self, slot: usize) {
        self.cells[slot] = match self.cells[slot] {
            Cell::Unavailable => Cell::Unavailable,
            cell => Cell::Failed { made: cell == Cell::Made },
        };
    }
}

/// A row as the steps left it.
#[derive(Clone, Copy)]
pub(in crate::route) struct View<'a> {
    pub(in crate::route) row: Row<'a>,
    pub(in crate::route) made: &'a Made,
}

static NOTHING_MADE: Made = Made { cells: Vec::new(), buffers: Vec::new() };

impl<'a> View<'a> {
    /// The row as the source said it.
    pub(in crate::route) fn raw(row: Row<'a>) -> View<'a> {
        View { row, made: &NOTHING_MADE }
    }

    pub(in crate::route) fn value(self, slot: usize) -> Value<'a> {
        match self.made.cells.get(slot) {
            // Nothing was made, not even what steps add.
            None if slot >= self.row.values().len() => Value::Unavailable,
            None | Some(Cell::Raw | Cell::Failed { made: false }) => self.row.value(slot),
            Some(Cell::Null) => Value::Null,
            Some(Cell::Unavailable) => Value::Unavailable,
            Some(Cell::Made | Cell::Failed { made: true }) => Value::Data(&self.made.buffers[slot]),
        }
    }

    /// Its value is not of the kind that the field has now.
    pub(in crate::route) fn has_failed(self, slot: usize) -> bool {
        matches!(self.made.cells.get(slot), Some(Cell::Failed { .. }))
    }
}
