//! The keys of `rabbitmq`.

use towpath_contract::ByteSize;

use super::{Checker, seconds, url};
use crate::config::model::{BrokerTlsConfig, DeclareConfig, RabbitmqConfig};
use crate::config::path::KeyPath;

/// AMQP 0-9-1, section 4.2.5.3: a name is a short string.
const NAME_BYTES_MAX: usize = 255;

impl Checker<'_> {
    /// `None` when there is no address to go to.
    pub(super) fn broker(&mut self, written: RabbitmqConfig) -> Option<RabbitmqConfig> {
        let path = KeyPath::root().key("rabbitmq");
        let urls = match (&written.url, written.urls.as_slice()) {
            (Some(url), []) => vec![(path.key("url"), url.clone())],
            (Some(_), _) => {
                self.problem(&path.key("urls"), "`url` and `urls` are both given", "keep one of them");
                return None;
            }
            (None, []) => {
                self.problem(&path, "neither `url` nor `urls` is given", "for example `url: ${RABBITMQ_URL}`");
                return None;
            }
            (None, urls) => urls.iter().enumerate().map(|(i, url)| (path.key("urls").index(i), url.clone())).collect(),
        };
        for (path, url) in &urls {
            if let Some(fault) = url::fault(url.reveal(), &["amqp", "amqps"]) {
                self.problem(path, fault, url::FAULT_HELP);
            }
        }
        let encrypted = |url: &str| url::scheme(url) == "amqps";
        let first = encrypted(urls[0].1.reveal());
        if let Some((path, _)) = urls.iter().find(|(_, url)| encrypted(url.reveal()) != first) {
            self.problem(path, "some URLs are encrypted and some are not", "write `amqps://` in all of them");
        }
        self.broker_tls(&path.key("tls"), &written.tls, first);
        self.declare(&path.key("declare"), &written.declare);
        self.at_least(&path.key("heartbeat"), written.heartbeat, seconds(1));
        self.at_least(&path.key("confirm_timeout"), written.confirm_timeout, seconds(1));
        self.at_least(&path.key("max_message_size"), written.max_message_size, ByteSize(1024));
        Some(RabbitmqConfig { url: None, urls: urls.into_iter().map(|(_, url)| url).collect(), ..written })
    }

    fn broker_tls(&mut self, path: &KeyPath, tls: &BrokerTlsConfig, encrypted: bool) {
        self.tls_files(path, tls.ca.as_deref(), tls.certificate.as_deref(), tls.key.as_deref());
        if !encrypted && (tls.ca.is_some() || tls.certificate.is_some() || tls.key.is_some()) {
            self.problem(
                path,
                "these keys have no effect: the URL says `amqp://`, which is plain text",
                "write `amqps://`",
            );
        }
    }

    fn declare(&mut self, path: &KeyPath, declare: &DeclareConfig) {
        let exchanges = declare.exchanges.iter().flatten().map(|(name, _)| ("exchanges", name));
        let queues = declare.queues.keys().map(|name| ("queues", name));
        for (kind, name) in exchanges.chain(queues) {
            let path = path.key(kind).key(name);
            if name.is_empty() || name.len() > NAME_BYTES_MAX {
                self.problem(&path, "a name has 1 to 255 bytes", "see AMQP 0-9-1 on short strings");
            } else if name.starts_with("amq.") {
                let help = "choose another; an exchange of the broker's own needs no declaration";
                self.problem(&path, "names that start with `amq.` belong to the broker", help);
            }
        }
        for (name, queue) in &declare.queues {
            let path = path.key("queues").key(name);
            if !["quorum", "classic", "stream"].contains(&queue.queue_type.as_str()) {
                let found = self.origins.quote(&path.key("type"), &queue.queue_type);
                self.problem(&path.key("type"), format!("found {found}"), "allowed: quorum, classic, stream");
            }
            for (index, pattern) in queue.bind.iter().enumerate() {
                if pattern.len() > NAME_BYTES_MAX {
                    let path = path.key("bind").index(index);
                    self.problem(&path, format!("the pattern has {} bytes", pattern.len()), "at most 255 bytes");
                }
            }
        }
    }
}
