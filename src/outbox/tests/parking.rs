//! Events set aside, and the order of their keys.

use super::super::ParkedKey;
use super::*;

const K: u64 = 7;
const OTHER: u64 = 8;

async fn parked_seqs(open: &Open) -> Vec<(Seq, Option<Seq>)> {
    let parked = open.outbox.parked(None, 0, 100).await.unwrap();
    parked.iter().map(|event| (event.seq, event.waiting_for)).collect()
}

async fn keys(open: &Open, through: Seq) -> Vec<ParkedKey> {
    open.outbox.parked_keys(A, through, usize::MAX).await.unwrap()
}

#[tokio::test]
async fn a_parked_event_is_shown_with_its_reason_and_survives_a_restart() {
    let place = Place { retain: Duration::ZERO, ..Place::new() };
    let open = place.open();
    let routed = Event { parked: Some("column total: NaN has no JSON form"), ..event(B, "second", 3) };
    open.record(batch([event(A, "first", K), routed, event(A, "third", K)]), 1).await;
    open.park(1, "NO_ROUTE for db.public.t.insert").await;
    open.outbox.settle(A, 0, 3);
    open.outbox.settle(B, 0, 3);
    open.stats(|stats| stats.pruned_events == 1).await;
    open.close().await;

    let open = place.open();
    assert_eq!(open.stored.routes.iter().map(|route| route.parked_events).collect::<Vec<_>>(), [1, 1]);
    let listed = open.outbox.parked(None, 0, 10).await.unwrap();
    let found = listed.iter().map(|event| (event.seq, &*event.id, event.reason.as_deref())).collect::<Vec<_>>();
    let reasons = [Some("NO_ROUTE for db.public.t.insert"), Some("column total: NaN has no JSON form")];
    assert_eq!(found, [(1, "first", reasons[0]), (2, "second", reasons[1])]);
    assert_eq!(listed[0].body, None);
    assert_eq!(open.outbox.parked(Some(B), 0, 10).await.unwrap(), listed[1..]);
    assert_eq!(open.outbox.parked(None, 1, 1).await.unwrap(), listed[1..]);
    let one = open.outbox.parked_event(1).await.unwrap().unwrap();
    assert_eq!(one.body.as_deref(), Some(&b"{\"n\":1}"[..]));
    assert_eq!(open.outbox.parked_event(3).await.unwrap(), None);
}

#[tokio::test]
async fn what_waits_goes_out_after_what_it_waited_for() {
    let place = Place::new();
    let mut open = place.open();
    open.record(batch([1, 2, 3, 4].map(|n| event(A, ["", "1", "2", "3", "4"][n], [0, K, OTHER, K, K][n]))), 1).await;
    open.park(1, "too large").await;
    open.outbox.park(3, Parking::Behind).await.unwrap();
    open.outbox.park(4, Parking::Behind).await.unwrap();
    open.outbox.settle(A, 0, 4);
    assert_eq!(parked_seqs(&open).await, [(1, None), (3, Some(1)), (4, Some(1))]);
    assert_eq!(keys(&open, 4).await, [ParkedKey { key_hash: K, parked: 3, released: 0 }]);

    let refused = open.outbox.retry(3).await.unwrap_err();
    assert_eq!(refused, OutboxError::WaitsBehind { seq: 3, behind: 1 });
    assert_eq!(open.outbox.retry(1).await.unwrap().released, 3);
    let stretch = open.outbox.read(RouteSet::from_iter([A]), 4, usize::MAX).await.unwrap();
    let found = stretch.events.iter().map(|event| (event.seq, event.id, event.key_hash)).collect::<Vec<_>>();
    assert_eq!(found, [(5, "1", K), (6, "3", K), (7, "4", K)]);
    assert_eq!(stretch.released, [5, 6, 7]);
    assert_eq!(keys(&open, 4).await, [ParkedKey { key_hash: K, parked: 0, released: 3 }]);
    assert!(matches!(open.news.recv().await, Some(News::Recorded { .. })));
    assert!(matches!(open.news.recv().await, Some(News::Changed { route: A, through: 7 })));

    open.outbox.settle(A, 0, 7);
    open.stats(|stats| stats.routes[0].unsettled.events == 0).await;
    assert_eq!(keys(&open, 7).await, []);
    assert_eq!(place.count("SELECT count(*) FROM released"), 0);
    assert_eq!(open.outbox.retry(1).await.unwrap_err(), OutboxError::NotParked(1));
}

#[tokio::test]
async fn a_retry_stops_at_the_next_event_with_a_reason_of_its_own() {
    let place = Place::new();
    let open = place.open();
    // 3 is parked by its route when recorded, before 1 and 2 are.
    let routed = Event { parked: Some("its own"), ..event(A, "3", K) };
    open.record(batch([event(A, "1", K), event(A, "2", K), routed, event(A, "4", K)]), 1).await;
    open.park(1, "too large").await;
    open.outbox.park(2, Parking::Behind).await.unwrap();
    open.outbox.park(4, Parking::Behind).await.unwrap();
    assert_eq!(parked_seqs(&open).await, [(1, None), (2, Some(1)), (3, Some(1)), (4, Some(3))]);
    assert_eq!(open.outbox.retry(1).await.unwrap().released, 2);
    assert_eq!(parked_seqs(&open).await, [(3, None), (4, Some(3))]);
    let moved = open.outbox.discard(3).await.unwrap();
    assert_eq!((moved.discarded, moved.released), (1, 1));
    assert_eq!(open.read_ids(A, 4).await, ["1", "2", "4"]);
}

#[tokio::test]
async fn discarding_lets_those_behind_move_on() {
    let place = Place::new();
    let open = place.open();
    open.record(batch(["1", "2", "3", "4", "5"].map(|id| event(A, id, K))), 1).await;
    open.park(1, "one").await;
    open.outbox.park(2, Parking::Behind).await.unwrap();
    open.park(3, "three").await;
    open.outbox.park(4, Parking::Behind).await.unwrap();
    open.outbox.park(5, Parking::Behind).await.unwrap();
    let moved = open.outbox.discard(3).await.unwrap();
    assert_eq!((moved.discarded, moved.released), (1, 0));
    assert_eq!(parked_seqs(&open).await, [(1, None), (2, Some(1)), (4, Some(1)), (5, Some(1))]);
    let moved = open.outbox.discard(1).await.unwrap();
    assert_eq!((moved.discarded, moved.released), (1, 3));
    assert_eq!(open.read_ids(A, 5).await, ["2", "4", "5"]);
    assert_eq!(open.outbox.stats().routes[0].parked_events, 0);
}

#[tokio::test]
async fn where_keys_pass_each_parked_event_stands_for_itself() {
    let place = Place::new();
    let open = place.open();
    open.record(batch(["1", "2"].map(|id| event(B, id, K))), 1).await;
    open.park(1, "one").await;
    open.park(2, "two").await;
    assert_eq!(parked_seqs(&open).await, [(1, None), (2, None)]);
    assert_eq!(open.outbox.retry(2).await.unwrap().released, 1);
    assert_eq!(open.outbox.discard(1).await.unwrap().released, 0);
    assert_eq!(open.read_ids(B, 2).await, ["2"]);
}

#[tokio::test]
async fn an_event_that_comes_too_late_to_wait_follows_those_released() {
    let place = Place::new();
    let mut open = place.open();
    open.record(batch(["1", "2"].map(|id| event(A, id, K))), 1).await;
    open.park(1, "one").await;
    open.outbox.retry(1).await.unwrap();
    // The relay does not know yet, and parks the next of the key behind the first.
    open.outbox.park(2, Parking::Behind).await.unwrap();
    assert_eq!(parked_seqs(&open).await, []);
    let mut heard = Vec::new();
    while heard.len() < 3 {
        heard.push(open.news.recv().await.unwrap());
    }
    let News::Recorded { events, released: true } = &heard[2] else { panic!("{heard:?}") };
    assert_eq!((events.len(), events.get(0).seq, events.get(0).id), (1, 4, "2"));
    assert_eq!(open.read_ids(A, 2).await, ["1", "2"]);
    // It may be parked once more, at its old place in the key's order.
    open.park(4, "two").await;
    open.park(3, "one again").await;
    assert_eq!(parked_seqs(&open).await, [(3, None), (4, Some(3))]);
    assert_eq!(open.outbox.retry(3).await.unwrap().released, 1, "the second has a reason of its own");
    assert_eq!(parked_seqs(&open).await, [(4, None)]);
}

#[tokio::test]
async fn one_who_reads_again_meets_parked_events_at_their_place() {
    let place = Place::new();
    let open = place.open();
    open.record(batch(["1", "2", "3"].map(|id| event(A, id, K))), 1).await;
    open.park(2, "two").await;
    let stretch = open.outbox.read(RouteSet::from_iter([A]), 0, usize::MAX).await.unwrap();
    let found = stretch.events.iter().map(|event| (event.seq, event.parked)).collect::<Vec<_>>();
    assert_eq!(found, [(1, None), (2, Some("two")), (3, None)]);
    assert_eq!(keys(&open, 1).await, [], "it comes in the reading");
    assert_eq!(keys(&open, 2).await, [ParkedKey { key_hash: K, parked: 1, released: 0 }]);
    // Parking once more what is parked is no harm: a crash may lie between parking and settling.
    open.park(2, "two").await;
    let unknown = open.outbox.park(9, Parking::Behind).await.unwrap_err();
    assert_eq!(unknown, OutboxError::NoSuchEvent(9));
}

#[tokio::test]
async fn released_events_count_as_unsettled_and_are_never_lost_by_a_restart() {
    let place = Place::new();
    let open = place.open();
    open.record(batch(["1", "2"].map(|id| event(A, id, K))), 1).await;
    open.park(1, "one").await;
    open.outbox.settle(A, 0, 2);
    open.outbox.retry(1).await.unwrap();
    open.close().await;
    let open = place.open();
    assert_eq!(open.stored.routes[0].settled, [2]);
    assert_eq!(open.stored.routes[0].unsettled.events, 1);
    assert_eq!(keys(&open, 2).await, [ParkedKey { key_hash: K, parked: 0, released: 1 }]);
    assert_eq!(open.read_ids(A, 2).await, ["1"]);
}

#[tokio::test]
async fn what_its_route_could_not_make_whole_can_only_be_discarded() {
    let place = Place::new();
    let open = place.open();
    let unfit = Event { parked: Some("event.routing_key has 256 bytes"), routing_key: "", ..event(A, "unfit", K) };
    open.record(batch([unfit, event(A, "next", K)]), 1).await;
    open.outbox.park(2, Parking::Behind).await.unwrap();
    assert_eq!(open.outbox.retry(1).await.unwrap_err(), OutboxError::Unfit(1));
    assert_eq!(parked_seqs(&open).await, [(1, None), (2, Some(1))]);
    let moved = open.outbox.discard(1).await.unwrap();
    assert_eq!((moved.discarded, moved.released), (1, 1));
}
