//! `charset_repair`

use std::borrow::Cow;
use std::collections::BTreeMap;

use encoding_rs::Encoding;
use schemars::JsonSchema;
use serde::Deserialize;
use towpath_contract::Kind;

use super::run::{Action, Outcome};
use super::shape::{Fault, Shape};
use super::{Step, fields};

/// Texts that were read by a wrong character set become what they were: `charset_repair: { name: windows-1252 }` makes `Müller` of
/// `MÃ¼ller`, which is UTF-8 that was taken for windows-1252. A text that cannot have come about so stays as it is: `Müller` does. `*` stands for
/// any characters in a column's name, and then takes the texts alone. Character sets go by the names of the
/// [Encoding Standard](https://encoding.spec.whatwg.org/#names-and-labels): `windows-1250`, `iso-8859-15`, `ibm866`, `koi8-r` …; `latin1` is
/// windows-1252.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
pub struct CharsetRepair(BTreeMap<String, String>);

impl Step for CharsetRepair {
    fn faults(&self) -> Vec<Fault> {
        let unknown = self.0.iter().filter(|(_, label)| charset(label).is_none());
        let help = "for example `windows-1252`, `windows-1250`, `iso-8859-15`, `ibm866`, `koi8-r`";
        let unknown = unknown.map(|(name, _)| {
            Fault::new("this is no character set of one byte a character that is known").help(help).key(name)
        });
        fields::faults_of_map(self.0.len()).into_iter().chain(unknown).collect()
    }

    fn compile(&self, shape: &mut Shape) -> Result<(), Fault> {
        for (pattern, label) in &self.0 {
            for found in shape.find_all(pattern).map_err(|fault| fault.key(pattern))? {
                let field = &shape.fields()[found];
                if matches!(field.kind, Kind::Text | Kind::Other) {
                    let Some(taken_for) = charset(label) else { continue };
                    shape.act(found, Repairing { taken_for });
                } else if !pattern.contains('*') {
                    fields::wrong_kind(field, pattern, "a text").map_err(|fault| fault.key(pattern))?;
                }
            }
        }
        Ok(())
    }
}

fn charset(label: &str) -> Option<&'static Encoding> {
    Encoding::for_label(label.trim().as_bytes()).filter(|encoding| encoding.is_single_byte())
}

#[derive(Debug)]
struct Repairing {
    taken_for: &'static Encoding,
}

impl Action for Repairing {
    fn apply(&self, value: &[u8], out: &mut Vec<u8>) -> Result<Outcome, Cow<'static, str>> {
        if value.is_ascii() {
            return Ok(Outcome::Same);
        }
        let Ok(text) = std::str::from_utf8(value) else { return Ok(Outcome::Same) };
        let (bytes, _, unmappable) = self.taken_for.encode(text);
        // What was read right is no UTF-8 when it is written back, but by rare chance.
        if unmappable || std::str::from_utf8(&bytes).is_err() {
            return Ok(Outcome::Same);
        }
        out.extend_from_slice(&bytes);
        Ok(Outcome::Made)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn repaired(text: &str, label: &str) -> String {
        let mut out = Vec::new();
        let repairing = Repairing { taken_for: charset(label).expect("known") };
        match repairing.apply(text.as_bytes(), &mut out).expect("never fails") {
            Outcome::Same => text.to_owned(),
            _ => String::from_utf8(out).expect("text"),
        }
    }

    #[test]
    fn what_was_read_right_stays() {
        for text in ["Müller", "plain", "10 €", "Здравствуй", "naïve façade"] {
            assert_eq!(repaired(text, "windows-1252"), text);
        }
        assert_eq!(repaired("MÃ¼ller â‚¬", "latin1"), "Müller €");
    }

    proptest! {
        #[test]
        fn what_was_read_wrong_becomes_what_it_was(text in "\\PC{0,20}", label in "windows-125[0-8]|iso-8859-15|koi8-r") {
            let (wrong, _) = charset(&label).expect("known").decode_without_bom_handling(text.as_bytes());
            // Some sets have no character for some bytes.
            prop_assume!(!wrong.contains('\u{fffd}'));
            prop_assert_eq!(repaired(&wrong, &label), text);
        }
    }
}
