//! Character sets of one byte per character, as tables.
//!
//! Code pages 037, 273, 500, 1047 and 1140 of IBM are arrangements of the same characters (ISO 8859-1; 1140 has the euro sign for the
//! currency sign): IBM CDRA, "Coded character sets"; 037, 500 also as the Unicode consortium's mapping tables (VENDORS/MICSFT/EBCDIC).
//! Where tables differ for control characters (0x15, 0x25), these follow the consortium's 037: 0x15 is U+0085, 0x25 is U+000A.

use encoding_rs::Encoding;

use super::dos::{IBM437, IBM850, IBM852};

/// How the text and the digits of a record are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Charset {
    /// One of the [`EBCDIC`] code pages, or ASCII in its lower half.
    pub ebcdic: bool,
    /// `None`: UTF-8.
    pub(crate) table: Option<&'static Table>,
}

/// For each byte its character; [`NONE`] where there is none.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Table(pub(crate) [u16; 256]);

pub(crate) const NONE: u16 = 0xfffd;

/// The names of the EBCDIC code pages.
pub const EBCDIC: [&str; 5] = ["ibm037", "ibm273", "ibm500", "ibm1047", "ibm1140"];

impl Charset {
    pub const IBM037: Charset = Charset { ebcdic: true, table: Some(&IBM037) };
    pub const UTF8: Charset = Charset { ebcdic: false, table: None };

    /// One of [`EBCDIC`] (also `cp037`, `037`), `ibm437`, `ibm850`, `ibm852`, or a label of the WHATWG encoding standard that has one byte per character, or `utf-8`.
    pub fn named(name: &str) -> Option<Charset> {
        let lower = name.to_ascii_lowercase();
        let number = lower.trim_start_matches(|c: char| !c.is_ascii_digit());
        let prefix = &lower[..lower.len() - number.len()];
        if ["", "ibm", "ibm-", "cp", "ebcdic-", "ebcdic-cp-"].contains(&prefix) {
            let table = match number {
                "037" | "37" => Some(&IBM037),
                "273" => Some(&IBM273),
                "500" => Some(&IBM500),
                "1047" => Some(&IBM1047),
                "1140" => Some(&IBM1140),
                _ => None,
            };
            if table.is_some() {
                return Some(Charset { ebcdic: true, table });
            }
        }
        if ["ibm", "cp", "dos-"].contains(&prefix) {
            let table = match number {
                "437" => Some(&IBM437),
                "850" => Some(&IBM850),
                "852" => Some(&IBM852),
                _ => None,
            };
            if table.is_some() {
                return Some(Charset { ebcdic: false, table });
            }
        }
        let encoding = Encoding::for_label(name.as_bytes())?;
        if encoding == encoding_rs::UTF_8 {
            return Some(Charset::UTF8);
        }
        // A table for each, made once and kept: there are a few dozen at most.
        encoding.is_single_byte().then(|| {
            let table = std::array::from_fn(|byte| {
                let decoded = encoding.decode_without_bom_handling_and_without_replacement(&[byte as u8]).map(|text| {
                    let char = text.chars().next().map_or(NONE as u32, u32::from);
                    char as u16
                });
                decoded.unwrap_or(NONE)
            });
            Charset { ebcdic: false, table: Some(Box::leak(Box::new(Table(table)))) }
        })
    }

    pub fn space(&self) -> u8 {
        if self.ebcdic { 0x40 } else { b' ' }
    }

    /// Appends the text as UTF-8. The error is the byte that is no character, and its index.
    pub fn decode(&self, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), (u8, usize)> {
        let Some(table) = self.table else {
            return match std::str::from_utf8(bytes) {
                Ok(text) => {
                    out.extend_from_slice(text.as_bytes());
                    Ok(())
                }
                Err(error) => Err((bytes[error.valid_up_to()], error.valid_up_to())),
            };
        };
        // Nearly always each is one byte of UTF-8, so that the text fits in place.
        let from = out.len();
        let mut above = 0;
        out.extend(bytes.iter().map(|byte| {
            let char = table.0[*byte as usize];
            above |= char;
            char as u8
        }));
        if above < 0x80 {
            return Ok(());
        }
        out.truncate(from);
        for (index, byte) in bytes.iter().enumerate() {
            let char = match table.0[*byte as usize] {
                NONE => return Err((*byte, index)),
                char => char::from_u32(u32::from(char)).unwrap_or('\u{fffd}'),
            };
            out.extend_from_slice(char.encode_utf8(&mut [0; 4]).as_bytes());
        }
        Ok(())
    }

    /// The bytes of a text; the error is a character that the set does not have.
    pub fn encode(&self, text: &str, out: &mut Vec<u8>) -> Result<(), char> {
        let Some(table) = self.table else {
            out.extend_from_slice(text.as_bytes());
            return Ok(());
        };
        for char in text.chars() {
            let byte =
                table.0.iter().position(|known| u32::from(*known) == u32::from(char) && *known != NONE).ok_or(char)?;
            out.push(byte as u8);
        }
        Ok(())
    }
}

const fn with<const N: usize>(changes: [(u8, u16); N]) -> Table {
    let mut table = IBM037.0;
    let mut index = 0;
    while index < N {
        table[changes[index].0 as usize] = changes[index].1;
        index += 1;
    }
    Table(table)
}

#[rustfmt::skip]
static IBM273: Table = with([
    (0x43, 0x7b), (0x4a, 0xc4), (0x4f, 0x21), (0x59, 0x7e), (0x5a, 0xdc), (0x5f, 0x5e), (0x63, 0x5b), (0x6a, 0xf6), (0x7c, 0xa7),
    (0xa1, 0xdf), (0xb0, 0xa2), (0xb5, 0x40), (0xba, 0xac), (0xbb, 0x7c), (0xc0, 0xe4), (0xcc, 0xa6), (0xd0, 0xfc), (0xdc, 0x7d),
    (0xe0, 0xd6), (0xec, 0x5c), (0xfc, 0x5d),
]);

#[rustfmt::skip]
static IBM500: Table =
    with([(0x4a, 0x5b), (0x4f, 0x21), (0x5a, 0x5d), (0x5f, 0x5e), (0xb0, 0xa2), (0xba, 0xac), (0xbb, 0x7c)]);

static IBM1047: Table = with([(0x5f, 0x5e), (0xad, 0x5b), (0xb0, 0xac), (0xba, 0xdd), (0xbb, 0xa8), (0xbd, 0x5d)]);

static IBM1140: Table = with([(0x9f, 0x20ac)]);

#[rustfmt::skip]
const IBM037: Table = Table([
    0x00, 0x01, 0x02, 0x03, 0x9c, 0x09, 0x86, 0x7f, 0x97, 0x8d, 0x8e, 0x0b, 0x0c, 0x0d, 0x0e, 0x0f,
    0x10, 0x11, 0x12, 0x13, 0x9d, 0x85, 0x08, 0x87, 0x18, 0x19, 0x92, 0x8f, 0x1c, 0x1d, 0x1e, 0x1f,
    0x80, 0x81, 0x82, 0x83, 0x84, 0x0a, 0x17, 0x1b, 0x88, 0x89, 0x8a, 0x8b, 0x8c, 0x05, 0x06, 0x07,
    0x90, 0x91, 0x16, 0x93, 0x94, 0x95, 0x96, 0x04, 0x98, 0x99, 0x9a, 0x9b, 0x14, 0x15, 0x9e, 0x1a,
    0x20, 0xa0, 0xe2, 0xe4, 0xe0, 0xe1, 0xe3, 0xe5, 0xe7, 0xf1, 0xa2, 0x2e, 0x3c, 0x28, 0x2b, 0x7c,
    0x26, 0xe9, 0xea, 0xeb, 0xe8, 0xed, 0xee, 0xef, 0xec, 0xdf, 0x21, 0x24, 0x2a, 0x29, 0x3b, 0xac,
    0x2d, 0x2f, 0xc2, 0xc4, 0xc0, 0xc1, 0xc3, 0xc5, 0xc7, 0xd1, 0xa6, 0x2c, 0x25, 0x5f, 0x3e, 0x3f,
    0xf8, 0xc9, 0xca, 0xcb, 0xc8, 0xcd, 0xce, 0xcf, 0xcc, 0x60, 0x3a, 0x23, 0x40, 0x27, 0x3d, 0x22,
    0xd8, 0x61, 0x62, 0x63, 0x64, 0x65, 0x66, 0x67, 0x68, 0x69, 0xab, 0xbb, 0xf0, 0xfd, 0xfe, 0xb1,
    0xb0, 0x6a, 0x6b, 0x6c, 0x6d, 0x6e, 0x6f, 0x70, 0x71, 0x72, 0xaa, 0xba, 0xe6, 0xb8, 0xc6, 0xa4,
    0xb5, 0x7e, 0x73, 0x74, 0x75, 0x76, 0x77, 0x78, 0x79, 0x7a, 0xa1, 0xbf, 0xd0, 0xdd, 0xde, 0xae,
    0x5e, 0xa3, 0xa5, 0xb7, 0xa9, 0xa7, 0xb6, 0xbc, 0xbd, 0xbe, 0x5b, 0x5d, 0xaf, 0xa8, 0xb4, 0xd7,
    0x7b, 0x41, 0x42, 0x43, 0x44, 0x45, 0x46, 0x47, 0x48, 0x49, 0xad, 0xf4, 0xf6, 0xf2, 0xf3, 0xf5,
    0x7d, 0x4a, 0x4b, 0x4c, 0x4d, 0x4e, 0x4f, 0x50, 0x51, 0x52, 0xb9, 0xfb, 0xfc, 0xf9, 0xfa, 0xff,
    0x5c, 0xf7, 0x53, 0x54, 0x55, 0x56, 0x57, 0x58, 0x59, 0x5a, 0xb2, 0xd4, 0xd6, 0xd2, 0xd3, 0xd5,
    0x30, 0x31, 0x32, 0x33, 0x34, 0x35, 0x36, 0x37, 0x38, 0x39, 0xb3, 0xdb, 0xdc, 0xd9, 0xda, 0x9f,
]);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_page_is_an_arrangement_of_latin_1() {
        for name in EBCDIC {
            let mut chars = Charset::named(name).unwrap().table.unwrap().0;
            chars.sort_unstable();
            if name == "ibm1140" {
                assert_eq!(chars[255], 0x20ac);
                assert!(!chars.contains(&0xa4), "the euro sign stands in the place of the currency sign");
            } else {
                assert!(chars.iter().enumerate().all(|(index, char)| index == *char as usize), "{name}");
            }
        }
    }

    #[test]
    fn text_of_every_page_reads_back() {
        let all: Vec<u8> = (0..=255).collect();
        for name in EBCDIC.iter().chain(&["iso-8859-15", "windows-1252", "ibm866", "ibm437", "ibm850", "ibm852"]) {
            let charset = Charset::named(name).unwrap();
            let (mut text, mut back) = (Vec::new(), Vec::new());
            match charset.decode(&all, &mut text) {
                Ok(()) => {
                    charset.encode(std::str::from_utf8(&text).unwrap(), &mut back).unwrap();
                    assert_eq!(back, all, "{name}");
                }
                Err(_) => panic!("{name} has a byte that is no character"),
            }
        }
        let german = Charset::named("cp273").unwrap();
        let mut text = Vec::new();
        german.decode(&[0xc0, 0x6a, 0xd0, 0xa1, 0x4a, 0xe0, 0x5a, 0xb5, 0x7c], &mut text).unwrap();
        assert_eq!(String::from_utf8(text).unwrap(), "äöüßÄÖÜ@§");
        assert_eq!(Charset::named("shift_jis"), None);
        assert_eq!(Charset::UTF8.decode(&[b'a', 0xff], &mut Vec::new()), Err((0xff, 1)));
    }
}
