//! Records of a connector, whole and broken, and what becomes of them.

use afterwrite::decode::canonical::Canonical;
use afterwrite::decode::options::Options;
use afterwrite::decode::{Decoded, Decoder};
use afterwrite::event::delivery::{Content, RawRecord};
use serde_json::{Value as Json, json};

use crate::encode::{avro, avro_schema, field, json_with_schema, member, optional, structure};

pub(crate) const TOPIC: &str = "w.public.t";

/// The encodings of a value, by the name that a failure shows.
pub(crate) const ENCODINGS: [&str; 3] = ["json", "json_schema", "avro"];

/// What a record becomes: `skip heartbeat`, `undecodable …`, `missing 7`, or the canonical event.
pub(crate) fn outcome(decoder: &Decoder, topic: &str, record: &RawRecord) -> String {
    match decoder.decode(topic, record) {
        Decoded::MissingSchema(id) => format!("missing {id}"),
        Decoded::Content(Content::Skip(reason)) => format!("skip {}", reason.as_str()),
        Decoded::Content(Content::Undecodable(reason)) => format!("undecodable {reason}"),
        Decoded::Content(Content::Change(event)) => serde_json::to_string(&Canonical(&event)).unwrap(),
    }
}

pub(crate) fn auto() -> Decoder {
    Decoder::new(Options::default())
}

/// The event of a record that must be one.
pub(crate) fn event(record: &RawRecord) -> Json {
    event_of(&auto(), record)
}

pub(crate) fn event_of(decoder: &Decoder, record: &RawRecord) -> Json {
    let text = outcome(decoder, TOPIC, record);
    serde_json::from_str(&text).unwrap_or_else(|_| panic!("not an event: {text}"))
}

/// A record of texts; an empty key is none.
pub(crate) fn record(key: &str, value: &str) -> RawRecord {
    RawRecord {
        key: (!key.is_empty()).then(|| key.to_owned().into()),
        value: Some(value.to_owned().into()),
        ..RawRecord::default()
    }
}

pub(crate) fn source() -> Json {
    json!({"connector": "postgresql", "name": "w", "db": "d", "schema": "public", "table": "t",
           "txId": 7, "lsn": 9_007_199_254_740_993_i64, "ts_ms": 1_000, "snapshot": null})
}

pub(crate) fn envelope(op: &str, before: Json, after: Json) -> Json {
    json!({"before": before, "after": after, "source": source(), "op": op, "ts_ms": 5, "transaction": null})
}

/// An insert of a row with this id.
pub(crate) fn insert(id: i64) -> RawRecord {
    record(
        &json!({"id": id}).to_string(),
        &envelope("c", Json::Null, json!({"id": id})).to_string(),
    )
}

/// The schema of a row's key and value, of the table that has these columns beside its key `id`.
pub(crate) fn table_schema(columns: &[Json]) -> (Json, Json) {
    let id = field("id", "int64");
    let mut all = vec![id.clone()];
    all.extend_from_slice(columns);
    let row = structure("w.public.t.Value", &all);
    (structure("w.public.t.Key", &[id]), envelope_schema(&row))
}

pub(crate) fn envelope_schema(row: &Json) -> Json {
    let source = structure(
        "io.debezium.connector.postgresql.Source",
        &[
            field("connector", "string"),
            field("name", "string"),
            field("db", "string"),
            field("schema", "string"),
            field("table", "string"),
            optional("txId", "int64"),
            optional("lsn", "int64"),
            field("ts_ms", "int64"),
            optional("snapshot", "string"),
        ],
    );
    structure(
        "w.public.t.Envelope",
        &[
            member("before", row.clone(), true),
            member("after", row.clone(), true),
            member("source", source, false),
            field("op", "string"),
            optional("ts_ms", "int64"),
        ],
    )
}

/// The same key and value in each encoding, each with a decoder that knows its schemas; a key of null is none.
pub(crate) fn in_each_encoding(key: (&Json, &Json), value: (&Json, &Json)) -> Vec<(&'static str, Decoder, RawRecord)> {
    ENCODINGS
        .iter()
        .map(|encoding| {
            let decoder = auto();
            let written = |id: u32, (schema, value): (&Json, &Json)| match *encoding {
                "json" => value.to_string().into_bytes(),
                "json_schema" => json_with_schema(schema, value),
                _ => {
                    decoder.learn(id, &avro_schema(schema)).unwrap();
                    avro(id, schema, value)
                }
            };
            let record = RawRecord {
                key: (!key.1.is_null()).then(|| written(1, key).into()),
                value: Some(written(2, value).into()),
                ..RawRecord::default()
            };
            (*encoding, decoder, record)
        })
        .collect()
}

/// A change of a table with one column beside its key, in each encoding.
pub(crate) fn changes(column: &Json, op: &str, before: &Json, after: &Json) -> Vec<(&'static str, Decoder, RawRecord)> {
    let (key, value) = table_schema(std::slice::from_ref(column));
    in_each_encoding(
        (&key, &json!({"id": 1})),
        (&value, &envelope(op, before.clone(), after.clone())),
    )
}

/// A record with headers beside.
pub(crate) fn with_headers(record: RawRecord, headers: &[(&str, &str)]) -> RawRecord {
    let headers = headers
        .iter()
        .map(|(name, value)| ((*name).to_owned(), Some(value.as_bytes().to_vec().into())));
    RawRecord {
        headers: headers.collect(),
        ..record
    }
}
