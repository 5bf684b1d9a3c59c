//! Which changes are the same, and which are not.

use std::collections::HashSet;

use afterwrite::decode::Decoder;
use afterwrite::decode::options::Options;
use afterwrite::decode::tables::Tables;
use afterwrite::event::delivery::RawRecord;
use serde_json::{Value as Json, json};

use crate::encode::{avro, avro_schema, optional};
use crate::records::{
    TOPIC, auto, changes, envelope, event, event_of, insert, outcome, record, source, table_schema, with_headers,
};

/// The id of a record's event.
fn id(record: &RawRecord) -> String {
    event(record)["id"].as_str().unwrap().to_owned()
}

/// An insert of `id`, its envelope edited.
fn edited(id: i64, edit: impl FnOnce(&mut Json)) -> RawRecord {
    let mut value = envelope("c", Json::Null, json!({"id": id}));
    edit(&mut value);
    record(&json!({"id": id}).to_string(), &value.to_string())
}

#[test]
fn t21_rows_of_one_copy_share_an_lsn_and_no_id() {
    let ids: HashSet<String> = (0..100).map(|key| id(&insert(key))).collect();
    assert_eq!(ids.len(), 100);
}

#[test]
fn t22_a_batch_that_is_sent_again_has_the_ids_it_had() {
    let again = |key| edited(key, |value| value["ts_ms"] = json!(99));
    for key in 0..100 {
        assert_eq!(id(&insert(key)), id(&again(key)));
    }
}

#[test]
fn t23_equal_rows_without_a_key_have_no_id() {
    let row = envelope("c", Json::Null, json!({"a": 1})).to_string();
    for key in ["", "null", r#"{"schema":null,"payload":null}"#, r#"{"a":null}"#] {
        assert_eq!(event(&record(key, &row))["id"], Json::Null, "{key}");
    }
}

/// The two halves of a changed key.
fn moved(from: i64, to: i64) -> [RawRecord; 2] {
    let key = |id: i64| json!({"id": id}).to_string();
    let left = record(&key(from), &envelope("d", json!({"id": from}), Json::Null).to_string());
    let came = record(&key(to), &envelope("c", Json::Null, json!({"id": to})).to_string());
    [
        with_headers(left, &[("__debezium.newkey", &key(to))]),
        with_headers(came, &[("__debezium.oldkey", &key(from))]),
    ]
}

#[test]
fn t24_a_changed_key_is_neither_a_delete_nor_an_insert() {
    let [left, came] = moved(1, 2);
    let (left, came) = (event(&left), event(&came));
    assert_eq!((&left["op"], &left["moved_to"]), (&json!("delete"), &json!({"id": 2})));
    assert_eq!(
        (&came["op"], &came["moved_from"]),
        (&json!("insert"), &json!({"id": 1}))
    );
    assert_ne!(left["id"], came["id"]);
    // A header that another converter wrote still tells that the key changed.
    let unreadable = with_headers(insert(2), &[("__debezium.oldkey", "\u{0}\u{0}\u{0}\u{0}\u{1}\u{2}")]);
    let found = event(&unreadable);
    assert_eq!(found["moved_from"], Json::Null);
    assert!(found.as_object().unwrap().contains_key("moved_from"));
    assert!(!event(&insert(2)).as_object().unwrap().contains_key("moved_from"));
    let followed = RawRecord {
        value: None,
        ..moved(1, 2)[0].clone()
    };
    assert_eq!(outcome(&auto(), TOPIC, &followed), "skip tombstone");
}

#[test]
fn t25_a_swap_of_keys_in_one_transaction_is_six_changes() {
    let lsn = |record: &RawRecord, lsn: i64| {
        let mut value: Json = serde_json::from_slice(record.value.as_ref().unwrap()).unwrap();
        value["source"]["lsn"] = json!(lsn);
        RawRecord {
            value: Some(value.to_string().into()),
            ..record.clone()
        }
    };
    let steps = [(1, -1, 10), (2, 1, 11), (-1, 2, 12)];
    let ids: HashSet<String> = steps
        .iter()
        .flat_map(|(from, to, at)| moved(*from, *to).map(|half| id(&lsn(&half, *at))))
        .collect();
    assert_eq!(ids.len(), 6);
}

#[test]
fn t26_two_tables_of_one_truncate_have_two_ids() {
    let truncated = |table: &str| {
        let mut value = envelope("t", Json::Null, Json::Null);
        value["source"]["table"] = json!(table);
        id(&record("", &value.to_string()))
    };
    assert_ne!(truncated("a"), truncated("b"));
}

#[test]
fn t27_a_message_and_an_insert_at_one_lsn_have_two_ids() {
    let message = |prefix: &str| {
        let mut value = json!({"op": "m", "source": source(), "message": {"prefix": prefix, "content": ""}});
        value["source"]["schema"] = json!("");
        value["source"]["table"] = json!("");
        id(&record("", &value.to_string()))
    };
    let ids = HashSet::from([message("p"), message("q"), id(&insert(1))]);
    assert_eq!(ids.len(), 3);
}

#[test]
fn t28_an_lsn_that_goes_back_drops_nothing() {
    let decoder = auto();
    let at = |lsn: i64| edited(1, |value| value["source"]["lsn"] = json!(lsn));
    for lsn in [0x154_6908, 0x154_6850, 0x154_6908] {
        let found = event_of(&decoder, &at(lsn));
        assert_eq!((&found["op"], &found["lsn"]), (&json!("insert"), &json!(lsn)));
    }
}

#[test]
fn t29_one_lsn_in_two_histories_has_two_ids() {
    let before_failover = insert(1);
    let tx = edited(1, |value| value["source"]["txId"] = json!(8));
    let commit = edited(1, |value| value["source"]["ts_ms"] = json!(2_000));
    let ids = HashSet::from([id(&before_failover), id(&tx), id(&commit)]);
    assert_eq!(ids.len(), 3);
}

#[test]
fn t30_a_much_smaller_lsn_after_a_restore_is_a_new_event() {
    let restored = edited(1, |value| {
        value["source"]["lsn"] = json!(24);
        value["source"]["ts_ms"] = json!(500);
    });
    let found = event(&restored);
    assert_eq!(found["op"], "insert");
    assert_ne!(found["id"], event(&insert(1))["id"]);
}

#[test]
fn t31_a_copy_that_differs_in_all_that_may_differ_is_the_same() {
    let copy = edited(1, |value| {
        for name in ["ts_ms", "ts_us", "ts_ns"] {
            value[name] = json!(77);
        }
        value["transaction"] = json!({"id": "7:99", "total_order": 3, "data_collection_order": 1});
        value["source"]["sequence"] = json!("[\"1\",\"2\"]");
        value["source"]["version"] = json!("9.9");
        value["source"]["xmin"] = json!(5);
        value["source"]["ts_us"] = json!(1_000_001);
    });
    let copy = with_headers(
        copy,
        &[
            ("__debezium.context.runId", "0199-7"),
            ("__debezium.context.taskId", "3"),
        ],
    );
    assert_eq!(event(&copy), event(&insert(1)));
    // Registered anew, a schema has another id.
    let (_, schema) = table_schema(&[]);
    let value = envelope("c", Json::Null, json!({"id": 1}));
    let decoder = auto();
    let by_schema = |id: u32| {
        decoder.learn(id, &avro_schema(&schema)).unwrap();
        event_of(
            &decoder,
            &RawRecord {
                value: Some(avro(id, &schema, &value).into()),
                ..insert(1)
            },
        )
    };
    assert_eq!(by_schema(5), by_schema(6));
    assert_eq!(by_schema(5), event(&insert(1)));
}

#[test]
fn t32_a_sequence_may_be_anything() {
    for sequence in [
        json!(null),
        json!("[null,\"5\"]"),
        json!("not a sequence"),
        json!([1, 2]),
    ] {
        let odd = edited(1, |value| value["source"]["sequence"] = sequence);
        assert_eq!(event(&odd), event(&insert(1)));
    }
}

#[test]
fn t33_a_transaction_id_has_32_bits_and_wraps() {
    let of_tx = |tx: i64| event(&edited(1, |value| value["source"]["txId"] = json!(tx)));
    let all = [3, 2_147_483_648, 4_294_967_295, 4_294_967_299].map(of_tx);
    assert_eq!(all[2]["tx"], json!(4_294_967_295_i64));
    let ids: HashSet<&str> = all.iter().map(|event| event["id"].as_str().unwrap()).collect();
    assert_eq!(ids.len(), 4, "the epoch that snapshots add is not taken off");
}

#[test]
fn t34_one_change_on_two_topics_is_one_event() {
    let decoder = auto();
    let on = |topic: &str| outcome(&decoder, topic, &insert(1));
    assert_eq!(on("w.public.t"), on("renamed"));
}

#[test]
fn t35_a_copy_with_a_column_more_is_the_same_event() {
    let column = optional("added", "string");
    let after = json!({"id": 1, "added": null});
    for (encoding, decoder, record) in changes(&column, "c", &Json::Null, &after) {
        let found = event_of(&decoder, &record);
        assert_eq!(found["id"], event(&insert(1))["id"], "{encoding}");
        assert_eq!(found["after"], after);
    }
}

#[test]
fn t36_changes_of_one_row_in_one_transaction_are_many() {
    let change = |op: &str, lsn: i64| {
        let row = json!({"id": 1});
        let (before, after) = match op {
            "d" => (row, Json::Null),
            _ => (Json::Null, row),
        };
        let mut value = envelope(op, before, after);
        value["source"]["lsn"] = json!(lsn);
        id(&record(r#"{"id":1}"#, &value.to_string()))
    };
    let steps = [("u", 1), ("u", 2), ("d", 3), ("c", 4)];
    let ids: HashSet<String> = steps.iter().map(|(op, lsn)| change(op, *lsn)).collect();
    assert_eq!(ids.len(), 4);
}

fn full() -> Decoder {
    Decoder::new(Options {
        full_identity: Tables::like(["public.t"]),
        ..Options::default()
    })
}

/// An old row under the default identity: only the key is real.
fn delete_with_made_up_columns() -> RawRecord {
    let before = json!({"id": 1, "points": 0, "status": "", "at": "1970-01-01T00:00:00Z", "note": null});
    record(r#"{"id":1}"#, &envelope("d", before, Json::Null).to_string())
}

#[test]
fn t57_made_up_columns_of_an_old_row_are_not_handed_out() {
    let found = event(&delete_with_made_up_columns());
    assert_eq!((&found["before"], &found["key"]), (&Json::Null, &json!({"id": 1})));
    assert_eq!(found["before_as_sent"]["points"], 0);
}

#[test]
fn t58_an_update_without_an_old_row_may_have_changed_anything() {
    let update = record(
        r#"{"id":1}"#,
        &envelope("u", Json::Null, json!({"id": 1, "n": 2})).to_string(),
    );
    for decoder in [auto(), full()] {
        let found = event_of(&decoder, &update);
        assert_eq!((&found["before"], found.get("before_as_sent")), (&Json::Null, None));
    }
}

#[test]
fn t59_the_old_row_of_a_full_identity_is_whole() {
    let row = |n: i64| json!({"id": 1, "n": n});
    let update = record(r#"{"id":1}"#, &envelope("u", row(1), row(2)).to_string());
    assert_eq!(event_of(&full(), &update)["before"], row(1));
    let delete = record(r#"{"id":1}"#, &envelope("d", row(1), Json::Null).to_string());
    assert_eq!(event_of(&full(), &delete)["before"], row(1));
    assert_eq!(event(&update)["before"], Json::Null, "nobody said that it is whole");
}

#[test]
fn t60_an_identity_may_change_in_the_middle_of_a_topic() {
    const SENT: &str = "__debezium_unavailable_value";
    let decoder = full();
    // From before the change: no old row, and the placeholder stands for what was not sent.
    let row = json!({"id": 1, "big": SENT});
    let earlier = record(r#"{"id":1}"#, &envelope("u", Json::Null, row.clone()).to_string());
    let found = event_of(&decoder, &earlier);
    assert_eq!(
        (&found["unavailable"], &found["before"]),
        (&json!(["big"]), &Json::Null)
    );
    // From after it: an old row, from which the connector takes what was not sent.
    let later = record(r#"{"id":1}"#, &envelope("u", row.clone(), row.clone()).to_string());
    let found = event_of(&decoder, &later);
    assert_eq!((&found["unavailable"], &found["after"]), (&json!([]), &row));
}
