//! Which tables a route takes: `source`, `source.schema.table`, `*` for any run of characters in a name.

use std::fmt;

use towpath_contract::TablePattern;

/// What a route's `from` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteFrom {
    pub source: String,
    /// `*` alone where the text named the source only.
    pub schema: String,
    pub table: String,
}

impl RouteFrom {
    /// `None` when the text is neither `source` nor `source.schema.table`. A table's name may hold dots.
    pub fn parse(from: &str) -> Option<RouteFrom> {
        let mut parts = from.splitn(3, '.');
        let source = parts.next().filter(|source| !source.is_empty())?;
        let (schema, table) = match (parts.next(), parts.next()) {
            (None, None) => ("*", "*"),
            (Some(schema), Some(table)) if !schema.is_empty() && !table.is_empty() => (schema, table),
            _ => return None,
        };
        Some(RouteFrom { source: source.into(), schema: schema.into(), table: table.into() })
    }

    /// It may take several tables, which need not all look alike.
    pub fn is_pattern(&self) -> bool {
        self.schema.contains('*') || self.table.contains('*')
    }

    pub fn matches(&self, schema: &str, table: &str) -> bool {
        TablePattern::new(&self.schema, &self.table).matches(schema, table)
    }
}

/// `source.schema.table`, which [`RouteFrom::parse`] reads back.
impl fmt::Display for RouteFrom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.source, self.schema, self.table)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_take_what_they_say() {
        let takes =
            |from: &str, schema: &str, table: &str| RouteFrom::parse(from).expect("valid").matches(schema, table);
        assert!(takes("db", "public", "orders"));
        assert!(takes("db", "", "t"));
        assert!(takes("db.public.orders", "public", "orders"));
        assert!(!takes("db.public.orders", "public", "orders_old"));
        assert!(takes("db.*.ord*s", "sales", "orders"));
        assert!(takes("db.*.*a*a*", "x", "banana"));
        assert!(!takes("db.public.*x", "public", "orders"));
        assert!(takes("db.public.my.table", "public", "my.table"));
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        for from in ["", ".public.t", "db.public", "db..t", "db.public."] {
            assert_eq!(RouteFrom::parse(from), None, "{from}");
        }
    }
}
