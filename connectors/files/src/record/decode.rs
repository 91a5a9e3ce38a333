//! The readers, and how a record goes through them.

use crate::copybook::Place;
use crate::json;
use crate::row::{Field, RowBuffer};

use super::number::{self, Digits, Overpunch, SignAt};
use super::{Blank, Charset, DependingOn, FieldFault, RecordFault};

/// Reads records of one layout.
#[derive(Debug)]
pub struct Decoder {
    pub(super) fields: Vec<Field>,
    pub(super) nodes: Vec<Node>,
    pub(super) areas: Vec<Area>,
    pub(super) length: usize,
    pub(super) depending_on: DependingOn,
    pub(super) varies: bool,
    pub(super) space: u8,
}

/// One column of the record, or one member of a table's entries.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) field: Field,
    /// In its scope, where every table before it has all its entries.
    pub(super) offset: usize,
    /// (area, variant) that must be chosen, or the value is null.
    pub(super) guards: Vec<(usize, usize)>,
    pub(super) step: Step,
}

#[derive(Debug)]
pub(super) enum Step {
    Field { length: usize, reader: Reader },
    Table(Box<Table>),
}

#[derive(Debug)]
pub(super) struct Table {
    pub(super) count: Count,
    /// Bytes of an entry whose own tables have all their entries.
    pub(super) stride: usize,
    pub(super) nodes: Vec<Node>,
    /// The entries are values, not groups.
    pub(super) single: bool,
}

#[derive(Debug)]
pub(super) enum Count {
    Fixed(usize),
    Depending { slot: Slot, name: String, min: usize, max: usize },
}

/// A field that others look at.
#[derive(Clone, Debug)]
pub(super) struct Slot {
    /// Index of its scope: 0 is the record.
    pub(super) depth: usize,
    pub(super) offset: usize,
    pub(super) length: usize,
    pub(super) reader: Reader,
}

/// Bytes with several descriptions.
#[derive(Debug)]
pub(super) struct Area {
    pub(super) name: String,
    pub(super) place: Place,
    pub(super) rules: Vec<Rule>,
}

#[derive(Debug)]
pub(super) struct Rule {
    pub(super) name: String,
    /// Index of the item among those beside it.
    pub(super) variant: usize,
    /// Fields, and what each may hold.
    pub(super) when: Vec<(Slot, Vec<Vec<u8>>)>,
}

#[derive(Clone, Debug)]
pub(super) enum Reader {
    /// `trim`: the space that is cut off at the end.
    Text {
        charset: Charset,
        trim: Option<u8>,
    },
    Utf16 {
        trim: bool,
    },
    Zoned {
        sign: SignAt,
        scale: i16,
        ebcdic: bool,
        overpunch: Overpunch,
        blank: Blank,
    },
    Packed {
        digits: u16,
        scale: i16,
        space: u8,
        blank: Blank,
    },
    Binary {
        signed: bool,
        scale: i16,
        little_endian: bool,
    },
    Float {
        ibm: bool,
        little_endian: bool,
    },
}

impl Reader {
    pub(super) fn is_number(&self) -> bool {
        !matches!(self, Reader::Text { .. } | Reader::Utf16 { .. })
    }

    /// Appends the value; `false` where it is null.
    pub(super) fn read(&self, bytes: &[u8], out: &mut Vec<u8>) -> Result<bool, FieldFault> {
        let mut digits = Digits::new();
        let scale = match *self {
            Reader::Text { charset, trim } => {
                let text = trim.map_or(bytes, |space| trimmed(bytes, space));
                return match charset.decode(text, out) {
                    Ok(()) => Ok(true),
                    Err((byte, at)) => Err(FieldFault::new(format!(
                        "byte {} is 0x{byte:02x}, which is no character of its charset",
                        at + 1
                    ))),
                };
            }
            Reader::Utf16 { trim } => return utf16(bytes, trim, out),
            Reader::Float { ibm, little_endian } => {
                number::float(bytes, ibm, little_endian, out);
                return Ok(true);
            }
            Reader::Zoned { sign, scale, ebcdic, overpunch, blank } => {
                if !number::zoned(bytes, sign, ebcdic, overpunch, blank, &mut digits)? {
                    return Ok(false);
                }
                scale
            }
            Reader::Packed { digits: count, scale, space, blank } => {
                if !number::packed(bytes, count, space, blank, &mut digits)? {
                    return Ok(false);
                }
                scale
            }
            Reader::Binary { signed, scale, little_endian } => {
                number::binary(bytes, signed, little_endian, &mut digits);
                scale
            }
        };
        digits.write(scale, out);
        Ok(true)
    }
}

fn trimmed(bytes: &[u8], space: u8) -> &[u8] {
    let end = bytes.iter().rposition(|byte| *byte != space).map_or(0, |last| last + 1);
    &bytes[..end]
}

fn utf16(bytes: &[u8], trim: bool, out: &mut Vec<u8>) -> Result<bool, FieldFault> {
    let from = out.len();
    let units = bytes.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]]));
    for char in char::decode_utf16(units) {
        let char = char.map_err(|error| FieldFault::new(format!("it is not UTF-16: {error}")))?;
        out.extend_from_slice(char.encode_utf8(&mut [0; 4]).as_bytes());
    }
    while trim && out.len() > from && out.last() == Some(&b' ') {
        out.pop();
    }
    Ok(true)
}

/// Scopes within scopes; levels go to 49, and each takes a level.
const DEPTH_MAX: usize = 50;

struct Walk<'a> {
    record: &'a [u8],
    /// Where each scope starts.
    bases: [usize; DEPTH_MAX],
    depth: usize,
    sliding: bool,
    scratch: Vec<u8>,
}

impl Decoder {
    /// The columns of the record.
    pub fn fields(&self) -> &[Field] {
        &self.fields
    }

    /// Bytes of a record whose tables have all their entries.
    pub fn length(&self) -> usize {
        self.length
    }

    /// Records differ in length.
    pub fn varies(&self) -> bool {
        self.varies && self.depending_on != DependingOn::Fixed
    }

    /// Some field's bytes are no characters: any of them may look like the end of a line.
    pub fn has_binary(&self) -> bool {
        self.nodes.iter().any(Node::has_binary)
    }

    /// What a text line whose spaces at the end were cut off is filled up with.
    pub fn space(&self) -> u8 {
        self.space
    }

    /// Appends the record's values to `row`, one for each of [`Decoder::fields`].
    pub fn decode(&self, record: &[u8], row: &mut RowBuffer) -> Result<(), RecordFault> {
        let sliding = self.depending_on == DependingOn::Sliding;
        let mut walk = Walk { record, bases: [0; DEPTH_MAX], depth: 0, sliding, scratch: Vec::new() };
        if !self.varies() && record.len() != self.length {
            return Err(RecordFault::Length { found: record.len(), expected: self.length });
        }
        let mut chosen = Vec::new();
        for area in &self.areas {
            chosen.push(walk.choose(area)?);
        }
        let (mut shrunk, mut last_shrunk) = (0, 0);
        for node in &self.nodes {
            if node.guards.iter().any(|(area, variant)| chosen[*area] != *variant) {
                row.null();
                continue;
            }
            match &node.step {
                Step::Field { length, reader } => {
                    let at = node.offset - shrunk;
                    let bytes = walk.bytes(&node.field.name, at, *length)?;
                    row.write(|out| reader.read(bytes, out)).map_err(|fault| node.fault(at, fault))?;
                }
                Step::Table(table) => {
                    let mut less = 0;
                    row.write(|out| {
                        less = walk.table(node, table, node.offset - shrunk, out)?;
                        Ok::<_, RecordFault>(true)
                    })?;
                    if sliding {
                        shrunk += less
                    } else if node.offset + table.full() == self.length {
                        last_shrunk = less
                    }
                }
            }
        }
        let expected = self.length - shrunk - last_shrunk;
        match self.varies() && record.len() != expected {
            true => Err(RecordFault::Length { found: record.len(), expected }),
            false => Ok(()),
        }
    }
}

impl Table {
    /// Bytes of the table with all its entries.
    fn full(&self) -> usize {
        self.stride
            * match self.count {
                Count::Fixed(count) => count,
                Count::Depending { max, .. } => max,
            }
    }
}

impl Node {
    fn has_binary(&self) -> bool {
        match &self.step {
            Step::Field { reader, .. } => !matches!(reader, Reader::Text { .. } | Reader::Zoned { .. }),
            Step::Table(table) => table.nodes.iter().any(Node::has_binary),
        }
    }

    fn fault(&self, at: usize, fault: FieldFault) -> RecordFault {
        RecordFault::Field { field: self.field.name.clone(), at, fault }
    }
}

impl<'a> Walk<'a> {
    fn bytes(&self, field: &str, at: usize, length: usize) -> Result<&'a [u8], RecordFault> {
        let end = self.record.len();
        self.record.get(at..at + length).ok_or_else(|| RecordFault::Field {
            field: field.to_owned(),
            at,
            fault: FieldFault::new(format!("the record ends at byte {end}, and {length} bytes are expected here")),
        })
    }

    fn slot(&mut self, name: &str, slot: &Slot) -> Result<bool, RecordFault> {
        let at = self.bases[slot.depth] + slot.offset;
        let bytes = self.bytes(name, at, slot.length)?;
        self.scratch.clear();
        let read = slot.reader.read(bytes, &mut self.scratch);
        read.map_err(|fault| RecordFault::Field { field: name.to_owned(), at, fault })
    }

    /// The variant that the first rule that holds names.
    fn choose(&mut self, area: &Area) -> Result<usize, RecordFault> {
        for rule in &area.rules {
            let mut holds = true;
            for (slot, values) in &rule.when {
                let given = self.slot(&area.name, slot)?;
                holds &= given && values.contains(&self.scratch);
            }
            if holds {
                return Ok(rule.variant);
            }
        }
        Err(RecordFault::NoVariant { area: area.name.clone() })
    }

    fn count(&mut self, count: &Count) -> Result<usize, RecordFault> {
        let (slot, name, min, max) = match count {
            Count::Fixed(count) => return Ok(*count),
            Count::Depending { slot, name, min, max } => (slot, name, *min, *max),
        };
        let given = self.slot(name, slot)?;
        let number =
            std::str::from_utf8(&self.scratch).ok().filter(|_| given).and_then(|text| text.parse::<usize>().ok());
        number.filter(|number| (min..=max).contains(number)).ok_or_else(|| RecordFault::Field {
            field: name.clone(),
            at: self.bases[slot.depth] + slot.offset,
            fault: FieldFault::new(format!("it says how many entries follow, expected {min} to {max}")),
        })
    }

    /// Writes a JSON array. Returns by how many bytes the table is shorter than with all its entries.
    fn table(&mut self, node: &Node, table: &Table, at: usize, out: &mut Vec<u8>) -> Result<usize, RecordFault> {
        let count = self.count(&table.count)?;
        let mut end = at;
        out.push(b'[');
        self.depth += 1;
        for index in 0..count {
            if index > 0 {
                out.push(b',');
            }
            self.bases[self.depth] = end;
            if !table.single {
                out.push(b'{');
            }
            let mut shrunk = 0;
            for (position, inner) in table.nodes.iter().enumerate() {
                if !table.single {
                    if position > 0 {
                        out.push(b',');
                    }
                    json::string(inner.field.name.as_bytes(), out);
                    out.push(b':');
                }
                let at = end + inner.offset - shrunk;
                match &inner.step {
                    Step::Field { length, reader } => {
                        let bytes =
                            self.bytes(if table.single { &node.field.name } else { &inner.field.name }, at, *length)?;
                        self.scratch.clear();
                        let given = reader.read(bytes, &mut self.scratch).map_err(|fault| inner.fault(at, fault))?;
                        json::value(&inner.field.kind, given.then_some(&self.scratch), out);
                    }
                    Step::Table(table) => {
                        let less = self.table(inner, table, at, out)?;
                        shrunk += if self.sliding { less } else { 0 };
                    }
                }
            }
            if !table.single {
                out.push(b'}');
            }
            end += table.stride - shrunk;
        }
        self.depth -= 1;
        out.push(b']');
        Ok(at + table.full() - end)
    }
}
