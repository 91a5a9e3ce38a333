//! Events and position become durable together, in order, and never go back.

use proptest::prelude::*;
use towpath_contract::StateEntry;

use super::*;

#[tokio::test]
async fn what_was_recorded_is_there_after_a_restart_and_numbers_go_on() {
    let place = Place::new();
    let open = place.open();
    assert_eq!(open.record(batch([event(A, "1", 1), event(B, "2", 2)]), 1).await, 1..3);
    assert_eq!(open.record(batch([event(A, "3", 1)]), 2).await, 3..4);
    open.close().await;

    let open = place.open();
    assert_eq!(open.stored.last_seq, 3);
    let source = &open.stored.sources["db"];
    assert_eq!(source.identity.as_deref(), Some("system-1"));
    assert_eq!(source.position, Position::from_bytes(&[2]));
    assert_eq!(open.read_ids(A, 0).await, ["1", "3"]);
    assert_eq!(open.read_ids(B, 0).await, ["2"]);
    let unsettled = open.stored.routes.iter().map(|route| route.unsettled.events).collect::<Vec<_>>();
    assert_eq!(unsettled, [2, 1]);
    assert_eq!(open.record(batch([event(A, "4", 1)]), 2).await, 4..5);
}

#[tokio::test]
async fn numbers_go_on_when_everything_was_pruned() {
    let place = Place { retain: Duration::ZERO, ..Place::new() };
    let open = place.open();
    open.record(many(A, "e", 10, 10), 1).await;
    open.outbox.settle(A, 0, 10);
    open.stats(|stats| stats.pruned_events == 10).await;
    open.close().await;
    assert_eq!(place.count("SELECT count(*) FROM event"), 0);
    assert_eq!(place.open().record(batch([event(A, "11", 1)]), 1).await, 11..12);
}

#[tokio::test]
async fn a_lone_position_moves_on_without_events() {
    let place = Place::new();
    let open = place.open();
    assert_eq!(open.record(EventBatch::new(), 7).await, 1..1);
    open.close().await;
    assert_eq!(place.open().stored.sources["db"].position, Position::from_bytes(&[7]));
}

#[tokio::test]
async fn state_entries_are_replaced_and_removed_with_their_batch() {
    let place = Place::new();
    let open = place.open();
    let with_state = |entries: &[(&str, Option<&[u8]>)]| Record {
        state: entries
            .iter()
            .map(|(key, value)| StateEntry { key: key.to_string(), value: value.map(<[u8]>::to_vec) })
            .collect(),
        ..record(EventBatch::new(), 1)
    };
    open.try_record(with_state(&[("slot", Some(b"a")), ("chunk", Some(b"1"))])).await.unwrap();
    open.try_record(with_state(&[("slot", None), ("chunk", Some(b"2"))])).await.unwrap();
    let expected = [("chunk".to_string(), b"2".to_vec())].into();
    assert_eq!(open.outbox.resume("db").await.unwrap().state, expected);
    open.close().await;
    assert_eq!(place.open().stored.sources["db"].state, expected);
}

#[tokio::test]
async fn records_that_queue_up_become_durable_in_their_order_and_in_fewer_commits() {
    let place = Place::new();
    let mut open = place.open();
    let mut pending = Vec::new();
    for number in 0..200 {
        let record = record(batch([event(A, &number.to_string(), 1)]), number as u8 / 2);
        let permit = open.outbox.reserve(record.events.bytes()).await.unwrap();
        pending.push(open.outbox.record(permit, record));
    }
    for (number, recording) in (0..200).zip(pending) {
        assert_eq!(recording.await.unwrap(), number + 1..number + 2);
    }
    for number in 0..200u64 {
        let Some(News::Recorded { events, released: false }) = open.news.recv().await else { panic!("no record") };
        assert_eq!((events.get(0).seq, events.get(0).id), (number + 1, number.to_string().as_str()));
    }
    let stats = open.outbox.stats();
    assert!(stats.commits < 200, "{} commits", stats.commits);
    assert_eq!(stats.recorded_events, 200);
}

#[tokio::test]
async fn a_position_never_goes_back_and_what_came_behind_it_is_refused_too() {
    let place = Place::new();
    let open = place.open();
    open.record(batch([event(A, "1", 1)]), 5).await;
    let refused = open.try_record(record(batch([event(A, "2", 1)]), 4)).await.unwrap_err();
    assert!(matches!(refused, OutboxError::PositionWentBack { .. }), "{refused}");
    // Recording this one would leave a hole where the refused one was.
    let behind = open.try_record(record(batch([event(A, "3", 1)]), 6)).await.unwrap_err();
    assert_eq!(behind, OutboxError::SourceRefused("db".into()));
    let other = Record { source: "other".into(), ..record(batch([event(A, "4", 1)]), 1) };
    assert_eq!(open.try_record(other).await.unwrap(), 2..3, "other sources go on");

    let resume = open.outbox.resume("db").await.unwrap();
    assert_eq!(resume.position, Position::from_bytes(&[5]));
    open.record(batch([event(A, "3", 1)]), 5).await;
    assert_eq!(open.read_ids(A, 0).await, ["1", "4", "3"]);
}

#[tokio::test]
async fn another_identity_starts_its_own_order() {
    let place = Place::new();
    let open = place.open();
    open.record(EventBatch::new(), 200).await;
    let other = Record { identity: "system-2".into(), ..record(EventBatch::new(), 3) };
    open.try_record(other).await.unwrap();
    let resume = open.outbox.resume("db").await.unwrap();
    assert_eq!((resume.identity.as_deref(), resume.position), (Some("system-2"), Position::from_bytes(&[3])));
}

#[tokio::test]
async fn a_batch_that_cannot_be_recorded_leaves_nothing_and_spares_the_others() {
    let place = Place::new();
    let open = place.open();
    let mut pending = Vec::new();
    for (source, route) in [("x", A), ("db", A), ("db", RouteId(9)), ("db", A), ("y", A)] {
        let events = batch([event(A, source, 1), event(route, source, 1)]);
        let record = Record { source: source.into(), ..record(events, 1) };
        let permit = open.outbox.reserve(1).await.unwrap();
        pending.push(open.outbox.record(permit, record));
    }
    let mut results = Vec::new();
    for recording in pending {
        results.push(recording.await);
    }
    assert_eq!(results[2], Err(OutboxError::UnknownRoute(9)));
    assert_eq!(results[3], Err(OutboxError::SourceRefused("db".into())));
    assert_eq!([&results[0], &results[1], &results[4]], [&Ok(1..3), &Ok(3..5), &Ok(5..7)]);
    assert_eq!(open.read_ids(A, 0).await, ["x", "x", "db", "db", "y", "y"]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn what_is_recorded_is_read_back_identical(events in proptest::collection::vec(
        (
            (any::<bool>(), any::<u64>(), ".{0,40}", ".{0,40}"),
            (".{0,20}", ".{0,60}", proptest::collection::vec(any::<u8>(), 0..40)),
            prop_oneof![proptest::collection::vec(any::<u8>(), 0..300), ".{0,300}".prop_map(String::into_bytes)],
        ), 1..60), cut in 0.0f64..1.0) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let place = Place::new();
            let open = place.open();
            let all = events.iter().map(|((first, key_hash, id, key), (exchange, routing_key, properties), body)| Event {
                seq: 0,
                route: if *first { A } else { B },
                key_hash: *key_hash,
                id, key, exchange, routing_key, properties, body,
                parked: None,
            }).collect::<Vec<_>>();
            let cut = (cut * all.len() as f64) as usize;
            open.record(batch(all[..cut].iter().copied()), 1).await;
            open.record(batch(all[cut..].iter().copied()), 2).await;
            for (bytes_max, restart) in [(usize::MAX, false), (500, true)] {
                let open = if restart { open.outbox.close().await.unwrap(); place.open() } else { another_handle(&open) };
                let mut found = EventBatch::new();
                let mut after = 0;
                while after < all.len() as u64 {
                    let stretch = open.outbox.read(RouteSet::from_iter([A, B]), after, bytes_max).await.unwrap();
                    stretch.events.iter().for_each(|event| found.push(event));
                    assert!(stretch.through > after);
                    after = stretch.through;
                }
                let expected = all.iter().zip(1..).map(|(event, seq)| Event { seq, ..*event }).collect::<Vec<_>>();
                assert_eq!(found.iter().collect::<Vec<_>>(), expected);
            }
        });
    }
}

/// The same outbox under another handle.
fn another_handle(open: &Open) -> Open {
    let (_, news) = mpsc::unbounded_channel();
    Open { outbox: open.outbox.clone(), stored: open.stored.clone(), news }
}
