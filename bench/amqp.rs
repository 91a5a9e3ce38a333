//! The least of AMQP 0-9-1 that publishes with confirms (specification, sections 2.3 and 4.2): no library, so that the bare pipe
//! shows the machine's limit and not one of ours.

use std::io::{self, BufReader, Read, Write};
use std::net::TcpStream;

const METHOD: u8 = 1;
const HEADER: u8 = 2;
const BODY: u8 = 3;
const FRAME_END: u8 = 0xCE;
/// Every message goes through this channel.
const CHANNEL: u16 = 1;

/// What one `basic.ack` says.
pub(crate) struct Ack {
    pub(crate) tag: u64,
    pub(crate) multiple: bool,
}

/// Connects as `guest` to the virtual host `/`, opens a channel and asks for confirms.
pub(crate) fn connect(port: u16) -> io::Result<(TcpStream, BufReader<TcpStream>)> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_nodelay(true)?;
    let mut reader = BufReader::with_capacity(64 << 10, stream.try_clone()?);
    let mut send = |channel: u16, class: u16, method: u16, rest: &[u8]| {
        let mut out = Vec::new();
        frame(&mut out, METHOD, channel, &[&class.to_be_bytes()[..], &method.to_be_bytes(), rest].concat());
        stream.write_all(&out)
    };
    (&reader.get_ref().try_clone()?).write_all(b"AMQP\x00\x00\x09\x01")?;
    read_frame(&mut reader)?;
    // connection.start-ok: no client properties, PLAIN.
    send(
        0,
        10,
        11,
        &[&[0, 0, 0, 0][..], &short("PLAIN"), &12u32.to_be_bytes(), b"\0guest\0guest", &short("en_US")].concat(),
    )?;
    let (_, tune) = read_frame(&mut reader)?;
    // connection.tune-ok: what was offered, without heartbeats; connection.open.
    send(0, 10, 31, &[&tune[4..10], &[0, 0]].concat())?;
    send(0, 10, 40, &[&short("/")[..], &short(""), &[0]].concat())?;
    read_frame(&mut reader)?;
    send(CHANNEL, 20, 10, &[0])?;
    read_frame(&mut reader)?;
    send(CHANNEL, 85, 10, &[0])?;
    read_frame(&mut reader)?;
    Ok((stream, reader))
}

/// The payload of `basic.publish` to the default exchange.
pub(crate) fn publish_method(queue: &str) -> Vec<u8> {
    [&60u16.to_be_bytes()[..], &40u16.to_be_bytes(), &[0, 0], &short(""), &short(queue), &[0]].concat()
}

/// The properties of a persistent JSON message, with so many bytes of headers: none, or eight as a CloudEvent has.
pub(crate) fn properties(header_bytes: usize) -> Vec<u8> {
    const HEADERS: usize = 8;
    const NAME: &str = "cloudEvents:attribute0";
    // A name and its length, a type, a value and its length.
    let value = (header_bytes / HEADERS).saturating_sub(1 + NAME.len() + 1 + 4);
    let header = |number: usize| {
        let name = short(&format!("{}{number}", &NAME[..NAME.len() - 1]));
        [&name[..], b"S", &(value as u32).to_be_bytes(), &vec![b'h'; value]].concat()
    };
    let (flags, table) = match header_bytes {
        0 => (0x9000u16, Vec::new()),
        _ => {
            let headers = (0..HEADERS).flat_map(header).collect::<Vec<u8>>();
            (0xB000, [&(headers.len() as u32).to_be_bytes()[..], &headers].concat())
        }
    };
    // content-type, headers, delivery-mode.
    [&flags.to_be_bytes()[..], &short("application/json"), &table, &[2]].concat()
}

/// One message, smaller than a frame.
pub(crate) fn message(out: &mut Vec<u8>, publish: &[u8], properties: &[u8], body: &[u8]) {
    frame(out, METHOD, CHANNEL, publish);
    out.push(HEADER);
    out.extend_from_slice(&CHANNEL.to_be_bytes());
    out.extend_from_slice(&(12 + properties.len() as u32).to_be_bytes());
    out.extend_from_slice(&60u32.to_be_bytes()[2..]);
    out.extend_from_slice(&[0, 0]);
    out.extend_from_slice(&(body.len() as u64).to_be_bytes());
    out.extend_from_slice(properties);
    out.push(FRAME_END);
    frame(out, BODY, CHANNEL, body);
}

/// Waits for the next confirm.
///
/// # Panics
/// When the broker says anything else than `basic.ack`.
pub(crate) fn read_ack(reader: &mut impl Read) -> io::Result<Ack> {
    loop {
        let (kind, payload) = read_frame(reader)?;
        if kind == METHOD {
            assert_eq!(payload[..4], [0, 60, 0, 80], "the broker said something else than basic.ack: {payload:?}");
            let tag = u64::from_be_bytes(payload[4..12].try_into().expect("8 bytes"));
            return Ok(Ack { tag, multiple: payload[12] & 1 == 1 });
        }
    }
}

fn frame(out: &mut Vec<u8>, kind: u8, channel: u16, payload: &[u8]) {
    out.push(kind);
    out.extend_from_slice(&channel.to_be_bytes());
    out.extend_from_slice(&(payload.len() as u32).to_be_bytes());
    out.extend_from_slice(payload);
    out.push(FRAME_END);
}

fn read_frame(reader: &mut impl Read) -> io::Result<(u8, Vec<u8>)> {
    let mut head = [0; 7];
    reader.read_exact(&mut head)?;
    let length = u32::from_be_bytes(head[3..7].try_into().expect("4 bytes")) as usize;
    let mut payload = vec![0; length + 1];
    reader.read_exact(&mut payload)?;
    payload.truncate(length);
    Ok((head[0], payload))
}

fn short(text: &str) -> Vec<u8> {
    [&[text.len() as u8][..], text.as_bytes()].concat()
}
