//! Replay requests: rows in Postgres that carry a letter's bytes to the owner of its source partition.
//!
//! Asking writes the row and marks the letter `replaying`. The owner takes the rows of its partitions under its epoch; a
//! row taken by an owner that is gone is taken again by the next one. The ledger decides what is still to be done, so
//! taking a row twice does nothing twice.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde_json::{Value, json};
use sqlx::postgres::PgPool;

use crate::dead_letter::headers::{self, Header};
use crate::dead_letter::state::LetterRow;
use crate::event::delivery::{RawRecord, SourcePartition};

/// Channel on which takers are woken.
pub const CHANNEL: &str = "afterwrite_replay";

/// A request as its taker sees it.
#[derive(Debug, Clone)]
pub struct Request {
    /// The request.
    pub id: i64,
    /// The letter to replay.
    pub letter_id: String,
    /// The handler that failed, or `*`.
    pub handler: String,
    /// How often the event was replayed before.
    pub replays: u32,
    /// Offset of the original record.
    pub offset: i64,
    /// The original record.
    pub record: RawRecord,
}

/// Asks for the replay of a letter; answers the request's id, or `None` when the letter is not open.
///
/// # Errors
/// Whatever Postgres answered.
pub async fn ask(pool: &PgPool, letter: &LetterRow, stored: &RawRecord, by: &str) -> Result<Option<i64>, sqlx::Error> {
    let mut transaction = pool.begin().await?;
    let marked = sqlx::query(
        "UPDATE afterwrite.letters SET state = 'replaying', state_by = $2, state_at = now()
         WHERE letter_id = $1 AND state = 'open'",
    )
    .bind(&letter.letter_id)
    .bind(by)
    .execute(&mut *transaction)
    .await?;
    if marked.rows_affected() == 0 {
        return Ok(None);
    }
    let id = sqlx::query_scalar(
        "INSERT INTO afterwrite.replay_requests (letter_id, group_name, handler, source_topic, source_partition,
             source_offset, key, value, headers, replays, requested_by)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) RETURNING id",
    )
    .bind(&letter.letter_id)
    .bind(&letter.group_name)
    .bind(&letter.handler)
    .bind(&letter.source_topic)
    .bind(letter.source_partition)
    .bind(letter.source_offset)
    .bind(stored.key.as_deref())
    .bind(stored.value.as_deref())
    .bind(headers_to_json(&headers::original(&stored.headers)))
    .bind(letter.replays)
    .bind(by)
    .fetch_one(&mut *transaction)
    .await?;
    sqlx::query("SELECT pg_notify($1, $2)")
        .bind(CHANNEL)
        .bind(&letter.group_name)
        .execute(&mut *transaction)
        .await?;
    transaction.commit().await?;
    Ok(Some(id))
}

/// Takes the open requests of an owned partition, oldest first, at most `limit`.
///
/// # Errors
/// Whatever Postgres answered.
pub async fn take(
    pool: &PgPool,
    group: &str,
    partition: &SourcePartition,
    epoch: u64,
    limit: i64,
) -> Result<Vec<Request>, sqlx::Error> {
    type Row = (i64, String, String, i32, i64, Option<Vec<u8>>, Option<Vec<u8>>, Value);
    // The claim's epoch fences: an owner that lost the partition takes nothing, and only requests that no owner of this
    // epoch has taken are given out.
    let mut rows: Vec<Row> = sqlx::query_as(
        "UPDATE afterwrite.replay_requests SET state = 'taken', epoch = $4
         WHERE id IN (
             SELECT request.id FROM afterwrite.replay_requests request
             JOIN afterwrite.claims claim ON claim.group_name = $1 AND claim.topic = $2 AND claim.partition = $3
             WHERE request.group_name = $1 AND request.source_topic = $2 AND request.source_partition = $3
               AND claim.epoch = $4
               AND (request.state = 'requested' OR request.state = 'taken' AND request.epoch < $4)
             ORDER BY request.id LIMIT $5 FOR UPDATE OF request SKIP LOCKED)
         RETURNING id, letter_id, handler, replays, source_offset, key, value, headers",
    )
    .bind(group)
    .bind(&*partition.topic)
    .bind(partition.partition)
    .bind(i64::try_from(epoch).unwrap_or(i64::MAX))
    .bind(limit)
    .fetch_all(pool)
    .await?;
    rows.sort_unstable_by_key(|row| row.0);
    Ok(rows
        .into_iter()
        .map(
            |(id, letter_id, handler, replays, offset, key, value, headers)| Request {
                id,
                letter_id,
                handler,
                replays: replays.unsigned_abs(),
                offset,
                record: RawRecord {
                    key: key.map(Bytes::from),
                    value: value.map(Bytes::from),
                    headers: headers_from_json(&headers),
                    timestamp_ms: None,
                },
            },
        )
        .collect())
}

/// Records the end of a request. The letter is `replayed` either way: one that failed again has a new letter.
///
/// # Errors
/// Whatever Postgres answered.
pub async fn finish(pool: &PgPool, id: i64, healed: bool) -> Result<(), sqlx::Error> {
    sqlx::query(
        "WITH request AS (
             UPDATE afterwrite.replay_requests SET state = $2, finished_at = now() WHERE id = $1 RETURNING letter_id)
         UPDATE afterwrite.letters SET state = 'replayed', state_at = now()
         WHERE letter_id = (SELECT letter_id FROM request)",
    )
    .bind(id)
    .bind(if healed { "done" } else { "failed" })
    .execute(pool)
    .await?;
    Ok(())
}

/// How requests stand: `requested`, `taken`, `done` or `failed`, in the order of `ids`.
///
/// # Errors
/// Whatever Postgres answered.
pub async fn states(pool: &PgPool, ids: &[i64]) -> Result<Vec<String>, sqlx::Error> {
    sqlx::query_scalar("SELECT state FROM afterwrite.replay_requests WHERE id = ANY($1) ORDER BY id")
        .bind(ids)
        .fetch_all(pool)
        .await
}

fn headers_to_json(headers: &[Header]) -> Value {
    let pair = |(name, value): &Header| json!([name, value.as_ref().map(|value| STANDARD.encode(value))]);
    Value::Array(headers.iter().map(pair).collect())
}

fn headers_from_json(headers: &Value) -> Vec<Header> {
    let pairs = headers.as_array().map(Vec::as_slice).unwrap_or_default();
    let decoded = pairs.iter().filter_map(|pair| {
        let name = pair.get(0)?.as_str()?.to_owned();
        let value = pair
            .get(1)?
            .as_str()
            .and_then(|value| STANDARD.decode(value).ok())
            .map(Bytes::from);
        Some((name, value))
    });
    decoded.collect()
}
