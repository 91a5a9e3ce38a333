//! Numbers as people read them.

use towpath_contract::ByteSize;

/// `1,234,567`
pub(super) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `0.4 s`, `12 s`, `3 min`, `2 h 5 min`, `3 d 4 h`
pub(super) fn duration(seconds: f64) -> String {
    let whole = seconds.round() as u64;
    let two = |large: u64, unit: &str, small: u64, small_unit: &str| match small {
        0 => format!("{large} {unit}"),
        _ => format!("{large} {unit} {small} {small_unit}"),
    };
    match whole {
        _ if seconds <= 0.05 => "0 s".into(),
        _ if seconds < 9.95 => format!("{seconds:.1} s"),
        0..120 => format!("{whole} s"),
        120..3_600 => format!("{} min", whole / 60),
        3_600..86_400 => two(whole / 3_600, "h", whole % 3_600 / 60, "min"),
        _ => two(whole / 86_400, "d", whole % 86_400 / 3_600, "h"),
    }
}

pub(super) fn bytes(number: u64) -> String {
    ByteSize(number).to_string()
}

/// `120/s`, `0.4/s`
pub(super) fn rate(per_second: f64) -> String {
    match per_second {
        rate if rate < 0.05 => "0/s".into(),
        rate if rate < 9.95 => format!("{rate:.1}/s"),
        rate => format!("{}/s", count(rate.round() as u64)),
    }
}

/// `2026-01-31 12:34:56Z`
pub(super) fn moment(ms: i64) -> String {
    match jiff::Timestamp::from_millisecond(ms) {
        Ok(moment) => moment.strftime("%Y-%m-%d %H:%M:%SZ").to_string(),
        Err(_) => format!("{ms} ms"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        assert_eq!(
            ["0", "999", "1,000", "1,234,567"],
            [0, 999, 1000, 1_234_567].map(count).each_ref().map(String::as_str)
        );
        let spans = [0.0, 0.42, 12.2, 119.0, 120.0, 3_700.0, 7_200.0, 273_600.0].map(duration);
        assert_eq!(spans, ["0 s", "0.4 s", "12 s", "119 s", "2 min", "1 h 1 min", "2 h", "3 d 4 h"]);
        assert_eq!([0.0, 0.42, 120.4, 12_345.0].map(rate), ["0/s", "0.4/s", "120/s", "12,345/s"]);
        assert_eq!(bytes(2_202_009), "2.1 MiB");
        assert_eq!(moment(0), "1970-01-01 00:00:00Z");
    }
}
