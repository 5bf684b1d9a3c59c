//! Old rows are handed to handlers only where the database says that they are whole.

use std::time::Duration;

use crate::stack::{self, until};
use crate::world::World;

const WITHIN: Duration = Duration::from_secs(60);

async fn run(world: &World, statements: &[&'static str]) {
    for statement in statements {
        sqlx::query(*statement).execute(&world.pool).await.unwrap();
    }
}

/// Waits until so many changes had their effect, and so many became dead letters.
async fn settled(world: &World, effects: i64, letters: i64) {
    until("effects and dead letters", WITHIN, async || {
        let found = (
            world.count("SELECT count(*) FROM effects").await,
            world.count("SELECT count(*) FROM afterwrite.letters").await,
        );
        (found == (effects, letters)).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delete_without_the_full_identity_hands_out_no_row_unless_the_setting_says_so() {
    let _stack = stack::shared().await;
    let world = World::captured("made_up").await;
    run(&world, &["ALTER TABLE work REPLICA IDENTITY DEFAULT"]).await;
    let worker = world.worker("asks", &[]);
    run(
        &world,
        &[
            "INSERT INTO work (k, seq) VALUES (1, 1)",
            "UPDATE work SET seq = 2",
            "DELETE FROM work",
        ],
    )
    .await;
    // The handler has no row to work with, and says so.
    settled(&world, 2, 1).await;
    assert_eq!(
        world
            .count("SELECT count(*) FROM afterwrite.letters WHERE class = 'permanent' AND error LIKE '%no row%'")
            .await,
        1
    );
    worker.stop().await;
    let worker = world.worker("is told", &[("AFTERWRITE__SOURCE__FULL_IDENTITY", "[\"public.work\"]")]);
    run(&world, &["INSERT INTO work (k, seq) VALUES (2, 1)", "DELETE FROM work"]).await;
    // The connector makes up `seq`: whoever sets what is not so gets what is not so.
    settled(&world, 4, 1).await;
    assert_eq!(
        world
            .count("SELECT count(*) FROM effects WHERE k = 2 AND seq = 0")
            .await,
        1
    );
    worker.stop().await;
    world.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partitioned_table_sends_whole_rows_when_its_partitions_do() {
    let _stack = stack::shared().await;
    let world = World::bare("partitioned").await;
    run(
        &world,
        &[
            "DROP TABLE work",
            "CREATE TABLE work (k int PRIMARY KEY, seq int NOT NULL, behaviour text NOT NULL DEFAULT 'ok', note text)
                 PARTITION BY RANGE (k)",
            "CREATE TABLE work_low PARTITION OF work FOR VALUES FROM (0) TO (100)",
            "CREATE TABLE work_high PARTITION OF work FOR VALUES FROM (100) TO (200)",
            "ALTER TABLE work_low REPLICA IDENTITY FULL",
            "ALTER TABLE work_high REPLICA IDENTITY FULL",
            "ALTER PUBLICATION it ADD TABLE work",
            "ALTER PUBLICATION it SET (publish_via_partition_root = true)",
        ],
    )
    .await;
    world.capture("waitlist", &[]).await;
    let worker = world.worker("whole", &[]);
    run(
        &world,
        &["INSERT INTO work (k, seq) VALUES (1, 5), (101, 5)", "DELETE FROM work"],
    )
    .await;
    settled(&world, 4, 0).await;
    worker.stop().await;
    run(&world, &["ALTER TABLE work_high REPLICA IDENTITY DEFAULT"]).await;
    let worker = world.worker("in part", &[]);
    run(&world, &["INSERT INTO work (k, seq) VALUES (2, 5)", "DELETE FROM work"]).await;
    settled(&world, 5, 1).await;
    worker.stop().await;
    world.remove().await;
}
