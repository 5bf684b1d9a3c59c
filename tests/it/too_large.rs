//! Letters that their topic refuses as too large: a shorter error where that helps, Postgres where it does not, and every
//! command works for them.

use std::time::Duration;

use afterwrite::engine::letter::Letters;
use afterwrite::engine::retry::Class;
use bytes::Bytes;
use serde_json::{Value, json};

use crate::letters::{letter, report, sink, world};
use crate::producer;
use crate::stack::{self, until};
use crate::world::World;

#[tokio::test]
async fn a_letter_fits_with_a_shorter_error_or_its_bytes_go_to_postgres() {
    let _stack = stack::shared().await;
    let world = world("large").await;
    let topic = format!("{}.dlq", world.group());
    producer::limit_records(&topic, "3000").await;
    let sink = sink(&world);
    let mut wordy = letter(&world, 1, Class::Permanent, 2);
    wordy.error = "because ".repeat(500);
    let mut large = letter(&world, 2, Class::Permanent, 1);
    // Random enough for the client not to make it small.
    large.raw.value = Some(Bytes::from(
        (0..5_000_u32).flat_map(u32::to_be_bytes).collect::<Vec<_>>(),
    ));
    for letter in [&wordy, &large, &large] {
        sink.bury(letter).await.unwrap();
    }
    let in_topic = producer::read_all(&topic).await;
    assert_eq!(in_topic.len(), 1);
    let error = in_topic[0].header("afterwrite.error").unwrap();
    assert!(error.ends_with("(4000 bytes in all)") && error.len() < 100, "{error}");
    let kept = "SELECT count(*) FROM afterwrite.letters WHERE dlq_topic IS NULL AND dlq_offset IS NULL";
    assert_eq!(world.count(kept).await, 1);
    assert_eq!(
        world.count("SELECT count(*) FROM afterwrite.dead_letters").await,
        1,
        "written twice, kept once"
    );
    let errors: Vec<i32> = sqlx::query_scalar("SELECT length(error) FROM afterwrite.letters ORDER BY source_offset")
        .fetch_all(&world.pool)
        .await
        .unwrap();
    assert_eq!(errors[0], 4_000, "the row keeps the whole error");

    let id = large.id();
    let (code, shown) = report(&world, &["dlq", "show", &id]).await;
    assert_eq!(
        (code, &shown["stored"], &shown["value_bytes"]),
        (0, &json!("afterwrite.dead_letters"), &json!(20_000))
    );
    let tail = [
        "dlq",
        "tail",
        "--group",
        "recorder",
        "--from-beginning",
        "--limit",
        "2",
        "--output",
        "json",
    ];
    let (_, tailed) = world.afterwrite(&tail).await;
    assert!(tailed.contains(&id) && tailed.contains(&wordy.id()), "{tailed}");
    let (_, exported) = world.afterwrite(&["dlq", "export", "--key", "2"]).await;
    let exported: Value = serde_json::from_str(&exported).unwrap();
    assert_eq!(
        exported["headers"][0],
        json!(["trace", "/wAgc2VjcmV0"]),
        "its own headers come first"
    );
    let (code, _) = report(&world, &["dlq", "replay", &id]).await;
    assert_eq!(code, 0);
    let value: Vec<u8> = sqlx::query_scalar("SELECT value FROM afterwrite.replay_requests")
        .fetch_one(&world.pool)
        .await
        .unwrap();
    assert_eq!(Some(value.as_slice()), large.raw.value.as_deref());
    world.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_letter_that_no_topic_takes_holds_nothing_up_and_comes_back() {
    let _stack = stack::shared().await;
    let world = World::bare("refused").await;
    producer::make_topic(&world.topic()).await;
    let worker = world.worker("w", &[]);
    until("the first commit", Duration::from_secs(60), async || {
        (producer::committed(&world.group(), &world.topic()) == Some(0)).then_some(())
    })
    .await;
    producer::limit_records(&format!("{}.dlq", world.group()), "10").await;
    producer::write(&world.topic(), b"{\"k\":1}", b"neither json nor avro").await;
    until("the commit past it", Duration::from_secs(60), async || {
        (producer::committed(&world.group(), &world.topic()) == Some(1)).then_some(())
    })
    .await;
    let open = "SELECT count(*) FROM afterwrite.letters WHERE dlq_topic IS NULL AND state = 'open'";
    assert_eq!(world.count(open).await, 1);
    let (code, ended) = report(&world, &["dlq", "replay", "--all", "--group", "recorder", "--wait"]).await;
    assert_eq!((code, &ended["buried_again"]), (1, &json!(1)), "{ended}");
    let again = &ended["failed_again"][0]["new_letters"];
    assert_eq!(again.as_array().unwrap().len(), 1, "{ended}");
    assert_eq!(
        world
            .count("SELECT count(*) FROM afterwrite.letters WHERE replays = 1 AND state = 'open'")
            .await,
        1
    );
    println!(
        "{}: refused as too large, settled in postgres, replayed and buried again",
        world.name
    );
    worker.stop().await;
    world.remove().await;
}
