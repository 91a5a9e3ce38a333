//! Events per second over the last ten seconds, for status.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// How far back a rate looks.
pub const WINDOW: Duration = Duration::from_secs(10);

/// Told a running total whenever status is asked for, at most once a second; holds a dozen samples.
#[derive(Clone, Debug, Default)]
pub struct Rate {
    samples: VecDeque<(Instant, u64)>,
}

impl Rate {
    /// Takes the total as it is now, and gives the rate per second since the oldest sample within the window.
    pub fn per_second(&mut self, now: Instant, total: u64) -> f64 {
        let stale = |at: Instant| now.saturating_duration_since(at) > WINDOW;
        // One sample older than the window stays, so that the window is always spanned.
        while self.samples.len() > 1 && stale(self.samples[1].0) {
            self.samples.pop_front();
        }
        let due =
            self.samples.back().is_none_or(|(at, _)| now.saturating_duration_since(*at) >= Duration::from_secs(1));
        let (since, before) = self.samples.front().copied().unwrap_or((now, total));
        if due {
            self.samples.push_back((now, total));
        }
        let seconds = now.saturating_duration_since(since).as_secs_f64();
        if seconds == 0.0 { 0.0 } else { total.saturating_sub(before) as f64 / seconds }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_follows_the_last_ten_seconds() {
        let start = Instant::now();
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let mut rate = Rate::default();
        assert_eq!(rate.per_second(at(0), 0), 0.0);
        assert_eq!(rate.per_second(at(1), 100), 100.0);
        for second in 2..=30 {
            rate.per_second(at(second), second * 100);
        }
        assert_eq!(rate.per_second(at(31), 3100), 100.0);
        for second in 32..=43 {
            rate.per_second(at(second), 3100);
        }
        assert_eq!(rate.per_second(at(44), 3100), 0.0, "what is longer ago is forgotten");
        assert!(rate.samples.len() <= 13);
    }

    #[test]
    fn a_rate_asked_after_a_long_silence_is_an_average() {
        let start = Instant::now();
        let mut rate = Rate::default();
        rate.per_second(start, 0);
        assert_eq!(rate.per_second(start + Duration::from_secs(100), 1000), 10.0);
    }
}
