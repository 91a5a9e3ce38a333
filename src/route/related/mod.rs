//! Rows of other tables in a route's events: the lines of an invoice, the name behind a customer's number.
//!
//! A stage before the steps. Changes of the route's table, and of tables whose rows belong to its rows, become changes of a wider
//! table, whose added columns hold those rows as JSON; steps and formats then work on it as on any other. What the batch does not
//! hold is looked up in the source, as it is then.

mod config;
mod fit;
mod group;
mod part;
#[cfg(test)]
mod tests;
mod wanted;
mod whole;

use std::sync::Arc;

use towpath_contract::{Batch, Column, Kind, Op, TableSchema, Value};

use super::plan::{OnError, Place, Route, Unfit};
use super::transform::Fault;
pub use config::{Missing, Related, Relations};
pub(super) use fit::{fit, needing_old_rows};
use group::{Group, Header, Told};
use part::Part;
pub(crate) use wanted::Wanted;
pub(super) use whole::Transactions;

pub(super) const AGGREGATE: &str = "aggregate";
pub(super) const LOOKUP: &str = "lookup";

/// The column that names what was looked up, after the transaction, of what an aggregate holds.
pub(super) const REREAD: &str = "reread";
/// The row itself, in that list.
const THE_ROW: &str = "row";

/// Of JSON.
const NULL: &[u8] = b"null";

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

/// Changes of the wider table, and of each why its event cannot go out.
pub(super) struct Gathered {
    pub(super) batch: Batch,
    pub(super) refusals: Vec<Option<String>>,
}

/// The columns that the parts of one row become.
#[derive(Default)]
struct Added {
    /// As JSON; `None` for what is not known.
    columns: Vec<Option<Vec<u8>>>,
    /// Why the event cannot go out.
    refusal: Option<String>,
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
            let added = if is_there { self.added(&mut group)? } else { Added::default() };
            let refusal = group.refusal.clone().or(added.refusal);
            let added = added.columns.iter().map(|json| match json {
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

    /// What the parts become.
    fn added(&self, group: &mut Group) -> Result<Added, Unfit> {
        let mut added = Added::default();
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
                added.refusal.get_or_insert(format!("{} `{}`: {why}", part.key, part.name));
            }
            added.columns.push(match told {
                Told::Json(json) => Some(json),
                Told::Nothing | Told::Asked => Some(if part.is_many { b"[]".to_vec() } else { NULL.to_vec() }),
                Told::Failed(_) | Told::NotSent => None,
            });
        }
        Ok(added)
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

fn unfit(route: &Route, part: &Part, step: Option<usize>, fault: Fault) -> Unfit {
    let place = Place::Related { key: part.key, name: part.name.clone(), step };
    Unfit { route: route.name.clone(), place, fault }
}

/// A column that related rows become.
fn column(name: &str, kind: Kind, type_name: String) -> Column {
    Column { name: name.to_owned(), kind, type_name, key: false }
}
