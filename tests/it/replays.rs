//! Replay requests: who is given one, how often, whose word ends it; and letters that cannot be sent back.

use afterwrite::dead_letter::requests;
use afterwrite::engine::driver::Owned;
use afterwrite::event::delivery::SourcePartition;
use afterwrite::ledger::claims::Claims;
use serde_json::{Value, json};
use sqlx::postgres::PgPool;
use uuid::Uuid;

use crate::producer;
use crate::stack;
use crate::world::World;

async fn ask(pool: &PgPool) -> i64 {
    let letter =
        "INSERT INTO afterwrite.letters (letter_id, group_name, handler, class, error, attempts, first_failed_at,
                      failed_at, replays, source_topic, source_partition, source_offset, dlq_topic, dlq_partition,
                      dlq_offset, state)
                  VALUES ('l', 'g', 'h', 'permanent', 'e', 1, now(), now(), 0, 't', 0, 7, 'g.dlq', 0, 0, 'replaying')";
    sqlx::query(letter).execute(pool).await.unwrap();
    let request = "INSERT INTO afterwrite.replay_requests (letter_id, group_name, handler, source_topic,
                       source_partition, source_offset, headers, replays, requested_by)
                   VALUES ('l', 'g', 'h', 't', 0, 7, '[]', 0, 'test') RETURNING id";
    sqlx::query_scalar(request).fetch_one(pool).await.unwrap()
}

/// Becomes the owner of the partition.
async fn own(pool: &PgPool) -> (Owned, u64) {
    let claim = Claims::new(pool.clone(), "g", Uuid::new_v4())
        .take("t", 0)
        .await
        .unwrap();
    let partition = SourcePartition {
        topic: "t".into(),
        partition: 0,
    };
    (Owned::from([(partition, claim.epoch)]), claim.epoch)
}

async fn taken(pool: &PgPool, owned: &Owned, open: &[i64]) -> Vec<i64> {
    let requests = requests::take(pool, "g", owned, open, 32).await.unwrap();
    requests.iter().map(|request| request.id).collect()
}

#[tokio::test]
async fn a_request_is_given_to_its_owner_and_ended_by_nobody_else() {
    let _stack = stack::shared().await;
    let world = World::bare("requests").await;
    let request = ask(&world.pool).await;
    let (before, deposed) = own(&world.pool).await;
    assert_eq!(taken(&world.pool, &before, &[]).await, [request]);
    assert!(
        taken(&world.pool, &before, &[request]).await.is_empty(),
        "it is open already"
    );
    // The answer may get lost on its way; then the owner does not know of the request.
    assert_eq!(taken(&world.pool, &before, &[]).await, [request]);

    let (owned, epoch) = own(&world.pool).await;
    assert!(
        taken(&world.pool, &before, &[]).await.is_empty(),
        "the partition has another owner"
    );
    assert_eq!(taken(&world.pool, &owned, &[]).await, [request]);
    for (said_under, healed, state) in [
        (deposed, false, "taken"),
        (epoch, true, "done"),
        (deposed, false, "done"),
    ] {
        requests::finish(&world.pool, request, said_under, healed)
            .await
            .unwrap();
        assert_eq!(requests::states(&world.pool, &[request]).await.unwrap(), [state]);
    }
    world.remove().await;
}

/// An open letter whose bytes are at an offset of the topic `<group>.dlq`, that failed some minutes ago.
async fn letter(world: &World, id: &str, offset: i64, minutes_ago: i32) {
    sqlx::query(
        "INSERT INTO afterwrite.letters (letter_id, group_name, handler, class, error, attempts, first_failed_at,
             failed_at, replays, source_topic, source_partition, source_offset, dlq_topic, dlq_partition, dlq_offset)
         SELECT $1, $2, 'h', 'permanent', 'e', 1, at, at, 0, 't', 0, 7, $2 || '.dlq', 0, $3
         FROM (SELECT now() - make_interval(mins => $4) AS at) AS failed",
    )
    .bind(id)
    .bind(world.group())
    .bind(offset)
    .bind(minutes_ago)
    .execute(&world.pool)
    .await
    .unwrap();
}

#[tokio::test]
async fn a_letter_whose_bytes_are_gone_holds_no_other_back() {
    let _stack = stack::shared().await;
    let world = World::bare("unreadable").await;
    let topic = format!("{}.dlq", world.group());
    producer::make_topic(&topic).await;
    producer::write(&topic, b"k", b"v").await;
    // Oldest first, so that both that are gone come before the one that is there.
    letter(&world, "gone", 99, 3).await;
    letter(&world, "elsewhere", 5, 2).await;
    sqlx::query("UPDATE afterwrite.letters SET dlq_topic = 'deleted.dlq' WHERE letter_id = 'elsewhere'")
        .execute(&world.pool)
        .await
        .unwrap();
    letter(&world, "there", 0, 1).await;
    let replay = ["dlq", "replay", "--all", "--group", "recorder", "--output", "json"];
    let (code, printed) = world.afterwrite(&replay).await;
    let report: Value = serde_json::from_str(&printed).unwrap();
    assert_eq!((code, &report["requested"]), (1, &json!(1)), "{report}");
    assert_eq!(report["unreadable"], json!(["gone", "elsewhere"]));
    let requested: Vec<String> = sqlx::query_scalar("SELECT letter_id FROM afterwrite.replay_requests")
        .fetch_all(&world.pool)
        .await
        .unwrap();
    assert_eq!(requested, ["there"]);
    world.remove().await;
}

#[tokio::test]
async fn a_broker_that_is_away_is_not_taken_for_a_letter_that_is_gone() {
    let _stack = stack::shared().await;
    let world = World::bare("away").await;
    letter(&world, "there", 0, 1).await;
    // Nobody listens there.
    let away = ("KAFKA_BROKERS", "127.0.0.1:1");
    let show = world.said(&["dlq", "show", "there"], away);
    let replay = world.said(&["dlq", "replay", "there"], away);
    let (show, replay) = futures::future::join(show, replay).await;
    for (code, _, said) in [show, replay] {
        assert_eq!(code, Some(3), "{said}");
        assert!(!said.contains("retention"), "{said}");
    }
    let open = "SELECT count(*) FROM afterwrite.letters WHERE state = 'open'";
    assert_eq!(world.count(open).await, 1);
    world.remove().await;
}

#[tokio::test]
async fn following_a_group_that_never_ran_names_its_topic_and_the_groups_there_are() {
    let _stack = stack::shared().await;
    let world = World::bare("never_ran").await;
    let none = ("AFTERWRITE__LOG__FORMAT", "human");
    let (code, _, said) = world.said(&["dlq", "tail", "--group", "emial"], none).await;
    assert_eq!(code, Some(1), "{said}");
    for expected in [&format!("{}.emial.dlq", world.name), "fraud", "afterwrite run"] {
        assert!(said.contains(expected), "{said}");
    }
    world.remove().await;
}
