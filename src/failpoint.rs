//! Named crash points. `TOWPATH_FAILPOINT="outbox.before_commit:3"` kills the process when it passes that point for the
//! third time (without a number: the first). Several, separated by commas, are allowed.
//!
//! Compiled to nothing unless the feature `failpoints` is on, or this crate's own unit tests are built.

/// Marks a place at which a test may kill the process. Names are `part.moment`, and stand in the code only once.
#[cfg(any(test, feature = "failpoints"))]
macro_rules! failpoint {
    ($name:literal) => {
        $crate::failpoint::hit($name)
    };
}

#[cfg(not(any(test, feature = "failpoints")))]
macro_rules! failpoint {
    ($name:literal) => {};
}

pub(crate) use failpoint;

#[cfg(any(test, feature = "failpoints"))]
pub(crate) fn hit(name: &str) {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicI64, Ordering};

    static ARMED: OnceLock<Vec<(String, AtomicI64)>> = OnceLock::new();
    let armed = ARMED.get_or_init(|| {
        let setting = std::env::var("TOWPATH_FAILPOINT").unwrap_or_default();
        parse(&setting).into_iter().map(|(name, hits)| (name, AtomicI64::new(hits))).collect()
    });
    for (armed_name, left) in armed {
        if armed_name == name && left.fetch_sub(1, Ordering::Relaxed) == 1 {
            kill_self();
        }
    }
}

/// SIGKILL, not `abort`: no handler runs, no core is written, as when the machine takes the process away.
#[cfg(any(test, feature = "failpoints"))]
fn kill_self() -> ! {
    let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    std::process::abort()
}

#[cfg(any(test, feature = "failpoints"))]
fn parse(setting: &str) -> Vec<(String, i64)> {
    let points = setting.split(',').map(str::trim).filter(|point| !point.is_empty());
    points
        .map(|point| match point.rsplit_once(':') {
            Some((name, hits)) => {
                let hits =
                    hits.parse().unwrap_or_else(|_| panic!("TOWPATH_FAILPOINT: `{hits}` is not a number of hits"));
                (name.to_string(), hits)
            }
            None => (point.to_string(), 1),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn a_point_has_a_name_and_a_number_of_hits() {
        assert_eq!(parse(""), []);
        let expected = [("outbox.before_commit".to_string(), 3), ("relay.after_publish".to_string(), 1)];
        assert_eq!(parse("outbox.before_commit:3, relay.after_publish"), expected);
    }
}
