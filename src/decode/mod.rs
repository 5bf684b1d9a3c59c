//! Bytes of a record in, an event out: JSON without schema, JSON with schema, Avro; keys and values independently.
//!
//! Decoding is pure. It never does I/O, never panics, never allocates by a length that a message claims, and never
//! guesses: what it does not know is [`Content::Undecodable`] with the reason, and the bytes go to the dead letters
//! unharmed. Texts of reasons name tables, columns and settings, and never quote what a column holds.
//!
//! Avro needs writer schemas, and those are fetched outside: [`Decoder::decode`] answers [`Decoded::MissingSchema`],
//! the caller asks the [`registry`] and hands the schema to [`Decoder::learn`], then decodes again.
//!
//! ```
//! use afterwrite::decode::{Decoded, Decoder, options::Options};
//! use afterwrite::event::delivery::{Content, RawRecord};
//!
//! let decoder = Decoder::new(Options::default());
//! let record = RawRecord {
//!     value: Some(br#"{"op":"t","source":{"schema":"public","table":"users","lsn":1}}"#.as_slice().into()),
//!     ..RawRecord::default()
//! };
//! let decoded = decoder.decode("waitlist.public.users", &record);
//! assert!(matches!(decoded, Decoded::Content(Content::Change(_))));
//! ```

pub mod options;
pub mod tables;

mod debezium;
mod envelope;
mod framing;
mod moved;
mod source_block;
mod wrapper;

mod avro;
mod connect;
mod escape;
mod json;
mod old_row;
mod scan;
pub mod schema;

mod decimal;
mod placeholder;
mod types;

pub mod canonical;
mod memo;

pub mod unknown;

pub mod registry;

pub mod resolve;

pub(crate) mod written;

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, PoisonError, RwLock};

use crate::decode::avro::Reader;
use crate::decode::debezium::{CLOUD_EVENTS, FLATTENED, Kind, Surroundings, UNKNOWN};
use crate::decode::envelope::{Envelope, Reading, Shape};
use crate::decode::framing::{Framing, Part, Payload};
use crate::decode::json::Columns;
use crate::decode::memo::{Topic, Topics};
use crate::decode::options::Options;
use crate::decode::placeholder::Placeholder;
use crate::decode::schema::{SchemaDocument, SchemaError, WriterSchema};
use crate::decode::tables::Tables;
use crate::decode::types::Budget;
use crate::decode::unknown::Unknown;
use crate::event::delivery::{Content, RawRecord, SkipReason};
use crate::event::row::Row;

/// Decodes the records of one source. Shared between threads; what it remembers is bounded.
#[derive(Debug)]
pub struct Decoder {
    options: Options,
    placeholder: Placeholder,
    topics: Topics,
    schemas: RwLock<Schemas>,
}

/// What became of a record.
#[derive(Debug, Clone)]
pub enum Decoded {
    /// It is decoded, or never will be.
    Content(Content),
    /// It was written with the schema of this id, which the decoder does not know. Fetch it, [`Decoder::learn`] it,
    /// decode again; or, when the registry is certain that there is none, [`Decoder::decode_despite`] it.
    MissingSchema(u32),
}

/// Writer schemas by id, with the order in which they came.
#[derive(Debug, Default)]
struct Schemas {
    by_id: HashMap<u32, Result<Arc<WriterSchema>, SchemaError>>,
    order: VecDeque<u32>,
}

/// Why decoding stopped.
#[derive(Debug)]
enum Stop {
    Missing(u32),
    Undecodable(String),
}

impl From<String> for Stop {
    fn from(reason: String) -> Self {
        Self::Undecodable(reason)
    }
}

impl From<&str> for Stop {
    fn from(reason: &str) -> Self {
        Self::Undecodable(reason.to_owned())
    }
}

impl Decoder {
    /// A decoder that knows no schema yet.
    pub fn new(options: Options) -> Self {
        Self {
            placeholder: Placeholder::new(&options.unavailable_placeholder),
            topics: Topics::new(options.remembered_max.max(1)),
            schemas: RwLock::default(),
            options,
        }
    }

    /// Decodes one record, whatever table it is of.
    pub fn decode(&self, topic: &str, record: &RawRecord) -> Decoded {
        self.decode_despite(topic, record, &Tables::all(), &[])
    }

    /// Decodes one record of a wanted table although these schemas do not exist: a record that needs one of them
    /// cannot be decoded. Nothing is remembered; an id that is unknown now may be registered later.
    ///
    /// Changes of other tables are [`SkipReason::Unrouted`], and their rows are not read. Which table a change in JSON is of
    /// is told by its end, from the source block on: right for every record that is JSON. One that is not, such as one with
    /// a damaged row, may be unrouted here and [`Content::Undecodable`] for whoever wants the table; nobody who gets it as
    /// unrouted would have read the row. All other records are told apart as [`Decoder::decode`] does.
    pub fn decode_despite(&self, topic: &str, record: &RawRecord, wanted: &Tables, unknown: &[Unknown]) -> Decoded {
        match self.content(topic, record, wanted, unknown) {
            Ok(content) => Decoded::Content(content),
            Err(Stop::Missing(id)) => Decoded::MissingSchema(id),
            Err(Stop::Undecodable(reason)) => Decoded::Content(Content::Undecodable(reason)),
        }
    }

    /// Remembers the writer schema of an id. A schema that cannot be used is remembered too: records written with it
    /// cannot be decoded, for the reason that is returned.
    ///
    /// # Errors
    /// When the schema is not one that can be read with.
    pub fn learn(&self, id: u32, document: &SchemaDocument) -> Result<(), SchemaError> {
        let parsed = WriterSchema::parse(document).map(Arc::new);
        let answer = parsed.as_ref().map(|_| ()).map_err(Clone::clone);
        let mut schemas = self.schemas.write().unwrap_or_else(PoisonError::into_inner);
        if schemas.by_id.insert(id, parsed).is_none() {
            schemas.order.push_back(id);
        }
        while schemas.order.len() > self.options.remembered_max.max(2) {
            if let Some(oldest) = schemas.order.pop_front() {
                schemas.by_id.remove(&oldest);
            }
        }
        answer
    }

    fn schema(&self, id: u32, unknown: &[Unknown]) -> Result<Arc<WriterSchema>, Stop> {
        let schemas = self.schemas.read().unwrap_or_else(PoisonError::into_inner);
        match schemas.by_id.get(&id) {
            Some(Ok(schema)) => Ok(Arc::clone(schema)),
            Some(Err(error)) => Err(format!("schema {id}: {error}").into()),
            None => match unknown.iter().find(|unknown| unknown.id == id) {
                Some(unknown) => Err(unknown.to_string().into()),
                None => Err(Stop::Missing(id)),
            },
        }
    }

    fn content(&self, topic: &str, record: &RawRecord, wanted: &Tables, unknown: &[Unknown]) -> Result<Content, Stop> {
        let value = match &record.value {
            Some(value) if !value.is_empty() => value,
            _ => return Ok(Content::Skip(SkipReason::Tombstone)),
        };
        if self.options.is_heartbeat_topic(topic) {
            return Ok(Content::Skip(SkipReason::Heartbeat));
        }
        let memo = self.topics.of(topic);
        let surroundings = Surroundings {
            options: &self.options,
            placeholder: &self.placeholder,
            topic: &memo,
            raw: record,
            wanted,
        };
        let key = || self.key(&memo, record, unknown);
        match framing::of(value, self.options.format, Part::Value, &record.headers)? {
            Framing::Avro { id, body } => {
                let schema = self.schema(id, unknown)?;
                match of_avro(&schema, body)? {
                    Found::Envelope(envelope) => debezium::content(envelope, surroundings, key),
                    Found::Content(content) => Ok(content),
                }
            }
            Framing::Json => {
                let payload = Payload::of(value, self.options.format, &memo.values)?;
                // Columns that come with a record are not looked up.
                let names = match payload.as_struct() {
                    None => memo.values.names(),
                    Some(_) => Arc::default(),
                };
                let mut budget = Budget::of(value.len());
                let reading = memo.is_wanted(wanted).then_some(Reading {
                    rows_are_alike: payload.rows_are_alike(),
                    names: &names,
                    modes: self.options.modes(),
                    text_bytes: memo.values.text_bytes(),
                    budget: &mut budget,
                });
                if reading.is_none()
                    && let Some(envelope) = unwanted(&payload, wanted)
                {
                    return debezium::content(envelope, surroundings, key);
                }
                match of_json(&payload, reading, || self.is_server_name(&memo, record, unknown))? {
                    Found::Envelope(envelope) => debezium::content(envelope, surroundings, key),
                    Found::Content(content) => Ok(content),
                }
            }
        }
    }

    /// Reads a record's key as a row; a null key is none.
    fn key(&self, topic: &Topic, record: &RawRecord, unknown: &[Unknown]) -> Result<Option<Row>, Stop> {
        let Some(bytes) = record.key.as_deref() else {
            return Ok(None);
        };
        let format = self.options.key_format.unwrap_or(self.options.format);
        match framing::of(bytes, format, Part::Key, &record.headers).map_err(of_key)? {
            Framing::Avro { id, body } => {
                let schema = self.schema(id, unknown)?;
                let mut reader = Reader::new(&schema, body);
                let record = reader.root().ok_or("the key is Avro but not a record")?;
                let row = reader.row(record, &mut Budget::of(bytes.len())).map_err(of_key)?;
                if !reader.is_at_end() {
                    return Err("the key is longer than its schema says: it was written with another schema".into());
                }
                Ok(Some(row))
            }
            Framing::Json => {
                let payload = Payload::of(bytes, format, &topic.keys).map_err(of_key)?;
                if payload.text == "null" {
                    return Ok(None);
                }
                let known = topic.keys.names();
                let columns = payload.as_struct();
                let columns_or_names = columns.map_or(Columns::Named(&known, self.options.modes()), Columns::Typed);
                let row = json::row(payload.text, columns_or_names, &mut Budget::of(bytes.len())).map_err(of_key)?;
                if columns.is_none() {
                    topic.keys.remember_names(&known, &row);
                }
                Ok(Some(row))
            }
        }
    }

    /// Whether a key is `{"serverName":…}` and nothing else.
    fn is_server_name(&self, topic: &Topic, record: &RawRecord, unknown: &[Unknown]) -> Result<bool, Stop> {
        match self.key(topic, record, unknown) {
            Ok(key) => Ok(key.is_some_and(|key| key.columns().map(|(name, _)| name).eq(["serverName"]))),
            Err(Stop::Undecodable(_)) => Ok(false),
            Err(missing) => Err(missing),
        }
    }
}

fn of_key(reason: impl std::fmt::Display) -> String {
    format!("the key: {reason}")
}

/// A value whose kind is known.
#[expect(
    clippy::large_enum_variant,
    reason = "lives on the stack for one call; a box would cost an allocation for each record"
)]
enum Found<'a> {
    Envelope(Envelope<'a>),
    Content(Content),
}

fn of_avro<'a>(schema: &'a WriterSchema, body: &'a [u8]) -> Result<Found<'a>, Stop> {
    let record = Reader::new(schema, body).root().ok_or(UNKNOWN)?;
    if record.names.iter().any(|name| **name == *"specversion") {
        return Err(CLOUD_EVENTS.into());
    }
    match Kind::of_name(&record.name) {
        Some(Kind::Change) => Ok(Found::Envelope(Envelope::of_avro(schema, body, record)?)),
        Some(Kind::Skip(reason)) => Ok(Found::Content(Content::Skip(reason))),
        Some(Kind::Flattened) => Err(FLATTENED.into()),
        Some(Kind::CloudEvents) => Err(CLOUD_EVENTS.into()),
        Some(Kind::Beat) | None => Err(UNKNOWN.into()),
    }
}

/// The envelope of a change that nobody wants, without rows, which are not even walked over; `None` when it is anything
/// else, or may be.
fn unwanted<'a>(payload: &'a Payload<'a>, wanted: &Tables) -> Option<Envelope<'a>> {
    if !matches!(payload.kind(), Some(Kind::Change) | None) {
        return None;
    }
    let envelope = Shape::of_end(payload.text)?.envelope().ok()?;
    (!wanted.contains(&envelope.source.schema, &envelope.source.table)).then_some(envelope)
}

fn of_json<'a>(
    payload: &'a Payload<'a>,
    reading: Option<Reading<'_>>,
    key_is_server_name: impl FnOnce() -> Result<bool, Stop>,
) -> Result<Found<'a>, Stop> {
    if payload.text == "null" {
        return Ok(Found::Content(Content::Skip(SkipReason::Tombstone)));
    }
    let named = payload.kind();
    // A payload behind a remembered schema is not parsed yet: also what nobody reads must be JSON, as at first sight.
    let shape = Shape::of(payload.text, payload.as_struct(), reading)?;
    if let Some(Kind::Skip(reason)) = named {
        return Ok(Found::Content(Content::Skip(reason)));
    }
    let by_shape = Kind::of_shape(&shape);
    match named.filter(|_| by_shape != Some(Kind::CloudEvents)).or(by_shape) {
        Some(Kind::Change) => Ok(Found::Envelope(shape.envelope()?)),
        Some(Kind::Skip(reason)) => Ok(Found::Content(Content::Skip(reason))),
        Some(Kind::Beat) if key_is_server_name()? => Ok(Found::Content(Content::Skip(SkipReason::Heartbeat))),
        Some(Kind::Flattened) => Err(FLATTENED.into()),
        Some(Kind::CloudEvents) => Err(CLOUD_EVENTS.into()),
        Some(Kind::Beat) | None => Err(UNKNOWN.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_record_that_nobody_reads_is_undecodable_also_behind_a_known_schema() {
        let record = |payload: &str| {
            RawRecord {
            value: Some(
                format!(r#"{{"schema":{{"type":"struct","fields":[],"name":"io.debezium.connector.common.Heartbeat"}},"payload":{payload}}}"#)
                    .into(),
            ),
            ..RawRecord::default()
        }
        };
        let decoder = Decoder::new(Options::default());
        let damaged = record("{\"ts_ms\":1\u{0}}");
        let is_undecodable = || matches!(decoder.decode("t", &damaged), Decoded::Content(Content::Undecodable(_)));
        assert!(is_undecodable());
        let whole = decoder.decode("t", &record(r#"{"ts_ms":1}"#));
        assert!(
            matches!(whole, Decoded::Content(Content::Skip(SkipReason::Heartbeat))),
            "{whole:?}"
        );
        assert!(is_undecodable());
    }
}
