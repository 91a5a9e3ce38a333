//! Ports that no other test takes.

use std::fs::File;
use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU16, Ordering};

/// Below the range from which the kernel takes ports for outgoing connections, so that a server that is stopped finds its
/// port free when it starts again.
const FIRST: u16 = 12_000;
const COUNT: u16 = 18_000;

/// A loopback port, reserved as long as this lives. The reservation is a file lock: it holds between processes, and the
/// kernel drops it with the process.
#[derive(Debug)]
pub struct Port {
    number: u16,
    _reserved: File,
}

impl Port {
    /// # Panics
    /// When no port of the range is free.
    pub fn free() -> Port {
        // Processes start at different places, so that they seldom ask for the same.
        static NEXT: AtomicU16 = AtomicU16::new(0);
        let folder = reservations();
        let start = (std::process::id() as u16).wrapping_mul(61);
        for _ in 0..COUNT {
            let step = NEXT.fetch_add(1, Ordering::Relaxed);
            let number = FIRST + start.wrapping_add(step) % COUNT;
            let Ok(file) = File::create(folder.join(number.to_string())) else { continue };
            if file.try_lock().is_ok() && TcpListener::bind((Ipv4Addr::LOCALHOST, number)).is_ok() {
                return Port { number, _reserved: file };
            }
        }
        panic!("no free port between {FIRST} and {}", FIRST + COUNT)
    }

    pub fn number(&self) -> u16 {
        self.number
    }
}

/// One folder for each user, as users cannot write each other's files.
fn reservations() -> PathBuf {
    let user = rustix::process::getuid().as_raw();
    let folder = std::env::temp_dir().join(format!("towpath-test-ports-{user}"));
    std::fs::create_dir_all(&folder).unwrap_or_else(|error| panic!("cannot create {}: {error}", folder.display()));
    folder
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_ports_are_never_the_same_while_both_are_held() {
        let ports: Vec<Port> = (0..50).map(|_| Port::free()).collect();
        let mut numbers: Vec<u16> = ports.iter().map(Port::number).collect();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), 50);
    }
}
