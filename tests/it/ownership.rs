//! Names and positions belong to somebody: a second group is refused a handler's name, a lost offset is never reset.

use std::time::Duration;

use crate::producer;
use crate::stack::{self, until};
use crate::world::World;

/// A change of `work` as the connector would print it.
fn change(k: i64) -> String {
    format!(
        r#"{{"before":null,"after":{{"k":{k},"seq":1,"behaviour":"ok"}},"op":"c","source":{{"connector":"postgresql",
        "name":"it","db":"it","schema":"public","table":"work","ts_ms":1780000000000,"txId":{k},"lsn":{k}}}}}"#
    )
}

async fn write(world: &World, k: i64) {
    producer::write(
        &world.topic(),
        format!("{{\"k\":{k}}}").as_bytes(),
        change(k).as_bytes(),
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_group_is_refused_the_name_of_a_handler() {
    let _stack = stack::shared().await;
    let world = World::bare("names").await;
    producer::make_topic(&world.topic()).await;
    let first = world.worker("first", &[]);
    until(
        "the first worker to own the topic",
        Duration::from_secs(60),
        async || first.said().contains("partition assigned").then_some(()),
    )
    .await;
    let second = world.worker("second", &[("AFTERWRITE__KAFKA__GROUP_PREFIX", "another")]);
    until("the refusal", Duration::from_secs(60), async || {
        let refused = format!("handler recorder already belongs to group {}", world.group());
        second.said().contains(&refused).then_some(())
    })
    .await;
    first.stop().await;
    world.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_offset_stops_its_partition_and_is_named() {
    let _stack = stack::shared().await;
    let world = World::bare("lost").await;
    producer::make_topic(&world.topic()).await;
    let worker = world.worker("before", &[]);
    write(&world, 1).await;
    until("the first effect", Duration::from_secs(60), async || {
        (world.count("SELECT count(*) FROM effects").await == 1).then_some(())
    })
    .await;
    worker.stop().await;

    producer::forget_group(&world.group()).await;
    write(&world, 2).await;
    let worker = world.worker("after", &[]);
    until("the loss to be named", Duration::from_secs(60), async || {
        worker
            .said()
            .contains("the committed offset of this partition was lost")
            .then_some(())
    })
    .await;
    worker.stop().await;
    assert_eq!(
        world.count("SELECT count(*) FROM effects").await,
        1,
        "nothing was fetched from a guessed position"
    );
    assert_eq!(
        producer::committed(&world.group(), &world.topic()),
        None,
        "nothing was reset"
    );
    println!(
        "{}: committed offset deleted: the partition was stopped and named, nothing was reset",
        world.name
    );
    world.remove().await;
}
