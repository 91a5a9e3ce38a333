//! Which changes of a batch become one: those of one row, and of the rows that belong to it, in one transaction.

use std::collections::HashMap;
use std::sync::Arc;

use towpath_contract::{Batch, Change, Found, Op, Row, TableSchema, Value};

use super::part::Part;
use crate::route::plan::Route;

pub(super) type Key = Vec<Vec<u8>>;

pub(super) struct Group {
    /// The values of the row's key, in the order of the parts' `on`; none where nothing is put together.
    pub(super) key: Key,
    /// Index of the last change: the event is named after it.
    pub(super) last: usize,
    pub(super) transaction: usize,
    pub(super) header: Header,
    /// Of each part the changes of its rows, by their index.
    pub(super) changes: Vec<Vec<usize>>,
    pub(super) parts: Vec<Told>,
    /// What was looked up.
    pub(super) reread: Vec<String>,
    /// Why its event cannot go out.
    pub(super) refusal: Option<String>,
}

/// What is known of a part.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Told {
    /// Nothing yet. At the end: there is no such row, and none was asked for.
    #[default]
    Nothing,
    /// It was asked for. At the end: there is no such row.
    Asked,
    /// Its rows.
    Json(Vec<u8>),
    /// Why they cannot be written.
    Failed(String),
    /// The source did not send by what to find them.
    NotSent,
}

impl From<Result<Vec<u8>, String>> for Told {
    fn from(written: Result<Vec<u8>, String>) -> Told {
        written.map_or_else(Told::Failed, Told::Json)
    }
}

/// The route's own row.
pub(super) enum Header {
    /// Only rows that belong to it were changed.
    Unknown,
    /// By the index of its changes, ascending.
    Changed(Vec<usize>),
    Found {
        found: Arc<Found>,
        row: usize,
    },
    /// It is not known which row it is, so that the event is parked.
    Nowhere,
}

struct Groups {
    groups: Vec<Group>,
    by_key: HashMap<(usize, Key), usize>,
    parts: usize,
}

/// In the order of their last changes.
pub(super) fn groups(route: &Route, parts: &[Part], batch: &Batch) -> Vec<Group> {
    let mut groups = Groups { groups: Vec::new(), by_key: HashMap::new(), parts: parts.len() };
    let first_many = parts.iter().find(|part| part.is_many);
    for (index, change) in batch.changes().enumerate() {
        let table = change.table();
        if change.op() == Op::Message {
            continue;
        }
        if route.from.matches(&table.schema, &table.name) {
            let names = first_many.map(|part| part.on.iter().map(|(_, here)| here.as_str()));
            let key = names.and_then(|names| Some(key(table, change.keyed_row()?, names)));
            match key {
                Some(Owner::Row(key)) => groups.of_key(&change, index, key).changed(index),
                // Nothing is put together, or all rows are gone.
                _ => groups.alone(&change, index, Header::Changed(vec![index]), None),
            }
        }
        for (nth, part) in parts.iter().enumerate() {
            if part.is_many && part.takes(table) {
                groups.belonging(&change, index, nth, part);
            }
        }
    }
    groups.groups.sort_by_key(|group| group.last);
    groups.groups
}

impl Groups {
    fn of_key(&mut self, change: &Change<'_>, index: usize, key: Key) -> &mut Group {
        let transaction = change.transaction_index();
        let Groups { groups, by_key, parts } = self;
        let nth = *by_key.entry((transaction, key)).or_insert_with_key(|(_, key)| {
            groups.push(Group::new(key.clone(), index, transaction, Header::Unknown, *parts));
            groups.len() - 1
        });
        groups[nth].last = index;
        &mut groups[nth]
    }

    fn alone(&mut self, change: &Change<'_>, index: usize, header: Header, refusal: Option<String>) {
        let mut group = Group::new(Vec::new(), index, change.transaction_index(), header, self.parts);
        group.refusal = refusal;
        self.groups.push(group);
    }

    /// A change of a row that belongs to one of the route's, or to another one than before.
    fn belonging(&mut self, change: &Change<'_>, index: usize, nth: usize, part: &Part) {
        let table = change.table();
        let lost = |why: &str| {
            let (schema, name) = &part.table;
            Some(format!(
                "{} `{}`: {why}; `towpath snapshot` of the route's table brings events with what {schema}.{name} holds now",
                part.key, part.name
            ))
        };
        if change.op() == Op::Truncate {
            let why = lost("the table was emptied, and which rows had something there is not known");
            return self.alone(change, index, Header::Nowhere, why);
        }
        let names = || part.on.iter().map(|(there, _)| there.as_str());
        let after = change.after().map(|row| key(table, row, names()));
        let before = change.before().map(|row| key(table, row, names()));
        if let (Some(Owner::NotSent), _) | (None, Some(Owner::NotSent)) = (&after, &before) {
            let why = lost(
                "the source sent no more than a row's key, and whose it was is not known; under REPLICA IDENTITY FULL it is",
            );
            return self.alone(change, index, Header::Nowhere, why);
        }
        let moved = before != after;
        for owner in [before.filter(|_| moved), after].into_iter().flatten() {
            if let Owner::Row(key) = owner {
                self.of_key(change, index, key).changes[nth].push(index);
            }
        }
    }
}

#[derive(PartialEq, Eq)]
enum Owner {
    Row(Key),
    /// A null belongs to nothing.
    Nobody,
    NotSent,
}

fn key<'n>(table: &TableSchema, row: Row<'_>, names: impl Iterator<Item = &'n str>) -> Owner {
    let mut key = Vec::new();
    let mut owner = None;
    for name in names {
        let column = table.columns.iter().position(|column| column.name == name);
        match column.map_or(Value::Unavailable, |column| row.value(column)) {
            Value::Data(bytes) => key.push(bytes.to_vec()),
            Value::Null => owner = owner.or(Some(Owner::Nobody)),
            Value::Unavailable => owner = Some(Owner::NotSent),
        }
    }
    owner.unwrap_or(Owner::Row(key))
}

impl Group {
    fn new(key: Key, last: usize, transaction: usize, header: Header, parts: usize) -> Group {
        Group {
            key,
            last,
            transaction,
            header,
            changes: vec![Vec::new(); parts],
            parts: vec![Told::Nothing; parts],
            reread: Vec::new(),
            refusal: None,
        }
    }

    fn changed(&mut self, index: usize) {
        match &mut self.header {
            Header::Changed(changes) => changes.push(index),
            header => *header = Header::Changed(vec![index]),
        }
    }

    /// It has a row, or may have one.
    pub(super) fn may_have_row(&self, batch: &Batch) -> bool {
        match &self.header {
            Header::Unknown | Header::Found { .. } => true,
            Header::Changed(changes) => changes.last().is_some_and(|last| batch.at(*last).after().is_some()),
            Header::Nowhere => false,
        }
    }

    /// The row was not there before this transaction.
    pub(super) fn is_new(&self, batch: &Batch) -> bool {
        let Header::Changed(changes) = &self.header else { return false };
        let first = changes.first().map(|first| batch.at(*first));
        first.is_some_and(|first| first.op() == Op::Insert && first.linked().is_none()) && self.may_have_row(batch)
    }

    /// `None`: the row is not there any more, which a later change says.
    pub(super) fn table_and_op(&self, batch: &Batch) -> Option<(Arc<TableSchema>, Op)> {
        match &self.header {
            Header::Unknown | Header::Nowhere => None,
            Header::Changed(changes) => {
                let (first, last) = (batch.at(*changes.first()?), batch.at(*changes.last()?));
                let op = if first.op() == Op::Insert && last.op() == Op::Update { Op::Insert } else { last.op() };
                Some((last.table().clone(), op))
            }
            Header::Found { found, .. } => Some((found.table.clone(), Op::Update)),
        }
    }

    /// The row as it is now. What a later change did not send, because it was not touched, an earlier one may have.
    pub(super) fn row<'b>(&'b self, batch: &'b Batch) -> Option<(&'b TableSchema, Vec<Value<'b>>)> {
        match &self.header {
            Header::Unknown | Header::Nowhere => None,
            Header::Found { found, row } => Some((&found.table, found.rows.at(*row).after()?.values().collect())),
            Header::Changed(changes) => {
                let last = batch.at(*changes.last()?);
                let mut values: Vec<Value<'_>> = last.after()?.values().collect();
                let earlier = changes.iter().rev().skip(1).map(|index| batch.at(*index));
                for earlier in earlier.take_while(|earlier| Arc::ptr_eq(earlier.table(), last.table())) {
                    let Some(row) = earlier.after() else { break };
                    for (value, old) in values.iter_mut().zip(row.values()) {
                        if *value == Value::Unavailable {
                            *value = old;
                        }
                    }
                }
                Some((last.table(), values))
            }
        }
    }

    /// The row as it was before the transaction, as far as the source sent it.
    pub(super) fn before<'b>(&self, batch: &'b Batch) -> Option<Vec<Value<'b>>> {
        let Header::Changed(changes) = &self.header else { return None };
        let (first, last) = (batch.at(*changes.first()?), batch.at(*changes.last()?));
        let told = if last.op() == Op::Delete { last } else { first };
        // One that is there anew is so whatever was deleted before it.
        let is_told = last.op() != Op::Insert && told.op() != Op::Insert && Arc::ptr_eq(told.table(), last.table());
        told.before().filter(|_| is_told).map(|row| row.values().collect())
    }

    /// See [`Change::linked`].
    pub(super) fn linked<'b>(&self, batch: &'b Batch) -> Option<Vec<Value<'b>>> {
        let Header::Changed(changes) = &self.header else { return None };
        let (first, last) = (batch.at(*changes.first()?), batch.at(*changes.last()?));
        // Of one that came under this key and was changed then, the first says from where.
        let told = if first.op() == Op::Insert && last.op() == Op::Update { first } else { last };
        let is_same = Arc::ptr_eq(told.table(), last.table());
        told.linked().filter(|_| is_same).map(|row| row.values().collect())
    }
}
