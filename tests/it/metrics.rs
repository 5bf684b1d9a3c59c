//! What a scrape of a worker tells that only brokers and clocks know: how far behind it is, and how long things took.

use std::time::Duration;

use crate::producer;
use crate::stack::{self, until};
use crate::suspending::{address, asked};
use crate::worker::Worker;
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
        format!(
            "afterwrite_events_behind{{group=\"{group}\",critical=\"true\"}} {}.0",
            DONE + 2
        ),
        format!(
            "afterwrite_attempts_total{{group=\"{group}\",critical=\"true\",handler=\"recorder\",outcome=\"done\"}} {DONE}"
        ),
        format!(
            "afterwrite_attempts_total{{group=\"{group}\",critical=\"true\",handler=\"recorder\",outcome=\"permanent\"}} 1"
        ),
        format!(
            "afterwrite_attempt_duration_seconds_count{{group=\"{group}\",critical=\"true\",handler=\"recorder\"}} {}",
            DONE + 1
        ),
        format!(
            "afterwrite_commit_to_done_seconds_count{{group=\"{group}\",critical=\"true\",handler=\"recorder\"}} {DONE}"
        ),
        format!("afterwrite_dead_letters_total{{group=\"{group}\",critical=\"true\",class=\"permanent\"}} 1"),
    ];
    until("the scrape to tell all of it", WITHIN, async || {
        let (_, metrics) = asked(&worker, "/metrics").await;
        lines
            .iter()
            .all(|line| metrics.lines().any(|told| told == line))
            .then_some(())
    })
    .await;
    assert_eq!(health(&world, &worker, &[]).await.0, 0);
    let (code, said) = health(&world, &worker, &["--ready", "--output", "json"]).await;
    let said: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!((code, &said["groups"][0]["group"]), (0, &group.as_str().into()));
    let setting = listens(&worker);
    worker.kill();
    assert_eq!(ran(&world, &["health", "--set", &setting]).await.0, 3);
    let (code, said) = ran(&world, &["health"]).await;
    assert!(code == 2 && said.contains("admin.listen is not set"), "{code}: {said}");
    // An image has its health check whatever the settings are, and where somebody listens it is one.
    let words = ["health", "--if-listening", "--set", &setting];
    assert_eq!(ran(&world, &words[..2]).await.0, 0);
    assert_eq!(ran(&world, &words).await.0, 3);
    world.remove().await;
}

/// What `afterwrite health` says of a worker.
async fn health(world: &World, worker: &Worker, words: &[&str]) -> (i32, String) {
    let setting = listens(worker);
    ran(world, &[&["health", "--set", &setting], words].concat()).await
}

/// The exit code of a command, and what it printed: its result, or why it has none.
async fn ran(world: &World, words: &[&str]) -> (i32, String) {
    let output = world.command(env!("CARGO_BIN_EXE_afterwrite")).args(words).output();
    let output = output.await.unwrap();
    let said = if output.status.success() {
        output.stdout
    } else {
        output.stderr
    };
    (output.status.code().unwrap(), String::from_utf8(said).unwrap())
}

fn listens(worker: &Worker) -> String {
    format!("admin.listen={}", address(worker))
}
