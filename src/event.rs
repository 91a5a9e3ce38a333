//! Events on their way from a route to the broker: packed, so that none of them costs an allocation.
//!
//! A leaf of the engine: `route` fills these batches, `outbox` stores them, `relay` publishes them, and none of the three
//! knows another.

/// An event's place in the outbox, counted from 1 in the order of recording. 0 is "before the first".
pub type Seq = u64;

/// The number that the outbox gave to a route's name. Stable over restarts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RouteId(pub u16);

/// Events in the order of their source's changes.
#[derive(Debug, Default)]
pub struct EventBatch {
    bytes: Vec<u8>,
    heads: Vec<Head>,
    parked: usize,
}

#[derive(Clone, Debug)]
struct Head {
    seq: Seq,
    route: RouteId,
    key_hash: u64,
    start: u32,
    /// Ends of the fields, in the order of [`Event`]'s.
    ends: [u32; FIELDS],
    parked: Option<Box<str>>,
}

const FIELDS: usize = 6;

/// One event, borrowed from a batch. Everything that the broker needs, in the form in which it goes on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event<'a> {
    /// 0 until the outbox recorded it.
    pub seq: Seq,
    pub route: RouteId,
    /// Events of equal hash are published in the order of their `seq`.
    pub key_hash: u64,
    /// The AMQP `message-id`. At most 255 bytes.
    pub id: &'a str,
    /// The key by which order is kept, for people.
    pub key: &'a str,
    pub exchange: &'a str,
    pub routing_key: &'a str,
    /// AMQP 0-9-1 basic properties as in a content header: flags, then values.
    pub properties: &'a [u8],
    pub body: &'a [u8],
    /// Why this event cannot be published; it goes straight to the parked ones.
    pub parked: Option<&'a str>,
}

/// An event's place and the order that it belongs to, without its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub seq: Seq,
    pub route: RouteId,
    pub key_hash: u64,
}

impl EventBatch {
    pub fn new() -> EventBatch {
        EventBatch::default()
    }

    pub fn len(&self) -> usize {
        self.heads.len()
    }

    /// How many of them have a reason to be parked.
    pub fn parked(&self) -> usize {
        self.parked
    }

    pub fn is_empty(&self) -> bool {
        self.heads.is_empty()
    }

    /// Bytes that the batch holds, to be measured against a bound.
    pub fn bytes(&self) -> usize {
        self.bytes.len() + self.heads.len() * size_of::<Head>()
    }

    /// Starts an event. Its fields are written in the order of [`Event`]'s, each closed by [`EventWriter::end_field`].
    pub fn start(&mut self, route: RouteId) -> EventWriter<'_> {
        let start = self.bytes.len() as u32;
        EventWriter {
            batch: self,
            head: Head { seq: 0, route, key_hash: 0, start, ends: [start; FIELDS], parked: None },
            field: 0,
        }
    }

    /// Adds a whole event, `seq` included; for those that are read back.
    pub fn push(&mut self, event: Event<'_>) {
        let mut writer = self.start(event.route);
        writer.head.seq = event.seq;
        let texts = [event.id, event.key, event.exchange, event.routing_key].map(str::as_bytes);
        for field in texts.into_iter().chain([event.properties, event.body]) {
            writer.buffer().extend_from_slice(field);
            writer.end_field();
        }
        writer.finish(event.key_hash, event.parked.map(Into::into));
    }

    pub fn set_seq(&mut self, index: usize, seq: Seq) {
        self.heads[index].seq = seq;
    }

    /// # Panics
    /// When there is no event of that index.
    pub fn get(&self, index: usize) -> Event<'_> {
        let head = &self.heads[index];
        let field = |n: usize| {
            let start = if n == 0 { head.start } else { head.ends[n - 1] };
            &self.bytes[start as usize..head.ends[n] as usize]
        };
        // Written by `EventWriter`, which takes text for these fields; a lossy reading would hide a bug.
        let text = |n: usize| std::str::from_utf8(field(n)).expect("event fields are UTF-8");
        Event {
            seq: head.seq,
            route: head.route,
            key_hash: head.key_hash,
            id: text(0),
            key: text(1),
            exchange: text(2),
            routing_key: text(3),
            properties: field(4),
            body: field(5),
            parked: head.parked.as_deref(),
        }
    }

    /// What [`EventBatch::get`] gives, as far as sorting events needs it.
    ///
    /// # Panics
    /// When there is no event of that index.
    pub fn place(&self, index: usize) -> Place {
        let Head { seq, route, key_hash, .. } = self.heads[index];
        Place { seq, route, key_hash }
    }

    pub fn iter(&self) -> impl ExactSizeIterator<Item = Event<'_>> + '_ {
        (0..self.heads.len()).map(|index| self.get(index))
    }
}

/// Writes one event into a batch. Dropped without [`EventWriter::finish`], it leaves nothing behind.
pub struct EventWriter<'a> {
    batch: &'a mut EventBatch,
    head: Head,
    field: usize,
}

impl EventWriter<'_> {
    /// The current field is appended here.
    pub fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.batch.bytes
    }

    pub fn end_field(&mut self) {
        self.head.ends[self.field] = self.batch.bytes.len() as u32;
        self.field += 1;
    }

    pub fn finish(mut self, key_hash: u64, parked: Option<Box<str>>) {
        debug_assert_eq!(self.field, FIELDS);
        self.head.key_hash = key_hash;
        self.batch.parked += usize::from(parked.is_some());
        self.head.parked = parked;
        self.batch.heads.push(self.head.clone());
        self.field = usize::MAX; // finished: `drop` keeps the bytes
    }
}

impl Drop for EventWriter<'_> {
    fn drop(&mut self) {
        if self.field != usize::MAX {
            self.batch.bytes.truncate(self.head.start as usize);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event() -> Event<'static> {
        Event {
            seq: 7,
            route: RouteId(3),
            key_hash: 42,
            id: "db-1-00",
            key: "{\"id\":1}",
            exchange: "towpath",
            routing_key: "db.public.t.insert",
            properties: &[0x90, 0],
            body: b"{}",
            parked: None,
        }
    }

    #[test]
    fn what_goes_in_comes_out() {
        let mut batch = EventBatch::new();
        let parked = Event { parked: Some("too large"), body: b"", ..event() };
        batch.push(event());
        batch.push(parked);
        assert_eq!(batch.iter().collect::<Vec<_>>(), [event(), parked]);
    }

    #[test]
    fn an_abandoned_event_leaves_nothing() {
        let mut batch = EventBatch::new();
        batch.push(event());
        let before = batch.bytes();
        let mut writer = batch.start(RouteId(1));
        writer.buffer().extend_from_slice(b"half");
        writer.end_field();
        drop(writer);
        assert_eq!((batch.len(), batch.bytes()), (1, before));
    }
}
