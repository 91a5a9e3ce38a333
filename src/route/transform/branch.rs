//! `branch`

use schemars::JsonSchema;
use serde::Deserialize;

use super::Step;
use super::run::{Choice, Chosen, Reason};
use super::shape::{Fault, Shape, Variant};
use crate::route::expression::{Expression, Input, Program};

/// Sends changes different ways: `branch: [{ when: "amount > 10000", routing_key: orders.large }]`. The first whose
/// [expression](#expressions) is true decides; where none is, the event is the route's own.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
pub struct Branch(Vec<Way>);

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Way {
    /// True for the changes that go this way.
    when: Expression,
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

impl Step for Branch {
    fn faults(&self) -> Vec<Fault> {
        if self.0.is_empty() {
            return vec![
                Fault::new("there is no branch").help("`[{ when: \"amount > 10000\", routing_key: orders.large }]`"),
            ];
        }
        let faults = self.0.iter().enumerate().filter_map(|(index, way)| {
            if let Some(fault) = way.when.condition_fault() {
                return Some(fault.key("when").index(index));
            }
            let same = way.event_type.is_none() && way.exchange.is_none() && way.routing_key.is_none();
            let help = "give it a `type`, an `exchange` or a `routing_key`";
            same.then(|| Fault::new("events that go this way are no different").help(help).index(index))
        });
        faults.collect()
    }

    fn compile(&self, shape: &mut Shape) -> Result<(), Fault> {
        let mut ways = Vec::with_capacity(self.0.len());
        for (index, way) in self.0.iter().enumerate() {
            let when = shape.condition(&way.when).map_err(|fault| fault.key("when").index(index))?;
            let Some(when) = when else { continue };
            let Way { event_type, exchange, routing_key, .. } = way.clone();
            ways.push((when, shape.variant(Variant { event_type, exchange, routing_key })));
        }
        shape.choose(Branching { ways });
        Ok(())
    }

    fn variants(&self) -> Vec<(Vec<super::At>, Variant)> {
        let variant = |(index, way): (usize, &Way)| {
            let Way { event_type, exchange, routing_key, .. } = way.clone();
            (vec![super::At::Index(index)], Variant { event_type, exchange, routing_key })
        };
        self.0.iter().enumerate().map(variant).collect()
    }
}

#[derive(Debug)]
struct Branching {
    ways: Vec<(Program, usize)>,
}

impl Choice for Branching {
    fn choose(&self, input: &Input<'_>, chosen: &mut Chosen) -> Result<(), Reason> {
        if input.row.is_none() {
            return Ok(());
        }
        for (when, variant) in &self.ways {
            match when.holds(input)? {
                Some(true) => {
                    chosen.variants.clear();
                    chosen.variants.push(*variant);
                    return Ok(());
                }
                Some(false) => {}
                None => return Err("it needs a value that the source did not send".into()),
            }
        }
        Ok(())
    }

    fn needs_old_row(&self, sent: &dyn Fn(usize) -> bool) -> bool {
        self.ways.iter().any(|(when, _)| when.looks_back() || when.looks_at_deleted(sent))
    }
}
