//! Where a change stands in its source's own order.

use std::fmt;

/// A place in a source's own order: opaque to the engine, comparable, durable.
///
/// The bytes are the connector's; **comparing them as bytes must give the source's order**, so numbers go in
/// big-endian. A position names one change (commit position, then the ordinal within the transaction), or the gap
/// right after a whole transaction. It never depends on what else is captured, routed or filtered, nor on how the
/// source delivered it: the same change has the same position after any restart.
///
/// At most [`Position::BYTES_MAX`] bytes, so that it is copied and never allocated.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Position {
    len: u8,
    bytes: [u8; Position::BYTES_MAX],
}

impl Position {
    /// The longest position, in bytes. PostgreSQL needs 21, a MySQL GTID with file and offset fits too.
    pub const BYTES_MAX: usize = 47;

    /// `None` when `bytes` is longer than [`Position::BYTES_MAX`].
    pub fn from_bytes(bytes: &[u8]) -> Option<Position> {
        if bytes.len() > Self::BYTES_MAX {
            return None;
        }
        let mut position = Position { len: bytes.len() as u8, bytes: [0; Self::BYTES_MAX] };
        position.bytes[..bytes.len()].copy_from_slice(bytes);
        Some(position)
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len as usize]
    }
}

impl PartialOrd for Position {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Position {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.as_bytes().cmp(other.as_bytes())
    }
}

/// Lower-case hexadecimal, which sorts as the position does.
impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_bytes().iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Position({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn order_and_text_follow_the_bytes(a in proptest::collection::vec(any::<u8>(), 0..=47), b in proptest::collection::vec(any::<u8>(), 0..=47)) {
            let (pa, pb) = (Position::from_bytes(&a).unwrap(), Position::from_bytes(&b).unwrap());
            prop_assert_eq!(pa.cmp(&pb), a.cmp(&b));
            prop_assert_eq!(pa.to_string().cmp(&pb.to_string()), a.cmp(&b));
            prop_assert_eq!(pa.as_bytes(), &a[..]);
        }
    }

    #[test]
    fn too_long_is_refused() {
        assert!(Position::from_bytes(&[0; 48]).is_none());
    }
}
