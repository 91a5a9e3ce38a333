//! What is to be looked up for the groups of a batch, and what was found.

use std::sync::Arc;

use towpath_contract::{Batch, Found, Lookup, Value};

use super::group::{Group, Header, Told};
use super::{Gathering, Stage, unfit};
use crate::route::plan::Unfit;

/// Keys that are asked for at a time: a statement of some kilobytes.
const KEYS_MAX: usize = 500;

/// What is to be looked up, and for what.
pub(crate) struct Wanted {
    pub(crate) lookup: Lookup,
    gathering: usize,
    of: Of,
    /// The group of each key.
    groups: Vec<usize>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Of {
    Row,
    Part(usize),
}

impl Wanted {
    pub(in crate::route) fn gathering(&self) -> usize {
        self.gathering
    }
}

impl Gathering {
    /// What the groups still need. None any more after the second call that says so.
    pub(in crate::route) fn wanted(&mut self, batch: &Batch, gathering: usize) -> Vec<Wanted> {
        loop {
            let wanted = match self.stage {
                Stage::Rows => self.rows_wanted(batch, gathering),
                Stage::Lookups => self.lookups_wanted(batch, gathering),
                Stage::Done => return Vec::new(),
            };
            self.stage = if self.stage == Stage::Rows { Stage::Lookups } else { Stage::Done };
            if !wanted.is_empty() {
                return wanted;
            }
        }
    }

    /// The route's own rows that only a part changed, and the parts that the batch does not hold.
    fn rows_wanted(&self, batch: &Batch, gathering: usize) -> Vec<Wanted> {
        let mut wanted = Vec::new();
        let header = (self.route.from.schema.clone(), self.route.from.table.clone());
        // All parts of an aggregate are found by the same values: those of the row's key, by the names of its columns.
        let Some(first) = self.parts.iter().find(|part| part.is_many) else { return wanted };
        let names: Vec<String> = first.on.iter().map(|(_, here)| here.clone()).collect();
        let missing = self.groups.iter().enumerate().filter(|(_, group)| matches!(group.header, Header::Unknown));
        let keys: Vec<_> = missing.map(|(nth, group)| (nth, group.key.clone())).collect();
        let is_shape_wanted = self.groups.iter().any(|group| matches!(group.header, Header::Nowhere));
        if keys.is_empty() && is_shape_wanted && self.wider.is_none() {
            let (schema, table) = header;
            let lookup = Lookup { schema, table, columns: names, keys: Vec::new() };
            wanted.push(Wanted { lookup, gathering, of: Of::Row, groups: Vec::new() });
        } else {
            wanted.extend(asked(gathering, Of::Row, header, names, keys));
        }
        for (nth, part) in self.parts.iter().enumerate().filter(|(_, part)| part.is_many) {
            let is_missing = |group: &Group| group.parts[nth] == Told::Nothing && group.may_have_row(batch);
            let missing = self.groups.iter().enumerate().filter(|(_, group)| is_missing(group));
            let keys = missing.map(|(nth, group)| (nth, group.key.clone())).collect();
            wanted.extend(asked(gathering, Of::Part(nth), part.table.clone(), part.columns_there(), keys));
        }
        wanted
    }

    fn lookups_wanted(&mut self, batch: &Batch, gathering: usize) -> Vec<Wanted> {
        let mut wanted = Vec::new();
        for (nth, part) in self.parts.iter().enumerate().filter(|(_, part)| !part.is_many) {
            let mut keys = Vec::new();
            for (of, group) in self.groups.iter_mut().enumerate() {
                let Some((table, row)) = group.row(batch) else { continue };
                let value = |(_, here): &(String, String)| {
                    let column = table.columns.iter().position(|column| column.name == *here);
                    column.map_or(Value::Unavailable, |column| row[column])
                };
                let values: Vec<Value<'_>> = part.on.iter().map(value).collect();
                let key = values.iter().map(|value| match value {
                    Value::Data(bytes) => Some(bytes.to_vec()),
                    Value::Null | Value::Unavailable => None,
                });
                let told = match key.collect::<Option<Vec<_>>>() {
                    Some(key) => {
                        keys.push((of, key));
                        Told::Asked
                    }
                    None if values.contains(&Value::Unavailable) => Told::NotSent,
                    None => Told::Nothing,
                };
                group.parts[nth] = told;
            }
            wanted.extend(asked(gathering, Of::Part(nth), part.table.clone(), part.columns_there(), keys));
        }
        wanted
    }

    /// What was looked up for `wanted`, from its key `first` on.
    pub(in crate::route) fn found(&mut self, wanted: &Wanted, first: usize, found: Found) -> Result<(), Unfit> {
        match wanted.of {
            Of::Row => {
                self.wider(&found.table)?;
                let found = Arc::new(found);
                for (row, key) in found.keys.iter().enumerate() {
                    self.groups[wanted.groups[first + key]].header = Header::Found { found: found.clone(), row };
                }
                Ok(())
            }
            Of::Part(nth) => {
                let part = &mut self.parts[nth];
                part.settle(&found.table).map_err(|(step, fault)| unfit(&self.route, part, step, fault))?;
                let mut rows = found.rows.changes().zip(&found.keys).peekable();
                for key in 0..found.keys.last().map_or(0, |last| last + 1) {
                    let group = &mut self.groups[wanted.groups[first + key]];
                    let of_key = std::iter::from_fn(|| rows.next_if(|(_, of)| **of == key)).map(|(change, _)| change);
                    group.parts[nth] = part.write(of_key).into();
                }
                Ok(())
            }
        }
    }
}

fn asked(
    gathering: usize,
    of: Of,
    (schema, table): (String, String),
    columns: Vec<String>,
    keys: Vec<(usize, Vec<Vec<u8>>)>,
) -> Vec<Wanted> {
    let wanted = keys.chunks(KEYS_MAX).map(|keys| Wanted {
        lookup: Lookup {
            schema: schema.clone(),
            table: table.clone(),
            columns: columns.clone(),
            keys: keys.iter().map(|(_, key)| key.clone()).collect(),
        },
        gathering,
        of,
        groups: keys.iter().map(|(group, _)| *group).collect(),
    });
    wanted.collect()
}
