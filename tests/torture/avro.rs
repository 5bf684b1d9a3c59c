//! Avro and its schemas.

use std::collections::HashSet;

use afterwrite::decode::Decoded;
use afterwrite::decode::Decoder;
use afterwrite::decode::options::{Format, Options};
use afterwrite::decode::schema::SchemaDocument;
use afterwrite::decode::tables::Tables;
use afterwrite::decode::unknown::Unknown;
use afterwrite::event::delivery::{Content, RawRecord};
use serde_json::{Value as Json, json};

use crate::encode::{avro, avro_schema, field, json_with_schema, structure};
use crate::records::{TOPIC, auto, envelope, envelope_schema, event, event_of, insert, outcome, record, table_schema};

/// Two records named Envelope, in namespaces that the Avro specification does not allow.
fn written_schema(namespace: &str, row: &str) -> SchemaDocument {
    let envelope = format!(
        r#"{{"type":"record","name":"Envelope","namespace":"{namespace}","fields":[
            {{"name":"before","type":["null",{{"type":"record","name":"Value","fields":[{row}]}}]}},
            {{"name":"after","type":["null","Value"]}},
            {{"name":"source","type":{{"type":"record","name":"Source","namespace":"io.debezium.connector.v2.postgresql",
              "fields":[{{"name":"schema","type":"string"}},{{"name":"table","type":"string"}},{{"name":"lsn","type":["long","null"]}}]}}}},
            {{"name":"op","type":"string"}}]}}"#
    );
    SchemaDocument {
        text: envelope,
        references: Vec::new(),
    }
}

/// An insert into the table `s.t` by such a schema; `row` are the row's bytes.
fn written(id: u32, row: &[u8]) -> RawRecord {
    let mut bytes = vec![0];
    bytes.extend_from_slice(&id.to_be_bytes());
    bytes.extend_from_slice(&[0, 2]);
    bytes.extend_from_slice(row);
    bytes.extend_from_slice(&[2, b's', 2, b't', 0, 10, 2, b'c']);
    RawRecord {
        value: Some(bytes.into()),
        ..RawRecord::default()
    }
}

const INT: &str = r#"{"name":"id","type":"int"}"#;

#[test]
fn t61_a_schema_that_appears_late_is_used_and_one_that_never_does_is_said() {
    let decoder = auto();
    let raw = written(7, &[2]);
    assert_eq!(outcome(&decoder, TOPIC, &raw), "missing 7");
    let despite = decoder.decode_despite(TOPIC, &raw, &Tables::all(), &[Unknown::schema(7)]);
    assert!(matches!(&despite, Decoded::Content(Content::Undecodable(reason)) if reason.contains("no schema 7")));
    assert_eq!(outcome(&decoder, TOPIC, &raw), "missing 7", "nothing was remembered");
    decoder.learn(7, &written_schema("app.s.t", INT)).unwrap();
    let found = event_of(&decoder, &raw);
    assert_eq!((&found["after"], &found["lsn"]), (&json!({"id": 1}), &json!(5)));
}

#[test]
fn t62_schemas_by_reference_read_as_schemas_in_one_piece() {
    let (_, whole) = table_schema(&[]);
    let inlined: Json = serde_json::from_str(&avro_schema(&whole).text).unwrap();
    let mut outer = inlined.clone();
    let value = outer["fields"][0]["type"][1].take();
    outer["fields"][0]["type"][1] = json!("w.public.t.Value");
    let source = outer["fields"][2]["type"].take();
    outer["fields"][2]["type"] = json!("io.debezium.connector.postgresql.Source");
    let referring = SchemaDocument {
        text: outer.to_string(),
        references: vec![source.to_string(), value.to_string()],
    };
    let change = envelope("c", Json::Null, json!({"id": 1}));
    let decoder = auto();
    decoder.learn(1, &avro_schema(&whole)).unwrap();
    decoder.learn(2, &referring).unwrap();
    let by = |id: u32| {
        let record = RawRecord {
            value: Some(avro(id, &whole, &change).into()),
            ..insert(1)
        };
        event_of(&decoder, &record)
    };
    assert_eq!(by(1), by(2));
    assert_eq!(by(2), event(&insert(1)));
    let missing = SchemaDocument {
        references: vec![source.to_string()],
        ..referring
    };
    let problem = decoder.learn(3, &missing).unwrap_err().to_string();
    assert!(problem.contains("w.public.t.Value"), "{problem}");
}

#[test]
fn t63_a_namespace_may_have_a_hyphen() {
    let decoder = auto();
    decoder.learn(1, &written_schema("my-app.s.t", INT)).unwrap();
    assert_eq!(event_of(&decoder, &written(1, &[2]))["after"], json!({"id": 1}));
}

#[test]
fn t64_two_versions_of_a_table_may_interleave() {
    let decoder = auto();
    decoder.learn(1, &written_schema("a.s.t", INT)).unwrap();
    let text = r#"{"name":"id","type":"string"}"#;
    decoder.learn(2, &written_schema("a.s.t", text)).unwrap();
    let more = r#"{"name":"id","type":"int"},{"name":"n","type":["null","int"]}"#;
    decoder.learn(3, &written_schema("a.s.t", more)).unwrap();
    for _ in 0..2 {
        for (id, bytes, row) in [
            (1, &[2][..], json!({"id": 1})),
            (2, &[2, b'x'], json!({"id": "x"})),
            (3, &[2, 0], json!({"id": 1, "n": null})),
        ] {
            assert_eq!(event_of(&decoder, &written(id, bytes))["after"], row);
        }
    }
}

#[test]
fn t65_a_union_may_begin_with_its_type() {
    let decoder = auto();
    let column = r#"{"name":"id","type":["int","null"],"default":7}"#;
    decoder.learn(1, &written_schema("a.s.t", column)).unwrap();
    assert_eq!(event_of(&decoder, &written(1, &[0, 2]))["after"], json!({"id": 1}));
    assert_eq!(event_of(&decoder, &written(1, &[2]))["after"], json!({"id": null}));
}

#[test]
fn t66_ids_of_eight_bytes_and_in_headers_are_refused_with_the_remedy() {
    let wide = RawRecord {
        value: Some(vec![0, 0, 0, 0, 0, 0, 0, 0, 7, 2].into()),
        ..RawRecord::default()
    };
    let found = outcome(&auto(), TOPIC, &wide);
    assert!(found.contains("as-confluent"), "{found}");
    for header in ["apicurio.value.globalId", "__value_schema_id"] {
        let in_header = RawRecord {
            headers: vec![(header.to_owned(), Some(vec![0; 8].into()))],
            ..written(1, &[2])
        };
        let found = outcome(&auto(), TOPIC, &in_header);
        assert!(found.contains("schema id is in the headers"), "{found}");
    }
}

#[test]
fn t67_another_magic_byte_is_refused() {
    let strict = Decoder::new(Options {
        format: Format::Avro,
        ..Options::default()
    });
    for first in [1, b'{'] {
        let mut bytes = written(1, &[2]).value.unwrap().to_vec();
        bytes[0] = first;
        let record = RawRecord {
            value: Some(bytes.into()),
            ..RawRecord::default()
        };
        let found = outcome(&strict, TOPIC, &record);
        assert!(found.contains("magic byte"), "{found}");
    }
}

#[test]
fn t70_two_records_named_envelope_do_not_mix() {
    let decoder = auto();
    decoder.learn(1, &written_schema("a.s.t", INT)).unwrap();
    decoder
        .learn(2, &written_schema("b.s.t", r#"{"name":"id","type":"boolean"}"#))
        .unwrap();
    assert_eq!(event_of(&decoder, &written(1, &[2]))["after"]["id"], 1);
    assert_eq!(event_of(&decoder, &written(2, &[1]))["after"]["id"], true);
}

#[test]
fn a_configured_format_is_taken_at_its_word() {
    let strict = |format| {
        Decoder::new(Options {
            format,
            ..Options::default()
        })
    };
    assert!(outcome(&strict(Format::JsonSchema), TOPIC, &insert(1)).contains("source.format=json"));
    assert!(outcome(&strict(Format::Avro), TOPIC, &insert(1)).contains("magic byte"));
    assert_eq!(event_of(&strict(Format::Json), &insert(1))["op"], "insert");
    let wrapped = record("", r#"{"schema":{"type":"struct","fields":[]},"payload":{"op":"c"}}"#);
    assert!(outcome(&strict(Format::Json), TOPIC, &wrapped).starts_with("undecodable"));
}

#[test]
fn a_body_of_another_schema_and_a_broken_schema_are_said() {
    let decoder = auto();
    decoder.learn(1, &written_schema("a.s.t", INT)).unwrap();
    let longer = written(1, &[2, 2, b's', 2, b't', 0, 10, 2, b'c', 0]);
    assert!(outcome(&decoder, TOPIC, &longer).starts_with("undecodable"));
    let broken = SchemaDocument {
        text: "{".to_owned(),
        references: Vec::new(),
    };
    assert!(decoder.learn(3, &broken).is_err());
    assert!(outcome(&decoder, TOPIC, &written(3, &[2])).contains("schema 3: the schema is not valid Avro"));
}

#[test]
fn what_is_remembered_stays_bounded() {
    let decoder = Decoder::new(Options {
        remembered_max: 3,
        ..Options::default()
    });
    for id in 1..=10 {
        decoder.learn(id, &written_schema("a.s.t", INT)).unwrap();
    }
    assert_eq!(outcome(&decoder, TOPIC, &written(1, &[2])), "missing 1");
    assert_eq!(event_of(&decoder, &written(10, &[2]))["op"], "insert");
}

#[test]
fn reasons_never_quote_a_cell() {
    let row = structure("w.public.t.Value", &[field("secret_column", "int32")]);
    let change = envelope("c", Json::Null, json!({"secret_column": "hunter2"}));
    let wrapped = String::from_utf8(json_with_schema(&envelope_schema(&row), &change)).unwrap();
    let found = outcome(&auto(), TOPIC, &record("", &wrapped));
    assert!(
        found.contains("table public.t") && found.contains("secret_column"),
        "{found}"
    );
    let all: HashSet<String> = [
        ("", wrapped.as_str()),
        ("\"hunter2\"", &change.to_string()),
        ("", "\"hunter2\""),
    ]
    .iter()
    .map(|(key, value)| outcome(&auto(), TOPIC, &record(key, value)))
    .collect();
    for found in all {
        assert!(
            found.starts_with("undecodable") && !found.contains("hunter2"),
            "{found}"
        );
    }
}
