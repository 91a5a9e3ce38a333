//! COPY … REPLACING.
//!
//! IBM, *Language Reference*, "COPY statement": text words are compared without regard to case and spaces; `LEADING` and `TRAILING`
//! replace a part of a word; what was replaced is not looked at again.

use super::lines::{Form, characters};
use super::words::{Word, merged, words};
use super::{CopybookError, Place, Result};

/// Where COPY finds its text.
pub trait Library {
    /// The text of the member `name`, as it stands in the COPY statement (in upper case, quotes taken off).
    fn member(&self, name: &str) -> Option<String>;
}

/// No member at all.
impl Library for () {
    fn member(&self, _: &str) -> Option<String> {
        None
    }
}

/// One `a BY b` of REPLACING.
#[derive(Clone, Debug)]
pub struct Replacement {
    part: Part,
    from: Vec<Word>,
    by: Vec<Word>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Whole,
    Leading,
    Trailing,
}

impl Replacement {
    /// `from` and `by` as between `==` and `==`.
    pub fn new(from: &str, by: &str) -> Result<Replacement> {
        let split = |text: &str| words(&characters(text, Form::Free, 0)?);
        let (from, by) = (split(from)?, split(by)?);
        if from.is_empty() {
            return Err(CopybookError::new(Place::default(), "the text to be replaced is empty"));
        }
        Ok(Replacement { part: Part::Whole, from, by })
    }
}

/// How deep COPY may stand within what COPY put in; a text that copies itself ends here.
const DEPTH_MAX: u16 = 16;
/// Words of everything that COPY put in; a guard against texts that multiply.
const WORDS_MAX: usize = 2_000_000;

pub(super) fn expand(text: &str, form: Form, library: &dyn Library, replacements: &[Replacement]) -> Result<Vec<Word>> {
    let words = copied(text, form, library, 0)?;
    Ok(merged(replace(words, replacements)))
}

fn copied(text: &str, form: Form, library: &dyn Library, depth: u16) -> Result<Vec<Word>> {
    let source = words(&characters(text, form, depth)?)?;
    let mut out = Vec::with_capacity(source.len());
    let mut rest = &source[..];
    while let Some(word) = rest.first() {
        if word.is("COPY") && !word.glued {
            let statement = Statement::read(rest)?;
            if depth == DEPTH_MAX {
                return Err(CopybookError::new(
                    word.place,
                    format!("COPY stands within COPY more than {DEPTH_MAX} times"),
                ));
            }
            let Some(text) = library.member(&statement.member) else {
                return Err(CopybookError::new(
                    word.place,
                    format!("COPY {}: there is no such file in the folder of the copybook", statement.member),
                ));
            };
            let put_in = copied(&text, form, library, depth + 1)?;
            out.extend(replace(put_in, &statement.replacements));
            if out.len() > WORDS_MAX {
                return Err(CopybookError::new(word.place, format!("COPY puts in more than {WORDS_MAX} words")));
            }
            rest = &rest[statement.words..];
        } else {
            out.push(word.clone());
            rest = &rest[1..];
        }
    }
    Ok(out)
}

struct Statement {
    member: String,
    replacements: Vec<Replacement>,
    /// How many words it has, with its period.
    words: usize,
}

impl Statement {
    fn read(source: &[Word]) -> Result<Statement> {
        let copy = source[0].place;
        let at = |index: usize| source.get(index);
        let member = at(1).filter(|word| word.is_name() || word.is_literal());
        let member = member.ok_or_else(|| CopybookError::new(copy, "COPY names no text"))?;
        let mut statement =
            Statement { member: member.text.trim_matches(['"', '\'']).to_owned(), replacements: Vec::new(), words: 2 };
        if at(statement.words).is_some_and(|word| word.is("OF") || word.is("IN")) {
            statement.words += 2;
        }
        if at(statement.words).is_some_and(|word| word.is("SUPPRESS")) {
            statement.words += 1;
        }
        if at(statement.words).is_some_and(|word| word.is("REPLACING")) {
            statement.words += 1;
            while at(statement.words).is_some_and(|word| !word.is(".")) {
                statement.replacement(source)?;
            }
        }
        match at(statement.words) {
            Some(word) if word.is(".") => statement.words += 1,
            Some(word) => {
                return Err(CopybookError::new(word.place, format!("found {} in COPY, expected a period", word.text)));
            }
            None => return Err(CopybookError::new(copy, "COPY has no period")),
        }
        Ok(statement)
    }

    fn replacement(&mut self, source: &[Word]) -> Result<()> {
        let part = match source[self.words].text.as_str() {
            "LEADING" => Part::Leading,
            "TRAILING" => Part::Trailing,
            _ => Part::Whole,
        };
        if part != Part::Whole {
            self.words += 1;
        }
        let from_place = source.get(self.words).map_or(source[0].place, |word| word.place);
        let from = self.operand(source)?;
        match source.get(self.words) {
            Some(word) if word.is("BY") => self.words += 1,
            _ => return Err(CopybookError::new(from_place, "what REPLACING replaces is not followed by BY")),
        }
        let by = self.operand(source)?;
        if from.is_empty() || part != Part::Whole && (from.len() != 1 || by.len() > 1) {
            return Err(CopybookError::new(
                from_place,
                "REPLACING needs text to replace, and LEADING and TRAILING one word of it",
            ));
        }
        self.replacements.push(Replacement { part, from, by });
        Ok(())
    }

    /// `==pseudo-text==`, or one word.
    fn operand(&mut self, source: &[Word]) -> Result<Vec<Word>> {
        let Some(first) = source.get(self.words) else {
            return Err(CopybookError::new(source[0].place, "COPY … REPLACING ends too early"));
        };
        if !first.is("==") {
            self.words += 1;
            let mut word = first.clone();
            word.glued = false;
            return Ok(vec![word]);
        }
        let inner = &source[self.words + 1..];
        let Some(length) = inner.iter().position(|word| word.is("==")) else {
            return Err(CopybookError::new(first.place, "this == has no closing =="));
        };
        self.words += length + 2;
        let mut text = inner[..length].to_vec();
        if let Some(first) = text.first_mut() {
            first.glued = false;
        }
        Ok(text)
    }
}

fn replace(words: Vec<Word>, replacements: &[Replacement]) -> Vec<Word> {
    if replacements.is_empty() {
        return words;
    }
    let mut out = Vec::with_capacity(words.len());
    let mut rest = &words[..];
    // Whether what was replaced by nothing stood apart from what comes before it: then so does what follows.
    let mut apart = false;
    while let Some(word) = rest.first() {
        let found = replacements.iter().find_map(|replacement| replacement.apply(rest));
        let (taken, mut by) = found.unwrap_or_else(|| (1, vec![word.clone()]));
        match by.first_mut() {
            Some(first) => {
                first.glued &= !apart;
                apart = false;
            }
            None => apart |= !word.glued,
        }
        out.extend(by);
        rest = &rest[taken..];
    }
    out
}

impl Replacement {
    /// How many words it takes from the start of `words`, and what stands there instead.
    fn apply(&self, words: &[Word]) -> Option<(usize, Vec<Word>)> {
        let first = &words[0];
        let place = |word: &Word| Word { place: first.place, ..word.clone() };
        let by = self.by.first().map_or("", |word| &word.text);
        match self.part {
            Part::Whole => {
                let same = self.from.len() <= words.len() && self.from.iter().zip(words).all(|(a, b)| a.text == b.text);
                let mut by: Vec<Word> = same.then(|| self.by.iter().map(place).collect())?;
                if let Some(word) = by.first_mut() {
                    word.glued = first.glued;
                }
                Some((self.from.len(), by))
            }
            Part::Leading => {
                let rest = first.text.strip_prefix(&self.from[0].text).filter(|_| first.is_name())?;
                Some((1, vec![Word { text: format!("{by}{rest}"), ..first.clone() }]))
            }
            Part::Trailing => {
                let rest = first.text.strip_suffix(&self.from[0].text).filter(|_| first.is_name())?;
                Some((1, vec![Word { text: format!("{rest}{by}"), ..first.clone() }]))
            }
        }
    }
}
