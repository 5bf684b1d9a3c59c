//! What a record says about itself before any row is read: its kind, and the parts of a change.
//!
//! Rows stay unread here ([`Image`]), so a record that nobody wants costs no row.

use std::borrow::Cow;
use std::sync::Arc;

use serde::Deserialize;

use crate::decode::avro::Reader;
use crate::decode::connect::Struct;
use crate::decode::json::{self, Columns};
use crate::decode::placeholder::Toast;
use crate::decode::scan::{Broken, Scanner};
use crate::decode::schema::{Record, WriterSchema};
use crate::decode::types::{Budget, Sent};
use crate::event::modes::Modes;
use crate::event::row::Row;

/// A change, its rows unread.
#[derive(Debug, Default)]
pub(crate) struct Envelope<'a> {
    pub(crate) op: Cow<'a, str>,
    pub(crate) source: Source<'a>,
    pub(crate) before: Option<Image<'a>>,
    pub(crate) after: Option<Image<'a>>,
    pub(crate) message: Option<Message>,
}

/// The parts of the `source` block that an event keeps.
#[derive(Debug, Default)]
pub(crate) struct Source<'a> {
    pub(crate) connector: Cow<'a, str>,
    pub(crate) name: Cow<'a, str>,
    pub(crate) db: Cow<'a, str>,
    pub(crate) schema: Cow<'a, str>,
    pub(crate) table: Cow<'a, str>,
    pub(crate) tx: Option<i64>,
    pub(crate) lsn: Option<i64>,
    pub(crate) ts_ms: Option<i64>,
}

/// What `pg_logical_emit_message` was given.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) prefix: String,
    /// Base64.
    pub(crate) content: String,
}

/// A row, read or not.
#[derive(Debug)]
pub(crate) enum Image<'a> {
    /// The text of a row, with its columns where there is a schema.
    Json { text: &'a str, columns: Option<&'a Struct> },
    /// A row that was read while the walk over the record passed it.
    Read {
        row: Result<Row, String>,
        columns: Option<&'a Struct>,
    },
    /// The place of a row in a body.
    Avro { reader: Reader<'a>, record: &'a Record },
}

/// Which form of the placeholder the columns of a row can carry.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Toasts<'a> {
    Unknown,
    Json(&'a Struct),
    Avro(&'a Record),
}

impl<'a> Image<'a> {
    /// Reads the row; `names` are those of the last row of the topic, `modes` those of rows without a schema.
    pub(crate) fn read(self, names: &Arc<[Arc<str>]>, modes: Modes, budget: &mut Budget) -> Result<Row, String> {
        match self {
            Self::Json { text, columns } => json::row(text, known(columns, names, modes), budget),
            Self::Read { row, .. } => row,
            Self::Avro { mut reader, record } => reader.row(record, budget),
        }
    }

    /// Which form of the placeholder its columns can carry.
    pub(crate) fn toasts(&self) -> Toasts<'a> {
        match self {
            Self::Json { columns, .. } | Self::Read { columns, .. } => columns.map_or(Toasts::Unknown, Toasts::Json),
            Self::Avro { record, .. } => Toasts::Avro(record),
        }
    }
}

impl Toasts<'_> {
    /// The form for the column of this name at this place of the row.
    pub(crate) fn of(&self, name: &str, place: usize) -> Toast {
        match self {
            Self::Unknown => Toast::Any,
            Self::Json(columns) => columns.field(name, place).map_or(Toast::Any, |field| field.toast),
            Self::Avro(record) => record.fields.get(place).map_or(Toast::Any, |field| field.toast),
        }
    }
}

fn known<'s>(columns: Option<&'s Struct>, names: &'s Arc<[Arc<str>]>, modes: Modes) -> Columns<'s> {
    columns.map_or(Columns::Named(names, modes), Columns::Typed)
}

/// How rows are read while a record is walked over, rather than later: somebody wants them, so the record is passed once.
#[derive(Debug)]
pub(crate) struct Reading<'r> {
    /// The names of the last row of the topic.
    pub(crate) names: &'r Arc<[Arc<str>]>,
    pub(crate) modes: Modes,
    pub(crate) budget: &'r mut Budget,
}

/// The members of a JSON value by which its kind is known; rows are read only where that is asked for.
#[derive(Debug, Default)]
pub(crate) struct Shape<'a> {
    pub(crate) op: Option<&'a str>,
    pub(crate) source: Option<&'a str>,
    pub(crate) status: Option<&'a str>,
    pub(crate) before: Option<Image<'a>>,
    pub(crate) after: Option<Image<'a>>,
    pub(crate) message: Option<&'a str>,
    pub(crate) id: Option<&'a str>,
    pub(crate) has_ts_ms: bool,
    pub(crate) has_type: bool,
    pub(crate) has_aggregate_type: bool,
    pub(crate) has_additional_data: bool,
    pub(crate) has_event_count: bool,
    pub(crate) has_data_collections: bool,
    pub(crate) has_timestamp: bool,
    pub(crate) has_specversion: bool,
    pub(crate) has_server_name: bool,
    pub(crate) members: usize,
}

impl<'a> Shape<'a> {
    /// The shape of a JSON object. `schema` is the type of the envelope, where one was sent.
    pub(crate) fn of(text: &'a str, schema: Option<&'a Struct>, reading: Option<Reading<'_>>) -> Result<Self, String> {
        if !text.starts_with('{') {
            return Err("the value is JSON but not an object".to_owned());
        }
        Self::scan(Scanner::new(text), schema, reading).map_err(|problem| format!("the value is {problem}"))
    }

    fn scan(
        mut scanner: Scanner<'a>,
        schema: Option<&'a Struct>,
        mut reading: Option<Reading<'_>>,
    ) -> Result<Self, Broken> {
        let mut shape = Self::default();
        scanner.open(b'{')?;
        let mut is_first = true;
        while let Some(name) = scanner.member(&mut is_first)? {
            shape.members += 1;
            if let ("before" | "after", false) = (name.inner, name.is_escaped) {
                let columns = schema.and_then(|envelope| envelope.member(name.inner));
                let image = image(&mut scanner, columns, reading.as_mut())?;
                match name.inner {
                    "before" => shape.before = image,
                    _ => shape.after = image,
                }
                continue;
            }
            let text = scanner.skip()?;
            // A name that is written with escapes is none of Debezium's.
            let slot = match name.inner {
                _ if name.is_escaped => continue,
                "op" => &mut shape.op,
                "source" => &mut shape.source,
                "status" => &mut shape.status,
                "message" => &mut shape.message,
                "id" => &mut shape.id,
                other => {
                    match other {
                        "ts_ms" => shape.has_ts_ms = true,
                        "type" => shape.has_type = true,
                        "aggregate_type" => shape.has_aggregate_type = true,
                        "additional_data" => shape.has_additional_data = true,
                        "event_count" => shape.has_event_count = true,
                        "data_collections" => shape.has_data_collections = true,
                        "specversion" => shape.has_specversion = true,
                        "serverName" => shape.has_server_name = true,
                        "timestamp" => shape.has_timestamp = true,
                        _ => {}
                    }
                    continue;
                }
            };
            *slot = Some(text).filter(|text| *text != "null");
        }
        scanner.end()?;
        Ok(shape)
    }

    /// The change that the object is.
    pub(crate) fn envelope(self) -> Result<Envelope<'a>, String> {
        let op = self.op.ok_or("the value has no op")?;
        let op = text_of(op).ok_or("op is not text")?;
        let source = self.source.ok_or("the value has no source")?;
        let source = Source::of_json(source).ok_or("source is not the source block of a Debezium connector")?;
        Ok(Envelope {
            op,
            source,
            before: self.before,
            after: self.after,
            message: self.message.map(message).transpose()?,
        })
    }
}

/// Passes a row, reading it where that is asked for; `None` is null.
fn image<'a>(
    scanner: &mut Scanner<'a>,
    columns: Option<&'a Struct>,
    reading: Option<&mut Reading<'_>>,
) -> Result<Option<Image<'a>>, Broken> {
    let is_row = scanner.peek() == Some(b'{');
    let start = *scanner;
    if let Some(reading) = reading.filter(|_| is_row) {
        let row = json::row_at(
            scanner,
            known(columns, reading.names, reading.modes),
            ROW_TEXT_BYTES,
            reading.budget,
        );
        if row.is_err() {
            // It may be the column of a row without an envelope: what it is worth is decided when the kind is known.
            *scanner = start;
            scanner.skip()?;
        }
        return Ok(Some(Image::Read { row, columns }));
    }
    let text = scanner.skip()?;
    Ok((text != "null").then_some(Image::Json { text, columns }))
}

/// About how much text the columns of a row hold, before anything is known about it.
const ROW_TEXT_BYTES: usize = 512;

/// The text that a JSON string stands for.
fn text_of(string: &str) -> Option<Cow<'_, str>> {
    let quoted = Scanner::new(string).string().ok()?;
    json::plain(quoted).ok()
}

fn message(text: &str) -> Result<Message, String> {
    #[derive(Deserialize)]
    struct Parts {
        prefix: Option<String>,
        content: Option<String>,
    }
    let parts: Parts =
        serde_json::from_str(text).map_err(|_| "message is not the message block of a Debezium connector")?;
    Ok(Message {
        prefix: parts.prefix.unwrap_or_default(),
        content: parts.content.unwrap_or_default(),
    })
}

impl<'a> Envelope<'a> {
    /// Reads an Avro record that is an envelope, but for its rows.
    pub(crate) fn of_avro(schema: &'a WriterSchema, body: &'a [u8], record: &'a Record) -> Result<Self, String> {
        let mut envelope = Self::default();
        let mut reader = Reader::new(schema, body);
        for field in &record.fields {
            match &*field.name {
                "op" => envelope.op = reader.text(&field.ty)?.unwrap_or_default().into(),
                "source" => {
                    if let Some(source) = reader.enter(&field.ty)? {
                        envelope.source = Source::of_avro(&mut reader, source)?;
                    }
                }
                "message" => {
                    if let Some(message) = reader.enter(&field.ty)? {
                        envelope.message = Some(Message::of_avro(&mut reader, message)?);
                    }
                }
                "before" | "after" => {
                    let mut inside = reader.clone();
                    reader.skip(&field.ty, 0)?;
                    let image = inside
                        .enter(&field.ty)?
                        .map(|record| Image::Avro { reader: inside, record });
                    match &*field.name {
                        "before" => envelope.before = image,
                        _ => envelope.after = image,
                    }
                }
                _ => reader.skip(&field.ty, 0)?,
            }
        }
        if !reader.is_at_end() {
            return Err("the Avro body is longer than its schema says: it was written with another schema".to_owned());
        }
        Ok(envelope)
    }
}

impl<'a> Source<'a> {
    /// Reads the block; `None` when a part of it is of another type.
    fn of_json(text: &'a str) -> Option<Self> {
        let mut scanner = Scanner::new(text);
        scanner.open(b'{').ok()?;
        let mut source = Self::default();
        let mut is_first = true;
        while let Some(name) = scanner.member(&mut is_first).ok()? {
            let value = scanner.skip().ok()?;
            let number = |value: &str| match value {
                "null" => Some(None),
                _ => value.parse().ok().map(Some),
            };
            let slot = match name.inner {
                "connector" => &mut source.connector,
                "name" => &mut source.name,
                "db" => &mut source.db,
                "schema" => &mut source.schema,
                "table" => &mut source.table,
                other => {
                    match other {
                        "txId" => source.tx = number(value)?,
                        "lsn" => source.lsn = number(value)?,
                        "ts_ms" => source.ts_ms = number(value)?,
                        _ => {}
                    }
                    continue;
                }
            };
            *slot = text_of(value)?;
        }
        Some(source)
    }

    fn of_avro(reader: &mut Reader<'a>, record: &'a Record) -> Result<Self, &'static str> {
        let mut source = Self::default();
        for field in &record.fields {
            let text = match &*field.name {
                "connector" => &mut source.connector,
                "name" => &mut source.name,
                "db" => &mut source.db,
                "schema" => &mut source.schema,
                "table" => &mut source.table,
                other => {
                    match other {
                        "txId" => source.tx = reader.integer(&field.ty)?,
                        "lsn" => source.lsn = reader.integer(&field.ty)?,
                        "ts_ms" => source.ts_ms = reader.integer(&field.ty)?,
                        _ => reader.skip(&field.ty, 0)?,
                    }
                    continue;
                }
            };
            *text = reader.text(&field.ty)?.unwrap_or_default().into();
        }
        Ok(source)
    }
}

impl Message {
    fn of_avro<'a>(reader: &mut Reader<'a>, record: &'a Record) -> Result<Self, &'static str> {
        let mut message = Self::default();
        for field in &record.fields {
            let Sent::Text(value) = reader.value(&field.ty, 0, &mut Budget::of(0))? else {
                continue;
            };
            match &*field.name {
                "prefix" => message.prefix = value.into_owned(),
                "content" => message.content = value.into_owned(),
                _ => {}
            }
        }
        Ok(message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shape_knows_its_members_without_reading_them() {
        let of = |text| Shape::of(text, None, None);
        let shape = of(r#"{"op":"c","before":null,"after":{"a":1},"source":{},"extra":[1]}"#).unwrap();
        assert_eq!((shape.op, shape.source, shape.members), (Some("\"c\""), Some("{}"), 5));
        assert!(shape.before.is_none());
        assert!(matches!(shape.after, Some(Image::Json { text: "{\"a\":1}", .. })));
        assert!(of("[1]").is_err());
        assert!(of("{").is_err());
    }

    #[test]
    fn a_row_that_is_read_on_the_way_is_the_one_that_is_read_later() {
        let read = |text: &'static str, on_the_way: bool| {
            let mut budget = Budget::of(text.len());
            let names = Arc::default();
            let reading = on_the_way.then_some(Reading {
                names: &names,
                modes: Modes::default(),
                budget: &mut budget,
            });
            let image = Shape::of(text, None, reading).unwrap().after.unwrap();
            image.read(&names, Modes::default(), &mut Budget::of(text.len()))
        };
        for text in [
            r#"{"after":{"a":1,"b":"x\ny","c":[1,{"d":null}]}}"#,
            r#"{"after":{"a":1,"a":2},"more":1}"#,
            r#"{"after":{"a":"\ud83d"}}"#,
            r#"{"after":"text"}"#,
        ] {
            assert_eq!(read(text, true), read(text, false), "{text}");
        }
    }

    #[test]
    fn errors_of_the_source_block_quote_nothing() {
        let shape = Shape::of(r#"{"op":"c","source":{"lsn":"secret"}}"#, None, None).unwrap();
        let problem = shape.envelope().unwrap_err();
        assert!(!problem.contains("secret"), "{problem}");
    }
}
