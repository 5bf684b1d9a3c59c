//! The worker without Kafka: the write-ahead log read by the source `wal`, under kills, and what it refuses.

use std::time::Duration;

use sqlx::AssertSqlSafe;
use tokio::time::Instant;

use crate::stack::{self, until};
use crate::survival::{CHANGES, ROUNDS, a_random_moment, check_effects, write_changes};
use crate::worker::Worker;
use crate::world::World;

/// Nobody listens there: whatever asks a broker fails.
const NO_BROKER: &str = "127.0.0.1:1";

pub(crate) const SETTINGS: [(&str, &str); 4] = [
    ("AFTERWRITE__SOURCE__KIND", "wal"),
    ("AFTERWRITE__WAL__PUBLICATION", "it"),
    ("KAFKA_BROKERS", NO_BROKER),
    ("AFTERWRITE__POSTGRES__CONNECT_TIMEOUT_MS", "1000"),
];

pub(crate) fn worker(world: &World, name: &str) -> Worker {
    world.worker(name, &SETTINGS)
}

pub(crate) async fn until_it_reads(worker: &Worker) {
    until("the log to be read", Duration::from_secs(60), async || {
        worker.said().contains("partition assigned").then_some(())
    })
    .await;
}

pub(crate) async fn until_effects(world: &World, count: i64) {
    until("the effects", Duration::from_secs(60), async || {
        let done: Option<i64> = sqlx::query_scalar("SELECT count(*) FROM effects")
            .fetch_one(&world.pool)
            .await
            .ok();
        (done == Some(count)).then_some(())
    })
    .await;
}

pub(crate) async fn insert(world: &World, keys: std::ops::RangeInclusive<i32>, behaviour: &str) {
    sqlx::query("INSERT INTO work (k, seq, behaviour) SELECT k, 1, $3 FROM generate_series($1, $2) k")
        .bind(*keys.start())
        .bind(*keys.end())
        .bind(behaviour)
        .execute(&world.pool)
        .await
        .unwrap();
}

/// Drops the group's slot when nobody reads it any more, then the world, which has nothing in Kafka.
pub(crate) async fn remove(world: World) {
    until("the slot to be free", Duration::from_secs(60), async || {
        let dropped = sqlx::query(
            "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE database = current_database()",
        );
        dropped.execute(&world.pool).await.ok().map(|_| ())
    })
    .await;
    world.remove_database().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_survive_kills_of_worker_and_postgres() {
    let _stack = stack::alone().await;
    let world = World::bare("wal_survives").await;
    let began = Instant::now();
    let first = worker(&world, "w0");
    // A group begins with what is written after its slot was made.
    until_it_reads(&first).await;
    let kills = async {
        let mut worked = first;
        for kill in 1..=6 {
            a_random_moment(Duration::from_secs(2)).await;
            println!("{:6.1} s: kill -9 of the worker", began.elapsed().as_secs_f64());
            worked.kill();
            worked = worker(&world, &format!("w{kill}"));
            let verb = match kill {
                2 => "kill",
                4 => "stop",
                _ => continue,
            };
            a_random_moment(Duration::from_secs(3)).await;
            println!("{:6.1} s: {verb} of postgres", began.elapsed().as_secs_f64());
            let asked = Instant::now();
            stack::order(verb, "postgres").await;
            // It waits until who reads its log has confirmed all of it, or is gone.
            let took = asked.elapsed();
            assert!(took < Duration::from_secs(15), "{verb} of postgres took {took:?}");
            stack::order("start", "postgres").await;
        }
        worked
    };
    let ((), last) = tokio::join!(write_changes(&world, 1..=ROUNDS), kills);
    check_effects(&world, CHANGES, began).await;
    last.stop().await;
    remove(world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clean_restart_repeats_nothing_and_a_second_process_waits_its_turn() {
    let _stack = stack::shared().await;
    let world = World::bare("wal_turns").await;
    let first = worker(&world, "first");
    until_it_reads(&first).await;
    insert(&world, 1..=500, "ok").await;
    until_effects(&world, 500).await;

    let second = worker(&world, "second");
    until(
        "the second to see that the slot is taken",
        Duration::from_secs(60),
        async || second.said().contains("reads the slot for somebody else").then_some(()),
    )
    .await;
    first.stop().await;
    until_it_reads(&second).await;
    insert(&world, 501..=600, "ok").await;
    until_effects(&world, 600).await;
    second.stop().await;

    assert_eq!(
        world.count("SELECT count(*) FROM attempts").await,
        600,
        "something was called again"
    );
    let ahead = world.count(
        "SELECT count(*) FROM afterwrite.slots kept JOIN pg_replication_slots slot USING (slot_name)
         WHERE slot.confirmed_flush_lsn > kept.confirmed_lsn",
    );
    assert_eq!(ahead.await, 0, "the server was told more than was kept");
    remove(world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_is_half_done_goes_on_in_its_middle() {
    let _stack = stack::shared().await;
    let world = World::bare("wal_middle").await;
    let settings = [&SETTINGS[..], &[("AFTERWRITE__ENGINE__BUFFERED_EVENTS_MAX", "50")]].concat();
    let first = world.worker("first", &settings);
    until_it_reads(&first).await;
    // One transaction of far more rows than the window holds; one of them holds the group up where it is.
    sqlx::query(
        "INSERT INTO work (k, seq, behaviour) SELECT k, 1, CASE k WHEN 700 THEN 'hold:first' ELSE 'ok' END
         FROM generate_series(1, 3000) k",
    )
    .execute(&world.pool)
    .await
    .unwrap();
    until(
        "the window to fill behind the one that holds",
        Duration::from_secs(60),
        async || (world.count("SELECT count(*) FROM effects").await > 720).then_some(()),
    )
    .await;
    // Each change has two numbers: one for the record that it may have more.
    let kept = "SELECT settled_to - position FROM afterwrite.slots";
    until("what is settled to be kept", Duration::from_secs(60), async || {
        (world.count(kept).await == 2 * 699).then_some(())
    })
    .await;
    first.kill();
    let second = world.worker("second", &settings);
    until_effects(&world, 3_000).await;
    second.stop().await;
    let repeated = world.count("SELECT count(*) - count(DISTINCT k) FROM attempts").await;
    println!(
        "{}: {repeated} of 3000 called again after a kill in the middle of their transaction",
        world.name
    );
    let settled = "SELECT count(*) FROM (SELECT FROM attempts WHERE k < 700 GROUP BY k HAVING count(*) > 1) t";
    assert_eq!(
        world.count(settled).await,
        0,
        "what was settled before the kill was called again"
    );
    assert_eq!(world.count("SELECT count(*) FROM effects").await, 3_000);
    remove(world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_that_takes_nothing_more_lets_postgres_stop() {
    let _stack = stack::alone().await;
    let world = World::bare("wal_full").await;
    let settings = [&SETTINGS[..], &[("AFTERWRITE__ENGINE__BUFFERED_EVENTS_MAX", "50")]].concat();
    let worker = world.worker("first", &settings);
    until_it_reads(&worker).await;
    insert(&world, 1..=1, "hold:first").await;
    insert(&world, 2..=3_000, "ok").await;
    // What the window holds behind the one that holds is done, and nothing more comes.
    until("the window to be full", Duration::from_secs(60), async || {
        let status = ["status", "--group", "recorder", "--output", "json"];
        let (_, said, _) = world.said(&status, ("AFTERWRITE__SOURCE__KIND", "wal")).await;
        let report: serde_json::Value = serde_json::from_str(&said).unwrap_or_default();
        let partition = &report["groups"][0]["processes"][0]["partitions"][0];
        partition["paused"].as_bool().filter(|is_paused| *is_paused)
    })
    .await;
    let asked = Instant::now();
    stack::order("stop", "postgres").await;
    let took = asked.elapsed();
    println!("{}: postgres stopped in {:.1} s", world.name, took.as_secs_f64());
    stack::order("start", "postgres").await;
    assert!(took < Duration::from_secs(15), "stop of postgres took {took:?}");
    worker.kill();
    remove(world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_letter_is_kept_in_postgres_and_replayed_from_there() {
    let _stack = stack::shared().await;
    let world = World::bare("wal_letter").await;
    let worker = worker(&world, "w");
    until_it_reads(&worker).await;
    insert(&world, 1..=1, "permanent").await;
    insert(&world, 2..=2, "ok").await;
    until_effects(&world, 1).await;
    until("the letter", Duration::from_secs(60), async || {
        (world
            .count("SELECT count(*) FROM afterwrite.letters WHERE state = 'open'")
            .await
            == 1)
            .then_some(())
    })
    .await;
    assert_eq!(world.count("SELECT count(*) FROM afterwrite.dead_letters").await, 1);
    sqlx::query("INSERT INTO mended VALUES (1)")
        .execute(&world.pool)
        .await
        .unwrap();
    let replay = ["dlq", "replay", "--group", "recorder", "--all"];
    let mut command = world.command(env!("CARGO_BIN_EXE_afterwrite"));
    let replayed = command.args(replay).envs(SETTINGS).output().await.unwrap();
    let said = String::from_utf8_lossy(&replayed.stdout).into_owned();
    assert!(
        replayed.status.success(),
        "{said}{}",
        String::from_utf8_lossy(&replayed.stderr)
    );
    until_effects(&world, 2).await;
    let mended = "SELECT count(*) FROM effects WHERE k = 1 AND replayed";
    assert_eq!(world.count(mended).await, 1);
    worker.stop().await;
    remove(world).await;
}

/// Starts a worker that has to end by itself, with a reason.
async fn refused(world: &World, name: &str, reason: &str) {
    refused_with(world, name, &[], reason).await;
}

/// The same with settings of its own.
async fn refused_with(world: &World, name: &str, settings: &[(&str, &str)], reason: &str) {
    let mut worker = world.worker(name, &[&SETTINGS[..], settings].concat());
    let status = until("the worker to refuse", Duration::from_secs(60), async || worker.ended()).await;
    let said = worker.said();
    assert!(!status.success() && said.contains(reason), "{status}: {said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_would_miss_changes_is_refused_with_the_way_out() {
    let _stack = stack::shared().await;
    let world = World::bare("wal_refused").await;
    let run = async |sql: &str| {
        let ran = sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&world.pool).await;
        ran.unwrap();
    };
    let slot = format!("{}_recorder", world.name);
    let drop_slot = format!("SELECT pg_drop_replication_slot('{slot}')");

    let elsewhere = stack::address("DATABASE_URL");
    refused_with(
        &world,
        "elsewhere",
        &[("AFTERWRITE__WAL__URL", &elsewhere)],
        "let wal.url name the same database",
    )
    .await;
    run("ALTER PUBLICATION it DROP TABLE work").await;
    refused(
        &world,
        "unpublished",
        "ALTER PUBLICATION \"it\" ADD TABLE \"public\".\"work\"",
    )
    .await;
    run("DROP PUBLICATION it").await;
    refused(
        &world,
        "no publication",
        "CREATE PUBLICATION \"it\" FOR TABLE \"public\".\"work\"",
    )
    .await;
    run("CREATE PUBLICATION it FOR TABLE work").await;

    run(&format!(
        "SELECT pg_create_logical_replication_slot('{slot}', 'test_decoding')"
    ))
    .await;
    refused(&world, "foreign", "is not one of pgoutput").await;
    run(&drop_slot).await;

    let first = worker(&world, "first");
    until_it_reads(&first).await;
    insert(&world, 1..=10, "ok").await;
    until_effects(&world, 10).await;
    first.stop().await;

    run("UPDATE afterwrite.slots SET group_name = 'another'").await;
    refused(&world, "taken", "is the one of group another").await;
    run(&format!(
        "UPDATE afterwrite.slots SET group_name = '{}', system_id = '1' || system_id",
        world.group()
    ))
    .await;
    refused(&world, "other cluster", "this is another cluster").await;
    run("UPDATE afterwrite.slots SET system_id = substr(system_id, 2)").await;

    insert(&world, 11..=20, "ok").await;
    run(&format!(
        "SELECT pg_replication_slot_advance('{slot}', pg_current_wal_lsn())"
    ))
    .await;
    refused(&world, "moved", "changes between them would be missed").await;
    run(&drop_slot).await;
    let numbered = world.count("SELECT settled_to FROM afterwrite.slots").await;
    refused(&world, "gone", "were missed by this group").await;

    let (code, said) = world.afterwrite(&["slot", "drop", &slot]).await;
    assert!(code == 0 && said.contains("was gone already"), "{code}: {said}");
    let anew = worker(&world, "anew");
    until_it_reads(&anew).await;
    insert(&world, 21..=30, "ok").await;
    until_effects(&world, 20).await;
    let numbers_begin = world.count("SELECT position FROM afterwrite.slots").await;
    assert!(numbers_begin > numbered, "{numbers_begin} was given before {numbered}");
    anew.stop().await;
    remove(world).await;
}
