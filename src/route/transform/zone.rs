//! `zone`

use std::collections::BTreeMap;
use std::io::Write as _;

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use schemars::JsonSchema;
use serde::Deserialize;
use towpath_contract::Kind;

use super::run::{Action, Outcome, Reason};
use super::shape::{Fault, Shape};
use super::{Step, fields};

/// Timestamps that a legacy system wrote by the clock on its wall become moments: `zone: { created: Europe/Berlin }`, or with options
/// `zone: { created: { zone: Europe/Berlin, dst: earlier } }`. They go out in UTC. A zone is one of the IANA's names; their rules are
/// built in.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
pub struct Zone(BTreeMap<String, Way>);

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
enum Way {
    Name(String),
    Options(Options),
}

/// Whose clock it was.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Options {
    /// A name such as `Europe/Berlin`.
    zone: String,
    /// What a time is that the clock showed twice, or never, when it was set back or forward: a failure (`fail`, the default), or the
    /// `earlier` or the `later` of the two moments that it can mean.
    #[serde(default)]
    dst: Dst,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Dst {
    /// A failure: nobody can tell.
    #[default]
    Fail,
    /// The earlier of the two moments that it can mean.
    Earlier,
    /// The later of the two.
    Later,
}

impl Way {
    fn options(&self) -> Options {
        match self {
            Way::Name(zone) => Options { zone: zone.clone(), dst: Dst::default() },
            Way::Options(options) => options.clone(),
        }
    }

    fn zone(&self) -> Result<TimeZone, Fault> {
        TimeZone::get(&self.options().zone).map_err(|_| {
            Fault::new("there is no such zone").help("a name of the IANA's: `Europe/Berlin`, `America/New_York`, `UTC`")
        })
    }
}

impl Step for Zone {
    fn faults(&self) -> Vec<Fault> {
        let unknown = self.0.iter().filter_map(|(name, way)| way.zone().err().map(|fault| fault.key(name)));
        fields::faults_of_map(self.0.len()).into_iter().chain(unknown).collect()
    }

    fn compile(&self, shape: &mut Shape) -> Result<(), Fault> {
        for (name, way) in &self.0 {
            let Some(found) = shape.find(name).map_err(|fault| fault.key(name))? else { continue };
            let field = &mut shape.fields()[found];
            if field.kind != Kind::Timestamp {
                fields::wrong_kind(field, name, "a timestamp without a zone").map_err(|fault| fault.key(name))?;
                continue;
            }
            field.becomes(Kind::TimestampTz);
            let zone = way.zone().map_err(|fault| fault.key(name))?;
            shape.act(found, Zoning { zone, dst: way.options().dst });
        }
        Ok(())
    }
}

#[derive(Debug)]
struct Zoning {
    zone: TimeZone,
    dst: Dst,
}

impl Action for Zoning {
    fn apply(&self, value: &[u8], out: &mut Vec<u8>) -> Result<Outcome, Reason> {
        let text = std::str::from_utf8(value).unwrap_or_default();
        let Ok(local) = text.parse::<DateTime>() else { return Err("the value is no time of a day".into()) };
        let moment = self.zone.to_ambiguous_timestamp(local);
        let moment = match self.dst {
            Dst::Fail if moment.is_ambiguous() => {
                return Err("the clock showed this time twice or never; `dst` says which it is".into());
            }
            Dst::Fail | Dst::Earlier => moment.earlier(),
            Dst::Later => moment.later(),
        };
        let moment = moment.map_err(|_| Reason::from("the value is beyond the years that have zones"))?;
        // As many digits of a second as there were.
        let digits = text.split_once('.').map_or(0, |(_, fraction)| fraction.len()).min(9);
        write!(out, "{moment:.digits$}").map_err(|_| Reason::from("the value is beyond what can be written"))?;
        Ok(Outcome::Made)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn moment(zone: &str, dst: Dst, value: &str) -> Result<String, Reason> {
        let mut out = Vec::new();
        let zone = TimeZone::get(zone).expect("a zone");
        Zoning { zone, dst }.apply(value.as_bytes(), &mut out).map(|_| String::from_utf8(out).expect("text"))
    }

    #[test]
    fn a_wall_clocks_time_becomes_a_moment() {
        for (zone, dst, value, expected) in [
            ("Europe/Berlin", Dst::Fail, "2024-07-01T12:00:00", "2024-07-01T10:00:00Z"),
            ("Europe/Berlin", Dst::Fail, "2024-01-01T00:00:00.000001", "2023-12-31T23:00:00.000001Z"),
            ("UTC", Dst::Fail, "2024-01-01T00:00:00.50", "2024-01-01T00:00:00.50Z"),
            ("Europe/Berlin", Dst::Earlier, "2024-10-27T02:30:00", "2024-10-27T00:30:00Z"),
            ("Europe/Berlin", Dst::Later, "2024-10-27T02:30:00", "2024-10-27T01:30:00Z"),
            ("Europe/Berlin", Dst::Earlier, "2024-03-31T02:30:00", "2024-03-31T00:30:00Z"),
            ("Europe/Berlin", Dst::Later, "2024-03-31T02:30:00", "2024-03-31T01:30:00Z"),
        ] {
            assert_eq!(moment(zone, dst, value).as_deref(), Ok(expected), "{zone} {dst:?} {value}");
        }
        for value in ["2024-10-27T02:30:00", "2024-03-31T02:30:00", "infinity", "0044-03-15T00:00:00 BC", ""] {
            assert!(moment("Europe/Berlin", Dst::Fail, value).is_err(), "{value}");
        }
    }

    proptest! {
        #[test]
        fn in_utc_a_time_stays_what_it_was(seconds in -60_000_000_000i64..200_000_000_000, micros in 0u32..1_000_000) {
            let local = TimeZone::UTC.to_datetime(jiff::Timestamp::new(seconds, 0).unwrap());
            let text = format!("{local}.{micros:06}");
            prop_assert_eq!(moment("UTC", Dst::Fail, &text), Ok(format!("{text}Z")));
        }
    }
}
