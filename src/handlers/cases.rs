//! Small events for the tables of cases beside the handlers' rules.

use crate::event::change::{Before, Change, ChangeEvent, Origin};
use crate::event::row::{Row, Value};

/// A row of text columns; `true`, `false` and the empty text stand for booleans and null, `#7` for the integer.
pub(crate) fn row(columns: &[(&str, &str)]) -> Row {
    let value = |text: &str| match text {
        "" => None,
        "true" => Some(Value::Bool(true)),
        "false" => Some(Value::Bool(false)),
        _ if text.starts_with('#') => Some(Value::Int(text[1..].parse().expect("an integer"))),
        _ => Some(Value::Text(text.into())),
    };
    Row::of(columns.iter().map(|(name, text)| (*name, value(text))))
}

pub(crate) fn inserted(table: &str, after: &[(&str, &str)]) -> ChangeEvent {
    event(
        table,
        Change::Insert {
            after: row(after),
            moved_from: None,
        },
    )
}

pub(crate) fn updated(table: &str, before: &[(&str, &str)], after: &[(&str, &str)]) -> ChangeEvent {
    event(
        table,
        Change::Update {
            before: Before::Whole(row(before)),
            after: row(after),
        },
    )
}

/// An update whose old row was not sent.
pub(crate) fn updated_blindly(table: &str, after: &[(&str, &str)]) -> ChangeEvent {
    event(
        table,
        Change::Update {
            before: Before::Unknown,
            after: row(after),
        },
    )
}

pub(crate) fn deleted(table: &str, before: &[(&str, &str)]) -> ChangeEvent {
    event(
        table,
        Change::Delete {
            before: Before::Whole(row(before)),
            moved_to: None,
        },
    )
}

fn event(table: &str, change: Change) -> ChangeEvent {
    let origin = Origin::of_table(table);
    ChangeEvent::new(origin, None, change)
}
