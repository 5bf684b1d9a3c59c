//! Where a group begins, what lies before its beginning, and what a topic removes before the group has read it.

use std::time::Duration;

use crate::producer;
use crate::stack::{self, until};
use crate::world::World;

const WITHIN: Duration = Duration::from_secs(60);

const AT_THE_END: &[(&str, &str)] = &[
    ("AFTERWRITE__KAFKA__START", "latest"),
    ("AFTERWRITE__KAFKA__METADATA_REFRESH_MS", "1000"),
];

async fn began(world: &World) {
    until("the beginning to be written down", WITHIN, async || {
        (world.count("SELECT count(*) FROM afterwrite.groups").await == 1).then_some(())
    })
    .await;
}

async fn effects(world: &World, expected: i64) {
    until("the effects", WITHIN, async || {
        (world.count("SELECT count(*) FROM effects").await >= expected).then_some(())
    })
    .await;
    assert_eq!(world.count("SELECT count(*) FROM effects").await, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_start_at_the_end_that_is_interrupted_begins_where_it_was_first_made() {
    let _stack = stack::shared().await;
    let world = World::bare("interrupted").await;
    producer::make_topic(&world.topic()).await;
    producer::write_change(&world.topic(), 1, "ok").await;
    // No claim can be taken: the first start gets no further than its beginning.
    let mut locked = world.pool.begin().await.unwrap();
    sqlx::query("LOCK TABLE afterwrite.claims IN SHARE MODE")
        .execute(&mut *locked)
        .await
        .unwrap();
    let first = world.worker("first", AT_THE_END);
    began(&world).await;
    first.kill();
    producer::write_change(&world.topic(), 2, "ok").await;
    locked.rollback().await.unwrap();
    let second = world.worker("second", AT_THE_END);
    effects(&world, 1).await;
    assert_eq!(world.count("SELECT count(*) FROM effects WHERE k = 2").await, 1);
    second.stop().await;
    world.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_is_made_before_anything_was_claimed_is_read_from_its_beginning() {
    let _stack = stack::shared().await;
    let world = World::bare("before_claims").await;
    let worker = world.worker("w", AT_THE_END);
    began(&world).await;
    producer::make_topic(&world.topic()).await;
    producer::write_change(&world.topic(), 1, "ok").await;
    producer::write_change(&world.topic(), 2, "ok").await;
    effects(&world, 2).await;
    worker.stop().await;
    world.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_position_that_was_overtaken_stops_its_partition_and_is_named_once() {
    let _stack = stack::shared().await;
    let world = World::bare("overtaken").await;
    producer::make_topic_of(&world.topic(), 2).await;
    let worker = world.worker("before", &[]);
    producer::write_round(&world.topic(), 2, 0..2, 1).await;
    effects(&world, 2).await;
    until("the commit", WITHIN, async || {
        producer::committed(&world.group(), &world.topic()).filter(|offset| *offset == 1)
    })
    .await;
    worker.stop().await;
    for k in [2, 4, 6] {
        producer::write_change(&world.topic(), k, "ok").await;
    }
    producer::remove_before(&world.topic(), 3).await;
    let worker = world.worker("after", &[]);
    let named = "records before this group's position are gone";
    until("the gap to be named", WITHIN, async || {
        worker.said().contains(named).then_some(())
    })
    .await;
    producer::write_change_to(&world.topic(), 1, 3, "ok").await;
    effects(&world, 3).await;
    let said = worker.said();
    assert_eq!(said.matches(named).count(), 1, "{said}");
    assert!(
        said.contains("position=1") && said.contains("oldest=3") && said.contains("lost=2"),
        "{said}"
    );
    worker.stop().await;
    world.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_that_retention_is_about_to_overtake_says_so_before_anything_is_lost() {
    let _stack = stack::shared().await;
    let world = World::bare("retention").await;
    let topic = world.topic();
    producer::make_topic(&topic).await;
    producer::configure(&topic, &[("retention.ms", "10000000")]).await;
    let ago = |thousands: u64| Duration::from_secs(thousands * 1_000);
    producer::write_aged(&topic, 1, "hold:w", ago(6)).await;
    producer::write_aged(&topic, 2, "ok", ago(0)).await;
    let worker = world.worker("w", &[]);
    let half = "the oldest unsettled record of this partition has used up half of the topic's retention";
    until("the warning", WITHIN, async || {
        worker.said().contains(half).then_some(())
    })
    .await;
    let said = worker.said();
    assert!(
        said.contains("age_s=60") && said.contains("retention_s=10000"),
        "{said}"
    );
    assert!(!said.contains("about to overtake"), "{said}");
    worker.kill();

    // The next one looks as soon as it has claimed the partition.
    producer::configure(&topic, &[("retention.ms", "7000000")]).await;
    let worker = world.worker("x", &[]);
    let most = "the topic's retention is about to overtake this group";
    until("the alarm", WITHIN, async || worker.said().contains(most).then_some(())).await;
    assert!(worker.said().contains("retention_s=7000"), "{}", worker.said());
    effects(&world, 2).await;
    worker.stop().await;
    world.remove().await;
}
