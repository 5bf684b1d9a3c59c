//! Replay requests in Postgres: who is given one, how often, and whose word ends it.

use afterwrite::dead_letter::requests;
use afterwrite::engine::driver::Owned;
use afterwrite::event::delivery::SourcePartition;
use afterwrite::ledger::claims::Claims;
use sqlx::postgres::PgPool;
use uuid::Uuid;

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
