//! `TOWPATH__RABBITMQ__URL` sets the key `rabbitmq.url`, whatever the file says.
//!
//! Names are compared without regard to case, and `_` stands for `-` too: an environment variable's name can hold neither
//! lower case by custom nor `-` at all. A number picks an item of a list. Values are text, taken as they are; where the key
//! wants a number, a boolean or a list (by commas), [`super::shape`] reads the text so.

use config::{Map, Value, ValueKind};

use super::Environment;
use super::origin::Origins;
use super::path::{KeyPath, Segment};
use super::problem::Problem;

const PREFIX: &str = "TOWPATH__";

pub(super) fn apply(tree: &mut Value, environment: &Environment, origins: &mut Origins) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (name, value) in environment.iter() {
        let Some(keys) = name.strip_prefix(PREFIX) else { continue };
        let mut path = KeyPath::root();
        match slot(tree, keys, &mut path) {
            Ok(slot) => *slot = Value::new(None, value),
            Err(message) => {
                let problem = Problem::new(path.clone(), message);
                problems.push(problem.help("`__` separates keys: TOWPATH__RABBITMQ__URL sets rabbitmq.url"));
            }
        }
        origins.variables.insert(path, name.to_owned());
    }
    problems
}

/// Where the value goes. Maps on the way are made.
fn slot<'a>(tree: &'a mut Value, keys: &str, path: &mut KeyPath) -> Result<&'a mut Value, String> {
    let mut slot = tree;
    for word in keys.split("__") {
        if word.is_empty() {
            return Err("the variable's name has an empty key".into());
        }
        if !matches!(slot.kind, ValueKind::Table(_) | ValueKind::Array(_)) {
            slot.kind = ValueKind::Table(Map::new());
        }
        slot = match &mut slot.kind {
            ValueKind::Table(table) => {
                let key = key_in(table, word)?;
                *path = path.key(&key);
                table.entry(key).or_default()
            }
            ValueKind::Array(items) => {
                let count = items.len();
                let index: usize = word.parse().map_err(|_| format!("`{word}` is no number, and here is a list"))?;
                *path = path.with(Segment::Index(index));
                if index > count {
                    return Err(format!("the list has {count} items; {index} would leave a hole"));
                }
                if index == count {
                    items.push(Value::default());
                }
                &mut items[index]
            }
            // Scalars were made tables above.
            _ => return Err(format!("`{word}` is inside a value that holds none")),
        };
    }
    Ok(slot)
}

/// The key of the file that is meant; one that is not there yet, in lower case.
fn key_in(table: &Map<String, Value>, word: &str) -> Result<String, String> {
    let fold = |text: &str| text.to_lowercase().replace('-', "_");
    if table.contains_key(word) {
        return Ok(word.to_owned());
    }
    let mut meant: Vec<&String> = table.keys().filter(|key| fold(key) == fold(word)).collect();
    meant.sort();
    match meant.as_slice() {
        [] => Ok(word.to_lowercase()),
        [key] => Ok((*key).clone()),
        [one, other, ..] => Err(format!("`{word}` may mean `{one}` or `{other}`")),
    }
}
