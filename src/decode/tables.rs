//! Sets of tables, named one by one or by patterns: those whose changes somebody wants, those that steer a connector, those
//! that send whole old rows.

/// A set of tables.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tables(Vec<Table>);

/// One table, or all that match a pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Table {
    Any,
    Named {
        schema: String,
        table: String,
    },
    /// `*` stands for any text.
    Like {
        schema: String,
        table: String,
    },
}

impl Tables {
    /// Every table, and logical messages, whose schema and table are empty.
    pub fn all() -> Self {
        Self(vec![Table::Any])
    }

    /// The tables that match one of these patterns, `schema.table`, in which `*` stands for any text. A pattern without a
    /// dot matches the table's name in any schema.
    pub fn like<S: AsRef<str>>(patterns: impl IntoIterator<Item = S>) -> Self {
        let table = |pattern: S| {
            let (schema, table) = pattern.as_ref().split_once('.').unwrap_or(("*", pattern.as_ref()));
            Table::Like {
                schema: schema.to_owned(),
                table: table.to_owned(),
            }
        };
        Self(patterns.into_iter().map(table).collect())
    }

    /// These tables, as (schema, table).
    pub fn named<S: Into<String>>(tables: impl IntoIterator<Item = (S, S)>) -> Self {
        let table = |(schema, table): (S, S)| Table::Named {
            schema: schema.into(),
            table: table.into(),
        };
        Self(tables.into_iter().map(table).collect())
    }

    /// Those that are named one by one, as (schema, table).
    pub fn names(&self) -> Vec<(String, String)> {
        let named = self.0.iter().filter_map(|member| match member {
            Table::Named { schema, table } => Some((schema.clone(), table.clone())),
            Table::Any | Table::Like { .. } => None,
        });
        named.collect()
    }

    /// Whether a table is one of them.
    pub fn contains(&self, schema: &str, table: &str) -> bool {
        self.0.iter().any(|member| match member {
            Table::Any => true,
            Table::Named {
                schema: in_schema,
                table: named,
            } => in_schema == schema && named == table,
            Table::Like {
                schema: schemas,
                table: tables,
            } => matches_glob(tables, table) && matches_glob(schemas, schema),
        })
    }
}

fn matches_glob(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else {
        return false;
    };
    let mut last: Option<&str> = None;
    for part in parts {
        if let Some(middle) = last.replace(part) {
            let Some(found) = rest.find(middle) else {
                return false;
            };
            rest = &rest[found + middle.len()..];
        }
    }
    match last {
        Some(end) => rest.ends_with(end),
        None => rest.is_empty(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_may_have_several_stars() {
        for (pattern, text, expected) in [
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-c", false),
            ("*", "", true),
            ("ab", "ab", true),
            ("ab", "abc", false),
            ("a*a", "a", false),
        ] {
            assert_eq!(matches_glob(pattern, text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn tables_are_named_or_matched() {
        let like = Tables::like(["dbz.signal*", "audit"]);
        for (schema, table, expected) in [
            ("dbz", "signal_a", true),
            ("public", "signal_a", false),
            ("any", "audit", true),
        ] {
            assert_eq!(like.contains(schema, table), expected, "{schema}.{table}");
        }
        assert!(Tables::all().contains("", "") && Tables::all().contains("any", "thing"));
        assert!(!Tables::default().contains("any", "thing"));
        let named = Tables::named([("a.b", "c*")]);
        assert!(named.contains("a.b", "c*"));
        assert!(!named.contains("a.b", "cd"));
    }
}
