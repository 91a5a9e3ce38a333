//! The good days: order, settling, large bodies, topology, restarts.

use std::collections::BTreeMap;

use serde_json::json;
use towpath::relay::{ConnectionState, RouteState};
use towpath_test_support::{Delivery, QueueKind, RabbitMq};

use crate::outbox::{MemoryOutbox, Rig, WITHIN, config, draft, plain_routes};

fn ids(deliveries: &[Delivery]) -> Vec<&str> {
    deliveries.iter().map(|delivery| delivery.message_id.as_str()).collect()
}

#[tokio::test]
async fn events_arrive_in_order_and_are_settled() {
    let rabbit = RabbitMq::shared().await;
    let declare = json!({ "queues": { "q": { "bind": ["#"] } } });
    let mut rig = Rig::start(&config(&rabbit.url(), json!({ "declare": declare, "window": 100 })), plain_routes(3));
    let mut last = 0;
    for batch in 0..30 {
        last = rig.outbox.record((0..99).map(|n| draft(1 + n % 3, u64::from(n % 7), &format!("a.b{batch}"))));
    }
    for route in 1..=3 {
        rig.outbox.until_settled(route, last - 3 + u64::from(route)).await;
    }
    let mut inbox = rabbit.inbox("q");
    let received = inbox.until_count(2970, WITHIN).await;
    let mut seqs: BTreeMap<usize, Vec<u64>> = BTreeMap::new();
    for id in ids(received) {
        let seq: u64 = id.strip_prefix("id-").unwrap().parse().unwrap();
        seqs.entry((seq as usize - 1) % 3).or_default().push(seq);
    }
    assert_eq!(received.len(), 2970);
    for seqs in seqs.values() {
        assert!(seqs.is_sorted_by(|a, b| a < b), "a route's events are in order");
    }
    let status =
        rig.until("all idle", |status| status.routes.iter().all(|route| route.state == RouteState::Idle)).await;
    for route in &status.routes {
        assert_eq!(
            (route.published, route.confirmed, route.redelivered, route.in_flight),
            (990, 990, 0, 0),
            "{route:?}"
        );
    }
    assert!(matches!(status.connection, ConnectionState::Up { .. }));
    assert_eq!(status.topology, [] as [String; 0]);
    rig.relay.stop().await;
    assert_eq!(rig.status.borrow().connection, ConnectionState::Stopped);
}

#[tokio::test]
async fn large_bodies_arrive_whole_and_are_split_over_frames() {
    let rabbit = RabbitMq::shared().await;
    rabbit.declare_queue_of_everything("q").await;
    let rig = Rig::start(&config(&rabbit.url(), json!({})), plain_routes(1));
    let piece = 131_072 - 8;
    let lengths = [1, piece - 1, piece, piece + 1, 3 * piece, 5_000_000, 2];
    let body = |length: usize| (0..length).map(|n| (n * 31 % 251) as u8).collect::<Vec<u8>>();
    let last = rig.outbox.record(lengths.iter().map(|length| {
        let mut event = draft(1, 1, "k");
        event.body = body(*length);
        event
    }));
    rig.outbox.until_settled(1, last).await;
    let mut inbox = rabbit.inbox("q");
    let received = inbox.until_count(lengths.len(), WITHIN).await;
    for (delivery, length) in received.iter().zip(lengths) {
        assert!(delivery.body == body(length), "{length} bytes came as {}", delivery.body.len());
    }
    rig.relay.stop().await;
}

#[tokio::test]
async fn after_a_restart_the_outbox_is_read_from_where_it_was_settled() {
    let rabbit = RabbitMq::shared().await;
    rabbit.declare_queue_of_everything("q").await;
    let config = config(&rabbit.url(), json!({}));
    let (outbox, feed) = MemoryOutbox::new();
    let first = outbox.record((0..5000).map(|n| draft(1 + (n % 2) as u16, n, "k")));
    drop(feed);
    let feed = outbox.feed_again();
    let mut rig = Rig::on(outbox.clone(), feed, &config, plain_routes(2));
    rig.until_route(1, "behind", |state| *state == RouteState::Behind).await;
    outbox.until_settled(1, first - 1).await;
    outbox.until_settled(2, first).await;
    rig.relay.stop().await;

    let second = outbox.record((0..100).map(|n| draft(1, n, "k")));
    let feed = outbox.feed_again();
    let rig = Rig::on(outbox.clone(), feed, &config, plain_routes(2));
    let third = outbox.record((0..100).map(|n| draft(1, n, "k")));
    outbox.until_settled(1, third).await;
    assert!(second < third);
    let mut inbox = rabbit.inbox("q");
    let received = inbox.until_count(5200, WITHIN).await;
    assert_eq!(received.len(), 5200, "nothing was published twice");
    rig.relay.stop().await;
}

#[tokio::test]
async fn a_backlog_beyond_memory_is_read_back_and_nothing_is_skipped() {
    let rabbit = RabbitMq::shared().await;
    rabbit.declare_queue_of_everything("q").await;
    let (outbox, feed) = MemoryOutbox::new();
    let rig = Rig::on(outbox.clone(), feed, &config(&rabbit.url(), json!({ "window": 50 })), plain_routes(2));
    // 40 MB at once: five times what is kept in memory.
    let mut last = 0;
    for _ in 0..40 {
        last = outbox.record((0..100).map(|n| {
            let mut event = draft(1 + (n % 2) as u16, n, "k");
            event.body = vec![b'x'; 10_000];
            event
        }));
    }
    outbox.until_settled(2, last).await;
    outbox.until_settled(1, last - 1).await;
    assert!(outbox.reads() > 0);
    let mut inbox = rabbit.inbox("q");
    assert_eq!(inbox.until_count(4000, WITHIN).await.len(), 4000);
    rig.relay.stop().await;
}

#[tokio::test]
async fn stopping_settles_what_is_confirmed_and_a_second_start_goes_on_there() {
    let rabbit = RabbitMq::shared().await;
    rabbit.declare_queue_of_everything("q").await;
    let config = config(&rabbit.url(), json!({}));
    let (outbox, feed) = MemoryOutbox::new();
    let rig = Rig::on(outbox.clone(), feed, &config, plain_routes(1));
    outbox.record((0..2000).map(|n| draft(1, n, "k")));
    outbox.until_settled(1, 1).await;
    rig.relay.stop().await;
    let settled = outbox.settled(1);
    let feed = outbox.feed_again();
    let rig = Rig::on(outbox.clone(), feed, &config, plain_routes(1));
    outbox.until_settled(1, 2000).await;
    rig.relay.stop().await;
    let mut inbox = rabbit.inbox("q");
    let received = inbox.until_count(2000, WITHIN).await;
    assert_eq!(received.len(), 2000, "stopped at {settled}: what was confirmed is not published again");
}

#[tokio::test]
async fn exchanges_queues_and_bindings_are_declared_and_a_mismatch_is_shown() {
    let rabbit = RabbitMq::shared().await;
    rabbit.declare_exchange("taken").await;
    rabbit.declare_queue("classic", QueueKind::Classic).await;
    let declare = json!({
        "exchanges": { "towpath": {}, "other": { "type": "fanout" }, "taken": { "type": "direct" } },
        "queues": { "q": { "bind": ["k.#", "x"] }, "classic": {}, "lost": { "bind": ["#"], "exchange": "nowhere" } },
    });
    let mut routes = plain_routes(2);
    routes[1].exchanges = vec!["absent".into()];
    let mut rig = Rig::start(&config(&rabbit.url(), json!({ "declare": declare })), routes);
    let last = rig.outbox.record([draft(1, 1, "k.a"), draft(1, 1, "x")]);
    rig.outbox.until_settled(1, last).await;
    let mut inbox = rabbit.inbox("q");
    assert_eq!(ids(inbox.until_count(2, WITHIN).await), ["id-1", "id-2"]);
    let status = rig.until("topology", |status| !status.topology.is_empty()).await;
    let expected = ["exchange `taken`", "exchange `absent`", "queue `classic`", "queue `lost`"];
    assert_eq!(status.topology.len(), expected.len(), "{:#?}", status.topology);
    for (finding, start) in status.topology.iter().zip(expected) {
        assert!(finding.starts_with(start) && finding.contains("the broker says: 40"), "{finding}");
    }
    rig.relay.stop().await;
}

#[tokio::test]
async fn many_routes_share_the_connection_and_each_gets_its_turn() {
    let rabbit = RabbitMq::shared().await;
    rabbit.declare_queue_of_everything("q").await;
    let rig = Rig::start(&config(&rabbit.url(), json!({})), plain_routes(40));
    // One route has far more to say than the others, and said it before.
    rig.outbox.record((0..20_000).map(|n| draft(1, n, "k")));
    let last = rig.outbox.record((2..=40).map(|route| draft(route, 1, "k")));
    for route in 2..=40 {
        rig.outbox.until_settled(route, last - 40 + u64::from(route)).await;
    }
    assert!(rig.outbox.settled(1) < 20_000, "the busy route still has something to say");
    rig.outbox.until_settled(1, 20_000).await;
    rig.relay.stop().await;
}

#[tokio::test]
async fn a_route_with_several_shards_keeps_the_order_of_each_key() {
    let rabbit = RabbitMq::shared().await;
    rabbit.declare_queue_of_everything("q").await;
    let (outbox, feed) = MemoryOutbox::new();
    let first = outbox.record((0..3000).map(|n| draft(1, n % 7, "k")));
    drop(feed);
    let mut routes = plain_routes(1);
    routes[0].settled = vec![0; 4];
    let mut rig = Rig::on(outbox.clone(), outbox.feed_again(), &config(&rabbit.url(), json!({})), routes);
    let last = outbox.record((0..3000).map(|n| draft(1, 4 * n, "k")));
    assert!(first < last);
    let mut inbox = rabbit.inbox("q");
    let received = inbox.until_count(6000, WITHIN).await;
    let mut of_key: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
    for id in ids(received) {
        let seq: u64 = id.strip_prefix("id-").unwrap().parse().unwrap();
        of_key.entry(if seq <= first { (seq - 1) % 7 } else { 7 }).or_default().push(seq);
    }
    assert!(of_key.values().all(|seqs| seqs.is_sorted_by(|a, b| a < b)));
    rig.until_route(1, "idle", |state| *state == RouteState::Idle).await;
    rig.relay.stop().await;
    for shard in 0..4 {
        assert_eq!(outbox.settled_of(1, shard), last, "shard {shard} is moved along");
    }
}

#[tokio::test]
async fn cursors_of_idle_routes_move_along_when_the_relay_stops() {
    let rabbit = RabbitMq::shared().await;
    rabbit.declare_queue_of_everything("q").await;
    let mut rig = Rig::start(&config(&rabbit.url(), json!({})), plain_routes(2));
    let last = rig.outbox.record((0..50).map(|n| draft(1, n, "k")));
    rig.outbox.until_settled(1, last).await;
    rig.until("both idle", |status| status.routes.iter().all(|route| route.state == RouteState::Idle)).await;
    rig.relay.stop().await;
    assert_eq!(rig.outbox.settled(2), last);
}
