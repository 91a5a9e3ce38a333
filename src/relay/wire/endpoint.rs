//! Where a broker is, and who we are to it.

use std::fmt;

use amq_protocol::uri::{AMQPScheme, AMQPUri, SASLMechanism};
use towpath_contract::{Error, ErrorKind, Secret};

/// One `amqp://` or `amqps://` URL, as RabbitMQ's URI specification has it. Prints as host and port, never with its password.
#[derive(Clone)]
pub struct Endpoint {
    pub(crate) uri: AMQPUri,
    label: String,
}

impl Endpoint {
    /// # Errors
    /// When the text is no AMQP URL, or asks for a login mechanism other than `plain` (the default) or `external`.
    pub fn parse(url: &Secret) -> Result<Endpoint, Error> {
        let fault = |message: &str| {
            Error::operator(ErrorKind::Setup, "reading a RabbitMQ URL", message).with_help(
                "write amqp://user:password@host:port/vhost, or amqps:// for TLS, with special characters percent-encoded",
            )
        };
        // The parser's own messages may quote the URL, password and all.
        let mut uri: AMQPUri = url.reveal().parse().map_err(|_| fault("it is not an amqp:// or amqps:// URL"))?;
        if let Some(address) = ipv6_literal(url.reveal()) {
            uri.authority.host = address.to_owned();
        }
        match uri.query.auth_mechanism {
            None | Some(SASLMechanism::Plain | SASLMechanism::External) => {}
            Some(other) => {
                let name = other.name();
                return Err(fault(&format!("auth_mechanism is {name}; `plain` and `external` are supported")));
            }
        }
        let host = &uri.authority.host;
        let label = match host.contains(':') {
            true => format!("[{host}]:{}", uri.authority.port),
            false => format!("{host}:{}", uri.authority.port),
        };
        Ok(Endpoint { uri, label })
    }

    /// `host:port`.
    pub fn label(&self) -> &str {
        &self.label
    }

    pub(crate) fn is_tls(&self) -> bool {
        self.uri.scheme == AMQPScheme::AMQPS
    }

    pub(crate) fn mechanism(&self) -> SASLMechanism {
        self.uri.query.auth_mechanism.unwrap_or_default()
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Endpoint").field(&self.label).finish()
    }
}

/// `amq-protocol-uri` takes an address in brackets for no host at all, and goes to localhost.
fn ipv6_literal(url: &str) -> Option<&str> {
    let authority = url.split_once("://")?.1;
    let authority = authority.split(['/', '?', '#']).next()?;
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    Some(host.strip_prefix('[')?.split_once(']')?.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(url: &str) -> Result<Endpoint, Error> {
        Endpoint::parse(&Secret::new(url))
    }

    #[test]
    fn every_part_is_percent_decoded() {
        let endpoint = parse("amqps://us%40er:p%2Fw%3A@broker.example:5679/v%2Fh").unwrap();
        assert_eq!(endpoint.uri.authority.userinfo.username, "us@er");
        assert_eq!(endpoint.uri.authority.userinfo.password, "p/w:");
        assert_eq!(endpoint.uri.vhost, "v/h");
        assert_eq!(endpoint.label(), "broker.example:5679");
        assert!(endpoint.is_tls());
    }

    #[test]
    fn what_is_left_out_is_rabbitmqs_default() {
        let endpoint = parse("amqp://localhost").unwrap();
        assert_eq!((endpoint.uri.vhost.as_str(), endpoint.label()), ("/", "localhost:5672"));
        assert_eq!(parse("amqps://h").unwrap().label(), "h:5671");
    }

    #[test]
    fn an_ipv6_address_is_kept() {
        let endpoint = parse("amqp://u:p@[::1]:5673/%2F").unwrap();
        assert_eq!((endpoint.uri.authority.host.as_str(), endpoint.label()), ("::1", "[::1]:5673"));
    }

    #[test]
    fn neither_an_error_nor_debug_shows_the_password() {
        for url in [
            "http://u:geheim@h",
            "amqp://u:geheim@h:99999999",
            "amqp:u:geheim",
            "amqp://u:geheim@h/?auth_mechanism=amqplain",
        ] {
            let text = parse(url).unwrap_err().to_string();
            assert!(!text.contains("geheim"), "{text}");
        }
        assert!(!format!("{:?}", parse("amqp://u:geheim@h").unwrap()).contains("geheim"));
    }
}
