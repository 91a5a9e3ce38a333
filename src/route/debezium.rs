//! The envelope of Debezium's connectors, for consumers that were written for it (Debezium 3.6, `schemas.enable=false`).

use std::io::Write as _;

use jiff::civil::{Date, DateTime, Time};
use towpath_contract::{Kind, Op, Value};

use super::format::Facts;
use super::json::write_string;
use super::plan::ColumnPlan;
use super::rows::Unwritable;
use super::transform::View;

/// What stands for a value that the database did not send.
const UNAVAILABLE: &str = "__debezium_unavailable_value";

pub(super) fn write_envelope<'a>(facts: &Facts<'a>, out: &mut Vec<u8>, unfit: &mut Unwritable<'a>) {
    let rows = facts.rows;
    out.push(b'{');
    if matches!(facts.op, Op::Insert | Op::Update | Op::Delete | Op::Read) {
        for (name, row) in [("before", rows.and_then(|rows| rows.before)), ("after", rows.and_then(|rows| rows.after))]
        {
            write!(out, "\"{name}\":").expect("a Vec takes all");
            match row {
                Some(row) => write_row(row, facts.columns, out, unfit),
                None => out.extend_from_slice(b"null"),
            }
            out.push(b',');
        }
    }
    if let (Op::Message, Some(row)) = (facts.op, rows.and_then(|rows| rows.after)) {
        out.extend_from_slice(b"\"message\":");
        write_row(row, facts.columns, out, unfit);
        out.push(b',');
    }
    write_source(facts, out);
    let op = match facts.op {
        Op::Insert => 'c',
        Op::Update => 'u',
        Op::Delete => 'd',
        Op::Read => 'r',
        Op::Truncate => 't',
        Op::Message => 'm',
    };
    let us = facts.commit_time_us;
    let (ms, ns) = (us.div_euclid(1000), i128::from(us) * 1000);
    write!(out, ",\"transaction\":null,\"op\":\"{op}\",\"ts_ms\":{ms},\"ts_us\":{us},\"ts_ns\":{ns}}}")
        .expect("a Vec takes all");
}

fn write_source(facts: &Facts<'_>, out: &mut Vec<u8>) {
    let us = facts.commit_time_us;
    let (ms, ns) = (us.div_euclid(1000), i128::from(us) * 1000);
    let (schema, table) = facts.subject.split_once('.').unwrap_or(("", facts.subject));
    let snapshot = facts.op == Op::Read;
    write!(out, "\"source\":{{\"version\":\"{}\",\"connector\":\"postgresql\",\"name\":", env!("CARGO_PKG_VERSION"))
        .expect("a Vec takes all");
    write_string(facts.source, out);
    write!(out, ",\"ts_ms\":{ms},\"snapshot\":\"{snapshot}\",\"db\":\"\",\"sequence\":").expect("a Vec takes all");
    write_string(facts.sequence, out);
    write!(out, ",\"ts_us\":{us},\"ts_ns\":{ns},\"schema\":").expect("a Vec takes all");
    write_string(schema, out);
    out.extend_from_slice(b",\"table\":");
    write_string(table, out);
    let transaction = facts.transaction.parse::<u64>().map_or_else(|_| "null".to_owned(), |id| id.to_string());
    write!(out, ",\"txId\":{transaction},\"lsn\":null,\"xmin\":null}}").expect("a Vec takes all");
}

/// Every column: of a row of which only the key is known, the others are null, as Debezium has them.
fn write_row<'p>(row: View<'_>, columns: &'p [ColumnPlan], out: &mut Vec<u8>, unfit: &mut Unwritable<'p>) {
    let key_alone = columns.iter().all(|column| column.key || row.value(column.slot) == Value::Unavailable);
    out.push(b'{');
    for column in columns {
        if out.last() != Some(&b'{') {
            out.push(b',');
        }
        out.extend_from_slice(&column.label);
        match row.value(column.slot) {
            Value::Null => out.extend_from_slice(b"null"),
            Value::Unavailable if key_alone => out.extend_from_slice(b"null"),
            Value::Unavailable => write_string(UNAVAILABLE, out),
            // Not of the column's kind: the event is parked.
            Value::Data(bytes) if row.has_failed(column.slot) => {
                write_string(&String::from_utf8_lossy(bytes), out);
            }
            Value::Data(bytes) => write_value(column, bytes, out, unfit),
        }
    }
    out.push(b'}');
}

fn write_value<'p>(column: &'p ColumnPlan, bytes: &[u8], out: &mut Vec<u8>, unfit: &mut Unwritable<'p>) {
    let text = std::str::from_utf8(bytes).unwrap_or_default();
    let number = match &column.kind {
        Kind::Date => epoch_day(text),
        Kind::Time => micros_of_day(text),
        Kind::Timestamp if is_in_milliseconds(&column.type_name) => epoch_micros(text).map(|us| us.div_euclid(1000)),
        Kind::Timestamp => epoch_micros(text),
        // The digits, however many: Debezium's int64 is a JSON number.
        Kind::Int if !text.is_empty() => return out.extend_from_slice(bytes),
        // A text to Debezium.
        Kind::Json if !text.is_empty() => return write_string(text, out),
        _ => None,
    };
    match number {
        Some(number) => write!(out, "{number}").expect("a Vec takes all"),
        // What has no number there (`infinity`) is its text.
        None => column.write(bytes, out, unfit),
    }
}

fn epoch_day(text: &str) -> Option<i64> {
    let day: Date = text.parse().ok()?;
    Some(i64::from(day.since(Date::constant(1970, 1, 1)).ok()?.get_days()))
}

fn micros_of_day(text: &str) -> Option<i64> {
    let time: Time = text.parse().ok()?;
    let seconds = i64::from(time.hour()) * 3600 + i64::from(time.minute()) * 60 + i64::from(time.second());
    Some(seconds * 1_000_000 + i64::from(time.subsec_nanosecond()) / 1000)
}

fn epoch_micros(text: &str) -> Option<i64> {
    let time: DateTime = text.parse().ok()?;
    Some(jiff::tz::Offset::UTC.to_timestamp(time).ok()?.as_microsecond())
}

/// `timestamp(3) without time zone`: of three digits at most, it is counted in milliseconds.
fn is_in_milliseconds(type_name: &str) -> bool {
    let digits = type_name.split_once('(').and_then(|(_, rest)| rest.split_once(')')).map(|(digits, _)| digits);
    digits.is_some_and(|digits| digits.parse::<u8>().is_ok_and(|digits| digits <= 3))
}
