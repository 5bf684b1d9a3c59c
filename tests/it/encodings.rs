//! The same change in each of the connector's encodings reaches the handler as the same event.

use std::time::Duration;

use crate::stack::{self, until};
use crate::world::World;

const WITH_SCHEMA: &[(&str, &str)] = &[
    ("key.converter.schemas.enable", "true"),
    ("value.converter.schemas.enable", "true"),
];

async fn check(test: &str, connector: &str, settings: &[(&str, &str)]) {
    let _stack = stack::shared().await;
    let world = World::captured_by(test, connector, settings).await;
    let worker = world.worker("w", &[]);
    for statement in [
        "INSERT INTO work (k, seq, note) SELECT k, 1, 'naïve 🚀' FROM generate_series(1, 20) k",
        "UPDATE work SET seq = 2",
        "DELETE FROM work WHERE k = 20",
    ] {
        sqlx::query(statement).execute(&world.pool).await.unwrap();
    }
    // 20 inserts, 20 updates, and the delete, which shows the row as it was last: seq 2 a second time.
    until("every change to have its effect", Duration::from_secs(60), async || {
        (world.count("SELECT count(*) FROM effects").await == 41).then_some(())
    })
    .await;
    assert_eq!(
        world
            .count("SELECT count(*) FROM effects WHERE k = 20 AND seq = 2")
            .await,
        2
    );
    assert_eq!(world.count("SELECT count(*) FROM afterwrite.letters").await, 0);
    worker.stop().await;
    world.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_in_json_without_schema_are_handled() {
    check("json", "waitlist", &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_in_json_with_schema_are_handled() {
    check("json_schema", "waitlist", WITH_SCHEMA).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_in_avro_are_handled() {
    check("avro", "waitlist-avro", &[]).await;
}
