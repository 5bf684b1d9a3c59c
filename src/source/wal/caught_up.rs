//! Whether the log is read to its end. A keepalive alone does not say so: it names what was sent, and more may be there.

use std::time::Duration;

use sqlx::postgres::{PgConnection, PgPool};
use tokio::time::Instant;

use crate::ledger::patience::ask;

/// How often it is told, and asked.
const EVERY: Duration = Duration::from_secs(20);

/// What is known of the end.
#[derive(Debug, Default)]
pub(super) struct CaughtUp {
    told_at: Option<Instant>,
    /// Where the log ended when that was asked.
    end: Option<u64>,
}

impl CaughtUp {
    /// Whether to tell now that nothing is left, when all before this place was received and settled.
    pub(super) async fn is_to_tell(&mut self, pool: &PgPool, read_to: u64) -> bool {
        let now = Instant::now();
        if self.told_at.is_some_and(|told_at| now < told_at + EVERY) {
            return false;
        }
        if self.end.is_none() {
            self.end = end(pool).await;
        }
        let is_at_end = self.end.is_some_and(|end| read_to >= end);
        if is_at_end {
            *self = Self {
                told_at: Some(now),
                end: None,
            };
        }
        is_at_end
    }
}

/// Where the log ends now; `None` when nobody answered.
async fn end(pool: &PgPool) -> Option<u64> {
    let query = sqlx::query_scalar("SELECT (pg_current_wal_flush_lsn() - '0/0')::bigint");
    let answer: Result<i64, sqlx::Error> = ask(
        pool,
        "asking where the log ends",
        async |connection: &mut PgConnection| query.fetch_one(connection).await,
    )
    .await;
    match answer {
        Ok(end) => Some(end.cast_unsigned()),
        Err(error) => {
            tracing::debug!(%error, "where the log ends could not be asked");
            None
        }
    }
}
