//! Changes of a table, as a connector with the recommended modes would have sent them: what is built here went through the real
//! decoder, so it reads, and is known by its id, as the change of a real row.
//!
//! ```
//! use afterwrite::testkit::table::Table;
//! use serde_json::json;
//!
//! let orders = Table::of("orders", ["id"]);
//! let placed = orders.insert(json!({"id": 1, "status": "open", "total": "19.90"}));
//! let paid = orders.update(
//!     json!({"id": 1, "status": "open", "total": "19.90"}),
//!     json!({"id": 1, "status": "paid", "total": "19.90"}),
//! );
//! assert!(paid.changed("status") && !paid.changed("total"));
//! assert_eq!(paid.after().and_then(|row| row.text("status")), Some("paid"));
//! assert!(placed.id().is_some() && placed.id() != paid.id());
//! ```
//!
//! Values are written as Debezium prints them: decimals, times and uuids are texts (`"2026-07-01T12:00:00.5Z"`, dates
//! `"2026-12-31Z"`), `bytea` is base64. An object stands for `json` and `jsonb`, whose text a connector sends; an array for an array.
//! [`UNAVAILABLE`] stands for a value that was not sent; where the old row has it, it is taken from there, as the worker does.
//! Columns come in the order of their names.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use chrono::Utc;
use serde_json::{Map, Value as Json, json};

use crate::decode::options::{Format, Options, UNAVAILABLE_PLACEHOLDER};
use crate::decode::tables::Tables;
use crate::decode::{Decoded, Decoder};
use crate::event::change::{Before, Change, ChangeEvent};
use crate::event::delivery::{Content, RawRecord};
use crate::event::key::{Key, Moved};
use crate::event::row::{Cell, Row};

/// Stands for a value that is out of line, did not change and was not sent.
pub const UNAVAILABLE: &str = UNAVAILABLE_PLACEHOLDER;

/// Name of the source and of the database, where a test does not care.
const NAME: &str = "waitlist";

/// Headers of the halves of a changed primary key.
const MOVED: (&str, &str) = ("__debezium.oldkey", "__debezium.newkey");

/// Places in the log that were given out in this process.
static PLACES: AtomicI64 = AtomicI64::new(1 << 24);

/// Where in Postgres a change happened: what, beside table and primary key, its id is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Transaction id.
    pub tx: i64,
    /// Start of the row's record in the log.
    pub lsn: i64,
    /// When it was committed, in milliseconds since 1970-01-01 UTC.
    pub commit_ts_ms: i64,
}

impl Place {
    /// A place behind all those given out before, committed now.
    pub fn next() -> Self {
        let lsn = PLACES.fetch_add(64, Ordering::Relaxed);
        Self {
            tx: lsn / 64,
            lsn,
            commit_ts_ms: Utc::now().timestamp_millis(),
        }
    }
}

/// A table under `REPLICA IDENTITY FULL`.
#[derive(Debug, Clone)]
pub struct Table {
    source: String,
    database: String,
    schema: String,
    name: String,
    key: Vec<String>,
    place: Option<Place>,
}

impl Table {
    /// A table of schema `public` with the columns of its primary key, which may be none.
    pub fn of<K: Into<String>>(name: &str, key: impl IntoIterator<Item = K>) -> Self {
        Self {
            source: NAME.to_owned(),
            database: NAME.to_owned(),
            schema: "public".to_owned(),
            name: name.to_owned(),
            key: key.into_iter().map(Into::into).collect(),
            place: None,
        }
    }

    /// Of this schema.
    #[must_use]
    pub fn in_schema(mut self, schema: &str) -> Self {
        schema.clone_into(&mut self.schema);
        self
    }

    /// Of this source (the connector's `topic.prefix`) and database.
    #[must_use]
    pub fn from_source(mut self, source: &str, database: &str) -> Self {
        source.clone_into(&mut self.source);
        database.clone_into(&mut self.database);
        self
    }

    /// With changes at this place, instead of each behind the last: the same change has the same id.
    #[must_use]
    pub fn at(mut self, place: Place) -> Self {
        self.place = Some(place);
        self
    }

    /// A row was inserted.
    ///
    /// # Panics
    /// When the row is no object or lacks a column of the key; so do the others.
    pub fn insert(&self, after: Json) -> Arc<ChangeEvent> {
        self.event("c", None, Some(after))
    }

    /// A row was updated and kept its primary key.
    pub fn update(&self, before: Json, after: Json) -> Arc<ChangeEvent> {
        self.event("u", Some(before), Some(after))
    }

    /// A row was updated, and of the old one nothing is known: the table is not under `REPLICA IDENTITY FULL`.
    pub fn update_without_old_row(&self, after: Json) -> Arc<ChangeEvent> {
        self.event("u", None, Some(after))
    }

    /// A row was deleted.
    pub fn delete(&self, before: Json) -> Arc<ChangeEvent> {
        self.event("d", Some(before), None)
    }

    fn event(&self, op: &str, before: Option<Json>, after: Option<Json>) -> Arc<ChangeEvent> {
        let (before, after) = (before.map(as_sent), after.map(as_sent));
        let newest = after.as_ref().or(before.as_ref());
        let key = newest.filter(|_| !self.key.is_empty()).map(|row| {
            let column = |name: &String| {
                let value = row
                    .get(name)
                    .unwrap_or_else(|| panic!("the row lacks {name}, a column of the key"));
                (name.clone(), value.clone())
            };
            Json::Object(self.key.iter().map(column).collect())
        });
        let Place { tx, lsn, commit_ts_ms } = self.place.unwrap_or_else(Place::next);
        let source = json!({
            "version": "3.7.0.Final", "connector": "postgresql", "name": self.source, "ts_ms": commit_ts_ms,
            "snapshot": "false", "db": self.database, "schema": self.schema, "table": self.name, "txId": tx, "lsn": lsn,
        });
        let record = RawRecord {
            key: key.map(|key| key.to_string().into()),
            value: Some(envelope(before, after, source, op)),
            headers: Vec::new(),
            timestamp_ms: Some(commit_ts_ms),
        };
        decoded(&record)
    }
}

fn envelope(before: Option<Json>, after: Option<Json>, source: Json, op: &str) -> bytes::Bytes {
    json!({"before": before, "after": after, "source": source, "op": op})
        .to_string()
        .into()
}

/// A row as the connector prints it.
fn as_sent(row: Json) -> Json {
    let Json::Object(columns) = row else {
        panic!("a row is an object of its columns: {row}");
    };
    let printed = |value: Json| match value {
        Json::Object(_) => Json::String(value.to_string()),
        other => other,
    };
    let columns = columns.into_iter().map(|(name, value)| (name, printed(value)));
    Json::Object(columns.collect())
}

/// Reads records as the worker does whose tables are all under `REPLICA IDENTITY FULL`.
pub(super) fn decoder() -> Decoder {
    Decoder::new(Options {
        format: Format::Json,
        full_identity: Tables::all(),
        ..Options::default()
    })
}

fn decoded(record: &RawRecord) -> Arc<ChangeEvent> {
    match decoder().decode("built", record) {
        Decoded::Content(Content::Change(event)) => event,
        other => panic!("the change cannot be decoded: {other:?}"),
    }
}

/// The record that a connector would have sent for an event, from which the same event is decoded again.
///
/// # Panics
/// For rows that were read by a snapshot, and for logical messages, which wake no handler under test.
pub(super) fn record(event: &ChangeEvent) -> RawRecord {
    let origin = event.origin();
    let before = match event.sent_before() {
        Some(Before::Whole(row) | Before::AsSent(row)) => Some(printed(row)),
        Some(Before::Unknown) | None => None,
    };
    let op = match event.change() {
        Change::Insert { .. } => "c",
        Change::Update { .. } => "u",
        Change::Delete { .. } => "d",
        Change::Truncate => "t",
        Change::Read { .. } | Change::Message { .. } => {
            panic!("the kit delivers changes of rows: {:?}", event.change())
        }
    };
    let source = json!({
        "version": "3.7.0.Final", "connector": "postgresql", "name": &*origin.name, "ts_ms": origin.commit_ts_ms,
        "snapshot": "false", "db": &*origin.db, "schema": &*origin.schema, "table": &*origin.table, "txId": origin.tx,
        "lsn": origin.lsn,
    });
    let key = |key: &Key| bytes::Bytes::from(printed(key.row()).to_string());
    let moved = event.moved().map(|Moved { key: other }| {
        let name = match event.change() {
            Change::Delete { .. } => MOVED.1,
            _ => MOVED.0,
        };
        (name.to_owned(), other.as_ref().map(key))
    });
    RawRecord {
        key: event.key().map(key),
        value: Some(envelope(before, event.after().map(printed), source, op)),
        headers: moved.into_iter().collect(),
        timestamp_ms: origin.commit_ts_ms,
    }
}

fn printed(row: &Row) -> Json {
    let columns = row.columns().map(|(name, cell)| {
        let value = match cell {
            Cell::Value(value) => serde_json::to_value(value).expect("a value in canonical form is JSON"),
            Cell::Null => Json::Null,
            Cell::Unavailable(_) => Json::String(UNAVAILABLE.to_owned()),
        };
        (name.to_owned(), value)
    });
    Json::Object(columns.collect::<Map<String, Json>>())
}

#[cfg(test)]
#[path = "table_tests.rs"]
mod tests;
