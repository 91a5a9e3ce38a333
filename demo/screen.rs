//! What a person sees.

use std::time::Duration;

use towpath_test_support::Delivery;

const BOLD: &str = "\x1b[1m";
const DIM: &str = "\x1b[2m";
const GREEN: &str = "\x1b[32m";
const RED: &str = "\x1b[31m";
const PLAIN: &str = "\x1b[0m";

/// Colours are for terminals only.
fn paint(colour: &str, text: &str) -> String {
    match std::io::IsTerminal::is_terminal(&std::io::stdout()) && std::env::var_os("NO_COLOR").is_none() {
        true => format!("{colour}{text}{PLAIN}"),
        false => text.to_owned(),
    }
}

pub(crate) fn title(text: &str) {
    println!("\n{}", paint(BOLD, text));
}

pub(crate) fn say(text: &str) {
    println!("   {text}");
}

pub(crate) fn done(text: &str, took: Duration) {
    println!("   {} {text}, after {:.1} s", paint(GREEN, "✓"), took.as_secs_f64());
}

pub(crate) fn problem(text: &str) {
    eprintln!("\n{} {text}", paint(RED, "The demo failed:"));
}

pub(crate) fn table(rows: &[(&str, usize)]) {
    for (name, count) in rows {
        println!("     {name:<24}{:>8}", number(*count));
    }
}

/// `1,234`.
pub(crate) fn number(number: usize) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A message in full: where it came from, its headers, its body.
pub(crate) fn whole(event: &Delivery) {
    println!("     {} {}", paint(DIM, "routing key"), event.routing_key);
    println!("     {}  {}", paint(DIM, "message-id"), event.message_id);
    for (name, value) in &event.headers {
        println!("     {} {value}", paint(DIM, name));
    }
    let pretty = serde_json::to_string_pretty(&event.json()).unwrap_or_default();
    for line in pretty.lines() {
        println!("     {line}");
    }
}

/// A message on one line: what happened, to which row, and what it is now.
pub(crate) fn line(event: &Delivery) {
    let body = event.json();
    let op = body["op"].as_str().unwrap_or_default();
    let table = body["table"].as_str().unwrap_or_default().trim_start_matches("public.");
    let row = match &body["after"] {
        serde_json::Value::Null => format!("key {}", body["key"]),
        after => after.to_string(),
    };
    println!("     {} {} {row}", paint(GREEN, &format!("{op:<6}")), paint(BOLD, &format!("{table:<7}")));
}
