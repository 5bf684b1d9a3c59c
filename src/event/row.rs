//! A row and its cells in canonical form.
//!
//! Canonical means: the JSON that Debezium itself prints with decimals, times and intervals as strings and binary as
//! base64. Decoders of every encoding convert to it, so an event compares and prints the same whatever carried it.
//!
//! A row costs few allocations whatever the number of its columns: names are shared between the rows of a table, and
//! all texts of a row stand in one buffer.

mod builder;
mod copied;

use std::fmt;
use std::sync::Arc;

use serde::ser::{Serialize, SerializeMap, Serializer};

use crate::event::modes::Modes;

pub use self::builder::RowBuilder;

/// One row: its columns in the order the source sent them. A column that was not sent is absent, which is neither
/// null nor unavailable.
#[derive(Clone, Default)]
pub struct Row {
    names: Arc<[Arc<str>]>,
    slots: Vec<Slot>,
    texts: String,
    modes: Modes,
}

/// What a present column holds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Cell<'r> {
    /// A value.
    Value(ValueRef<'r>),
    /// SQL null.
    Null,
    /// There is a value, and it was not sent.
    Unavailable(Unavailable),
}

/// Why a value was not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unavailable {
    /// It is toasted and did not change, so it is not in the write-ahead log.
    Unchanged,
    /// The connector cannot print it: an array of more than one dimension.
    Unreadable,
}

/// A value in canonical form, inside its row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum ValueRef<'r> {
    /// `boolean`, `bit(1)`.
    Bool(bool),
    /// Every integer type, and `oid`.
    Int(i64),
    /// `real` and `double precision`, finite. NaN and infinities are text, as JSON has no other way to print them.
    Float(f64),
    /// Text, and every type whose canonical form is text: decimals, times, uuids, binary as base64, json as its text.
    Text(&'r str),
    /// Arrays; `None` is a null element.
    List(&'r [Option<Value>]),
    /// Structured types such as points, and maps; `None` is a null member.
    Struct(&'r [(Arc<str>, Option<Value>)]),
}

/// A value in canonical form, on its own.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// As [`ValueRef::Bool`].
    Bool(bool),
    /// As [`ValueRef::Int`].
    Int(i64),
    /// As [`ValueRef::Float`].
    Float(f64),
    /// As [`ValueRef::Text`].
    Text(Box<str>),
    /// As [`ValueRef::List`].
    List(Vec<Option<Value>>),
    /// As [`ValueRef::Struct`].
    Struct(Vec<(Arc<str>, Option<Value>)>),
}

/// How a cell is kept.
#[derive(Debug, Clone)]
enum Slot {
    Null,
    Unavailable(Unavailable),
    Bool(bool),
    Int(i64),
    Float(f64),
    /// A part of the row's texts.
    Text {
        start: u32,
        end: u32,
    },
    Nested(Box<Value>),
}

impl Row {
    /// A row of these columns; `None` is SQL null.
    ///
    /// # Panics
    /// When a column is there twice.
    pub fn of<'n>(columns: impl IntoIterator<Item = (&'n str, Option<Value>)>) -> Self {
        let row = columns
            .into_iter()
            .fold(Self::builder(), |row, (name, value)| match value {
                Some(value) => row.value(name, value),
                None => row.null(name),
            });
        row.finish()
    }

    /// A row to be filled, column after column.
    pub fn builder() -> RowBuilder {
        RowBuilder::like(&Arc::default(), 0)
    }

    /// The cell of a column, or `None` when the column is absent.
    pub fn get(&self, column: &str) -> Option<Cell<'_>> {
        let place = self.names.iter().position(|name| &**name == column)?;
        Some(self.cell(&self.slots[place]))
    }

    /// All columns in the source's order.
    pub fn columns(&self) -> impl Iterator<Item = (&str, Cell<'_>)> {
        let named = self.names.iter().zip(&self.slots);
        named.map(|(name, slot)| (&**name, self.cell(slot)))
    }

    /// The names of all columns in the source's order, as they are shared between rows.
    pub fn names(&self) -> &Arc<[Arc<str>]> {
        &self.names
    }

    /// How its values are to be read where a type is asked for.
    pub(crate) fn modes(&self) -> Modes {
        self.modes
    }

    /// The text of a column; `None` when it is absent, null, unavailable or not text.
    pub fn text(&self, column: &str) -> Option<&str> {
        match self.get(column)? {
            Cell::Value(ValueRef::Text(text)) => Some(text),
            Cell::Value(_) | Cell::Null | Cell::Unavailable(_) => None,
        }
    }

    /// The boolean of a column; `None` when it is absent, null, unavailable or not a boolean.
    pub fn bool(&self, column: &str) -> Option<bool> {
        match self.get(column)? {
            Cell::Value(ValueRef::Bool(value)) => Some(value),
            Cell::Value(_) | Cell::Null | Cell::Unavailable(_) => None,
        }
    }

    /// The integer of a column; `None` when it is absent, null, unavailable or not an integer.
    pub fn int(&self, column: &str) -> Option<i64> {
        match self.get(column)? {
            Cell::Value(ValueRef::Int(value)) => Some(value),
            Cell::Value(_) | Cell::Null | Cell::Unavailable(_) => None,
        }
    }

    fn cell<'r>(&'r self, slot: &'r Slot) -> Cell<'r> {
        Cell::Value(match slot {
            Slot::Null => return Cell::Null,
            Slot::Unavailable(why) => return Cell::Unavailable(*why),
            Slot::Bool(value) => ValueRef::Bool(*value),
            Slot::Int(value) => ValueRef::Int(*value),
            Slot::Float(value) => ValueRef::Float(*value),
            Slot::Text { start, end } => ValueRef::Text(&self.texts[*start as usize..*end as usize]),
            Slot::Nested(value) => value.borrowed(),
        })
    }
}

impl Row {
    /// How many bytes all its texts take.
    pub(crate) fn text_bytes(&self) -> usize {
        self.texts.len()
    }

    /// The same row with other names of its columns, which must differ from each other.
    pub(crate) fn renamed(&self, name: &dyn Fn(&str) -> Arc<str>) -> Self {
        Self {
            names: self.names.iter().map(|known| name(known)).collect(),
            ..self.clone()
        }
    }

    /// Makes those columns unavailable, as unchanged, of which `is_so` holds, asked with their place and name.
    pub(crate) fn make_unavailable(&mut self, is_so: impl Fn(usize, &str, ValueRef<'_>) -> bool) {
        for place in 0..self.slots.len() {
            let is_unavailable = match self.cell(&self.slots[place]) {
                Cell::Value(value) => is_so(place, &self.names[place], value),
                Cell::Null | Cell::Unavailable(_) => false,
            };
            if is_unavailable {
                self.slots[place] = Slot::Unavailable(Unavailable::Unchanged);
            }
        }
    }
}

impl PartialEq for Row {
    fn eq(&self, other: &Self) -> bool {
        self.columns().eq(other.columns())
    }
}

impl fmt::Debug for Row {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_map().entries(self.columns()).finish()
    }
}

impl Cell<'_> {
    /// Whether there is a value that was not sent.
    pub fn is_unavailable(self) -> bool {
        matches!(self, Self::Unavailable(_))
    }

    /// Whether this is SQL null.
    pub fn is_null(self) -> bool {
        matches!(self, Self::Null)
    }
}

impl Value {
    /// The value as it is seen inside a row.
    pub fn borrowed(&self) -> ValueRef<'_> {
        match self {
            Self::Bool(value) => ValueRef::Bool(*value),
            Self::Int(value) => ValueRef::Int(*value),
            Self::Float(value) => ValueRef::Float(*value),
            Self::Text(text) => ValueRef::Text(text),
            Self::List(items) => ValueRef::List(items),
            Self::Struct(members) => ValueRef::Struct(members),
        }
    }
}

impl ValueRef<'_> {
    /// The value on its own.
    pub fn to_owned(self) -> Value {
        match self {
            Self::Bool(value) => Value::Bool(value),
            Self::Int(value) => Value::Int(value),
            Self::Float(value) => Value::Float(value),
            Self::Text(text) => Value::Text(text.into()),
            Self::List(items) => Value::List(items.to_vec()),
            Self::Struct(members) => Value::Struct(members.to_vec()),
        }
    }
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        self.borrowed().serialize(out)
    }
}

impl Serialize for ValueRef<'_> {
    /// Prints the value as Debezium's JSON has it.
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Bool(value) => out.serialize_bool(*value),
            Self::Int(value) => out.serialize_i64(*value),
            Self::Float(value) => out.serialize_f64(*value),
            Self::Text(value) => out.serialize_str(value),
            Self::List(items) => items.serialize(out),
            Self::Struct(members) => {
                let mut map = out.serialize_map(Some(members.len()))?;
                for (name, value) in *members {
                    map.serialize_entry(name, value)?;
                }
                map.end()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absent_null_and_unavailable_are_three_things() {
        let row = Row::builder()
            .null("n")
            .unavailable("u")
            .value("i", Value::Int(1))
            .finish();
        assert_eq!(row.get("absent"), None);
        assert_eq!(row.get("n"), Some(Cell::Null));
        assert_eq!(row.get("u"), Some(Cell::Unavailable(Unavailable::Unchanged)));
        assert_eq!((row.int("i"), row.text("i")), (Some(1), None));
    }
}
