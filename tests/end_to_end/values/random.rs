//! Random values of each type, as text that PostgreSQL reads.

use std::fmt::Write as _;

/// Characters that mean something to an array, a row, JSON or COPY, or that readers stumble over.
const SPECIAL: [char; 22] = [
    '"', '\'', '\\', '{', '}', '[', ']', '(', ')', ',', ';', ':', '.', '%', '&', '/', '\u{7f}', '\u{85}', '\u{2028}',
    '\u{feff}', '\u{fffd}', '\u{ffff}',
];

pub(super) struct Values {
    random: fastrand::Rng,
    major: u32,
}

impl Values {
    pub(super) fn new(seed: u64, major: u32) -> Values {
        Values { random: fastrand::Rng::with_seed(seed), major }
    }

    pub(super) fn one_of(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }

    pub(super) fn below(&mut self, end: u64) -> u64 {
        self.random.u64(..end)
    }

    pub(super) fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[self.random.usize(..from.len())]
    }

    pub(super) fn boolean(&mut self) -> String {
        self.random.bool().to_string()
    }

    /// The ends of the range, the ends of what a double holds, zero, and between.
    pub(super) fn integer(&mut self, bits: u32) -> String {
        let (min, max) = (i64::MIN >> (64 - bits), i64::MAX >> (64 - bits));
        let safe = (1i64 << 53).clamp(min, max);
        let edge = [min, max, 0, safe - 1, safe, -safe, 1 - safe][self.random.usize(..7)];
        let number = match self.below(3) {
            0 => edge,
            1 => self.random.i64(-1000..1000),
            _ => self.random.i64(min..=max),
        };
        number.to_string()
    }

    fn digits(&mut self, count: usize) -> String {
        (0..count).map(|_| self.random.digit(10)).collect()
    }

    fn sign(&mut self) -> &'static str {
        self.pick(&["", "-"])
    }

    pub(super) fn numeric(&mut self) -> String {
        let long = if self.one_of(25) { 1000 } else { 12 };
        match self.below(20) {
            0 => "NaN".into(),
            1 if self.major >= 14 => format!("{}Infinity", self.sign()),
            2 => "0.00".into(),
            3 => format!("{}0.{}1", self.sign(), "0".repeat(long)),
            _ => {
                let (whole, scale) = (self.random.usize(1..=long), self.random.usize(0..=long));
                let (sign, whole, fraction) = (self.sign(), self.digits(whole), self.digits(scale));
                format!("{sign}{whole}{}{fraction}", if scale > 0 { "." } else { "" })
            }
        }
    }

    pub(super) fn price(&mut self) -> String {
        format!("{}{}.{:02}", self.sign(), self.below(1_000_000_000), self.below(100))
    }

    pub(super) fn real(&mut self) -> String {
        let edge =
            [f32::MAX, f32::MIN_POSITIVE, f32::from_bits(1), -0.0, f32::NAN, f32::INFINITY, -f32::INFINITY, 1e15];
        let number = match self.below(3) {
            0 => edge[self.random.usize(..edge.len())],
            1 => self.random.i32(-100_000..100_000) as f32 / 64.0,
            _ => f32::from_bits(self.random.u32(..)),
        };
        written(number.into(), format!("{number:e}"))
    }

    pub(super) fn double(&mut self) -> String {
        let edge =
            [f64::MAX, f64::MIN_POSITIVE, f64::from_bits(1), -0.0, f64::NAN, f64::INFINITY, -f64::INFINITY, 1e15, 0.1];
        let number = match self.below(3) {
            0 => edge[self.random.usize(..edge.len())],
            1 => self.random.i32(-100_000..100_000) as f64 / 64.0,
            _ => f64::from_bits(self.random.u64(..)),
        };
        written(number, format!("{number:e}"))
    }

    /// At most `length` characters of all that there are, but for the one that no PostgreSQL text holds.
    pub(super) fn text(&mut self, length: usize) -> String {
        let length = self.random.usize(0..=length);
        let mut text = String::new();
        for _ in 0..length {
            text.push(match self.below(6) {
                0 => char::from(self.random.u8(1..=0x20)),
                1 => SPECIAL[self.random.usize(..SPECIAL.len())],
                2 => self.random.char('\u{80}'..='\u{d7ff}'),
                3 => self.random.char('\u{1}'..=char::MAX),
                _ => self.random.alphanumeric(),
            });
        }
        if self.one_of(20) {
            self.pick(&["NULL", "null", "{}", "\\x", "infinity", " "]).chars().take(length).collect()
        } else {
            text
        }
    }

    pub(super) fn bytea(&mut self) -> String {
        let length = self.below(40);
        (0..length).fold("\\x".into(), |text, _| format!("{text}{:02x}", self.below(256)))
    }

    fn day(&mut self, years: u64) -> (String, &'static str) {
        let (year, era) = match self.below(8) {
            0 => (1 + self.below(4712), " BC"),
            1 => (1 + self.below(years), ""),
            _ => (1 + self.below(9999), ""),
        };
        (format!("{year:04}-{:02}-{:02}", 1 + self.below(12), 1 + self.below(28)), era)
    }

    pub(super) fn date(&mut self) -> String {
        if self.one_of(12) {
            return format!("{}infinity", self.sign());
        }
        let (day, era) = self.day(5_874_896);
        day + era
    }

    pub(super) fn time(&mut self) -> String {
        if self.one_of(20) {
            return "24:00:00".into();
        }
        let places = self.random.usize(0..=6);
        let fraction = self.digits(places);
        let point = if places > 0 { "." } else { "" };
        format!("{:02}:{:02}:{:02}{point}{fraction}", self.below(24), self.below(60), self.below(60))
    }

    pub(super) fn time_tz(&mut self) -> String {
        let offset = match self.below(4) {
            0 => "00".into(),
            1 => format!("{:02}", self.below(16)),
            2 => format!("{:02}:{:02}", self.below(15), self.below(60)),
            _ => format!("{:02}:{:02}:{:02}", self.below(15), self.below(60), self.below(60)),
        };
        format!("{}{}{offset}", self.time(), self.pick(&["+", "-"]))
    }

    pub(super) fn timestamp(&mut self, zone: &str) -> String {
        if self.one_of(12) {
            return format!("{}infinity", self.sign());
        }
        let (day, era) = self.day(294_275);
        format!("{day} {}{zone}{era}", self.time())
    }

    pub(super) fn interval(&mut self) -> String {
        let (months, days) = (self.random.i32(-100_000..100_000), self.random.i32(-1_000_000..1_000_000));
        let time = format!("{}{}:{}", self.sign(), self.below(1000), self.time().split_at(3).1);
        match self.below(4) {
            0 => time,
            1 => format!("{months} mons"),
            2 => "0".into(),
            _ => format!("{months} mons {days} days {time}"),
        }
    }

    pub(super) fn uuid(&mut self) -> String {
        format!("{:032x}", self.random.u128(..))
    }

    /// Never a bare `null`: an event shows it as it shows SQL's.
    pub(super) fn json(&mut self, depth: u32) -> String {
        let space = self.pick(&["", " ", "\n", "\t "]);
        match self.below(if depth > 0 { 7 } else { 5 }) {
            0 => serde_json::to_string(&self.text(9)).expect("any text is JSON"),
            1 => "\"\\u00e9\\uD83D\\ude00\\/\\u001f\"".into(),
            2 => self.boolean(),
            3 => format!("{}{}.{}0e{}", self.sign(), self.below(1000), self.below(1000), self.random.i32(-400..400)),
            4 => self.integer(64),
            5 => format!("[{space}{},null{space},{}]", self.json(depth - 1), self.json(depth - 1)),
            _ => {
                let key = serde_json::to_string(&self.text(5)).expect("any text is JSON");
                format!(
                    "{{{key}:{space}{},\"b\": null{space}, {key} : {}}}",
                    self.json(depth - 1),
                    self.json(depth - 1)
                )
            }
        }
    }

    pub(super) fn mood(&mut self) -> String {
        self.pick(&["", "sad", "a \"b\" \\", "x,y", "NULL", "{}", "é"]).into()
    }

    pub(super) fn pair(&mut self) -> String {
        match self.below(3) {
            0 => "(,,)".into(),
            1 => format!("({},{},)", self.integer(32), quoted(&self.text(9))),
            _ => format!("(,\"\",{})", quoted(&self.timestamp(""))),
        }
    }

    pub(super) fn int_range(&mut self) -> String {
        let (from, length) = (self.random.i32(-1000..1000), self.random.i32(0..100));
        match self.below(5) {
            0 => "empty".into(),
            1 => format!("[{from},)"),
            2 => format!("(,{from}]"),
            _ => format!("[{from},{}]", from + length),
        }
    }

    /// Of one value, or without a bound: which of two is less need not be known.
    pub(super) fn range(&mut self, value: fn(&mut Values) -> String) -> String {
        let value = quoted(&value(self));
        match self.below(4) {
            0 => "empty".into(),
            1 => format!("[{value},)"),
            2 => format!("(,{value})"),
            _ => format!("[{value},{value}]"),
        }
    }

    pub(super) fn inet(&mut self) -> String {
        match self.below(2) {
            0 => format!("10.{}.0.{}/{}", self.below(256), self.below(256), self.below(33)),
            _ => format!("2001:db8::{:x}:{:x}", self.below(1 << 16), self.below(1 << 16)),
        }
    }

    pub(super) fn bits(&mut self, count: u64) -> String {
        (0..count).map(|_| self.random.digit(2)).collect()
    }

    pub(super) fn lexeme(&mut self) -> String {
        format!("'{}x'", self.text(9).replace('\\', "\\\\").replace('\'', "''"))
    }

    pub(super) fn point(&mut self) -> String {
        let mut one = || self.random.i32(-100_000..100_000) as f64 / 7.0;
        format!("({},{})", one(), one())
    }

    /// Of up to three dimensions, some with bounds of their own, some elements NULL, quoted where they must be and where not.
    pub(super) fn array(&mut self, delimiter: char, value: fn(&mut Values) -> String) -> String {
        if self.one_of(10) {
            return "{}".into();
        }
        let lengths: Vec<u64> = (0..1 + self.below(3)).map(|_| 1 + self.below(3)).collect();
        let mut text = String::new();
        if self.one_of(8) {
            for length in &lengths {
                let from = self.random.i64(-3..4);
                let _ = write!(text, "[{from}:{}]", from + *length as i64 - 1);
            }
            text += "=";
        }
        self.dimension(&lengths, delimiter, value, &mut text);
        text
    }

    fn dimension(&mut self, lengths: &[u64], delimiter: char, value: fn(&mut Values) -> String, text: &mut String) {
        let Some((length, inner)) = lengths.split_first() else {
            *text += &if self.one_of(8) { "NULL".into() } else { quoted(&value(self)) };
            return;
        };
        for index in 0..*length {
            text.push(if index == 0 { '{' } else { delimiter });
            self.dimension(inner, delimiter, value, text);
        }
        text.push('}');
    }
}

/// As PostgreSQL reads a float.
fn written(number: f64, finite: String) -> String {
    match number {
        _ if number.is_nan() => "NaN".into(),
        f64::INFINITY => "Infinity".into(),
        f64::NEG_INFINITY => "-Infinity".into(),
        _ => finite,
    }
}

/// Within an array, a row, a range or an hstore.
pub(super) fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}
