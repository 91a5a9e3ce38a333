//! Events that are set aside, those of their key behind them, and their way back.

use serde_json::json;
use towpath::config::model::{AfterParked, Unroutable};
use towpath::event::RouteId;
use towpath::relay::{Behind, RouteState};
use towpath_test_support::{Delivery, QueueKind, RabbitMq};

use crate::outbox::{Rig, WITHIN, config, draft, plain_routes, routes};

/// The last occurrence of each event, in order: what a consumer ends up with.
fn last_seen(received: &[Delivery]) -> Vec<u64> {
    let mut seqs: Vec<u64> = Vec::new();
    for delivery in received {
        let seq = delivery.message_id.strip_prefix("id-").unwrap().parse().unwrap();
        seqs.retain(|seen| *seen != seq);
        seqs.push(seq);
    }
    seqs
}

async fn rabbit_with_good_queue() -> RabbitMq {
    let rabbit = RabbitMq::shared().await;
    rabbit.declare_exchange("towpath").await;
    rabbit.declare_queue("q", QueueKind::Quorum).await;
    rabbit.bind("q", "towpath", "good.#").await;
    rabbit
}

#[tokio::test]
async fn an_unroutable_event_is_parked_where_the_route_says_so_and_later_ones_of_its_key_wait() {
    let rabbit = rabbit_with_good_queue().await;
    let policies = [(Unroutable::Park, AfterParked::Wait), (Unroutable::Park, AfterParked::Pass)];
    let mut rig = Rig::start(&config(&rabbit.url(), json!({ "window": 10 })), routes(&policies));
    // Keys 0, 1, 2 in turn; the second event of key 1 has nowhere to go.
    let events = |route| (0..30).map(move |n| draft(route, n % 3, if n == 4 { "bad" } else { "good.k" }));
    let first = rig.outbox.record(events(1));
    rig.outbox.until_settled(1, first).await;
    let behind: Vec<u64> = (7..30).step_by(3).map(|n| n + 1).collect();
    let parked = rig.outbox.parked();
    assert_eq!(parked[0].0, 5);
    let reason = parked[0].1.as_ref().unwrap();
    assert!(reason.contains("NO_ROUTE") && reason.contains("`towpath`") && reason.contains("`bad`"), "{reason}");
    assert_eq!(
        parked[1..].iter().map(|(seq, reason)| (*seq, reason.clone())).collect::<Vec<_>>(),
        behind.iter().map(|seq| (*seq, None)).collect::<Vec<_>>()
    );
    rig.until_route(1, "idle", |state| *state == RouteState::Idle).await;

    // The other route lets the key's later events pass.
    let second = rig.outbox.record(events(2));
    rig.outbox.until_settled(2, second).await;
    assert_eq!(rig.outbox.parked().len(), parked.len() + 1);

    // A binding appears, and a person retries: the key's events come in their order, then new ones.
    rabbit.bind("q", "towpath", "bad").await;
    rig.outbox.release_all();
    let last = rig.outbox.record((0..3).map(|n| draft(1, n, "good.k")));
    rig.outbox.until_settled(1, last).await;
    rig.outbox.until_parked(0).await;
    let mut inbox = rabbit.inbox("q");
    let all = |received: &[Delivery]| {
        let mut seqs = last_seen(received);
        seqs.sort();
        if seqs.len() == 63 { Ok(()) } else { Err(seqs.len()) }
    };
    inbox.until("every event once", WITHIN, all).await;
    let of_key: Vec<u64> = last_seen(inbox.received()).into_iter().filter(|seq| *seq <= 30 && seq % 3 == 2).collect();
    assert!(of_key.is_sorted(), "{of_key:?}");
    assert_eq!(of_key.len(), 10);
    rig.relay.stop().await;
}

#[tokio::test]
async fn poison_is_parked_before_it_is_tried_and_the_rest_goes_on() {
    let rabbit = rabbit_with_good_queue().await;
    let policies = [(Unroutable::Stop, AfterParked::Wait)];
    let limits = json!({ "max_message_size": "1kB" });
    let rig = Rig::start(&config(&rabbit.url(), limits), routes(&policies));
    let good = |key| draft(1, key, "good.k");
    let mut events = vec![good(1)];
    let mut large = good(2);
    large.body = vec![b'x'; 1001];
    let mut long_key = good(3);
    long_key.routing_key = "k".repeat(256);
    let mut long_id = good(4);
    long_id.id = Some("i".repeat(256));
    let mut headers = good(5);
    headers.extra_properties = 140_000;
    events.extend([large, long_key, long_id, headers]);
    events.extend((1..=6).map(good));
    let last = rig.outbox.record(events);
    rig.outbox.until_settled(1, last).await;
    let parked = rig.outbox.parked();
    let reasons: Vec<_> = parked.iter().map(|(seq, reason)| (*seq, reason.as_deref().unwrap_or("waits"))).collect();
    let expected = [
        (2, "1001 bytes"),
        (3, "routing key"),
        (4, "message-id"),
        (5, "frame_max"),
        (7, "waits"),
        (8, "waits"),
        (9, "waits"),
        (10, "waits"),
    ];
    assert_eq!(reasons.len(), expected.len(), "{reasons:?}");
    for ((seq, reason), (expected_seq, word)) in reasons.into_iter().zip(expected) {
        assert!(seq == expected_seq && reason.contains(word), "{seq}: {reason}");
    }
    let mut inbox = rabbit.inbox("q");
    inbox.until_count(3, WITHIN).await;
    assert_eq!(last_seen(inbox.received()), [1, 6, 11]);
    rig.relay.stop().await;
}

#[tokio::test]
async fn after_a_restart_the_events_behind_a_parked_one_still_wait() {
    let rabbit = rabbit_with_good_queue().await;
    let policies = [(Unroutable::Park, AfterParked::Wait)];
    let config = config(&rabbit.url(), json!({}));
    let rig = Rig::start(&config, routes(&policies));
    let first = rig.outbox.record([draft(1, 7, "bad"), draft(1, 8, "good.k")]);
    rig.outbox.until_settled(1, first).await;
    rig.relay.stop().await;
    let outbox = rig.outbox;
    let feed = outbox.feed_again();
    let rig = Rig::on(outbox, feed, &config, routes(&policies));
    let last = rig.outbox.record([draft(1, 7, "good.k"), draft(1, 8, "good.k")]);
    rig.outbox.until_settled(1, last).await;
    assert_eq!(rig.outbox.parked().into_iter().map(|(seq, _)| seq).collect::<Vec<_>>(), [1, 3]);
    let mut inbox = rabbit.inbox("q");
    inbox.until_count(2, WITHIN).await;
    assert_eq!(last_seen(inbox.received()), [2, 4]);
    rig.relay.stop().await;
}

#[tokio::test]
async fn a_body_that_only_the_broker_finds_too_large_is_parked_and_the_limit_is_learnt() {
    let rabbit = RabbitMq::builder().settings("max_message_size = 5000").start().await;
    rabbit.declare_queue_of_everything("q").await;
    let policies = [(Unroutable::Stop, AfterParked::Wait), (Unroutable::Stop, AfterParked::Wait)];
    let mut rig = Rig::start(&config(&rabbit.url(), json!({})), routes(&policies));
    let sized = |route, key, length| {
        let mut event = draft(route, key, "k");
        event.body = vec![b'x'; length];
        event
    };
    let last = rig.outbox.record([sized(1, 1, 5000), sized(1, 2, 5001), sized(1, 3, 10)]);
    rig.outbox.until_settled(1, last).await;
    let other = rig.outbox.record([sized(2, 1, 6000), sized(2, 2, 20)]);
    rig.outbox.until_settled(2, other).await;
    let parked = rig.outbox.parked();
    assert_eq!(parked.iter().map(|(seq, _)| *seq).collect::<Vec<_>>(), [2, 4]);
    assert!(parked.iter().all(|(_, reason)| reason.as_ref().unwrap().contains("limit is 5000")), "{parked:?}");
    rig.until_route(1, "idle", |state| *state == RouteState::Idle).await;
    rig.relay.stop().await;
}

#[tokio::test]
async fn a_route_waits_for_the_older_events_of_a_former_one() {
    let rabbit = RabbitMq::shared().await;
    rabbit.declare_exchange("towpath").await;
    rabbit.declare_queue("q", QueueKind::Quorum).await;
    rabbit.bind("q", "towpath", "good.#").await;
    let mut setup = plain_routes(2);
    // Route 1 was renamed to route 2 after 100 events, which no queue takes for now.
    setup[1].behind = vec![Behind { route: RouteId(1), name: "route1".into(), through: 100 }];
    let mut rig = Rig::start(&config(&rabbit.url(), json!({})), setup);
    rig.outbox.record((0..100).map(|n| draft(1, n % 3, "bad.key")));
    let last = rig.outbox.record((0..100).map(|n| draft(2, n % 3, "good.key")));
    rig.until_route(1, "unroutable", |state| matches!(state, RouteState::Unroutable { .. })).await;
    let held = rig.until_route(2, "held back", |state| matches!(state, RouteState::HeldBack { .. })).await;
    assert!(held.state.is_stopped() && held.state.trouble().unwrap().contains("route1"));
    assert_eq!(rig.outbox.settled(2), 0);
    rabbit.bind("q", "towpath", "bad.#").await;
    rig.outbox.until_settled(2, last).await;
    let mut inbox = rabbit.inbox("q");
    let all = inbox.until_count(200, WITHIN).await;
    let ids: Vec<u64> = all.iter().map(|event| event.message_id.trim_start_matches("id-").parse().unwrap()).collect();
    let first_new = ids.iter().position(|id| *id > 100).unwrap();
    let old: std::collections::BTreeSet<u64> = ids[..first_new].iter().copied().collect();
    assert_eq!(old.len(), 100, "every old one came before the first new one");
    rig.relay.stop().await;
}
