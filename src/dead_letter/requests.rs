//! Replay requests: rows in Postgres that carry a letter's bytes to the owner of its source partition.
//!
//! Asking writes the row and marks the letter `replaying`. The owner takes the rows of its partitions under its epoch; a
//! row taken by an owner that is gone is taken again by the next one. The ledger decides what is still to be done, so
//! taking a row twice does nothing twice.

use bytes::Bytes;
use serde_json::Value;
use sqlx::postgres::{PgConnection, PgPool};

use crate::dead_letter::headers;
use crate::dead_letter::state::LetterRow;
use crate::engine::driver::Owned;
use crate::event::delivery::{RawRecord, SourcePartition};
use crate::ledger::headers::{from_json, to_json};
use crate::ledger::patience::ask as ask_postgres;

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
    /// The epoch under which it was taken.
    pub epoch: u64,
    /// Whether the letter is the head of a parked lane.
    pub is_head: bool,
    /// Attempts that were made before, where the letter was parked because of lag.
    pub parked_attempts: Option<u32>,
    /// Where the original record came from.
    pub partition: SourcePartition,
    /// Its offset there.
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
    let asked = ask_within(&mut transaction, letter, stored, by).await?;
    transaction.commit().await?;
    Ok(asked)
}

/// The same inside a transaction of the caller.
pub(super) async fn ask_within(
    connection: &mut PgConnection,
    letter: &LetterRow,
    stored: &RawRecord,
    by: &str,
) -> Result<Option<i64>, sqlx::Error> {
    let marked = sqlx::query(
        "UPDATE afterwrite.letters SET state = 'replaying', state_by = $2, state_at = now()
         WHERE letter_id = $1 AND state IN ('open', 'parked')",
    )
    .bind(&letter.letter_id)
    .bind(by)
    .execute(&mut *connection)
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
    .bind(to_json(&headers::original(&stored.headers)))
    .bind(letter.replays)
    .bind(by)
    .fetch_one(&mut *connection)
    .await?;
    sqlx::query("SELECT pg_notify($1, $2)")
        .bind(CHANNEL)
        .bind(&letter.group_name)
        .execute(&mut *connection)
        .await?;
    Ok(Some(id))
}

/// Takes the open requests of the owned partitions, oldest first, at most `limit`, and none of those in `open`.
///
/// The claims' epochs fence: an owner that lost a partition takes nothing of it. A request taken under the same epoch that
/// the caller does not know of was given out by an answer that never arrived, and is given out again.
///
/// # Errors
/// Whatever Postgres answered.
pub async fn take(
    pool: &PgPool,
    group: &str,
    owned: &Owned,
    open: &[i64],
    limit: i64,
) -> Result<Vec<Request>, sqlx::Error> {
    let mut topics = Vec::with_capacity(owned.len());
    let mut partitions = Vec::with_capacity(owned.len());
    let mut epochs = Vec::with_capacity(owned.len());
    for (partition, epoch) in owned {
        topics.push(partition.topic.to_string());
        partitions.push(partition.partition);
        epochs.push(i64::try_from(*epoch).unwrap_or(i64::MAX));
    }
    let query = sqlx::query_as(
        "UPDATE afterwrite.replay_requests AS taken SET state = 'taken', epoch = chosen.epoch
         FROM (
             SELECT request.id, claim.epoch FROM afterwrite.replay_requests request
             JOIN unnest($2::text[], $3::int[], $4::bigint[]) AS owned(topic, partition, epoch)
               ON owned.topic = request.source_topic AND owned.partition = request.source_partition
             JOIN afterwrite.claims claim
               ON claim.group_name = $1 AND claim.topic = owned.topic AND claim.partition = owned.partition
              AND claim.epoch = owned.epoch
             WHERE request.group_name = $1
               AND (request.state = 'requested' OR request.state = 'taken' AND request.epoch <= claim.epoch)
               AND request.id <> ALL ($6)
             ORDER BY request.id LIMIT $5 FOR UPDATE OF request SKIP LOCKED) AS chosen
         WHERE taken.id = chosen.id
         RETURNING taken.id, letter_id, handler, replays, source_topic, source_partition, source_offset, taken.epoch,
             key, value, headers,
             EXISTS (SELECT FROM afterwrite.parked_lanes lane WHERE lane.head_letter = taken.letter_id) AS is_head,
             (SELECT attempts FROM afterwrite.letters letter
              WHERE letter.letter_id = taken.letter_id AND class = 'parked') AS parked_attempts",
    )
    .bind(group)
    .bind(topics)
    .bind(partitions)
    .bind(epochs)
    .bind(limit)
    .bind(open);
    let mut rows: Vec<RequestRow> =
        ask_postgres(pool, "taking replay requests", async |connection: &mut PgConnection| {
            query.fetch_all(connection).await
        })
        .await?;
    rows.sort_unstable_by_key(|row| row.id);
    Ok(rows.into_iter().map(Request::from).collect())
}

#[derive(sqlx::FromRow)]
struct RequestRow {
    id: i64,
    letter_id: String,
    handler: String,
    replays: i32,
    source_topic: String,
    source_partition: i32,
    source_offset: i64,
    epoch: i64,
    is_head: bool,
    parked_attempts: Option<i32>,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Value,
}

impl From<RequestRow> for Request {
    fn from(row: RequestRow) -> Self {
        Self {
            id: row.id,
            letter_id: row.letter_id,
            handler: row.handler,
            replays: row.replays.unsigned_abs(),
            epoch: row.epoch.unsigned_abs(),
            is_head: row.is_head,
            parked_attempts: row.parked_attempts.map(i32::unsigned_abs),
            partition: SourcePartition {
                topic: row.source_topic.into(),
                partition: row.source_partition,
            },
            offset: row.source_offset,
            record: RawRecord {
                key: row.key.map(Bytes::from),
                value: row.value.map(Bytes::from),
                headers: from_json(&row.headers),
                timestamp_ms: None,
            },
        }
    }
}

/// Records the end of a request that was taken under `epoch`; the end of an owner that was deposed meanwhile means nothing.
/// The letter is `replayed` either way: one that failed again has a new letter. The bytes go, so that they do not pile up.
///
/// # Errors
/// Whatever Postgres answered.
pub async fn finish(pool: &PgPool, id: i64, epoch: u64, healed: bool) -> Result<(), sqlx::Error> {
    let query = sqlx::query(
        "WITH request AS (
             UPDATE afterwrite.replay_requests
             SET state = $2, finished_at = now(), key = NULL, value = NULL, headers = '[]'
             WHERE id = $1 AND epoch = $3
             RETURNING letter_id)
         UPDATE afterwrite.letters SET state = 'replayed', state_at = now()
         WHERE letter_id = (SELECT letter_id FROM request)",
    )
    .bind(id)
    .bind(if healed { "done" } else { "failed" })
    .bind(i64::try_from(epoch).unwrap_or(i64::MAX));
    ask_postgres(
        pool,
        "ending a replay request",
        async |connection: &mut PgConnection| query.execute(connection).await,
    )
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
