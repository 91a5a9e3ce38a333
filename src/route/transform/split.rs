//! `split`

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use super::Step;
use super::run::{Choice, Chosen, Reason};
use super::shape::{Fault, Field, Shape, Variant};
use crate::route::expression::{Expression, Input, Program};

/// Makes several events of one row, each of a part of its columns: `split: [{ type: address.changed, select: [street, city], when:
/// "changed('street') || changed('city')" }, { type: phone.changed, select: [phone] }]`. A part has the key's columns and those that it
/// selects, all of them where it selects none, and columns of its own by [expressions](#expressions) (`set: { period: "'01'" }`). One
/// with `when` is an event where that is true. A row of which no part is an event makes none. The last step of a route; a change's events go out in the
/// order of the parts, each with an id of its own.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
pub struct Split(Vec<Part>);

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Part {
    /// True for the changes of which the part is an event. Default: all.
    #[serde(default)]
    when: Option<Expression>,
    /// Its columns beside those of the key. Default: all.
    #[serde(default)]
    select: Vec<String>,
    /// Columns that it has besides, by expressions.
    #[serde(default)]
    set: BTreeMap<String, Expression>,
    /// The event's type, a template. Default: the route's.
    #[serde(default, rename = "type")]
    event_type: Option<String>,
    /// The exchange, a template. Default: the route's.
    #[serde(default)]
    exchange: Option<String>,
    /// The routing key, a template. Default: the route's.
    #[serde(default)]
    routing_key: Option<String>,
}

/// The later events of a change are counted in a byte.
const PARTS_MAX: usize = 255;

impl Part {
    fn variant(&self) -> Variant {
        let Part { event_type, exchange, routing_key, .. } = self.clone();
        Variant { event_type, exchange, routing_key }
    }
}

impl Step for Split {
    fn faults(&self) -> Vec<Fault> {
        if self.0.is_empty() || self.0.len() > PARTS_MAX {
            let message = format!("{} parts: a row is split into 1 to {PARTS_MAX}", self.0.len());
            return vec![Fault::new(message).help("`[{ type: phone.changed, select: [phone] }]`")];
        }
        let faults = self.0.iter().enumerate().flat_map(|(index, part)| {
            let when = part.when.as_ref().and_then(Expression::condition_fault).map(|fault| fault.key("when"));
            let selected = match part.select.is_empty() {
                true => Vec::new(),
                false => super::fields::faults(&part.select),
            };
            let selected = selected.into_iter().map(|fault| fault.key("select"));
            let set = part.set.iter().filter_map(|(name, of)| Some(of.fault()?.key(name).key("set")));
            when.into_iter().chain(selected).chain(set).map(move |fault| fault.index(index)).collect::<Vec<_>>()
        });
        faults.collect()
    }

    fn compile(&self, shape: &mut Shape) -> Result<(), Fault> {
        let mut parts = Vec::with_capacity(self.0.len());
        for (index, part) in self.0.iter().enumerate() {
            let at = |fault: Fault, key: &str| fault.key(key).index(index);
            let when = match &part.when {
                None => None,
                Some(when) => match shape.condition(when).map_err(|fault| at(fault, "when"))? {
                    Some(when) => Some(when),
                    // It looks at a column that this table need not have.
                    None => continue,
                },
            };
            let mut fields = selected(part, shape).map_err(|fault| at(fault, "select"))?;
            for (name, expression) in &part.set {
                let place = |fault: Fault| at(fault.key(name), "set");
                if fields.iter().any(|field| field.name == *name) {
                    return Err(place(Fault::new("the part has a column of this name").help("give it another")));
                }
                let Some(program) = shape.expression(expression).map_err(place)? else { continue };
                let slot = shape.new_slot();
                let kind = program.of.kind();
                let mut field =
                    Field { name: name.clone(), kind: kind.clone(), type_name: String::new(), key: false, slot };
                field.becomes(kind);
                fields.push(field);
                shape.set(name, slot, program);
            }
            parts.push((when, shape.part(part.variant(), fields)));
        }
        shape.choose(Splitting { parts });
        Ok(())
    }

    fn variants(&self) -> Vec<(Vec<super::At>, Variant)> {
        let variant = |(index, part): (usize, &Part)| (vec![super::At::Index(index)], part.variant());
        self.0.iter().enumerate().map(variant).collect()
    }
}

/// The key's columns and those that the part names, in the order of the table.
fn selected(part: &Part, shape: &mut Shape) -> Result<Vec<Field>, Fault> {
    if part.select.is_empty() {
        return Ok(shape.fields().clone());
    }
    let mut wanted = Vec::new();
    for (index, name) in part.select.iter().enumerate() {
        wanted.extend(shape.find_all(name).map_err(|fault| fault.index(index))?);
    }
    let fields = shape.fields().iter().enumerate();
    Ok(fields.filter(|(index, field)| field.key || wanted.contains(index)).map(|(_, field)| field.clone()).collect())
}

#[derive(Debug)]
struct Splitting {
    parts: Vec<(Option<Program>, usize)>,
}

impl Choice for Splitting {
    fn choose(&self, input: &Input<'_>, chosen: &mut Chosen) -> Result<(), Reason> {
        chosen.variants.clear();
        for (when, variant) in &self.parts {
            // A truncate concerns every part.
            let holds = match when.as_ref().filter(|_| input.row.is_some()) {
                None => Some(true),
                Some(when) => when.holds(input)?,
            };
            match holds {
                Some(true) => chosen.variants.push(*variant),
                Some(false) => {}
                None => {
                    chosen.variants.clear();
                    return Err("it needs a value that the source did not send".into());
                }
            }
        }
        chosen.dropped = chosen.variants.is_empty();
        Ok(())
    }

    fn needs_old_row(&self, sent: &dyn Fn(usize) -> bool) -> bool {
        self.parts
            .iter()
            .filter_map(|(when, _)| when.as_ref())
            .any(|when| when.looks_back() || when.looks_at_deleted(sent))
    }
}
