//! Seeded rounds in which the way to the broker breaks again and again.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::json;
use towpath::relay::RelayStatus;
use towpath_test_support::{Delivery, Proxy, RabbitMq};

use crate::outbox::{MemoryOutbox, Rig, WITHIN, config, draft, plain_routes};

/// Longer than no time at all: on loopback confirms are back before anything can break.
const ALWAYS: Duration = Duration::from_millis(10);

/// xorshift: the seed alone decides.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

fn published_again(rig: &Rig) -> u64 {
    rig.status.borrow().routes.iter().map(|route| route.redelivered).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_happens_to_the_way_nothing_is_lost_and_no_key_overtakes_itself() {
    let seed = std::env::var("TOWPATH_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(20_261_123);
    println!("TOWPATH_SEED={seed}");
    let mut dice = Dice(seed);
    let rabbit = RabbitMq::shared().await;
    rabbit.declare_queue_of_everything("q").await;
    let proxy = Proxy::start(rabbit.port());
    proxy.delay(ALWAYS);
    let config = config(&rabbit.url_through(proxy.port()), json!({ "window": 50, "confirm_timeout": "2s" }));
    let (outbox, feed) = MemoryOutbox::new();
    let mut rig = Rig::on(outbox.clone(), feed, &config, plain_routes(3));
    let mut inbox = rabbit.inbox("q");
    let mut redelivered = 0;
    for _ in 0..15 {
        for _ in 0..=dice.below(6) {
            let count = 1 + dice.below(200);
            outbox.record((0..count).map(|_| {
                let mut event = draft(1 + dice.below(3) as u16, dice.below(5), "k");
                event.body = vec![b'b'; 1 + dice.below(3000) as usize];
                event
            }));
        }
        // Strike while something is under way, if anything is.
        let under_way = |status: &RelayStatus| status.routes.iter().any(|route| route.in_flight > 0);
        let _ = tokio::time::timeout(Duration::from_secs(2), rig.status.wait_for(under_way)).await;
        match dice.below(8) {
            0 | 5 => proxy.cut(),
            1 | 6 => proxy.reset(),
            2 => proxy.delay(ALWAYS + Duration::from_millis(dice.below(50))),
            3 => proxy.throttle(100_000 + dice.below(5_000_000)),
            4 => {
                proxy.half_open();
                inbox.pump().await;
                proxy.cut();
                proxy.heal();
                proxy.delay(ALWAYS);
            }
            _ => {
                redelivered += published_again(&rig);
                rig.relay.stop().await;
                let feed = outbox.feed_again();
                rig = Rig::on(outbox.clone(), feed, &config, plain_routes(3));
            }
        }
        inbox.pump().await;
    }
    proxy.heal();
    let last = outbox.record((1..=3).map(|route| draft(route, 9, "k")));
    for route in 1..=3 {
        outbox.until_settled(route, last - 3 + u64::from(route)).await;
    }
    let seq_of = |delivery: &Delivery| delivery.message_id.strip_prefix("id-").unwrap().parse::<u64>().unwrap();
    let all = |received: &[Delivery]| {
        let mut seqs: Vec<u64> = received.iter().map(seq_of).collect();
        seqs.sort();
        seqs.dedup();
        if seqs.len() as u64 == last { Ok(()) } else { Err((seqs.len(), last)) }
    };
    inbox.until("every event", WITHIN, all).await;
    // A consumer that forgets duplicates of the newest event it saw of a key, and takes the rest as it comes, must never end
    // behind: after each event, all later ones of its key come (again).
    let mut last_of_key: BTreeMap<(u16, u64), u64> = BTreeMap::new();
    let mut bodies: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
    let places: BTreeMap<u64, (u16, u64)> = outbox.places();
    for delivery in inbox.received() {
        let seq = seq_of(delivery);
        last_of_key.insert(places[&seq], seq);
        assert_eq!(
            bodies.entry(seq).or_insert_with(|| delivery.body.clone()),
            &delivery.body,
            "a duplicate has the same bytes"
        );
    }
    let mut newest: BTreeMap<(u16, u64), u64> = BTreeMap::new();
    for (seq, place) in &places {
        newest.insert(*place, *seq);
    }
    assert_eq!(last_of_key, newest);
    let duplicates = inbox.received().len() as u64 - last;
    redelivered += published_again(&rig);
    println!("{last} events, {redelivered} published again, {duplicates} received again");
    assert!(redelivered > 0, "nothing was under way when the way broke: this round shows nothing");
    rig.relay.stop().await;
}
