//! A key's place in the config file.

use std::fmt;

/// Where a value stands: `sources.orders_db.tables[0]`. The empty path is the whole file.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyPath(Vec<Segment>);

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Segment {
    Key(String),
    Index(usize),
}

impl KeyPath {
    pub fn root() -> KeyPath {
        KeyPath::default()
    }

    #[must_use]
    pub fn key(&self, key: impl Into<String>) -> KeyPath {
        self.with(Segment::Key(key.into()))
    }

    #[must_use]
    pub fn index(&self, index: usize) -> KeyPath {
        self.with(Segment::Index(index))
    }

    #[must_use]
    pub fn with(&self, segment: Segment) -> KeyPath {
        let mut segments = self.0.clone();
        segments.push(segment);
        KeyPath(segments)
    }

    pub fn segments(&self) -> &[Segment] {
        &self.0
    }

    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The path itself, then each of its containers, outermost last.
    pub fn and_containers(&self) -> impl Iterator<Item = KeyPath> + '_ {
        (0..=self.0.len()).rev().map(|length| KeyPath(self.0[..length].to_vec()))
    }

    /// The part after `container`; `None` where this path is not inside it.
    pub fn below(&self, container: &KeyPath) -> Option<&[Segment]> {
        self.0.strip_prefix(container.0.as_slice())
    }

    #[must_use]
    pub fn join(&self, rest: &[Segment]) -> KeyPath {
        KeyPath(self.0.iter().chain(rest).cloned().collect())
    }
}

impl From<&serde_path_to_error::Path> for KeyPath {
    fn from(path: &serde_path_to_error::Path) -> KeyPath {
        use serde_path_to_error::Segment as Found;
        let segments = path.iter().filter_map(|segment| match segment {
            Found::Seq { index } => Some(Segment::Index(*index)),
            Found::Map { key } => Some(Segment::Key(key.clone())),
            Found::Enum { .. } | Found::Unknown => None,
        });
        KeyPath(segments.collect())
    }
}

/// Whether a text may be a connection string: it is then not shown, wherever it stands.
pub(super) fn looks_like_url(text: &str) -> bool {
    text.contains("://") || text.contains('@')
}

impl fmt::Display for KeyPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, segment) in self.0.iter().enumerate() {
            match segment {
                Segment::Index(index) => write!(f, "[{index}]")?,
                Segment::Key(key) => {
                    f.write_str(if place == 0 { "" } else { "." })?;
                    // A slip of the pen makes a key of a connection string, or of `password hunter2` without its colon.
                    if looks_like_url(key) || key.contains(char::is_whitespace) {
                        f.write_str("(withheld)")?;
                        continue;
                    }
                    let plain =
                        !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
                    if plain { f.write_str(key)? } else { write!(f, "{key:?}")? }
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_prints_as_people_write_it() {
        let path = KeyPath::root().key("routes").index(2).key("event").key("type");
        assert_eq!(path.to_string(), "routes[2].event.type");
        assert_eq!(KeyPath::root().key("queues").key("a.b").to_string(), "queues.\"a.b\"");
        assert_eq!(KeyPath::root().key("amqp://u:hunter2@h").key("x").to_string(), "(withheld).x");
    }

    #[test]
    fn containers_come_from_the_inside_out() {
        let path = KeyPath::root().key("a").index(0);
        let all: Vec<String> = path.and_containers().map(|path| path.to_string()).collect();
        assert_eq!(all, ["a[0]", "a", ""]);
        assert_eq!(path.below(&KeyPath::root().key("a")), Some(&[Segment::Index(0)][..]));
        assert_eq!(path.below(&KeyPath::root().key("b")), None);
    }
}
