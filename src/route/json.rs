//! Values as JSON. Lossless: what a JSON number cannot hold in every reader becomes a documented string.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use towpath_contract::Kind;

/// Why a value has no JSON form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NotUtf8;

/// How the bytes of a column are written; settled once per table, from its [`Kind`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// The bytes are JSON already.
    Verbatim,
    /// A number within ±(2^53−1), else a string.
    Integer,
    /// A number, or a string for `NaN` and the infinities.
    Float,
    /// A string whose bytes need no escape: digits, dates, uuids.
    Plain,
    /// A string, checked and escaped.
    Text,
    /// A base64 string.
    Base64,
}

impl Form {
    pub(super) fn of(kind: &Kind) -> Form {
        match kind {
            Kind::Bool | Kind::Json | Kind::Array(_) => Form::Verbatim,
            Kind::Int => Form::Integer,
            Kind::Float => Form::Float,
            Kind::Decimal | Kind::Uuid => Form::Plain,
            // Dates and times may hold the source's own text where their form cannot say the value.
            Kind::Date | Kind::Time | Kind::TimeTz | Kind::Timestamp | Kind::TimestampTz | Kind::Interval => Form::Text,
            Kind::Text | Kind::Other => Form::Text,
            Kind::Bytes => Form::Base64,
        }
    }

    /// Appends the value. On an error nothing is appended.
    pub(super) fn write(self, value: &[u8], out: &mut Vec<u8>) -> Result<(), NotUtf8> {
        match self {
            Form::Verbatim => out.extend_from_slice(utf8(value)?.as_bytes()),
            Form::Integer if integer_is_exact(value) => out.extend_from_slice(value),
            Form::Float if value.last().is_some_and(u8::is_ascii_digit) => out.extend_from_slice(value),
            Form::Integer | Form::Float | Form::Plain => {
                out.push(b'"');
                out.extend_from_slice(value);
                out.push(b'"');
            }
            Form::Text => write_string(utf8(value)?, out),
            Form::Base64 => write_base64(value, out),
        }
        Ok(())
    }
}

fn utf8(value: &[u8]) -> Result<&str, NotUtf8> {
    std::str::from_utf8(value).map_err(|_| NotUtf8)
}

/// Whether every JSON reader keeps all digits: ECMAScript's safe integers, up to 2^53 − 1 (RFC 8259, section 6).
fn integer_is_exact(digits: &[u8]) -> bool {
    const LARGEST: &[u8] = b"9007199254740991";
    let digits = digits.strip_prefix(b"-").unwrap_or(digits);
    digits.len() < LARGEST.len() || (digits.len() == LARGEST.len() && digits <= LARGEST)
}

/// Appends a JSON string (RFC 8259, section 7).
pub(super) fn write_string(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    let bytes = text.as_bytes();
    let mut written = 0;
    for (index, &byte) in bytes.iter().enumerate() {
        if byte >= 0x20 && byte != b'"' && byte != b'\\' {
            continue;
        }
        out.extend_from_slice(&bytes[written..index]);
        written = index + 1;
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            control => {
                const HEX: &[u8; 16] = b"0123456789abcdef";
                out.extend_from_slice(b"\\u00");
                out.push(HEX[usize::from(control >> 4)]);
                out.push(HEX[usize::from(control & 15)]);
            }
        }
    }
    out.extend_from_slice(&bytes[written..]);
    out.push(b'"');
}

pub(super) fn write_base64(value: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    let start = out.len();
    // Four characters for every three bytes, padded.
    out.resize(start + value.len().div_ceil(3) * 4, 0);
    STANDARD.encode_slice(value, &mut out[start..]).expect("the length was computed");
    out.push(b'"');
}

/// Whatever the bytes are: text comes out as JSON that reads back as the same text. For `fuzz/`.
#[cfg(any(test, fuzzing))]
pub(crate) fn write_every_form(bytes: &[u8]) {
    for form in [Form::Verbatim, Form::Integer, Form::Float, Form::Plain, Form::Text, Form::Base64] {
        let mut out = b"[".to_vec();
        if form.write(bytes, &mut out).is_err() {
            assert_eq!(out, b"[", "nothing is appended on an error");
            continue;
        }
        out.push(b']');
        match form {
            Form::Text => {
                let read: [String; 1] = serde_json::from_slice(&out).expect("a string reads back");
                assert_eq!(read[0].as_bytes(), bytes);
            }
            Form::Base64 => {
                let read: [String; 1] = serde_json::from_slice(&out).expect("a string reads back");
                assert_eq!(STANDARD.decode(&read[0]).as_deref(), Ok(bytes));
            }
            // Of these the bytes are digits, or JSON already.
            Form::Verbatim | Form::Integer | Form::Float | Form::Plain => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn json(kind: Kind, value: &[u8]) -> String {
        let mut out = Vec::new();
        Form::of(&kind).write(value, &mut out).expect("representable");
        String::from_utf8(out).expect("JSON is UTF-8")
    }

    /// A number's digits, as the reader of JSON that checks them is not to round them; or a string's text.
    fn token(kind: Kind, value: &str) -> String {
        let json = json(kind, value.as_bytes());
        match serde_json::from_str(&json).expect("well-formed") {
            serde_json::Value::String(text) => text,
            serde_json::Value::Number(_) => json,
            other => panic!("{other}"),
        }
    }

    /// With an exponent where it is below -4 or has `digits` or more, then of two digits at least. `exact`: Rust's shortest.
    fn as_postgresql_writes(number: f64, exact: String, digits: i32) -> String {
        let Some((mantissa, exponent)) = exact.split_once('e').filter(|_| number.is_finite()) else {
            return exact.replace("inf", "Infinity");
        };
        let exponent: i32 = exponent.parse().expect("digits");
        match exponent {
            _ if number == 0.0 => mantissa.into(),
            _ if (-4..digits).contains(&exponent) => fixed(mantissa, exponent),
            _ => format!("{mantissa}e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs()),
        }
    }

    fn fixed(mantissa: &str, exponent: i32) -> String {
        let (sign, mantissa) = mantissa.strip_prefix('-').map_or(("", mantissa), |rest| ("-", rest));
        let digits = mantissa.replace('.', "");
        match usize::try_from(exponent) {
            Ok(exponent) if digits.len() > exponent + 1 => {
                format!("{sign}{}.{}", &digits[..=exponent], &digits[exponent + 1..])
            }
            Ok(exponent) => format!("{sign}{digits:0<width$}", width = exponent + 1),
            Err(_) => format!("{sign}0.{}{digits}", "0".repeat(exponent.unsigned_abs() as usize - 1)),
        }
    }

    #[test]
    fn integers_stay_exact_in_every_reader() {
        for text in ["0", "-1", "9007199254740991", "-9007199254740991"] {
            assert_eq!(json(Kind::Int, text.as_bytes()), text);
        }
        for text in ["9007199254740992", "-9223372036854775808", "18446744073709551615"] {
            assert_eq!(json(Kind::Int, text.as_bytes()), format!("\"{text}\""));
        }
    }

    #[test]
    fn what_is_no_json_number_is_a_string() {
        assert_eq!(json(Kind::Float, b"1e+20"), "1e+20");
        assert_eq!(json(Kind::Float, b"-0"), "-0");
        assert_eq!(json(Kind::Float, b"NaN"), "\"NaN\"");
        assert_eq!(json(Kind::Float, b"-Infinity"), "\"-Infinity\"");
        assert_eq!(json(Kind::Decimal, b"12.50"), "\"12.50\"");
        assert_eq!(json(Kind::Date, b"0044-03-15 BC"), "\"0044-03-15 BC\"");
        assert_eq!(json(Kind::Bytes, &[0xff, 0x00]), "\"/wA=\"");
        assert_eq!(json(Kind::Json, b"{\"n\": 1.10}"), "{\"n\": 1.10}");
        assert_eq!(json(Kind::Bool, b"true"), "true");
    }

    #[test]
    fn bytes_that_are_no_text_are_refused() {
        let mut out = b"kept".to_vec();
        assert_eq!(Form::Text.write(&[0x80], &mut out), Err(NotUtf8));
        assert_eq!(out, b"kept");
    }

    proptest! {
        #[test]
        fn every_string_reads_back(text in any::<String>()) {
            let mut out = Vec::new();
            write_string(&text, &mut out);
            prop_assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), text);
        }

        #[test]
        fn every_integer_reads_back(number in any::<i64>()) {
            let value: serde_json::Value = serde_json::from_str(&json(Kind::Int, number.to_string().as_bytes())).unwrap();
            match value {
                serde_json::Value::Number(n) => prop_assert_eq!(n.as_i64(), Some(number)),
                serde_json::Value::String(s) => prop_assert!(s == number.to_string() && number.unsigned_abs() > (1 << 53) - 1),
                other => prop_assert!(false, "{}", other),
            }
        }

        #[test]
        fn every_float_reads_back(double in proptest::num::f64::ANY, single in proptest::num::f32::ANY) {
            let read = token(Kind::Float, &as_postgresql_writes(double, format!("{double:e}"), 15));
            prop_assert!(read.parse::<f64>().unwrap().to_bits() == double.to_bits() || double.is_nan() && read == "NaN");
            let read = token(Kind::Float, &as_postgresql_writes(single.into(), format!("{single:e}"), 6));
            prop_assert!(read.parse::<f32>().unwrap().to_bits() == single.to_bits() || single.is_nan() && read == "NaN");
        }

        #[test]
        fn every_decimal_reads_back(text in "-?[0-9]{1,1000}(\\.[0-9]{1,1000})?|NaN|-?Infinity") {
            prop_assert_eq!(serde_json::from_str::<String>(&json(Kind::Decimal, text.as_bytes())).unwrap(), text);
        }

        #[test]
        fn bytes_read_back(value in proptest::collection::vec(any::<u8>(), 0..50)) {
            let text: String = serde_json::from_str(&json(Kind::Bytes, &value)).unwrap();
            prop_assert_eq!(STANDARD.decode(text).unwrap(), value);
        }
    }
}
