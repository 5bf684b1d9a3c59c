//! A dead-letter topic that refuses the letter blocks the commit, not the neighbours; when it takes letters again,
//! everything goes on by itself.

use std::time::Duration;

use crate::producer;
use crate::stack::{self, until};
use crate::world::World;

#[tokio::test(flavor = "multi_thread")]
async fn an_unwritable_dead_letter_topic_blocks_the_commit_and_heals() {
    let _stack = stack::shared().await;
    let world = World::bare("unwritable").await;
    producer::make_topic(&world.topic()).await;
    let worker = world.worker("w", &[]);
    let letters = format!("{}.dlq", world.group());
    until("the first commit", Duration::from_secs(60), async || {
        (producer::committed(&world.group(), &world.topic()) == Some(0)).then_some(())
    })
    .await;
    // A compacted topic takes no record without a key.
    producer::configure(&letters, &[("cleanup.policy", "compact")]).await;
    producer::write_keyless(&world.topic(), b"neither json nor avro").await;
    for offset in 1..=20 {
        producer::write_change(&world.topic(), offset, "ok").await;
    }
    until("the neighbours' effects", Duration::from_secs(60), async || {
        (world.count("SELECT count(*) FROM effects").await == 20).then_some(())
    })
    .await;
    until("two refusals", Duration::from_secs(60), async || {
        let refusals = worker.said().matches("dead letter could not be written").count();
        (refusals >= 2).then_some(())
    })
    .await;
    assert_eq!(
        producer::committed(&world.group(), &world.topic()),
        Some(0),
        "nothing is committed past the letter"
    );
    assert_eq!(world.count("SELECT count(*) FROM afterwrite.letters").await, 0);
    producer::configure(&letters, &[("cleanup.policy", "delete")]).await;
    until("the commit to go on", Duration::from_secs(60), async || {
        (producer::committed(&world.group(), &world.topic()) == Some(21)).then_some(())
    })
    .await;
    assert_eq!(world.count("SELECT count(*) FROM afterwrite.letters").await, 1);
    println!(
        "{}: commit held at 0 while the letter was refused, 20 neighbours done, then committed to 21 with 1 letter",
        world.name
    );
    worker.stop().await;
    world.remove().await;
}
