//! Against a scripted broker, for what a real one cannot be made to do: confirms withheld, reordered, or of what was never sent;
//! returns beside the confirm of another message; a connection that breaks over one event.

mod broker;

use serde_json::json;
use towpath::relay::{ConnectionState, RouteSetup, RouteState};

use crate::outbox::{Rig, config, draft, plain_routes, routes};
use broker::{Broker, Published};
use towpath::config::model::{AfterParked, Unroutable};

/// Without exchanges to verify: nobody but the relay connects.
fn quiet(mut routes: Vec<RouteSetup>) -> Vec<RouteSetup> {
    routes.iter_mut().for_each(|route| route.exchanges.clear());
    routes
}

fn ids(published: &[Published]) -> Vec<&str> {
    published.iter().map(|published| published.id.as_str()).collect()
}

#[tokio::test]
async fn confirms_in_any_order_settle_the_contiguous_prefix_and_no_more() {
    let mut broker = Broker::start();
    let rig = Rig::start(&config(&broker.url(), json!({})), quiet(plain_routes(1)));
    rig.outbox.record((1..=6).map(|n| draft(1, n, "k")));
    let sent = broker.published(6).await;
    assert_eq!(ids(&sent), ["id-1", "id-2", "id-3", "id-4", "id-5", "id-6"]);
    assert!(sent.iter().all(|published| published.mandatory));
    for tag in [3, 5, 2] {
        broker.ack(1, tag, false);
    }
    broker.ack(1, 1, false);
    rig.outbox.until_settled(1, 3).await;
    assert_eq!(rig.outbox.settled(1), 3);
    broker.ack(1, 6, true);
    rig.outbox.until_settled(1, 6).await;
    assert_eq!(rig.route(1).redelivered, 0);
    rig.relay.stop().await;
}

#[tokio::test]
async fn a_return_vetoes_the_message_that_it_names_whatever_confirm_stands_beside_it() {
    let mut broker = Broker::start();
    let mut rig = Rig::start(&config(&broker.url(), json!({})), quiet(plain_routes(1)));
    rig.outbox.record((1..=4).map(|n| draft(1, n, "k")));
    broker.published(4).await;
    // The confirm of the returned message itself came long before; that of another comes right after the return.
    broker.ack(1, 3, false);
    broker.returned(1, Some("id-3"));
    broker.ack(1, 1, false);
    broker.ack(1, 4, true);
    rig.until_route(1, "unroutable", |state| matches!(state, RouteState::Unroutable { .. })).await;
    assert_eq!(rig.outbox.settled(1), 2);
    // It begins again with that one, alone; tags go on counting.
    let probe = broker.published(1).await;
    assert_eq!((ids(&probe), probe[0].tag), (vec!["id-3"], 5));
    broker.returned(1, Some("id-3"));
    broker.ack(1, 5, false);
    let probe = broker.published(1).await;
    assert_eq!((ids(&probe), probe[0].tag), (vec!["id-3"], 6));
    broker.ack(1, 6, false);
    rig.outbox.until_settled(1, 3).await;
    assert_eq!(ids(&broker.published(1).await), ["id-4"]);
    broker.ack(1, 7, false);
    rig.outbox.until_settled(1, 4).await;
    rig.relay.stop().await;
}

#[tokio::test]
async fn a_return_without_a_name_vetoes_everything_that_is_not_settled() {
    let mut broker = Broker::start();
    let mut rig = Rig::start(&config(&broker.url(), json!({})), quiet(plain_routes(1)));
    rig.outbox.record((1..=3).map(|n| draft(1, n, "k")));
    broker.published(3).await;
    broker.ack(1, 1, false);
    rig.outbox.until_settled(1, 1).await;
    broker.returned(1, None);
    broker.ack(1, 3, true);
    rig.until_route(1, "unroutable", |state| matches!(state, RouteState::Unroutable { .. })).await;
    assert_eq!(ids(&broker.published(1).await), ["id-2"]);
    broker.ack(1, 4, false);
    assert_eq!(ids(&broker.published(1).await), ["id-3"]);
    broker.ack(1, 5, false);
    rig.outbox.until_settled(1, 3).await;
    rig.relay.stop().await;
}

#[tokio::test]
async fn a_confirm_that_never_comes_gives_up_its_channel_and_no_other() {
    let mut broker = Broker::start();
    let mut rig = Rig::start(&config(&broker.url(), json!({ "confirm_timeout": "300ms" })), quiet(plain_routes(2)));
    rig.outbox.record([draft(1, 1, "k"), draft(1, 1, "k"), draft(1, 1, "k")]);
    broker.published(3).await;
    broker.ack(1, 1, false);
    broker.ack(1, 3, false);
    let stuck = rig.until_route(1, "unconfirmed", |state| matches!(state, RouteState::Unconfirmed { .. })).await;
    assert_eq!(stuck.next_seq, 2);
    broker.channel_closed(1).await;
    let other = rig.outbox.record([draft(2, 1, "k")]);
    let sent = broker.published(2).await;
    // The new channel begins with the first unsettled event, alone, and counts from 1.
    let again = sent.iter().find(|published| published.channel == 1).unwrap();
    assert_eq!((again.id.as_str(), again.tag), ("id-2", 1));
    let beside = sent.iter().find(|published| published.channel == 2).unwrap();
    assert_eq!((beside.id.as_str(), beside.tag, beside.connection), ("id-4", 1, 1));
    broker.ack(2, 1, false);
    broker.ack(1, 1, false);
    rig.outbox.until_settled(2, other).await;
    assert_eq!(ids(&broker.published(1).await), ["id-3"]);
    broker.ack(1, 2, false);
    rig.outbox.until_settled(1, 3).await;
    assert_eq!(rig.route(1).redelivered, 2);
    rig.relay.stop().await;
}

#[tokio::test]
async fn a_nack_drains_the_window_before_its_event_is_published_again() {
    let mut broker = Broker::start();
    let mut rig = Rig::start(&config(&broker.url(), json!({ "window": 5 })), quiet(plain_routes(1)));
    rig.outbox.record((1..=8).map(|n| draft(1, 7, &format!("k{n}"))));
    broker.published(5).await;
    broker.nack(1, 2, false);
    broker.ack(1, 1, false);
    broker.ack(1, 5, false);
    broker.ack(1, 4, false);
    rig.outbox.until_settled(1, 1).await;
    assert!(!rig.route(1).state.is_stopped(), "event 3 is not answered: the window is not drained");
    broker.ack(1, 3, false);
    rig.until_route(1, "nacked", |state| matches!(state, RouteState::Nacked { .. })).await;
    // On a channel that is opened anew: the old one may never hear that the queue takes events again.
    let again = broker.published(1).await;
    assert_eq!((ids(&again), again[0].tag), (vec!["id-2"], 1));
    broker.ack(1, 1, false);
    assert_eq!(ids(&broker.published(2).await), ["id-3", "id-4"]);
    broker.ack(1, 3, true);
    assert_eq!(ids(&broker.published(4).await), ["id-5", "id-6", "id-7", "id-8"]);
    broker.ack(1, 0, true);
    rig.outbox.until_settled(1, 8).await;
    rig.relay.stop().await;
}

#[tokio::test]
async fn a_confirm_of_what_was_never_sent_ends_a_connection_that_makes_no_sense() {
    let mut broker = Broker::start();
    let mut rig = Rig::start(&config(&broker.url(), json!({})), quiet(plain_routes(1)));
    rig.outbox.record([draft(1, 1, "k")]);
    broker.published(1).await;
    broker.ack(1, 2, false);
    let again = broker.published(1).await;
    assert_eq!((again[0].connection, again[0].tag), (2, 1));
    assert_eq!(rig.outbox.settled(1), 0);
    broker.ack(1, 1, false);
    rig.outbox.until_settled(1, 1).await;
    rig.until("up", |status| matches!(status.connection, ConnectionState::Up { .. })).await;
    rig.relay.stop().await;
}

#[tokio::test]
async fn an_event_over_which_the_connection_breaks_is_found_alone_and_parked() {
    let mut broker = Broker::start();
    let policies = [(Unroutable::Stop, AfterParked::Pass), (Unroutable::Stop, AfterParked::Pass)];
    let rig = Rig::start(&config(&broker.url(), json!({})), quiet(routes(&policies)));
    rig.outbox.record([draft(1, 1, "k"), draft(2, 1, "k"), draft(1, 1, "poison"), draft(2, 1, "k"), draft(1, 1, "k")]);
    // Breaks whenever it is sent that event, however many others are under way; confirms the rest when they are alone.
    broker.published(5).await;
    broker.break_connection(501, "FRAME_ERROR");
    let mut seen = Vec::new();
    while rig.outbox.parked().is_empty() {
        let Some(published) = broker.try_published().await else { continue };
        match published.routing_key.as_str() {
            "poison" => broker.break_connection(501, "FRAME_ERROR"),
            _ => broker.ack(published.channel, published.tag, false),
        }
        seen.push(published.id);
    }
    assert_eq!(seen.iter().filter(|id| *id == "id-3").count(), 2, "alone once may be chance: {seen:?}");
    assert_eq!(rig.outbox.parked()[0].0, 3);
    assert!(rig.outbox.parked()[0].1.as_ref().unwrap().contains("501 FRAME_ERROR"));
    while rig.outbox.settled(1) < 5 || rig.outbox.settled(2) < 4 {
        match broker.try_published().await {
            Some(published) => broker.ack(published.channel, published.tag, false),
            None => tokio::task::yield_now().await,
        }
    }
    rig.relay.stop().await;
}

#[tokio::test]
async fn a_url_may_leave_the_login_to_the_certificate() {
    let mut broker = Broker::start();
    for (query, expected) in [("", ("PLAIN", "\0us er\0p:w")), ("?auth_mechanism=external", ("EXTERNAL", ""))] {
        let url = broker.url().replace("amqp://", "amqp://us%20er:p%3Aw@") + "/%2F" + query;
        let rig = Rig::start(&config(&url, json!({})), quiet(plain_routes(1)));
        let (mechanism, response) = broker.login().await;
        assert_eq!((mechanism.as_str(), response.as_str()), expected);
        rig.relay.stop().await;
    }
}

#[tokio::test]
async fn a_broker_that_reads_nothing_more_is_still_heard() {
    let mut broker = Broker::start();
    let mut rig = Rig::start(&config(&broker.url(), json!({ "confirm_timeout": "800ms" })), quiet(plain_routes(1)));
    let mut large = draft(1, 1, "k");
    large.body = vec![b'x'; 1_000_000];
    rig.until("up", |status| matches!(status.connection, ConnectionState::Up { .. })).await;
    broker.read_nothing(true);
    let last = rig.outbox.record(std::iter::repeat_n(large, 20));
    broker.say_blocked("low on memory");
    rig.until(
        "blocked",
        |status| matches!(&status.connection, ConnectionState::Blocked { reason, .. } if reason == "low on memory"),
    )
    .await;
    // Longer than a confirm may take: while blocked none can come, and none is missed.
    broker.heartbeats(3).await;
    assert!(matches!(rig.status.borrow().connection, ConnectionState::Blocked { .. }));
    broker.read_nothing(false);
    broker.say_unblocked();
    while rig.outbox.settled(1) < last {
        match broker.try_published().await {
            Some(published) => broker.ack(published.channel, published.tag, false),
            None => tokio::task::yield_now().await,
        }
    }
    assert_eq!(rig.route(1).redelivered, 0);
    rig.relay.stop().await;
}
