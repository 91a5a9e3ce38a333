//! Who to log in to and how: the URL, the password, TLS, and sessions whose text output is the same everywhere.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio_postgres::config::{Host, SslMode, SslNegotiation, TargetSessionAttrs};
use towpath_contract::{Action, Error, ErrorKind, Result, Secret, planted};

use crate::config::{PostgresConfig, TlsConfig, TlsMode};
use crate::pgpass::{self, Wanted};
use crate::wire::{self, Address, Settled, Socket, WalSender};
use crate::{failure, tls};

/// Fixes how values are written, so that a snapshot and the stream give the same text: both set exactly this. The rest
/// keeps a role's or database's own settings from ending or emptying our sessions (`row_security=off` makes a policy an
/// error where it would otherwise hide rows from a snapshot; a warning is how PostgreSQL 18 tells that a publication is gone).
const SETTINGS: &str = "-c DateStyle=ISO -c IntervalStyle=iso_8601 -c TimeZone=UTC -c extra_float_digits=3 \
    -c bytea_output=hex -c lc_monetary=C -c xmlbinary=base64 -c search_path=pg_catalog -c standard_conforming_strings=on \
    -c statement_timeout=0 -c lock_timeout=0 -c idle_in_transaction_session_timeout=0 -c row_security=off \
    -c client_min_messages=warning";

const DEFAULT_PORT: u16 = 5432;
/// For opening, TLS and login together; `connect_timeout` in the URL takes its place.
const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
const OPERATION: &str = "connecting to PostgreSQL";

/// What the config says, checked and complete; nothing was connected yet.
pub(crate) struct Target {
    hosts: Vec<(Host, u16)>,
    host_addresses: Vec<std::net::IpAddr>,
    login: Login,
    tls: TlsConfig,
    tls_mode: Option<TlsMode>,
    timeout: Duration,
    only_writable: bool,
}

/// Who we are. Not printable: it holds the password.
#[derive(Clone)]
pub(crate) struct Login {
    pub(crate) user: String,
    pub(crate) database: String,
    pub(crate) password: Option<Secret>,
    pub(crate) application_name: String,
    pub(crate) options: String,
}

/// One server that answered. Every session of a capture goes to this one, so that the SQL side and the stream never
/// look at two different members of a cluster.
#[derive(Clone)]
pub(crate) struct Server {
    address: Address,
    tls: Option<Arc<rustls::ClientConfig>>,
    login: Login,
    timeout: Duration,
    /// `server_version_num`: 150012.
    pub(crate) version: u32,
}

impl Target {
    pub(crate) fn parse(config: &PostgresConfig) -> Result<Target> {
        let (url, asks_for_tls) = without_verify_modes(config.url.reveal());
        let parsed: tokio_postgres::Config = url.parse().map_err(|_| unreadable_url(config.url.reveal()))?;
        let wrong = |message: &str| Error::operator(ErrorKind::Setup, "reading `url`", message).with_help(URL_HELP);
        let user = parsed.get_user().ok_or_else(|| wrong("it names no user"))?.to_owned();
        let database = parsed.get_dbname().unwrap_or(&user).to_owned();
        let tls_mode = config.tls.mode.or(match parsed.get_ssl_mode() {
            SslMode::Disable => Some(TlsMode::Disable),
            SslMode::Require => Some(TlsMode::Verify),
            _ if asks_for_tls => Some(TlsMode::Verify),
            _ => None,
        });
        let in_url = parsed.get_password().map(|password| Secret::new(String::from_utf8_lossy(password)));
        let options = match parsed.get_options() {
            Some(theirs) => format!("{theirs} {SETTINGS}"),
            None => SETTINGS.to_owned(),
        };
        Ok(Target {
            hosts: hosts(&parsed).ok_or_else(|| wrong("the numbers of hosts and ports differ"))?,
            host_addresses: parsed.get_hostaddrs().to_vec(),
            login: Login {
                user,
                database,
                password: config.password.clone().or(in_url),
                application_name: "towpath".to_owned(),
                options,
            },
            tls: config.tls.clone(),
            tls_mode,
            timeout: parsed.get_connect_timeout().copied().unwrap_or(DEFAULT_CONNECT_TIMEOUT),
            only_writable: parsed.get_target_session_attrs() == TargetSessionAttrs::ReadWrite,
        })
    }

    /// Connects to the first host that answers, in the order of the URL.
    pub(crate) async fn connect(&self) -> Result<(Server, tokio_postgres::Client)> {
        if planted("secret_in_a_debug_line") {
            tracing::debug!(password = ?self.login.password.as_ref().map(Secret::reveal), "connecting");
        }
        let mut last = None;
        for (index, (host, port)) in self.hosts.iter().enumerate() {
            for address in self.addresses(index, host, *port).await? {
                let server = self.server(host, *port, address)?;
                match server.open().await {
                    Ok((server, client)) if self.only_writable && is_standby(&client).await? => {
                        let message = format!("{} is a standby", describe(host, *port));
                        last = Some(Error::retry(ErrorKind::Connection, OPERATION, message));
                        drop(server);
                    }
                    Ok(connected) => return Ok(connected),
                    // What a person must mend would not be better on the next host.
                    Err(error) if error.action != Action::Retry => return Err(error),
                    Err(error) => last = Some(error),
                }
            }
        }
        Err(last.unwrap_or_else(|| Error::retry(ErrorKind::Connection, OPERATION, "the host in `url` has no address")))
    }

    async fn addresses(&self, index: usize, host: &Host, port: u16) -> Result<Vec<Address>> {
        let name = match host {
            Host::Unix(folder) => return Ok(vec![Address::Unix(folder.join(format!(".s.PGSQL.{port}")))]),
            Host::Tcp(name) => name,
        };
        let tcp = |address| Address::Tcp { host: name.clone(), address };
        if let Some(address) = self.host_addresses.get(index) {
            return Ok(vec![tcp((*address, port).into())]);
        }
        let looked_up = tokio::time::timeout(self.timeout, tokio::net::lookup_host((name.as_str(), port))).await;
        match looked_up {
            Ok(Ok(found)) => Ok(found.map(tcp).collect()),
            // With several hosts an unknown one is passed over, as one that is down.
            _ if index + 1 < self.hosts.len() => Ok(Vec::new()),
            _ => {
                Err(Error::retry(ErrorKind::Connection, OPERATION, format!("the host name {name} cannot be resolved"))
                    .with_help("check the host in `url`, and this machine's DNS"))
            }
        }
    }

    fn server(&self, host: &Host, port: u16, address: Address) -> Result<Server> {
        let mode = self.tls_mode.unwrap_or(match &address {
            Address::Tcp { address, .. } if !address.ip().is_loopback() => TlsMode::Verify,
            _ => TlsMode::Disable,
        });
        let tls = match (mode, &address) {
            (TlsMode::Verify, Address::Tcp { .. }) => Some(tls::client_config(&self.tls)?),
            _ => None,
        };
        let mut login = self.login.clone();
        if login.password.is_none() {
            login.password = pgpass::default_path().and_then(|path| stored_password(&path, host, port, &login));
        }
        Ok(Server { address, tls, login, timeout: self.timeout, version: 0 })
    }
}

const URL_HELP: &str = "write `postgres://user@host:5432/database`; in user, password and database write @ as %40, : as \
    %3A, / as %2F, % as %25 (or give the password as `password`)";

fn unreadable_url(url: &str) -> Error {
    // Only a name from this list is repeated: anything else may be part of a mistyped password.
    const ELSEWHERE: [(&str, &str); 5] = [
        ("sslrootcert", "tls.ca"),
        ("sslcert", "tls.certificate"),
        ("sslkey", "tls.key"),
        ("sslcrl", "tls.ca"),
        ("passfile", "password"),
    ];
    let known = ELSEWHERE.iter().find(|(option, _)| url.contains(&format!("{option}=")));
    let (message, help) = match known {
        Some((option, key)) => (format!("the option {option} does not belong there"), format!("use the key `{key}`")),
        None => {
            ("it is no PostgreSQL URL (its text is withheld: it may hold a password)".to_owned(), URL_HELP.to_owned())
        }
    };
    Error::operator(ErrorKind::Setup, "reading `url`", message).with_help(help)
}

/// tokio-postgres knows no `sslmode` above `require`; Towpath verifies in any case.
fn without_verify_modes(url: &str) -> (String, bool) {
    let mut plain = url.to_owned();
    for mode in ["sslmode=verify-full", "sslmode=verify-ca"] {
        plain = plain.replace(mode, "sslmode=require");
    }
    let asks = plain != url;
    (plain, asks)
}

/// Hosts with their ports: one port for all, or one each.
fn hosts(parsed: &tokio_postgres::Config) -> Option<Vec<(Host, u16)>> {
    let mut hosts = parsed.get_hosts().to_vec();
    if hosts.is_empty() {
        let addresses = parsed.get_hostaddrs();
        hosts = addresses.iter().map(|address| Host::Tcp(address.to_string())).collect();
    }
    if hosts.is_empty() {
        hosts = vec![Host::Tcp("localhost".to_owned())];
    }
    let ports = match parsed.get_ports() {
        [] => vec![DEFAULT_PORT; hosts.len()],
        [port] => vec![*port; hosts.len()],
        ports if ports.len() == hosts.len() => ports.to_vec(),
        _ => return None,
    };
    Some(hosts.into_iter().zip(ports).collect())
}

fn stored_password(path: &Path, host: &Host, port: u16, login: &Login) -> Option<Secret> {
    let host = match host {
        Host::Tcp(name) => name.clone(),
        // libpq's rule: the socket folders that packages default to go by the name localhost.
        Host::Unix(folder) if folder == Path::new("/tmp") || folder == Path::new("/var/run/postgresql") => {
            "localhost".to_owned()
        }
        Host::Unix(folder) => folder.display().to_string(),
    };
    pgpass::look_up(path, &Wanted { host: &host, port, database: &login.database, user: &login.user })
}

fn describe(host: &Host, port: u16) -> String {
    match host {
        Host::Tcp(name) => format!("{name}:{port}"),
        Host::Unix(folder) => folder.display().to_string(),
    }
}

async fn is_standby(client: &tokio_postgres::Client) -> Result<bool> {
    let row =
        client.query_one("SELECT pg_is_in_recovery()", &[]).await.map_err(|error| failure::sql(&error, OPERATION))?;
    row.try_get(0).map_err(|error| failure::sql(&error, OPERATION))
}

impl Server {
    pub(crate) fn database(&self) -> &str {
        &self.login.database
    }

    /// Another SQL session. Its connection runs in a task of its own, which ends with the client.
    ///
    /// A refusal is to be tried again from [`Target::connect`], which reads anew what may have changed since (a stored password, a
    /// certificate), and whose refusal counts.
    pub(crate) async fn sql(&self) -> Result<tokio_postgres::Client> {
        let opened = self.open().await.map_err(|error| Error { action: Action::Retry, ..error });
        opened.map(|(_, client)| client)
    }

    async fn open(&self) -> Result<(Server, tokio_postgres::Client)> {
        let opening = async {
            let socket = Socket::open(&self.address, self.tls.as_ref(), OPERATION).await?;
            // The socket's TLS is settled: "direct" keeps the library from asking for it again.
            let (client, connection) =
                self.sql_config().connect_raw(socket, Settled).await.map_err(|error| self.login_failed(error))?;
            let version = connection.parameter("server_version").and_then(version_number);
            tokio::spawn(async move {
                // The client's calls report what happened to the connection.
                let _ = connection.await;
            });
            let version = version.ok_or_else(|| {
                Error::operator(
                    ErrorKind::Setup,
                    OPERATION,
                    "the server does not report a version that Towpath can read",
                )
            })?;
            if version < 100_000 {
                return Err(Error::operator(ErrorKind::Setup, OPERATION, "the server is older than PostgreSQL 10")
                    .with_help("logical replication by pgoutput needs PostgreSQL 10 or newer"));
            }
            // Settings that not every version has. Compiling a query of the catalogue takes half a second, running it none.
            let settings = match version {
                140_000.. => "SET jit = off; SET idle_session_timeout = 0",
                110_000.. => "SET jit = off",
                _ => "",
            };
            client.batch_execute(settings).await.map_err(|error| failure::sql(&error, OPERATION))?;
            Ok((Server { version, ..self.clone() }, client))
        };
        self.in_time(opening).await
    }

    /// A session that can stream.
    pub(crate) async fn wal_sender(&self) -> Result<WalSender> {
        self.in_time(WalSender::connect(&self.address, self.tls.as_ref(), &self.login)).await
    }

    async fn in_time<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        match tokio::time::timeout(self.timeout, work).await {
            Ok(done) => done,
            Err(_) => {
                let message = format!("the server did not answer within {} s", self.timeout.as_secs());
                Err(Error::retry(ErrorKind::Timeout, OPERATION, message))
            }
        }
    }

    fn sql_config(&self) -> tokio_postgres::Config {
        let mut config = tokio_postgres::Config::new();
        config
            .user(&self.login.user)
            .dbname(&self.login.database)
            .application_name(&self.login.application_name)
            .options(&self.login.options)
            .ssl_mode(SslMode::Require)
            .ssl_negotiation(SslNegotiation::Direct);
        if let Some(password) = &self.login.password {
            config.password(password.reveal());
        }
        config
    }

    fn login_failed(&self, error: tokio_postgres::Error) -> Error {
        if self.login.password.is_none() && error.as_db_error().is_none() && error.to_string().contains("configuration")
        {
            return wire::no_password(&self.login.user);
        }
        match error.to_string().starts_with("authentication error") {
            true => {
                Error::operator(ErrorKind::Authentication, OPERATION, "the server's proof of identity does not fit")
                    .with_help("check the password, and that nothing stands between Towpath and the server")
            }
            false => failure::sql(&error, OPERATION),
        }
    }
}

/// `15.12 (Debian 15.12-1)` → 150012, `9.6.24` → 90624, `18beta1` → 180000.
fn version_number(text: &str) -> Option<u32> {
    let numeric = text.split(|c: char| !c.is_ascii_digit() && c != '.').next()?;
    let mut parts = numeric.split('.').map(|part| part.parse::<u32>().ok());
    let major = parts.next()??;
    let second = parts.next().flatten().unwrap_or(0);
    match major {
        0..10 => Some(major * 10_000 + second * 100 + parts.next().flatten().unwrap_or(0)),
        _ => Some(major * 10_000 + second),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(json: serde_json::Value) -> PostgresConfig {
        serde_json::from_value(json).unwrap()
    }

    fn target(url: &str) -> Result<Target> {
        Target::parse(&config(serde_json::json!({ "url": url })))
    }

    #[test]
    fn both_forms_of_a_url_are_read() {
        let target = target("postgres://u:p%40ss@a:1,b:2/db?connect_timeout=3").unwrap();
        assert_eq!(target.hosts, [(Host::Tcp("a".into()), 1), (Host::Tcp("b".into()), 2)]);
        assert_eq!((target.login.user.as_str(), target.login.database.as_str()), ("u", "db"));
        assert_eq!(target.login.password.as_ref().unwrap().reveal(), "p@ss");
        assert_eq!(target.timeout, Duration::from_secs(3));
        let target = super::tests::target("host=/run/pg user=me port=7").unwrap();
        assert_eq!(target.hosts, [(Host::Unix("/run/pg".into()), 7)]);
        assert_eq!(target.login.database, "me");
    }

    #[test]
    fn the_password_key_comes_before_the_url() {
        let target =
            Target::parse(&config(serde_json::json!({ "url": "postgres://u:a@h/d", "password": "b" }))).unwrap();
        assert_eq!(target.login.password.unwrap().reveal(), "b");
    }

    #[test]
    fn a_wrong_url_is_explained_without_being_shown() {
        for url in ["postgres://u:p@h/d?secret=1", "mysql://u:secret@h/d", "postgres://u:secret@h:port/d", "secret"] {
            let error = target(url).err().unwrap_or_else(|| panic!("{url}"));
            assert!(!error.to_string().contains("sec"), "{error}");
            assert_eq!(error.kind, ErrorKind::Setup);
        }
        let error = target("postgres://u:p@h/d?sslrootcert=/x").err().unwrap();
        assert!(error.to_string().contains("tls.ca"), "{error}");
        assert!(target("postgres://h/d").err().unwrap().to_string().contains("no user"));
    }

    #[test]
    fn tls_is_verified_unless_the_way_is_local_or_the_config_says_otherwise() {
        for (url, mode) in [
            ("postgres://u@h/d", None),
            ("postgres://u@h/d?sslmode=disable", Some(TlsMode::Disable)),
            ("postgres://u@h/d?sslmode=require", Some(TlsMode::Verify)),
            ("postgres://u@h/d?sslmode=verify-full", Some(TlsMode::Verify)),
            ("postgres://u@h/d?sslmode=prefer", None),
        ] {
            assert_eq!(target(url).unwrap().tls_mode, mode, "{url}");
        }
        let local = target("postgres://u@127.0.0.1/d").unwrap();
        let (host, port) = local.hosts[0].clone();
        let address = Address::Tcp { host: "127.0.0.1".into(), address: ([127, 0, 0, 1], 5432).into() };
        assert!(local.server(&host, port, address).unwrap().tls.is_none());
    }

    #[test]
    fn versions_are_read() {
        for (text, number) in [
            ("15.12 (Debian 15.12-1)", 150_012),
            ("10.23", 100_023),
            ("9.6.24", 90_624),
            ("18beta1", 180_000),
            ("17rc1", 170_000),
        ] {
            assert_eq!(version_number(text), Some(number), "{text}");
        }
        assert_eq!(version_number("devel"), None);
    }
}
