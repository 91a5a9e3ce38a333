//! `rename`

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use super::shape::{Fault, Shape};
use super::{Step, fields};

/// Gives columns other names: `rename: { cust_no: customer_id }`, or all of them by a rule: `rename: snake_case`. All names of one
/// step are given at once: `{ a: b, b: a }` swaps two.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Rename {
    Rule(RenameRule),
    Names(BTreeMap<String, String>),
}

#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
pub enum RenameRule {
    /// `CustNo`, `CUST_NO` and `cust-no` become `cust_no`.
    #[serde(rename = "snake_case")]
    Snake,
    /// `CUST_NO`, `cust-no` and `CustNo` become `custNo`.
    #[serde(rename = "camelCase")]
    Camel,
}

impl Step for Rename {
    fn faults(&self) -> Vec<Fault> {
        let Rename::Names(names) = self else { return Vec::new() };
        let mut faults = fields::faults_of_map(names.len());
        for (old, new) in names {
            if new.is_empty() {
                faults.push(Fault::new("a name cannot be empty").key(old));
            }
            if let Some((first, _)) = names.iter().find(|(other, name)| *other < old && *name == new) {
                faults.push(Fault::new(format!("`{first}` gets this name too")).key(old));
            }
        }
        faults
    }

    fn compile(&self, shape: &mut Shape) -> Result<(), Fault> {
        match self {
            Rename::Names(names) => {
                let found: Result<Vec<_>, Fault> = names
                    .iter()
                    .map(|(old, new)| Ok((shape.find(old).map_err(|fault| fault.key(old))?, old, new)))
                    .collect();
                let renamed = found?;
                for (index, _, new) in &renamed {
                    if let Some(index) = index {
                        shape.fields()[*index].name = (*new).clone();
                    }
                }
                let clash = renamed.into_iter().find(|(index, _, new)| index.is_some() && count(shape, new) > 1);
                clash.map_or(Ok(()), |(_, old, new)| {
                    Err(Fault::new(format!("there is a column `{new}` already")).key(old))
                })
            }
            Rename::Rule(rule) => {
                for field in shape.fields() {
                    field.name = rule.apply(&field.name);
                }
                let names: Vec<String> = shape.fields().iter().map(|field| field.name.clone()).collect();
                let clash = names.iter().find(|name| count(shape, name) > 1);
                let help = "give one of them another name before, with `rename: { … }`";
                clash.map_or(Ok(()), |name| Err(Fault::new(format!("two columns become `{name}`")).help(help)))
            }
        }
    }
}

fn count(shape: &mut Shape, name: &str) -> usize {
    shape.fields().iter().filter(|field| field.name == name).count()
}

impl RenameRule {
    fn apply(self, name: &str) -> String {
        let words = words(name);
        // A name without a letter or digit has no words: it stays.
        if words.is_empty() {
            return name.to_owned();
        }
        match self {
            RenameRule::Snake => words.join("_"),
            RenameRule::Camel => words
                .iter()
                .enumerate()
                .map(|(nth, word)| if nth == 0 { word.clone() } else { capital(word) })
                .collect(),
        }
    }
}

fn capital(word: &str) -> String {
    let mut chars = word.chars();
    chars.next().into_iter().flat_map(char::to_uppercase).chain(chars).collect()
}

/// The words of a name, in lower case: they end at what is neither letter nor digit, where a capital follows a small letter or a
/// digit, and before the last of several capitals that a small letter follows (`XMLFile`).
fn words(name: &str) -> Vec<String> {
    let chars: Vec<char> = name.chars().collect();
    let mut words: Vec<String> = Vec::new();
    let mut open = false;
    for (index, &char) in chars.iter().enumerate() {
        if !char.is_alphanumeric() {
            open = false;
            continue;
        }
        let before = index.checked_sub(1).map(|index| chars[index]);
        let after = chars.get(index + 1);
        let begins = char.is_uppercase()
            && before.is_some_and(|before| {
                before.is_lowercase()
                    || before.is_numeric()
                    || before.is_uppercase() && after.is_some_and(|after| after.is_lowercase())
            });
        if !open || begins {
            words.push(String::new());
            open = true;
        }
        if let Some(word) = words.last_mut() {
            word.extend(char.to_lowercase());
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_of_legacy_systems_become_words() {
        for (name, snake, camel) in [
            ("CUST_NO", "cust_no", "custNo"),
            ("CustNo", "cust_no", "custNo"),
            ("cust-no", "cust_no", "custNo"),
            ("XMLFile", "xml_file", "xmlFile"),
            ("AMT01", "amt01", "amt01"),
            ("F0101_ALPH$", "f0101_alph", "f0101Alph"),
            ("orderLine2Total", "order_line2_total", "orderLine2Total"),
            ("Straße", "straße", "straße"),
            ("$", "$", "$"),
        ] {
            assert_eq!(
                (RenameRule::Snake.apply(name).as_str(), RenameRule::Camel.apply(name).as_str()),
                (snake, camel)
            );
        }
    }

    proptest! {
        #[test]
        fn a_rule_changes_nothing_the_second_time(name in "[A-Za-z0-9_]{1,20}") {
            let once = RenameRule::Snake.apply(&name);
            prop_assert_eq!(RenameRule::Snake.apply(&once), once);
        }
    }
}
