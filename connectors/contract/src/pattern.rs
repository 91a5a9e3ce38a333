//! Tables by name, as a person writes them in a config.

/// `schema.table`, where `*` stands for any run of characters of a name, also an empty one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TablePattern {
    schema: String,
    table: String,
}

impl TablePattern {
    pub fn new(schema: impl Into<String>, table: impl Into<String>) -> TablePattern {
        TablePattern { schema: schema.into(), table: table.into() }
    }

    /// `None` when the text is not `schema.table`. A table's name may hold dots, a schema's may not.
    pub fn parse(text: &str) -> Option<TablePattern> {
        let (schema, table) = text.split_once('.')?;
        (!schema.is_empty() && !table.is_empty()).then(|| TablePattern::new(schema, table))
    }

    pub fn matches(&self, schema: &str, table: &str) -> bool {
        wildcard(self.schema.as_bytes(), schema.as_bytes()) && wildcard(self.table.as_bytes(), table.as_bytes())
    }
}

fn wildcard(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    // Where to go on when the text after the last star does not fit: one byte further on.
    let mut retry: Option<(usize, usize)> = None;
    while t < text.len() {
        if pattern.get(p) == Some(&b'*') {
            retry = Some((p, t));
            p += 1;
        } else if pattern.get(p) == Some(&text[t]) {
            p += 1;
            t += 1;
        } else if let Some((star, from)) = retry {
            retry = Some((star, from + 1));
            p = star + 1;
            t = from + 1;
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_take_what_they_say() {
        let takes =
            |text: &str, schema: &str, table: &str| TablePattern::parse(text).expect("valid").matches(schema, table);
        assert!(takes("public.orders", "public", "orders"));
        assert!(takes("*.*", "", "t"));
        assert!(!takes("public.orders", "public", "orders_old"));
        assert!(takes("*.ord*s", "sales", "orders"));
        assert!(takes("*.*a*a*", "x", "banana"));
        assert!(!takes("public.*x", "public", "orders"));
        assert!(takes("public.my.table", "public", "my.table"));
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        for text in ["", "public", ".t", "public."] {
            assert_eq!(TablePattern::parse(text), None, "{text}");
        }
    }
}
