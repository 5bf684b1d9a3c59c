//! Dropping old days of the ledger.
//!
//! A day goes as a whole when it is older than the retention and nothing can need it any more: no event of it is unsettled
//! in any group, parked, or in a dead letter that can still be replayed. From then on events of that day are not run
//! by themselves again.
//!
//! A day is detached while groups go on writing to the others, then dropped. What was interrupted is finished next time.

use chrono::{Days, NaiveDate, Utc};
use sqlx::Connection;
use sqlx::postgres::{PgConnection, PgPool};

use crate::ledger::days;

/// How long detaching a day may wait for attempts that run. No other day is made meanwhile, so it gives up soon and is
/// finished the next time.
const DETACH_MAX: &str = "10s";

/// What became of old days.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Retention {
    /// Days that were dropped.
    pub dropped: Vec<NaiveDate>,
    /// What needs a day that is older than the retention.
    pub held_by: Option<Held>,
}

/// What needs old days of the ledger.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct Held {
    /// The earliest day it needs; `None`: all of them.
    pub day: Option<NaiveDate>,
    /// What it is, for people.
    pub what: String,
}

/// Drops the days that are older than `retention_days` and that nothing needs. Another process that does the same makes this
/// one do nothing.
///
/// # Errors
/// Whatever Postgres answered; what was dropped until then is dropped.
pub async fn drop_days(pool: &PgPool, retention_days: u32) -> Result<Retention, sqlx::Error> {
    // A session of its own: what it sets and locks ends with it.
    let mut connection = pool.acquire().await?.detach();
    let ended = drop_days_on(&mut connection, retention_days).await;
    if let Err(error) = connection.close().await {
        tracing::debug!(error = %error, "a session was not closed in form");
    }
    ended
}

async fn drop_days_on(connection: &mut PgConnection, retention_days: u32) -> Result<Retention, sqlx::Error> {
    let is_alone: bool =
        sqlx::query_scalar("SELECT pg_try_advisory_lock(hashtextextended('afterwrite.ledger.retention', 0))")
            .fetch_one(&mut *connection)
            .await?;
    if !is_alone {
        return Ok(Retention::default());
    }
    let oldest = Utc::now().date_naive() - Days::new(retention_days.into());
    let held_by = earliest_needed(connection, oldest).await?;
    let mut retention = Retention::default();
    let old: Vec<Old> = tables(connection)
        .await?
        .into_iter()
        .filter(|table| table.day < oldest)
        .collect();
    let kept_from = match &held_by {
        None => Some(oldest),
        Some(held) => held.day,
    };
    if let Some(kept_from) = kept_from {
        forget_before(connection, kept_from).await?;
        let statement = format!("SET statement_timeout = '{DETACH_MAX}'");
        sqlx::raw_sql(sqlx::AssertSqlSafe(statement))
            .execute(&mut *connection)
            .await?;
        for table in old.iter().filter(|table| table.day < kept_from) {
            drop_day(connection, table).await?;
            retention.dropped.push(table.day);
        }
    }
    if retention.dropped.len() < old.len() {
        retention.held_by = held_by;
    }
    Ok(retention)
}

/// What needs a day before `oldest`, if anything does. Groups that started and whose handlers are still registered need
/// what they have not settled.
async fn earliest_needed(connection: &mut PgConnection, oldest: NaiveDate) -> Result<Option<Held>, sqlx::Error> {
    sqlx::query_as(
        "SELECT day, what FROM (
             SELECT commit_day AS day, 'dead letter ' || letter_id || ' of group ' || group_name AS what
             FROM afterwrite.letters WHERE state IN ('open', 'parked', 'replaying') AND commit_day < $1
             UNION ALL
             SELECT commit_day, 'a parked event of group ' || group_name
             FROM afterwrite.parked WHERE commit_day < $1
             UNION ALL
             SELECT frontier_day, 'group ' || group_name || ' at ' || topic || '[' || partition || ']'
             FROM afterwrite.claims claim
             WHERE first_offset IS NOT NULL AND (frontier_day IS NULL OR frontier_day < $1)
               AND EXISTS (SELECT FROM afterwrite.handlers WHERE handlers.group_name = claim.group_name)) AS needed
         ORDER BY day NULLS FIRST, what LIMIT 1",
    )
    .bind(oldest)
    .fetch_optional(connection)
    .await
}

/// Says, before any day goes, that nothing of them is known any more. A handler whose group has not started has no rows in
/// them, unless it had another name before, and runs its events of any day.
async fn forget_before(connection: &mut PgConnection, kept_from: NaiveDate) -> Result<(), sqlx::Error> {
    sqlx::query(
        "UPDATE afterwrite.handlers SET kept_from = $1
         WHERE (kept_from IS NULL OR kept_from < $1)
           AND (ledger_name IS NOT NULL
                OR EXISTS (SELECT FROM afterwrite.claims claim
                           WHERE claim.group_name = handlers.group_name AND first_offset IS NOT NULL))",
    )
    .bind(kept_from)
    .execute(connection)
    .await?;
    Ok(())
}

/// A table of a day, and the words that detach it: `CONCURRENTLY`, `FINALIZE` where somebody was interrupted in it, or none
/// where it is detached already.
struct Old {
    day: NaiveDate,
    table: String,
    detach: Option<String>,
}

/// The tables of days: first one that is half detached, since no other can be detached before it, then from the oldest on.
async fn tables(connection: &mut PgConnection) -> Result<Vec<Old>, sqlx::Error> {
    let rows: Vec<(String, Option<String>)> = sqlx::query_as(
        "SELECT 'afterwrite.' || relname,
             CASE WHEN inhdetachpending THEN 'FINALIZE' WHEN inhparent IS NOT NULL THEN 'CONCURRENTLY' END
         FROM pg_class LEFT JOIN pg_inherits ON inhrelid = pg_class.oid
         WHERE relnamespace = 'afterwrite'::regnamespace AND relkind = 'r' AND relname ~ '^ledger_[0-9]{8}$'
         ORDER BY inhdetachpending IS TRUE DESC, relname",
    )
    .fetch_all(connection)
    .await?;
    let with_day = |(table, detach): (String, Option<String>)| {
        let day = days::day_of(&table)?;
        Some(Old { day, table, detach })
    };
    Ok(rows.into_iter().filter_map(with_day).collect())
}

/// Detaches and drops a day. Nobody makes it anew in between: whoever makes days takes the same lock.
async fn drop_day(connection: &mut PgConnection, old: &Old) -> Result<(), sqlx::Error> {
    let table = &old.table;
    let detach = old
        .detach
        .as_ref()
        .map(|how| format!("ALTER TABLE afterwrite.ledger DETACH PARTITION {table} {how}"));
    let lock = "SELECT pg_advisory_lock(hashtextextended('afterwrite.ledger.days', 0))".to_owned();
    let unlock = "SELECT pg_advisory_unlock(hashtextextended('afterwrite.ledger.days', 0))".to_owned();
    let drop = format!("DROP TABLE {table}");
    // Each on its own: a detachment runs in no transaction.
    for statement in [Some(lock), detach, Some(drop), Some(unlock)].into_iter().flatten() {
        sqlx::raw_sql(sqlx::AssertSqlSafe(statement))
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}
