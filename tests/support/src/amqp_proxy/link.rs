//! One connection: a pump for each direction, and the ledger between them.

use std::sync::Mutex;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::sync::watch;
use tokio::time::Instant;

use super::Control;
use super::frames::Garbled;
use super::ledger::Ledger;
use super::witness::{Told, Witness};

/// At least so much room for what is read next.
const READ_BYTES: usize = 64 << 10;

/// Forwards until the connection ends.
pub(super) async fn forward(
    number: u64,
    mut client: TcpStream,
    mut broker: TcpStream,
    commands: watch::Receiver<Control>,
    witness: &Mutex<Witness>,
) -> Result<(), Garbled> {
    let _ = (client.set_nodelay(true), broker.set_nodelay(true));
    let ledger = Mutex::new(Ledger::new(number));
    let (client_in, client_out) = client.split();
    let (broker_in, mut broker_out) = broker.split();
    let to_broker = async {
        pump_up(client_in, &mut broker_out, &commands, &ledger).await?;
        // The broker takes it from there: it may still have to say something.
        let _ = broker_out.shutdown().await;
        std::future::pending::<Result<(), Garbled>>().await
    };
    tokio::select! {
        ended = to_broker => ended,
        ended = pump_down(broker_in, client_out, commands.clone(), &ledger, witness) => ended,
    }
}

/// Until the client ends.
async fn pump_up(
    mut client: ReadHalf<'_>,
    broker: &mut WriteHalf<'_>,
    commands: &watch::Receiver<Control>,
    ledger: &Mutex<Ledger>,
) -> Result<(), Garbled> {
    let mut buffer = Vec::new();
    loop {
        buffer.reserve(READ_BYTES);
        let Ok(1..) = client.read_buf(&mut buffer).await else { return Ok(()) };
        let mode = commands.borrow().confirms;
        // Entered before the broker gets it, and so before its answer.
        let whole = ledger.lock().expect("nobody panics while holding it").sent(mode, &buffer)?;
        if broker.write_all(&buffer[..whole]).await.is_err() {
            return Ok(());
        }
        buffer.drain(..whole);
    }
}

/// Until the broker ends, or the client cannot be written to.
async fn pump_down(
    mut broker: ReadHalf<'_>,
    client: WriteHalf<'_>,
    mut commands: watch::Receiver<Control>,
    ledger: &Mutex<Ledger>,
    witness: &Mutex<Witness>,
) -> Result<(), Garbled> {
    let (mut buffer, mut told) = (Vec::new(), Told::default());
    loop {
        let (mode, now) = (commands.borrow_and_update().confirms, Instant::now());
        let due = {
            let mut ledger = ledger.lock().expect("nobody panics while holding it");
            let whole = ledger.heard(mode, now, &buffer, &mut told)?;
            buffer.drain(..whole);
            ledger.tell(mode, now, &mut told);
            ledger.due(mode)
        };
        if told.write(&client, witness).await.is_err() {
            return Ok(());
        }
        buffer.reserve(READ_BYTES);
        let ended = tokio::select! {
            read = broker.read_buf(&mut buffer) => !matches!(read, Ok(1..)),
            changed = commands.changed() => changed.is_err(),
            () = tokio::time::sleep_until(due.unwrap_or(now)), if due.is_some() => false,
        };
        if ended {
            return Ok(());
        }
    }
}
