//! One broker for all tests of a run, though each test is a process of its own.
//!
//! Every test that uses the broker holds a shared lock on a file: its lease, which the kernel ends with the process. The
//! first test starts the broker under a keeper, a shell script that outlives the test. The keeper ends the broker when
//! nobody has held a lease for a few seconds and the run (the parent of the test that started it: nextest, cargo) is over.

use std::fs::{self, File};
use std::os::unix::process::parent_id;
use std::path::Path;
use std::time::Instant;

use super::node::{self, Node};
use crate::folder::{give, target};
use crate::process::{Launch, is_alive};
use crate::{Folder, Port};

/// Held as long as the test uses the broker.
#[derive(Debug)]
pub(super) struct Lease(#[expect(dead_code, reason = "the open file is the lock")] File);

/// Finds the run's broker, or starts it.
pub(super) fn join() -> (Node, Lease) {
    let folder = target().join("tmp/shared-broker");
    fs::create_dir_all(&folder).unwrap_or_else(|error| panic!("cannot create {}: {error}", folder.display()));
    let open = |name: &str| File::create(folder.join(name)).expect("the build's folder can be written");

    // One at a time may look and start.
    let starting = open("starting");
    starting.lock().expect("a file can be locked");
    // With the lease the keeper cannot end the broker any more; had it begun to, this waits until it is done.
    let leases = open("leases");
    leases.lock_shared().expect("a file can be locked");

    let state = folder.join("node");
    let known = fs::read_to_string(&state).ok().and_then(|line| Node::from_line(&line));
    let node = match known.filter(Node::is_ready) {
        Some(node) => node,
        None => start(&folder, &state),
    };
    (node, Lease(leases))
}

fn start(shared: &Path, state: &Path) -> Node {
    if let Some(gone) = fs::read_to_string(state).ok().and_then(|line| Node::from_line(&line)) {
        let _ = fs::remove_dir_all(gone.folder);
    }
    let folder = Folder::outliving("shared-broker");
    // Reserved until the broker listens on them.
    let ports: Vec<Port> = (0..5).map(|_| Port::free()).collect();
    let node = Node::new(&folder, std::array::from_fn(|index| ports[index].number()));
    node.write_files("");
    let keeper = keeper(&node, shared, state);

    let deadline = Instant::now() + node::START_WITHIN;
    while !node.is_ready() {
        assert!(is_alive(keeper) && Instant::now() < deadline, "the shared broker does not start:\n{}", node.log());
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    fs::write(state, node.to_line()).expect("the build's folder can be written");
    node
}

/// Starts the keeper, in a session of its own, so that it outlives this test. Returns its pid.
fn keeper(node: &Node, shared: &Path, state: &Path) -> u32 {
    let script = node.folder.join("keeper.sh");
    fs::write(&script, include_str!("keeper.sh")).expect("the node's folder can be written");
    give(&script, None);
    let words = |launch: &Launch| launch.words().join(" ");
    let (server, epmd) = (node.server_launch(), node.epmd_launch());
    let keeper = Launch::new("setsid", &node.folder)
        .arg("sh")
        .arg(script)
        .env("KEEPER_EPMD", words(&epmd))
        .env("KEEPER_SERVER", words(&server))
        .env("KEEPER_LEASES", shared.join("leases"))
        .env("KEEPER_STATE", state)
        .env("KEEPER_FOLDER", &node.folder)
        .env("KEEPER_RUN", parent_id().to_string());
    let keeper = server.env.iter().fold(keeper, |keeper, (name, value)| keeper.env(name, value));
    keeper.start_detached(&node.folder.join("keeper.log"))
}
