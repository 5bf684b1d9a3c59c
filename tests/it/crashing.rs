//! A job that kills the process, and a lane that is parked behind a dead letter.

use std::time::Duration;

use crate::producer;
use crate::stack::{self, until};
use crate::world::World;

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_kills_the_process_becomes_a_dead_letter_and_its_neighbours_are_done() {
    let _stack = stack::shared().await;
    let world = World::bare("crashing").await;
    producer::make_topic(&world.topic()).await;
    for key in 1..=20 {
        let behaviour = if key == 7 { "abort" } else { "ok" };
        producer::write_change(&world.topic(), key, behaviour).await;
    }
    let settings = [
        ("AFTERWRITE__ENGINE__CRASH_DEATHS_MAX", "2"),
        ("AFTERWRITE__KAFKA__SESSION_TIMEOUT_MS", "6000"),
        ("AFTERWRITE__KAFKA__HEARTBEAT_INTERVAL_MS", "1000"),
    ];
    let mut started = 0;
    let mut worker = None;
    until(
        "the dead letter and the neighbours",
        Duration::from_secs(150),
        async || {
            if worker.as_mut().is_none_or(crate::worker::Worker::has_ended) {
                started += 1;
                worker = Some(world.worker(&format!("w{started}"), &settings));
            }
            let letters = world
                .count("SELECT count(*) FROM afterwrite.letters WHERE class = 'crashed'")
                .await;
            (letters == 1 && world.count("SELECT count(*) FROM effects").await == 19).then_some(())
        },
    )
    .await;
    assert_eq!(
        world.count("SELECT count(*) FROM afterwrite.letters").await,
        1,
        "a neighbour was blamed"
    );
    assert_eq!(world.count("SELECT count(DISTINCT k) FROM effects").await, 19);
    // Once when nobody knew of it, once with a mark, and twice alone.
    assert_eq!(started, 5, "the fifth process buried it");
    println!(
        "{}: {started} processes, 1 dead letter of class crashed, 19 neighbours done",
        world.name
    );
    if let Some(worker) = worker {
        worker.stop().await;
    }
    world.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn later_events_of_a_key_wait_behind_its_dead_letter_and_go_on_in_order() {
    let _stack = stack::shared().await;
    let world = World::captured("parked").await;
    let parks = [("AFTERWRITE__HANDLERS__RECORDER__ON_BURY", "park")];
    let worker = world.worker("first", &parks);
    sqlx::raw_sql("INSERT INTO work (k, seq, behaviour) VALUES (1, 1, 'permanent'), (2, 1, 'ok')")
        .execute(&world.pool)
        .await
        .unwrap();
    let open = "SELECT count(*) FROM afterwrite.letters WHERE state = 'open'";
    until("the dead letter", Duration::from_secs(60), async || {
        (world.count(open).await == 1).then_some(())
    })
    .await;
    for seq in 2..=4 {
        sqlx::query("UPDATE work SET seq = $1, behaviour = 'ok'")
            .bind(seq)
            .execute(&world.pool)
            .await
            .unwrap();
    }
    until("the followers to be stored", Duration::from_secs(60), async || {
        let stored = world.count("SELECT count(*) FROM afterwrite.parked").await;
        let others = world.count("SELECT count(*) FROM effects WHERE k = 2").await;
        (stored == 3 && others == 4).then_some(())
    })
    .await;
    assert_eq!(
        world.count("SELECT count(*) FROM effects WHERE k = 1").await,
        0,
        "a follower overtook"
    );
    worker.stop().await;
    let worker = world.worker("second", &parks);
    sqlx::raw_sql("UPDATE work SET seq = 5; INSERT INTO mended VALUES (1)")
        .execute(&world.pool)
        .await
        .unwrap();
    let (code, said) = world
        .afterwrite(&["dlq", "replay", "--all", "--group", "recorder", "--wait"])
        .await;
    assert_eq!(code, 0, "{said}");
    until("all in order", Duration::from_secs(60), async || {
        (world.count("SELECT count(*) FROM effects WHERE k = 1").await == 5).then_some(())
    })
    .await;
    let order: Vec<i32> = sqlx::query_scalar("SELECT seq FROM effects WHERE k = 1 ORDER BY at, seq")
        .fetch_all(&world.pool)
        .await
        .unwrap();
    assert_eq!(order, [1, 2, 3, 4, 5]);
    until("the lane to be live", Duration::from_secs(30), async || {
        (world.count("SELECT count(*) FROM afterwrite.parked_lanes").await == 0).then_some(())
    })
    .await;
    println!("{}: 1 dead letter, 4 followers held back and done in order", world.name);
    worker.stop().await;
    world.remove().await;
}
