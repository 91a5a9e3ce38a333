//! One function for each decoder of bytes from outside: `fuzz/` calls them with bytes of its own, the tests here with the
//! corpora that are kept there. None may panic, hang, or hold more than a small multiple of what it was given.

use std::collections::BTreeMap;

use towpath_contract::Position;

use crate::coverage::{Coverage, STATE};
use crate::decode::{self, Decoded, Message};
use crate::position::{LogPosition, Lsn};
use crate::snapshot;
use crate::value::{self, ArrayPlan, Element, Plan};
use crate::wire;

/// A pgoutput message; the first byte says whether it stands in a streamed block.
pub fn pgoutput(bytes: &[u8]) {
    let Some((in_stream, bytes)) = bytes.split_first() else { return };
    match decode::decode(bytes, in_stream & 1 == 1) {
        Ok(decoded) => walk(&decoded),
        Err(malformed) => drop(malformed.to_string()),
    }
}

/// Reads everything that a decoded message offers.
pub(crate) fn walk(decoded: &Decoded<'_>) {
    match &decoded.message {
        Message::Relation(relation) => assert_eq!(relation.columns().count(), relation.columns().len()),
        Message::Insert { new, .. } => assert_eq!(new.fields().count(), new.width()),
        Message::Update { old, new, .. } => {
            assert_eq!(new.fields().count(), new.width());
            old.iter().for_each(|old| assert_eq!(old.tuple().fields().count(), old.tuple().width()));
        }
        Message::Delete { old, .. } => assert_eq!(old.tuple().fields().count(), old.tuple().width()),
        Message::Truncate { relations } => assert!(relations.iter().count() < usize::MAX),
        _ => {}
    }
}

/// The server's side of a replication connection: messages, copy frames, errors.
pub fn replication(bytes: &[u8]) {
    wire::take_apart(bytes);
}

/// Lines of COPY; the first byte says how many columns are expected.
pub fn copy(bytes: &[u8]) {
    snapshot::read_copied(bytes);
}

/// The text of a value; the first byte picks its type. An array must come out as JSON.
pub fn value(bytes: &[u8]) {
    let Some((pick, text)) = bytes.split_first() else { return };
    let array = |element| Plan::Array(Box::new(ArrayPlan { element, delimiter: b',' }));
    let nested = ArrayPlan { element: Element::Int, delimiter: b';' };
    let plans = [
        Plan::AsIs,
        Plan::Bool,
        Plan::Bytes,
        Plan::Timestamp,
        Plan::TimestampTz,
        Plan::TimeTz,
        array(Element::Bool),
        array(Element::Int),
        array(Element::Float),
        array(Element::Bytes),
        array(Element::Json),
        array(Element::Text(Plan::AsIs)),
        array(Element::Text(Plan::TimestampTz)),
        array(Element::Array(Box::new(nested))),
    ];
    let plan = &plans[usize::from(*pick) % plans.len()];
    let mut out = Vec::new();
    let written = value::canonical(plan, text, &mut out);
    // Numbers and JSON are taken as the server wrote them.
    let ours = |array: &ArrayPlan| matches!(array.element, Element::Text(_) | Element::Bool | Element::Bytes);
    if written.is_ok() && matches!(plan, Plan::Array(array) if ours(array)) && std::str::from_utf8(&out).is_ok() {
        let json = serde_json::from_slice::<serde_json::Value>(&out);
        assert!(json.is_ok(), "{}", out.escape_ascii());
    }
}

/// What this connector reads back from the outbox: positions, and its own entries beside them.
pub fn stored(bytes: &[u8]) {
    if let Some(position) = Position::from_bytes(bytes)
        && let Some(decoded) = LogPosition::decode(&position)
    {
        assert_eq!(decoded.encode(), position);
    }
    if let Ok(text) = std::str::from_utf8(bytes)
        && let Ok(lsn) = text.parse::<Lsn>()
    {
        assert_eq!(lsn.to_string().parse(), Ok(lsn));
    }
    let state = BTreeMap::from([(STATE.to_owned(), bytes.to_vec())]);
    if let Ok(Some(coverage)) = Coverage::recorded(&state) {
        assert_eq!(coverage.lost(&coverage), None);
    }
    snapshot::read_stored(bytes);
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    /// Every file of the target's corpus, through the target.
    fn replay(target: &str, run: fn(&[u8])) {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target);
        let files: Vec<_> = std::fs::read_dir(&folder).expect("the target has a corpus").flatten().collect();
        assert!(!files.is_empty(), "{}", folder.display());
        for file in files {
            run(&std::fs::read(file.path()).expect("a file of the corpus can be read"));
        }
    }

    #[test]
    fn the_corpora_pass() {
        replay("pgoutput", super::pgoutput);
        replay("replication", super::replication);
        replay("copy", super::copy);
        replay("value", super::value);
        replay("stored", super::stored);
    }
}
