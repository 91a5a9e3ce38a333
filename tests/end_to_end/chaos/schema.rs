//! The legacy database of the chaos run: every kind of key, every kind of value, wide rows, large values, partitions, tables
//! without a key, and one whose columns come and go.

/// A table whose rows are made from a number: `{g}` in an expression stands for it. Each has besides a column `n` that holds the
/// number, so that statements find rows by it, and `note`, which any update may change.
pub(super) struct Table {
    pub(super) name: &'static str,
    /// Columns, as in CREATE TABLE.
    columns: &'static str,
    /// What follows the columns, before the closing bracket: constraints.
    constraint: &'static str,
    /// Statements after CREATE TABLE.
    after: &'static str,
    /// Columns and their expressions; the first `keys` of them are the key.
    pub(super) values: &'static [(&'static str, &'static str)],
    pub(super) keys: usize,
    pub(super) ops: Ops,
}

/// What the server lets be published of it, and how many rows a statement may change.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Ops {
    All,
    /// All, and as many rows at once as the run allows.
    Bulk,
    /// Without a replica identity, the server refuses updates and deletes.
    Insert,
}

const fn keyed(
    name: &'static str,
    columns: &'static str,
    constraint: &'static str,
    values: &'static [(&'static str, &'static str)],
    keys: usize,
) -> Table {
    Table { name, columns, constraint, after: "", values, keys, ops: Ops::All }
}

pub(super) const TABLES: &[Table] = &[
    Table {
        ops: Ops::Bulk,
        ..keyed("by_int", "id int PRIMARY KEY", "", &[("id", "{g}")], 1)
    },
    keyed("by_bigint", "id bigint PRIMARY KEY", "", &[("id", "9007199254740000 + {g}::bigint")], 1),
    keyed("by_pair", "a int, b text", ", PRIMARY KEY (b, a)", &[("a", "{g} % 7"), ("b", "'b' || {g}")], 2),
    keyed("by_uuid", "id uuid PRIMARY KEY", "", &[("id", "md5({g}::text)::uuid")], 1),
    keyed("by_text", "id text COLLATE \"und-x-icu\" PRIMARY KEY", "", &[("id", "chr(97 + {g} % 26) || 'ÄäZz'  || {g}")], 1),
    keyed("by_numeric", "id numeric PRIMARY KEY", "", &[("id", "{g}::numeric / 8")], 1),
    keyed("by_bytea", "id bytea PRIMARY KEY", "", &[("id", "decode(md5({g}::text), 'hex')")], 1),
    keyed("by_time", "id timestamptz PRIMARY KEY", "", &[("id", "'1999-12-31Z'::timestamptz + {g} * interval '90 s'")], 1),
    keyed("by_char", "\"Ord No\" char(10) PRIMARY KEY", "", &[("\"Ord No\"", "lpad({g}::text, 8, '0')")], 1),
    Table {
        after: "ALTER TABLE full_rows REPLICA IDENTITY FULL",
        ..keyed("full_rows", "id int PRIMARY KEY", "", &[("id", "{g}")], 1)
    },
    Table {
        after: "ALTER TABLE by_index REPLICA IDENTITY USING INDEX by_index_code_key",
        ..keyed("by_index", "code text NOT NULL UNIQUE, id int PRIMARY KEY", "", &[("code", "'c' || {g}"), ("id", "{g}")], 1)
    },
    Table {
        after: "ALTER TABLE bag REPLICA IDENTITY FULL",
        ..keyed("bag", "kind int", "", &[("kind", "{g} % 3")], 0)
    },
    Table {
        ops: Ops::Insert,
        after: "ALTER TABLE journal REPLICA IDENTITY FULL",
        ..keyed("journal", "at timestamptz DEFAULT clock_timestamp()", "", &[], 0)
    },
    Table {
        after: "CREATE TABLE part_0 PARTITION OF part FOR VALUES WITH (MODULUS 3, REMAINDER 0);
                CREATE TABLE part_1 PARTITION OF part FOR VALUES WITH (MODULUS 3, REMAINDER 1);
                CREATE TABLE part_2 PARTITION OF part FOR VALUES WITH (MODULUS 3, REMAINDER 2)",
        ..keyed("part", "id int", ", PRIMARY KEY (id)) PARTITION BY HASH (id", &[("id", "{g}")], 1)
    },
    keyed("hot", "id int PRIMARY KEY, counter bigint DEFAULT 0", "", &[("id", "{g} % 3")], 1),
    // Every update of `note` leaves `doc` unchanged, which the server then does not send.
    Table {
        after: "ALTER TABLE large ALTER doc SET STORAGE EXTERNAL",
        ..keyed("large", "id int PRIMARY KEY, doc text", "", &[("id", "{g}"), ("doc", "repeat(md5({g}::text), 100 + {g} % 900)")], 1)
    },
    keyed("wide", "id int PRIMARY KEY, {wide}", "", &[("id", "{g}"), ("c7", "{g}"), ("c99", "-{g}"), ("c180", "{g} * 3")], 1),
    keyed(
        "typed",
        "id int PRIMARY KEY, b bool, i2 int2, i8 int8, f4 float4, f8 float8, num numeric, fix numeric(30,10), txt text, chr char(5),
         raw bytea, d date, ts timestamp, tz timestamptz, ti time, ttz timetz, iv interval, u uuid, j json, jb jsonb, ints int[],
         texts text[], rng int4range, ip inet, bits varbit, mood mood, pair pair, pos positive, pt point, tsv tsvector",
        "",
        &[
            ("id", "{g}"),
            ("b", "{g} % 2 = 0"),
            ("i2", "({g} % 65536 - 32768)::int2"),
            ("i8", "9223372036854775807 - {g}"),
            ("f4", "CASE {g} % 9 WHEN 0 THEN 'NaN' WHEN 1 THEN '-Infinity' WHEN 2 THEN '-0' ELSE ({g} / 3.0)::text END::float4"),
            ("f8", "CASE {g} % 9 WHEN 3 THEN 5e-324 ELSE sqrt({g}) END"),
            ("num", "CASE {g} % 11 WHEN 0 THEN 'NaN'::numeric ELSE ({g}::numeric + 0.5) ^ 40 / 7 END"),
            ("fix", "{g} / 7.0"),
            ("txt", "chr(128512 + {g} % 60) || E'\\t\"\\\\' || chr(1 + {g} % 31)"),
            ("chr", "{g} % 100"),
            ("raw", "decode(repeat('00ff', {g} % 40), 'hex')"),
            ("d", "CASE {g} % 13 WHEN 0 THEN 'infinity'::date WHEN 1 THEN '0044-03-15 BC' ELSE '2000-01-01'::date + {g} % 9000 END"),
            ("ts", "CASE {g} % 13 WHEN 2 THEN '-infinity' ELSE '2000-01-01'::timestamp + {g} * interval '1.000001 s' END"),
            ("tz", "'2000-01-01 00:00+05:30'::timestamptz + {g} * interval '1 day'"),
            ("ti", "'00:00'::time + {g} * interval '0.1 s'"),
            ("ttz", "('00:00'::time + {g} * interval '1 s')::text::time AT TIME ZONE '+05:30'"),
            ("iv", "{g} * interval '-1 mon 2 days 3.5 s'"),
            ("u", "md5({g}::text)::uuid"),
            ("j", "('{ \"a\" : 1.0, \"b\":[' || {g} || ']}')::json"),
            ("jb", "jsonb_build_object('g', {g}, 'n', NULL, 't', 'x\"y')"),
            ("ints", "CASE {g} % 5 WHEN 0 THEN '{}' WHEN 1 THEN '[0:1]={7,8}' ELSE ARRAY[{g}, NULL] END::int[]"),
            ("texts", "ARRAY[ARRAY['a\"b', NULL], ARRAY['NULL', '{' || {g}]]"),
            ("rng", "int4range({g}, {g} + 5)"),
            ("ip", "('10.0.0.' || {g} % 256)::inet"),
            ("bits", "({g} % 256)::bit(8)"),
            ("mood", "CASE {g} % 2 WHEN 0 THEN 'calm' ELSE 'wild' END::mood"),
            ("pair", "ROW({g}, 'a,b')::pair"),
            ("pos", "{g} + 1"),
            ("pt", "point({g}, -{g})"),
            ("tsv", "to_tsvector('simple', 'fat cat ' || {g})"),
        ],
        1,
    ),
];

/// The table whose columns come, go, and change name and type.
pub(super) const SHAPED: &str = "shaped";

/// Written by the watch, so that it can tell how far behind the consumer is.
pub(super) const MARKER: &str = "marker";

/// The tables that the sessions change, as the checker names them.
pub(super) fn names() -> Vec<String> {
    let names = TABLES.iter().map(|table| table.name).chain([SHAPED]);
    names.map(|name| format!("public.{name}")).collect()
}

/// The tables with a key, whose rows a snapshot may read again.
pub(super) fn keyed_names() -> Vec<String> {
    let keyed = TABLES.iter().filter(|table| table.keys > 0).map(|table| table.name);
    keyed.chain([SHAPED]).map(|name| format!("public.{name}")).collect()
}

/// With their indexes, some rows, and what they need.
pub(super) fn script() -> String {
    let mut script = String::from(
        "CREATE TYPE mood AS ENUM ('calm', 'wild'); CREATE TYPE pair AS (a int, b text); CREATE DOMAIN positive AS int CHECK (value > 0);
         CREATE TABLE shaped (id int PRIMARY KEY, n int, note text, c0 int DEFAULT 7);
         CREATE TABLE marker (id bigint PRIMARY KEY);\n",
    );
    let wide: Vec<String> = (0..200).map(|column| format!("c{column} int")).collect();
    for Table { name, columns, constraint, after, .. } in TABLES {
        let columns = columns.replace("{wide}", &wide.join(", "));
        script += &format!(
            "CREATE TABLE {name} ({columns}, n int, note text{constraint}); CREATE INDEX ON {name} (n); {after};\n"
        );
    }
    for table in TABLES {
        script += &format!("{};\n", table.insert(0, 200, "first"));
    }
    script + "INSERT INTO shaped SELECT g, g, 'first' FROM generate_series(0, 50) g;\n"
}

impl Table {
    /// Rows `from` to `from + count - 1`. A key that is there already is left as it is.
    pub(super) fn insert(&self, from: i64, count: i64, note: &str) -> String {
        let (columns, values): (String, String) =
            self.values.iter().map(|(column, value)| (format!("{column}, "), format!("{}, ", of(value, "g")))).unzip();
        format!(
            "INSERT INTO {} ({columns}n, note) SELECT {values}g, '{note}' FROM generate_series({from}, {}) g{}",
            self.name,
            from + count - 1,
            if self.keys > 0 { " ON CONFLICT DO NOTHING" } else { "" },
        )
    }

    /// The key of the first row at or after `near` becomes that of `to`.
    pub(super) fn move_key(&self, near: i64, to: i64, note: &str) -> String {
        let key = self.values[..self.keys]
            .iter()
            .map(|(column, value)| format!("{column} = {}, ", of(value, &to.to_string())));
        let name = self.name;
        format!(
            "UPDATE {name} SET {}n = {to}, note = '{note}' WHERE n = (SELECT n FROM {name} WHERE n >= {near} ORDER BY n LIMIT 1)",
            key.collect::<String>()
        )
    }
}

fn of(expression: &str, number: &str) -> String {
    expression.replace("{g}", number)
}
