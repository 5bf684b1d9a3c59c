//! The connector of this repository, as it is deployed: idempotent, explains itself, keeps a campaign together.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use sqlx::AssertSqlSafe;

use crate::producer;
use crate::stack::{self, until};
use crate::world::{World, connector_config};

/// No setting more than a world has.
const NOTHING: (&str, &str) = ("LC_ALL", "C");

#[tokio::test(flavor = "multi_thread")]
async fn a_campaign_stays_in_one_partition_and_secrets_stay_in_the_database() {
    let _stack = stack::shared().await;
    let world = World::waitlist("campaigns").await;
    sqlx::query(
        "WITH campaign AS (
             INSERT INTO campaigns (account_id, name, slug, status)
             SELECT gen_random_uuid(), 'c' || n, 'c' || n, 'active' FROM generate_series(1, 12) n RETURNING id)
         INSERT INTO waitlist_users (campaign_id, email, referral_code, verification_token)
         SELECT id, n || '@example.org', id::text || n, 'sesame-' || n FROM campaign, generate_series(1, 10) n",
    )
    .execute(&world.pool)
    .await
    .unwrap();
    let topic = format!("{}.public.waitlist_users", world.name);
    until("the topic", Duration::from_secs(60), async || {
        producer::exists(&topic).then_some(())
    })
    .await;
    let records = until("all users", Duration::from_secs(60), async || {
        let records = producer::read_all(&topic).await;
        (records.len() == 120).then_some(records)
    })
    .await;
    let mut partitions: HashMap<String, i32> = HashMap::new();
    for record in &records {
        let text = String::from_utf8(record.value.clone().unwrap()).unwrap();
        assert!(
            !text.contains("sesame") && !text.contains("verification_token"),
            "a token left the database"
        );
        let value: Value = serde_json::from_str(&text).unwrap();
        let campaign = value["after"]["campaign_id"].as_str().unwrap().to_owned();
        let known = *partitions.entry(campaign).or_insert(record.partition);
        assert_eq!(known, record.partition, "a campaign is spread over partitions");
    }
    let used: std::collections::HashSet<i32> = partitions.values().copied().collect();
    println!(
        "{}: {} campaigns on {} of 8 partitions",
        world.name,
        partitions.len(),
        used.len()
    );
    assert_eq!(partitions.len(), 12);
    assert!(used.len() > 1, "everything went to one partition");
    world.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_written_right_after_a_connector_was_applied_is_captured() {
    let _stack = stack::shared().await;
    let world = World::captured("apply_then_write").await;
    sqlx::query("INSERT INTO work (k, seq) VALUES (1, 1)")
        .execute(&world.pool)
        .await
        .unwrap();
    until("the topic", Duration::from_secs(60), async || {
        producer::exists(&world.topic()).then_some(())
    })
    .await;
    until("the row", Duration::from_secs(60), async || {
        (producer::read_all(&world.topic()).await.len() == 1).then_some(())
    })
    .await;
    world.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn applying_again_changes_nothing_and_a_task_that_fails_is_explained() {
    let _stack = stack::shared().await;
    let world = World::captured("apply").await;
    let mut config = connector_config("waitlist");
    config.retain(|key, _| {
        !["transforms", "predicates", "column.exclude", "signal"]
            .iter()
            .any(|p| key.starts_with(p))
    });
    config.insert("publication.name".to_owned(), json!("it"));
    config.insert(
        "table.include.list".to_owned(),
        json!("public\\.work,afterwrite\\.heartbeat"),
    );
    let (code, said) = world.deploy_connector(config.clone()).await;
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("unchanged"), "{said}");
    let active = format!("its slot {} is active", world.name);
    assert!(said.contains(&active), "rows written now are captured: {said}");

    // Nobody sets this variable, so Connect takes the text itself for a number.
    config.insert(
        "topic.creation.default.replication.factor".to_owned(),
        json!("${env:DEBEZIUM_NOBODY_SETS_THIS}"),
    );
    let (code, _) = world.deploy_connector(config).await;
    assert_eq!(code, 1, "a task that does not run is a failure");
    let (_, status) = world.afterwrite(&["connector", "status", &world.name]).await;
    assert!(
        status.contains("DEBEZIUM_NOBODY_SETS_THIS"),
        "the trace names the cause: {status}"
    );
    world.remove().await;
}

/// The file of a connector with other settings, beside the one that is in effect.
fn with(file: &Path, settings: &[(&str, &str)]) -> PathBuf {
    let mut config: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    for (key, value) in settings {
        config[*key] = json!(value);
    }
    let changed = file.with_extension("changed.json");
    std::fs::write(&changed, config.to_string()).unwrap();
    changed
}

/// Who reads the slot of a world.
async fn reader(world: &World) -> Option<i32> {
    let reader = "SELECT active_pid FROM pg_replication_slots WHERE slot_name = $1";
    sqlx::query_scalar(reader)
        .bind(&world.name)
        .fetch_one(&world.pool)
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_loses_changes_is_refused_and_a_connector_rests_and_goes_on_when_it_is_told() {
    let _stack = stack::shared().await;
    let world = World::captured("lossy").await;
    refuses_what_loses_changes(&world).await;
    rests_and_goes_on(&world).await;
    starts_again(&world).await;
    let (code, said) = world.afterwrite(&["connector", "delete", &world.name]).await;
    let statement = format!("SELECT pg_drop_replication_slot('{}');", world.name);
    assert!(
        code == 0 && said.trim().ends_with(&statement) && said.contains(" now)"),
        "{said}"
    );
    // As it was printed.
    let printed = said.trim().rsplit_once(": ").unwrap().1.to_owned();
    sqlx::query(AssertSqlSafe(printed)).execute(&world.pool).await.unwrap();
    world.remove().await;
}

async fn refuses_what_loses_changes(world: &World) {
    let before = reader(world).await;
    let file = world.connector_file(World::of_work("waitlist", &[]));
    let lossy = [
        ("slot.name", "another"),
        ("table.include.list", r"afterwrite\.heartbeat"),
        ("database.password", "hunter2"),
    ];
    let changed = with(&file, &lossy);
    let words = ["connector", "plan", changed.to_str().unwrap(), "--output", "json"];
    let (code, plan, said) = world.said(&words, NOTHING).await;
    let plan: Value = serde_json::from_str(&plan).unwrap();
    assert_eq!(
        (code, plan["result"].as_str()),
        (Some(1), Some("would be changed")),
        "{plan} {said}"
    );
    let losses = plan["losses"].as_array().unwrap().iter();
    let accept: Vec<&str> = losses.map(|loss| loss["accept"].as_str().unwrap()).collect();
    assert_eq!(accept, ["slot.name", "table.include.list"], "{plan}");
    let slot = json!({"key": "slot.name", "before": world.name, "after": "another"});
    assert!(plan["changes"].as_array().unwrap().contains(&slot), "{plan}");
    assert!(
        plan.to_string().contains("public.work are captured by nobody"),
        "{plan}"
    );
    assert!(!format!("{plan} {said}").contains("hunter2"), "{plan} {said}");

    let changed = with(&file, &lossy[..2]);
    let changed = changed.to_str().unwrap();
    let apply = ["connector", "apply", changed, "--accept-loss", "slot.name"];
    let (code, _, said) = world.said(&apply, NOTHING).await;
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.ends_with("--accept-loss table.include.list\n"),
        "one loss was accepted: {said}"
    );
    assert_eq!(reader(world).await, before, "a refusal leaves the connector alone");
}

async fn rests_and_goes_on(world: &World) {
    let (code, said) = world.afterwrite(&["connector", "pause", &world.name]).await;
    let paused = format!("connector {} paused", world.name);
    assert_eq!((code, said.trim()), (0, paused.as_str()));
    let restart = ["connector", "restart", &world.name];
    let (code, _, said) = world.said(&restart, NOTHING).await;
    assert!(
        code == Some(1) && said.contains("afterwrite connector resume"),
        "{said}"
    );
    let insert = "INSERT INTO work (k, seq) VALUES (1, 1)";
    sqlx::query(insert).execute(&world.pool).await.unwrap();
    let (code, said) = world.afterwrite(&["connector", "resume", &world.name]).await;
    assert!(code == 0 && said.contains("is active"), "{said}");
    let topic = world.topic();
    until("what was written meanwhile", Duration::from_secs(60), async || {
        let is_there = producer::exists(&topic) && producer::read_all(&topic).await.len() == 1;
        is_there.then_some(())
    })
    .await;
}

async fn starts_again(world: &World) {
    let before = reader(world).await;
    let failed = ["connector", "restart", &world.name, "--failed-only"];
    let (_, said) = world.afterwrite(&failed).await;
    assert!(
        said.contains("nothing of it failed") && reader(world).await == before,
        "{said}"
    );
    let tasks = ["connector", "restart", &world.name, "--tasks"];
    let (code, said) = world.afterwrite(&tasks).await;
    assert!(
        code == 0 && said.contains("restarted") && said.contains("is active"),
        "{said}"
    );
    assert_ne!(reader(world).await, before, "the task is another one");
}
