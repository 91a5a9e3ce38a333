//! A server's own messages, of one workload that has everything, in every version of the protocol that the server speaks.

use crate::harness::{Db, major};

/// What one version of the protocol made of the workload.
pub(super) struct Stream {
    pub(super) version: u32,
    pub(super) major: u32,
    pub(super) messages: Vec<Sent>,
}

pub(super) struct Sent {
    pub(super) bytes: Vec<u8>,
    /// Between Stream Start and Stream Stop.
    pub(super) in_stream: bool,
}

/// Every replica identity, names that need quoting, types with names of their own, many columns, and none.
const TABLES: &str = r#"
    CREATE TYPE mood AS ENUM ('sad', 'ok'); CREATE TYPE pair AS (a int, b text); CREATE DOMAIN price AS numeric(12,2);
    CREATE TABLE def (id int PRIMARY KEY, note text, big text, m mood, p pair, c price, v varchar(7), t timestamp(3)[]);
    ALTER TABLE def ALTER big SET STORAGE EXTERNAL;
    CREATE TABLE ful (LIKE def); ALTER TABLE ful ALTER big SET STORAGE EXTERNAL; ALTER TABLE ful REPLICA IDENTITY FULL;
    CREATE TABLE ind (id int PRIMARY KEY, a text NOT NULL, b text); CREATE UNIQUE INDEX ind_a ON ind (a);
    ALTER TABLE ind REPLICA IDENTITY USING INDEX ind_a;
    CREATE TABLE non (id int PRIMARY KEY, a text); ALTER TABLE non REPLICA IDENTITY NOTHING;
    CREATE SCHEMA "Über ""x"""; CREATE TABLE "Über ""x"""."T é" ("a b" int PRIMARY KEY, "日本" text);
    CREATE TABLE nothing ();
    CREATE TABLE every (id int PRIMARY KEY, b bool, i2 int2, i8 int8, n numeric, f4 real, f8 float8, c char(5), x text, y bytea,
      d date, tm time, tz timetz, ts timestamptz, iv interval, u uuid, j json, jb jsonb, ia int[], ta text[], r int4range,
      h inet, bi bit(4), tv tsvector, po point);
    CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE b (id int REFERENCES a);
"#;

/// One of each change. `@` becomes the first of the ids that it uses.
const EACH: &str = r#"
    INSERT INTO def VALUES (@, '', repeat('long ', 800), 'ok', '(1,"x y")', 12.5, 'ab', '{2024-01-02 03:04:05}'); INSERT INTO def VALUES (@ + 1);
    UPDATE def SET note = E'q\'"\\\n\t é' WHERE id = @; UPDATE def SET id = @ + 2 WHERE id = @; DELETE FROM def WHERE id = @ + 1;
    INSERT INTO ful SELECT id, note, big, m, p, c, v, t FROM def WHERE id = @ + 2; UPDATE ful SET note = NULL; UPDATE ful SET big = 'short'; DELETE FROM ful;
    INSERT INTO ind VALUES (@, 'a@', 'b'); UPDATE ind SET b = NULL WHERE id = @; UPDATE ind SET a = 'c@' WHERE id = @;
    DELETE FROM ind WHERE id = @; INSERT INTO non VALUES (@, 'a'); INSERT INTO nothing DEFAULT VALUES;
    INSERT INTO "Über ""x"""."T é" VALUES (@, '値');
    INSERT INTO every VALUES (@, true, -32768, 9223372036854775807, '1e-20', 1.5e-45, 'NaN', 'ab', chr(1), '\x00ff', 'infinity', '24:00',
      '12:00+05:30', '0044-03-15 12:00 BC', '1 year -2 days 03:04:05.6', 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', '{"a": 1.10}', '[1, null]',
      '{1,NULL,3}', '{"a,b","NULL",NULL}', '[1,10)', '10.0.0.1/8', '1010', 'a fat cat', '(1,2)'); INSERT INTO every VALUES (@ + 1);
"#;

/// More than a server whose transactions may hold 64 kB keeps of one in progress.
const MUCH: &str = "INSERT INTO every (id, x, n, ia) SELECT i, repeat(chr(200 + i % 9000), 90), i / 7.0, array[i, NULL] FROM generate_series(@ + 100, @ + 500) i;";

const ORIGIN: &str = "SELECT pg_replication_origin_session_setup(current_database());";

fn script(major: u32) -> String {
    let (truncate, messages) = (if major >= 11 { "TRUNCATE a, b RESTART IDENTITY CASCADE;" } else { "" }, major >= 14);
    let message = |transactional: bool| match messages {
        true => format!(r"SELECT pg_logical_emit_message({transactional}, 'prefix é', '\x00ff'::bytea);"),
        false => String::new(),
    };
    let (within, loose) = (message(true), message(false));
    let each = |id: u32| EACH.replace('@', &id.to_string());
    let much = |id: u32| MUCH.replace('@', &id.to_string());
    format!(
        "{one} INSERT INTO a VALUES (1); {truncate} {within} {loose}
         {ORIGIN} INSERT INTO a VALUES (2); SELECT pg_replication_origin_session_reset();
         BEGIN; ALTER TABLE ind ADD extra mood; INSERT INTO ind VALUES (9, 'i', 'j', 'sad'); ALTER TABLE ind RENAME extra TO more;
           INSERT INTO ind VALUES (8, 'k', 'l', 'ok'); ALTER TABLE ind DROP more; DELETE FROM ind; COMMIT;
         BEGIN; {aborted} ROLLBACK;
         {ORIGIN}
         BEGIN; {first} {two} {truncate} {within} {loose}
           SAVEPOINT s1; {rolled_back} {each_rolled_back} ALTER TABLE def ADD wrong int; INSERT INTO def (id) VALUES (1005); ROLLBACK TO s1;
           SAVEPOINT s2; INSERT INTO a VALUES (3); ALTER TABLE def ADD extra mood DEFAULT 'sad'; {three} {last} RELEASE s2;
           DROP TABLE nothing; ALTER TYPE mood RENAME TO temper; UPDATE def SET extra = 'ok'; {more}
         COMMIT; SELECT pg_replication_origin_session_reset();",
        one = each(1),
        two = each(100),
        three = each(200),
        each_rolled_back = each(300),
        aborted = much(1000),
        first = much(2000),
        rolled_back = much(3000),
        last = much(4000),
        more = much(5000),
    )
}

/// The workload, read from one slot in each version that the server speaks.
pub(super) async fn streams() -> Vec<Stream> {
    let major = major().await;
    let db = Db::new(TABLES).await;
    db.sql("SELECT pg_replication_origin_create(current_database())").await;
    db.sql("CREATE PUBLICATION everything FOR ALL TABLES").await;
    db.sql("SELECT pg_create_logical_replication_slot(current_database(), 'pgoutput')").await;
    // Not in one go: what one query message holds is one transaction.
    for statement in script(major).split_inclusive(';').map(str::trim) {
        db.sql(statement).await;
    }
    let messages = if major >= 14 { ", 'messages', 'true'" } else { "" };
    let mut versions = vec![(1, "")];
    if major >= 14 {
        db.sql("SET logical_decoding_work_mem = '64kB'").await;
        versions.push((2, ", 'streaming', 'on'"));
    }
    if major >= 15 {
        versions.push((3, ", 'streaming', 'on'"));
    }
    if major >= 16 {
        versions.push((4, ", 'streaming', 'parallel'"));
    }
    let mut streams = Vec::new();
    for (version, streaming) in versions {
        let query = format!(
            "SELECT data FROM pg_logical_slot_peek_binary_changes(current_database(), NULL, NULL, 'proto_version', '{version}', \
             'publication_names', 'everything'{messages}{streaming})"
        );
        let rows = db.client.query(&query, &[]).await.unwrap_or_else(|error| panic!("{query}\n{error:?}"));
        let mut in_stream = false;
        let messages = rows.iter().map(|row| {
            let bytes: Vec<u8> = row.get(0);
            let sent = Sent { in_stream, bytes };
            in_stream = match sent.bytes[0] {
                b'S' => true,
                b'E' => false,
                _ => in_stream,
            };
            sent
        });
        streams.push(Stream { version, major, messages: messages.collect() });
    }
    db.sql("SELECT pg_drop_replication_slot(current_database())").await;
    streams
}
