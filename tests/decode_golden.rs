//! What captured records of a real connector decode to, and that all encodings of one history decode to the same.
//!
//! `UPDATE_GOLDEN=1 cargo test --test decode_golden` writes the golden files anew; read the difference before
//! committing it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[cfg(test)]
#[path = "captures/mod.rs"]
mod captures;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::LazyLock;

use afterwrite::cli::decode::{DecodeArgs, run};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::Value as Json;
use serde_json::value::RawValue;

use crate::captures::exceptions::{BARE, EXCEPTIONS};
use crate::captures::parity::{compare, events};
use crate::captures::{Capture, ENCODINGS, MODES, folder, options};

/// JSON without schema in the recommended modes: what is printed in it is canonical.
static REFERENCE: LazyLock<Vec<Json>> = LazyLock::new(|| events(&Capture::read("jsn")));

fn matches_golden(capture: &str) {
    let schemas = folder().join(format!("{capture}.schemas.json"));
    let args = DecodeArgs {
        file: folder().join(format!("{capture}.jsonl")),
        schemas: schemas.exists().then_some(schemas),
    };
    let mut out = Vec::new();
    run(&args, options(), &mut out).unwrap();
    let decoded = String::from_utf8(out).unwrap();
    let path = folder().join(format!("golden/{capture}.jsonl"));
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &decoded).unwrap();
    }
    let golden = std::fs::read_to_string(&path).unwrap();
    for (number, (found, expected)) in decoded.lines().zip(golden.lines()).enumerate() {
        assert_eq!(found, expected, "{capture}, line {}", number + 1);
    }
    assert_eq!(decoded.lines().count(), golden.lines().count());
}

#[test]
fn json_without_schema_decodes_to_its_golden_file() {
    matches_golden("jsn");
}

#[test]
fn avro_with_references_decodes_to_its_golden_file() {
    matches_golden("avr");
}

#[test]
fn the_connectors_defaults_decode_to_their_golden_file() {
    matches_golden("def");
}

/// A capture of JSON with schema, without its schemas.
fn bare(name: &str) -> Capture {
    #[derive(Deserialize)]
    struct Wrapped {
        payload: Box<RawValue>,
    }
    let mut capture = Capture::read(name);
    for record in &mut capture.records {
        for part in [&mut record.raw.key, &mut record.raw.value].into_iter().flatten() {
            let wrapped: Wrapped = serde_json::from_slice(part).unwrap();
            *part = Bytes::from(wrapped.payload.get().to_owned());
        }
    }
    capture
}

/// Compares every capture to the reference: (capture, exception, cell) of each difference.
fn differences() -> BTreeSet<(&'static str, &'static str, String)> {
    let mut differences = BTreeSet::new();
    let mut note = |capture: &'static str, other: &[Json]| {
        let used = compare(capture, &REFERENCE, other).into_iter();
        differences.extend(used.map(|(exception, cell)| (capture, exception, cell)));
    };
    for capture in ENCODINGS {
        note(capture, &events(&Capture::read(capture)));
    }
    for (capture, bare_name) in MODES.into_iter().zip(BARE) {
        note(capture, &events(&Capture::read(capture)));
        note(bare_name, &events(&bare(capture)));
    }
    differences
}

#[test]
fn every_capture_decodes_to_the_same_events_but_for_the_exceptions_and_each_exception_occurs() {
    let differences = differences();
    for exception in EXCEPTIONS {
        let occurs = |capture: &str, cell: Option<&str>| {
            differences.iter().any(|(found, arrives, place)| {
                *arrives == exception.arrives
                    && (capture.is_empty() || *found == capture)
                    && cell.is_none_or(|cell| cell == place)
            })
        };
        for capture in exception.captures {
            assert!(occurs(capture, None), "no longer in {capture}: {}", exception.arrives);
        }
        for cell in exception.cells {
            assert!(occurs("", Some(cell)), "no longer in {cell}: {}", exception.arrives);
        }
    }
}

#[test]
fn json_without_schema_and_with_it_need_no_exception() {
    assert!(compare("jss", &REFERENCE, &events(&Capture::read("jss"))).is_empty());
    assert!(REFERENCE.len() > 120, "{} events", REFERENCE.len());
}

#[test]
fn the_documentation_lists_exactly_the_exceptions() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/DEBEZIUM.md");
    let text = std::fs::read_to_string(path).unwrap();
    let (_, section) = text.split_once("## Where encodings and modes differ\n").unwrap();
    let section = section.split("\n## ").next().unwrap();
    let lines = section.lines().filter(|line| line.starts_with("| "));
    // Below the titles.
    let listed: Vec<&str> = lines.skip(1).collect();
    let expected: Vec<String> = EXCEPTIONS.iter().map(captures::exceptions::Exception::line).collect();
    assert_eq!(listed, expected);
}

/// An update of a row whose long values did not change, under `DEFAULT` identity: what arrives of each depends on the modes.
#[test]
fn what_a_connector_cannot_convert_is_unavailable_or_null_as_documented() {
    for (capture, unavailable) in [
        ("def", &["b", "ad", "ah"][..]),
        ("mic", &["b", "ad"]),
        ("nan", &["ad"]),
        ("con", &[]),
        ("str", &["b", "ah"]),
    ] {
        let events = events(&Capture::read(capture));
        let update = events
            .iter()
            .find(|event| event["table"] == "lossy" && event["op"] == "update");
        let update = update.unwrap();
        assert_eq!(update["unavailable"], Json::from(unavailable.to_vec()), "{capture}");
        let after = update["after"].as_object().unwrap();
        for column in ["b", "ad", "ah", "an", "ab"]
            .iter()
            .filter(|column| !unavailable.contains(column))
        {
            assert_eq!(after[*column], Json::Null, "{capture}: {column}");
        }
    }
}

/// Every change of a table with a key has an id, and no two of one capture have the same.
#[test]
fn no_two_changes_of_a_capture_share_an_id() {
    for capture in ENCODINGS {
        let mut seen = BTreeSet::new();
        for event in events(&Capture::read(capture)) {
            match event["id"].as_str() {
                Some(id) => assert!(seen.insert(id.to_owned()), "{capture}: {event} has the id of another"),
                None => assert!(
                    event["op"] == "read" || event["table"] == "audit",
                    "{capture}: {event} has no id"
                ),
            }
        }
        assert!(seen.len() > 80, "{capture}: {} ids", seen.len());
    }
}
