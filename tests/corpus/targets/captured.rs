//! The captured records of a real Debezium and the schemas they were written with.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::LazyLock;

use afterwrite::decode::schema::SchemaDocument;
use afterwrite::event::delivery::RawRecord;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use serde_json::Value;

/// The captures, and whether their records are Avro. One line a capture: the only place that names them.
pub const CAPTURES: [(&str, Encoding); 10] = [
    ("jsn", Encoding::Json),
    ("jss", Encoding::JsonSchema),
    ("avr", Encoding::Avro),
    ("avd", Encoding::Avro),
    ("def", Encoding::JsonSchema),
    ("atm", Encoding::JsonSchema),
    ("mic", Encoding::JsonSchema),
    ("nan", Encoding::JsonSchema),
    ("con", Encoding::JsonSchema),
    ("str", Encoding::JsonSchema),
];

/// How the records of a capture are encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// JSON without schema.
    Json,
    /// JSON with schema.
    JsonSchema,
    /// Avro.
    Avro,
}

/// The writer schemas by id.
pub fn schemas() -> &'static BTreeMap<u32, SchemaDocument> {
    static SCHEMAS: LazyLock<BTreeMap<u32, SchemaDocument>> = LazyLock::new(|| {
        let of_avro = CAPTURES.iter().filter(|(_, encoding)| *encoding == Encoding::Avro);
        of_avro.flat_map(|(capture, _)| schemas_of(capture)).collect()
    });
    &SCHEMAS
}

/// The records of a capture with their topics.
pub fn records(capture: &str) -> Vec<(String, RawRecord)> {
    let bytes = |value: &Value| {
        value
            .as_str()
            .map(|text| Bytes::from(BASE64.decode(text).expect("it is base64")))
    };
    let text = |value: &Value| value.as_str().expect("it is a text").to_owned();
    let parse = |line: &str| {
        let line: Value = serde_json::from_str(line).expect("a line is JSON");
        let headers = line["headers"].as_array().expect("headers are a list").iter();
        let record = RawRecord {
            key: bytes(&line["key"]),
            value: bytes(&line["value"]),
            headers: headers.map(|header| (text(&header[0]), bytes(&header[1]))).collect(),
            timestamp_ms: line["timestamp"].as_i64(),
        };
        (text(&line["topic"]), record)
    };
    fixture(&format!("{capture}.jsonl")).lines().map(parse).collect()
}

/// A file of the captures. This code is compiled in two packages, at the top and in `fuzz`.
fn fixture(name: &str) -> String {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let top = if package.ends_with("fuzz") {
        package.join("..")
    } else {
        package.to_owned()
    };
    let path = top.join("tests/fixtures/debezium-3.7.0").join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The schemas of a capture with everything they refer to, inner ones first.
fn schemas_of(capture: &str) -> Vec<(u32, SchemaDocument)> {
    fn collect(answer: &Value, file: &Value, texts: &mut Vec<String>) {
        for reference in answer["references"].as_array().into_iter().flatten() {
            let subject = reference["subject"].as_str().expect("a reference names a subject");
            let inner = &file["referenced_subject_versions"][format!("{subject}/{}", reference["version"])];
            collect(inner, file, texts);
            texts.push(inner["schema"].as_str().expect("it was captured").to_owned());
        }
    }
    let file: Value = serde_json::from_str(&fixture(&format!("{capture}.schemas.json"))).expect("schemas are JSON");
    let document = |(id, entry): (&String, &Value)| {
        let mut references = Vec::new();
        collect(&entry["raw"], &file, &mut references);
        let text = entry["raw"]["schema"]
            .as_str()
            .expect("an answer holds a schema")
            .to_owned();
        (
            id.parse().expect("an id is a number"),
            SchemaDocument { text, references },
        )
    };
    file["ids"]
        .as_object()
        .expect("ids are an object")
        .iter()
        .map(document)
        .collect()
}
