//! Where a change stands among the files of a folder.

use towpath_contract::Position;

/// The content of this connector's [`Position`]: both numbers big-endian, 16 bytes.
///
/// It names one record of one file, or, with record 0, the gap before a file, which is the gap after the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct FilePosition {
    /// Files in the order in which they were taken, from 1. Recorded with the first change of the file, and so the same after a crash.
    pub(crate) generation: u64,
    /// Records of the file, from 1: also those that cannot be read.
    pub(crate) record: u64,
}

impl FilePosition {
    pub(crate) const BYTES: usize = 16;

    pub(crate) fn encode(&self) -> Position {
        let mut bytes = [0; Self::BYTES];
        bytes[..8].copy_from_slice(&self.generation.to_be_bytes());
        bytes[8..].copy_from_slice(&self.record.to_be_bytes());
        Position::from_bytes(&bytes).expect("16 bytes fit a position")
    }

    /// `None` when the position is not one of this connector's.
    pub(crate) fn decode(position: &Position) -> Option<FilePosition> {
        let bytes: &[u8; Self::BYTES] = position.as_bytes().try_into().ok()?;
        let (generation, record) = bytes.split_first_chunk::<8>()?;
        let record = record.first_chunk::<8>()?;
        Some(FilePosition { generation: u64::from_be_bytes(*generation), record: u64::from_be_bytes(*record) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_order_is_file_then_record(a in any::<(u64, u64)>(), b in (0..3u64, 0..3u64)) {
            let position = |(generation, record)| FilePosition { generation, record };
            prop_assert_eq!(position(a).encode().cmp(&position(b).encode()), a.cmp(&b));
            prop_assert_eq!(FilePosition::decode(&position(a).encode()), Some(position(a)));
        }
    }
}
