//! Letters where there is no broker: they are kept in Postgres, and every command does with them what it does elsewhere.
//!
//! The brokers of the settings are a listener of the test, which nobody may knock at.

use std::process::Stdio;
use std::time::Duration;

use afterwrite::dead_letter::requests::{self, Request};
use afterwrite::dead_letter::table::TableLetters;
use afterwrite::engine::driver::Owned;
use afterwrite::engine::letter::{Letter, Letters};
use afterwrite::engine::retry::Class;
use afterwrite::engine::standing::{OwnedPartition, Standing, Suspended};
use afterwrite::event::delivery::{RawRecord, SourcePartition};
use afterwrite::groups::workers::{self, Process};
use afterwrite::ledger::claims::Claims;
use chrono::Utc;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;
use tokio::sync::watch;
use uuid::Uuid;

use crate::letters::{lasting, letter};
use crate::stack::{self, until};
use crate::world::World;

/// Longer errors are cut.
const ERROR_BYTES_MAX: usize = 64;

/// Longer than any command here takes; who takes so long waits for somebody.
const COMMAND_MAX: Duration = Duration::from_secs(60);

/// A world whose settings name brokers that nobody may ask.
struct Brokerless {
    world: World,
    door: std::net::TcpListener,
}

impl Brokerless {
    async fn new(test: &str) -> Self {
        let door = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        door.set_nonblocking(true).unwrap();
        Self {
            world: World::bare(test).await,
            door,
        }
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = self.world.command(env!("CARGO_BIN_EXE_afterwrite"));
        command.args(words).env("AFTERWRITE__SOURCE__KIND", "wal").env(
            "AFTERWRITE__KAFKA__BROKERS",
            self.door.local_addr().unwrap().to_string(),
        );
        command
    }

    /// Exit code, standard output, standard error.
    async fn said(&self, words: &[&str]) -> (Option<i32>, String, String) {
        let mut command = self.command(words);
        let output = tokio::time::timeout(COMMAND_MAX, command.kill_on_drop(true).output()).await;
        let output = output.unwrap_or_else(|_| panic!("{words:?} does not end")).unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.code(), text(output.stdout), text(output.stderr))
    }

    /// What the command prints for programs, when it succeeds.
    async fn report(&self, words: &[&str]) -> Value {
        let (code, printed, said) = self.said(&[words, &["--output", "json"]].concat()).await;
        assert_eq!(code, Some(0), "{words:?}: {said}");
        serde_json::from_str(&printed).unwrap()
    }

    /// What the command complains of, when it fails with this code.
    async fn complaint(&self, words: &[&str], code: i32) -> String {
        let (found, _, said) = self.said(words).await;
        assert_eq!(found, Some(code), "{words:?}: {said}");
        said
    }

    fn sink(&self) -> TableLetters {
        TableLetters::new(self.world.pool.clone(), ERROR_BYTES_MAX)
    }

    async fn bury(&self, k: i64, class: Class, minutes_ago: i64) -> Letter {
        let letter = letter(&self.world, k, class, minutes_ago);
        self.sink().bury(&letter).await.unwrap();
        letter
    }

    /// Takes the partition of all letters as an owner does, and what was requested for it.
    async fn take(&self) -> Vec<Request> {
        let (group, topic) = (self.world.group(), self.world.topic());
        let claims = Claims::new(self.world.pool.clone(), group.as_str(), Uuid::new_v4());
        let claim = claims.take(&topic, 0).await.unwrap();
        let partition = SourcePartition {
            topic: topic.into(),
            partition: 0,
        };
        let owned = Owned::from([(partition, claim.epoch)]);
        requests::take(&self.world.pool, &group, &owned, &[], 32).await.unwrap()
    }

    async fn remove(self) {
        let knocked = self.door.accept().map_err(|error| error.kind());
        assert_eq!(
            knocked.map(|_| ()),
            Err(std::io::ErrorKind::WouldBlock),
            "a broker was asked"
        );
        self.world.remove().await;
    }
}

#[tokio::test]
async fn a_letter_is_kept_once_byte_for_byte_and_found_without_a_broker() {
    let _stack = stack::shared().await;
    let brokerless = Brokerless::new("kept").await;
    let world = &brokerless.world;
    let mut long = letter(world, 1, Class::Permanent, 300);
    long.error = "e".repeat(100);
    let cut = format!("{}… (100 bytes in all)", "e".repeat(64));
    // The engine writes again what it was not told of.
    for _ in 0..2 {
        brokerless.sink().bury(&long).await.unwrap();
    }
    brokerless.bury(2, Class::Timeout, 200).await;
    let mut bare = letter(world, 3, Class::Undecodable, 1);
    (bare.event, bare.handler, bare.raw) = (None, "*".into(), RawRecord::default());
    brokerless.sink().bury(&bare).await.unwrap();
    for (rows, expected) in [
        ("SELECT count(*) FROM afterwrite.letters WHERE dlq_topic IS NULL", 3),
        ("SELECT count(*) FROM afterwrite.dead_letters", 3),
        ("SELECT count(*) FROM afterwrite.letter_history", 3),
        ("SELECT count(*) FROM afterwrite.ledger WHERE state = 'buried'", 2),
    ] {
        assert_eq!(world.count(rows).await, expected, "{rows}");
    }
    let bytes: (Option<Vec<u8>>, Option<Vec<u8>>) =
        sqlx::query_as("SELECT key, value FROM afterwrite.dead_letters WHERE letter_id = $1")
            .bind(long.id())
            .fetch_one(&world.pool)
            .await
            .unwrap();
    let raw = |bytes: &Option<bytes::Bytes>| bytes.as_ref().map(|bytes| bytes.to_vec());
    assert_eq!(bytes, (raw(&long.raw.key), raw(&long.raw.value)));

    for (filters, offsets) in [
        (&[][..], &[3, 2, 1][..]),
        (&["--class", "timeout", "--group", "recorder"], &[2]),
        (&["--key", "1"], &[1]),
    ] {
        let listed = brokerless.report(&[&["dlq", "list"], filters].concat()).await;
        let letters = listed["letters"].as_array().unwrap();
        let found: Vec<i64> = letters.iter().map(|row| row["offset"].as_i64().unwrap()).collect();
        assert_eq!(found, offsets, "{filters:?}");
    }
    let shown = brokerless.report(&["dlq", "show", &long.id()[..12], "--values"]).await;
    assert_eq!(
        (&shown["error"], &shown["event"]["after"]["k"]),
        (&json!(cut), &json!(1))
    );
    assert_eq!(shown["stored"], "afterwrite.dead_letters");
    let headers = shown["headers"].as_array().unwrap();
    for expected in [
        json!(["trace", null]),
        json!(["afterwrite.letter_id", long.id()]),
        json!(["afterwrite.error", cut]),
        json!(["__connect.errors.topic", world.topic()]),
    ] {
        assert_eq!(
            headers.iter().filter(|header| **header == expected).count(),
            1,
            "{shown}"
        );
    }
    let discard = ["dlq", "discard", "--class", "timeout", "--reason", "test data"];
    assert_eq!(
        brokerless.report(&discard).await["discarded"].as_array().unwrap().len(),
        1
    );
    let discarded = "SELECT count(*) FROM afterwrite.ledger WHERE state = 'discarded'";
    assert_eq!(world.count(discarded).await, 1);
    brokerless.remove().await;
}

#[tokio::test]
async fn letters_are_followed_in_postgres_alone() {
    let _stack = stack::shared().await;
    let brokerless = Brokerless::new("followed").await;
    let said = brokerless.complaint(&["dlq", "tail", "--group", "recorder"], 1).await;
    assert!(said.contains("ever ran here"), "{said}");
    // More than are taken from the table at once.
    for k in 1..=120 {
        brokerless.bury(k, Class::Timeout, 0).await;
    }
    let tail = ["dlq", "tail", "--group", "recorder", "--limit"];
    let (_, printed, _) = brokerless
        .said(&[&tail[..], &["120", "--from-beginning", "--output", "json"]].concat())
        .await;
    let offset = |line: &str| serde_json::from_str::<Value>(line).unwrap()["offset"].as_i64().unwrap();
    let mut offsets: Vec<i64> = printed.lines().map(offset).collect();
    offsets.sort_unstable();
    assert_eq!(offsets, (1..=120).collect::<Vec<_>>());

    let mut command = brokerless.command(&[&tail[..], &["1"]].concat());
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut following = command.spawn().unwrap();
    let mut hints = BufReader::new(following.stderr.take().unwrap()).lines();
    let hint = hints.next_line().await.unwrap().unwrap();
    assert!(
        hint.contains(&brokerless.world.group()) && hint.contains("Ctrl-C"),
        "{hint}"
    );
    let next = brokerless.bury(121, Class::Panic, 1).await;
    let mut lines = BufReader::new(following.stdout.take().unwrap()).lines();
    let line = tokio::time::timeout(Duration::from_secs(30), lines.next_line()).await;
    let line = line.expect("the letter is shown").unwrap().unwrap();
    assert!(line.contains("panic") && line.contains(&next.id()[..12]), "{line}");
    assert!(following.wait().await.unwrap().success());
    brokerless.remove().await;
}

#[tokio::test]
async fn an_export_goes_back_into_postgres() {
    let _stack = stack::shared().await;
    let brokerless = Brokerless::new("exported").await;
    let world = &brokerless.world;
    for k in 1..=3 {
        brokerless.bury(k, Class::Exhausted, 10 - k).await;
    }
    let file = std::env::temp_dir().join(format!("{}.jsonl", world.name));
    let name = file.to_str().unwrap();
    assert_eq!(brokerless.report(&["dlq", "export", "--to", name]).await["exported"], 3);
    let lines = |text: &str| text.lines().map(lasting).collect::<Vec<_>>();
    let before = lines(&std::fs::read_to_string(&file).unwrap());

    let other = Brokerless::new("imported").await;
    let import = ["dlq", "import", name];
    for expected in [
        json!({"imported": 3, "known": 0, "restored": 0}),
        json!({"imported": 0, "known": 3, "restored": 0}),
    ] {
        assert_eq!(other.report(&import).await, expected);
    }
    let (_, printed, _) = other.said(&["dlq", "export"]).await;
    assert_eq!(lines(&printed), before);
    let buried = "SELECT count(*) FROM afterwrite.ledger WHERE state = 'buried'";
    assert_eq!(other.world.count(buried).await, 3);

    // One letter lost its bytes, another one is from the time when there were brokers.
    for lost in [
        "DELETE FROM afterwrite.dead_letters WHERE letter_id = (SELECT min(letter_id) FROM afterwrite.letters)",
        "UPDATE afterwrite.letters SET (dlq_topic, dlq_partition, dlq_offset) = ('old.dlq', 0, 7)
         WHERE letter_id = (SELECT max(letter_id) FROM afterwrite.letters)",
    ] {
        sqlx::query(lost).execute(&other.world.pool).await.unwrap();
    }
    let said = other.complaint(&["dlq", "export"], 1).await;
    assert!(said.contains("old.dlq[0] offset 7, and no broker is asked"), "{said}");
    let restored = other.report(&[&import[..], &["--restore"]].concat()).await;
    assert_eq!(restored, json!({"imported": 0, "known": 1, "restored": 2}));
    let (_, printed, _) = other.said(&["dlq", "export"]).await;
    assert_eq!(lines(&printed), before);
    other.remove().await;
    brokerless.remove().await;
}

#[tokio::test]
async fn letters_go_back_to_their_owner_out_of_postgres() {
    let _stack = stack::shared().await;
    let brokerless = Brokerless::new("replayed").await;
    let world = &brokerless.world;
    let [first, second] = [
        brokerless.bury(1, Class::Timeout, 30).await,
        brokerless.bury(2, Class::Timeout, 20).await,
    ];
    brokerless.bury(3, Class::Panic, 10).await;
    let file = std::env::temp_dir().join(format!("{}.jsonl", world.name));
    let name = file.to_str().unwrap();
    brokerless.report(&["dlq", "export", "--to", name]).await;

    let replay = ["dlq", "replay", "--group", "recorder", "--class", "timeout"];
    let dry = brokerless.report(&[&replay[..], &["--dry-run"]].concat()).await;
    assert_eq!(
        dry["counts"],
        json!([{"group": world.group(), "handler": "recorder", "class": "timeout", "letters": 2}])
    );
    assert_eq!(world.count("SELECT count(*) FROM afterwrite.replay_requests").await, 0);

    // The run is cut off at a letter that only a topic has, and goes on when that was brought back.
    sqlx::query(
        "WITH gone AS (DELETE FROM afterwrite.dead_letters WHERE letter_id = $1)
         UPDATE afterwrite.letters SET (dlq_topic, dlq_partition, dlq_offset) = ('old.dlq', 0, 7) WHERE letter_id = $1",
    )
    .bind(second.id())
    .execute(&world.pool)
    .await
    .unwrap();
    let said = brokerless
        .complaint(&[&replay[..], &["--rate", "50"]].concat(), 1)
        .await;
    assert!(said.contains("1 letter left") && said.contains("--resume"), "{said}");
    brokerless.report(&["dlq", "import", name, "--restore"]).await;
    let resumed = brokerless
        .report(&["dlq", "replay", "--resume", "--group", "recorder"])
        .await;
    assert_eq!(resumed["requested"], 2, "{resumed}");

    let taken = brokerless.take().await;
    let found: Vec<(&str, &RawRecord)> = taken
        .iter()
        .map(|request| (request.letter_id.as_str(), &request.record))
        .collect();
    assert_eq!(
        found,
        [(first.id().as_str(), &first.raw), (second.id().as_str(), &second.raw)],
        "the bytes as they came, without our headers"
    );

    let third = ["dlq", "replay", "--all", "--group", "recorder", "--wait"];
    let mut command = brokerless.command(&third);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let waiting = command.spawn().unwrap();
    until("the request", Duration::from_secs(30), async || {
        let taken = brokerless.take().await;
        let request = taken.iter().find(|request| request.offset == 3)?;
        requests::finish(&world.pool, request.id, request.epoch, true)
            .await
            .unwrap();
        Some(())
    })
    .await;
    let ended = waiting.wait_with_output().await.unwrap();
    let said = String::from_utf8(ended.stdout).unwrap();
    assert!(ended.status.success() && said.contains("1 healed"), "{said}");
    brokerless.remove().await;
}

#[tokio::test]
async fn status_says_what_postgres_knows_and_guesses_nothing() {
    let _stack = stack::shared().await;
    let brokerless = Brokerless::new("standing").await;
    let world = &brokerless.world;
    brokerless.bury(1, Class::Permanent, 1).await;
    let (standing, told) = watch::channel(Standing {
        running: 2,
        suspended: vec![Suspended {
            handler: "recorder".to_owned(),
            since: Utc::now(),
            why: "half of its attempts fail".to_owned(),
        }],
        partitions: vec![OwnedPartition {
            topic: world.topic(),
            partition: 0,
            frontier: Some(77),
            buffered_events: 3,
            paused: false,
        }],
        ..Standing::default()
    });
    let process = Process::this(Uuid::new_v4());
    let telling = tokio::spawn(workers::tell(world.pool.clone(), process, world.group(), told));
    let status = ["status", "--group", "recorder"];
    let group = until("the process to be told of", Duration::from_secs(30), async || {
        let report = brokerless.report(&status).await;
        assert_eq!(report["missing"], json!([]), "{report}");
        let group = report["groups"][0].clone();
        (group["state"] == "running").then_some(group)
    })
    .await;
    assert_eq!(
        (&group["letters_open"], &group["jobs"]["running"]),
        (&json!(1), &json!(2))
    );
    assert_eq!(group["suspended"][0]["handler"], "recorder");
    assert_eq!(group["processes"][0]["partitions"][0]["frontier"], 77);
    for unknown in ["membership", "partitions", "lag_events", "lag_s", "slot"] {
        assert_eq!(group.get(unknown), Some(&Value::Null), "{unknown}");
    }
    let (code, said, _) = brokerless.said(&status).await;
    assert_eq!(code, Some(0));
    for (part, is_said) in [
        (format!("{}[0]", world.topic()), true),
        ("recorder is suspended".to_owned(), true),
        ("1 dead letters are open".to_owned(), true),
        ("parts".to_owned(), false),
        ("asked".to_owned(), false),
    ] {
        assert_eq!(said.contains(&part), is_said, "{part}: {said}");
    }
    drop(standing);
    telling.await.unwrap();
    let report = brokerless.report(&["status"]).await;
    assert_eq!(report["groups"][0]["state"], "stopped", "{report}");
    brokerless.remove().await;
}

#[tokio::test]
async fn a_group_is_not_moved_back_where_nothing_is_kept_that_was_confirmed() {
    let _stack = stack::shared().await;
    let brokerless = Brokerless::new("moved").await;
    for asked in [
        &["--from-beginning"][..],
        &[
            "--redo",
            "--handler",
            "recorder",
            "--from",
            "2026-07-01",
            "--until",
            "2026-07-02",
            "--dry-run",
        ],
    ] {
        let replay = [&["replay", "--group", "recorder"], asked].concat();
        let said = brokerless.complaint(&replay, 2).await;
        assert!(
            said.contains("keeps nothing that was confirmed") && said.contains("dlq replay --group recorder"),
            "{said}"
        );
    }
    let said = brokerless.complaint(&["tail"], 2).await;
    assert!(said.contains("there are no topics to follow"), "{said}");
    brokerless.remove().await;
}
