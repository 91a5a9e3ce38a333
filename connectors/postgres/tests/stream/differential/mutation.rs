//! Real messages with damage: a byte set, a bit flipped, bytes cut out or put in.

use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::test_runner::{Config, TestRunner};

use super::agreement::compare;
use super::workload::{Sent, Stream};
use super::{Found, NEWEST};

#[derive(Clone, Debug)]
enum Damage {
    Set(Index, u8),
    Flip(Index, u8),
    Cut(Index, usize),
    Insert(Index, Vec<u8>),
    End(Index),
}

impl Damage {
    fn inflict(&self, bytes: &mut Vec<u8>) {
        let end = bytes.len();
        match self {
            Damage::Insert(at, more) => {
                let at = at.index(end + 1);
                drop(bytes.splice(at..at, more.iter().copied()));
            }
            // Nothing is left to be damaged.
            _ if end == 0 => {}
            Damage::Set(at, byte) => bytes[at.index(end)] = *byte,
            Damage::Flip(at, bit) => bytes[at.index(end)] ^= 1 << bit,
            Damage::Cut(at, count) => {
                let at = at.index(end);
                drop(bytes.drain(at..(at + count).min(end)));
            }
            Damage::End(at) => bytes.truncate(at.index(end)),
        }
    }
}

fn damage() -> impl Strategy<Value = Damage> {
    // Bytes that mean something somewhere come up more often than by chance.
    let telling = select(b"\0\x01\x02\x7f\x80\xffBCORYIUDTMSEcAbPKrpNtnudfi".as_slice());
    let byte = prop_oneof![telling, any::<u8>()].boxed();
    let at = any::<Index>;
    prop_oneof![
        (at(), byte.clone()).prop_map(|(at, byte)| Damage::Set(at, byte)),
        (at(), 0..8u8).prop_map(|(at, bit)| Damage::Flip(at, bit)),
        (at(), 1..9usize).prop_map(|(at, count)| Damage::Cut(at, count)),
        (at(), vec(byte, 1..9)).prop_map(|(at, more)| Damage::Insert(at, more)),
        at().prop_map(Damage::End),
    ]
}

/// Longer ones have no fields that the others have not.
const MESSAGE_BYTES_MAX: usize = 4 << 10;
const CASES: u32 = 50_000;

pub(super) fn both_agree_on_damaged(streams: Vec<Stream>) {
    // By kind, so that the rare ones have their turn.
    let mut kinds: BTreeMap<(bool, u8), Vec<Vec<u8>>> = BTreeMap::new();
    for Sent { bytes, in_stream } in streams.into_iter().flat_map(|stream| stream.messages) {
        if bytes.len() <= MESSAGE_BYTES_MAX {
            kinds.entry((in_stream, bytes[0])).or_default().push(bytes);
        }
    }
    let kinds: Vec<(bool, Vec<Vec<u8>>)> = kinds.into_iter().map(|((in_stream, _), of)| (in_stream, of)).collect();
    let case = (any::<Index>(), any::<Index>(), vec(damage(), 1..5), proptest::bool::weighted(0.1));
    let mut met = BTreeMap::new();
    let met_here = std::cell::RefCell::new(&mut met);
    let config = Config { cases: CASES, failure_persistence: None, ..Config::default() };
    let run = TestRunner::new(config).run(&case, |(kind, message, damages, elsewhere)| {
        let (in_stream, messages) = kind.get(&kinds);
        let mut bytes = message.get(messages).clone();
        damages.iter().for_each(|damage| damage.inflict(&mut bytes));
        let found = compare(&bytes, in_stream ^ elsewhere, NEWEST).map_err(|difference| {
            TestCaseError::fail(format!(
                "{difference}\nin a block: {}\n{}",
                in_stream ^ elsewhere,
                bytes.escape_ascii()
            ))
        })?;
        let kind = match found {
            Found::Same(_) => "same".into(),
            Found::BothRefuse => "both refuse".into(),
            Found::Reasoned(difference) => format!("{difference:?}"),
        };
        *met_here.borrow_mut().entry(kind).or_insert(0) += 1;
        Ok(())
    });
    run.unwrap_or_else(|error| panic!("{error}"));
    // The damage is neither so mild that all is read nor so heavy that nothing is.
    assert!(met["same"] > CASES / 20 && met["both refuse"] > CASES / 20, "{met:?}");
}
