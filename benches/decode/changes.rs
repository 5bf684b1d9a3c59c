//! The same changes in every encoding: rows of 25 columns of the common types, before and after, each change with values of
//! its own.

use afterwrite::cli::bench::envelope;
use afterwrite::cli::bench::schema::{self, Column};
use afterwrite::decode::Decoder;
use afterwrite::decode::options::Options;
use afterwrite::decode::schema::SchemaDocument;
use afterwrite::event::delivery::RawRecord;
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
        let schema = schema::connect(COLUMNS);
        let wrap = |number| format!(r#"{{"schema":{schema},"payload":{}}}"#, text(number));
        let avro_schema = avro_schema(&schema::row(COLUMNS));
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
                "namespace": "io.debezium.connector.postgresql", "fields": fields(&schema::source()),
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
