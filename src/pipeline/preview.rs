//! `towpath preview`: some rows of a live table through their routes. Changes nothing.

use towpath_contract::Error;

use super::{spool_folder, unfit};
use crate::cli::engine::{Preview, Wanted};
use crate::config::Checked;
use crate::event::RouteId;
use crate::{registry, route};

/// `None`: the config has no such source.
pub(super) async fn preview(config: &Checked, wanted: &Wanted) -> Result<Option<Vec<Preview>>, Error> {
    let Some(source) = config.sources.iter().find(|source| source.name == wanted.source) else { return Ok(None) };
    let live = registry::source(&source.name, &source.config, &spool_folder(&config.outbox.sqlite));
    let batch = live.sample(&wanted.schema, &wanted.table, wanted.rows).await?;
    let mut previews = Vec::new();
    for configured in &config.routes {
        let from = &configured.from;
        if from.source != source.name || !from.matches(&wanted.schema, &wanted.table) {
            continue;
        }
        let rows = route::preview(&source.name, &configured.route(RouteId(0)), &batch)
            .map_err(|unfit| unfit::error(unfit, &config.routes, &config.places))?;
        let steps = configured.steps.iter().map(|step| step.name()).collect();
        previews.push(Preview { route: configured.name.clone(), steps, rows });
    }
    Ok(Some(previews))
}
