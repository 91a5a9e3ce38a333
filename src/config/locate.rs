//! Where each key stands in the file: a second parse that keeps lines and columns, which the `config` crate does not.
//!
//! It runs first, so that a syntax error is found here, with its place. It also keeps how a number or a boolean was written:
//! `password: 0123` means the text `0123`, and only the file's own characters still know that.

mod toml;
mod yaml;

use std::collections::BTreeMap;

use super::path::KeyPath;
use super::problem::Place;

/// The largest config file, in bytes. A real one has a few kilobytes.
pub(super) const FILE_BYTES_MAX: u64 = 1 << 20;

/// Keys and list items in a file, those that an alias repeats included: a bound for a file that multiplies itself.
const ENTRIES_MAX: usize = 50_000;

/// How deep lists and maps may nest. The config itself goes six levels deep.
const DEPTH_MAX: usize = 32;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Syntax {
    Yaml,
    Toml,
}

/// The place of one key or list item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    /// Counted from 1.
    pub line: usize,
    /// Counted from 1, in characters.
    pub column: usize,
    /// How the value was written, where it is a scalar without quotes.
    pub plain: Option<String>,
}

/// The places of everything in a file.
#[derive(Clone, Debug, Default)]
pub(super) struct Marks(BTreeMap<KeyPath, Mark>);

/// The file is not YAML or TOML.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SyntaxError {
    pub line: usize,
    pub column: usize,
    /// What the parser says; never a value from the file.
    pub message: String,
}

impl Marks {
    pub(super) fn parse(text: &str, syntax: Syntax) -> Result<Marks, SyntaxError> {
        match syntax {
            Syntax::Yaml => yaml::parse(text),
            Syntax::Toml => toml::parse(text),
        }
    }

    pub(super) fn get(&self, path: &KeyPath) -> Option<&Mark> {
        self.0.get(path)
    }

    /// The place of a key, or of the innermost container that the file has of it.
    pub(super) fn place(&self, path: &KeyPath) -> Place {
        match path.and_containers().find_map(|path| self.0.get(&path).cloned()) {
            Some(Mark { line, column, .. }) => Place::File { line, column },
            None => Place::Whole,
        }
    }

    fn insert(&mut self, path: KeyPath, mark: Mark) -> Result<(), SyntaxError> {
        if self.0.len() >= ENTRIES_MAX {
            let message = format!("more than {ENTRIES_MAX} keys and list items");
            return Err(SyntaxError { line: mark.line, column: mark.column, message });
        }
        match self.0.get(&path) {
            Some(first) => {
                let message = format!("the key `{path}` stands twice; the first is on line {}", first.line);
                Err(SyntaxError { line: mark.line, column: mark.column, message })
            }
            None => {
                self.0.insert(path, mark);
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(marks: &Marks, path: KeyPath) -> (usize, usize) {
        match marks.place(&path) {
            Place::File { line, column } => (line, column),
            other => panic!("{path}: {other:?}"),
        }
    }

    #[test]
    fn yaml_keys_and_items_have_their_places() {
        let text =
            "sources:\n  db:\n    type: postgres\n    tables: [a.b, c.d]\nroutes:\n  - from: db\n    name: 0123\n";
        let marks = Marks::parse(text, Syntax::Yaml).unwrap();
        let root = KeyPath::root();
        let db = root.key("sources").key("db");
        assert_eq!(place(&marks, db.clone()), (2, 3));
        assert_eq!(place(&marks, db.key("type")), (3, 5));
        assert_eq!(place(&marks, db.key("tables").index(1)), (4, 19));
        assert_eq!(place(&marks, db.key("missing")), (2, 3), "a key that is not there: its container");
        assert_eq!(place(&marks, root.clone()), (1, 1));
        assert_eq!(place(&marks, root.key("routes").index(0)), (6, 5));
        let name = root.key("routes").index(0).key("name");
        assert_eq!(place(&marks, name.clone()), (7, 5));
        assert_eq!(marks.get(&name).unwrap().plain.as_deref(), Some("0123"));
    }

    #[test]
    fn toml_keys_and_items_have_their_places() {
        let text = "[sources.db]\ntype = \"postgres\"\ntables = [\n  \"a.b\",\n  \"ü.d\", \"e.f\"]\n[[routes]]\nfrom = \"db\"\nwindow = 0x10\n";
        let marks = Marks::parse(text, Syntax::Toml).unwrap();
        let root = KeyPath::root();
        let db = root.key("sources").key("db");
        assert_eq!(place(&marks, db.clone()), (1, 10));
        assert_eq!(place(&marks, db.key("type")), (2, 1));
        assert_eq!(place(&marks, db.key("tables").index(2)), (5, 10), "columns count characters, not bytes");
        assert_eq!(place(&marks, root.key("routes").index(0).key("from")), (7, 1));
        assert_eq!(marks.get(&root.key("routes").index(0).key("window")).unwrap().plain.as_deref(), Some("0x10"));
    }

    #[test]
    fn a_syntax_error_has_its_place_and_no_value() {
        let error = Marks::parse("rabbitmq:\n  url: \"hunter2\n", Syntax::Yaml).unwrap_err();
        assert!(error.line >= 2 && !error.message.contains("hunter2"), "{error:?}");
        let error = Marks::parse("a = 1\nurl = hunter2\n", Syntax::Toml).unwrap_err();
        assert_eq!((error.line, error.column), (2, 7));
        assert!(!error.message.contains("hunter2"), "{error:?}");
    }

    #[test]
    fn a_key_that_stands_twice_is_an_error_with_both_places() {
        let error = Marks::parse("a:\n  b: 1\n  c: 2\n  b: 3\n", Syntax::Yaml).unwrap_err();
        assert_eq!((error.line, error.column), (4, 3));
        assert_eq!(error.message, "the key `a.b` stands twice; the first is on line 2");
    }

    #[test]
    fn an_alias_repeats_its_anchor_within_a_bound() {
        let marks = Marks::parse("a: &x { k: 1 }\nb: *x\n", Syntax::Yaml).unwrap();
        assert_eq!(place(&marks, KeyPath::root().key("b").key("k")), (1, 9));
        let mut bomb = String::from("a0: &a0 [1,1,1,1,1,1,1,1,1,1]\n");
        for level in 1..9 {
            let previous = level - 1;
            let items = vec![format!("*a{previous}"); 10].join(",");
            bomb.push_str(&format!("a{level}: &a{level} [{items}]\n"));
        }
        assert!(Marks::parse(&bomb, Syntax::Yaml).unwrap_err().message.contains("more than"));
    }

    #[test]
    fn nesting_is_bounded() {
        for depth in [40, 100_000] {
            let deep = "[".repeat(depth);
            assert!(Marks::parse(&format!("a: {deep}"), Syntax::Yaml).is_err());
            assert!(Marks::parse(&format!("a = {deep}"), Syntax::Toml).is_err());
        }
        let error = Marks::parse(&format!("a: {}1", "- ".repeat(40)), Syntax::Yaml).unwrap_err();
        assert!(!error.message.is_empty());
    }
}
