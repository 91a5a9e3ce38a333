//! Whether related rows can be had of the tables as they are.

use std::collections::BTreeSet;

use towpath_contract::{KeyKind, Kind, TableSchema};

use super::{AGGREGATE, REREAD, Related, column};
use crate::route::Need;
use crate::route::plan::{Place, Route, TablePlan, Unfit};
use crate::route::transform::{self, Fault};

/// The table with the columns that related rows become.
pub(super) fn wider(route: &Route, table: &TableSchema) -> Result<TableSchema, Unfit> {
    let full_name = format!("{}.{}", table.schema, table.name);
    let mut columns = table.columns.clone();
    for (key, name, related) in route.relations.all() {
        let unfit = |fault: Fault| at(route, key, name, None, fault);
        if columns.iter().any(|column| column.name == *name) {
            let fault =
                Fault::new(format!("{full_name} has a column `{name}` of its own")).help("call this one otherwise");
            return Err(unfit(fault));
        }
        for here in related.on.values() {
            let Some(of) = table.columns.iter().find(|column| column.name == *here) else {
                return Err(unfit(Fault::new(format!("{full_name} has no column `{here}`"))));
            };
            comparable(&full_name, here, &of.kind).map_err(unfit)?;
        }
        if key == AGGREGATE {
            let keys: BTreeSet<&String> = table.key_columns().map(|column| &table.columns[column].name).collect();
            if table.key != KeyKind::Columns {
                let message = format!("{full_name} has no key by which its rows could be told apart");
                return Err(unfit(Fault::new(message).help("give it a primary key")));
            }
            if keys != related.on.values().collect() {
                let keys: Vec<&str> = keys.into_iter().map(String::as_str).collect();
                let message = format!("rows belong to a row of {full_name} by its key, which is {}", keys.join(", "));
                return Err(unfit(
                    Fault::new(message).help("`on: { column_there: key_column_here }`, for all columns of the key"),
                ));
            }
        }
        columns.push(column(name, Kind::Json, format!("rows of {}", related.from)));
    }
    if !route.relations.aggregate.is_empty() {
        if columns.iter().any(|column| column.name == REREAD) {
            let fault = Fault::new(format!("{full_name} has a column `{REREAD}`, which is what an aggregate adds"));
            let name = route.relations.aggregate.keys().next().map_or("", String::as_str);
            return Err(at(
                route,
                AGGREGATE,
                name,
                None,
                fault.help("read it through a view under another name, or make two routes"),
            ));
        }
        columns.push(column(REREAD, Kind::Array(Box::new(Kind::Text)), "names of what was read again".into()));
    }
    Ok(TableSchema::new(table.schema.clone(), table.name.clone(), columns, table.key))
}

/// Whether the route fits these tables. One that is not among them is left to those who read it.
pub(crate) fn fit(source: &str, route: &Route, tables: &[TableSchema]) -> Result<(), Unfit> {
    for table in tables.iter().filter(|table| route.from.matches(&table.schema, &table.name)) {
        TablePlan::new(source, &wider(route, table)?, std::slice::from_ref(route))?;
    }
    for (key, name, related) in route.relations.all() {
        let unfit = |step, fault| at(route, key, name, step, fault);
        let Some(table) = of(related, tables) else {
            // One of which rows are looked up may be known to nobody yet, and whoever asks for it says why.
            if key != AGGREGATE {
                continue;
            }
            let message = format!("the source captures no table {}", related.from);
            let help = "add it to the `tables` of the source: what happens to its rows is what happens here";
            return Err(unfit(None, Fault::new(message).help(help)));
        };
        for there in related.on.keys() {
            let Some(column) = table.columns.iter().find(|column| column.name == *there) else {
                return Err(unfit(None, Fault::new(format!("{} has no column `{there}`", related.from))));
            };
            comparable(&related.from, there, &column.kind).map_err(|fault| unfit(None, fault))?;
        }
        transform::compile(&related.transform, table, false).map_err(|(step, fault)| unfit(Some(step), fault))?;
    }
    Ok(())
}

/// Tables whose deleted rows do not say whose they were, unless the source sends them whole.
pub(crate) fn needing_old_rows(source: &str, route: &Route, tables: &[TableSchema]) -> Vec<Need> {
    let mut needs = Vec::new();
    let need = |table: &TableSchema, place| Need {
        table: (table.schema.clone(), table.name.clone()),
        route: route.name.clone(),
        place,
    };
    for (name, related) in &route.relations.aggregate {
        let Some(table) = of(related, tables) else { continue };
        let is_key = |there: &String| table.columns.iter().any(|column| column.name == *there && column.key);
        if !related.on.keys().all(is_key) {
            needs.push(need(table, Place::Related { key: AGGREGATE, name: name.clone(), step: None }));
        }
    }
    for table in tables.iter().filter(|table| route.from.matches(&table.schema, &table.name)) {
        let plan = wider(route, table).and_then(|wider| TablePlan::new(source, &wider, std::slice::from_ref(route)));
        let Ok(plan) = plan else { continue };
        let sent = |slot: usize| table.columns.get(slot).is_some_and(|column| column.key);
        let places = plan.routes.iter().flat_map(|route| route.needing_old_rows(&sent));
        needs.extend(places.map(|place| need(table, place)));
    }
    needs
}

fn of<'t>(related: &Related, tables: &'t [TableSchema]) -> Option<&'t TableSchema> {
    tables.iter().find(|table| format!("{}.{}", table.schema, table.name) == related.from)
}

fn comparable(table: &str, name: &str, kind: &Kind) -> Result<(), Fault> {
    match kind {
        Kind::Bytes | Kind::Float | Kind::Interval | Kind::Json | Kind::Array(_) => {
            let message = format!("`{name}` of {table} is of a type by which no row is looked up");
            Err(Fault::new(message).help("numbers, texts, dates, times, uuids and enums are"))
        }
        _ => Ok(()),
    }
}

fn at(route: &Route, key: &'static str, name: &str, step: Option<usize>, fault: Fault) -> Unfit {
    let place = Place::Related { key, name: name.to_owned(), step };
    Unfit { route: route.name.clone(), place, fault }
}
