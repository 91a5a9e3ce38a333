//! YAML with its lines, and with plain values as they are written: `007` stays `007`.

use yaml_rust2::parser::{Event, Parser};
use yaml_rust2::scanner::{Marker, TScalarStyle};

use super::Wrong;

/// Deeper files are refused.
const DEPTH_MAX: usize = 64;

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Node {
    pub(super) line: usize,
    pub(super) is: Is,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Is {
    /// Without quotes: a number, a word, nothing.
    Plain(String),
    Quoted(String),
    List(Vec<Node>),
    Map(Vec<(String, Node)>),
}

pub(super) fn read(text: &str) -> Result<Node, Wrong> {
    let mut parser = Parser::new_from_str(text);
    let mut next = move || {
        parser.next_token().map_err(|error| Wrong::at(error.marker().line(), format!("not YAML: {}", error.info())))
    };
    loop {
        let (event, at) = next()?;
        match event {
            Event::StreamStart | Event::DocumentStart => {}
            Event::StreamEnd | Event::DocumentEnd => return Err(Wrong::at(at.line(), "the file is empty")),
            event => {
                let root = node(event, at, &mut next, 0)?;
                return match (next()?, next()?) {
                    (_, (Event::StreamEnd, _)) => Ok(root),
                    (_, (_, at)) => Err(Wrong::at(at.line(), "a second document starts here; a file of cases is one")),
                };
            }
        }
    }
}

fn node(
    event: Event,
    at: Marker,
    next: &mut dyn FnMut() -> Result<(Event, Marker), Wrong>,
    depth: usize,
) -> Result<Node, Wrong> {
    let line = at.line();
    if depth == DEPTH_MAX {
        return Err(Wrong::at(line, format!("more than {DEPTH_MAX} levels")));
    }
    let is = match event {
        Event::Scalar(text, TScalarStyle::Plain, ..) => Is::Plain(text),
        Event::Scalar(text, ..) => Is::Quoted(text),
        Event::SequenceStart(..) => {
            let mut list = Vec::new();
            loop {
                match next()? {
                    (Event::SequenceEnd, _) => break Is::List(list),
                    (event, at) => list.push(node(event, at, next, depth + 1)?),
                }
            }
        }
        Event::MappingStart(..) => {
            let mut map: Vec<(String, Node)> = Vec::new();
            loop {
                let key = match next()? {
                    (Event::MappingEnd, _) => break Is::Map(map),
                    (Event::Scalar(key, ..), at) if map.iter().any(|(known, _)| *known == key) => {
                        return Err(Wrong::at(at.line(), format!("`{key}` stands here twice")));
                    }
                    (Event::Scalar(key, ..), _) => key,
                    (_, at) => return Err(Wrong::at(at.line(), "a key is a word")),
                };
                let (event, at) = next()?;
                map.push((key, node(event, at, next, depth + 1)?));
            }
        }
        _ => return Err(Wrong::at(line, "anchors and references are not read here")),
    };
    Ok(Node { line, is })
}

impl Node {
    pub(super) fn is_null(&self) -> bool {
        matches!(&self.is, Is::Plain(text) if text.is_empty() || text == "~" || text == "null")
    }

    /// A text, a number, a word.
    pub(super) fn scalar(&self) -> Result<&str, Wrong> {
        match &self.is {
            Is::Plain(text) | Is::Quoted(text) => Ok(text),
            Is::List(_) | Is::Map(_) => Err(Wrong::at(self.line, "one value is expected here")),
        }
    }

    pub(super) fn list(&self) -> Result<&[Node], Wrong> {
        match &self.is {
            Is::List(list) => Ok(list),
            _ => Err(Wrong::at(self.line, "a list is expected here")),
        }
    }

    pub(super) fn map(&self) -> Result<&[(String, Node)], Wrong> {
        match &self.is {
            Is::Map(map) => Ok(map),
            _ => Err(Wrong::at(self.line, "a map is expected here")),
        }
    }

    /// A map of these keys.
    pub(super) fn keys(&self, known: &[&str]) -> Result<&[(String, Node)], Wrong> {
        let map = self.map()?;
        match map.iter().find(|(key, _)| !known.contains(&key.as_str())) {
            None => Ok(map),
            Some((key, node)) => {
                Err(Wrong::at(node.line, format!("`{key}` is not known here; there are: {}", known.join(", "))))
            }
        }
    }

    /// As JSON: plain numbers, `true`, `false` and nothing are what they are, all else is text.
    pub(super) fn json(&self) -> String {
        match &self.is {
            _ if self.is_null() => "null".into(),
            Is::Plain(text) if is_json(text) => text.clone(),
            Is::Plain(text) | Is::Quoted(text) => serde_json::Value::from(text.as_str()).to_string(),
            Is::List(list) => format!("[{}]", list.iter().map(Node::json).collect::<Vec<_>>().join(",")),
            Is::Map(map) => {
                let member =
                    |(key, node): &(String, Node)| format!("{}:{}", serde_json::Value::from(key.as_str()), node.json());
                format!("{{{}}}", map.iter().map(member).collect::<Vec<_>>().join(","))
            }
        }
    }
}

/// Of a map.
pub(super) fn get<'n>(map: &'n [(String, Node)], key: &str) -> Option<&'n Node> {
    map.iter().find(|(known, _)| known == key).map(|(_, node)| node)
}

/// A number as JSON writes it, `true` or `false`.
pub(super) fn is_json(plain: &str) -> bool {
    let number = plain.starts_with(|first: char| first.is_ascii_digit() || first == '-');
    plain == "true" || plain == "false" || (number && serde_json::from_str::<serde::de::IgnoredAny>(plain).is_ok())
}
