//! Numbers as COBOL stores them, to digits and back.
//!
//! IBM, *Enterprise COBOL Programming Guide*, "Formats for numeric data" (zoned, packed, binary, sign codes), and
//! *z/Architecture Principles of Operation*, "Hexadecimal-floating-point" (IBM floats).

use super::{Blank, FieldFault};

/// Digits and sign of one number, most significant first.
pub(super) struct Digits {
    pub(super) negative: bool,
    digits: [u8; 40],
    count: usize,
}

impl Digits {
    pub(super) fn new() -> Digits {
        Digits { negative: false, digits: [0; 40], count: 0 }
    }

    pub(super) fn push(&mut self, digit: u8) {
        self.digits[self.count] = digit;
        self.count += 1;
    }

    /// Text with `scale` digits after the point (zeros before it for a negative one), no leading zeros, no minus before zero.
    pub(super) fn write(&self, scale: i16, out: &mut Vec<u8>) {
        let digits = &self.digits[..self.count];
        let lead = digits.iter().take_while(|digit| **digit == 0).count();
        let significant = &digits[lead..];
        if self.negative && !significant.is_empty() {
            out.push(b'-');
        }
        let ascii = |digit: &u8| b'0' + digit;
        if scale <= 0 {
            match significant.is_empty() {
                true => out.push(b'0'),
                false => {
                    out.extend(significant.iter().map(ascii));
                    out.extend(std::iter::repeat_n(b'0', usize::from(scale.unsigned_abs())));
                }
            }
            return;
        }
        let scale = scale as usize;
        let whole = digits.len().saturating_sub(scale);
        if lead >= whole {
            out.push(b'0');
        } else {
            out.extend(digits[lead..whole].iter().map(ascii));
        }
        out.push(b'.');
        out.extend(std::iter::repeat_n(b'0', scale.saturating_sub(digits.len())));
        out.extend(digits[whole..].iter().map(ascii));
    }
}

/// Where a zoned number has its sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SignAt {
    None,
    /// With the first or last digit, in one byte.
    Overpunched {
        leading: bool,
    },
    Separate {
        leading: bool,
    },
}

/// How an ASCII file writes a digit and a sign in one byte.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Overpunch {
    /// As characters translated from EBCDIC: `{` `A`–`I` are +0 to +9, `}` `J`–`R` are −0 to −9.
    #[default]
    Translated,
    /// As compilers on PCs write it: `0`–`9`, and `p`–`y` for −0 to −9.
    Native,
}

/// `false`: the field is blank, and null by the rule for it.
pub(super) fn zoned(
    bytes: &[u8],
    sign: SignAt,
    ebcdic: bool,
    overpunch: Overpunch,
    blank: Blank,
    digits: &mut Digits,
) -> Result<bool, FieldFault> {
    let space = if ebcdic { 0x40 } else { b' ' };
    if let Some(is) = is_blank(bytes, space, blank) {
        return is;
    }
    let (body, signed) = match sign {
        SignAt::None => (bytes, None),
        SignAt::Separate { leading } => {
            let (byte, body) =
                if leading { (bytes[0], &bytes[1..]) } else { (bytes[bytes.len() - 1], &bytes[..bytes.len() - 1]) };
            digits.negative = match (byte, ebcdic) {
                (0x4e, true) | (b'+', false) => false,
                (0x60, true) | (b'-', false) => true,
                _ => return Err(FieldFault::new(format!("the sign is 0x{byte:02x}, expected `+` or `-`"))),
            };
            (body, None)
        }
        SignAt::Overpunched { leading } => (bytes, Some(if leading { 0 } else { bytes.len() - 1 })),
    };
    let zone = if ebcdic { 0xf0 } else { 0x30 };
    for (index, byte) in body.iter().enumerate() {
        let digit = byte.wrapping_sub(zone);
        if digit <= 9 {
            digits.push(digit);
        } else if signed == Some(index) {
            let (digit, negative) = punched(*byte, ebcdic, overpunch).ok_or_else(|| {
                FieldFault::new(format!("byte {} is 0x{byte:02x}, expected a digit with a sign", index + 1))
            })?;
            digits.push(digit);
            digits.negative = negative;
        } else {
            return Err(FieldFault::new(format!("byte {} is 0x{byte:02x}, expected a digit", index + 1)));
        }
    }
    Ok(true)
}

fn punched(byte: u8, ebcdic: bool, overpunch: Overpunch) -> Option<(u8, bool)> {
    if ebcdic {
        // Sign codes in the zone: A, C, E, F plus; B, D minus.
        let (zone, digit) = (byte >> 4, byte & 0x0f);
        return (digit <= 9 && zone >= 0xa).then_some((digit, matches!(zone, 0xb | 0xd)));
    }
    match (overpunch, byte) {
        (Overpunch::Translated, b'{') => Some((0, false)),
        (Overpunch::Translated, b'A'..=b'I') => Some((byte - b'A' + 1, false)),
        (Overpunch::Translated, b'}') => Some((0, true)),
        (Overpunch::Translated, b'J'..=b'R') => Some((byte - b'J' + 1, true)),
        (Overpunch::Native, b'p'..=b'y') => Some((byte - b'p', true)),
        _ => None,
    }
}

/// Spaces or low-values through and through: what the rule says of them.
fn is_blank(bytes: &[u8], space: u8, blank: Blank) -> Option<Result<bool, FieldFault>> {
    let first = bytes[0];
    if first != space && first != 0 || !bytes.iter().all(|byte| *byte == first) {
        return None;
    }
    Some(match blank {
        Blank::Null => Ok(false),
        Blank::Error => {
            let what = if first == 0 { "low-values" } else { "spaces" };
            Err(FieldFault::new(format!("it holds {what}, expected a number; `blank_numbers: null` makes them null")))
        }
    })
}

/// Two digits in a byte, the sign in the last half: A, C, E, F plus; B, D minus. `digits`: as many as the PICTURE has.
pub(super) fn packed(
    bytes: &[u8],
    count: u16,
    space: u8,
    blank: Blank,
    digits: &mut Digits,
) -> Result<bool, FieldFault> {
    if let Some(is) = is_blank(bytes, space, blank) {
        return is;
    }
    let last = bytes.len() * 2 - 1;
    // An even number of digits leaves the first half byte over.
    let unused = last - usize::from(count);
    for index in 0..last {
        let digit = if index % 2 == 0 { bytes[index / 2] >> 4 } else { bytes[index / 2] & 0x0f };
        if digit > 9 {
            return Err(FieldFault::new(format!("half byte {} is 0x{digit:x}, expected a digit", index + 1)));
        }
        if index < unused && digit != 0 {
            return Err(FieldFault::new(format!(
                "it has {} digits, more than its PICTURE: the first is {digit}",
                count + 1
            )));
        }
        if index >= unused {
            digits.push(digit);
        }
    }
    digits.negative = match bytes[bytes.len() - 1] & 0x0f {
        0xa | 0xc | 0xe | 0xf => false,
        0xb | 0xd => true,
        sign => return Err(FieldFault::new(format!("the sign is 0x{sign:x}, expected 0xa to 0xf"))),
    };
    Ok(true)
}

/// 2, 4 or 8 bytes of two's complement.
pub(super) fn binary(bytes: &[u8], signed: bool, little_endian: bool, digits: &mut Digits) {
    let mut wide = [0; 8];
    wide[8 - bytes.len()..].copy_from_slice(bytes);
    if little_endian {
        wide[8 - bytes.len()..].reverse();
    }
    let unused = 64 - 8 * bytes.len() as u32;
    let raw = u64::from_be_bytes(wide) << unused;
    let magnitude = if signed {
        let value = raw as i64 >> unused;
        digits.negative = value < 0;
        value.unsigned_abs()
    } else {
        raw >> unused
    };
    let mut divisor = 10u64.pow(19);
    while divisor > 0 {
        digits.push((magnitude / divisor % 10) as u8);
        divisor /= 10;
    }
}

/// COMP-1 and COMP-2 as text. IBM's long form has up to 56 bits of fraction: what a binary64 does not hold is rounded to the nearest.
pub(super) fn float(bytes: &[u8], ibm: bool, little_endian: bool, out: &mut Vec<u8>) {
    use std::io::Write as _;
    let mut wide = [0; 8];
    wide[..bytes.len()].copy_from_slice(bytes);
    if little_endian {
        wide[..bytes.len()].reverse();
    }
    let raw = u64::from_be_bytes(wide);
    let text = |out: &mut Vec<u8>, value: f64| match value {
        value if value.is_nan() => out.extend_from_slice(b"NaN"),
        value if value.is_infinite() => out.extend_from_slice(if value < 0.0 { b"-Infinity" } else { b"Infinity" }),
        value => drop(write!(out, "{value:?}").map(|()| trim_point(out))),
    };
    if ibm {
        let fraction = (raw & 0x00ff_ffff_ffff_ffff) as f64;
        let exponent = ((raw >> 56) & 0x7f) as i32 - 64;
        let magnitude = fraction * 2f64.powi(4 * exponent - 56);
        text(out, if raw >> 63 == 1 && magnitude != 0.0 { -magnitude } else { magnitude });
    } else if bytes.len() == 4 {
        let value = f32::from_bits((raw >> 32) as u32);
        if value.is_finite() {
            drop(write!(out, "{value:?}").map(|()| trim_point(out)));
        } else {
            text(out, f64::from(value));
        }
    } else {
        text(out, f64::from_bits(raw));
    }
}

/// Rust writes `1.0`; the shortest text is `1`.
fn trim_point(out: &mut Vec<u8>) {
    if out.ends_with(b".0") {
        out.truncate(out.len() - 2);
    }
}
