use proptest::prelude::*;

use super::*;
use crate::fuzzing::walk;

fn bytes(parts: &[&[u8]]) -> Vec<u8> {
    parts.concat()
}

/// One well-formed message of every type, outside of a streamed block.
fn samples() -> Vec<Vec<u8>> {
    let row = bytes(&[&[0, 3, b't', 0, 0, 0, 2], b"42", b"n", b"u"]);
    let relation = &[0, 0, 0x40, 7][..];
    vec![
        bytes(&[b"B", &[0; 7], &[9], &[0; 8], &[0, 0, 0, 5]]),
        bytes(&[b"C", &[0], &[1; 8], &[2; 8], &[3; 8]]),
        bytes(&[b"O", &[1; 8], b"other\0"]),
        bytes(&[
            b"R",
            relation,
            b"public\0orders\0d",
            &[0, 2],
            &[1],
            b"id\0",
            &[0, 0, 0, 20],
            &[255; 4],
            &[0],
            b"note\0",
            &[0, 0, 0, 25],
            &[255; 4],
        ]),
        bytes(&[b"Y", relation, b"public\0status\0"]),
        bytes(&[b"I", relation, b"N", &row]),
        bytes(&[b"U", relation, b"N", &row]),
        bytes(&[b"U", relation, b"K", &row, b"N", &row]),
        bytes(&[b"U", relation, b"O", &row, b"N", &row]),
        bytes(&[b"D", relation, b"K", &row]),
        bytes(&[b"D", relation, b"O", &row]),
        bytes(&[b"T", &[0, 0, 0, 2], &[3], relation, &[0, 0, 0x40, 8]]),
        bytes(&[b"M", &[1], &[0; 7], &[8], b"prefix\0", &[0, 0, 0, 3], b"\x00ab"]),
        bytes(&[b"S", &[0, 0, 0, 5], &[1]]),
        bytes(&[b"c", &[0, 0, 0, 5], &[0], &[1; 8], &[2; 8], &[3; 8]]),
        bytes(&[b"A", &[0, 0, 0, 5], &[0, 0, 0, 6]]),
        bytes(&[b"A", &[0, 0, 0, 5], &[0, 0, 0, 6], &[0; 16]]),
    ]
}

#[test]
fn every_message_is_understood() {
    for sample in samples() {
        let decoded = decode(&sample, false).unwrap_or_else(|error| panic!("{:?}: {error}", sample[0] as char));
        assert_eq!(decoded.xid, None);
        walk(&decoded);
    }
    assert_eq!(decode(b"E", true).unwrap().message, Message::StreamStop);
}

#[test]
fn inside_a_streamed_block_messages_carry_their_transaction() {
    for mut sample in samples() {
        let outside = decode(&sample, false).unwrap().message;
        if !matches!(sample[0], b'R' | b'Y' | b'I' | b'U' | b'D' | b'T' | b'M') {
            continue;
        }
        let plain = format!("{outside:?}");
        sample.splice(1..1, [0, 0, 3, 9]);
        let inside = decode(&sample, true).unwrap();
        assert_eq!(inside.xid, Some(0x0309));
        assert_eq!(format!("{:?}", inside.message), plain);
    }
}

#[test]
fn rows_are_read_in_place() {
    let bytes =
        bytes(&[b"U", &[0, 0, 0, 7], b"K", &[0, 1, b't', 0, 0, 0, 1], b"1", b"N", &[0, 2, b'u', b't', 0, 0, 0, 0]]);
    let Message::Update { relation: 7, old: Some(Old::Key(old)), new } = decode(&bytes, false).unwrap().message else {
        panic!("an update with its old key");
    };
    assert_eq!(old.fields().collect::<Vec<_>>(), [Field::Text(b"1")]);
    assert_eq!(new.fields().collect::<Vec<_>>(), [Field::Unchanged, Field::Text(b"")]);
}

#[test]
fn what_is_not_understood_is_refused() {
    assert_eq!(decode(b"", false), Err(Malformed::Empty));
    assert_eq!(decode(b"b\0", false), Err(Malformed::Unknown(b'b')), "two-phase was not asked for");
    assert_eq!(decode(b"E", false), Err(Malformed::Misplaced(b'E')));
    assert_eq!(decode(&samples()[0], true), Err(Malformed::Misplaced(b'B')));
    assert_eq!(decode(b"Z", true), Err(Malformed::Unknown(b'Z')));
    let binary = [b"I", &[0, 0, 0, 7][..], b"N", &[0, 1, b'b', 0, 0, 0, 0]].concat();
    assert_eq!(decode(&binary, false), Err(Malformed::Field("column's mark")));
}

/// The server's own subscriber stops at a commit with flags too. Taken for 0, they would change what was sent unnoticed.
#[test]
fn a_flag_that_the_manual_does_not_have_is_refused() {
    for (sample, at, field) in [(1, 1, "flags"), (12, 1, "flags"), (13, 5, "first segment's mark"), (14, 5, "flags")] {
        let mut bytes = samples()[sample].clone();
        bytes[at] = 2;
        assert_eq!(decode(&bytes, false), Err(Malformed::Field(field)), "{}", bytes.escape_ascii());
    }
}

#[test]
fn a_cut_or_prolonged_message_is_refused() {
    for sample in samples() {
        for end in 0..sample.len() {
            // An abort with LSN and time, cut before them, is one without.
            if sample[0] != b'A' || end != 9 {
                assert!(decode(&sample[..end], false).is_err(), "{:?} cut at {end}", sample[0] as char);
            }
        }
        let longer = bytes(&[&sample, b"x"]);
        assert!(decode(&longer, false).is_err(), "{:?}", sample[0] as char);
    }
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), in_stream in any::<bool>()) {
        if let Ok(decoded) = decode(&bytes, in_stream) {
            walk(&decoded);
        }
    }

    #[test]
    fn no_mutation_makes_it_panic(
        sample in any::<prop::sample::Index>(), at in any::<prop::sample::Index>(), with in any::<u8>(), in_stream in any::<bool>()
    ) {
        let samples = samples();
        let mut bytes = samples[sample.index(samples.len())].clone();
        let at = at.index(bytes.len());
        bytes[at] = with;
        if let Ok(decoded) = decode(&bytes, in_stream) {
            walk(&decoded);
        }
    }
}
