//! A TCP proxy that breaks the link on command.

use std::net::{Ipv4Addr, SocketAddr};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::Port;

/// Chunks on their way in one direction; beyond this the sender feels it.
const CHUNKS_MAX: usize = 64;
const CHUNK_BYTES_MAX: usize = 16 << 10;

/// Listens on a port of its own and forwards to a target. Runs on a thread of its own, so that a busy test does not slow it.
#[derive(Debug)]
pub struct Proxy {
    port: Port,
    control: watch::Sender<Control>,
    counts: watch::Receiver<Counts>,
    thread: Option<JoinHandle<()>>,
}

/// How the link is now.
#[derive(Clone, Debug)]
struct Control {
    target: SocketAddr,
    silent: bool,
    refuse: bool,
    delay: Duration,
    bytes_per_second_max: Option<u64>,
    /// Connections older than the newest of these end: `cut` by closing, `reset` by RST.
    cuts: u64,
    resets: u64,
    stop: bool,
}

/// How many connections were made, and how many are open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts {
    accepted: u64,
    open: u64,
}

impl Proxy {
    /// Forwards to `127.0.0.1:target`.
    ///
    /// # Panics
    /// When no port is free.
    pub fn start(target: u16) -> Proxy {
        let target = SocketAddr::from((Ipv4Addr::LOCALHOST, target));
        let (delay, bytes_per_second_max) = (Duration::ZERO, None);
        let (control, commands) = watch::channel(Control {
            target,
            silent: false,
            refuse: false,
            delay,
            bytes_per_second_max,
            cuts: 0,
            resets: 0,
            stop: false,
        });
        let (counts_in, counts) = watch::channel(Counts::default());
        let (port, thread) = listen("proxy", move |listener| serve(listener, commands, counts_in));
        Proxy { port, control, counts, thread: Some(thread) }
    }

    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// Connections accepted so far.
    pub fn accepted(&self) -> u64 {
        self.counts.borrow().accepted
    }

    /// Connections open now.
    pub fn open(&self) -> u64 {
        self.counts.borrow().open
    }

    /// Closes every connection, both sides. New ones are accepted.
    pub fn cut(&self) {
        self.control.send_modify(|control| control.cuts += 1);
    }

    /// As [`Proxy::cut`], but with a TCP reset.
    pub fn reset(&self) {
        self.control.send_modify(|control| control.resets += 1);
    }

    /// Stops forwarding, both ways, on all connections, and closes none: as when a router vanished. What was in flight is
    /// delivered after [`Proxy::heal`].
    pub fn half_open(&self) {
        self.control.send_modify(|control| control.silent = true);
    }

    /// New connections are refused (the port is closed); those that are open stay.
    pub fn refuse(&self) {
        self.control.send_modify(|control| control.refuse = true);
    }

    /// Each chunk arrives this much later. Order and throughput are kept.
    pub fn delay(&self, delay: Duration) {
        self.control.send_modify(|control| control.delay = delay);
    }

    /// At most this many bytes a second, per connection and direction.
    pub fn throttle(&self, bytes_per_second_max: u64) {
        self.control.send_modify(|control| control.bytes_per_second_max = Some(bytes_per_second_max.max(1)));
    }

    /// New connections go to another port.
    pub fn retarget(&self, target: u16) {
        self.control.send_modify(|control| control.target.set_port(target));
    }

    /// All faults end.
    pub fn heal(&self) {
        self.control.send_modify(|control| {
            (control.silent, control.refuse) = (false, false);
            (control.delay, control.bytes_per_second_max) = (Duration::ZERO, None);
        });
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.control.send_modify(|control| control.stop = true);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Runs `serve` with a listener on a port of its own, on a thread of its own: when it returns, its tasks and their connections end.
pub(crate) fn listen<S: Future<Output = ()>>(
    name: &str,
    serve: impl FnOnce(std::net::TcpListener) -> S + Send + 'static,
) -> (Port, JoinHandle<()>) {
    let port = Port::free();
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, port.number())).expect("the port is reserved");
    listener.set_nonblocking(true).expect("a socket can be set non-blocking");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime can be made");
    let thread = std::thread::Builder::new()
        .name(name.into())
        .spawn(move || runtime.block_on(serve(listener)))
        .expect("a thread can be started");
    (port, thread)
}

async fn serve(listener: std::net::TcpListener, mut commands: watch::Receiver<Control>, counts: watch::Sender<Counts>) {
    let address = listener.local_addr().expect("a listener has an address");
    let mut listener = Some(TcpListener::from_std(listener).expect("we are in a runtime"));
    let accept = async |listener: &Option<TcpListener>| match listener {
        Some(listener) => listener.accept().await,
        None => std::future::pending().await,
    };
    loop {
        tokio::select! {
            changed = commands.changed() => {
                let control = commands.borrow_and_update().clone();
                if changed.is_err() || control.stop {
                    return;
                }
                match control.refuse {
                    true => listener = None,
                    // A moment after closing it may still be taken; then the next command tries again.
                    false if listener.is_none() => listener = TcpListener::bind(address).await.ok(),
                    false => {}
                }
            }
            accepted = accept(&listener) => {
                let Ok((client, _)) = accepted else { continue };
                let (commands, counts) = (commands.clone(), counts.clone());
                counts.send_modify(|counts| (counts.accepted, counts.open) = (counts.accepted + 1, counts.open + 1));
                tokio::spawn(async move {
                    forward(client, commands).await;
                    counts.send_modify(|counts| counts.open -= 1);
                });
            }
        }
    }
}

async fn forward(mut client: TcpStream, mut commands: watch::Receiver<Control>) {
    let born = commands.borrow_and_update().clone();
    let Ok(mut server) = TcpStream::connect(born.target).await else { return };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let ended = async |commands: &mut watch::Receiver<Control>| loop {
        let now = commands.borrow_and_update().clone();
        if now.stop || now.cuts != born.cuts || now.resets != born.resets || commands.changed().await.is_err() {
            return;
        }
    };
    let reset = {
        let (client_in, client_out) = client.split();
        let (server_in, server_out) = server.split();
        let (up, down) = (commands.clone(), commands.clone());
        tokio::select! {
            // An end of one direction is forwarded as such; the connection ends with both.
            _ = async { tokio::join!(pump(client_in, server_out, up), pump(server_in, client_out, down)) } => false,
            () = ended(&mut commands) => commands.borrow().resets != born.resets,
        }
    };
    if reset {
        for stream in [&client, &server] {
            let _ = socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO));
        }
    }
}

/// One direction: read, stamped with the time, and written when its delay is over.
async fn pump(mut from: ReadHalf<'_>, mut to: WriteHalf<'_>, mut commands: watch::Receiver<Control>) {
    let (chunks_in, mut chunks) = mpsc::channel::<(Instant, Vec<u8>)>(CHUNKS_MAX);
    let read = async move {
        let mut buffer = vec![0; CHUNK_BYTES_MAX];
        while let Ok(length @ 1..) = from.read(&mut buffer).await {
            if chunks_in.send((Instant::now(), buffer[..length].to_vec())).await.is_err() {
                return;
            }
        }
    };
    let write = async {
        while let Some((arrived, chunk)) = chunks.recv().await {
            let delay = commands.borrow().delay;
            tokio::time::sleep_until(arrived + delay).await;
            let rate = commands.borrow().bytes_per_second_max;
            if let Some(rate) = rate {
                tokio::time::sleep(Duration::from_secs_f64(chunk.len() as f64 / rate as f64)).await;
            }
            if commands.wait_for(|control| !control.silent).await.is_err() || to.write_all(&chunk).await.is_err() {
                return;
            }
        }
        // The end itself is a packet too.
        let _ = commands.wait_for(|control| !control.silent).await;
        let _ = to.shutdown().await;
    };
    tokio::join!(read, write);
}
