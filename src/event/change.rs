//! One change of one row (or of a whole table), as every handler sees it, whatever encoding it arrived in.

use std::sync::Arc;

use crate::event::id::EventId;
use crate::event::identity;
use crate::event::key::{Key, Moved};
use crate::event::row::{Cell, Row, Unavailable};

/// A decoded change: what happened, to which row, in which transaction.
///
/// The value is immutable and shared between the handlers of a group. Its id follows from the rest, under the names that
/// the source has for it, so it cannot be another's.
#[derive(Debug, Clone, PartialEq)]
pub struct ChangeEvent {
    id: Option<EventId>,
    origin: Origin,
    key: Option<Key>,
    change: Change,
}

/// Database coordinates of a change: Debezium's `source` block, without what changes on re-emission.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// Logical name of the source (`topic.prefix` of the connector).
    pub name: Arc<str>,
    /// Database name.
    pub db: Arc<str>,
    /// Schema of the table; empty for logical messages.
    pub schema: Arc<str>,
    /// Table name; empty for logical messages.
    pub table: Arc<str>,
    /// Transaction id, unsigned 32 bit when streamed, with epoch when read by a snapshot.
    pub tx: Option<i64>,
    /// Start of the row's WAL record. Not monotonic, not unique: never compare it to drop events.
    pub lsn: Option<i64>,
    /// Commit time in milliseconds since 1970-01-01 UTC.
    pub commit_ts_ms: Option<i64>,
}

#[cfg(test)]
impl Origin {
    /// Of a table in `public`, at no known place in the log.
    pub(crate) fn of_table(table: &str) -> Self {
        Self {
            name: "waitlist".into(),
            db: "waitlist".into(),
            schema: "public".into(),
            table: table.into(),
            tx: None,
            lsn: None,
            commit_ts_ms: None,
        }
    }
}

/// What happened to the row. A state that Debezium cannot send cannot be written here.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// The row was inserted, or appeared under a new primary key.
    Insert {
        /// The row as inserted. Where it moved, columns that were toasted and did not change may be unavailable.
        after: Row,
        /// Set where no row was inserted: an existing one got another primary key.
        moved_from: Option<Moved>,
    },
    /// The row was updated and kept its primary key.
    Update {
        /// The old row.
        before: Before,
        /// The new row; columns that were toasted and did not change may be unavailable.
        after: Row,
    },
    /// The row was deleted, or left under its old primary key.
    Delete {
        /// The old row.
        before: Before,
        /// Set where no row was deleted: it got another primary key.
        moved_to: Option<Moved>,
    },
    /// The row was read by a snapshot; nothing happened to it.
    Read {
        /// The row as read.
        after: Row,
    },
    /// The table was truncated.
    Truncate,
    /// `pg_logical_emit_message` was called.
    Message {
        /// The message's prefix.
        prefix: String,
        /// The content, base64.
        content: String,
    },
}

/// The old row, as far as it is known.
///
/// Only `REPLICA IDENTITY FULL` sends it whole. Every other identity sends the columns of that identity, and Debezium fills
/// the rest: null where the column may be null, else a zero, an empty text or the column's default. Such a row looks whole
/// and is not, so it is kept apart.
#[derive(Debug, Clone, PartialEq)]
pub enum Before {
    /// Nothing of it was sent.
    Unknown,
    /// The whole row.
    Whole(Row),
    /// What was sent of a table that is not known to send whole rows: all but the columns of its identity may be made up.
    AsSent(Row),
}

impl Before {
    /// The row, where it is whole.
    pub fn whole(&self) -> Option<&Row> {
        match self {
            Self::Whole(row) => Some(row),
            Self::Unknown | Self::AsSent(_) => None,
        }
    }

    fn renamed(&self, column: &dyn Fn(&str) -> Arc<str>) -> Self {
        match self {
            Self::Unknown => Self::Unknown,
            Self::Whole(row) => Self::Whole(row.renamed(column)),
            Self::AsSent(row) => Self::AsSent(row.renamed(column)),
        }
    }

    /// What was sent of the row, be it whole or not: only for what does not take it at its word.
    pub fn sent(&self) -> Option<&Row> {
        match self {
            Self::Whole(row) | Self::AsSent(row) => Some(row),
            Self::Unknown => None,
        }
    }
}

impl ChangeEvent {
    /// The event of a change. A truncate and a logical message concern no row, so they keep no key.
    pub fn new(origin: Origin, key: Option<Key>, change: Change) -> Self {
        let key = match change {
            Change::Truncate | Change::Message { .. } => None,
            _ => key,
        };
        Self {
            id: identity::event_id(&origin, key.as_ref(), &change),
            origin,
            key,
            change,
        }
    }

    /// The same change with other names of its table and columns, for code that knows the row by those. The id stays: it
    /// is that of the row under its own names.
    pub(crate) fn renamed(&self, schema: &str, table: &str, column: &dyn Fn(&str) -> Arc<str>) -> Self {
        let moved = |moved: &Option<Moved>| moved.as_ref().map(|moved| moved.renamed(column));
        Self {
            id: self.id,
            origin: Origin {
                schema: schema.into(),
                table: table.into(),
                ..self.origin.clone()
            },
            key: self.key.as_ref().map(|key| key.renamed(column)),
            change: match &self.change {
                Change::Insert { after, moved_from } => Change::Insert {
                    after: after.renamed(column),
                    moved_from: moved(moved_from),
                },
                Change::Update { before, after } => Change::Update {
                    before: before.renamed(column),
                    after: after.renamed(column),
                },
                Change::Delete { before, moved_to } => Change::Delete {
                    before: before.renamed(column),
                    moved_to: moved(moved_to),
                },
                Change::Read { after } => Change::Read {
                    after: after.renamed(column),
                },
                other @ (Change::Truncate | Change::Message { .. }) => other.clone(),
            },
        }
    }

    /// Stable across re-emission and encodings; `None` where no identity is defined (reads, rows of keyless tables).
    pub fn id(&self) -> Option<EventId> {
        self.id
    }

    /// Where in Postgres the change happened.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// The primary key, or `None` for keyless tables, truncates and logical messages.
    pub fn key(&self) -> Option<&Key> {
        self.key.as_ref()
    }

    /// What happened.
    pub fn change(&self) -> &Change {
        &self.change
    }

    /// The new row, where there is one.
    pub fn after(&self) -> Option<&Row> {
        match &self.change {
            Change::Insert { after, .. } | Change::Update { after, .. } | Change::Read { after } => Some(after),
            Change::Delete { .. } | Change::Truncate | Change::Message { .. } => None,
        }
    }

    /// The old row, where it is known to be whole.
    pub fn before(&self) -> Option<&Row> {
        self.sent_before()?.whole()
    }

    /// The old row, whole or not; `None` where there cannot be one.
    pub fn sent_before(&self) -> Option<&Before> {
        match &self.change {
            Change::Update { before, .. } | Change::Delete { before, .. } => Some(before),
            Change::Insert { .. } | Change::Read { .. } | Change::Truncate | Change::Message { .. } => None,
        }
    }

    /// Set when this is one half of a changed primary key: the row existed before and exists afterwards.
    pub fn moved(&self) -> Option<&Moved> {
        match &self.change {
            Change::Insert { moved_from: moved, .. } | Change::Delete { moved_to: moved, .. } => moved.as_ref(),
            Change::Update { .. } | Change::Read { .. } | Change::Truncate | Change::Message { .. } => None,
        }
    }

    /// Whether `column` differs between the old and the new row, as far as this event tells.
    ///
    /// Inserts and deletes change every column they carry. Where the old row is unknown anything may have changed, so the
    /// answer is `true`; so it is where the new value cannot be read. A column that was not sent because it did not change
    /// did not.
    pub fn changed(&self, column: &str) -> bool {
        let (before, after) = match &self.change {
            Change::Insert { after, .. } | Change::Read { after } => (None, after),
            Change::Update { before, after } => (before.whole(), after),
            Change::Delete { before, .. } => return before.whole().is_none_or(|row| row.get(column).is_some()),
            Change::Truncate | Change::Message { .. } => return false,
        };
        match (before.map(|row| row.get(column)), after.get(column)) {
            (_, Some(Cell::Unavailable(Unavailable::Unchanged))) => false,
            (_, Some(Cell::Unavailable(Unavailable::Unreadable))) => true,
            (None, new) => new.is_some(),
            (Some(old), new) => old != new,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::row::Value;

    fn row() -> crate::event::row::RowBuilder {
        Row::builder().value("same", Value::Int(1))
    }

    fn event(change: Change) -> ChangeEvent {
        let origin = Origin {
            lsn: Some(1),
            ..Origin::of_table("t")
        };
        ChangeEvent::new(origin, Key::of(Row::of([("id", Some(Value::Int(1)))])), change)
    }

    fn updated(before: Before, after: Row) -> ChangeEvent {
        event(Change::Update { before, after })
    }

    #[test]
    fn a_column_changed_unless_it_is_known_not_to_have() {
        let old = || {
            let filled = row().value("toasted", Value::Int(2)).null("array");
            filled.unreadable("grid").finish()
        };
        let new = || {
            let filled = row().unavailable("toasted").unreadable("array").unreadable("grid");
            filled.null("new").finish()
        };
        let whole = updated(Before::Whole(old()), new());
        let sent = updated(Before::AsSent(old()), new());
        let blind = updated(Before::Unknown, new());
        let moved = event(Change::Insert {
            after: new(),
            moved_from: Some(Moved { key: None }),
        });
        for (column, by_whole, by_others) in [
            ("same", false, true),
            ("toasted", false, false),
            ("array", true, true),
            ("grid", true, true),
            ("new", true, true),
            ("absent", false, false),
        ] {
            assert_eq!(whole.changed(column), by_whole, "{column}");
            for other in [&sent, &blind, &moved] {
                assert_eq!(other.changed(column), by_others, "{column}: {other:?}");
            }
        }
    }

    #[test]
    fn an_old_row_is_handed_out_only_when_it_is_whole() {
        let deleted = |before| event(Change::Delete { before, moved_to: None });
        assert_eq!(deleted(Before::Whole(row().finish())).before(), Some(&row().finish()));
        let sent = deleted(Before::AsSent(row().finish()));
        assert_eq!((sent.before(), sent.changed("same")), (None, true));
        assert!(matches!(sent.sent_before(), Some(Before::AsSent(_))));
        assert_eq!(event(Change::Truncate).sent_before(), None);
    }

    #[test]
    fn what_concerns_no_row_has_no_key_and_yet_an_id() {
        let truncate = event(Change::Truncate);
        assert_eq!(truncate.key(), None);
        assert!(truncate.id().is_some());
    }
}
