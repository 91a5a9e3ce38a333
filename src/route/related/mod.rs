//! Rows of other tables in a route's events: the lines of an invoice, the name behind a customer's number.
//!
//! A stage before the steps. Changes of the route's table, and of tables whose rows belong to its rows, become changes of a wider
//! table, whose added columns hold those rows as JSON; steps and formats then work on it as on any other. What the batch does not
//! hold is looked up in the source, as it is then.

mod fit;
mod group;
mod part;
#[cfg(test)]
mod tests;
mod whole;

use std::collections::BTreeMap;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::Deserialize;
use towpath_contract::{Batch, Column, Found, Kind, Lookup, Op, TableSchema, Value};

use super::plan::{OnError, Place, Route, Unfit};
use super::transform::{Fault, StepConfig};
pub(super) use fit::{fit, needing_old_rows};
use group::{Group, Header, Told};
use part::Part;
pub(super) use whole::Transactions;

/// Rows of another table, and how they belong to the rows here.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Related {
    /// The other table, `schema.table`, of the same source.
    pub from: String,

    /// Which of its rows: by the name of each column there, the column here that it equals: `{ invoice_id: invoice_id }`.
    pub on: BTreeMap<String, String>,

    /// What is done to each of its rows, as in a route's `transform`; steps that choose events have no place here, but `filter`, which
    /// leaves rows out.
    #[serde(default)]
    pub transform: Vec<StepConfig>,

    /// Of an `aggregate`: no such row is there before the row that it belongs to, because a foreign key holds it. What one transaction
    /// says of a new row and of what belongs to it is then all, and is not looked up. Default `false`: it is always looked up.
    #[serde(default)]
    pub owned: bool,

    /// Of a `lookup`: what becomes of an event whose row points to none. `null` (default): the column is null. `park`: the event is
    /// set aside. Where the row itself has null there is nothing to look up.
    #[serde(default)]
    pub missing: Missing,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Missing {
    #[default]
    Null,
    Park,
}

impl Related {
    /// Schema and name. A table's name may hold dots.
    pub(super) fn table(&self) -> (&str, &str) {
        self.from.split_once('.').unwrap_or(("", &self.from))
    }
}

/// What a route says of related rows, by the names of the columns that they become.
#[derive(Clone, Debug, Default)]
pub struct Relations {
    /// Lists of rows that belong to one row here: a change of them is a change of it.
    pub aggregate: BTreeMap<String, Related>,
    /// One row each, to which rows here point.
    pub lookup: BTreeMap<String, Related>,
}

impl Relations {
    pub fn is_empty(&self) -> bool {
        self.aggregate.is_empty() && self.lookup.is_empty()
    }

    /// The key of the config under which the column is made.
    pub(crate) fn all(&self) -> impl Iterator<Item = (&'static str, &String, &Related)> {
        let aggregate = self.aggregate.iter().map(|(name, related)| (AGGREGATE, name, related));
        aggregate.chain(self.lookup.iter().map(|(name, related)| (LOOKUP, name, related)))
    }
}

pub(super) const AGGREGATE: &str = "aggregate";
pub(super) const LOOKUP: &str = "lookup";

/// The column that names what was looked up, after the transaction, of what an aggregate holds.
pub(super) const REREAD: &str = "reread";
/// The row itself, in that list.
const THE_ROW: &str = "row";

/// Of JSON.
const NULL: &[u8] = b"null";

/// Keys that are asked for at a time: a statement of some kilobytes.
const KEYS_MAX: usize = 500;

/// One route's related rows, batch by batch.
pub(super) struct Gathering {
    pub(super) route: Route,
    parts: Vec<Part>,
    groups: Vec<Group>,
    stage: Stage,
    /// The route's table as the source has it, and with the added columns.
    wider: Option<(Arc<TableSchema>, Arc<TableSchema>)>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Rows,
    Lookups,
    Done,
}

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

/// Changes of the wider table, and of each why its event cannot go out.
pub(super) struct Gathered {
    pub(super) batch: Batch,
    pub(super) refusals: Vec<Option<String>>,
}

impl Gathering {
    pub(super) fn new(route: &Route) -> Gathering {
        let parts = route.relations.all().map(|(key, name, related)| Part::new(key, name, related)).collect();
        Gathering { route: route.clone(), parts, groups: Vec::new(), stage: Stage::Done, wider: None }
    }

    /// `is_whole`: all of a transaction's changes are in the batch. What a row that is new in one needs is in it, if all that belongs
    /// to the row is new too.
    pub(super) fn begin(&mut self, batch: &Batch, is_whole: &dyn Fn(usize) -> bool) -> Result<(), Unfit> {
        self.groups = group::groups(&self.route, &self.parts, batch);
        self.stage = Stage::Rows;
        for group in &mut self.groups {
            let may_have_row = group.may_have_row(batch);
            let is_whole = group.is_new(batch) && is_whole(group.transaction);
            if matches!(group.header, Header::Unknown) {
                group.reread.push(THE_ROW.into());
            }
            for (nth, part) in self.parts.iter_mut().enumerate().filter(|(_, part)| part.is_many) {
                let changes = group.changes[nth].iter().map(|index| batch.at(*index));
                let are_new = changes.clone().all(|change| change.op() == Op::Insert && change.linked().is_none());
                if part.is_owned && is_whole && are_new {
                    if let Some(change) = changes.clone().next() {
                        part.settle(change.table()).map_err(|(step, fault)| unfit(&self.route, part, step, fault))?;
                        group.parts[nth] = part.write(changes).into();
                    } else {
                        group.parts[nth] = Told::Json(b"[]".to_vec());
                    }
                } else if may_have_row {
                    group.reread.push(part.name.clone());
                }
            }
        }
        Ok(())
    }

    /// What the groups still need. None any more after the second call that says so.
    pub(super) fn wanted(&mut self, batch: &Batch, gathering: usize) -> Vec<Wanted> {
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
    pub(super) fn found(&mut self, wanted: &Wanted, first: usize, found: Found) -> Result<(), Unfit> {
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

    /// All that was wanted has been looked up.
    pub(super) fn finish(&mut self, batch: &Batch) -> Result<Gathered, Unfit> {
        let mut gathered = Gathered { batch: Batch::new(), refusals: Vec::new() };
        let mut transaction = None;
        for mut group in std::mem::take(&mut self.groups) {
            let last = batch.at(group.last);
            let (wider, op) = match (group.table_and_op(batch), &self.wider) {
                (Some((table, op)), _) => (self.wider(&table)?, op),
                (None, Some((_, wider))) if matches!(group.header, Header::Nowhere) => (wider.clone(), Op::Update),
                (None, _) => continue,
            };
            if transaction.replace(last.transaction_index()) != Some(last.transaction_index()) {
                gathered.batch.begin_transaction(last.transaction().clone());
            }
            let is_there = op != Op::Delete;
            let (added, mut refusal) = if is_there { self.added(&mut group)? } else { (Vec::new(), None) };
            refusal = group.refusal.clone().or(refusal);
            let added = added.iter().map(|json| match json {
                Some(json) if json == NULL => Value::Null,
                Some(json) => Value::Data(json),
                None => Value::Unavailable,
            });
            let reread = group.reread.iter().map(|name| format!("{name:?}")).collect::<Vec<_>>().join(",");
            let reread = format!("[{reread}]");
            let has_many = self.parts.iter().any(|part| part.is_many);
            let label = has_many.then_some(if reread == "[]" { Value::Null } else { Value::Data(reread.as_bytes()) });
            let unknown = || std::iter::repeat_n(Value::Unavailable, self.parts.len() + usize::from(has_many));
            let row = group.row(batch).map(|(_, row)| row);
            let position = last.position();
            let mut change = gathered.batch.change(op, &wider, position);
            if let Some(before) = group.before(batch) {
                change = change.before(before.into_iter().chain(unknown()));
            }
            if let Some(row) = row.filter(|_| is_there) {
                change = change.after(row.into_iter().chain(added).chain(label));
            }
            if let Some(linked) = group.linked(batch) {
                change.linked(linked.into_iter().chain(unknown()));
            }
            gathered.refusals.push(refusal);
        }
        Ok(gathered)
    }

    /// The columns that the parts become, and why the event cannot go out. `None`: not known.
    fn added(&self, group: &mut Group) -> Result<(Vec<Option<Vec<u8>>>, Option<String>), Unfit> {
        let mut refusal = None;
        let mut added = Vec::with_capacity(self.parts.len());
        for (part, told) in self.parts.iter().zip(&mut group.parts) {
            let told = std::mem::take(told);
            if let (OnError::Stop, Told::Failed(why)) = (self.route.on_error, &told) {
                let help = "let its `transform` take such rows, or set `on_error: park` for this route";
                return Err(unfit(&self.route, part, None, Fault::new(why.clone()).help(help)));
            }
            let why = match &told {
                Told::Failed(why) => Some(why.as_str()),
                Told::Asked if part.missing == Missing::Park => Some("there is no such row"),
                _ => None,
            };
            if let Some(why) = why {
                refusal.get_or_insert(format!("{} `{}`: {why}", part.key, part.name));
            }
            added.push(match told {
                Told::Json(json) => Some(json),
                Told::Nothing | Told::Asked => Some(if part.is_many { b"[]".to_vec() } else { NULL.to_vec() }),
                Told::Failed(_) | Told::NotSent => None,
            });
        }
        Ok((added, refusal))
    }

    fn wider(&mut self, table: &Arc<TableSchema>) -> Result<Arc<TableSchema>, Unfit> {
        if let Some((known, wider)) = &self.wider
            && (Arc::ptr_eq(known, table) || known == table)
        {
            return Ok(wider.clone());
        }
        let wider = Arc::new(fit::wider(&self.route, table)?);
        self.wider = Some((table.clone(), wider.clone()));
        Ok(wider)
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

impl Wanted {
    pub(super) fn gathering(&self) -> usize {
        self.gathering
    }
}

fn unfit(route: &Route, part: &Part, step: Option<usize>, fault: Fault) -> Unfit {
    let place = Place::Related { key: part.key, name: part.name.clone(), step };
    Unfit { route: route.name.clone(), place, fault }
}

/// A column that related rows become.
fn column(name: &str, kind: Kind, type_name: String) -> Column {
    Column { name: name.to_owned(), kind, type_name, key: false }
}
