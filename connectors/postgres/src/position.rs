//! Where a change stands in PostgreSQL's log.

use std::fmt;
use std::str::FromStr;

use towpath_contract::Position;

/// A byte address in the write-ahead log. Text form as PostgreSQL's `pg_lsn`: two hexadecimal numbers, `16/B374D848`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lsn(pub u64);

impl Lsn {
    /// PostgreSQL's `InvalidXLogRecPtr`: no address.
    pub const NONE: Lsn = Lsn(0);
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 as u32)
    }
}

/// The text is not a `pg_lsn`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotAnLsn;

impl FromStr for Lsn {
    type Err = NotAnLsn;

    fn from_str(text: &str) -> Result<Lsn, NotAnLsn> {
        let (high, low) = text.split_once('/').ok_or(NotAnLsn)?;
        let half = |digits: &str| {
            let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
            if plain { u32::from_str_radix(digits, 16).map_err(|_| NotAnLsn) } else { Err(NotAnLsn) }
        };
        Ok(Lsn(u64::from(half(high)?) << 32 | u64::from(half(low)?)))
    }
}

/// The content of this connector's [`Position`]: its fields in this order, big-endian, 21 bytes.
///
/// It names one change, or, as `(end, 0, 0, 0)`, the gap after a whole transaction whose commit record ends at `end`.
/// Every later commit record starts at or after `end` and every change has an address, so the gap sorts between the two.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogPosition {
    /// Where the transaction's commit record starts. Transactions are delivered in the order of this.
    ///
    /// It is also what may be confirmed to the server once this position is recorded: a slot sends again whatever
    /// "committed before this LSN" does not cover (`pg_replication_slots.confirmed_flush_lsn`), and that includes the
    /// transaction whose commit record starts right there.
    pub commit: Lsn,
    /// Where the change's own log record starts. The same with transactions streamed in progress or not.
    pub change: Lsn,
    /// The how-manieth change of the transaction at this address: 0 but for the rows of a multi-insert (COPY). For a
    /// TRUNCATE of several tables the table's oid.
    pub index: u32,
    /// See the constants.
    pub part: u8,
}

impl LogPosition {
    pub const BYTES: usize = 21;

    /// The change itself; of a key update the delete.
    pub const PART_CHANGE: u8 = 0;
    /// The insert of a key update.
    pub const PART_INSERT: u8 = 1;
    /// A logical message that PostgreSQL handed over after the row that follows it in the log.
    pub const PART_LATE_MESSAGE: u8 = 2;

    /// The gap after everything that was committed below `end`.
    pub fn after(end: Lsn) -> LogPosition {
        LogPosition { commit: end, ..LogPosition::default() }
    }

    pub fn encode(&self) -> Position {
        let mut bytes = [0; Self::BYTES];
        bytes[..8].copy_from_slice(&self.commit.0.to_be_bytes());
        bytes[8..16].copy_from_slice(&self.change.0.to_be_bytes());
        bytes[16..20].copy_from_slice(&self.index.to_be_bytes());
        bytes[20] = self.part;
        Position::from_bytes(&bytes).expect("21 bytes fit a position")
    }

    /// `None` when the position is not one of this connector's.
    pub fn decode(position: &Position) -> Option<LogPosition> {
        let bytes: &[u8; Self::BYTES] = position.as_bytes().try_into().ok()?;
        let (commit, rest) = bytes.split_first_chunk::<8>()?;
        let (change, rest) = rest.split_first_chunk::<8>()?;
        let (index, part) = rest.split_first_chunk::<4>()?;
        Some(LogPosition {
            commit: Lsn(u64::from_be_bytes(*commit)),
            change: Lsn(u64::from_be_bytes(*change)),
            index: u32::from_be_bytes(*index),
            part: part[0],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_position() -> impl Strategy<Value = LogPosition> {
        // Small numbers too, so that equal fields come up.
        let lsn = || prop_oneof![any::<u64>(), 0..4u64].prop_map(Lsn);
        (lsn(), lsn(), prop_oneof![any::<u32>(), 0..4u32], 0..3u8)
            .prop_map(|(commit, change, index, part)| LogPosition { commit, change, index, part })
    }

    proptest! {
        #[test]
        fn the_order_is_commit_then_address_then_index_then_part(a in any_position(), b in any_position()) {
            let fields = |p: LogPosition| (p.commit, p.change, p.index, p.part);
            prop_assert_eq!(a.encode().cmp(&b.encode()), fields(a).cmp(&fields(b)));
            prop_assert_eq!(LogPosition::decode(&a.encode()), Some(a));
        }

        #[test]
        fn the_gap_after_a_transaction_sorts_between_it_and_the_next(
            commit in 1..1000u64, length in 1..1000u64, gap in 0..1000u64, a in any_position(), b in any_position()
        ) {
            let end = commit + length;
            let last = LogPosition { commit: Lsn(commit), ..a };
            let next = LogPosition { commit: Lsn(end + gap), change: Lsn(b.change.0.max(1)), ..b };
            prop_assert!(last.encode() < LogPosition::after(Lsn(end)).encode());
            prop_assert!(LogPosition::after(Lsn(end)).encode() < next.encode());
        }

        #[test]
        fn an_lsn_reads_back(lsn in any::<u64>()) {
            prop_assert_eq!(Lsn(lsn).to_string().parse(), Ok(Lsn(lsn)));
        }
    }

    #[test]
    fn an_lsn_is_written_as_postgresql_writes_it() {
        assert_eq!(Lsn(0x16_B374_D848).to_string(), "16/B374D848");
        assert_eq!(Lsn(0).to_string(), "0/0");
        for wrong in ["", "/", "1", "1/", "/1", "+1/0", "1/-1", "1/123456789", "g/0", "1/0 "] {
            assert_eq!(wrong.parse::<Lsn>(), Err(NotAnLsn), "{wrong:?}");
        }
    }

    #[test]
    fn a_position_of_another_length_is_not_ours() {
        assert_eq!(LogPosition::decode(&Position::from_bytes(&[0; 20]).unwrap()), None);
    }
}
