//! A private RabbitMQ broker: one shared by all tests of a run, each in a virtual host of its own, or one for a test alone.

mod management;
mod node;
mod queues;
mod shared;

use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;

use crate::process::Process;
use crate::{Certificates, Folder, Port, eventually};
use node::Node;
pub use queues::{Delivery, Inbox, QueueKind};

const STOP_WITHIN: Duration = Duration::from_secs(60);

/// A broker, and a virtual host on it that is the test's own. User and password are `guest`.
///
/// A cold start takes 5 to 7 s: tests that neither stop nor configure the broker take [`RabbitMq::shared`].
#[derive(Debug)]
pub struct RabbitMq {
    node: Node,
    vhost: String,
    life: Life,
}

#[derive(Debug)]
enum Life {
    Shared { _lease: shared::Lease },
    Own(Box<Own>),
}

/// The order matters: processes end before their folder and ports are given back.
#[derive(Debug)]
struct Own {
    server: Option<Process>,
    _epmd: Process,
    folder: Folder,
    _ports: Vec<Port>,
}

/// What differs from a plain broker.
#[derive(Debug, Default)]
pub struct RabbitMqBuilder {
    settings: String,
    tls: Option<[std::path::PathBuf; 3]>,
}

impl RabbitMq {
    /// A fresh virtual host on the broker that all tests of the run share. Deleted on drop. The broker is started by the first that
    /// asks, and ends after the last.
    ///
    /// # Panics
    /// When the broker does not start; with its log.
    pub async fn shared() -> RabbitMq {
        let (node, lease) = tokio::task::spawn_blocking(shared::join).await.expect("the broker is there");
        let rabbit = RabbitMq { node, vhost: fresh_vhost(), life: Life::Shared { _lease: lease } };
        rabbit.create_vhost(&rabbit.vhost).await;
        rabbit
    }

    /// A broker for this test alone, which may stop, kill and alarm it. Its virtual host is `/`.
    ///
    /// # Panics
    /// When it does not start; with its log.
    pub async fn own() -> RabbitMq {
        RabbitMq::builder().start().await
    }

    pub fn builder() -> RabbitMqBuilder {
        RabbitMqBuilder::default()
    }

    pub fn port(&self) -> u16 {
        self.node.amqp
    }

    pub fn vhost(&self) -> &str {
        &self.vhost
    }

    /// `amqp://guest:guest@127.0.0.1:port/vhost`.
    pub fn url(&self) -> String {
        self.url_through(self.port())
    }

    /// As [`RabbitMq::url`], but by another port: a proxy's.
    pub fn url_through(&self, port: u16) -> String {
        format!("amqp://guest:guest@127.0.0.1:{port}/{}", self.vhost.replace('/', "%2f"))
    }

    /// `amqps://guest:guest@localhost:port/vhost`, for a broker built with [`RabbitMqBuilder::tls`].
    pub fn tls_url(&self) -> String {
        format!("amqps://guest:guest@localhost:{}/{}", self.node.amqps, self.vhost.replace('/', "%2f"))
    }

    /// The broker's process id.
    ///
    /// # Panics
    /// When the broker is stopped, or shared.
    pub fn pid(&mut self) -> u32 {
        self.own_or_panic().server.as_ref().expect("the broker is running").pid()
    }

    /// What the broker logged so far.
    pub fn log(&self) -> String {
        self.node.log()
    }

    /// A clean shutdown.
    ///
    /// # Panics
    /// When the broker is shared, or does not end in 60 s.
    pub async fn stop(&mut self) {
        let Some(mut server) = self.own_or_panic().server.take() else { return };
        server.signal(Signal::TERM);
        assert!(server.end(STOP_WITHIN).await.is_some(), "RabbitMQ does not stop:\n{}", self.log());
    }

    /// SIGKILL, of a broker that has been up for a while: what was declared is on its disk.
    ///
    /// RabbitMQ 3.10 registers quorum queues in files that it syncs only minutes later. Killed before that, it comes back with
    /// the queue and without its confirmed messages or a leader (rabbitmq-server issues 10070 and 15725): a loss that no
    /// publisher can make good, and not what these tests are about.
    ///
    /// # Panics
    /// When the broker is shared.
    pub async fn kill(&mut self) {
        self.own_or_panic();
        self.ctl(&["eval", "[dets:sync(Table) || Table <- dets:all()], mnesia:sync_log()."]).await;
        self.own_or_panic().server = None;
    }

    /// Stops the broker's process without a word to anybody (SIGSTOP), or lets it go on.
    ///
    /// # Panics
    /// When the broker is shared.
    pub fn freeze(&mut self, on: bool) {
        if let Some(server) = &mut self.own_or_panic().server {
            server.signal(if on { Signal::STOP } else { Signal::CONT });
        }
    }

    /// Starts it again, on the same ports and folder, after [`RabbitMq::stop`] or [`RabbitMq::kill`].
    ///
    /// # Panics
    /// When the broker is shared or running, or does not start; with its log.
    pub async fn start_again(&mut self) {
        let node = self.node.clone();
        let own = self.own_or_panic();
        assert!(own.server.is_none(), "RabbitMQ is running already");
        own.server = Some(node.start());
        self.wait_until_ready().await;
    }

    /// Raises or clears the memory alarm: the broker then blocks connections that publish (`connection.blocked`).
    ///
    /// # Panics
    /// When the broker is shared.
    pub async fn alarm(&mut self, on: bool) {
        self.own_or_panic();
        self.ctl(&["set_vm_memory_high_watermark", if on { "0.00000001" } else { "0.4" }]).await;
    }

    /// Runs `rabbitmqctl` and returns what it printed. Costs half a second.
    ///
    /// # Panics
    /// When it fails; with its output.
    pub async fn ctl(&self, args: &[&str]) -> String {
        let launch = self.node.ctl().arg("-q").args(args);
        tokio::task::spawn_blocking(move || launch.run()).await.expect("rabbitmqctl succeeds")
    }

    /// # Panics
    /// When the broker refuses.
    pub async fn create_vhost(&self, name: &str) {
        self.manage("PUT", format!("/api/vhosts/{}", escaped(name)), "{}").await;
        let all = r#"{"configure":".*","write":".*","read":".*"}"#;
        self.manage("PUT", format!("/api/permissions/{}/guest", escaped(name)), all).await;
    }

    /// # Panics
    /// When the broker refuses.
    pub async fn delete_vhost(&self, name: &str) {
        self.manage("DELETE", format!("/api/vhosts/{}", escaped(name)), "").await;
    }

    /// A user who may do everything in this virtual host.
    ///
    /// # Panics
    /// When the broker refuses.
    pub async fn create_user(&self, name: &str, password: &str) {
        let user = format!(r#"{{"password":{password:?},"tags":""}}"#);
        self.manage("PUT", format!("/api/users/{name}"), &user).await;
        let all = r#"{"configure":".*","write":".*","read":".*"}"#;
        self.manage("PUT", format!("/api/permissions/{}/{name}", escaped(&self.vhost)), all).await;
    }

    /// Sets a policy in the virtual host, for the queues that match: `set_policy("short", "^q$", r#"{"max-length":10,"overflow":"reject-publish"}"#)`.
    ///
    /// # Panics
    /// When the broker refuses.
    pub async fn set_policy(&self, name: &str, pattern: &str, definition: &str) {
        let body = format!(r#"{{"pattern":{pattern:?},"definition":{definition},"apply-to":"queues"}}"#);
        self.manage("PUT", format!("/api/policies/{}/{name}", escaped(&self.vhost)), &body).await;
    }

    /// # Panics
    /// When the broker refuses.
    pub async fn delete_policy(&self, name: &str) {
        self.manage("DELETE", format!("/api/policies/{}/{name}", escaped(&self.vhost)), "").await;
    }

    /// Asks the management API; `path` starts with `/api/`. Returns the answer's body.
    ///
    /// # Panics
    /// When the answer is not a success.
    pub async fn manage(&self, method: &'static str, path: String, body: &str) -> String {
        let (port, body) = (self.node.management, body.to_owned());
        tokio::task::spawn_blocking(move || {
            management::ask(port, method, &path, &body).unwrap_or_else(|error| panic!("{method} {path}: {error}"))
        })
        .await
        .expect("the broker's management answers")
    }

    fn own_or_panic(&mut self) -> &mut Own {
        match &mut self.life {
            Life::Own(own) => own,
            Life::Shared { .. } => panic!("this broker is shared with other tests: take RabbitMq::own()"),
        }
    }

    async fn wait_until_ready(&mut self) {
        let node = self.node.clone();
        let server = self.own_or_panic().server.as_mut().expect("the broker was started");
        eventually("RabbitMQ to accept connections", node::START_WITHIN, async || {
            if let Some(status) = server.ended() {
                panic!("RabbitMQ ended ({status}):\n{}", node.log());
            }
            let node = node.clone();
            let ready = tokio::task::spawn_blocking(move || node.is_ready()).await.expect("a probe does not panic");
            if ready { Ok(()) } else { Err("no answer") }
        })
        .await;
    }
}

impl Drop for RabbitMq {
    fn drop(&mut self) {
        if let Life::Shared { .. } = self.life {
            // A broker that is gone took the virtual host with it.
            let _ = management::ask(self.node.management, "DELETE", &format!("/api/vhosts/{}", self.vhost), "");
        }
    }
}

impl RabbitMqBuilder {
    /// Lines of `rabbitmq.conf`.
    pub fn settings(mut self, lines: &str) -> Self {
        self.settings.push_str(lines);
        self.settings.push('\n');
        self
    }

    /// Offers TLS with this server certificate; asks for a client certificate and takes none as well.
    pub fn tls(mut self, certificates: &Certificates) -> Self {
        self.tls = Some([certificates.ca.clone(), certificates.server.clone(), certificates.server_key.clone()]);
        self
    }

    /// # Panics
    /// When it does not start; with its log.
    pub async fn start(self) -> RabbitMq {
        let user = node::user();
        let folder = Folder::owned_by(user.as_ref(), "rabbit");
        let ports: Vec<Port> = (0..5).map(|_| Port::free()).collect();
        let node = Node::new(folder.path(), std::array::from_fn(|index| ports[index].number()));
        let mut settings = self.settings;
        if let Some(files) = &self.tls {
            settings += &tls_settings(&folder, files, node.amqps);
        }
        node.write_files(&settings);
        let own = Own { _epmd: node.start_epmd(), server: Some(node.start()), folder, _ports: ports };
        let mut rabbit = RabbitMq { node, vhost: "/".into(), life: Life::Own(Box::new(own)) };
        rabbit.wait_until_ready().await;
        rabbit
    }
}

impl RabbitMq {
    /// The folder of a broker of one's own.
    ///
    /// # Panics
    /// When the broker is shared.
    pub fn folder(&mut self) -> &Path {
        self.own_or_panic().folder.path()
    }
}

fn tls_settings(folder: &Folder, files: &[std::path::PathBuf; 3], port: u16) -> String {
    let mut settings = format!("listeners.ssl.1 = 127.0.0.1:{port}\n");
    for (from, option) in files.iter().zip(["cacertfile", "certfile", "keyfile"]) {
        let content = std::fs::read(from).unwrap_or_else(|error| panic!("{}: {error}", from.display()));
        settings += &format!("ssl_options.{option} = {}\n", folder.write(option, content).display());
    }
    settings + "ssl_options.verify = verify_peer\nssl_options.fail_if_no_peer_cert = false\n"
}

fn fresh_vhost() -> String {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let started = std::time::UNIX_EPOCH.elapsed().unwrap_or_default().as_millis();
    format!("t{}-{started}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

fn escaped(name: &str) -> String {
    name.replace('%', "%25").replace('/', "%2f")
}
