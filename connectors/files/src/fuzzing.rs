//! One function for each decoder of bytes from outside: `fuzz/` calls them with bytes of its own. None may panic, hang, or hold more than a
//! small multiple of what it was given.

use std::io::Cursor;

use serde::Deserialize;

use crate::config::{DbfConfig, DelimitedConfig, FormatConfig};
use crate::copybook::{Form, parse};
use crate::format::{Format, Next};
use crate::record::{Charset, Decoder, RecordOptions};
use crate::row::RowBuffer;

/// The text of a copybook, in both forms.
pub fn copybook(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    for form in [Form::Fixed, Form::Free] {
        for layout in parse(&text, form, &(), &[]).into_iter().flatten() {
            let _ = Decoder::compile(&layout, &RecordOptions::mainframe(Charset::IBM037));
        }
    }
}

const RECORD: &str = "01 R. 05 N PIC 9. 05 A PIC S9(5)V99 COMP-3. 05 B PIC S9(4) COMP. 05 C COMP-1. 05 D PIC X(3). 05 E PIC N(2).
 05 F PIC S9(3) SIGN LEADING SEPARATE. 05 T OCCURS 0 TO 3 DEPENDING ON N. 10 G PIC S99. 10 H PIC X OCCURS 2. 05 I COMP-2.";

/// A record: what is decoded has a value for each column.
pub fn record(bytes: &[u8]) {
    let layout = parse(RECORD, Form::Free, &(), &[]).expect("a copybook").remove(0);
    let decoder = Decoder::compile(&layout, &RecordOptions::mainframe(Charset::IBM037)).expect("a layout");
    let mut row = RowBuffer::default();
    if decoder.decode(bytes, &mut row).is_ok() {
        assert_eq!(row.len(), decoder.fields().len());
    }
}

/// A DBF file.
pub fn dbf(bytes: &[u8]) {
    read(FormatConfig::Dbf(DbfConfig { encoding: Some("windows-1252".into()) }), bytes);
}

/// A delimited file; the first byte says whether there are escapes.
pub fn delimited(bytes: &[u8]) {
    let Some((first, file)) = bytes.split_first() else { return };
    let mut config = DelimitedConfig::deserialize(serde_json::json!({})).expect("defaults");
    config.escape = (first & 1 == 1).then_some('\\');
    read(FormatConfig::Delimited(config), file);
}

fn read(config: FormatConfig, file: &[u8]) {
    let format = Format::new(&config, None).expect("a config");
    let Ok(mut reader) = format.open(Box::new(Cursor::new(file.to_vec())), 1 << 20) else { return };
    let mut row = RowBuffer::default();
    let mut before = reader.offset();
    loop {
        row.clear();
        match reader.next(&mut row) {
            Ok(Next::End) | Err(_) => break,
            Ok(Next::Record) => assert_eq!(row.len(), reader.fields().len()),
            Ok(_) => {}
        }
        assert!(reader.offset() > before, "every record takes bytes");
        before = reader.offset();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_bytes_make_a_decoder_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            super::copybook(&bytes);
            super::record(&bytes);
            super::dbf(&bytes);
            super::delimited(&bytes);
        }
    }
}
