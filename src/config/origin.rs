//! Where each value came from, and which of them must never be shown.

use std::collections::{BTreeMap, BTreeSet};

use super::locate::{Mark, Marks};
use super::path::{KeyPath, looks_like_url};
use super::problem::{Place, Placed, Problem};
use super::schema;

#[derive(Clone, Debug, Default)]
pub(super) struct Origins {
    pub(super) marks: Marks,
    /// Values that a `TOWPATH__…` variable set, by its name.
    pub(super) variables: BTreeMap<KeyPath, String>,
    /// Values with `${…}` in them.
    pub(super) interpolated: BTreeSet<KeyPath>,
}

impl Origins {
    pub(super) fn place(&self, path: &KeyPath) -> Place {
        let variable = path.and_containers().find(|path| self.variables.contains_key(path));
        let marked = path.and_containers().find(|path| self.marks.get(path).is_some());
        match (variable, marked) {
            (Some(variable), marked)
                if marked.as_ref().is_none_or(|marked| variable.segments().len() >= marked.segments().len()) =>
            {
                Place::Variable(self.variables[&variable].clone())
            }
            _ => self.marks.place(path),
        }
    }

    pub(super) fn placed(&self, problem: Problem) -> Placed {
        Placed { place: self.place(&problem.path), problem }
    }

    pub(super) fn mark(&self, path: &KeyPath) -> Option<&Mark> {
        if self.is_outside(path) { None } else { self.marks.get(path) }
    }

    /// The value is not in the file itself: it came from the environment or from another file.
    pub(super) fn is_outside(&self, path: &KeyPath) -> bool {
        path.and_containers().any(|path| self.variables.contains_key(&path) || self.interpolated.contains(&path))
    }

    /// Whether an error may quote the value at this path.
    pub(super) fn may_show(&self, path: &KeyPath) -> bool {
        !self.is_outside(path) && !schema::is_secret(path)
    }

    /// The value in quotes, or a word for it where it must not be shown.
    pub(super) fn quote(&self, path: &KeyPath, text: &str) -> String {
        const SHOWN_CHARS_MAX: usize = 80;
        match self.may_show(path) && !looks_like_url(text) {
            true if text.chars().count() <= SHOWN_CHARS_MAX => format!("`{text}`"),
            true => format!("`{}…`", text.chars().take(SHOWN_CHARS_MAX).collect::<String>()),
            false => "the value (withheld)".into(),
        }
    }
}
