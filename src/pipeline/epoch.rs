//! A source's epoch, raised whenever a person accepts a gap. The source may then begin at a lower position, or read again
//! under positions that were used: ids and sequences begin with the epoch, so that no id names two events, and what comes
//! after the gap is newer than all before it.

use std::collections::BTreeMap;
use std::time::SystemTime;

use towpath_contract::StateEntry;

/// The engine's own entry among the connector's.
const STATE: &str = "epoch";

/// 0 before the first gap.
pub(super) fn of(state: &BTreeMap<String, Vec<u8>>) -> u32 {
    let text = state.get(STATE).and_then(|bytes| std::str::from_utf8(bytes).ok());
    text.and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// By the clock, so that it is also higher than that of an outbox that was lost; and higher than the one before in any case.
pub(super) fn after(epoch: u32) -> StateEntry {
    let now = SystemTime::UNIX_EPOCH.elapsed().map_or(0, |age| age.as_secs() as u32);
    let next = now.max(epoch.saturating_add(1));
    StateEntry { key: STATE.to_owned(), value: Some(next.to_string().into_bytes()) }
}

/// The tables have not been read since a gap was accepted: what changed in it has not all come.
const UNREAD: &str = "unread_after_gap";

pub(super) fn unread() -> StateEntry {
    StateEntry { key: UNREAD.to_owned(), value: Some(Vec::new()) }
}

pub(super) fn read() -> StateEntry {
    StateEntry { key: UNREAD.to_owned(), value: None }
}

pub(super) fn is_unread(state: &BTreeMap<String, Vec<u8>>) -> bool {
    state.contains_key(UNREAD)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_is_higher_than_the_one_before_whatever_the_clock_says() {
        let entry = after(0);
        let state = BTreeMap::from([(entry.key, entry.value.unwrap())]);
        let first = of(&state);
        assert!(first > 1_700_000_000);
        let entry = after(first + 1_000_000);
        assert_eq!(entry.value.unwrap(), (first + 1_000_001).to_string().into_bytes());
        assert_eq!(of(&BTreeMap::new()), 0);
    }
}
