//! All four encodings of one history are the same events, ids included, also when Kafka Connect is killed on the way; and so is
//! what the source `wal` reads of it without Kafka.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;
use sqlx::postgres::{PgConnection, PgPool};
use tokio::time::Instant;

use crate::captures::Capture;
use crate::captures::parity::{compare, events};
use crate::producer;
use crate::scenario::connectors::{ENCODINGS, SOURCE};
use crate::scenario::{Scenario, run_step};
use crate::stack::{self, until};

const SETUP: &str = "
    CREATE TABLE load (k int PRIMARY KEY, seq int NOT NULL, note text);
    ALTER TABLE load REPLICA IDENTITY FULL;";

const ROUNDS: usize = 100;

/// Rows of one COPY: one record of the log, one LSN.
const COPIED: usize = 20;

/// A swap of two keys is three changed keys; a changed key is a delete and an insert. So is the one behind. Then ten updates
/// and a delete.
const CHANGES_A_ROUND: usize = COPIED + 3 * 2 + 2 + 10 + 1;

/// So many records of the load stand in each topic when Connect is killed: the load is on its way then.
const BEFORE_THE_KILL: usize = 400;

async fn write_round(connection: &mut PgConnection, round: usize) {
    let first = round * 100;
    let rows: String = (1..=COPIED)
        .map(|row| format!("{}\t1\tround {round}\n", first + row))
        .collect();
    let (one, other, last) = (first + 1, first + 2, first + COPIED);
    let statements = format!(
        "
COPY load FROM STDIN;
{rows}\\.
BEGIN;
UPDATE load SET k = -{one} WHERE k = {one};
UPDATE load SET k = {one} WHERE k = {other};
UPDATE load SET k = {other} WHERE k = -{one};
COMMIT;
UPDATE load SET k = 1000000 + {last} WHERE k = {last};
UPDATE load SET seq = seq + 1 WHERE k BETWEEN {first} + 1 AND {first} + 10;
DELETE FROM load WHERE k = {first} + 11;
"
    );
    run_step(connection, &statements).await;
}

async fn write_load(pool: &PgPool) {
    let mut connection = pool.acquire().await.unwrap();
    let mut pace = tokio::time::interval(Duration::from_millis(40));
    for round in 0..ROUNDS {
        pace.tick().await;
        write_round(&mut connection, round).await;
    }
}

async fn kill_connect(scenario: &Scenario) {
    for topic in scenario.topics_of("load") {
        until("the load to arrive", Duration::from_secs(60), async || {
            let is_there = producer::exists(&topic) && producer::read_all(&topic).await.len() >= BEFORE_THE_KILL;
            is_there.then_some(())
        })
        .await;
    }
    stack::order("kill", "connect").await;
    stack::order("start", "connect").await;
}

/// Leaves one of the copies of each event; all copies must be the same. Answers how many went.
fn leave_one_of_each(capture: &str, events: &mut Vec<Value>) -> usize {
    let all = events.len();
    let mut seen: BTreeMap<String, Value> = BTreeMap::new();
    events.retain(|event| {
        let Some(id) = event["id"].as_str() else { return true };
        match seen.get(id) {
            Some(first) => {
                assert_eq!(first, event, "{capture}: two events share an id");
                false
            }
            None => seen.insert(id.to_owned(), event.clone()).is_none(),
        }
    });
    all - events.len()
}

/// What was written here is what the files in `tests/fixtures` have: what is shown of those (`tests/torture/captured.rs`)
/// holds for the connector that runs now.
fn is_as_captured(capture: &str, history: &[Value]) {
    let timeless = |events: &[Value]| -> Vec<Value> {
        // The files have the rows of an incremental snapshot too, and the row that marks its end.
        let is_other =
            |event: &Value| event["table"] == "load" || event["table"] == "finished" || event["op"] == "read";
        let of_scenario = events.iter().filter(|event| !is_other(event));
        of_scenario.map(without_its_time).collect()
    };
    let captured = timeless(&events(&Capture::read(capture)));
    let found = timeless(history);
    assert_eq!(found.len(), captured.len(), "{capture}: changes of the scenario");
    for (found, captured) in found.iter().zip(&captured) {
        assert_eq!(found, captured, "{capture}");
    }
}

/// An event without what is another in each run: its place in the log, the time of its commit, and a default of `now()`.
fn without_its_time(event: &Value) -> Value {
    let mut event = event.clone();
    for part in ["id", "tx", "lsn", "commit_ts_ms"] {
        event[part] = Value::Null;
    }
    for image in ["before", "before_as_sent", "after"] {
        if let Some(row) = event.get_mut(image).and_then(Value::as_object_mut) {
            row.remove("pinged_at");
        }
    }
    event
}

/// Leaves out what a connector makes up and the source `wal` does not: columns of an old row beyond the key, the key of an old
/// row that was identified by an index without it, and what Java prints for an array of two dimensions.
fn leave_what_both_can_have(mut events: Vec<Value>) -> Vec<Value> {
    events.retain(|event| {
        let is_indexed = event["table"] == "by_index" && event["op"] != "insert";
        let is_nested = event["table"] == "arrays" && event["key"]["id"] == 4;
        let is_other_half = event["table"] == "by_index" && !event["moved_from"].is_null();
        let is_lossy = event["table"] == "lossy";
        event["op"] != "read" && !is_indexed && !is_other_half && !is_nested && !is_lossy
    });
    for event in &mut events {
        let key = event["key"].as_object().cloned().unwrap_or_default();
        if let Some(row) = event.get_mut("before_as_sent").and_then(Value::as_object_mut) {
            row.retain(|column, _| key.contains_key(column));
        }
    }
    events
}

#[tokio::test(flavor = "multi_thread")]
async fn all_encodings_of_one_history_are_the_same_events_while_connect_is_killed() {
    let _stack = stack::alone().await;
    let began = Instant::now();
    let name = format!("it_parity_{}", &uuid::Uuid::new_v4().simple().to_string()[..8]);
    let scenario = Scenario::begin(&name, &format!("{name}_"), &ENCODINGS, SETUP).await;
    // A connector that is killed before it has noted down where it is reads its tables anew, and what changed meanwhile
    // arrives as reads.
    scenario.catch_up().await;
    let log = scenario.read_log(SOURCE).await;
    tokio::join!(write_load(&scenario.pool), kill_connect(&scenario));
    scenario.catch_up().await;
    let survived = began.elapsed().as_secs_f64();
    scenario.stream().await;
    scenario.finish().await;
    let captures = scenario.captures().await;
    let of_log = leave_what_both_can_have(events(&log.end().await));
    let mut histories = BTreeMap::new();
    let mut copies = BTreeMap::new();
    for (capture, written) in &captures {
        let mut events = events(written);
        copies.insert(*capture, leave_one_of_each(capture, &mut events));
        let of_load = events.iter().filter(|event| event["table"] == "load").count();
        assert_eq!(of_load, ROUNDS * CHANGES_A_ROUND, "{capture}: changes of the load");
        histories.insert(*capture, events);
    }
    println!(
        "{name}: {} events in each of four encodings in {:.1} s, the load after {survived:.1} s; copies: {copies:?}",
        histories["jsn"].len(),
        began.elapsed().as_secs_f64(),
    );
    assert!(
        copies.values().sum::<usize>() > 0,
        "nothing was sent again: Connect was killed in vain"
    );
    for (capture, history) in &histories {
        compare(capture, &histories["jsn"], history);
        is_as_captured(capture, history);
    }
    compare(
        "wal",
        &leave_what_both_can_have(histories.remove("jsn").unwrap()),
        &of_log,
    );
    scenario.remove().await;
}
