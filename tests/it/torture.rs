//! What only a real broker, connector and database can show of the records that broke other consumers.
//!
//! The list is that of [docs/DEBEZIUM.md](../../docs/DEBEZIUM.md); a test's name begins with the number there. What the
//! decoder alone can show is in `tests/torture/`.

use std::collections::HashMap;
use std::time::Duration;

use crate::producer;
use crate::stack::{self, until};
use crate::world::World;

const WITHIN: Duration = Duration::from_secs(90);

async fn effects(world: &World, expected: i64) {
    until("every change to have its effect", WITHIN, async || {
        (world.count("SELECT count(*) FROM effects").await == expected).then_some(())
    })
    .await;
    assert_eq!(
        world.count("SELECT count(DISTINCT (k, seq)) FROM effects").await,
        expected,
        "something was done twice"
    );
    assert_eq!(world.count("SELECT count(*) FROM afterwrite.letters").await, 0);
}

async fn committed(world: &World, at_least: i64) {
    until("the commit", WITHIN, async || {
        let committed = producer::committed(&world.group(), &world.topic());
        committed.filter(|offset| *offset >= at_least)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn t38_aborted_records_are_not_handled_and_gaps_hold_nothing_up() {
    let _stack = stack::shared().await;
    let world = World::bare("aborted").await;
    producer::make_topic(&world.topic()).await;
    producer::write_in_transaction(&world.topic(), 1..4, false).await;
    producer::write_in_transaction(&world.topic(), 4..7, true).await;
    let worker = world.worker("w", &[]);
    effects(&world, 3).await;
    assert_eq!(world.count("SELECT count(*) FROM effects WHERE k < 4").await, 0);
    // Three aborted records, their marker, three records; the last marker has an offset too.
    committed(&world, 7).await;
    producer::write_change(&world.topic(), 7, "ok").await;
    effects(&world, 4).await;
    committed(&world, 9).await;
    worker.stop().await;
    world.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn t69_a_key_whose_type_changes_moves_to_another_partition_and_loses_nothing() {
    let _stack = stack::shared().await;
    let world = World::captured_by("key_type", "waitlist-avro", &[]).await;
    let worker = world.worker("w", &[]);
    let run = async |statement| {
        sqlx::query(statement).execute(&world.pool).await.unwrap();
    };
    run("INSERT INTO work (k, seq) SELECT k, 1 FROM generate_series(1, 20) k").await;
    effects(&world, 20).await;
    run("ALTER TABLE work ALTER COLUMN k TYPE bigint").await;
    run("UPDATE work SET seq = 2").await;
    effects(&world, 40).await;
    // The key's bytes begin with the id of its schema, and by its bytes its partition is chosen.
    let mut partitions: HashMap<Vec<u8>, i32> = HashMap::new();
    for record in producer::read_all(&world.topic()).await {
        partitions.insert(record.key.unwrap(), record.partition);
    }
    assert_eq!(partitions.len(), 40, "each row has two keys");
    worker.stop().await;
    world.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn t71_a_row_that_is_too_large_stops_the_connector_which_says_so_and_goes_on_when_it_may() {
    let _stack = stack::shared().await;
    let small = [
        ("producer.override.max.request.size", "30000"),
        ("producer.override.compression.type", "none"),
    ];
    let world = World::captured_by("too_large", "waitlist", &small).await;
    let worker = world.worker("w", &[]);
    let run = async |statement| {
        sqlx::query(statement).execute(&world.pool).await.unwrap();
    };
    run("INSERT INTO work (k, seq) VALUES (1, 1)").await;
    effects(&world, 1).await;
    run("INSERT INTO work (k, seq, note) VALUES (2, 1, repeat('x', 50000)), (3, 1, 'after it')").await;
    until("the connector to fail", WITHIN, async || {
        let (_, said) = world.afterwrite(&["connector", "status", &world.name]).await;
        said.contains("RecordTooLargeException").then_some(())
    })
    .await;
    assert_eq!(
        world.count("SELECT count(*) FROM effects").await,
        1,
        "what follows waits"
    );
    world.capture("waitlist", &[]).await;
    effects(&world, 3).await;
    worker.stop().await;
    world.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn t73_what_compaction_removed_is_gone_and_holds_nothing_up() {
    let _stack = stack::shared().await;
    let world = World::bare("compacted").await;
    let topic = world.topic();
    producer::make_topic(&topic).await;
    let eager = [
        ("cleanup.policy", "compact"),
        ("segment.ms", "100"),
        ("min.cleanable.dirty.ratio", "0.001"),
        ("min.compaction.lag.ms", "0"),
    ];
    producer::configure(&topic, &eager).await;
    producer::write_versions(&topic, 1..6, 20).await;
    let mut last = 100;
    // Only what a later record has pushed out of the active segment is compacted.
    let left = until("the cleaner", WITHIN, async || {
        last += 1;
        producer::write_change(&topic, 6, "ok").await;
        let records = producer::read_all(&topic).await;
        let of_five = records.iter().filter(|record| !is_of_row(record, 6)).count();
        (of_five == 5).then_some(records.len())
    })
    .await;
    println!("{}: {left} of {last} records are left", world.name);
    let worker = world.worker("w", &[]);
    committed(&world, last).await;
    let lasts = "SELECT count(*) FROM effects WHERE k < 6 AND seq = 20";
    assert_eq!(world.count(lasts).await, 5);
    assert_eq!(world.count("SELECT count(*) FROM effects WHERE k < 6").await, 5);
    worker.stop().await;
    world.remove().await;
}

fn is_of_row(record: &producer::Record, k: i64) -> bool {
    record.key.as_deref() == Some(format!("{{\"k\":{k}}}").as_bytes())
}

#[tokio::test(flavor = "multi_thread")]
async fn t74_a_partition_that_is_added_is_read_from_its_beginning() {
    let _stack = stack::shared().await;
    let world = World::bare("grown").await;
    let topic = world.topic();
    producer::make_topic(&topic).await;
    let worker = world.worker("w", &[("AFTERWRITE__KAFKA__METADATA_REFRESH_MS", "1000")]);
    producer::write_change(&topic, 1, "ok").await;
    effects(&world, 1).await;
    producer::grow(&topic, 3).await;
    // Before the worker can know of it.
    for (partition, k) in [(1, 2), (2, 3), (0, 4)] {
        until("the partition's leader", WITHIN, async || {
            producer::try_write_change_to(&topic, partition, k).await.then_some(())
        })
        .await;
    }
    effects(&world, 4).await;
    worker.stop().await;
    world.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn t75_a_worker_that_is_killed_during_a_snapshot_handles_what_was_streamed_and_nothing_else() {
    const ROWS: usize = 2_000;
    let _stack = stack::shared().await;
    let world = World::bare("snapshot").await;
    for statement in [
        "INSERT INTO work (k, seq) SELECT k, 0 FROM generate_series(1, 2000) k",
        "CREATE TABLE public.zzz (id int PRIMARY KEY)",
        "INSERT INTO zzz VALUES (1)",
    ] {
        sqlx::query(statement).execute(&world.pool).await.unwrap();
    }
    // The snapshot reads one table after the other, and waits at the second for as long as this lock is held.
    let mut locked = world.pool.begin().await.unwrap();
    sqlx::query("SELECT pg_advisory_xact_lock(75)")
        .execute(&mut *locked)
        .await
        .unwrap();
    let worker = world.worker("killed", &[]);
    let settings = [
        ("snapshot.mode", "initial"),
        (
            "table.include.list",
            "public\\.work,public\\.zzz,afterwrite\\.heartbeat",
        ),
        ("snapshot.select.statement.overrides", "public.zzz"),
        (
            "snapshot.select.statement.overrides.public.zzz",
            "SELECT id FROM zzz WHERE pg_advisory_lock(75) IS NOT NULL",
        ),
    ];
    let during = async {
        until("rows of the first table", WITHIN, async || {
            let is_there = producer::exists(&world.topic());
            (is_there && producer::read_all(&world.topic()).await.len() > ROWS / 2).then_some(())
        })
        .await;
        sqlx::query("UPDATE work SET seq = 1 WHERE k <= 10")
            .execute(&world.pool)
            .await
            .unwrap();
        worker.kill();
        let worker = world.worker("w", &[]);
        until("the next worker", WITHIN, async || {
            worker.said().contains("partition assigned").then_some(())
        })
        .await;
        let seen = producer::read_all(&world.topic()).await.len();
        assert!(seen <= ROWS, "nothing was streamed yet: the snapshot is still going on");
        locked.rollback().await.unwrap();
        worker
    };
    let ((), worker) = tokio::join!(world.capture("waitlist", &settings), during);
    effects(&world, 10).await;
    assert_eq!(world.count("SELECT count(*) FROM effects WHERE seq = 0").await, 0);
    worker.stop().await;
    world.remove().await;
}
