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
        // Of the steps there is a page of its own.
        _ => {}
    }
}

fn kind_of(node: &Json) -> String {
    match Form::of(node) {
        Form::Keys { .. } | Form::Tagged { .. } => "map".into(),
        Form::Named(inner) => format!("map of {}", plural(inner)),
        Form::List(inner) => format!("list of {}", plural(inner)),
        Form::One { words, keys } => {
            let keys = keys.iter().map(|(key, _)| format!("`{key}: …`"));
            words.iter().map(|word| format!("`{word}`")).chain(keys).collect::<Vec<_>>().join(" or ")
        }
        Form::Either(alternatives) => alternatives.iter().map(kind_of).collect::<Vec<_>>().join(" or "),
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
        Form::One { words, keys } if words.is_empty() => {
            let keys: Vec<String> = keys.iter().map(|(key, _)| format!("`{key}`")).collect();
            format!("maps of one key each: {}", keys.join(", "))
        }
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

/// `docs/transforms.md`, whole: every step, its options, and what it makes of an example.
#[cfg(test)]
fn transforms() -> String {
    let mut page = String::from(TRANSFORMS_HEAD);
    let path = crate::config::path::KeyPath::root().key("routes").index(0).key("transform").index(0);
    let steps = super::schema::node_at(config_schema(), path.segments()).map(Form::of);
    let Some(Form::One { keys, .. }) = steps else { panic!("a step is a map of one key") };
    for (name, node) in keys {
        let paragraphs = description(node).split("\n\n").map(|paragraph| paragraph.replace('\n', " "));
        let _ = write!(page, "\n## `{name}`\n\n{}\n", paragraphs.collect::<Vec<_>>().join("\n\n"));
        let mut options = String::new();
        list_options(&mut options, node);
        if !options.is_empty() {
            let _ = write!(page, "\n{options}");
        }
        let example = crate::route::transform::examples::EXAMPLES.iter().find(|example| example.step == name);
        let example = example.unwrap_or_else(|| panic!("`{name}` needs an example"));
        let _ = write!(page, "\n```yaml\n- {}\n```\n\n| row | event |\n|---|---|\n", example.yaml);
        for (before, after) in example.run() {
            let _ = writeln!(page, "| {before} | {after} |");
        }
    }
    page
}

#[cfg(test)]
const TRANSFORMS_HEAD: &str = "\
# Transforms

<!-- Generated from src/route/transform. Do not edit: `TOWPATH_BLESS=1 cargo test` writes it. -->

The steps of a route's `transform`, in the order in which they are written; each sees the columns as the step before left them.

```yaml
routes:
  - from: orders_db.public.orders
    transform:
      - trim: [\"*\"]
      - rename: { cust_no: customer_id }
      - decode: { status: { A: active, S: shipped } }
```

Steps leave null as it is, and what the source did not say (an unchanged TOAST value) absent. They are done on the row before a
change, on the row after it, and on the key. What is made of several values is absent where none of them was sent; where only some were,
those may have changed, and the event is parked. Order per key and the ids of events go by the real key, whatever the steps do to it.

**Columns that are not there.** A column that a step names must be in the table. Where `from` has a `*`, tables without it are left
as they are. `status?` stands for a column that need not be there: while the log still holds rows from before a column was renamed,
name both, `[\"status?\", \"state?\"]`. `towpath doctor` and the start hold the steps against the live tables; a step that cannot be
done on a table stops the source before anything of it is recorded, with the line of the config.

**Values that a step cannot be done on.** The event is parked with the step, the column and the reason, never with the value:
`towpath parked list`. In it that column is as it was before the step, and what `mask` hides is hidden all the same. The route's
`on_error` says otherwise: `stop` stops the source before that row is recorded, `nullify` makes the value null and says so.

**What masking does not reach.** What Towpath needs to go on is kept as the source has it, in files that only its user may read: the
progress of a snapshot holds the last key that was read, the spool holds large transactions until they commit, and an event holds a
64-bit hash of its real key. Where keys themselves are secret, so is the folder of the outbox. A mask is of one route: another route
that takes the same table publishes its rows as they are.

## Expressions

`filter`, `set` and `branch` take expressions, in the words of [CEL](https://cel.dev). They are read when the config is, functions and
patterns too, and held against the tables at the start: a column that is not there, or a text that is compared with a number, is an
error with the line of the config.

| written | is |
|---|---|
| `status`, `row[\"Cust No\"]` | a column of the row as it is after the change, or as it was before a delete; after the steps that stand before |
| `before.status`, `after.status` | the same column of one of the two rows; null where there is no such row, not known where there was one that the source did not send (PostgreSQL sends the row before an update under `REPLICA IDENTITY FULL`) |
| `before == null` | there is no row before, as with an insert |
| `changed(\"status\")` | the update changed the column; an insert, a read and a delete change every column |
| `has(after.note)` | the source sent the value |
| `op` | `'insert'`, `'update'`, `'delete'`, `'read'`, `'message'` |
| `'text'`, `12.50`, `true`, `null` | values; numbers are exact, `0.1 + 0.2 == 0.3` |
| `+ - * / %` | whole numbers and decimals of any size; `7 / 2` is 3, `7.0 / 2` is 3.5, a division keeps 34 digits; `+` joins texts |
| `== != < <= > >=`, `in ['A', 'B']` | both sides of one type; dates and timestamps are compared with texts that stand in the expression: `due < '2024-01-01'` |
| `&& \\|\\| !`, `a ? b : c` | |
| `int(x)`, `decimal(x)`, `double(x)`, `string(x)` | one type made of another |
| `x.startsWith('A')`, `endsWith`, `contains`, `matches('^[A-Z]+$')`, `lowerAscii()`, `upperAscii()`, `trim()`, `substring(0, 3)`, `replace('-', '')`, `size(x)` | of texts |
| `round(x, 2)` (half away from zero), `abs(x)`, `coalesce(x, y)` | of numbers; the first that is not null |

With null, a comparison is false (`null != 'A'` is true, `null == null` is true), a condition is false, and everything else is null.
With a value that the source did not send (an unchanged TOAST value, the columns of a row of which only the key was logged), the
whole expression is not known, unless the rest decides it: `false && …` is false. What then becomes of the change, each step says.
";

/// What may stand at a step's key, where that takes words.
#[cfg(test)]
fn list_options(out: &mut String, node: &Json) {
    let item = |out: &mut String, name: &str, node: &Json| {
        let _ = writeln!(out, "- `{name}`: {}", description(node).replace('\n', " "));
    };
    let constants = |out: &mut String, node: &Json| {
        let described = node["oneOf"].as_array().into_iter().flatten().filter(|one| one["const"].is_string());
        for one in described {
            item(out, one["const"].as_str().unwrap_or_default(), one);
        }
        let plain = node["oneOf"].as_array().into_iter().flatten().filter_map(|one| one["enum"].as_array());
        let plain: Vec<String> = plain.flatten().filter_map(Json::as_str).map(|word| format!("`{word}`")).collect();
        if !plain.is_empty() {
            let _ = writeln!(out, "- {}", plain.join(", "));
        }
    };
    let node = super::schema::resolve(node).1;
    match Form::of(node) {
        Form::Named(inner) => list_options(out, inner),
        Form::Choice(_) => constants(out, node),
        Form::One { keys, .. } => {
            constants(out, node);
            for variant in node["oneOf"].as_array().into_iter().flatten() {
                if let Some((key, _)) = keys.iter().find(|(key, _)| variant["properties"][key].is_object()) {
                    item(out, key, variant);
                }
            }
        }
        Form::Either(alternatives) => alternatives.iter().for_each(|node| list_options(out, node)),
        Form::Keys { properties, .. } => properties.iter().for_each(|(key, node)| {
            item(out, key, node);
        }),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::{page, transforms};

    /// `TOWPATH_BLESS=1 cargo test` writes the pages anew.
    fn is_in_step(name: &str, page: &str) {
        let path = format!("{}/docs/{name}", env!("CARGO_MANIFEST_DIR"));
        if std::env::var_os("TOWPATH_BLESS").is_some() {
            std::fs::write(&path, page).unwrap();
        }
        let written = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(written == page, "docs/{name} is not in step: run `TOWPATH_BLESS=1 cargo test` and commit it");
    }

    #[test]
    fn the_reference_pages_are_in_step_with_the_code() {
        is_in_step("config.md", &page());
        is_in_step("transforms.md", &transforms());
    }
}
