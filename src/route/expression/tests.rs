use proptest::prelude::*;
use std::sync::Arc;

use towpath_contract::{
    Batch, Column as SourceColumn, KeyKind, Kind, Op, Position, TableSchema, Transaction, Value as Raw,
};

use super::sample::{COLUMNS, Table};
use super::{Expression, Input};
use crate::route::transform::View;

type Row = [Option<&'static str>; 10];

const ROW: Row = [
    Some("7"),
    Some("A"),
    Some("19.90"),
    Some("0.5"),
    Some("true"),
    Some("2024-02-29"),
    Some("2024-02-29T12:00:00.5Z"),
    Some("{}"),
    Some("K-1"),
    Some(NULL),
];

/// Stands for the database's null; `None` for what was not sent.
const NULL: &str = "\0null";

fn raw(value: Option<&'static str>) -> Raw<'static> {
    match value {
        None => Raw::Unavailable,
        Some(NULL) => Raw::Null,
        Some(text) => Raw::Data(text.as_bytes()),
    }
}

/// What the expression says of a change, as events would carry it.
fn say(text: &str, op: Op, before: Option<Row>, after: Option<Row>) -> Result<String, String> {
    let program = Expression::new(text.into()).compile(&mut Table).map_err(|fault| fault.message)?.expect("known");
    let column = |(name, kind): &(&str, Kind)| SourceColumn {
        name: (*name).into(),
        kind: kind.clone(),
        type_name: String::new(),
        key: false,
    };
    let columns = COLUMNS.iter().map(column).collect();
    let table = Arc::new(TableSchema::new("s".into(), "t".into(), columns, KeyKind::None));
    let mut batch = Batch::new();
    batch.begin_transaction(Transaction::default());
    let mut change = batch.change(op, &table, Position::from_bytes(&[1]).expect("short"));
    if let Some(row) = before {
        change = change.before(row.map(raw));
    }
    if let Some(row) = after {
        change.after(row.map(raw));
    }
    let change = batch.changes().next().expect("one");
    let (before, after) = (change.before().map(View::raw), change.after().map(View::raw));
    let input = Input { op, row: after.or(before), before, after, moved: false };
    let value = program.run(&input).map_err(|reason| format!("fails: {reason}"))?;
    Ok(match value {
        super::Value::Null => "null".into(),
        super::Value::Unavailable => "unavailable".into(),
        value => {
            let mut out = Vec::new();
            value.write(&mut out);
            String::from_utf8(out).expect("text")
        }
    })
}

fn of_row(text: &str) -> String {
    say(text, Op::Insert, None, Some(ROW)).unwrap_or_else(|why| why)
}

#[test]
fn values_are_exact_and_typed() {
    let cases = [
        ("amount * 3", "59.70"),
        ("amount + 1", "20.90"),
        ("decimal('1.00') * 3", "3.00"),
        ("decimal('0.00') + 1", "1.00"),
        ("1 - decimal('0.00')", "1.00"),
        ("decimal('1.00') * decimal('0.50')", "0.5000"),
        ("amount == 19.9", "true"),
        ("19.9 == amount", "true"),
        ("amount < 20 && amount >= 19.90", "true"),
        ("0.1 + 0.2 == 0.3", "true"),
        ("7 / 2", "3"),
        ("-7 / 2", "-3"),
        ("7.0 / 2", "3.5"),
        ("1.0 / 3", "0.3333333333333333333333333333333333"),
        ("7 % 4", "3"),
        ("9223372036854775807 + 1", "9223372036854775808"),
        ("id * 9223372036854775807 * 9223372036854775807", "595494142111642310931778354489627508743"),
        ("rate * 2.0", "1"),
        ("double(amount) > rate", "true"),
        ("round(amount / 3, 2)", "6.63"),
        ("round(2.5, 0)", "3"),
        ("abs(-amount)", "19.90"),
        ("status + '-' + string(id)", "A-7"),
        ("int('0012') + 1", "13"),
        ("decimal(' 1.50 ')", "1.50"),
        ("paid ? 'yes' : 'no'", "yes"),
        ("status in ['A', 'B']", "true"),
        ("id in [1, 2.0, 7]", "true"),
        ("due >= '2024-01-01'", "true"),
        ("seen < '2024-02-29T12:00:00.51Z'", "true"),
        ("seen > '2024-02-29T12:00:00Z'", "true"),
        ("row[\"Cust No\"].startsWith('K-')", "true"),
        ("status.lowerAscii() + ' x '.trim()", "ax"),
        ("'abcdef'.substring(2, 4)", "cd"),
        ("'a-b-c'.replace('-', '')", "abc"),
        ("size('äöü')", "3"),
        ("row[\"Cust No\"].matches('^K-[0-9]$')", "true"),
        ("op", "insert"),
    ];
    for (text, wanted) in cases {
        assert_eq!(of_row(text), wanted, "{text}");
    }
}

#[test]
fn null_and_what_is_not_known_are_told_apart() {
    let cases = [
        ("note == null", "true"),
        ("note != 'x'", "true"),
        ("note + 'x'", "null"),
        ("note < 'x'", "false"),
        ("coalesce(note, 'none')", "none"),
        ("note == 'x' || paid", "true"),
    ];
    for (text, wanted) in cases {
        assert_eq!(of_row(text), wanted, "{text}");
    }
    let toast = |text: &str| say(text, Op::Update, None, Some([None; 10])).unwrap_or_else(|why| why);
    let cases = [
        ("status == 'A'", "unavailable"),
        ("status == 'A' || true", "true"),
        ("status == 'A' && false", "false"),
        ("false && status == 'A'", "false"),
        ("has(after.status)", "false"),
        ("has(after.status) ? status : 'unknown'", "unknown"),
        ("id + 1", "unavailable"),
        ("status in ['A']", "unavailable"),
    ];
    for (text, wanted) in cases {
        assert_eq!(toast(text), wanted, "{text}");
    }
}

#[test]
fn rows_before_and_after_are_compared() {
    let with = |status: Option<&'static str>| {
        let mut row = ROW;
        row[1] = status;
        row
    };
    let update = |text: &str, before, after| say(text, Op::Update, before, Some(after)).unwrap_or_else(|why| why);
    assert_eq!(update("changed(\"status\")", Some(with(Some("A"))), with(Some("S"))), "true");
    assert_eq!(update("changed(\"status\")", Some(with(Some("A"))), with(Some("A"))), "false");
    assert_eq!(update("changed(\"status\")", Some(with(Some("A"))), with(None)), "false", "not sent: as it was");
    assert_eq!(update("changed(\"status\")", Some(with(None)), with(Some("A"))), "unavailable");
    assert_eq!(update("before.status == 'A' && status == 'S'", Some(with(Some("A"))), with(Some("S"))), "true");
    // There was a row before, of which nothing was sent.
    assert_eq!(update("before == null", None, ROW), "false");
    assert_eq!(update("before.status == 'A'", None, ROW), "unavailable");
    assert_eq!(update("changed(\"status\")", None, with(Some("A"))), "unavailable");
    assert_eq!(update("changed(\"status\")", None, with(None)), "false");
    assert_eq!(update("has(before.status)", None, ROW), "false");
    assert_eq!(say("before == null", Op::Insert, None, Some(ROW)), Ok("true".into()));
    assert_eq!(say("before.status == null", Op::Insert, None, Some(ROW)), Ok("true".into()));
    assert_eq!(say("before != null", Op::Delete, Some(ROW), None), Ok("true".into()));
    assert_eq!(say("changed(\"status\")", Op::Insert, None, Some(ROW)), Ok("true".into()));
    assert_eq!(say("status", Op::Delete, Some(ROW), None), Ok("A".into()), "the row that is gone");
    assert_eq!(say("after.status == null", Op::Delete, Some(ROW), None), Ok("true".into()));
}

#[test]
fn what_cannot_be_meant_is_refused_before_any_row_comes() {
    let cases = [
        ("status == 1", "a text is compared with a whole number"),
        ("statsu == 'A'", "no column `statsu`"),
        ("status + 1", "`+` cannot take a text and a whole number"),
        ("paid > true", "true or false and true or false have no order between them"),
        ("status && paid", "`&&` needs true or false, and this is a text"),
        ("paid ? 1 : 'x'", "behind `?` stands a whole number, and behind `:` a text: they must be of one type"),
        ("due > 'tomorrow'", "a date is compared with a text that is none; one is written '2024-02-29'"),
        (
            "due > status",
            "a date is compared with a text; only a text that stands in the expression can be one: '2024-02-29'",
        ),
        ("doc.name == 'x'", "there is nothing that has a `name`"),
        ("doc == 'x'", "JSON is compared with a text"),
        ("startWith(status, 'A')", "there is no function `startWith`"),
        ("status.startsWith(1)", "`startsWith` cannot take a text, a whole number"),
        ("status.matches('(')", "the pattern of `matches` cannot be read: unclosed group"),
        ("after", "`after` is a whole row"),
        ("[1, 2]", "a list can only stand behind `in`"),
        ("[1, 2].all(x, x > 0)", "`all`, `exists`, `map` and `filter` go over lists, and a row has none"),
        ("{'a': 1}", "a row has no maps and no structures"),
        ("changed(status)", "`changed` takes the names of columns"),
        ("rate + amount", "`+` cannot take a float and a decimal"),
        ("id = 7", "the expression cannot be read: `=` is no operator; `==` compares"),
        ("", "the expression cannot be read: "),
    ];
    for (text, wanted) in cases {
        let why = say(text, Op::Insert, None, Some(ROW)).expect_err(text);
        assert!(why.starts_with(wanted) && (wanted.ends_with(' ') || why == wanted), "{text}: {why}");
    }
}

#[test]
fn what_has_no_value_says_why() {
    assert_eq!(of_row("id / 0"), "fails: a division by zero");
    assert_eq!(of_row("int(status)"), "fails: `int` was given what is no whole number");
    let mut ancient = ROW;
    ancient[5] = Some("0044-03-15 BC");
    let why = say("due < '2024-01-01'", Op::Insert, None, Some(ancient)).expect_err("it does not sort");
    assert!(why.contains("before Christ"), "{why}");
}

#[test]
fn no_expression_takes_the_stack() {
    for text in [
        "(".repeat(8000),
        "1+".repeat(4000) + "1",
        "!".repeat(8000) + "true",
        "a.".repeat(4000) + "a",
        "true?".repeat(1600) + "1",
        "[".repeat(8000),
        "-".repeat(8000) + "1",
        "true&&".repeat(1000) + "true",
    ] {
        let parse = move || say(&text, Op::Insert, None, Some(ROW)).is_err();
        let parsed = std::thread::Builder::new().stack_size(2 << 20).spawn(parse).expect("a thread").join();
        parsed.expect("neither stack nor patience is used up");
    }
}

proptest! {
    #[test]
    fn nothing_that_is_written_panics(text in "[ a-z0-9.,<>=!&|?:()\\[\\]+*/%'\"{}-]{0,40}") {
        let _ = say(&text, Op::Update, Some(ROW), Some(ROW));
    }

    #[test]
    fn whole_numbers_are_those_of_the_machine(a in any::<i64>(), b in any::<i64>()) {
        let (wide_a, wide_b) = (i128::from(a), i128::from(b));
        let say = |text: String| say(&text, Op::Insert, None, Some(ROW)).expect("a number");
        let minus = |n: i64| if n == i64::MIN { "(-9223372036854775807 - 1)".into() } else { format!("({n})") };
        let (a_text, b_text) = (minus(a), minus(b));
        prop_assert_eq!(say(format!("{a_text} + {b_text}")), (wide_a + wide_b).to_string());
        prop_assert_eq!(say(format!("{a_text} * {b_text}")), (wide_a * wide_b).to_string());
        prop_assert_eq!(say(format!("{a_text} < {b_text}")), (a < b).to_string());
        if b != 0 {
            prop_assert_eq!(say(format!("{a_text} / {b_text}")), (wide_a / wide_b).to_string());
            prop_assert_eq!(say(format!("{a_text} % {b_text}")), (wide_a % wide_b).to_string());
        }
    }
}
