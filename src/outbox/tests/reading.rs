//! What the relay reads when it is behind.

use super::*;

#[tokio::test]
async fn a_reading_is_bounded_and_says_how_far_it_looked() {
    let place = Place::new();
    let open = place.open();
    open.record(many(A, "a", 100, 1000), 1).await;
    open.record(many(B, "b", 3, 10), 1).await;

    let both = RouteSet::from_iter([A, B]);
    let first = open.outbox.read(both.clone(), 0, 10_000).await.unwrap();
    assert!((5..15).contains(&first.events.len()), "{}", first.events.len());
    assert_eq!(first.through, first.events.len() as u64);
    let one = open.outbox.read(both, 0, 1).await.unwrap();
    assert_eq!((one.events.len(), one.through), (1, 1), "progress, however small the bound");

    let rare = open.outbox.read(RouteSet::from_iter([B]), 0, 10_000).await.unwrap();
    assert_eq!((rare.events.len(), rare.through), (3, 103));
    let none = open.outbox.read(RouteSet::from_iter([B]), 103, 10_000).await.unwrap();
    assert_eq!((none.events.len(), none.through), (0, 103));
}

#[tokio::test]
async fn settlements_coalesce_and_are_kept_per_shard() {
    let place = Place { shards: 2, ..Place::new() };
    let open = place.open();
    open.record(many(A, "a", 100, 10), 1).await;
    for through in 1..=60 {
        open.outbox.settle(A, 0, through);
    }
    open.outbox.settle(A, 0, 40);
    open.outbox.settle(A, 1, 50);
    open.outbox.settle(RouteId(9), 0, 50);
    open.outbox.settle(A, 9, 50);
    open.outbox.settle(B, 0, 1_000_000);
    let stats = open.stats(|stats| stats.routes[0].unsettled.events == 50).await;
    assert!(stats.commits <= 3, "{} commits for 60 settlements", stats.commits);
    open.close().await;

    let open = place.open();
    assert_eq!(open.stored.routes[0].settled, [60, 50]);
    assert_eq!(open.stored.routes[0].unsettled.events, 50);
    assert_eq!(open.stored.routes[1].settled, [100, 100], "nobody has seen what is not recorded");
}

#[tokio::test]
async fn closing_writes_what_was_settled_last() {
    let place = Place::new();
    let open = place.open();
    open.record(many(A, "a", 10, 10), 1).await;
    open.outbox.settle(A, 0, 7);
    open.close().await;
    assert_eq!(place.open().stored.routes[0].settled, [7]);
}

#[tokio::test]
async fn another_number_of_shards_starts_at_the_least_cursor() {
    let place = Place { shards: 3, ..Place::new() };
    let open = place.open();
    open.record(many(A, "a", 100, 10), 1).await;
    (0..3).for_each(|shard| open.outbox.settle(A, shard, 30 + u64::from(shard)));
    open.close().await;

    let place = Place { shards: 2, ..place };
    let open = place.open();
    assert_eq!(open.stored.routes[0].settled, [30, 30]);
    open.outbox.settle(A, 1, 90);
    open.close().await;
    assert_eq!(place.open().stored.routes[0].settled, [30, 90]);
}

#[tokio::test]
async fn a_route_without_unsettled_events_does_not_start_in_the_past_of_others() {
    let place = Place::new();
    let open = place.open();
    open.record(many(B, "b", 1, 10), 1).await;
    open.outbox.settle(B, 0, 1);
    open.record(many(A, "a", 100, 10), 1).await;
    open.close().await;
    let open = place.open();
    assert_eq!(open.stored.routes[0].settled, [0]);
    assert_eq!(open.stored.routes[1].settled, [101]);
    open.record(many(B, "late", 1, 10), 1).await;
    assert_eq!(open.read_ids(B, 101).await, ["late-0"]);
}

#[tokio::test]
async fn routes_keep_their_numbers_and_forgotten_ones_their_events() {
    let place = Place::new();
    let open = place.open();
    open.record(many(B, "b", 1, 10), 1).await;
    open.close().await;

    let (news, _) = mpsc::unbounded_channel();
    let routes = ["c", "a"].map(|name| RouteSetup { name: name.into(), waits: true }).to_vec();
    let (outbox, stored) = Outbox::open(&place.config(), Setup { routes, shards: 1, news }).unwrap();
    let found = stored.routes.iter().map(|route| (route.id.0, &*route.name, route.configured)).collect::<Vec<_>>();
    assert_eq!(found, [(1, "a", true), (2, "b", false), (3, "c", true)]);
    assert_eq!(stored.routes[1].unsettled.events, 1);
    assert_eq!(stored.routes[2].settled, [1], "nothing of before is its own");
    outbox.close().await.unwrap();
}

#[tokio::test]
async fn a_person_reads_it_with_sqlite_while_it_runs() {
    let place = Place::new();
    let open = place.open();
    open.record(many(A, "a", 3, 10), 1).await;
    open.record(batch([Event { body: br#"{"name":"Zo\u00eb"}"#, ..event(B, "b", 1) }]), 1).await;
    assert_eq!(place.count("SELECT count(*) FROM unsettled WHERE route = 'a'"), 3);
    let name = "CASE WHEN json_valid(body) THEN body ->> 'name' END";
    assert_eq!(place.count(&format!("SELECT count(*) FROM unsettled WHERE {name} = 'Zoë'")), 1);
}
