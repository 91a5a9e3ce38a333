//! From changes to events: which routes take a change, and the bytes that go on the wire.
//!
//! Knows neither the outbox nor the broker connection. Everything that depends only on table and route is settled in
//! [`plan`]; an event then costs copies into the batch.

mod bundle;
#[cfg(test)]
mod choice_tests;
mod debezium;
mod event;
mod expression;
mod foreign;
mod form;
pub mod format;
#[cfg(test)]
mod format_tests;
mod hash;
mod json;
pub mod matching;
pub mod plan;
mod preview;
mod properties;
pub mod related;
mod row_event;
#[cfg(test)]
mod row_event_tests;
mod rows;
pub mod template;
pub mod transform;
#[cfg(test)]
mod transform_tests;

use std::sync::Arc;

use event::Scratch;
pub use plan::{Place, Unfit};
use plan::{Route, TablePlan};
pub use preview::{Previewed, Stage, preview};
pub use properties::{Property, is_reserved_header};
pub(crate) use related::Wanted;
use related::{Gathered, Gathering, Transactions};
use towpath_contract::{Batch, Found, Lookup, TableSchema};
use transform::Fault;

use crate::event::EventBatch;

#[cfg(any(test, fuzzing))]
pub(crate) use self::expression::compile_expression;
#[cfg(any(test, fuzzing))]
pub(crate) use self::json::write_every_form;
#[cfg(any(test, fuzzing))]
pub(crate) use self::template::{Goes, Names, render};

/// Turns one source's changes into events. One per source, owned by its task.
pub struct Router {
    source: String,
    routes: Vec<Route>,
    /// Of routes with related rows.
    gatherings: Vec<Gathering>,
    /// What of them is whole, for those.
    transactions: Transactions,
    /// Plans by the address of their table's schema, which the `Arc` beside it keeps alive.
    plans: Vec<(Arc<TableSchema>, Arc<TablePlan>)>,
    scratch: Scratch,
}

/// A part of a route that looks at a table's rows as they were.
#[derive(Debug)]
pub struct Need {
    /// Schema and name.
    pub table: (String, String),
    pub route: String,
    pub place: Place,
}

/// A route of many tables names a column that none of them has: it would not be transformed, or worse, not be hidden.
fn missing_everywhere(route: &Route, tables: &[TableSchema]) -> Result<(), Unfit> {
    let mut taken = tables.iter().filter(|table| route.from.matches(&table.schema, &table.name));
    let unfit = |(step, fault)| Unfit { route: route.name.clone(), place: Place::Step(step), fault };
    let compile = |table| Ok(transform::compile(&route.steps, table, true).map_err(unfit)?.missed);
    let Some(first) = taken.next() else { return Ok(()) };
    let mut missed: Vec<(usize, String)> = compile(first)?;
    for table in taken {
        let here = compile(table)?;
        missed.retain(|name| here.contains(name));
    }
    match missed.into_iter().next() {
        Some((step, name)) if route.from.is_pattern() => {
            let fault = Fault::new(format!("no table that {} takes has a column `{name}`", route.from));
            Err(unfit((step, fault.help(format!("if some have, or had, it at other times, write `{name}?`")))))
        }
        _ => Ok(()),
    }
}

/// Plans kept; beyond it the oldest go. A table whose shape changes leaves its old plan behind.
const PLANS_MAX: usize = 1024;

impl Router {
    /// `routes` may hold routes of other sources; they are left out.
    pub fn new(source: &str, routes: &[Route]) -> Router {
        let of_source = |wanted: &dyn Fn(&Route) -> bool| {
            let wanted = |route: &&Route| route.from.source == source && wanted(route);
            routes.iter().filter(wanted).collect::<Vec<_>>().into_iter()
        };
        Router {
            source: source.to_owned(),
            routes: of_source(&|route| route.relations.is_empty()).cloned().collect(),
            gatherings: of_source(&|route| !route.relations.is_empty()).map(Gathering::new).collect(),
            transactions: Transactions::default(),
            plans: Vec::new(),
            scratch: Scratch::default(),
        }
    }

    /// Some route names columns.
    pub fn looks_into_rows(&self) -> bool {
        !self.gatherings.is_empty()
            || self.routes.iter().any(|route| !route.steps.is_empty() || route.event.looks_into_rows())
    }

    /// Whether every route's steps can be done on these tables.
    pub fn try_on(&self, tables: &[TableSchema]) -> Result<(), Unfit> {
        self.unfit(tables).into_iter().next().map_or(Ok(()), Err)
    }

    /// What of the routes does not fit these tables: of each route and table the first fault.
    pub fn unfit(&self, tables: &[TableSchema]) -> Vec<Unfit> {
        let mut found: Vec<Unfit> = Vec::new();
        for route in &self.routes {
            let alone = std::slice::from_ref(route);
            let taken = tables.iter().filter(|table| route.from.matches(&table.schema, &table.name));
            let faults = taken.filter_map(|table| TablePlan::new(&self.source, table, alone).err());
            for unfit in faults.chain(missing_everywhere(route, tables).err()) {
                if !found.contains(&unfit) {
                    found.push(unfit);
                }
            }
        }
        found.extend(self.gathering_routes().filter_map(|route| related::fit(&self.source, route, tables).err()));
        found
    }

    fn gathering_routes(&self) -> impl Iterator<Item = &Route> {
        self.gatherings.iter().map(|gathering| &gathering.route)
    }

    /// Tables of which rows are looked up that need not be captured: schema and name.
    pub fn looked_up(&self) -> Vec<Lookup> {
        let lookups = self.gathering_routes().flat_map(|route| route.relations.lookup.values());
        let tables = lookups.map(|related| related.table());
        let lookup = |(schema, table): (&str, &str)| Lookup {
            schema: schema.into(),
            table: table.into(),
            columns: Vec::new(),
            keys: Vec::new(),
        };
        tables.map(lookup).collect()
    }

    /// What of the routes cannot do without the row as it was before a change. Tables that a route does not fit are left out.
    pub fn needing_old_rows(&self, tables: &[TableSchema]) -> Vec<Need> {
        let mut needs = Vec::new();
        for table in tables {
            let Ok(plan) = TablePlan::new(&self.source, table, &self.routes) else { continue };
            let sent = |slot: usize| table.columns.get(slot).is_some_and(|column| column.key);
            for route in &plan.routes {
                let need = |place| Need {
                    table: (table.schema.clone(), table.name.clone()),
                    route: route.name.clone(),
                    place,
                };
                needs.extend(route.needing_old_rows(&sent).into_iter().map(need));
            }
        }
        needs.extend(self.gathering_routes().flat_map(|route| related::needing_old_rows(&self.source, route, tables)));
        needs
    }

    /// The source was opened: the next batch may begin within a transaction.
    pub fn opened(&mut self) {
        self.transactions.opened();
    }

    /// Looks at the batch for routes with related rows. To be called before [`Router::wanted`].
    ///
    /// # Errors
    /// As [`Router::route`].
    pub fn gather(&mut self, batch: &Batch) -> Result<(), Unfit> {
        if self.gatherings.is_empty() {
            return Ok(());
        }
        let is_whole = self.transactions.whole(batch);
        self.gatherings.iter_mut().try_for_each(|gathering| gathering.begin(batch, &is_whole))
    }

    /// What is to be looked up next for the batch; asked again after [`Router::found`], until it is nothing.
    pub(crate) fn wanted(&mut self, batch: &Batch) -> Vec<Wanted> {
        let gatherings = self.gatherings.iter_mut().enumerate();
        gatherings.flat_map(|(nth, gathering)| gathering.wanted(batch, nth)).collect()
    }

    /// What was found for the keys of `wanted` from its key `first` on.
    ///
    /// # Errors
    /// As [`Router::route`].
    pub(crate) fn found(&mut self, wanted: &Wanted, first: usize, found: Found) -> Result<(), Unfit> {
        self.gatherings[wanted.gathering()].found(wanted, first, found)
    }

    /// The rows that a route's steps would see of the batch, once all was looked up: for people who try a route.
    pub(crate) fn gathered(&mut self, batch: &Batch) -> Result<Option<Batch>, Unfit> {
        let gathered = self.gatherings.first_mut().map(|gathering| gathering.finish(batch)).transpose()?;
        Ok(gathered.map(|gathered| gathered.batch))
    }

    /// Appends the events of the batch's changes, in order. `identity` is the capture's, part of every id. `epoch` grows where
    /// positions begin anew: ids and sequences carry it before the position.
    ///
    /// # Errors
    /// A route's steps cannot be done on one of the batch's tables, or not on a row of it where the route stops then. What is in
    /// `events` is of no use.
    pub fn route(&mut self, identity: &str, epoch: u32, batch: &Batch, events: &mut EventBatch) -> Result<(), Unfit> {
        let plan = |table| plan_of(&mut self.plans, table, &self.source, &self.routes);
        let plans = batch.tables().iter().map(plan).collect::<Result<Vec<_>, Unfit>>()?;
        self.scratch.begin_batch(&self.source, identity, epoch);
        for change in batch.changes() {
            let plan = &plans[change.table_index()];
            for route in &plan.routes {
                self.scratch.write(&change, plan, route, None, events)?;
            }
        }
        for gathering in &mut self.gatherings {
            let Gathered { batch, refusals } = gathering.finish(batch)?;
            let routes = std::slice::from_ref(&gathering.route);
            self.scratch.begin_batch(&self.source, identity, epoch);
            for (change, refusal) in batch.changes().zip(refusals) {
                let plan = plan_of(&mut self.plans, change.table(), &self.source, routes)?;
                for route in &plan.routes {
                    self.scratch.write(&change, &plan, route, refusal.clone(), events)?;
                }
            }
        }
        self.scratch.end_batch(events);
        Ok(())
    }
}

/// The plan of a table, made when it is met first.
fn plan_of(
    plans: &mut Vec<(Arc<TableSchema>, Arc<TablePlan>)>,
    table: &Arc<TableSchema>,
    source: &str,
    routes: &[Route],
) -> Result<Arc<TablePlan>, Unfit> {
    if let Some((_, plan)) = plans.iter().rev().find(|(known, _)| Arc::ptr_eq(known, table)) {
        return Ok(plan.clone());
    }
    if plans.len() == PLANS_MAX {
        plans.remove(0);
    }
    let plan = Arc::new(TablePlan::new(source, table, routes)?);
    plans.push((table.clone(), plan.clone()));
    Ok(plan)
}
