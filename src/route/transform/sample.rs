//! `sample`

use schemars::JsonSchema;
use serde::Deserialize;
use towpath_contract::Value;

use super::Step;
use super::run::{Choice, Chosen, Reason};
use super::shape::{Fault, Shape};
use crate::route::expression::Input;
use crate::route::hash::fnv1a;

/// Makes events of a share of the rows: `sample: 0.01`, about one in a hundred. Which ones is settled by their keys: of a row that is
/// among them every change becomes an event, of another none, whenever and wherever it is asked. A truncate passes, for it concerns all
/// rows.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
pub struct Sample(String);

impl Sample {
    fn share(&self) -> Option<f64> {
        self.0.trim().parse().ok().filter(|share| *share > 0.0 && *share <= 1.0)
    }
}

const HELP: &str = "a number above 0, up to 1: `0.01` is one in a hundred";

impl Step for Sample {
    fn faults(&self) -> Vec<Fault> {
        match self.share() {
            Some(_) => Vec::new(),
            None => vec![Fault::new("this is no share of the rows").help(HELP)],
        }
    }

    fn compile(&self, shape: &mut Shape) -> Result<(), Fault> {
        let keys: Vec<usize> = shape.key_columns();
        if keys.is_empty() {
            return Err(Fault::new("the table has no key by which its rows could be told apart")
                .help("`filter` takes some of them by their values"));
        }
        let below = (self.share().unwrap_or(1.0) * 2f64.powi(64)) as u128;
        shape.choose(Sampling { keys, below });
        Ok(())
    }
}

#[derive(Debug)]
struct Sampling {
    keys: Vec<usize>,
    /// Of 2^64.
    below: u128,
}

impl Choice for Sampling {
    fn choose(&self, input: &Input<'_>, chosen: &mut Chosen) -> Result<(), Reason> {
        let Some(row) = input.row else { return Ok(()) };
        chosen.dropped = u128::from(hash(self.keys.iter().map(|slot| row.row.value(*slot)))) >= self.below;
        Ok(())
    }

    fn needs_old_row(&self, _: &dyn Fn(usize) -> bool) -> bool {
        false
    }
}

fn hash<'v>(key: impl Iterator<Item = Value<'v>>) -> u64 {
    let bytes = |value: Value<'v>| if let Value::Data(bytes) = value { bytes } else { &[] };
    // No text has that byte: ("ab", "c") is not ("a", "bc").
    spread(fnv1a(key.flat_map(|value| bytes(value).iter().copied().chain([0xff]))))
}

/// FNV leaves the high bits of short keys alike; this is the finalizer of MurmurHash3.
fn spread(hash: u64) -> u64 {
    let hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    let hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_about_that_share() {
        for share in [0.01, 0.5] {
            let below = (share * 2f64.powi(64)) as u128;
            let hash = |n: u32| hash([Value::Data(n.to_string().as_bytes())].into_iter());
            let taken = (0..100_000).filter(|n| u128::from(hash(*n)) < below).count() as f64 / 100_000.0;
            assert!((taken - share).abs() < share / 10.0, "{taken} of {share}");
        }
    }
}
