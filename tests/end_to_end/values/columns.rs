//! The types whose values are read back, each a column.

use super::random::{Values, quoted};

/// One column; its name is that of its type.
pub(super) struct Column {
    pub(super) type_name: &'static str,
    /// The first major version that has the type.
    pub(super) since: u32,
    pub(super) value: fn(&mut Values) -> String,
}

const fn column(type_name: &'static str, value: fn(&mut Values) -> String) -> Column {
    Column { type_name, since: 10, value }
}

pub(super) const COLUMNS: &[Column] = &[
    column("boolean", Values::boolean),
    column("smallint", |v| v.integer(16)),
    column("integer", |v| v.integer(32)),
    column("bigint", |v| v.integer(64)),
    column("oid", |v| v.below(1 << 32).to_string()),
    column("numeric", Values::numeric),
    column("numeric(12,2)", Values::price),
    column("price", Values::price),
    column("real", Values::real),
    column("double precision", Values::double),
    column("text", |v| v.text(40)),
    column("character(8)", |v| v.text(8)),
    column("character varying(20)", |v| v.text(20)),
    column("name", |v| v.text(15)),
    column("\"char\"", |v| v.pick(&["", "a", "\"", "\\", " "]).into()),
    column("citext", |v| v.text(20)),
    column("bytea", Values::bytea),
    column("date", Values::date),
    column("time", Values::time),
    column("timetz", Values::time_tz),
    column("timestamp", |v| v.timestamp("")),
    column("timestamptz", |v| v.timestamp("+00")),
    column("timestamp(3)", |v| v.timestamp("")),
    column("interval", Values::interval),
    column("uuid", Values::uuid),
    column("json", |v| v.json(3)),
    column("jsonb", |v| v.json(3)),
    column("mood", Values::mood),
    column("pair", Values::pair),
    column("int4range", Values::int_range),
    column("numrange", |v| v.range(Values::price)),
    column("tsrange", |v| v.range(|v| v.timestamp(""))),
    column("daterange", |v| v.range(Values::date)),
    column("span", |v| v.range(|v| v.text(5))),
    Column { type_name: "int4multirange", since: 14, value: |v| format!("{{{},{}}}", v.int_range(), v.int_range()) },
    column("inet", Values::inet),
    column("cidr", |v| format!("10.{}.0.0/16", v.below(256))),
    column("macaddr", |v| format!("08:00:2b:01:{:02x}:{:02x}", v.below(256), v.below(256))),
    column("money", |v| v.price()),
    column("bit(8)", |v| v.bits(8)),
    column("bit varying(40)", |v| {
        let length = v.below(41);
        v.bits(length)
    }),
    column("tsvector", |v| format!("{} {}:3A,5", v.lexeme(), v.lexeme())),
    column("tsquery", |v| format!("{} & !{}:*B", v.lexeme(), v.lexeme())),
    column("point", Values::point),
    column("box", |v| format!("{},{}", v.point(), v.point())),
    column("path", |v| format!("[{},{}]", v.point(), v.point())),
    column("circle", |v| format!("<{},{}>", v.point(), v.below(9))),
    column("pg_lsn", |v| format!("{:X}/{:X}", v.below(1 << 32), v.below(1 << 32))),
    column("hstore", |v| format!("{}=>{}, k=>NULL", quoted(&v.text(9)), quoted(&v.text(9)))),
    column("ltree", |v| format!("a.b_{}.c", v.below(1000))),
    column("int2vector", |v| format!("{} {}", v.below(100), v.below(100))),
    column("boolean[]", |v| v.array(',', Values::boolean)),
    column("integer[]", |v| v.array(',', |v| v.integer(32))),
    column("bigint[]", |v| v.array(',', |v| v.integer(64))),
    column("ids", |v| v.array(',', |v| v.integer(32))),
    column("numeric[]", |v| v.array(',', Values::numeric)),
    column("real[]", |v| v.array(',', Values::real)),
    column("double precision[]", |v| v.array(',', Values::double)),
    column("text[]", |v| v.array(',', |v| v.text(12))),
    column("character(4)[]", |v| v.array(',', |v| v.text(4))),
    column("bytea[]", |v| {
        let items: Vec<_> = (0..v.below(4)).map(|_| format!("\"\\{}\"", v.bytea())).collect();
        format!("{{{}}}", items.join(","))
    }),
    column("date[]", |v| v.array(',', Values::date)),
    column("timestamp[]", |v| v.array(',', |v| v.timestamp(""))),
    column("timestamptz[]", |v| v.array(',', |v| v.timestamp("+00"))),
    column("timetz[]", |v| v.array(',', Values::time_tz)),
    column("interval[]", |v| v.array(',', Values::interval)),
    column("uuid[]", |v| v.array(',', Values::uuid)),
    // Of an object alone JSON's readers know that it is no part of the array around it.
    column("json[]", |v| v.array(',', |v| format!("{{\"a\": {}}}", v.json(2)))),
    column("jsonb[]", |v| v.array(',', |v| format!("{{\"a\": {}}}", v.json(2)))),
    column("mood[]", |v| v.array(',', Values::mood)),
    column("pair[]", |v| v.array(',', Values::pair)),
    column("int4range[]", |v| v.array(',', Values::int_range)),
    column("box[]", |v| v.array(';', |v| format!("{},{}", v.point(), v.point()))),
    column("hstore[]", |v| v.array(',', |v| format!("a=>{}", quoted(&v.text(9))))),
];
