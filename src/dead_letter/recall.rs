//! Letters that were parked because of lag, on their way back: their owner asks for their replays by itself, and the taker
//! brings these to it as it does those that people asked for.

use sqlx::postgres::{PgConnection, PgPool};

use crate::dead_letter::headers;
use crate::dead_letter::requests::CHANNEL;
use crate::engine::owner::Recalled;
use crate::event::delivery::SourcePartition;
use crate::ledger::headers::{from_json, to_json};
use crate::ledger::parked::RELEASED_BY;
use crate::ledger::patience::transact;

/// Asks for the replays of parked letters whose time has come, the oldest first; `None` when the epoch is over.
///
/// # Errors
/// Whatever Postgres answered. Repeating it asks for none twice.
pub(super) async fn recall(
    pool: &PgPool,
    group: &str,
    partition: &SourcePartition,
    epoch: u64,
    handler: &str,
    letters_max: usize,
) -> Result<Option<Recalled>, sqlx::Error> {
    let asking = async |connection: &mut PgConnection| {
        let owner: Option<(i32,)> = sqlx::query_as(
            "SELECT 1 FROM afterwrite.claims
             WHERE group_name = $1 AND topic = $2 AND partition = $3 AND epoch = $4 FOR SHARE",
        )
        .bind(group)
        .bind(&*partition.topic)
        .bind(partition.partition)
        .bind(epoch.cast_signed())
        .fetch_optional(&mut *connection)
        .await?;
        if owner.is_none() {
            return Ok(None);
        }
        let chosen = choose(connection, group, partition, handler, letters_max).await?;
        if !chosen.is_empty() {
            ask(connection, group, &chosen).await?;
        }
        let left = sqlx::query_scalar(
            "SELECT EXISTS (SELECT FROM afterwrite.letters
                 WHERE group_name = $1 AND source_topic = $2 AND source_partition = $3 AND handler = $4
                   AND class = 'parked' AND state = 'parked')",
        )
        .bind(group)
        .bind(&*partition.topic)
        .bind(partition.partition)
        .bind(handler)
        .fetch_one(&mut *connection)
        .await?;
        Ok(Some(Recalled {
            letters: chosen.len(),
            left,
        }))
    };
    transact(pool, "releasing parked letters", asking).await
}

/// The letters, each with the headers of its record.
async fn choose(
    connection: &mut PgConnection,
    group: &str,
    partition: &SourcePartition,
    handler: &str,
    letters_max: usize,
) -> Result<Vec<(String, serde_json::Value)>, sqlx::Error> {
    sqlx::query_as(
        "SELECT letter.letter_id, stored.headers
         FROM afterwrite.letters letter JOIN afterwrite.dead_letters stored USING (letter_id)
         WHERE letter.group_name = $1 AND source_topic = $2 AND source_partition = $3 AND handler = $4
           AND class = 'parked' AND state = 'parked' AND (due_at IS NULL OR due_at <= now())
         ORDER BY source_offset LIMIT $5 FOR UPDATE OF letter SKIP LOCKED",
    )
    .bind(group)
    .bind(&*partition.topic)
    .bind(partition.partition)
    .bind(handler)
    .bind(i64::try_from(letters_max).unwrap_or(i64::MAX))
    .fetch_all(connection)
    .await
}

async fn ask(
    connection: &mut PgConnection,
    group: &str,
    chosen: &[(String, serde_json::Value)],
) -> Result<(), sqlx::Error> {
    let ids: Vec<&str> = chosen.iter().map(|(letter_id, _)| letter_id.as_str()).collect();
    let original = |stored: &serde_json::Value| to_json(&headers::original(&from_json(stored)));
    let all_headers: Vec<serde_json::Value> = chosen.iter().map(|(_, stored)| original(stored)).collect();
    sqlx::query(
        "WITH marked AS (
             UPDATE afterwrite.letters SET state = 'replaying', state_by = $3, state_at = now()
             WHERE letter_id = ANY ($1)
             RETURNING letter_id, group_name, handler, source_topic, source_partition, source_offset, replays)
         INSERT INTO afterwrite.replay_requests (letter_id, group_name, handler, source_topic, source_partition,
             source_offset, key, value, headers, replays, requested_by)
         SELECT marked.letter_id, group_name, handler, source_topic, source_partition, source_offset, key, value,
             original.headers, replays, $3
         FROM marked JOIN afterwrite.dead_letters stored USING (letter_id)
         JOIN unnest($1::text[], $2::jsonb[]) AS original(letter_id, headers) USING (letter_id)
         ORDER BY source_offset",
    )
    .bind(ids)
    .bind(all_headers)
    .bind(RELEASED_BY)
    .execute(&mut *connection)
    .await?;
    sqlx::query("SELECT pg_notify($1, $2)")
        .bind(CHANNEL)
        .bind(group)
        .execute(connection)
        .await?;
    Ok(())
}
