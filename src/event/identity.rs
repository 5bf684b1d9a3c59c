//! The identity of a change, from facts that every copy of it shares.
//!
//! Debezium may send a change again, with other Kafka offsets, processing times, `sequence`, `total_order`, headers and
//! schema ids; none of these is hashed. What is hashed comes from the write-ahead log, so the source that reads the log
//! itself computes the same id. Never change the encoding: the ledger would no longer know what was done.

use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::event::change::{Change, Origin};
use crate::event::id::EventId;
use crate::event::key::Key;
use crate::event::row::Cell;

/// First part of every identity of a row or table.
const VERSION: &str = "v1";
/// First part of every identity of a logical message.
const MESSAGE_VERSION: &str = "m";

/// The id of a change, or `None` where nothing tells two changes apart: rows read by a snapshot, rows without a key or with
/// null in it, and records whose place in the log is not known.
pub(crate) fn event_id(origin: &Origin, key: Option<&Key>, change: &Change) -> Option<EventId> {
    let lsn = origin.lsn?;
    let op = match change {
        Change::Insert { .. } => "c",
        Change::Update { .. } => "u",
        Change::Delete { .. } => "d",
        Change::Truncate => "t",
        Change::Read { .. } => return None,
        Change::Message { prefix, content } => return message_id(origin, lsn, prefix, content),
    };
    let mut parts = Parts::new();
    parts.text(VERSION);
    for name in [&origin.name, &origin.db, &origin.schema, &origin.table] {
        parts.text(name);
    }
    for number in [origin.tx, Some(lsn), origin.commit_ts_ms] {
        parts.number(number).ok()?;
    }
    parts.text(op);
    if !matches!(change, Change::Truncate) {
        parts.key(key.filter(|key| key.is_unique())?).ok()?;
    }
    Some(parts.finish())
}

fn message_id(origin: &Origin, lsn: i64, prefix: &str, content: &str) -> Option<EventId> {
    let mut parts = Parts::new();
    parts.text(MESSAGE_VERSION);
    parts.text(&origin.name);
    parts.text(&origin.db);
    parts.number(Some(lsn)).ok()?;
    parts.text(prefix);
    parts.text(content);
    Some(parts.finish())
}

/// A sequence of texts in which no two different sequences look alike: each is preceded by its length, and what is
/// absent by a length that no text has. It is hashed in one piece.
struct Parts(Vec<u8>);

/// More than the parts of most changes take.
const BYTES: usize = 256;

impl Parts {
    fn new() -> Self {
        Self(Vec::with_capacity(BYTES))
    }

    fn text(&mut self, text: &str) {
        self.0.extend_from_slice(&(text.len() as u64).to_be_bytes());
        self.0.extend_from_slice(text.as_bytes());
    }

    fn number(&mut self, number: Option<i64>) -> serde_json::Result<()> {
        match number {
            Some(number) => self.printed(&number),
            None => {
                self.0.extend_from_slice(&u64::MAX.to_be_bytes());
                Ok(())
            }
        }
    }

    /// The columns of a key in the order of their names; most keys have one.
    fn key(&mut self, key: &Key) -> serde_json::Result<()> {
        let mut columns = key.row().columns();
        match (columns.next(), columns.next()) {
            (Some((name, cell)), None) => self.column(name, cell),
            _ => key
                .sorted()
                .into_iter()
                .try_for_each(|(name, cell)| self.column(name, cell)),
        }
    }

    fn column(&mut self, name: &str, cell: Cell<'_>) -> serde_json::Result<()> {
        self.text(name);
        match cell {
            Cell::Value(value) => self.printed(&value),
            Cell::Null | Cell::Unavailable(_) => Ok(()),
        }
    }

    /// A text as it prints in JSON.
    fn printed(&mut self, value: &impl Serialize) -> serde_json::Result<()> {
        let start = self.0.len();
        self.0.extend_from_slice(&[0; 8]);
        serde_json::to_writer(&mut self.0, value)?;
        let length = (self.0.len() - start - 8) as u64;
        self.0[start..start + 8].copy_from_slice(&length.to_be_bytes());
        Ok(())
    }

    fn finish(self) -> EventId {
        let digest = Sha256::digest(&self.0);
        let mut id = [0; 16];
        id.copy_from_slice(&digest[..16]);
        EventId(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::change::Before;
    use crate::event::row::{Row, Value};

    fn origin() -> Origin {
        Origin {
            name: "waitlist".into(),
            db: "app".into(),
            schema: "public".into(),
            table: "users".into(),
            tx: Some(7),
            lsn: Some(100),
            commit_ts_ms: Some(1_000),
        }
    }

    fn key(columns: &[(&str, i64)]) -> Key {
        let columns = columns.iter().map(|(name, value)| (*name, Some(Value::Int(*value))));
        Key::of(Row::of(columns)).unwrap()
    }

    fn insert() -> Change {
        Change::Insert {
            after: Row::default(),
            moved_from: None,
        }
    }

    #[test]
    fn the_encoding_never_changes() {
        let id = event_id(&origin(), Some(&key(&[("id", 1)])), &insert()).unwrap();
        assert_eq!(id.to_string(), "e756dea47c94dd41b2cf5fa7a10864d2");
        let message = Change::Message {
            prefix: "p".to_owned(),
            content: "eA==".to_owned(),
        };
        assert_eq!(
            event_id(&origin(), None, &message).unwrap().to_string(),
            "6880d6dd7698f766cf82485054fe7a93"
        );
    }

    #[test]
    fn the_order_of_key_columns_does_not_matter() {
        let one = event_id(&origin(), Some(&key(&[("a", 1), ("b", 2)])), &insert());
        let other = event_id(&origin(), Some(&key(&[("b", 2), ("a", 1)])), &insert());
        assert_eq!(one, other);
        let swapped = event_id(&origin(), Some(&key(&[("a", 2), ("b", 1)])), &insert());
        assert_ne!(one, swapped);
    }

    #[test]
    fn every_part_counts() {
        let row = key(&[("id", 1)]);
        let base = event_id(&origin(), Some(&row), &insert());
        let other = |edit: fn(&mut Origin)| {
            let mut changed = origin();
            edit(&mut changed);
            event_id(&changed, Some(&row), &insert())
        };
        assert_ne!(base, other(|origin| origin.name = "other".into()));
        assert_ne!(base, other(|origin| origin.db = "other".into()));
        assert_ne!(base, other(|origin| origin.schema = "other".into()));
        assert_ne!(base, other(|origin| origin.table = "other".into()));
        assert_ne!(base, other(|origin| origin.tx = None));
        assert_ne!(base, other(|origin| origin.lsn = Some(101)));
        assert_ne!(base, other(|origin| origin.commit_ts_ms = Some(1_001)));
        let delete = Change::Delete {
            before: Before::Unknown,
            moved_to: None,
        };
        assert_ne!(base, event_id(&origin(), Some(&row), &delete));
        assert_ne!(base, event_id(&origin(), Some(&key(&[("id", 2)])), &insert()));
    }

    #[test]
    fn what_cannot_be_told_apart_has_no_identity() {
        let row = key(&[("id", 1)]);
        assert_eq!(event_id(&origin(), None, &insert()), None);
        let null = Key::of(Row::builder().null("id").finish()).unwrap();
        assert_eq!(event_id(&origin(), Some(&null), &insert()), None);
        assert_eq!(
            event_id(&origin(), Some(&row), &Change::Read { after: Row::default() }),
            None
        );
        let nowhere = Origin { lsn: None, ..origin() };
        assert_eq!(event_id(&nowhere, Some(&row), &insert()), None);
        assert!(event_id(&origin(), None, &Change::Truncate).is_some());
    }

    #[test]
    fn two_tables_of_one_truncate_and_a_message_beside_an_insert_differ() {
        let other_table = Origin {
            table: "referrals".into(),
            ..origin()
        };
        let truncate = event_id(&origin(), None, &Change::Truncate);
        assert_ne!(truncate, event_id(&other_table, None, &Change::Truncate));
        let message = Change::Message {
            prefix: "p".to_owned(),
            content: String::new(),
        };
        assert_ne!(truncate, event_id(&origin(), None, &message));
    }
}
