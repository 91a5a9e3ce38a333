//! The second stage: what one key cannot know alone. Collects everything that is wrong.

mod broker;
mod files;
mod files_source;
mod postgres;
mod routes;
mod templates;
mod url;

use towpath_contract::{ByteSize, Span};

use super::checked::{Checked, CheckedSource, Places};
use super::load::Purpose;
use super::model::{AdminConfig, Config, OutboxConfig, SourceConfig};
use super::origin::Origins;
use super::path::KeyPath;
use super::problem::Problem;

pub use routes::place_fault;

/// The smallest outbox, in bytes. Below it, one batch of each source and SQLite's own pages would not fit.
pub(super) const OUTBOX_BYTES_MIN: u64 = 16 << 20;

/// The longest name of a source.
const SOURCE_NAME_BYTES_MAX: usize = 40;

pub(super) fn check(written: Config, origins: &Origins, purpose: Purpose) -> Result<Checked, Vec<Problem>> {
    let mut checker = Checker { origins, problems: Vec::new(), warnings: Vec::new() };
    let sources = checker.sources(&written);
    let routes = checker.routes(&written.routes, &sources);
    checker.bundles_fit(&written.routes, written.rabbitmq.max_message_size);
    checker.outbox(&written.outbox, purpose);
    let broker = checker.broker(written.rabbitmq);
    checker.admin(&written.admin);
    match (checker.problems.is_empty(), broker) {
        (true, Some(broker)) => {
            let warnings = checker.warnings.into_iter().map(|problem| origins.placed(problem)).collect();
            let places = Places { origins: origins.clone(), ..Places::default() };
            Ok(Checked { sources, routes, outbox: written.outbox, broker, admin: written.admin, warnings, places })
        }
        _ => Err(checker.problems),
    }
}

struct Checker<'a> {
    origins: &'a Origins,
    problems: Vec<Problem>,
    warnings: Vec<Problem>,
}

impl Checker<'_> {
    fn problem(&mut self, path: &KeyPath, message: impl Into<String>, help: impl Into<String>) {
        self.problems.push(Problem::new(path.clone(), message).help(help));
    }

    fn warning(&mut self, path: &KeyPath, message: impl Into<String>, help: impl Into<String>) {
        self.warnings.push(Problem::new(path.clone(), message).help(help));
    }

    fn sources(&mut self, written: &Config) -> Vec<CheckedSource> {
        let all = KeyPath::root().key("sources");
        if written.sources.is_empty() {
            self.problem(&all, "there is no source", "name one, with its `type` and `url`");
        }
        for (name, source) in &written.sources {
            let path = all.key(name);
            let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_' || byte == b'-';
            if name.is_empty() || name.len() > SOURCE_NAME_BYTES_MAX || !name.bytes().all(allowed) {
                let message = format!("`{name}` is no name for a source");
                self.problem(&path, message, "1 to 40 characters: lower-case letters, digits, `_`, `-`");
            }
            match source {
                SourceConfig::Postgres(config) => self.postgres(&path, config),
                SourceConfig::Files(config) => self.files_source(&path, config),
            }
        }
        let source =
            |(name, config): (&String, &SourceConfig)| CheckedSource { name: name.clone(), config: config.clone() };
        written.sources.iter().map(source).collect()
    }

    fn outbox(&mut self, outbox: &OutboxConfig, purpose: Purpose) {
        let path = KeyPath::root().key("outbox");
        if purpose == Purpose::Run {
            self.outbox_file(&path.key("sqlite"), &outbox.sqlite);
        }
        self.at_least(&path.key("max_size"), outbox.max_size, ByteSize(OUTBOX_BYTES_MIN));
        if let Some(age) = outbox.max_age {
            self.at_least(&path.key("max_age"), age, seconds(1));
        }
    }

    fn admin(&mut self, admin: &AdminConfig) {
        let path = KeyPath::root().key("admin");
        if !admin.listen.ip().is_loopback() && admin.token.is_none() {
            self.problem(
                &path.key("listen"),
                "other machines can reach this address, and there is no `admin.token`",
                "listen on 127.0.0.1, or set a token: `token: ${TOWPATH_ADMIN_TOKEN}`",
            );
        }
        if let Some(token) = &admin.token {
            const TOKEN_BYTES_MIN: usize = 16;
            let printable = token.reveal().bytes().all(|byte| byte.is_ascii_graphic());
            if token.reveal().len() < TOKEN_BYTES_MIN || !printable {
                self.problem(
                    &path.key("token"),
                    format!("a token has at least {TOKEN_BYTES_MIN} visible ASCII characters and no space"),
                    "make one with `openssl rand -hex 32`",
                );
            }
        }
        self.at_least(&path.key("ready_lag_max"), admin.ready_lag_max, seconds(1));
    }

    fn at_least<T: PartialOrd + std::fmt::Display>(&mut self, path: &KeyPath, found: T, least: T) {
        if found < least {
            let found = self.origins.quote(path, &found.to_string());
            self.problem(path, format!("{found} is too little"), format!("at least {least}"));
        }
    }
}

fn seconds(seconds: u64) -> Span {
    Span(std::time::Duration::from_secs(seconds))
}
