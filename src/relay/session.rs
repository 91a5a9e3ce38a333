//! An open connection with its channels: what the broker says goes to the shards, what they publish goes to the broker.

use std::hash::RandomState;
use std::time::{Duration, Instant, SystemTime};

use amq_protocol::protocol::{AMQPClass, basic, channel, confirm, connection};

use super::marks::Marks;
use super::poison::{Limits, learnt_body_limit};
use super::shard::{ChannelState, Shard, Taken, Trouble};
use super::status::ConnectionState;
use super::window::Answer;
use super::wire::{Connection, Incoming, method};

/// Frames are collected up to here before the socket gets them; also how far publishing may run ahead of the socket.
const OUT_BYTES_MAX: usize = 256 << 10;

/// What one shard may add before the next one's turn.
const TURN_BYTES: usize = 32 << 10;

/// A channel that we asked to close and that does not, or a connection likewise, is given up.
pub(super) const CLOSE_SECONDS_MAX: u64 = 10;

const CLOSED_BY_US: u16 = 200;

/// Closing a connection with one of these says that it made no sense of what we sent (specification 1.2, hard errors).
const HARD_ERRORS: [u16; 8] = [501, 502, 503, 504, 505, 506, 540, 541];

pub(super) struct Session {
    pub(super) connection: Connection,
    /// `host:port`.
    pub(super) host: String,
    pub(super) since: SystemTime,
    pub(super) opened: Instant,
    pub(super) blocked: Option<(String, SystemTime)>,
    /// While blocked no confirm can come: waiting for one starts again here.
    unblocked_ms: u64,
    suspects_silence: bool,
}

/// The connection is over.
#[derive(Debug)]
pub(super) struct Lost {
    pub(super) reason: String,
    /// The broker closed it over what we sent.
    pub(super) hard: bool,
}

impl Lost {
    pub(super) fn new(reason: impl ToString) -> Lost {
        Lost { reason: reason.to_string(), hard: false }
    }
}

impl Session {
    pub(super) fn new(connection: Connection, host: String) -> Session {
        Session {
            connection,
            host,
            since: SystemTime::now(),
            opened: Instant::now(),
            blocked: None,
            unblocked_ms: 0,
            suspects_silence: false,
        }
    }

    pub(super) fn state(&self) -> ConnectionState {
        let host = self.host.clone();
        match &self.blocked {
            Some((reason, since)) => ConnectionState::Blocked { host, reason: reason.clone(), since: *since },
            None => ConnectionState::Up { host, since: self.since },
        }
    }

    /// Asks for the shard's channel, with confirms on.
    pub(super) fn open_channel(&mut self, shard: &mut Shard) {
        let channel_max = self.connection.tuning.channel_max;
        if shard.channel > channel_max {
            let reason = format!(
                "the broker allows {channel_max} channels per connection, one per route; raise channel_max there, or name fewer routes"
            );
            return shard.fall(Trouble::ChannelClosed { code: 504, reason });
        }
        let out = self.connection.out();
        method(out, shard.channel, AMQPClass::Channel(channel::AMQPMethod::Open(channel::Open {})));
        // Pipelined: a channel handles its methods in order.
        let select = confirm::AMQPMethod::Select(confirm::Select { nowait: false });
        method(out, shard.channel, AMQPClass::Confirm(select));
        shard.channel_state = ChannelState::Opening;
    }

    /// Lets ready shards publish, in turns, until there is enough for one write.
    pub(super) fn publish(
        &mut self,
        shards: &mut [Shard],
        ready: &mut Marks,
        changed: &mut Marks,
        unread: &mut Marks,
        (limits, ids, now_ms): (&Limits, &RandomState, u64),
    ) {
        if self.blocked.is_some() {
            return;
        }
        while self.connection.queued_bytes() < OUT_BYTES_MAX
            && let Some(index) = ready.take()
        {
            let shard = &mut shards[index];
            changed.mark(index);
            let turn_ends = self.connection.queued_bytes() + TURN_BYTES;
            loop {
                match shard.take(self.connection.out(), limits, ids, now_ms) {
                    Taken::Published if self.connection.queued_bytes() < turn_ends => {}
                    Taken::Parked if !shard.parks_are_many() => {}
                    Taken::Published => {
                        ready.mark(index);
                        break;
                    }
                    Taken::Parked | Taken::Nothing => break,
                    Taken::Unread => {
                        unread.mark(index);
                        break;
                    }
                }
            }
            if shard.may_take() && shard.source.wanted().is_some() {
                unread.mark(index); // read ahead
            }
        }
    }

    /// One event of one shard, and only if the broker has answered all others.
    pub(super) fn publish_carefully(
        &mut self,
        shards: &mut [Shard],
        ready: &mut Marks,
        changed: &mut Marks,
        unread: &mut Marks,
        (limits, ids, now_ms): (&Limits, &RandomState, u64),
    ) {
        if self.blocked.is_some() || shards.iter().any(|shard| shard.window.unanswered() > 0) {
            return;
        }
        while let Some(index) = ready.take() {
            changed.mark(index);
            match shards[index].take(self.connection.out(), limits, ids, now_ms) {
                Taken::Published => return ready.mark(index),
                Taken::Parked => ready.mark(index),
                Taken::Unread => unread.mark(index),
                Taken::Nothing => {}
            }
        }
    }

    /// Hands every frame that came to its shard.
    pub(super) fn receive(
        &mut self,
        shards: &mut [Shard],
        changed: &mut Marks,
        (limits, ids, now_ms): (&mut Limits, &RandomState, u64),
    ) -> Result<(), Lost> {
        self.suspects_silence = false;
        loop {
            let frame = match self.connection.next_frame() {
                Ok(Some(frame)) => frame,
                Ok(None) => return Ok(()),
                Err(garbled) => return Err(Lost::new(format!("the broker sent {garbled}"))),
            };
            let (number, class) = match frame {
                Incoming::Nothing => continue,
                Incoming::Method(0, class) => {
                    self.on_connection_method(class, now_ms)?;
                    continue;
                }
                Incoming::Header(number, header) => {
                    if let Some(shard) = usize::from(number).checked_sub(1).and_then(|index| shards.get_mut(index)) {
                        shard.return_ends(header.properties.message_id().as_ref().map(|id| id.as_str()), ids);
                        changed.mark(usize::from(number) - 1);
                    }
                    continue;
                }
                Incoming::Method(number, class) => (number, class),
            };
            let index = usize::from(number) - 1;
            let Some(shard) = shards.get_mut(index) else {
                return Err(Lost::new(format!("the broker spoke on channel {number}, which was never opened")));
            };
            changed.mark(index);
            match class {
                AMQPClass::Basic(answer) => on_basic(shard, answer)?,
                AMQPClass::Channel(event) => self.on_channel_method(shard, event, limits),
                AMQPClass::Confirm(_) if shard.channel_state == ChannelState::Opening => {
                    shard.channel_state = ChannelState::Open;
                }
                _ => {}
            }
        }
    }

    fn on_connection_method(&mut self, class: AMQPClass, now_ms: u64) -> Result<(), Lost> {
        let AMQPClass::Connection(event) = class else { return Ok(()) };
        match event {
            connection::AMQPMethod::Close(close) => {
                let ok = connection::AMQPMethod::CloseOk(connection::CloseOk {});
                method(self.connection.out(), 0, AMQPClass::Connection(ok));
                let reason = format!("the broker closed the connection: {} {}", close.reply_code, close.reply_text);
                Err(Lost { reason, hard: HARD_ERRORS.contains(&close.reply_code) })
            }
            connection::AMQPMethod::Blocked(blocked) => {
                tracing::warn!(host = self.host, reason = blocked.reason.as_str(), "the broker takes nothing for now");
                self.blocked = Some((blocked.reason.as_str().to_owned(), SystemTime::now()));
                Ok(())
            }
            connection::AMQPMethod::Unblocked(_) => {
                tracing::info!(host = self.host, "the broker takes messages again");
                self.blocked = None;
                self.unblocked_ms = now_ms;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn on_channel_method(&mut self, shard: &mut Shard, event: channel::AMQPMethod, limits: &mut Limits) {
        match event {
            channel::AMQPMethod::Close(close) => {
                let ok = channel::AMQPMethod::CloseOk(channel::CloseOk {});
                method(self.connection.out(), shard.channel, AMQPClass::Channel(ok));
                let reason = close.reply_text.as_str().to_owned();
                match learnt_body_limit(close.reply_code, &reason) {
                    Some(0) => shard.condemn_if_alone(format!("the broker refused it: {reason}")),
                    Some(limit) => limits.body_bytes_max = limits.body_bytes_max.min(limit),
                    None => {}
                }
                shard.channel_lost(Some(Trouble::ChannelClosed { code: close.reply_code, reason }));
            }
            channel::AMQPMethod::CloseOk(_) if matches!(shard.channel_state, ChannelState::Closing(_)) => {
                shard.channel_lost(None);
            }
            // RabbitMQ never sends it; the specification wants an answer.
            channel::AMQPMethod::Flow(flow) => {
                let ok = channel::AMQPMethod::FlowOk(channel::FlowOk { active: flow.active });
                method(self.connection.out(), shard.channel, AMQPClass::Channel(ok));
            }
            _ => {}
        }
    }

    /// Heartbeats, silence, and confirms that do not come.
    pub(super) fn tick(
        &mut self,
        shards: &mut [Shard],
        changed: &mut Marks,
        confirm_timeout: Duration,
        now_ms: u64,
    ) -> Result<(), Lost> {
        let now = Instant::now();
        if self.connection.is_silent(now) {
            // Twice in a row: had this process been asleep, what came meanwhile would be read in between.
            if self.suspects_silence {
                let silence = self.connection.silence_max().as_secs();
                return Err(Lost::new(format!("the broker was silent for {silence} s, twice the heartbeat")));
            }
            self.suspects_silence = true;
        }
        self.connection.keep_alive(now);
        if self.blocked.is_some() {
            return Ok(());
        }
        for (index, shard) in shards.iter_mut().enumerate() {
            match shard.channel_state {
                ChannelState::Closing(since) if now - since > Duration::from_secs(CLOSE_SECONDS_MAX) => {
                    return Err(Lost::new(format!("the broker did not close a channel within {CLOSE_SECONDS_MAX} s")));
                }
                ChannelState::Open => {
                    let sent = shard.window.oldest_unanswered_ms().map(|sent_ms| sent_ms.max(self.unblocked_ms));
                    if sent.is_some_and(|sent_ms| now_ms > sent_ms + confirm_timeout.as_millis() as u64) {
                        self.close_channel(shard, now, "a confirm is overdue");
                        shard.fall(Trouble::Unconfirmed);
                        changed.mark(index);
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Another one is opened when the broker has closed it. Only this route's: a connection that is dead shows by its silence.
    fn close_channel(&mut self, shard: &mut Shard, now: Instant, why: &str) {
        let close = channel::Close { reply_code: CLOSED_BY_US, reply_text: why.into(), class_id: 0, method_id: 0 };
        method(self.connection.out(), shard.channel, AMQPClass::Channel(channel::AMQPMethod::Close(close)));
        shard.channel_state = ChannelState::Closing(now);
    }

    /// A channel of RabbitMQ remembers that a quorum queue was full, and is not told when the queue's limit is lifted: it would
    /// go on refusing for good.
    pub(super) fn renew_channel(&mut self, shard: &mut Shard, now: Instant) {
        // A broker that blocks us would not answer.
        if shard.channel_state == ChannelState::Open && self.blocked.is_none() {
            self.close_channel(shard, now, "its events were refused");
        }
    }

    /// Says goodbye, and waits for the answer, both within a bound.
    pub(super) async fn close(mut self) {
        let close =
            connection::Close { reply_code: CLOSED_BY_US, reply_text: "stopped".into(), class_id: 0, method_id: 0 };
        method(self.connection.out(), 0, AMQPClass::Connection(connection::AMQPMethod::Close(close)));
        let goodbye = async {
            loop {
                match self.connection.next_frame() {
                    Ok(Some(Incoming::Method(0, AMQPClass::Connection(connection::AMQPMethod::CloseOk(_)))))
                    | Err(_) => break,
                    Ok(Some(_)) => {}
                    Ok(None) => {
                        if self.connection.turn().await.is_err() {
                            break;
                        }
                    }
                }
            }
        };
        // A broker that blocks us does not read it.
        _ = tokio::time::timeout(Duration::from_secs(1), goodbye).await;
    }

    /// Sends what is queued (the answer to the broker's goodbye), within a bound.
    pub(super) async fn flush(mut self) {
        let flush = async { while self.connection.queued_bytes() > 0 && self.connection.turn().await.is_ok() {} };
        _ = tokio::time::timeout(Duration::from_secs(1), flush).await;
    }
}

fn on_basic(shard: &mut Shard, answer: basic::AMQPMethod) -> Result<(), Lost> {
    let answered = match answer {
        basic::AMQPMethod::Ack(ack) => shard.answered(ack.delivery_tag, ack.multiple, Answer::Ack),
        basic::AMQPMethod::Nack(nack) => shard.answered(nack.delivery_tag, nack.multiple, Answer::Nack),
        basic::AMQPMethod::Return(returned) => {
            let reason = returned.reply_text.as_str();
            shard.return_begins(returned.exchange.as_str(), returned.routing_key.as_str(), reason);
            Ok(())
        }
        _ => Ok(()),
    };
    answered
        .map_err(|tag| Lost::new(format!("the broker confirmed message {} of a channel, which was never sent", tag.0)))
}
