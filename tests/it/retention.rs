//! Old days of the ledger go when nobody needs them, and events of those days are not run by themselves any more.

use std::time::Duration;

use chrono::{NaiveDate, Utc};
use serde_json::json;

use crate::producer;
use crate::stack::{self, until};
use crate::undecodable::key;
use crate::world::World;

/// A change that was committed long before any day that is kept.
const COMMITTED_MS: i64 = 1_780_000_000_000;

fn old_day() -> NaiveDate {
    chrono::DateTime::from_timestamp_millis(COMMITTED_MS)
        .unwrap()
        .date_naive()
}

fn change(world: &World) -> Vec<u8> {
    let change = json!({"before": null, "after": {"k": 1, "seq": 1, "behaviour": "ok"}, "op": "c", "source": {
        "connector": "postgresql", "name": world.name, "db": "it", "schema": "public", "table": "work",
        "ts_ms": COMMITTED_MS, "txId": 8, "lsn": 4_712}});
    change.to_string().into_bytes()
}

async fn needed_from(world: &World) -> Option<NaiveDate> {
    let days: Vec<Option<NaiveDate>> = sqlx::query_scalar("SELECT frontier_day FROM afterwrite.claims")
        .fetch_all(&world.pool)
        .await
        .unwrap();
    days.into_iter().flatten().next()
}

async fn until_needed_from(world: &World, day: NaiveDate) {
    until(
        "the day that is needed to be told",
        Duration::from_secs(90),
        async || (needed_from(world).await == Some(day)).then_some(()),
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_of_a_day_that_was_dropped_is_a_dead_letter_and_runs_only_when_it_is_replayed() {
    let _stack = stack::shared().await;
    let world = World::bare("expired").await;
    producer::make_topic(&world.topic()).await;
    producer::write(&world.topic(), &key(1), &change(&world)).await;
    let day = chrono::DateTime::from_timestamp_millis(COMMITTED_MS)
        .unwrap()
        .date_naive();

    let worker = world.worker("first", &[]);
    until_needed_from(&world, day).await;
    until("the effect to be committed", Duration::from_secs(60), async || {
        (producer::committed(&world.group(), &world.topic()) == Some(1)).then_some(())
    })
    .await;
    worker.stop().await;

    // Whoever starts at the end of all there is needs no old day.
    let worker = world.worker("second", &[]);
    until_needed_from(&world, Utc::now().date_naive()).await;
    worker.stop().await;

    let worker = world.worker("third", &[]);
    until("the day to be dropped", Duration::from_secs(60), async || {
        worker.said().contains("old days of the ledger dropped").then_some(())
    })
    .await;
    producer::write(&world.topic(), &key(1), &change(&world)).await;
    until("the letter", Duration::from_secs(60), async || {
        (world
            .count("SELECT count(*) FROM afterwrite.letters WHERE class = 'expired'")
            .await
            == 1)
            .then_some(())
    })
    .await;
    assert_eq!(
        world.count("SELECT count(*) FROM effects").await,
        1,
        "it was run by itself"
    );
    let (code, _) = world
        .afterwrite(&["dlq", "replay", "--group", "recorder", "--class", "expired", "--wait"])
        .await;
    assert_eq!(code, 0, "the replay did not heal it");
    assert_eq!(world.count("SELECT count(*) FROM effects WHERE replayed").await, 1);
    worker.stop().await;
    world.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_that_ends_with_the_marker_of_a_transaction_is_read_to_its_end() {
    let _stack = stack::shared().await;
    let world = World::bare("marker").await;
    producer::make_topic(&world.topic()).await;
    producer::write_in_transaction(&world.topic(), 1..2, true).await;
    let worker = world.worker("first", &[]);
    until("the effect to be committed", Duration::from_secs(60), async || {
        (producer::committed(&world.group(), &world.topic()) == Some(1)).then_some(())
    })
    .await;
    worker.stop().await;
    // Only who finds nothing more to read says anything else.
    sqlx::query("UPDATE afterwrite.claims SET frontier_day = $1")
        .bind(old_day())
        .execute(&world.pool)
        .await
        .unwrap();
    let worker = world.worker("second", &[]);
    until_needed_from(&world, Utc::now().date_naive()).await;
    worker.stop().await;
    world.remove().await;
}
