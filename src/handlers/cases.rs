//! Small events for the tables of cases beside the handlers' rules.

use crate::event::change::{Change, ChangeEvent, Origin};
use crate::event::row::{Cell, Row, Value};

/// A row of text columns; `true`, `false` and the empty text stand for booleans and null.
pub(crate) fn row(columns: &[(&str, &str)]) -> Row {
    let cell = |text: &str| match text {
        "" => Cell::Null,
        "true" => Cell::Value(Value::Bool(true)),
        "false" => Cell::Value(Value::Bool(false)),
        _ => Cell::Value(Value::Text(text.into())),
    };
    Row::new(
        columns
            .iter()
            .map(|(name, text)| ((*name).into(), cell(text)))
            .collect(),
    )
}

pub(crate) fn inserted(table: &str, after: &[(&str, &str)]) -> ChangeEvent {
    event(table, Change::Insert { after: row(after) })
}

pub(crate) fn updated(table: &str, before: &[(&str, &str)], after: &[(&str, &str)]) -> ChangeEvent {
    let old = Some(row(before));
    event(
        table,
        Change::Update {
            before: old,
            after: row(after),
        },
    )
}

/// An update whose old row was not sent.
pub(crate) fn updated_blindly(table: &str, after: &[(&str, &str)]) -> ChangeEvent {
    event(
        table,
        Change::Update {
            before: None,
            after: row(after),
        },
    )
}

pub(crate) fn deleted(table: &str, before: &[(&str, &str)]) -> ChangeEvent {
    event(
        table,
        Change::Delete {
            before: Some(row(before)),
        },
    )
}

fn event(table: &str, change: Change) -> ChangeEvent {
    ChangeEvent {
        id: None,
        origin: Origin {
            name: "waitlist".into(),
            db: "waitlist".into(),
            schema: "public".into(),
            table: table.into(),
            tx: None,
            lsn: None,
            commit_ts_ms: None,
        },
        key: None,
        change,
    }
}
