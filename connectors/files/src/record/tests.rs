use std::path::{Path, PathBuf};

use super::*;
use crate::copybook::{Form, parse};
use crate::row::RowBuffer;

fn decoder(text: &str, options: &RecordOptions) -> Decoder {
    let layout = parse(text, Form::Auto, &(), &[]).unwrap().remove(0);
    Decoder::compile(&layout, options).unwrap_or_else(|error| panic!("{error}"))
}

fn utf8() -> RecordOptions {
    RecordOptions::mainframe(Charset::UTF8)
}

fn ebcdic() -> RecordOptions {
    RecordOptions::mainframe(Charset::IBM037)
}

fn texts(row: &RowBuffer) -> Vec<String> {
    let text = |bytes: Option<&[u8]>| bytes.map_or("␀".into(), |bytes| String::from_utf8(bytes.to_vec()).unwrap());
    (0..row.len()).map(|column| text(row.get(column))).collect()
}

fn read(decoder: &Decoder, record: &[u8]) -> Result<Vec<String>, String> {
    let mut row = RowBuffer::default();
    decoder.decode(record, &mut row).map(|()| texts(&row)).map_err(|fault| fault.to_string())
}

/// Decodes one field and writes it back.
fn field(picture: &str, options: &RecordOptions, bytes: &[u8]) -> Result<String, String> {
    let decoder = decoder(&format!("01 R.\n 05 A {picture}."), options);
    let mut row = RowBuffer::default();
    decoder.decode(bytes, &mut row).map_err(|fault| fault.to_string())?;
    let mut back = Vec::new();
    if decoder.encode(&row, &mut back).is_ok() {
        let mut again = RowBuffer::default();
        decoder.decode(&back, &mut again).unwrap();
        assert_eq!(again, row, "{picture}: what is written reads back");
    }
    Ok(texts(&row).remove(0))
}

#[test]
fn zoned_numbers_keep_every_digit_and_the_sign() {
    let e = ebcdic();
    for (picture, bytes, text) in [
        ("PIC 9(5)", &b"\xf0\xf0\xf1\xf2\xf3"[..], "123"),
        ("PIC 9(3)", b"\xf0\xf0\xf0", "0"),
        ("PIC S9(3)V99", b"\xf0\xf0\xf1\xf2\xd3", "-1.23"),
        ("PIC S9(3)V99", b"\xf0\xf0\xf0\xf0\xd0", "0.00"),
        ("PIC S9(3)V99", b"\xf0\xf0\xf0\xf0\xd5", "-0.05"),
        ("PIC S9(3)", b"\xf1\xf2\xf3", "123"),
        ("PIC S9(3)", b"\xf1\xf2\xa3", "123"),
        ("PIC S9(3)", b"\xf1\xf2\xb3", "-123"),
        ("PIC S9(3) SIGN LEADING", b"\xd1\xf2\xf3", "-123"),
        ("PIC S9(3) SIGN LEADING SEPARATE", b"\x60\xf1\xf2\xf3", "-123"),
        ("PIC S9(3) SIGN TRAILING SEPARATE", b"\xf1\xf2\xf3\x4e", "123"),
        ("PIC 9(2)PPP", b"\xf1\xf2", "12000"),
        ("PIC 9(2)PPP", b"\xf0\xf0", "0"),
        ("PIC VPP99", b"\xf1\xf2", "0.0012"),
        ("PIC S9(38)", b"\xf9\xf9\xf9\xf9\xf9\xf9\xf9\xf9\xf9\xf9\xf9\xf9\xf9\xf9\xf9\xf9\xf9\xf9\xf9\xf9\xf9\xf9\xf9\xf9\xf9\xf9\xf9\xf9\xf9\xf9\xf9\xf9\xf9\xf9\xf9\xf9\xf9\xd9", "-99999999999999999999999999999999999999"),
    ] {
        assert_eq!(field(picture, &e, bytes).as_deref(), Ok(text), "{picture}");
    }
    let a = utf8();
    assert_eq!(field("PIC S9(3)V9", &a, b"012}").as_deref(), Ok("-12.0"));
    assert_eq!(field("PIC S9(3)V9", &a, b"012I").as_deref(), Ok("12.9"));
    let native = RecordOptions { overpunch: Overpunch::Native, ..utf8() };
    assert_eq!(field("PIC S9(3)", &native, b"12s").as_deref(), Ok("-123"));
    for (options, bytes, says) in [
        (&a, b"12s", "a at byte 1: byte 3 is 0x73, expected a digit with a sign"),
        (&native, b"12L", "byte 3 is 0x4c"),
        (&a, b"1 2", "byte 2 is 0x20, expected a digit"),
        (&a, b"   ", "it holds spaces"),
        (&a, b"\0\0\0", "it holds low-values"),
    ] {
        let error = field("PIC S9(3)", options, bytes).unwrap_err();
        assert!(error.contains(says), "{error}");
    }
    let blank = RecordOptions { blank_numbers: Blank::Null, ..ebcdic() };
    assert_eq!(field("PIC S9(3)", &blank, b"\x40\x40\x40").as_deref(), Ok("␀"));
    assert_eq!(field("PIC S9(3) COMP-3", &blank, b"\0\0").as_deref(), Ok("␀"));
}

#[test]
fn packed_and_binary_numbers_are_exact() {
    let e = ebcdic();
    for (picture, bytes, text) in [
        ("PIC S9(5)V99 COMP-3", &b"\x01\x23\x45\x6d"[..], "-1234.56"),
        ("PIC 9(5) COMP-3", b"\x12\x34\x5f", "12345"),
        ("PIC S9(4) COMP-3", b"\x01\x23\x4c", "1234"),
        ("PIC S9(3)PP COMP-3", b"\x12\x3b", "-12300"),
        ("PIC S9(4) COMP", b"\xff\xfe", "-2"),
        ("PIC 9(4) COMP", b"\xff\xfe", "65534"),
        ("PIC S9(9)V9(3) COMP", b"\xff\xff\xff\xff\xff\xff\xff\xff", "-0.001"),
        ("PIC S9(18) COMP-5", b"\x80\0\0\0\0\0\0\0", "-9223372036854775808"),
        ("PIC 9(18) COMP-5", b"\xff\xff\xff\xff\xff\xff\xff\xff", "18446744073709551615"),
        ("PIC S9(9) BINARY", b"\0\0\x01\0", "256"),
    ] {
        assert_eq!(field(picture, &e, bytes).as_deref(), Ok(text), "{picture}");
    }
    let little = RecordOptions { native: ByteOrder::Little, ..ebcdic() };
    assert_eq!(field("PIC S9(9) COMP-5", &little, b"\0\x01\0\0").as_deref(), Ok("256"));
    assert_eq!(field("PIC S9(9) COMP", &little, b"\0\0\x01\0").as_deref(), Ok("256"));
    for (picture, bytes, says) in [
        ("PIC S9(3) COMP-3", &b"\x12\x34"[..], "the sign is 0x4"),
        ("PIC S9(3) COMP-3", b"\x1a\x3c", "half byte 2 is 0xa"),
        ("PIC S9(4) COMP-3", b"\x91\x23\x4c", "more than its PICTURE"),
        ("PIC S9(3) COMP-3", b"\x40\x40", "it holds spaces"),
        ("PIC S9(3) COMP-3", b"\x12", "the record has 1 bytes, expected 2"),
    ] {
        let error = field(picture, &e, bytes).unwrap_err();
        assert!(error.contains(says), "{picture}: {error}");
    }
}

#[test]
fn floats_of_both_kinds_are_read() {
    // Principles of Operation: −118.625 is C276A000; 1.0 is 41100000.
    let e = ebcdic();
    for (picture, bytes, text) in [
        ("COMP-1", &b"\xc2\x76\xa0\0"[..], "-118.625"),
        ("COMP-1", b"\x41\x10\0\0", "1"),
        ("COMP-1", b"\0\0\0\0", "0"),
        ("COMP-2", b"\x41\x10\0\0\0\0\0\0", "1"),
        ("COMP-2", b"\x40\x80\0\0\0\0\0\0", "0.5"),
        ("COMP-2", b"\x7f\xff\xff\xff\xff\xff\xff\xff", "7.237005577332262e75"),
    ] {
        assert_eq!(field(picture, &e, bytes).as_deref(), Ok(text));
    }
    let ieee = RecordOptions { floats: Floats::Ieee, ..ebcdic() };
    assert_eq!(field("COMP-1", &ieee, &0.1f32.to_be_bytes()).as_deref(), Ok("0.1"));
    assert_eq!(field("COMP-2", &ieee, &(-1e300f64).to_be_bytes()).as_deref(), Ok("-1e300"));
    assert_eq!(field("COMP-2", &ieee, &f64::NAN.to_be_bytes()).as_deref(), Ok("NaN"));
    let little = RecordOptions { binary: ByteOrder::Little, ..ieee };
    assert_eq!(field("COMP-1", &little, &2.5f32.to_le_bytes()).as_deref(), Ok("2.5"));
}

#[test]
fn text_is_read_in_its_own_charset() {
    let mut options = ebcdic();
    options.charsets.insert("B".into(), Charset::UTF8);
    options.charsets.insert("C".into(), Charset::named("ibm273").unwrap());
    let copybook = "01 R.\n 05 A PIC X(3).\n 05 B PIC X(3).\n 05 C PIC X.\n 05 D PIC N(2).\n 05 E PIC ZZ9.";
    let decoder = decoder(copybook, &options);
    let record = b"\xc1\x40\x40 b \xc0\0\xe9\0 \x40\x40\xf7";
    assert_eq!(read(&decoder, record).unwrap(), ["A", " b", "ä", "é", "  7"]);
    assert!(
        read(&decoder, b"\xc1\x40\x40\xff  \xc0\0\xe9\0 \x40\x40\xf7")
            .unwrap_err()
            .contains("b at byte 4: byte 1 is 0xff")
    );
    let untrimmed = RecordOptions { trim: false, ..ebcdic() };
    assert_eq!(field("PIC X(3)", &untrimmed, b"\xc1\x40\x40").as_deref(), Ok("A  "));
}

const REDEFINED: &str = "
       01  R.
           05  KIND        PIC X.
           05  CARD        PIC X(4).
           05  BANK REDEFINES CARD.
               10  BRANCH  PIC 9(2).
               10  ACCT    PIC 9(2).
           05  RAW REDEFINES CARD PIC X(4).
";

#[test]
fn rules_choose_among_redefinitions() {
    let variant = |item: &str, values: &[&str]| Variant {
        item: item.into(),
        when: match values {
            [] => BTreeMap::new(),
            _ => BTreeMap::from([("KIND".into(), values.iter().map(|value| value.to_string()).collect())]),
        },
    };
    let options = RecordOptions { variants: vec![variant("CARD", &["C", "D"]), variant("BANK", &["B"])], ..utf8() };
    let both = decoder(REDEFINED, &options);
    let names: Vec<_> = both.fields().iter().map(|field| field.name.as_str()).collect();
    assert_eq!(names, ["kind", "card", "branch", "acct"]);
    assert_eq!(read(&both, b"D1234").unwrap(), ["D", "1234", "␀", "␀"]);
    assert_eq!(read(&both, b"B1234").unwrap(), ["B", "␀", "12", "34"]);
    assert_eq!(read(&both, b"X1234").unwrap_err(), "no variant of CARD holds for this record");
    let otherwise = RecordOptions { variants: vec![variant("BANK", &["B"]), variant("RAW", &[])], ..utf8() };
    assert_eq!(read(&decoder(REDEFINED, &otherwise), b"Xab34").unwrap(), ["X", "␀", "␀", "ab34"]);
    let layout = parse(REDEFINED, Form::Auto, &(), &[]).unwrap().remove(0);
    let error = Decoder::compile(&layout, &utf8()).unwrap_err().to_string();
    assert!(error.contains("CARD is redefined by BANK, RAW: say with `variants`"), "{error}");
    let unknown = RecordOptions { variants: vec![variant("CARD", &[]), variant("NONE", &[])], ..utf8() };
    assert!(Decoder::compile(&layout, &unknown).unwrap_err().to_string().contains("names NONE"));
}

const TABLES: &str = "
       01  R.
           05  N           PIC 9.
           05  T OCCURS 0 TO 3 DEPENDING ON N.
               10  K       PIC X(2).
               10  U OCCURS 2 PIC S9V9.
           05  L           PIC X.
           05  V OCCURS 1 TO 2 DEPENDING ON N PIC 9(2).
";

#[test]
fn tables_are_arrays_in_three_physical_layouts() {
    let sliding = decoder(TABLES, &utf8());
    let kinds: Vec<_> = sliding.fields().iter().map(|field| field.kind.clone()).collect();
    use towpath_contract::Kind;
    assert_eq!(kinds, [Kind::Int, Kind::Json, Kind::Text, Kind::Array(Box::new(Kind::Int))]);
    let expected = ["1", r#"[{"k":"a\"","u":["1.0","-1.1"]}]"#, "L", "[7]"];
    assert_eq!(read(&sliding, b"1a\"1{1JL07").unwrap(), expected);
    assert_eq!(read(&sliding, b"1a\"1{1JL07x").unwrap_err(), "the record has 11 bytes, expected 10");
    assert!(read(&sliding, b"1a\"1{1JL0").unwrap_err().contains("the record ends at byte 9"));
    assert!(
        read(&sliding, b"4").unwrap_err().contains("n at byte 1: it says how many")
            || read(&sliding, b"4").unwrap_err().contains("N at byte 1")
    );
    let padded = b"1a\"1{1J            L07  ";
    let fixed = decoder(TABLES, &RecordOptions { depending_on: DependingOn::Fixed, ..utf8() });
    assert_eq!(read(&fixed, padded).unwrap(), expected);
    let cut = decoder(TABLES, &RecordOptions { depending_on: DependingOn::Cut, ..utf8() });
    assert_eq!(read(&cut, &padded[..padded.len() - 2]).unwrap(), expected);
    assert!(read(&cut, padded).is_err());
}

#[test]
fn names_that_stand_twice_are_told_apart() {
    let decoder = decoder("01 R.\n 05 HOME.\n 10 ZIP PIC X.\n 05 WORK.\n 10 ZIP PIC X.\n 05 WORK-ZIP PIC X.", &utf8());
    let names: Vec<_> = decoder.fields().iter().map(|field| field.name.as_str()).collect();
    assert_eq!(names, ["zip", "work_zip", "work_zip_2"]);
}

fn carddemo() -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/carddemo");
    if !folder.is_dir() {
        eprintln!("skipped: {} is not there", folder.display());
        return None;
    }
    Some(folder)
}

/// EBCDIC file, ASCII file, copybook.
const TWINS: [(&str, &str, &str); 8] = [
    ("ACCTDATA.PS", "acctdata.txt", "CVACT01Y"),
    ("CARDDATA.PS", "carddata.txt", "CVACT02Y"),
    ("CARDXREF.PS", "cardxref.txt", "CVACT03Y"),
    ("CUSTDATA.PS", "custdata.txt", "CVCUS01Y"),
    ("DALYTRAN.PS", "dailytran.txt", "CVTRA06Y"),
    ("DISCGRP.PS", "discgrp.txt", "CVTRA02Y"),
    ("TRANCATG.PS", "trancatg.txt", "CVTRA04Y"),
    ("TRANTYPE.PS", "trantype.txt", "CVTRA03Y"),
];

#[test]
fn every_ebcdic_record_equals_its_ascii_twin_and_round_trips() {
    let Some(folder) = carddemo() else { return };
    for (binary, text, copybook) in TWINS {
        let copybook = std::fs::read_to_string(folder.join("copybook").join(copybook).with_extension("cpy")).unwrap();
        let layout = parse(&copybook, Form::Fixed, &(), &[]).unwrap().remove(0);
        let all =
            |options: RecordOptions| Decoder::compile(&layout, &RecordOptions { filler: true, ..options }).unwrap();
        let (from_ebcdic, from_ascii) = (all(ebcdic()), all(utf8()));
        let records = std::fs::read(folder.join("ebcdic").join(binary)).unwrap();
        let lines = std::fs::read_to_string(folder.join("ascii").join(text)).unwrap();
        assert_eq!(records.len() % from_ebcdic.length(), 0, "{binary}");
        let records: Vec<_> = records.chunks_exact(from_ebcdic.length()).collect();
        assert_eq!(records.len(), lines.lines().count(), "{binary}");
        for (number, (record, line)) in records.iter().zip(lines.lines()).enumerate() {
            let mut padded = line.as_bytes().to_vec();
            padded.resize(from_ascii.length(), b' ');
            let (mut row, mut twin) = (RowBuffer::default(), RowBuffer::default());
            from_ebcdic.decode(record, &mut row).unwrap_or_else(|fault| panic!("{binary} record {number}: {fault}"));
            from_ascii.decode(&padded, &mut twin).unwrap_or_else(|fault| panic!("{text} line {number}: {fault}"));
            let (values, mut twins) = (texts(&row), texts(&twin));
            // Where the files themselves say different things.
            match (binary, number) {
                ("ACCTDATA.PS", 48) => assert_eq!(std::mem::replace(&mut twins[10], "ZEROAPR".into()), "A000000000"),
                ("DISCGRP.PS", 33) => assert_eq!(std::mem::replace(&mut twins[3], "15.00".into()), "0.00"),
                _ => {}
            }
            assert_eq!(values, twins, "{binary} record {number}");
            let (mut back, mut twin_back) = (Vec::new(), Vec::new());
            from_ebcdic.encode(&row, &mut back).unwrap();
            from_ascii.encode(&twin, &mut twin_back).unwrap();
            assert!(back == *record && twin_back == padded, "{binary} record {number} does not round-trip");
        }
    }
}

proptest::proptest! {
    #[test]
    fn no_bytes_make_the_decoder_panic(record in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..40)) {
        for decoder in [decoder(TABLES, &utf8()), decoder("01 R.\n 05 A PIC S9(5) COMP-3.\n 05 B COMP-2.\n 05 C PIC N.\n 05 D PIC S9 SIGN LEADING SEPARATE.", &ebcdic())] {
            let _ = read(&decoder, &record);
        }
    }
}
