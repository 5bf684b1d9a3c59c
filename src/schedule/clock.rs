//! What time it is. The default is the clock of Postgres: processes whose clocks differ agree on it.

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use sqlx::postgres::PgPool;

/// Tells the time. Tests drive one of their own; nothing else of the scheduler knows a clock.
#[async_trait]
pub trait Clock: Send + Sync + 'static {
    /// The time now.
    ///
    /// # Errors
    /// When it cannot be told; nothing is run then.
    async fn now(&self, pool: &PgPool) -> Result<DateTime<Utc>, sqlx::Error>;
}

/// The clock of the database.
#[derive(Debug, Clone, Copy)]
pub struct OfPostgres;

#[async_trait]
impl Clock for OfPostgres {
    async fn now(&self, pool: &PgPool) -> Result<DateTime<Utc>, sqlx::Error> {
        sqlx::query_scalar("SELECT clock_timestamp()").fetch_one(pool).await
    }
}
