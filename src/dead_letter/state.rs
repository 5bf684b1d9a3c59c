//! The state of dead letters in Postgres: one row a letter.

use std::fmt;

use chrono::{DateTime, Utc};
use sqlx::postgres::{PgConnection, PgPool};

use crate::engine::letter::Letter;
use crate::ledger::patience::transact;
use crate::ledger::{LedgerKey, days};

/// Where a letter's bytes are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The dead-letter topic.
    pub topic: String,
    /// Its partition.
    pub partition: i32,
    /// The offset in it.
    pub offset: i64,
}

impl fmt::Display for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}[{}] offset {}", self.topic, self.partition, self.offset)
    }
}

/// A letter as `dlq list` shows it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, sqlx::FromRow)]
pub struct LetterRow {
    /// Identity of the letter.
    pub letter_id: String,
    /// The group whose job it was.
    #[serde(rename = "group")]
    pub group_name: String,
    /// The handler that failed, or `*`.
    pub handler: String,
    /// The event, as hex; `None` when it could not be decoded.
    pub event_id: Option<String>,
    /// `schema.table`.
    #[serde(rename = "table")]
    pub table_name: Option<String>,
    /// Why it is dead.
    pub class: String,
    /// The last error.
    pub error: String,
    /// Attempts that were made.
    pub attempts: i32,
    /// When the first attempt failed.
    pub first_failed_at: DateTime<Utc>,
    /// When the last attempt failed.
    pub failed_at: DateTime<Utc>,
    /// How often the event was replayed before.
    pub replays: i32,
    /// Topic of the original record.
    #[serde(rename = "topic")]
    pub source_topic: String,
    /// Its partition.
    #[serde(rename = "partition")]
    pub source_partition: i32,
    /// Its offset.
    #[serde(rename = "offset")]
    pub source_offset: i64,
    /// Topic of the letter's bytes.
    #[serde(skip)]
    pub dlq_topic: String,
    /// Its partition.
    #[serde(skip)]
    pub dlq_partition: i32,
    /// Its offset.
    #[serde(skip)]
    pub dlq_offset: i64,
    /// `open`, `parked`, `replaying`, `replayed` or `discarded`.
    pub state: String,
}

impl LetterRow {
    /// Where the letter's bytes are.
    pub fn stored(&self) -> Place {
        Place {
            topic: self.dlq_topic.clone(),
            partition: self.dlq_partition,
            offset: self.dlq_offset,
        }
    }

    /// Where the original record came from.
    pub fn source(&self) -> Place {
        Place {
            topic: self.source_topic.clone(),
            partition: self.source_partition,
            offset: self.source_offset,
        }
    }

    /// The beginning of the id, which is enough for people and for `dlq show`.
    pub fn short_id(&self) -> &str {
        short_id(&self.letter_id)
    }
}

/// The beginning of a letter's id.
pub fn short_id(id: &str) -> &str {
    id.get(..SHORT_ID_BYTES).unwrap_or(id)
}

/// Ids are hexadecimal.
const SHORT_ID_BYTES: usize = 12;

const COLUMNS: &str = "letter_id, group_name, handler, encode(event_id, 'hex') AS event_id, table_name, class, error, \
     attempts, first_failed_at, failed_at, replays, source_topic, source_partition, source_offset, dlq_topic, \
     dlq_partition, dlq_offset, state";

/// Records a durable letter: the ledger row becomes `buried` and the state row appears, in one transaction. A letter that
/// is known already stays as it is. `error` is the letter's error as far as it is kept.
///
/// # Errors
/// Whatever Postgres answered.
pub async fn record(pool: &PgPool, letter: &Letter, error: &str, place: &Place) -> Result<(), sqlx::Error> {
    let key = letter.event.as_ref().and_then(LedgerKey::of);
    if let Some(key) = key {
        days::make(pool, key.commit_day).await?;
    }
    transact(
        pool,
        "recording a dead letter",
        async |connection: &mut PgConnection| {
            if let Some(key) = key {
                sqlx::query(
                    "INSERT INTO afterwrite.ledger (commit_day, handler, event_id, state)
                 VALUES ($1, coalesce((SELECT ledger_name FROM afterwrite.handlers WHERE name = $2), $2), $3, 'buried')
                 ON CONFLICT DO NOTHING",
                )
                .bind(key.commit_day)
                .bind(&*letter.handler)
                .bind(&key.event_id.0[..])
                .execute(&mut *connection)
                .await?;
            }
            insert(connection, letter, error, key, place).await
        },
    )
    .await
}

async fn insert(
    connection: &mut PgConnection,
    letter: &Letter,
    error: &str,
    key: Option<LedgerKey>,
    place: &Place,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO afterwrite.letters (letter_id, group_name, handler, event_id, commit_day, table_name, class, error,
             attempts, first_failed_at, failed_at, replays, source_topic, source_partition, source_offset, dlq_topic,
             dlq_partition, dlq_offset)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18)
         ON CONFLICT (letter_id) DO NOTHING",
    )
    .bind(letter.id())
    .bind(&*letter.group)
    .bind(&*letter.handler)
    .bind(key.map(|key| key.event_id.0.to_vec()))
    .bind(key.map(|key| key.commit_day))
    .bind(letter.event.as_ref().map(|event| format!("{}.{}", event.origin().schema, event.origin().table)))
    .bind(letter.class.as_str())
    .bind(error.replace('\0', ""))
    .bind(i32::try_from(letter.attempts).unwrap_or(i32::MAX))
    .bind(letter.first_failed_at)
    .bind(letter.failed_at)
    .bind(i32::try_from(letter.replays).unwrap_or(i32::MAX))
    .bind(&*letter.partition.topic)
    .bind(letter.partition.partition)
    .bind(letter.position.0)
    .bind(&place.topic)
    .bind(place.partition)
    .bind(place.offset)
    .execute(connection)
    .await?;
    Ok(())
}

/// Letters of a group, newest first.
///
/// # Errors
/// Whatever Postgres answered.
pub async fn list(
    pool: &PgPool,
    group: Option<&str>,
    state: Option<&str>,
    limit: i64,
) -> Result<Vec<LetterRow>, sqlx::Error> {
    let sql = format!(
        "SELECT {COLUMNS} FROM afterwrite.letters
         WHERE ($1::text IS NULL OR group_name = $1) AND ($2::text IS NULL OR state = $2)
         ORDER BY failed_at DESC, letter_id LIMIT $3"
    );
    sqlx::query_as(sqlx::AssertSqlSafe(sql))
        .bind(group)
        .bind(state)
        .bind(limit)
        .fetch_all(pool)
        .await
}

/// The letters whose id begins so; at most two, which is enough to know that it is not one.
///
/// # Errors
/// Whatever Postgres answered.
pub async fn find(pool: &PgPool, beginning: &str) -> Result<Vec<LetterRow>, sqlx::Error> {
    let sql =
        format!("SELECT {COLUMNS} FROM afterwrite.letters WHERE starts_with(letter_id, $1) ORDER BY letter_id LIMIT 2");
    sqlx::query_as(sqlx::AssertSqlSafe(sql))
        .bind(beginning)
        .fetch_all(pool)
        .await
}
