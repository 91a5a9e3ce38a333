//! One AMQP connection, driven by one task: what is queued is written as the socket takes it, while what comes is read.

use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use super::decode::{FrameReader, Garbled, Incoming};
use super::encode;
use super::handshake::Tuning;
use super::socket::Socket;

/// The send buffer is given back down to this after a large message.
const KEEP_BYTES_MAX: usize = 512 << 10;

/// What a [`Connection::turn`] did.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Turn {
    pub(crate) wrote: bool,
    pub(crate) read: bool,
}

#[derive(Debug)]
pub(crate) struct Connection {
    socket: Socket,
    reader: FrameReader,
    out: Vec<u8>,
    /// Bytes of `out` that the socket has taken.
    written: usize,
    unflushed: bool,
    failed: Option<io::Error>,
    pub(crate) tuning: Tuning,
    pub(crate) last_read: Instant,
    last_write: Instant,
}

impl Connection {
    pub(super) fn new(socket: Socket, tuning: Tuning) -> Connection {
        let reader = FrameReader::new(tuning.frame_max);
        let now = Instant::now();
        Connection {
            socket,
            reader,
            out: Vec::new(),
            written: 0,
            unflushed: false,
            failed: None,
            tuning,
            last_read: now,
            last_write: now,
        }
    }

    pub(super) fn tune(&mut self, tuning: Tuning) {
        self.reader.set_frame_bytes_max(tuning.frame_max);
        self.tuning = tuning;
    }

    /// The node's address, as resolved.
    pub(crate) fn peer(&self) -> io::Result<std::net::SocketAddr> {
        self.socket.peer()
    }

    /// Frames are appended here; [`Connection::turn`] sends them.
    pub(crate) fn out(&mut self) -> &mut Vec<u8> {
        &mut self.out
    }

    /// Bytes that the socket has not taken yet.
    pub(crate) fn queued_bytes(&self) -> usize {
        self.out.len() - self.written
    }

    /// Waits until the socket took or gave something. Reading goes on while writing is stuck: a broker that blocks us stops
    /// reading, and what it has to say must still be heard. May be dropped at its await; nothing is lost.
    ///
    /// # Errors
    /// The connection is gone. Frames read before are still in [`Connection::next_frame`].
    pub(crate) async fn turn(&mut self) -> io::Result<Turn> {
        poll_fn(|cx| self.poll_turn(cx)).await
    }

    fn poll_turn(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Turn>> {
        let mut turn = Turn::default();
        if self.failed.is_none() {
            match self.poll_send(cx) {
                Ok(wrote) => turn.wrote = wrote,
                // The broker may have said why it hangs up: read on before giving up.
                Err(why) => self.failed = Some(why),
            }
        }
        match self.socket.poll_read(cx, self.reader.space()) {
            Poll::Ready(Ok(0)) => {
                let end = || io::Error::new(io::ErrorKind::UnexpectedEof, "the broker closed the connection");
                return Poll::Ready(Err(self.failed.take().unwrap_or_else(end)));
            }
            Poll::Ready(Ok(count)) => {
                self.reader.filled(count);
                self.last_read = Instant::now();
                turn.read = true;
            }
            Poll::Ready(Err(why)) => return Poll::Ready(Err(self.failed.take().unwrap_or(why))),
            Poll::Pending => {
                if let Some(why) = self.failed.take() {
                    return Poll::Ready(Err(why));
                }
            }
        }
        match turn.wrote || turn.read {
            true => Poll::Ready(Ok(turn)),
            false => Poll::Pending,
        }
    }

    fn poll_send(&mut self, cx: &mut Context<'_>) -> io::Result<bool> {
        let mut wrote = false;
        while self.written < self.out.len() {
            match self.socket.poll_write(cx, &self.out[self.written..]) {
                Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(Ok(count)) => {
                    self.written += count;
                    self.unflushed = true;
                    wrote = true;
                }
                Poll::Ready(Err(why)) => return Err(why),
                Poll::Pending => break,
            }
        }
        if self.written == self.out.len() {
            self.out.clear();
            self.out.shrink_to(KEEP_BYTES_MAX);
            self.written = 0;
        }
        if self.unflushed {
            match self.socket.poll_flush(cx) {
                Poll::Ready(Ok(())) => self.unflushed = false,
                Poll::Ready(Err(why)) => return Err(why),
                Poll::Pending => {}
            }
        }
        if wrote {
            self.last_write = Instant::now();
        }
        Ok(wrote)
    }

    pub(crate) fn next_frame(&mut self) -> Result<Option<Incoming>, Garbled> {
        self.reader.next()
    }

    /// Queues a heartbeat when nothing was sent for half the interval (specification 4.2.7). Bytes that wait to be sent will
    /// do as well as one.
    pub(crate) fn keep_alive(&mut self, now: Instant) {
        let idle = now.saturating_duration_since(self.last_write);
        if idle >= self.tuning.heartbeat / 2 && self.out.is_empty() {
            encode::heartbeat(&mut self.out);
        }
    }

    /// Nothing came for two intervals: the peer is dead, or the way to it.
    pub(crate) fn is_silent(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.last_read) > self.silence_max()
    }

    pub(crate) fn silence_max(&self) -> Duration {
        self.tuning.heartbeat * 2
    }
}
