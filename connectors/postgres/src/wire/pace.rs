//! When to wait a moment before the next read.
//!
//! Under load the WAL sender writes a little into the socket, wakes us, writes a little more: both sides spend their time
//! on system calls. A pause of a few milliseconds lets it fill the socket: it halves the WAL sender's CPU and doubles its
//! rate. It begins when many small reads come in a row and goes on as long as each pause brings a lot. At rest there is
//! none, so that a lone change waits for nothing.

use std::time::{Duration, Instant};

const WINDOW: Duration = Duration::from_millis(2);
const READS_PER_WINDOW_MAX: u32 = 8;
/// What a pause must bring to be followed by another: about 8 MB/s.
const PAUSE_BYTES_MIN: usize = 16 << 10;

pub(crate) const PAUSE: Duration = Duration::from_millis(2);

pub(crate) struct Pace {
    window_start: Instant,
    /// Since then.
    reads: u32,
    /// The next read comes after a pause.
    paused: bool,
    /// The last pause was worth it, and what it brought has been read.
    again: bool,
}

impl Pace {
    pub(crate) fn new(now: Instant) -> Pace {
        Pace { window_start: now, reads: 0, paused: false, again: false }
    }

    /// `room`: what the read could have taken. A read that was filled leaves more in the socket.
    pub(crate) fn on_read(&mut self, now: Instant, bytes: usize, room: usize) {
        let after_pause = std::mem::take(&mut self.paused);
        if bytes == room {
            // Still taking what the pause brought.
            self.paused = after_pause;
            return;
        }
        self.again = after_pause && bytes >= PAUSE_BYTES_MIN;
        if now.duration_since(self.window_start) > WINDOW {
            (self.window_start, self.reads) = (now, 0);
        }
        self.reads += 1;
    }

    pub(crate) fn wants_pause(&self, now: Instant) -> bool {
        let burst = self.reads > READS_PER_WINDOW_MAX && now.duration_since(self.window_start) <= WINDOW * 2;
        !self.paused && (self.again || burst)
    }

    pub(crate) fn on_pause(&mut self, now: Instant) {
        *self = Pace { paused: true, ..Pace::new(now) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOM: usize = 256 << 10;

    #[test]
    fn few_reads_call_for_no_pause() {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        for read in 0..100 {
            let now = start + Duration::from_micros(read * 500);
            pace.on_read(now, 1000, ROOM);
            assert!(!pace.wants_pause(now), "2,000 reads a second");
        }
    }

    #[test]
    fn many_in_a_row_do_and_a_pause_that_brings_much_is_followed_by_another() {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        for read in 0..20 {
            pace.on_read(start + Duration::from_micros(read * 100), 1000, ROOM);
        }
        let now = start + WINDOW;
        assert!(pace.wants_pause(now), "10,000 reads a second");
        assert!(!pace.wants_pause(start + Duration::from_millis(20)), "it is quiet again");

        pace.on_pause(now);
        assert!(!pace.wants_pause(now), "one is enough");
        pace.on_read(now, ROOM, ROOM);
        assert!(!pace.wants_pause(now), "more is at hand");
        pace.on_read(now, 30_000, ROOM);
        assert!(pace.wants_pause(now + Duration::from_secs(1)), "the load goes on");
        pace.on_pause(now);
        pace.on_read(now, 500, ROOM);
        assert!(!pace.wants_pause(now), "the load is over");
    }
}
