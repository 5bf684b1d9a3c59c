//! An outage during which much log is written: jobs that wait are parked, so that the server need not keep the log for them, and
//! come back by themselves.

use std::sync::Arc;
use std::time::Duration;

use afterwrite::dead_letter::parking::StoredEvents;
use afterwrite::dead_letter::requests;
use afterwrite::dead_letter::table::TableLetters;
use afterwrite::decode::Decoder;
use afterwrite::decode::options::Options;
use afterwrite::engine::driver::Owned;
use afterwrite::engine::letter::{Letter, Letters, Parks};
use afterwrite::engine::owner::{ParkError, ParkedEvents, Recalled};
use afterwrite::engine::retry::Class;
use afterwrite::event::delivery::SourcePartition;
use afterwrite::ledger::claims::Claims;
use afterwrite::ledger::parked::{Lane, Parking};
use serde_json::Value;
use tokio::time::Instant;

use crate::letters::letter;
use crate::mails::{caught, check_copies};
use crate::stack::{self, until};
use crate::suspending::asked;
use crate::wal::{SETTINGS, insert, remove, until_effects, until_it_reads};
use crate::worker::Worker;
use crate::world::World;

/// The lag at which jobs are parked: two segments of log, where a gibibyte is the default.
const LAG_BYTES_MAX: i64 = 4 * 1024 * 1024;

/// Log that is written while everything waits.
const FILLER_BYTES: i64 = 40 * 1024 * 1024;

/// A window that is full at once, short waits, and suspension at the first failures.
const SMALL: [(&str, &str); 11] = [
    ("AFTERWRITE__WAL__SLOT_LAG_BYTES_MAX", "4194304"),
    ("AFTERWRITE__ENGINE__BUFFERED_EVENTS_MAX", "50"),
    ("AFTERWRITE__ENGINE__ATTEMPTS_MAX", "4"),
    ("AFTERWRITE__ENGINE__WAIT_FIRST_MS", "50"),
    ("AFTERWRITE__ENGINE__OUTAGE_WAIT_MS_MAX", "500"),
    ("AFTERWRITE__ENGINE__SUSPEND_ATTEMPTS_MIN", "4"),
    // What was claimed when the worker was killed is called again when its lease has ended.
    ("AFTERWRITE__ENGINE__ATTEMPT_TIMEOUT_MS", "4000"),
    ("AFTERWRITE__ENGINE__EFFECT_LEASE_MS", "5000"),
    ("AFTERWRITE__SMTP__STEP_TIMEOUT_MS", "1000"),
    ("AFTERWRITE__WEBHOOK__TIMEOUT_MS", "3000"),
    ("AFTERWRITE__ADMIN__LISTEN", "localhost:0"),
];

const KEYS: i32 = 60;
const ROUNDS: i32 = 5;
const SIGNUPS: i64 = 200;

fn settings() -> Vec<(&'static str, &'static str)> {
    [&SETTINGS[..], &SMALL].concat()
}

/// Writes log that no group wants.
async fn fill(world: &World) {
    for _ in 0..FILLER_BYTES / (1024 * 1024) {
        sqlx::query("SELECT pg_logical_emit_message(false, 'filler', repeat('x', 1024 * 1024))")
            .execute(&world.pool)
            .await
            .unwrap();
    }
}

/// The log that is written and not confirmed by the group of this slot.
async fn lag(world: &World, slot: &str) -> i64 {
    let lag: Option<i64> = sqlx::query_scalar(
        "SELECT (pg_current_wal_lsn() - confirmed_flush_lsn)::bigint FROM pg_replication_slots WHERE slot_name = $1",
    )
    .bind(slot)
    .fetch_one(&world.pool)
    .await
    .unwrap();
    lag.unwrap_or(i64::MAX)
}

/// Waits until the slot has gone past what was written so far, although everything waits.
async fn until_confirmed(world: &World, slot: &str) {
    let began = Instant::now();
    until("the slot to go on", Duration::from_secs(60), async || {
        (lag(world, slot).await < LAG_BYTES_MAX).then_some(())
    })
    .await;
    println!(
        "{}: the slot went on after {:.1} s",
        world.name,
        began.elapsed().as_secs_f64()
    );
}

async fn until_nothing_is_left(world: &World) {
    let left = "SELECT (SELECT count(*) FROM afterwrite.letters) + (SELECT count(*) FROM afterwrite.dead_letters)
        + (SELECT count(*) FROM afterwrite.parked) + (SELECT count(*) FROM afterwrite.parked_lanes)
        + (SELECT count(*) FROM afterwrite.replay_requests) + (SELECT count(*) FROM afterwrite.letter_history)";
    until("nothing to be left", Duration::from_secs(60), async || {
        (world.count(left).await == 0).then_some(())
    })
    .await;
}

/// Deletes a letter that somebody decided about: it is kept otherwise.
async fn forget(world: &World, letter_id: &str) {
    let delete = "WITH history AS (DELETE FROM afterwrite.letter_history WHERE letter_id = $1)
        DELETE FROM afterwrite.letters WHERE letter_id = $1";
    sqlx::query(delete).bind(letter_id).execute(&world.pool).await.unwrap();
}

/// What `afterwrite` says in JSON.
async fn told(world: &World, words: &[&str]) -> Value {
    let words = [words, &["--output", "json"]].concat();
    let (code, printed, said) = world.said(&words, ("AFTERWRITE__SOURCE__KIND", "wal")).await;
    assert_eq!(code, Some(0), "{words:?}: {said}");
    serde_json::from_str(&printed).unwrap()
}

/// What metrics and commands say of parked jobs. Gives one of them up, and answers which.
async fn look_at_what_is_parked(world: &World, worker: &Worker) -> String {
    let (_, metrics) = asked(worker, "/metrics").await;
    let parked = format!(
        "afterwrite_parked_total{{group=\"{}\",critical=\"true\"}}",
        world.group()
    );
    assert!(metrics.contains(&parked), "{metrics}");
    let status = told(world, &["status", "--group", "recorder"]).await;
    // Those that are tried as probes count as well; nothing else is lost from sight.
    assert_eq!(status["groups"][0]["jobs_parked"], KEYS * ROUNDS, "{status}");
    let listed = told(world, &["dlq", "list", "--group", "recorder", "--state", "parked"]).await;
    let letters = listed["letters"].as_array().unwrap();
    let error = letters[0]["error"].as_str().unwrap();
    assert!(
        letters[0]["class"] == "parked" && error.contains("released by itself"),
        "{listed}"
    );
    // Somebody may still decide otherwise: one is given up, and what is behind it goes on.
    let given_up = letters.last().unwrap()["letter_id"].as_str().unwrap().to_owned();
    let discarded = told(world, &["dlq", "discard", &given_up, "--reason", "nobody waits for it"]).await;
    assert_eq!(discarded["discarded"], serde_json::json!([given_up]));
    given_up
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lane_that_waits_is_parked_in_order_and_released_by_itself() {
    let _stack = stack::shared().await;
    let world = World::bare("lag_lanes").await;
    let slot = format!("{}_recorder", world.name);
    let first = world.worker("first", &settings());
    until_it_reads(&first).await;
    insert(&world, 1..=KEYS, "down").await;
    until("the suspension", Duration::from_secs(60), async || {
        first.said().contains("handler suspended").then_some(())
    })
    .await;
    for seq in 2..=ROUNDS {
        sqlx::query("UPDATE work SET seq = $1")
            .bind(seq)
            .execute(&world.pool)
            .await
            .unwrap();
    }
    fill(&world).await;
    until_confirmed(&world, &slot).await;
    assert_eq!(world.count("SELECT count(*) FROM effects").await, 0);

    until("the end of the lag to be told", Duration::from_secs(60), async || {
        let said = first.said();
        (said.contains("are parked as letters") && said.contains("no more jobs are parked")).then_some(())
    })
    .await;
    let given_up = look_at_what_is_parked(&world, &first).await;

    let before_kill = world
        .count("SELECT count(*) FROM afterwrite.letters WHERE state = 'parked'")
        .await;
    first.kill();
    assert!(before_kill > 0);
    let second = world.worker("second", &settings());
    until_it_reads(&second).await;
    insert(&world, KEYS + 1..=KEYS + 10, "ok").await;
    insert(&world, 0..=0, "ok").await;
    sqlx::query("INSERT INTO mended VALUES (0)")
        .execute(&world.pool)
        .await
        .unwrap();
    let effects = i64::from(KEYS * ROUNDS) - 1 + 11;
    until_effects(&world, effects).await;
    let disordered =
        "SELECT count(*) FROM (SELECT seq, lag(seq) OVER (PARTITION BY k ORDER BY n) AS before FROM effects) t
        WHERE seq <= before";
    let twice = "SELECT count(*) - count(DISTINCT (k, seq)) FROM effects";
    assert_eq!((world.count(disordered).await, world.count(twice).await), (0, 0));
    forget(&world, &given_up).await;
    until_nothing_is_left(&world).await;
    println!(
        "{}: {effects} effects, {before_kill} letters parked when the worker was killed, {} attempts, at most {} MB",
        world.name,
        world.count("SELECT count(*) FROM attempts").await,
        second.memory_mb_max()
    );
    second.stop().await;
    remove(world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mails_that_wait_for_a_mail_server_fill_no_disk_and_are_sent_once() {
    let _stack = stack::alone().await;
    let world = World::waitlist_alone("lag_mails").await;
    let slot = format!("{}_email", world.name);
    let run = |name: &str| {
        let settings = [
            &settings()[..],
            &[("AFTERWRITE__WAL__PUBLICATION", "afterwrite_waitlist")],
        ]
        .concat();
        Worker::waitlist(&world, name, &settings)
    };
    let first = run("first");
    until("the slots", Duration::from_secs(60), async || {
        (first.said().matches("reading the write-ahead log").count() == 4).then_some(())
    })
    .await;
    let before = first.memory_mb_max();
    stack::order("stop", "smtp").await;
    sign_up(&world).await;
    until("the suspension", Duration::from_secs(60), async || {
        first.said().contains("handler suspended").then_some(())
    })
    .await;
    let waiting = first.memory_mb_max();
    fill(&world).await;
    until_confirmed(&world, &slot).await;
    let parked = world
        .count("SELECT count(*) FROM afterwrite.letters WHERE class = 'parked'")
        .await;
    assert!(parked > 0 && caught(&world).is_empty());
    let peak = first.memory_mb_max();
    first.kill();
    let second = run("second");
    stack::order("start", "smtp").await;
    let began = Instant::now();
    until("every mail", Duration::from_secs(120), async || {
        let sent = world.count("SELECT count(*) FROM email_log WHERE status = 'sent'");
        (sent.await == SIGNUPS).then_some(())
    })
    .await;
    println!(
        "{}: {parked} letters parked, all mails {:.1} s after the mail server was back; at most {before} MB before, {waiting} \
         MB while they waited, {peak} MB until they were parked, {} MB afterwards",
        world.name,
        began.elapsed().as_secs_f64(),
        second.memory_mb_max()
    );
    until_nothing_is_left(&world).await;
    assert!(peak.max(second.memory_mb_max()) < 300, "memory is not bounded");
    second.stop().await;
    check_copies(&world, SIGNUPS).await;
    remove(world).await;
}

async fn sign_up(world: &World) {
    sqlx::query(
        "WITH launch AS (
             INSERT INTO campaigns (account_id, name, slug, status, verification_required)
             VALUES (gen_random_uuid(), 'Launch', 'launch', 'active', true) RETURNING id)
         INSERT INTO waitlist_users (campaign_id, email, first_name, referral_code, verification_token, status)
         SELECT id, 'user' || n || '@' || $2 || '.example', 'Ada', 'code-' || n, 'token-' || n, 'pending'
         FROM launch, generate_series(1, $1) n",
    )
    .bind(SIGNUPS)
    .bind(world.name.replace('_', "-"))
    .execute(&world.pool)
    .await
    .unwrap();
}

/// The letter of a job that waits, and is due in so many seconds.
fn waiting(world: &World, partition: &SourcePartition, epoch: u64, k: i64, due_in: u64) -> Letter {
    Letter {
        attempts: 3,
        due_in: Some(Duration::from_secs(due_in)),
        parks: Some(Parks {
            lane: Lane {
                partition: partition.clone(),
                handler: "recorder".to_owned(),
                key: k.cast_unsigned(),
            },
            epoch,
        }),
        ..letter(world, k, Class::Parked, 1)
    }
}

#[tokio::test]
async fn letters_of_jobs_that_wait_are_written_together_and_come_back_when_they_are_due() {
    let _stack = stack::shared().await;
    let world = World::bare("lag_letters").await;
    let partition = SourcePartition {
        topic: world.topic().into(),
        partition: 0,
    };
    let claims = Claims::new(world.pool.clone(), world.group(), uuid::Uuid::new_v4());
    let before = claims.take(&partition.topic, 0).await.unwrap().epoch;
    let epoch = claims.take(&partition.topic, 0).await.unwrap().epoch;
    let parked = |k, due_in| waiting(&world, &partition, epoch, k, due_in);
    let letters = [parked(1, 0), parked(2, 3_600), parked(3, 0)];
    // The third was dead before it came again.
    let sink = TableLetters::new(world.pool.clone(), 64);
    sink.bury(&letter(&world, 3, Class::Permanent, 5)).await.unwrap();
    // The engine writes again what it was not told of.
    for _ in 0..2 {
        sink.park(&letters).await.unwrap();
    }
    let states: Vec<(i64, String, String)> =
        sqlx::query_as("SELECT source_offset, class, state FROM afterwrite.letters ORDER BY source_offset, class")
            .fetch_all(&world.pool)
            .await
            .unwrap();
    let expected = [
        (1, "parked", "parked"),
        (2, "parked", "parked"),
        (3, "parked", "replayed"),
        (3, "permanent", "open"),
    ];
    let expected = expected.map(|(offset, class, state)| (offset, class.to_owned(), state.to_owned()));
    assert_eq!(states, expected);
    assert_eq!(world.count("SELECT count(*) FROM afterwrite.parked_lanes").await, 3);

    let stored = StoredEvents {
        parking: Parking::new(world.pool.clone(), world.group()),
        decoder: Arc::new(Decoder::new(Options::default())),
        registry: None,
    };
    let recall = async |epoch| stored.recall(&partition, epoch, "recorder", 16).await;
    assert!(matches!(recall(before).await, Err(ParkError::NotOurs)));
    let due = Recalled { letters: 1, left: true };
    assert_eq!(recall(epoch).await.unwrap(), due, "the second is not due for an hour");
    assert_eq!(recall(epoch).await.unwrap(), Recalled { letters: 0, ..due });
    let owned = Owned::from([(partition.clone(), epoch)]);
    let taken = requests::take(&world.pool, &world.group(), &owned, &[], 32)
        .await
        .unwrap();
    let told: Vec<(i64, Option<u32>, bool)> = taken
        .iter()
        .map(|request| (request.offset, request.parked_attempts, request.is_head))
        .collect();
    assert_eq!(told, [(1, Some(3), true)]);
    assert_eq!(taken[0].record, letters[0].raw, "the record as it came");
    let next = claims.take(&partition.topic, 0).await.unwrap();
    let inherited: Vec<(&str, usize)> = next
        .inherited
        .letters
        .iter()
        .map(|letters| (&*letters.handler, letters.recalled))
        .collect();
    assert_eq!(
        inherited,
        [("recorder", 1)],
        "one is on its way back, and one more waits"
    );
    world.remove().await;
}
