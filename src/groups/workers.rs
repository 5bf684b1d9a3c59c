//! What each process tells of the groups it runs: a row per process and group in `afterwrite.workers`.
//!
//! Only the process knows what runs, waits and is suspended in it. It writes that down every two seconds, and at last that
//! it stopped; a row that is not refreshed without that is of a process that died or is cut off.

use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::postgres::PgPool;
use sqlx::types::Json;
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;
use uuid::Uuid;

use crate::engine::standing::Standing;

/// How often a process tells of itself.
pub const TOLD_EVERY: Duration = Duration::from_secs(2);

/// A process that was not heard of for so long counts as gone.
pub const GONE_AFTER: Duration = Duration::from_secs(30);

/// How long the row of a process that stopped or is gone is kept, for people who look into it.
const KEPT: Duration = Duration::from_secs(24 * 3_600);

/// Rows that are too old are looked for at each of so many tellings, about every hour.
const TELLINGS_PER_CLEANING: u32 = 1_800;

/// The process that tells.
#[derive(Debug, Clone)]
pub struct Process {
    /// Its number in claims; another one after each start.
    pub owner: Uuid,
    /// The name of its machine.
    pub host: String,
    /// Its number on that machine.
    pub pid: u32,
}

impl Process {
    /// This process.
    pub fn this(owner: Uuid) -> Self {
        let named = std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
        let host = named.map(|name| name.trim().to_owned()).filter(|name| !name.is_empty());
        Self {
            owner,
            host: host
                .or_else(|| std::env::var("HOSTNAME").ok())
                .unwrap_or_else(|| "unknown".to_owned()),
            pid: std::process::id(),
        }
    }
}

/// Tells where a group stands in this process until the driver that knows it is gone, then that it stopped. What cannot be
/// written is written the next time: nothing depends on it.
pub async fn tell(pool: PgPool, process: Process, group: String, mut standing: watch::Receiver<Standing>) {
    let mut tellings = tokio::time::interval(TOLD_EVERY);
    tellings.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut told, mut silent) = (0_u32, false);
    loop {
        tokio::select! {
            _ = tellings.tick() => {}
            () = ended(&mut standing) => break,
        }
        let now = standing.borrow_and_update().clone();
        let written = write(
            &pool,
            &process,
            &group,
            &now,
            told.is_multiple_of(TELLINGS_PER_CLEANING),
        )
        .await;
        match written {
            Ok(()) => silent = false,
            Err(error) if !silent => {
                silent = true;
                tracing::warn!(group, error = %error, "where the group stands could not be told; it is told again");
            }
            Err(_) => {}
        }
        told = told.wrapping_add(1);
    }
    if let Err(error) = stopped(&pool, &process, &group).await {
        tracing::debug!(group, error = %error, "that this process stopped could not be told");
    }
}

/// Resolves when nobody can tell anything any more.
async fn ended(standing: &mut watch::Receiver<Standing>) {
    while standing.changed().await.is_ok() {}
}

async fn write(
    pool: &PgPool,
    process: &Process,
    group: &str,
    standing: &Standing,
    cleaning: bool,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO afterwrite.workers AS known (owner, group_name, host, pid, version, standing)
         VALUES ($1, $2, $3, $4, $5, $6)
         ON CONFLICT (group_name, owner) DO UPDATE
             SET seen_at = now(), standing = excluded.standing,
                 progressed_at = CASE WHEN excluded.standing -> 'progress' IS DISTINCT FROM known.standing -> 'progress'
                     THEN now() ELSE known.progressed_at END",
    )
    .bind(process.owner)
    .bind(group)
    .bind(&process.host)
    .bind(i64::from(process.pid))
    .bind(env!("CARGO_PKG_VERSION"))
    .bind(Json(standing))
    .execute(pool)
    .await?;
    if cleaning {
        sqlx::query("DELETE FROM afterwrite.workers WHERE seen_at < now() - $1 * interval '1 second'")
            .bind(KEPT.as_secs_f64())
            .execute(pool)
            .await?;
    }
    Ok(())
}

/// Nothing runs in it any more, and it owns nothing.
async fn stopped(pool: &PgPool, process: &Process, group: &str) -> Result<(), sqlx::Error> {
    sqlx::query(
        "UPDATE afterwrite.workers SET seen_at = now(), stopped_at = now(), standing = $3
         WHERE owner = $1 AND group_name = $2",
    )
    .bind(process.owner)
    .bind(group)
    .bind(Json(Standing::default()))
    .execute(pool)
    .await?;
    Ok(())
}

/// What a process told of a group.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct Worker {
    /// The group.
    pub group_name: String,
    /// Its number in claims.
    pub owner: Uuid,
    /// The name of its machine.
    pub host: String,
    /// Its number on that machine.
    pub pid: i64,
    /// Its version.
    pub version: String,
    /// When it started to run the group.
    pub started_at: DateTime<Utc>,
    /// When it was heard of last.
    pub seen_at: DateTime<Utc>,
    /// When something was settled last.
    pub progressed_at: Option<DateTime<Utc>>,
    /// When it stopped in an orderly way.
    pub stopped_at: Option<DateTime<Utc>>,
    /// Whether it was not heard of for longer than [`GONE_AFTER`], by the clock of Postgres, and did not stop.
    pub gone: bool,
    /// Where the group stands in it.
    pub standing: Json<Standing>,
}

impl Worker {
    /// Whether it runs the group, as far as anybody knows.
    pub fn runs(&self) -> bool {
        self.stopped_at.is_none() && !self.gone
    }
}

/// What the processes of one group told, or those of all groups.
///
/// # Errors
/// Whatever Postgres answered.
pub async fn list(pool: &PgPool, group: Option<&str>) -> Result<Vec<Worker>, sqlx::Error> {
    sqlx::query_as(
        "SELECT group_name, owner, host, pid, version, started_at, seen_at, progressed_at, stopped_at, standing,
                stopped_at IS NULL AND seen_at < now() - $2 * interval '1 second' AS gone
         FROM afterwrite.workers WHERE $1::text IS NULL OR group_name = $1
         ORDER BY group_name, started_at, owner",
    )
    .bind(group)
    .bind(GONE_AFTER.as_secs_f64())
    .fetch_all(pool)
    .await
}
