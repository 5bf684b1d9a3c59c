//! The history of runs, and who may work on one: `afterwrite.schedule_runs`.
//!
//! A row is changed only by whoever holds the job's lock, and only while it names the attempt of that one: a process that
//! lost its session, and with it the lock, changes nothing any more.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::PgConnection;
use sqlx::postgres::PgPool;
use uuid::Uuid;

use super::Report;
use super::timing::Missed;

/// An attempt at a run, as its row names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// The job.
    pub job: String,
    /// The tick.
    pub tick: DateTime<Utc>,
    /// The process.
    pub owner: Uuid,
    /// Which attempt.
    pub attempt: u32,
    /// The newest tick before this one that is done.
    pub previous: Option<DateTime<Utc>>,
}

/// Somebody else works on the run by now.
#[derive(Debug, thiserror::Error)]
#[error("the run was taken over by another process; nothing of this attempt was written")]
pub struct TakenOver;

impl From<TakenOver> for sqlx::Error {
    fn from(error: TakenOver) -> Self {
        Self::Io(std::io::Error::other(error))
    }
}

/// What is known of a job's ticks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, sqlx::FromRow)]
pub struct Known {
    /// The newest tick that the clock made.
    pub last: Option<DateTime<Utc>>,
    /// The oldest tick that is neither done nor given up.
    pub oldest_open: Option<DateTime<Utc>>,
}

/// Reads what is known of a job's ticks.
///
/// # Errors
/// Whatever Postgres answered.
pub async fn known(pool: &PgPool, job: &str) -> Result<Known, sqlx::Error> {
    sqlx::query_as(
        "SELECT (SELECT max(tick) FROM afterwrite.schedule_runs WHERE job = $1 AND requested_by IS NULL) AS last,
                (SELECT min(tick) FROM afterwrite.schedule_runs
                 WHERE job = $1 AND status IN ('due', 'running', 'retrying')) AS oldest_open",
    )
    .bind(job)
    .fetch_one(pool)
    .await
}

/// Writes ticks down as due; one that another process wrote down is there already.
///
/// # Errors
/// Whatever Postgres answered.
pub async fn add(pool: &PgPool, job: &str, ticks: &[DateTime<Utc>], now: DateTime<Utc>) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO afterwrite.schedule_runs (job, tick, status, next_attempt_at)
         SELECT $1, tick, 'due', $3 FROM unnest($2::timestamptz[]) AS tick
         ON CONFLICT (job, tick) DO NOTHING",
    )
    .bind(job)
    .bind(ticks)
    .bind(now)
    .execute(pool)
    .await?;
    Ok(())
}

/// Passes over what is open before the newest tick, for a job of which only the last one matters.
///
/// # Errors
/// Whatever Postgres answered.
pub async fn pass_over(connection: &mut PgConnection, job: &str) -> Result<(), sqlx::Error> {
    sqlx::query(
        "UPDATE afterwrite.schedule_runs
         SET status = 'passed', finished_at = clock_timestamp()
         WHERE job = $1 AND status IN ('due', 'running', 'retrying') AND requested_by IS NULL
           AND tick < (SELECT max(tick) FROM afterwrite.schedule_runs WHERE job = $1 AND requested_by IS NULL)",
    )
    .bind(job)
    .execute(connection)
    .await?;
    Ok(())
}

/// The tick that may be worked on now: the oldest one, or the newest where only the last one matters.
///
/// # Errors
/// Whatever Postgres answered.
pub async fn ready(
    pool: &PgPool,
    job: &str,
    now: DateTime<Utc>,
    missed: Missed,
) -> Result<Option<DateTime<Utc>>, sqlx::Error> {
    sqlx::query_scalar(
        "SELECT tick FROM afterwrite.schedule_runs
         WHERE job = $1 AND status IN ('due', 'running', 'retrying') AND next_attempt_at <= $2
         ORDER BY CASE WHEN $3 THEN tick END DESC, tick LIMIT 1",
    )
    .bind(job)
    .bind(now)
    .bind(missed == Missed::Last)
    .fetch_optional(pool)
    .await
}

/// Takes the job's lock, which lasts as long as the session. `false`: another process works on the job.
///
/// # Errors
/// Whatever Postgres answered.
pub async fn lock(session: &mut PgConnection, job: &str) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar("SELECT pg_try_advisory_lock(hashtextextended('afterwrite.schedule:' || $1, 0))")
        .bind(job)
        .fetch_one(session)
        .await
}

/// Gives the job's lock back.
///
/// # Errors
/// Whatever Postgres answered.
pub async fn unlock(session: &mut PgConnection, job: &str) -> Result<(), sqlx::Error> {
    sqlx::query("SELECT pg_advisory_unlock(hashtextextended('afterwrite.schedule:' || $1, 0))")
        .bind(job)
        .execute(session)
        .await?;
    Ok(())
}

/// Begins an attempt, under the lock. A row that says `running` is of a process that died: nobody else has the lock.
/// `None`: the run is done, or waits.
///
/// # Errors
/// Whatever Postgres answered.
pub async fn claim(
    session: &mut PgConnection,
    job: &str,
    tick: DateTime<Utc>,
    now: DateTime<Utc>,
    owner: Uuid,
    wait_after_death: impl Fn(u32) -> Duration,
) -> Result<Option<Claim>, sqlx::Error> {
    let attempts: Option<i32> = sqlx::query_scalar(
        "SELECT attempts FROM afterwrite.schedule_runs
         WHERE job = $1 AND tick = $2 AND status IN ('due', 'running', 'retrying') AND next_attempt_at <= $3",
    )
    .bind(job)
    .bind(tick)
    .bind(now)
    .fetch_optional(&mut *session)
    .await?;
    let Some(attempts) = attempts else {
        return Ok(None);
    };
    let attempt = attempts.unsigned_abs() + 1;
    // By what was read: should two have the lock, only one of them gets the attempt.
    let previous: Option<Option<DateTime<Utc>>> = sqlx::query_scalar(
        "UPDATE afterwrite.schedule_runs run
         SET status = 'running', attempts = $3, owner = $4, started_at = clock_timestamp(), finished_at = NULL,
             next_attempt_at = $5::timestamptz + $6::bigint * interval '1 millisecond'
         WHERE job = $1 AND tick = $2 AND attempts = $3 - 1 AND status IN ('due', 'running', 'retrying')
         RETURNING (SELECT max(tick) FROM afterwrite.schedule_runs before
                    WHERE before.job = $1 AND before.status = 'done' AND before.tick < $2)",
    )
    .bind(job)
    .bind(tick)
    .bind(i32::try_from(attempt).unwrap_or(i32::MAX))
    .bind(owner)
    .bind(now)
    .bind(millis(wait_after_death(attempt)))
    .fetch_optional(session)
    .await?;
    Ok(previous.map(|previous| Claim {
        job: job.to_owned(),
        tick,
        owner,
        attempt,
        previous,
    }))
}

/// The row of the attempt, as long as it is this one's: `$1` job, `$2` tick, `$3` owner, `$4` attempt.
const OURS: &str = "job = $1 AND tick = $2 AND owner = $3 AND attempts = $4 AND status = 'running'";

/// Holds the row until the transaction ends: the first statement of it.
///
/// # Errors
/// Whatever Postgres answered, and [`TakenOver`].
pub async fn hold(connection: &mut PgConnection, claim: &Claim) -> Result<(), sqlx::Error> {
    let sql = format!("SELECT true FROM afterwrite.schedule_runs WHERE {OURS} FOR UPDATE");
    let found: Option<bool> = sqlx::query_scalar(sqlx::AssertSqlSafe(sql))
        .bind(&claim.job)
        .bind(claim.tick)
        .bind(claim.owner)
        .bind(i32::try_from(claim.attempt).unwrap_or(i32::MAX))
        .fetch_optional(connection)
        .await?;
    found.map(|_| ()).ok_or_else(|| TakenOver.into())
}

/// How an attempt ended, for its row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End<'a> {
    /// The run is done.
    Done(&'a Report),
    /// Another attempt follows.
    Retrying {
        /// What went wrong.
        error: &'a str,
        /// Not before this time.
        next: DateTime<Utc>,
    },
    /// No more attempts follow.
    Failed {
        /// What went wrong.
        error: &'a str,
    },
    /// The process stopped in the middle: that was no attempt.
    Stopped {
        /// When the attempt began.
        now: DateTime<Utc>,
    },
}

/// Writes how an attempt ended. That of a run that is done is part of the run's transaction.
///
/// # Errors
/// Whatever Postgres answered, and [`TakenOver`].
pub async fn end(connection: &mut PgConnection, claim: &Claim, end: End<'_>) -> Result<(), sqlx::Error> {
    let (status, error, next, report, attempts) = match end {
        End::Done(report) => ("done", None, None, Some(serde_json::json!(report)), 0),
        End::Retrying { error, next } => ("retrying", Some(error), Some(next), None, 0),
        End::Failed { error } => ("failed", Some(error), None, None, 0),
        End::Stopped { now } => ("due", None, Some(now), None, -1),
    };
    let sql = format!(
        "UPDATE afterwrite.schedule_runs
         SET status = $5, error = $6, next_attempt_at = coalesce($7, next_attempt_at), report = $8,
             attempts = attempts + $9, finished_at = CASE WHEN $5 <> 'due' THEN clock_timestamp() END
         WHERE {OURS}"
    );
    let written = sqlx::query(sqlx::AssertSqlSafe(sql))
        .bind(&claim.job)
        .bind(claim.tick)
        .bind(claim.owner)
        .bind(i32::try_from(claim.attempt).unwrap_or(i32::MAX))
        .bind(status)
        .bind(error)
        .bind(next)
        .bind(report)
        .bind(attempts)
        .execute(connection)
        .await?;
    match written.rows_affected() {
        1 => Ok(()),
        _ => Err(TakenOver.into()),
    }
}

/// Asks for a run, as a person: a tick that is done, or was given up, is run again. One that says it is running is left as it
/// is.
///
/// # Errors
/// Whatever Postgres answered.
pub async fn request(
    pool: &PgPool,
    job: &str,
    tick: DateTime<Utc>,
    now: DateTime<Utc>,
    by: &str,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO afterwrite.schedule_runs AS known (job, tick, status, next_attempt_at, requested_by)
         VALUES ($1, $2, 'due', $3, $4)
         ON CONFLICT (job, tick) DO UPDATE
             SET status = 'due', attempts = 0, next_attempt_at = $3, error = NULL, report = NULL, requested_by = $4
             WHERE known.status <> 'running'",
    )
    .bind(job)
    .bind(tick)
    .bind(now)
    .bind(by)
    .execute(pool)
    .await?;
    Ok(())
}

/// A run as it stands.
#[derive(Debug, Clone, PartialEq, sqlx::FromRow, serde::Serialize)]
pub struct Run {
    /// The time it is for.
    pub tick: DateTime<Utc>,
    /// `due`, `running`, `retrying`, `done`, `failed` or `passed`.
    pub status: String,
    /// Attempts that began.
    pub attempts: i32,
    /// When the last one began.
    pub started_at: Option<DateTime<Utc>>,
    /// When it ended.
    pub finished_at: Option<DateTime<Utc>>,
    /// When another one follows, where one does.
    pub next_attempt_at: DateTime<Utc>,
    /// What went wrong in the last one.
    pub error: Option<String>,
    /// What the run counted.
    pub report: Option<Value>,
}

/// The newest run of a job whose status is one of these.
///
/// # Errors
/// Whatever Postgres answered.
pub async fn newest(pool: &PgPool, job: &str, statuses: &[&str]) -> Result<Option<Run>, sqlx::Error> {
    sqlx::query_as(
        "SELECT tick, status, attempts, started_at, finished_at, next_attempt_at, error, report
         FROM afterwrite.schedule_runs WHERE job = $1 AND status = ANY($2) ORDER BY tick DESC LIMIT 1",
    )
    .bind(job)
    .bind(statuses)
    .fetch_optional(pool)
    .await
}

/// One run.
///
/// # Errors
/// Whatever Postgres answered.
pub async fn one(pool: &PgPool, job: &str, tick: DateTime<Utc>) -> Result<Option<Run>, sqlx::Error> {
    sqlx::query_as(
        "SELECT tick, status, attempts, started_at, finished_at, next_attempt_at, error, report
         FROM afterwrite.schedule_runs WHERE job = $1 AND tick = $2",
    )
    .bind(job)
    .bind(tick)
    .fetch_optional(pool)
    .await
}

/// Whether the table is there.
///
/// # Errors
/// Whatever Postgres answered.
pub async fn is_there(pool: &PgPool) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar("SELECT to_regclass('afterwrite.schedule_runs') IS NOT NULL")
        .fetch_one(pool)
        .await
}

fn millis(wait: Duration) -> i64 {
    i64::try_from(wait.as_millis()).unwrap_or(i64::MAX)
}
