//! The one JSON that an event prints as, whatever encoding it came in.

use serde::ser::{Serialize, SerializeMap, Serializer};

use crate::event::change::{Before, Change, ChangeEvent};
use crate::event::key::Moved;
use crate::event::row::{Cell, Row};

/// Prints an event with the members `id, schema, table, op, key, before, after, unavailable, tx, lsn, commit_ts_ms`.
///
/// `before` is the whole old row or null. Some events have one member more: `before_as_sent`, an old row of which only the
/// columns of the replica identity are sure; `moved_from` and `moved_to`, the row's other key where its primary key was
/// changed (null where that key is not known); `message` of a logical message.
#[derive(Debug, Clone, Copy)]
pub struct Canonical<'a>(pub &'a ChangeEvent);

/// The word for what happened.
pub fn op(change: &Change) -> &'static str {
    match change {
        Change::Insert { .. } => "insert",
        Change::Update { .. } => "update",
        Change::Delete { .. } => "delete",
        Change::Read { .. } => "read",
        Change::Truncate => "truncate",
        Change::Message { .. } => "message",
    }
}

impl Serialize for Canonical<'_> {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        let event = self.0;
        let unavailable: Vec<&str> = event
            .after()
            .into_iter()
            .flat_map(Row::columns)
            .filter(|(_, cell)| cell.is_unavailable())
            .map(|(name, _)| name)
            .collect();
        let mut map = out.serialize_map(None)?;
        map.serialize_entry("id", &event.id().map(|id| id.to_string()))?;
        map.serialize_entry("schema", &event.origin().schema)?;
        map.serialize_entry("table", &event.origin().table)?;
        map.serialize_entry("op", op(event.change()))?;
        map.serialize_entry("key", &event.key().map(|key| CanonicalRow(key.row())))?;
        map.serialize_entry("before", &event.before().map(CanonicalRow))?;
        map.serialize_entry("after", &event.after().map(CanonicalRow))?;
        map.serialize_entry("unavailable", &unavailable)?;
        map.serialize_entry("tx", &event.origin().tx)?;
        map.serialize_entry("lsn", &event.origin().lsn)?;
        map.serialize_entry("commit_ts_ms", &event.origin().commit_ts_ms)?;
        if let Some(Before::AsSent(row)) = event.sent_before() {
            map.serialize_entry("before_as_sent", &CanonicalRow(row))?;
        }
        if let Some(Moved { key }) = event.moved() {
            let direction = match event.change() {
                Change::Delete { .. } => "moved_to",
                _ => "moved_from",
            };
            map.serialize_entry(direction, &key.as_ref().map(|key| CanonicalRow(key.row())))?;
        }
        if let Change::Message { prefix, content } = event.change() {
            map.serialize_entry("message", &CanonicalMessage { prefix, content })?;
        }
        map.end()
    }
}

#[derive(serde::Serialize)]
struct CanonicalMessage<'a> {
    prefix: &'a str,
    content: &'a str,
}

/// Prints a row as an object; columns that are unavailable are left out.
#[derive(Debug, Clone, Copy)]
pub struct CanonicalRow<'a>(pub &'a Row);

impl Serialize for CanonicalRow<'_> {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        let mut map = out.serialize_map(None)?;
        for (name, cell) in self.0.columns() {
            match cell {
                Cell::Value(value) => map.serialize_entry(name, &value)?,
                Cell::Null => map.serialize_entry(name, &())?,
                Cell::Unavailable(_) => {}
            }
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::change::Origin;
    use crate::event::key::Key;
    use crate::event::row::Value;

    #[test]
    fn an_event_prints_every_member_and_leaves_out_what_is_unavailable() {
        let after = Row::builder()
            .value("b", Value::Float(1.0))
            .unavailable("a")
            .null("n")
            .value("l", Value::List(vec![None, Some(Value::Bool(true))]));
        let change = Change::Update {
            before: Before::Unknown,
            after: after.finish(),
        };
        assert_eq!(
            printed(None, change),
            r#"{"id":null,"schema":"public","table":"t","op":"update","key":null,"before":null,"after":{"b":1.0,"n":null,"l":[null,true]},"unavailable":["a"],"tx":1,"lsn":2,"commit_ts_ms":null}"#
        );
    }

    #[test]
    fn an_old_row_that_may_not_be_whole_is_printed_apart() {
        let row = |name| Row::of([(name, Some(Value::Int(1)))]);
        let change = Change::Delete {
            before: Before::AsSent(row("a")),
            moved_to: Some(Moved {
                key: Key::of(row("id")),
            }),
        };
        let text = printed(Key::of(Row::builder().null("id").finish()), change);
        assert!(text.contains(r#""key":{"id":null},"before":null,"#), "{text}");
        assert!(
            text.ends_with(r#","before_as_sent":{"a":1},"moved_to":{"id":1}}"#),
            "{text}"
        );
    }

    fn printed(key: Option<Key>, change: Change) -> String {
        let origin = Origin {
            tx: Some(1),
            lsn: Some(2),
            ..Origin::of_table("t")
        };
        serde_json::to_string(&Canonical(&ChangeEvent::new(origin, key, change))).unwrap()
    }
}
