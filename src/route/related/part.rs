//! One column of related rows: which they are, and how they are written.

use std::sync::Arc;

use towpath_contract::{Change, TableSchema};

use super::{AGGREGATE, Missing, Related};
use crate::route::event::ROW_BYTES_MAX;
use crate::route::plan::ColumnPlan;
use crate::route::rows::{Unwritable, write_row_alone};
use crate::route::transform::{self, Compiled, Fault, Images, Program, StepConfig};

pub(super) struct Part {
    /// The config's key that it stands under.
    pub(super) key: &'static str,
    /// The column that the rows become.
    pub(super) name: String,
    /// Schema and name.
    pub(super) table: (String, String),
    /// The columns there, and those here that they equal, in the order of the latter.
    pub(super) on: Vec<(String, String)>,
    /// It holds a list of rows, and else one.
    pub(super) is_many: bool,
    pub(super) is_owned: bool,
    pub(super) missing: Missing,
    steps: Vec<StepConfig>,
    plan: Option<Plan>,
    images: Images,
}

/// How the rows of a table are written, as it looked last.
struct Plan {
    table: Arc<TableSchema>,
    columns: Vec<ColumnPlan>,
    program: Program,
}

impl Part {
    pub(super) fn new(key: &'static str, name: &str, related: &Related) -> Part {
        let (schema, table) = related.table();
        let mut on: Vec<_> = related.on.iter().map(|(there, here)| (there.clone(), here.clone())).collect();
        on.sort_by(|a, b| a.1.cmp(&b.1));
        Part {
            key,
            name: name.to_owned(),
            table: (schema.to_owned(), table.to_owned()),
            on,
            is_many: key == AGGREGATE,
            is_owned: related.owned,
            missing: related.missing,
            steps: related.transform.clone(),
            plan: None,
            images: Images::default(),
        }
    }

    pub(super) fn takes(&self, table: &TableSchema) -> bool {
        (table.schema.as_str(), table.name.as_str()) == (&self.table.0, &self.table.1)
    }

    pub(super) fn columns_there(&self) -> Vec<String> {
        self.on.iter().map(|(there, _)| there.clone()).collect()
    }

    /// Gets ready to write rows of this table.
    ///
    /// # Errors
    /// The step that cannot be done on it, and why.
    pub(super) fn settle(&mut self, table: &Arc<TableSchema>) -> Result<(), (Option<usize>, Fault)> {
        if self.plan.as_ref().is_some_and(|plan| Arc::ptr_eq(&plan.table, table) || plan.table == *table) {
            return Ok(());
        }
        let Compiled { fields, program, .. } =
            transform::compile(&self.steps, table, false).map_err(|(step, fault)| (Some(step), fault))?;
        let columns = fields.iter().map(ColumnPlan::of).collect();
        self.plan = Some(Plan { table: table.clone(), columns, program });
        Ok(())
    }

    /// The rows as JSON: a list, or one, or null.
    ///
    /// # Errors
    /// Why they cannot be written, without any value.
    pub(super) fn write<'c>(&mut self, changes: impl Iterator<Item = Change<'c>>) -> Result<Vec<u8>, String> {
        let Some(plan) = &self.plan else { return Err("it was not settled".into()) };
        let mut out = if self.is_many { vec![b'['] } else { Vec::new() };
        let mut count = 0;
        for change in changes {
            self.images.transform(&change, &plan.program, false);
            if let Some(failure) = self.images.failure() {
                let step = self.steps[failure.step].name();
                let on = if failure.field.is_empty() { String::new() } else { format!(" on `{}`", failure.field) };
                return Err(format!("transform[{}] (`{step}`) cannot be done{on}: {}", failure.step, failure.reason));
            }
            let Some(row) = self.images.of(&change).after.filter(|_| !self.images.chosen().dropped) else { continue };
            if count > 0 {
                out.push(b',');
            }
            count += 1;
            let mut unfit = Unwritable::default();
            write_row_alone(row, &plan.columns, &mut out, &mut unfit);
            if let Some(column) = unfit.0 {
                return Err(format!("column {column:?} holds bytes that are not UTF-8, which JSON cannot carry"));
            }
            if out.len() > ROW_BYTES_MAX {
                return Err(format!("its rows have more than {ROW_BYTES_MAX} bytes, and no message carries them"));
            }
        }
        match (self.is_many, count) {
            (true, _) => out.push(b']'),
            (false, 0) => out.extend_from_slice(b"null"),
            (false, 1) => {}
            (false, _) => {
                let (schema, table) = &self.table;
                return Err(format!("{count} rows of {schema}.{table} have these values, and a lookup takes one"));
            }
        }
        Ok(out)
    }
}
