//! What surrounds a change, and what is none.

use afterwrite::decode::Decoder;
use afterwrite::decode::options::{Format, Options};
use afterwrite::decode::tables::Tables;
use afterwrite::event::delivery::RawRecord;
use serde_json::{Value as Json, json};

use crate::encode::{avro, avro_schema, field, member, optional, structure};
use crate::records::{
    TOPIC, auto, envelope, envelope_schema, event, event_of, in_each_encoding, insert, outcome, record, source,
    table_schema, with_headers,
};

#[test]
fn t01_a_null_value_is_a_tombstone() {
    let null = RawRecord {
        key: Some(r#"{"id":1}"#.into()),
        ..RawRecord::default()
    };
    assert_eq!(outcome(&auto(), TOPIC, &null), "skip tombstone");
    let moved = with_headers(null, &[("__debezium.newkey", r#"{"id":2}"#)]);
    assert_eq!(outcome(&auto(), TOPIC, &moved), "skip tombstone");
}

#[test]
fn t02_a_literal_null_is_a_tombstone() {
    for value in ["null", " null\n"] {
        assert_eq!(outcome(&auto(), TOPIC, &record(r#"{"id":1}"#, value)), "skip tombstone");
    }
}

#[test]
fn t03_a_null_payload_is_a_tombstone() {
    for value in [
        r#"{"schema":null,"payload":null}"#,
        r#"{"schema":{"type":"struct"},"payload":null}"#,
    ] {
        assert_eq!(outcome(&auto(), TOPIC, &record(r#"{"id":1}"#, value)), "skip tombstone");
    }
}

#[test]
fn t04_no_bytes_are_a_tombstone() {
    assert_eq!(outcome(&auto(), TOPIC, &record(r#"{"id":1}"#, "")), "skip tombstone");
}

#[test]
fn t05_bytes_that_are_nothing_are_undecodable_and_say_why() {
    for (value, expected) in [
        ("\u{1}\u{0}", "neither JSON nor the Confluent wire format"),
        ("hello", "not an object"),
        ("{\"op\"", "not valid JSON"),
        ("[1]", "not an object"),
        ("\"text\"", "not an object"),
        (r#"{"op":7,"source":{}}"#, "op is not text"),
        (r#"{"op":"c","source":"app"}"#, "source is not the source block"),
        (
            r#"{"op":"c","source":{"schema":"s","table":""},"after":{}}"#,
            "source.table is empty",
        ),
        (
            r#"{"op":"c","source":{"schema":"s","table":"t"},"after":null}"#,
            "came without after",
        ),
        (
            r#"{"op":"c","source":{"schema":"s","table":"t"},"before":{},"after":{}}"#,
            "op c came with a row that it cannot have",
        ),
        (
            r#"{"op":"d","source":{"schema":"s","table":"t","ts_ms":1780000000000000}}"#,
            "source.ts_ms is no time",
        ),
    ] {
        let found = outcome(&auto(), TOPIC, &record("", value));
        assert!(
            found.starts_with("undecodable") && found.contains(expected),
            "{value}: {found}"
        );
    }
}

#[test]
fn t06_keys_and_values_are_encoded_independently() {
    let (key_schema, value_schema) = table_schema(&[]);
    let value = envelope("c", Json::Null, json!({"id": 1}));
    let records = in_each_encoding((&key_schema, &json!({"id": 1})), (&value_schema, &value));
    let expected = event(&insert(1));
    for (key_encoding, _, of_key) in &records {
        for (value_encoding, _, of_value) in &records {
            let decoder = auto();
            decoder.learn(1, &avro_schema(&key_schema)).unwrap();
            decoder.learn(2, &avro_schema(&value_schema)).unwrap();
            let mixed = RawRecord {
                key: of_key.key.clone(),
                ..of_value.clone()
            };
            assert_eq!(
                event_of(&decoder, &mixed),
                expected,
                "{key_encoding} and {value_encoding}"
            );
        }
    }
    for key in ["", "null", r#"{"schema":null,"payload":null}"#, "{}"] {
        let found = event(&record(key, &value.to_string()));
        assert_eq!((&found["id"], &found["key"]), (&Json::Null, &Json::Null), "{key}");
    }
    for key in ["Struct{id=1}", "\"1\"", "{\"id\":1"] {
        let found = outcome(&auto(), TOPIC, &record(key, &value.to_string()));
        assert!(found.starts_with("undecodable the key:"), "{found}");
    }
    let told = Decoder::new(Options {
        format: Format::JsonSchema,
        key_format: Some(Format::Json),
        ..Options::default()
    });
    let mixed = RawRecord {
        key: records[0].2.key.clone(),
        ..records[1].2.clone()
    };
    assert_eq!(event_of(&told, &mixed), expected, "source.key_format");
}

#[test]
fn t07_a_topic_may_change_its_mind_about_schemas() {
    let (key, value) = table_schema(&[optional("schema", "string"), optional("payload", "string")]);
    let change = envelope("c", Json::Null, json!({"id": 1, "schema": "x", "payload": "y"}));
    let records = in_each_encoding((&key, &json!({"id": 1})), (&value, &change));
    let decoder = auto();
    let expected = event(&records[0].2);
    for place in [0, 1, 1, 0, 1] {
        assert_eq!(event_of(&decoder, &records[place].2), expected);
    }
}

#[test]
fn t08_a_flattened_row_is_refused_whatever_its_columns_are_called() {
    let typed = r#"{"schema":{"type":"struct","name":"w.public.t.Value","fields":[{"type":"int32","field":"id"}]},"payload":{"id":1}}"#;
    for (value, expected) in [
        (r#"{"schema":"public","payload":"x","id":1}"#, "none of the records"),
        (r#"{"schema":{"type":"x"},"payload":{},"id":1}"#, "none of the records"),
        (r#"{"id":1,"op":"c","source":"web"}"#, "source is not the source block"),
        (r#"{"id":1,"op":"c"}"#, "none of the records"),
        (typed, "ExtractNewRecordState"),
    ] {
        let found = outcome(&auto(), TOPIC, &record("", value));
        assert!(
            found.starts_with("undecodable") && found.contains(expected),
            "{value}: {found}"
        );
    }
    // A key with columns of these names is no wrapper: its schema is none.
    let change = envelope("c", Json::Null, json!({"id": 1})).to_string();
    let odd = event(&record(r#"{"schema":"s","payload":1}"#, &change));
    assert_eq!(odd["key"], json!({"schema": "s", "payload": 1}));
}

#[test]
fn t09_a_cloud_event_is_refused() {
    let schema = structure(
        "w.public.t.CloudEvents.Envelope",
        &[
            field("id", "string"),
            field("source", "string"),
            field("specversion", "string"),
            field("iodebeziumop", "string"),
        ],
    );
    let value = json!({"id": "name:w;lsn:1;txId:2", "source": "/debezium/postgresql/w", "specversion": "1.0", "iodebeziumop": "c"});
    for (encoding, decoder, record) in in_each_encoding((&schema, &Json::Null), (&schema, &value)) {
        let found = outcome(&decoder, TOPIC, &record);
        assert!(
            found.starts_with("undecodable the value is a CloudEvent"),
            "{encoding}: {found}"
        );
    }
}

#[test]
fn t10_an_unknown_operation_is_no_delete() {
    let (key, value) = table_schema(&[]);
    let change = envelope("x", Json::Null, Json::Null);
    for (encoding, decoder, record) in in_each_encoding((&key, &json!({"id": 1})), (&value, &change)) {
        let found = outcome(&decoder, TOPIC, &record);
        assert!(found.starts_with("undecodable op is none of"), "{encoding}: {found}");
    }
}

#[test]
fn t11_fields_nobody_knows_change_nothing() {
    let mut value = envelope("u", Json::Null, json!({"id": 1, "n": "x"}));
    let plain = event(&record(r#"{"id":1}"#, &value.to_string()));
    value["source"]["future"] = json!({"deep": [1]});
    value["source"]["origin_lsn"] = json!(77);
    value["future"] = json!([1, 2]);
    assert_eq!(event(&record(r#"{"id":1}"#, &value.to_string())), plain);
    let id = plain["id"].as_str().unwrap().to_owned();
    assert_eq!(id.len(), 32);
    let expected = json!({"id": id, "schema": "public", "table": "t", "op": "update", "key": {"id": 1},
        "before": null, "after": {"id": 1, "n": "x"}, "unavailable": [], "tx": 7, "lsn": 9_007_199_254_740_993_i64,
        "commit_ts_ms": 1_000});
    assert_eq!(plain, expected);
}

#[test]
fn t12_a_change_of_another_database_is_refused() {
    let mut change = envelope("c", Json::Null, json!({"id": 1}));
    change["source"]["connector"] = json!("mysql");
    let found = outcome(&auto(), TOPIC, &record(r#"{"id":1}"#, &change.to_string()));
    assert!(found.contains("source.connector is mysql, not postgresql"), "{found}");
}

#[test]
fn t13_heartbeats_are_skipped_in_every_encoding_and_under_any_name() {
    let key = structure(
        "io.debezium.connector.common.ServerNameKey",
        &[field("serverName", "string")],
    );
    let value = structure("io.debezium.connector.common.Heartbeat", &[field("ts_ms", "int64")]);
    let beats = in_each_encoding((&key, &json!({"serverName": "w"})), (&value, &json!({"ts_ms": 1})));
    // Also among the records of a table, as a subscription by pattern may have it.
    for topic in ["__debezium-heartbeat.w", "beats", TOPIC] {
        for (encoding, decoder, record) in &beats {
            assert_eq!(
                outcome(decoder, topic, record),
                "skip heartbeat",
                "{encoding} on {topic}"
            );
        }
    }
    let adjusted = structure("w_io_debezium.connector.common.Heartbeat", &[field("ts_ms", "int64")]);
    let renamed = in_each_encoding((&key, &Json::Null), (&adjusted, &json!({"ts_ms": 1})));
    assert_eq!(outcome(&renamed[1].1, "beats", &renamed[1].2), "skip heartbeat");
    let told = Decoder::new(Options {
        heartbeat_topic: Some("beats".to_owned()),
        ..Options::default()
    });
    assert_eq!(outcome(&told, "beats", &record("", "anything")), "skip heartbeat");
    // A row of one column named ts_ms is none.
    let row = outcome(&auto(), "beats", &record(r#"{"id":1}"#, r#"{"ts_ms":1}"#));
    assert!(row.starts_with("undecodable"), "{row}");
}

#[test]
fn t14_transaction_markers_are_skipped_and_rows_like_them_are_not() {
    let collection = structure(
        "event.collection",
        &[field("data_collection", "string"), field("event_count", "int64")],
    );
    let schema = structure(
        "io.debezium.connector.common.TransactionMetadataValue",
        &[
            field("status", "string"),
            field("id", "string"),
            optional("event_count", "int64"),
            member("data_collections", json!({"type": "array", "items": collection}), true),
            field("ts_ms", "int64"),
        ],
    );
    let begin = json!({"status": "BEGIN", "id": "1:2", "event_count": null, "data_collections": null, "ts_ms": 1});
    let end = json!({"status": "END", "id": "1:9", "event_count": 1, "ts_ms": 1,
        "data_collections": [{"data_collection": "public.t", "event_count": 1}]});
    for marker in [&begin, &end] {
        for (encoding, decoder, record) in in_each_encoding((&schema, &Json::Null), (&schema, marker)) {
            assert_eq!(
                outcome(&decoder, "w.transaction", &record),
                "skip transaction",
                "{encoding}"
            );
        }
    }
    for row in [
        r#"{"status":"BEGIN","id":5,"name":"x"}"#,
        r#"{"status":"END","id":"1:2","ts_ms":1,"total":3}"#,
        r#"{"status":"waiting","id":"1:2"}"#,
    ] {
        assert!(
            outcome(&auto(), TOPIC, &record("", row)).starts_with("undecodable"),
            "{row}"
        );
    }
}

#[test]
fn t15_notifications_are_skipped_and_rows_like_them_are_not() {
    let schema = structure(
        "io.debezium.connector.common.Notification",
        &[
            field("id", "string"),
            field("type", "string"),
            field("aggregate_type", "string"),
            field("timestamp", "int64"),
        ],
    );
    let note = json!({"id": "x", "type": "STARTED", "aggregate_type": "Initial Snapshot", "timestamp": 1});
    for (encoding, decoder, record) in in_each_encoding((&schema, &Json::Null), (&schema, &note)) {
        assert_eq!(outcome(&decoder, "notes", &record), "skip notification", "{encoding}");
    }
    let outbox = r#"{"id":"x","aggregate_type":"order","type":"t","payload":"{}"}"#;
    assert!(outcome(&auto(), TOPIC, &record("", outbox)).starts_with("undecodable"));
}

#[test]
fn t16_rows_of_the_signal_table_are_skipped() {
    let mut change = envelope(
        "c",
        Json::Null,
        json!({"id": "x", "type": "snapshot-window-open", "data": null}),
    );
    change["source"]["table"] = json!("debezium_signal");
    let row = structure(
        "w.public.debezium_signal.Value",
        &[
            field("id", "string"),
            field("type", "string"),
            optional("data", "string"),
        ],
    );
    let key = structure("w.public.debezium_signal.Key", &[field("id", "string")]);
    for op in ["c", "d"] {
        change["op"] = json!(op);
        if op == "d" {
            change["before"] = change["after"].take();
        }
        for (encoding, decoder, record) in
            in_each_encoding((&key, &json!({"id": "x"})), (&envelope_schema(&row), &change))
        {
            assert_eq!(outcome(&decoder, TOPIC, &record), "skip signal", "{encoding}");
        }
    }
    let told = Decoder::new(Options {
        signal_tables: Tables::like(["ops.steer"]),
        ..Options::default()
    });
    let change = change
        .to_string()
        .replace("debezium_signal", "steer")
        .replace("\"public\"", "\"ops\"");
    assert_eq!(
        outcome(&told, TOPIC, &record("", &change)),
        "skip signal",
        "source.signal_tables"
    );
}

#[test]
fn t17_logical_messages_have_an_identity_also_outside_a_transaction() {
    let message = structure(
        "io.debezium.connector.postgresql.Message",
        &[optional("prefix", "string"), optional("content", "string")],
    );
    let envelope = envelope_schema(&structure("w.public.t.Value", &[field("id", "int64")]));
    let schema = structure(
        "io.debezium.connector.postgresql.MessageValue",
        &[
            field("op", "string"),
            optional("ts_ms", "int64"),
            member("source", envelope["fields"][2].clone(), false),
            member("message", message, false),
        ],
    );
    let key = structure(
        "io.debezium.connector.postgresql.MessageKey",
        &[field("prefix", "string")],
    );
    let mut value = json!({"op": "m", "ts_ms": 1, "source": source(), "message": {"prefix": "p", "content": "eA=="}});
    value["source"]["schema"] = json!("");
    value["source"]["table"] = json!("");
    let mut ids = std::collections::HashSet::new();
    for (tx, commit) in [(json!(7), 1_000), (Json::Null, 1_000), (Json::Null, 2_000)] {
        value["source"]["txId"] = tx;
        value["source"]["ts_ms"] = json!(commit);
        for (encoding, decoder, record) in in_each_encoding((&key, &json!({"prefix": "p"})), (&schema, &value)) {
            let found = event_of(&decoder, &record);
            assert_eq!(
                found["message"],
                json!({"prefix": "p", "content": "eA=="}),
                "{encoding}"
            );
            assert_eq!((&found["op"], &found["key"]), (&json!("message"), &Json::Null));
            ids.insert(found["id"].as_str().unwrap().to_owned());
        }
    }
    assert_eq!(
        ids.len(),
        1,
        "its commit time is that of another transaction and no part of it: {ids:?}"
    );
}

#[test]
fn t18_a_truncate_has_no_key_and_an_identity() {
    let (key, value) = table_schema(&[]);
    for (encoding, decoder, record) in
        in_each_encoding((&key, &Json::Null), (&value, &envelope("t", Json::Null, Json::Null)))
    {
        let found = event_of(&decoder, &record);
        assert_eq!(
            (&found["op"], &found["key"]),
            (&json!("truncate"), &Json::Null),
            "{encoding}"
        );
        assert!(found["id"].is_string());
    }
}

#[test]
fn t19_a_streamed_change_is_one_whatever_the_snapshot_field_says() {
    let expected = event(&insert(1));
    let mut change = envelope("c", Json::Null, json!({"id": 1}));
    for snapshot in [
        json!(null),
        json!("false"),
        json!(false),
        json!(true),
        json!("last"),
        json!("incremental"),
    ] {
        change["source"]["snapshot"] = snapshot;
        assert_eq!(event(&record(r#"{"id":1}"#, &change.to_string())), expected);
    }
    change["source"].as_object_mut().unwrap().remove("snapshot");
    assert_eq!(event(&record(r#"{"id":1}"#, &change.to_string())), expected);
}

#[test]
fn t20_rows_read_by_a_snapshot_are_skipped_at_any_time() {
    let (key, value) = table_schema(&[]);
    let decoder = auto();
    decoder.learn(1, &avro_schema(&key)).unwrap();
    decoder.learn(2, &avro_schema(&value)).unwrap();
    let mut read = envelope("r", Json::Null, json!({"id": 1}));
    for snapshot in ["first", "true", "last", "incremental"] {
        read["source"]["snapshot"] = json!(snapshot);
        if snapshot == "incremental" {
            read["source"]["lsn"] = Json::Null;
            read["source"]["txId"] = Json::Null;
        }
        // Before, between and after streamed changes of the topic.
        let mut record = record(r#"{"id":1}"#, &read.to_string());
        assert_eq!(outcome(&decoder, TOPIC, &record), "skip read", "{snapshot}");
        record.value = Some(avro(2, &value, &read).into());
        assert_eq!(outcome(&decoder, TOPIC, &record), "skip read", "{snapshot} in Avro");
        assert_eq!(event_of(&decoder, &insert(1))["op"], "insert");
    }
}
