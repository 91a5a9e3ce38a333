//! A route whose steps cannot be done on a table: said as the config's own errors are, with file, line and path.

use towpath_contract::{Error, ErrorKind};

use crate::config::checked::{CheckedRoute, Places};
use crate::config::path::KeyPath;
use crate::config::place_fault;
use crate::route::{Place, Unfit};

/// `routes` in the order of the file.
pub(super) fn error(unfit: Unfit, routes: &[CheckedRoute], places: &Places) -> Error {
    let Unfit { route, place, fault } = unfit;
    let problem = place_fault(&path(&route, &place, routes), fault);
    let shown = places.may_show(&problem.path);
    let mut record = places.record(problem);
    let mut help = record.help.take().unwrap_or_default();
    if !shown {
        record.message = "this does not fit one of the tables (what it names is withheld)".into();
        help = "see that it names columns that are there".into();
    }
    let operation = format!("transforming the changes of route {route}");
    Error::operator(ErrorKind::Setup, operation, record.to_string()).with_help(help)
}

/// Where in the file a place in a route is. `routes` in the order of the file.
pub(super) fn path(route: &str, place: &Place, routes: &[CheckedRoute]) -> KeyPath {
    let index = routes.iter().position(|configured| configured.name == route).unwrap_or_default();
    let path = KeyPath::root().key("routes").index(index);
    match place {
        Place::Step(step) => {
            let name = routes.get(index).and_then(|route| route.steps.get(*step)).map_or("", |step| step.name());
            path.key("transform").index(*step).key(name)
        }
        Place::Related { key, name, step } => {
            let path = path.key(*key).key(name);
            let Some(step) = step else { return path };
            let related = routes.get(index).map(|route| [&route.relations.aggregate, &route.relations.lookup]);
            let related = related.and_then(|maps| maps.into_iter().find_map(|map| map.get(name)));
            let name = related.and_then(|related| related.transform.get(*step)).map_or("", |step| step.name());
            path.key("transform").index(*step).key(name)
        }
        Place::Event(keys) => keys.iter().fold(path.key("event"), |path, key| path.key(key)),
    }
}
