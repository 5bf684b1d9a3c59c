//! Records of real connectors, and the schemas they were written with: from the files in `tests/fixtures/debezium-3.7.0`,
//! or from a run that has just ended. `make fixtures` writes the files anew.

#![allow(dead_code, reason = "each test uses its part of this module")]

pub(crate) mod parity;

pub(crate) mod exceptions;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use afterwrite::decode::options::Options;
use afterwrite::decode::schema::SchemaDocument;
use afterwrite::decode::tables::Tables;
use afterwrite::decode::{Decoded, Decoder};
use afterwrite::event::delivery::{Content, RawRecord};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// The captures of one history in the recommended modes, once in each encoding.
pub(crate) const ENCODINGS: [&str; 4] = ["jsn", "jss", "avd", "avr"];

/// JSON with schema, each in other modes.
pub(crate) const MODES: [&str; 6] = ["def", "atm", "mic", "nan", "con", "str"];

/// The tables of the history that have `REPLICA IDENTITY FULL`.
const FULL: [&str; 3] = ["public.users", "public.audit", "public.toast_full"];

/// How the captures are decoded.
pub(crate) fn options() -> Options {
    Options {
        full_identity: Tables::like(FULL),
        ..Options::default()
    }
}

/// Where the files are.
pub(crate) fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/debezium-3.7.0")
}

/// What one connector wrote.
pub(crate) struct Capture {
    /// Sorted by topic, partition and offset.
    pub(crate) records: Vec<Captured>,
    pub(crate) schemas: Schemas,
}

/// One record and its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Captured {
    pub(crate) topic: String,
    pub(crate) partition: i32,
    pub(crate) offset: i64,
    pub(crate) raw: RawRecord,
}

/// A line of a file; bytes are base64.
#[derive(Serialize, Deserialize)]
struct Line {
    topic: String,
    partition: i32,
    offset: i64,
    timestamp: Option<i64>,
    key: Option<String>,
    value: Option<String>,
    headers: Vec<(String, Option<String>)>,
}

impl Captured {
    /// Reads a line of a file.
    pub(crate) fn parse(line: &str) -> Self {
        let line: Line = serde_json::from_str(line).unwrap();
        let bytes = |text: String| Bytes::from(BASE64.decode(text).unwrap());
        let headers = line.headers.into_iter();
        Self {
            topic: line.topic,
            partition: line.partition,
            offset: line.offset,
            raw: RawRecord {
                key: line.key.map(bytes),
                value: line.value.map(bytes),
                headers: headers.map(|(name, value)| (name, value.map(bytes))).collect(),
                timestamp_ms: line.timestamp,
            },
        }
    }

    /// The line of a file.
    pub(crate) fn print(&self) -> String {
        let text = |bytes: &Bytes| BASE64.encode(bytes);
        let headers = self.raw.headers.iter();
        let line = Line {
            topic: self.topic.clone(),
            partition: self.partition,
            offset: self.offset,
            timestamp: self.raw.timestamp_ms,
            key: self.raw.key.as_ref().map(text),
            value: self.raw.value.as_ref().map(text),
            headers: headers
                .map(|(name, value)| (name.clone(), value.as_ref().map(text)))
                .collect(),
        };
        serde_json::to_string(&line).unwrap()
    }
}

impl Capture {
    /// Reads the files of a capture.
    pub(crate) fn read(name: &str) -> Self {
        let text = std::fs::read_to_string(folder().join(format!("{name}.jsonl"))).unwrap();
        let schemas = std::fs::read(folder().join(format!("{name}.schemas.json"))).ok();
        Self {
            records: text.lines().map(Captured::parse).collect(),
            schemas: schemas.map_or_else(Schemas::default, |text| serde_json::from_slice(&text).unwrap()),
        }
    }

    /// Writes the files of a capture.
    pub(crate) fn write(&self, name: &str) {
        let lines: Vec<String> = self.records.iter().map(|record| record.print() + "\n").collect();
        std::fs::write(folder().join(format!("{name}.jsonl")), lines.concat()).unwrap();
        if !self.schemas.ids.is_empty() {
            let text = serde_json::to_string_pretty(&self.schemas).unwrap() + "\n";
            std::fs::write(folder().join(format!("{name}.schemas.json")), text).unwrap();
        }
    }

    /// What the decoder makes of each record.
    pub(crate) fn decoded(&self, options: Options) -> Vec<(&Captured, Content)> {
        let decoder = Decoder::new(Options { reads: true, ..options });
        for id in self.schemas.ids() {
            decoder.learn(id, &self.schemas.document(id)).unwrap();
        }
        let content = |record: &Captured| match decoder.decode_despite(&record.topic, &record.raw, &Tables::all(), &[])
        {
            Decoded::Content(content) => content,
            Decoded::MissingSchema(id) => panic!("schema {id} was not captured"),
        };
        self.records.iter().map(|record| (record, content(record))).collect()
    }
}

/// Answers of a registry: by id, and by subject and version for what they refer to.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Schemas {
    pub(crate) ids: BTreeMap<u32, Entry>,
    pub(crate) referenced_subject_versions: BTreeMap<String, Answer>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Entry {
    pub(crate) raw: Answer,
}

/// `GET /schemas/ids/{id}`, or `GET /subjects/{subject}/versions/{version}`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Answer {
    pub(crate) schema: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) references: Vec<Reference>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Reference {
    pub(crate) name: String,
    pub(crate) subject: String,
    pub(crate) version: u32,
}

impl Reference {
    /// The place of the schema in [`Schemas::referenced_subject_versions`].
    pub(crate) fn place(&self) -> String {
        format!("{}/{}", self.subject, self.version)
    }
}

impl Schemas {
    pub(crate) fn ids(&self) -> impl Iterator<Item = u32> {
        self.ids.keys().copied()
    }

    /// The schema of an id, with everything it refers to, inner ones first.
    pub(crate) fn document(&self, id: u32) -> SchemaDocument {
        let answer = &self.ids[&id].raw;
        let mut document = SchemaDocument {
            text: answer.schema.clone(),
            references: Vec::new(),
        };
        self.collect(answer, &mut BTreeSet::new(), &mut document.references);
        document
    }

    fn collect(&self, answer: &Answer, seen: &mut BTreeSet<String>, texts: &mut Vec<String>) {
        for place in answer.references.iter().map(Reference::place) {
            let inner = &self.referenced_subject_versions[&place];
            if seen.insert(place) {
                self.collect(inner, seen, texts);
                texts.push(inner.schema.clone());
            }
        }
    }
}

/// The id of the schema that bytes in the Confluent wire format were written with.
pub(crate) fn schema_id(bytes: &[u8]) -> Option<u32> {
    match bytes {
        [0, a, b, c, d, ..] => Some(u32::from_be_bytes([*a, *b, *c, *d])),
        _ => None,
    }
}
