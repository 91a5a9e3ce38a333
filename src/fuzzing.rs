//! One function for each decoder of bytes from outside: `fuzz/` calls them with bytes of its own, the tests here with the
//! corpora that are kept there. None may panic, hang, or hold more than a small multiple of what it was given.

use crate::config::{ConfigError, Environment, Purpose, Syntax, load_text};
use crate::{outbox, relay, route};

/// Frames from the broker; the first byte says in what pieces they come.
pub fn amqp(bytes: &[u8]) {
    relay::read_frames(bytes);
}

/// A config file, as YAML and as TOML.
pub fn config(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    // Not the machine's files.
    if text.contains("${file") {
        return;
    }
    let environment = Environment::of([("NAME", "hunter2"), ("TOWPATH__ADMIN__TOKEN", "hunter2")]);
    for syntax in [Syntax::Yaml, Syntax::Toml] {
        if let Err(problems) = load_text(text, syntax, &environment, Purpose::Ask)
            && !text.contains("hunter2")
        {
            let error = ConfigError { file: "towpath.yaml".into(), problems };
            assert!(!format!("{error}\n{:?}", error.records()).contains("hunter2"), "a secret is shown");
        }
    }
}

/// A template of a route.
pub fn template(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let names = route::Names { source: "db", schema: "public", table: "a.b", op: "insert", event_type: Some("a.b") };
    for goes in [route::Goes::Plain, route::Goes::RoutingKey] {
        drop(route::render(text, &names, goes));
    }
}

/// An expression of a step.
pub fn expression(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    route::compile_expression(text);
}

/// A column's bytes, in every form that JSON has for them.
pub fn json(bytes: &[u8]) {
    route::write_every_form(bytes);
}

/// A row of the outbox, with other values than Towpath wrote.
pub fn outbox_row(bytes: &[u8]) {
    outbox::read_row(bytes);
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    /// Every file of the target's corpus, through the target.
    fn replay(target: &str, run: fn(&[u8])) {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
        let files: Vec<_> = std::fs::read_dir(&folder).expect("the target has a corpus").flatten().collect();
        assert!(!files.is_empty(), "{}", folder.display());
        for file in files {
            run(&std::fs::read(file.path()).expect("a file of the corpus can be read"));
        }
    }

    #[test]
    fn the_corpora_pass() {
        replay("amqp", super::amqp);
        replay("config", super::config);
        replay("template", super::template);
        replay("expression", super::expression);
        replay("json", super::json);
        replay("outbox_row", super::outbox_row);
    }
}
