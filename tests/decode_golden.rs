//! What captured records of a real connector decode to, and that all encodings of one history decode to the same.
//!
//! `UPDATE_GOLDEN=1 cargo test --test decode_golden` writes the golden files anew; read the difference before
//! committing it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use afterwrite::cli::decode::{DecodeArgs, run_with};
use afterwrite::decode::options::Options;
use serde_json::Value;

const CAPTURES: [&str; 4] = ["jsn", "jss", "avr", "avd"];

/// Columns of integers whose unit JSON without schema does not tell: dates, times and timestamps without a zone.
const UNTYPED: [&str; 12] = [
    "opens_on", "seen_at", "born", "wake", "c_date", "c_time0", "c_time3", "c_time", "c_ts0", "c_ts3", "c_ts", "c_ad",
];

/// Nullable columns with a default: the Avro converter of the capture put the default where the row had null.
const DEFAULTED: [&str; 6] = ["cap", "note", "tier", "region", "last_ping", "theme"];

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/debezium-3.7.0")
}

fn decode(capture: &str) -> String {
    let schemas = fixtures().join(format!("{capture}.schemas.json"));
    let args = DecodeArgs {
        file: fixtures().join(format!("{capture}.jsonl")),
        schemas: schemas.exists().then_some(schemas),
        settings: vec!["source.time_precision=microseconds".to_owned()],
    };
    let mut out = Vec::new();
    run_with(&args, Options::default(), &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

fn lines(capture: &str) -> Vec<Value> {
    decode(capture)
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn matches_golden(capture: &str) {
    let path = fixtures().join(format!("golden/{capture}.jsonl"));
    let decoded = decode(capture);
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
fn json_with_schema_decodes_to_its_golden_file() {
    matches_golden("jss");
}

#[test]
fn avro_with_references_decodes_to_its_golden_file() {
    matches_golden("avr");
}

#[test]
fn avro_without_references_decodes_to_its_golden_file() {
    matches_golden("avd");
}

#[test]
fn nothing_that_was_captured_is_undecodable() {
    for capture in CAPTURES {
        for line in lines(capture) {
            assert_ne!(line["kind"], "undecodable", "{capture}: {line}");
        }
    }
}

/// The events of a capture by table, in the order in which Postgres committed them, without what belongs to one
/// connector alone.
fn history(capture: &str) -> BTreeMap<String, Vec<Value>> {
    let mut tables: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for line in lines(capture) {
        if line["kind"] != "change" || line["event"]["schema"] == "dbz" {
            continue;
        }
        let mut event = line["event"].clone();
        // The name of the source is part of the id.
        event["id"] = Value::from(event["id"].is_string());
        let table = event["table"].as_str().unwrap().to_owned();
        tables.entry(table).or_default().push(event);
    }
    for events in tables.values_mut() {
        // Two partitions were read one after the other. The place in the log and the key put them back in order.
        events.sort_by_key(|event| (event["lsn"].as_i64(), event["op"].to_string(), event["key"].to_string()));
    }
    tables
}

fn without(events: &mut BTreeMap<String, Vec<Value>>, columns: &[&str]) {
    for event in events.values_mut().flatten() {
        for image in ["before", "after"] {
            if let Some(row) = event[image].as_object_mut() {
                row.retain(|column, _| !columns.contains(&column.as_str()));
            }
        }
    }
}

fn same(one: &BTreeMap<String, Vec<Value>>, other: &BTreeMap<String, Vec<Value>>, pair: &str) {
    assert_eq!(
        one.keys().collect::<Vec<_>>(),
        other.keys().collect::<Vec<_>>(),
        "{pair}: tables"
    );
    for (table, events) in one {
        assert_eq!(events.len(), other[table].len(), "{pair}: events of {table}");
        for (left, right) in events.iter().zip(&other[table]) {
            assert_eq!(left, right, "{pair}: {table}");
        }
    }
}

#[test]
fn both_kinds_of_avro_decode_to_the_same_events() {
    same(&history("avr"), &history("avd"), "avr and avd");
}

#[test]
fn json_with_schema_and_avro_decode_to_the_same_events() {
    let (mut json, mut avro) = (history("jss"), history("avr"));
    without(&mut json, &DEFAULTED);
    without(&mut avro, &DEFAULTED);
    same(&json, &avro, "jss and avr");
}

#[test]
fn json_with_and_without_schema_decode_to_the_same_events() {
    let (mut without_schema, mut with_schema) = (history("jsn"), history("jss"));
    without(&mut without_schema, &UNTYPED);
    without(&mut with_schema, &UNTYPED);
    same(&without_schema, &with_schema, "jsn and jss");
}
