//! `legacy_date`

use std::borrow::Cow;
use std::collections::BTreeMap;

use jiff::ToSpan;
use jiff::civil::{Date, DateTime, Time};
use schemars::JsonSchema;
use serde::Deserialize;
use towpath_contract::Kind;

use super::run::{Action, Outcome};
use super::shape::{Fault, Shape};
use super::trim::trimmed;
use super::{Step, fields};

/// Dates that are kept in numbers or texts become dates: `legacy_date: { due: cyymmdd }`, or with options `legacy_date: { due: { form: yymmdd,
/// pivot: 30 } }`. A number may lack the zeros in front. What is no day of the calendar is a failure; `null_if` before it makes null
/// of what stands for no date (`0`, `99999999`). The forms with a time of the day make timestamps; `zone` then says whose clock it was.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
pub struct LegacyDate(BTreeMap<String, DateWay>);

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(super) enum DateWay {
    Form(DateForm),
    Options(DateOptions),
}

/// How a column's dates are written.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct DateOptions {
    pub form: DateForm,
    /// Of a year of two digits: those below it are of the 21st century, the others of the 20th. 0 to 100. Default 50: `49` is 2049, `50` is 1950.
    #[serde(default = "default_pivot")]
    #[schemars(range(max = 100))]
    pub pivot: u8,
    /// Of the form `days`: the day that is number 0, such as `1899-12-30` for what spreadsheets count.
    #[serde(default)]
    pub since: Option<String>,
}

fn default_pivot() -> u8 {
    50
}

/// `y` year, `m` month, `d` day, `ddd` day of the year from 1; `c` century: 0 is the 20th, 1 the 21st, and so on; `hhmmss` the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum DateForm {
    Yyyymmdd,
    Yymmdd,
    /// As IBM i has it: `1240229` is 2024-02-29.
    Cyymmdd,
    Ddmmyyyy,
    Ddmmyy,
    Mmddyyyy,
    Mmddyy,
    /// `2024060` is 2024-02-29.
    Yyyyddd,
    Yyddd,
    /// As JD Edwards has it: `124060` is 2024-02-29.
    Cyyddd,
    /// `20240229235959` is 2024-02-29T23:59:59.
    Yyyymmddhhmmss,
    Yymmddhhmmss,
    /// A number of days since `since`, which may be negative.
    Days,
}

impl DateForm {
    /// One letter per digit.
    fn letters(self) -> &'static [u8] {
        match self {
            DateForm::Yyyymmdd => b"yyyymmdd",
            DateForm::Yymmdd => b"yymmdd",
            DateForm::Cyymmdd => b"cyymmdd",
            DateForm::Ddmmyyyy => b"ddmmyyyy",
            DateForm::Ddmmyy => b"ddmmyy",
            DateForm::Mmddyyyy => b"mmddyyyy",
            DateForm::Mmddyy => b"mmddyy",
            // The day of the year.
            DateForm::Yyyyddd => b"yyyyjjj",
            DateForm::Yyddd => b"yyjjj",
            DateForm::Cyyddd => b"cyyjjj",
            // `n` for minutes: months have the `m`.
            DateForm::Yyyymmddhhmmss => b"yyyymmddhhnnss",
            DateForm::Yymmddhhmmss => b"yymmddhhnnss",
            DateForm::Days => b"",
        }
    }
}

impl DateWay {
    fn options(&self) -> DateOptions {
        match self {
            DateWay::Form(form) => DateOptions { form: *form, pivot: default_pivot(), since: None },
            DateWay::Options(options) => options.clone(),
        }
    }
}

impl Step for LegacyDate {
    fn faults(&self) -> Vec<Fault> {
        let each =
            self.0.iter().filter_map(|(name, way)| reading(&way.options(), false).err().map(|fault| fault.key(name)));
        fields::faults_of_map(self.0.len()).into_iter().chain(each).collect()
    }

    fn compile(&self, shape: &mut Shape) -> Result<(), Fault> {
        for (name, way) in &self.0 {
            let Some(found) = shape.find(name).map_err(|fault| fault.key(name))? else { continue };
            let field = &mut shape.fields()[found];
            if !matches!(field.kind, Kind::Int | Kind::Decimal | Kind::Text | Kind::Other) {
                fields::wrong_kind(field, name, "a number or a text").map_err(|fault| fault.key(name))?;
                continue;
            }
            let reading = reading(&way.options(), matches!(field.kind, Kind::Int | Kind::Decimal))
                .map_err(|fault| fault.key(name))?;
            field.becomes(if reading.has_time() { Kind::Timestamp } else { Kind::Date });
            shape.act(found, reading);
        }
        Ok(())
    }
}

fn reading(options: &DateOptions, numeric: bool) -> Result<Reading, Fault> {
    let since = match (options.form, &options.since) {
        (DateForm::Days, Some(text)) => match text.parse::<Date>() {
            Ok(date) => Some(date),
            Err(_) => return Err(Fault::new("this is no date").help("for example `1899-12-30`").key("since")),
        },
        (DateForm::Days, None) => {
            return Err(Fault::new("the form `days` needs `since`, the day that is number 0")
                .help("`{ form: days, since: 1899-12-30 }`"));
        }
        (_, Some(_)) => return Err(Fault::new("only the form `days` has a `since`").key("since")),
        (_, None) => None,
    };
    Ok(Reading { letters: options.form.letters(), pivot: options.pivot.into(), since, numeric })
}

#[derive(Debug)]
struct Reading {
    letters: &'static [u8],
    pivot: i16,
    since: Option<Date>,
    /// The zeros in front may be missing.
    numeric: bool,
}

impl Action for Reading {
    fn apply(&self, value: &[u8], out: &mut Vec<u8>) -> Result<Outcome, Cow<'static, str>> {
        let value = if self.numeric { whole(value) } else { trimmed(value) };
        let read = match self.since {
            Some(since) => days_after(since, value).map(|date| date.at(0, 0, 0, 0)),
            None => self.read(value),
        };
        // Four digits of a year are what the form of a date has.
        let Some(date) = read.filter(|read| read.year() >= 1) else {
            return Err("the value is no date of this form".into());
        };
        let mut text = *b"0000-00-00T00:00:00";
        let mut put = |at: usize, digits: usize, number: u16| {
            (0..digits).fold(number, |rest, nth| {
                text[at + digits - 1 - nth] = b'0' + (rest % 10) as u8;
                rest / 10
            });
        };
        put(0, 4, date.year().unsigned_abs());
        put(5, 2, date.month().unsigned_abs().into());
        put(8, 2, date.day().unsigned_abs().into());
        put(11, 2, date.hour().unsigned_abs().into());
        put(14, 2, date.minute().unsigned_abs().into());
        put(17, 2, date.second().unsigned_abs().into());
        out.extend_from_slice(if self.has_time() { &text } else { &text[..10] });
        Ok(Outcome::Made)
    }
}

impl Reading {
    fn has_time(&self) -> bool {
        self.letters.contains(&b'h')
    }

    fn read(&self, value: &[u8]) -> Option<DateTime> {
        let missing = self.letters.len().checked_sub(value.len())?;
        if !value.iter().all(u8::is_ascii_digit)
            || missing > 0 && (!self.numeric || self.letters.starts_with(b"yyyy"))
            || value.is_empty()
        {
            return None;
        }
        let part = |letter: u8| {
            let digits = self.letters.iter().enumerate().filter(|(_, found)| **found == letter);
            digits.fold((0i16, 0), |(number, count), (at, _)| {
                let digit = at.checked_sub(missing).map_or(0, |at| value[at] - b'0');
                (number * 10 + i16::from(digit), count + 1)
            })
        };
        let year = match (part(b'c'), part(b'y')) {
            ((century, 1), (year, _)) => 1900 + century * 100 + year,
            (_, (year, 4)) => year,
            (_, (year, _)) if year < self.pivot => 2000 + year,
            (_, (year, _)) => 1900 + year,
        };
        let date = match part(b'j') {
            (_, 0) => Date::new(year, part(b'm').0 as i8, part(b'd').0 as i8).ok()?,
            (day, _) => {
                let first = Date::new(year, 1, 1).ok()?;
                (1..=first.days_in_year()).contains(&day).then(|| first.checked_add((day - 1).days()).ok())??
            }
        };
        let [hour, minute, second] = [b'h', b'n', b's'].map(|letter| part(letter).0 as i8);
        Some(date.to_datetime(Time::new(hour, minute, second, 0).ok()?))
    }
}

/// A number without a fraction of zeros.
fn whole(value: &[u8]) -> &[u8] {
    let point = value.iter().position(|byte| *byte == b'.').unwrap_or(value.len());
    if value[point..].iter().skip(1).all(|byte| *byte == b'0') { &value[..point] } else { value }
}

fn days_after(since: Date, value: &[u8]) -> Option<Date> {
    let days: i64 = std::str::from_utf8(value).ok()?.parse().ok()?;
    // Beyond it a span of days is none.
    const DAYS_MAX: i64 = 4_000_000;
    (-DAYS_MAX..=DAYS_MAX).contains(&days).then(|| since.checked_add(days.days()).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn date(form: DateForm, pivot: u8, since: Option<&str>, numeric: bool, value: &str) -> Option<String> {
        let options = DateOptions { form, pivot, since: since.map(str::to_owned) };
        let mut out = Vec::new();
        reading(&options, numeric).expect("valid").apply(value.as_bytes(), &mut out).ok()?;
        Some(String::from_utf8(out).unwrap())
    }

    #[test]
    fn the_forms_of_legacy_systems_are_read() {
        for (form, value, wanted) in [
            (DateForm::Yyyymmdd, "20240229", "2024-02-29"),
            (DateForm::Yymmdd, "490101", "2049-01-01"),
            (DateForm::Yymmdd, "500101", "1950-01-01"),
            (DateForm::Yymmdd, "70101", "2007-01-01"),
            (DateForm::Cyymmdd, "1240229", "2024-02-29"),
            (DateForm::Cyymmdd, "991231", "1999-12-31"),
            (DateForm::Ddmmyyyy, "29022024", "2024-02-29"),
            (DateForm::Ddmmyy, "290224", "2024-02-29"),
            (DateForm::Mmddyyyy, "2292024", "2024-02-29"),
            (DateForm::Mmddyy, "022924", "2024-02-29"),
            (DateForm::Yyyyddd, "2024060", "2024-02-29"),
            (DateForm::Yyddd, "24366", "2024-12-31"),
            (DateForm::Cyyddd, "124060", "2024-02-29"),
            (DateForm::Cyyddd, "60", "1900-03-01"),
            (DateForm::Yyyymmddhhmmss, "20240229235959", "2024-02-29T23:59:59"),
            (DateForm::Yymmddhhmmss, "240229000000", "2024-02-29T00:00:00"),
        ] {
            assert_eq!(date(form, 50, None, true, value).as_deref(), Some(wanted), "{form:?} {value}");
        }
        assert_eq!(date(DateForm::Days, 50, Some("1899-12-30"), true, "45351").as_deref(), Some("2024-02-29"));
        assert_eq!(date(DateForm::Days, 50, Some("1970-01-01"), true, "-1").as_deref(), Some("1969-12-31"));
    }

    #[test]
    fn a_number_may_have_a_fraction_of_zeros() {
        assert_eq!(date(DateForm::Cyymmdd, 50, None, true, "1240229.00").as_deref(), Some("2024-02-29"));
        assert_eq!(date(DateForm::Days, 50, Some("1899-12-30"), true, "45351.0").as_deref(), Some("2024-02-29"));
        assert_eq!(date(DateForm::Cyymmdd, 50, None, true, "1240229.5"), None);
        assert_eq!(date(DateForm::Cyymmdd, 50, None, false, "1240229.00"), None);
    }

    #[test]
    fn what_is_no_day_is_a_failure() {
        for (form, value) in [
            (DateForm::Yyyymmdd, "20230229"),
            (DateForm::Yyyymmdd, "0"),
            (DateForm::Yyyymmdd, "240229"),
            (DateForm::Yyyyddd, "24060"),
            (DateForm::Yyyymmdd, "99999999"),
            (DateForm::Yyyymmdd, "202402291"),
            (DateForm::Yyyymmdd, "-2024022"),
            (DateForm::Yyyyddd, "2023366"),
            (DateForm::Yyyyddd, "2024000"),
            (DateForm::Yyyymmdd, ""),
            (DateForm::Yyyymmddhhmmss, "20240229240000"),
            (DateForm::Yyyymmddhhmmss, "20240229"),
        ] {
            assert_eq!(date(form, 50, None, true, value), None, "{form:?} {value}");
        }
        assert_eq!(date(DateForm::Yymmdd, 50, None, false, "70101"), None, "a text has all of its digits");
        assert_eq!(date(DateForm::Days, 50, Some("1970-01-01"), true, "99999999999"), None);
    }

    proptest! {
        #[test]
        fn every_day_reads_back(days in 0i32..73_000, form in prop::sample::select(vec![
            DateForm::Yyyymmdd, DateForm::Cyymmdd, DateForm::Ddmmyyyy, DateForm::Mmddyyyy, DateForm::Yyyyddd, DateForm::Cyyddd,
        ])) {
            let day = Date::new(1900, 1, 1).unwrap().checked_add(days.days()).unwrap();
            let (year, month, of_month, of_year) = (day.year(), day.month(), day.day(), day.day_of_year());
            let century = year / 100 - 19;
            let short = year % 100;
            let text = match form {
                DateForm::Yyyymmdd => format!("{year:04}{month:02}{of_month:02}"),
                DateForm::Cyymmdd => format!("{century}{short:02}{month:02}{of_month:02}"),
                DateForm::Ddmmyyyy => format!("{of_month:02}{month:02}{year:04}"),
                DateForm::Mmddyyyy => format!("{month:02}{of_month:02}{year:04}"),
                DateForm::Yyyyddd => format!("{year:04}{of_year:03}"),
                _ => format!("{century}{short:02}{of_year:03}"),
            };
            let wanted = Some(day.to_string());
            prop_assert_eq!(date(form, 50, None, false, &text), wanted.clone());
            prop_assert_eq!(date(form, 50, None, true, text.trim_start_matches('0')), wanted);
        }
    }
}
