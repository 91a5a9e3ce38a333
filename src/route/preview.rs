//! What each step of a route makes of a row, for people. Never what a mask hides, at any stage.

use towpath_contract::{Batch, Change, TableSchema, Value};

use super::Router;
use super::json::{Form, write_string};
use super::plan::{Place, Route, Unfit};
use super::transform::{self, Compiled, Images};
use crate::event::EventBatch;

/// One row's way through a route.
#[derive(Debug)]
pub struct Previewed {
    /// The row as the source has it, then as each step left it.
    pub stages: Vec<Stage>,
    /// What would be published, in order; none when a step leaves the change out.
    pub events: EventBatch,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stage {
    /// `None`: the source.
    pub step: Option<usize>,
    /// JSON.
    pub row: String,
}

const HIDDEN: &str = "***";

/// Every change of a batch of one table, through one route.
///
/// # Errors
/// The route does not fit the table.
pub fn preview(source: &str, route: &Route, batch: &Batch) -> Result<Vec<Previewed>, Unfit> {
    let Some(table) = batch.tables().first() else { return Ok(Vec::new()) };
    let stages = stages(route, table)?;
    let mut router = Router::new(source, std::slice::from_ref(route));
    let mut previewed = Vec::with_capacity(batch.len());
    for change in batch.changes() {
        let mut events = EventBatch::new();
        router.route("preview", 0, &alone(&change), &mut events)?;
        let mut shown_stages = Vec::with_capacity(stages.len());
        for (nth, stage) in stages.iter().enumerate() {
            let Some(row) = shown(stage, stages.last().unwrap_or(stage), &change) else { break };
            shown_stages.push(Stage { step: nth.checked_sub(1), row });
        }
        previewed.push(Previewed { stages: shown_stages, events });
    }
    Ok(previewed)
}

/// The route up to each of its steps.
fn stages(route: &Route, table: &TableSchema) -> Result<Vec<Compiled>, Unfit> {
    let unfit = |(step, fault)| Unfit { route: route.name.clone(), place: Place::Step(step), fault };
    let upto = |steps| transform::compile(&route.steps[..steps], table, route.from.is_pattern()).map_err(unfit);
    (0..=route.steps.len()).map(upto).collect()
}

/// The row as a stage left it; `None` where the change was left out: later steps, masks too, are not done then. `whole` knows what is
/// hidden in the end.
fn shown(stage: &Compiled, whole: &Compiled, change: &Change<'_>) -> Option<String> {
    let mut images = Images::default();
    images.transform(change, &stage.program, false);
    if images.chosen().dropped {
        return None;
    }
    let rows = images.of(change);
    let mut out = vec![b'{'];
    let Some(row) = rows.after.or(rows.before) else { return Some("{}".into()) };
    for field in &stage.fields {
        let hidden = whole.hidden.contains(&field.slot) && !stage.hidden.contains(&field.slot);
        let value = row.value(field.slot);
        if value == Value::Unavailable {
            continue;
        }
        if out.len() > 1 {
            out.push(b',');
        }
        write_string(&field.name, &mut out);
        out.push(b':');
        match value {
            Value::Data(_) if hidden => write_string(HIDDEN, &mut out),
            Value::Data(bytes) => {
                let form = if row.has_failed(field.slot) { Form::Text } else { Form::of(&field.kind) };
                if form.write(bytes, &mut out).is_err() {
                    write_string(&String::from_utf8_lossy(bytes), &mut out);
                }
            }
            Value::Null | Value::Unavailable => out.extend_from_slice(b"null"),
        }
    }
    out.push(b'}');
    Some(String::from_utf8_lossy(&out).into_owned())
}

/// One change, as a batch of its own.
fn alone(change: &Change<'_>) -> Batch {
    let mut batch = Batch::new();
    batch.begin_transaction(change.transaction().clone());
    let table = std::sync::Arc::new(change.table().clone());
    let mut rows = batch.change(change.op(), &table, change.position());
    if let Some(before) = change.before() {
        rows = rows.before(before.values());
    }
    if let Some(after) = change.after() {
        rows.after(after.values());
    }
    batch
}
