//! A small HTTP client for the admin API: plain HTTP/1.1, one request per connection, bounded in time and size.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use serde_json::Value as Json;
use tokio::net::TcpStream;
use tokio::time::timeout;
use towpath_contract::Secret;

use crate::admin::{Refusal, RefusalKind};
use crate::config::model::AdminConfig;

/// Longer than the slowest answer of the admin API.
const ANSWER_SECONDS_MAX: u64 = 15;

/// A page of parked events, or one with its body.
const ANSWER_BYTES_MAX: usize = 16 << 20;

pub(super) struct Client {
    address: SocketAddr,
    token: Option<Secret>,
}

pub(super) enum Fault {
    /// Nobody listens on the address.
    NotRunning,
    Refused(Refusal),
}

impl Client {
    pub(super) fn new(config: &AdminConfig) -> Client {
        let mut address = config.listen;
        // "Any address" is where to listen, not where to go.
        if address.ip().is_unspecified() {
            address.set_ip(match address.ip() {
                IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
                IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
            });
        }
        Client { address, token: config.token.clone() }
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(super) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Fault> {
        self.call(Method::GET, path, None).await
    }

    pub(super) async fn post<T: DeserializeOwned>(&self, path: &str, body: &Json) -> Result<T, Fault> {
        self.call(Method::POST, path, Some(body)).await
    }

    async fn call<T: DeserializeOwned>(&self, method: Method, path: &str, body: Option<&Json>) -> Result<T, Fault> {
        let stream = match timeout(Duration::from_secs(ANSWER_SECONDS_MAX), TcpStream::connect(self.address)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) if error.kind() == std::io::ErrorKind::ConnectionRefused => return Err(Fault::NotRunning),
            Ok(Err(error)) => return Err(self.failed(error)),
            Err(_) => return Err(self.failed("no connection in time")),
        };
        match timeout(Duration::from_secs(ANSWER_SECONDS_MAX), self.exchange(stream, method, path, body)).await {
            Ok(answer) => answer,
            Err(_) => Err(self.failed(format!("no answer within {ANSWER_SECONDS_MAX} s"))),
        }
    }

    async fn exchange<T: DeserializeOwned>(
        &self,
        stream: TcpStream,
        method: Method,
        path: &str,
        body: Option<&Json>,
    ) -> Result<T, Fault> {
        let mut request = Request::builder().method(method).uri(path).header(HOST, self.address.to_string());
        if let Some(token) = &self.token {
            request = request.header(AUTHORIZATION, format!("Bearer {}", token.reveal()));
        }
        if body.is_some() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        let body = body.map(Json::to_string).unwrap_or_default();
        let request = request.body(Full::new(Bytes::from(body))).map_err(|error| self.failed(error))?;
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| self.failed(error))?;
        let answered = async {
            let response = sender.send_request(request).await.map_err(|error| self.failed(error))?;
            let status = response.status();
            let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
            Ok((status, body.map_err(|error| self.failed(error))?.to_bytes()))
        };
        // The connection's own future moves the bytes: both run until the answer is there.
        let (status, body) = tokio::select! {
            answered = answered => answered?,
            Err(error) = connection => return Err(self.failed(error)),
        };
        if status.is_success() {
            return serde_json::from_slice(&body).map_err(|_| self.failed("what answers there is not this towpath"));
        }
        let refusal = serde_json::from_slice::<Json>(&body)
            .ok()
            .and_then(|mut json| serde_json::from_value::<Refusal>(json["error"].take()).ok());
        Err(match refusal {
            Some(refusal) => Fault::Refused(refusal),
            None => self.failed(format!("what answers there is not a towpath (HTTP {})", status.as_u16())),
        })
    }

    fn failed(&self, reason: impl std::fmt::Display) -> Fault {
        let message = format!("asking the towpath on {}: {reason}", self.address);
        Fault::Refused(Refusal::new(RefusalKind::Failed, message))
    }
}

/// A name as one segment of a path (RFC 3986, section 2.3: what need not be escaped).
pub(super) fn segment(name: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    name.bytes().map(|byte| if plain(byte) { (byte as char).to_string() } else { format!("%{byte:02X}") }).collect()
}

#[cfg(test)]
mod tests {
    use super::segment;

    #[test]
    fn a_name_stays_one_segment() {
        assert_eq!(segment("db.public.*"), "db.public.%2A");
        assert_eq!(segment("a/b ü?"), "a%2Fb%20%C3%BC%3F");
    }
}
