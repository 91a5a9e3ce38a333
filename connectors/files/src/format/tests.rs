use std::io::Cursor;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Value as Json, json};

use super::*;
use crate::config::FormatConfig;

/// Everything that the format makes of a file: rows, `bad: reason`, `trailer`.
fn read(config: Json, trailer: Option<&str>, file: &[u8]) -> Result<Vec<Vec<String>>, String> {
    let config = FormatConfig::deserialize(config).map_err(|error| error.to_string())?;
    let format = Format::new(&config, trailer).map_err(|(key, message)| format!("{key}: {message}"))?;
    let mut reader = format.open(Box::new(Cursor::new(file.to_vec())), 1 << 20).map_err(|fault| fault.to_string())?;
    let mut rows = Vec::new();
    loop {
        let mut row = RowBuffer::default();
        match reader.next(&mut row).map_err(|fault| fault.to_string())? {
            Next::Record => {
                assert_eq!(row.len(), reader.fields().len());
                let text = |column| {
                    row.get(column).map_or("␀".into(), |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap())
                };
                rows.push((0..row.len()).map(text).collect());
            }
            Next::Bad { reason, .. } => rows.push(vec![format!("bad: {reason}")]),
            Next::Trailer(trailer) => rows.push(vec![format!("{trailer:?}")]),
            Next::End => return Ok(rows),
        }
    }
}

fn shared(folder: &str) -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data").join(folder);
    if !folder.is_dir() {
        eprintln!("skipped: {} is not there", folder.display());
        return None;
    }
    Some(folder)
}

#[test]
fn csv_spectrum_parses_to_its_json() {
    let Some(folder) = shared("csv-spectrum") else { return };
    let mut seen = 0;
    for entry in std::fs::read_dir(folder.join("csvs")).unwrap() {
        let path = entry.unwrap().path();
        let expected = folder.join("json").join(path.file_stem().unwrap()).with_extension("json");
        let mut expected: Json = serde_json::from_slice(&std::fs::read(expected).unwrap()).unwrap();
        if path.ends_with("location_coordinates.csv") {
            // One object, with another number than its file.
            expected["Contact Phone Number"] = json!("2095257564");
            expected = json!([expected]);
        }
        let expected: Vec<serde_json::Map<String, Json>> = serde_json::from_value(expected).unwrap();
        let config = FormatConfig::deserialize(json!({ "delimited": {} })).unwrap();
        let format = Format::new(&config, None).unwrap();
        let mut reader = format.open(Box::new(std::fs::File::open(&path).unwrap()), 1 << 20).unwrap();
        for (number, object) in expected.iter().enumerate() {
            let mut row = RowBuffer::default();
            assert_eq!(reader.next(&mut row).unwrap(), Next::Record, "{} record {number}", path.display());
            assert_eq!(reader.fields().len(), object.len());
            for (column, field) in reader.fields().iter().enumerate() {
                let text = String::from_utf8(row.get(column).unwrap().to_vec()).unwrap();
                let mut expected = object[&field.name].as_str().unwrap().to_owned();
                if path.ends_with("newlines_crlf.csv") {
                    // Its JSON has CR LF, and this copy of the file LF alone: a value is what stands in the file.
                    expected = expected.replace("\r\n", "\n");
                }
                assert_eq!(text, expected, "{} {}", path.display(), field.name);
            }
        }
        assert_eq!(reader.next(&mut RowBuffer::default()).unwrap(), Next::End, "{}", path.display());
        seen += 1;
    }
    assert!(seen >= 12);
}

fn rows(rows: &[&[&str]]) -> Result<Vec<Vec<String>>, String> {
    Ok(rows.iter().map(|row| row.iter().map(|text| text.to_string()).collect()).collect())
}

#[test]
fn delimited_text_of_legacy_systems_is_read() {
    let columns = json!([{ "name": "a" }, { "name": "b", "type": "decimal" }]);
    let german = json!({ "delimited": { "delimiter": ";", "encoding": "windows-1252", "decimal_comma": true, "header": false, "columns": columns } });
    assert_eq!(
        read(german, None, b"M\xfcller;1,50\r\n\"x;\"\"y\"\"\r\nz\";-0,5"),
        rows(&[&["Müller", "1.50"], &["x;\"y\"\r\nz", "-0.5"]])
    );
    let escaped = json!({ "delimited": { "delimiter": "|", "quote": "'", "escape": "\\", "header": false, "columns": [{ "name": "a" }, { "name": "b" }] } });
    assert_eq!(read(escaped, None, b"'it\\'s|'|'\\\\'\n"), rows(&[&["it's|", "\\"]]));
    let plain = json!({ "delimited": { "quote": null, "null": "NULL" } });
    assert_eq!(read(plain, None, b"a,b\n\"x,NULL\n"), rows(&[&["\"x", "␀"]]));
    let quoted_null = json!({ "delimited": { "null": "" } });
    assert_eq!(read(quoted_null, None, b"\xef\xbb\xbfa,b\n\"\",\n"), rows(&[&["", "␀"]]));
    let utf16: Vec<u8> =
        "\u{feff}a\té\n".encode_utf16().chain("ä\tö\r\n".encode_utf16()).flat_map(u16::to_le_bytes).collect();
    assert_eq!(
        read(json!({ "delimited": { "delimiter": "\t", "encoding": "utf-16le" } }), None, &utf16),
        rows(&[&["ä", "ö"]])
    );
    let ebcdic = json!({ "delimited": { "encoding": "ibm037", "header": false, "columns": [{ "name": "a" }, { "name": "b" }] } });
    assert_eq!(read(ebcdic, None, b"\xc1\x6b\xc2\x25\xc3\x6b\x25"), rows(&[&["A", "B"], &["C", ""]]));
    // The header's order is not the config's.
    let swapped = json!({ "delimited": { "columns": [{ "name": "a" }, { "name": "b" }] } });
    assert_eq!(read(swapped, None, b"b,a\n1,2\n"), rows(&[&["2", "1"]]));
}

#[test]
fn what_is_not_as_said_is_bad_or_refused_and_never_guessed() {
    let ints = json!({ "delimited": { "columns": [{ "name": "a", "type": "int" }, { "name": "b" }] } });
    let found = read(ints.clone(), None, b"a,b\n1,x\n2\n,y\n3,\"z\"z\n4,w\n5,v,u\n\n6,t\n\n");
    let expected: [&[&str]; 8] = [
        &["1", "x"],
        &["bad: it has 1 fields, expected 2"],
        &["bad: a: expected a value; `blank_numbers: null` makes it null where there is none"],
        &["bad: after the quote that closes field 2 stands more text"],
        &["4", "w"],
        &["bad: it has 3 fields, expected 2"],
        &["bad: it has 1 fields, expected 2"],
        &["6", "t"],
    ];
    assert_eq!(found, rows(&expected));
    assert!(read(ints.clone(), None, b"a,b\n1,\"x\n2,y\n").unwrap_err().contains("never closes"));
    assert!(read(ints.clone(), None, b"a,c\n").unwrap_err().contains(r#"missing ["b"], unknown ["c"]"#));
    assert!(read(ints, None, b"a,b,a\n").unwrap_err().contains("twice"));
    let short = json!({ "delimited": { "short_records": "null" } });
    assert_eq!(read(short, None, b"a,b\n1\n"), rows(&[&["1", "␀"]]));
    let long = vec![b'x'; 3 << 20];
    assert!(read(json!({ "delimited": {} }), None, &long).unwrap_err().contains("record_max"));
    assert!(read(json!({ "delimited": { "delimiter": "§" } }), None, b"").unwrap_err().contains("ASCII"));
    assert!(read(json!({ "delimited": { "encoding": "klingon" } }), None, b"").unwrap_err().contains("klingon"));
    let bad_text = json!({ "delimited": { "header": false, "columns": [{ "name": "a" }] } });
    assert_eq!(read(bad_text, None, b"\xff\n"), rows(&[&["bad: a: expected text that is UTF-8"]]));
}

#[test]
fn fixed_width_lines_and_json_lines_are_read() {
    let columns = json!([{ "name": "a", "width": 3 }, { "name": "-", "width": 1 }, { "name": "n", "width": 5, "type": "decimal" }]);
    let fixed = json!({ "fixed_width": { "columns": columns, "encoding": "iso-8859-1" } });
    let found = read(fixed, Some("TRL"), b"\xe4b |  1.5\r\nxyz-00012\nxyz\nabcdefghijkl\nTRL0002");
    let expected: [&[&str]; 5] = [
        &["äb", "1.5"],
        &["xyz", "12"],
        &["bad: n: expected a value; `blank_numbers: null` makes it null where there is none"],
        &["bad: the line has 12 bytes, expected 9"],
        &["Text([84, 82, 76, 48, 48, 48, 50])"],
    ];
    assert_eq!(found, rows(&expected));
    let lines = json!({ "json_lines": { "columns": [{ "name": "i", "type": "int" }, { "name": "t" }, { "name": "d", "type": "decimal" }, { "name": "j", "type": "json" }] } });
    let file = r#"{"i":12345678901234567890123,"t":"\u00e9\n","d":0.10,"j":[1, 2.50]}
{"t":null}
{"i":1.5}
{"x":1}
{"i":1,"i":2}
{"t":5}
[]
{"i":"#;
    let expected: [&[&str]; 8] = [
        &["12345678901234567890123", "é\n", "0.10", "[1, 2.50]"],
        &["␀", "␀", "␀", "␀"],
        &["bad: i: expected an integer"],
        &["bad: it has the key \"x\", which no column names"],
        &["bad: it has the key \"i\" twice"],
        &["bad: t: expected a string"],
        &["bad: it is no JSON object"],
        &["bad: it is no JSON object, at column 5"],
    ];
    assert_eq!(read(lines, None, file.as_bytes()), rows(&expected));
}

#[test]
fn records_are_told_apart_in_every_framing() {
    let folder = tempfile::tempdir().unwrap();
    let copybook = folder.path().join("rec.cpy");
    std::fs::write(&copybook, "01 R.\n COPY BODY REPLACING ==:N:== BY ==NUM==.").unwrap();
    std::fs::write(folder.path().join("body.cpy"), "05 A PIC X(2).\n 05 :N: PIC 9(2).").unwrap();
    let config = |framing: &str, charset: &str| json!({ "copybook": { "file": copybook, "framing": framing, "charset": charset } });
    let two = rows(&[&["AB", "12"], &["C", "3"]]);
    assert_eq!(read(config("f", "ibm037"), None, b"\xc1\xc2\xf1\xf2\xc3\x40\xf0\xf3"), two);
    assert_eq!(read(config("v", "ibm037"), None, b"\0\x08\0\0\xc1\xc2\xf1\xf2\0\x08\0\0\xc3\x40\xf0\xf3"), two);
    assert_eq!(
        read(config("vb", "ibm037"), None, b"\0\x14\0\0\0\x08\0\0\xc1\xc2\xf1\xf2\0\x08\0\0\xc3\x40\xf0\xf3"),
        two
    );
    assert_eq!(
        read(
            config("vb", "ibm037"),
            None,
            b"\x80\0\0\x0c\0\x08\0\0\xc1\xc2\xf1\xf2\0\x0c\0\0\0\x08\0\0\xc3\x40\xf0\xf3"
        ),
        two
    );
    assert_eq!(read(config("lines", "utf-8"), None, b"AB12\r\nC 03\n"), two);
    for (framing, file, says) in [
        ("f", &b"\xc1\xc2\xf1\xf2\xc3"[..], "at byte 4: the last record has 1 bytes, expected 4"),
        ("v", b"\0\x08\x01\0\xc1\xc2\xf1\xf2", "spanned records"),
        ("v", b"\xc1\xc2\xf1\xf2", "no record descriptor word"),
        ("v", b"\0\x08\0\0\xc1", "the last record has 5 bytes, expected 8"),
        ("vb", b"\0\x0a\0\0\0\x08\0\0\xc1\xc2\xf1\xf2", "beyond its block"),
        ("vb", b"\xc1\xc2\xf1", "no block descriptor word"),
    ] {
        let error = read(config(framing, "ibm037"), None, file).unwrap_err();
        assert!(error.contains(says), "{framing}: {error}");
    }
    let bad = read(config("v", "ibm037"), None, b"\0\x05\0\0\xc1");
    std::fs::write(&copybook, "01 R.\n 05 A PIC 9(5) COMP-3.").unwrap();
    assert!(read(config("lines", "utf-8"), None, b"").unwrap_err().contains("may look like line ends"));
    assert_eq!(bad, rows(&[&["bad: the record has 1 bytes, expected 4"]]));
}

proptest::proptest! {
    #[test]
    fn what_is_quoted_reads_back(table in proptest::collection::vec(proptest::collection::vec("[a,\"\r\n;é ]{0,6}", 2), 1..6)) {
        let quote = |text: &String| format!("\"{}\"", text.replace('"', "\"\""));
        let file: String = table.iter().map(|row| format!("{},{}\n", quote(&row[0]), quote(&row[1]))).collect();
        let config = json!({ "delimited": { "header": false, "columns": [{ "name": "a" }, { "name": "b" }] } });
        proptest::prop_assert_eq!(read(config, None, file.as_bytes()), Ok(table));
    }
}

/// A DBF file of one version: fields as (name, type, length, decimals, flags), records as their bytes.
fn dbf(version: u8, mark: u8, fields: &[(&str, u8, u8, u8, u8)], records: &[&[u8]]) -> Vec<u8> {
    let length: usize = 1 + fields.iter().map(|field| usize::from(field.2)).sum::<usize>();
    let backlink = if matches!(version, 0x30..=0x32) { 263 } else { 0 };
    let head = 32 + 32 * fields.len() + 1 + backlink;
    let mut file = vec![version, 126, 1, 1];
    file.extend_from_slice(&(records.len() as u32).to_le_bytes());
    file.extend_from_slice(&(head as u16).to_le_bytes());
    file.extend_from_slice(&(length as u16).to_le_bytes());
    file.resize(32, 0);
    file[29] = mark;
    for (name, kind, length, decimals, flags) in fields {
        let mut descriptor = name.as_bytes().to_vec();
        descriptor.resize(32, 0);
        (descriptor[11], descriptor[16], descriptor[17], descriptor[18]) = (*kind, *length, *decimals, *flags);
        file.extend_from_slice(&descriptor);
    }
    file.push(0x0d);
    file.resize(head, 0);
    records.iter().for_each(|record| {
        assert_eq!(record.len(), length);
        file.extend_from_slice(record)
    });
    file.push(0x1a);
    file
}

#[test]
fn dbf_files_of_every_kind_are_read() {
    let plain = json!({ "dbf": {} });
    let fields = [
        ("NAME", b'C', 6, 0, 0),
        ("QTY", b'N', 4, 0, 0),
        ("PRICE", b'N', 7, 2, 0),
        ("D", b'D', 8, 0, 0),
        ("OK", b'L', 1, 0, 0),
    ];
    let file = dbf(
        0x03,
        0x02,
        &fields,
        &[b" M\x81ller  12  -1.5020240229T", b"*A                        ?", b" A     ****   1.0020240229F"],
    );
    let expected: [&[&str]; 3] = [
        &["Müller", "12", "-1.50", "2024-02-29", "true", "false"],
        &["A", "␀", "␀", "␀", "␀", "true"],
        &["bad: qty: expected an integer"],
    ];
    assert_eq!(read(plain.clone(), None, &file), rows(&expected));
    let visual = [
        ("I", b'I', 4, 0, 0),
        ("Y", b'Y', 8, 0, 2),
        ("T", b'T', 8, 0, 0),
        ("B", b'B', 8, 2, 0),
        ("V", b'V', 4, 0, 2),
        ("_NullFlags", b'0', 1, 0, 5),
    ];
    let record = |flags: u8, varchar: &[u8; 4]| {
        let mut record = vec![b' '];
        record.extend_from_slice(&(-7i32).to_le_bytes());
        record.extend_from_slice(&(-12_345i64).to_le_bytes());
        record.extend_from_slice(&2_451_545i32.to_le_bytes());
        record.extend_from_slice(&43_200_500i32.to_le_bytes());
        record.extend_from_slice(&0.25f64.to_le_bytes());
        record.extend_from_slice(varchar);
        record.push(flags);
        record
    };
    // Bits: 0 Y is null, 1 V is not full, 2 V is null.
    let (full, short, null) = (record(0, b"abc "), record(0b010, b"ab\0\x02"), record(0b101, b"    "));
    let expected: [&[&str]; 3] = [
        &["-7", "-1.2345", "2000-01-01T12:00:00.500", "0.25", "abc ", "false"],
        &["-7", "-1.2345", "2000-01-01T12:00:00.500", "0.25", "ab", "false"],
        &["-7", "␀", "2000-01-01T12:00:00.500", "0.25", "␀", "false"],
    ];
    assert_eq!(read(plain.clone(), None, &dbf(0x32, 0x03, &visual, &[&full, &short, &null])), rows(&expected));
    for (file, says) in [
        (dbf(0x8b, 0x03, &[("M", b'M', 10, 0, 0)], &[]), "memo fields are not supported"),
        (dbf(0x03, 0x00, &fields, &[]), "set `encoding`"),
        (dbf(0x04, 0x03, &fields, &[]), "no version"),
        (dbf(0x03, 0x03, &fields, &[])[..40].to_vec(), "shorter than it says"),
        (dbf(0x03, 0x03, &[("X", b'@', 8, 0, 0)], &[]), "type @: this type is not supported"),
        ([&dbf(0x03, 0x03, &[("X", b'L', 1, 0, 0)], &[b" T"])[..67], b" F"].concat(), "there is more"),
        (dbf(0x03, 0x03, &[("X", b'L', 1, 0, 0)], &[b" T", b" F"])[..68].to_vec(), "counts 1 records more"),
    ] {
        let error = read(plain.clone(), None, &file).unwrap_err();
        assert!(error.contains(says), "{error}");
    }
}

proptest::proptest! {
    #[test]
    fn no_bytes_make_a_reader_panic(file in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200)) {
        let _ = read(json!({ "delimited": { "escape": "\\" } }), None, &file);
        let _ = read(json!({ "json_lines": { "columns": [{ "name": "a" }] } }), None, &file);
        let mut head = dbf(0x32, 0x03, &[("V", b'V', 4, 0, 2), ("_NullFlags", b'0', 1, 0, 5)], &[]);
        head[4] = 9;
        head.pop();
        let _ = read(json!({ "dbf": {} }), None, &[&head[..], &file].concat());
        let _ = read(json!({ "dbf": {} }), None, &[&[0x30][..], &file].concat());
    }
}
