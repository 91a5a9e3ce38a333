//! Which framing and code page a file of COBOL records has: every pair is tried on its first records, and what comes out is judged.

use std::fs::File;
use std::path::Path;

use serde::Serialize;
use towpath_contract::Kind;

use crate::config::{CopybookConfig, FormatConfig, Framing};
use crate::format::{Format, Next, Reader};
use crate::record::EBCDIC;
use crate::row::RowBuffer;

/// One framing and code page, and how well they read the file.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Guess {
    pub framing: &'static str,
    pub charset: &'static str,
    /// Records that were looked at.
    pub records: u64,
    /// Those that could not be read.
    pub bad: u64,
    /// 0 to 100: the share of records that can be read, and of their text that is letters, digits and common punctuation.
    pub score: u32,
    /// What the framing itself stumbled over.
    pub fault: Option<String>,
    /// The first record, as `column=value`.
    pub first: Vec<String>,
}

/// Records that are looked at.
const RECORDS: u64 = 200;

const FRAMINGS: [(&str, Framing); 4] =
    [("f", Framing::F), ("v", Framing::V), ("vb", Framing::Vb), ("lines", Framing::Lines)];

/// The guesses, best first. The error says what is wrong with the copybook or the file.
pub fn probe(file: &Path, copybook: &Path, record: Option<&str>) -> Result<Vec<Guess>, String> {
    File::open(file).map_err(|error| format!("{}: {error}", file.display()))?;
    let mut guesses = Vec::new();
    let mut refused = None;
    for (framing, value) in FRAMINGS {
        for charset in EBCDIC.into_iter().chain(["windows-1252"]) {
            let config = CopybookConfig::plain(copybook.to_owned(), record.map(str::to_owned), value, charset);
            match Format::new(&FormatConfig::Copybook(config), None) {
                Ok(format) => guesses.push(guess(file, &format, framing, charset)?),
                // Another framing may do.
                Err((_, message)) => refused = Some(message),
            }
        }
    }
    guesses.sort_by_key(|guess| std::cmp::Reverse(guess.score));
    match refused {
        Some(message) if guesses.is_empty() => Err(message),
        _ => Ok(guesses),
    }
}

fn guess(path: &Path, format: &Format, framing: &'static str, charset: &'static str) -> Result<Guess, String> {
    let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let file = File::open(path).map_err(|error| failed(&error))?;
    let mut reader = format.open(Box::new(file), 1 << 20).map_err(|fault| failed(&fault))?;
    let mut guess = Guess { framing, charset, records: 0, bad: 0, score: 0, fault: None, first: Vec::new() };
    let (mut chars, mut plain) = (0u64, 0u64);
    let mut row = RowBuffer::default();
    while guess.records < RECORDS {
        row.clear();
        match reader.next(&mut row) {
            Ok(Next::End) => break,
            Ok(Next::Record) => {
                for (column, _) in reader.fields().iter().enumerate().filter(|(_, field)| field.kind == Kind::Text) {
                    let text = String::from_utf8_lossy(row.get(column).unwrap_or_default());
                    chars += text.chars().count() as u64;
                    plain += text.chars().filter(|char| is_plain(*char)).count() as u64;
                }
                if guess.records == 0 {
                    guess.first = shown(&*reader, &row);
                }
            }
            Ok(_) => guess.bad += 1,
            Err(fault) => {
                guess.fault = Some(fault.to_string());
                guess.bad += 1;
                guess.records += 1;
                break;
            }
        }
        guess.records += 1;
    }
    let good = guess.records - guess.bad;
    let share = |part: u64, whole: u64| (part * 100).checked_div(whole).unwrap_or(100);
    if guess.records > 0 && good > 0 {
        guess.score = (share(good, guess.records) * share(plain, chars) / 100) as u32;
    }
    Ok(guess)
}

fn is_plain(char: char) -> bool {
    char.is_alphanumeric() || " .,;:-_/()&'+#*@\"%!?$€".contains(char)
}

fn shown(reader: &dyn Reader, row: &RowBuffer) -> Vec<String> {
    let value = |column: usize| {
        row.get(column).map_or("null".into(), |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned())
    };
    reader.fields().iter().enumerate().map(|(column, field)| format!("{}={}", field.name, value(column))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_right_framing_and_code_page_come_first() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/files");
        let copybook = root.join("account.cpy");
        let guesses = probe(&root.join("ACCT_0001.dat"), &copybook, None).unwrap();
        let best = &guesses[0];
        assert_eq!((best.framing, best.score, best.records), ("f", 100, 2), "{guesses:#?}");
        let euro = guesses.iter().find(|guess| guess.charset == "ibm1140" && guess.framing == "f").unwrap();
        assert_eq!(euro.first, ["acct_id=17", "acct_owner=MÜLLER", "acct_balance=-1234.56", "acct_opened=19980401"]);
        assert!(guesses.iter().any(|guess| guess.framing == "vb" && guess.score == 0 && guess.fault.is_some()));
        let latin = guesses.iter().find(|guess| guess.charset == "windows-1252" && guess.framing == "f").unwrap();
        assert_eq!((latin.bad, latin.score), (2, 0));
        assert!(probe(&root.join("nothing"), &copybook, None).unwrap_err().contains("nothing"));
    }
}
