//! Events that were built, compared with records of a real connector and with themselves.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::*;

/// Changes as Debezium sent them.
const CAPTURED: &str = include_str!("../../tests/fixtures/debezium-3.7.0/jsn.jsonl");

/// Ids must be those of real changes, or what a test says of redelivery would be about something else.
#[test]
fn an_event_built_from_the_row_and_place_of_a_real_change_has_its_id() {
    let mut compared = 0;
    for line in CAPTURED.lines() {
        let captured: Json = serde_json::from_str(line).unwrap();
        let bytes = |name: &str| {
            captured[name]
                .as_str()
                .map(|text| STANDARD.decode(text).unwrap().into())
        };
        let record = RawRecord {
            key: bytes("key"),
            value: bytes("value"),
            ..RawRecord::default()
        };
        let Decoded::Content(Content::Change(real)) = decoder().decode(captured["topic"].as_str().unwrap(), &record)
        else {
            continue;
        };
        let (Some(id), Some(key), Some(lsn)) = (real.id(), real.key(), real.origin().lsn) else {
            continue;
        };
        let origin = real.origin();
        let place = Place {
            tx: origin.tx.unwrap(),
            lsn,
            commit_ts_ms: origin.commit_ts_ms.unwrap(),
        };
        let table = Table::of(&origin.table, key.row().columns().map(|(name, _)| name))
            .in_schema(&origin.schema)
            .from_source(&origin.name, &origin.db)
            .at(place);
        let old = || printed(real.sent_before().and_then(Before::sent).unwrap());
        let built = match real.change() {
            Change::Insert { after, .. } => table.insert(printed(after)),
            Change::Update {
                before: Before::Unknown,
                after,
            } => table.update_without_old_row(printed(after)),
            Change::Update { after, .. } => table.update(old(), printed(after)),
            Change::Delete { .. } => table.delete(old()),
            Change::Read { .. } | Change::Truncate | Change::Message { .. } => continue,
        };
        assert_eq!(
            (built.id(), built.key().map(Key::sorted), built.origin()),
            (Some(id), Some(key.sorted()), origin),
            "{origin:?}"
        );
        compared += 1;
    }
    assert!(compared > 90, "only {compared} changes were compared");
}

#[test]
fn an_event_and_the_record_made_of_it_are_the_same_change() {
    let table = Table::of("t", ["b", "a"]).in_schema("s").from_source("shop", "app");
    let row = |note: Json| json!({"a": 1, "b": "x", "note": note, "tags": ["y", null], "profile": {"k": [1]}, "f": 1.5, "t": true});
    for event in [
        table.insert(row(json!(null))),
        table.update(row(json!("old")), row(json!(UNAVAILABLE))),
        table.update_without_old_row(row(json!("new"))),
        table.delete(row(json!("gone"))),
    ] {
        let again = decoded(&record(&event));
        assert_eq!(
            (again.id(), again.key(), again.origin()),
            (event.id(), event.key(), event.origin())
        );
        for column in ["a", "b", "note", "tags", "profile", "f", "t"] {
            let cells = |event: &ChangeEvent| {
                format!(
                    "{:?} {:?}",
                    event.before().map(|row| row.get(column)),
                    event.after().map(|row| row.get(column))
                )
            };
            assert_eq!(cells(&again), cells(&event), "{column}");
        }
    }
}

#[test]
fn what_was_not_sent_is_unavailable_and_json_is_its_text() {
    let (table, new) = (
        Table::of("t", ["id"]),
        json!({"id": 1, "bio": UNAVAILABLE, "j": {"k": 1}}),
    );
    let alone = table.update_without_old_row(new);
    let after = alone.after().unwrap();
    assert!(after.get("bio").is_some_and(|cell| cell.is_unavailable()));
    assert_eq!(after.text("j"), Some(r#"{"k":1}"#));
    assert!(!alone.changed("bio"));
}

#[test]
fn a_table_without_a_key_has_events_without_an_id() {
    assert_eq!(Table::of("t", [""; 0]).insert(json!({"a": 1})).id(), None);
}

#[test]
fn the_same_place_is_the_same_change() {
    let place = Place {
        tx: 7,
        lsn: 100,
        commit_ts_ms: 1_795_670_208_086,
    };
    let (table, row) = (Table::of("t", ["id"]).at(place), json!({"id": 1}));
    assert_eq!(table.insert(row.clone()).id(), table.insert(row.clone()).id());
    assert_ne!(table.insert(row.clone()).id(), table.delete(row).id());
}
