//! Commands on dead letters without a worker: what filters choose, what discarding leaves, what an export brings back.

use std::sync::Arc;
use std::time::Duration;

use afterwrite::dead_letter::sink::{KafkaLetters, Writing};
use afterwrite::dead_letter::topic::Options;
use afterwrite::engine::letter::{Letter, Letters};
use afterwrite::engine::retry::Class;
use afterwrite::event::change::{Change, ChangeEvent, Origin};
use afterwrite::event::delivery::{Position, RawRecord, SourcePartition};
use afterwrite::event::key::Key;
use afterwrite::event::row::{Row, Value as Cell};
use bytes::Bytes;
use chrono::{TimeDelta, Utc};
use serde_json::{Value, json};

use crate::producer;
use crate::stack;
use crate::world::World;

/// A letter of the row with this key, that failed so many minutes ago.
pub(crate) fn letter(world: &World, k: i64, class: Class, minutes_ago: i64) -> Letter {
    let at = Utc::now() - TimeDelta::minutes(minutes_ago);
    let row = || Row::of([("k", Some(Cell::Int(k)))]);
    let origin = Origin {
        name: "it".into(),
        db: "it".into(),
        schema: "public".into(),
        table: "work".into(),
        tx: Some(k),
        lsn: Some(k),
        commit_ts_ms: Some(1_780_000_000_000),
    };
    let inserted = Change::Insert {
        moved_from: None,
        after: row(),
    };
    Letter {
        group: world.group().into(),
        handler: "recorder".into(),
        event: Some(Arc::new(ChangeEvent::new(origin, Key::of(row()), inserted))),
        class,
        error: format!("failed as {}", class.as_str()),
        attempts: 1,
        first_failed_at: at,
        failed_at: at,
        replays: 0,
        partition: SourcePartition {
            topic: world.topic().into(),
            partition: 0,
        },
        position: Position(k),
        raw: RawRecord {
            key: Some(format!("{{\"k\":{k}}}").into()),
            value: Some(producer::change(k, 1, "ok").into()),
            headers: vec![
                ("trace".to_owned(), Some(Bytes::from_static(b"\xff\x00 secret"))),
                ("trace".to_owned(), None),
            ],
            timestamp_ms: None,
        },
        parks: None,
        due_in: None,
    }
}

/// A sink as the worker has it, on this world's database.
pub(crate) fn sink(world: &World) -> KafkaLetters {
    let options = Options {
        brokers: stack::address("KAFKA_BROKERS"),
        properties: Vec::new(),
        partitions: 1,
        replicas: Some(1),
        retention: Duration::from_secs(86_400),
        message_bytes_max: 10_551_296,
    };
    let writing = Writing {
        error_bytes_max: 4_096,
        acknowledge_max: Duration::from_secs(20),
    };
    KafkaLetters::new(options, writing, world.pool.clone()).unwrap()
}

/// A world without a connector, whose dead-letter topic is there.
pub(crate) async fn world(test: &str) -> World {
    let world = World::bare(test).await;
    let topic = format!("{}.dlq", world.group());
    producer::make_topic(&topic).await;
    producer::limit_records(&topic, "10551296").await;
    world
}

/// The command's JSON.
pub(crate) async fn report(world: &World, words: &[&str]) -> (i32, Value) {
    let (code, printed) = world.afterwrite(&[words, &["--output", "json"]].concat()).await;
    let report = serde_json::from_str(&printed).unwrap_or(Value::Null);
    (code, report)
}

/// Runs `afterwrite dlq` and answers its exit code and what it complained of.
pub(crate) async fn complaint(world: &World, words: &[&str]) -> (Option<i32>, String) {
    let mut command = world.command(env!("CARGO_BIN_EXE_afterwrite"));
    let output = command.arg("dlq").args(words).output().await.unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

async fn state_of(world: &World, id: &str) -> String {
    let sql = "SELECT state FROM afterwrite.letters WHERE letter_id = $1";
    sqlx::query_scalar(sql).bind(id).fetch_one(&world.pool).await.unwrap()
}

#[tokio::test]
async fn one_filter_chooses_for_every_command() {
    let _stack = stack::shared().await;
    let world = world("filters").await;
    let sink = sink(&world);
    for (k, class, minutes_ago) in [
        (1, Class::Permanent, 300),
        (2, Class::Timeout, 200),
        (3, Class::Timeout, 5),
        (12, Class::Panic, 1),
    ] {
        sink.bury(&letter(&world, k, class, minutes_ago)).await.unwrap();
    }
    let mut undecodable = letter(&world, 4, Class::Undecodable, 0);
    undecodable.event = None;
    undecodable.handler = "*".into();
    sink.bury(&undecodable).await.unwrap();
    let day = (Utc::now() + TimeDelta::days(1)).format("%Y-%m-%d").to_string();
    for (filters, offsets) in [
        (&[][..], &[4, 12, 3, 2, 1][..]),
        (&["--class", "timeout"], &[3, 2]),
        (&["--class", "timeout", "--class", "panic"], &[12, 3, 2]),
        (&["--class", "timeout", "--since", "1h"], &[3]),
        (&["--until", "4h"], &[1]),
        (&["--since", &day], &[]),
        (&["--handler", "*"], &[4]),
        (&["--handler", "recorder", "--until", "2m"], &[3, 2, 1]),
        (&["--table", "public.work", "--key", "k=12"], &[12]),
        (&["--key", "2"], &[2]),
        (&["--key", "{\"k\": 2}"], &[2]),
        (&["--key", "k=2,other=2"], &[]),
        (&["--table", "public.other"], &[]),
        (&["--state", "open", "--group", "recorder"], &[4, 12, 3, 2, 1]),
        (&["--state", "discarded"], &[]),
    ] {
        let (_, listed) = report(&world, &[&["dlq", "list"], filters].concat()).await;
        let letters = listed["letters"].as_array().unwrap();
        let found: Vec<i64> = letters
            .iter()
            .map(|letter| letter["offset"].as_i64().unwrap())
            .collect();
        assert_eq!(found, offsets, "{filters:?}");
    }
    let (_, listed) = report(&world, &["dlq", "list", "--limit", "2"]).await;
    assert_eq!(listed["left_out"], 3);
    // A group that is misspelt has no letters, and that it has none must not be taken for good news.
    let (code, said) = complaint(&world, &["list", "--group", "emial"]).await;
    assert!(
        code == Some(1) && said.contains("emial ever ran here; there are "),
        "{code:?} {said}"
    );
    let count = |handler: &str, class: &str, letters: i64| json!({"group": world.group(), "handler": handler, "class": class, "letters": letters});
    let timeouts = json!([count("recorder", "timeout", 1)]);
    let chosen = ["--class", "timeout", "--since", "1h", "--dry-run"];
    let (_, replay) = report(&world, &[&["dlq", "replay"], &chosen[..]].concat()).await;
    assert_eq!(replay["counts"], timeouts, "{replay}");
    let (_, discard) = report(&world, &[&["dlq", "discard", "--reason", "r"], &chosen[..]].concat()).await;
    assert_eq!(discard["counts"], timeouts, "{discard}");
    let changed = "SELECT count(*) FROM afterwrite.letters WHERE state <> 'open'";
    assert_eq!(
        world.count(changed).await + world.count("SELECT count(*) FROM afterwrite.replay_runs").await,
        0
    );
    let (_, exported) = world.afterwrite(&["dlq", "export", "--key", "3"]).await;
    assert_eq!(exported.lines().count(), 1);
    world.remove().await;
}

#[tokio::test]
async fn a_command_that_says_too_little_does_nothing() {
    let _stack = stack::shared().await;
    let world = World::bare("refusals").await;
    for (words, code, said) in [
        (&["replay"][..], 2, "say which letters"),
        (&["discard", "--reason", "r"], 2, "say which letters"),
        (&["discard", "--class", "panic", "--reason", " "], 2, "say why"),
        (&["discard", "--class", "panic"], 2, "--reason"),
        (&["replay", "--state", "replayed"], 2, "only open and parked letters"),
        (&["list", "--table", "work"], 2, "schema.table"),
        (&["list", "--since", "yesterday"], 2, "an age such as"),
    ] {
        let (found, complained) = complaint(&world, words).await;
        assert!(
            found == Some(code) && complained.contains(said),
            "{words:?}: {complained}"
        );
    }
    world.remove().await;
}

#[tokio::test]
async fn a_discarded_letter_stays_settled_and_says_who_when_and_why() {
    let _stack = stack::shared().await;
    let world = world("discard").await;
    let sink = sink(&world);
    let letters = [1, 2, 3].map(|k| letter(&world, k, Class::Permanent, k));
    for letter in &letters {
        sink.bury(letter).await.unwrap();
    }
    let [first, second, third] = letters.map(|letter| letter.id());
    sqlx::query("UPDATE afterwrite.letters SET state = 'replaying' WHERE letter_id = $1")
        .bind(&second)
        .execute(&world.pool)
        .await
        .unwrap();
    let (code, said) = complaint(&world, &["discard", &first, &second, "--reason", "test data"]).await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains(&format!("{} is being replayed", &second[..12])), "{said}");
    assert_eq!(state_of(&world, &first).await, "open", "all or none");

    let discard = ["dlq", "discard", &first, "--reason", " test data "];
    let (code, discarded) = report(&world, &discard).await;
    assert_eq!((code, &discarded["discarded"]), (0, &json!([first])));
    let discard = ["dlq", "discard", "--group", "recorder", "--reason", "the rest"];
    let (_, discarded) = report(&world, &discard).await;
    assert_eq!(
        discarded["discarded"],
        json!([third]),
        "one that is being replayed is not chosen"
    );
    let (code, said) = complaint(&world, &["discard", &first, "--reason", "again"]).await;
    assert!(code == Some(1) && said.contains("is discarded already"), "{said}");

    let ledger: Vec<(String, i64)> =
        sqlx::query_as("SELECT state, count(*) FROM afterwrite.ledger GROUP BY state ORDER BY state")
            .fetch_all(&world.pool)
            .await
            .unwrap();
    assert_eq!(ledger, [("buried".to_owned(), 1), ("discarded".to_owned(), 2)]);
    let (_, shown) = report(&world, &["dlq", "show", &first]).await;
    assert_eq!(shown["state"], "discarded");
    let history = shown["history"].as_array().unwrap();
    let states: Vec<(&Value, &Value)> = history
        .iter()
        .map(|row| (&row["from_state"], &row["to_state"]))
        .collect();
    assert_eq!(
        states,
        [(&Value::Null, &json!("open")), (&json!("open"), &json!("discarded"))]
    );
    assert_eq!(history[1]["reason"], "test data");
    let by = history[1]["changed_by"].as_str().unwrap();
    let user: String = sqlx::query_scalar("SELECT session_user::text")
        .fetch_one(&world.pool)
        .await
        .unwrap();
    assert!(by.contains('@') && by.contains(&user), "{by}");
    assert!(!shown.to_string().contains("secret"), "{shown}");
    let (_, shown) = report(&world, &["dlq", "show", &first, "--values"]).await;
    assert_eq!(shown["event"]["after"]["k"], 1, "{shown}");
    world.remove().await;
}

/// What an exported line says of the letter itself, and not of where and since when it is kept.
pub(crate) fn lasting(line: &str) -> Value {
    let mut line: Value = serde_json::from_str(line).unwrap();
    for passing in ["timestamp", "state_by", "state_at", "state_reason"] {
        line.as_object_mut().unwrap().remove(passing);
    }
    line
}

#[tokio::test]
async fn an_export_brings_letters_back_byte_for_byte() {
    let _stack = stack::shared().await;
    let world = world("export").await;
    let sink = sink(&world);
    for k in 1..=3 {
        sink.bury(&letter(&world, k, Class::Exhausted, 10 - k)).await.unwrap();
    }
    let mut bare = letter(&world, 4, Class::Undecodable, 0);
    bare.event = None;
    bare.handler = "*".into();
    bare.raw = RawRecord::default();
    sink.bury(&bare).await.unwrap();

    let file = std::env::temp_dir().join(format!("{}.jsonl", world.name));
    let name = file.to_str().unwrap();
    let (code, exported) = report(&world, &["dlq", "export", "--to", name]).await;
    assert_eq!((code, &exported["exported"]), (0, &json!(4)));
    let (code, said) = complaint(&world, &["export", "--to", name]).await;
    assert!(code == Some(2) && said.contains("exists already"), "{said}");
    let before = std::fs::read_to_string(&file).unwrap();
    let (_, decoded) = world.afterwrite(&["decode", name]).await;
    assert_eq!(decoded.matches("\"kind\":\"change\"").count(), 3, "{decoded}");

    let other = World::bare("import").await;
    let damaged = format!(
        "{before}\n{}\n",
        before.lines().next().unwrap().replace("exhausted", "bored")
    );
    let damaged_file = std::env::temp_dir().join(format!("{}-damaged.jsonl", world.name));
    std::fs::write(&damaged_file, damaged).unwrap();
    let (code, said) = complaint(&other, &["import", damaged_file.to_str().unwrap()]).await;
    assert!(
        code == Some(1) && said.contains("line 6: there is no such class"),
        "{said}"
    );
    assert_eq!(other.count("SELECT count(*) FROM afterwrite.letters").await, 0);

    let (code, imported) = report(&other, &["dlq", "import", name]).await;
    assert_eq!(
        (code, &imported),
        (0, &json!({"imported": 4, "known": 0, "restored": 0}))
    );
    let (_, imported) = report(&other, &["dlq", "import", name]).await;
    assert_eq!(imported, json!({"imported": 0, "known": 4, "restored": 0}));
    let (_, after) = other.afterwrite(&["dlq", "export"]).await;
    let lines = |text: &str| text.lines().map(lasting).collect::<Vec<_>>();
    assert_eq!(lines(&after), lines(&before));
    let ledger = "SELECT count(*) FROM afterwrite.ledger WHERE state = 'buried'";
    assert_eq!(other.count(ledger).await, 3);
    // The other database has the same group, so what was put back stands in the same topic as what it was made of.
    let records = producer::read_all(&format!("{}.dlq", world.group())).await;
    let (written, put_back) = records.split_at(4);
    let bytes = |record: &producer::Record| (record.key.clone(), record.value.clone(), record.headers.clone());
    assert!(written[0].headers.contains(&("trace".to_owned(), None)));
    assert_eq!(
        put_back.iter().map(bytes).collect::<Vec<_>>(),
        written.iter().map(bytes).collect::<Vec<_>>()
    );
    println!(
        "{}: 4 letters exported and brought back, bytes and headers equal",
        world.name
    );
    other.remove().await;
    world.remove().await;
}

#[tokio::test]
async fn a_letter_that_outlived_its_bytes_gets_them_back_from_an_export() {
    let _stack = stack::shared().await;
    let world = world("restore").await;
    let sink = sink(&world);
    let [first, second] = [1, 2].map(|k| letter(&world, k, Class::Exhausted, k));
    sink.bury(&first).await.unwrap();
    sink.bury(&second).await.unwrap();
    let file = std::env::temp_dir().join(format!("{}.jsonl", world.name));
    let name = file.to_str().unwrap();
    assert_eq!(report(&world, &["dlq", "export", "--to", name]).await.0, 0);
    // As when retention took it.
    sqlx::query("UPDATE afterwrite.letters SET dlq_offset = 99 WHERE letter_id = $1")
        .bind(first.id())
        .execute(&world.pool)
        .await
        .unwrap();
    let (code, said) = complaint(&world, &["export"]).await;
    assert!(code == Some(1) && said.contains(&first.id()[..12]), "{said}");
    let (_, untouched) = report(&world, &["dlq", "import", name]).await;
    assert_eq!(untouched, json!({"imported": 0, "known": 2, "restored": 0}));
    let (_, restored) = report(&world, &["dlq", "import", name, "--restore"]).await;
    assert_eq!(restored, json!({"imported": 0, "known": 1, "restored": 1}));
    let before = std::fs::read_to_string(&file).unwrap();
    let (code, after) = world.afterwrite(&["dlq", "export"]).await;
    let lines = |text: &str| text.lines().map(lasting).collect::<Vec<_>>();
    assert_eq!((code, lines(&after)), (0, lines(&before)));
    world.remove().await;
}
