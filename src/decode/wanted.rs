//! Whose changes somebody wants: a change of any other table is skipped before its rows are read.

/// A set of tables, or all of them.
#[derive(Debug, Clone, Default)]
pub struct Wanted(Option<Vec<(Box<str>, Box<str>)>>);

impl Wanted {
    /// Changes of every table.
    pub fn everything() -> Self {
        Self(None)
    }

    /// Changes of these tables, as (schema, table). Logical messages have an empty schema and table.
    pub fn tables<'n>(tables: impl IntoIterator<Item = (&'n str, &'n str)>) -> Self {
        let named = tables.into_iter().map(|(schema, table)| (schema.into(), table.into()));
        Self(Some(named.collect()))
    }

    /// Whether changes of this table are wanted. A group has few tables, so they are simply gone through.
    pub(crate) fn takes(&self, schema: &str, table: &str) -> bool {
        let is_this =
            |(known_schema, known_table): &(Box<str>, Box<str>)| **known_table == *table && **known_schema == *schema;
        self.0.as_ref().is_none_or(|tables| tables.iter().any(is_this))
    }
}
