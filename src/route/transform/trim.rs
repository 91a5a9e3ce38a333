//! `trim`

use std::borrow::Cow;

use schemars::JsonSchema;
use serde::Deserialize;
use towpath_contract::Kind;

use super::run::{Action, Outcome};
use super::shape::{Fault, Shape};
use super::{Step, fields};

/// Takes blanks (spaces, tabs, line ends, NULs) off both ends of texts: `trim: [status, name]`. `*` stands for any characters in a
/// name, and then takes the texts alone: `trim: ["*"]`. What is blank altogether becomes an empty text; `null_if` makes null of it.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
pub struct Trim(Vec<String>);

impl Step for Trim {
    fn faults(&self) -> Vec<Fault> {
        fields::faults(&self.0)
    }

    fn compile(&self, shape: &mut Shape) -> Result<(), Fault> {
        for (index, pattern) in self.0.iter().enumerate() {
            for found in shape.find_all(pattern).map_err(|fault| fault.index(index))? {
                let field = &shape.fields()[found];
                if matches!(field.kind, Kind::Text | Kind::Other) {
                    shape.act(found, Trimming);
                } else if !pattern.contains('*') {
                    fields::wrong_kind(field, pattern, "a text").map_err(|fault| fault.index(index))?;
                }
            }
        }
        Ok(())
    }
}

#[derive(Debug)]
struct Trimming;

pub(super) fn is_blank(byte: u8) -> bool {
    byte.is_ascii_whitespace() || byte == 0x0b || byte == 0
}

/// Without the blanks at both ends.
pub(super) fn trimmed(value: &[u8]) -> &[u8] {
    let start = value.iter().position(|byte| !is_blank(*byte)).unwrap_or(value.len());
    let end = value.iter().rposition(|byte| !is_blank(*byte)).map_or(start, |last| last + 1);
    &value[start..end]
}

impl Action for Trimming {
    fn apply(&self, value: &[u8], out: &mut Vec<u8>) -> Result<Outcome, Cow<'static, str>> {
        let kept = trimmed(value);
        if kept.len() == value.len() {
            return Ok(Outcome::Same);
        }
        out.extend_from_slice(kept);
        Ok(Outcome::Made)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn as_the_standard_library_trims(text in "[ \t\r\n\\x0b\\x0c\\x00a-cä]{0,12}") {
            let wanted = text.trim_matches([' ', '\t', '\r', '\n', '\u{b}', '\u{c}', '\0']);
            prop_assert_eq!(trimmed(text.as_bytes()), wanted.as_bytes());
        }
    }
}
