//! How to start a RabbitMQ node that nobody else sees, and how to talk to it.

use std::fmt::Write as _;
use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::folder::give;
use crate::installed::{User, newest, on_path};
use crate::process::{Launch, Process};

/// Several may start at once on a busy machine.
pub(super) const START_WITHIN: Duration = Duration::from_secs(120);

/// A node's folder and ports: all that is needed to find it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Node {
    pub(super) folder: PathBuf,
    pub(super) amqp: u16,
    pub(super) amqps: u16,
    pub(super) management: u16,
    /// Erlang's own ports, for `rabbitmqctl`: between nodes, and of the daemon that names them.
    distribution: u16,
    epmd: u16,
}

pub(super) fn user() -> Option<User> {
    User::for_server(&["rabbitmq", "nobody"])
}

impl Node {
    pub(super) fn new(folder: &Path, [amqp, amqps, management, distribution, epmd]: [u16; 5]) -> Node {
        Node { folder: folder.to_path_buf(), amqp, amqps, management, distribution, epmd }
    }

    /// One line, for [`Node::from_line`].
    pub(super) fn to_line(&self) -> String {
        let Node { folder, amqp, amqps, management, distribution, epmd } = self;
        format!("{amqp} {amqps} {management} {distribution} {epmd} {}", folder.display())
    }

    pub(super) fn from_line(line: &str) -> Option<Node> {
        let mut words = line.trim_end().splitn(6, ' ');
        let mut port = || words.next()?.parse().ok();
        let ports = [port()?, port()?, port()?, port()?, port()?];
        Some(Node::new(Path::new(words.next()?), ports))
    }

    /// Writes what the node reads at its start; `settings` are lines of `rabbitmq.conf`.
    pub(super) fn write_files(&self, settings: &str) {
        let mut conf = format!("listeners.tcp.1 = 127.0.0.1:{}\n", self.amqp);
        let _ = writeln!(conf, "management.tcp.ip = 127.0.0.1\nmanagement.tcp.port = {}", self.management);
        // No statistics: they cost CPU, and depths are asked of the queues.
        conf += "management_agent.disable_metrics_collector = true\n";
        conf += "disk_free_limit.absolute = 50MB\nraft.wal_max_size_bytes = 64000000\n";
        let files = [
            ("rabbitmq.conf", format!("{conf}{settings}")),
            // Written beforehand, for starting a plugin later costs a run of `rabbitmq-plugins`.
            ("enabled_plugins", "[rabbitmq_management].\n".into()),
            ("rabbitmq-env.conf", String::new()),
        ];
        for (name, content) in files {
            fs::write(self.folder.join(name), content).expect("the node's folder can be written");
        }
        for name in ["mnesia", "logs"] {
            fs::create_dir_all(self.folder.join(name)).expect("the node's folder can be written");
        }
        give(&self.folder, user().as_ref());
    }

    /// Erlang's name daemon. RabbitMQ would start one itself, which would outlive it.
    pub(super) fn start_epmd(&self) -> Process {
        self.epmd_launch().start(&self.folder.join("epmd.log"))
    }

    pub(super) fn start(&self) -> Process {
        self.server_launch().start(&self.folder.join("out.log"))
    }

    pub(super) fn epmd_launch(&self) -> Launch {
        let epmd = on_path("epmd")
            .or_else(|| newest("/usr/lib/erlang", "erts-", "bin/epmd").map(|erts| erts.join("bin")))
            .unwrap_or_else(|| not_installed());
        let launch = Launch::new(epmd.join("epmd"), &self.folder).user(user().as_ref());
        launch.args(["-address", "127.0.0.1", "-port", &self.epmd.to_string()])
    }

    pub(super) fn server_launch(&self) -> Launch {
        // The script then becomes the Erlang machine, whose pid is the one we know; SIGTERM is its clean shutdown.
        self.launch("rabbitmq-server").env("RUNNING_UNDER_SYSTEMD", "true")
    }

    pub(super) fn ctl(&self) -> Launch {
        self.launch("rabbitmqctl")
    }

    /// The scripts of RabbitMQ itself: Debian's wrappers change user and folder.
    fn launch(&self, script: &str) -> Launch {
        let scripts = newest("/usr/lib/rabbitmq/lib", "rabbitmq_server-", "sbin/rabbitmq-server")
            .map(|folder| folder.join("sbin"))
            .or_else(|| on_path("rabbitmq-server"))
            .unwrap_or_else(|| not_installed());
        let at = |name: &str| self.folder.join(name);
        Launch::new(scripts.join(script), &self.folder)
            .user(user().as_ref())
            .env("HOME", &self.folder) // the cookie
            .env("LC_ALL", "C.UTF-8")
            .env("RABBITMQ_NODENAME", "towpath-test@localhost")
            .env("RABBITMQ_USE_LONGNAME", "false")
            .env("RABBITMQ_NODE_IP_ADDRESS", "127.0.0.1")
            .env("RABBITMQ_NODE_PORT", self.amqp.to_string())
            .env("RABBITMQ_DIST_PORT", self.distribution.to_string())
            .env("ERL_EPMD_PORT", self.epmd.to_string())
            .env("ERL_EPMD_ADDRESS", "127.0.0.1")
            .env("RABBITMQ_MNESIA_BASE", at("mnesia"))
            .env("RABBITMQ_LOG_BASE", at("logs"))
            .env("RABBITMQ_PID_FILE", at("pid"))
            .env("RABBITMQ_ENABLED_PLUGINS_FILE", at("enabled_plugins"))
            .env("RABBITMQ_CONFIG_FILE", at("rabbitmq.conf"))
            .env("RABBITMQ_CONF_ENV_FILE", at("rabbitmq-env.conf"))
            .env("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", "-kernel inet_dist_use_interface {127,0,0,1}")
    }

    /// Whether the broker answers a client's greeting with its own: listeners open last.
    pub(super) fn is_ready(&self) -> bool {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.amqp));
        let greet = || -> std::io::Result<u8> {
            let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1))?;
            stream.set_read_timeout(Some(Duration::from_secs(5)))?;
            stream.write_all(b"AMQP\x00\x00\x09\x01")?;
            let mut frame = [0];
            stream.read_exact(&mut frame)?;
            Ok(frame[0])
        };
        greet().is_ok_and(|frame| frame == 1)
    }

    pub(super) fn log(&self) -> String {
        let logs = fs::read_dir(self.folder.join("logs")).into_iter().flatten().flatten().map(|entry| entry.path());
        let logs = logs.chain([self.folder.join("out.log")]).map(|path| fs::read_to_string(path).unwrap_or_default());
        logs.collect()
    }
}

fn not_installed() -> ! {
    panic!(
        "RabbitMQ is not installed: on Debian or Ubuntu `apt-get install rabbitmq-server` (`make test` as root does it and leaves no service running), elsewhere put `rabbitmq-server`, `rabbitmqctl` and `epmd` on the PATH"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_found_by_its_line() {
        let node = Node::new(Path::new("/tmp/a folder"), [1, 2, 3, 4, 5]);
        assert_eq!(Node::from_line(&format!("{}\n", node.to_line())), Some(node));
        assert_eq!(Node::from_line("1 2 3"), None);
    }
}
