//! Random values of every type: from the database by snapshot and by stream into JSON, and by the database's own reader of JSON
//! back into the type.

mod columns;
mod random;

use towpath_test_support::tokio_postgres::Client;

use crate::rig::{PATIENCE, Rig, setting};
use columns::{COLUMNS, Column};
use random::Values;

/// Domains, enums and the like, and extensions, whose types the connector knows nothing of.
const TYPES: &str = r#"
    CREATE EXTENSION citext; CREATE EXTENSION hstore; CREATE EXTENSION ltree;
    CREATE TYPE mood AS ENUM ('', 'sad', 'a "b" \', 'x,y', 'NULL', '{}', 'é'); CREATE TYPE pair AS (a int, b text, c timestamp);
    CREATE DOMAIN price AS numeric(12,2); CREATE DOMAIN ids AS int[]; CREATE TYPE span AS RANGE (subtype = text, collation = "C");
"#;

#[tokio::test]
async fn every_value_is_the_same_when_read_back_from_its_json() {
    let seed = setting("TOWPATH_SEED", fastrand::u64(..u64::from(u32::MAX)));
    let rows = setting("TOWPATH_VALUES", 1000);
    eprintln!("TOWPATH_SEED={seed} TOWPATH_VALUES={rows}");
    let mut rig = Rig::new().await;
    let major = rig.postgres.major();
    let columns: Vec<&Column> = COLUMNS.iter().filter(|column| column.since <= major).collect();
    let client = rig.postgres.client("postgres").await;
    let names = list(&columns, |column| quoted(column.type_name));
    let definitions = list(&columns, |column| format!("{} {}", quoted(column.type_name), column.type_name));
    run(&client, TYPES).await;
    run(&client, &format!("CREATE TABLE v (id int PRIMARY KEY, {definitions})")).await;
    fill(&client, &columns, Values::new(seed, major), rows).await;

    let mut towpath = rig.towpath("postgres", "").run();
    rig.inbox.until_count(rows as usize, PATIENCE).await;
    run(&client, &format!("INSERT INTO v (id, {names}) SELECT id + {rows}, {names} FROM v")).await;
    rig.inbox.until_count(2 * rows as usize, PATIENCE).await;
    assert!(towpath.terminate(PATIENCE).await.success());

    keep_received(&client, &rig).await;
    came_alike_both_ways(&client, rows).await;
    read_back_as_inserted(&client, &columns).await;
}

/// The same values give the same bytes, from the snapshot and from the stream.
async fn came_alike_both_ways(client: &Client, rows: u64) {
    let of = |row: &str| format!(r#"regexp_replace({row}.after::text, '^\{{"id":\d+,', '')"#);
    let (read, streamed) = (of("r"), of("s"));
    let twins = format!("FROM got r JOIN got s ON s.id = r.id + {rows} AND r.op = 'read' AND s.op = 'insert'");
    assert_eq!(strings(client, &format!("SELECT count(*)::text {twins}")).await, [rows.to_string()]);
    let unlike = format!("SELECT concat({read}, '\n', {streamed}) {twins} WHERE {read} <> {streamed} LIMIT 1");
    assert_eq!(strings(client, &unlike).await, [""; 0], "from the snapshot and from the stream");
}

/// The database's own reader of JSON makes of each event the row that was inserted.
async fn read_back_as_inserted(client: &Client, columns: &[&Column]) {
    // `json_populate_record` does not know base64.
    let as_text = "ALTER TABLE back ALTER bytea TYPE text USING NULL, ALTER \"bytea[]\" TYPE text[] USING NULL";
    run(client, &format!("CREATE TEMP TABLE back (LIKE v); {as_text}")).await;
    run(client, "INSERT INTO back SELECT b.* FROM got, json_populate_record(NULL::back, got.after) b").await;
    let pairs = list(columns, |column| {
        let name = quoted(column.type_name);
        let back = match column.type_name {
            "bytea" => "decode(b.bytea, 'base64')".into(),
            "bytea[]" => "CASE WHEN b.\"bytea[]\" IS NOT NULL THEN ARRAY(SELECT decode(x, 'base64') FROM unnest(b.\"bytea[]\") x) END".into(),
            // Nor does it keep the spelling of a string.
            "json" => "NULLIF((got.after->'json')::text, 'null')::json".into(),
            _ => format!("b.{name}"),
        };
        // In a row a value is written by its type's output function, and NULL differs from an empty text.
        format!("('{name}', row(v.{name})::text, row({back})::text)")
    });
    let changed = format!(
        "SELECT concat(id, ' ', column_name, ': ', wrote, ' > ', read) FROM v JOIN back b USING (id) JOIN got USING (id), \
         LATERAL (VALUES {pairs}) AS x (column_name, wrote, read) WHERE wrote IS DISTINCT FROM read LIMIT 20"
    );
    assert_eq!(strings(client, &changed).await, [""; 0], "read back from the published JSON");
}

fn list(columns: &[&Column], each: impl Fn(&Column) -> String) -> String {
    columns.iter().map(|column| each(column)).collect::<Vec<_>>().join(", ")
}

/// A type's name is its column's.
fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

async fn run(client: &Client, sql: &str) {
    // Floats as they are, before PostgreSQL 12 too.
    let sql = format!("SET extra_float_digits = 3; {sql}");
    client.batch_execute(&sql).await.unwrap_or_else(|error| panic!("{sql}\n{error:?}"));
}

async fn strings(client: &Client, query: &str) -> Vec<String> {
    let rows = client.query(query, &[]).await.unwrap_or_else(|error| panic!("{query}\n{error:?}"));
    rows.iter().map(|row| row.get(0)).collect()
}

async fn fill(client: &Client, columns: &[&Column], mut values: Values, rows: u64) {
    let mut row = |id: u64| {
        let value = |column: &&Column| match values.one_of(10) {
            true => "NULL".into(),
            false => format!("'{}'", (column.value)(&mut values).replace('\'', "''")),
        };
        format!("({id}, {})", columns.iter().map(value).collect::<Vec<_>>().join(", "))
    };
    let rows: Vec<String> = (1..=rows).map(&mut row).collect();
    for some in rows.chunks(100) {
        run(client, &format!("INSERT INTO v VALUES {}", some.join(", "))).await;
    }
}

/// What was received of the table, for the server to look at. Tables of the session are not captured.
async fn keep_received(client: &Client, rig: &Rig) {
    run(client, "CREATE TEMP TABLE got (id int PRIMARY KEY, op text, after json)").await;
    let bodies: Vec<&str> =
        rig.inbox.received().iter().map(|delivery| str::from_utf8(&delivery.body).expect("UTF-8")).collect();
    let keep = "INSERT INTO got SELECT (b->'after'->>'id')::int, b->>'op', b->'after' FROM (SELECT unnest($1::text[])::json AS b) AS x";
    client.execute(keep, &[&bodies]).await.unwrap_or_else(|error| panic!("{error:?}"));
}
