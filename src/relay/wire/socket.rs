//! A TCP socket, bare or under TLS, polled for reading and writing by one task.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use rustls::pki_types::ServerName;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use towpath_contract::{Error, ErrorKind, Result};

use super::{Endpoint, TlsSettings};

/// Idle connections are probed by the kernel too: heartbeats cannot be seen to fail while our own task is not running.
const KEEPALIVE: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub(crate) enum Socket {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Socket {
    pub(crate) async fn connect(endpoint: &Endpoint, tls: Option<&TlsSettings>) -> Result<Socket> {
        let operation = || format!("connecting to {}", endpoint.label());
        let retry = |why: io::Error| Error::retry(ErrorKind::Connection, operation(), why);
        let authority = &endpoint.uri.authority;
        let stream = TcpStream::connect((authority.host.as_str(), authority.port)).await.map_err(retry)?;
        stream.set_nodelay(true).map_err(retry)?;
        let keepalive = TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE / 3);
        SockRef::from(&stream).set_tcp_keepalive(&keepalive).map_err(retry)?;
        if !endpoint.is_tls() {
            return Ok(Socket::Plain(stream));
        }
        let tls = tls.ok_or_else(|| Error::bug(operation(), "an amqps URL without TLS settings"))?;
        let name = ServerName::try_from(authority.host.clone())
            .map_err(|why| Error::operator(ErrorKind::Setup, operation(), why))?;
        match TlsConnector::from(tls.config.clone()).connect(name, stream).await {
            Ok(stream) => Ok(Socket::Tls(Box::new(stream))),
            Err(why) => Err(tls_fault(operation(), why)),
        }
    }
}

/// A certificate that is refused, by either side, needs a person; a connection that breaks does not.
fn tls_fault(operation: String, why: io::Error) -> Error {
    match why.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::InvalidCertificate(reason)) => Error::operator(
            ErrorKind::Authentication,
            operation,
            format!("the broker's certificate was refused: {reason}"),
        )
        .with_help(
            "name the PEM file of its authority in rabbitmq.tls.ca, and connect by a name that the certificate holds",
        ),
        Some(reason @ rustls::Error::AlertReceived(_)) => {
            Error::operator(ErrorKind::Authentication, operation, format!("the broker refused TLS: {reason}"))
                .with_help("check rabbitmq.tls.certificate and rabbitmq.tls.key, if it asks for a client certificate")
        }
        Some(reason @ rustls::Error::InvalidMessage(_)) => {
            Error::operator(ErrorKind::Protocol, operation, format!("the port does not speak TLS: {reason}"))
                .with_help("write amqp:// for plain text, or name the broker's TLS port (5671 by default)")
        }
        _ => Error::retry(ErrorKind::Connection, operation, why),
    }
}

impl Socket {
    pub(crate) fn poll_read(&mut self, cx: &mut Context<'_>, space: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut buffer = ReadBuf::new(space);
        let polled = match self {
            Socket::Plain(stream) => Pin::new(stream).poll_read(cx, &mut buffer),
            Socket::Tls(stream) => Pin::new(stream.as_mut()).poll_read(cx, &mut buffer),
        };
        polled.map_ok(|()| buffer.filled().len())
    }

    pub(crate) fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self {
            Socket::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Socket::Tls(stream) => Pin::new(stream.as_mut()).poll_write(cx, bytes),
        }
    }

    pub(crate) fn peer(&self) -> io::Result<std::net::SocketAddr> {
        match self {
            Socket::Plain(stream) => stream.peer_addr(),
            Socket::Tls(stream) => stream.get_ref().0.peer_addr(),
        }
    }

    /// TLS keeps records of its own that the socket had no room for.
    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Socket::Plain(_) => Poll::Ready(Ok(())),
            Socket::Tls(stream) => Pin::new(stream.as_mut()).poll_flush(cx),
        }
    }
}
