//! `null_if`

use std::borrow::Cow;
use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;
use towpath_contract::Kind;

use super::run::{Action, Outcome};
use super::shape::{Fault, Shape};
use super::{Step, fields};

/// Values that stand for "nothing" become null: `null_if: { ended_on: ["0", "99999999", "1900-01-01"], phone: [""] }`. Numbers are
/// compared by value (`0` takes `0.00`), texts without the blanks at their end (`""` takes what is blank altogether), everything
/// else as it is written in events.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
pub struct NullIf(BTreeMap<String, Vec<String>>);

impl Step for NullIf {
    fn faults(&self) -> Vec<Fault> {
        let lists = self.0.iter().flat_map(|(name, values)| {
            fields::faults(values).into_iter().map(move |fault| {
                Fault { message: fault.message.replace("column", "value"), help: String::new(), ..fault }.key(name)
            })
        });
        fields::faults_of_map(self.0.len()).into_iter().chain(lists).collect()
    }

    fn compile(&self, shape: &mut Shape) -> Result<(), Fault> {
        for (name, values) in &self.0 {
            let Some(found) = shape.find(name).map_err(|fault| fault.key(name))? else { continue };
            let field = &shape.fields()[found];
            let compare = Compare::of(&field.kind);
            if compare == Compare::Number
                && let Some(index) = values.iter().position(|value| !is_number(value.as_bytes()))
            {
                if fields::is_optional(name) {
                    continue;
                }
                let message = format!("column `{name}` is {}, and this is no number", field.type_name);
                let help = "a number, such as `0`; or `cast` the column first";
                return Err(Fault::new(message).help(help).index(index).key(name));
            }
            let values = values.iter().map(|value| compare.form(value.as_bytes()).into_owned()).collect();
            shape.act(found, Nulling { compare, values });
        }
        Ok(())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Compare {
    Number,
    Text,
    Exact,
}

#[derive(Debug)]
struct Nulling {
    compare: Compare,
    /// In the form in which they are compared.
    values: Vec<Vec<u8>>,
}

impl Action for Nulling {
    fn apply(&self, value: &[u8], _: &mut Vec<u8>) -> Result<Outcome, Cow<'static, str>> {
        let value = self.compare.form(value);
        Ok(if self.values.iter().any(|stands_for_null| *stands_for_null == *value) {
            Outcome::Null
        } else {
            Outcome::Same
        })
    }
}

impl Compare {
    fn of(kind: &Kind) -> Compare {
        match kind {
            Kind::Int | Kind::Decimal => Compare::Number,
            Kind::Text | Kind::Other => Compare::Text,
            _ => Compare::Exact,
        }
    }

    /// Equal values have equal forms.
    fn form(self, value: &[u8]) -> Cow<'_, [u8]> {
        match self {
            Compare::Exact => value.into(),
            Compare::Text => {
                let end = value.iter().rposition(|byte| !super::trim::is_blank(*byte)).map_or(0, |last| last + 1);
                value[..end].into()
            }
            Compare::Number if is_number(value) => number_form(value),
            Compare::Number => value.into(),
        }
    }
}

/// `NaN` and the infinities are none.
pub(super) fn is_number(value: &[u8]) -> bool {
    let digits = value.strip_prefix(b"-").unwrap_or(value);
    let (whole, fraction) = match digits.iter().position(|byte| *byte == b'.') {
        Some(point) => (&digits[..point], Some(&digits[point + 1..])),
        None => (digits, None),
    };
    let all_digits = |part: &[u8]| !part.is_empty() && part.iter().all(u8::is_ascii_digit);
    all_digits(whole) && fraction.is_none_or(all_digits)
}

/// Without zeros that say nothing, and zero without a sign.
fn number_form(value: &[u8]) -> Cow<'_, [u8]> {
    let (negative, digits) = match value.strip_prefix(b"-") {
        Some(digits) => (true, digits),
        None => (false, value),
    };
    let start = digits.iter().position(|byte| *byte != b'0').unwrap_or(digits.len());
    let mut digits = &digits[start..];
    if digits.contains(&b'.') {
        let end = digits.iter().rposition(|byte| *byte != b'0').map_or(0, |last| last + 1);
        digits = digits[..end].strip_suffix(b".").unwrap_or(&digits[..end]);
    }
    match negative && !digits.is_empty() {
        true => [b"-", digits].concat().into(),
        false => digits.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn numbers_are_compared_by_value() {
        let equal = |a: &str, b: &str| Compare::Number.form(a.as_bytes()) == Compare::Number.form(b.as_bytes());
        assert!(
            equal("0", "0.00")
                && equal("-0", "0")
                && equal("007", "7.0")
                && equal("-1.50", "-1.5")
                && equal("0.5", "00.50")
        );
        assert!(
            !equal("1", "-1") && !equal("10", "1") && !equal("0.1", "0.01") && !equal("NaN", "0") && !equal("100", "1")
        );
    }

    proptest! {
        #[test]
        fn equal_forms_are_equal_numbers(a in "-?[0-9]{1,4}(\\.[0-9]{1,3})?", b in "-?[0-9]{1,4}(\\.[0-9]{1,3})?") {
            let by_form = Compare::Number.form(a.as_bytes()) == Compare::Number.form(b.as_bytes());
            prop_assert_eq!(by_form, a.parse::<f64>().unwrap() == b.parse::<f64>().unwrap());
        }
    }
}
