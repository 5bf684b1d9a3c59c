//! The state of dead letters in Postgres: one row a letter.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use chrono::{DateTime, NaiveDate, Utc};
use serde_json::Value;
use sqlx::postgres::{PgConnection, PgPool};

use crate::decode::canonical::CanonicalRow;
use crate::engine::letter::Letter;
use crate::engine::retry::Class;
use crate::event::change::ChangeEvent;
use crate::event::delivery::{Position, RawRecord};
use crate::ledger::parked::{Lane, Parking, RELEASED_BY};
use crate::ledger::patience::transact;
use crate::ledger::{LedgerKey, days, headers};

/// The state of a letter that waits for somebody.
pub const OPEN: &str = "open";

/// The state of a letter whose job is not dead: its owner releases it by itself.
pub const PARKED: &str = "parked";

/// Every state a letter can have.
pub const STATES: [&str; 5] = [OPEN, PARKED, "replaying", "replayed", "discarded"];

/// Every class a letter can have.
pub const CLASSES: [&str; 8] = [
    "undecodable",
    "permanent",
    "exhausted",
    "timeout",
    "panic",
    "crashed",
    "parked",
    "expired",
];

/// Where a letter's bytes are in Kafka.
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

/// What keeps the bytes of a letter that is recorded.
#[derive(Debug, Clone, Copy)]
pub enum Kept<'a> {
    /// Its topic has them.
    Topic(&'a Place),
    /// The topic refuses them, or no broker is there: they go to `afterwrite.dead_letters`, with all headers.
    Table(&'a RawRecord),
}

/// A letter as `dlq list` shows it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize, sqlx::FromRow)]
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
    /// Topic of the letter's bytes; `None` with the two that follow when they are in `afterwrite.dead_letters`.
    #[serde(skip)]
    pub dlq_topic: Option<String>,
    /// Its partition.
    #[serde(skip)]
    pub dlq_partition: Option<i32>,
    /// Its offset.
    #[serde(skip)]
    pub dlq_offset: Option<i64>,
    /// `open`, `parked`, `replaying`, `replayed` or `discarded`.
    pub state: String,
    /// Who gave it this state by a command.
    #[serde(skip)]
    pub state_by: Option<String>,
    /// Since when it has this state.
    #[serde(skip)]
    pub state_at: DateTime<Utc>,
    /// Why it was discarded.
    #[serde(skip)]
    pub state_reason: Option<String>,
    /// UTC day of the event's commit.
    #[serde(skip)]
    pub commit_day: Option<NaiveDate>,
    /// The event's primary key. It is part of the row, so it is not listed.
    #[serde(skip)]
    pub event_key: Option<Value>,
    /// How long a job still waits that was parked because of lag; told when its letter is written, and not asked for again.
    #[serde(skip)]
    #[sqlx(skip)]
    pub due_in: Option<Duration>,
}

impl LetterRow {
    pub(super) fn of(letter: &Letter, error: &str, key: Option<LedgerKey>) -> Self {
        let event = letter.event.as_deref();
        let int = |number: u32| i32::try_from(number).unwrap_or(i32::MAX);
        Self {
            letter_id: letter.id(),
            group_name: letter.group.to_string(),
            handler: letter.handler.to_string(),
            event_id: key.map(|key| key.event_id.to_string()),
            table_name: event.map(|event| format!("{}.{}", event.origin().schema, event.origin().table)),
            class: letter.class.as_str().to_owned(),
            error: error.replace('\0', ""),
            attempts: int(letter.attempts),
            first_failed_at: letter.first_failed_at,
            failed_at: letter.failed_at,
            replays: int(letter.replays),
            source_topic: letter.partition.topic.to_string(),
            source_partition: letter.partition.partition,
            source_offset: letter.position.0,
            dlq_topic: None,
            dlq_partition: None,
            dlq_offset: None,
            state: match letter.class {
                Class::Parked => PARKED.to_owned(),
                _ => OPEN.to_owned(),
            },
            state_by: None,
            state_at: Utc::now(),
            state_reason: None,
            commit_day: key.map(|key| key.commit_day),
            event_key: event.and_then(event_key),
            due_in: letter.due_in,
        }
    }

    /// Where the letter's bytes are in Kafka; `None` when they are in `afterwrite.dead_letters`.
    pub fn stored(&self) -> Option<Place> {
        Some(Place {
            topic: self.dlq_topic.clone()?,
            partition: self.dlq_partition?,
            offset: self.dlq_offset?,
        })
    }

    /// The same in words.
    pub fn stored_in_words(&self) -> String {
        self.stored()
            .map_or_else(|| "afterwrite.dead_letters".to_owned(), |place| place.to_string())
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

/// The event's primary key as jsonb takes it; a text with a NUL it does not take, and no column of Postgres has one.
fn event_key(event: &ChangeEvent) -> Option<Value> {
    let key = serde_json::to_value(CanonicalRow(event.key()?.row())).ok()?;
    (!has_nul(&key)).then_some(key)
}

/// Whether a text in it has the character NUL, which Postgres takes nowhere.
pub(super) fn has_nul(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains('\0'),
        Value::Array(elements) => elements.iter().any(has_nul),
        Value::Object(members) => members
            .iter()
            .any(|(name, value)| name.contains('\0') || has_nul(value)),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

/// The beginning of a letter's id.
pub fn short_id(id: &str) -> &str {
    id.get(..SHORT_ID_BYTES).unwrap_or(id)
}

/// Ids are hexadecimal.
const SHORT_ID_BYTES: usize = 12;

/// The columns of a [`LetterRow`].
pub(super) const COLUMNS: &str = "letter_id, group_name, handler, encode(event_id, 'hex') AS event_id, table_name, class, \
     error, attempts, first_failed_at, failed_at, replays, source_topic, source_partition, source_offset, dlq_topic, \
     dlq_partition, dlq_offset, state, state_by, state_at, state_reason, commit_day, event_key";

/// Records a durable letter: the ledger row becomes `buried` and the state row appears, in one transaction. A letter that
/// is known already stays as it is. `error` is the letter's error as far as it is kept.
///
/// # Errors
/// Whatever Postgres answered.
pub async fn record(pool: &PgPool, letter: &Letter, error: &str, kept: Kept<'_>) -> Result<(), sqlx::Error> {
    record_all(pool, &[(letter, error, kept)]).await
}

/// Records letters, all or none, each with its error as far as it is kept.
///
/// # Errors
/// Whatever Postgres answered.
pub(super) async fn record_all(pool: &PgPool, letters: &[(&Letter, &str, Kept<'_>)]) -> Result<(), sqlx::Error> {
    let keyed = |letter: &Letter| letter.event.as_ref().and_then(LedgerKey::of);
    let days: BTreeSet<NaiveDate> = letters
        .iter()
        .filter_map(|(letter, ..)| keyed(letter))
        .map(|key| key.commit_day)
        .collect();
    for day in days {
        days::make(pool, day).await?;
    }
    let recording = async |connection: &mut PgConnection| {
        for (letter, error, kept) in letters {
            let parks = letter.parks.as_ref().map(|parks| (parks.epoch, &parks.lane));
            let row = LetterRow::of(letter, error, keyed(letter));
            write_within(pool, connection, row, *kept, Some("buried"), parks).await?;
        }
        Ok(())
    };
    transact(pool, "recording a dead letter", recording).await
}

/// Writes a letter with its ledger row, which gets this state, in one transaction. What is known already stays as it is;
/// answers whether the letter was not.
///
/// # Errors
/// Whatever Postgres answered.
pub(super) async fn write(
    pool: &PgPool,
    letter: LetterRow,
    kept: Kept<'_>,
    ledger_state: Option<&str>,
) -> Result<bool, sqlx::Error> {
    if let (Some(day), Some(_), Some(_)) = (letter.commit_day, &letter.event_id, ledger_state) {
        days::make(pool, day).await?;
    }
    let writing =
        async |connection: &mut PgConnection| write_within(pool, connection, letter, kept, ledger_state, None).await;
    transact(pool, "recording a dead letter", writing).await
}

/// The same inside a transaction, when the day of the event is there. Its lane is parked as well, under the epoch of the claim.
async fn write_within(
    pool: &PgPool,
    connection: &mut PgConnection,
    mut letter: LetterRow,
    kept: Kept<'_>,
    ledger_state: Option<&str>,
    parks: Option<(u64, &Lane)>,
) -> Result<bool, sqlx::Error> {
    if let Kept::Topic(place) = kept {
        letter.dlq_topic = Some(place.topic.clone());
        letter.dlq_partition = Some(place.partition);
        letter.dlq_offset = Some(place.offset);
    }
    let event = letter.commit_day.zip(letter.event_id.clone());
    if let Some(((day, event_id), state)) = event.zip(ledger_state) {
        let written = sqlx::query(
            "INSERT INTO afterwrite.ledger AS known (commit_day, handler, event_id, state)
             VALUES ($1, coalesce((SELECT ledger_name FROM afterwrite.handlers WHERE name = $2), $2),
                 decode($3, 'hex'), $4)
             ON CONFLICT (commit_day, handler, event_id) DO UPDATE SET state = excluded.state, settled_at = now()
                 WHERE known.state = 'redo' OR known.state = 'buried' AND $5",
        )
        .bind(day)
        .bind(&letter.handler)
        .bind(event_id)
        .bind(state)
        .bind(letter.state == PARKED && letter.replays > 0)
        .execute(&mut *connection)
        .await?;
        if written.rows_affected() == 0 && letter.state == PARKED {
            // It was done, buried or given up before it came again: there is nothing to release, and its lane goes on at once.
            letter.state = "replayed".to_owned();
            letter.state_by = Some(RELEASED_BY.to_owned());
        }
    }
    let is_new = insert(connection, &letter).await?;
    if let (true, Kept::Table(record)) = (is_new, kept) {
        insert_bytes(connection, &letter.letter_id, record).await?;
    }
    if let Some((epoch, lane)) = parks {
        let parking = Parking::new(pool.clone(), letter.group_name.as_str());
        let head = Position(letter.source_offset);
        if !parking
            .park_lane(connection, epoch, lane, head, &letter.letter_id)
            .await?
        {
            return Err(sqlx::Error::Protocol(
                "the partition has another owner by now, so its lane is not parked".to_owned(),
            ));
        }
    }
    Ok(is_new)
}

async fn insert(connection: &mut PgConnection, letter: &LetterRow) -> Result<bool, sqlx::Error> {
    let inserted = sqlx::query(
        "INSERT INTO afterwrite.letters (letter_id, group_name, handler, event_id, commit_day, table_name, class, error,
             attempts, first_failed_at, failed_at, replays, source_topic, source_partition, source_offset, dlq_topic,
             dlq_partition, dlq_offset, state, state_by, state_at, state_reason, event_key, due_at)
         VALUES ($1, $2, $3, decode($4, 'hex'), $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20,
             $21, $22, $23, CASE $7 WHEN 'parked' THEN now() + make_interval(secs => $24) END)
         ON CONFLICT (letter_id) DO NOTHING",
    )
    .bind(&letter.letter_id)
    .bind(&letter.group_name)
    .bind(&letter.handler)
    .bind(&letter.event_id)
    .bind(letter.commit_day)
    .bind(&letter.table_name)
    .bind(&letter.class)
    .bind(&letter.error)
    .bind(letter.attempts)
    .bind(letter.first_failed_at)
    .bind(letter.failed_at)
    .bind(letter.replays)
    .bind(&letter.source_topic)
    .bind(letter.source_partition)
    .bind(letter.source_offset)
    .bind(&letter.dlq_topic)
    .bind(letter.dlq_partition)
    .bind(letter.dlq_offset)
    .bind(&letter.state)
    .bind(&letter.state_by)
    .bind(letter.state_at)
    .bind(&letter.state_reason)
    .bind(&letter.event_key)
    .bind(letter.due_in.unwrap_or_default().as_secs_f64())
    .execute(connection)
    .await?;
    Ok(inserted.rows_affected() > 0)
}

async fn insert_bytes(connection: &mut PgConnection, letter_id: &str, record: &RawRecord) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO afterwrite.dead_letters (letter_id, key, value, headers, timestamp_ms) VALUES ($1, $2, $3, $4, $5)",
    )
    .bind(letter_id)
    .bind(record.key.as_deref())
    .bind(record.value.as_deref())
    .bind(headers::to_json(&record.headers))
    .bind(record.timestamp_ms)
    .execute(connection)
    .await?;
    Ok(())
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

/// The letter with this id.
///
/// # Errors
/// Whatever Postgres answered.
pub async fn known(pool: &PgPool, letter_id: &str) -> Result<Option<LetterRow>, sqlx::Error> {
    let sql = format!("SELECT {COLUMNS} FROM afterwrite.letters WHERE letter_id = $1");
    sqlx::query_as(sqlx::AssertSqlSafe(sql))
        .bind(letter_id)
        .fetch_optional(pool)
        .await
}

/// Says that the bytes of a known letter are kept elsewhere than before.
///
/// # Errors
/// Whatever Postgres answered.
pub(super) async fn moved(pool: &PgPool, letter_id: &str, kept: Kept<'_>) -> Result<(), sqlx::Error> {
    let mut transaction = pool.begin().await?;
    sqlx::query("DELETE FROM afterwrite.dead_letters WHERE letter_id = $1")
        .bind(letter_id)
        .execute(&mut *transaction)
        .await?;
    let place = match kept {
        Kept::Topic(place) => Some(place),
        Kept::Table(record) => {
            insert_bytes(&mut transaction, letter_id, record).await?;
            None
        }
    };
    sqlx::query(
        "UPDATE afterwrite.letters SET dlq_topic = $2, dlq_partition = $3, dlq_offset = $4 WHERE letter_id = $1",
    )
    .bind(letter_id)
    .bind(place.map(|place| &*place.topic))
    .bind(place.map(|place| place.partition))
    .bind(place.map(|place| place.offset))
    .execute(&mut *transaction)
    .await?;
    transaction.commit().await
}

/// A change of a letter's state.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, sqlx::FromRow)]
pub struct Changed {
    /// When.
    pub changed_at: DateTime<Utc>,
    /// By whom: who ran a command, or the database user of a worker.
    pub changed_by: String,
    /// The state before; `None` where the letter begins.
    pub from_state: Option<String>,
    /// The state after.
    pub to_state: String,
    /// Why, where somebody had to say it.
    pub reason: Option<String>,
}

/// How a letter came to its state, oldest first.
///
/// # Errors
/// Whatever Postgres answered.
pub async fn history(pool: &PgPool, letter_id: &str) -> Result<Vec<Changed>, sqlx::Error> {
    sqlx::query_as(
        "SELECT changed_at, changed_by, from_state, to_state, reason FROM afterwrite.letter_history
         WHERE letter_id = $1 ORDER BY id",
    )
    .bind(letter_id)
    .fetch_all(pool)
    .await
}
