//! The config, as a person reads it.

use std::fmt::Write;

use towpath_contract::{KeyKind, TableSchema};

use super::column::{Guess, quoted, quoted_value};
use super::{Sampled, header_of, lines_of};

/// A whole config for one source. `url`: as the file is to have it. `type_name`: the source's `type`.
pub fn page(name: &str, type_name: &str, url: &str, patterns: &[String], all: &[Sampled]) -> String {
    let tables: Vec<String> = patterns.iter().map(|pattern| quoted_pattern(pattern)).collect();
    let page = format!(
        "# Written by `towpath discover` from the tables as they are now, and from their first rows. What stands as a comment is a\n\
         # guess, with what it was made from: read it, and take away the `#` where it is right. Then: towpath check, towpath doctor,\n\
         # towpath preview {name}.<schema>.<table>, towpath run.\n\
         sources:\n  {name}:\n    type: {type_name}\n    url: {url}\n    tables: [{}]\n\noutbox:\n  sqlite: outbox.db\n\n\
         rabbitmq:\n  url: ${{RABBITMQ_URL}} # amqp://user:password@host/vhost\n  # An event that no queue takes stops its route; \
         Towpath declares queues that it is told of:\n  # declare: {{ queues: {{ {name}.all: {{ bind: [\"{name}.#\"] }} }} }}\n",
        tables.join(", ")
    );
    let mut routes = String::new();
    all.iter().for_each(|sampled| route(&mut routes, name, sampled, all));
    // A list of comments alone is none.
    page + if routes.contains("\n  - from: ") { "\nroutes:\n" } else { "\n# routes:\n" } + &routes
}

fn route(page: &mut String, source: &str, sampled: &Sampled, all: &[Sampled]) {
    let Sampled { table, rows, guesses, remarks } = sampled;
    let key: Vec<&str> = table.key_columns().map(|at| table.columns[at].name.as_str()).collect();
    let key = if table.key == KeyKind::Columns { format!("key: {}", key.join(", ")) } else { "no key".into() };
    let rows = match rows {
        1 => "1 row".into(),
        rows => format!("{rows} rows"),
    };
    let _ = writeln!(page, "\n  # {}.{}: {key}; looked at {rows}", one_line(&table.schema), one_line(&table.name));
    for remark in remarks.iter().cloned().chain(lines_of(table, all)) {
        let _ = writeln!(page, "  # {}", one_line(&remark));
    }
    let (schema, name) = (&table.schema, &table.name);
    if schema.contains('.')
        || [schema, name].iter().any(|name| name.contains(|char: char| char == '*' || char.is_control()))
    {
        page.push_str(
            "  # (a route cannot name it: its name has a star or a control character, or its schema's a dot)\n",
        );
        return;
    }
    let from = format!("{source}.{}.{}", table.schema, table.name);
    let _ = writeln!(page, "  - from: {}", quoted_pattern(&from));
    aggregate(page, table, all);
    let steps = steps(guesses);
    if steps.is_empty() {
        return;
    }
    // A list of comments alone is none.
    let lead = if steps.iter().any(|step| step.is_safe) { "" } else { "# " };
    let _ = writeln!(page, "    {lead}transform:");
    for step in steps {
        for line in &step.evidence {
            let _ = writeln!(page, "      # {line}");
        }
        let _ = writeln!(page, "      {}- {}", if step.is_safe { "" } else { "# " }, step.yaml);
    }
}

/// The tables whose rows are probably lines of this one's.
fn aggregate(page: &mut String, table: &TableSchema, all: &[Sampled]) {
    let lines = all.iter().map(|other| &other.table).filter(|other| {
        let can_be_named = !other.name.contains(|char: char| char == '*' || char.is_control());
        header_of(other, all) == Some(&table.name) && other.schema == table.schema && can_be_named
    });
    // A list would have the name of a column.
    let lines = lines.filter(|lines| table.columns.iter().all(|column| column.name != lines.name));
    let part = |lines: &TableSchema| {
        let key = table.key_columns().map(|at| &table.columns[at].name);
        let on: Vec<String> = key.map(|name| format!("{}: {}", quoted(name), quoted_value(name))).collect();
        let from = quoted_pattern(&format!("{}.{}", lines.schema, lines.name));
        format!("{}: {{ from: {from}, on: {{ {} }} }}", quoted(&lines.name), on.join(", "))
    };
    let parts: Vec<String> = lines.map(part).collect();
    if !parts.is_empty() {
        page.push_str("    # for events that have those rows as a list:\n");
        let _ = writeln!(page, "    # aggregate: {{ {} }}", parts.join(", "));
    }
}

/// One of a kind for all columns.
struct Step {
    yaml: String,
    evidence: Vec<String>,
    is_safe: bool,
}

fn steps(guesses: &[Guess]) -> Vec<Step> {
    const ORDER: [&str; 6] = ["trim", "charset_repair", "null_if", "legacy_date", "decode", "mask"];
    let step = |(name, is_safe): (&&str, bool)| {
        let of: Vec<&Guess> = guesses.iter().filter(|guess| guess.step == *name && guess.is_safe == is_safe).collect();
        let first = *of.first()?;
        let columns: Vec<String> = of
            .iter()
            .map(|guess| match guess.option.as_str() {
                "" => quoted_value(&guess.column),
                option => format!("{}: {option}", quoted(&guess.column)),
            })
            .collect();
        let list = columns.join(", ");
        let yaml = if first.option.is_empty() { format!("{name}: [{list}]") } else { format!("{name}: {{ {list} }}") };
        let evidence =
            of.iter().map(|guess| one_line(&format!("{}: {}", quoted(&guess.column), guess.evidence))).collect();
        Some(Step { yaml, evidence, is_safe: first.is_safe })
    };
    ORDER.iter().flat_map(|name| [(name, true), (name, false)]).filter_map(step).collect()
}

fn quoted_pattern(text: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    if text.bytes().all(is_plain) {
        text.to_owned()
    } else {
        serde_json::Value::from(text.replace("${", "$${")).to_string()
    }
}

/// A name or a value must not end the comment that it stands in.
fn one_line(text: &str) -> String {
    text.chars()
        .map(|char| if char.is_control() || matches!(char, '\u{2028}' | '\u{2029}') { ' ' } else { char })
        .collect()
}
