//! The bare pipe: the server's log → JSON → AMQP frames, and the slot is confirmed as the broker confirms. No outbox, no mapping, no
//! snapshot, no reconnect, text and integers alone: what this machine can do at most, and no product.

use std::collections::{HashMap, VecDeque};
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::amqp::{self, Ack};

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    postgres_port: u16,
    slot: String,
    publication: String,
    amqp_port: u16,
    queue: String,
    /// Bodies are filled up to this.
    body_bytes: usize,
    /// Of headers besides.
    header_bytes: usize,
    /// The changes of a transaction in one message, a line each.
    #[arg(long)]
    bundled: bool,
}

/// Unconfirmed messages at a time.
const WINDOW: u64 = 2000;
const WRITE_BYTES: usize = 128 << 10;
/// More reads than this in `BURST` mean a backlog: a pause lets the server fill the socket.
const READS_IN_A_BURST: u32 = 10;
const BURST: Duration = Duration::from_millis(2);
const PAUSE: Duration = Duration::from_millis(3);
const FEEDBACK_EVERY: Duration = Duration::from_secs(1);

/// Runs until it is killed.
pub(crate) fn run(arguments: &Arguments) -> io::Result<()> {
    let (broker, reader) = amqp::connect(arguments.amqp_port)?;
    let confirmed = Arc::new(AtomicU64::new(0));
    count_confirms(reader, confirmed.clone());
    let mut pipe = Pipe {
        broker,
        publish: amqp::publish_method(&arguments.queue),
        properties: amqp::properties(arguments.header_bytes),
        body_bytes: arguments.body_bytes,
        bundled: arguments.bundled,
        confirmed,
        relations: HashMap::new(),
        transaction: Transaction::default(),
        sent: 0,
        commits: VecDeque::new(),
        confirmed_lsn: 0,
        out: Vec::with_capacity(1 << 20),
        json: Vec::with_capacity(4096),
    };
    let mut server = replicate(arguments)?;
    let mut input = Input { bytes: vec![0; 1 << 20], from: 0, to: 0 };
    let (mut told, mut burst) = (Instant::now(), (0u32, Instant::now()));
    loop {
        let mut full = false;
        while let Some(length) = input.message()? {
            full = pipe.sent - pipe.confirmed.load(Ordering::Acquire) >= WINDOW;
            if full {
                break;
            }
            let wants_answer = pipe.take(&input.bytes[input.from..input.from + length])?;
            input.from += length;
            if wants_answer {
                pipe.tell(&mut server)?;
            }
        }
        pipe.flush()?;
        if told.elapsed() > FEEDBACK_EVERY {
            told = Instant::now();
            pipe.tell(&mut server)?;
        }
        if full {
            std::thread::park_timeout(Duration::from_millis(1));
            continue;
        }
        burst.0 += 1;
        if burst.1.elapsed() > BURST {
            if burst.0 > READS_IN_A_BURST {
                std::thread::sleep(PAUSE);
            }
            burst = (0, Instant::now());
        }
        input.fill(&mut server)?;
    }
}

fn count_confirms(mut reader: impl Read + Send + 'static, confirmed: Arc<AtomicU64>) {
    let sender = std::thread::current();
    std::thread::spawn(move || {
        // Of the tags from `base` on, those that were confirmed by themselves.
        let (mut base, mut ahead, mut count) = (1u64, VecDeque::new(), 0u64);
        loop {
            let Ack { tag, multiple } = amqp::read_ack(&mut reader).expect("the broker goes on");
            while multiple && base <= tag {
                count += u64::from(!ahead.pop_front().unwrap_or(false));
                base += 1;
            }
            if !multiple && tag >= base {
                let at = (tag - base) as usize;
                ahead.resize(ahead.len().max(at + 1), false);
                count += u64::from(!ahead[at]);
                ahead[at] = true;
            }
            while ahead.front() == Some(&true) {
                ahead.pop_front();
                base += 1;
            }
            confirmed.store(count, Ordering::Release);
            sender.unpark();
        }
    });
}

/// PostgreSQL manual, "Frontend/Backend Protocol" and "Streaming Replication Protocol".
fn replicate(arguments: &Arguments) -> io::Result<TcpStream> {
    let mut server = TcpStream::connect(("127.0.0.1", arguments.postgres_port))?;
    server.set_nodelay(true)?;
    let startup = b"\x00\x03\x00\x00user\0postgres\0database\0postgres\0replication\0database\0\0";
    server.write_all(&framed(None, startup))?;
    let command = format!(
        "START_REPLICATION SLOT \"{}\" LOGICAL 0/0 (proto_version '1', publication_names '{}')\0",
        arguments.slot, arguments.publication
    );
    server.write_all(&framed(Some(b'Q'), command.as_bytes()))?;
    server.set_read_timeout(Some(Duration::from_millis(500)))?;
    Ok(server)
}

fn framed(kind: Option<u8>, body: &[u8]) -> Vec<u8> {
    let length = (body.len() as u32 + 4).to_be_bytes();
    kind.into_iter().chain(length).chain(body.iter().copied()).collect()
}

struct Input {
    bytes: Vec<u8>,
    from: usize,
    to: usize,
}

impl Input {
    /// The length of the whole message at hand.
    fn message(&self) -> io::Result<Option<usize>> {
        let bytes = &self.bytes[self.from..self.to];
        if bytes.len() < 5 {
            return Ok(None);
        }
        let length = number(&bytes[1..5]) as usize + 1;
        match bytes[0] {
            b'E' => Err(io::Error::other(String::from_utf8_lossy(bytes).into_owned())),
            _ => Ok((bytes.len() >= length).then_some(length)),
        }
    }

    fn fill(&mut self, server: &mut TcpStream) -> io::Result<()> {
        self.bytes.copy_within(self.from..self.to, 0);
        (self.from, self.to) = (0, self.to - self.from);
        match server.read(&mut self.bytes[self.to..]) {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => {
                self.to += count;
                Ok(())
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

#[derive(Default)]
struct Transaction {
    xid: u64,
    time_us: u64,
    lsn: u64,
}

struct Relation {
    name: String,
    /// Name, and whether JSON takes the text as it is.
    columns: Vec<(String, bool)>,
}

struct Pipe {
    broker: TcpStream,
    publish: Vec<u8>,
    properties: Vec<u8>,
    body_bytes: usize,
    bundled: bool,
    confirmed: Arc<AtomicU64>,
    relations: HashMap<u64, Relation>,
    transaction: Transaction,
    sent: u64,
    /// Messages sent up to a commit, and where it ends in the log.
    commits: VecDeque<(u64, u64)>,
    confirmed_lsn: u64,
    out: Vec<u8>,
    json: Vec<u8>,
}

impl Pipe {
    /// Gives whether the server wants an answer.
    fn take(&mut self, message: &[u8]) -> io::Result<bool> {
        // Other than CopyData: answers to the command.
        if message[0] != b'd' {
            return Ok(false);
        }
        if message[5] == b'k' {
            return Ok(message[22] == 1);
        }
        let data = &message[30..];
        match data[0] {
            b'B' => {
                // PostgreSQL counts from 2000.
                let time_us = number(&data[9..17]) + 946_684_800_000_000;
                self.transaction = Transaction { xid: number(&data[17..21]), time_us, lsn: number(&data[1..9]) };
            }
            b'C' => {
                if self.bundled {
                    self.publish()?;
                }
                self.commits.push_back((self.sent, number(&data[10..18])));
            }
            b'R' => drop(self.relations.insert(number(&data[1..5]), relation(data))),
            b'I' | b'U' | b'D' => self.change(data)?,
            _ => {}
        }
        Ok(false)
    }

    fn change(&mut self, data: &[u8]) -> io::Result<()> {
        let relation = &self.relations[&number(&data[1..5])];
        let Transaction { xid, time_us, lsn } = self.transaction;
        let op = match data[0] {
            b'I' => 'c',
            b'U' => 'u',
            _ => 'd',
        };
        let json = &mut self.json;
        let start = json.len();
        write!(
            json,
            "{{\"op\":\"{op}\",\"source\":{{\"connector\":\"postgresql\",\"table\":\"{}\",\"txId\":{xid},\"lsn\":{lsn},\
             \"ts_us\":{time_us},\"seq\":{}}}",
            relation.name,
            self.sent + 1
        )?;
        let mut at = 5;
        if data[0] != b'I' && data[at] != b'N' {
            json.extend_from_slice(b",\"before\":");
            let key_alone = data[at] == b'K';
            at += 1;
            tuple(json, relation, data, &mut at, key_alone);
        }
        if data[0] != b'D' {
            json.extend_from_slice(b",\"after\":");
            at += 1;
            tuple(json, relation, data, &mut at, false);
        }
        if json.len() - start + 10 < self.body_bytes {
            json.extend_from_slice(b",\"pad\":\"");
            json.resize(start + self.body_bytes - 2, b'p');
            json.push(b'"');
        }
        json.push(b'}');
        if self.bundled {
            json.push(b'\n');
            return Ok(());
        }
        self.publish()
    }

    fn publish(&mut self) -> io::Result<()> {
        amqp::message(&mut self.out, &self.publish, &self.properties, &self.json);
        self.json.clear();
        self.sent += 1;
        if self.out.len() > WRITE_BYTES { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.broker.write_all(&self.out)?;
        self.out.clear();
        Ok(())
    }

    /// A standby status update: what the broker has confirmed may be forgotten.
    fn tell(&mut self, server: &mut TcpStream) -> io::Result<()> {
        let confirmed = self.confirmed.load(Ordering::Acquire);
        while let Some((_, lsn)) = self.commits.front().filter(|(sent, _)| *sent <= confirmed) {
            self.confirmed_lsn = *lsn;
            self.commits.pop_front();
        }
        let lsn = self.confirmed_lsn.to_be_bytes();
        server.write_all(&framed(Some(b'd'), &[b"r", &lsn[..], &lsn, &lsn, &[0; 8], &[0]].concat()))
    }
}

/// PostgreSQL manual, "Logical Replication Message Formats", Relation.
fn relation(data: &[u8]) -> Relation {
    let mut at = 5;
    let (schema, table) = (text(data, &mut at), text(data, &mut at));
    let count = number(&data[at + 1..at + 3]);
    at += 3;
    let mut column = || {
        at += 1;
        let name = text(data, &mut at);
        // smallint, integer, bigint
        let plain = matches!(number(&data[at..at + 4]), 20 | 21 | 23);
        at += 8;
        (name, plain)
    };
    Relation { name: format!("{schema}.{table}"), columns: (0..count).map(|_| column()).collect() }
}

/// The same, TupleData.
fn tuple(json: &mut Vec<u8>, relation: &Relation, data: &[u8], at: &mut usize, key_alone: bool) {
    let count = number(&data[*at..*at + 2]) as usize;
    *at += 2;
    json.push(b'{');
    let mut first = true;
    for (name, plain) in relation.columns.iter().take(count) {
        let kind = data[*at];
        *at += 1;
        let mut value = None;
        if kind == b't' {
            let length = number(&data[*at..*at + 4]) as usize;
            value = Some(&data[*at + 4..*at + 4 + length]);
            *at += 4 + length;
        }
        if kind == b'u' || (key_alone && value.is_none()) {
            continue;
        }
        if !std::mem::take(&mut first) {
            json.push(b',');
        }
        json.push(b'"');
        json.extend_from_slice(name.as_bytes());
        json.extend_from_slice(b"\":");
        match value {
            None => json.extend_from_slice(b"null"),
            Some(value) if *plain => json.extend_from_slice(value),
            Some(value) => string(json, value),
        }
    }
    json.push(b'}');
}

fn string(json: &mut Vec<u8>, value: &[u8]) {
    json.push(b'"');
    let mut from = 0;
    for (at, byte) in value.iter().enumerate() {
        if matches!(byte, b'"' | b'\\' | 0..0x20) {
            json.extend_from_slice(&value[from..at]);
            json.extend_from_slice(format!("\\u{byte:04x}").as_bytes());
            from = at + 1;
        }
    }
    json.extend_from_slice(&value[from..]);
    json.push(b'"');
}

fn text(data: &[u8], at: &mut usize) -> String {
    let end = *at + data[*at..].iter().position(|byte| *byte == 0).expect("a name ends with a zero byte");
    let text = String::from_utf8_lossy(&data[*at..end]).into_owned();
    *at = end + 1;
    text
}

/// Big-endian, of up to eight bytes.
fn number(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
}
