//! How long coordination waits for Postgres.
//!
//! Postgres ends statements that take too long, but a host that vanishes ends nothing, and the system's own limit is a
//! quarter of an hour. So every question has a limit on this side too. A connection over which no answer came is closed and
//! not given to the next question.

use std::time::Duration;

use sqlx::Connection;
use sqlx::postgres::{PgConnection, PgPool};

/// Longest statement of coordination; Postgres ends it.
pub const STATEMENT_MAX: Duration = Duration::from_secs(30);

/// Longest wait for an answer, which comes when Postgres is there: it ends the statement first.
const ANSWER_MAX: Duration = Duration::from_secs(35);

/// No answer came in time.
#[derive(Debug, thiserror::Error)]
#[error("postgres did not answer within {} ms: {what}", .limit.as_millis())]
pub struct Unanswered {
    /// What was asked for, as in "taking a claim".
    pub what: &'static str,
    /// How long was waited.
    pub limit: Duration,
}

impl From<Unanswered> for sqlx::Error {
    /// An error of the connection, as which it is treated.
    fn from(error: Unanswered) -> Self {
        Self::Io(std::io::Error::new(std::io::ErrorKind::TimedOut, error))
    }
}

/// Runs `work` on a connection, within the usual limit beside the time that opening a connection takes. `what` is for people,
/// as in "taking a claim".
///
/// # Errors
/// That of `work`, or that Postgres did not answer; then the outcome is unknown.
pub async fn ask<T>(
    pool: &PgPool,
    what: &'static str,
    work: impl AsyncFnOnce(&mut PgConnection) -> Result<T, sqlx::Error>,
) -> Result<T, sqlx::Error> {
    ask_within(ANSWER_MAX, pool, what, work).await
}

/// Runs `work` in a transaction and commits it; otherwise as [`ask`].
///
/// # Errors
/// As those of [`ask`].
pub async fn transact<T>(
    pool: &PgPool,
    what: &'static str,
    work: impl AsyncFnOnce(&mut PgConnection) -> Result<T, sqlx::Error>,
) -> Result<T, sqlx::Error> {
    ask(pool, what, async |connection: &mut PgConnection| {
        let mut transaction = connection.begin().await?;
        let answer = work(&mut transaction).await?;
        transaction.commit().await?;
        Ok(answer)
    })
    .await
}

/// As [`ask`], within `limit`.
///
/// # Errors
/// As those of [`ask`].
pub async fn ask_within<T>(
    limit: Duration,
    pool: &PgPool,
    what: &'static str,
    work: impl AsyncFnOnce(&mut PgConnection) -> Result<T, sqlx::Error>,
) -> Result<T, sqlx::Error> {
    let mut connection = pool.acquire().await?;
    match tokio::time::timeout(limit, work(&mut connection)).await {
        Ok(answer) => answer,
        Err(_) => {
            drop(connection.detach());
            Err(Unanswered { what, limit }.into())
        }
    }
}
