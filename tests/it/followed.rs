//! `afterwrite dlq tail`: each letter once, also those that only Postgres has, also past a broker that goes and comes.

use std::process::Stdio;
use std::time::Duration;

use afterwrite::engine::letter::Letters;
use afterwrite::engine::retry::Class;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};

use crate::letters::{letter, sink, world};
use crate::producer;
use crate::stack::{self, until};

#[tokio::test]
async fn a_letter_that_the_topic_has_twice_is_shown_once() {
    let _stack = stack::shared().await;
    let world = world("copies").await;
    let sink = sink(&world);
    for k in [1, 2, 2, 3] {
        // A crash between topic and row leaves a copy without a row.
        sqlx::query("DELETE FROM afterwrite.letters WHERE source_offset = $1")
            .bind(k)
            .execute(&world.pool)
            .await
            .unwrap();
        sink.bury(&letter(&world, k, Class::Exhausted, 1)).await.unwrap();
    }
    let topic = format!("{}.dlq", world.group());
    assert_eq!(producer::read_all(&topic).await.len(), 4);
    let words = [
        "dlq",
        "tail",
        "--group",
        "recorder",
        "--from-beginning",
        "--limit",
        "3",
        "--output",
        "json",
    ];
    let (_, tailed) = world.afterwrite(&words).await;
    let mut offsets: Vec<i64> = tailed
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["offset"].as_i64().unwrap())
        .collect();
    offsets.sort_unstable();
    assert_eq!(offsets, [1, 2, 3]);
    let (_, exported) = world.afterwrite(&["dlq", "export"]).await;
    assert_eq!(exported.lines().count(), 3);
    world.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn following_goes_on_when_the_broker_comes_back() {
    let _stack = stack::alone().await;
    let world = world("restart").await;
    let mut command = world.command(env!("CARGO_BIN_EXE_afterwrite"));
    command.args(["dlq", "tail", "--group", "recorder", "--from-beginning", "--limit", "2"]);
    command.stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
    let mut following = command.spawn().unwrap();
    let mut lines = BufReader::new(following.stdout.take().unwrap()).lines();
    sink(&world).bury(&letter(&world, 1, Class::Timeout, 1)).await.unwrap();
    let first = lines.next_line().await.unwrap().unwrap();
    assert!(
        first.contains("timeout") && first.contains("recorder") && !first.contains('\u{1b}'),
        "{first}"
    );

    stack::order("kill", "kafka").await;
    stack::order("start", "kafka").await;
    let second = letter(&world, 2, Class::Panic, 1);
    until("the broker to take letters", Duration::from_secs(60), async || {
        sink(&world).bury(&second).await.ok()
    })
    .await;
    let next = tokio::time::timeout(Duration::from_secs(60), lines.next_line()).await;
    let next = next.expect("the letter is shown").unwrap().unwrap();
    assert!(next.contains("panic") && next.contains(&second.id()[..12]), "{next}");
    assert!(following.wait().await.unwrap().success());
    println!("{}: one letter before the broker was killed, one after", world.name);
    world.remove().await;
}
