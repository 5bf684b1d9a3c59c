//! What a record says about itself before any row is read: its kind, and the parts of a change.
//!
//! Rows stay unread here ([`Image`]), so a record that nobody wants costs no row.

use std::borrow::Cow;
use std::sync::Arc;

use serde::Deserialize;

use crate::decode::avro::Reader;
use crate::decode::connect::Struct;
use crate::decode::json::{self, Columns};
use crate::decode::old_row::OldRow;
use crate::decode::placeholder::Toast;
use crate::decode::scan::{Broken, Scanner};
use crate::decode::schema::{Record, WriterSchema};
use crate::decode::source_block::{self, Source};
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
    /// Whether both rows of a change are of the same types, or of none.
    pub(crate) rows_are_alike: bool,
    /// The names of the last row of the topic.
    pub(crate) names: &'r Arc<[Arc<str>]>,
    pub(crate) modes: Modes,
    /// About how much text a row holds.
    pub(crate) text_bytes: usize,
    pub(crate) budget: &'r mut Budget,
}

/// The members of a JSON value by which its kind is known; rows are read only where that is asked for.
#[derive(Debug, Default)]
pub(crate) struct Shape<'a> {
    pub(crate) op: Option<&'a str>,
    /// The source block; an error when it is none.
    pub(crate) source: Option<Result<Source<'a>, &'static str>>,
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
        let mut scanner = Scanner::new(text);
        let scanned = scanner
            .open(b'{')
            .and_then(|()| Self::scan(scanner, true, schema, reading));
        scanned.map_err(|problem| format!("the value is {problem}"))
    }

    /// The shape of a change by its end, from the source block on: what stands before it, which is mostly the rows, is not
    /// walked over. `None` when that does not tell which change it is.
    ///
    /// Of a text that is JSON this is always right. The comma, quote and name of `,"source":{` cannot stand inside a string,
    /// where the quote would have to be escaped, so a member begins there, and all that follows is walked over. It is a
    /// member of the outermost object if one closing brace is left over at the end of the text.
    pub(crate) fn of_end(text: &'a str) -> Option<Self> {
        let start = source_block::last(text)?;
        let shape = Self::scan(Scanner::at(text, start), false, None, None).ok()?;
        (shape.op.is_some() && shape.source.is_some()).then_some(shape)
    }

    /// The shape of an object, from one of its members on.
    fn scan(
        mut scanner: Scanner<'a>,
        mut is_first: bool,
        schema: Option<&'a Struct>,
        mut reading: Option<Reading<'_>>,
    ) -> Result<Self, Broken> {
        let mut shape = Self::default();
        let mut ends = Vec::new();
        while let Some(name) = scanner.member(&mut is_first)? {
            shape.members += 1;
            // A name that is written with escapes is none of Debezium's.
            let slot = match name.inner {
                _ if name.is_escaped => {
                    scanner.skip()?;
                    continue;
                }
                "before" | "after" => {
                    let columns = schema.and_then(|envelope| envelope.member(name.inner));
                    shape.image(name.inner, &mut scanner, columns, reading.as_mut(), &mut ends)?;
                    continue;
                }
                "source" => {
                    shape.source = source_block::pass(&mut scanner)?;
                    continue;
                }
                "op" => &mut shape.op,
                "status" => &mut shape.status,
                "message" => &mut shape.message,
                "id" => &mut shape.id,
                other => {
                    shape.note(other);
                    scanner.skip()?;
                    continue;
                }
            };
            *slot = Some(scanner.skip()?).filter(|text| *text != "null");
        }
        scanner.end()?;
        Ok(shape)
    }

    /// Notes that a member of this name is there.
    fn note(&mut self, member: &str) {
        match member {
            "ts_ms" => self.has_ts_ms = true,
            "type" => self.has_type = true,
            "aggregate_type" => self.has_aggregate_type = true,
            "additional_data" => self.has_additional_data = true,
            "event_count" => self.has_event_count = true,
            "data_collections" => self.has_data_collections = true,
            "specversion" => self.has_specversion = true,
            "serverName" => self.has_server_name = true,
            "timestamp" => self.has_timestamp = true,
            _ => {}
        }
    }

    /// Passes a row, reading it where that is asked for. `ends` are those of the columns of the old row, once it is read.
    fn image(
        &mut self,
        name: &str,
        scanner: &mut Scanner<'a>,
        columns: Option<&'a Struct>,
        reading: Option<&mut Reading<'_>>,
        ends: &mut Vec<usize>,
    ) -> Result<(), Broken> {
        let is_row = scanner.peek() == Some(b'{');
        let start = *scanner;
        let image = match reading.filter(|_| is_row) {
            Some(reading) => {
                let row = match &self.before {
                    Some(Image::Read { row: Ok(row), columns }) if name == "after" && reading.rows_are_alike => {
                        let kinds = known(*columns, reading.names, reading.modes);
                        let old = OldRow::new(row, start.text(), ends);
                        json::new_row_at(scanner, kinds, row.text_bytes() + ROOM, reading.budget, old)
                    }
                    _ => {
                        let kinds = known(columns, reading.names, reading.modes);
                        ends.clear();
                        json::old_row_at(scanner, kinds, reading.text_bytes + ROOM, reading.budget, ends)
                    }
                };
                if row.is_err() {
                    // It may be the column of a row without an envelope: what it is worth is decided when the kind is known.
                    *scanner = start;
                    scanner.skip()?;
                }
                Some(Image::Read { row, columns })
            }
            None => {
                let text = scanner.skip()?;
                (text != "null").then_some(Image::Json { text, columns })
            }
        };
        match name {
            "before" => self.before = image,
            _ => self.after = image,
        }
        Ok(())
    }

    /// The change that the object is.
    pub(crate) fn envelope(self) -> Result<Envelope<'a>, String> {
        let op = self.op.ok_or("the value has no op")?;
        let op = text_of(op).ok_or("op is not text")?;
        Ok(Envelope {
            op,
            source: self.source.ok_or("the value has no source")??,
            before: self.before,
            after: self.after,
            message: self.message.map(message).transpose()?,
        })
    }
}

/// How much more text than the row before it a row may hold without a larger buffer.
const ROOM: usize = 64;

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
    use proptest::collection::vec;
    use proptest::prelude::{ProptestConfig, Strategy};
    use proptest::{prop_assert_eq, prop_oneof, proptest};

    use super::*;

    #[test]
    fn a_shape_knows_its_members_without_reading_them() {
        let of = |text| Shape::of(text, None, None);
        let shape = of(r#"{"op":"c","before":null,"after":{"a":1},"source":{},"extra":[1]}"#).unwrap();
        assert_eq!((shape.op, shape.members), (Some("\"c\""), 5));
        assert!(matches!(shape.source, Some(Ok(_))));
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
                rows_are_alike: true,
                names: &names,
                modes: Modes::default(),
                text_bytes: 0,
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

    const NAMES: [&str; 6] = ["source", "op", "before", "after", "transaction", "a"];
    const LEAVES: [&str; 8] = [
        "null",
        "1",
        r#""c""#,
        r#"",\"source\":{""#,
        r#""x\\""#,
        r#"{"schema":"s","table":"t"}"#,
        r#"{"table":"u","schema":"s","lsn":9}"#,
        r#"{"table":7}"#,
    ];

    /// JSON whose names and texts are those by which the source block is looked for, at any depth and any number of times.
    fn document() -> impl Strategy<Value = String> {
        let leaf = (0..LEAVES.len()).prop_map(|leaf| LEAVES[leaf].to_owned());
        let value = leaf.prop_recursive(3, 12, 4, |inner| {
            let member =
                (0..NAMES.len(), inner.clone()).prop_map(|(name, value)| format!("\"{}\":{value}", NAMES[name]));
            prop_oneof![
                vec(member, 0..5).prop_map(|members| format!("{{{}}}", members.join(","))),
                vec(inner, 0..3).prop_map(|items| format!("[{}]", items.join(","))),
            ]
        });
        vec((0..NAMES.len(), value), 0..6).prop_map(|members| {
            let print = |(name, value): (usize, String)| format!("\"{}\":{value}", NAMES[name]);
            let members: Vec<String> = members.into_iter().map(print).collect();
            format!("{{{}}}", members.join(","))
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn the_end_of_a_change_says_nothing_that_the_whole_does_not_say(text in document()) {
            if let Some(end) = Shape::of_end(&text) {
                let whole = Shape::of(&text, None, None).unwrap();
                prop_assert_eq!(end.op, whole.op, "{}", text);
                prop_assert_eq!(format!("{:?}", end.source), format!("{:?}", whole.source), "{}", text);
            }
        }
    }

    #[test]
    fn a_change_is_known_by_its_end_only_where_that_is_certain() {
        let end_of = |text| Shape::of_end(text).map(|shape| shape.source.unwrap().map(|source| source.table));
        let users = Some(Ok("users".into()));
        for (text, expected) in [
            (
                r#"{"after":{"a":1},"source":{"table":"users"},"op":"c"}"#,
                users.clone(),
            ),
            // A row may hold what it likes.
            (
                r#"{"after":{"source":{"table":"a"}},"source":{"table":"users"},"op":"c","transaction":{"id":"1"}}"#,
                users.clone(),
            ),
            (
                r#"{"after":{"a":",\"source\":{\"table\":\"a\"}"},"source":{"table":"users"},"op":"c"}"#,
                users.clone(),
            ),
            (
                r#"{"a":{},"source":{"table":"a"},"op":"c","source":{"table":"users"},"op":"u"}"#,
                users,
            ),
            // Here it is the row's, or nobody's.
            (
                r#"{"op":"c","after":{"a":1,"source":{"table":"users"},"op":"c"}}"#,
                None,
            ),
            (r#"{"source":{"table":"users"},"op":"c"}"#, None),
            (r#"{"op":"c","after":{},"source":{"table":"users"}}"#, None),
            (r#"{"after":{},"source":{"table":"users"},"op":"c""#, None),
            (r#"{"after":{},"source":{"table":"users"},"op":"c"}}"#, None),
            (r#"{"after":{},"source":{"table":"users"},"op":"c","x":tru}"#, None),
        ] {
            assert_eq!(end_of(text), expected, "{text}");
        }
    }

    #[test]
    fn errors_of_the_source_block_quote_nothing() {
        let shape = Shape::of(r#"{"op":"c","source":{"lsn":"secret"}}"#, None, None).unwrap();
        let problem = shape.envelope().unwrap_err();
        assert!(!problem.contains("secret"), "{problem}");
    }
}
