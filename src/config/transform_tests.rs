//! A route's `transform`, as it is written and as it is judged before any table is known.

use super::tests::{MINIMAL, bad, good, variables};
use super::{Environment, Purpose, Syntax, load_text};

fn with(steps: &str) -> String {
    format!("{MINIMAL}routes:\n  - from: orders-db.public.t\n    transform:\n{steps}")
}

#[test]
fn every_step_can_be_written() {
    let steps = "      - trim: [status, \"*\"]
      - null_if: { ended: [\"0\", 99999999], name: [\"\"] }
      - decode: { status: { A: active, 1: one, true: yes, N: no, \"*\": \"{{ value }}\" } }
      - cast: { qty: int }
      - implied_decimal: { amount: 2 }
      - legacy_date: { due: yymmdd, made: { form: days, since: 1899-12-30 } }
      - mask: { email: { hmac: \"${KEY}\" }, phone: { keep_end: 3 }, note: redact, ssn: drop }
      - drop: [\"filler*\"]
      - select: [id, status]
      - rename: { cust_no: customer_id }
      - rename: snake_case\n";
    let checked = good(&with(steps), &variables(&[("KEY", "hunter2hunter2hunter2")]));
    let names: Vec<&str> = checked.routes[0].steps.iter().map(|step| step.name()).collect();
    let wanted = "trim null_if decode cast implied_decimal legacy_date mask drop select rename rename";
    assert_eq!(names.join(" "), wanted);
    assert!(!format!("{:?}", checked.routes[0].steps).contains("hunter2"));
}

#[test]
fn a_wrong_step_names_its_place_and_what_is_allowed() {
    for (step, expected) in [
        ("trimm: [a]", "t.yaml:12:9: routes[0].transform[0].trimm: unknown key\n    did you mean `trim`?"),
        ("{ trim: [a], drop: [b] }", "t.yaml:12:9: routes[0].transform[0]: found 2 keys, expected one"),
        (
            "trim",
            "t.yaml:12:9: routes[0].transform[0]: found text, expected a map of one key\n    allowed: branch, cast, charset_repair, decode",
        ),
        ("trim: a", "t.yaml:12:9: routes[0].transform[0].trim: found text, expected a list"),
        ("trim: []", "t.yaml:12:9: routes[0].transform[0].trim: the list is empty"),
        ("drop: [a, b, a]", "t.yaml:12:22: routes[0].transform[0].drop[2]: this column is named twice"),
        (
            "cast: { a: integer }",
            "t.yaml:12:17: routes[0].transform[0].cast.a: found `integer`, which is not one of the allowed words",
        ),
        (
            "implied_decimal: { a: 40 }",
            "routes[0].transform[0].implied_decimal.a: found `40`, expected a whole number from 1 to 38",
        ),
        (
            "filter: \"1 + 1\"",
            "routes[0].transform[0].filter: this is a whole number, and a condition is true or false",
        ),
        ("filter: \"sise(a) > 1\"", "transform[0].filter: there is no function `sise`\n    did you mean `size`?"),
        ("filter: \"a > 1 && b.matches('(')\"", "transform[0].filter: the pattern of `matches` cannot be read"),
        ("set: { x: \"1 + 'a'\" }", "transform[0].set.x: `+` cannot take a whole number and a text"),
        ("branch: [{ when: \"'a'\", type: b }]", "transform[0].branch[0].when: this is a text"),
        ("sample: 1.5", "transform[0].sample: this is no share of the rows"),
        ("sample: some", "transform[0].sample: this is no share of the rows"),
        ("nest: { a: [] }", "transform[0].nest.a: the list is empty"),
        ("flatten: { a: {} }", "transform[0].flatten.a: no member is named"),
        ("charset_repair: { a: utf-8 }", "transform[0].charset_repair.a: this is no character set of one byte"),
        (
            "emit_when: { a: { 'A -> S': B, 'A->S': C } }",
            "transform[0].emit_when.a.\"A->S\": this transition stands here twice",
        ),
        (
            "branch: [{ when: \"a == 1\", routing_key: '{{ row.a | upcase }}' }]",
            "transform[0].branch[0].routing_key: the template cannot be rendered: unknown filter",
        ),
        (
            "legacy_date: { a: yymm }",
            "routes[0].transform[0].legacy_date.a: found `yymm`, which is not one of the allowed words",
        ),
        ("legacy_date: { a: days }", "routes[0].transform[0].legacy_date.a: the form `days` needs `since`"),
        (
            "legacy_date: { a: { form: yymmdd, since: 1900-01-01 } }",
            "legacy_date.a.since: only the form `days` has a `since`",
        ),
        ("legacy_date: { a: { form: days, since: soon } }", "legacy_date.a.since: this is no date"),
        ("legacy_date: { a: { pivot: 30 } }", "legacy_date.a.form: this key is missing"),
        ("mask: { a: hide }", "routes[0].transform[0].mask.a: found `hide`, which is not one of the allowed words"),
        ("mask: { a: { hmac: hunter2 } }", "routes[0].transform[0].mask.a.hmac: a key has at least 16 bytes"),
        (
            "mask: { a: { keep_end: -1 } }",
            "routes[0].transform[0].mask.a.keep_end: found `-1`, expected a whole number from 0 to 65535",
        ),
        ("mask: { \"*mail*\": redact }", "routes[0].transform[0].mask.\"*mail*\": `mask` takes whole names"),
        ("decode: { a: { 01: new } }", "t.yaml:12:24: this key is a number, and would be read without its zeros"),
        ("rename: { a: c, b: c }", "routes[0].transform[0].rename.b: `a` gets this name too"),
        (
            "rename: kebab-case",
            "routes[0].transform[0].rename: found `kebab-case`, which is not one of the allowed words",
        ),
        ("decode: { a: {} }", "routes[0].transform[0].decode.a: there is no code"),
        ("decode: { a: { A: \"{{ op }}\" } }", "routes[0].transform[0].decode.a.A: a word of `decode` is no template"),
        ("null_if: { a: [\"0\", \"0\"] }", "routes[0].transform[0].null_if.a[1]: this value is named twice"),
    ] {
        let problems = bad(&with(&format!("      - {step}\n")), &variables(&[]));
        assert!(problems.iter().any(|problem| problem.contains(expected)), "{step}: {expected}\n--- in\n{problems:#?}");
        assert!(!problems.concat().contains("hunter2"));
    }
}

#[test]
fn a_key_that_the_environment_lacks_is_told_once() {
    let problems = bad(&with("      - mask: { a: { hmac: \"${UNSET}\" } }\n"), &variables(&[]));
    assert_eq!(problems.len(), 1, "{problems:#?}");
    assert!(problems[0].contains("mask.a.hmac: the environment variable UNSET is not set"), "{problems:#?}");
}

/// Ten thousand configs of parts that belong there, in places where they may not.
#[test]
fn random_steps_never_make_the_check_panic() {
    let words = [
        "trim",
        "drop",
        "select",
        "rename",
        "null_if",
        "decode",
        "cast",
        "implied_decimal",
        "legacy_date",
        "mask",
        "a",
        "b?",
        "*",
        "int",
        "yymmdd",
        "days",
        "since",
        "form",
        "pivot",
        "redact",
        "hmac",
        "keep_end",
        "\"{{ value }}\"",
        "2",
        "-1",
        "1.5",
        "true",
        "~",
        "\"\"",
        "1900-01-01",
        "snake_case",
        "\"${KEY}\"",
        "é",
    ];
    let mut random = fastrand::Rng::with_seed(7);
    fn node(random: &mut fastrand::Rng, words: &[&str], depth: usize) -> String {
        let word = words[random.usize(..words.len())].to_owned();
        match random.u8(..if depth == 0 { 1 } else { 6 }) {
            0 | 1 => word,
            2 => format!(
                "[{}]",
                (0..random.usize(..4)).map(|_| node(random, words, depth - 1)).collect::<Vec<_>>().join(", ")
            ),
            _ => {
                let mut keys: Vec<&str> = (0..random.usize(..4)).map(|_| words[random.usize(..words.len())]).collect();
                keys.sort_unstable();
                keys.dedup();
                let member = |key: &&str| format!("{key}: {}", node(random, words, depth - 1));
                format!("{{ {} }}", keys.iter().map(member).collect::<Vec<_>>().join(", "))
            }
        }
    }
    let environment: Environment = variables(&[("KEY", "0123456789abcdef")]);
    let mut accepted = 0;
    for _ in 0..10_000 {
        let step = words[random.usize(..10)];
        let steps = format!("      - {step}: {}\n", node(&mut random, &words, 3));
        accepted += usize::from(load_text(&with(&steps), Syntax::Yaml, &environment, Purpose::Run).is_ok());
    }
    assert!((100..9_900).contains(&accepted), "{accepted} were accepted: they are to be of both kinds");
}
