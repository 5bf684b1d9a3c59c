//! Groups that were stopped, moved and started again: nothing runs twice, unless that is asked for, and then once.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use crate::mails;
use crate::producer;
use crate::stack::{self, until};
use crate::worker::Worker;
use crate::world::World;

/// Waits until the group has settled everything up to this offset of partition 0.
async fn settled(world: &World, end: i64) {
    let what = "everything to be settled";
    until(what, Duration::from_secs(60), async || {
        (producer::committed(&world.group(), &world.topic()) == Some(end)).then_some(())
    })
    .await;
}

/// Runs the group until everything is settled, and stops it.
async fn run_to(world: &World, name: &str, end: i64) {
    let worker = world.worker(name, &[]);
    settled(world, end).await;
    worker.stop().await;
}

/// Runs `afterwrite replay` on the group; answers its exit code, its report, and what it said on standard error.
async fn replay(world: &World, arguments: &[&str]) -> (Option<i32>, Value, String) {
    let words = [&["replay", "--group", "recorder", "--output", "json"], arguments].concat();
    let (code, said, error) = world.said(&words, ("USER", "ann")).await;
    (code, serde_json::from_str(&said).unwrap_or_default(), error)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_that_is_moved_back_does_nothing_twice() {
    let _stack = stack::shared().await;
    let world = World::bare("moved").await;
    producer::make_topic(&world.topic()).await;
    let worker = world.worker("first", &[]);
    producer::write_versions(&world.topic(), 1..11, 3).await;
    settled(&world, 30).await;
    let (code, _, error) = replay(&world, &["--from-beginning"]).await;
    assert_eq!(code, Some(1), "{error}");
    assert!(error.contains("only a stopped group is moved: stop process"), "{error}");
    worker.stop().await;

    for (arguments, code, said) in [
        (
            &["--to-offset", "elsewhere:0:1"][..],
            2,
            "reads no partition elsewhere[0]",
        ),
        (
            &["--to-offset", &format!("{}:0:31", world.topic())],
            2,
            "it keeps 0 up to 30",
        ),
        (&[], 2, "say where to"),
    ] {
        let refused = replay(&world, arguments).await;
        assert!(refused.0 == Some(code) && refused.2.contains(said), "{refused:?}");
    }
    let (code, planned, error) = replay(&world, &["--from", "2020-01-01", "--dry-run"]).await;
    assert_eq!((code, &planned["again"]), (Some(0), &json!(30)), "{error}");
    assert_eq!(
        producer::committed(&world.group(), &world.topic()),
        Some(30),
        "a dry run moves nothing"
    );
    let (code, moved, error) = replay(&world, &["--from-beginning", "--reason", "to see"]).await;
    assert_eq!(code, Some(0), "{error}");
    let expected =
        json!([{"topic": world.topic(), "partition": 0, "from": 30, "to": 0, "again": 30, "passed_over": 0}]);
    assert_eq!(moved["moves"], expected);
    assert_eq!(producer::committed(&world.group(), &world.topic()), Some(0));
    run_to(&world, "second", 30).await;
    assert_eq!(
        world.count("SELECT count(*) FROM effects").await,
        30,
        "nothing was done twice"
    );
    assert_eq!(
        world.count("SELECT count(*) FROM attempts").await,
        60,
        "everything was delivered again"
    );
    let account: (String, String, String, Value) =
        sqlx::query_as("SELECT moved_by, reason, state, positions FROM afterwrite.group_moves")
            .fetch_one(&world.pool)
            .await
            .unwrap();
    assert_eq!(
        account,
        ("ann".to_owned(), "to see".to_owned(), "moved".to_owned(), expected)
    );
    println!("{}: 30 records delivered again, 0 effects twice", world.name);
    world.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_partition_goes_on_where_it_is_put() {
    let _stack = stack::shared().await;
    let world = World::bare("put").await;
    producer::make_topic(&world.topic()).await;
    let worker = world.worker("first", &[]);
    producer::write_versions(&world.topic(), 1..4, 1).await;
    settled(&world, 3).await;
    worker.stop().await;
    let place = format!("{}:0:beginning", world.topic());

    // Retention overtook the group.
    producer::write_versions(&world.topic(), 4..7, 1).await;
    producer::delete_before(&world.topic(), 5).await;
    let newest = format!("{}:0:6", world.topic());
    let (code, _, error) = replay(&world, &["--to-offset", &newest]).await;
    assert!(
        code == Some(2) && error.contains("over 1 offsets that nobody settled"),
        "{error}"
    );
    // What is gone is no reason to refuse.
    let (code, moved, error) = replay(&world, &["--to-offset", &place]).await;
    assert_eq!((code, &moved["moves"][0]["to"]), (Some(0), &json!(5)), "{error}");
    run_to(&world, "second", 6).await;

    // The committed offset was lost.
    producer::forget_group(&world.group()).await;
    let (code, moved, error) = replay(&world, &["--from-beginning"]).await;
    assert_eq!((code, &moved["moves"][0]["from"]), (Some(0), &Value::Null), "{error}");
    run_to(&world, "third", 6).await;
    let keys: Vec<i32> = sqlx::query_scalar("SELECT k FROM effects ORDER BY k")
        .fetch_all(&world.pool)
        .await
        .unwrap();
    assert_eq!(keys, [1, 2, 3, 6]);
    world.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_to_be_done_again_is_done_exactly_once_more() {
    let _stack = stack::shared().await;
    let world = World::bare("redone").await;
    producer::make_topic(&world.topic()).await;
    let worker = world.worker("first", &[]);
    producer::write_versions(&world.topic(), 1..6, 1).await;
    producer::write_change(&world.topic(), 6, "permanent").await;
    settled(&world, 6).await;
    let between: String = sqlx::query_scalar("SELECT clock_timestamp()::text")
        .fetch_one(&world.pool)
        .await
        .unwrap();
    let between = between.replace(' ', "T") + ":00";
    producer::write_versions(&world.topic(), 11..14, 1).await;
    settled(&world, 9).await;
    worker.stop().await;
    // The event of row 6 was a dead letter, and was done after all.
    sqlx::query("UPDATE afterwrite.ledger SET state = 'done' WHERE state = 'buried'")
        .execute(&world.pool)
        .await
        .unwrap();

    let words = |handler| {
        [
            "--redo",
            "--handler",
            handler,
            "--from",
            "2020-01-01",
            "--until",
            &*between,
        ]
    };
    let redo = words("recorder");
    let wrong = replay(&world, &words("other")).await;
    assert!(
        wrong.0 == Some(2) && wrong.2.contains("which has recorder"),
        "{wrong:?}"
    );
    for last in [&["--dry-run"][..], &["--reason", "bug 17"]] {
        let (code, report, error) = replay(&world, &[&redo, last].concat()).await;
        assert_eq!(code, Some(0), "{error}");
        let counted = ["events", "were_letters", "open_before"].map(|name| report["redo"][name].as_i64().unwrap());
        assert_eq!(counted, [5, 1, 0], "{report}");
        let marked = world
            .count("SELECT count(*) FROM afterwrite.ledger WHERE state = 'redo'")
            .await;
        assert_eq!(marked, if last[0] == "--dry-run" { 0 } else { 5 });
    }
    run_to(&world, "second", 9).await;
    // Whoever moves the group once more meets nothing that is marked.
    replay(&world, &["--from-beginning"]).await;
    run_to(&world, "third", 9).await;
    let times: Vec<(i32, i64)> = sqlx::query_as("SELECT k, count(*) FROM effects GROUP BY k ORDER BY k")
        .fetch_all(&world.pool)
        .await
        .unwrap();
    assert_eq!(
        times,
        [(1, 2), (2, 2), (3, 2), (4, 2), (5, 2), (11, 1), (12, 1), (13, 1)]
    );
    assert_eq!(
        world
            .count("SELECT count(*) FROM afterwrite.ledger WHERE state <> 'done'")
            .await,
        0
    );
    println!(
        "{}: 5 of 9 events redone exactly once, 1 former dead letter left out",
        world.name
    );
    world.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_when_it_is_done_again_becomes_a_letter_that_can_be_replayed() {
    let _stack = stack::shared().await;
    let world = World::bare("redo_failed").await;
    producer::make_topic(&world.topic()).await;
    sqlx::query("INSERT INTO mended VALUES (1)")
        .execute(&world.pool)
        .await
        .unwrap();
    let worker = world.worker("first", &[]);
    producer::write_change(&world.topic(), 1, "permanent").await;
    settled(&world, 1).await;
    worker.stop().await;
    sqlx::query("DELETE FROM mended").execute(&world.pool).await.unwrap();
    let redo = [
        "--redo",
        "--handler",
        "recorder",
        "--from",
        "2020-01-01",
        "--until",
        "2100-01-01",
    ];
    let (code, _, error) = replay(&world, &redo).await;
    assert_eq!(code, Some(0), "{error}");
    let worker = world.worker("second", &[]);
    let open = "SELECT count(*) FROM afterwrite.letters WHERE state = 'open'";
    until("the letter", Duration::from_secs(60), async || {
        (world.count(open).await == 1).then_some(())
    })
    .await;
    settled(&world, 1).await;
    sqlx::query("INSERT INTO mended VALUES (1)")
        .execute(&world.pool)
        .await
        .unwrap();
    let (code, _) = world
        .afterwrite(&["dlq", "replay", "--all", "--group", "recorder", "--wait"])
        .await;
    assert_eq!(code, 0);
    worker.stop().await;
    assert_eq!(
        world.count("SELECT count(*) FROM effects").await,
        2,
        "done, and done again by the replay"
    );
    assert_eq!(
        world
            .count("SELECT count(*) FROM afterwrite.ledger WHERE state = 'done'")
            .await,
        1
    );
    world.remove().await;
}

/// Message-IDs of the mails of this world with the number of their copies.
fn copies(world: &World) -> BTreeMap<String, usize> {
    mails::caught(world)
        .into_iter()
        .fold(BTreeMap::new(), |mut copies, mail| {
            *copies.entry(mail.id).or_default() += 1;
            copies
        })
}

#[tokio::test(flavor = "multi_thread")]
async fn mails_are_repeated_only_when_that_is_asked_for() {
    const SIGNUPS: usize = 5;
    let _stack = stack::shared().await;
    let world = World::waitlist("remailed").await;
    let only_email = [
        ("AFTERWRITE__HANDLERS__FRAUD__ENABLED", "false"),
        ("AFTERWRITE__HANDLERS__POSITION__ENABLED", "false"),
        ("AFTERWRITE__HANDLERS__REWARD__ENABLED", "false"),
    ];
    let worker = Worker::waitlist(&world, "first", &only_email);
    world.launch().await;
    world.sign_up_five().await;
    let sent = "SELECT count(*) FROM afterwrite.effects WHERE state = 'sent'";
    until("the mails", Duration::from_secs(120), async || {
        (world.count(sent).await == 5).then_some(())
    })
    .await;
    worker.stop().await;
    let first = copies(&world);
    assert_eq!(first.values().collect::<Vec<_>>(), [&1; SIGNUPS]);

    let redo = [
        "replay",
        "--group",
        "email",
        "--redo",
        "--handler",
        "email",
        "--from",
        "2020-01-01",
        "--until",
        "2100-01-01",
    ];
    for (more, each) in [(None, 1), (Some("--repeat-effects"), 2)] {
        let words: Vec<&str> = redo.into_iter().chain(more).chain(["--output", "json"]).collect();
        let (_, said) = world.afterwrite(&words).await;
        let report: Value = serde_json::from_str(&said).unwrap();
        assert_eq!(
            (&report["redo"]["events"], &report["redo"]["open_before"]),
            (&json!(5), &json!(0)),
            "{report}"
        );
        assert_eq!(report["redo"]["effects"], if more.is_some() { 5 } else { 0 });
        let worker = Worker::waitlist(&world, "again", &only_email);
        let redone = "SELECT count(*) FROM afterwrite.ledger WHERE handler = 'email' AND state = 'redo'";
        until("all to be done again", Duration::from_secs(60), async || {
            (world.count(redone).await == 0).then_some(())
        })
        .await;
        worker.stop().await;
        let copies = copies(&world);
        assert_eq!(
            copies.keys().collect::<Vec<_>>(),
            first.keys().collect::<Vec<_>>(),
            "the same Message-IDs"
        );
        assert_eq!(copies.values().collect::<Vec<_>>(), [&each; SIGNUPS], "{more:?}");
    }
    println!(
        "{}: {SIGNUPS} mails redone: 0 repeated, and each once more with --repeat-effects",
        world.name
    );
    world.remove().await;
}
