//! One change of one row (or of a whole table), as every handler sees it, whatever encoding it arrived in.

use std::sync::Arc;

use crate::event::id::EventId;
use crate::event::row::Row;

/// A decoded change: what happened, to which row, in which transaction.
///
/// The value is immutable and shared between the handlers of a group.
#[derive(Debug, Clone, PartialEq)]
pub struct ChangeEvent {
    /// Stable across re-emission and encodings; `None` where no identity is defined (reads, rows of keyless tables).
    pub id: Option<EventId>,
    /// Where in Postgres the change happened.
    pub origin: Origin,
    /// The primary key, or `None` for keyless tables, truncates and logical messages.
    pub key: Option<Row>,
    /// What happened.
    pub change: Change,
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

/// What happened to the row. A state that Debezium cannot send cannot be written here.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// The row was inserted (or appeared under a new primary key).
    Insert {
        /// The row as inserted.
        after: Row,
    },
    /// The row was updated and kept its primary key.
    Update {
        /// The whole old row; only `REPLICA IDENTITY FULL` sends it.
        before: Option<Row>,
        /// The new row; columns that were toasted and did not change may be unavailable.
        after: Row,
    },
    /// The row was deleted (or left under its old primary key).
    Delete {
        /// The old row, whole only under `REPLICA IDENTITY FULL`.
        before: Option<Row>,
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

impl ChangeEvent {
    /// The new row, where there is one.
    pub fn after(&self) -> Option<&Row> {
        match &self.change {
            Change::Insert { after } | Change::Update { after, .. } | Change::Read { after } => Some(after),
            Change::Delete { .. } | Change::Truncate | Change::Message { .. } => None,
        }
    }

    /// The old row, where the source sent one.
    pub fn before(&self) -> Option<&Row> {
        match &self.change {
            Change::Update { before, .. } | Change::Delete { before } => before.as_ref(),
            Change::Insert { .. } | Change::Read { .. } | Change::Truncate | Change::Message { .. } => None,
        }
    }

    /// Whether `column` differs between the old and the new row.
    ///
    /// Inserts and deletes change every column they carry. An update whose old row is unknown may have changed
    /// anything, so it answers `true`; a column that is unavailable in the new row did not change.
    pub fn changed(&self, column: &str) -> bool {
        match &self.change {
            Change::Insert { after } | Change::Read { after } => after.get(column).is_some(),
            Change::Delete { before } => before.as_ref().is_none_or(|row| row.get(column).is_some()),
            Change::Truncate | Change::Message { .. } => false,
            Change::Update { before, after } => match (before.as_ref().map(|row| row.get(column)), after.get(column)) {
                (_, Some(cell)) if cell.is_unavailable() => false,
                (None, new) => new.is_some(),
                (Some(old), new) => old != new,
            },
        }
    }
}
