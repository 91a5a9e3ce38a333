//! The bounds that the writer keeps, derived from the config once.

use std::time::Duration;

use crate::config::model::OutboxConfig;

const MIB: u64 = 1 << 20;

/// `max_size`'s own least, as the config's reference says.
const MAX_SIZE_LEAST: u64 = 16 * MIB;

#[derive(Clone, Debug)]
pub(super) struct Limits {
    pub(super) max_bytes: u64,
    /// Sources wait from here on; below `max_bytes` by what may still be in flight, in memory and in the log.
    pub(super) full_bytes: u64,
    /// Sources go on from here on; settled events are pruned before their time as long as more is used.
    pub(super) resume_bytes: u64,
    /// Records enqueued and not yet durable.
    pub(super) in_flight_bytes: usize,
    /// The log is moved into the file when it is this long and nothing else is to be done,
    pub(super) log_soft_bytes: u64,
    /// or this long whatever is to be done.
    pub(super) log_hard_bytes: u64,
    pub(super) retain: Duration,
    pub(super) max_age: Option<Duration>,
    /// Settlements are written by themselves when nothing else was written within this.
    pub(super) settle_within: Duration,
    /// The least pause between two looks for events whose time is over.
    pub(super) prune_pause: Duration,
}

impl Limits {
    pub(super) fn new(config: &OutboxConfig) -> Limits {
        let max_bytes = config.max_size.0.max(MAX_SIZE_LEAST);
        let full_bytes = max_bytes - (max_bytes / 4).min(64 * MIB);
        Limits {
            max_bytes,
            full_bytes,
            resume_bytes: full_bytes - (max_bytes / 8).min(64 * MIB),
            in_flight_bytes: (max_bytes / 8).min(8 * MIB) as usize,
            log_soft_bytes: (max_bytes / 16).min(4 * MIB),
            log_hard_bytes: (max_bytes / 8).min(32 * MIB),
            retain: config.retain.0,
            max_age: config.max_age.map(|span| span.0),
            settle_within: Duration::from_millis(50),
            // A hundredth of the time is precise enough, and a trickle is not deleted event by event.
            prune_pause: (config.retain.0 / 100).clamp(Duration::from_secs(1), Duration::from_secs(60)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;
    use towpath_contract::{ByteSize, Span};

    #[test]
    fn the_bounds_leave_room_for_what_is_in_flight() {
        for max in [0, 16 * MIB, 100 * MIB, 10 << 30, 1 << 40] {
            let config = OutboxConfig {
                sqlite: PathBuf::new(),
                retain: Span(Duration::ZERO),
                max_size: ByteSize(max),
                max_age: None,
            };
            let limits = Limits::new(&config);
            assert!(limits.full_bytes + limits.in_flight_bytes as u64 <= limits.max_bytes);
            assert!(limits.resume_bytes < limits.full_bytes);
            assert!(2 * limits.log_hard_bytes < limits.resume_bytes, "the log alone never keeps it full");
        }
    }
}
