//! COBOL copybooks: from the text of a record description to a layout with offsets.
//!
//! The way: [`lines`] undoes the reference format, [`words`] splits text words, [`copy`] puts in what COPY and REPLACING say,
//! [`entry`] reads data description entries, [`tree`] makes groups of them, [`layout`] gives each item its place.
//!
//! Facts: IBM, *Enterprise COBOL for z/OS Language Reference*, parts "COBOL language structure" (reference format, COPY) and
//! "Data division".

mod copy;
mod entry;
mod layout;
mod lines;
mod picture;
#[cfg(test)]
mod tests;
mod tree;
mod words;

pub use copy::{Library, Replacement};
pub use entry::{Occurs, Sign, Usage};
pub use layout::{Item, ItemKind, Layout};
pub use lines::Form;
pub use picture::{Category, Picture};

/// Where something stands in a copybook, both counted from 1. `copied` counts the COPY statements that it came through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Place {
    pub line: u32,
    pub column: u32,
    pub copied: u16,
}

/// What is wrong with a copybook, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {}, column {}{}: {message}", place.line, place.column, if place.copied > 0 { " of the text that COPY put in" } else { "" })]
pub struct CopybookError {
    pub place: Place,
    pub message: String,
}

impl CopybookError {
    fn new(place: Place, message: impl Into<String>) -> CopybookError {
        CopybookError { place, message: message.into() }
    }
}

type Result<T> = std::result::Result<T, CopybookError>;

/// The records that a copybook describes, in its order: one for each level 01, or one of the file's name where it starts below that.
///
/// `library` gives the text of what COPY names. `replacements` are applied to all of it, as by `COPY … REPLACING` around it.
pub fn parse(text: &str, form: Form, library: &dyn Library, replacements: &[Replacement]) -> Result<Vec<Layout>> {
    let words = copy::expand(text, form, library, replacements)?;
    let entries = entry::entries(&words)?;
    tree::records(entries)?.into_iter().map(layout::layout).collect()
}
