//! `implied_decimal`

use std::borrow::Cow;
use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;
use towpath_contract::Kind;

use super::cast::write_signed;
use super::run::{Action, Outcome};
use super::shape::{Fault, Shape};
use super::trim::trimmed;
use super::{Step, fields};

/// Whole numbers whose last digits are meant to stand behind a decimal point: `implied_decimal: { amount: 2 }` makes `123.45` of `12345`.
/// From whole numbers and texts of digits; a text may have its sign in front or at its end (`0012345-`).
#[derive(Clone, Debug, Deserialize, JsonSchema)]
pub struct ImpliedDecimal(BTreeMap<String, Scale>);

/// Scale behind the point, 1 to 38.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
pub(super) struct Scale(#[schemars(range(min = 1, max = 38))] u8);

impl Step for ImpliedDecimal {
    fn faults(&self) -> Vec<Fault> {
        fields::faults_of_map(self.0.len())
    }

    fn compile(&self, shape: &mut Shape) -> Result<(), Fault> {
        for (name, digits) in &self.0 {
            let Some(found) = shape.find(name).map_err(|fault| fault.key(name))? else { continue };
            let field = &mut shape.fields()[found];
            // A decimal with a scale is found out by its point.
            if !matches!(field.kind, Kind::Int | Kind::Decimal | Kind::Text | Kind::Other) {
                fields::wrong_kind(field, name, "a whole number or a text").map_err(|fault| fault.key(name))?;
                continue;
            }
            field.becomes(Kind::Decimal);
            shape.act(found, Pointing { scale: digits.0.into() });
        }
        Ok(())
    }
}

#[derive(Debug)]
struct Pointing {
    scale: usize,
}

impl Action for Pointing {
    fn apply(&self, value: &[u8], out: &mut Vec<u8>) -> Result<Outcome, Cow<'static, str>> {
        let value = trimmed(value);
        let (negative, digits) = match value {
            [b'-', digits @ ..] | [digits @ .., b'-'] => (true, digits),
            [b'+', digits @ ..] | [digits @ .., b'+'] => (false, digits),
            digits => (false, digits),
        };
        if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
            return Err("the value is no whole number".into());
        }
        let mut text = Vec::with_capacity(digits.len().max(self.scale + 1) + 1);
        text.resize((self.scale + 1).saturating_sub(digits.len()), b'0');
        text.extend_from_slice(digits);
        text.insert(text.len() - self.scale, b'.');
        write_signed(negative, &text, out);
        Ok(Outcome::Made)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pointed(scale: usize, value: &str) -> Result<String, Cow<'static, str>> {
        let mut out = Vec::new();
        Pointing { scale }.apply(value.as_bytes(), &mut out).map(|_| String::from_utf8(out).unwrap())
    }

    #[test]
    fn the_sign_stands_at_either_end() {
        for (value, wanted) in [
            ("12345", "123.45"),
            ("0012345-", "-123.45"),
            ("-5", "-0.05"),
            ("+5", "0.05"),
            ("0", "0.00"),
            ("000-", "0.00"),
            (" 7 ", "0.07"),
        ] {
            assert_eq!(pointed(2, value).as_deref(), Ok(wanted), "{value}");
        }
        for value in ["", "-", "--5", "1.5", "1 5", "-5-"] {
            assert!(pointed(2, value).is_err(), "{value}");
        }
    }

    proptest! {
        #[test]
        fn the_digits_stay(number in any::<i64>(), scale in 1usize..12) {
            let text = pointed(scale, &number.to_string()).unwrap();
            prop_assert_eq!(text.len() - 1 - text.find('.').unwrap(), scale);
            prop_assert_eq!(text.replace('.', "").parse::<i64>().unwrap(), number);
        }
    }
}
