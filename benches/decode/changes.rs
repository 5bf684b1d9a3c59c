//! The same changes in every encoding: rows of 25 columns of the common types, before and after, each change with values of
//! its own.

use afterwrite::cli::bench::envelope;
use afterwrite::decode::options::Options;
use afterwrite::decode::schema::SchemaDocument;
use afterwrite::decode::{Decoded, Decoder};
use afterwrite::event::delivery::{Content, RawRecord};
use afterwrite::event::row::{Cell, ValueRef};
use apache_avro::Schema;
use apache_avro::types::Value as AvroValue;
use apache_avro::writer::datum::GenericDatumWriter;
use serde_json::{Value, json};

/// As many as the cache of a processor holds in every encoding: a worker decodes records that were copied out of the fetch
/// buffer a moment ago, so they do not come from main memory there either.
pub(crate) const CHANGES: usize = 500;
pub(crate) const TOPIC: &str = "bench.public.bench_users";
const COLUMNS: usize = 25;
const KEY_SCHEMA_ID: u32 = 1;
const VALUE_SCHEMA_ID: u32 = 2;

/// All changes, once in each encoding.
pub(crate) struct Changes {
    pub(crate) json: Vec<RawRecord>,
    pub(crate) wrapped: Vec<RawRecord>,
    pub(crate) avro: Vec<RawRecord>,
    /// The Avro schema of the values.
    pub(crate) schema: Schema,
    /// Knows the Avro schemas.
    pub(crate) decoder: Decoder,
}

impl Changes {
    pub(crate) fn new() -> Self {
        let json: Vec<RawRecord> = (0..CHANGES).map(|number| record(key(number), text(number))).collect();
        let row = row(&json[0]);
        let schema = connect_schema(&row);
        let wrap = |number| format!(r#"{{"schema":{schema},"payload":{}}}"#, text(number));
        let avro_schema = avro_schema(&row);
        let decoder = Decoder::new(Options::default());
        for (id, schema) in [(KEY_SCHEMA_ID, key_schema()), (VALUE_SCHEMA_ID, avro_schema.clone())] {
            let document = SchemaDocument {
                text: schema.to_string(),
                references: Vec::new(),
            };
            decoder.learn(id, &document).unwrap();
        }
        Self {
            wrapped: (0..CHANGES).map(|number| record(key(number), wrap(number))).collect(),
            avro: avro_records(&avro_schema),
            schema: Schema::parse_str(&avro_schema.to_string()).unwrap(),
            json,
            decoder,
        }
    }
}

fn key(number: usize) -> String {
    envelope::key(number)
}

fn text(number: usize) -> String {
    let mut text = String::new();
    envelope::update(&mut text, number as u64, number, 2, COLUMNS).unwrap();
    text
}

/// The columns of a change's row in order, as (name, Connect type, Connect name).
fn row(record: &RawRecord) -> Vec<Column> {
    let Decoded::Content(Content::Change(event)) = Decoder::new(Options::default()).decode(TOPIC, record) else {
        panic!("not a change")
    };
    let column = |(name, cell): (&str, Cell<'_>)| {
        let kind = match cell {
            Cell::Value(ValueRef::Bool(_)) => "boolean",
            Cell::Value(ValueRef::Int(_)) => "int64",
            _ => "string",
        };
        let meaning = match name {
            "id" => Some("io.debezium.data.Uuid"),
            _ if name.ends_with("created_at") => Some("io.debezium.time.ZonedTimestamp"),
            _ if name.ends_with("metadata") => Some("io.debezium.data.Json"),
            _ => None,
        };
        (name.to_owned(), kind, meaning)
    };
    event.after().unwrap().columns().map(column).collect()
}

type Column = (String, &'static str, Option<&'static str>);

/// The members of the source block in order.
fn source() -> Vec<Column> {
    let members = [
        ("version", "string"),
        ("connector", "string"),
        ("name", "string"),
        ("ts_ms", "int64"),
        ("snapshot", "string"),
        ("db", "string"),
        ("sequence", "string"),
        ("ts_us", "int64"),
        ("ts_ns", "int64"),
        ("schema", "string"),
        ("table", "string"),
        ("txId", "int64"),
        ("lsn", "int64"),
        ("xmin", "int64"),
        ("origin", "string"),
        ("origin_lsn", "int64"),
    ];
    members.map(|(name, kind)| (name.to_owned(), kind, None)).to_vec()
}

fn record(key: impl Into<bytes::Bytes>, value: impl Into<bytes::Bytes>) -> RawRecord {
    RawRecord {
        key: Some(key.into()),
        value: Some(value.into()),
        headers: envelope::HEADERS
            .iter()
            .map(|(name, value)| ((*name).to_owned(), Some(bytes::Bytes::from_static(value.as_bytes()))))
            .collect(),
        timestamp_ms: None,
    }
}

/// The Connect schema of a change, as Kafka's JSON converter prints it.
fn connect_schema(row: &[Column]) -> Value {
    let row = |field| typed_struct(row, "bench.public.bench_users.Value", field);
    json!({"type": "struct", "optional": false, "name": "bench.public.bench_users.Envelope", "version": 2, "fields": [
        row("before"), row("after"),
        typed_struct(&source(), "io.debezium.connector.postgresql.Source", "source"),
        {"type": "struct", "fields": [
            {"type": "string", "optional": false, "field": "id"},
            {"type": "int64", "optional": false, "field": "total_order"},
            {"type": "int64", "optional": false, "field": "data_collection_order"}],
         "optional": true, "name": "event.block", "version": 1, "field": "transaction"},
        {"type": "string", "optional": false, "field": "op"},
        {"type": "int64", "optional": true, "field": "ts_ms"},
        {"type": "int64", "optional": true, "field": "ts_us"},
        {"type": "int64", "optional": true, "field": "ts_ns"}]})
}

fn typed_struct(members: &[Column], name: &str, field: &str) -> Value {
    let fields: Vec<Value> = members.iter().map(connect_field).collect();
    json!({"type": "struct", "fields": fields, "optional": true, "name": name, "field": field})
}

fn connect_field((name, kind, meaning): &Column) -> Value {
    match meaning {
        Some(meaning) => json!({"type": kind, "optional": true, "name": meaning, "version": 1, "field": name}),
        None => json!({"type": kind, "optional": true, "field": name}),
    }
}

/// The Avro schema of a change, as the converters derive it from the Connect schema.
fn avro_schema(row: &[Column]) -> Value {
    let fields = |members: &[Column]| -> Vec<Value> { members.iter().map(avro_field).collect() };
    let row = json!({"type": "record", "name": "Value", "fields": fields(row),
        "connect.name": "bench.public.bench_users.Value"});
    json!({"type": "record", "name": "Envelope", "namespace": "bench.public.bench_users",
        "connect.name": "bench.public.bench_users.Envelope", "fields": [
            {"name": "before", "type": ["null", row], "default": null},
            {"name": "after", "type": ["null", "Value"], "default": null},
            {"name": "source", "type": {"type": "record", "name": "Source",
                "namespace": "io.debezium.connector.postgresql", "fields": fields(&source()),
                "connect.name": "io.debezium.connector.postgresql.Source"}},
            {"name": "transaction", "type": ["null", "string"], "default": null},
            {"name": "op", "type": "string"},
            {"name": "ts_ms", "type": ["null", "long"], "default": null},
            {"name": "ts_us", "type": ["null", "long"], "default": null},
            {"name": "ts_ns", "type": ["null", "long"], "default": null}]})
}

fn avro_field((name, kind, meaning): &Column) -> Value {
    let kind = if *kind == "int64" { "long" } else { kind };
    let ty = match meaning {
        Some(meaning) => json!({"type": kind, "connect.version": 1, "connect.name": meaning}),
        None => json!(kind),
    };
    json!({"name": name, "type": ["null", ty], "default": null})
}

fn key_schema() -> Value {
    json!({"type": "record", "name": "Key", "namespace": "bench.public.bench_users",
        "connect.name": "bench.public.bench_users.Key", "fields": [
            {"name": "id", "type": {"type": "string", "connect.version": 1, "connect.name": "io.debezium.data.Uuid"}}]})
}

fn avro_records(schema: &Value) -> Vec<RawRecord> {
    let value_schema = Schema::parse_str(&schema.to_string()).unwrap();
    let key_schema = Schema::parse_str(&key_schema().to_string()).unwrap();
    let framed = |id: u32, schema: &Schema, text: &str| {
        let json: Value = serde_json::from_str(text).unwrap();
        let value = AvroValue::try_from(json).unwrap().resolve(schema).unwrap();
        let mut bytes = vec![0];
        bytes.extend(id.to_be_bytes());
        let writer = GenericDatumWriter::builder(schema).build().unwrap();
        writer.write_value(&mut bytes, value).unwrap();
        bytes
    };
    let one = |number| {
        record(
            framed(KEY_SCHEMA_ID, &key_schema, &key(number)),
            framed(VALUE_SCHEMA_ID, &value_schema, &text(number)),
        )
    };
    (0..CHANGES).map(one).collect()
}
