//! A route whose steps cannot be done on a table: said as the config's own errors are, with file, line and path.

use towpath_contract::{Error, ErrorKind};

use crate::config::checked::{CheckedRoute, Places};
use crate::config::path::KeyPath;
use crate::config::place_fault;
use crate::route::Unfit;

/// `routes` in the order of the file.
pub(super) fn error(unfit: Unfit, routes: &[CheckedRoute], places: &Places) -> Error {
    let Unfit { route, step, fault } = unfit;
    let index = routes.iter().position(|configured| configured.name == route).unwrap_or_default();
    let name = routes.get(index).and_then(|route| route.steps.get(step)).map_or("", |step| step.name());
    let path = KeyPath::root().key("routes").index(index).key("transform").index(step).key(name);
    let problem = place_fault(&path, fault);
    let shown = places.may_show(&problem.path);
    let mut record = places.record(problem);
    let mut help = record.help.take().unwrap_or_default();
    if !shown {
        record.message = "this step cannot be done on one of the tables (what it names is withheld)".into();
        help = "see that it names columns that are there".into();
    }
    let operation = format!("transforming the changes of route {route}");
    Error::operator(ErrorKind::Setup, operation, record.to_string()).with_help(help)
}
