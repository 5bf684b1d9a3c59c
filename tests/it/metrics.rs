//! What a scrape of a worker tells that only brokers and clocks know: how far behind it is, and how long things took.

use std::time::Duration;

use crate::producer;
use crate::stack::{self, until};
use crate::suspending::asked;
use crate::world::World;

const WITHIN: Duration = Duration::from_secs(60);

/// Effects of events behind the one that is held.
const DONE: i64 = 5;

#[tokio::test(flavor = "multi_thread")]
async fn a_scrape_tells_how_far_behind_a_group_is_and_how_long_its_attempts_took() {
    let _stack = stack::shared().await;
    let world = World::bare("metrics").await;
    producer::make_topic(&world.topic()).await;
    let worker = world.worker("w", &[("AFTERWRITE__ADMIN__LISTEN", "localhost:0")]);
    producer::write_change(&world.topic(), 1, "hold:w").await;
    for k in 2..2 + DONE {
        producer::write_change(&world.topic(), k, "ok").await;
    }
    producer::write_change(&world.topic(), 100, "permanent").await;
    until("every effect but the one that is held", WITHIN, async || {
        (world.count("SELECT count(*) FROM effects").await == DONE).then_some(())
    })
    .await;
    // The first record is held, so all of them are between the committed position and the end.
    let group = world.group();
    let lines = [
        format!("afterwrite_events_behind{{group=\"{group}\"}} {}.0", DONE + 2),
        format!("afterwrite_attempts_total{{group=\"{group}\",handler=\"recorder\",outcome=\"done\"}} {DONE}"),
        format!("afterwrite_attempts_total{{group=\"{group}\",handler=\"recorder\",outcome=\"permanent\"}} 1"),
        format!(
            "afterwrite_attempt_duration_seconds_count{{group=\"{group}\",handler=\"recorder\"}} {}",
            DONE + 1
        ),
        format!("afterwrite_commit_to_done_seconds_count{{group=\"{group}\",handler=\"recorder\"}} {DONE}"),
        format!("afterwrite_dead_letters_total{{group=\"{group}\",class=\"permanent\"}} 1"),
    ];
    until("the scrape to tell all of it", WITHIN, async || {
        let (_, metrics) = asked(&worker, "/metrics").await;
        lines
            .iter()
            .all(|line| metrics.lines().any(|told| told == line))
            .then_some(())
    })
    .await;
    worker.kill();
    world.remove().await;
}
