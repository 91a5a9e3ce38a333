//! `towpath preview`: some rows of a live table through their routes. Changes nothing.

use towpath_contract::{Batch, Error, Source};

use super::{related, spool_folder, unfit};
use crate::cli::engine::{Preview, Wanted};
use crate::config::Checked;
use crate::event::RouteId;
use crate::route::plan::Route;
use crate::route::related::Relations;
use crate::route::{Router, Unfit};
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
        let unfit = |unfit| unfit::error(unfit, &config.routes, &config.places);
        let mut route = configured.route(RouteId(0));
        let gathered = gathered(&*live, &source.name, &route, &batch, &unfit).await?;
        if gathered.is_some() {
            // What it does with related rows is done.
            route.relations = Relations::default();
        }
        let rows = route::preview(&source.name, &route, gathered.as_ref().unwrap_or(&batch)).map_err(unfit)?;
        let steps = configured.steps.iter().map(|step| step.name()).collect();
        previews.push(Preview { route: configured.name.clone(), steps, rows });
    }
    Ok(Some(previews))
}

/// The rows with those that belong to them, of a route that wants them so.
async fn gathered(
    live: &dyn Source,
    source: &str,
    route: &Route,
    batch: &Batch,
    unfit: &impl Fn(Unfit) -> Error,
) -> Result<Option<Batch>, Error> {
    let mut router = Router::new(source, std::slice::from_ref(route));
    router.gather(batch).map_err(unfit)?;
    loop {
        let wanted = router.wanted(batch);
        if wanted.is_empty() {
            return router.gathered(batch).map_err(unfit);
        }
        for wanted in wanted {
            for (first, found) in related::look_up(live, &wanted.lookup).await? {
                router.found(&wanted, first, found).map_err(unfit)?;
            }
        }
    }
}
