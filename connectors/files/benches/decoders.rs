//! How fast the decoders are on one core, in megabytes of input per second: `cargo bench -p towpath-files`.

use std::io::Cursor;
use std::time::Instant;

use serde::Deserialize;
use serde_json::json;
use towpath_files::{FormatConfig, count_records};

const BYTES: usize = 128 << 20;

/// Twenty fields: ten texts, five zoned, three packed, two binary; 200 bytes.
fn copybook() -> String {
    let texts = (0..10).map(|n| format!(" 05 T{n} PIC X(13)."));
    let zoned = (0..5).map(|n| format!(" 05 Z{n} PIC S9(7)V99."));
    let packed = (0..3).map(|n| format!(" 05 P{n} PIC S9(7)V99 COMP-3."));
    let binary = (0..2).map(|n| format!(" 05 B{n} PIC S9(9) COMP."));
    std::iter::once("01 R.".to_owned())
        .chain(texts)
        .chain(zoned)
        .chain(packed)
        .chain(binary)
        .chain([" 05 FILLER PIC XX.".into()])
        .collect::<Vec<_>>()
        .join("\n")
}

fn record() -> Vec<u8> {
    let mut record = Vec::new();
    (0..10).for_each(|_| record.extend_from_slice(b"\xd4\x81\x89\x95\x40\xe2\xa3\x99\x85\x85\xa3\x40\x40"));
    (0..5).for_each(|_| record.extend_from_slice(b"\xf0\xf0\xf1\xf2\xf3\xf4\xf5\xf6\xd7"));
    (0..3).for_each(|_| record.extend_from_slice(b"\x00\x12\x34\x56\x7c"));
    (0..2).for_each(|_| record.extend_from_slice(&123_456i32.to_be_bytes()));
    record.extend_from_slice(b"\x40\x40");
    assert_eq!(record.len(), 200);
    record
}

fn measure(name: &str, config: serde_json::Value, record: &[u8]) {
    let config = FormatConfig::deserialize(config).expect("a config");
    let file = record.repeat(BYTES / record.len());
    let bytes = file.len();
    let started = Instant::now();
    let records = count_records(&config, Box::new(Cursor::new(file))).expect("it can be read");
    let seconds = started.elapsed().as_secs_f64();
    println!("{name:<24} {:>6.0} MB/s  {:>9.0} records/s", bytes as f64 / 1e6 / seconds, records as f64 / seconds);
}

fn main() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("bench.cpy");
    std::fs::write(&file, copybook()).expect("written");
    measure("ebcdic, 20 fields", json!({ "copybook": { "file": file } }), &record());
    let columns: Vec<_> = (0..10)
        .map(|n| json!({ "name": format!("c{n}"), "type": if n % 3 == 0 { "decimal" } else { "text" } }))
        .collect();
    let line = b"12345.67,Main Street 17,\"Acme, Ltd.\",-0.50,text,some longer text of it,1,x,y,99.99\n";
    measure("delimited, 10 fields", json!({ "delimited": { "header": false, "columns": columns } }), line);
}
