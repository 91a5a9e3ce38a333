//! From a TCP connection to an open AMQP one: start, tune, open (specification 2.2.4).

use std::time::Duration;

use amq_protocol::protocol::connection::{AMQPMethod, Open, Start, StartOk, Tune, TuneOk};
use amq_protocol::protocol::{AMQPClass, connection};
use amq_protocol::types::{AMQPValue, FieldTable, LongString, ShortString};
use amq_protocol::uri::SASLMechanism;
use towpath_contract::{Error, ErrorKind, Result};

use super::socket::Socket;
use super::{Connection, Endpoint, Incoming, TlsSettings, method};

/// RabbitMQ's own proposal. Larger frames gain nothing, and a peer without a limit would make our buffer grow.
const FRAME_BYTES_MAX: u32 = 131_072;

/// Below this a server may not go (specification 1.1, frame-min-size).
pub(crate) const FRAME_BYTES_MIN: u32 = 4096;

/// For TCP, TLS and AMQP together.
const OPEN_SECONDS_MAX: u64 = 15;

/// What both sides agreed on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tuning {
    /// Bytes, overhead included.
    pub(crate) frame_max: usize,
    pub(crate) channel_max: u16,
    pub(crate) heartbeat: Duration,
}

/// Opens a connection. Dropping the future gives it up.
///
/// # Errors
/// [`towpath_contract::Action::Operator`] for a refused certificate, login or vhost; `Retry` for everything that may pass.
pub(crate) async fn open(endpoint: &Endpoint, tls: Option<&TlsSettings>, heartbeat: Duration) -> Result<Connection> {
    let bound = Duration::from_secs(OPEN_SECONDS_MAX);
    match tokio::time::timeout(bound, open_unbounded(endpoint, tls, heartbeat)).await {
        Ok(opened) => opened,
        Err(_) => {
            let message = format!("no AMQP connection within {OPEN_SECONDS_MAX} s");
            Err(Error::retry(ErrorKind::Timeout, operation(endpoint), message))
        }
    }
}

fn operation(endpoint: &Endpoint) -> String {
    format!("connecting to {}", endpoint.label())
}

async fn open_unbounded(endpoint: &Endpoint, tls: Option<&TlsSettings>, heartbeat: Duration) -> Result<Connection> {
    let socket = Socket::connect(endpoint, tls).await?;
    let first = Tuning { frame_max: FRAME_BYTES_MAX as usize, channel_max: u16::MAX, heartbeat };
    let mut handshake = Handshake { connection: Connection::new(socket, first), endpoint, stage: Stage::Greeting };
    handshake.connection.out().extend_from_slice(b"AMQP\x00\x00\x09\x01");

    let AMQPMethod::Start(start) = handshake.answer().await? else { return Err(handshake.unexpected("start")) };
    let start_ok = handshake.login(&start)?;
    handshake.send(AMQPMethod::StartOk(start_ok));
    handshake.stage = Stage::Login;

    let AMQPMethod::Tune(tune) = handshake.answer().await? else { return Err(handshake.unexpected("tune")) };
    let tuning = agree(&tune, heartbeat);
    handshake.connection.tune(tuning);
    handshake.send(AMQPMethod::TuneOk(TuneOk {
        channel_max: tuning.channel_max,
        frame_max: tuning.frame_max as u32,
        heartbeat: tuning.heartbeat.as_secs() as u16,
    }));
    let vhost = ShortString::try_new(endpoint.uri.vhost.as_str())
        .map_err(|why| Error::operator(ErrorKind::Setup, operation(endpoint), format!("the vhost's name: {why}")))?;
    handshake.send(AMQPMethod::Open(Open { virtual_host: vhost }));
    handshake.stage = Stage::Vhost;

    let AMQPMethod::OpenOk(_) = handshake.answer().await? else { return Err(handshake.unexpected("open-ok")) };
    Ok(handshake.connection)
}

/// 0 is "no limit" on both sides, for frames, channels and heartbeats alike. Heartbeats are never off: without them a dead
/// peer is found when the kernel gives up, minutes later.
fn agree(tune: &Tune, heartbeat: Duration) -> Tuning {
    let ours = u16::try_from(heartbeat.as_secs()).unwrap_or(u16::MAX).max(1);
    let least = |theirs: u16, ours: u16| if theirs == 0 { ours } else { theirs.min(ours) };
    let frame_max = match tune.frame_max {
        0 => FRAME_BYTES_MAX,
        theirs => theirs.clamp(FRAME_BYTES_MIN, FRAME_BYTES_MAX),
    };
    Tuning {
        frame_max: frame_max as usize,
        channel_max: least(tune.channel_max, u16::MAX),
        heartbeat: Duration::from_secs(least(tune.heartbeat, ours).into()),
    }
}

#[derive(Clone, Copy)]
enum Stage {
    Greeting,
    Login,
    Vhost,
}

struct Handshake<'a> {
    connection: Connection,
    endpoint: &'a Endpoint,
    stage: Stage,
}

impl Handshake<'_> {
    fn send(&mut self, method_: AMQPMethod) {
        method(self.connection.out(), 0, AMQPClass::Connection(method_));
    }

    /// The server's next method; a close becomes the error that it stands for.
    async fn answer(&mut self) -> Result<AMQPMethod> {
        let operation = operation(self.endpoint);
        loop {
            match self.connection.next_frame() {
                Ok(Some(Incoming::Method(0, AMQPClass::Connection(AMQPMethod::Close(close))))) => {
                    return Err(self.refusal(&close));
                }
                Ok(Some(Incoming::Method(0, AMQPClass::Connection(answer)))) => return Ok(answer),
                Ok(Some(_)) => {}
                Ok(None) => {
                    if let Err(why) = self.connection.turn().await {
                        let hint = match self.stage {
                            Stage::Greeting => "; does this port speak AMQP, without TLS if the URL says amqp?",
                            Stage::Login | Stage::Vhost => "",
                        };
                        return Err(Error::retry(ErrorKind::Connection, operation, format!("{why}{hint}")));
                    }
                }
                Err(garbled) => {
                    return Err(Error::operator(ErrorKind::Protocol, operation, garbled)
                        .with_help("check host and port: RabbitMQ listens for AMQP on 5672, with TLS on 5671"));
                }
            }
        }
    }

    fn login(&self, start: &Start) -> Result<StartOk> {
        let mechanism = self.endpoint.mechanism();
        let offered = String::from_utf8_lossy(start.mechanisms.as_bytes()).into_owned();
        if !offered.split(' ').any(|name| name == mechanism.name()) {
            let message = format!("the broker offers the login mechanisms {offered}, not {}", mechanism.name());
            return Err(Error::operator(ErrorKind::Authentication, operation(self.endpoint), message)
                .with_help("enable it in the broker, or change `auth_mechanism` in the URL"));
        }
        let user = &self.endpoint.uri.authority.userinfo;
        let response = match mechanism {
            SASLMechanism::Plain => format!("\0{}\0{}", user.username, user.password),
            _ => String::new(),
        };
        Ok(StartOk {
            client_properties: client_properties(),
            mechanism: mechanism.name().into(),
            response: LongString::from(response),
            locale: "en_US".into(),
        })
    }

    /// Codes: specification 1.2 and RabbitMQ's `authentication_failure_close`.
    fn refusal(&self, close: &connection::Close) -> Error {
        let operation = operation(self.endpoint);
        let message = format!("the broker said {} {}", close.reply_code, close.reply_text);
        let user = &self.endpoint.uri.authority.userinfo.username;
        let vhost = &self.endpoint.uri.vhost;
        match (self.stage, close.reply_code) {
            (Stage::Login, 403) => Error::operator(ErrorKind::Authentication, operation, message)
                .with_help(format!("check user `{user}` and its password in rabbitmq.url")),
            (Stage::Vhost, 402 | 403 | 530) => {
                let way_out = match vhost.as_str() {
                    "" => "the URL ends in `/` and so names the vhost with the empty name; leave the `/` out or write `/%2F` \
                           for the default vhost"
                        .to_owned(),
                    _ => format!(
                        "create the vhost or let the user in: rabbitmqctl add_vhost '{vhost}'; \
                         rabbitmqctl set_permissions -p '{vhost}' '{user}' '.*' '.*' '.*'"
                    ),
                };
                Error::operator(ErrorKind::Privilege, operation, message).with_help(way_out)
            }
            _ => Error::retry(ErrorKind::Connection, operation, message),
        }
    }

    fn unexpected(&self, expected: &str) -> Error {
        let message = format!("the broker sent another method where connection.{expected} was due");
        Error::retry(ErrorKind::Protocol, operation(self.endpoint), message)
    }
}

fn client_properties() -> FieldTable {
    let mut capabilities = FieldTable::default();
    for name in ["publisher_confirms", "basic.nack", "connection.blocked", "authentication_failure_close"] {
        capabilities.insert(name.into(), AMQPValue::Boolean(true));
    }
    let mut properties = FieldTable::default();
    properties.insert("capabilities".into(), AMQPValue::FieldTable(capabilities));
    let text = |text: &str| AMQPValue::LongString(text.into());
    properties.insert("product".into(), text("Towpath"));
    properties.insert("version".into(), text(env!("CARGO_PKG_VERSION")));
    properties.insert("platform".into(), text("Rust"));
    properties.insert("connection_name".into(), text("towpath relay"));
    properties
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tune(frame_max: u32, channel_max: u16, heartbeat: u16) -> Tuning {
        agree(&Tune { channel_max, frame_max, heartbeat }, Duration::from_secs(10))
    }

    #[test]
    fn the_lesser_of_both_wishes_counts_and_zero_is_no_wish() {
        let none = tune(0, 0, 0);
        assert_eq!((none.frame_max, none.channel_max, none.heartbeat.as_secs()), (131_072, 65_535, 10));
        let less = tune(8192, 5, 3);
        assert_eq!((less.frame_max, less.channel_max, less.heartbeat.as_secs()), (8192, 5, 3));
        let more = tune(1 << 30, 2047, 60);
        assert_eq!((more.frame_max, more.channel_max, more.heartbeat.as_secs()), (131_072, 2047, 10));
    }
}
