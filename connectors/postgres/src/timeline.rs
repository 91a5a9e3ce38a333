//! After a failover: how far the recorded timeline's log is this server's too.
//!
//! A promoted standby begins a new timeline. Its log up to there is the old server's, byte for byte, so that a position in that
//! part means the same on both; what the old server wrote after it never happened here (PostgreSQL manual, "Timelines").

use towpath_contract::Result;

use crate::position::Lsn;
use crate::wire::{SystemInfo, WalSender};

/// Where this server's log left that of `recorded`, an identity of [`identity`]'s. `None`: it is the same, of another system, or of a
/// timeline that is none of this one's ancestors.
pub(crate) async fn left_at(wire: &mut WalSender, recorded: Option<&str>, system: &SystemInfo) -> Result<Option<Lsn>> {
    let Some((recorded_system, recorded_timeline)) = recorded.and_then(|identity| identity.rsplit_once('-')) else {
        return Ok(None);
    };
    if recorded_system != system.system_id || recorded_timeline == system.timeline {
        return Ok(None);
    }
    let history = wire.timeline_history(&system.timeline).await?;
    Ok(history.and_then(|history| end_of(&history, recorded_timeline)))
}

/// What positions belong to.
pub(crate) fn identity(system: &SystemInfo) -> String {
    format!("{}-{}", system.system_id, system.timeline)
}

/// A history file has a line for each ancestor: its number, where it was left, why.
fn end_of(history: &str, timeline: &str) -> Option<Lsn> {
    history.lines().find_map(|line| {
        let mut fields = line.split_whitespace();
        let found = fields.next() == Some(timeline);
        let end = fields.next()?;
        found.then(|| end.parse().ok()).flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_history_tells_where_each_ancestor_was_left() {
        let history = "1\t0/3000000\tno recovery target specified\n\n2\t16/B374D848\tbefore 2026-01-31 12:00:00+00\n";
        assert_eq!(end_of(history, "1"), Some(Lsn(0x300_0000)));
        assert_eq!(end_of(history, "2"), Some(Lsn(0x16_B374_D848)));
        for (history, timeline) in [(history, "3"), (history, "0/3000000"), ("1", "1"), ("1 x", "1"), ("", "")] {
            assert_eq!(end_of(history, timeline), None, "{timeline} in {history:?}");
        }
    }
}
