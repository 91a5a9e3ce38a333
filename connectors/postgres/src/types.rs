//! Column types: what kind a type is, what it is called, how its text becomes canonical.

use std::collections::HashMap;
use std::sync::Arc;

use tokio_postgres::Client;
use tokio_postgres::types::{Kind as BuiltinKind, Type};
use towpath_contract::{Kind, Result};

use crate::sql;
use crate::value::{ArrayPlan, Element, Plan};

/// One type, with its modifier.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TypeInfo {
    pub(crate) kind: Kind,
    /// As `format_type` writes it with an empty search path: `numeric(12,2)`, `public.order_status`, `text[]`.
    pub(crate) name: String,
    pub(crate) plan: Plan,
}

/// The types met so far. Those built into PostgreSQL are known, others are asked for once.
///
/// A type may be altered or dropped while its rows are still in the log: what was learnt at first sight stays.
#[derive(Debug, Default)]
pub(crate) struct TypeCatalog {
    known: HashMap<(u32, i32), Arc<TypeInfo>>,
}

/// Domains over domains, arrays of domains over arrays: deeper than anyone nests, shallow enough to end.
const LAYERS_MAX: usize = 32;

impl TypeCatalog {
    /// Of a column's type, as `pg_attribute` and the stream's Relation message give it (−1: no modifier).
    ///
    /// `name_hint` is the name that the stream gave (its Type message), for a type that is no longer in the catalogue.
    pub(crate) async fn resolve(
        &mut self,
        client: &Client,
        oid: u32,
        modifier: i32,
        name_hint: Option<&str>,
    ) -> Result<Arc<TypeInfo>> {
        if let Some(info) = self.known.get(&(oid, modifier)) {
            return Ok(info.clone());
        }
        let info = match builtin(oid, modifier) {
            Some(info) => info,
            None => look_up(client, oid, modifier, name_hint).await?,
        };
        let info = Arc::new(info);
        self.known.insert((oid, modifier), info.clone());
        Ok(info)
    }
}

/// A type that every server has, where its name follows from the modifier without asking.
fn builtin(oid: u32, modifier: i32) -> Option<TypeInfo> {
    let known = Type::from_oid(oid)?;
    match known.kind() {
        // They are called arrays, and have another text form.
        _ if known == Type::INT2_VECTOR || known == Type::OID_VECTOR => {
            let name = (modifier < 0).then(|| known.name().to_owned())?;
            Some(TypeInfo { kind: Kind::Other, name, plan: Plan::AsIs })
        }
        BuiltinKind::Array(element) => {
            let name = format!("{}[]", builtin_name(element, modifier)?);
            let (kind, plan) = array_of(builtin_plan(element), builtin_delimiter(element));
            Some(TypeInfo { kind, name, plan })
        }
        BuiltinKind::Pseudo => None,
        _ => {
            let (kind, plan) = builtin_plan(&known);
            Some(TypeInfo { kind, name: builtin_name(&known, modifier)?, plan })
        }
    }
}

fn builtin_plan(known: &Type) -> (Kind, Plan) {
    match *known {
        Type::BOOL => (Kind::Bool, Plan::Bool),
        Type::INT2 | Type::INT4 | Type::INT8 | Type::OID => (Kind::Int, Plan::AsIs),
        Type::NUMERIC => (Kind::Decimal, Plan::AsIs),
        Type::FLOAT4 | Type::FLOAT8 => (Kind::Float, Plan::AsIs),
        Type::TEXT | Type::VARCHAR | Type::BPCHAR | Type::NAME | Type::CHAR => (Kind::Text, Plan::AsIs),
        Type::BYTEA => (Kind::Bytes, Plan::Bytes),
        Type::DATE => (Kind::Date, Plan::AsIs),
        Type::TIME => (Kind::Time, Plan::AsIs),
        Type::TIMETZ => (Kind::TimeTz, Plan::TimeTz),
        Type::TIMESTAMP => (Kind::Timestamp, Plan::Timestamp),
        Type::TIMESTAMPTZ => (Kind::TimestampTz, Plan::TimestampTz),
        Type::INTERVAL => (Kind::Interval, Plan::AsIs),
        Type::UUID => (Kind::Uuid, Plan::AsIs),
        Type::JSON | Type::JSONB => (Kind::Json, Plan::AsIs),
        _ => (Kind::Other, Plan::AsIs),
    }
}

fn builtin_delimiter(element: &Type) -> u8 {
    if *element == Type::BOX { b';' } else { b',' }
}

/// `format_type`'s name, `None` where only the server can tell (the fields of an interval, for one).
fn builtin_name(known: &Type, modifier: i32) -> Option<String> {
    // The length of a varlena's own header is part of these modifiers.
    let length = modifier - 4;
    let name = match *known {
        Type::BPCHAR if modifier >= 0 => return Some(format!("character({length})")),
        Type::VARCHAR if modifier >= 0 => return Some(format!("character varying({length})")),
        Type::VARCHAR => "character varying",
        Type::NUMERIC if modifier >= 0 => {
            let (precision, scale) = (length >> 16 & 0xffff, length & 0x7ff);
            // Eleven bits with a sign, since PostgreSQL 15.
            let scale = (scale ^ 1024) - 1024;
            return Some(format!("numeric({precision},{scale})"));
        }
        Type::TIME | Type::TIMESTAMP if modifier >= 0 => {
            return Some(format!("{}({modifier}) without time zone", known.name()));
        }
        Type::TIME => "time without time zone",
        Type::TIMESTAMP => "timestamp without time zone",
        Type::TIMETZ | Type::TIMESTAMPTZ if modifier >= 0 => {
            return Some(format!("{}({modifier}) with time zone", known.name().trim_end_matches("tz")));
        }
        Type::TIMETZ => "time with time zone",
        Type::TIMESTAMPTZ => "timestamp with time zone",
        Type::BIT if modifier >= 0 => return Some(format!("bit({modifier})")),
        Type::BIT => "\"bit\"",
        Type::VARBIT if modifier >= 0 => return Some(format!("bit varying({modifier})")),
        Type::VARBIT => "bit varying",
        _ if modifier >= 0 => return None,
        Type::BOOL => "boolean",
        Type::INT2 => "smallint",
        Type::INT4 => "integer",
        Type::INT8 => "bigint",
        Type::FLOAT4 => "real",
        Type::FLOAT8 => "double precision",
        Type::CHAR => "\"char\"",
        _ => known.name(),
    };
    Some(name.into())
}

async fn look_up(client: &Client, oid: u32, modifier: i32, name_hint: Option<&str>) -> Result<TypeInfo> {
    let Some(first) = describe(client, oid, modifier).await? else {
        let name = name_hint.map_or_else(|| format!("oid {oid}"), str::to_owned);
        return Ok(TypeInfo { kind: Kind::Other, name, plan: Plan::AsIs });
    };
    let name = first.name.clone();

    // Through domains to the base and through arrays to the element; each array passed is wrapped around it later.
    let mut delimiters = Vec::new();
    let mut described = Some(first);
    let mut current = oid;
    let mut found = (Kind::Other, Plan::AsIs);
    for _ in 0..LAYERS_MAX {
        if let Some(info) = builtin(current, -1) {
            found = (info.kind, info.plan);
            break;
        }
        let layer = match described.take() {
            Some(layer) => Some(layer),
            None => describe(client, current, -1).await?,
        };
        current = match layer.map(|layer| layer.under) {
            Some(Under::Base(base)) => base,
            Some(Under::Element(element, delimiter)) => {
                delimiters.push(delimiter);
                element
            }
            Some(Under::Nothing) | None => break,
        };
    }
    for delimiter in delimiters.into_iter().rev() {
        found = array_of(found, delimiter);
    }
    Ok(TypeInfo { kind: found.0, name, plan: found.1 })
}

struct Described {
    name: String,
    under: Under,
}

enum Under {
    /// The type is a domain over this one.
    Base(u32),
    /// The type is an array of these, with this delimiter.
    Element(u32, u8),
    Nothing,
}

async fn describe(client: &Client, oid: u32, modifier: i32) -> Result<Option<Described>> {
    let operation = format!("looking up the type with oid {oid}");
    // With an empty search path every name outside pg_catalog is written with its schema. A type is an array's when
    // its element says so: int2vector has an element too, and another text form.
    let sql = format!(
        "SET search_path = ''; SELECT format_type(t.oid, {modifier}), t.typtype, t.typbasetype, t.typelem, \
         e.typarray = t.oid, e.typdelim FROM pg_type t LEFT JOIN pg_type e ON e.oid = t.typelem WHERE t.oid = {oid}"
    );
    let rows = sql::rows(client, &operation, &sql).await?;
    let Some(row) = rows.first() else { return Ok(None) };
    let under = if sql::text(row, 1) == "d" {
        Under::Base(sql::number(&operation, row, 2)?)
    } else if sql::is_true(row, 4) {
        let delimiter = sql::text(row, 5).bytes().next().unwrap_or(b',');
        Under::Element(sql::number(&operation, row, 3)?, delimiter)
    } else {
        Under::Nothing
    };
    Ok(Some(Described { name: sql::text(row, 0).to_owned(), under }))
}

fn array_of((kind, plan): (Kind, Plan), delimiter: u8) -> (Kind, Plan) {
    let element = match (&kind, plan) {
        (Kind::Bool, _) => Element::Bool,
        (Kind::Int, _) => Element::Int,
        (Kind::Float, _) => Element::Float,
        (Kind::Bytes, _) => Element::Bytes,
        (Kind::Json, _) => Element::Json,
        (_, Plan::Array(inner)) => Element::Array(inner),
        (_, plan) => Element::Text(plan),
    };
    (Kind::Array(Box::new(kind)), Plan::Array(Box::new(ArrayPlan { element, delimiter })))
}

#[cfg(test)]
mod tests;
