//! The reference page of the config file, made from the same schema that editors use.

use std::fmt::Write;

use serde_json::Value as Json;

use super::schema::{Form, config_schema, description};

/// `docs/config.md`, whole.
pub fn page() -> String {
    let schema = config_schema();
    let mut page = String::from(HEAD);
    let Form::Keys { properties, required } = Form::of(schema) else { return page };
    // In the order in which a file is written, not in that of the alphabet.
    for key in ["sources", "routes", "outbox", "rabbitmq", "admin"] {
        if let Some(node) = properties.get(key) {
            section(&mut page, key, node, required.contains(&key), 2);
        }
    }
    page
}

const HEAD: &str = "\
# The config file

<!-- Generated from src/config/model.rs and the connectors' config.rs. Do not edit: `TOWPATH_BLESS=1 cargo test` writes it. -->

One file, YAML (`.yaml`, `.yml`) or TOML (`.toml`); `towpath check` judges it offline. Unknown keys are errors. A key with nothing
after it counts as not written. `towpath schema config` prints the JSON Schema of the file, for editors.

**References.** In a string value `${NAME}` is replaced by an environment variable and `${file:/path}` by a file's text (one newline
at its end is dropped). An unset variable is an error; `${NAME:-default}` gives a default, also where the variable is empty. `$${`
stands for `${`. Between `{ }` and `[ ]` YAML wants quotes: `{ url: \"${NAME}\" }`.

**Overrides.** The environment variable `TOWPATH__RABBITMQ__URL` sets the key `rabbitmq.url`, whatever the file says. `__` separates
keys, case does not matter, `_` stands for `-` too, a number picks an item of a list (`TOWPATH__ROUTES__0__FROM`), commas separate
the items of a whole list. The value is taken as it is, without references.

**Secrets** (type `secret`) and values that came from a reference or an override are never shown, in no error and no log.

Types: *text*; *secret*; *span*, a span of time, written `500ms`, `10s`, `5m`, `12h` or `7d`; *size*, written `512MiB`, `10GiB`, `1GB` or
in bytes; *number*; *true/false*; *list of …*; *map of …*, whose keys are names of your choice.
";

fn section(page: &mut String, path: &str, node: &Json, required: bool, level: usize) {
    let heading = "#".repeat(level.min(4));
    let kind = kind_of(node);
    let need = if required { ", required" } else { "" };
    let _ = write!(page, "\n{heading} `{path}`\n\n*{kind}{need}*{}\n", sentence(node));
    if let Some(default) = default_of(node) {
        let _ = write!(page, "\nDefault: `{default}`.\n");
    }
    inside(page, path, node, level + 1);
}

fn inside(page: &mut String, path: &str, node: &Json, level: usize) {
    match Form::of(node) {
        Form::Keys { properties, required } => {
            let mut keys: Vec<(&String, &Json)> =
                properties.iter().filter(|(_, node)| !node["const"].is_string()).collect();
            // What must be there comes first.
            keys.sort_by_key(|(key, _)| (!required.contains(&key.as_str()), (*key).clone()));
            for (key, node) in keys {
                section(page, &format!("{path}.{key}"), node, required.contains(&key.as_str()), level);
            }
        }
        Form::Named(inner) => inside(page, &format!("{path}.<name>"), inner, level),
        Form::List(inner) => inside(page, &format!("{path}[]"), inner, level),
        Form::Tagged { tag, variants } => {
            for (name, variant) in variants {
                let heading = "#".repeat(level.min(4));
                let _ = write!(
                    page,
                    "\n{heading} `{path}` with `{tag}: {name}`\n\n{}\n",
                    description(variant).replace('\n', " ")
                );
                inside(page, path, variant, level);
            }
        }
        _ => {}
    }
}

fn kind_of(node: &Json) -> String {
    match Form::of(node) {
        Form::Keys { .. } | Form::Tagged { .. } => "map".into(),
        Form::Named(inner) => format!("map of {}", plural(inner)),
        Form::List(inner) => format!("list of {}", plural(inner)),
        Form::Choice(words) => words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(" or "),
        Form::Text | Form::Other => "text".into(),
        Form::Secret => "secret".into(),
        Form::Span => "span".into(),
        Form::Size => "size".into(),
        Form::Integer { .. } => "number".into(),
        Form::Boolean => "true/false".into(),
    }
}

fn plural(node: &Json) -> String {
    match Form::of(node) {
        Form::Text => "texts".into(),
        _ => format!("{}s", kind_of(node)),
    }
}

fn sentence(node: &Json) -> String {
    match description(node) {
        "" => String::new(),
        text => format!(". {}", text.replace('\n', " ")),
    }
}

/// A default that the description does not already tell.
fn default_of(node: &Json) -> Option<String> {
    let told = description(node).to_lowercase();
    match &node["default"] {
        Json::Null => None,
        Json::Array(items) if items.is_empty() => None,
        _ if told.contains("default") => None,
        Json::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::page;

    /// `TOWPATH_BLESS=1 cargo test` writes the page anew.
    #[test]
    fn the_reference_page_is_in_step_with_the_code() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/config.md");
        if std::env::var_os("TOWPATH_BLESS").is_some() {
            std::fs::create_dir_all(concat!(env!("CARGO_MANIFEST_DIR"), "/docs")).unwrap();
            std::fs::write(path, page()).unwrap();
        }
        let written = std::fs::read_to_string(path).unwrap_or_default();
        assert!(written == page(), "docs/config.md is not in step: run `TOWPATH_BLESS=1 cargo test` and commit it");
    }
}
