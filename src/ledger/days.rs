//! The ledger's partitions: one per UTC day of commit.
//!
//! They are made ahead of time, and on demand for any other day, never inside a handler's transaction. A day is made as a
//! table of its own and then attached: making it as a partition at once would lock the whole ledger, and every group
//! would wait behind the longest handler that has written to it.

use chrono::{Days, NaiveDate, Utc};
use sqlx::postgres::PgPool;

/// How many days from today on are kept ready.
pub const DAYS_AHEAD: u64 = 7;

/// Makes the partitions of yesterday, today and the days ahead.
///
/// # Errors
/// Whatever Postgres answered.
pub async fn make_ahead(pool: &PgPool) -> Result<(), sqlx::Error> {
    let yesterday = Utc::now().date_naive() - Days::new(1);
    for day in 0..=DAYS_AHEAD + 1 {
        make(pool, yesterday + Days::new(day)).await?;
    }
    Ok(())
}

/// Makes the partition of one day; that it exists already, or that another process makes it now, is no error.
///
/// # Errors
/// Whatever Postgres answered.
pub async fn make(pool: &PgPool, day: NaiveDate) -> Result<(), sqlx::Error> {
    let mut transaction = pool.begin().await?;
    // Two sessions could both find the table missing.
    sqlx::query("SELECT pg_advisory_xact_lock(hashtextextended('afterwrite.ledger.days', 0))")
        .execute(&mut *transaction)
        .await?;
    let table = format!("afterwrite.ledger_{}", day.format("%Y%m%d"));
    let exists: bool = sqlx::query_scalar("SELECT to_regclass($1) IS NOT NULL")
        .bind(&table)
        .fetch_one(&mut *transaction)
        .await?;
    if !exists {
        let next = day + Days::new(1);
        for statement in [
            format!("CREATE TABLE {table} (LIKE afterwrite.ledger INCLUDING ALL)"),
            format!("ALTER TABLE afterwrite.ledger ATTACH PARTITION {table} FOR VALUES FROM ('{day}') TO ('{next}')"),
        ] {
            sqlx::query(sqlx::AssertSqlSafe(statement))
                .execute(&mut *transaction)
                .await?;
        }
    }
    transaction.commit().await
}
