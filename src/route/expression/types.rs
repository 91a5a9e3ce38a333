//! What an expression's parts are.

use towpath_contract::Kind;

/// A type that expressions tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::route) enum Type {
    /// The literal `null`, which goes with every type.
    Null,
    Bool,
    Int,
    Decimal,
    Float,
    Text,
    Bytes,
    Date,
    /// Without a zone.
    Timestamp,
    /// In UTC.
    TimestampTz,
    Json,
}

impl Type {
    pub(in crate::route) fn of(kind: &Kind) -> Type {
        match kind {
            Kind::Bool => Type::Bool,
            Kind::Int => Type::Int,
            Kind::Decimal => Type::Decimal,
            Kind::Float => Type::Float,
            Kind::Bytes => Type::Bytes,
            Kind::Date => Type::Date,
            Kind::Timestamp => Type::Timestamp,
            Kind::TimestampTz => Type::TimestampTz,
            Kind::Json => Type::Json,
            // A time of a day has one form, and sorts as its text does.
            Kind::Text | Kind::Time | Kind::TimeTz | Kind::Interval | Kind::Uuid | Kind::Array(_) | Kind::Other => {
                Type::Text
            }
        }
    }

    /// What a field of this type is in events.
    pub(in crate::route) fn kind(self) -> Kind {
        match self {
            Type::Null | Type::Text => Kind::Text,
            Type::Bool => Kind::Bool,
            Type::Int => Kind::Int,
            Type::Decimal => Kind::Decimal,
            Type::Float => Kind::Float,
            Type::Bytes => Kind::Bytes,
            Type::Date => Kind::Date,
            Type::Timestamp => Kind::Timestamp,
            Type::TimestampTz => Kind::TimestampTz,
            Type::Json => Kind::Json,
        }
    }

    /// As errors call it.
    pub(in crate::route) fn name(self) -> &'static str {
        match self {
            Type::Null => "null",
            Type::Bool => "true or false",
            Type::Int => "a whole number",
            Type::Decimal => "a decimal",
            Type::Float => "a float",
            Type::Text => "a text",
            Type::Bytes => "bytes",
            Type::Date => "a date",
            Type::Timestamp => "a timestamp",
            Type::TimestampTz => "a timestamp with a zone",
            Type::Json => "JSON",
        }
    }

    pub(super) fn is_exact(self) -> bool {
        matches!(self, Type::Int | Type::Decimal)
    }

    pub(super) fn is_number(self) -> bool {
        self.is_exact() || self == Type::Float
    }

    pub(super) fn is_time(self) -> bool {
        matches!(self, Type::Date | Type::Timestamp | Type::TimestampTz)
    }

    /// The one type that holds values of both.
    pub(super) fn join(self, other: Type) -> Option<Type> {
        match (self, other) {
            (a, b) if a == b => Some(a),
            (Type::Null, one) | (one, Type::Null) => Some(one),
            (a, b) if a.is_exact() && b.is_exact() => Some(Type::Decimal),
            _ => None,
        }
    }
}
