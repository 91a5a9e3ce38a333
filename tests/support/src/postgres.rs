//! A private PostgreSQL server.

mod binaries;

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Signal;
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

use crate::installed::User;
use crate::process::{Process, children, is_alive, send};
use crate::{Certificates, Folder, Port, eventually};
use binaries::Binaries;

const START_WITHIN: Duration = Duration::from_secs(60);
const STOP_WITHIN: Duration = Duration::from_secs(30);

/// Fast, quiet, ready for logical replication. What the builder adds comes later in the file, and the last line counts.
const SETTINGS: &str = "\
listen_addresses = '127.0.0.1'
wal_level = logical
max_replication_slots = 20
max_wal_senders = 20
max_connections = 50
shared_buffers = 64MB
fsync = off
full_page_writes = off
autovacuum = off
dynamic_shared_memory_type = mmap
lc_messages = 'C'
password_encryption = 'scram-sha-256'
log_line_prefix = '%m [%p] %q%a '
";

/// A server of its own: folder, port, system identifier. Stopped and deleted on drop.
#[derive(Debug)]
pub struct Postgres {
    process: Option<Process>,
    binaries: Binaries,
    user: Option<User>,
    port: Port,
    folder: Folder,
}

/// What differs from a plain server.
#[derive(Debug, Default)]
pub struct PostgresBuilder {
    initdb: Vec<String>,
    settings: String,
    hba: String,
    certificates: Option<(PathBuf, PathBuf, PathBuf)>,
}

impl Postgres {
    /// A server with `wal_level = logical`, UTF-8, locale C, user `postgres` without a password. Of the version that
    /// `TOWPATH_PG_MAJOR` names, else the newest that is installed.
    ///
    /// # Panics
    /// When it does not start; with its log.
    pub async fn start() -> Postgres {
        Postgres::builder().start().await
    }

    pub fn builder() -> PostgresBuilder {
        PostgresBuilder::default()
    }

    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// The server's major version.
    pub fn major(&self) -> u32 {
        self.binaries.major
    }

    /// `postgres://postgres@127.0.0.1:port/db`.
    pub fn url(&self, db: &str) -> String {
        self.url_as("postgres", db)
    }

    /// `user` may be `name` or `name:password`.
    pub fn url_as(&self, user: &str, db: &str) -> String {
        format!("postgres://{user}@127.0.0.1:{}/{db}", self.port())
    }

    /// A connection; its task is spawned on the current runtime.
    ///
    /// # Panics
    /// When it cannot be made.
    pub async fn client(&self, db: &str) -> Client {
        self.try_client(db).await.unwrap_or_else(|error| panic!("cannot connect to {}: {error}", self.url(db)))
    }

    async fn try_client(&self, db: &str) -> Result<Client, tokio_postgres::Error> {
        let (client, connection) = tokio_postgres::connect(&self.url(db), NoTls).await?;
        tokio::spawn(async move {
            // Its end shows in the client's next call.
            let _ = connection.await;
        });
        Ok(client)
    }

    /// Runs statements in the database `postgres`, on a connection of their own.
    ///
    /// # Panics
    /// When one fails.
    pub async fn sql(&self, text: &str) {
        self.sql_in("postgres", text).await;
    }

    pub async fn sql_in(&self, db: &str, text: &str) {
        let done = self.client(db).await.batch_execute(text).await;
        done.unwrap_or_else(|error| panic!("{text}\n{}", explained(&error)));
    }

    /// The rows of a query in the database `postgres`, as text.
    ///
    /// # Panics
    /// When it fails.
    pub async fn rows(&self, query: &str) -> Vec<Vec<Option<String>>> {
        let messages = self.client("postgres").await.simple_query(query).await;
        messages
            .unwrap_or_else(|error| panic!("{query}\n{}", explained(&error)))
            .iter()
            .filter_map(|message| match message {
                SimpleQueryMessage::Row(row) => Some((0..row.len()).map(|i| row.get(i).map(str::to_owned)).collect()),
                _ => None,
            })
            .collect()
    }

    /// The first column of the query's only row.
    ///
    /// # Panics
    /// When the query fails or there is not exactly one row; NULL reads as an empty text.
    pub async fn value(&self, query: &str) -> String {
        let mut rows = self.rows(query).await;
        assert_eq!(rows.len(), 1, "{query}: expected one row, found {}", rows.len());
        rows.remove(0).swap_remove(0).unwrap_or_default()
    }

    /// The postmaster's process id.
    ///
    /// # Panics
    /// When the server is stopped.
    pub fn pid(&self) -> u32 {
        self.process.as_ref().expect("the server is running").pid()
    }

    /// What the server logged so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// A fast shutdown: connections are ended, a checkpoint is written. WAL senders are waited for.
    ///
    /// # Panics
    /// When it does not end in 30 s.
    pub async fn stop(&mut self) {
        let Some(mut process) = self.process.take() else { return };
        process.signal(Signal::INT);
        assert!(process.end(STOP_WITHIN).await.is_some(), "PostgreSQL does not stop:\n{}", self.log());
    }

    /// Kills the postmaster and all its children at once, as a power loss does (to the processes, not to the disk).
    pub async fn crash(&mut self) {
        let Some(mut process) = self.process.take() else { return };
        // Stopped first, so that it starts no child that we do not see.
        process.signal(Signal::STOP);
        let children = children(process.pid());
        process.kill();
        for child in &children {
            send(*child, Signal::KILL);
        }
        // The next start is refused as long as one of them has the shared memory.
        eventually("the end of PostgreSQL's processes", STOP_WITHIN, async || {
            let alive: Vec<_> = children.iter().filter(|child| is_alive(**child)).collect();
            if alive.is_empty() { Ok(()) } else { Err(format!("{alive:?} alive")) }
        })
        .await;
    }

    /// Starts it again, on the same port and folder, after [`Postgres::stop`] or [`Postgres::crash`].
    ///
    /// # Panics
    /// When it does not start; with its log.
    pub async fn start_again(&mut self) {
        assert!(self.process.is_none(), "PostgreSQL is running already");
        self.launch().await;
    }

    /// Stops it and starts it as a standby that has all of its log, slots included, and is promoted: the next timeline.
    ///
    /// # Panics
    /// Before PostgreSQL 12; and when it does not start.
    pub async fn fail_over(&mut self) {
        assert!(self.major() >= 12, "standby.signal came with PostgreSQL 12");
        self.stop().await;
        self.become_standby();
        self.start_again().await;
        assert_eq!(self.value("SELECT pg_promote()").await, "t");
    }

    /// A standby that streams from it, without its slots; with more lines of `postgresql.conf`. It is stopped meanwhile.
    ///
    /// # Panics
    /// Before PostgreSQL 12; and when one of the two does not start.
    pub async fn standby(&mut self, lines: &str) -> Postgres {
        assert!(self.major() >= 12, "standby.signal came with PostgreSQL 12");
        self.stop().await;
        let folder = Folder::owned_by(self.user.as_ref(), "pg");
        let (binaries, user) = (self.binaries.clone(), self.user.clone());
        let mut standby = Postgres { process: None, binaries, user, port: Port::free(), folder };
        self.copy(&self.data(), &standby.data());
        for slot in fs::read_dir(standby.data().join("pg_replslot")).into_iter().flatten().flatten() {
            fs::remove_dir_all(slot.path()).expect("a slot can be removed");
        }
        standby.configure(&format!(
            "port = {}\nunix_socket_directories = '{}'\nprimary_conninfo = 'host=127.0.0.1 port={} user=postgres dbname=postgres'\n{lines}",
            standby.port(),
            standby.folder.path().display(),
            self.port()
        ));
        standby.become_standby();
        self.start_again().await;
        standby.launch().await;
        standby
    }

    fn become_standby(&self) {
        let signal = self.data().join("standby.signal");
        fs::write(&signal, "").expect("the data folder can be written");
        crate::folder::give(&signal, self.user.as_ref());
    }

    /// Appends lines to `postgresql.conf`. They count from the next start, or `select pg_reload_conf()`.
    pub fn configure(&self, lines: &str) {
        append(&self.data().join("postgresql.conf"), lines);
    }

    /// Copies the stopped server's data, as a backup of the whole machine does; or puts the copy in its place.
    ///
    /// # Panics
    /// When the server is running, or there is no copy to put back.
    pub fn set_aside(&self) {
        self.copy(&self.data(), &self.folder.path().join("aside"));
    }

    /// See [`Postgres::set_aside`].
    ///
    /// # Panics
    /// As there.
    pub fn set_back(&self) {
        fs::remove_dir_all(self.data()).expect("the data can be removed");
        self.copy(&self.folder.path().join("aside"), &self.data());
    }

    fn copy(&self, from: &Path, to: &Path) {
        assert!(self.process.is_none(), "PostgreSQL is running");
        // Owners and modes too: the server is particular about them.
        let done = std::process::Command::new("cp").arg("-a").args([from, to]).status();
        assert!(done.expect("cp can be run").success(), "copying {}", from.display());
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn log_path(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    async fn launch(&mut self) {
        let launch = self
            .binaries
            .launch("postgres", self.folder.path())
            .user(self.user.as_ref())
            // An immediate shutdown: the children end too.
            .death_signal("QUIT")
            .arg("-D")
            .arg(self.data());
        self.process = Some(launch.start(&self.log_path()));
        eventually("PostgreSQL to accept connections", START_WITHIN, async || {
            if let Some(status) = self.process.as_mut().and_then(Process::ended) {
                panic!("PostgreSQL ended ({status}):\n{}", self.log());
            }
            self.try_client("postgres").await.map(drop).map_err(|error| format!("{error}\n{}", self.log()))
        })
        .await;
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // Immediate: nobody needs the data, but the children must go and the shared memory must be freed.
        let Some(process) = &mut self.process else { return };
        process.signal(Signal::QUIT);
        for _ in 0..500 {
            if process.ended().is_some() {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl PostgresBuilder {
    /// Lines of `postgresql.conf`, one or several; they win over the defaults of the tests.
    pub fn settings(mut self, lines: &str) -> Self {
        let _ = writeln!(self.settings, "{lines}");
        self
    }

    pub fn wal_level(self, level: &str) -> Self {
        self.settings(&format!("wal_level = {level}"))
    }

    /// Durable as in production, for tests in which that matters.
    pub fn fsync(self) -> Self {
        self.settings("fsync = on\nfull_page_writes = on")
    }

    /// A line of `pg_hba.conf`, before the one that trusts everybody on loopback.
    pub fn hba(mut self, line: &str) -> Self {
        let _ = writeln!(self.hba, "{line}");
        self
    }

    /// Options of `initdb`: `--encoding=LATIN1`, `--locale=C.UTF-8`.
    pub fn initdb(mut self, option: &str) -> Self {
        self.initdb.push(option.into());
        self
    }

    /// Offers TLS with this server certificate, and knows the authority for client certificates.
    pub fn tls(mut self, certificates: &Certificates) -> Self {
        self.certificates =
            Some((certificates.ca.clone(), certificates.server.clone(), certificates.server_key.clone()));
        self
    }

    /// # Panics
    /// When it does not start; with its log.
    pub async fn start(self) -> Postgres {
        let user = User::for_server(&["postgres", "nobody"]);
        let folder = Folder::owned_by(user.as_ref(), "pg");
        let binaries = Binaries::find(user.as_ref());
        let port = Port::free();
        let mut postgres = Postgres { process: None, binaries, user, port, folder };
        self.initialise(&postgres);
        postgres.launch().await;
        postgres
    }

    fn initialise(&self, postgres: &Postgres) {
        let (folder, user, data) = (postgres.folder.path(), postgres.user.as_ref(), postgres.data());
        let options = ["-U", "postgres", "-A", "trust", "--no-sync", "--encoding=UTF8", "--locale=C"];
        let initdb = postgres.binaries.launch("initdb", folder).user(user).arg("-D").arg(&data);
        initdb.args(options).args(&self.initdb).run();

        let mut settings = format!("{SETTINGS}port = {}\n", postgres.port());
        let _ = writeln!(settings, "unix_socket_directories = '{}'", folder.display());
        if let Some((ca, certificate, key)) = &self.certificates {
            for (from, name) in [(ca, "ca.pem"), (certificate, "server.pem"), (key, "server.key")] {
                let to = data.join(name);
                fs::copy(from, &to).unwrap_or_else(|error| panic!("cannot copy {}: {error}", from.display()));
                crate::folder::keep_private(&to);
                crate::folder::give(&to, user);
            }
            settings += "ssl = on\nssl_ca_file = 'ca.pem'\nssl_cert_file = 'server.pem'\nssl_key_file = 'server.key'\n";
        }
        append(&data.join("postgresql.conf"), &format!("{settings}{}", self.settings));

        let hba = data.join("pg_hba.conf");
        let defaults = fs::read_to_string(&hba).unwrap_or_default();
        fs::write(&hba, format!("{}{defaults}", self.hba)).expect("initdb's files can be written");
    }
}

fn append(path: &Path, lines: &str) {
    let text = fs::read_to_string(path).unwrap_or_default();
    fs::write(path, format!("{text}\n{lines}\n")).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}

fn explained(error: &tokio_postgres::Error) -> String {
    error.as_db_error().map_or_else(|| error.to_string(), |db| format!("{}: {}", db.code().code(), db.message()))
}
