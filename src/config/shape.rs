//! The tree against the schema: every key that is unknown, missing or of the wrong kind, in one run.
//!
//! `serde` would stop at the first error, quote the value that it found (which may be a secret), and lose its place inside
//! a source. It still has the last word: this module leaves what it does not know to it.

use std::fmt::Display;

use config::{Value, ValueKind};
use serde::Deserialize;
use serde::de::IntoDeserializer;
use serde::de::value::Error as Refused;
use serde_json::Value as Json;
use towpath_contract::{ByteSize, Span};

use super::origin::Origins;
use super::path::KeyPath;
use super::problem::Problem;
use super::schema::{Form, config_schema, description};

/// Finds what is wrong, and brings values into the form that their keys want: text for text keys, however it was written.
pub(super) fn conform(tree: &mut Value, origins: &Origins) -> Vec<Problem> {
    let mut shape = Shape { origins, problems: Vec::new() };
    shape.value(tree, config_schema(), &KeyPath::root());
    shape.problems
}

struct Shape<'a> {
    origins: &'a Origins,
    problems: Vec<Problem>,
}

impl Shape<'_> {
    fn value(&mut self, value: &mut Value, node: &Json, path: &KeyPath) {
        // A reference that could not be resolved was told of already.
        if value.kind == ValueKind::Nil && self.failed_already(path) {
            return;
        }
        match Form::of(node) {
            Form::Keys { properties, required } => self.keys(value, properties, &required, path),
            Form::Tagged { tag, variants } => self.tagged(value, tag, &variants, path),
            Form::Named(inner) => {
                let Some(table) = self.table(value, path) else { return };
                let mut names: Vec<String> = table.keys().cloned().collect();
                names.sort();
                for name in names {
                    if let Some(value) = table.get_mut(&name) {
                        self.value(value, inner, &path.key(&name));
                    }
                }
            }
            Form::List(inner) => self.list(value, inner, path),
            Form::One { words, keys } => self.one(value, &words, &keys, path),
            Form::Either(alternatives) => self.either(value, alternatives, path),
            Form::Choice(words) => self.choice(value, &words, path),
            Form::Text | Form::Secret => self.text(value, path),
            Form::Span => self.parsed::<Span>(value, path, "a span of time such as 500ms, 10s, 5m, 12h or 7d"),
            Form::Size => self.parsed::<ByteSize>(value, path, "a size such as 512MiB, 10GiB or 1GB"),
            Form::Integer { min, max } => self.integer(value, min, max, path),
            Form::Boolean => self.boolean(value, path),
            Form::Other => {}
        }
    }

    fn keys(
        &mut self,
        value: &mut Value,
        properties: &serde_json::Map<String, Json>,
        required: &[&str],
        path: &KeyPath,
    ) {
        let Some(table) = self.table(value, path) else { return };
        let unknown: Vec<String> = table.keys().filter(|key| !properties.contains_key(*key)).cloned().collect();
        // A key with nothing after it counts as not written.
        table.retain(|_, value| value.kind != ValueKind::Nil);
        for (key, node) in properties {
            match table.get_mut(key) {
                Some(value) => self.value(value, node, &path.key(key)),
                None if required.contains(&key.as_str()) && !self.failed_already(&path.key(key)) => {
                    let mut help = description(node).replace('\n', " ");
                    if let Some(near) = nearest(key, unknown.iter().map(String::as_str)) {
                        help = format!("there is a key `{near}`: is that it?");
                    }
                    self.problems.push(Problem::new(path.key(key), "this key is missing").help(help));
                }
                None => {}
            }
        }
        for key in unknown {
            let allowed = properties.keys().map(String::as_str);
            // Dropped above for having no value: `{ passwordhunter2 }` lacks a colon, and the key may be a secret.
            if table.remove(&key).is_none() && nearest(&key, allowed.clone()).is_none() {
                self.problem(
                    path,
                    "an unknown key (withheld) has no value: is a colon missing?",
                    alternatives("", allowed),
                );
                continue;
            }
            self.problem(&path.key(&key), "unknown key", alternatives(&key, allowed));
        }
    }

    fn tagged(&mut self, value: &mut Value, tag: &str, variants: &[(&str, &Json)], path: &KeyPath) {
        let Some(table) = self.table(value, path) else { return };
        let words: Vec<&str> = variants.iter().map(|(word, _)| *word).collect();
        match table.get_mut(tag) {
            Some(found) if found.kind != ValueKind::Nil => {
                self.choice(found, &words, &path.key(tag));
                let ValueKind::String(word) = &found.kind else { return };
                let Some((_, variant)) = variants.iter().find(|(name, _)| name == word) else { return };
                // The tag itself was judged above; the variant lists it among its properties as a constant.
                if let Form::Keys { properties, required } = Form::of(variant) {
                    self.keys(value, properties, &required, path);
                }
            }
            _ => self.problem(&path.key(tag), "this key is missing", format!("allowed: {}", words.join(", "))),
        }
    }

    fn one(&mut self, value: &mut Value, words: &[&str], keys: &[(&str, &Json)], path: &KeyPath) {
        let allowed = || words.iter().copied().chain(keys.iter().map(|(key, _)| *key));
        let ValueKind::Table(table) = &mut value.kind else {
            return match words {
                [] => self.mismatch(value, "a map of one key", path, alternatives("", allowed())),
                words => self.choice(value, words, path),
            };
        };
        let mut found: Vec<String> = table.keys().cloned().collect();
        found.sort();
        for name in &found {
            match keys.iter().find(|(key, _)| key == name) {
                Some((key, node)) => {
                    if let Some(value) = table.get_mut(*key) {
                        self.value(value, node, &path.key(*key));
                    }
                }
                None => self.problem(&path.key(name), "unknown key", alternatives(name, allowed())),
            }
        }
        if found.len() != 1 {
            let message = format!("found {} keys, expected one", found.len());
            self.problem(path, message, alternatives("", allowed()));
        }
    }

    /// By the alternative that is a map, a list, or neither, as the value is.
    fn either(&mut self, value: &mut Value, alternatives: &[Json], path: &KeyPath) {
        let fits = |node: &&Json| match (Form::of(node), &value.kind) {
            (Form::Keys { .. } | Form::Named(_) | Form::Tagged { .. }, ValueKind::Table(_)) => true,
            (Form::Keys { .. } | Form::Named(_) | Form::Tagged { .. }, _) | (_, ValueKind::Table(_)) => false,
            (Form::List(_), ValueKind::Array(_)) => true,
            (Form::List(_), _) | (_, ValueKind::Array(_)) => false,
            _ => true,
        };
        // Of two maps, the one whose keys are there; the one of free names takes the rest.
        let has_its_keys = |node: &&Json| {
            let required =
                super::schema::resolve(node).1["required"].as_array().into_iter().flatten().filter_map(Json::as_str);
            let ValueKind::Table(table) = &value.kind else { return true };
            required.into_iter().all(|key| table.contains_key(key))
        };
        let named = |node: &&Json| !matches!(Form::of(node), Form::Keys { .. });
        let fitting = || alternatives.iter().filter(fits);
        let chosen = fitting().find(has_its_keys).or_else(|| fitting().find(named)).or_else(|| fitting().next());
        match chosen {
            Some(node) => self.value(value, node, path),
            None => self.mismatch(value, "something else", path, description_of_all(alternatives)),
        }
    }

    fn list(&mut self, value: &mut Value, inner: &Json, path: &KeyPath) {
        if let (ValueKind::String(text), true) = (&value.kind, self.origins.is_outside(path)) {
            let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
            value.kind = ValueKind::Array(items.map(|item| Value::new(None, item)).collect());
        }
        match &mut value.kind {
            ValueKind::Array(items) => {
                for (index, item) in items.iter_mut().enumerate() {
                    self.value(item, inner, &path.index(index));
                }
            }
            _ => self.mismatch(value, "a list", path, "write `[one, two]`, or one `- item` per line"),
        }
    }

    fn choice(&mut self, value: &Value, words: &[&str], path: &KeyPath) {
        match &value.kind {
            ValueKind::String(text) if words.contains(&text.as_str()) => {}
            ValueKind::String(text) => {
                let message =
                    format!("found {}, which is not one of the allowed words", self.origins.quote(path, text));
                let help = match self.origins.may_show(path) {
                    true => alternatives(text, words.iter().copied()),
                    false => format!("allowed: {}", words.join(", ")),
                };
                self.problem(path, message, help);
            }
            _ => self.mismatch(value, "a word", path, format!("allowed: {}", words.join(", "))),
        }
    }

    fn text(&mut self, value: &mut Value, path: &KeyPath) {
        match &value.kind {
            ValueKind::String(_) => {}
            ValueKind::Table(_) | ValueKind::Array(_) | ValueKind::Nil => self.mismatch(value, "text", path, ""),
            // As it was written: `0123` is not 123, and `1.50` is not 1.5.
            number => {
                let written = self.origins.mark(path).and_then(|mark| mark.plain.clone());
                value.kind = ValueKind::String(written.unwrap_or_else(|| number.to_string()));
            }
        }
    }

    fn parsed<'de, T: Deserialize<'de>>(&mut self, value: &mut Value, path: &KeyPath, wanted: &str) {
        self.text_of_number(value, path);
        match &value.kind {
            ValueKind::String(text) => {
                let read = T::deserialize(IntoDeserializer::<Refused>::into_deserializer(text.clone()));
                if read.is_err() {
                    let found = self.origins.quote(path, text);
                    self.problem(path, format!("found {found}, expected {wanted}"), "");
                }
            }
            _ => self.mismatch(value, wanted, path, ""),
        }
    }

    fn text_of_number(&mut self, value: &mut Value, path: &KeyPath) {
        if matches!(value.kind, ValueKind::I64(_) | ValueKind::Float(_)) {
            self.text(value, path);
        }
    }

    fn integer(&mut self, value: &mut Value, min: i64, max: i64, path: &KeyPath) {
        let wanted = match (min, max) {
            (i64::MIN, i64::MAX) => "a whole number".to_owned(),
            (min, i64::MAX) => format!("a whole number from {min}"),
            (min, max) => format!("a whole number from {min} to {max}"),
        };
        let number = match &value.kind {
            ValueKind::I64(number) => Some(*number),
            ValueKind::String(text) if self.origins.is_outside(path) => text.trim().parse().ok(),
            _ => None,
        };
        match number {
            Some(number) if (min..=max).contains(&number) => value.kind = ValueKind::I64(number),
            _ => self.mismatch(value, &wanted, path, ""),
        }
    }

    fn boolean(&mut self, value: &mut Value, path: &KeyPath) {
        let found = match &value.kind {
            ValueKind::Boolean(found) => Some(*found),
            ValueKind::String(text) if self.origins.is_outside(path) => text.trim().to_lowercase().parse().ok(),
            _ => None,
        };
        match found {
            Some(found) => value.kind = ValueKind::Boolean(found),
            None => self.mismatch(value, "true or false", path, ""),
        }
    }

    fn table<'v>(&mut self, value: &'v mut Value, path: &KeyPath) -> Option<&'v mut config::Map<String, Value>> {
        if !matches!(value.kind, ValueKind::Table(_)) {
            self.mismatch(value, "a map of keys", path, "");
        }
        match &mut value.kind {
            ValueKind::Table(table) => Some(table),
            _ => None,
        }
    }

    fn mismatch(&mut self, value: &Value, wanted: &str, path: &KeyPath, help: impl Display) {
        let found = self.found(value, path);
        self.problem(path, format!("found {found}, expected {wanted}"), help);
    }

    fn found(&self, value: &Value, path: &KeyPath) -> String {
        match &value.kind {
            ValueKind::Nil => "nothing".into(),
            ValueKind::Table(_) => "a map".into(),
            ValueKind::Array(_) => "a list".into(),
            _ if !self.origins.may_show(path) => "the value (withheld)".into(),
            // Text in the wrong place may be anything, a whole connection string included.
            ValueKind::String(_) => "text".into(),
            other => match self.origins.mark(path).and_then(|mark| mark.plain.as_ref()) {
                Some(written) => format!("`{written}`"),
                None => format!("`{other}`"),
            },
        }
    }

    fn problem(&mut self, path: &KeyPath, message: impl Into<String>, help: impl Display) {
        let help = help.to_string();
        self.problems.push(Problem {
            path: path.clone(),
            message: message.into(),
            help: Some(help).filter(|h| !h.is_empty()),
        });
    }

    /// A reference at this key could not be resolved: that was said already, and the key is not missing.
    fn failed_already(&self, path: &KeyPath) -> bool {
        self.origins.interpolated.contains(path)
    }
}

fn description_of_all(alternatives: &[Json]) -> String {
    alternatives.iter().map(description).filter(|text| !text.is_empty()).collect::<Vec<_>>().join("\n")
}

/// "did you mean … ?" where one is near, then all that is allowed.
pub(super) fn alternatives<'w>(written: &str, allowed: impl Iterator<Item = &'w str>) -> String {
    let allowed: Vec<&str> = allowed.collect();
    let all = format!("allowed: {}", allowed.join(", "));
    match nearest(written, allowed.into_iter()) {
        Some(near) => format!("did you mean `{near}`?\n{all}"),
        None => all,
    }
}

fn nearest<'w>(written: &str, allowed: impl Iterator<Item = &'w str>) -> Option<&'w str> {
    let written = written.to_lowercase().replace('-', "_");
    allowed
        .map(|word| (strsim::damerau_levenshtein(&written, word), word))
        .filter(|(distance, word)| *distance <= (word.len() / 3).max(1))
        .min()
        .map(|(_, word)| word)
}
