//! The one way in which tests wait: for a named condition, until a deadline.

use std::fmt::Debug;
use std::time::{Duration, Instant};

const POLL_MIN: Duration = Duration::from_millis(5);
const POLL_MAX: Duration = Duration::from_millis(100);

/// Polls `condition` until it is `Ok`, and returns what it found. Its `Err` is the state seen instead.
///
/// # Panics
/// After `within`, naming `what` was waited for and the last state seen.
pub async fn eventually<T, S: Debug>(what: &str, within: Duration, condition: impl AsyncFnMut() -> Result<T, S>) -> T {
    match try_eventually(within, condition).await {
        Ok(found) => found,
        Err(Some(state)) => panic!("waited {within:?} for: {what}; last seen: {state:?}"),
        Err(None) => panic!("waited {within:?} for: {what}; the condition itself did not return"),
    }
}

/// As [`eventually`], but gives the last state seen back; `None` when the condition never returned.
pub async fn try_eventually<T, S>(
    within: Duration,
    mut condition: impl AsyncFnMut() -> Result<T, S>,
) -> Result<T, Option<S>> {
    let deadline = Instant::now() + within;
    let mut pause = POLL_MIN;
    let mut last = None;
    loop {
        // A condition that hangs (a query on a dead link) must not outlive the deadline.
        match tokio::time::timeout_at(deadline.into(), condition()).await {
            Ok(Ok(found)) => return Ok(found),
            Ok(Err(state)) => last = Some(state),
            Err(_) => return Err(last),
        }
        if Instant::now() + pause >= deadline {
            return Err(last);
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(POLL_MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_condition_that_comes_true_ends_the_wait() {
        let mut polls = 0;
        let found = eventually("three polls", Duration::from_secs(5), async || {
            polls += 1;
            if polls == 3 { Ok(polls) } else { Err(polls) }
        })
        .await;
        assert_eq!(found, 3);
    }

    #[tokio::test]
    #[should_panic(expected = "for: a miracle; last seen: \"nothing\"")]
    async fn a_condition_that_stays_false_names_the_last_state() {
        eventually("a miracle", Duration::from_millis(30), async || Err::<(), _>("nothing")).await;
    }

    #[tokio::test]
    async fn a_condition_that_hangs_does_not_outlive_the_deadline() {
        let outcome = try_eventually(Duration::from_millis(30), async || {
            std::future::pending::<()>().await;
            Err::<(), ()>(())
        })
        .await;
        assert_eq!(outcome, Err(None));
    }
}
