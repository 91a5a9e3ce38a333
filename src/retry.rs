//! Growing pauses between attempts. The only file that knows the `backoff` crate, so that it can be exchanged in an hour.

use std::time::Duration;

use backoff::ExponentialBackoff;
use backoff::backoff::Backoff;

/// Each pause is about twice the one before, from `first` up to `longest`, give or take a fifth so that many waiters do not
/// come back at the same moment. Never ends.
pub(crate) fn pauses(first: Duration, longest: Duration) -> Pauses {
    let mut inner = ExponentialBackoff {
        initial_interval: first,
        max_interval: longest,
        multiplier: 2.0,
        randomization_factor: 0.2,
        max_elapsed_time: None,
        ..ExponentialBackoff::default()
    };
    inner.reset();
    Pauses { inner, longest }
}

#[derive(Debug)]
pub(crate) struct Pauses {
    inner: ExponentialBackoff,
    longest: Duration,
}

impl Pauses {
    pub(crate) fn next_pause(&mut self) -> Duration {
        // `None` means that `max_elapsed_time` is over, and there is none.
        self.inner.next_backoff().unwrap_or(self.longest).min(self.longest)
    }

    /// The next pause is the first one again.
    pub(crate) fn reset(&mut self) {
        self.inner.reset();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_the_longest_and_start_again_after_a_reset() {
        let mut pauses = pauses(Duration::from_millis(100), Duration::from_secs(5));
        let first = pauses.next_pause();
        assert!((80..=120).contains(&first.as_millis()), "{first:?}");
        let last = (0..20).map(|_| pauses.next_pause()).last().unwrap();
        assert!((4_000..=5_000).contains(&last.as_millis()), "{last:?}");
        pauses.reset();
        assert!(pauses.next_pause() <= Duration::from_millis(120));
    }
}
