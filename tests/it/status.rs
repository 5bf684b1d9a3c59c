//! How groups are, as `afterwrite status` says it: while they run, when they are stopped, and when a part is away.

use std::time::Duration;

use serde_json::{Value, json};

use crate::producer;
use crate::stack::{self, until};
use crate::world::World;

/// Nobody listens there.
const NOWHERE: &str = "127.0.0.1:1";

/// What `afterwrite status --output json` says of the group; null when it says nothing of it.
async fn of_group(world: &World) -> Value {
    let (_, said) = world
        .afterwrite(&["status", "--group", "recorder", "--output", "json"])
        .await;
    // Nothing is said of a group that has not started yet.
    let report: Value = serde_json::from_str(&said).unwrap_or_default();
    report["groups"][0].clone()
}

async fn until_it_says(world: &World, what: &str, says: impl Fn(&Value) -> bool) -> Value {
    until(what, Duration::from_secs(60), async || {
        Some(of_group(world).await).filter(|group| says(group))
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn status_says_what_runs_waits_and_how_far_behind_it_is() {
    let _stack = stack::shared().await;
    let world = World::bare("status").await;
    producer::make_topic(&world.topic()).await;
    let worker = world.worker("w", &[("AFTERWRITE__ENGINE__ATTEMPTS_MAX", "1000")]);
    producer::write_change(&world.topic(), 1, "ok").await;
    until("the first effect", Duration::from_secs(60), async || {
        (world.count("SELECT count(*) FROM effects").await == 1).then_some(())
    })
    .await;
    // One hangs with another of its key behind it, one is tried again every second, one is buried.
    for (k, behaviour) in [(2, "hang"), (3, "later"), (4, "permanent")] {
        producer::write_change(&world.topic(), k, behaviour).await;
    }
    producer::write_versions(&world.topic(), 2..3, 2).await;
    let group = until_it_says(&world, "what waits to be told", |group| {
        group["jobs"]["running"] == 1 && group["jobs"]["retrying"] == 1 && group["letters_open"] == 1
    })
    .await;
    println!("{}: {group}", world.name);
    // The first of key 2 that follows has an identity of its own, the second too: both wait behind the one that hangs.
    assert_eq!(
        (&group["state"], &group["jobs"]["waiting"]),
        (&json!("running"), &json!(2))
    );
    assert_eq!(group["handlers"], json!(["recorder"]));
    assert_eq!(group["membership"]["state"], "Stable");
    assert_eq!(group["membership"]["members"].as_array().unwrap().len(), 1);
    assert_eq!(group["processes"][0]["state"], "running");
    assert_eq!(
        (&group["oldest_open"]["handler"], &group["oldest_open"]["offset"]),
        (&json!("recorder"), &json!(1))
    );
    assert_eq!(
        group["letters"],
        json!([{"class": "permanent", "state": "open", "count": 1}])
    );
    // The position stands before the one that hangs.
    let partition = &group["partitions"][0];
    assert_eq!((&partition["committed"], &partition["end"]), (&json!(1), &json!(6)));
    assert_eq!((&group["lag_events"], &partition["stopped"]), (&json!(5), &Value::Null));
    let host = group["processes"][0]["host"].as_str().unwrap();
    assert!(partition["process"].as_str().unwrap().starts_with(host), "{partition}");
    assert!(
        group["lag_s"].as_i64().unwrap() < 120 && group["progressed_at"].is_string(),
        "{group}"
    );

    worker.kill();
    let group = until_it_says(&world, "the death to show", |group| {
        group["processes"][0]["state"] == "gone"
    })
    .await;
    assert_eq!(group["state"], "stopped", "the broker has forgotten the member by then");
    world.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_that_is_stopped_is_named_with_its_reason() {
    let _stack = stack::shared().await;
    let world = World::bare("status_stopped").await;
    producer::make_topic(&world.topic()).await;
    let worker = world.worker("w", &[]);
    producer::write_versions(&world.topic(), 1..2, 3).await;
    until("the effects", Duration::from_secs(60), async || {
        (world.count("SELECT count(*) FROM effects").await == 3).then_some(())
    })
    .await;
    worker.stop().await;
    let group = of_group(&world).await;
    assert_eq!(
        (&group["state"], &group["lag_events"]),
        (&json!("stopped"), &json!(0)),
        "{group}"
    );
    assert_eq!(group["processes"][0]["state"], "stopped");

    producer::write_versions(&world.topic(), 2..3, 2).await;
    producer::delete_before(&world.topic(), 4).await;
    let overtaken = of_group(&world).await;
    assert_eq!(
        overtaken["partitions"][0]["stopped"],
        json!({"reason": "overtaken", "lost": 1})
    );
    producer::forget_group(&world.group()).await;
    let lost = of_group(&world).await;
    assert_eq!(
        lost["partitions"][0]["stopped"],
        json!({"reason": "offset_lost", "first_offset": 0})
    );
    let (_, said) = world.afterwrite(&["status"]).await;
    let remedy = format!(
        "afterwrite replay --group recorder --to-offset {}:0:beginning",
        world.topic()
    );
    assert!(said.contains(&remedy), "{said}");
    world.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_that_is_away_is_named_and_the_other_is_shown() {
    let _stack = stack::shared().await;
    let world = World::bare("status_away").await;
    producer::make_topic(&world.topic()).await;
    let worker = world.worker("w", &[]);
    producer::write_change(&world.topic(), 1, "ok").await;
    until_it_says(&world, "the position", |group| group["partitions"][0]["committed"] == 1).await;
    let postgres = format!("postgres://nobody@{NOWHERE}/none");
    let without_kafka = world.said(&["status", "--output", "json"], ("KAFKA_BROKERS", NOWHERE));
    let without_postgres = world.said(&["status", "--output", "json"], ("DATABASE_URL", &postgres));
    let (without_kafka, without_postgres) = futures::future::join(without_kafka, without_postgres).await;
    for ((code, said, error), part) in [(&without_kafka, "kafka"), (&without_postgres, "postgres")] {
        assert_eq!(*code, Some(3), "{part}: {error}");
        let report: Value = serde_json::from_str(said).unwrap();
        assert_eq!(report["missing"][0]["part"], part, "{report}");
        assert_eq!(report["groups"][0]["state"], "running", "{report}");
        assert_eq!(report["groups"][0]["partitions"].is_null(), part == "kafka", "{report}");
        assert_eq!(report["groups"][0]["jobs"].is_null(), part == "postgres", "{report}");
    }
    let report: Value = serde_json::from_str(&without_postgres.1).unwrap();
    assert_eq!(report["groups"][0]["partitions"][0]["committed"], 1);
    worker.stop().await;
    world.remove().await;
}
