//! The connector of this repository, as it is deployed: idempotent, explains itself, keeps a campaign together.

use std::collections::HashMap;
use std::time::Duration;

use serde_json::{Value, json};

use crate::producer;
use crate::stack::{self, until};
use crate::world::{World, connector_config};

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
