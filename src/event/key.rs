//! The primary key of a row, and the other key of a row whose key was changed.

use std::sync::Arc;

use crate::event::row::{Cell, Row};

/// A row's primary key: at least one column, and each of them was sent.
#[derive(Debug, Clone, PartialEq)]
pub struct Key(Row);

impl Key {
    /// The key with these columns; `None` when there is no column, or one whose value was not sent.
    pub fn of(columns: Row) -> Option<Self> {
        let is_whole = columns.columns().all(|(_, cell)| !cell.is_unavailable());
        (is_whole && !columns.names().is_empty()).then_some(Self(columns))
    }

    /// The same key with other names of its columns.
    pub(crate) fn renamed(&self, name: &dyn Fn(&str) -> Arc<str>) -> Self {
        Self(self.0.renamed(name))
    }

    /// Its columns, in the order in which the source sent them.
    pub fn row(&self) -> &Row {
        &self.0
    }

    /// Its columns by name. Connectors and encodings may send them in different orders.
    pub fn sorted(&self) -> Vec<(&str, Cell<'_>)> {
        let mut columns: Vec<_> = self.0.columns().collect();
        columns.sort_unstable_by_key(|(name, _)| *name);
        columns
    }

    /// Whether no two rows of the table can share it. Columns that were named to the connector (`message.key.columns`) may
    /// be null, and then in any number of rows.
    pub fn is_unique(&self) -> bool {
        self.0.columns().all(|(_, cell)| !cell.is_null())
    }
}

/// A row got another primary key: Debezium sends that as a delete under the old and an insert under the new one.
#[derive(Debug, Clone, PartialEq)]
pub struct Moved {
    /// The row's other key, in the columns that this record's key has. `None` where the header that tells it is written in
    /// a way that is not known: connectors choose it (`header.converter`).
    pub key: Option<Key>,
}

impl Moved {
    pub(crate) fn renamed(&self, name: &dyn Fn(&str) -> Arc<str>) -> Self {
        Self {
            key: self.key.as_ref().map(|key| key.renamed(name)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::row::Value;

    #[test]
    fn a_key_has_columns_and_all_of_them() {
        assert_eq!(Key::of(Row::default()), None);
        assert_eq!(
            Key::of(Row::builder().value("a", Value::Int(1)).unavailable("b").finish()),
            None
        );
        let key = Key::of(Row::builder().value("b", Value::Int(1)).null("a").finish()).unwrap();
        assert!(!key.is_unique());
        assert_eq!(key.sorted()[0].0, "a");
        assert!(Key::of(Row::of([("a", Some(Value::Int(1)))])).unwrap().is_unique());
    }
}
