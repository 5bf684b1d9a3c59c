//! What every job needs is away for a while: nothing counts as an attempt, nothing is buried, everything goes on by itself.

use std::time::Duration;

use crate::producer;
use crate::stack::{self, until};
use crate::world::World;

const SETTINGS: &[(&str, &str)] = &[
    ("AFTERWRITE__ENGINE__ATTEMPTS_MAX", "2"),
    ("AFTERWRITE__ENGINE__WAIT_FIRST_MS", "100"),
    ("AFTERWRITE__ENGINE__OUTAGE_WAIT_MS_MAX", "1000"),
    ("AFTERWRITE__POSTGRES__CONNECT_TIMEOUT_MS", "1000"),
];

async fn write(world: &World, keys: std::ops::RangeInclusive<i64>) {
    for k in keys {
        producer::write_change(&world.topic(), k, "ok").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_postgres_that_is_away_is_waited_for() {
    let _stack = stack::alone().await;
    let world = World::bare("outage").await;
    producer::make_topic(&world.topic()).await;
    let worker = world.worker("w", SETTINGS);
    write(&world, 1..=5).await;
    until("the first effects", Duration::from_secs(60), async || {
        (world.count("SELECT count(*) FROM effects").await == 5).then_some(())
    })
    .await;
    stack::order("kill", "postgres").await;
    write(&world, 6..=25).await;
    until(
        "more failures than attempts are allowed",
        Duration::from_secs(60),
        async || (worker.said().matches("postgres did not answer").count() > 60).then_some(()),
    )
    .await;
    stack::order("start", "postgres").await;
    until("the effects of the outage", Duration::from_secs(60), async || {
        let sql = "SELECT count(*) FROM effects";
        let done: Option<i64> = sqlx::query_scalar(sql).fetch_one(&world.pool).await.ok();
        (done == Some(25)).then_some(())
    })
    .await;
    assert_eq!(
        world.count("SELECT count(*) FROM afterwrite.letters").await,
        0,
        "an outage buried something"
    );
    let failures = worker.said().matches("postgres did not answer").count();
    println!(
        "{}: postgres away: {failures} failed attempts counted for nothing, 0 buried, 20 changes done after it",
        world.name
    );
    worker.stop().await;
    world.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_waits_for_its_claims_hears_the_stop() {
    let _stack = stack::alone().await;
    let world = World::bare("claims").await;
    let worker = world.worker("w", SETTINGS);
    until("the worker to be up", Duration::from_secs(60), async || {
        worker.said().contains("dead-letter topic made").then_some(())
    })
    .await;
    stack::order("kill", "postgres").await;
    producer::make_topic(&world.topic()).await;
    until(
        "the worker to wait for its claims",
        Duration::from_secs(60),
        async || worker.said().contains("before the first fetch").then_some(()),
    )
    .await;
    worker.stop().await;
    stack::order("start", "postgres").await;
    until("postgres", Duration::from_secs(60), async || {
        sqlx::query("SELECT 1").execute(&world.pool).await.ok().map(|_| ())
    })
    .await;
    world.remove().await;
}
