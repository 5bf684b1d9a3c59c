//! What holds for every record, also for those that no connector would send.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[cfg(test)]
#[path = "captures/mod.rs"]
mod captures;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, LazyLock};

use afterwrite::decode::canonical::CanonicalRow;
use afterwrite::decode::options::{Format, Options};
use afterwrite::decode::schema::SchemaDocument;
use afterwrite::decode::tables::Tables;
use afterwrite::decode::unknown::Unknown;
use afterwrite::decode::{Decoded, Decoder};
use afterwrite::event::change::Before;
use afterwrite::event::delivery::{Content, RawRecord, SkipReason};
use afterwrite::event::key::Key;
use afterwrite::event::row::{Row, Value};
use bytes::Bytes;
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use serde_json::Value as Json;

use crate::captures::{Capture, Captured, ENCODINGS, MODES};

static RECORDS: LazyLock<Vec<Captured>> = LazyLock::new(|| {
    let captures = ENCODINGS.into_iter().chain(MODES).map(Capture::read);
    captures.flat_map(|capture| capture.records).collect()
});

static SCHEMAS: LazyLock<HashMap<u32, SchemaDocument>> = LazyLock::new(|| {
    let all = ENCODINGS.into_iter().map(|name| Capture::read(name).schemas);
    all.flat_map(|schemas| schemas.ids().map(|id| (id, schemas.document(id))).collect::<Vec<_>>())
        .collect()
});

static SCHEMA_IDS: LazyLock<Vec<u32>> = LazyLock::new(|| SCHEMAS.keys().copied().collect());

fn decoder(format: Format) -> Decoder {
    Decoder::new(Options {
        format,
        reads: true,
        ..Options::default()
    })
}

fn content(decoder: &Decoder, topic: &str, record: &RawRecord) -> Content {
    content_of_wanted(decoder, topic, record, &Tables::all())
}

fn content_of_wanted(decoder: &Decoder, topic: &str, record: &RawRecord, wanted: &Tables) -> Content {
    let mut unknown = Vec::new();
    loop {
        match decoder.decode_despite(topic, record, wanted, &unknown) {
            Decoded::Content(content) => return content,
            Decoded::MissingSchema(id) => match SCHEMAS.get(&id) {
                Some(document) => decoder.learn(id, document).unwrap(),
                None => unknown.push(Unknown::schema(id)),
            },
        }
        assert!(unknown.len() <= 2, "a record has one key and one value");
    }
}

/// What became of a record; the place of a syntax error depends on what had to be parsed.
fn outcome(content: Content) -> String {
    match content {
        Content::Undecodable(_) => "undecodable".to_owned(),
        other => format!("{other:?}"),
    }
}

/// A decoder that has seen every captured record.
static WARM: LazyLock<Decoder> = LazyLock::new(|| {
    let decoder = decoder(Format::Auto);
    for record in RECORDS.iter() {
        content(&decoder, &record.topic, &record.raw);
    }
    decoder
});

fn format() -> impl Strategy<Value = Format> {
    prop_oneof![
        Just(Format::Auto),
        Just(Format::Json),
        Just(Format::JsonSchema),
        Just(Format::Avro)
    ]
}

/// One edit of some bytes.
#[derive(Debug, Clone)]
enum Edit {
    Set(prop::sample::Index, u8),
    Insert(prop::sample::Index, Vec<u8>),
    Remove(prop::sample::Index, usize),
    Truncate(prop::sample::Index),
}

fn edit() -> impl Strategy<Value = Edit> {
    prop_oneof![
        (any::<prop::sample::Index>(), any::<u8>()).prop_map(|(place, byte)| Edit::Set(place, byte)),
        (any::<prop::sample::Index>(), vec(any::<u8>(), 1..12)).prop_map(|(place, bytes)| Edit::Insert(place, bytes)),
        (any::<prop::sample::Index>(), 1..64_usize).prop_map(|(place, length)| Edit::Remove(place, length)),
        any::<prop::sample::Index>().prop_map(Edit::Truncate),
    ]
}

fn apply(bytes: Option<&Bytes>, edits: &[Edit]) -> Option<Bytes> {
    let mut edited = bytes?.to_vec();
    for edit in edits {
        let places = edited.len().max(1);
        match edit {
            Edit::Set(place, byte) if !edited.is_empty() => edited[place.index(places)] = *byte,
            Edit::Set(..) => {}
            Edit::Insert(place, more) => {
                let place = place.index(places).min(edited.len());
                edited.splice(place..place, more.iter().copied());
            }
            Edit::Remove(place, length) => {
                let start = place.index(places).min(edited.len());
                let end = (start + length).min(edited.len());
                edited.drain(start..end);
            }
            Edit::Truncate(place) => edited.truncate(place.index(places)),
        }
    }
    Some(Bytes::from(edited))
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(Value::Int),
        any::<f64>()
            .prop_filter("finite", |number| number.is_finite())
            .prop_map(Value::Float),
        any::<String>().prop_map(|text| Value::Text(text.into())),
    ];
    leaf.prop_recursive(3, 24, 6, |inner| {
        let element = prop::option::of(inner);
        prop_oneof![
            vec(element.clone(), 0..6).prop_map(Value::List),
            // In order: what may be the map of a geometry is sorted.
            vec((any::<String>(), element), 0..6).prop_map(|mut members| {
                members.sort_by(|(one, _), (other, _)| one.cmp(other));
                let shared = members.into_iter().map(|(name, value)| (Arc::from(name), value));
                Value::Struct(shared.collect())
            }),
        ]
    })
}

fn row() -> impl Strategy<Value = Row> {
    let cell = prop_oneof![4 => value().prop_map(Some), 1 => Just(None)];
    btree_map(any::<String>(), cell, 0..12)
        .prop_map(|columns| Row::of(columns.iter().map(|(name, value)| (name.as_str(), value.clone()))))
}

fn record(key: &Json, value: &Json) -> RawRecord {
    RawRecord {
        key: Some(Bytes::from(key.to_string())),
        value: Some(Bytes::from(value.to_string())),
        ..RawRecord::default()
    }
}

fn id_of(decoder: &Decoder, topic: &str, record: &RawRecord) -> Option<String> {
    match content(decoder, topic, record) {
        Content::Change(event) => event.id().map(|id| id.to_string()),
        other => panic!("not a change: {other:?}"),
    }
}

/// Every change of the capture without schema, as JSON.
static CHANGES: LazyLock<Vec<(String, Json, Json)>> = LazyLock::new(|| {
    let parse = |bytes: &Option<Bytes>| {
        bytes
            .as_ref()
            .map(|bytes| serde_json::from_slice::<Json>(bytes).unwrap())
    };
    let parsed = Capture::read("jsn").records.into_iter().filter_map(|record| {
        let Captured { topic, raw, .. } = record;
        let (key, value) = (parse(&raw.key)?, parse(&raw.value)?);
        let is_change = matches!(value["op"].as_str(), Some("c" | "u" | "d")) && !topic.contains(".dbz.");
        is_change.then_some((topic, key, value))
    });
    parsed.collect()
});

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn arbitrary_bytes_never_panic(
        format in format(),
        key in prop::option::of(vec(any::<u8>(), 0..64)),
        value in prop::option::of(vec(any::<u8>(), 0..256)),
    ) {
        let record = RawRecord { key: key.map(Bytes::from), value: value.map(Bytes::from), ..RawRecord::default() };
        content(&decoder(format), "topic", &record);
    }

    #[test]
    fn arbitrary_avro_bodies_of_known_schemas_never_panic(
        schema in any::<prop::sample::Index>(),
        body in vec(any::<u8>(), 0..256),
    ) {
        let id = schema.get(SCHEMA_IDS.as_slice());
        let mut bytes = vec![0];
        bytes.extend_from_slice(&id.to_be_bytes());
        bytes.extend_from_slice(&body);
        let record = RawRecord { key: Some(bytes.clone().into()), value: Some(bytes.into()), ..RawRecord::default() };
        content(&WARM, "topic", &record);
    }

    #[test]
    fn damaged_schemas_never_panic_and_neither_do_bodies_read_with_them(
        schema in any::<prop::sample::Index>(),
        edits in vec(edit(), 1..4),
        body in vec(any::<u8>(), 0..128),
    ) {
        let document = &SCHEMAS[schema.get(SCHEMA_IDS.as_slice())];
        let edited = apply(Some(&Bytes::from(document.text.clone())), &edits).unwrap();
        let damaged = SchemaDocument {
            text: String::from_utf8_lossy(&edited).into_owned(),
            references: document.references.clone(),
        };
        let decoder = decoder(Format::Avro);
        let learned = decoder.learn(1, &damaged);
        let mut bytes = vec![0, 0, 0, 0, 1];
        bytes.extend_from_slice(&body);
        let record = RawRecord { value: Some(bytes.into()), ..RawRecord::default() };
        let found = content(&decoder, "topic", &record);
        prop_assert!(learned.is_ok() || matches!(found, Content::Undecodable(_)));
    }

    #[test]
    fn damaged_records_never_panic_and_what_was_seen_before_changes_nothing(
        chosen in any::<prop::sample::Index>(),
        format in format(),
        key_edits in vec(edit(), 0..2),
        value_edits in vec(edit(), 0..4),
    ) {
        let Captured { topic, raw: original, .. } = chosen.get(RECORDS.as_slice());
        let record = RawRecord {
            key: apply(original.key.as_ref(), &key_edits),
            value: apply(original.value.as_ref(), &value_edits),
            ..original.clone()
        };
        let fresh = decoder(format);
        let cold = outcome(content(&fresh, topic, &record));
        prop_assert_eq!(&cold, &outcome(content(&fresh, topic, &record)));
        if format == Format::Auto {
            prop_assert_eq!(&cold, &outcome(content(&WARM, topic, &record)));
        }
    }

    #[test]
    fn a_record_that_nobody_wants_is_told_apart_as_before_whatever_its_rows_are_like(
        chosen in any::<prop::sample::Index>(),
        edits in vec(edit(), 0..3),
    ) {
        let Captured { topic, raw: original, .. } = chosen.get(RECORDS.as_slice());
        let record = RawRecord { value: apply(original.value.as_ref(), &edits), ..original.clone() };
        for decoder in [&decoder(Format::Auto), &*WARM] {
            let found = content_of_wanted(decoder, topic, &record, &Tables::default());
            match content(decoder, topic, &record) {
                Content::Change(_) => prop_assert!(matches!(found, Content::Skip(SkipReason::Unrouted)), "{found:?}"),
                Content::Skip(reason) => prop_assert!(matches!(found, Content::Skip(other) if other == reason), "{found:?}"),
                // Its rows may be what is wrong with it, and nobody reads them.
                Content::Undecodable(_) => prop_assert!(!matches!(found, Content::Change(_)), "{found:?}"),
            }
        }
    }

    #[test]
    fn what_is_printed_decodes_to_the_same_row(before in row(), after in row()) {
        let source = r#"{"connector":"postgresql","name":"w","db":"d","schema":"s","table":"t","lsn":1}"#;
        let print = |row: &Row| serde_json::to_string(&CanonicalRow(row)).unwrap();
        let value = format!(r#"{{"op":"d","source":{source},"before":{}}}"#, print(&before));
        let record = RawRecord { key: Some(print(&after).into()), value: Some(value.into()), ..RawRecord::default() };
        let Content::Change(event) = content(&decoder(Format::Json), "t", &record) else {
            panic!("not a change");
        };
        prop_assert_eq!(event.key().cloned(), Key::of(after));
        prop_assert_eq!(event.sent_before(), Some(&Before::AsSent(before)));
    }

    #[test]
    fn an_id_survives_reemission_and_the_order_of_key_columns(
        chosen in any::<prop::sample::Index>(),
        moment in any::<u32>(),
        sequence in any::<[u32; 2]>(),
        extra in "[a-z]{1,8}",
    ) {
        let (topic, key, value) = chosen.get(CHANGES.as_slice());
        let first = record(key, value);
        let mut again = value.clone();
        for name in ["ts_ms", "ts_us", "ts_ns"] {
            again[name] = Json::from(moment);
        }
        again["source"]["sequence"] = Json::from(format!("{sequence:?}"));
        again["source"]["snapshot"] = Json::from("incremental");
        again["source"][extra.as_str().repeat(2)] = Json::from(1);
        let id = id_of(&WARM, topic, &first);
        let mut copy = record(key, &again);
        copy.headers.push(("__debezium.context.runId".to_owned(), Some(Bytes::from(extra))));
        let columns: BTreeMap<String, Json> = key.as_object().unwrap().clone().into_iter().collect();
        let reversed: Vec<String> =
            columns.iter().rev().map(|(name, value)| format!("{}:{value}", Json::from(name.as_str()))).collect();
        copy.key = Some(Bytes::from(format!("{{{}}}", reversed.join(","))));
        prop_assert!(id.is_some());
        prop_assert_eq!(&id, &id_of(&WARM, topic, &copy));
        again["source"]["lsn"] = Json::from(moment);
        prop_assert_ne!(&id, &id_of(&WARM, topic, &record(key, &again)));
    }
}

#[test]
fn a_captured_change_that_nobody_wants_is_unrouted_and_every_other_record_is_what_it_was() {
    let nothing = Tables::default();
    let mut unrouted = 0;
    for reads in [true, false] {
        let decoder = Decoder::new(Options {
            reads,
            ..Options::default()
        });
        // Twice: a decoder that knows the topic has other ways than one that does not.
        for Captured { topic, raw: record, .. } in RECORDS.iter().chain(RECORDS.iter()) {
            let found = outcome(content_of_wanted(&decoder, topic, record, &nothing));
            let expected = match content(&decoder, topic, record) {
                Content::Change(_) => {
                    unrouted += 1;
                    Content::Skip(SkipReason::Unrouted)
                }
                other => other,
            };
            assert_eq!(found, outcome(expected), "{topic}");
        }
    }
    assert!(unrouted > 200, "{unrouted}");
}
