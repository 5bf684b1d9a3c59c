//! Every input that coverage-guided fuzzing found worth keeping, without libFuzzer: what was found once stays mended.
//!
//! `FUZZ_SEEDS=FOLDER cargo test --test corpus` writes the inputs that captured records make, a folder for each target;
//! `fuzz/run seeds` does so and keeps what adds coverage.

pub mod targets;

mod messages;

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use afterwrite::source::wal::pgoutput;
use serde_json::{Value, json};

use crate::targets::captured::{self, CAPTURES, Encoding};
use crate::targets::{TARGETS, frame};

/// The modes with which the captured JSON without schema was written, as the first byte of an input.
const MODES: u8 = 4;

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus")
}

#[test]
fn every_input_of_the_corpus_passes() {
    for (target, check) in TARGETS {
        let folder = corpus().join(target);
        let entries = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        let mut inputs = 0;
        for entry in entries {
            let path = entry.expect("a listed entry can be read").path();
            let input = std::fs::read(&path).expect("an input can be read");
            let checked = catch_unwind(AssertUnwindSafe(|| check(&input)));
            assert!(checked.is_ok(), "cargo fuzz run {target} {} repeats it", path.display());
            inputs += 1;
        }
        assert!(inputs >= 10, "{target} has hardly any input: run fuzz/run seeds");
        println!("{target}: {inputs} inputs");
    }
}

#[test]
fn every_seed_passes() {
    let written = std::env::var_os("FUZZ_SEEDS").map(PathBuf::from);
    for (target, check) in TARGETS {
        let seeds = seeds(target);
        assert!(seeds.len() >= 10, "{target} has hardly any seed");
        for seed in &seeds {
            check(seed);
        }
        let Some(folder) = written.as_ref().map(|folder| folder.join(target)) else {
            continue;
        };
        std::fs::create_dir_all(&folder).expect("the folder can be made");
        for seed in &seeds {
            let mut hasher = DefaultHasher::new();
            seed.hash(&mut hasher);
            std::fs::write(folder.join(format!("{:016x}", hasher.finish())), seed).expect("a seed can be written");
        }
    }
}

#[test]
fn what_is_framed_is_taken_apart_again() {
    let all = captured::records(CAPTURES[0].0);
    let records: Vec<_> = all.iter().take(3).collect();
    let (first, read) = frame::records(&frame::framed(7, &records)).expect("it is framed");
    assert_eq!(first, 7);
    for ((topic, record), (read_topic, read)) in records.into_iter().zip(&read) {
        assert_eq!(
            (topic, &record.key, &record.value),
            (read_topic, &read.key, &read.value)
        );
        assert_eq!(record.headers.len(), read.headers.len());
    }
}

#[test]
fn every_message_of_a_seed_is_one() {
    for seed in messages::seeds() {
        for message in frame::parts(&seed[1..]) {
            let parsed = pgoutput::parse(message);
            assert!(parsed.is_ok(), "{parsed:?}: {}", String::from_utf8_lossy(message));
        }
    }
}

fn seeds(target: &str) -> BTreeSet<Vec<u8>> {
    let of = |wanted: Encoding| {
        let captures = CAPTURES.iter().filter(move |(_, encoding)| *encoding == wanted);
        captures.flat_map(|(capture, _)| captured::records(capture))
    };
    let valued = |wanted: Encoding, first: u8| {
        let values = of(wanted).filter_map(|(_, record)| record.value);
        values.map(move |value| [&[first], &value[..]].concat()).collect()
    };
    match target {
        "record" => framed(),
        "json" => valued(Encoding::Json, MODES),
        "json_schema" => valued(Encoding::JsonSchema, 0),
        "avro" => bodies()
            .into_iter()
            .map(|(place, _, body)| [&place.to_be_bytes()[..], &body].concat())
            .collect(),
        "avro_schema" => {
            let one_each: BTreeMap<u32, Vec<u8>> = bodies().into_iter().map(|(_, id, body)| (id, body)).collect();
            one_each.into_iter().map(|(id, body)| schema(id, &body)).collect()
        }
        "typed_row" => columns(of(Encoding::Json).filter_map(|(_, record)| record.value)),
        "pgoutput" => messages::seeds().collect(),
        other => panic!("{other} has no seeds"),
    }
}

/// Each record alone, and some behind another of their topic.
fn framed() -> BTreeSet<Vec<u8>> {
    let mut framed = BTreeSet::new();
    for (capture, _) in CAPTURES {
        let records = captured::records(capture);
        framed.extend(records.iter().map(|record| frame::framed(4 * MODES, &[record])));
        let pairs = records.windows(2).filter(|pair| pair[0].0 == pair[1].0).step_by(5);
        framed.extend(pairs.map(|pair| frame::framed(4 * MODES, &[&pair[0], &pair[1]])));
    }
    framed
}

/// Bodies of Avro with the place of their schema among all, and its id.
fn bodies() -> Vec<(u16, u32, Vec<u8>)> {
    let ids: Vec<u32> = captured::schemas().keys().copied().collect();
    let mut bodies = Vec::new();
    for (capture, _) in CAPTURES.iter().filter(|(_, encoding)| *encoding == Encoding::Avro) {
        for (_, record) in captured::records(capture) {
            let Some((&[0, a, b, c, d], body)) = record.value.as_deref().and_then(<[u8]>::split_first_chunk) else {
                continue;
            };
            let id = u32::from_be_bytes([a, b, c, d]);
            let place = ids
                .iter()
                .position(|known| *known == id)
                .expect("the schema was captured");
            bodies.push((u16::try_from(place).expect("they are few"), id, body.to_vec()));
        }
    }
    bodies
}

fn schema(id: u32, body: &[u8]) -> Vec<u8> {
    let document = &captured::schemas()[&id];
    let mut parts = vec![document.text.as_bytes(), body];
    parts.extend(document.references.iter().map(|text| text.as_bytes()));
    frame::joined(&parts)
}

/// Each column of each new row once, as `v`.
fn columns(values: impl Iterator<Item = bytes::Bytes>) -> BTreeSet<Vec<u8>> {
    let mut columns = BTreeSet::new();
    for value in values {
        let Ok(change) = serde_json::from_slice::<Value>(&value) else {
            continue;
        };
        for cell in change["after"].as_object().into_iter().flat_map(|row| row.values()) {
            let text = json!({ "v": cell }).to_string();
            if text.len() < 200 {
                columns.insert([&[MODES], text.as_bytes()].concat());
            }
        }
    }
    let shapes = [
        r#"{"v":{"x":1.5,"y":null}}"#,
        r#"{"v":["a",2]}"#,
        r#"{"v":[[null,"2024-01-01T00:00:00Z"]]}"#,
        r#"{"v":"[1,{\"a\":null}]"}"#,
        r#"{"v":"invited"}"#,
        r#"{"v":18446744073709551615}"#,
        r#"{"v":-1e300}"#,
        r#"{"w":1}"#,
        r#"{"v":"2f1c8a5e-7b1d-4c69-9d55-6b8f0c6f0a11"}"#,
        r#"{"v":"__debezium_unavailable_value"}"#,
    ];
    columns.extend((0..24).flat_map(|modes| shapes.map(|shape| [&[modes], shape.as_bytes()].concat())));
    columns
}
