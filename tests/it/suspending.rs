//! An outage that only the handler sees, and a flood of failures for good: the handler is suspended, nothing more of it is
//! buried, and it goes on by itself.

use std::time::Duration;

use crate::producer;
use crate::stack::{self, until};
use crate::worker::Worker;
use crate::world::World;

const SETTINGS: &[(&str, &str)] = &[
    ("AFTERWRITE__ENGINE__ATTEMPTS_MAX", "2"),
    ("AFTERWRITE__ENGINE__WAIT_FIRST_MS", "50"),
    ("AFTERWRITE__ENGINE__OUTAGE_WAIT_MS_MAX", "200"),
    ("AFTERWRITE__ENGINE__SUSPEND_JOBS_MIN", "20"),
    ("AFTERWRITE__ADMIN__LISTEN", "localhost:0"),
];

async fn until_it_said(worker: &Worker, what: &str, times: usize) {
    until(what, Duration::from_secs(60), async || {
        (worker.said().matches(what).count() >= times).then_some(())
    })
    .await;
}

async fn suspended(world: &World) -> String {
    let (_, said) = world
        .afterwrite(&["status", "--group", "recorder", "--output", "json"])
        .await;
    let report: serde_json::Value = serde_json::from_str(&said).unwrap();
    report["groups"][0]["suspended"].to_string()
}

/// Where the worker answers.
pub(crate) fn address(worker: &Worker) -> String {
    let said = worker.said();
    let line = said.lines().find(|line| line.contains("told over HTTP"));
    let (_, address) = line
        .and_then(|line| line.split_once("address="))
        .expect("it says where");
    address.trim().to_owned()
}

/// What the worker answers, with its status.
pub(crate) async fn asked(worker: &Worker, path: &str) -> (u16, String) {
    let answer = reqwest::get(format!("http://{}{path}", address(worker))).await.unwrap();
    (answer.status().as_u16(), answer.text().await.unwrap())
}

fn is_suspended(value: u8, world: &World) -> String {
    let group = world.group();
    format!("afterwrite_suspended{{group=\"{group}\",critical=\"true\",handler=\"recorder\"}} {value}.0")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_whose_attempts_all_fail_is_suspended_buries_nothing_and_goes_on_by_itself() {
    let _stack = stack::shared().await;
    let world = World::bare("suspended").await;
    producer::make_topic(&world.topic()).await;
    let worker = world.worker("w", SETTINGS);
    for k in 1..=40 {
        producer::write_change(&world.topic(), k, "down").await;
    }
    until_it_said(&worker, "handler suspended", 1).await;
    let before = world.count("SELECT count(*) FROM attempts").await;
    until(
        "more probes than a job has attempts",
        Duration::from_secs(60),
        async || (world.count("SELECT count(*) FROM attempts").await > before + 10).then_some(()),
    )
    .await;
    until("the suspension to be told", Duration::from_secs(60), async || {
        suspended(&world).await.contains("recorder").then_some(())
    })
    .await;
    let (_, metrics) = asked(&worker, "/metrics").await;
    assert!(metrics.contains(&is_suspended(1, &world)), "{metrics}");
    // A restart would not mend it, so the process is neither dead nor unready for it; but it says so.
    assert_eq!(asked(&worker, "/healthz").await.0, 200);
    let (ready, reasons) = asked(&worker, "/readyz").await;
    let reasons: serde_json::Value = serde_json::from_str(&reasons).unwrap();
    assert_eq!((ready, &reasons["groups"][0]["state"]), (200, &"running".into()));
    assert_eq!(reasons["groups"][0]["suspended"][0]["handler"], "recorder", "{reasons}");
    assert_eq!(
        world.count("SELECT count(*) FROM afterwrite.letters").await,
        0,
        "an outage buried something"
    );
    sqlx::query("INSERT INTO mended VALUES (0)")
        .execute(&world.pool)
        .await
        .unwrap();
    until("every effect", Duration::from_secs(60), async || {
        (world.count("SELECT count(*) FROM effects").await == 40).then_some(())
    })
    .await;
    until_it_said(&worker, "handler works again", 1).await;
    until("the metric to say so too", Duration::from_secs(60), async || {
        asked(&worker, "/metrics")
            .await
            .1
            .contains(&is_suspended(0, &world))
            .then_some(())
    })
    .await;
    assert_eq!(world.count("SELECT count(*) FROM afterwrite.letters").await, 0);
    worker.stop().await;
    world.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_failures_for_good_is_held_back_before_it_is_in_the_dead_letters() {
    const EVENTS: i64 = 80;
    let _stack = stack::shared().await;
    let world = World::bare("flood").await;
    producer::make_topic(&world.topic()).await;
    for k in 1..=EVENTS {
        producer::write_change(&world.topic(), k, "permanent").await;
    }
    let worker = world.worker("w", SETTINGS);
    until_it_said(&worker, "handler suspended", 1).await;
    let before = world.count("SELECT count(*) FROM attempts").await;
    until("some probes", Duration::from_secs(60), async || {
        (world.count("SELECT count(*) FROM attempts").await > before + 10).then_some(())
    })
    .await;
    // The twentieth decides; what ran beside it may still end.
    let letters = world.count("SELECT count(*) FROM afterwrite.letters").await;
    assert!(letters < 20, "{letters} letters");
    sqlx::query("INSERT INTO mended SELECT generate_series(1, $1)")
        .bind(i32::try_from(EVENTS).unwrap())
        .execute(&world.pool)
        .await
        .unwrap();
    until("everything else to be done", Duration::from_secs(60), async || {
        (world.count("SELECT count(*) FROM effects").await == EVENTS - letters).then_some(())
    })
    .await;
    assert_eq!(world.count("SELECT count(*) FROM afterwrite.letters").await, letters);
    worker.stop().await;
    world.remove().await;
}
