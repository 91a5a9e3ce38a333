//! `mask`

use std::borrow::Cow;
use std::collections::BTreeMap;

use ring::hmac;
use schemars::JsonSchema;
use serde::Deserialize;
use towpath_contract::{Kind, Secret};

use super::run::{Action, Outcome};
use super::shape::{Fault, Shape};
use super::trim::trimmed;
use super::{Step, fields};

/// Hides values, before events are recorded: `mask: { email: { hmac: "${MASK_KEY}" }, phone: { keep_end: 3 }, note: redact,
/// ssn: drop }`. Nulls stay null, and blanks around a text do not count. A masked value is masked in an event's key too; the order of events and their ids are those of the
/// real key. Where `from` has a `*`, a column that the database gives another name is another column, and nothing masks it: give a
/// table with something to hide a route of its own, which then stops.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
pub struct Mask(BTreeMap<String, Hiding>);

/// How a value is hidden.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Hiding {
    /// The column is left out.
    Drop,
    /// The value becomes `***`.
    Redact,
    /// 64 hexadecimal digits, HMAC-SHA-256 of the value under this key of at least 16 bytes: equal values stay equal, and nobody without
    /// the key can try values out.
    Hmac(Secret),
    /// The first so many characters stay, every other becomes `*`. Of a value that is no longer than that, nothing stays.
    KeepStart(u16),
    /// The last so many characters stay, every other becomes `*`. Of a value that is no longer than that, nothing stays.
    KeepEnd(u16),
}

const KEY_BYTES_MIN: usize = 16;

impl Step for Mask {
    fn faults(&self) -> Vec<Fault> {
        let short =
            self.0.iter().filter(|(_, way)| matches!(way, Hiding::Hmac(key) if key.reveal().len() < KEY_BYTES_MIN));
        let short = short.map(|(name, _)| {
            let message = format!("a key has at least {KEY_BYTES_MIN} bytes");
            Fault::new(message).help("make one with `openssl rand -hex 32`").key("hmac").key(name)
        });
        let patterns = self.0.keys().filter(|name| name.contains('*'));
        let patterns = patterns.map(|name| Fault::new("`mask` takes whole names").help("name each column").key(name));
        fields::faults_of_map(self.0.len()).into_iter().chain(short).chain(patterns).collect()
    }

    fn compile(&self, shape: &mut Shape) -> Result<(), Fault> {
        for (name, way) in &self.0 {
            let Some(found) = shape.find(name).map_err(|fault| fault.key(name))? else { continue };
            shape.hide(found);
            let hiding = match way {
                Hiding::Drop => {
                    shape.fields().remove(found);
                    continue;
                }
                Hiding::Redact => Masking::Redact,
                Hiding::Hmac(key) => Masking::Hmac(hmac::Key::new(hmac::HMAC_SHA256, key.reveal().as_bytes())),
                Hiding::KeepStart(count) => Masking::KeepStart((*count).into()),
                Hiding::KeepEnd(count) => Masking::KeepEnd((*count).into()),
            };
            shape.fields()[found].becomes(Kind::Text);
            shape.act(found, hiding);
        }
        Ok(())
    }
}

#[derive(Debug)]
enum Masking {
    Redact,
    Hmac(hmac::Key),
    KeepStart(usize),
    KeepEnd(usize),
}

impl Action for Masking {
    fn apply(&self, value: &[u8], out: &mut Vec<u8>) -> Result<Outcome, Cow<'static, str>> {
        // What pads a CHAR is no part of it.
        let value = trimmed(value);
        match self {
            Masking::Redact => out.extend_from_slice(b"***"),
            Masking::Hmac(key) => {
                const HEX: &[u8; 16] = b"0123456789abcdef";
                let tag = hmac::sign(key, value);
                out.extend(
                    tag.as_ref().iter().flat_map(|byte| [HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]),
                );
            }
            Masking::KeepStart(count) => keep(value, out, |nth, of| of > *count && nth < *count),
            Masking::KeepEnd(count) => keep(value, out, |nth, of| of > *count && nth >= of - *count),
        }
        Ok(Outcome::Made)
    }

    fn protects(&self) -> bool {
        true
    }
}

/// Writes a `*` for every character that does not stay. Bytes that are no text: one for each.
fn keep(value: &[u8], out: &mut Vec<u8>, stays: impl Fn(usize, usize) -> bool) {
    let text = String::from_utf8_lossy(value);
    let length = text.chars().count();
    for (nth, char) in text.chars().enumerate() {
        match stays(nth, length) {
            true => out.extend_from_slice(char.encode_utf8(&mut [0; 4]).as_bytes()),
            false => out.push(b'*'),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn hidden(hiding: &Masking, value: &str) -> String {
        let mut out = Vec::new();
        assert_eq!(hiding.apply(value.as_bytes(), &mut out), Ok(Outcome::Made));
        String::from_utf8(out).unwrap()
    }

    /// RFC 4231, test case 2.
    #[test]
    fn the_hmac_is_the_standards() {
        let key = Masking::Hmac(hmac::Key::new(hmac::HMAC_SHA256, b"Jefe"));
        let wanted = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
        assert_eq!(hidden(&key, "what do ya want for nothing?"), wanted);
    }

    #[test]
    fn a_short_value_is_hidden_whole() {
        assert_eq!(hidden(&Masking::KeepEnd(4), "5105105105105100"), "************5100");
        assert_eq!(hidden(&Masking::KeepEnd(4), "5100"), "****");
        assert_eq!(hidden(&Masking::KeepStart(1), "Jürgen"), "J*****");
        assert_eq!(hidden(&Masking::KeepStart(1), "Ü"), "*");
        assert_eq!(hidden(&Masking::Redact, ""), "***");
        // CHAR(20), as the database pads it.
        assert_eq!(hidden(&Masking::KeepStart(4), "5100                "), "****");
        assert_eq!(hidden(&Masking::KeepEnd(2), "5100                "), "**00");
    }

    proptest! {
        #[test]
        fn no_more_stays_than_was_said(value in "[!-~äöü]{0,20}", count in 0usize..25) {
            for hiding in [Masking::KeepStart(count), Masking::KeepEnd(count)] {
                let out = hidden(&hiding, &value);
                prop_assert_eq!(out.chars().count(), value.chars().count());
                let shown = out.chars().zip(value.chars()).filter(|(out, value)| out == value && *value != '*').count();
                prop_assert!(shown <= count);
            }
        }
    }
}
