//! A row and its cells in canonical form.
//!
//! Canonical means: the JSON that Debezium itself prints with decimals, times and intervals as strings and binary as
//! base64. Decoders of every encoding convert to it, so an event compares and prints the same whatever carried it.

use std::sync::Arc;

use serde::ser::{Serialize, SerializeMap, Serializer};

/// One row: its columns in the order the source sent them. A column that was not sent is absent, which is neither
/// null nor unavailable.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Row {
    columns: Vec<(Arc<str>, Cell)>,
}

/// What a present column holds.
#[derive(Debug, Clone, PartialEq)]
pub enum Cell {
    /// A value.
    Value(Value),
    /// SQL null.
    Null,
    /// Postgres did not send it: a toasted value that did not change.
    Unavailable,
}

/// A value in canonical form.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// `boolean`, `bit(1)`.
    Bool(bool),
    /// Every integer type, and `oid`.
    Int(i64),
    /// `real` and `double precision`, finite. NaN and infinities are text, as JSON has no other way to print them.
    Float(f64),
    /// Text, and every type whose canonical form is text: decimals, times, uuids, binary as base64, json as its text.
    Text(Box<str>),
    /// Arrays; `None` is a null element.
    List(Vec<Option<Value>>),
    /// Structured types such as points, and maps; `None` is a null member.
    Struct(Vec<(Arc<str>, Option<Value>)>),
}

impl Row {
    /// A row of these columns, in this order.
    pub fn new(columns: Vec<(Arc<str>, Cell)>) -> Self {
        Self { columns }
    }

    /// The cell of a column, or `None` when the column is absent.
    pub fn get(&self, column: &str) -> Option<&Cell> {
        self.columns
            .iter()
            .find(|(name, _)| &**name == column)
            .map(|(_, cell)| cell)
    }

    /// All columns in the source's order.
    pub fn columns(&self) -> impl Iterator<Item = (&str, &Cell)> {
        self.columns.iter().map(|(name, cell)| (&**name, cell))
    }

    /// The names of all columns in the source's order, as they are shared between rows.
    pub fn names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.columns.iter().map(|(name, _)| name)
    }

    /// The text of a column; `None` when it is absent, null, unavailable or not text.
    pub fn text(&self, column: &str) -> Option<&str> {
        match self.get(column)? {
            Cell::Value(Value::Text(text)) => Some(text),
            Cell::Value(_) | Cell::Null | Cell::Unavailable => None,
        }
    }

    /// The boolean of a column; `None` when it is absent, null, unavailable or not a boolean.
    pub fn bool(&self, column: &str) -> Option<bool> {
        match self.get(column)? {
            Cell::Value(Value::Bool(value)) => Some(*value),
            Cell::Value(_) | Cell::Null | Cell::Unavailable => None,
        }
    }

    /// The integer of a column; `None` when it is absent, null, unavailable or not an integer.
    pub fn int(&self, column: &str) -> Option<i64> {
        match self.get(column)? {
            Cell::Value(Value::Int(value)) => Some(*value),
            Cell::Value(_) | Cell::Null | Cell::Unavailable => None,
        }
    }
}

impl Cell {
    /// Whether this is an unchanged toasted value that Postgres did not send.
    pub fn is_unavailable(&self) -> bool {
        matches!(self, Self::Unavailable)
    }

    /// Whether this is SQL null.
    pub fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }
}

impl Serialize for Value {
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
                for (name, value) in members {
                    map.serialize_entry(name, value)?;
                }
                map.end()
            }
        }
    }
}
