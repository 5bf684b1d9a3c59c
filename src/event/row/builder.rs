//! Filling a row, column after column.

use std::sync::Arc;

use super::{Cell, Row, Slot, Unavailable, Value};
use crate::event::modes::Modes;

/// A row being filled. Each column is named, then given its cell.
#[derive(Debug)]
pub struct RowBuilder {
    /// The names of an earlier row, shared as long as this one has the same.
    known: Arc<[Arc<str>]>,
    /// This row's own names, from the first that differs on.
    own: Option<Vec<Arc<str>>>,
    pub(super) slots: Vec<Slot>,
    pub(super) texts: String,
    modes: Modes,
}

impl RowBuilder {
    /// A row that probably has the columns of an earlier one, and about so many bytes of text.
    pub fn like(known: &Arc<[Arc<str>]>, text_bytes: usize) -> Self {
        Self {
            known: Arc::clone(known),
            own: None,
            slots: Vec::with_capacity(known.len()),
            texts: String::with_capacity(text_bytes),
            modes: Modes::default(),
        }
    }

    /// Says how values are to be read where a type is asked for.
    #[must_use]
    pub fn read_by(mut self, modes: Modes) -> Self {
        self.modes = modes;
        self
    }

    /// Adds a column with a value.
    ///
    /// # Panics
    /// When the row has the column already; so do the four below.
    #[must_use]
    pub fn value(mut self, column: &str, value: Value) -> Self {
        assert!(self.name(column), "column {column} was added twice");
        self.push_value(value);
        self
    }

    /// Adds a column with SQL null.
    #[must_use]
    pub fn null(mut self, column: &str) -> Self {
        assert!(self.name(column), "column {column} was added twice");
        self.push_null();
        self
    }

    /// Adds a column that is toasted and did not change.
    #[must_use]
    pub fn unavailable(mut self, column: &str) -> Self {
        assert!(self.name(column), "column {column} was added twice");
        self.push_unavailable(Unavailable::Unchanged);
        self
    }

    /// Adds a column that the connector cannot print.
    #[must_use]
    pub fn unreadable(mut self, column: &str) -> Self {
        assert!(self.name(column), "column {column} was added twice");
        self.push_unavailable(Unavailable::Unreadable);
        self
    }

    /// Adds a column with the cell of another row.
    #[must_use]
    pub fn cell(self, column: &str, cell: Cell<'_>) -> Self {
        match cell {
            Cell::Value(value) => self.value(column, value.to_owned()),
            Cell::Null => self.null(column),
            Cell::Unavailable(Unavailable::Unchanged) => self.unavailable(column),
            Cell::Unavailable(Unavailable::Unreadable) => self.unreadable(column),
        }
    }

    /// The row.
    ///
    /// # Panics
    /// When a column was named and not given a cell.
    pub fn finish(self) -> Row {
        let named = self.own.as_ref().map_or(self.slots.len(), Vec::len);
        assert_eq!(named, self.slots.len(), "a column was named without a cell");
        let names = match self.own {
            Some(own) => own.into(),
            None if self.slots.len() == self.known.len() => self.known,
            None => self.known[..self.slots.len()].into(),
        };
        Row {
            names,
            slots: self.slots,
            texts: self.texts,
            modes: self.modes,
        }
    }

    /// Names the next column; `false` when the row has a column of this name already, which is then not named anew.
    ///
    /// The names of an earlier row are known to differ, so a row like it is not searched.
    pub(crate) fn name(&mut self, name: &str) -> bool {
        let place = self.slots.len();
        if self.own.is_none() && self.known.get(place).is_some_and(|known| **known == *name) {
            return true;
        }
        let known = &self.known[..place.min(self.known.len())];
        let own = self.own.get_or_insert_with(|| known.to_vec());
        if own.iter().any(|own| **own == *name) {
            return false;
        }
        own.push(name.into());
        true
    }

    /// Whether all columns so far are those of the earlier row.
    pub(crate) fn is_like(&self) -> bool {
        self.own.is_none()
    }

    /// Names the next column as the earlier row has it; only while the row [`RowBuilder::is_like`] that one.
    pub(crate) fn next_is_known(&mut self) {
        debug_assert!(
            self.is_like() && self.slots.len() < self.known.len(),
            "the row is another one"
        );
    }

    pub(crate) fn push_null(&mut self) {
        self.slots.push(Slot::Null);
    }

    pub(crate) fn push_unavailable(&mut self, why: Unavailable) {
        self.slots.push(Slot::Unavailable(why));
    }

    pub(crate) fn push_bool(&mut self, value: bool) {
        self.slots.push(Slot::Bool(value));
    }

    pub(crate) fn push_int(&mut self, value: i64) {
        self.slots.push(Slot::Int(value));
    }

    pub(crate) fn push_float(&mut self, value: f64) {
        self.slots.push(Slot::Float(value));
    }

    pub(crate) fn push_text(&mut self, text: &str) {
        let start = self.texts.len();
        self.texts.push_str(text);
        self.keep_text(start);
    }

    /// Pushes the text that `write` appends, and answers what it answers.
    pub(crate) fn push_text_by<T>(&mut self, write: impl FnOnce(&mut String) -> T) -> T {
        let start = self.texts.len();
        let answer = write(&mut self.texts);
        self.keep_text(start);
        answer
    }

    fn keep_text(&mut self, start: usize) {
        // No record is that long; what does not fit the short places stands on its own.
        let slot = match (u32::try_from(start), u32::try_from(self.texts.len())) {
            (Ok(start), Ok(end)) => Slot::Text { start, end },
            _ => Slot::Nested(Box::new(Value::Text(self.texts.split_off(start).into()))),
        };
        self.slots.push(slot);
    }

    pub(crate) fn push_value(&mut self, value: Value) {
        match value {
            Value::Bool(value) => self.push_bool(value),
            Value::Int(value) => self.push_int(value),
            Value::Float(value) => self.push_float(value),
            Value::Text(text) => self.push_text(&text),
            Value::List(_) | Value::Struct(_) => self.slots.push(Slot::Nested(Box::new(value))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(value: &str) -> Value {
        Value::Text(value.into())
    }

    #[test]
    fn names_are_shared_as_long_as_they_are_the_same() {
        let first = Row::builder().value("a", text("x")).null("b").finish();
        let fill = |columns: &[&str]| {
            let mut builder = RowBuilder::like(first.names(), 0);
            for column in columns {
                builder = builder.null(column);
            }
            builder.finish()
        };
        assert!(Arc::ptr_eq(fill(&["a", "b"]).names(), first.names()));
        for columns in [&["a"][..], &["a", "c"], &["a", "b", "c"], &["b", "a"], &[]] {
            let row = fill(columns);
            assert!(
                row.columns().map(|(name, _)| name).eq(columns.iter().copied()),
                "{columns:?}"
            );
        }
    }

    #[test]
    fn rows_are_equal_when_their_columns_are_wherever_their_texts_stand() {
        let one = Row::builder().value("a", text("x")).value("b", text("y")).finish();
        let mut other = RowBuilder::like(&Arc::default(), 100);
        other.push_text("unseen");
        other.slots.clear();
        let same = other.value("a", text("x")).value("b", text("y")).finish();
        assert_eq!(one, same);
        assert_ne!(one, Row::builder().value("b", text("y")).value("a", text("x")).finish());
        assert_ne!(one, Row::builder().value("a", text("x")).finish());
    }
}
