//! The JSON Schema of the config file, made from [`super::model`], and the few forms that it is written in.
//!
//! One definition per option: editors complete from this schema, [`super::shape`] checks by it, [`super::reference`] prints it.

use std::sync::LazyLock;

use serde_json::Value as Json;

use super::model::Config;
use super::path::{KeyPath, Segment};

static SCHEMA: LazyLock<Json> = LazyLock::new(|| {
    let mut schema = schemars::schema_for!(Config).to_value();
    drop_null_defaults(&mut schema);
    schema
});

/// The whole schema, draft 2020-12.
pub fn config_schema() -> &'static Json {
    &SCHEMA
}

/// `"default": null` says nothing: what happens without a key stands in its description.
fn drop_null_defaults(node: &mut Json) {
    match node {
        Json::Object(map) => {
            if map.get("default") == Some(&Json::Null) {
                map.remove("default");
            }
            map.values_mut().for_each(drop_null_defaults);
        }
        Json::Array(items) => items.iter_mut().for_each(drop_null_defaults),
        _ => {}
    }
}

/// What may stand at a key.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Form<'a> {
    /// A map of known keys.
    Keys {
        properties: &'a serde_json::Map<String, Json>,
        required: Vec<&'a str>,
    },
    /// A map whose keys are names of the user's choice.
    Named(&'a Json),
    /// A map whose `tag` says which keys it has.
    Tagged {
        tag: &'a str,
        variants: Vec<(&'a str, &'a Json)>,
    },
    List(&'a Json),
    /// One of these words, or a map with one of these keys alone.
    One {
        words: Vec<&'a str>,
        keys: Vec<(&'a str, &'a Json)>,
    },
    /// One of several, told apart by being a map, a list, or neither.
    Either(&'a [Json]),
    /// One of these words.
    Choice(Vec<&'a str>),
    Text,
    /// Text that is never shown.
    Secret,
    Span,
    Size,
    Integer {
        min: i64,
        max: i64,
    },
    Boolean,
    /// Something that this module does not know; `serde` alone judges it.
    Other,
}

impl<'a> Form<'a> {
    pub(super) fn of(node: &'a Json) -> Form<'a> {
        let (name, node) = resolve(node);
        match name {
            Some("Secret") => return Form::Secret,
            Some("Span") => return Form::Span,
            Some("ByteSize") => return Form::Size,
            _ => {}
        }
        if let Some(form) = choice(node).or_else(|| tagged(node)).or_else(|| one(node)).or_else(|| either(node)) {
            return form;
        }
        match first_type(node) {
            Some("object") => match (node["properties"].as_object(), &node["additionalProperties"]) {
                (Some(properties), _) => Form::Keys { properties, required: words(&node["required"]) },
                (None, named @ Json::Object(_)) => Form::Named(named),
                _ => Form::Other,
            },
            Some("array") => Form::List(&node["items"]),
            Some("string") => Form::Text,
            Some("boolean") => Form::Boolean,
            Some("integer") => Form::Integer {
                min: node["minimum"].as_i64().unwrap_or(i64::MIN),
                max: node["maximum"].as_i64().unwrap_or_else(|| match node["format"].as_str() {
                    Some("uint8") => u8::MAX.into(),
                    Some("uint16") => u16::MAX.into(),
                    Some("uint32") => u32::MAX.into(),
                    _ => i64::MAX,
                }),
            },
            _ => Form::Other,
        }
    }
}

/// What the schema says at a key: its own description, or that of its type.
pub(super) fn description(node: &Json) -> &str {
    node["description"].as_str().or_else(|| resolve(node).1["description"].as_str()).unwrap_or_default()
}

/// Whether a secret is written at this key. Of a key that the schema does not know, nobody can tell: it is taken for one.
pub(super) fn is_secret(path: &KeyPath) -> bool {
    node_at(config_schema(), path.segments()).is_none_or(|node| Form::of(node) == Form::Secret)
}

/// The schema of the value at a path.
pub(super) fn node_at<'a>(node: &'a Json, path: &[Segment]) -> Option<&'a Json> {
    let Some((first, rest)) = path.split_first() else { return Some(node) };
    match (Form::of(node), first) {
        (Form::Keys { properties, .. }, Segment::Key(key)) => node_at(properties.get(key)?, rest),
        (Form::Named(inner), Segment::Key(_)) | (Form::List(inner), Segment::Index(_)) => node_at(inner, rest),
        (Form::Tagged { variants, .. }, Segment::Key(_)) => {
            variants.into_iter().find_map(|(_, variant)| node_at(variant, path))
        }
        (Form::One { keys, .. }, Segment::Key(key)) => {
            let (_, inner) = keys.into_iter().find(|(name, _)| name == key)?;
            node_at(inner, rest)
        }
        (Form::Either(alternatives), _) => alternatives.iter().find_map(|inner| node_at(inner, path)),
        _ => None,
    }
}

fn variant_keys(variant: &Json) -> Option<&serde_json::Map<String, Json>> {
    variant["properties"].as_object()
}

/// Follows references, and takes the other half of "this or null": a key with nothing after it counts as not written.
pub(super) fn resolve(node: &Json) -> (Option<&str>, &Json) {
    if let Some(name) = node["$ref"].as_str().and_then(|target| target.strip_prefix("#/$defs/")) {
        let (inner, node) = resolve(&SCHEMA["$defs"][name]);
        return (inner.or(Some(name)), node);
    }
    match node["anyOf"].as_array().map(Vec::as_slice) {
        Some([one, null]) if first_type(null) == Some("null") => resolve(one),
        _ => (None, node),
    }
}

fn first_type(node: &Json) -> Option<&str> {
    match &node["type"] {
        Json::Array(types) => types.iter().filter_map(Json::as_str).find(|name| *name != "null").or(Some("null")),
        other => other.as_str(),
    }
}

fn words(list: &Json) -> Vec<&str> {
    list.as_array().into_iter().flatten().filter_map(Json::as_str).collect()
}

/// A list of words, or of words with a description each.
fn choice(node: &Json) -> Option<Form<'_>> {
    if node["enum"].is_array() {
        return Some(Form::Choice(words(&node["enum"])));
    }
    let constants: Option<Vec<&str>> = node["oneOf"].as_array()?.iter().map(|one| one["const"].as_str()).collect();
    constants.map(Form::Choice)
}

fn tagged(node: &Json) -> Option<Form<'_>> {
    let variants = node["oneOf"].as_array()?;
    let constant = |variant: &'_ Json| {
        let properties = variant_keys(variant)?;
        properties.iter().find(|(_, node)| node["const"].is_string()).map(|(key, _)| key.clone())
    };
    let tag_name = constant(variants.first()?)?;
    let (tag, _) = variant_keys(variants.first()?)?.get_key_value(&tag_name)?;
    let variants: Option<Vec<(&str, &Json)>> =
        variants.iter().map(|variant| Some((variant["properties"][tag]["const"].as_str()?, variant))).collect();
    variants.map(|variants| Form::Tagged { tag, variants })
}

/// As `serde` writes an enum whose variants hold something: constants, and maps of one required key.
fn one(node: &Json) -> Option<Form<'_>> {
    let (mut all_words, mut keys) = (Vec::new(), Vec::new());
    for variant in node["oneOf"].as_array()? {
        match (variant["const"].as_str(), words(&variant["required"]).as_slice()) {
            (Some(word), _) => all_words.push(word),
            (None, [key]) => keys.push((*key, &variant["properties"][key])),
            (None, _) if variant["enum"].is_array() => all_words.extend(words(&variant["enum"])),
            (None, _) => return None,
        }
    }
    Some(Form::One { words: all_words, keys })
}

fn either(node: &Json) -> Option<Form<'_>> {
    node["anyOf"].as_array().map(|alternatives| Form::Either(alternatives))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> KeyPath {
        text.split('.').fold(KeyPath::root(), |path, part| match part.parse() {
            Ok(index) => path.index(index),
            Err(_) => path.key(part),
        })
    }

    #[test]
    fn secrets_are_known_by_their_type() {
        for secret in [
            "rabbitmq.url",
            "rabbitmq.urls.0",
            "sources.db.url",
            "sources.db.password",
            "admin.token",
            "routes.0.transform.1.mask.email.hmac",
        ] {
            assert!(is_secret(&path(secret)), "{secret}");
        }
        for open in [
            "rabbitmq.window",
            "sources.db.tables.0",
            "outbox.sqlite",
            "sources.db.type",
            "routes.0.event.type",
            "routes.0.transform.1.decode.status.A",
        ] {
            assert!(!is_secret(&path(open)), "{open}");
        }
        assert!(is_secret(&path("sources.db.passwrd")), "an unknown key may hold anything");
    }

    /// A form that is not known here would be checked by `serde` alone, whose errors have no column in a source's keys.
    #[test]
    fn every_key_of_the_model_has_a_known_form() {
        fn visit(node: &Json, path: &str) {
            match Form::of(node) {
                Form::Other => panic!("{path}: {node}"),
                Form::Keys { properties, .. } => {
                    properties.iter().for_each(|(key, node)| visit(node, &format!("{path}.{key}")));
                }
                Form::Named(inner) | Form::List(inner) => visit(inner, &format!("{path}.*")),
                Form::One { keys, .. } => {
                    keys.into_iter().for_each(|(key, node)| visit(node, &format!("{path}.{key}")));
                }
                Form::Either(alternatives) => alternatives.iter().for_each(|node| visit(node, path)),
                Form::Tagged { variants, .. } => {
                    for (name, variant) in variants {
                        let properties = variant_keys(variant).expect("a variant is a map");
                        properties.iter().filter(|(_, node)| !node["const"].is_string()).for_each(|(key, node)| {
                            visit(node, &format!("{path}<{name}>.{key}"));
                        });
                    }
                }
                _ => {}
            }
        }
        visit(config_schema(), "");
    }
}
