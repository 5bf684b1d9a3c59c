//! What a real connector wrote of one scripted history (`tests/it/scenario`), in each encoding. `tests/it/parity.rs` shows
//! that a connector of today writes the same.

use std::collections::{BTreeMap, BTreeSet};

use afterwrite::event::delivery::Content;
use serde_json::{Value as Json, json};

use crate::captures::parity::events;
use crate::captures::{Capture, ENCODINGS, options};

/// The changes of a table, in the order of their places in the log, of each capture.
fn of_table(table: &str) -> Vec<(&'static str, Vec<Json>)> {
    ENCODINGS
        .iter()
        .map(|capture| {
            let mut of_table = events(&Capture::read(capture));
            of_table.retain(|event| event["table"] == table && event["op"] != "read");
            (*capture, of_table)
        })
        .collect()
}

fn ids(events: &[Json]) -> BTreeSet<String> {
    events.iter().map(|event| event["id"].to_string()).collect()
}

/// The events that were committed by one transaction, by its id.
fn by_transaction(events: &[Json]) -> BTreeMap<i64, Vec<&Json>> {
    let mut transactions: BTreeMap<i64, Vec<&Json>> = BTreeMap::new();
    for event in events {
        if let Some(tx) = event["tx"].as_i64() {
            transactions.entry(tx).or_default().push(event);
        }
    }
    transactions
}

#[test]
fn t21_rows_of_one_copy_share_an_lsn_and_no_id_as_captured() {
    for (capture, events) in of_table("referrals") {
        let copied: Vec<Json> = events
            .into_iter()
            .filter(|event| {
                event["op"] == "insert" && event["key"]["id"].as_i64().is_some_and(|id| (101..=105).contains(&id))
            })
            .filter(|event| event.get("moved_from").is_none())
            .collect();
        let lsns: BTreeSet<i64> = copied.iter().filter_map(|event| event["lsn"].as_i64()).collect();
        assert_eq!((copied.len(), lsns.len(), ids(&copied).len()), (5, 1, 5), "{capture}");
    }
}

#[test]
fn t23_equal_rows_without_a_key_have_no_id_as_captured() {
    for (capture, events) in of_table("audit") {
        let copied = events.iter().filter(|event| event["after"]["actor"] == "copy");
        assert_eq!(copied.count(), 3, "{capture}");
        assert_eq!(ids(&events), BTreeSet::from(["null".to_owned()]), "{capture}");
    }
}

#[test]
fn t24_a_changed_key_is_known_from_both_sides_as_captured() {
    for (capture, events) in of_table("users") {
        let moved: Vec<(&Json, &Json, &Json)> = events
            .iter()
            .filter(|event| event.get("moved_from").or(event.get("moved_to")).is_some())
            .map(|event| {
                (
                    &event["op"],
                    &event["key"],
                    event.get("moved_from").unwrap_or(&event["moved_to"]),
                )
            })
            .collect();
        let (old, new) = (json!({"id": 2}), json!({"id": 1002}));
        let expected = [(&json!("delete"), &old, &new), (&json!("insert"), &new, &old)];
        assert_eq!(moved, expected, "{capture}");
    }
}

#[test]
fn t25_a_swap_of_keys_in_one_transaction_is_six_changes_as_captured() {
    for (capture, events) in of_table("referrals") {
        let halves = |event: &&&Json| event.get("moved_from").or(event.get("moved_to")).is_some();
        let swap = by_transaction(&events)
            .into_values()
            .map(|changes| {
                changes
                    .iter()
                    .filter(halves)
                    .map(|event| (*event).clone())
                    .collect::<Vec<_>>()
            })
            .find(|changes| changes.len() == 6)
            .unwrap_or_else(|| panic!("{capture}: no swap"));
        assert_eq!(ids(&swap).len(), 6, "{capture}");
    }
}

#[test]
fn t26_two_tables_of_one_truncate_have_two_ids_as_captured() {
    for capture in ENCODINGS {
        let mut truncated = events(&Capture::read(capture));
        truncated.retain(|event| event["op"] == "truncate");
        let lsns: BTreeSet<i64> = truncated.iter().filter_map(|event| event["lsn"].as_i64()).collect();
        assert_eq!(
            (truncated.len(), lsns.len(), ids(&truncated).len()),
            (2, 1, 2),
            "{capture}"
        );
    }
}

#[test]
fn t27_messages_in_and_outside_a_transaction_have_ids_as_captured() {
    for (capture, events) in of_table("") {
        let prefixes: Vec<&str> = events
            .iter()
            .filter_map(|event| event["message"]["prefix"].as_str())
            .collect();
        assert_eq!(prefixes, ["mail", "ping", "in-tx"], "{capture}");
        assert_eq!(ids(&events).len(), 3, "{capture}");
        assert_eq!(events[1]["tx"], Json::Null, "{capture}: outside a transaction");
    }
}

#[test]
fn t36_five_changes_of_one_row_in_one_transaction_are_five_as_captured() {
    for (capture, events) in of_table("rewards") {
        let of_row: Vec<Json> = by_transaction(&events)
            .into_values()
            .find(|changes| changes.len() == 5)
            .unwrap_or_else(|| panic!("{capture}: no such transaction"))
            .into_iter()
            .cloned()
            .collect();
        let ops: Vec<&str> = of_row.iter().filter_map(|event| event["op"].as_str()).collect();
        assert_eq!(ops, ["insert", "update", "update", "delete", "insert"], "{capture}");
        assert_eq!(ids(&of_row).len(), 5, "{capture}");
    }
}

/// The inserted row of this key.
fn inserted(events: &[Json], id: i64) -> &Json {
    let is_it = |event: &&Json| event["op"] == "insert" && event["key"]["id"] == id;
    &events.iter().find(is_it).unwrap()["after"]
}

#[test]
fn t42_infinite_and_far_away_times_arrive_as_captured() {
    for (capture, events) in of_table("all_types") {
        for (id, column, expected) in [
            (3, "c_date", "+5877611-06-21Z"),
            (5, "c_date", "-5877611-06-22Z"),
            (4, "c_date", "-0043-03-15Z"),
            (3, "c_tstz", "infinity"),
            (5, "c_tstz", "-infinity"),
            (3, "c_ts", "+292278994-08-16T23:00:00Z"),
            (5, "c_ts", "-292275055-05-16T23:00:00Z"),
            (4, "c_ts", "0001-01-01T00:00:00Z"),
            (6, "c_ts", "+294276-12-31T23:59:59.999999Z"),
            (3, "c_time", "00:00:00Z"),
            (3, "c_interval", "P-1Y0M3DT0H0M-0.000001S"),
            (3, "c_bit12", ""),
            (3, "c_num", "NAN"),
        ] {
            assert_eq!(inserted(&events, id)[column], expected, "{capture}: {column} of {id}");
        }
    }
}

#[test]
fn t46_every_kind_of_column_is_known_to_be_unavailable_as_captured() {
    for (capture, events) in of_table("toast_default") {
        let update = events
            .iter()
            .find(|event| event["op"] == "update" && event["after"]["small"] == 3)
            .unwrap();
        let unavailable: Vec<&str> = update["unavailable"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(Json::as_str)
            .collect();
        let expected = [
            "t", "v", "c", "j", "jb", "x", "b", "h", "ts", "at", "ai", "ab", "au", "aj",
        ];
        assert_eq!(unavailable, expected, "{capture}");
        let genuine = inserted(&events, 3);
        assert_eq!(
            genuine["t"], "__debezium_unavailable_value",
            "{capture}: a user's own text"
        );
    }
    for (capture, events) in of_table("toast_full") {
        assert!(
            events.iter().all(|event| event["unavailable"] == json!([])),
            "{capture}"
        );
        assert!(
            events
                .iter()
                .any(|event| event["op"] == "update" && event["before"].is_object()),
            "{capture}"
        );
    }
}

#[test]
fn t48_arrays_of_two_dimensions_are_unavailable_where_they_would_be_garbage_as_captured() {
    for (capture, events) in of_table("arrays") {
        let of_text = events.iter().find(|event| event["key"]["id"] == 4).unwrap();
        let unavailable = of_text["unavailable"].as_array().unwrap();
        assert!(unavailable.contains(&json!("a_text")), "{capture}: {unavailable:?}");
        assert_eq!(inserted(&events, 3)["a_text"], json!([]), "{capture}");
        assert_eq!(inserted(&events, 1)["a_text"], json!(["a", null, "c d"]), "{capture}");
    }
}

#[test]
fn t51_a_null_in_a_column_with_a_default_is_null_or_lost_for_good_as_captured() {
    for (capture, events) in of_table("campaigns") {
        let update = events
            .iter()
            .find(|event| event["op"] == "update" && event["key"]["id"] == 3)
            .unwrap();
        let expected = match capture {
            "jsn" | "jss" => Json::Null,
            // The converter of Avro has put the default there: docs/DEBEZIUM.md.
            _ => json!(100),
        };
        assert_eq!(update["after"]["cap"], expected, "{capture}");
    }
}

#[test]
fn t57_columns_that_an_old_row_makes_up_are_apart_as_captured() {
    for (capture, events) in of_table("fabricated") {
        let delete = events.iter().find(|event| event["op"] == "delete").unwrap();
        assert_eq!(
            (&delete["before"], &delete["key"]),
            (&Json::Null, &json!({"id": 1})),
            "{capture}"
        );
        let sent = &delete["before_as_sent"];
        assert_eq!(
            (&sent["n"], &sent["t"], &sent["b"]),
            (&json!(0), &json!(""), &json!(false)),
            "{capture}"
        );
    }
}

#[test]
fn t59_old_rows_are_whole_under_the_full_identity_as_captured() {
    for (capture, events) in of_table("users") {
        let olds: Vec<&Json> = events.iter().filter(|event| event["op"] != "insert").collect();
        assert!(olds.len() > 4, "{capture}");
        for event in olds {
            assert!(event["before"]["email"].is_string(), "{capture}: {event}");
        }
    }
}

/// The connectors route by campaign (`PartitionRouting`).
#[test]
fn changes_of_one_campaign_are_in_one_partition_as_captured() {
    for capture in ENCODINGS {
        let written = Capture::read(capture);
        let mut partitions: BTreeMap<i64, BTreeSet<i32>> = BTreeMap::new();
        for (record, content) in written.decoded(options()) {
            let Content::Change(event) = content else { continue };
            let row = event.after().or(event.before());
            if &*event.origin().table == "users"
                && let Some(campaign) = row.and_then(|row| row.int("campaign_id"))
            {
                partitions.entry(campaign).or_default().insert(record.partition);
            }
        }
        assert!(partitions.len() > 1, "{capture}");
        for (campaign, partitions) in partitions {
            assert_eq!(
                partitions.len(),
                1,
                "{capture}: campaign {campaign} is in {partitions:?}"
            );
        }
    }
}

#[test]
fn t14_markers_heartbeats_and_signals_are_skipped_as_captured() {
    for capture in ENCODINGS {
        let written = Capture::read(capture);
        let skipped: BTreeSet<&str> = written
            .decoded(options())
            .into_iter()
            .filter_map(|(_, content)| match content {
                Content::Skip(reason) => Some(reason.as_str()),
                Content::Change(_) | Content::Undecodable(_) => None,
            })
            .collect();
        for reason in ["transaction", "heartbeat", "signal", "notification", "tombstone"] {
            assert!(skipped.contains(reason), "{capture}: no {reason} in {skipped:?}");
        }
    }
}
