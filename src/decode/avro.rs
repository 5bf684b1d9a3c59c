//! Avro bodies, read with their writer schema straight into canonical values.
//!
//! `apache-avro` could decode them too; it allocates by the length fields of the message, reads a truncated message as
//! nulls, and copies every field name. This reader checks each length against the bytes that are left before it does
//! anything, refuses what is truncated and what is left over, and can step over what nobody wants.

use std::sync::Arc;

use crate::decode::placeholder;
use crate::decode::schema::{Node, Record, Typed, WriterSchema};
use crate::decode::types::{self, Budget, Meaning, Sent};
use crate::event::row::{Row, RowBuilder, Value};

/// Types nest at most this deep; a schema that refers to itself could otherwise nest without end.
const DEPTH_MAX: u32 = 48;

const TRUNCATED: &str = "the Avro body ends too early";
const TOO_DEEP: &str = "the Avro body is nested too deeply";
const TOO_MANY_FIELDS: &str = "the Avro schema has more fields than so many bytes can fill";

/// Fields that records inside a row may have beside those that the body's bytes pay for.
const FIELDS_FREE: usize = 100_000;

/// A place in a body, with the schema it was written by.
#[derive(Debug, Clone)]
pub(crate) struct Reader<'a> {
    schema: &'a WriterSchema,
    rest: &'a [u8],
    /// How many more elements of arrays and maps may be read: none takes less than a byte in what Connect writes.
    elements_left: usize,
    /// How many more fields of records may be read or stepped over: nulls and empty records take no byte.
    fields_left: usize,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(schema: &'a WriterSchema, body: &'a [u8]) -> Self {
        Self {
            schema,
            rest: body,
            elements_left: body.len(),
            fields_left: FIELDS_FREE.saturating_add(body.len()),
        }
    }

    /// Whether everything was read.
    pub(crate) fn is_at_end(&self) -> bool {
        self.rest.is_empty()
    }

    /// The record of the whole body.
    pub(crate) fn root(&self) -> Option<&'a Record> {
        match self.schema.root.node {
            Node::Record(place) => self.schema.records.get(place),
            _ => None,
        }
    }

    /// The record that a field holds, or `None` for null; stands before its first field then.
    pub(crate) fn enter(&mut self, ty: &'a Typed) -> Result<Option<&'a Record>, &'static str> {
        match &self.variant(ty)?.node {
            Node::Null => Ok(None),
            Node::Record(place) => Ok(self.schema.records.get(*place)),
            _ => Err("the Avro schema has another type where a record belongs"),
        }
    }

    /// Text, or `None` for null.
    pub(crate) fn text(&mut self, ty: &'a Typed) -> Result<Option<&'a str>, &'static str> {
        match &self.variant(ty)?.node {
            Node::Null => Ok(None),
            Node::Text => self.read_text().map(Some),
            _ => Err("the Avro schema has another type where text belongs"),
        }
    }

    /// An integer, or `None` for null.
    pub(crate) fn integer(&mut self, ty: &'a Typed) -> Result<Option<i64>, &'static str> {
        match &self.variant(ty)?.node {
            Node::Null => Ok(None),
            Node::Int => self.read_integer().map(Some),
            _ => Err("the Avro schema has another type where an integer belongs"),
        }
    }

    /// Reads a row; the reader stands before its first field.
    pub(crate) fn row(&mut self, record: &'a Record, budget: &mut Budget) -> Result<Row, String> {
        let mut row = RowBuilder::like(&record.names, self.rest.len() / 2);
        for field in &record.fields {
            row.next_is_known();
            let read = self.value(&field.ty, 0, budget);
            let sent = read.map_err(|problem| format!("column {} {problem}", field.name))?;
            placeholder::push(&mut row, sent);
        }
        Ok(row.finish())
    }

    /// Reads a value of any type.
    pub(crate) fn value(&mut self, ty: &'a Typed, depth: u32, budget: &mut Budget) -> Result<Sent<'a>, &'static str> {
        if depth > DEPTH_MAX {
            return Err(TOO_DEEP);
        }
        Ok(match &ty.node {
            Node::Null => Sent::Null,
            Node::Union(_) => {
                let variant = self.variant(ty)?;
                self.value(variant, depth + 1, budget)?
            }
            Node::Bool => Sent::Bool(self.read_bool()?),
            Node::Int => types::integer(ty.meaning, self.read_integer()?),
            Node::Single => types::single(f32::from_le_bytes(self.read_array()?)),
            Node::Double => types::float(f64::from_le_bytes(self.read_array()?)),
            Node::Bytes => types::bytes(ty.meaning, self.read_bytes()?, budget)?,
            Node::Fixed(size) => types::bytes(ty.meaning, self.take(*size)?, budget)?,
            Node::Text => types::text(self.read_text()?),
            Node::Enum(symbols) => self.read_symbol(symbols)?,
            Node::List(items) => self.read_list(items, depth, budget)?,
            Node::Map(values) => self.read_map(values, depth, budget)?,
            Node::Record(place) => self.read_record(*place, ty.meaning, depth, budget)?,
        })
    }

    /// Steps over a value.
    pub(crate) fn skip(&mut self, ty: &'a Typed, depth: u32) -> Result<(), &'static str> {
        if depth > DEPTH_MAX {
            return Err(TOO_DEEP);
        }
        match &ty.node {
            Node::Null => Ok(()),
            Node::Union(_) => {
                let variant = self.variant(ty)?;
                self.skip(variant, depth + 1)
            }
            Node::Bool => self.read_bool().map(drop),
            Node::Int | Node::Enum(_) => self.read_integer().map(drop),
            Node::Single => self.take(4).map(drop),
            Node::Double => self.take(8).map(drop),
            Node::Bytes | Node::Text => self.read_bytes().map(drop),
            Node::Fixed(size) => self.take(*size).map(drop),
            Node::List(items) => self.each(|reader| reader.skip(items, depth + 1)),
            Node::Map(values) => self.each(|reader| {
                reader.read_bytes()?;
                reader.skip(values, depth + 1)
            }),
            Node::Record(place) => {
                let schema = self.schema;
                let record = schema.records.get(*place).ok_or(TRUNCATED)?;
                self.spend_fields(record)?;
                record
                    .fields
                    .iter()
                    .try_for_each(|field| self.skip(&field.ty, depth + 1))
            }
        }
    }

    /// The variant of a union that follows, or the type itself.
    fn variant(&mut self, ty: &'a Typed) -> Result<&'a Typed, &'static str> {
        let Node::Union(variants) = &ty.node else {
            return Ok(ty);
        };
        let place = usize::try_from(self.read_integer()?).ok();
        place
            .and_then(|place| variants.get(place))
            .ok_or("the Avro body names a variant that its schema does not have")
    }

    fn read_list(&mut self, items: &'a Typed, depth: u32, budget: &mut Budget) -> Result<Sent<'a>, &'static str> {
        let mut values = Vec::new();
        self.each(|reader| {
            values.push(reader.value(items, depth + 1, budget)?.into_value());
            Ok(())
        })?;
        Ok(Sent::Nested(Value::List(values)))
    }

    fn read_map(&mut self, values: &'a Typed, depth: u32, budget: &mut Budget) -> Result<Sent<'a>, &'static str> {
        let mut members: Vec<(Arc<str>, Option<Value>)> = Vec::new();
        self.each(|reader| {
            let key = Arc::from(reader.read_text()?);
            members.push((key, reader.value(values, depth + 1, budget)?.into_value()));
            Ok(())
        })?;
        Ok(types::map(members))
    }

    fn read_record(
        &mut self,
        place: usize,
        meaning: Meaning,
        depth: u32,
        budget: &mut Budget,
    ) -> Result<Sent<'a>, &'static str> {
        let schema = self.schema;
        let record = schema.records.get(place).ok_or(TRUNCATED)?;
        self.spend_fields(record)?;
        let mut members = Vec::with_capacity(record.fields.len());
        for field in &record.fields {
            let value = self.value(&field.ty, depth + 1, budget)?.into_value();
            members.push((Arc::clone(&field.name), value));
        }
        if record.is_entry {
            let pair = members.into_iter().map(|(_, value)| value).collect();
            return Ok(Sent::Nested(Value::List(pair)));
        }
        types::structure(meaning, members, budget)
    }

    /// Counts the fields of a record inside a row: records of records without a byte between them could otherwise take
    /// steps without end.
    fn spend_fields(&mut self, record: &Record) -> Result<(), &'static str> {
        self.fields_left = self
            .fields_left
            .checked_sub(record.fields.len())
            .ok_or(TOO_MANY_FIELDS)?;
        Ok(())
    }

    /// Runs `read` for each element of an array or map.
    fn each(&mut self, mut read: impl FnMut(&mut Self) -> Result<(), &'static str>) -> Result<(), &'static str> {
        loop {
            let announced = self.read_integer()?;
            if announced == 0 {
                return Ok(());
            }
            if announced < 0 {
                // A negative count is followed by the block's size in bytes, which nobody needs.
                self.read_integer()?;
            }
            let count = usize::try_from(announced.unsigned_abs()).unwrap_or(usize::MAX);
            if count > self.elements_left {
                return Err("the Avro body announces more elements than it has bytes");
            }
            self.elements_left -= count;
            for _ in 0..count {
                read(self)?;
            }
        }
    }

    fn read_bool(&mut self) -> Result<bool, &'static str> {
        match self.take(1)? {
            [0] => Ok(false),
            [1] => Ok(true),
            _ => Err("the Avro body has a boolean that is neither true nor false"),
        }
    }

    /// A zigzag variable-length integer of at most ten bytes.
    fn read_integer(&mut self) -> Result<i64, &'static str> {
        let mut zigzag = 0_u64;
        for (place, byte) in self.rest.iter().take(10).enumerate() {
            zigzag |= u64::from(byte & 0x7f) << (7 * place);
            if byte & 0x80 == 0 {
                self.rest = &self.rest[place + 1..];
                return Ok((zigzag >> 1).cast_signed() ^ -(zigzag & 1).cast_signed());
            }
        }
        Err(if self.rest.len() < 10 {
            TRUNCATED
        } else {
            "the Avro body has an integer of more than 64 bits"
        })
    }

    fn read_bytes(&mut self) -> Result<&'a [u8], &'static str> {
        let length = usize::try_from(self.read_integer()?).map_err(|_| "the Avro body has a negative length")?;
        self.take(length)
    }

    fn read_text(&mut self) -> Result<&'a str, &'static str> {
        std::str::from_utf8(self.read_bytes()?).map_err(|_| "the Avro body has text that is not UTF-8")
    }

    fn read_symbol(&mut self, symbols: &'a [Box<str>]) -> Result<Sent<'a>, &'static str> {
        let place = usize::try_from(self.read_integer()?).ok();
        let symbol = place.and_then(|place| symbols.get(place));
        symbol
            .map(|symbol| types::text(&**symbol))
            .ok_or("the Avro body names a symbol that its schema does not have")
    }

    fn read_array<const N: usize>(&mut self) -> Result<[u8; N], &'static str> {
        self.take(N)?.try_into().map_err(|_| TRUNCATED)
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], &'static str> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(TRUNCATED)?;
        self.rest = rest;
        Ok(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::schema::SchemaDocument;

    fn schema(text: &str) -> WriterSchema {
        let document = SchemaDocument {
            text: text.to_owned(),
            references: Vec::new(),
        };
        WriterSchema::parse(&document).unwrap()
    }

    fn text(value: &str) -> Option<Value> {
        Some(Value::Text(value.into()))
    }

    fn read(text: &str, body: &[u8]) -> Result<Option<Value>, &'static str> {
        let parsed = schema(text);
        let mut reader = Reader::new(&parsed, body);
        let value = reader.value(&parsed.root, 0, &mut Budget::of(body.len()))?.into_value();
        let mut skipper = Reader::new(&parsed, body);
        skipper.skip(&parsed.root, 0).unwrap();
        assert_eq!(reader.rest, skipper.rest, "reading and skipping differ");
        Ok(value)
    }

    #[test]
    fn integers_read_over_their_whole_range() {
        for (body, expected) in [
            (&[0x00][..], 0),
            (&[0x01][..], -1),
            (&[0x80, 0x01][..], 64),
            (
                &[0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01][..],
                i64::MAX,
            ),
            (
                &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01][..],
                i64::MIN,
            ),
        ] {
            assert_eq!(read("\"long\"", body), Ok(Some(Value::Int(expected))));
        }
        assert!(read("\"long\"", &[0xff; 10]).is_err());
        assert_eq!(read("\"long\"", &[0x80]), Err(TRUNCATED));
    }

    #[test]
    fn lengths_are_checked_before_they_cost_memory() {
        // A length of 2^62, and an array of 2^62 nulls in one block.
        let huge = [0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x01];
        assert_eq!(read("\"bytes\"", &huge), Err(TRUNCATED));
        let array = r#"{"type":"array","items":"null"}"#;
        assert!(read(array, &huge).is_err());
        assert!(read(array, &[0x04, 0x04, 0x04, 0x04, 0x00]).is_err());
    }

    #[test]
    fn unions_in_either_order_arrays_in_blocks_and_entries_read() {
        assert_eq!(read(r#"["string","null"]"#, &[0x02]), Ok(None));
        assert_eq!(read(r#"["null","string"]"#, &[0x02, 0x02, b'x']), Ok(text("x")));
        let array = r#"{"type":"array","items":"int"}"#;
        let both = Value::List(vec![Some(Value::Int(1)), Some(Value::Int(2))]);
        assert_eq!(read(array, &[0x02, 0x02, 0x01, 0x02, 0x04, 0x00]), Ok(Some(both)));
        let map = r#"{"type":"array","items":{"type":"record","name":"MapEntry","fields":[
            {"name":"key","type":"int"},{"name":"value","type":"string"}]}}"#;
        let pair = Value::List(vec![Some(Value::Int(1)), text("x")]);
        let entries = Value::List(vec![Some(pair)]);
        assert_eq!(read(map, &[0x02, 0x02, 0x02, b'x', 0x00]), Ok(Some(entries)));
    }

    #[test]
    fn records_without_a_byte_between_them_end() {
        let mut schema = r#"{"type":"record","name":"R0","fields":[]}"#.to_owned();
        for level in 1..40 {
            let below = level - 1;
            schema = format!(
                r#"{{"type":"record","name":"R{level}","fields":[{{"name":"a","type":{schema}}},{{"name":"b","type":"R{below}"}}]}}"#
            );
        }
        let parsed = self::schema(&schema);
        let mut reader = Reader::new(&parsed, &[]);
        let read = reader.clone().value(&parsed.root, 0, &mut Budget::of(0));
        assert_eq!(read, Err(TOO_MANY_FIELDS));
        assert_eq!(reader.skip(&parsed.root, 0), Err(TOO_MANY_FIELDS));
    }

    #[test]
    fn a_schema_that_refers_to_itself_ends() {
        let text = r#"{"type":"record","name":"Node","fields":[{"name":"next","type":["null","Node"]}]}"#;
        assert_eq!(read(text, &[0x02; 1000]), Err(TOO_DEEP));
    }

    /// Whether `apache-avro` read the same.
    fn agrees(theirs: &apache_avro::types::Value, ours: Option<&Value>) -> bool {
        use apache_avro::types::Value as Theirs;
        match (theirs, ours) {
            (Theirs::Union(_, inner), ours) => agrees(inner, ours),
            (Theirs::Null, None) => true,
            (Theirs::Boolean(one), Some(Value::Bool(other))) => one == other,
            (Theirs::Int(one), Some(Value::Int(other))) => i64::from(*one) == *other,
            (Theirs::Long(one), Some(Value::Int(other))) => one == other,
            // Dates, times and timestamps: their texts are compared elsewhere.
            (Theirs::Int(_) | Theirs::Long(_), Some(Value::Text(text))) => text.ends_with('Z'),
            (Theirs::Float(one), ours) => types::single(*one).into_value().as_ref() == ours,
            (Theirs::Double(one), ours) => types::float(*one).into_value().as_ref() == ours,
            (Theirs::String(one), Some(Value::Text(other))) => **one == **other,
            (Theirs::Bytes(one), ours) => {
                let read = types::bytes(Meaning::Plain, one, &mut Budget::of(0)).unwrap();
                read.into_value().as_ref() == ours
            }
            (Theirs::Array(ones), Some(Value::List(others))) => {
                ones.len() == others.len() && ones.iter().zip(others).all(|(one, other)| agrees(one, other.as_ref()))
            }
            (Theirs::Map(ones), Some(Value::Struct(others))) => {
                let same = |(name, other): &(Arc<str>, Option<Value>)| {
                    ones.get(&**name).is_some_and(|one| agrees(one, other.as_ref()))
                };
                ones.len() == others.len() && others.iter().all(same)
            }
            (Theirs::Record(ones), Some(Value::Struct(others))) => {
                ones.len() == others.len()
                    && ones
                        .iter()
                        .zip(others)
                        .all(|((one_name, one), (name, other))| **one_name == **name && agrees(one, other.as_ref()))
            }
            _ => false,
        }
    }

    #[test]
    fn captured_bodies_read_as_apache_avro_reads_them() {
        use base64::Engine;
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/debezium-3.7.0");
        let schemas = std::fs::read_to_string(folder.join("avd.schemas.json")).unwrap();
        let schemas: serde_json::Value = serde_json::from_str(&schemas).unwrap();
        let mut compared = 0;
        for line in std::fs::read_to_string(folder.join("avd.jsonl")).unwrap().lines() {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            for side in ["key", "value"] {
                let Some(encoded) = line[side].as_str() else {
                    continue;
                };
                let bytes = base64::engine::general_purpose::STANDARD.decode(encoded).unwrap();
                let id = u32::from_be_bytes(bytes[1..5].try_into().unwrap());
                let text = schemas["ids"][id.to_string()]["raw"]["schema"].as_str().unwrap();
                let ours = read(text, &bytes[5..]).unwrap();
                let theirs_schema = apache_avro::Schema::parse_str(text).unwrap();
                let reader = apache_avro::reader::datum::GenericDatumReader::builder(&theirs_schema)
                    .build()
                    .unwrap();
                let theirs = reader.read_value(&mut &bytes[5..]).unwrap();
                assert!(agrees(&theirs, ours.as_ref()), "{line}");
                compared += 1;
            }
        }
        assert!(compared > 150);
    }
}
