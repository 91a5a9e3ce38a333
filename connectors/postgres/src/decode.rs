//! pgoutput messages, protocol versions 1 to 4, decoded in place.
//!
//! Formats: PostgreSQL manual, "Logical Replication Message Formats". Integers are big-endian, strings end with a zero
//! byte. No bytes make the decoder panic; what it does not know is an error and never skipped.

use std::fmt;

use crate::position::Lsn;

/// One message, borrowed from the bytes that it was decoded from.
///
/// Inside a streamed block each of `Relation` to `Message` also carries the id of its own (sub)transaction: see
/// [`Decoded::xid`].
#[derive(Clone, Debug, PartialEq)]
pub enum Message<'a> {
    Begin { final_lsn: Lsn, commit_time: i64, xid: u32 },
    Commit { commit_lsn: Lsn, end_lsn: Lsn, commit_time: i64 },
    Origin,
    Relation(Relation<'a>),
    Type { oid: u32, schema: &'a [u8], name: &'a [u8] },
    Insert { relation: u32, new: Tuple<'a> },
    Update { relation: u32, old: Option<Old<'a>>, new: Tuple<'a> },
    Delete { relation: u32, old: Old<'a> },
    Truncate { relations: Oids<'a> },
    Message { transactional: bool, lsn: Lsn, prefix: &'a [u8], content: &'a [u8] },
    StreamStart { xid: u32, first: bool },
    StreamStop,
    StreamCommit { xid: u32, commit_lsn: Lsn, end_lsn: Lsn, commit_time: i64 },
    StreamAbort { xid: u32, sub_xid: u32 },
}

/// A message, and inside a streamed block the (sub)transaction that it belongs to.
#[derive(Clone, Debug, PartialEq)]
pub struct Decoded<'a> {
    pub xid: Option<u32>,
    pub message: Message<'a>,
}

/// A table as the rows that follow were written.
#[derive(Clone, Debug, PartialEq)]
pub struct Relation<'a> {
    pub oid: u32,
    /// Empty for `pg_catalog`.
    pub schema: &'a [u8],
    pub name: &'a [u8],
    /// `pg_class.relreplident`: `d`efault, `n`othing, `f`ull, `i`ndex.
    pub identity: u8,
    count: u16,
    columns: &'a [u8],
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RelationColumn<'a> {
    /// Part of the replica identity. Under FULL: every column.
    pub key: bool,
    pub name: &'a [u8],
    pub type_oid: u32,
    pub type_modifier: i32,
}

/// The row before an update or delete.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Old<'a> {
    /// The replica identity's columns; the others are sent as NULL and mean nothing.
    Key(Tuple<'a>),
    /// All columns, under REPLICA IDENTITY FULL.
    Row(Tuple<'a>),
}

impl<'a> Old<'a> {
    pub fn tuple(&self) -> Tuple<'a> {
        match *self {
            Old::Key(tuple) | Old::Row(tuple) => tuple,
        }
    }
}

/// A row: its bytes were checked, so that reading it cannot fail.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tuple<'a> {
    count: u16,
    bytes: &'a [u8],
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Field<'a> {
    Null,
    /// A TOAST value that the update did not touch: it is not in the log.
    Unchanged,
    Text(&'a [u8]),
}

/// The relations of a TRUNCATE.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Oids<'a>(&'a [u8]);

impl Oids<'_> {
    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.0.chunks_exact(4).map(|oid| u32::from_be_bytes([oid[0], oid[1], oid[2], oid[3]]))
    }
}

/// Bytes that are no message. Names what and where, never the bytes themselves: they may be row data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    Empty,
    /// The message's first byte is none that was asked for.
    Unknown(u8),
    /// It ends before its last field.
    Short(&'static str),
    /// A field has a value that it cannot have.
    Field(&'static str),
    /// Bytes follow its last field.
    Long,
    /// Not allowed inside a streamed block, or only there.
    Misplaced(u8),
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Malformed::Empty => f.write_str("the server sent an empty pgoutput message"),
            Malformed::Unknown(tag) => {
                write!(f, "the server sent a pgoutput message of unknown type '{}'", tag.escape_ascii())
            }
            Malformed::Short(field) => write!(f, "the server sent a pgoutput message that ends before its {field}"),
            Malformed::Field(field) => write!(f, "the server sent a pgoutput message with an impossible {field}"),
            Malformed::Long => f.write_str("the server sent a pgoutput message with bytes after its last field"),
            Malformed::Misplaced(tag) => {
                write!(f, "the server sent a pgoutput message of type '{}' at the wrong time", tag.escape_ascii())
            }
        }
    }
}

/// Decodes one message. `in_stream`: between Stream Start and Stream Stop, where messages carry a transaction id.
pub fn decode(bytes: &[u8], in_stream: bool) -> Result<Decoded<'_>, Malformed> {
    let (&tag, rest) = bytes.split_first().ok_or(Malformed::Empty)?;
    let mut input = Input { rest };
    let carries_xid = matches!(tag, b'R' | b'Y' | b'I' | b'U' | b'D' | b'T' | b'M');
    if in_stream && !carries_xid && !matches!(tag, b'E' | b'O') {
        return Err(if is_known(tag) { Malformed::Misplaced(tag) } else { Malformed::Unknown(tag) });
    }
    let xid = if in_stream && carries_xid { Some(input.u32("transaction id")?) } else { None };
    let message = match tag {
        b'I' => {
            let relation = input.u32("relation")?;
            input.tag(b'N', "new row's mark")?;
            Message::Insert { relation, new: input.tuple()? }
        }
        b'U' => decode_update(&mut input)?,
        b'D' => {
            let relation = input.u32("relation")?;
            let old = input.old()?.ok_or(Malformed::Field("old row's mark"))?;
            Message::Delete { relation, old }
        }
        b'B' => Message::Begin {
            final_lsn: input.lsn("final LSN")?,
            commit_time: input.i64("commit time")?,
            xid: input.u32("transaction id")?,
        },
        b'C' => {
            input.tag(0, "flags")?;
            Message::Commit {
                commit_lsn: input.lsn("commit LSN")?,
                end_lsn: input.lsn("end LSN")?,
                commit_time: input.i64("commit time")?,
            }
        }
        b'R' => Message::Relation(decode_relation(&mut input)?),
        b'Y' => Message::Type {
            oid: input.u32("type")?,
            schema: input.string("type's schema")?,
            name: input.string("type's name")?,
        },
        b'T' => {
            let count = input.u32("number of relations")? as usize;
            input.u8("options")?;
            let length = count.checked_mul(4).ok_or(Malformed::Short("relations"))?;
            Message::Truncate { relations: Oids(input.take(length, "relations")?) }
        }
        b'M' => {
            let transactional = input.flag("flags")?;
            let lsn = input.lsn("message LSN")?;
            let prefix = input.string("prefix")?;
            let length = input.u32("content's length")? as usize;
            Message::Message { transactional, lsn, prefix, content: input.take(length, "content")? }
        }
        b'O' => {
            input.lsn("origin's LSN")?;
            input.string("origin's name")?;
            Message::Origin
        }
        b'S' => Message::StreamStart { xid: input.u32("transaction id")?, first: input.flag("first segment's mark")? },
        b'E' if in_stream => Message::StreamStop,
        b'E' => return Err(Malformed::Misplaced(tag)),
        b'c' => decode_stream_commit(&mut input)?,
        b'A' => {
            let message =
                Message::StreamAbort { xid: input.u32("transaction id")?, sub_xid: input.u32("subtransaction id")? };
            // Version 4 adds LSN and time of the abort, where parallel streaming was asked for.
            if !input.rest.is_empty() {
                input.take(16, "abort's LSN and time")?;
            }
            message
        }
        unknown => return Err(Malformed::Unknown(unknown)),
    };
    if !input.rest.is_empty() {
        return Err(Malformed::Long);
    }
    Ok(Decoded { xid, message })
}

fn is_known(tag: u8) -> bool {
    b"BCORYIUDTMSEcA".contains(&tag)
}

fn decode_update<'a>(input: &mut Input<'a>) -> Result<Message<'a>, Malformed> {
    let relation = input.u32("relation")?;
    let old = input.old()?;
    if old.is_some() {
        input.tag(b'N', "new row's mark")?;
    }
    Ok(Message::Update { relation, old, new: input.tuple()? })
}

fn decode_stream_commit<'a>(input: &mut Input<'a>) -> Result<Message<'a>, Malformed> {
    let xid = input.u32("transaction id")?;
    input.tag(0, "flags")?;
    Ok(Message::StreamCommit {
        xid,
        commit_lsn: input.lsn("commit LSN")?,
        end_lsn: input.lsn("end LSN")?,
        commit_time: input.i64("commit time")?,
    })
}

fn decode_relation<'a>(input: &mut Input<'a>) -> Result<Relation<'a>, Malformed> {
    let oid = input.u32("relation")?;
    let schema = input.string("relation's schema")?;
    let name = input.string("relation's name")?;
    let identity = input.u8("replica identity")?;
    if !b"dnfi".contains(&identity) {
        return Err(Malformed::Field("replica identity"));
    }
    let count = input.u16("number of columns")?;
    let columns = input.rest;
    for _ in 0..count {
        input.column()?;
    }
    Ok(Relation { oid, schema, name, identity, count, columns: &columns[..columns.len() - input.rest.len()] })
}

impl<'a> Relation<'a> {
    pub fn columns(&self) -> impl ExactSizeIterator<Item = RelationColumn<'a>> + use<'a> {
        let mut input = Input { rest: self.columns };
        (0..self.count).map(move |_| input.column().expect("checked when the relation was decoded"))
    }
}

impl<'a> Tuple<'a> {
    /// The number of its columns.
    pub fn width(&self) -> usize {
        self.count as usize
    }

    pub fn fields(&self) -> impl ExactSizeIterator<Item = Field<'a>> + use<'a> {
        let mut input = Input { rest: self.bytes };
        (0..self.count).map(move |_| input.field().expect("checked when the row was decoded"))
    }
}

struct Input<'a> {
    rest: &'a [u8],
}

impl<'a> Input<'a> {
    fn take(&mut self, length: usize, field: &'static str) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(Malformed::Short(field))?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], Malformed> {
        let (taken, rest) = self.rest.split_first_chunk::<N>().ok_or(Malformed::Short(field))?;
        self.rest = rest;
        Ok(*taken)
    }

    fn u8(&mut self, field: &'static str) -> Result<u8, Malformed> {
        Ok(self.array::<1>(field)?[0])
    }

    fn u16(&mut self, field: &'static str) -> Result<u16, Malformed> {
        Ok(u16::from_be_bytes(self.array(field)?))
    }

    fn u32(&mut self, field: &'static str) -> Result<u32, Malformed> {
        Ok(u32::from_be_bytes(self.array(field)?))
    }

    fn i64(&mut self, field: &'static str) -> Result<i64, Malformed> {
        Ok(i64::from_be_bytes(self.array(field)?))
    }

    fn lsn(&mut self, field: &'static str) -> Result<Lsn, Malformed> {
        Ok(Lsn(u64::from_be_bytes(self.array(field)?)))
    }

    fn tag(&mut self, expected: u8, field: &'static str) -> Result<(), Malformed> {
        if self.u8(field)? == expected { Ok(()) } else { Err(Malformed::Field(field)) }
    }

    /// 0 or 1: the manual gives no other value, and what another would mean is not ours to guess.
    fn flag(&mut self, field: &'static str) -> Result<bool, Malformed> {
        match self.u8(field)? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Malformed::Field(field)),
        }
    }

    fn string(&mut self, field: &'static str) -> Result<&'a [u8], Malformed> {
        let end = memchr::memchr(0, self.rest).ok_or(Malformed::Short(field))?;
        let text = &self.rest[..end];
        self.rest = &self.rest[end + 1..];
        Ok(text)
    }

    /// The old row of an update or delete; `None`, with the mark consumed, when the new row follows at once.
    fn old(&mut self) -> Result<Option<Old<'a>>, Malformed> {
        match self.u8("row's mark")? {
            b'K' => Ok(Some(Old::Key(self.tuple()?))),
            b'O' => Ok(Some(Old::Row(self.tuple()?))),
            b'N' => Ok(None),
            _ => Err(Malformed::Field("row's mark")),
        }
    }

    fn tuple(&mut self) -> Result<Tuple<'a>, Malformed> {
        let count = self.u16("number of columns")?;
        let bytes = self.rest;
        for _ in 0..count {
            self.field()?;
        }
        Ok(Tuple { count, bytes: &bytes[..bytes.len() - self.rest.len()] })
    }

    fn field(&mut self) -> Result<Field<'a>, Malformed> {
        match self.u8("column's mark")? {
            b't' => {
                let length = self.u32("value's length")? as usize;
                Ok(Field::Text(self.take(length, "value")?))
            }
            b'n' => Ok(Field::Null),
            b'u' => Ok(Field::Unchanged),
            // 'b' is sent only where `binary` was asked for.
            _ => Err(Malformed::Field("column's mark")),
        }
    }

    fn column(&mut self) -> Result<RelationColumn<'a>, Malformed> {
        Ok(RelationColumn {
            key: self.u8("column's flags")? & 1 != 0,
            name: self.string("column's name")?,
            type_oid: self.u32("column's type")?,
            type_modifier: i32::from_be_bytes(self.array("column's type modifier")?),
        })
    }
}

#[cfg(test)]
mod tests;
