//! Our pgoutput decoder beside a parser that others wrote: the corpus, what a server really sends, and that again with damage.
//!
//! Both must read the same message with the same fields, or both refuse it. Where they may differ is named in [`Difference`].

mod agreement;
mod mutation;
mod workload;

use std::collections::BTreeSet;
use std::path::Path;

use agreement::{Difference, Found, compare};
use workload::{Sent, Stream};

/// The version of the protocol that knows every message.
const NEWEST: u32 = 4;

#[test]
fn both_read_the_corpus_alike() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/pgoutput");
    let mut read = 0;
    for file in std::fs::read_dir(folder).unwrap() {
        let path = file.unwrap().path();
        let bytes = std::fs::read(&path).unwrap();
        let (in_stream, message) = bytes.split_first().unwrap();
        match compare(message, in_stream & 1 == 1, NEWEST) {
            Ok(Found::Same(_)) => read += 1,
            Ok(Found::BothRefuse | Found::Reasoned(_)) => {}
            Err(difference) => panic!("{}: {difference}", path.display()),
        }
    }
    assert!(read > 15, "{read} files are messages");
}

/// Each reasoned difference is one: with these bytes the two do differ, and our side is the one that it claims.
#[test]
fn the_named_differences_are_there() {
    let relation = b"R\0\0\0\x01public\0t\0?\0\0";
    let stored = |bytes: &[u8]| bytes.to_vec();
    let cases: [(Difference, Vec<u8>, bool); 13] = [
        (Difference::Trailing, [b"B".as_slice(), &[1; 20], b"x"].concat(), false),
        (Difference::Trailing, [b"A".as_slice(), &[1; 8], &[2; 15]].concat(), false),
        (Difference::Misplaced, [b"B".as_slice(), &[1; 20]].concat(), true),
        (Difference::Misplaced, stored(b"E"), false),
        (Difference::TwoPhase, [b"K\0".as_slice(), &[1; 28], b"gid\0"].concat(), false),
        (Difference::Binary, stored(b"I\0\0\0\x01N\0\x01b\0\0\0\x01x"), false),
        (Difference::DeleteMark, stored(b"D\0\0\0\x01N\0\x01n"), false),
        (Difference::Identity, stored(relation), false),
        (Difference::Flags, stored(b"S\0\0\0\x01\x02"), false),
        (Difference::Flags, [b"M\x03".as_slice(), &[1; 8], b"prefix\0\0\0\0\0"].concat(), false),
        (Difference::Flags, [b"C\x01".as_slice(), &[1; 24]].concat(), false),
        (Difference::Flags, [b"c\0\0\0\x01\x80".as_slice(), &[1; 24]].concat(), false),
        (Difference::NotUtf8, stored(b"Y\0\0\0\x01public\0caf\xe9\0"), false),
    ];
    for (difference, bytes, in_stream) in cases {
        assert_eq!(compare(&bytes, in_stream, NEWEST), Ok(Found::Reasoned(difference)), "{}", bytes.escape_ascii());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_read_a_servers_streams_alike_whole_and_damaged() {
    let streams = workload::streams().await;
    for stream in &streams {
        let mut shown = Vec::new();
        for Sent { bytes, in_stream } in &stream.messages {
            match compare(bytes, *in_stream, stream.version) {
                Ok(Found::Same(text)) => shown.push((*in_stream, text)),
                other => panic!("version {}: {other:?}: {}", stream.version, bytes.escape_ascii()),
            }
        }
        holds_everything(stream, &shown);
    }
    mutation::both_agree_on_damaged(streams);
}

/// The workload is as rich as it is meant to be: every message, and every form of each, was compared.
fn holds_everything(stream: &Stream, shown: &[(bool, String)]) {
    let kinds = |inside: bool| -> BTreeSet<&str> {
        let of = shown.iter().filter(|(in_stream, _)| *in_stream == inside);
        of.filter_map(|(_, text)| text.split(' ').find(|word| !word.starts_with('@'))).collect()
    };
    let mut outside = BTreeSet::from(["begin", "commit", "origin", "relation", "type", "insert", "update", "delete"]);
    let mut marks = vec![" n", " u", " t\"\"", " key [", " row [", " 'd' [", " 'f' [", " 'n' [", " 'i' [", "[]"];
    if stream.major >= 11 {
        outside.insert("truncate");
    }
    if stream.major >= 14 {
        outside.insert("message");
        marks.extend(["message false ", "message true "]);
    }
    if stream.version >= 2 {
        let mut inside = outside.clone();
        outside.extend(["start", "stream-commit", "abort"]);
        inside.retain(|kind| !["begin", "commit"].contains(kind));
        inside.insert("stop");
        assert_eq!(kinds(true), inside, "version {}, within blocks", stream.version);
        marks.extend([" first true", " first false", " sub-aborted"]);
        // Version 4, asked for parallel streaming, adds LSN and time to an abort.
        let length = if stream.version == 4 { 25 } else { 9 };
        let aborts = stream.messages.iter().filter(|sent| sent.bytes[0] == b'A');
        assert!(aborts.map(|sent| sent.bytes.len()).all(|found| found == length), "version {}", stream.version);
    }
    assert_eq!(kinds(false), outside, "version {}", stream.version);
    for mark in marks {
        assert!(shown.iter().any(|(_, text)| text.contains(mark)), "version {}: no {mark:?}", stream.version);
    }
}
