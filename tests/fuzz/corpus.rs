//! The captured records of a real Debezium, as the seeds of damaged ones.

use std::collections::HashMap;
use std::path::Path;

use afterwrite::decode::schema::SchemaDocument;
use afterwrite::event::delivery::RawRecord;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use serde_json::Value as Json;

use crate::damage;
use crate::random::Random;

const CAPTURES: [&str; 5] = ["jsn", "jss", "avr", "avd", "def"];

pub(crate) struct Corpus {
    records: Vec<(String, RawRecord)>,
    schemas: HashMap<u32, SchemaDocument>,
}

impl Corpus {
    pub(crate) fn captured() -> Self {
        Self {
            records: CAPTURES.iter().flat_map(|capture| records(capture)).collect(),
            schemas: ["avr", "avd"].iter().flat_map(|capture| schemas(capture)).collect(),
        }
    }

    pub(crate) fn schema(&self, id: u32) -> Option<&SchemaDocument> {
        self.schemas.get(&id)
    }

    /// A captured record, whole or damaged, or with a key or headers of another.
    pub(crate) fn record(&self, random: &mut Random) -> (String, RawRecord) {
        let (topic, mut record) = random.of(&self.records).clone();
        let (_, other) = random.of(&self.records);
        if random.chance(10) {
            record.key = other.key.clone();
        }
        if random.chance(10) {
            record.headers = other.headers.clone();
        }
        for part in [&mut record.key, &mut record.value] {
            if let Some(bytes) = part
                && random.chance(40)
            {
                *bytes = damage::damaged(bytes, other.value.as_deref().unwrap_or_default(), random).into();
            }
        }
        (topic, record)
    }
}

fn fixture(name: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/debezium-3.7.0");
    std::fs::read_to_string(folder.join(name)).unwrap()
}

fn records(capture: &str) -> Vec<(String, RawRecord)> {
    let bytes = |value: &Json| value.as_str().map(|text| Bytes::from(BASE64.decode(text).unwrap()));
    let parse = |line: &str| {
        let line: Json = serde_json::from_str(line).unwrap();
        let headers = line["headers"].as_array().unwrap().iter();
        let record = RawRecord {
            key: bytes(&line["key"]),
            value: bytes(&line["value"]),
            headers: headers
                .map(|header| (header[0].as_str().unwrap().to_owned(), bytes(&header[1])))
                .collect(),
            timestamp_ms: line["timestamp"].as_i64(),
        };
        (line["topic"].as_str().unwrap().to_owned(), record)
    };
    fixture(&format!("{capture}.jsonl")).lines().map(parse).collect()
}

/// The schemas of a capture with everything they refer to, inner ones first.
fn schemas(capture: &str) -> Vec<(u32, SchemaDocument)> {
    fn collect(answer: &Json, file: &Json, texts: &mut Vec<String>) {
        for reference in answer["references"].as_array().into_iter().flatten() {
            let place = format!("{}/{}", reference["subject"].as_str().unwrap(), reference["version"]);
            let inner = &file["referenced_subject_versions"][place];
            collect(inner, file, texts);
            texts.push(inner["schema"].as_str().unwrap().to_owned());
        }
    }
    let file: Json = serde_json::from_str(&fixture(&format!("{capture}.schemas.json"))).unwrap();
    let document = |(id, entry): (&String, &Json)| {
        let mut references = Vec::new();
        collect(&entry["raw"], &file, &mut references);
        let text = entry["raw"]["schema"].as_str().unwrap().to_owned();
        (id.parse().unwrap(), SchemaDocument { text, references })
    };
    file["ids"].as_object().unwrap().iter().map(document).collect()
}
