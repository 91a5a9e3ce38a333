//! The byte stream to a server: TCP, TLS over TCP, or a Unix socket.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_postgres::tls::{ChannelBinding, TlsConnect, TlsStream};
use towpath_contract::{Error, ErrorKind, Result};

use super::watched::Watched;
use crate::{failure, tls};

/// One server, its name already looked up: every session of a capture goes to the same one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Address {
    Tcp { host: String, address: SocketAddr },
    Unix(PathBuf),
}

pub(crate) struct Socket {
    stream: Stream,
    binding: Option<Vec<u8>>,
}

enum Stream {
    Tcp(Watched<TcpStream>),
    Tls(Box<tokio_rustls::client::TlsStream<Watched<TcpStream>>>),
    Unix(Watched<UnixStream>),
}

/// A dead peer is noticed by the kernel after 15 s + 3 × 5 s even where nobody reads.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(15);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);

impl Socket {
    pub(crate) async fn open(
        address: &Address,
        tls: Option<&Arc<rustls::ClientConfig>>,
        operation: &str,
    ) -> Result<Socket> {
        let plain = |stream| Socket { stream, binding: None };
        match address {
            Address::Unix(path) => {
                let stream =
                    UnixStream::connect(path).await.map_err(|error| unreachable(&error, address, operation))?;
                Ok(plain(Stream::Unix(Watched::new(stream))))
            }
            Address::Tcp { host, address: at } => {
                let stream = TcpStream::connect(at).await.map_err(|error| unreachable(&error, address, operation))?;
                tune(&stream).map_err(|error| failure::lost(&error, operation))?;
                match tls {
                    None => Ok(plain(Stream::Tcp(Watched::new(stream)))),
                    Some(config) => secure(stream, host, config.clone(), operation).await,
                }
            }
        }
    }

    /// Takes it out of the reactor's sight until the next read or write: see [`Watched`].
    pub(crate) fn set_aside(&mut self) -> io::Result<()> {
        match &mut self.stream {
            Stream::Tcp(stream) => stream.set_aside(),
            Stream::Tls(stream) => stream.get_mut().0.set_aside(),
            Stream::Unix(stream) => stream.set_aside(),
        }
    }

    /// SCRAM's `tls-server-end-point`; `None` without TLS.
    pub(crate) fn binding(&self) -> Option<&[u8]> {
        self.binding.as_deref()
    }
}

fn tune(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let keepalive = socket2::TcpKeepalive::new().with_time(KEEPALIVE_IDLE).with_interval(KEEPALIVE_INTERVAL);
    socket2::SockRef::from(stream).set_tcp_keepalive(&keepalive)
}

/// SSLRequest, then the handshake (PostgreSQL manual, "SSL Session Encryption").
async fn secure(
    mut stream: TcpStream,
    host: &str,
    config: Arc<rustls::ClientConfig>,
    operation: &str,
) -> Result<Socket> {
    let lost = |error: io::Error| failure::lost(&error, operation);
    let mut request = bytes::BytesMut::new();
    postgres_protocol::message::frontend::ssl_request(&mut request);
    stream.write_all(&request).await.map_err(lost)?;
    // Exactly one byte: more would be bytes that somebody slipped in before the encryption (CVE-2021-23222).
    if stream.read_u8().await.map_err(lost)? != b'S' {
        return Err(Error::operator(ErrorKind::Setup, operation, "the server does not offer TLS").with_help(
            "switch it on there (`ssl = on`), or write `tls: { mode: disable }` where the network is trusted",
        ));
    }
    let name = ServerName::try_from(host.to_owned()).map_err(|_| {
        Error::operator(ErrorKind::Setup, operation, "the host in `url` is not a name that a certificate can carry")
    })?;
    let stream = tokio_rustls::TlsConnector::from(config)
        .connect(name, Watched::new(stream))
        .await
        .map_err(|error| handshake_failed(&error, operation))?;
    let binding = stream
        .get_ref()
        .1
        .peer_certificates()
        .and_then(|chain| chain.first())
        .and_then(|leaf| tls::server_end_point(leaf));
    Ok(Socket { stream: Stream::Tls(Box::new(stream)), binding })
}

fn handshake_failed(error: &io::Error, operation: &str) -> Error {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(cause) => Error::operator(ErrorKind::Setup, operation, format!("the TLS handshake failed: {cause}")).with_help(
            "`tls.ca` names the PEM file of the authority that signed the server's certificate, `tls.certificate` and \
             `tls.key` the client's own; the host in `url` must be one that the certificate names",
        ),
        None => failure::lost(error, operation),
    }
}

fn unreachable(error: &io::Error, address: &Address, operation: &str) -> Error {
    let at = match address {
        Address::Tcp { host, address } => format!("{host}:{}", address.port()),
        Address::Unix(path) => path.display().to_string(),
    };
    let (message, help) = match (error.kind(), address) {
        (io::ErrorKind::ConnectionRefused, _) => (
            format!("{at} refuses connections"),
            "is PostgreSQL running there, and does it listen on that address and port (`listen_addresses`, `port`)?",
        ),
        (io::ErrorKind::NotFound, Address::Unix(_)) => (
            format!("there is no socket {at}"),
            "is PostgreSQL running, and is its `unix_socket_directories` the folder in `url`?",
        ),
        (kind, _) => {
            (format!("{at} cannot be reached ({kind})"), "check the host and port in `url`, and the network in between")
        }
    };
    Error::retry(ErrorKind::Connection, operation, message).with_help(help)
}

impl AsyncRead for Socket {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Stream::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
            Stream::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.stream {
            Stream::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
            Stream::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
            Stream::Unix(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Stream::Tls(stream) => Pin::new(stream).poll_flush(cx),
            Stream::Unix(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

/// Hands a socket whose TLS is settled to tokio-postgres, with the binding for its login.
pub(crate) struct Settled;

impl TlsConnect<Socket> for Settled {
    type Stream = Socket;
    type Error = io::Error;
    type Future = std::future::Ready<io::Result<Socket>>;

    fn connect(self, socket: Socket) -> Self::Future {
        std::future::ready(Ok(socket))
    }
}

impl TlsStream for Socket {
    fn channel_binding(&self) -> ChannelBinding {
        match &self.binding {
            Some(binding) => ChannelBinding::tls_server_end_point(binding.clone()),
            None => ChannelBinding::none(),
        }
    }
}

/// Reads what is there now. `None`: nothing is. Cancel-safe, never waits.
pub(crate) fn read_now<'a>(
    socket: &'a mut Socket,
    space: &'a mut [u8],
) -> impl Future<Output = Option<io::Result<usize>>> + Send + 'a {
    let mut buf = ReadBuf::new(space);
    std::future::poll_fn(move |cx| match Pin::new(&mut *socket).poll_read(cx, &mut buf) {
        Poll::Ready(result) => Poll::Ready(Some(result.map(|()| buf.filled().len()))),
        Poll::Pending => Poll::Ready(None),
    })
}
