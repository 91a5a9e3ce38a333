//! The bad days: unroutable, refused, blocked, cut off.

use serde_json::json;
use towpath::relay::{ConnectionState, RouteState};
use towpath_test_support::{Proxy, QueueKind, RabbitMq, eventually};

use crate::outbox::{Rig, WITHIN, config, draft, plain_routes};

#[tokio::test]
async fn a_return_vetoes_the_confirm_stops_its_route_alone_and_a_binding_heals_it() {
    let rabbit = RabbitMq::shared().await;
    rabbit.declare_exchange("towpath").await;
    rabbit.declare_queue("q", QueueKind::Quorum).await;
    rabbit.bind("q", "towpath", "good.#").await;
    let mut rig = Rig::start(&config(&rabbit.url(), json!({})), plain_routes(2));
    let bad = rig.outbox.record((0..50).map(|n| draft(1, n, if n == 20 { "bad.key" } else { "good.key" })));
    let good = rig.outbox.record((0..500).map(|n| draft(2, n, "good.key")));
    rig.outbox.until_settled(2, good).await;
    let stopped = rig.until_route(1, "unroutable", |state| matches!(state, RouteState::Unroutable { .. })).await;
    let RouteState::Unroutable { exchange, routing_key, .. } = &stopped.state else { unreachable!() };
    assert_eq!((exchange.as_str(), routing_key.as_str()), ("towpath", "bad.key"));
    assert_eq!((rig.outbox.settled(1), stopped.next_seq), (20, 21));
    // It is tried again and again, alone, and other routes are not disturbed.
    rig.until("tried again", |status| status.routes[0].returned >= 3).await;
    assert_eq!(rig.outbox.settled(1), 20);
    let more = rig.outbox.record((0..100).map(|n| draft(2, n, "good.key")));
    rig.outbox.until_settled(2, more).await;

    rabbit.bind("q", "towpath", "bad.#").await;
    rig.outbox.until_settled(1, bad).await;
    rig.until_route(1, "idle", |state| *state == RouteState::Idle).await;
    let mut inbox = rabbit.inbox("q");
    let all = |received: &[towpath_test_support::Delivery]| {
        let mut ids: Vec<&str> = received.iter().map(|delivery| delivery.message_id.as_str()).collect();
        ids.sort();
        ids.dedup();
        if ids.len() == 650 { Ok(()) } else { Err(ids.len()) }
    };
    inbox.until("650 distinct events", WITHIN, all).await;
    rig.relay.stop().await;
}

#[tokio::test]
async fn a_missing_exchange_closes_its_own_channel_only_and_heals_when_it_appears() {
    let rabbit = RabbitMq::shared().await;
    rabbit.declare_queue_of_everything("q").await;
    let mut rig = Rig::start(&config(&rabbit.url(), json!({})), plain_routes(2));
    let lost = rig.outbox.record((0..10).map(|n| {
        let mut event = draft(1, n, "k");
        event.exchange = "absent".into();
        event
    }));
    let stopped = rig.until_route(1, "channel closed", |state| matches!(state, RouteState::ChannelClosed { .. })).await;
    let RouteState::ChannelClosed { code, reason, .. } = &stopped.state else { unreachable!() };
    assert!(*code == 404 && reason.contains("absent"), "{stopped:?}");
    let good = rig.outbox.record((0..500).map(|n| draft(2, n, "k")));
    rig.outbox.until_settled(2, good).await;
    assert_eq!(rig.outbox.settled(1), 0);
    let since = match rig.status.borrow().connection {
        ConnectionState::Up { since, .. } => since,
        ref other => panic!("{other:?}"),
    };
    rabbit.declare_exchange("absent").await;
    rabbit.bind("q", "absent", "#").await;
    rig.outbox.until_settled(1, lost).await;
    assert!(matches!(rig.status.borrow().connection, ConnectionState::Up { since: now, .. } if now == since));
    rig.relay.stop().await;
}

#[tokio::test]
async fn what_a_full_queue_refuses_is_kept_and_published_when_there_is_room() {
    let rabbit = RabbitMq::shared().await;
    rabbit.declare_exchange("towpath").await;
    rabbit.declare_queue("q", QueueKind::Classic).await;
    rabbit.bind("q", "towpath", "#").await;
    rabbit.set_policy("short", "^q$", r#"{"max-length":10,"overflow":"reject-publish"}"#).await;
    let mut rig = Rig::start(&config(&rabbit.url(), json!({})), plain_routes(1));
    let last = rig.outbox.record((0..200).map(|n| draft(1, n % 5, "k")));
    rig.until_route(1, "nacked", |state| matches!(state, RouteState::Nacked { .. })).await;
    rig.until("refused again, alone", |status| status.routes[0].nacked >= 193).await;
    assert!(rig.outbox.settled(1) < last);
    let mut inbox = rabbit.inbox("q");
    let seen_all = |received: &[towpath_test_support::Delivery]| {
        let last = received.iter().any(|delivery| delivery.message_id == "id-200");
        if last { Ok(()) } else { Err(received.len()) }
    };
    inbox.until("the last event", WITHIN * 2, seen_all).await;
    rig.outbox.until_settled(1, last).await;
    // Per key the last one is last, and none is missing.
    for key in 0..5 {
        let of_key = inbox.received().iter().filter_map(|delivery| {
            let seq: u64 = delivery.message_id.strip_prefix("id-")?.parse().ok()?;
            ((seq - 1) % 5 == key).then_some(seq)
        });
        let mut of_key: Vec<u64> = of_key.collect();
        assert_eq!(of_key.last(), Some(&(196 + key)));
        of_key.sort();
        of_key.dedup();
        assert_eq!(of_key.len(), 40);
    }
    rig.relay.stop().await;
}

#[tokio::test]
async fn a_broker_that_is_blocked_killed_and_stopped_loses_nothing() {
    let mut rabbit = RabbitMq::own().await;
    rabbit.declare_queue_of_everything("q").await;
    let mut rig = Rig::start(&config(&rabbit.url(), json!({})), plain_routes(2));
    let mut last = rig.outbox.record((0..1000).map(|n| draft(1, n, "k")));
    rig.outbox.until_settled(1, last).await;

    rabbit.alarm(true).await;
    let mut blocked = false;
    while !blocked {
        // The broker says so when something is published.
        last = rig.outbox.record((0..100).map(|n| draft(1, n, "k")));
        let seen = rig.status.wait_for(|status| matches!(status.connection, ConnectionState::Blocked { .. }));
        blocked = tokio::time::timeout(std::time::Duration::from_millis(200), seen).await.is_ok();
    }
    let state = rig.status.borrow().connection.clone();
    assert!(matches!(&state, ConnectionState::Blocked { reason, .. } if reason.contains("memory")), "{state:?}");
    rabbit.alarm(false).await;
    rig.until("up again", |status| matches!(status.connection, ConnectionState::Up { .. })).await;
    rig.outbox.until_settled(1, last).await;

    last = rig.outbox.record((0..5000).map(|n| draft(1 + (n % 2) as u16, n, "k")));
    rabbit.kill().await;
    let down = rig.until("connecting", |status| matches!(status.connection, ConnectionState::Connecting { .. })).await;
    let ConnectionState::Connecting { needs_operator, .. } = down.connection else { unreachable!() };
    assert!(!needs_operator);
    last = last.max(rig.outbox.record((0..1000).map(|n| draft(1, n, "k"))));
    rabbit.start_again().await;
    rig.outbox.until_settled(1, last).await;
    rabbit.stop().await;
    last = rig.outbox.record((0..1000).map(|n| draft(2, n, "k")));
    rabbit.start_again().await;
    rig.outbox.until_settled(2, last).await;
    let mut inbox = rabbit.inbox("q");
    let all = |received: &[towpath_test_support::Delivery]| {
        let mut ids: Vec<&str> = received.iter().map(|delivery| delivery.message_id.as_str()).collect();
        ids.sort();
        ids.dedup();
        if ids.len() as u64 == last { Ok(()) } else { Err(ids.len()) }
    };
    inbox.until("every event", WITHIN, all).await;
    rig.relay.stop().await;
}

/// The proxy hears of its commands a moment later.
async fn until_accepting(proxy: &Proxy, expected: bool) {
    eventually("the proxy to open or close its port", WITHIN, async || {
        let accepted = tokio::net::TcpStream::connect(("127.0.0.1", proxy.port())).await.is_ok();
        if accepted == expected { Ok(()) } else { Err(accepted) }
    })
    .await;
}

#[tokio::test]
async fn the_next_host_is_taken_when_one_fails() {
    let rabbit = RabbitMq::shared().await;
    rabbit.declare_queue_of_everything("q").await;
    let (first, second) = (Proxy::start(rabbit.port()), Proxy::start(rabbit.port()));
    first.refuse();
    until_accepting(&first, false).await;
    let urls = json!({ "urls": [rabbit.url_through(first.port()), rabbit.url_through(second.port())] });
    let mut rig = Rig::start(&config("", urls), plain_routes(1));
    let last = rig.outbox.record((0..100).map(|n| draft(1, n, "k")));
    rig.outbox.until_settled(1, last).await;
    let up_at = |status: &towpath::relay::RelayStatus, port: u16| matches!(&status.connection, ConnectionState::Up { host, .. } if host.ends_with(&format!(":{port}")));
    rig.until("up at the second", |status| up_at(status, second.port())).await;
    first.heal();
    until_accepting(&first, true).await;
    second.refuse();
    until_accepting(&second, false).await;
    second.cut();
    let last = rig.outbox.record((0..100).map(|n| draft(1, n, "k")));
    rig.outbox.until_settled(1, last).await;
    rig.until("up at the first", |status| up_at(status, first.port())).await;
    rig.relay.stop().await;
}

#[tokio::test]
async fn a_way_that_swallows_everything_is_noticed_by_its_silence() {
    let rabbit = RabbitMq::shared().await;
    rabbit.declare_queue_of_everything("q").await;
    let proxy = Proxy::start(rabbit.port());
    let mut rig = Rig::start(&config(&rabbit.url_through(proxy.port()), json!({})), plain_routes(1));
    let first = rig.outbox.record((0..100).map(|n| draft(1, n, "k")));
    rig.outbox.until_settled(1, first).await;
    proxy.half_open();
    let last = rig.outbox.record((0..100).map(|n| draft(1, n, "k")));
    let down = rig.until("connecting", |status| matches!(status.connection, ConnectionState::Connecting { .. })).await;
    let ConnectionState::Connecting { reason, .. } = &down.connection else { unreachable!() };
    assert!(reason.as_ref().is_some_and(|reason| reason.contains("silent for 2 s")), "{reason:?}");
    proxy.cut();
    proxy.heal();
    rig.outbox.until_settled(1, last).await;
    rig.relay.stop().await;
}

#[tokio::test]
async fn a_slow_way_is_no_failure() {
    let rabbit = RabbitMq::shared().await;
    rabbit.declare_queue_of_everything("q").await;
    let proxy = Proxy::start(rabbit.port());
    let mut rig = Rig::start(&config(&rabbit.url_through(proxy.port()), json!({})), plain_routes(1));
    rig.until("up", |status| matches!(status.connection, ConnectionState::Up { .. })).await;
    proxy.delay(std::time::Duration::from_millis(300));
    proxy.throttle(1_000_000);
    let last = rig.outbox.record((0..300).map(|n| {
        let mut event = draft(1, n, "k");
        event.body = vec![b'x'; 10_000];
        event
    }));
    rig.outbox.until_settled(1, last).await;
    assert_eq!((proxy.accepted() - 1, rig.route(1).redelivered), (1, 0), "one connection for topology, one to publish");
    rig.relay.stop().await;
}

#[tokio::test]
async fn a_refused_login_and_a_missing_vhost_need_a_person_and_say_what_to_do() {
    let rabbit = RabbitMq::shared().await;
    let url = rabbit.url();
    let wrong_password = url.replace("guest:guest", "guest:geheim");
    let wrong_vhost = url.replace(rabbit.vhost(), "nowhere");
    let empty_vhost = url.replace(rabbit.vhost(), "");
    let cases = [(wrong_password, "its password"), (wrong_vhost, "add_vhost 'nowhere'"), (empty_vhost, "empty name")];
    for (url, way_out) in cases {
        let mut rig = Rig::start(&config(&url, json!({})), plain_routes(1));
        let refused = rig
            .until("refused", |status| {
                matches!(&status.connection, ConnectionState::Connecting { reason: Some(_), .. })
            })
            .await;
        let ConnectionState::Connecting { reason, needs_operator, .. } = refused.connection else { unreachable!() };
        let reason = reason.unwrap();
        assert!(needs_operator && reason.contains(way_out) && !reason.contains("geheim"), "{reason}");
        rig.relay.stop().await;
    }
}

#[tokio::test]
async fn stopping_is_bounded_when_there_is_no_broker() {
    let refused = Proxy::start(1);
    refused.refuse();
    until_accepting(&refused, false).await;
    let rig = Rig::start(&config(&format!("amqp://127.0.0.1:{}", refused.port()), json!({})), plain_routes(1));
    rig.outbox.record([draft(1, 1, "k")]);
    tokio::time::timeout(WITHIN, rig.relay.stop()).await.unwrap();
    assert_eq!(rig.outbox.settled(1), 0);
}
