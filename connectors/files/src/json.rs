//! Values within JSON text, as a consumer also gets them outside of it.

use towpath_contract::Kind;

/// The largest integer that every JSON reader keeps: 2^53 − 1.
const SAFE_INTEGER_MAX: u64 = (1 << 53) - 1;

/// Integers within ±(2^53 − 1) and floats are numbers, other values strings; `None` is null.
pub(crate) fn value(kind: &Kind, value: Option<&Vec<u8>>, out: &mut Vec<u8>) {
    let Some(text) = value else { return out.extend_from_slice(b"null") };
    let plain = match kind {
        Kind::Int => std::str::from_utf8(text)
            .is_ok_and(|text| text.parse::<i64>().is_ok_and(|number| number.unsigned_abs() <= SAFE_INTEGER_MAX)),
        Kind::Float => text.last().is_some_and(u8::is_ascii_digit),
        _ => false,
    };
    if plain { out.extend_from_slice(text) } else { string(text, out) }
}

/// A JSON string of UTF-8 text.
pub(crate) fn string(text: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    for byte in text {
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            0..=0x1f => out.extend_from_slice(format!("\\u{byte:04x}").as_bytes()),
            byte => out.push(*byte),
        }
    }
    out.push(b'"');
}
