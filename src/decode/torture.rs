//! Records that broke other consumers of Debezium, each with what must become of it.

use bytes::Bytes;
use serde_json::{Value as Json, json};

use crate::decode::canonical::Canonical;
use crate::decode::options::{Format, Options};
use crate::decode::schema::SchemaDocument;
use crate::decode::wanted::Wanted;
use crate::decode::{Decoded, Decoder};
use crate::event::delivery::{Content, RawRecord};

const TOPIC: &str = "w.public.t";

fn record(key: &str, value: &str) -> RawRecord {
    RawRecord {
        key: (!key.is_empty()).then(|| Bytes::copy_from_slice(key.as_bytes())),
        value: Some(Bytes::copy_from_slice(value.as_bytes())),
        ..RawRecord::default()
    }
}

/// `skip heartbeat`, `undecodable …`, or the canonical event.
fn outcome(decoder: &Decoder, topic: &str, raw: &RawRecord) -> String {
    match decoder.decode(topic, raw) {
        Decoded::MissingSchema(id) => format!("missing {id}"),
        Decoded::Content(Content::Skip(reason)) => format!("skip {}", reason.as_str()),
        Decoded::Content(Content::Undecodable(reason)) => format!("undecodable {reason}"),
        Decoded::Content(Content::Change(event)) => serde_json::to_string(&Canonical(&event)).unwrap(),
    }
}

fn auto() -> Decoder {
    Decoder::new(Options::default())
}

fn source() -> Json {
    json!({"connector": "postgresql", "name": "w", "db": "d", "schema": "public", "table": "t",
           "txId": 7, "lsn": 9_007_199_254_740_993_i64, "ts_ms": 1_000, "snapshot": null})
}

fn envelope(op: &str, before: Json, after: Json) -> Json {
    json!({"before": before, "after": after, "source": source(), "op": op, "ts_ms": 5, "transaction": null})
}

fn event(raw: &RawRecord) -> Json {
    serde_json::from_str(&outcome(&auto(), TOPIC, raw)).unwrap()
}

#[test]
fn tombstones_come_in_every_form() {
    let decoder = auto();
    let null = RawRecord {
        key: Some(Bytes::from_static(b"{\"id\":1}")),
        ..RawRecord::default()
    };
    assert_eq!(outcome(&decoder, TOPIC, &null), "skip tombstone");
    for value in [
        "",
        "null",
        r#"{"schema":null,"payload":null}"#,
        r#"{"schema":{"type":"struct"},"payload":null}"#,
    ] {
        assert_eq!(
            outcome(&decoder, TOPIC, &record("{\"id\":1}", value)),
            "skip tombstone",
            "{value}"
        );
    }
}

#[test]
fn bytes_that_are_no_record_are_undecodable_and_say_why() {
    let decoder = auto();
    let change = envelope("c", Json::Null, json!({"id": 1})).to_string();
    let flattened = json!({"schema": "public", "payload": "x", "id": 1}).to_string();
    let typed_flattened =
        r#"{"schema":{"type":"struct","name":"w.public.t.Value","fields":[]},"payload":{"id":1}}"#.to_owned();
    let mysql = change.replace("postgresql", "mysql");
    for (key, value, expected) in [
        ("", "\u{1}\u{0}", "neither JSON nor the Confluent wire format"),
        ("", "hello", "not an object"),
        ("", "{\"op\"", "not valid JSON"),
        ("", "[1]", "not an object"),
        ("", flattened.as_str(), "none of the records"),
        ("", typed_flattened.as_str(), "ExtractNewRecordState"),
        (
            "",
            r#"{"id":"1","source":"/x","specversion":"1.0","type":"t","data":{}}"#,
            "CloudEvent",
        ),
        (
            "",
            r#"{"op":"c","source":{"schema":"s","table":"t"},"after":null}"#,
            "came without after",
        ),
        ("", r#"{"op":"x","source":{"schema":"s","table":"t"}}"#, "op is none of"),
        (
            "",
            r#"{"op":"d","source":{"schema":"s","table":"t","ts_ms":1780000000000000}}"#,
            "source.ts_ms is no time",
        ),
        (
            "",
            r#"{"op":"c","source":{"schema":"s","table":"t"},"before":{},"after":{}}"#,
            "op c came with a row that it cannot have",
        ),
        ("", r#"{"op":7,"source":{}}"#, "op is not text"),
        ("", r#"{"op":"c","source":"app"}"#, "source is not the source block"),
        (
            "",
            r#"{"op":"c","source":{"schema":"s","table":""},"after":{}}"#,
            "source.table is empty",
        ),
        ("", mysql.as_str(), "source.connector is mysql"),
        ("Struct{id=1}", change.as_str(), "the key:"),
        ("\"1\"", change.as_str(), "the key:"),
        ("{\"id\":1", change.as_str(), "the key:"),
    ] {
        let found = outcome(&decoder, TOPIC, &record(key, value));
        assert!(
            found.starts_with("undecodable") && found.contains(expected),
            "{value}: {found}"
        );
    }
}

#[test]
fn control_records_are_known_by_shape_name_and_topic() {
    let decoder = auto();
    let named =
        |name: &str| format!(r#"{{"schema":{{"type":"struct","name":"{name}","fields":[]}},"payload":{{"a":1}}}}"#);
    let beat = r#"{"ts_ms":1}"#;
    for (topic, key, value, expected) in [
        ("__debezium-heartbeat.w", "", "anything", "skip heartbeat"),
        ("beats", r#"{"serverName":"w"}"#, beat, "skip heartbeat"),
        (
            "beats",
            "",
            &named("io.debezium.connector.common.Heartbeat"),
            "skip heartbeat",
        ),
        (
            "beats",
            "",
            &named("w_io_debezium.connector.common.Heartbeat"),
            "skip heartbeat",
        ),
        (
            "w.transaction",
            "",
            r#"{"status":"BEGIN","id":"1:2","event_count":null,"ts_ms":1}"#,
            "skip transaction",
        ),
        (
            "w.transaction",
            "",
            r#"{"status":"END","id":"1:2","event_count":1,"ts_ms":1}"#,
            "skip transaction",
        ),
        (
            "w.transaction",
            "",
            &named("io.debezium.connector.common.TransactionMetadataValue"),
            "skip transaction",
        ),
        (
            "notes",
            "",
            r#"{"id":"x","type":"STARTED","aggregate_type":"Initial Snapshot"}"#,
            "skip notification",
        ),
        (
            "notes",
            "",
            &named("io.debezium.connector.common.Notification"),
            "skip notification",
        ),
    ] {
        assert_eq!(outcome(&decoder, topic, &record(key, value)), expected, "{value}");
    }
    // A row of one column named ts_ms is no heartbeat.
    assert!(outcome(&decoder, "beats", &record("{\"id\":1}", beat)).starts_with("undecodable"));
}

#[test]
fn snapshot_rows_and_signals_are_skipped_whatever_the_snapshot_field_says() {
    let decoder = auto();
    for snapshot in [
        json!(null),
        json!("false"),
        json!(false),
        json!("last"),
        json!("incremental"),
        json!(true),
    ] {
        let mut read = envelope("r", Json::Null, json!({"id": 1}));
        read["source"]["snapshot"] = snapshot.clone();
        read["source"]["lsn"] = Json::Null;
        assert_eq!(
            outcome(&decoder, TOPIC, &record("{\"id\":1}", &read.to_string())),
            "skip read"
        );
        let mut streamed = envelope("c", Json::Null, json!({"id": 1}));
        streamed["source"]["snapshot"] = snapshot;
        assert_eq!(event(&record("{\"id\":1}", &streamed.to_string()))["op"], "insert");
    }
    let mut signal = envelope("c", Json::Null, json!({"id": "x", "type": "snapshot-window-open"}));
    signal["source"]["table"] = json!("debezium_signal");
    assert_eq!(
        outcome(&decoder, TOPIC, &record("{\"id\":\"x\"}", &signal.to_string())),
        "skip signal"
    );
}

#[test]
fn a_change_prints_exactly_and_fields_nobody_knows_change_nothing() {
    let mut value = envelope("u", json!({"id": 1, "n": null}), json!({"id": 1, "n": "x"}));
    value["source"]["future"] = json!({"deep": [1]});
    value["source"]["sequence"] = json!("not a sequence");
    value["future"] = json!([1, 2]);
    let found = event(&record(r#"{"id":1}"#, &value.to_string()));
    let id = found["id"].as_str().unwrap();
    assert_eq!(id.len(), 32);
    let expected = json!({"id": id, "schema": "public", "table": "t", "op": "update", "key": {"id": 1},
        "before": null, "after": {"id": 1, "n": "x"}, "unavailable": [], "tx": 7, "lsn": 9_007_199_254_740_993_i64,
        "commit_ts_ms": 1_000, "before_as_sent": {"id": 1, "n": null}});
    assert_eq!(found, expected);
}

#[test]
fn keyless_rows_have_no_id_and_truncates_and_messages_do() {
    let row = envelope("c", Json::Null, json!({"a": 1})).to_string();
    for key in ["", "null", r#"{"schema":null,"payload":null}"#] {
        let found = event(&record(key, &row));
        assert_eq!((&found["id"], &found["key"]), (&Json::Null, &Json::Null), "{key}");
    }
    let truncate = event(&record("", &envelope("t", Json::Null, Json::Null).to_string()));
    assert!(truncate["id"].is_string());
    let mut message = json!({"op": "m", "ts_ms": 1, "source": source(), "message": {"prefix": "p", "content": "eA=="}});
    message["source"]["schema"] = json!("");
    message["source"]["table"] = json!("");
    message["source"]["txId"] = Json::Null;
    let first = event(&record(r#"{"prefix":"p"}"#, &message.to_string()));
    // The commit time of a message outside a transaction is unstable: it is not part of its id.
    message["source"]["ts_ms"] = json!(2_000);
    let again = event(&record(r#"{"prefix":"p"}"#, &message.to_string()));
    assert_eq!(first["message"], json!({"prefix": "p", "content": "eA=="}));
    assert_eq!((&first["id"], &first["key"]), (&again["id"], &Json::Null));
}

#[test]
fn the_placeholder_counts_only_where_the_connector_puts_it() {
    const SENT: &str = "__debezium_unavailable_value";
    let row = json!({"id": 1, "big": SENT});
    let update = event(&record(
        "{\"id\":1}",
        &envelope("u", row.clone(), row.clone()).to_string(),
    ));
    assert_eq!(update["unavailable"], json!(["big"]));
    assert_eq!(update["after"], json!({"id": 1}));
    assert_eq!(update["before_as_sent"]["big"], SENT);
    let insert = record("{\"id\":1}", &envelope("c", Json::Null, row.clone()).to_string());
    assert_eq!(event(&insert)["after"]["big"], SENT);
    // The insert half of a changed key takes unchanged values from the old row, which the log does not have.
    let moved = RawRecord {
        headers: vec![("__debezium.oldkey".to_owned(), Some(Bytes::from_static(b"{\"id\":2}")))],
        ..insert
    };
    assert_eq!(event(&moved)["unavailable"], json!(["big"]));
}

#[test]
fn key_and_value_are_wrapped_independently_and_a_topic_may_change_its_mind() {
    let decoder = auto();
    let bare = envelope("c", Json::Null, json!({"id": 1, "schema": "x", "payload": "y"})).to_string();
    let schema = r#"{"type":"struct","name":"w.public.t.Envelope","fields":[{"type":"struct","field":"after","fields":[
        {"type":"int32","field":"id"},{"type":"string","field":"schema"},{"type":"string","field":"payload"}]}]}"#;
    let wrapped = format!(r#"{{"schema":{schema},"payload":{bare}}}"#);
    let key = r#"{"schema":{"type":"struct","fields":[{"type":"int32","field":"id"}]},"payload":{"id":1}}"#;
    let expected = outcome(&decoder, TOPIC, &record(r#"{"id":1}"#, &bare));
    for (key, value) in [
        (key, &bare),
        (r#"{"id":1}"#, &wrapped),
        (key, &wrapped),
        (key, &wrapped),
        (key, &bare),
    ] {
        assert_eq!(outcome(&decoder, TOPIC, &record(key, value)), expected);
    }
    // A table whose key has columns schema and payload is no wrapper: the schema is no schema.
    let odd = event(&record(r#"{"schema":"s","payload":1}"#, &bare));
    assert_eq!(odd["key"], json!({"schema": "s", "payload": 1}));
}

#[test]
fn a_configured_format_is_taken_at_its_word() {
    let strict = |format| {
        Decoder::new(Options {
            format,
            ..Options::default()
        })
    };
    let bare = record("{\"id\":1}", &envelope("c", Json::Null, json!({"id": 1})).to_string());
    assert!(outcome(&strict(Format::JsonSchema), TOPIC, &bare).contains("source.format=json"));
    assert!(outcome(&strict(Format::Avro), TOPIC, &bare).contains("magic byte"));
    assert!(outcome(&strict(Format::Json), TOPIC, &bare).starts_with('{'));
    let wrapped = record("", r#"{"schema":{"type":"struct","fields":[]},"payload":{"op":"c"}}"#);
    assert!(outcome(&strict(Format::Json), TOPIC, &wrapped).starts_with("undecodable"));
}

/// Two records named Envelope, in namespaces that the Avro specification does not allow.
fn avro_schema(namespace: &str, row: &str) -> SchemaDocument {
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

fn avro(id: u32, row: &[u8]) -> RawRecord {
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

#[test]
fn a_schema_that_appears_late_is_used_and_one_that_never_does_is_said() {
    let decoder = auto();
    let raw = avro(7, &[2]);
    assert_eq!(outcome(&decoder, TOPIC, &raw), "missing 7");
    let despite = decoder.decode_despite(TOPIC, &raw, &Wanted::everything(), &[7]);
    assert!(matches!(&despite, Decoded::Content(Content::Undecodable(reason)) if reason.contains("no schema 7")));
    assert_eq!(outcome(&decoder, TOPIC, &raw), "missing 7");
    decoder
        .learn(7, &avro_schema("my-app.s.t", r#"{"name":"id","type":"int"}"#))
        .unwrap();
    let found: Json = serde_json::from_str(&outcome(&decoder, TOPIC, &raw)).unwrap();
    assert_eq!((&found["after"], &found["lsn"]), (&json!({"id": 1}), &json!(5)));
}

#[test]
fn two_versions_of_a_schema_may_interleave() {
    let decoder = auto();
    decoder
        .learn(1, &avro_schema("a.s.t", r#"{"name":"id","type":"int"}"#))
        .unwrap();
    decoder
        .learn(2, &avro_schema("b.s.t", r#"{"name":"id","type":"string"}"#))
        .unwrap();
    for _ in 0..2 {
        let one: Json = serde_json::from_str(&outcome(&decoder, TOPIC, &avro(1, &[2]))).unwrap();
        let two: Json = serde_json::from_str(&outcome(&decoder, TOPIC, &avro(2, &[2, b'x']))).unwrap();
        assert_eq!((&one["after"]["id"], &two["after"]["id"]), (&json!(1), &json!("x")));
    }
}

#[test]
fn a_body_written_with_another_schema_and_a_broken_schema_are_said() {
    let decoder = auto();
    decoder
        .learn(1, &avro_schema("a.s.t", r#"{"name":"id","type":"int"}"#))
        .unwrap();
    let longer = avro(1, &[2, 2, b's', 2, b't', 0, 10, 2, b'c', 0]);
    assert!(outcome(&decoder, TOPIC, &longer).starts_with("undecodable"));
    let broken = SchemaDocument {
        text: "{".to_owned(),
        references: Vec::new(),
    };
    assert!(decoder.learn(3, &broken).is_err());
    assert!(outcome(&decoder, TOPIC, &avro(3, &[2])).contains("schema 3: the schema is not valid Avro"));
}

#[test]
fn what_is_remembered_stays_bounded() {
    let decoder = Decoder::new(Options {
        remembered_max: 3,
        ..Options::default()
    });
    for id in 1..=10 {
        decoder
            .learn(id, &avro_schema("a.s.t", r#"{"name":"id","type":"int"}"#))
            .unwrap();
    }
    assert_eq!(outcome(&decoder, TOPIC, &avro(1, &[2])), "missing 1");
    assert!(outcome(&decoder, TOPIC, &avro(10, &[2])).starts_with('{'));
}

#[test]
fn reasons_never_quote_a_cell() {
    let decoder = auto();
    let schema = r#"{"type":"struct","name":"w.public.t.Envelope","fields":[{"type":"struct","field":"after","fields":[
        {"type":"int32","field":"secret_column"}]}]}"#;
    let change = envelope("c", Json::Null, json!({"secret_column": "hunter2"})).to_string();
    let wrapped = format!(r#"{{"schema":{schema},"payload":{change}}}"#);
    let found = outcome(&decoder, TOPIC, &record("", &wrapped));
    assert!(
        found.contains("table public.t") && found.contains("secret_column"),
        "{found}"
    );
    for (key, value) in [
        ("", wrapped.as_str()),
        ("\"hunter2\"", change.as_str()),
        ("", "\"hunter2\""),
    ] {
        let found = outcome(&decoder, TOPIC, &record(key, value));
        assert!(
            found.starts_with("undecodable") && !found.contains("hunter2"),
            "{found}"
        );
    }
}
