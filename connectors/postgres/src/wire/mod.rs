//! A client of PostgreSQL's WAL sender: login, commands, and the two-way copy stream of a replication slot.
//!
//! PostgreSQL manual, "Streaming Replication Protocol". Messages are read in place from one buffer that large reads fill.

mod buffer;
mod login;
mod pace;
mod socket;
mod watched;

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use bytes::BytesMut;
use postgres_protocol::message::frontend;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use towpath_contract::{Action, Error, ErrorKind, Result};

pub(crate) use login::no_password;
pub(crate) use socket::{Address, Settled, Socket};

use crate::connect::Login;
use crate::failure::{self, ServerError};
use crate::position::Lsn;
use buffer::Buffer;
use pace::Pace;

/// Microseconds from 1970-01-01 to 2000-01-01, where PostgreSQL's clock starts.
pub(crate) const POSTGRES_EPOCH_US: i64 = 946_684_800_000_000;

const STREAMING: &str = "reading the replication stream";

/// A session with `replication=database`.
pub(crate) struct WalSender {
    socket: Socket,
    input: Buffer,
    /// Written as far as the socket takes it; the rest stays for the next call, so that a dropped future cuts no message.
    output: VecDeque<u8>,
    pace: Pace,
    /// Length of the message that `receive` handed out last.
    received: usize,
}

/// One message of the protocol, borrowed from the buffer.
pub(crate) struct Message<'a> {
    pub(crate) tag: u8,
    pub(crate) body: &'a [u8],
}

/// One message of the copy stream, borrowed from the buffer.
pub(crate) enum Frame<'a> {
    /// XLogData: `lsn` is the log address of what the body tells (0 for pgoutput's Relation, Type and Origin).
    Data { lsn: Lsn, body: &'a [u8] },
    /// Everything committed below `end` was sent before this.
    Keepalive { end: Lsn, reply: bool },
    /// A warning of the server's.
    Notice(ServerError),
    /// A changed parameter.
    Aside,
}

pub(crate) struct SystemInfo {
    pub(crate) system_id: String,
    pub(crate) timeline: String,
    pub(crate) flushed: Lsn,
}

/// What the server is told: see "Standby status update".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Status {
    pub(crate) write: Lsn,
    pub(crate) flush: Lsn,
    pub(crate) apply: Lsn,
}

impl WalSender {
    pub(crate) async fn connect(
        address: &Address,
        tls: Option<&Arc<rustls::ClientConfig>>,
        login: &Login,
    ) -> Result<WalSender> {
        let socket = Socket::open(address, tls, "connecting for replication").await?;
        let mut session = WalSender {
            socket,
            input: Buffer::new(),
            output: VecDeque::new(),
            pace: Pace::new(Instant::now()),
            received: 0,
        };
        login::log_in(&mut session, login).await?;
        Ok(session)
    }

    fn binding(&self) -> Option<&[u8]> {
        self.socket.binding()
    }

    pub(crate) async fn identify_system(&mut self) -> Result<SystemInfo> {
        const OPERATION: &str = "asking for the system's identity";
        let row = self.query("IDENTIFY_SYSTEM", OPERATION).await?;
        let column = |index: usize| row.get(index).cloned().flatten();
        match (column(0), column(1), column(2).and_then(|text| text.parse().ok())) {
            (Some(system_id), Some(timeline), Some(flushed)) => Ok(SystemInfo { system_id, timeline, flushed }),
            _ => Err(protocol_error("the answer to IDENTIFY_SYSTEM lacks a column", OPERATION)),
        }
    }

    /// The ancestors of a timeline, as its history file lists them; `None` where the server has no such file, which the first
    /// timeline has none of.
    pub(crate) async fn timeline_history(&mut self, timeline: &str) -> Result<Option<String>> {
        let answer = self.query(&format!("TIMELINE_HISTORY {timeline}"), "asking for the timeline's history").await;
        match answer {
            Ok(mut row) => Ok(row.pop().flatten()),
            Err(error) if failure::has_state(&error, "58P01") => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Runs a command and gives the last row of its answer.
    async fn query(&mut self, command: &str, operation: &str) -> Result<Vec<Option<String>>> {
        self.send_query(command, operation).await?;
        let (mut row, mut refused) = (Vec::new(), None);
        loop {
            let message = match self.receive(operation).await {
                Ok(message) => message,
                Err(lost) => return Err(refused.unwrap_or(lost)),
            };
            match message.tag {
                b'D' => {
                    row = data_row(message.body).ok_or_else(|| protocol_error("a result row is cut", operation))?;
                }
                b'Z' => return refused.map_or(Ok(row), Err),
                // What ends the session is told before its end; after all else comes its readiness.
                b'E' => refused = Some(ServerError::parse(message.body).into_error(operation)),
                b'T' | b'C' | b'N' | b'S' => {}
                tag => return Err(unexpected(tag, operation)),
            }
        }
    }

    async fn send_query(&mut self, command: &str, operation: &str) -> Result<()> {
        let mut out = BytesMut::new();
        frontend::query(command, &mut out).map_err(|error| Error::bug(operation, error))?;
        self.send(&out, operation).await
    }

    /// Sends START_REPLICATION and waits for the stream to be open.
    pub(crate) async fn start(&mut self, command: &str, operation: &str) -> Result<Result<(), ServerError>> {
        self.send_query(command, operation).await?;
        loop {
            let message = self.receive(operation).await?;
            match message.tag {
                b'W' => {
                    self.input.consume(std::mem::take(&mut self.received));
                    return Ok(Ok(()));
                }
                b'E' => return Ok(Err(ServerError::parse(message.body))),
                b'N' | b'S' => {}
                tag => return Err(unexpected(tag, operation)),
            }
        }
    }

    /// The next message of the copy stream, if all of it was read, and its length, to be consumed by [`WalSender::consume`].
    pub(crate) fn peek(&self) -> Result<Result<Option<(Frame<'_>, usize)>, ServerError>> {
        let Some((message, length)) = first_message(self.input.unread(), STREAMING)? else { return Ok(Ok(None)) };
        let frame = match message.tag {
            b'd' => copy_frame(message.body)?,
            b'N' => Frame::Notice(ServerError::parse(message.body)),
            b'S' => Frame::Aside,
            b'E' => return Ok(Err(ServerError::parse(message.body))),
            // The server ends the stream only when it shuts down.
            b'c' | b'C' | b'Z' => {
                return Err(Error::retry(ErrorKind::Connection, STREAMING, "the server ended the replication stream"));
            }
            tag => return Err(unexpected(tag, STREAMING)),
        };
        Ok(Ok(Some((frame, length))))
    }

    pub(crate) fn consume(&mut self, length: usize) {
        self.input.consume(length);
    }

    /// Waits for bytes and reads them. Cancel-safe.
    pub(crate) async fn fill(&mut self) -> Result<()> {
        self.pause_under_load().await?;
        let expected = expected_length(self.input.unread());
        let space = self.input.space(expected);
        let room = space.len();
        let read = self.socket.read(space).await;
        self.took(read, room)
    }

    /// Reads what is there. `false`: nothing was. Cancel-safe; waits only for the pause that load calls for.
    pub(crate) async fn fill_now(&mut self) -> Result<bool> {
        self.pause_under_load().await?;
        let expected = expected_length(self.input.unread());
        let space = self.input.space(expected);
        let room = space.len();
        match socket::read_now(&mut self.socket, space).await {
            None => Ok(false),
            Some(read) => self.took(read, room).map(|()| true),
        }
    }

    async fn pause_under_load(&mut self) -> Result<()> {
        if self.pace.wants_pause(Instant::now()) {
            self.socket.set_aside().map_err(|error| failure::lost(&error, STREAMING))?;
            tokio::time::sleep(pace::PAUSE).await;
            self.pace.on_pause(Instant::now());
        }
        Ok(())
    }

    fn took(&mut self, read: io::Result<usize>, room: usize) -> Result<()> {
        match read {
            Ok(0) => Err(failure::lost(&io::ErrorKind::UnexpectedEof.into(), STREAMING)),
            Ok(count) => {
                self.input.filled(count);
                self.pace.on_read(Instant::now(), count, room);
                Ok(())
            }
            Err(error) => Err(failure::lost(&error, STREAMING)),
        }
    }

    /// Queues a status update; [`WalSender::flush`] sends it.
    pub(crate) fn queue_status(&mut self, status: Status, ask_for_reply: bool) {
        let mut message = Vec::with_capacity(39);
        message.push(b'd');
        message.extend_from_slice(&38u32.to_be_bytes());
        message.push(b'r');
        for lsn in [status.write, status.flush, status.apply] {
            message.extend_from_slice(&lsn.0.to_be_bytes());
        }
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |span| span.as_micros() as i64);
        message.extend_from_slice(&(since_1970 - POSTGRES_EPOCH_US).to_be_bytes());
        message.push(u8::from(ask_for_reply));
        self.output.extend(message);
    }

    /// Sends what is queued. Cancel-safe.
    pub(crate) async fn flush(&mut self) -> Result<()> {
        let lost = |error: io::Error| failure::lost(&error, "telling the server what was recorded");
        while !self.output.is_empty() {
            let written = self.socket.write(self.output.as_slices().0).await.map_err(lost)?;
            if written == 0 {
                return Err(lost(io::ErrorKind::UnexpectedEof.into()));
            }
            self.output.drain(..written);
        }
        self.socket.flush().await.map_err(lost)
    }

    /// Ends the stream in order: the server has then read everything that was sent to it, and let the slot go.
    pub(crate) async fn end(&mut self) -> Result<()> {
        const OPERATION: &str = "ending the replication stream";
        let mut out = BytesMut::new();
        frontend::copy_done(&mut out);
        self.output.extend(&out);
        self.flush().await?;
        // What is still on its way is thrown away: it was not recorded and will be sent again.
        while self.receive(OPERATION).await?.tag != b'Z' {}
        out.clear();
        frontend::terminate(&mut out);
        self.send(&out, OPERATION).await
    }

    async fn send(&mut self, bytes: &[u8], operation: &str) -> Result<()> {
        let lost = |error: io::Error| failure::lost(&error, operation);
        self.socket.write_all(bytes).await.map_err(lost)?;
        self.socket.flush().await.map_err(lost)
    }

    /// The next message of a conversation; it is consumed with the next call. Not for the copy stream.
    async fn receive(&mut self, operation: &str) -> Result<Message<'_>> {
        self.input.consume(std::mem::take(&mut self.received));
        while first_message(self.input.unread(), operation)?.is_none() {
            let expected = expected_length(self.input.unread());
            let read = self.socket.read(self.input.space(expected)).await;
            match read {
                Ok(0) => return Err(failure::lost(&io::ErrorKind::UnexpectedEof.into(), operation)),
                Ok(count) => self.input.filled(count),
                Err(error) => return Err(failure::lost(&error, operation)),
            }
        }
        let (message, length) = first_message(self.input.unread(), operation)?
            .ok_or_else(|| Error::bug(operation, "a message that was there is gone"))?;
        self.received = length;
        Ok(message)
    }
}

/// The message at the start of these bytes, and its length with its head; `None` while part of it is missing.
fn first_message<'a>(bytes: &'a [u8], operation: &str) -> Result<Option<(Message<'a>, usize)>> {
    let Some((head, _)) = bytes.split_first_chunk::<5>() else { return Ok(None) };
    let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]);
    // A message is at most 1 GB (a row's limit) and a little; its length counts itself.
    if !(4..=i32::MAX as u32).contains(&length) {
        return Err(protocol_error("a message has an impossible length", operation));
    }
    let length = length as usize + 1;
    Ok(bytes.get(5..length).map(|body| (Message { tag: head[0], body }, length)))
}

/// The length of the message that is arriving, 0 while unknown.
fn expected_length(bytes: &[u8]) -> usize {
    match bytes.split_first_chunk::<5>() {
        Some((head, _)) => u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize + 1,
        None => 0,
    }
}

fn copy_frame(body: &[u8]) -> Result<Frame<'_>> {
    let lsn_at = |at: usize| {
        let bytes = body.get(at..at + 8).and_then(|bytes| bytes.try_into().ok());
        bytes.map(|bytes| Lsn(u64::from_be_bytes(bytes)))
    };
    let cut = || protocol_error("a copy message is cut", STREAMING);
    match body.first() {
        // Start, end, time, data. The end repeats the start for a logical stream.
        Some(b'w') => Ok(Frame::Data { lsn: lsn_at(1).ok_or_else(cut)?, body: body.get(25..).ok_or_else(cut)? }),
        // End, time, whether a reply is wanted.
        Some(b'k') => {
            Ok(Frame::Keepalive { end: lsn_at(1).ok_or_else(cut)?, reply: *body.get(17).ok_or_else(cut)? == 1 })
        }
        Some(&tag) => Err(unexpected(tag, STREAMING)),
        None => Err(cut()),
    }
}

fn data_row(body: &[u8]) -> Option<Vec<Option<String>>> {
    let (count, mut rest) = body.split_first_chunk::<2>()?;
    let mut row = Vec::new();
    for _ in 0..u16::from_be_bytes(*count) {
        let (length, after) = rest.split_first_chunk::<4>()?;
        rest = after;
        match u32::from_be_bytes(*length) {
            u32::MAX => row.push(None),
            length => {
                let (text, after) = rest.split_at_checked(length as usize)?;
                row.push(Some(String::from_utf8_lossy(text).into_owned()));
                rest = after;
            }
        }
    }
    Some(row)
}

fn protocol_error(message: &str, operation: &str) -> Error {
    Error::new(ErrorKind::Protocol, Action::Bug, operation, message)
}

fn unexpected(tag: u8, operation: &str) -> Error {
    let message = format!("the server sent an unexpected message of type '{}'", tag.escape_ascii());
    Error::new(ErrorKind::Protocol, Action::Bug, operation, message)
}

/// What [`WalSender::peek`] and a conversation do with bytes, for `fuzz/`.
#[cfg(any(test, fuzzing))]
pub(crate) fn take_apart(mut bytes: &[u8]) {
    while let Ok(Some((message, length))) = first_message(bytes, STREAMING) {
        // Reading them is all that matters.
        match message.tag {
            b'd' => drop(copy_frame(message.body)),
            b'D' => drop(data_row(message.body)),
            _ => drop(ServerError::parse(message.body).into_error(STREAMING)),
        }
        bytes = &bytes[length..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_taken_when_all_of_it_is_there() {
        let bytes = [b'd', 0, 0, 0, 6, 1, 2, b'Z'];
        for end in 0..7 {
            assert!(first_message(&bytes[..end], "t").unwrap().is_none(), "{end}");
        }
        let (message, length) = first_message(&bytes, "t").unwrap().unwrap();
        assert_eq!((message.tag, message.body, length), (b'd', &[1u8, 2][..], 7));
        assert!(first_message(&[b'd', 0, 0, 0, 3], "t").is_err());
        assert!(first_message(&[b'd', 0x80, 0, 0, 0], "t").is_err());
    }

    #[test]
    fn cut_copy_messages_are_refused() {
        let data = [&b"w"[..], &[0; 7], &[9], &[0; 16], b"B..."].concat();
        assert!(matches!(copy_frame(&data).unwrap(), Frame::Data { lsn: Lsn(9), body: b"B..." }));
        let keepalive = [&b"k"[..], &[0; 7], &[7], &[0; 8], &[1]].concat();
        assert!(matches!(copy_frame(&keepalive).unwrap(), Frame::Keepalive { end: Lsn(7), reply: true }));
        for whole in [&data[..25], &keepalive[..]] {
            for end in 0..whole.len() {
                assert!(copy_frame(&whole[..end]).is_err(), "{end}");
            }
        }
        assert!(copy_frame(b"x").is_err());
    }

    #[test]
    fn result_rows_are_read() {
        let body = [&[0u8, 2, 0, 0, 0, 2][..], b"ab", &[255; 4]].concat();
        assert_eq!(data_row(&body), Some(vec![Some("ab".into()), None]));
        assert_eq!(data_row(&body[..9]), None);
    }
}
