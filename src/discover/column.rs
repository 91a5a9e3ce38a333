//! What the values of a column, and its name, say about what it holds.

use std::collections::BTreeMap;

use towpath_contract::{Column as Schema, Kind, Value};

use super::dates;

/// One step that a column probably needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Guess {
    pub(super) step: &'static str,
    pub(super) column: String,
    /// The step's option for the column, as YAML; empty where the column alone is named.
    pub(super) option: String,
    pub(super) evidence: String,
    /// It can neither fail nor lose anything.
    pub(super) is_safe: bool,
}

/// Beyond so many different values it is no code.
const CODES_MAX: usize = 12;
/// A code is seen so often on average.
const SEEN_EACH_MIN: usize = 4;
/// Fewer rows say nothing.
const ROWS_MIN: usize = 5;

/// What stands for no date, or no value.
const SENTINELS: [&str; 6] = ["0", "00000000", "000000", "99999999", "999999", "0000000"];

pub(super) struct Column<'v> {
    schema: &'v Schema,
    rows: usize,
    /// As text, with its blanks.
    values: Vec<&'v str>,
}

impl<'v> Column<'v> {
    pub(super) fn new(schema: &'v Schema, values: impl Iterator<Item = Value<'v>>) -> Column<'v> {
        let mut column = Column { schema, rows: 0, values: Vec::new() };
        for value in values {
            column.rows += 1;
            if let Value::Data(bytes) = value {
                column.values.extend(std::str::from_utf8(bytes));
            }
        }
        column
    }

    /// In the order in which the steps are done.
    pub(super) fn guesses(&self) -> Vec<Guess> {
        let mut guesses: Vec<Guess> = [self.padded(), self.mojibake()].into_iter().flatten().collect();
        let date = self.date();
        guesses.extend(self.null_if(date.is_some()));
        guesses.extend(date.clone());
        let personal = self.personal();
        // What is personal is not written down as codes.
        if date.is_none() && personal.is_none() {
            guesses.extend(self.codes());
        }
        guesses.extend(personal);
        guesses
    }

    fn guess(&self, step: &'static str, option: impl Into<String>, evidence: impl Into<String>) -> Guess {
        Guess {
            step,
            column: self.schema.name.clone(),
            option: option.into(),
            evidence: evidence.into(),
            is_safe: false,
        }
    }

    fn is_text(&self) -> bool {
        matches!(self.schema.kind, Kind::Text)
    }

    fn padded(&self) -> Option<Guess> {
        let padded = self.values.iter().filter(|value| value.ends_with(' ')).count();
        if !self.is_text() || padded == 0 {
            return None;
        }
        let evidence = format!("blanks at the end in {padded} of {} rows", self.rows);
        // What the database padded means nothing; what people typed may, and a key tells rows apart.
        let is_safe = self.schema.type_name.starts_with("character(") && !self.schema.key;
        Some(Guess { is_safe, ..self.guess("trim", "", evidence) })
    }

    fn mojibake(&self) -> Option<Guess> {
        const SIGNS: [&str; 6] = ["Ã¤", "Ã¶", "Ã¼", "Ã©", "Ã¨", "â€"];
        let seen = self.values.iter().filter(|value| SIGNS.iter().any(|sign| value.contains(sign))).count();
        let evidence = format!("{seen} of {} rows look like UTF-8 that was taken for windows-1252", self.rows);
        (self.is_text() && seen > 0).then(|| self.guess("charset_repair", "windows-1252", evidence))
    }

    /// What stands for null. `is_date`: the rest are dates.
    fn null_if(&self, is_date: bool) -> Option<Guess> {
        let blank = self.values.iter().filter(|value| value.trim().is_empty()).count();
        let mut found: BTreeMap<&str, usize> = BTreeMap::new();
        if self.is_text() && blank > 0 {
            found.insert("", blank);
        }
        if is_date {
            for value in self.values.iter().map(|value| value.trim()).filter(|value| SENTINELS.contains(value)) {
                *found.entry(value).or_default() += 1;
            }
        }
        if self.schema.kind == Kind::Date || self.schema.kind == Kind::Timestamp {
            for value in
                self.values.iter().filter(|value| value.starts_with("1900-01-01") || value.starts_with("9999-12-31"))
            {
                *found.entry(value).or_default() += 1;
            }
        }
        if found.is_empty() || (found.len() == 1 && blank == self.values.len()) {
            return None;
        }
        let words: Vec<String> = found.keys().map(|value| quoted_value(value)).collect();
        let seen = found.iter().map(|(value, count)| match *value {
            "" => format!("blank in {count}"),
            value => format!("{value} in {count}"),
        });
        let evidence = format!("{} of {} rows", seen.collect::<Vec<_>>().join(", "), self.rows);
        Some(self.guess("null_if", format!("[{}]", words.join(", ")), evidence))
    }

    fn date(&self) -> Option<Guess> {
        let may_be = matches!(self.schema.kind, Kind::Int | Kind::Decimal | Kind::Text) && !self.schema.key;
        let digits = self.values.iter().map(|value| value.trim());
        let digits = digits.filter(|value| !value.is_empty() && !SENTINELS.contains(value));
        let count = digits.clone().count();
        if !may_be || count < ROWS_MIN {
            return None;
        }
        let form = dates::form(&self.schema.name, digits)?;
        let option = match form {
            "yymmdd" => "{ form: yymmdd, pivot: 50 }".to_owned(),
            form => form.to_owned(),
        };
        Some(self.guess("legacy_date", option, format!("digits that are days in {count} of {} rows", self.rows)))
    }

    fn codes(&self) -> Option<Guess> {
        if self.schema.key || !matches!(self.schema.kind, Kind::Text | Kind::Int | Kind::Other) {
            return None;
        }
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for value in &self.values {
            *counts.entry(value.trim()).or_default() += 1;
            if counts.len() > CODES_MAX {
                return None;
            }
        }
        counts.remove("");
        let are_short = counts.keys().all(|code| code.len() <= 6);
        if counts.len() < 2 || !are_short || self.values.len() < counts.len() * SEEN_EACH_MIN {
            return None;
        }
        let words: Vec<String> =
            counts.keys().map(|code| format!("{}: {}", quoted(code), quoted_value(code))).collect();
        let seen: Vec<String> = counts.iter().map(|(code, count)| format!("{code} {count}")).collect();
        let evidence = format!("few different values ({} rows: {}); say what they mean", self.rows, seen.join(", "));
        Some(self.guess("decode", format!("{{ {} }}", words.join(", ")), evidence))
    }

    fn personal(&self) -> Option<Guess> {
        let mails = self.values.iter().filter(|value| is_mail(value.trim())).count();
        let evidence = if mails * 2 > self.values.len() {
            format!("e-mail addresses in {mails} of {} rows", self.rows)
        } else {
            format!("probably personal, by its name ({})", personal_word(&self.schema.name)?)
        };
        let is_maskable = self.is_text() || self.schema.kind == Kind::Other;
        (is_maskable && !self.schema.key).then(|| self.guess("mask", "redact", evidence))
    }
}

/// `local@host.tld`.
fn is_mail(text: &str) -> bool {
    text.split_once('@').is_some_and(|(local, host)| {
        !local.is_empty() && host.contains('.') && !host.contains(['@', ' ']) && !local.contains(' ')
    })
}

/// Matched at the beginning of a word, or of a legacy name behind its prefix.
fn personal_word(name: &str) -> Option<&'static str> {
    const WORDS: [&str; 16] = [
        "email",
        "mail",
        "phone",
        "mobile",
        "fax",
        "birth",
        "passport",
        "iban",
        "ssn",
        "surname",
        "firstname",
        "lastname",
        "first_name",
        "last_name",
        "street",
        "address",
    ];
    let name = name.to_lowercase();
    WORDS.into_iter().find(|word| name.contains(word))
}

/// As YAML has it: a plain word, or within quotes.
pub(super) fn quoted(text: &str) -> String {
    let is_word = text.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        && !["true", "false", "yes", "no", "on", "off", "null", "y", "n"].contains(&text.to_lowercase().as_str());
    if is_word { text.to_owned() } else { serde_json::Value::from(text).to_string() }
}

/// The same, where the config would look for variables: in values, not in keys.
pub(super) fn quoted_value(text: &str) -> String {
    quoted(&text.replace("${", "$${"))
}
