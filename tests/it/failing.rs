//! Handlers that fail: for a while, for good, by a panic; dead letters and their way back.

use std::time::Duration;

use crate::producer;
use crate::stack::{self, until};
use crate::world::World;

const SHORT_WAITS: &[(&str, &str)] = &[
    ("AFTERWRITE__ENGINE__ATTEMPTS_MAX", "3"),
    ("AFTERWRITE__ENGINE__WAIT_FIRST_MS", "400"),
    ("AFTERWRITE__ENGINE__WAIT_MS_MAX", "1000"),
];

/// For rows that hang; elsewhere a slow moment of the machine would be taken for one.
const SHORT_ATTEMPTS: &[(&str, &str)] = &[
    ("AFTERWRITE__ENGINE__ATTEMPT_TIMEOUT_MS", "1500"),
    ("AFTERWRITE__POSTGRES__CONNECT_TIMEOUT_MS", "1000"),
];

async fn insert(world: &World, key: i32, behaviour: &str) {
    sqlx::query("INSERT INTO work (k, seq, behaviour, note) VALUES ($1, 1, $2, 'naïve \\x00 🚀')")
        .bind(key)
        .bind(behaviour)
        .execute(&world.pool)
        .await
        .unwrap();
}

async fn effect_of(world: &World, key: i32) -> (i32, bool) {
    until("the effect", Duration::from_secs(60), async || {
        sqlx::query_as("SELECT attempt, replayed FROM effects WHERE k = $1")
            .bind(key)
            .fetch_optional(&world.pool)
            .await
            .unwrap()
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_that_fails_transiently_succeeds_without_a_dead_letter() {
    let _stack = stack::shared().await;
    let world = World::captured("transient").await;
    let worker = world.worker("w", SHORT_WAITS);
    insert(&world, 1, "fail:3").await;
    let (attempt, _) = effect_of(&world, 1).await;
    assert_eq!(attempt, 3, "two failures, then the success");
    assert_eq!(world.count("SELECT count(*) FROM attempts").await, 3);
    assert_eq!(world.count("SELECT count(*) FROM afterwrite.letters").await, 0);
    println!(
        "{}: 2 failures, success at attempt {attempt}, 0 dead letters",
        world.name
    );
    worker.stop().await;
    world.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_that_keeps_failing_leaves_exactly_one_dead_letter() {
    let _stack = stack::shared().await;
    let world = World::captured("exhausted").await;
    let worker = world.worker("w", SHORT_WAITS);
    // Not again for a second each time: time enough for those that do not wait.
    insert(&world, 1, "later").await;
    // Neighbours, in the same topic, some in the same partition: they do not wait for the one that fails.
    for key in 2..=41 {
        insert(&world, key, "ok").await;
    }
    until("the dead letter", Duration::from_secs(60), async || {
        (world
            .count("SELECT count(*) FROM afterwrite.letters WHERE class = 'exhausted'")
            .await
            == 1)
            .then_some(())
    })
    .await;
    let behind = world
        .count("SELECT count(*) FROM effects WHERE at > (SELECT max(at) FROM attempts WHERE k = 1)")
        .await;
    assert_eq!(world.count("SELECT count(*) FROM attempts WHERE k = 1").await, 3);
    assert_eq!(
        (world.count("SELECT count(*) FROM effects").await, behind),
        (40, 0),
        "neighbours waited"
    );

    let letters = producer::read_all(&format!("{}.dlq", world.group())).await;
    let sources = producer::read_all(&world.topic()).await;
    let letter = &letters[0];
    let source = sources
        .iter()
        .find(|record| {
            Some(record.offset.to_string()) == letter.header("__connect.errors.offset")
                && Some(record.partition.to_string()) == letter.header("__connect.errors.partition")
        })
        .unwrap();
    assert_eq!(letters.len(), 1);
    assert_eq!((&letter.key, &letter.value), (&source.key, &source.value));
    assert_eq!(
        letter.headers[..source.headers.len()],
        source.headers[..],
        "original headers, byte for byte"
    );
    assert_eq!(letter.header("afterwrite.class").as_deref(), Some("exhausted"));
    assert_eq!(letter.header("afterwrite.attempts").as_deref(), Some("3"));
    println!(
        "{}: 3 attempts, 1 dead letter of {} headers, {} of them the record's own; 40 neighbours done before the last attempt",
        world.name,
        letter.headers.len(),
        source.headers.len()
    );
    worker.stop().await;
    world.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn panics_and_time_outs_are_attempts_and_end_in_dead_letters_of_their_class() {
    let _stack = stack::shared().await;
    let world = World::captured("classes").await;
    let worker = world.worker("w", &[SHORT_WAITS, SHORT_ATTEMPTS].concat());
    insert(&world, 1, "panic").await;
    insert(&world, 2, "hang").await;
    // Neighbours that work all the while: without them nothing tells these two from an outage.
    let mut neighbours = 0;
    until("both dead letters", Duration::from_secs(60), async || {
        neighbours += 1;
        insert(&world, 2 + neighbours, "ok").await;
        let letters = "SELECT count(*) FROM afterwrite.letters WHERE attempts >= 3 AND class IN ('panic', 'timeout')";
        (world.count(letters).await == 2).then_some(())
    })
    .await;
    until("the neighbours", Duration::from_secs(60), async || {
        let done = world.count("SELECT count(*) FROM effects").await;
        (done == i64::from(neighbours)).then_some(())
    })
    .await;
    assert_eq!(world.count("SELECT count(*) FROM afterwrite.letters").await, 2);
    println!(
        "{}: 1 dead letter each of class panic and timeout, {neighbours} neighbours done",
        world.name
    );
    worker.stop().await;
    world.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replayed_letter_runs_again_once_its_cause_is_mended_and_not_before() {
    let _stack = stack::shared().await;
    let world = World::captured("replay").await;
    let worker = world.worker("w", SHORT_WAITS);
    insert(&world, 1, "permanent").await;
    let letter = until("the dead letter", Duration::from_secs(60), async || {
        open_letter(&world).await
    })
    .await;

    let (_, tailed) = world
        .afterwrite(&[
            "dlq",
            "tail",
            "--group",
            "recorder",
            "--from-beginning",
            "--limit",
            "1",
            "--output",
            "json",
        ])
        .await;
    let tailed: serde_json::Value = serde_json::from_str(&tailed).unwrap();
    assert_eq!(
        (&tailed["letter_id"], &tailed["class"]),
        (&letter.clone().into(), &"permanent".into())
    );
    let (_, shown) = world
        .afterwrite(&["dlq", "show", &letter[..10], "--values", "--output", "json"])
        .await;
    let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(shown["event"]["after"]["behaviour"], "permanent", "{shown}");

    let (code, said) = world
        .afterwrite(&["dlq", "replay", &letter, "--wait", "--output", "json"])
        .await;
    assert_eq!(code, 1, "the replay was buried again, and the command says so");
    let report: serde_json::Value = serde_json::from_str(&said).unwrap();
    let again = until("the letter of the failed replay", Duration::from_secs(60), async || {
        open_letter(&world).await
    })
    .await;
    assert_ne!(letter, again, "a failed replay makes a new letter");
    let named = serde_json::json!([{"letter_id": letter, "new_letters": [again]}]);
    assert_eq!(report["failed_again"], named, "{report}");
    let bytes = "SELECT count(*) FROM afterwrite.replay_requests WHERE key IS NOT NULL OR value IS NOT NULL";
    assert_eq!(world.count(bytes).await, 0, "bytes go when a request ends");

    sqlx::query("INSERT INTO mended VALUES (1)")
        .execute(&world.pool)
        .await
        .unwrap();
    let (code, said) = world
        .afterwrite(&["dlq", "replay", "--all", "--group", "recorder", "--wait"])
        .await;
    assert_eq!((code, said.trim()), (0, "1 replay requested; 1 healed, 0 buried again"));
    let (_, replayed) = effect_of(&world, 1).await;
    assert!(replayed);
    let states: Vec<(String, i32)> = sqlx::query_as("SELECT state, replays FROM afterwrite.letters ORDER BY replays")
        .fetch_all(&world.pool)
        .await
        .unwrap();
    assert_eq!(states, [("replayed".to_owned(), 0), ("replayed".to_owned(), 1)]);
    let done = world
        .count("SELECT count(*) FROM afterwrite.ledger WHERE state = 'done'")
        .await;
    assert_eq!(done, 1, "the ledger's buried row became done");
    worker.stop().await;
    world.remove().await;
}

async fn open_letter(world: &World) -> Option<String> {
    let sql = "SELECT letter_id FROM afterwrite.letters WHERE state = 'open'";
    sqlx::query_scalar(sql).fetch_optional(&world.pool).await.unwrap()
}
