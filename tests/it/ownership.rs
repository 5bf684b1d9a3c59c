//! Names, positions and partitions belong to somebody: a second group is refused a handler's name, a lost offset is never
//! reset, and whoever takes a partition over is hindered neither by its last owner nor by what that one wanted of it.

use std::time::Duration;

use crate::producer;
use crate::stack::{self, until};
use crate::world::World;

#[tokio::test(flavor = "multi_thread")]
async fn a_second_group_is_refused_the_name_of_a_handler() {
    let _stack = stack::shared().await;
    let world = World::bare("names").await;
    producer::make_topic(&world.topic()).await;
    let first = world.worker("first", &[]);
    until(
        "the first worker to own the topic",
        Duration::from_secs(60),
        async || first.said().contains("partition assigned").then_some(()),
    )
    .await;
    let second = world.worker("second", &[("AFTERWRITE__KAFKA__GROUP_PREFIX", "another")]);
    until("the refusal", Duration::from_secs(60), async || {
        let refused = format!("handler recorder already belongs to group {}", world.group());
        second.said().contains(&refused).then_some(())
    })
    .await;
    first.stop().await;
    world.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_offset_stops_its_partition_and_is_named() {
    let _stack = stack::shared().await;
    let world = World::bare("lost").await;
    producer::make_topic(&world.topic()).await;
    let worker = world.worker("before", &[]);
    producer::write_change(&world.topic(), 1, "ok").await;
    until("the first effect", Duration::from_secs(60), async || {
        (world.count("SELECT count(*) FROM effects").await == 1).then_some(())
    })
    .await;
    worker.stop().await;

    producer::forget_group(&world.group()).await;
    producer::write_change(&world.topic(), 2, "ok").await;
    let worker = world.worker("after", &[]);
    until("the loss to be named", Duration::from_secs(60), async || {
        worker
            .said()
            .contains("the committed offset of this partition was lost")
            .then_some(())
    })
    .await;
    worker.stop().await;
    assert_eq!(
        world.count("SELECT count(*) FROM effects").await,
        1,
        "nothing was fetched from a guessed position"
    );
    assert_eq!(
        producer::committed(&world.group(), &world.topic()),
        None,
        "nothing was reset"
    );
    println!(
        "{}: committed offset deleted: the partition was stopped and named, nothing was reset",
        world.name
    );
    world.remove().await;
}

/// Attempts that are short, a revocation that waits for none of them, and a window that one event fills.
const IMPATIENT: &[(&str, &str)] = &[
    ("AFTERWRITE__ENGINE__ATTEMPTS_MAX", "2"),
    ("AFTERWRITE__ENGINE__ATTEMPT_TIMEOUT_MS", "2500"),
    ("AFTERWRITE__POSTGRES__CONNECT_TIMEOUT_MS", "1000"),
];

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_owner_makes_its_successor_bury_nothing() {
    let _stack = stack::shared().await;
    let world = World::bare("frozen").await;
    producer::make_topic(&world.topic()).await;
    let frozen = world.worker("frozen", IMPATIENT);
    producer::write_change(&world.topic(), 1, "hold:frozen").await;
    // Its ledger row is written and not committed: whoever works on the same event waits for it.
    until("the open transaction", Duration::from_secs(60), async || {
        let open = "SELECT count(*) FROM pg_stat_activity
             WHERE datname = current_database() AND state = 'idle in transaction' AND query LIKE 'INSERT INTO effects%'";
        (world.count(open).await == 1).then_some(())
    })
    .await;
    frozen.freeze();
    let successor = world.worker("successor", IMPATIENT);
    until("the successor's effect", Duration::from_secs(60), async || {
        (world
            .count("SELECT count(*) FROM effects WHERE worker = 'successor'")
            .await
            == 1)
            .then_some(())
    })
    .await;
    assert_eq!(world.count("SELECT count(*) FROM effects").await, 1);
    assert_eq!(world.count("SELECT count(*) FROM afterwrite.letters").await, 0);
    successor.stop().await;
    frozen.kill();
    world.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_that_went_away_while_it_was_paused_is_fetched_again_when_it_comes_back() {
    let _stack = stack::shared().await;
    let world = World::bare("paused").await;
    let settings: Vec<(&str, &str)> = vec![
        ("AFTERWRITE__ENGINE__BUFFERED_EVENTS_MAX", "4"),
        ("AFTERWRITE__ENGINE__REVOKE_GRACE_MS", "200"),
        ("RUST_LOG", "warn,afterwrite=debug"),
    ];
    producer::make_topic_of(&world.topic(), 2).await;
    let host = world.worker("host", &settings);
    // The first key of each partition hangs in the host alone, and its room is used up by those that follow.
    for k in [1, 2] {
        producer::write_change_to(&world.topic(), k % 2, k.into(), "hold:host").await;
    }
    until("both open transactions", Duration::from_secs(60), async || {
        let open = "SELECT count(*) FROM pg_stat_activity
             WHERE datname = current_database() AND state = 'idle in transaction' AND query LIKE 'INSERT INTO effects%'";
        (world.count(open).await == 2).then_some(())
    })
    .await;
    // Small ones are held back for long before the client is told.
    let large = "ok ".repeat(200_000);
    let mut k = 2;
    until("both partitions to be paused", Duration::from_secs(60), async || {
        k += 1;
        producer::write_change_to(&world.topic(), k % 2, k.into(), &large).await;
        let said = host.said();
        (said.matches("partition paused").count() == 2).then_some(())
    })
    .await;
    let guest = world.worker("guest", &settings);
    let side: i32 = until(
        "the guest to have taken a partition",
        Duration::from_secs(60),
        async || {
            sqlx::query_scalar("SELECT k % 2 FROM effects WHERE worker = 'guest' LIMIT 1")
                .fetch_optional(&world.pool)
                .await
                .unwrap()
        },
    )
    .await;
    guest.stop().await;
    producer::write_change_to(&world.topic(), side, 1_000, "ok").await;
    until("what came after the guest", Duration::from_secs(60), async || {
        let sql = "SELECT count(*) FROM effects WHERE worker = 'host' AND k = 1000";
        (world.count(sql).await == 1).then_some(())
    })
    .await;
    host.kill();
    world.remove().await;
}
