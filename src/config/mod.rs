//! From a file to a checked config. The only place that reads the environment and config files.
//!
//! ```text
//! file ─ locate ─▶ places       (a second parse, with lines and columns; runs first)
//!      ─ config ─▶ tree ─ overrides, interpolate ─▶ tree ─ shape ─▶ tree ─ serde ─▶ model ─ check ─▶ checked
//! ```
//! Each step reports everything that it finds; a later one runs only when the earlier found nothing. No connection is made.

mod check;
pub mod checked;
mod interpolate;
mod load;
mod locate;
pub mod model;
mod origin;
mod overrides;
pub mod path;
pub mod problem;
pub mod reference;
mod schema;
mod shape;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod transform_tests;

use std::collections::BTreeMap;

pub use check::place_fault;
pub use checked::Checked;
pub(crate) use load::load_text;
pub use load::{Purpose, load};
pub(crate) use locate::Syntax;
pub use problem::ConfigError;
pub use schema::config_schema;

/// Environment variables, in the order of their names.
#[derive(Clone, Debug, Default)]
pub struct Environment(BTreeMap<String, String>);

impl Environment {
    /// The process's own. Variables that are not UTF-8 are left out.
    pub fn of_process() -> Environment {
        let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        };
        Environment(std::env::vars_os().filter_map(text).collect())
    }

    pub fn of<'a>(variables: impl IntoIterator<Item = (&'a str, &'a str)>) -> Environment {
        Environment(variables.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}
