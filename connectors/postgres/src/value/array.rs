//! PostgreSQL's array text as JSON (manual, chapter "Arrays", section "Array Input and Output Syntax").

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::{Malformed, Plan, bool_name, bytes, canonical as canonical_value, expected};

/// An array's text: its elements and what stands between them (`,`; for `box` it is `;`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ArrayPlan {
    pub(crate) element: Element,
    pub(crate) delimiter: u8,
}

/// How an element is written in JSON: as the same value is written outside an array.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Element {
    Bool,
    /// A number within ±(2^53 − 1), which every JSON reader keeps; a string beyond.
    Int,
    /// A number, or one of the strings `NaN`, `Infinity`, `-Infinity`.
    Float,
    /// A base64 string.
    Bytes,
    /// The JSON text as it is.
    Json,
    /// An array within an array (of a domain over an array type): nested.
    Array(Box<ArrayPlan>),
    /// A string of the canonical form.
    Text(Plan),
}

/// PostgreSQL's MAXDIM.
const DIMENSIONS_MAX: usize = 6;

/// The largest integer that a binary64 holds exactly with all below it: 2^53 − 1.
const SAFE_INTEGER_MAX: u64 = (1 << 53) - 1;

pub(super) fn canonical(plan: &ArrayPlan, text: &[u8], out: &mut Vec<u8>) -> Result<(), Malformed> {
    if text.first() == Some(&b'[') {
        // Bounds other than 1, `[0:1]={7,8}`: a JSON array cannot say them, so the value is a JSON string of the text.
        check_bounds(text)?;
        push_json_string(text, out);
        return Ok(());
    }
    let mut reader = Reader { text, at: 0, unquoted: Vec::new() };
    reader.dimension(plan, 1, out)?;
    if reader.at != text.len() { expected("the end of the array") } else { Ok(()) }
}

fn check_bounds(text: &[u8]) -> Result<(), Malformed> {
    let bounds = memchr::memchr(b'=', text).map(|at| text.split_at(at));
    match bounds {
        Some((bounds, rest)) if rest.starts_with(b"={") && rest.ends_with(b"}") && bounds.ends_with(b"]") => Ok(()),
        _ => expected("bounds and an array"),
    }
}

struct Reader<'a> {
    text: &'a [u8],
    at: usize,
    /// The element that is being read, where escapes keep it from being read in place.
    unquoted: Vec<u8>,
}

impl<'a> Reader<'a> {
    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn dimension(&mut self, plan: &ArrayPlan, depth: usize, out: &mut Vec<u8>) -> Result<(), Malformed> {
        if self.peek() != Some(b'{') || depth > DIMENSIONS_MAX {
            return expected("an array in braces, of at most six dimensions");
        }
        self.at += 1;
        out.push(b'[');
        if self.peek() == Some(b'}') {
            self.at += 1;
            out.push(b']');
            return Ok(());
        }
        loop {
            match self.peek() {
                Some(b'{') => self.dimension(plan, depth + 1, out)?,
                Some(b'"') => self.quoted(&plan.element, out)?,
                _ => self.plain(plan, out)?,
            }
            match self.peek() {
                Some(byte) if byte == plan.delimiter => out.push(b','),
                Some(b'}') => break,
                _ => return expected("a delimiter or a closing brace"),
            }
            self.at += 1;
        }
        self.at += 1;
        out.push(b']');
        Ok(())
    }

    fn plain(&mut self, plan: &ArrayPlan, out: &mut Vec<u8>) -> Result<(), Malformed> {
        let rest = &self.text[self.at..];
        let end = memchr::memchr2(plan.delimiter, b'}', rest).unwrap_or(rest.len());
        let element = &rest[..end];
        // These are always quoted within an element.
        if element.is_empty() || memchr::memchr3(b'"', b'\\', b'{', element).is_some() {
            return expected("an element");
        }
        self.at += end;
        if element == b"NULL" {
            out.extend_from_slice(b"null");
            return Ok(());
        }
        push_element(&plan.element, element, out)
    }

    fn quoted(&mut self, element: &Element, out: &mut Vec<u8>) -> Result<(), Malformed> {
        const WRONG: &str = "a closing quote";
        let text = self.text;
        let mut start = self.at + 1;
        self.unquoted.clear();
        loop {
            let Some(length) = memchr::memchr2(b'"', b'\\', &text[start..]) else { return expected(WRONG) };
            let end = start + length;
            if text[end] == b'"' {
                self.at = end + 1;
                if self.unquoted.is_empty() {
                    return push_element(element, &text[start..end], out);
                }
                self.unquoted.extend_from_slice(&text[start..end]);
                return push_element(element, &self.unquoted, out);
            }
            self.unquoted.extend_from_slice(&text[start..end]);
            let Some(byte) = text.get(end + 1) else { return expected(WRONG) };
            self.unquoted.push(*byte);
            start = end + 2;
        }
    }
}

fn push_element(element: &Element, text: &[u8], out: &mut Vec<u8>) -> Result<(), Malformed> {
    match element {
        Element::Bool => out.extend_from_slice(bool_name(text)?.as_bytes()),
        Element::Int => match is_safe_integer(text)? {
            true => out.extend_from_slice(text),
            false => push_json_string(text, out),
        },
        Element::Float => push_float(text, out)?,
        Element::Bytes => {
            let mut raw = Vec::new();
            bytes(text, &mut raw)?;
            push_base64(&raw, out);
        }
        Element::Json => out.extend_from_slice(text),
        Element::Array(plan) => canonical(plan, text, out)?,
        Element::Text(Plan::AsIs) => push_json_string(text, out),
        Element::Text(plan) => {
            let mut canonical = Vec::new();
            canonical_value(plan, text, &mut canonical)?;
            push_json_string(&canonical, out);
        }
    }
    Ok(())
}

fn is_safe_integer(text: &[u8]) -> Result<bool, Malformed> {
    let digits = text.strip_prefix(b"-").unwrap_or(text);
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return expected("an integer");
    }
    let value = digits.iter().try_fold(0u64, |value, digit| {
        value.checked_mul(10)?.checked_add(u64::from(digit - b'0')).filter(|value| *value <= SAFE_INTEGER_MAX)
    });
    Ok(value.is_some())
}

fn push_float(text: &[u8], out: &mut Vec<u8>) -> Result<(), Malformed> {
    let starts_as_number = matches!(text, [b'0'..=b'9', ..] | [b'-', b'0'..=b'9', ..]);
    let all_of_a_number = text.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e'));
    match text {
        b"NaN" | b"Infinity" | b"-Infinity" => push_json_string(text, out),
        _ if starts_as_number && all_of_a_number => out.extend_from_slice(text),
        _ => return expected("a floating-point number"),
    }
    Ok(())
}

fn push_base64(raw: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    let start = out.len();
    // Four characters for three bytes, padded.
    out.resize(start + raw.len().div_ceil(3) * 4, 0);
    let written = STANDARD.encode_slice(raw, &mut out[start..]).expect("the room was made by base64's own rule");
    out.truncate(start + written);
    out.push(b'"');
}

fn push_json_string(text: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    let mut written = 0;
    for (at, byte) in text.iter().enumerate() {
        let short = match byte {
            b'"' => b'"',
            b'\\' => b'\\',
            b'\n' => b'n',
            b'\r' => b'r',
            b'\t' => b't',
            0..=0x1f => b'u',
            _ => continue,
        };
        out.extend_from_slice(&text[written..at]);
        out.extend_from_slice(&[b'\\', short]);
        if short == b'u' {
            out.extend_from_slice(&[b'0', b'0', b'0' + (byte >> 4), b"0123456789abcdef"[usize::from(byte & 15)]]);
        }
        written = at + 1;
    }
    out.extend_from_slice(&text[written..]);
    out.push(b'"');
}

#[cfg(test)]
mod tests;
