//! What a publisher behind the AMQP proxy is told, and what is in the queue nevertheless.

use std::collections::BTreeSet;
use std::ops::Range;
use std::time::{Duration, Instant};

use futures_util::future::{FutureExt, join_all};
use futures_util::stream::{FuturesUnordered, StreamExt};
use towpath_test_support::lapin::options::BasicPublishOptions;
use towpath_test_support::lapin::{
    BasicProperties, Channel, Confirmation, Connection, ConnectionProperties, PublisherConfirm,
};
use towpath_test_support::{AmqpProxy, Confirms, Proxy, QueueKind, RabbitMq, eventually};

const SOON: Duration = Duration::from_secs(30);
const LONG: usize = 300_000;

/// A broker with a queue `q` of everything, behind the proxy.
async fn rig() -> (RabbitMq, AmqpProxy) {
    let rabbit = RabbitMq::shared().await;
    rabbit.declare_queue_of_everything("q").await;
    let proxy = AmqpProxy::start(rabbit.port());
    (rabbit, proxy)
}

async fn connect(rabbit: &RabbitMq, proxy: &AmqpProxy) -> Connection {
    let url = rabbit.url_through(proxy.port());
    Connection::connect(&url, ConnectionProperties::default()).await.expect("the proxy forwards")
}

async fn publisher(connection: &Connection) -> Channel {
    let channel = connection.create_channel().await.expect("a channel");
    channel.confirm_select(Default::default()).await.expect("confirm mode");
    channel
}

/// Most are short, some are empty, and few take several frames.
fn body(number: u64) -> Vec<u8> {
    let length = match number % 50 {
        0 => 0,
        7 => LONG,
        short => short as usize,
    };
    vec![number as u8; length]
}

fn properties(number: u64) -> BasicProperties {
    BasicProperties::default().with_message_id(id(number).into()).with_content_type("text/plain".into())
}

fn id(number: u64) -> String {
    format!("message {number:06}")
}

fn ids(numbers: Range<u64>) -> BTreeSet<String> {
    numbers.map(id).collect()
}

async fn send(channel: &Channel, exchange: &str, number: u64) -> PublisherConfirm {
    let options = BasicPublishOptions { mandatory: true, ..Default::default() };
    let (key, body) = (format!("key.{number}"), body(number));
    channel
        .basic_publish(exchange.into(), key.into(), options, &body, properties(number))
        .await
        .expect("the channel is open")
}

async fn publish(channel: &Channel, numbers: Range<u64>) -> Vec<(u64, PublisherConfirm)> {
    let mut confirms = Vec::new();
    for number in numbers {
        confirms.push((number, send(channel, "towpath", number).await));
    }
    confirms
}

async fn answers(confirms: Vec<(u64, PublisherConfirm)>) -> Vec<(u64, Confirmation)> {
    let told = join_all(
        confirms.into_iter().map(async |(number, confirm)| (number, confirm.await.expect("the connection lives"))),
    );
    tokio::time::timeout(SOON, told).await.expect("every publish is answered")
}

/// All that was published is in the queue, once.
async fn assert_queued(rabbit: &RabbitMq, numbers: Range<u64>) {
    let mut inbox = rabbit.inbox("q");
    let count = (numbers.end - numbers.start) as usize;
    let received = inbox.until_count(count, SOON).await;
    let bodies: BTreeSet<_> =
        received.iter().map(|delivery| (delivery.message_id.clone(), delivery.body.clone())).collect();
    assert_eq!(received.len(), count);
    assert!(bodies.into_iter().eq(numbers.map(|number| (id(number), body(number)))), "the queue holds something else");
}

#[tokio::test]
async fn an_honest_proxy_tells_what_the_broker_says() {
    let (rabbit, proxy) = rig().await;
    rabbit.declare_exchange("to nowhere").await;
    let channel = publisher(&connect(&rabbit, &proxy).await).await;
    let told = answers(publish(&channel, 0..200).await).await;
    assert!(told.iter().all(|(_, answer)| *answer == Confirmation::Ack(None)));
    assert_eq!((proxy.confirmed(), proxy.returned(), proxy.nacked()), (ids(0..200), 0, 0));
    assert_queued(&rabbit, 0..200).await;

    let answer = send(&channel, "to nowhere", 999).await.await.unwrap();
    assert!(answer.is_ack() && answer.take_message().is_some());
    assert_eq!((proxy.was_confirmed(&id(999)), proxy.returned()), (false, 1));

    rabbit.declare_exchange("to one").await;
    rabbit.declare_queue("one", QueueKind::Classic).await;
    rabbit.bind("one", "to one", "#").await;
    rabbit.set_policy("one", "^one$", r#"{"max-length":1,"overflow":"reject-publish"}"#).await;
    let mut numbers = 1000..;
    eventually("the broker to refuse a message", SOON, async || {
        let number = numbers.next().unwrap();
        let answer = send(&channel, "to one", number).await.await.unwrap();
        assert_eq!(proxy.was_confirmed(&id(number)), answer.is_ack());
        if answer.is_nack() { Ok(()) } else { Err(number) }
    })
    .await;
    assert_eq!((proxy.returned(), proxy.nacked()), (1, 1));
}

#[tokio::test]
async fn delayed_confirms_are_late_by_the_delay_and_not_by_its_sum() {
    let (rabbit, proxy) = rig().await;
    let channel = publisher(&connect(&rabbit, &proxy).await).await;
    let delay = Duration::from_millis(500);
    proxy.confirms(Confirms::Delayed(delay));
    let started = Instant::now();
    let confirms = publish(&channel, 0..100).await.into_iter().map(async |(number, confirm)| {
        assert_eq!(confirm.await.unwrap(), Confirmation::Ack(None));
        (started.elapsed(), number)
    });
    let told = tokio::time::timeout(delay * 50, join_all(confirms)).await.expect("they overlap");
    assert!(told.iter().all(|(after, _)| *after >= delay), "{told:?}");
    assert_eq!(proxy.confirmed(), ids(0..100));
    assert_queued(&rabbit, 0..100).await;
}

/// The answers in the order in which they come, from the moment on in which `mode` is set.
async fn order_under(proxy: &AmqpProxy, mode: Confirms, confirms: Vec<(u64, PublisherConfirm)>) -> Vec<u64> {
    let pending =
        confirms.into_iter().map(async |(number, confirm)| (number, confirm.await.expect("the connection lives")));
    let mut pending: FuturesUnordered<_> = pending.collect();
    assert!(pending.next().now_or_never().is_none(), "none is answered, and from now on all are awaited");
    proxy.confirms(mode);
    let all = async {
        let mut order = Vec::new();
        while let Some((number, answer)) = pending.next().await {
            assert_eq!(answer, Confirmation::Ack(None));
            order.push(number);
        }
        order
    };
    tokio::time::timeout(SOON, all).await.expect("every publish is answered")
}

#[tokio::test]
async fn withheld_confirms_arrive_with_the_next_mode_over_a_connection_that_lived() {
    let (rabbit, proxy) = rig().await;
    // Both sides end a connection on which they hear nothing for 4 s.
    let url = format!("{}?heartbeat=2", rabbit.url_through(proxy.port()));
    let connection = Connection::connect(&url, ConnectionProperties::default()).await.unwrap();
    let channel = publisher(&connection).await;
    proxy.confirms(Confirms::Withheld);
    let mut confirms = publish(&channel, 0..100).await;
    assert_queued(&rabbit, 0..100).await;
    let first = tokio::time::timeout(Duration::from_secs(7), &mut confirms[0].1).await;
    assert!(first.is_err(), "neither an answer nor, without heartbeats, an end: {first:?}");
    connection.create_channel().await.expect("other answers pass");
    assert_eq!(proxy.confirmed(), BTreeSet::new());
    let order = order_under(&proxy, Confirms::Honest, confirms).await;
    assert!(order.into_iter().eq(0..100));
    assert_eq!(proxy.confirmed(), ids(0..100));
}

#[tokio::test]
async fn reordered_confirms_arrive_in_another_order_and_none_is_left() {
    let (rabbit, proxy) = rig().await;
    let channel = publisher(&connect(&rabbit, &proxy).await).await;
    proxy.confirms(Confirms::Withheld);
    let confirms = publish(&channel, 0..500).await;
    assert_queued(&rabbit, 0..500).await;
    let order = order_under(&proxy, Confirms::Reordered { seed: 1 }, confirms).await;
    assert!(!order.is_sorted(), "{order:?}");
    assert_eq!(order.into_iter().collect::<BTreeSet<_>>(), (0..500).collect());
    // One publish at a time, and then traffic that ends.
    for number in 500..510 {
        answers(publish(&channel, number..number + 1).await).await;
    }
    answers(publish(&channel, 510..1000).await).await;
    assert_eq!((proxy.confirmed(), proxy.nacked(), proxy.returned()), (ids(0..1000), 0, 0));
}

#[tokio::test]
async fn a_nacked_share_is_in_the_queue_all_the_same() {
    let (rabbit, proxy) = rig().await;
    let channel = publisher(&connect(&rabbit, &proxy).await).await;
    proxy.confirms(Confirms::Nacked { seed: 1, share: 0.3 });
    let told = answers(publish(&channel, 0..1000).await).await;
    let (acked, nacked): (Vec<_>, Vec<_>) =
        told.into_iter().partition(|(_, answer)| *answer == Confirmation::Ack(None));
    assert!(nacked.iter().all(|(_, answer)| *answer == Confirmation::Nack(None)));
    assert!((200..400).contains(&nacked.len()), "{} nacks", nacked.len());
    assert_eq!((proxy.nacked(), proxy.returned()), (nacked.len() as u64, 0));
    assert_eq!(proxy.confirmed(), acked.into_iter().map(|(number, _)| id(number)).collect());
    assert_queued(&rabbit, 0..1000).await;
}

#[tokio::test]
async fn a_returned_share_comes_back_whole_and_is_in_the_queue_all_the_same() {
    let (rabbit, proxy) = rig().await;
    let channel = publisher(&connect(&rabbit, &proxy).await).await;
    proxy.confirms(Confirms::Returned { seed: 1, share: 0.3 });
    let mut told = answers(publish(&channel, 0..1000).await).await;
    told.extend(answers(publish(&channel, 1000..1001).await).await);
    let (mut kept, mut returned) = (BTreeSet::new(), Vec::new());
    for (number, answer) in told {
        assert!(answer.is_ack());
        match answer.take_message() {
            None => drop(kept.insert(id(number))),
            Some(message) => {
                assert_eq!((message.reply_code, message.reply_text.as_str()), (312, "NO_ROUTE"));
                assert_eq!(
                    (message.exchange.as_str(), message.routing_key.as_str()),
                    ("towpath", &*format!("key.{number}"))
                );
                assert_eq!((&message.properties, &message.data), (&properties(number), &body(number)));
                returned.push(message.data.len());
            }
        }
    }
    assert!((200..400).contains(&returned.len()), "{} returns", returned.len());
    assert!(returned.contains(&0) && returned.contains(&LONG), "no empty body, or none over several frames");
    assert_eq!((proxy.returned(), proxy.nacked()), (returned.len() as u64, 0));
    assert_eq!(proxy.confirmed(), kept);
    assert_queued(&rabbit, 0..1001).await;
}

#[tokio::test]
async fn many_channels_of_several_connections_keep_thousands_outstanding() {
    const EACH: u64 = 1000;
    let (rabbit, proxy) = rig().await;
    let connections = [connect(&rabbit, &proxy).await, connect(&rabbit, &proxy).await];
    let mut channels = Vec::new();
    for number in 0..10 {
        channels.push(publisher(&connections[number % 2]).await);
    }
    let mut nacked = 0;
    for (round, mode) in
        [Confirms::Reordered { seed: 2 }, Confirms::Nacked { seed: 2, share: 0.1 }].into_iter().enumerate()
    {
        proxy.confirms(mode);
        let first = round as u64 * 10 * EACH;
        let streams = channels.iter().zip(0..).map(async |(channel, number)| {
            let first = first + number * EACH;
            publish(channel, first..first + EACH).await
        });
        let told = answers(join_all(streams).await.into_iter().flatten().collect()).await;
        let nacks = told.iter().filter(|(_, answer)| answer.is_nack()).count() as u64;
        assert_eq!(nacks > 0, round == 1);
        nacked += nacks;
    }
    assert_eq!((proxy.nacked(), proxy.confirmed().len() as u64), (nacked, 20 * EACH - nacked));
    assert_queued(&rabbit, 0..20 * EACH).await;
}

#[tokio::test]
async fn what_is_kept_back_ends_with_a_connection_that_a_proxy_behind_cuts() {
    let rabbit = RabbitMq::shared().await;
    rabbit.declare_queue_of_everything("q").await;
    let link = Proxy::start(rabbit.port());
    let proxy = AmqpProxy::start(link.port());
    let channel = publisher(&connect(&rabbit, &proxy).await).await;
    proxy.confirms(Confirms::Withheld);
    let confirms = publish(&channel, 0..20).await;
    assert_queued(&rabbit, 0..20).await;
    link.cut();
    for (_, confirm) in confirms {
        confirm.await.expect_err("the connection is gone");
    }
    proxy.confirms(Confirms::Honest);
    let channel = publisher(&connect(&rabbit, &proxy).await).await;
    answers(publish(&channel, 20..40).await).await;
    assert_eq!((proxy.confirmed(), link.accepted()), (ids(20..40), 2));
}
