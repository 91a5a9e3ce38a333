//! Which tables the config asks for.

/// `schema.table` patterns, `*` for any run of characters in either part.
#[derive(Clone, Debug)]
pub(crate) struct Selection(Vec<(String, String)>);

impl Selection {
    pub(crate) fn new(patterns: &[String]) -> Selection {
        // Without a dot it is a table of any schema.
        let split = |pattern: &String| match pattern.split_once('.') {
            Some((schema, table)) => (schema.to_owned(), table.to_owned()),
            None => ("*".to_owned(), pattern.clone()),
        };
        Selection(patterns.iter().map(split).collect())
    }

    /// The system's own schemas are never selected.
    pub(crate) fn matches(&self, schema: &str, table: &str) -> bool {
        let system = schema.starts_with("pg_") || schema == "information_schema";
        !system && self.0.iter().any(|(s, t)| glob(s, schema) && glob(t, table))
    }
}

/// `*` stands for any run of characters, every other character for itself.
pub(crate) fn glob(pattern: &str, text: &str) -> bool {
    let Some((head, tail)) = pattern.split_once('*') else { return pattern == text };
    let Some(mut rest) = text.strip_prefix(head) else { return false };
    let mut parts = tail.split('*').peekable();
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return rest.ends_with(part);
        }
        // The earliest match leaves the most for what follows.
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn tables_are_selected_by_pattern() {
        let selection = Selection::new(&["public.*".into(), "sales.order*".into(), "stock".into()]);
        for (schema, table, selected) in [
            ("public", "anything", true),
            ("sales", "order_lines", true),
            ("sales", "customers", false),
            ("any", "stock", true),
            ("pg_catalog", "stock", false),
            ("information_schema", "stock", false),
        ] {
            assert_eq!(selection.matches(schema, table), selected, "{schema}.{table}");
        }
        assert!(Selection::new(&["*.*".into()]).matches("a", "with.dot"));
    }

    #[test]
    fn stars_match_any_run() {
        for (pattern, text, matches) in [
            ("*", "", true),
            ("a*c", "abc", true),
            ("a*c", "ac", true),
            ("a*c", "a", false),
            ("*b*b*", "abab", true),
            ("a*a", "a", false),
            ("a*b*c", "abxc", true),
            ("", "", true),
            ("", "a", false),
        ] {
            assert_eq!(glob(pattern, text), matches, "{pattern} {text}");
        }
    }

    proptest! {
        #[test]
        fn a_text_with_parts_replaced_by_stars_matches(parts in proptest::collection::vec("[ab]{0,3}", 1..5), fill in "[ab]{0,4}") {
            prop_assert!(glob(&parts.join("*"), &parts.join(&fill)));
        }
    }
}
