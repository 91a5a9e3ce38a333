//! One message, read by our decoder and by `pg_walstream`'s parser.

use pg_walstream::{
    LogicalReplicationMessage as Theirs, LogicalReplicationParser, StreamingReplicationMessage, TupleData,
    encode_streaming_message_to_bytes,
};
use towpath_postgres::decode::{Decoded, Field, Malformed, Message, Old, Tuple, decode};

#[derive(Debug, PartialEq)]
pub(super) enum Found {
    /// Both read this.
    Same(String),
    BothRefuse,
    Reasoned(Difference),
}

/// Where only one of the two refuses, and why that is right. "The manual" is PostgreSQL's chapter "Logical Replication
/// Message Formats".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Difference {
    /// We refuse bytes after the last field, which the manual's formats do not have; theirs leaves them unread. So they do
    /// with the abort's LSN and time of version 4 where not all of them are there.
    Trailing,
    /// A streamed block holds the changes of one transaction, no other's begin or end, and a block ends only where one was
    /// begun: we refuse the rest, theirs takes any message anywhere.
    Misplaced,
    /// Sent for slots with `two_phase` alone, which we never ask for.
    TwoPhase,
    /// Values in binary form are sent where `binary` was asked for, which we never do.
    Binary,
    /// The manual: a delete holds a 'K' or an 'O'. Theirs takes any byte.
    DeleteMark,
    /// `pg_class.relreplident` is one of four letters. Theirs takes any byte.
    Identity,
    /// The manual: a commit's flags are 0 (PostgreSQL's own subscriber refuses others), a message's and the mark of a first
    /// segment 0 or 1. Theirs hands on what it finds, or takes all but 0 for 1.
    Flags,
    /// Theirs refuses names that are not UTF-8. In a database of the encoding SQL_ASCII nothing is converted, and a name is
    /// any bytes.
    NotUtf8,
}

/// What both made of a message, or how they differ without a reason.
pub(super) fn compare(bytes: &[u8], in_stream: bool, version: u32) -> Result<Found, String> {
    match (decode(bytes, in_stream), theirs(bytes, in_stream, version)) {
        (Ok(our), Ok(their)) => {
            let (our, their) = (shown(&our), their_shown(&their));
            if our == their { Ok(Found::Same(our)) } else { Err(format!("ours: {our}\ntheirs: {their}")) }
        }
        (Err(_), Err(_)) => Ok(Found::BothRefuse),
        (Err(malformed), Ok(their)) => match reason_to_refuse(malformed, bytes, in_stream, &their, version) {
            Some(difference) => Ok(Found::Reasoned(difference)),
            None => Err(format!("we refuse ({malformed:?}) what they read: {}", their_shown(&their))),
        },
        (Ok(our), Err(error)) => {
            let readable = with_names_in_ascii(bytes, &our);
            match readable != bytes && matches!(compare(&readable, in_stream, version), Ok(Found::Same(_))) {
                true => Ok(Found::Reasoned(Difference::NotUtf8)),
                false => Err(format!("they refuse ({error}) what we read: {}", shown(&our))),
            }
        }
    }
}

fn theirs(bytes: &[u8], in_stream: bool, version: u32) -> pg_walstream::Result<StreamingReplicationMessage> {
    let mut parser = LogicalReplicationParser::with_protocol_version(version);
    if in_stream {
        parser.parse_wal_message(b"S\0\0\0\x01\x01")?;
    }
    parser.parse_wal_message(bytes)
}

/// The difference that explains our refusal, if the message really has it.
fn reason_to_refuse(
    malformed: Malformed,
    bytes: &[u8],
    in_stream: bool,
    their: &StreamingReplicationMessage,
    version: u32,
) -> Option<Difference> {
    let tag = bytes[0];
    let (difference, holds) = match (malformed, &their.message) {
        (Malformed::Long | Malformed::Short("abort's LSN and time"), _) => {
            let read = encode_streaming_message_to_bytes(their, version as u8).len();
            (Difference::Trailing, read < bytes.len())
        }
        (Malformed::Misplaced(_), _) => {
            (Difference::Misplaced, if in_stream { b"BCScA".contains(&tag) } else { tag == b'E' })
        }
        (Malformed::Unknown(_), _) => (Difference::TwoPhase, b"bPKrp".contains(&tag)),
        (Malformed::Field("column's mark"), message) => (Difference::Binary, tuples(message).any(has_binary)),
        (Malformed::Field("old row's mark" | "row's mark"), Theirs::Delete { key_type, .. }) => {
            (Difference::DeleteMark, !['K', 'O'].contains(key_type))
        }
        (Malformed::Field("replica identity"), Theirs::Relation { replica_identity, .. }) => {
            (Difference::Identity, !b"dnfi".contains(replica_identity))
        }
        (Malformed::Field("first segment's mark"), Theirs::StreamStart { .. }) => (Difference::Flags, bytes[5] > 1),
        (Malformed::Field("flags"), Theirs::Commit { flags, .. } | Theirs::StreamCommit { flags, .. }) => {
            (Difference::Flags, *flags != 0)
        }
        (Malformed::Field("flags"), Theirs::Message { flags, .. }) => (Difference::Flags, *flags > 1),
        _ => return None,
    };
    holds.then_some(difference)
}

fn tuples(message: &Theirs) -> impl Iterator<Item = &TupleData> {
    let (old, new) = match message {
        Theirs::Insert { tuple, .. } => (None, Some(tuple)),
        Theirs::Update { old_tuple, new_tuple, .. } => (old_tuple.as_ref(), Some(new_tuple)),
        Theirs::Delete { old_tuple, .. } => (Some(old_tuple), None),
        _ => (None, None),
    };
    old.into_iter().chain(new)
}

fn has_binary(tuple: &TupleData) -> bool {
    tuple.columns.iter().any(|column| column.is_binary())
}

/// The same message, but for bytes in its names that are not ASCII.
fn with_names_in_ascii(bytes: &[u8], our: &Decoded<'_>) -> Vec<u8> {
    let names: Vec<&[u8]> = match &our.message {
        Message::Relation(relation) => {
            let columns = relation.columns().map(|column| column.name);
            columns.chain([relation.schema, relation.name]).collect()
        }
        Message::Type { schema, name, .. } => vec![schema, name],
        Message::Message { prefix, .. } => vec![prefix],
        // After tag and LSN, and before the zero at the end.
        Message::Origin => vec![&bytes[9..bytes.len() - 1]],
        _ => Vec::new(),
    };
    let mut readable = bytes.to_vec();
    for name in names {
        let start = name.as_ptr() as usize - bytes.as_ptr() as usize;
        readable[start..start + name.len()].iter_mut().filter(|byte| !byte.is_ascii()).for_each(|byte| *byte = b'?');
    }
    readable
}

/// All that our decoder says of a message, as text.
fn shown(our: &Decoded<'_>) -> String {
    let row = |tuple: &Tuple<'_>| {
        let fields = tuple.fields().map(|field| match field {
            Field::Null => " n".into(),
            Field::Unchanged => " u".into(),
            Field::Text(text) => format!(" t\"{}\"", text.escape_ascii()),
        });
        format!("[{}]", fields.collect::<String>())
    };
    let text = match &our.message {
        Message::Begin { final_lsn, commit_time, xid } => format!("begin {} {commit_time} {xid}", final_lsn.0),
        Message::Commit { commit_lsn, end_lsn, commit_time } => {
            format!("commit {} {} {commit_time}", commit_lsn.0, end_lsn.0)
        }
        Message::Origin => "origin".into(),
        Message::Relation(relation) => {
            let columns = relation.columns().map(|column| {
                let name = column.name.escape_ascii();
                format!(" {} \"{name}\" {} {}", column.key, column.type_oid, column.type_modifier)
            });
            let (schema, name) = (relation.schema.escape_ascii(), relation.name.escape_ascii());
            let columns: String = columns.collect();
            format!("relation {} \"{schema}\" \"{name}\" '{}' [{columns}]", relation.oid, char::from(relation.identity))
        }
        Message::Type { oid, schema, name } => {
            format!("type {oid} \"{}\" \"{}\"", schema.escape_ascii(), name.escape_ascii())
        }
        Message::Insert { relation, new } => format!("insert {relation} {}", row(new)),
        Message::Update { relation, old, new } => {
            let old = match old {
                None => String::new(),
                Some(Old::Key(old)) => format!(" key {}", row(old)),
                Some(Old::Row(old)) => format!(" row {}", row(old)),
            };
            format!("update {relation}{old} {}", row(new))
        }
        Message::Delete { relation, old: Old::Key(old) } => format!("delete {relation} key {}", row(old)),
        Message::Delete { relation, old: Old::Row(old) } => format!("delete {relation} row {}", row(old)),
        Message::Truncate { relations } => format!("truncate {:?}", relations.iter().collect::<Vec<_>>()),
        Message::Message { transactional, lsn, prefix, content } => {
            let (prefix, content) = (prefix.escape_ascii(), content.escape_ascii());
            format!("message {transactional} {} \"{prefix}\" \"{content}\"", lsn.0)
        }
        Message::StreamStart { xid, first } => format!("start {xid} first {first}"),
        Message::StreamStop => "stop".into(),
        Message::StreamCommit { xid, commit_lsn, end_lsn, commit_time } => {
            format!("stream-commit {xid} {} {} {commit_time}", commit_lsn.0, end_lsn.0)
        }
        Message::StreamAbort { xid, sub_xid } => aborted(*xid, *sub_xid),
    };
    our.xid.map_or(text.clone(), |xid| format!("@{xid} {text}"))
}

fn aborted(xid: u32, sub_xid: u32) -> String {
    format!("abort {xid} {sub_xid}{}", if xid == sub_xid { "" } else { " sub-aborted" })
}

/// The same of theirs.
fn their_shown(their: &StreamingReplicationMessage) -> String {
    let row = |tuple: &TupleData| {
        let fields = tuple.columns.iter().map(|column| match column.data_type {
            b't' => format!(" t\"{}\"", column.as_bytes().escape_ascii()),
            mark => format!(" {}", char::from(mark)),
        });
        format!("[{}]", fields.collect::<String>())
    };
    let old_mark = |mark: char| match mark {
        'K' => "key".to_owned(),
        'O' => "row".to_owned(),
        other => format!("{other:?}"),
    };
    let text = match &their.message {
        Theirs::Begin { final_lsn, timestamp, xid } => format!("begin {final_lsn} {timestamp} {xid}"),
        Theirs::Commit { commit_lsn, end_lsn, timestamp, .. } => format!("commit {commit_lsn} {end_lsn} {timestamp}"),
        Theirs::Origin { .. } => return "origin".into(),
        Theirs::Relation { relation_id, namespace, relation_name, replica_identity, columns } => {
            let columns = columns.iter().map(|column| {
                let name = column.name.as_bytes().escape_ascii();
                format!(" {} \"{name}\" {} {}", column.is_key(), column.type_id, column.type_modifier)
            });
            let (schema, name) = (namespace.as_bytes().escape_ascii(), relation_name.as_bytes().escape_ascii());
            let columns: String = columns.collect();
            format!("relation {relation_id} \"{schema}\" \"{name}\" '{}' [{columns}]", char::from(*replica_identity))
        }
        Theirs::Type { type_id, namespace, type_name } => {
            let (schema, name) = (namespace.as_bytes().escape_ascii(), type_name.as_bytes().escape_ascii());
            format!("type {type_id} \"{schema}\" \"{name}\"")
        }
        Theirs::Insert { relation_id, tuple } => format!("insert {relation_id} {}", row(tuple)),
        Theirs::Update { relation_id, old_tuple, new_tuple, key_type } => {
            let old = old_tuple.as_ref().zip(*key_type);
            let old = old.map(|(old, mark)| format!(" {} {}", old_mark(mark), row(old))).unwrap_or_default();
            format!("update {relation_id}{old} {}", row(new_tuple))
        }
        Theirs::Delete { relation_id, old_tuple, key_type } => {
            format!("delete {relation_id} {} {}", old_mark(*key_type), row(old_tuple))
        }
        Theirs::Truncate { relation_ids, .. } => format!("truncate {relation_ids:?}"),
        Theirs::Message { flags, lsn, prefix, content } => {
            let (prefix, content) = (prefix.as_bytes().escape_ascii(), content.escape_ascii());
            format!("message {} {lsn} \"{prefix}\" \"{content}\"", flags & 1 == 1)
        }
        Theirs::StreamStart { xid, first_segment } => return format!("start {xid} first {first_segment}"),
        Theirs::StreamStop => return "stop".into(),
        Theirs::StreamCommit { xid, commit_lsn, end_lsn, timestamp, .. } => {
            format!("stream-commit {xid} {commit_lsn} {end_lsn} {timestamp}")
        }
        Theirs::StreamAbort { xid, subtransaction_xid, .. } => aborted(*xid, *subtransaction_xid),
        two_phase => format!("{two_phase:?}"),
    };
    their.xid.map_or(text.clone(), |xid| format!("@{xid} {text}"))
}
