//! A broker that speaks just enough AMQP 0-9-1 and does what the test says.

use std::time::Duration;

use amq_protocol::frame::{AMQPContentHeader, AMQPFrame, gen_frame, parse_frame};
use amq_protocol::protocol::{AMQPClass, basic, channel, confirm, connection};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use crate::outbox::WITHIN;

#[derive(Clone, Debug)]
pub(crate) struct Published {
    /// Counted from 1.
    pub(crate) connection: u32,
    pub(crate) channel: u16,
    /// As a broker counts it: per channel, from 1.
    pub(crate) tag: u64,
    pub(crate) id: String,
    pub(crate) routing_key: String,
    pub(crate) mandatory: bool,
}

#[derive(Debug)]
enum Seen {
    Published(Published),
    Login(String, String),
    ChannelClosed(u16),
    Heartbeat,
}

#[derive(Debug)]
enum Command {
    Send(Vec<AMQPFrame>),
    SendAndClose(Box<AMQPFrame>),
    ReadNothing(bool),
}

pub(crate) struct Broker {
    port: u16,
    commands: mpsc::UnboundedSender<Command>,
    seen: mpsc::UnboundedReceiver<Seen>,
}

impl Broker {
    pub(crate) fn start() -> Broker {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let port = listener.local_addr().unwrap().port();
        let (commands, mut commands_in) = mpsc::unbounded_channel();
        let (seen_out, seen) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            let listener = TcpListener::from_std(listener).unwrap();
            for number in 1.. {
                let Ok((stream, _)) = listener.accept().await else { return };
                let mut link = Link { stream, buffer: Vec::new(), number, seen: seen_out.clone() };
                // An end of the connection, by either side, is the next one's beginning.
                let _ = link.serve(&mut commands_in).await;
            }
        });
        Broker { port, commands, seen }
    }

    pub(crate) fn url(&self) -> String {
        format!("amqp://127.0.0.1:{}", self.port)
    }

    async fn next(&mut self) -> Seen {
        let seen = tokio::time::timeout(WITHIN, self.seen.recv()).await;
        seen.expect("the relay says something").expect("the broker runs")
    }

    /// The next so many messages.
    pub(crate) async fn published(&mut self, count: usize) -> Vec<Published> {
        let mut found = Vec::new();
        while found.len() < count {
            if let Seen::Published(published) = self.next().await {
                found.push(published);
            }
        }
        found
    }

    /// Mechanism and response.
    pub(crate) async fn login(&mut self) -> (String, String) {
        loop {
            if let Seen::Login(mechanism, response) = self.next().await {
                return (mechanism, response);
            }
        }
    }

    /// A message, if one comes soon.
    pub(crate) async fn try_published(&mut self) -> Option<Published> {
        match tokio::time::timeout(Duration::from_millis(20), self.seen.recv()).await {
            Ok(Some(Seen::Published(published))) => Some(published),
            _ => None,
        }
    }

    pub(crate) async fn channel_closed(&mut self, channel: u16) {
        while !matches!(self.next().await, Seen::ChannelClosed(closed) if closed == channel) {}
    }

    /// Sends so many heartbeats of its own, half a second apart.
    pub(crate) async fn heartbeats(&mut self, count: usize) {
        for _ in 0..count {
            while !matches!(self.next().await, Seen::Heartbeat) {}
        }
    }

    fn send(&self, frames: Vec<AMQPFrame>) {
        self.commands.send(Command::Send(frames)).unwrap();
    }

    pub(crate) fn ack(&self, channel: u16, delivery_tag: u64, multiple: bool) {
        let ack = basic::AMQPMethod::Ack(basic::Ack { delivery_tag, multiple });
        self.send(vec![AMQPFrame::Method(channel, AMQPClass::Basic(ack))]);
    }

    pub(crate) fn nack(&self, channel: u16, delivery_tag: u64, multiple: bool) {
        let nack = basic::AMQPMethod::Nack(basic::Nack { delivery_tag, multiple, requeue: false });
        self.send(vec![AMQPFrame::Method(channel, AMQPClass::Basic(nack))]);
    }

    /// Returns a message by its id, or without one; with a body, which nobody needs.
    pub(crate) fn returned(&self, channel: u16, id: Option<&str>) {
        let method = basic::AMQPMethod::Return(basic::Return {
            reply_code: 312,
            reply_text: "NO_ROUTE".into(),
            exchange: "towpath".into(),
            routing_key: "k".into(),
        });
        let properties = basic::AMQPProperties::default();
        let properties = match id {
            Some(id) => properties.with_message_id(id.into()),
            None => properties,
        };
        let header = AMQPContentHeader { class_id: 60, body_size: 4, properties };
        self.send(vec![
            AMQPFrame::Method(channel, AMQPClass::Basic(method)),
            AMQPFrame::Header(channel, header),
            AMQPFrame::Body(channel, b"body".to_vec()),
        ]);
    }

    pub(crate) fn break_connection(&self, reply_code: u16, reply_text: &str) {
        let close = connection::AMQPMethod::Close(connection::Close {
            reply_code,
            reply_text: reply_text.into(),
            class_id: 60,
            method_id: 40,
        });
        self.commands
            .send(Command::SendAndClose(Box::new(AMQPFrame::Method(0, AMQPClass::Connection(close)))))
            .unwrap();
    }

    pub(crate) fn say_blocked(&self, reason: &str) {
        let blocked = connection::AMQPMethod::Blocked(connection::Blocked { reason: reason.into() });
        self.send(vec![AMQPFrame::Method(0, AMQPClass::Connection(blocked))]);
    }

    pub(crate) fn say_unblocked(&self) {
        let unblocked = connection::AMQPMethod::Unblocked(connection::Unblocked {});
        self.send(vec![AMQPFrame::Method(0, AMQPClass::Connection(unblocked))]);
    }

    pub(crate) fn read_nothing(&self, on: bool) {
        self.commands.send(Command::ReadNothing(on)).unwrap();
    }
}

struct Link {
    stream: TcpStream,
    buffer: Vec<u8>,
    number: u32,
    seen: mpsc::UnboundedSender<Seen>,
}

impl Link {
    async fn send(&mut self, frame: &AMQPFrame) -> std::io::Result<()> {
        let bytes = gen_frame(frame)(Vec::new().into()).unwrap().into_inner().0;
        self.stream.write_all(&bytes).await
    }

    async fn method(&mut self, channel: u16, class: AMQPClass) -> std::io::Result<()> {
        self.send(&AMQPFrame::Method(channel, class)).await
    }

    fn frame(&mut self) -> Option<AMQPFrame> {
        let (rest, frame) = parse_frame(&self.buffer[..]).ok()?;
        let used = self.buffer.len() - rest.len();
        self.buffer.drain(..used);
        Some(frame)
    }

    async fn serve(&mut self, commands: &mut mpsc::UnboundedReceiver<Command>) -> std::io::Result<()> {
        let mut greeting = [0; 8];
        self.stream.read_exact(&mut greeting).await?;
        assert_eq!(&greeting, b"AMQP\x00\x00\x09\x01");
        let start = connection::AMQPMethod::Start(connection::Start {
            version_major: 0,
            version_minor: 9,
            server_properties: Default::default(),
            mechanisms: "PLAIN EXTERNAL".into(),
            locales: "en_US".into(),
        });
        self.method(0, AMQPClass::Connection(start)).await?;
        let mut tags = std::collections::BTreeMap::new();
        let mut publishing = None;
        let mut reads = true;
        let mut heartbeat = tokio::time::interval(Duration::from_millis(500));
        loop {
            tokio::select! {
                read = self.stream.read_buf(&mut self.buffer), if reads => if read? == 0 { return Ok(()) },
                _ = heartbeat.tick() => {
                    self.send(&AMQPFrame::Heartbeat).await?;
                    let _ = self.seen.send(Seen::Heartbeat);
                }
                command = commands.recv() => match command {
                    Some(Command::Send(frames)) => for frame in frames {
                        self.send(&frame).await?;
                    },
                    Some(Command::SendAndClose(frame)) => {
                        self.send(&frame).await?;
                        return Ok(());
                    }
                    Some(Command::ReadNothing(on)) => reads = !on,
                    None => return Ok(()),
                },
            }
            while let Some(frame) = self.frame() {
                match frame {
                    AMQPFrame::Method(0, AMQPClass::Connection(method)) => match self.on_connection(method).await? {
                        true => {}
                        false => return Ok(()),
                    },
                    AMQPFrame::Method(number, AMQPClass::Channel(channel::AMQPMethod::Open(_))) => {
                        tags.insert(number, 0);
                        let ok = channel::AMQPMethod::OpenOk(channel::OpenOk {});
                        self.method(number, AMQPClass::Channel(ok)).await?;
                    }
                    AMQPFrame::Method(number, AMQPClass::Channel(channel::AMQPMethod::Close(_))) => {
                        let ok = channel::AMQPMethod::CloseOk(channel::CloseOk {});
                        self.method(number, AMQPClass::Channel(ok)).await?;
                        let _ = self.seen.send(Seen::ChannelClosed(number));
                    }
                    AMQPFrame::Method(number, AMQPClass::Confirm(_)) => {
                        let ok = confirm::AMQPMethod::SelectOk(confirm::SelectOk {});
                        self.method(number, AMQPClass::Confirm(ok)).await?;
                    }
                    AMQPFrame::Method(_, AMQPClass::Basic(basic::AMQPMethod::Publish(publish))) => {
                        publishing = Some(publish);
                    }
                    AMQPFrame::Header(number, header) => {
                        let publish = publishing.take().expect("a header follows its method");
                        let tag = tags.get_mut(&number).expect("the channel is open");
                        *tag += 1;
                        let _ = self.seen.send(Seen::Published(Published {
                            connection: self.number,
                            channel: number,
                            tag: *tag,
                            id: header.properties.message_id().as_ref().map(ToString::to_string).unwrap_or_default(),
                            routing_key: publish.routing_key.to_string(),
                            mandatory: publish.mandatory,
                        }));
                    }
                    _ => {}
                }
            }
        }
    }

    /// Returns whether the connection goes on.
    async fn on_connection(&mut self, method: connection::AMQPMethod) -> std::io::Result<bool> {
        let answer = match method {
            connection::AMQPMethod::StartOk(start) => {
                let _ = self.seen.send(Seen::Login(start.mechanism.to_string(), start.response.to_string()));
                // No wish of its own: the relay's heartbeat counts.
                connection::AMQPMethod::Tune(connection::Tune { channel_max: 100, frame_max: 0, heartbeat: 0 })
            }
            connection::AMQPMethod::Open(_) => connection::AMQPMethod::OpenOk(connection::OpenOk {}),
            connection::AMQPMethod::Close(_) => {
                let ok = connection::AMQPMethod::CloseOk(connection::CloseOk {});
                self.method(0, AMQPClass::Connection(ok)).await?;
                return Ok(false);
            }
            _ => return Ok(true),
        };
        self.method(0, AMQPClass::Connection(answer)).await?;
        Ok(true)
    }
}
