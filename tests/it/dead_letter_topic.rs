//! A dead-letter topic that exists is checked before anything is fetched: one that would lose or refuse letters ends the
//! start, one that keeps them for less than configured is warned about.

use std::time::Duration;

use crate::producer;
use crate::stack::{self, until};
use crate::worker::Worker;
use crate::world::World;

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_topic_that_would_lose_letters_ends_the_start() {
    let _stack = stack::shared().await;
    let world = World::bare("topic").await;
    let topic = format!("{}.email.dlq", world.name);
    producer::make_topic(&topic).await;
    producer::configure(
        &topic,
        &[("cleanup.policy", "compact,delete"), ("max.message.bytes", "1000")],
    )
    .await;

    let mut run = world.command(env!("CARGO_BIN_EXE_afterwrite"));
    let ended = run.args(["run", "--only", "email,reward"]).kill_on_drop(true).output();
    let ended = tokio::time::timeout(Duration::from_secs(60), ended).await;
    let output = ended.expect("the process ends by itself").unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{said}");
    let last = said.lines().last().unwrap();
    for part in [
        &*format!("dead-letter topic {topic} cannot be used"),
        "cleanup.policy is compact,delete",
        "--add-config cleanup.policy=delete",
        "max.message.bytes is 1000",
        "10551296 bytes (dead_letters.message_bytes_max)",
        "--add-config max.message.bytes=10551296",
    ] {
        assert!(last.contains(part), "{part} is missing: {said}");
    }
    assert!(
        producer::committed(&format!("{}.email", world.name), &world.topic()).is_none(),
        "nothing was fetched"
    );

    producer::configure(
        &topic,
        &[("max.message.bytes", "10551296"), ("retention.ms", "3600000")],
    )
    .await;
    let worker = Worker::waitlist(&world, "mended", &[]);
    until("the warning", Duration::from_secs(60), async || {
        let part = "keeps letters for less than dead_letters.retention_ms";
        worker.said().contains(part).then_some(())
    })
    .await;
    println!(
        "{}: exit code 2 for a compacted topic, a warning for a short retention",
        world.name
    );
    worker.stop().await;
    world.remove().await;
}
