//! What captured records of a real connector decode to, and that all encodings of one history decode to the same.
//!
//! `UPDATE_GOLDEN=1 cargo test --test decode_golden` writes the golden files anew; read the difference before
//! committing it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use afterwrite::cli::decode::{DecodeArgs, run};
use afterwrite::decode::options::{Options, TimePrecision};
use afterwrite::decode::tables::Tables;
use serde_json::Value;

const CAPTURES: [&str; 5] = ["jsn", "jss", "avr", "avd", "def"];

/// Columns of integers whose unit JSON without schema does not tell: dates, times and timestamps without a zone.
const UNTYPED: [&str; 12] = [
    "opens_on", "seen_at", "born", "wake", "c_date", "c_time0", "c_time3", "c_time", "c_ts0", "c_ts3", "c_ts", "c_ad",
];

/// Nullable columns with a default, and what the converters print for them where the row has null: Apicurio's for Avro
/// always, Kafka's for JSON unless `replace.null.with.default=false`.
fn printed_for_null(column: &str) -> Option<Value> {
    match column {
        "cap" => Some(Value::from(100)),
        "note" => Some(Value::from("none")),
        "tier" => Some(Value::from(7)),
        "region" => Some(Value::from("eu")),
        "last_ping" => Some(Value::from("1970-01-01T00:00:00.000000Z")),
        "theme" => Some(Value::from("dark")),
        _ => None,
    }
}

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/debezium-3.7.0")
}

fn decode(capture: &str) -> String {
    let schemas = fixtures().join(format!("{capture}.schemas.json"));
    let args = DecodeArgs {
        file: fixtures().join(format!("{capture}.jsonl")),
        schemas: schemas.exists().then_some(schemas),
    };
    let options = Options {
        time_precision: TimePrecision::Microseconds,
        full_identity: Tables::like(["public.waitlist_users", "public.audit_log"]),
        ..Options::default()
    };
    let mut out = Vec::new();
    run(&args, options, &mut out).unwrap();
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
fn the_connectors_defaults_decode_to_their_golden_file() {
    matches_golden("def");
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

/// Applies `edit` to each cell of each row; what it answers takes the cell's place.
fn replace(events: &mut BTreeMap<String, Vec<Value>>, edit: impl Fn(&str, &Value) -> Option<Value>) {
    for event in events.values_mut().flatten() {
        for image in ["before", "before_as_sent", "after"] {
            let row = event.get_mut(image).and_then(Value::as_object_mut);
            for (column, cell) in row.into_iter().flatten() {
                if let Some(other) = edit(column, cell) {
                    *cell = other;
                }
            }
        }
    }
}

fn defaults_for_nulls(column: &str, cell: &Value) -> Option<Value> {
    cell.is_null().then(|| printed_for_null(column)).flatten()
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
            for image in ["before", "before_as_sent", "after"] {
                for (column, cell) in left[image].as_object().into_iter().flatten() {
                    assert_eq!(cell, &right[image][column], "{pair}: {table}.{column} in {image}");
                }
            }
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
    let (mut json, avro) = (history("jss"), history("avr"));
    replace(&mut json, defaults_for_nulls);
    same(&json, &avro, "jss and avr");
}

#[test]
fn json_with_and_without_schema_decode_to_the_same_events() {
    let (mut without_schema, mut with_schema) = (history("jsn"), history("jss"));
    let hide = |column: &str, _: &Value| UNTYPED.contains(&column).then_some(Value::Null);
    replace(&mut without_schema, hide);
    replace(&mut with_schema, hide);
    same(&without_schema, &with_schema, "jsn and jss");
}

#[test]
fn the_connectors_defaults_decode_to_the_same_events_as_the_recommended_modes() {
    let (mut recommended, mut defaults) = (history("jss"), history("def"));
    // An interval as a number has lost its months: it stays the number.
    let hide = |column: &str, _: &Value| (column == "c_interval").then_some(Value::Null);
    replace(&mut recommended, hide);
    replace(&mut defaults, hide);
    replace(&mut recommended, |column, cell| match (column, cell.as_str()) {
        // The connector fails to write these as bytes and writes null.
        ("c_num", Some("NAN" | "NEGATIVE_INFINITY")) => Some(Value::Null),
        // Decimals without a declared scale lose their trailing zeros.
        ("c_num", Some("1.10")) => Some(Value::from("1.1")),
        _ => defaults_for_nulls(column, cell),
    });
    same(&recommended, &defaults, "jss and def");
}
