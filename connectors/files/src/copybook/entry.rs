//! Data description entries: a level number, a name and clauses, up to a period.

use super::picture::{Category, Picture, picture};
use super::words::Word;
use super::{CopybookError, Place, Result};

#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) level: u8,
    /// `None` for FILLER and where no name stands.
    pub(super) name: Option<String>,
    pub(super) redefines: Option<String>,
    pub(super) picture: Option<Picture>,
    pub(super) usage: Option<Usage>,
    pub(super) sign: Option<Sign>,
    pub(super) occurs: Option<Occurs>,
    pub(super) sync: bool,
    /// The items that a level 66 names.
    pub(super) renames: Vec<String>,
    pub(super) place: Place,
}

/// How a value is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Usage {
    Display,
    /// COMP, COMP-4, BINARY.
    Binary,
    /// COMP-5.
    Native,
    /// COMP-1.
    Float,
    /// COMP-2.
    Double,
    /// COMP-3, PACKED-DECIMAL.
    Packed,
    National,
}

/// Where the sign of a number in DISPLAY form stands, where SIGN says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sign {
    pub leading: bool,
    pub separate: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Occurs {
    pub min: u32,
    pub max: u32,
    /// The item that says how many there are.
    pub depending_on: Option<String>,
}

/// All that fits a record.
const OCCURS_MAX: u32 = 1 << 24;

pub(super) fn entries(words: &[Word]) -> Result<Vec<Entry>> {
    let mut reader = Reader { words, next: 0 };
    let mut entries = Vec::new();
    while let Some(word) = reader.peek() {
        // Orders to the listing.
        if ["EJECT", "SKIP1", "SKIP2", "SKIP3", "."].contains(&word.text.as_str()) {
            reader.next += 1;
            continue;
        }
        if let Some(entry) = reader.entry()? {
            entries.push(entry);
        }
    }
    match entries.first() {
        None => Err(CopybookError::new(Place::default(), "there is no data description in it")),
        Some(_) => Ok(entries),
    }
}

struct Reader<'a> {
    words: &'a [Word],
    next: usize,
}

impl<'a> Reader<'a> {
    fn peek(&self) -> Option<&'a Word> {
        self.words.get(self.next)
    }

    fn at(&self) -> Place {
        self.peek().or(self.words.last()).map_or(Place::default(), |word| word.place)
    }

    fn take(&mut self, what: &str) -> Result<&'a Word> {
        let found = self
            .peek()
            .ok_or_else(|| CopybookError::new(self.at(), format!("the text ends where {what} is expected")))?;
        self.next += 1;
        Ok(found)
    }

    /// Takes the next word if it is one of these.
    fn skip(&mut self, texts: &[&str]) -> bool {
        let found = self.peek().is_some_and(|word| texts.contains(&word.text.as_str()));
        self.next += usize::from(found);
        found
    }

    fn name(&mut self, what: &str) -> Result<String> {
        let word = self.take(what)?;
        match word.is_name() {
            true => Ok(word.text.clone()),
            false => Err(CopybookError::new(word.place, format!("found {}, expected {what}", word.text))),
        }
    }

    fn number(&mut self, what: &str) -> Result<u32> {
        let word = self.take(what)?;
        let number = word.text.parse().ok().filter(|number| *number <= OCCURS_MAX);
        number.ok_or_else(|| {
            CopybookError::new(word.place, format!("found {}, expected {what}, at most {OCCURS_MAX}", word.text))
        })
    }

    /// `None` for a condition name (level 88), which describes no bytes.
    fn entry(&mut self) -> Result<Option<Entry>> {
        let first = self.take("a level number")?;
        let level = first.text.parse::<u8>().ok().filter(|level| matches!(level, 1..=49 | 66 | 77 | 88));
        let Some(level) = level.filter(|_| first.text.len() <= 2) else {
            let message = format!("found {}, expected a level number (01 to 49, 66, 77, 88)", first.text);
            return Err(CopybookError::new(first.place, message));
        };
        let mut entry = Entry {
            level,
            name: None,
            redefines: None,
            picture: None,
            usage: None,
            sign: None,
            occurs: None,
            sync: false,
            renames: Vec::new(),
            place: first.place,
        };
        if let Some(word) = self.peek().filter(|word| word.is_name() && !is_clause(&word.text)) {
            self.next += 1;
            entry.name = (word.text != "FILLER").then(|| word.text.clone());
        }
        while !self.skip(&["."]) {
            self.clause(&mut entry)?;
        }
        Ok((level != 88).then_some(entry))
    }

    fn clause(&mut self, entry: &mut Entry) -> Result<()> {
        let word = self.take("a clause or a period")?;
        let twice = |given: bool| match given {
            true => Err(CopybookError::new(word.place, format!("{} stands twice in this entry", word.text))),
            false => Ok(()),
        };
        match word.text.as_str() {
            "REDEFINES" => {
                twice(entry.redefines.is_some())?;
                entry.redefines = Some(self.name("the name of what is redefined")?);
            }
            "PIC" | "PICTURE" => {
                twice(entry.picture.is_some())?;
                entry.picture = Some(self.picture()?);
            }
            "USAGE" => {
                self.skip(&["IS"]);
                let word = self.take("a usage")?;
                entry.usage = Some(usage(word)?.ok_or_else(|| {
                    CopybookError::new(
                        word.place,
                        format!("found {} after USAGE, expected a usage such as COMP-3", word.text),
                    )
                })?);
            }
            "SIGN" | "LEADING" | "TRAILING" => entry.sign = Some(self.sign(word)?),
            "OCCURS" => {
                twice(entry.occurs.is_some())?;
                entry.occurs = Some(self.occurs(word.place)?);
            }
            "SYNC" | "SYNCHRONIZED" => {
                if self.skip(&["RIGHT"]) {
                    return Err(CopybookError::new(word.place, "SYNC RIGHT is not supported"));
                }
                self.skip(&["LEFT"]);
                entry.sync = true;
            }
            // How a value is put into the field by a program; what lies there is read as it is.
            "JUST" | "JUSTIFIED" => drop(self.skip(&["RIGHT"])),
            "BLANK" => {
                self.skip(&["WHEN"]);
                if !self.skip(&["ZERO", "ZEROS", "ZEROES"]) {
                    return Err(CopybookError::new(self.at(), "BLANK WHEN is followed by ZERO"));
                }
            }
            "VALUE" | "VALUES" => self.values()?,
            "RENAMES" if entry.level == 66 => {
                entry.renames.push(self.name("the name of what is renamed")?);
                if self.skip(&["THRU", "THROUGH"]) {
                    entry.renames.push(self.name("the name of the last item renamed")?);
                }
            }
            "IS" => {}
            "EXTERNAL" | "GLOBAL" | "VOLATILE" => {}
            // Separators.
            "," | ";" => {}
            _ => match usage(word)? {
                Some(usage) => entry.usage = Some(usage),
                None => {
                    let message = format!(
                        "found {}, which is no clause that is supported, nor the period that ends an entry",
                        word.text
                    );
                    return Err(CopybookError::new(word.place, message));
                }
            },
        }
        Ok(())
    }

    fn picture(&mut self) -> Result<Picture> {
        self.skip(&["IS"]);
        let first = self.take("a picture")?;
        let mut text = first.text.clone();
        while let Some(word) = self.peek().filter(|word| word.glued) {
            // A period or comma before a space ends the picture and is none of it.
            let last = self.words.get(self.next + 1).is_none_or(|next| !next.glued);
            if last && [".", ",", ";"].contains(&word.text.as_str()) {
                break;
            }
            text.push_str(&word.text);
            self.next += 1;
        }
        picture(&text).map_err(|message| CopybookError::new(first.place, message))
    }

    fn sign(&mut self, word: &Word) -> Result<Sign> {
        let mut word = word;
        if word.is("SIGN") {
            self.skip(&["IS"]);
            word = self.take("LEADING or TRAILING")?;
        }
        let leading = match word.text.as_str() {
            "LEADING" => true,
            "TRAILING" => false,
            other => {
                return Err(CopybookError::new(word.place, format!("found {other}, expected LEADING or TRAILING")));
            }
        };
        let separate = self.skip(&["SEPARATE"]);
        self.skip(&["CHARACTER"]);
        Ok(Sign { leading, separate })
    }

    fn occurs(&mut self, place: Place) -> Result<Occurs> {
        let mut min = self.number("how often it occurs")?;
        let mut max = min;
        if self.skip(&["TO"]) {
            max = self.number("how often it occurs at most")?;
        }
        self.skip(&["TIMES"]);
        let mut depending_on = None;
        loop {
            if self.skip(&["DEPENDING"]) {
                self.skip(&["ON"]);
                depending_on = Some(self.name("the name of what OCCURS depends on")?);
                // A qualified name; the item is looked up by its first part.
                while self.skip(&["OF", "IN"]) {
                    self.name("a qualifier")?;
                }
            } else if self.skip(&["ASCENDING", "DESCENDING"]) {
                self.skip(&["KEY"]);
                self.skip(&["IS"]);
                self.names();
            } else if self.skip(&["INDEXED"]) {
                self.skip(&["BY"]);
                self.names();
            } else {
                break;
            }
        }
        if depending_on.is_some() && min == max {
            // `OCCURS 5 DEPENDING ON`: an old form, from 1 (IBM: the integer-1 of format 2 left out).
            min = 1;
        }
        if depending_on.is_none() && min != max {
            return Err(CopybookError::new(place, "OCCURS … TO … has no DEPENDING ON"));
        }
        if max == 0 || min > max {
            return Err(CopybookError::new(
                place,
                format!("OCCURS {min} TO {max} takes no entry, or fewer than it begins with"),
            ));
        }
        Ok(Occurs { min, max, depending_on })
    }

    /// Names up to the next clause.
    fn names(&mut self) {
        while let Some(word) = self.peek() {
            let separator = [",", ";"].contains(&word.text.as_str());
            if !separator && (!word.is_name() || is_clause(&word.text)) {
                return;
            }
            self.next += 1;
        }
    }

    /// Literals, figurative constants and ranges: a value at the start of a program is no part of the layout.
    fn values(&mut self) -> Result<()> {
        self.skip(&["IS", "ARE"]);
        let from = self.next;
        while let Some(word) = self.peek() {
            let ends = word.is(".") && self.words.get(self.next + 1).is_none_or(|next| !next.glued);
            if ends || self.next > from && !word.glued && word.is_name() && is_clause(&word.text) {
                break;
            }
            self.next += 1;
        }
        if self.next == from { Err(CopybookError::new(self.at(), "VALUE has no value")) } else { Ok(()) }
    }
}

fn is_clause(word: &str) -> bool {
    const CLAUSES: [&str; 37] = [
        "REDEFINES",
        "PIC",
        "PICTURE",
        "USAGE",
        "SIGN",
        "LEADING",
        "TRAILING",
        "OCCURS",
        "SYNC",
        "SYNCHRONIZED",
        "JUST",
        "JUSTIFIED",
        "BLANK",
        "VALUE",
        "VALUES",
        "RENAMES",
        "EXTERNAL",
        "GLOBAL",
        "VOLATILE",
        "DISPLAY",
        "COMP",
        "COMPUTATIONAL",
        "BINARY",
        "PACKED-DECIMAL",
        "NATIONAL",
        "INDEX",
        "POINTER",
        "DEPENDING",
        "ASCENDING",
        "DESCENDING",
        "INDEXED",
        "DISPLAY-1",
        "IS",
        "FUNCTION-POINTER",
        "PROCEDURE-POINTER",
        "OBJECT",
        "DATE",
    ];
    let numbered = word.strip_prefix("COMPUTATIONAL-").or_else(|| word.strip_prefix("COMP-"));
    CLAUSES.contains(&word) || numbered.is_some_and(|rest| rest.len() == 1)
}

/// `None` where the word is no usage; an error for one that is not supported.
fn usage(word: &Word) -> Result<Option<Usage>> {
    let text = word.text.replacen("COMPUTATIONAL", "COMP", 1);
    Ok(Some(match text.as_str() {
        "DISPLAY" => Usage::Display,
        "COMP" | "COMP-4" | "BINARY" => Usage::Binary,
        "COMP-5" => Usage::Native,
        "COMP-1" => Usage::Float,
        "COMP-2" => Usage::Double,
        "COMP-3" | "PACKED-DECIMAL" => Usage::Packed,
        "NATIONAL" => Usage::National,
        "DISPLAY-1" | "INDEX" | "POINTER" | "FUNCTION-POINTER" | "PROCEDURE-POINTER" | "OBJECT" | "COMP-6"
        | "COMP-X" | "COMP-N" => {
            return Err(CopybookError::new(word.place, format!("USAGE {} is not supported", word.text)));
        }
        _ => return Ok(None),
    }))
}

impl Entry {
    /// What does not go together in an elementary item, in words.
    pub(super) fn fault(&self, usage: Usage) -> Option<String> {
        let category = self.picture.map(|picture| picture.category);
        match (usage, category) {
            (Usage::Float | Usage::Double, None) => None,
            (Usage::Float | Usage::Double, Some(_)) => Some("COMP-1 and COMP-2 have no PICTURE".into()),
            (_, None) => Some(format!("{} has neither a PICTURE nor items below it", self.title())),
            (Usage::Display, Some(_)) | (Usage::National, Some(Category::National)) => None,
            (Usage::National, Some(_)) => Some("USAGE NATIONAL is supported with PICTURE N alone".into()),
            (_, Some(Category::Numeric)) => None,
            (_, Some(_)) => Some("this USAGE needs a numeric PICTURE".into()),
        }
    }

    pub(super) fn title(&self) -> &str {
        self.name.as_deref().unwrap_or("FILLER")
    }
}
