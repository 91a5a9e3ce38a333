//! Places in YAML, from the events of the same parser that the `config` crate reads with.

use std::collections::HashMap;

use yaml_rust2::parser::{Event, Parser};
use yaml_rust2::scanner::{Marker, ScanError, TScalarStyle};

use super::{DEPTH_MAX, Mark, Marks, SyntaxError};
use crate::config::path::KeyPath;

pub(super) fn parse(text: &str) -> Result<Marks, SyntaxError> {
    let mut reader = Reader { marks: Marks::default(), open: Vec::new(), anchors: HashMap::new(), documents: 0 };
    let mut parser = Parser::new_from_str(text);
    loop {
        // Pulled one by one: `Parser::load` recurses, and a file of brackets would exhaust the stack.
        let (event, at) = parser.next_token().map_err(scan_error)?;
        if event == Event::StreamEnd {
            return Ok(reader.marks);
        }
        reader.event(event, at)?;
    }
}

struct Reader {
    marks: Marks,
    open: Vec<Container>,
    /// The path of what an anchor names.
    anchors: HashMap<usize, KeyPath>,
    documents: usize,
}

/// A list or map whose end is still to come.
enum Container {
    Map { path: KeyPath, key: Option<(String, Marker)> },
    List { path: KeyPath, next: usize },
}

impl Reader {
    fn event(&mut self, event: Event, at: Marker) -> Result<(), SyntaxError> {
        match event {
            Event::DocumentStart => {
                self.documents += 1;
                if self.documents > 1 {
                    return Err(error(at, "a second document starts here; a config is one document"));
                }
            }
            Event::Scalar(text, style, anchor, _) => {
                if let Some(Container::Map { path, key: key @ None }) = self.open.last_mut() {
                    // The parser marks the start of a block map at its first colon; it starts where its first key does.
                    let start = (at.line(), at.col() + 1);
                    if let Some(mark) = self.marks.0.get_mut(path).filter(|mark| (mark.line, mark.column) > start) {
                        (mark.line, mark.column) = start;
                    }
                    if style == TScalarStyle::Plain && is_another_number(&text) {
                        return Err(error(
                            at,
                            "this key is a number, and would be read without its zeros, sign or base; put it in quotes",
                        ));
                    }
                    *key = Some((text, at));
                    return Ok(());
                }
                let plain = style == TScalarStyle::Plain;
                if plain && is_special_float(&text) {
                    return Err(error(at, "no key takes infinity or NaN; write text in quotes"));
                }
                self.value(at, anchor, plain.then_some(text))?;
            }
            Event::MappingStart(anchor, _) => {
                let path = self.container(at, anchor)?;
                self.open.push(Container::Map { path, key: None });
            }
            Event::SequenceStart(anchor, _) => {
                let path = self.container(at, anchor)?;
                self.open.push(Container::List { path, next: 0 });
            }
            Event::MappingEnd | Event::SequenceEnd => {
                self.open.pop();
            }
            Event::Alias(anchor) => self.alias(at, anchor)?,
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => {}
        }
        Ok(())
    }

    fn container(&mut self, at: Marker, anchor: usize) -> Result<KeyPath, SyntaxError> {
        if matches!(self.open.last(), Some(Container::Map { key: None, .. })) {
            return Err(error(at, "a key must be text, not a list or a map"));
        }
        if self.open.len() >= DEPTH_MAX {
            return Err(error(at, &format!("nested more than {DEPTH_MAX} levels deep")));
        }
        self.value(at, anchor, None)
    }

    /// The value that starts here: its place is its key's, or its own in a list.
    fn value(&mut self, at: Marker, anchor: usize, plain: Option<String>) -> Result<KeyPath, SyntaxError> {
        let (path, place) = match self.open.last_mut() {
            None => (KeyPath::root(), at),
            Some(Container::Map { path, key }) => match key.take() {
                Some((key, place)) => (path.key(key), place),
                None => return Err(error(at, "a value without a key")),
            },
            Some(Container::List { path, next }) => {
                *next += 1;
                (path.index(*next - 1), at)
            }
        };
        if anchor > 0 {
            self.anchors.insert(anchor, path.clone());
        }
        let mark = Mark { line: place.line(), column: place.col() + 1, plain };
        self.marks.insert(path.clone(), mark)?;
        Ok(path)
    }

    /// What stands at the anchor also stands here; its places are the anchor's.
    fn alias(&mut self, at: Marker, anchor: usize) -> Result<(), SyntaxError> {
        if matches!(self.open.last(), Some(Container::Map { key: None, .. })) {
            return Err(error(at, "an alias cannot be a key"));
        }
        let path = self.value(at, 0, None)?;
        let Some(original) = self.anchors.get(&anchor) else {
            return Err(error(at, "an alias of something that stands nowhere above"));
        };
        if path.below(original).is_some() {
            return Err(error(at, "an alias of what it stands in"));
        }
        let plain = self.marks.0.get(original).and_then(|mark| mark.plain.clone());
        let copies: Vec<(KeyPath, Mark)> = (self.marks.0.range(original.clone()..))
            .take_while(|(key, _)| key.below(original).is_some())
            .filter_map(|(key, mark)| Some((path.join(key.below(original)?), mark.clone())))
            .filter(|(copy, _)| *copy != path)
            .collect();
        if let Some(mark) = self.marks.0.get_mut(&path) {
            mark.plain = plain;
        }
        copies.into_iter().try_for_each(|(path, mark)| self.marks.insert(path, mark))
    }
}

/// `01`, `+7`, `0x1F`: YAML has them for 1, 7 and 31, which as keys are other codes than were written.
fn is_another_number(text: &str) -> bool {
    let number = match text.strip_prefix("0x").map(|digits| i64::from_str_radix(digits, 16)) {
        Some(hexadecimal) => hexadecimal,
        None => text.strip_prefix("0o").map_or_else(|| text.parse(), |digits| i64::from_str_radix(digits, 8)),
    };
    number.is_ok_and(|number| number.to_string() != text)
}

fn is_special_float(text: &str) -> bool {
    matches!(text.trim_start_matches(['+', '-']).to_ascii_lowercase().as_str(), ".inf" | ".nan")
}

fn error(at: Marker, message: &str) -> SyntaxError {
    SyntaxError { line: at.line(), column: at.col() + 1, message: message.into() }
}

fn scan_error(scan: ScanError) -> SyntaxError {
    error(*scan.marker(), scan.info())
}
