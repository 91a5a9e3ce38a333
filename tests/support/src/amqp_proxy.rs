//! A man in the middle between a publisher and RabbitMQ, which falsifies what the broker says about publishes.

mod frames;
mod kept;
mod ledger;
mod link;
mod publishes;
#[cfg(test)]
mod tests;
mod witness;

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::Port;
use crate::proxy::listen;
use witness::Witness;

/// What becomes of the broker's confirms on their way to the client. In all modes the broker has what was published.
///
/// A mode is for what is told from now on: what an earlier one kept back is told at once, as the new one wants it.
/// A broker that speaks of many publishes at once (`multiple`) is passed on as it is by `Honest` alone: all that was kept is
/// told one by one. What happens to a publish follows from the seed, the connection's number, the channel and the delivery
/// tag: the same publishes meet the same fate, and one that is repeated gets another chance.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Confirms {
    /// The broker's own words.
    Honest,
    /// Each arrives this much later. Order and throughput are kept.
    Delayed(Duration),
    /// None arrives until another mode is set. All else passes: heartbeats, answers, returns, messages.
    Withheld,
    /// Told in groups, each in shuffled order over all channels. A group is all that is outstanding on the connection, or what
    /// came within a few milliseconds.
    Reordered { seed: u64 },
    /// This share of the acks, from 0 to 1, is told as `basic.nack`.
    Nacked { seed: u64, share: f64 },
    /// This share of the messages is returned as unroutable before its ack, if it was published in this mode.
    Returned { seed: u64, share: f64 },
}

/// A publish: connection, channel and delivery tag.
type Place = (u64, u16, u64);

impl Confirms {
    fn nacks(self, place: Place) -> bool {
        matches!(self, Confirms::Nacked { seed, share } if falls_within(share, seed, place))
    }

    fn returns(self, place: Place) -> bool {
        matches!(self, Confirms::Returned { seed, share } if falls_within(share, seed, place))
    }
}

/// The chance of a publish: evenly distributed, and always the same.
fn draw(seed: u64, place: Place) -> u64 {
    let mut hasher = DefaultHasher::new();
    (seed, place).hash(&mut hasher);
    hasher.finish()
}

fn falls_within(share: f64, seed: u64, place: Place) -> bool {
    // The 53 bits that a double holds: always below 1.
    ((draw(seed, place) >> 11) as f64) < share * (1_u64 << 53) as f64
}

/// Listens on a port of its own and forwards to a broker, plain AMQP 0-9-1 in both directions. It bears witness to what the
/// clients were told.
///
/// It breaks no link. For that, put a [`Proxy`](crate::Proxy) between it and the broker: connections end here as they end there, and
/// what was kept back ends with them.
#[derive(Debug)]
pub struct AmqpProxy {
    port: Port,
    control: watch::Sender<Control>,
    witness: Arc<Mutex<Witness>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Clone, Copy, Debug)]
struct Control {
    confirms: Confirms,
    stop: bool,
}

impl AmqpProxy {
    /// Forwards to `127.0.0.1:target`, honestly at first.
    ///
    /// # Panics
    /// When no port is free.
    pub fn start(target: u16) -> AmqpProxy {
        let target = SocketAddr::from((Ipv4Addr::LOCALHOST, target));
        let (control, commands) = watch::channel(Control { confirms: Confirms::Honest, stop: false });
        let witness = Arc::default();
        let witness_in = Arc::clone(&witness);
        let (port, thread) = listen("amqp proxy", move |listener| serve(listener, target, commands, witness_in));
        AmqpProxy { port, control, witness, thread: Some(thread) }
    }

    pub fn port(&self) -> u16 {
        self.port.number()
    }

    pub fn confirms(&self, confirms: Confirms) {
        self.control.send_modify(|control| control.confirms = confirms);
    }

    /// The ids of the messages for which an ack without a return was written to a client, on whichever connection. What a
    /// client has read is always among them. Messages without an id are not.
    pub fn confirmed(&self) -> BTreeSet<String> {
        self.witness().confirmed.clone()
    }

    /// Whether [`AmqpProxy::confirmed`] holds this id.
    pub fn was_confirmed(&self, message_id: &str) -> bool {
        self.witness().confirmed.contains(message_id)
    }

    /// Publishes that were answered by a nack, the broker's own included.
    pub fn nacked(&self) -> u64 {
        self.witness().nacked
    }

    /// Messages that were returned, by the broker itself or not.
    pub fn returned(&self) -> u64 {
        self.witness().returned
    }

    fn witness(&self) -> MutexGuard<'_, Witness> {
        self.witness.lock().expect("nobody panics while holding it")
    }
}

impl Drop for AmqpProxy {
    fn drop(&mut self) {
        self.control.send_modify(|control| control.stop = true);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn serve(
    listener: std::net::TcpListener,
    target: SocketAddr,
    mut commands: watch::Receiver<Control>,
    witness: Arc<Mutex<Witness>>,
) {
    let listener = TcpListener::from_std(listener).expect("we are in a runtime");
    let mut number = 0;
    loop {
        let client = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((client, _)) => client,
                Err(_) => continue,
            },
            _ = commands.wait_for(|control| control.stop) => return,
        };
        number += 1;
        let (commands, witness) = (commands.clone(), Arc::clone(&witness));
        tokio::spawn(async move {
            // Without a broker the client finds its connection closed.
            let Ok(broker) = TcpStream::connect(target).await else { return };
            if let Err(why) = link::forward(number, client, broker, commands, &witness).await {
                eprintln!("amqp proxy: connection {number}: {why}");
            }
        });
    }
}
