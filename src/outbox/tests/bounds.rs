//! Retention, the bound on size, the bound on age.

use std::future::Future;

use super::super::State;
use super::*;

const MIB: u64 = 1 << 20;

#[tokio::test]
async fn settled_events_are_kept_for_their_time_and_no_longer() {
    let place = Place { retain: Duration::from_millis(300), ..Place::new() };
    let open = place.open();
    open.record(many(A, "old", 10_000, 10), 1).await;
    open.outbox.settle(A, 0, 10_000);
    open.stats(|stats| stats.routes[0].unsettled.events == 0).await;
    assert_eq!(open.read_ids(A, 0).await.len(), 10_000, "kept for replay");
    open.stats(|stats| stats.pruned_events == 10_000).await;
    assert_eq!(open.read_ids(A, 0).await.len(), 0);
    open.record(many(A, "new", 1, 10), 1).await;
    assert_eq!(open.read_ids(A, 0).await, ["new-0"], "unsettled ones are never pruned");
}

#[tokio::test]
async fn a_route_that_stands_still_does_not_keep_the_events_of_others() {
    let place = Place { retain: Duration::ZERO, ..Place::new() };
    let open = place.open();
    for round in 0..5 {
        open.record(many(A, &format!("a{round}"), 1000, 10), 1).await;
        open.record(many(B, &format!("b{round}"), 1000, 10), 1).await;
    }
    open.outbox.settle(B, 0, 10_000);
    open.stats(|stats| stats.pruned_events == 5_000).await;
    assert_eq!(open.read_ids(A, 0).await.len(), 5_000);
    assert_eq!(open.read_ids(B, 0).await.len(), 0);

    open.outbox.settle(A, 0, 3_000);
    open.stats(|stats| stats.pruned_events == 7_000).await;
    open.outbox.settle(A, 0, 10_000);
    open.stats(|stats| stats.pruned_events == 10_000).await;
    assert_eq!(place.count("SELECT count(*) FROM event"), 0);
}

#[tokio::test]
async fn sources_wait_while_unsettled_events_fill_it_and_go_on_by_themselves() {
    let place = Place { max_size: 16 * MIB, ..Place::new() };
    let open = place.open();
    // One transaction of the source, far larger than the outbox, in parts.
    let writer = {
        let outbox = open.outbox.clone();
        tokio::spawn(async move {
            for part in 0..40 {
                let events = many(A, &format!("{part}"), 1000, 1000);
                let permit = outbox.reserve(events.bytes()).await.unwrap();
                outbox.record(permit, record(events, part)).await.unwrap();
            }
        })
    };
    let mut state = open.outbox.watch_state();
    let full = state.wait_for(|state| matches!(state, State::Full { .. })).await.unwrap().to_string();
    assert!(full.contains("of 16 MiB"), "{full}");
    let mut stats = open.outbox.watch_stats();
    let mut settled = 0;
    loop {
        let now = stats.borrow_and_update().clone();
        assert!(now.file_bytes + now.wal_bytes <= 16 * MIB, "{now:?}");
        if now.recorded_events == 40_000 {
            break;
        }
        if settled < now.last_seq {
            settled = (settled + 2000).min(now.last_seq);
            open.outbox.settle(A, 0, settled);
        }
        stats.changed().await.unwrap();
    }
    writer.await.unwrap();
    assert!(open.outbox.stats().pruned_events > 20_000, "settled ones made room, long before their time");
}

#[tokio::test]
async fn a_batch_larger_than_the_room_in_memory_passes_alone() {
    let place = Place { max_size: 64 * MIB, ..Place::new() };
    let open = place.open();
    let events = many(A, "huge", 10, 2 << 20);
    assert!(events.bytes() > Limits::new(&place.config()).in_flight_bytes);
    open.record(events, 1).await;
    let permit = open.outbox.reserve(usize::MAX).await.unwrap();
    let mut second = std::pin::pin!(open.outbox.reserve(1));
    assert!(futures_pending(&mut second).await, "nothing else while it is in flight");
    drop(permit);
    second.await.unwrap();
}

async fn futures_pending<F: Future>(future: &mut std::pin::Pin<&mut F>) -> bool {
    std::future::poll_fn(|context| std::task::Poll::Ready(future.as_mut().poll(context).is_pending())).await
}

#[tokio::test]
async fn sources_wait_while_the_oldest_unsettled_event_is_too_old() {
    let place = Place { max_age: Some(Duration::from_millis(200)), ..Place::new() };
    let open = place.open();
    open.record(many(A, "a", 10, 10), 1).await;
    let mut state = open.outbox.watch_state();
    state.wait_for(|state| matches!(state, State::TooOld { .. })).await.unwrap();
    let mut waiting = std::pin::pin!(open.outbox.reserve(1));
    assert!(futures_pending(&mut waiting).await);
    open.outbox.settle(A, 0, 10);
    waiting.await.unwrap();
    assert_eq!(open.outbox.state(), State::Ok);
}

#[tokio::test]
async fn space_of_pruned_events_is_used_again() {
    let place = Place { retain: Duration::ZERO, ..Place::new() };
    let open = place.open();
    let mut largest = 0;
    for round in 1..=20u64 {
        open.record(many(A, &format!("{round}"), 2000, 1000), 1).await;
        open.outbox.settle(A, 0, round * 2000);
        let stats = open.stats(|stats| stats.pruned_events == round * 2000).await;
        if round == 4 {
            largest = stats.file_bytes;
        }
        assert!(round < 4 || stats.file_bytes <= largest * 2, "{stats:?}");
    }
}
