//! `flatten`

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::value::RawValue;
use towpath_contract::{Kind, Value};

use super::cast::{CastType, Casting};
use super::run::{Action, Maker, Outcome, Reason, View};
use super::shape::{Fault, Field, Shape};
use super::{Step, fields};

/// Members of a JSON object become columns: `flatten: { address: { street: text, zip: text } }`. The column of the object goes, and its
/// members that are named stand in its place, by their types, which are those of [`cast`](#cast). A member that is not there is null;
/// the text of a string, or of a number, becomes the value.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
pub struct Flatten(BTreeMap<String, BTreeMap<String, CastType>>);

impl Step for Flatten {
    fn faults(&self) -> Vec<Fault> {
        let empty = self.0.iter().filter(|(_, members)| members.is_empty());
        let empty = empty.map(|(name, _)| Fault::new("no member is named").help("`{ street: text }`").key(name));
        fields::faults_of_map(self.0.len()).into_iter().chain(empty).collect()
    }

    fn compile(&self, shape: &mut Shape) -> Result<(), Fault> {
        for (name, members) in &self.0 {
            let Some(at) = shape.find(name).map_err(|fault| fault.key(name))? else { continue };
            let object = shape.fields()[at].clone();
            if object.kind != Kind::Json {
                fields::wrong_kind(&object, name, "JSON").map_err(|fault| fault.key(name))?;
                continue;
            }
            if object.key {
                return Err(Fault::new(format!("`{name}` is part of the key, which stays as it is")).key(name));
            }
            shape.fields().remove(at);
            for (nth, (member, of)) in members.iter().enumerate() {
                if shape.fields().iter().any(|field| field.name == *member) {
                    let help = "rename it first";
                    return Err(Fault::new("there is a column of this name").help(help).key(member).key(name));
                }
                let slot = shape.new_slot();
                let kind = of.kind();
                let mut field =
                    Field { name: member.clone(), kind: kind.clone(), type_name: String::new(), key: false, slot };
                field.becomes(kind);
                shape.fields().insert(at + nth, field);
                shape.make(
                    member,
                    slot,
                    vec![object.slot],
                    Taking { object: object.slot, member: member.clone(), of: of.of_text() },
                );
            }
        }
        Ok(())
    }
}

/// One member of an object.
#[derive(Debug)]
struct Taking {
    object: usize,
    member: String,
    /// `None`: its text.
    of: Option<Casting>,
}

impl Maker for Taking {
    fn make(&self, row: View<'_>, out: &mut Vec<u8>) -> Result<Outcome, Reason> {
        let object = match row.value(self.object) {
            Value::Unavailable => return Ok(Outcome::Unavailable),
            Value::Null => return Ok(Outcome::Null),
            Value::Data(object) => object,
        };
        let members: Option<HashMap<Cow<'_, str>, &RawValue>> =
            serde_json::from_slice(object).map_err(|_| Reason::from("the value is no object"))?;
        // JSON has a null of its own.
        let Some(members) = members else { return Ok(Outcome::Null) };
        let raw = match members.get(self.member.as_str()).map(|raw| raw.get()) {
            None | Some("null") => return Ok(Outcome::Null),
            Some(raw) => raw,
        };
        if matches!(self.of, Some(Casting::Json)) {
            out.extend_from_slice(raw.as_bytes());
            return Ok(Outcome::Made);
        }
        let text: Cow<'_, str> = match raw.starts_with('"') {
            true => serde_json::from_str(raw).map_err(|_| Reason::from("the text is not well-formed"))?,
            false => raw.into(),
        };
        match &self.of {
            Some(casting) => casting.apply(text.as_bytes(), out),
            None => {
                out.extend_from_slice(text.as_bytes());
                Ok(Outcome::Made)
            }
        }
    }
}
