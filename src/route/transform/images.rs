//! A change's rows on their way through a route's steps. Filled again for every event.

use towpath_contract::{Change, Row};

use super::run::{BUFFER_BYTES_KEPT, Chosen, Failure, Made, Outcome, Program, Reason, View, What};
use crate::route::expression::{self, Input};

#[derive(Debug, Default)]
pub(in crate::route) struct Images {
    before: Made,
    after: Made,
    linked: Made,
    spare: Vec<u8>,
    /// The first step that could not be done.
    failure: Option<Failure>,
    /// Fields that a step could not be done on, and that are null instead.
    nullified: Vec<String>,
    chosen: Chosen,
}

/// The rows of a change, as an event shows them.
#[derive(Clone, Copy)]
pub(in crate::route) struct Rows<'a> {
    pub(in crate::route) before: Option<View<'a>>,
    pub(in crate::route) after: Option<View<'a>>,
    pub(in crate::route) linked: Option<View<'a>>,
}

impl<'a> Rows<'a> {
    /// As the source has them.
    pub(in crate::route) fn raw(change: &Change<'a>) -> Rows<'a> {
        let view = |row: Option<Row<'a>>| row.map(View::raw);
        Rows { before: view(change.before()), after: view(change.after()), linked: view(change.linked()) }
    }

    /// The row as it was before the change; of a row that got another key, as it was under the old one.
    pub(in crate::route) fn old(&self) -> Option<View<'a>> {
        self.before.or(self.linked.filter(|_| self.after.is_some()))
    }

    fn input(self, change: &Change<'_>, row: Option<View<'a>>) -> Input<'a> {
        Input { op: change.op(), row, before: self.old(), after: self.after, moved: change.linked().is_some() }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Which {
    After,
    Before,
    Linked,
}

impl Images {
    /// Does everything to the change's rows, in the order of the steps. `nullify`: a value that a step cannot be done on is null.
    pub(in crate::route) fn transform(&mut self, change: &Change<'_>, program: &Program, nullify: bool) {
        self.leave_out();
        if program.doings.is_empty() {
            return;
        }
        let rows = [(Which::After, change.after()), (Which::Before, change.before()), (Which::Linked, change.linked())];
        for (which, row) in rows {
            if let Some(row) = row {
                self.made(which).begin(row.values().len(), program.slots);
            }
        }
        let is_key = |slot: usize| change.table().columns.get(slot).is_some_and(|column| column.key);
        for doing in &program.doings {
            let done = match &doing.what {
                What::Act { slot, action } => self.each_row(rows, *slot, is_key(*slot), nullify, |row, made, out| {
                    Some(action.apply(made.input(row, *slot, action.protects())?, out))
                }),
                // What an earlier step left undone is no ground to decide on, nor to build on.
                _ if self.failure.is_some() => Ok(()),
                What::Set { slot, expression } => self.set(change, *slot, expression, nullify),
                What::Make { slot, maker } => self
                    .each_row(rows, *slot, false, nullify, |row, made, out| Some(maker.make(View { row, made }, out))),
                What::Choose(choice) => {
                    let mut chosen = std::mem::take(&mut self.chosen);
                    let rows = self.of(change);
                    let done = choice.choose(&rows.input(change, rows.after.or(rows.before)), &mut chosen);
                    self.chosen = chosen;
                    done
                }
            };
            if let Err(reason) = done {
                if nullify && !doing.field.is_empty() {
                    if !self.nullified.contains(&doing.field) {
                        self.nullified.push(doing.field.clone());
                    }
                    continue;
                }
                // What could not be decided is not left out.
                self.chosen.dropped = false;
                let failure = || Failure { step: doing.step, field: doing.field.clone(), reason };
                self.failure.get_or_insert_with(failure);
            }
            if self.chosen.dropped {
                return;
            }
        }
    }

    /// One value of each row. One that fails leaves the others done. `make` says nothing where there is nothing to do.
    fn each_row(
        &mut self,
        rows: [(Which, Option<Row<'_>>); 3],
        slot: usize,
        is_key: bool,
        nullify: bool,
        make: impl Fn(Row<'_>, &Made, &mut Vec<u8>) -> Option<Result<Outcome, Reason>>,
    ) -> Result<(), Reason> {
        let mut failed = None;
        for (which, row) in rows {
            let Some(row) = row else { continue };
            let made = which.of(&mut self.before, &mut self.after, &mut self.linked);
            self.spare.clear();
            match make(row, made, &mut self.spare) {
                None => {}
                Some(Ok(outcome)) => made.store(slot, outcome, &mut self.spare),
                // Of the row under the other key events show the key alone.
                Some(Err(_)) if which == Which::Linked && !is_key => {
                    made.store(slot, Outcome::Unavailable, &mut self.spare);
                }
                Some(Err(reason)) => {
                    if nullify {
                        made.store(slot, Outcome::Null, &mut self.spare);
                    } else {
                        made.fail(slot);
                    }
                    failed.get_or_insert(reason);
                }
            }
        }
        failed.map_or(Ok(()), Err)
    }

    /// A new value of each row; one that compares rows belongs to the row as it is now.
    fn set(
        &mut self,
        change: &Change<'_>,
        slot: usize,
        expression: &expression::Program,
        nullify: bool,
    ) -> Result<(), Reason> {
        let now = if change.after().is_some() { Which::After } else { Which::Before };
        for (which, row) in
            [(Which::After, change.after()), (Which::Before, change.before()), (Which::Linked, change.linked())]
        {
            if row.is_none() || (expression.compares_rows && which != now) {
                continue;
            }
            let mut out = std::mem::take(&mut self.spare);
            out.clear();
            let rows = self.of(change);
            let view = match which {
                Which::After => rows.after,
                Which::Before => rows.before,
                Which::Linked => rows.linked,
            };
            let outcome = expression.run(&rows.input(change, view)).and_then(|value| {
                value.write(&mut out);
                Ok(match value {
                    expression::Value::Null => Outcome::Null,
                    expression::Value::Unavailable
                        if which == Which::After && view.is_some_and(|row| expression.is_partly_sent(row)) =>
                    {
                        return Err("the source sent some of the values that it is made of, and not the others".into());
                    }
                    expression::Value::Unavailable => Outcome::Unavailable,
                    _ => Outcome::Made,
                })
            });
            let failed = match outcome {
                Ok(outcome) => {
                    self.made(which).store(slot, outcome, &mut out);
                    None
                }
                Err(reason) => Some(reason),
            };
            self.spare = out;
            if let Some(reason) = failed {
                if which == Which::Linked {
                    self.made(which).store(slot, Outcome::Unavailable, &mut Vec::new());
                    continue;
                }
                if nullify {
                    self.made(which).store(slot, Outcome::Null, &mut Vec::new());
                }
                return Err(reason);
            }
        }
        Ok(())
    }

    fn made(&mut self, which: Which) -> &mut Made {
        which.of(&mut self.before, &mut self.after, &mut self.linked)
    }

    /// Nothing is made of the change's rows.
    pub(in crate::route) fn leave_out(&mut self) {
        [&mut self.before, &mut self.after, &mut self.linked].into_iter().for_each(Made::clear);
        self.failure = None;
        self.nullified.clear();
        self.chosen.dropped = false;
        self.chosen.variants.clear();
        self.spare.clear();
        self.spare.shrink_to(BUFFER_BYTES_KEPT);
    }

    pub(in crate::route) fn of<'a>(&'a self, change: &Change<'a>) -> Rows<'a> {
        let view = |row: Option<Row<'a>>, made: &'a Made| row.map(|row| View { row, made });
        Rows {
            before: view(change.before(), &self.before),
            after: view(change.after(), &self.after),
            linked: view(change.linked(), &self.linked),
        }
    }

    /// The first step that could not be done.
    pub(in crate::route) fn failure(&self) -> Option<&Failure> {
        self.failure.as_ref()
    }

    pub(in crate::route) fn nullified(&self) -> &[String] {
        &self.nullified
    }

    pub(in crate::route) fn chosen(&self) -> &Chosen {
        &self.chosen
    }
}

impl Which {
    fn of<'m>(self, before: &'m mut Made, after: &'m mut Made, linked: &'m mut Made) -> &'m mut Made {
        match self {
            Which::After => after,
            Which::Before => before,
            Which::Linked => linked,
        }
    }
}
