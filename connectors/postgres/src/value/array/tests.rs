use super::super::tests::converted;
use super::*;
use proptest::prelude::*;

fn plan(element: Element) -> Plan {
    Plan::Array(Box::new(ArrayPlan { element, delimiter: b',' }))
}

fn check(element: Element, text: &str, json: &str) {
    assert_eq!(converted(&plan(element), text.as_bytes()).as_deref(), Ok(json), "{text}");
    serde_json::from_str::<serde_json::Value>(json).unwrap();
}

fn text() -> Element {
    Element::Text(Plan::AsIs)
}

#[test]
fn elements_follow_the_rules_of_the_format_outside_arrays() {
    check(Element::Int, "{}", "[]");
    check(Element::Int, "{{1,NULL},{-3,4}}", "[[1,null],[-3,4]]");
    check(
        Element::Int,
        "{9007199254740991,9007199254740992,-9007199254740991,-9223372036854775808}",
        r#"[9007199254740991,"9007199254740992",-9007199254740991,"-9223372036854775808"]"#,
    );
    check(text(), "{1.50,NaN}", r#"["1.50","NaN"]"#);
    check(Element::Float, "{1.5,1e+20,-0,NaN,-Infinity}", r#"[1.5,1e+20,-0,"NaN","-Infinity"]"#);
    check(Element::Bool, "{t,f,NULL}", "[true,false,null]");
    check(Element::Bytes, r#"{"\\x6869","\\x",NULL}"#, r#"["aGk=","",null]"#);
    check(Element::Json, r#"{"{\"a\": [1, \"x\"]}",1,NULL}"#, r#"[{"a": [1, "x"]},1,null]"#);
    check(
        Element::Text(Plan::Timestamp),
        r#"{"2024-01-02 03:04:05",infinity}"#,
        r#"["2024-01-02T03:04:05","infinity"]"#,
    );
    check(
        Element::Array(Box::new(ArrayPlan { element: Element::Int, delimiter: b',' })),
        r#"{"{1,2}","{}"}"#,
        "[[1,2],[]]",
    );
}

#[test]
fn strings_are_unquoted_and_quoted_again() {
    check(text(), r#"{a,"b c","","NULL",NULL,"q\"\\u","{x,y}"}"#, r#"["a","b c","","NULL",null,"q\"\\u","{x,y}"]"#);
    check(text(), "{\"tab\tline\nbell\u{7}é\"}", "[\"tab\\tline\\nbell\\u0007é\"]");
    check(text(), r#"{"(1,\"a b\")"}"#, r#"["(1,\"a b\")"]"#);
}

#[test]
fn other_lower_bounds_make_a_string_of_the_whole_text() {
    check(Element::Int, "[0:1]={7,8}", r#""[0:1]={7,8}""#);
    check(text(), r#"[2:2][-1:0]={{a,"b c"}}"#, r#""[2:2][-1:0]={{a,\"b c\"}}""#);
}

#[test]
fn a_box_has_its_own_delimiter() {
    let plan = Plan::Array(Box::new(ArrayPlan { element: text(), delimiter: b';' }));
    assert_eq!(converted(&plan, b"{(1,1),(0,0);(3,3),(2,2)}").as_deref(), Ok(r#"["(1,1),(0,0)","(3,3),(2,2)"]"#));
}

#[test]
fn damage_is_an_error() {
    for text in [
        "",
        "{",
        "}",
        "{1",
        "{1,",
        "{1,}",
        "{,1}",
        "{1}x",
        "{\"1}",
        "{\"1\\",
        "{1{2}}",
        "[0:1]",
        "[0:1]=",
        "x",
        "{{{{{{{1}}}}}}}",
        "{a}",
    ] {
        assert!(converted(&plan(Element::Int), text.as_bytes()).is_err(), "{text}");
    }
}

/// As `array_out` writes it: quoted where it must be and nowhere else.
fn element(value: &Option<String>) -> String {
    let Some(text) = value else { return "NULL".into() };
    let telling = |c: char| matches!(c, '"' | '\\' | '{' | '}' | ',' | ' ' | '\t' | '\n' | '\r' | '\u{b}' | '\u{c}');
    match text.is_empty() || text.eq_ignore_ascii_case("null") || text.contains(telling) {
        true => format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"")),
        false => text.clone(),
    }
}

/// The elements in dimensions of these lengths: as array text and as what a reader of JSON is to find.
fn shaped(lengths: &[usize], elements: &mut impl Iterator<Item = Option<String>>) -> (String, serde_json::Value) {
    let Some((length, inner)) = lengths.split_first() else {
        let value = elements.next().expect("as many as the lengths ask for");
        return (element(&value), value.into());
    };
    let (texts, values): (Vec<_>, Vec<_>) = (0..*length).map(|_| shaped(inner, elements)).unzip();
    (format!("{{{}}}", texts.join(",")), values.into())
}

fn array_of(values: impl IntoIterator<Item = String>) -> Vec<u8> {
    let values: Vec<String> = values.into_iter().map(|value| element(&Some(value))).collect();
    format!("{{{}}}", values.join(",")).into_bytes()
}

fn json_of(of: Element, text: &[u8]) -> serde_json::Value {
    serde_json::from_str(&converted(&plan(of), text).unwrap()).unwrap()
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(text in proptest::collection::vec(proptest::sample::select(b"{}[]=:,\"\\1aN-.x\xff".as_slice()), 0..30)) {
        for element in [Element::Int, Element::Float, Element::Bytes, Element::Json, Element::Text(Plan::TimeTz)] {
            let _ = super::super::canonical(&plan(element), &text, &mut Vec::new());
        }
    }

    #[test]
    fn texts_and_nulls_of_any_dimensions_come_out_as_json_reads_them(
        lengths in proptest::collection::vec(1..3usize, 1..=DIMENSIONS_MAX),
        elements in proptest::collection::vec(proptest::option::weighted(0.9, prop_oneof![any::<String>(), "(?i)null|[{}]?"]), 64),
    ) {
        let (array, expected) = shaped(&lengths, &mut elements.into_iter());
        prop_assert_eq!(json_of(text(), array.as_bytes()), expected.clone());
        // The text of an array with other bounds is kept as it is.
        let bounded = lengths.iter().map(|length| format!("[0:{}]", length - 1)).collect::<String>() + "=" + &array;
        prop_assert_eq!(json_of(text(), bounded.as_bytes()), serde_json::Value::from(bounded));
    }

    #[test]
    fn integers_booleans_and_bytes_come_out_as_they_were(
        integers in proptest::collection::vec(prop_oneof![any::<i64>(), -9..9i64, (1i64 << 53) - 9..(1 << 53) + 9], 0..9),
        booleans in proptest::collection::vec(any::<bool>(), 0..9),
        bytes in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..9), 0..9),
    ) {
        let found = json_of(Element::Int, &array_of(integers.iter().map(i64::to_string)));
        let safe = |number: &i64| number.unsigned_abs() <= SAFE_INTEGER_MAX;
        let shown = |number: &i64| -> serde_json::Value {
            if safe(number) { (*number).into() } else { number.to_string().into() }
        };
        prop_assert_eq!(found, integers.iter().map(shown).collect::<serde_json::Value>());

        let found = json_of(Element::Bool, &array_of(booleans.iter().map(|yes| if *yes { "t" } else { "f" }.into())));
        prop_assert_eq!(found, serde_json::Value::from(booleans));

        let hex = |bytes: &Vec<u8>| bytes.iter().fold(String::from("\\x"), |text, byte| format!("{text}{byte:02x}"));
        let found = json_of(Element::Bytes, &array_of(bytes.iter().map(hex)));
        let read = found.as_array().unwrap().iter().map(|text| STANDARD.decode(text.as_str().unwrap()).unwrap());
        prop_assert_eq!(read.collect::<Vec<_>>(), bytes);
    }

    #[test]
    fn floats_come_out_as_they_were(floats in proptest::collection::vec(proptest::num::f64::ANY, 1..9)) {
        let text = |float: &f64| format!("{float:e}").replace("inf", "Infinity");
        let json = converted(&plan(Element::Float), &array_of(floats.iter().map(text))).unwrap();
        serde_json::from_str::<Vec<serde_json::Value>>(&json).unwrap();
        // Read digit by digit: not every reader of JSON is exact in the last bit.
        let found = json.trim_matches(['[', ']']).split(',').map(|token| token.trim_matches('"').parse::<f64>().unwrap());
        let bits = |float: f64| if float.is_nan() { f64::NAN.to_bits() } else { float.to_bits() };
        prop_assert_eq!(found.map(bits).collect::<Vec<_>>(), floats.into_iter().map(bits).collect::<Vec<_>>());
    }
}
