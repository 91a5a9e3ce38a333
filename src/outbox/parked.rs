//! Setting events aside, and sending them on their way again.
//!
//! The order of a key is the order of `origin`, the seq that an event was first recorded under; it stays the same
//! however often the event is parked and released. Among the parked events of one key,
//!
//! - an event with a reason of its own holds up the later ones, where the route says `wait`;
//! - an event without a reason waits for the nearest earlier one that has a reason (`waiting_for`).
//!
//! Releasing gives an event a new seq, behind everything recorded so far, with the same id and bytes.

use rusqlite::{OptionalExtension, params};

use crate::event::{Event, EventBatch, RouteId, Seq};

use super::error::OutboxError;
use super::queue::{Moved, Parking};
use super::read::push_row;
use super::transaction::{Body, Halt, Outcome, Transaction};

/// Where an event stands in its key's order.
#[derive(Clone, Copy)]
struct Place {
    route: RouteId,
    key_hash: i64,
    origin: i64,
}

impl Transaction<'_> {
    /// An event that its route could not make publishable: what is recorded of it is for people.
    pub(super) fn insert_parked(&mut self, event: &Event<'_>, seq: Seq, reason: &str) -> rusqlite::Result<()> {
        let place = Place { route: event.route, key_hash: event.key_hash as i64, origin: seq as i64 };
        let waiting_for = self.take_place(place, seq)?;
        self.conn
            .prepare_cached(
                "INSERT INTO parked (seq, origin, route, recorded_at, parked_at, reason, unfit, waiting_for, key_hash, id, key, exchange, \
                 routing_key, properties, body) VALUES (?1, ?1, ?2, ?3, ?3, ?4, 1, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
            )?
            .execute(params![
                seq as i64,
                event.route.0,
                self.draft.now_ms,
                reason,
                waiting_for,
                place.key_hash,
                event.id,
                event.key,
                event.exchange,
                event.routing_key,
                event.properties,
                Body(event.body)
            ])?;
        self.draft.route(event.route).parked += 1;
        Ok(())
    }

    pub(super) fn park(&mut self, seq: Seq, parking: &Parking) -> Result<Outcome, Halt> {
        let found = self
            .conn
            .prepare_cached(
                "SELECT event.route, event.key_hash, coalesce(released.origin, event.seq), released.seq IS NOT NULL \
                 FROM event LEFT JOIN released ON released.seq = event.seq WHERE event.seq = ?",
            )?
            .query_row([seq as i64], |row| {
                let place = Place { route: RouteId(row.get(0)?), key_hash: row.get(1)?, origin: row.get(2)? };
                Ok((place, row.get::<_, bool>(3)?))
            })
            .optional()?;
        let Some((place, was_released)) = found else {
            // Told twice: after a crash between parking and settling, the same event may be parked again.
            let parked = self.conn.prepare_cached("SELECT 1 FROM parked WHERE seq = ?")?.exists([seq as i64])?;
            return Ok(if parked { Outcome::Parked(None) } else { Outcome::Refused(OutboxError::NoSuchEvent(seq)) });
        };
        let (reason, waiting_for) = match parking {
            Parking::Because(reason) => (Some(reason), self.take_place(place, seq)?),
            Parking::Behind => match self.reason_before(place)? {
                Some(before) => (None, Some(before)),
                // What it was to wait for was released in the meantime: it follows.
                None => return self.follow(seq, place, was_released),
            },
        };
        self.conn
            .prepare_cached(
                "INSERT INTO parked (seq, origin, route, recorded_at, parked_at, reason, unfit, waiting_for, key_hash, id, key, exchange, \
                 routing_key, properties, body) \
                 SELECT seq, ?2, route, recorded_at, ?3, ?4, 0, ?5, key_hash, id, key, exchange, routing_key, properties, body \
                 FROM event WHERE seq = ?1",
            )?
            .execute(params![seq as i64, place.origin, self.draft.now_ms, reason, waiting_for])?;
        self.remove_event(seq, place.route, was_released)?;
        self.draft.route(place.route).parked += 1;
        Ok(Outcome::Parked(None))
    }

    pub(super) fn retry(&mut self, seq: Seq) -> Result<Outcome, Halt> {
        let Some(place) = self.parked_place(seq)? else { return Ok(Outcome::Refused(OutboxError::NotParked(seq))) };
        if self.waits(place.route)
            && let Some(behind) = self.first_before(place)?
        {
            return Ok(Outcome::Refused(OutboxError::WaitsBehind { seq, behind }));
        }
        let unfit = self
            .conn
            .prepare_cached("SELECT unfit FROM parked WHERE seq = ?")?
            .query_row([seq as i64], |row| row.get::<_, bool>(0))?;
        if unfit {
            return Ok(Outcome::Refused(OutboxError::Unfit(seq)));
        }
        let mut released = 1;
        self.release_parked(seq)?;
        released += self.release_waiting(place)?;
        Ok(Outcome::Moved { moved: Moved { released, discarded: 0 }, route: place.route, through: self.draft.last_seq })
    }

    pub(super) fn discard(&mut self, seq: Seq) -> Result<Outcome, Halt> {
        let Some(place) = self.parked_place(seq)? else { return Ok(Outcome::Refused(OutboxError::NotParked(seq))) };
        self.delete_parked(seq)?;
        let draft = self.draft.route(place.route);
        draft.touched = true;
        draft.parked -= 1;
        let mut moved = Moved { released: 0, discarded: 1 };
        match self.reason_before(place)? {
            // It stood in the middle: those behind it wait for what it waited for.
            Some(before) => {
                self.conn
                    .prepare_cached(
                        "UPDATE parked SET waiting_for = ? WHERE route = ? AND key_hash = ? AND waiting_for = ?",
                    )?
                    .execute(params![before, place.route.0, place.key_hash, seq as i64])?;
            }
            None => moved.released = self.release_waiting(place)?,
        }
        Ok(Outcome::Moved { moved, route: place.route, through: self.draft.last_seq })
    }

    /// Makes room in the key's order for an event that has a reason of its own: later ones wait for it from now on.
    /// Returns what it waits for itself.
    fn take_place(&mut self, place: Place, seq: Seq) -> rusqlite::Result<Option<i64>> {
        let any = self.ledger.route(place.route).is_some_and(|route| route.parked > 0);
        let any = any || self.draft.route(place.route).parked != 0;
        if !any || !self.waits(place.route) {
            return Ok(None);
        }
        let before = self.reason_before(place)?;
        self.conn
            .prepare_cached(
                "UPDATE parked SET waiting_for = ?1 WHERE route = ?2 AND key_hash = ?3 AND origin > ?4 AND waiting_for IS ?5",
            )?
            .execute(params![seq as i64, place.route.0, place.key_hash, place.origin, before])?;
        Ok(before)
    }

    /// The nearest earlier parked event of the key that has a reason.
    fn reason_before(&self, place: Place) -> rusqlite::Result<Option<i64>> {
        self.conn
            .prepare_cached(
                "SELECT seq FROM parked WHERE route = ? AND key_hash = ? AND origin < ? AND reason IS NOT NULL \
                 ORDER BY origin DESC LIMIT 1",
            )?
            .query_row(params![place.route.0, place.key_hash, place.origin], |row| row.get(0))
            .optional()
    }

    fn first_before(&self, place: Place) -> rusqlite::Result<Option<Seq>> {
        self.conn
            .prepare_cached(
                "SELECT seq FROM parked WHERE route = ? AND key_hash = ? AND origin < ? ORDER BY origin LIMIT 1",
            )?
            .query_row(params![place.route.0, place.key_hash, place.origin], |row| Ok(row.get::<_, i64>(0)? as Seq))
            .optional()
    }

    fn parked_place(&self, seq: Seq) -> rusqlite::Result<Option<Place>> {
        self.conn
            .prepare_cached("SELECT route, key_hash, origin FROM parked WHERE seq = ?")?
            .query_row([seq as i64], |row| {
                Ok(Place { route: RouteId(row.get(0)?), key_hash: row.get(1)?, origin: row.get(2)? })
            })
            .optional()
    }

    fn waits(&self, route: RouteId) -> bool {
        self.ledger.route(route).is_some_and(|route| route.waits)
    }

    /// Releases the events that only waited, in order, up to the next one with a reason of its own.
    fn release_waiting(&mut self, place: Place) -> rusqlite::Result<u64> {
        let mut released = 0;
        let mut origin = place.origin;
        // One at a time by the index: the number that wait has no bound that memory could be sized for.
        loop {
            let next = self
                .conn
                .prepare_cached(
                    "SELECT seq, origin, reason IS NULL, waiting_for IS NULL FROM parked \
                     WHERE route = ? AND key_hash = ? AND origin > ? ORDER BY origin LIMIT 1",
                )?
                .query_row(params![place.route.0, place.key_hash, origin], |row| {
                    Ok((row.get::<_, i64>(0)?, row.get(1)?, row.get::<_, bool>(2)?, row.get::<_, bool>(3)?))
                })
                .optional()?;
            match next {
                Some((seq, its_origin, true, _)) => {
                    self.release_parked(seq as Seq)?;
                    (released, origin) = (released + 1, its_origin);
                }
                Some((seq, _, false, waits_for_none)) => {
                    if !waits_for_none {
                        self.conn
                            .prepare_cached("UPDATE parked SET waiting_for = NULL WHERE seq = ?")?
                            .execute([seq])?;
                    }
                    return Ok(released);
                }
                None => return Ok(released),
            }
        }
    }

    fn release_parked(&mut self, seq: Seq) -> rusqlite::Result<()> {
        let (route, bytes) = self
            .conn
            .prepare_cached(
                "SELECT route, octet_length(id) + octet_length(key) + octet_length(exchange) + octet_length(routing_key) \
                 + octet_length(properties) + octet_length(body) FROM parked WHERE seq = ?",
            )?
            .query_row([seq as i64], |row| Ok((RouteId(row.get(0)?), row.get::<_, i64>(1)?)))?;
        let new = self.draft.number(route);
        self.conn
            .prepare_cached(
                "INSERT INTO event (seq, route, recorded_at, key_hash, id, key, exchange, routing_key, properties, body) \
                 SELECT ?1, route, ?2, key_hash, id, key, exchange, routing_key, properties, body FROM parked WHERE seq = ?3",
            )?
            .execute(params![new as i64, self.draft.now_ms, seq as i64])?;
        self.conn
            .prepare_cached(
                "INSERT INTO released (seq, origin, route, key_hash) SELECT ?1, origin, route, key_hash FROM parked WHERE seq = ?2",
            )?
            .execute(params![new as i64, seq as i64])?;
        self.delete_parked(seq)?;
        self.draft.add(route, new, bytes as u64);
        let draft = self.draft.route(route);
        draft.parked -= 1;
        draft.released += 1;
        Ok(())
    }

    fn delete_parked(&self, seq: Seq) -> rusqlite::Result<()> {
        self.conn.prepare_cached("DELETE FROM parked WHERE seq = ?")?.execute([seq as i64]).map(drop)
    }

    /// An event that was to be parked goes out after those released before it.
    fn follow(&mut self, seq: Seq, place: Place, was_released: bool) -> Result<Outcome, Halt> {
        let mut batch = EventBatch::new();
        let new = self.draft.number(place.route);
        self.conn.prepare_cached("UPDATE event SET seq = ?, recorded_at = ? WHERE seq = ?")?.execute(params![
            new as i64,
            self.draft.now_ms,
            seq as i64
        ])?;
        let bytes = self
            .conn
            .prepare_cached(
                "SELECT seq, route, key_hash, id, key, exchange, routing_key, properties, body FROM event WHERE seq = ?",
            )?
            .query_row([new as i64], |row| push_row(row, &mut batch))?;
        self.forget_released(seq, place.route, was_released)?;
        self.conn
            .prepare_cached("INSERT INTO released (seq, origin, route, key_hash) VALUES (?, ?, ?, ?)")?
            .execute(params![new as i64, place.origin, place.route.0, place.key_hash])?;
        self.draft.add(place.route, new, bytes);
        self.draft.route(place.route).released += 1;
        Ok(Outcome::Parked(Some(batch)))
    }

    fn remove_event(&mut self, seq: Seq, route: RouteId, was_released: bool) -> rusqlite::Result<()> {
        self.conn.prepare_cached("DELETE FROM event WHERE seq = ?")?.execute([seq as i64])?;
        self.forget_released(seq, route, was_released)
    }

    fn forget_released(&mut self, seq: Seq, route: RouteId, was_released: bool) -> rusqlite::Result<()> {
        let draft = self.draft.route(route);
        draft.touched = true;
        if was_released {
            draft.released -= 1;
            self.conn.prepare_cached("DELETE FROM released WHERE seq = ?")?.execute([seq as i64])?;
        }
        Ok(())
    }
}
