//! The ledger against frames: what a client would read, to the byte.

mod desk;

use std::collections::BTreeSet;

use amq_protocol::frame::{AMQPContentHeader, AMQPFrame};
use amq_protocol::protocol::basic::AMQPProperties;
use amq_protocol::protocol::basic::{self, AMQPMethod as Basic};
use amq_protocol::protocol::{AMQPClass, channel, connection};
use amq_protocol::types::{AMQPValue, FieldTable};

use super::frames::{Part, cut};
use super::*;
use desk::*;

const MANY: u64 = 3000;

#[test]
fn frames_are_cut_where_they_end_and_garbage_is_refused() {
    let frames = [publish(1, "id", &[b"one", b"two"]), vec![AMQPFrame::Heartbeat]].concat();
    let bytes = [b"AMQP\x00\x00\x09\x01".to_vec(), bytes_of(&frames)].concat();
    let (mut whole, mut count) = (0, 0);
    for end in 0..=bytes.len() {
        while let Some(frame) = cut(&bytes[whole..end]).unwrap() {
            (whole, count) = (whole + frame.bytes.len(), count + 1);
        }
    }
    assert_eq!((whole, count), (bytes.len(), 1 + frames.len()));
    for garbage in [
        &b"\x16\x03\x01\x00\x00\x00\x00\x00"[..],
        b"\x01\x00\x01\x00\x00\x00\x01\x00\xCE",
        b"\x03\x00\x01\x00\x00\x00\x00\x00",
    ] {
        assert!(cut(garbage).is_err(), "{garbage:?}");
    }
}

#[test]
fn a_message_id_is_found_among_whatever_properties() {
    let mut headers = FieldTable::default();
    headers.insert("header".into(), AMQPValue::LongString("value".into()));
    for chosen in 0..1 << 13 {
        let mut properties = AMQPProperties::default();
        let setters: [&dyn Fn(AMQPProperties) -> AMQPProperties; 13] = [
            &|of| of.with_message_id("id".into()),
            &|of| of.with_content_type("a".into()),
            &|of| of.with_content_encoding("bb".into()),
            &|of| of.with_headers(headers.clone()),
            &|of| of.with_delivery_mode(2),
            &|of| of.with_priority(3),
            &|of| of.with_correlation_id("ccc".into()),
            &|of| of.with_reply_to("".into()),
            &|of| of.with_expiration("dddd".into()),
            &|of| of.with_timestamp(1 << 40),
            &|of| of.with_type("e".into()),
            &|of| of.with_user_id("f".into()),
            &|of| of.with_app_id("g".into()),
        ];
        for (_, set) in setters.into_iter().enumerate().filter(|(bit, _)| chosen >> bit & 1 == 1) {
            properties = set(properties);
        }
        let header = AMQPContentHeader { class_id: 60, body_size: 1 << 33, properties };
        let bytes = bytes_of(&[AMQPFrame::Header(1, header)]);
        let Part::Header { message_id, body_size } = cut(&bytes).unwrap().unwrap().part else { panic!("{bytes:?}") };
        let expected: &[u8] = if chosen & 1 == 1 { b"id" } else { b"" };
        assert_eq!((message_id, body_size), (expected, 1 << 33), "{bytes:?}");
    }
}

#[test]
fn an_honest_broker_is_passed_on_word_for_word() {
    let mut desk = Desk::new(Confirms::Honest, MANY);
    let said = [vec![ack(1, 7, true), nack(1, 9, false), ack(1, MANY, true)], returned(2, "x", &[b"y"])].concat();
    assert_eq!(desk.heard(&said), said);
    assert!(desk.later(0).is_empty());
}

#[test]
fn delayed_confirms_come_one_by_one_when_their_time_has_come() {
    let mut desk = Desk::new(Confirms::Delayed(Duration::from_millis(30)), 5);
    assert_eq!(desk.heard(&[ack(1, 2, true), AMQPFrame::Heartbeat]), [AMQPFrame::Heartbeat]);
    assert_eq!(desk.later(20), []);
    assert_eq!(desk.heard(&[nack(1, 5, true)]), []);
    assert_eq!(desk.ledger.due(desk.mode), Some(desk.now + Duration::from_millis(10)));
    assert_eq!(desk.later(10), one_by_one(1..=2));
    assert_eq!(desk.later(19), []);
    assert_eq!(desk.later(1), [3, 4, 5].map(|tag| nack(1, tag, false)));
    assert_eq!(desk.ledger.due(desk.mode), None);
}

#[test]
fn withheld_confirms_come_with_the_next_mode() {
    let mut desk = Desk::new(Confirms::Withheld, MANY);
    assert_eq!(desk.heard(&[ack(1, MANY - 1, true), AMQPFrame::Heartbeat]), [AMQPFrame::Heartbeat]);
    assert_eq!((desk.later(1 << 30), desk.ledger.due(desk.mode)), (vec![], None));
    desk.mode = Confirms::Honest;
    // What the broker says meanwhile stays behind what it said before.
    assert_eq!(desk.heard(&[ack(1, MANY, false)]), one_by_one(1..=MANY));
}

#[test]
fn reordered_confirms_come_as_one_group_when_all_is_answered_or_a_moment_has_passed() {
    let mode = Confirms::Reordered { seed: 1 };
    let mut desk = Desk::new(mode, MANY);
    assert_eq!(desk.heard(&[ack(1, 1000, true), ack(1, 1001, false)]), []);
    let early = desk.later(5);
    assert_eq!(desk.heard(&[ack(1, 2000, true)]), []);
    let late = desk.heard(&[ack(1, MANY, true)]);
    for (group, tags) in [(&early, 1..=1001), (&late, 1002..=MANY)] {
        let sorted = one_by_one(tags);
        let place = |frame: &AMQPFrame| sorted.iter().position(|other| other == frame).unwrap();
        let mut places: Vec<usize> = group.iter().map(place).collect();
        // Half of all neighbours, give or take little: a shuffle, and not a rotation.
        let backwards = places.windows(2).filter(|pair| pair[0] > pair[1]).count();
        assert!((places.len() * 2 / 5..places.len() * 3 / 5).contains(&backwards), "{backwards}");
        places.sort_unstable();
        assert!(places.into_iter().eq(0..sorted.len()));
    }
    let told = |seed| Desk::new(Confirms::Reordered { seed }, 50).heard(&[ack(1, 50, true)]);
    assert_eq!(told(7), told(7));
    assert_ne!(told(7), told(8));
    assert_eq!(Desk::new(mode, 1).heard(&[ack(1, 1, false)]), one_by_one([1]), "alone, it waits for nothing");
}

#[test]
fn a_share_of_the_acks_becomes_nacks_and_no_nack_an_ack() {
    let told = |seed, share, answer| Desk::new(Confirms::Nacked { seed, share }, MANY).heard(&[answer]);
    let all_acked = || ack(1, MANY, true);
    let mixed = told(1, 0.25, all_acked());
    let nacked: BTreeSet<u64> = (1..=MANY).filter(|tag| mixed.contains(&nack(1, *tag, false))).collect();
    assert!((MANY / 5..MANY * 3 / 10).contains(&(nacked.len() as u64)), "{}", nacked.len());
    let expected = (1..=MANY).map(|tag| if nacked.contains(&tag) { nack(1, tag, false) } else { ack(1, tag, false) });
    assert!(mixed.iter().cloned().eq(expected));
    assert_ne!(mixed, told(2, 0.25, all_acked()));
    assert_eq!(told(1, 0.0, all_acked()), one_by_one(1..=MANY));
    let nacks: Vec<_> = (1..=MANY).map(|tag| nack(1, tag, false)).collect();
    assert_eq!(told(1, 1.0, all_acked()), nacks);
    assert_eq!(told(1, 0.0, nack(1, MANY, true)), nacks);
}

#[test]
fn a_returned_message_is_the_one_that_was_published() {
    let mut desk = Desk::new(Confirms::Returned { seed: 1, share: 1.0 }, 0);
    let (long, empty): (&[&[u8]], &[&[u8]]) = (&[b"one", b"two", b"three"], &[]);
    // The frames of two channels may alternate.
    let (one, two) = (publish(1, "long", long), publish(2, "empty", empty));
    desk.sent(&[&one[..2], &two[..1], &one[2..3], &two[1..], &one[3..]].concat());
    assert_eq!(desk.heard(&[ack(1, 1, true)]), [returned(1, "long", long), one_by_one([1])].concat());
    assert_eq!(desk.heard(&[ack(2, 1, false)]), [returned(2, "empty", empty), vec![ack(2, 1, false)]].concat());
    // What the broker itself returned, or did not take, is not returned once more.
    desk.sent(&[publish(1, "a", long), publish(1, "b", empty)].concat());
    let said = returned(1, "a", long);
    assert_eq!(desk.heard(&said), said);
    assert_eq!(desk.heard(&[ack(1, 2, false), nack(1, 3, false)]), [ack(1, 2, false), nack(1, 3, false)]);
}

#[test]
fn no_confirm_comes_between_the_frames_of_a_message() {
    let (exchange, routing_key) = ("e".into(), "k".into());
    let deliver = basic::Deliver { consumer_tag: "c".into(), exchange, routing_key, ..Default::default() };
    let begins = [
        Basic::Deliver(deliver),
        Basic::GetOk(basic::GetOk {
            delivery_tag: 1,
            redelivered: false,
            exchange: "e".into(),
            routing_key: "k".into(),
            message_count: 0,
        }),
    ];
    let mut messages =
        begins.map(|begin| [vec![method(2, begin)], content(2, "id", &[b"one", b"two"])].concat()).to_vec();
    messages.push(returned(2, "id", &[b"one", b"two"]));
    for message in messages {
        let mut desk = Desk::new(Confirms::Delayed(Duration::from_millis(1)), 1);
        assert_eq!(desk.heard(&[&[ack(1, 1, false)], &message[..1]].concat()), message[..1]);
        for piece in message[1..3].chunks(1) {
            assert_eq!((desk.later(5), desk.ledger.due(desk.mode)), (vec![], None));
            assert_eq!(desk.heard(piece), piece);
        }
        assert_eq!(desk.heard(&message[3..]), [&message[3..], &one_by_one([1])].concat());
    }
}

#[test]
fn a_channel_that_is_closed_takes_what_was_kept_with_it() {
    let close = channel::Close { reply_code: 404, reply_text: "".into(), class_id: 0, method_id: 0 };
    for end in [channel::AMQPMethod::Close(close), channel::AMQPMethod::CloseOk(channel::CloseOk {})] {
        let end = AMQPFrame::Method(1, AMQPClass::Channel(end));
        let mut desk = Desk::new(Confirms::Withheld, 10);
        desk.sent(&publish(2, "other", &[]));
        desk.heard(&[ack(1, 5, true), ack(2, 1, false)]);
        assert_eq!(desk.heard(std::slice::from_ref(&end)), [end]);
        // Still on its way when the client heard of it.
        desk.sent(&publish(1, "late", &[]));
        desk.confirm_mode(1);
        desk.sent(&publish(1, "anew", &[]));
        assert_eq!(desk.heard(&[ack(1, 1, false)]), []);
        desk.mode = Confirms::Honest;
        assert_eq!(desk.later(0), [ack(2, 1, false), ack(1, 1, false)]);
    }
}

#[test]
fn a_connection_that_is_closed_takes_all_that_was_kept_with_it() {
    let close = connection::Close { reply_code: 320, reply_text: "".into(), class_id: 0, method_id: 0 };
    for end in [connection::AMQPMethod::Close(close), connection::AMQPMethod::CloseOk(connection::CloseOk {})] {
        let end = AMQPFrame::Method(0, AMQPClass::Connection(end));
        let mut desk = Desk::new(Confirms::Withheld, 10);
        desk.heard(&[ack(1, 5, true)]);
        assert_eq!(desk.heard(std::slice::from_ref(&end)), [end]);
        assert!(desk.ledger.is_clear());
    }
}

/// Random publishes, answers, modes and pauses.
#[test]
fn whatever_the_modes_every_publish_is_answered_once_and_nothing_is_kept_of_it() {
    for seed in 0..50 {
        let mut desk = Desk::new(Confirms::Honest, 0);
        let (mut published, mut answered, mut read) = ([0_u64; 3], [0_u64; 3], Vec::new());
        for step in 0..500 {
            let chance = draw(seed, (0, 0, step));
            let (channel, more) = (1 + (chance >> 8) as u16 % 2, (chance >> 16) % 6);
            let on = usize::from(channel);
            match chance % 4 {
                0 => (0..more).for_each(|_| {
                    published[on] += 1;
                    desk.sent(&publish(channel, &published[on].to_string(), &[b"body"]));
                }),
                1 if published[on] > answered[on] => {
                    answered[on] += 1 + more % (published[on] - answered[on]);
                    read.extend(desk.heard(&[ack(channel, answered[on], true)]));
                }
                2 => {
                    let share = 0.5;
                    desk.mode = match more {
                        0 => Confirms::Delayed(Duration::from_millis(3)),
                        1 => Confirms::Withheld,
                        2 => Confirms::Reordered { seed },
                        3 => Confirms::Nacked { seed, share },
                        4 => Confirms::Returned { seed, share },
                        _ => Confirms::Honest,
                    };
                }
                _ => read.extend(desk.later(more)),
            }
        }
        desk.mode = Confirms::Honest;
        for (channel, on) in [(1, 1), (2, 2)].into_iter().filter(|(_, on)| published[*on] > answered[*on]) {
            read.extend(desk.heard(&[ack(channel, published[on], true)]));
        }
        read.extend(desk.later(0));
        assert_eq!([1, 2].map(|channel| told_on(channel, &read)), [1, 2].map(|on| (1..=published[on]).collect()));
        assert!(desk.ledger.is_clear());
    }
}

/// The tags that the client was told of.
fn told_on(channel: u16, read: &[AMQPFrame]) -> BTreeSet<u64> {
    let mut told = BTreeSet::new();
    for frame in read {
        let (tag, multiple) = match frame {
            AMQPFrame::Method(on, AMQPClass::Basic(Basic::Ack(ack))) if *on == channel => {
                (ack.delivery_tag, ack.multiple)
            }
            AMQPFrame::Method(on, AMQPClass::Basic(Basic::Nack(nack))) if *on == channel => (nack.delivery_tag, false),
            _ => continue,
        };
        assert!(told.insert(tag), "{tag} was told twice");
        if multiple {
            told.extend(1..tag);
        }
    }
    told
}
