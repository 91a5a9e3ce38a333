-- The outbox, version 1. PRAGMA user_version holds the version, PRAGMA application_id 0x746f7770 ("towp").
-- Times are milliseconds since 1970-01-01 UTC. docs/outbox.md shows how to read it.

-- One row per route that was ever configured; never deleted, so that an id never changes its meaning.
CREATE TABLE route (
    id                INTEGER PRIMARY KEY,      -- 1 to 65535
    name              TEXT NOT NULL UNIQUE,
    since             INTEGER NOT NULL,         -- the outbox's newest event when the route was made: none of its own is older
    last_seq          INTEGER NOT NULL,         -- of the newest event of this route; the greatest of all is the outbox's
    unsettled_events  INTEGER NOT NULL,
    unsettled_bytes   INTEGER NOT NULL,
    unsettled_since   INTEGER                   -- when the oldest unsettled event was recorded; NULL: there is none
) STRICT;

-- Counts how often the `-wal` file began anew. The file itself knows the number of before or this one, unless an older copy
-- of it was put beside a `-wal` that is not its own.
CREATE TABLE log (
    generation  INTEGER NOT NULL
) STRICT;
INSERT INTO log VALUES (1);

-- How far the broker has taken a route's events. An event is settled when its seq is not above the least `through` of
-- its route's shards.
CREATE TABLE settled (
    route    INTEGER NOT NULL REFERENCES route (id),
    shard    INTEGER NOT NULL,
    through  INTEGER NOT NULL,                  -- seq
    PRIMARY KEY (route, shard)
) STRICT, WITHOUT ROWID;

-- Where each source stands: recorded in the transaction that records its events.
CREATE TABLE source (
    name         TEXT NOT NULL PRIMARY KEY,
    identity     TEXT NOT NULL,
    position     BLOB,                          -- the connector's own; compares as bytes
    recorded_at  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- What a connector wants to know after a restart, besides its position.
CREATE TABLE source_state (
    source  TEXT NOT NULL,
    key     TEXT NOT NULL,
    value   BLOB NOT NULL,
    PRIMARY KEY (source, key)
) STRICT, WITHOUT ROWID;

-- The events, settled (until they are pruned) and unsettled, in the order of recording. No second index: every event
-- would pay for it.
CREATE TABLE event (
    seq          INTEGER PRIMARY KEY,           -- contiguous when recorded, never used twice
    route        INTEGER NOT NULL,
    recorded_at  INTEGER NOT NULL,
    key_hash     INTEGER NOT NULL,              -- 64 bits, as a signed number
    id           TEXT NOT NULL,                 -- the AMQP message-id
    key          TEXT NOT NULL,
    exchange     TEXT NOT NULL,
    routing_key  TEXT NOT NULL,
    properties   BLOB NOT NULL,                 -- AMQP 0-9-1 basic properties, as in a content header
    body         ANY NOT NULL                   -- TEXT where it is UTF-8 (JSON is), else BLOB
) STRICT;

-- Events set aside, until a person retries or discards them. Never pruned.
CREATE TABLE parked (
    seq          INTEGER PRIMARY KEY,           -- the one under which it was parked
    origin       INTEGER NOT NULL,              -- the seq that it was first recorded under: its place in its key's order
    route        INTEGER NOT NULL,
    recorded_at  INTEGER NOT NULL,
    parked_at    INTEGER NOT NULL,
    reason       TEXT,                          -- NULL: nothing is wrong with it, it only waits for `waiting_for`
    unfit        INTEGER NOT NULL,              -- 1: it could not be made whole, and can only be discarded
    waiting_for  INTEGER,                       -- seq of the nearest earlier parked event of its key that has a reason
    key_hash     INTEGER NOT NULL,
    id           TEXT NOT NULL,
    key          TEXT NOT NULL,
    exchange     TEXT NOT NULL,
    routing_key  TEXT NOT NULL,
    properties   BLOB NOT NULL,
    body         ANY NOT NULL
) STRICT;

CREATE INDEX parked_by_key ON parked (route, key_hash, origin);
CREATE INDEX parked_by_origin ON parked (origin);

-- Events that were parked and are on their way again, under a new seq, until that is settled.
CREATE TABLE released (
    seq       INTEGER PRIMARY KEY,
    origin    INTEGER NOT NULL,
    route     INTEGER NOT NULL,
    key_hash  INTEGER NOT NULL
) STRICT;

-- For people: the events that the broker does not have yet.
CREATE VIEW unsettled AS
SELECT event.seq, route.name AS route, datetime(event.recorded_at / 1000, 'unixepoch') AS recorded_at,
       event.id, event.key, event.exchange, event.routing_key, event.body
FROM event JOIN route ON route.id = event.route
WHERE event.seq > (SELECT min(through) FROM settled WHERE settled.route = event.route);
