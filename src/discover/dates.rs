//! Dates that are kept as digits.

type IsDay = fn(&str) -> bool;

/// The forms of `legacy_date` that digits may have, the surest first.
const FORMS: [(&str, IsDay); 5] = [
    ("yyyymmdd", |text| text.len() == 8 && is_day(&text[..4], &text[4..6], &text[6..])),
    ("yyyyddd", |text| text.len() == 7 && is_year(&text[..4]) && is_day_of_year(&text[4..])),
    ("cyymmdd", |text| {
        let padded = format!("{text:0>7}");
        matches!(text.len(), 6 | 7) && padded.starts_with(['0', '1']) && is_day_in_century(&padded[1..])
    }),
    ("yymmdd", |text| text.len() == 6 && is_day_in_century(text)),
    ("cyyddd", |text| text.len() == 6 && text.starts_with(['0', '1']) && is_day_of_year(&text[3..])),
];

/// The form that all of them have. Digits of less than eight are dates only where the column's name says so: numbers may look alike.
pub(super) fn form<'v>(name: &str, values: impl Iterator<Item = &'v str> + Clone) -> Option<&'static str> {
    let says_so = names_a_date(name);
    let fits = |(form, is): &&(&'static str, IsDay)| {
        (*form == "yyyymmdd" || says_so)
            && values.clone().all(|value| value.bytes().all(|b| b.is_ascii_digit()) && is(value))
    };
    FORMS.iter().find(fits).map(|(form, _)| *form)
}

fn names_a_date(name: &str) -> bool {
    let name = name.to_lowercase();
    ["date", "dat", "day", "dt", "dob", "birth", "since", "due", "sin", "until", "from", "start", "end"]
        .iter()
        .any(|word| name.contains(word))
}

fn number(digits: &str) -> i16 {
    digits.parse().unwrap_or(-1)
}

fn is_year(digits: &str) -> bool {
    (1850..=2199).contains(&number(digits))
}

fn is_day(year: &str, month: &str, day: &str) -> bool {
    is_year(year) && jiff::civil::Date::new(number(year), number(month) as i8, number(day) as i8).is_ok()
}

fn is_day_in_century(yymmdd: &str) -> bool {
    // A leap year of either century will do.
    let on = |century: i16| {
        let year = century + number(&yymmdd[..2]);
        jiff::civil::Date::new(year, number(&yymmdd[2..4]) as i8, number(&yymmdd[4..]) as i8).is_ok()
    };
    on(1900) || on(2000)
}

fn is_day_of_year(digits: &str) -> bool {
    (1..=366).contains(&number(digits))
}
