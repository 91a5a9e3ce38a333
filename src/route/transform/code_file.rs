//! Codes and their words in a file.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer};

/// Larger files are refused.
const BYTES_MAX: u64 = 16 << 20;

/// A file as the config names it, read once.
#[derive(Clone, Debug, JsonSchema)]
#[schemars(with = "String")]
pub(super) struct CodeFile {
    /// Or what is wrong with the file.
    pub(super) words: Arc<Result<BTreeMap<String, String>, String>>,
}

impl<'de> Deserialize<'de> for CodeFile {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let path = String::deserialize(deserializer)?;
        Ok(CodeFile { words: Arc::new(read(Path::new(&path))) })
    }
}

fn read(path: &Path) -> Result<BTreeMap<String, String>, String> {
    let unreadable = |error: std::io::Error| format!("the file of codes cannot be read: {error}");
    let about = std::fs::metadata(path).map_err(unreadable)?;
    // A pipe would wait for its writer.
    if !about.is_file() {
        return Err("this is no file of codes".into());
    }
    let mut text = Vec::new();
    File::open(path).and_then(|file| file.take(BYTES_MAX + 1).read_to_end(&mut text)).map_err(unreadable)?;
    if text.len() as u64 > BYTES_MAX {
        return Err(format!("the file of codes is larger than {} MiB", BYTES_MAX >> 20));
    }
    words(&text)
}

fn words(text: &[u8]) -> Result<BTreeMap<String, String>, String> {
    // As spreadsheets write it, with a byte order mark in front.
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    let mut reader = csv::ReaderBuilder::new().has_headers(false).flexible(true).comment(Some(b'#')).from_reader(text);
    let mut words = BTreeMap::new();
    for record in reader.records() {
        let record = record.map_err(|error| {
            let line = error.position().map_or(0, |position| position.line());
            format!("line {line} of the file of codes is not UTF-8, or no CSV")
        })?;
        let line = record.position().map_or(0, csv::Position::line);
        let (Some(code), Some(word), None) = (record.get(0), record.get(1), record.get(2)) else {
            return Err(format!("line {line} of the file of codes has {} fields, not a code and a word", record.len()));
        };
        if words.insert(code.trim().to_owned(), word.trim().to_owned()).is_some() {
            return Err(format!("line {line} of the file of codes has a code that was there before"));
        }
    }
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_codes_is_read() {
        let read = words(
            "\u{feff}# ISO 3166\nDE, Germany\r\n\"CD\",\"Congo, Democratic Republic\"\n\n*,{{ value }}\n".as_bytes(),
        );
        let wanted = [("*", "{{ value }}"), ("CD", "Congo, Democratic Republic"), ("DE", "Germany")];
        assert_eq!(read, Ok(wanted.map(|(code, word)| (code.to_owned(), word.to_owned())).into()));
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line_and_without_what_stands_there() {
        for (text, expected) in [
            ("A,active\nB\n", "line 2 of the file of codes has 1 fields"),
            ("A,active,x\n", "line 1 of the file of codes has 3 fields"),
            ("A,active\n A ,other\n", "line 2 of the file of codes has a code that was there before"),
        ] {
            let why = words(text.as_bytes()).expect_err("it is wrong");
            assert!(why.starts_with(expected), "{why}");
        }
        assert!(words(b"A,\xff\n").is_err());
        assert!(read(Path::new("/dev/zero")).is_err(), "it would never end");
        assert!(read(Path::new("/no/such/file")).is_err());
    }
}
