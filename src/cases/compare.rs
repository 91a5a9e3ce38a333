//! What came out beside what was expected, in words.

use amq_protocol::protocol::basic::{AMQPProperties, parse_properties};
use serde_json::Value as Json;

use super::Expected;
use super::yaml::{Is, Node, get, is_json};
use crate::event::{Event, EventBatch};

/// What a case may say of an event.
pub(super) const MEMBERS: [&str; 9] =
    ["route", "type", "exchange", "routing_key", "key", "headers", "body", "parked", "correlation_id"];

pub(super) fn differences(expected: &Expected, events: &EventBatch, routes: &[&str]) -> Vec<String> {
    if let Some(reason) = &expected.parked {
        let parked: Vec<&str> = events.iter().filter_map(|event| event.parked).collect();
        return match parked.as_slice() {
            [found] if events.len() == 1 && found.contains(reason.as_str()) => Vec::new(),
            [found, ..] => vec![format!("parked: expected {reason:?}, found {found:?}")],
            [] if events.is_empty() => vec![format!("parked: expected {reason:?}, and there is no event")],
            [] => vec![format!("parked: expected {reason:?}, and the event is published")],
        };
    }
    let mut found = Vec::new();
    if events.len() != expected.events.len() {
        let came: Vec<String> =
            events.iter().map(|event| format!("{} ({})", kind(&event), event.routing_key)).collect();
        let came = if came.is_empty() { "none".into() } else { came.join(", ") };
        found.push(format!("events: expected {}, found {}: {came}", expected.events.len(), events.len()));
    }
    for (nth, (expected, event)) in expected.events.iter().zip(events.iter()).enumerate() {
        let mut of_event = Vec::new();
        compare_event(expected, &event, routes, &mut of_event);
        found.extend(of_event.into_iter().map(|difference| format!("events[{nth}].{difference}")));
    }
    found
}

fn compare_event(expected: &Node, event: &Event<'_>, routes: &[&str], found: &mut Vec<String>) {
    let Ok(members) = expected.map() else { return };
    let properties = parse_properties(event.properties).map(|(_, properties)| properties).unwrap_or_default();
    let route = routes.get(event.route.0 as usize).copied().unwrap_or_default();
    match (event.parked, get(members, "parked")) {
        (Some(reason), None) => found.push(format!("parked: it is set aside: {reason}")),
        (None, Some(_)) => found.push("parked: it is published".into()),
        (Some(reason), Some(wanted)) if !reason.contains(wanted.scalar().unwrap_or_default()) => {
            found.push(format!("parked: expected {:?}, found {reason:?}", wanted.scalar().unwrap_or_default()));
        }
        _ => {}
    }
    let correlation = properties.correlation_id().as_ref().map_or("", |text| text.as_str());
    let texts = [
        ("route", route.to_owned()),
        ("type", kind(event)),
        ("exchange", event.exchange.to_owned()),
        ("routing_key", event.routing_key.to_owned()),
        ("correlation_id", correlation.to_owned()),
    ];
    for (name, text) in texts {
        if let Some(wanted) = get(members, name) {
            compare_text(name, wanted, &text, found);
        }
    }
    if let Some(wanted) = get(members, "headers").and_then(|headers| headers.map().ok()) {
        for (name, wanted) in wanted {
            compare_header(name, wanted, &properties, found);
        }
    }
    if let Some(wanted) = get(members, "key") {
        compare_json("key", wanted, &serde_json::from_str(event.key).unwrap_or_default(), found);
    }
    let Some(wanted) = get(members, "body") else { return };
    let body = String::from_utf8_lossy(event.body);
    match (&wanted.is, serde_json::from_slice::<Json>(event.body)) {
        // Of the body's own members those that are written: time and transaction are of no case.
        (Is::Map(wanted), Ok(Json::Object(members))) => {
            for (name, wanted) in wanted {
                match members.get(name) {
                    Some(member) => compare_json(&format!("body.{name}"), wanted, member, found),
                    None if wanted.is_null() => {}
                    None => found.push(format!("body.{name}: expected {}, and there is none", wanted.json())),
                }
            }
        }
        (Is::Plain(_) | Is::Quoted(_), _) => compare_text("body", wanted, &body, found),
        (_, Ok(json)) => compare_json("body", wanted, &json, found),
        (_, Err(_)) => found.push(format!("body: expected {}, found {body:?}", wanted.json())),
    }
}

fn kind(event: &Event<'_>) -> String {
    let properties = parse_properties(event.properties).map(|(_, properties)| properties).unwrap_or_default();
    properties.kind().as_ref().map(|kind| kind.as_str().to_owned()).unwrap_or_default()
}

fn compare_header(name: &str, wanted: &Node, properties: &AMQPProperties, found: &mut Vec<String>) {
    let headers = properties.headers().as_ref();
    let value = headers.and_then(|headers| headers.inner().get(name)).and_then(|value| value.as_long_string());
    match value {
        Some(text) => {
            compare_text(&format!("headers.{name}"), wanted, &String::from_utf8_lossy(text.as_bytes()), found)
        }
        None if wanted.is_null() => {}
        None => found.push(format!("headers.{name}: expected {}, and there is none", wanted.json())),
    }
}

fn compare_text(name: &str, wanted: &Node, text: &str, found: &mut Vec<String>) {
    match wanted.scalar() {
        _ if wanted.is_null() && text.is_empty() => {}
        Ok(wanted) if wanted == text => {}
        _ => found.push(format!("{name}: expected {}, found {text:?}", wanted.json())),
    }
}

/// Objects and lists are compared whole.
fn compare_json(path: &str, wanted: &Node, json: &Json, found: &mut Vec<String>) {
    match (&wanted.is, json) {
        (Is::Map(wanted), Json::Object(members)) => {
            for (name, wanted) in wanted {
                match members.get(name) {
                    Some(member) => compare_json(&format!("{path}.{name}"), wanted, member, found),
                    None => found.push(format!("{path}.{name}: expected {}, and there is none", wanted.json())),
                }
            }
            for (name, member) in members.iter().filter(|(name, _)| get(wanted, name).is_none()) {
                found.push(format!("{path}.{name}: expected none, found {member}"));
            }
        }
        (Is::List(wanted), Json::Array(items)) if wanted.len() == items.len() => {
            for (nth, (wanted, item)) in wanted.iter().zip(items).enumerate() {
                compare_json(&format!("{path}[{nth}]"), wanted, item, found);
            }
        }
        (Is::Plain(plain), json) if is_json(plain) && is_same(plain, json) => {}
        (Is::Plain(plain), Json::String(text)) if !is_json(plain) && !wanted.is_null() && plain == text => {}
        (Is::Quoted(quoted), Json::String(text)) if quoted == text => {}
        (_, Json::Null) if wanted.is_null() => {}
        _ => found.push(format!("{path}: expected {}, found {json}", wanted.json())),
    }
}

fn is_same(plain: &str, json: &Json) -> bool {
    let found = json.to_string();
    // `1.50` and `1.5` are one number; of whole ones every digit counts.
    let is_float = |text: &str| text.contains(['.', 'e', 'E']);
    plain == found || (is_float(plain) && plain.parse().ok() == json.as_f64() && json.is_number())
}
