//! The bytes of letters, wherever they are kept: in their topic, or in `afterwrite.dead_letters` where that refused them or
//! no broker was.
//!
//! Whoever reads says how topics are reached. `None` means that there is no broker to ask: no client is made then, and a
//! letter that a topic keeps from an earlier time is named with its place.

use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::Value;
use sqlx::postgres::PgPool;
use tokio::sync::mpsc;

use crate::dead_letter::reader;
use crate::dead_letter::state::{LetterRow, Place};
use crate::dead_letter::topic::Options;
use crate::event::delivery::RawRecord;
use crate::ledger::headers;

/// Letters that are read ahead of whoever asked for them.
const AHEAD_MAX: usize = 4;

/// A letter's bytes could not be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Its topic could not be read.
    #[error(transparent)]
    Topic(#[from] reader::Error),
    /// The table could not be read.
    #[error("the bytes of dead letter {letter_id} could not be read from afterwrite.dead_letters")]
    Table {
        /// The letter.
        letter_id: String,
        /// What Postgres answered.
        #[source]
        source: sqlx::Error,
    },
    /// A topic has them, and there is no broker to ask.
    #[error(
        "the bytes of dead letter {letter_id} are at {place}, and no broker is asked with this source.kind: export it with \
         source.kind = \"kafka\", then `afterwrite dlq import --restore` brings it here"
    )]
    Elsewhere {
        /// The letter.
        letter_id: String,
        /// Where its bytes are.
        place: Place,
    },
    /// Nothing keeps them any more.
    #[error("the bytes of dead letter {0} are neither in a topic nor in afterwrite.dead_letters")]
    Nowhere(String),
}

impl Error {
    /// Whether the letter is lost, as opposed to whatever keeps it being away.
    pub fn is_gone(&self) -> bool {
        matches!(self, Self::Topic(reader::Error::Gone(_)) | Self::Nowhere(_))
    }

    /// Whether nothing that is asked has them: they can only be brought back.
    pub fn is_out_of_reach(&self) -> bool {
        self.is_gone() || matches!(self, Self::Elsewhere { .. })
    }

    /// Whether asking again later may help, and nothing is known about the letter.
    pub fn is_unreachable(&self) -> bool {
        match self {
            Self::Topic(error) => error.is_unreachable(),
            Self::Table { .. } => true,
            Self::Elsewhere { .. } | Self::Nowhere(_) => false,
        }
    }
}

/// Reads letters one after the other; the answers come in the same order. Dropping the receiver ends it.
pub fn read_all(
    topics: Option<Options>,
    pool: PgPool,
    letters: &[LetterRow],
) -> mpsc::Receiver<Result<RawRecord, Error>> {
    let (answers, receiver) = mpsc::channel(AHEAD_MAX);
    let kept: Vec<(String, Option<Place>)> = letters
        .iter()
        .map(|letter| (letter.letter_id.clone(), letter.stored()))
        .collect();
    let places = || letters.iter().filter_map(LetterRow::stored).collect();
    let mut in_topics = topics.map(|options| reader::read_all(options, places()));
    tokio::spawn(async move {
        for (letter_id, place) in kept {
            let answer = match (place, &mut in_topics) {
                (Some(_), Some(in_topics)) => match in_topics.recv().await {
                    Some(answer) => answer.map_err(Error::from),
                    None => Err(reader::Error::Abandoned.into()),
                },
                (Some(place), None) => Err(Error::Elsewhere { letter_id, place }),
                (None, _) => from_table(&pool, letter_id).await,
            };
            if answers.send(answer).await.is_err() {
                return;
            }
        }
    });
    receiver
}

/// Reads one letter.
///
/// # Errors
/// When whatever keeps it does not answer, or does not have it any more.
pub async fn read(topics: Option<Options>, pool: &PgPool, letter: &LetterRow) -> Result<RawRecord, Error> {
    read_all(topics, pool.clone(), std::slice::from_ref(letter))
        .recv()
        .await
        .unwrap_or(Err(Error::Topic(reader::Error::Abandoned)))
}

async fn from_table(pool: &PgPool, letter_id: String) -> Result<RawRecord, Error> {
    let row: Result<Option<Row>, sqlx::Error> =
        sqlx::query_as("SELECT key, value, headers, timestamp_ms FROM afterwrite.dead_letters WHERE letter_id = $1")
            .bind(&letter_id)
            .fetch_optional(pool)
            .await;
    match row {
        Ok(Some(row)) => Ok(row.into()),
        Ok(None) => Err(Error::Nowhere(letter_id)),
        Err(source) => Err(Error::Table { letter_id, source }),
    }
}

/// Letters that appear in the table, one after the other, each once.
pub struct Following {
    group: String,
    /// Nothing that was stored longer than [`LATE_MAX`] before this is still to come.
    until: DateTime<Utc>,
    /// What was answered of the time since.
    answered: Vec<(DateTime<Utc>, String)>,
}

/// A row appears when its transaction ends, and has the time at which that began.
const LATE_MAX: TimeDelta = TimeDelta::minutes(1);

/// Letters that are taken from the table at once.
const TAKEN_AT_ONCE: i64 = 100;

impl Following {
    /// Follows the letters of a group: all of them, or those that are stored from now on.
    ///
    /// # Errors
    /// Whatever Postgres answered.
    pub async fn start(pool: &PgPool, group: &str, from_beginning: bool) -> Result<Self, sqlx::Error> {
        let now: DateTime<Utc> = sqlx::query_scalar("SELECT now()").fetch_one(pool).await?;
        let mut following = Self {
            group: group.to_owned(),
            until: if from_beginning { DateTime::UNIX_EPOCH } else { now },
            answered: Vec::new(),
        };
        if !from_beginning {
            while !following.next(pool).await?.is_empty() {}
        }
        Ok(following)
    }

    /// The headers of letters that have appeared, oldest first; not all of them when there are many.
    ///
    /// # Errors
    /// Whatever Postgres answered.
    pub async fn next(&mut self, pool: &PgPool) -> Result<Vec<RawRecord>, sqlx::Error> {
        let known: Vec<&str> = self.answered.iter().map(|(_, id)| id.as_str()).collect();
        let rows: Vec<(String, DateTime<Utc>, Value)> = sqlx::query_as(
            "SELECT kept.letter_id, kept.stored_at, kept.headers FROM afterwrite.dead_letters kept
             JOIN afterwrite.letters letter USING (letter_id)
             WHERE letter.group_name = $1 AND kept.stored_at >= $2 AND kept.letter_id <> ALL ($3)
             ORDER BY kept.stored_at, kept.letter_id LIMIT $4",
        )
        .bind(&self.group)
        .bind(self.until - LATE_MAX)
        .bind(known)
        .bind(TAKEN_AT_ONCE)
        .fetch_all(pool)
        .await?;
        let mut records = Vec::with_capacity(rows.len());
        for (id, stored_at, stored_headers) in rows {
            self.until = self.until.max(stored_at);
            self.answered.push((stored_at, id));
            records.push(RawRecord {
                headers: headers::from_json(&stored_headers),
                ..RawRecord::default()
            });
        }
        let begin = self.until - LATE_MAX;
        self.answered.retain(|(stored_at, _)| *stored_at >= begin);
        Ok(records)
    }
}

/// Bytes as the table keeps them.
#[derive(sqlx::FromRow)]
struct Row {
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Value,
    timestamp_ms: Option<i64>,
}

impl From<Row> for RawRecord {
    fn from(row: Row) -> Self {
        Self {
            key: row.key.map(Bytes::from),
            value: row.value.map(Bytes::from),
            headers: headers::from_json(&row.headers),
            timestamp_ms: row.timestamp_ms,
        }
    }
}
