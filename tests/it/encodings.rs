//! The same change in each of the connector's encodings reaches the handler as the same event.

use std::collections::HashMap;
use std::time::Duration;

use serde_json::Value;

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
    tail_shows_all(&world).await;
    world.remove().await;
}

/// Whoever looks at the topics sees every change, decoded.
async fn tail_shows_all(world: &World) {
    let words = "tail --table public.work --from-beginning --limit 41 --output json";
    let (code, said) = world.afterwrite(&words.split(' ').collect::<Vec<_>>()).await;
    assert_eq!(code, 0);
    let mut rows: HashMap<String, usize> = HashMap::new();
    for line in said.lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        let event = &line["event"];
        let note = event["after"]["note"]
            .as_str()
            .or(event["before_as_sent"]["note"].as_str());
        assert_eq!(
            (line["kind"].as_str(), note),
            (Some("change"), Some("naïve 🚀")),
            "{line}"
        );
        *rows.entry(event["op"].as_str().unwrap().to_owned()).or_default() += 1;
    }
    let expected = [("insert", 20), ("update", 20), ("delete", 1)].map(|(op, count)| (op.to_owned(), count));
    assert_eq!(rows, HashMap::from(expected));
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
