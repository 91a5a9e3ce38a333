//! What a snapshot sees: transaction visibility, and how far the log reached.

use std::str::FromStr;
use std::sync::Arc;

use towpath_contract::{Error, Result};

use crate::position::Lsn;

/// A database snapshot as `pg_current_snapshot()` prints it, `xmin:xmax:xip,…` (manual, section "Transaction ID and
/// Snapshot Information Functions"). Ids are 64 bits wide there; the stream has the lower 32 of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Visibility {
    xmin: u64,
    xmax: u64,
    /// In progress between the two, ascending. Top-level transactions only, as the stream's.
    in_progress: Vec<u64>,
}

impl Visibility {
    /// Whether the snapshot sees what the transaction did, provided that it committed.
    pub(crate) fn sees(&self, xid: u32) -> bool {
        self.sees_wide(self.widen(xid))
    }

    fn sees_wide(&self, xid: u64) -> bool {
        xid < self.xmin || xid < self.xmax && self.in_progress.binary_search(&xid).is_err()
    }

    /// The 64-bit id whose lower half is `xid`: the nearest to the snapshot. No two transactions that are in question
    /// at a time are further apart than 2^31, or PostgreSQL itself would confuse them.
    fn widen(&self, xid: u32) -> u64 {
        let distance = i64::from(xid.wrapping_sub(self.xmax as u32) as i32);
        self.xmax.checked_add_signed(distance).unwrap_or(u64::from(xid))
    }

    /// Every transaction up to `xid` has ended.
    pub(crate) fn all_ended_up_to(&self, xid: u32) -> bool {
        self.widen(xid) < self.xmin
    }
}

/// The text is not a snapshot's.
#[derive(Debug)]
pub(crate) struct NotASnapshot;

impl FromStr for Visibility {
    type Err = NotASnapshot;

    fn from_str(text: &str) -> Result<Visibility, NotASnapshot> {
        let mut parts = text.split(':');
        let (Some(xmin), Some(xmax), Some(list), None) = (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(NotASnapshot);
        };
        let number = |digits: &str| digits.parse::<u64>().map_err(|_| NotASnapshot);
        let mut in_progress =
            list.split(',').filter(|xid| !xid.is_empty()).map(number).collect::<Result<Vec<_>, _>>()?;
        in_progress.sort_unstable();
        Ok(Visibility { xmin: number(xmin)?, xmax: number(xmax)?, in_progress })
    }
}

/// The moment at which a chunk is true.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct View {
    pub(crate) visibility: Visibility,
    /// As the server printed it.
    pub(crate) text: String,
    /// Every transaction that the snapshot sees has its commit record below this: it was written before the snapshot
    /// was taken, and this address was read after.
    pub(crate) high: Lsn,
    /// The server's clock, microseconds since 1970-01-01 UTC.
    pub(crate) read_at_us: i64,
}

impl View {
    pub(crate) fn parse(text: &str, high: Lsn, read_at_us: i64) -> Result<Arc<View>> {
        match text.parse() {
            Ok(visibility) => Ok(Arc::new(View { visibility, text: text.to_owned(), high, read_at_us })),
            Err(NotASnapshot) => Err(Error::bug("reading the database's snapshot", "its text is not understood")),
        }
    }
}

/// How the log is cut up, in bytes: `wal_block_size` and `wal_segment_size`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LogLayout {
    pub(crate) page: u64,
    pub(crate) segment: u64,
}

/// Sizes of a page's header and of a segment's first one: `SizeOfXLogShortPHD` and `SizeOfXLogLongPHD`.
const PAGE_HEADER_BYTES: u64 = 24;
const SEGMENT_HEADER_BYTES: u64 = 40;

impl LogLayout {
    /// The address that the stream reports when it has sent everything below `insert`.
    ///
    /// When a page is just full, the next record will start after the next page's header, and that is what the insert
    /// address says; what was sent ends at the page's start. On an idle server the two would differ for ever.
    pub(crate) fn reported_end(self, insert: Lsn) -> Lsn {
        let Lsn(address) = insert;
        if address % self.segment == SEGMENT_HEADER_BYTES {
            Lsn(address - SEGMENT_HEADER_BYTES)
        } else if address % self.page == PAGE_HEADER_BYTES && address % self.segment != PAGE_HEADER_BYTES {
            Lsn(address - PAGE_HEADER_BYTES)
        } else {
            insert
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn snapshot(text: &str) -> Visibility {
        text.parse().unwrap()
    }

    #[test]
    fn what_ended_before_the_snapshot_is_seen() {
        let snapshot = snapshot("100:105:100,103");
        let seen: Vec<u32> = (98..108).filter(|xid| snapshot.sees(*xid)).collect();
        assert_eq!(seen, [98, 99, 101, 102, 104]);
        assert!(snapshot.all_ended_up_to(99) && !snapshot.all_ended_up_to(100));
    }

    #[test]
    fn ids_wrap_around() {
        // The 32-bit counter passed zero between xmin and xmax.
        let snapshot = snapshot("8589934590:8589934596:8589934591,8589934593");
        assert!(snapshot.sees(u32::MAX - 2), "before xmin, in the epoch before");
        assert!(!snapshot.sees(u32::MAX), "in progress, in the epoch before");
        assert!(snapshot.sees(u32::MAX - 1) && snapshot.sees(0) && !snapshot.sees(1) && snapshot.sees(3));
        assert!(!snapshot.sees(4) && !snapshot.sees(1000));
    }

    #[test]
    fn a_young_cluster_has_no_epoch_before() {
        let snapshot = snapshot("3:3:");
        assert!(snapshot.sees(2) && !snapshot.sees(3) && !snapshot.sees(4_000_000_000));
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["", "1", "1:2", "1:2:3:4", "a:2:", "1:2:x", "-1:2:"] {
            assert!(text.parse::<Visibility>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn visibility_is_that_of_the_wide_ids(xmin in 4_294_960_000u64..1 << 40, ends in proptest::collection::vec(0u64..200, 0..10), length in 0u64..200, xid in 0u64..10_000) {
            let xmax = xmin + length;
            let mut in_progress: Vec<u64> = ends.iter().map(|end| xmin + end).filter(|xid| *xid < xmax).collect();
            in_progress.sort_unstable();
            in_progress.dedup();
            let list: Vec<String> = in_progress.iter().map(u64::to_string).collect();
            let snapshot = snapshot(&format!("{xmin}:{xmax}:{}", list.join(",")));
            let wide = xmin - 5_000 + xid;
            let expected = wide < xmin || (wide < xmax && !in_progress.contains(&wide));
            prop_assert_eq!(snapshot.sees(wide as u32), expected);
        }
    }

    #[test]
    fn the_end_of_the_log_is_a_pages_start_and_not_its_header() {
        let layout = LogLayout { page: 8192, segment: 16 << 20 };
        let reported = |address| layout.reported_end(Lsn(address)).0;
        assert_eq!(reported(3 * 8192 + 24), 3 * 8192);
        assert_eq!(reported((16 << 20) + 40), 16 << 20);
        for address in [3 * 8192 + 40, 3 * 8192 + 23, 3 * 8192, (16 << 20) + 24, 12_345_678] {
            assert_eq!(reported(address), address);
        }
    }
}
