//! DBF: dBase III and IV, FoxPro 2, Visual FoxPro.
//!
//! Facts: Microsoft, *Visual FoxPro*, "Table File Structure" and "Code Pages Supported by Visual FoxPro"; dBase's own "Table File (.DBF)".

use std::io::Read;

use towpath_contract::Kind;

use super::input::Input;
use super::value::{self, Rules};
use super::{FileFault, Next, Reader, fault};
use crate::config::DbfConfig;
use crate::record::{Blank, Charset};
use crate::row::{Field, RowBuffer};

pub(crate) struct Dbf {
    charset: Option<Charset>,
}

impl Dbf {
    pub(super) fn new(config: &DbfConfig) -> Result<Dbf, (String, String)> {
        let named = |name: &String| {
            Charset::named(name).ok_or_else(|| {
                (
                    "encoding".to_owned(),
                    format!("found {name:?}, expected an encoding with one byte for each character, or utf-8"),
                )
            })
        };
        Ok(Dbf { charset: config.encoding.as_ref().map(named).transpose()? })
    }

    pub(super) fn open(&self, file: Box<dyn Read + Send>, record_max: usize) -> Result<Box<dyn Reader>, FileFault> {
        let mut input = Input::new(file, record_max);
        let head = input.at_least(HEAD)?;
        let Some(head) = head.first_chunk::<HEAD>().copied() else {
            return fault(&input, "the file is too short for the head of a DBF file");
        };
        if !VERSIONS.contains(&head[0]) {
            return fault(
                &input,
                format!("0x{:02x} is no version of dBase III, dBase IV, FoxPro 2 or Visual FoxPro", head[0]),
            );
        }
        let charset = match self.charset.or_else(|| code_page(head[29]).and_then(Charset::named)) {
            Some(charset) => charset,
            None => {
                let message = format!(
                    "the file's code page mark is 0x{:02x}, which says no charset that is supported: set `encoding`",
                    head[29]
                );
                return fault(&input, message);
            }
        };
        let records = u32::from_le_bytes([head[4], head[5], head[6], head[7]]);
        let head_length = usize::from(u16::from_le_bytes([head[8], head[9]]));
        let length = usize::from(u16::from_le_bytes([head[10], head[11]]));
        if head_length < HEAD + 1 || input.at_least(head_length)?.len() < head_length {
            return fault(&input, "the head of the file is shorter than it says");
        }
        let columns = columns(&input, head_length, head[0])?;
        input.consume(head_length);
        let end = columns.last().map_or(0, |column| column.start + column.length);
        if columns.is_empty() || end > length {
            return fault(&input, format!("the fields have {end} bytes, and a record has {length}"));
        }
        let mut fields: Vec<Field> = columns.iter().filter(|column| !column.hidden).map(Column::field).collect();
        fields.push(Field { name: "deleted".into(), kind: Kind::Bool, type_name: "deletion mark".into() });
        Ok(Box::new(Open { input, charset, columns, fields, length, left: records, text: Vec::new() }))
    }
}

const HEAD: usize = 32;
const DESCRIPTOR: usize = 32;

/// dBase III (also with memo), FoxBASE+; dBase IV; its SQL tables; FoxPro 2 with memo; Visual FoxPro, with autoincrement, with varchar.
const VERSIONS: [u8; 11] = [0x03, 0x83, 0xfb, 0x43, 0x63, 0x8b, 0xcb, 0xf5, 0x30, 0x31, 0x32];

fn code_page(mark: u8) -> Option<&'static str> {
    Some(match mark {
        0x01 => "ibm437",
        0x02 => "ibm850",
        0x03 | 0x57 => "windows-1252",
        0x64 => "ibm852",
        0x65 => "ibm866",
        0x7c => "windows-874",
        0x7d => "windows-1255",
        0x7e => "windows-1256",
        0xc8 => "windows-1250",
        0xc9 => "windows-1251",
        0xca => "windows-1254",
        0xcb => "windows-1253",
        _ => return None,
    })
}

struct Column {
    name: String,
    kind: u8,
    start: usize,
    length: usize,
    decimals: u8,
    /// Visual FoxPro's own: `_NullFlags`.
    hidden: bool,
    /// The bits of `_NullFlags` that say that a varchar is not full, and that the value is null.
    short_bit: Option<usize>,
    null_bit: Option<usize>,
}

fn columns(input: &Input, head_length: usize, version: u8) -> Result<Vec<Column>, FileFault> {
    let visual = matches!(version, 0x30..=0x32);
    let head = &input.available()[..head_length];
    let mut columns = Vec::new();
    let (mut start, mut bits, mut at) = (1, 0, HEAD);
    while head.get(at).is_some_and(|byte| *byte != 0x0d) {
        let Some(raw) = head.get(at..at + DESCRIPTOR) else { return fault(input, "the list of fields has no end") };
        at += DESCRIPTOR;
        let end = raw[..11].iter().position(|byte| *byte == 0).unwrap_or(11);
        let Some(name) = std::str::from_utf8(&raw[..end]).ok().filter(|name| name.is_ascii() && !name.is_empty())
        else {
            return fault(input, format!("field {} has no name in ASCII", columns.len() + 1));
        };
        let (kind, flags) = (raw[11], if visual { raw[18] } else { 0 });
        // A character field may be longer than a byte can say (Clipper, FoxPro).
        let long = kind == b'C' && !visual;
        let length = usize::from(raw[16]) + if long { usize::from(raw[17]) << 8 } else { 0 };
        let mut column = Column {
            name: name.to_lowercase(),
            kind,
            start,
            length,
            decimals: if long { 0 } else { raw[17] },
            hidden: kind == b'0',
            short_bit: None,
            null_bit: None,
        };
        if kind == b'V' || kind == b'Q' {
            column.short_bit = Some(bits);
            bits += 1;
        }
        if flags & 0x02 != 0 {
            column.null_bit = Some(bits);
            bits += 1;
        }
        if let Some(why) = column.unsupported(visual) {
            return fault(input, format!("field {name} has type {}: {why}", char::from(kind)));
        }
        start += length;
        columns.push(column);
    }
    let flags = columns.iter().find(|column| column.hidden).map_or(0, |column| column.length * 8);
    match bits > flags {
        true => fault(input, "fields may be null, and the file has no _NullFlags for all of them"),
        false => Ok(columns),
    }
}

impl Column {
    fn unsupported(&self, visual: bool) -> Option<String> {
        let fixed =
            |length: usize| (self.length != length).then(|| format!("it has {} bytes, expected {length}", self.length));
        match (self.kind, visual) {
            (b'M' | b'G' | b'P' | b'W', _) | (b'B', false) => Some("memo fields are not supported".into()),
            (b'C' | b'N' | b'F', _) | (b'V' | b'Q' | b'0', true) => {
                (self.length == 0).then(|| "it has no bytes".into())
            }
            (b'D', _) | (b'T' | b'Y' | b'B', true) => fixed(8),
            (b'L', _) => fixed(1),
            (b'I', true) => fixed(4),
            _ => Some("this type is not supported".into()),
        }
    }

    fn field(&self) -> Field {
        let (kind, type_name) = match self.kind {
            b'N' | b'F' if self.decimals == 0 => (Kind::Int, format!("{}({})", char::from(self.kind), self.length)),
            b'N' | b'F' => (Kind::Decimal, format!("{}({},{})", char::from(self.kind), self.length, self.decimals)),
            b'D' => (Kind::Date, "D".into()),
            b'T' => (Kind::Timestamp, "T".into()),
            b'L' => (Kind::Bool, "L".into()),
            b'I' => (Kind::Int, "I".into()),
            b'Y' => (Kind::Decimal, "Y".into()),
            b'B' => (Kind::Float, "B".into()),
            b'Q' => (Kind::Bytes, format!("Q({})", self.length)),
            kind => (Kind::Text, format!("{}({})", char::from(kind), self.length)),
        };
        Field { name: self.name.clone(), kind, type_name }
    }

    /// Appends the value; `false` where it is null. The error says what was expected.
    fn write(
        &self,
        record: &[u8],
        flags: &[u8],
        charset: Charset,
        text: &mut Vec<u8>,
        out: &mut Vec<u8>,
    ) -> Result<bool, String> {
        let bit = |bit: Option<usize>| {
            bit.is_some_and(|bit| flags.get(bit / 8).is_some_and(|byte| byte >> (bit % 8) & 1 == 1))
        };
        if bit(self.null_bit) {
            return Ok(false);
        }
        let mut bytes = &record[self.start..][..self.length];
        if bit(self.short_bit) {
            let length = usize::from(bytes[bytes.len() - 1]);
            bytes = bytes.get(..length).filter(|_| length < bytes.len()).ok_or("a length within the field")?;
        }
        let number = |at: usize| i32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let rules = Rules { decimal_comma: false, blank: Blank::Null };
        match self.kind {
            b'C' | b'V' => {
                let end = bytes.iter().rposition(|byte| *byte != b' ').map_or(0, |last| last + 1);
                let end = if self.kind == b'C' { end } else { bytes.len() };
                let decoded = charset.decode(&bytes[..end], out);
                decoded
                    .map(|()| true)
                    .map_err(|(byte, at)| format!("a character at its byte {}, found 0x{byte:02x}", at + 1))
            }
            b'N' | b'F' => {
                let field = if self.decimals == 0 { Kind::Int } else { Kind::Decimal };
                value::write(&field, bytes, rules, out).map_err(str::to_owned)
            }
            b'D' => {
                text.clear();
                if bytes.iter().all(|byte| matches!(byte, b' ' | 0)) {
                    return Ok(false);
                }
                [&bytes[..4], b"-", &bytes[4..6], b"-", &bytes[6..8]]
                    .iter()
                    .for_each(|part| text.extend_from_slice(part));
                value::write(&Kind::Date, text, rules, out).map_err(|_| "a date as YYYYMMDD".into())
            }
            b'L' => match bytes[0] {
                b'T' | b't' | b'Y' | b'y' => {
                    out.extend_from_slice(b"true");
                    Ok(true)
                }
                b'F' | b'f' | b'N' | b'n' => {
                    out.extend_from_slice(b"false");
                    Ok(true)
                }
                b' ' | b'?' | 0 => Ok(false),
                _ => Err("T, F, Y, N or a space".into()),
            },
            b'I' => {
                out.extend_from_slice(number(0).to_string().as_bytes());
                Ok(true)
            }
            b'Y' => {
                let units = i64::from_le_bytes(bytes.try_into().map_err(|_| "eight bytes")?);
                let (sign, units) = (if units < 0 { "-" } else { "" }, units.unsigned_abs());
                out.extend_from_slice(format!("{sign}{}.{:04}", units / 10_000, units % 10_000).as_bytes());
                Ok(true)
            }
            b'B' => {
                let value = f64::from_le_bytes(bytes.try_into().map_err(|_| "eight bytes")?);
                let text = if value.is_finite() {
                    value.to_string()
                } else {
                    return Err("a number, found an infinity or NaN".into());
                };
                out.extend_from_slice(text.as_bytes());
                Ok(true)
            }
            b'T' => {
                let (day, ms) = (number(0), number(4));
                if (day, ms) == (0, 0) || bytes.iter().all(|byte| *byte == b' ') {
                    return Ok(false);
                }
                let text = timestamp(day, ms).ok_or("a Julian day and milliseconds of a day")?;
                out.extend_from_slice(text.as_bytes());
                Ok(true)
            }
            _ => {
                out.extend_from_slice(bytes);
                Ok(true)
            }
        }
    }
}

/// A Julian day number of the years 1 to 9999, and milliseconds.
fn timestamp(day: i32, ms: i32) -> Option<String> {
    if !(1_721_426..=5_373_484).contains(&day) || !(0..86_400_000).contains(&ms) {
        return None;
    }
    // Fliegel and Van Flandern, Communications of the ACM 11 (1968).
    let l = i64::from(day) + 68_569;
    let n = 4 * l / 146_097;
    let l = l - (146_097 * n + 3) / 4;
    let i = 4000 * (l + 1) / 1_461_001;
    let l = l - 1461 * i / 4 + 31;
    let j = 80 * l / 2447;
    let (day, l) = (l - 2447 * j / 80, j / 11);
    let (month, year) = (j + 2 - 12 * l, 100 * (n - 49) + i + l);
    let (second, fraction) = (ms / 1000, ms % 1000);
    let time = format!("{:02}:{:02}:{:02}", second / 3600, second / 60 % 60, second % 60);
    let fraction = if fraction == 0 { String::new() } else { format!(".{fraction:03}") };
    Some(format!("{year:04}-{month:02}-{day:02}T{time}{fraction}"))
}

struct Open {
    input: Input,
    charset: Charset,
    columns: Vec<Column>,
    fields: Vec<Field>,
    length: usize,
    /// Records that the head says are still to come.
    left: u32,
    text: Vec<u8>,
}

impl Open {
    fn row(&mut self, row: &mut RowBuffer) -> Result<(), String> {
        let record = &self.input.available()[..self.length];
        let deleted: &[u8] = match record[0] {
            b' ' => b"false",
            b'*' => b"true",
            mark => return Err(format!("its deletion mark is 0x{mark:02x}, expected a space or `*`")),
        };
        let flags = self.columns.iter().find(|column| column.hidden);
        let flags = flags.map_or(&[][..], |column| &record[column.start..][..column.length]);
        for column in self.columns.iter().filter(|column| !column.hidden) {
            let (charset, text) = (self.charset, &mut self.text);
            row.write(|out| column.write(record, flags, charset, text, out))
                .map_err(|expected| format!("{}: expected {expected}", column.name))?;
        }
        row.value(deleted);
        Ok(())
    }
}

impl Reader for Open {
    fn fields(&self) -> &[Field] {
        &self.fields
    }

    fn offset(&self) -> u64 {
        self.input.offset()
    }

    fn next(&mut self, row: &mut RowBuffer) -> Result<Next, FileFault> {
        if self.left == 0 {
            // An end mark, or nothing.
            return match self.input.at_least(1)? {
                [] | [0x1a] => Ok(Next::End),
                _ => fault(&self.input, "after the last record that the head counts there is more"),
            };
        }
        let found = self.input.at_least(self.length)?.len();
        if found < self.length {
            return fault(&self.input, format!("the head counts {} records more than the file has", self.left));
        }
        self.left -= 1;
        let next = match self.row(row) {
            Ok(()) => Next::Record,
            Err(reason) => Next::Bad { bytes: self.input.available()[..self.length].to_vec(), reason },
        };
        self.input.consume(self.length);
        Ok(next)
    }
}
