//! `decode`

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};

use schemars::JsonSchema;
use serde::Deserialize;
use towpath_contract::Kind;

use super::code_file::CodeFile;
use super::run::{Action, Outcome};
use super::shape::{Fault, Shape};
use super::trim::trimmed;
use super::{Step, fields};

/// Codes become words: `decode: { status: { A: active, S: shipped } }`. Blanks around a code do not count. The code `*` says what
/// becomes of every other: a word (`"*": unknown`), or `"{{ value }}"` to leave it as it is. Without it the event of an unknown
/// code is parked.
///
/// Instead of codes a file may be named: `decode: { country: codes/countries.csv }`, with a code and its word in each line, separated by a
/// comma; what holds one stands in quotes, and a line that begins with `#` is none. It is read when Towpath starts, by a path from where it
/// is started. Codes that stand in a table of the source: a route's [`lookup`](related.md).
#[derive(Clone, Debug, Deserialize, JsonSchema)]
pub struct Decode(BTreeMap<String, Codes>);

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
enum Codes {
    Here(BTreeMap<String, String>),
    InFile(CodeFile),
}

impl Codes {
    fn words(&self) -> Result<&BTreeMap<String, String>, Fault> {
        match self {
            Codes::Here(words) => Ok(words),
            Codes::InFile(file) => file.words.as_ref().as_ref().map_err(|why| Fault::new(why.clone())),
        }
    }
}

const OTHERS: &str = "*";
const AS_IT_IS: &str = "{{ value }}";

impl Step for Decode {
    fn faults(&self) -> Vec<Fault> {
        let mut faults = fields::faults_of_map(self.0.len());
        for (name, codes) in &self.0 {
            let codes = match codes.words() {
                Ok(codes) => codes,
                Err(fault) => {
                    faults.push(fault.key(name));
                    continue;
                }
            };
            if codes.is_empty() {
                faults.push(Fault::new("there is no code").help("`{ A: active, S: shipped }`").key(name));
            }
            let twice = codes.keys().filter(|code| code.trim() != *code && codes.contains_key(code.trim()));
            for code in twice {
                faults
                    .push(Fault::new("blanks around a code do not count: this one is there twice").key(code).key(name));
            }
            for (code, word) in codes.iter().filter(|(_, word)| word.contains("{{")) {
                if code != OTHERS || word != AS_IT_IS {
                    let help = "a word, or for the code `*`: `\"{{ value }}\"`, which leaves the code as it is";
                    faults.push(Fault::new("a word of `decode` is no template").help(help).key(code).key(name));
                }
            }
        }
        faults
    }

    fn compile(&self, shape: &mut Shape) -> Result<(), Fault> {
        for (name, codes) in &self.0 {
            let Some(found) = shape.find(name).map_err(|fault| fault.key(name))? else { continue };
            let codes = codes.words().map_err(|fault| fault.key(name))?;
            let field = &mut shape.fields()[found];
            if matches!(field.kind, Kind::Bytes | Kind::Json | Kind::Array(_)) {
                let wanted = "a code: a text, a number, or true or false";
                fields::wrong_kind(field, name, wanted).map_err(|fault| fault.key(name))?;
                continue;
            }
            field.becomes(Kind::Text);
            let words = codes.iter().filter(|(code, _)| *code != OTHERS);
            let words =
                words.map(|(code, word)| (code.trim().as_bytes().to_vec(), word.clone().into_bytes())).collect();
            let others = match codes.get(OTHERS).map(String::as_str) {
                None => Others::Fail,
                Some(AS_IT_IS) => Others::Same,
                Some(word) => Others::Word(word.as_bytes().to_vec()),
            };
            shape.act(found, Decoding { words, others });
        }
        Ok(())
    }
}

#[derive(Debug)]
struct Decoding {
    words: HashMap<Vec<u8>, Vec<u8>>,
    others: Others,
}

#[derive(Debug)]
enum Others {
    Fail,
    Same,
    Word(Vec<u8>),
}

impl Action for Decoding {
    fn apply(&self, value: &[u8], out: &mut Vec<u8>) -> Result<Outcome, Cow<'static, str>> {
        let word = match (self.words.get(trimmed(value)), &self.others) {
            (Some(word), _) | (None, Others::Word(word)) => word,
            (None, Others::Same) => return Ok(Outcome::Same),
            (None, Others::Fail) => return Err("the code is not in the list".into()),
        };
        out.extend_from_slice(word);
        Ok(Outcome::Made)
    }
}
