//! Text words: what COPY compares and what entries are made of.

use super::lines::Char;
use super::{CopybookError, Place, Result};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Word {
    /// A run of letters, digits, `-` and `_`; a literal with its quotes; `==`; or one other character. In upper case, but for literals.
    pub(super) text: String,
    /// No space stands between this and the word before.
    pub(super) glued: bool,
    pub(super) place: Place,
}

impl Word {
    pub(super) fn is(&self, text: &str) -> bool {
        self.text == text
    }

    pub(super) fn is_literal(&self) -> bool {
        self.text.starts_with(['"', '\''])
    }

    pub(super) fn is_name(&self) -> bool {
        self.text.starts_with(is_word_char)
    }
}

pub(super) fn is_word_char(char: char) -> bool {
    char.is_alphanumeric() || char == '-' || char == '_'
}

pub(super) fn words(chars: &[Char]) -> Result<Vec<Word>> {
    let mut words = Vec::new();
    let mut rest = chars;
    let mut glued = false;
    while let Some(first) = rest.first() {
        if first.char.is_whitespace() {
            (rest, glued) = (&rest[1..], false);
            continue;
        }
        let length = length(rest)?;
        let raw = rest[..length].iter().map(|char| char.char);
        let text =
            if matches!(first.char, '"' | '\'') { raw.collect() } else { raw.flat_map(char::to_uppercase).collect() };
        words.push(Word { text, glued, place: first.place });
        (rest, glued) = (&rest[length..], true);
    }
    Ok(words)
}

/// Characters of the word that `chars` starts with.
fn length(chars: &[Char]) -> Result<usize> {
    let first = chars[0];
    match first.char {
        '"' | '\'' => {
            let mut index = 1;
            // A doubled quote is a quote within.
            loop {
                let found = chars[index..].iter().position(|char| char.char == first.char);
                let Some(at) = found else {
                    return Err(CopybookError::new(first.place, format!("this literal has no closing {}", first.char)));
                };
                index += at + 1;
                if chars.get(index).is_none_or(|char| char.char != first.char) {
                    return Ok(index);
                }
                index += 1;
            }
        }
        '=' if chars.get(1).is_some_and(|char| char.char == '=') => Ok(2),
        char if is_word_char(char) => Ok(chars.iter().take_while(|char| is_word_char(char.char)).count()),
        _ => Ok(1),
    }
}

/// Words that stand without a space between them and are both made of name characters are one: `:TAG:-ID` with its tag replaced.
pub(super) fn merged(words: Vec<Word>) -> Vec<Word> {
    let mut merged: Vec<Word> = Vec::with_capacity(words.len());
    for word in words {
        match merged.last_mut() {
            Some(last) if word.glued && last.is_name() && word.is_name() => last.text.push_str(&word.text),
            _ => merged.push(word),
        }
    }
    merged
}
