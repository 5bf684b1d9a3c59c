//! `afterwrite decode FILE`: what the worker would make of captured records.
//!
//! Reads one JSON object a line, prints one JSON object a line, in order. A record that cannot be decoded is a line
//! like any other; only a file that is no capture ends the command.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::path::PathBuf;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use clap::Args;
use serde::Deserialize;
use thiserror::Error;

use crate::cli::decoded::Line;
use crate::decode::options::Options;
use crate::decode::schema::SchemaDocument;
use crate::decode::tables::Tables;
use crate::decode::unknown::Unknown;
use crate::decode::{Decoded, Decoder};
use crate::event::delivery::{Content, RawRecord};

/// Decode captured records.
#[derive(Debug, Clone, Args)]
pub struct DecodeArgs {
    /// Captured records, one JSON object a line; `-` reads standard input.
    pub file: PathBuf,
    /// Schemas of a registry, by id; needed for Avro.
    #[arg(long, value_name = "FILE")]
    pub schemas: Option<PathBuf>,
}

/// Why the command could not finish.
#[derive(Debug, Error)]
pub enum Error {
    /// A file could not be read.
    #[error("could not read {path}")]
    Read {
        /// The file.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// A line is not a captured record.
    #[error("line {line} of {path} is not a captured record: {problem}")]
    Line {
        /// The file.
        path: String,
        /// Counted from 1.
        line: usize,
        /// What is wrong with it.
        problem: String,
    },
    /// The file of schemas is not one.
    #[error("{path} is not a file of schemas")]
    Schemas {
        /// The file.
        path: String,
        /// What the parser said.
        source: serde_json::Error,
    },
    /// The output could not be written.
    #[error("could not write the output")]
    Write(#[source] io::Error),
}

/// Decodes the file and prints to `out`, until its end or until nobody reads any more (`| head`).
///
/// # Errors
/// When a file is not what it should be, or the output cannot be written.
pub fn run(args: &DecodeArgs, options: Options, out: impl Write) -> Result<(), Error> {
    match decode_all(args, options, out) {
        Err(Error::Write(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        ended => ended,
    }
}

fn decode_all(args: &DecodeArgs, mut options: Options, mut out: impl Write) -> Result<(), Error> {
    // Reads are decoded to be shown; they stay skipped.
    options.reads = true;
    let decoder = Decoder::new(options);
    let schemas = match &args.schemas {
        Some(path) => SchemaFile::read(path)?,
        None => SchemaFile::default(),
    };
    let path = args.file.display().to_string();
    for (number, line) in open(&args.file)?.lines().enumerate() {
        let text = line.map_err(|source| Error::Read {
            path: path.clone(),
            source,
        })?;
        if text.trim().is_empty() {
            continue;
        }
        let fault = |problem: String| Error::Line {
            path: path.clone(),
            line: number + 1,
            problem,
        };
        let captured: Captured = serde_json::from_str(&text).map_err(|error| fault(error.to_string()))?;
        let record = captured.record().map_err(fault)?;
        let content = decode(&decoder, &schemas, &captured.topic, &record);
        write_line(&mut out, &captured, &content)?;
    }
    out.flush().map_err(Error::Write)
}

fn open(path: &PathBuf) -> Result<Box<dyn BufRead>, Error> {
    if path.as_os_str() == "-" {
        return Ok(Box::new(BufReader::new(io::stdin())));
    }
    let opened = File::open(path).map_err(|source| Error::Read {
        path: path.display().to_string(),
        source,
    })?;
    Ok(Box::new(BufReader::new(opened)))
}

/// Decodes a record, looking up the schemas it needs.
fn decode(decoder: &Decoder, schemas: &SchemaFile, topic: &str, record: &RawRecord) -> Content {
    let mut unknown = Vec::new();
    loop {
        match decoder.decode_despite(topic, record, &Tables::all(), &unknown) {
            Decoded::Content(content) => return content,
            Decoded::MissingSchema(id) => match schemas.document(id) {
                // A schema that cannot be used is the reason of the next round.
                Some(document) => drop(decoder.learn(id, &document)),
                None => unknown.push(Unknown::schema(id)),
            },
        }
    }
}

fn write_line(out: &mut impl Write, captured: &Captured, content: &Content) -> Result<(), Error> {
    let line = Line::of(&captured.topic, captured.partition, captured.offset, content);
    serde_json::to_writer(&mut *out, &line).map_err(|error| Error::Write(error.into()))?;
    out.write_all(b"\n").map_err(Error::Write)
}

/// A captured record.
#[derive(Deserialize)]
struct Captured {
    topic: String,
    #[serde(default)]
    partition: i32,
    #[serde(default)]
    offset: i64,
    timestamp: Option<i64>,
    key: Option<String>,
    value: Option<String>,
    #[serde(default)]
    headers: Vec<(String, Option<String>)>,
}

impl Captured {
    fn record(&self) -> Result<RawRecord, String> {
        let bytes = |text: Option<&String>, what: &str| {
            let decoded = text.map(|text| BASE64.decode(text)).transpose();
            let decoded = decoded.map_err(|_| format!("{what} is not base64"))?;
            Ok::<_, String>(decoded.map(Bytes::from))
        };
        let headers = self.headers.iter().map(|(name, value)| {
            let value = bytes(value.as_ref(), "a header")?;
            Ok((name.clone(), value))
        });
        Ok(RawRecord {
            key: bytes(self.key.as_ref(), "key")?,
            value: bytes(self.value.as_ref(), "value")?,
            headers: headers.collect::<Result<_, String>>()?,
            timestamp_ms: self.timestamp,
        })
    }
}

/// Answers of a registry, kept in a file: by id, and by subject and version for what they refer to.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct SchemaFile {
    ids: HashMap<String, Entry>,
    #[serde(default)]
    referenced_subject_versions: HashMap<String, Answer>,
}

#[derive(Debug, Deserialize)]
struct Entry {
    raw: Answer,
}

#[derive(Debug, Deserialize)]
struct Answer {
    schema: String,
    #[serde(default)]
    references: Vec<Reference>,
}

#[derive(Debug, Deserialize)]
struct Reference {
    subject: String,
    version: u32,
}

impl SchemaFile {
    /// Reads the file.
    pub(crate) fn read(path: &PathBuf) -> Result<Self, Error> {
        let name = path.display().to_string();
        let text = std::fs::read(path).map_err(|source| Error::Read {
            path: name.clone(),
            source,
        })?;
        serde_json::from_slice(&text).map_err(|source| Error::Schemas { path: name, source })
    }

    /// The ids of all schemas.
    pub(crate) fn ids(&self) -> impl Iterator<Item = u32> {
        self.ids.keys().filter_map(|id| id.parse().ok())
    }

    /// The schema of an id, with what it refers to.
    pub(crate) fn document(&self, id: u32) -> Option<SchemaDocument> {
        let entry = self.ids.get(&id.to_string())?;
        let mut document = SchemaDocument {
            text: entry.raw.schema.clone(),
            references: Vec::new(),
        };
        let mut visited = Vec::new();
        self.collect(&entry.raw, &mut visited, &mut document.references)?;
        Some(document)
    }

    /// Adds what an answer refers to, each before those that refer to it. `None` when something is not in the file.
    fn collect(&self, answer: &Answer, visited: &mut Vec<String>, texts: &mut Vec<String>) -> Option<()> {
        for reference in &answer.references {
            let place = format!("{}/{}", reference.subject, reference.version);
            if !visited.contains(&place) {
                let inner = self.referenced_subject_versions.get(&place)?;
                visited.push(place);
                self.collect(inner, visited, texts)?;
                texts.push(inner.schema.clone());
            }
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run_on(text: &str) -> Result<String, Error> {
        let mut out = Vec::new();
        run_into(text, &mut out).map(|()| String::from_utf8(out).unwrap())
    }

    fn run_into(text: &str, out: impl Write) -> Result<(), Error> {
        let folder = std::env::temp_dir().join(format!("afterwrite-decode-{}", uuid::Uuid::now_v7()));
        std::fs::create_dir_all(&folder).unwrap();
        let file = folder.join("records.jsonl");
        std::fs::write(&file, text).unwrap();
        let args = DecodeArgs { file, schemas: None };
        let answer = run(&args, Options::default(), out);
        std::fs::remove_dir_all(&folder).unwrap();
        answer
    }

    /// Takes so many bytes, and then fails.
    struct Full(usize, io::ErrorKind);

    impl Write for Full {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 = self.0.checked_sub(bytes.len()).ok_or(self.1)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_reader_that_has_left_ends_the_command_well() {
        let text = format!("{}\n", r#"{"topic":"t","value":null}"#).repeat(3);
        assert!(run_into(&text, Full(150, io::ErrorKind::BrokenPipe)).is_ok());
        let failed = run_into(&text, Full(150, io::ErrorKind::StorageFull));
        assert!(matches!(failed, Err(Error::Write(_))));
    }

    #[test]
    fn every_record_is_a_line_also_those_that_cannot_be_decoded() {
        let text = concat!(
            r#"{"topic":"t","partition":1,"offset":2,"timestamp":3,"key":null,"value":null,"headers":[]}"#,
            "\n\n",
            r#"{"topic":"t","partition":1,"offset":3,"key":null,"value":"AAAAAAcB","headers":[["h",null]]}"#,
            "\n"
        );
        let expected = concat!(
            r#"{"topic":"t","partition":1,"offset":2,"kind":"skip","reason":"tombstone","event":null}"#,
            "\n",
            r#"{"topic":"t","partition":1,"offset":3,"kind":"undecodable","reason":"the registry has no schema 7","event":null}"#,
            "\n"
        );
        assert_eq!(run_on(text).unwrap(), expected);
    }

    #[test]
    fn a_line_that_is_no_capture_is_named() {
        let problem = run_on("\n{\"topic\":\"t\",\"value\":\"not base64\"}\n").unwrap_err();
        assert!(matches!(problem, Error::Line { line: 2, .. }), "{problem}");
    }
}
