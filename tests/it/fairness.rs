//! One partition whose work is slow, and the others.

use std::time::Duration;

use crate::producer;
use crate::stack::{self, until};
use crate::world::World;

/// More than is on its way between broker and engine.
const SLOW: i64 = 1_200;
const QUICK: i64 = 20;

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_whose_window_is_full_does_not_hold_up_the_others() {
    let _stack = stack::shared().await;
    let world = World::bare("fair").await;
    producer::make_topic_of(&world.topic(), 2).await;
    producer::write_many_of(&world.topic(), 0, 1, SLOW, "fail:2").await;
    let settings = [
        ("AFTERWRITE__ENGINE__BUFFERED_EVENTS_MAX", "4"),
        ("AFTERWRITE__ENGINE__WAIT_FIRST_MS", "20"),
        // Most attempts fail here, which is no outage.
        ("AFTERWRITE__ENGINE__SUSPEND_ATTEMPTS_MIN", "0"),
        ("AFTERWRITE__ENGINE__SUSPEND_SILENCE_MS", "0"),
    ];
    let worker = world.worker("w", &settings);
    until("the slow ones to be under way", Duration::from_secs(60), async || {
        (world.count("SELECT count(*) FROM effects").await > 0).then_some(())
    })
    .await;
    producer::write_many_of(&world.topic(), 1, 2, QUICK, "ok").await;
    until("the quick ones", Duration::from_secs(90), async || {
        (world.count("SELECT count(*) FROM effects WHERE k = 2").await == QUICK).then_some(())
    })
    .await;
    let slow = world.count("SELECT count(*) FROM effects WHERE k = 1").await;
    assert!(
        slow < SLOW / 4,
        "{slow} of {SLOW} slow events were done before the last quick one"
    );
    // What was held back meanwhile comes too, and in order.
    until("the slow ones", Duration::from_secs(120), async || {
        (world.count("SELECT count(*) FROM effects WHERE k = 1").await == SLOW).then_some(())
    })
    .await;
    let back = "SELECT count(*) FROM (SELECT seq, lag(seq) OVER (ORDER BY n) AS before FROM effects WHERE k = 1) AS s
                WHERE seq <> coalesce(before, 0) + 1";
    assert_eq!(world.count(back).await, 0, "slow events out of order");
    worker.stop().await;
    world.remove().await;
}
