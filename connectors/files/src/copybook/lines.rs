//! The reference format: which characters of a source line are text, and which lines continue others.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{CopybookError, Place, Result};

/// How the lines of a copybook are laid out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Form {
    /// Fixed where every line could be, free otherwise.
    #[default]
    Auto,
    /// Columns 1–6 sequence number, 7 indicator, 8–72 text, the rest ignored.
    Fixed,
    /// The whole line is text; `*>` starts a comment.
    Free,
}

/// One character of the text, and where it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Char {
    pub(super) char: char,
    pub(super) place: Place,
}

const TEXT_FROM: usize = 7;
const TEXT_TO: usize = 72;
/// As terminals and other compilers have it.
const TAB: usize = 8;

/// The text without sequence numbers, comments and line ends, with continued lines joined.
pub(super) fn characters(text: &str, form: Form, copied: u16) -> Result<Vec<Char>> {
    let lines: Vec<Vec<char>> = text.lines().map(expand_tabs).collect();
    let fixed = match form {
        Form::Fixed => true,
        Form::Free => false,
        Form::Auto => lines.iter().all(|line| could_be_fixed(line)),
    };
    let mut joined = Joined { chars: Vec::new(), open: None, copied };
    for (index, line) in lines.iter().enumerate() {
        let number = index as u32 + 1;
        if fixed { joined.fixed(number, line)? } else { joined.free(number, line)? }
    }
    joined.closed()?;
    Ok(joined.chars)
}

fn expand_tabs(line: &str) -> Vec<char> {
    let mut chars = Vec::with_capacity(line.len());
    // Ctrl-Z ends a file on some old systems.
    for char in line.chars().filter(|char| *char != '\u{1a}') {
        match char {
            '\t' => chars.resize((chars.len() / TAB + 1) * TAB, ' '),
            other => chars.push(other),
        }
    }
    let end = chars.iter().rposition(|char| !char.is_whitespace()).map_or(0, |last| last + 1);
    chars.truncate(end);
    chars
}

fn could_be_fixed(line: &[char]) -> bool {
    let numbered =
        line.iter().take(6).all(|char| *char == ' ') || line.iter().take(6).all(|char| char.is_ascii_digit());
    numbered && line.get(6).is_none_or(|indicator| " */-Dd".contains(*indicator))
}

struct Joined {
    chars: Vec<Char>,
    /// The quote of a literal that has not ended, and where it began.
    open: Option<(char, Place)>,
    copied: u16,
}

impl Joined {
    fn fixed(&mut self, number: u32, line: &[char]) -> Result<()> {
        let text = &line[TEXT_FROM.min(line.len())..TEXT_TO.min(line.len())];
        let place = Place { line: number, column: 7, copied: self.copied };
        match line.get(6).unwrap_or(&' ') {
            '*' | '/' | 'D' | 'd' => Ok(()),
            '-' => self.continued(number, text),
            ' ' => {
                self.closed()?;
                self.push(number, TEXT_FROM, text);
                self.end(number, TEXT_FROM + text.len());
                Ok(())
            }
            other => Err(CopybookError::new(
                place,
                format!(
                    "found {other:?} in the indicator column, expected a space, `*`, `/`, `-` or `D`; is the copybook in free form?"
                ),
            )),
        }
    }

    /// Text of a line whose indicator is `-`: it goes on where the line before ended.
    fn continued(&mut self, number: u32, text: &[char]) -> Result<()> {
        let skipped = text.iter().take_while(|char| **char == ' ').count();
        let place = Place { line: number, column: (TEXT_FROM + skipped + 1) as u32, copied: self.copied };
        let Some(end) = self.chars.iter().rposition(|char| char.char == '\n') else {
            return Err(CopybookError::new(place, "this line continues another, and there is none before it"));
        };
        let line_end = self.chars[end].place;
        self.chars.truncate(end);
        let mut rest = &text[skipped..];
        let mut from = TEXT_FROM + skipped;
        if let Some((quote, _)) = self.open {
            if rest.first() != Some(&quote) {
                let message =
                    format!("a continued literal goes on with {quote}, found {:?}", rest.iter().collect::<String>());
                return Err(CopybookError::new(place, message));
            }
            // The literal of the line before reaches to the end of its text.
            for column in line_end.column..=TEXT_TO as u32 {
                self.chars.push(Char { char: ' ', place: Place { column, ..line_end } });
            }
            rest = &rest[1..];
            from += 1;
        } else {
            while self.chars.last().is_some_and(|char| char.char == ' ') {
                self.chars.pop();
            }
        }
        self.push(number, from, rest);
        self.end(number, from + rest.len());
        Ok(())
    }

    fn free(&mut self, number: u32, line: &[char]) -> Result<()> {
        self.push(number, 0, line);
        self.closed()?;
        self.end(number, line.len());
        Ok(())
    }

    /// Takes characters up to a comment, and keeps account of literals.
    fn push(&mut self, line: u32, from: usize, text: &[char]) {
        for (index, char) in text.iter().enumerate() {
            let place = Place { line, column: (from + index + 1) as u32, copied: self.copied };
            match (self.open, *char) {
                (None, '*') if text.get(index + 1) == Some(&'>') => break,
                (None, '"' | '\'') => self.open = Some((*char, place)),
                (Some((quote, _)), char) if char == quote => self.open = None,
                _ => {}
            }
            self.chars.push(Char { char: *char, place });
        }
    }

    fn end(&mut self, line: u32, columns: usize) {
        self.chars.push(Char { char: '\n', place: Place { line, column: columns as u32 + 1, copied: self.copied } });
    }

    fn closed(&self) -> Result<()> {
        match self.open {
            None => Ok(()),
            Some((quote, place)) => Err(CopybookError::new(place, format!("this literal has no closing {quote}"))),
        }
    }
}
