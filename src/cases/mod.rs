//! A user's own cases of the routes: a change goes in, and these events must come out. Needs no server.

mod compare;
mod read;
#[cfg(test)]
mod tests;
mod yaml;

use std::fmt;
use std::sync::Arc;

use towpath_contract::{Batch, Op, Position, TableSchema, Transaction, Value};

use crate::config::Checked;
use crate::config::checked::CheckedRoute;
use crate::event::{EventBatch, RouteId};
use crate::route::matching::RouteFrom;
use crate::route::plan::Route;
use crate::route::related::Relations;
use crate::route::{Router, Unfit};
use yaml::Node;

pub use read::read;

/// What is wrong with a file of cases.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrong {
    pub line: usize,
    pub message: String,
}

impl Wrong {
    fn at(line: usize, message: impl Into<String>) -> Wrong {
        Wrong { line, message: message.into() }
    }
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.line, self.message)
    }
}

/// The cases of one table.
#[derive(Debug)]
pub struct Cases {
    source: String,
    table: Arc<TableSchema>,
    pub cases: Vec<Case>,
}

#[derive(Debug)]
pub struct Case {
    pub name: String,
    pub line: usize,
    op: Op,
    before: Option<Vec<Cell>>,
    after: Option<Vec<Cell>>,
    expected: Expected,
}

#[derive(Clone, Debug)]
enum Cell {
    /// It was not sent.
    Unsent,
    Null,
    Data(Vec<u8>),
}

#[derive(Debug)]
struct Expected {
    /// Each a map.
    events: Vec<Node>,
    /// The one event is set aside, for a reason that holds this text.
    parked: Option<String>,
}

impl Cases {
    /// What is not as expected, of each case in order. Routes that do not fit the table fail every case.
    ///
    /// # Errors
    /// No route of the config takes the table.
    pub fn run(&self, config: &Checked) -> Result<Vec<Vec<String>>, String> {
        let (schema, name) = (&self.table.schema, &self.table.name);
        let takes = |from: &RouteFrom| from.source == self.source && from.matches(schema, name);
        if !config.routes.iter().any(|route| takes(&route.from)) {
            return Err(format!("no route takes {}.{schema}.{name}", self.source));
        }
        // A case gives the columns that related rows become, as it gives the others.
        let route =
            |(at, route): (u16, &CheckedRoute)| Route { relations: Relations::default(), ..route.route(RouteId(at)) };
        let routes: Vec<_> = (0..).zip(&config.routes).map(route).collect();
        let names: Vec<&str> = config.routes.iter().map(|route| route.name.as_str()).collect();
        let mut router = Router::new(&self.source, &routes);
        let judge = |case: &Case| match self.events(&mut router, case) {
            Ok(events) => compare::differences(&case.expected, &events, &names),
            Err(unfit) => vec![format!("route {}: {}", unfit.route, unfit.fault.message)],
        };
        Ok(self.cases.iter().map(judge).collect())
    }

    fn events(&self, router: &mut Router, case: &Case) -> Result<EventBatch, Unfit> {
        let mut batch = Batch::new();
        batch.begin_transaction(Transaction { id: "1".into(), commit_time_us: 0 });
        let nowhere = Position::from_bytes(&[0]).expect("a byte is short");
        let mut change = batch.change(case.op, &self.table, nowhere);
        if let Some(before) = &case.before {
            change = change.before(before.iter().map(Cell::value));
        }
        if let Some(after) = &case.after {
            change.after(after.iter().map(Cell::value));
        }
        let mut events = EventBatch::new();
        router.route("test", 0, &batch, &mut events)?;
        Ok(events)
    }
}

impl Cell {
    fn value(&self) -> Value<'_> {
        match self {
            Cell::Unsent => Value::Unavailable,
            Cell::Null => Value::Null,
            Cell::Data(bytes) => Value::Data(bytes),
        }
    }
}
