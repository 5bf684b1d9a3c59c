//! How many rewards and detections are in which state, and since when a review waits: figures of the application's day, for
//! whoever watches over it.
//!
//! They are read every now and then by one process. Neither a large campaign nor a long backlog makes reading them
//! expensive: rows are found through the indexes by state that the handlers need anyway, and of each state
//! [`COUNTED_MAX`] are counted at most. A figure that stands there means "so many, or more".

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use crate::handlers::fraud::review;

/// Rows of one state that are counted.
pub const COUNTED_MAX: i64 = 10_000;

/// The states of a reward.
pub const REWARD_STATES: [&str; 7] = [
    "held",
    "earned",
    "delivered",
    "redeemed",
    "revoked",
    "expired",
    "failed",
];

/// The lock of the one process that reads them, of all that could.
const LOCK: &str = "afterwrite:figures";

/// The figures.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Figures {
    /// Rewards by state.
    pub rewards: BTreeMap<&'static str, u64>,
    /// Detections by type and state.
    pub detections: BTreeMap<(&'static str, &'static str), u64>,
    /// When the oldest detection was found that nobody has decided about; of those that were counted.
    pub oldest_review: Option<DateTime<Utc>>,
}

/// Takes the lock for as long as this session lasts. `false`: another process reads the figures.
///
/// # Errors
/// Whatever Postgres answered.
pub async fn take(session: &mut PgConnection) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar("SELECT pg_try_advisory_lock(hashtextextended($1, 0))")
        .bind(LOCK)
        .fetch_one(session)
        .await
}

/// Whether the tables are there that figures are read from: a program of other handlers has none of them.
///
/// # Errors
/// Whatever Postgres answered.
pub async fn are_there(session: &mut PgConnection) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar(
        "SELECT count(to_regclass(name)) = 4 FROM unnest(ARRAY['campaigns', 'rewards', 'user_rewards', 'fraud_detections']) AS name",
    )
    .fetch_one(session)
    .await
}

/// Reads them.
///
/// # Errors
/// Whatever Postgres answered.
pub async fn read(session: &mut PgConnection) -> Result<Figures, sqlx::Error> {
    let rewards: Vec<(String, i64)> = sqlx::query_as(
        "SELECT state, count(*)
         FROM unnest($1::text[]) AS state
         CROSS JOIN LATERAL (
             SELECT FROM rewards w
             CROSS JOIN LATERAL (SELECT FROM user_rewards o WHERE o.reward_id = w.id AND o.status = state LIMIT $2) AS of_one
             LIMIT $2
         ) AS counted
         GROUP BY state",
    )
    .bind(&REWARD_STATES[..])
    .bind(COUNTED_MAX)
    .fetch_all(&mut *session)
    .await?;
    let detections: Vec<(String, String, i64, DateTime<Utc>)> = sqlx::query_as(
        "SELECT counted.type, state, count(*), min(counted.created_at)
         FROM unnest($1::text[]) AS state
         CROSS JOIN LATERAL (
             SELECT of_one.* FROM campaigns c
             CROSS JOIN LATERAL (SELECT d.type, d.created_at FROM fraud_detections d
                                 WHERE d.campaign_id = c.id AND d.status = state LIMIT $2) AS of_one
             LIMIT $2
         ) AS counted
         GROUP BY counted.type, state",
    )
    .bind(&review::STATES[..])
    .bind(COUNTED_MAX)
    .fetch_all(&mut *session)
    .await?;
    let mut figures = Figures {
        rewards: REWARD_STATES.iter().map(|state| (*state, 0)).collect(),
        ..Figures::default()
    };
    for (state, count) in rewards {
        if let Some(known) = figures.rewards.get_mut(state.as_str()) {
            *known = count.unsigned_abs();
        }
    }
    let known = |words: &[&'static str], word: &str| words.iter().find(|known| **known == word).copied();
    for kind in review::TYPES {
        let of_kind = review::STATES.map(|state| ((kind, state), 0));
        figures.detections.extend(of_kind);
    }
    for (kind, state, count, oldest) in detections {
        // Words that the application made up itself are nobody's label.
        let (Some(kind), Some(state)) = (known(&review::TYPES, &kind), known(&review::STATES, &state)) else {
            continue;
        };
        figures.detections.insert((kind, state), count.unsigned_abs());
        if state == "pending" {
            figures.oldest_review = Some(figures.oldest_review.map_or(oldest, |known| known.min(oldest)));
        }
    }
    Ok(figures)
}
