//! What is known of the replication slots of groups that read the write-ahead log: how far each is behind, and how much log the
//! server keeps for it.
//!
//! A slot keeps log until somebody has read it. One that is forgotten fills the disk of Postgres, and one whose log was removed
//! has missed changes; both are told here and never mended by themselves.

use serde::Serialize;
use sqlx::postgres::PgPool;

/// A slot that nobody reads may keep so much log before somebody is asked whether it is needed.
pub const FORGOTTEN_BYTES: i64 = 1 << 30;

/// A slot is in danger when of the log that the server may keep for it only one part of so many is left.
pub const PARTS_LEFT: i64 = 5;

/// SQLSTATE of a slot that somebody reads.
const IN_USE: &str = "55006";

/// SQLSTATE of a slot that is not there any more.
const ABSENT: &str = "42704";

/// One slot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, sqlx::FromRow)]
pub struct Slot {
    /// Its name.
    pub slot: String,
    /// The group that reads it; none where no group ever did.
    pub group: Option<String>,
    /// Whether the server has it, as one of `pgoutput` in this database.
    pub is_there: bool,
    /// The process of Postgres that reads it for somebody now.
    pub active_pid: Option<i32>,
    /// `reserved`, `extended`, `unreserved` or `lost`.
    pub wal_status: Option<String>,
    /// Log that was written and is not settled.
    pub lag_bytes: Option<i64>,
    /// Log that the server keeps for it, which begins before what is not settled.
    pub kept_bytes: Option<i64>,
    /// Log that may be written before it is lost; none without a limit.
    pub safe_bytes: Option<i64>,
    /// Seconds since the group kept last how far it is.
    pub settled_s: Option<i64>,
}

impl Slot {
    /// Whether log was removed that the group had not read.
    pub fn is_lost(&self) -> bool {
        self.wal_status.as_deref() == Some("lost")
    }
}

/// All slots, and what holds for each.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Slots {
    /// By name.
    pub slots: Vec<Slot>,
    /// Log that the server keeps for a slot at most (`max_slot_wal_keep_size`); none where it keeps all.
    pub keep_bytes_max: Option<i64>,
}

impl Slots {
    /// The slot of a group.
    pub fn of(&self, group: &str) -> Option<&Slot> {
        self.slots.iter().find(|slot| slot.group.as_deref() == Some(group))
    }
}

/// The slots of all groups that ever read the log of this database; and those of `pgoutput` in it that no group ever read, and
/// whose names begin as those of groups do.
///
/// # Errors
/// Whatever Postgres answered.
pub async fn read(pool: &PgPool, beginning: &str) -> Result<Slots, sqlx::Error> {
    let slots = sqlx::query_as(
        "SELECT slot_name::text AS slot, kept.group_name AS \"group\", here.slot_name IS NOT NULL AS is_there,
                here.active_pid, here.wal_status,
                CASE WHEN written.lsn >= settled.lsn THEN (written.lsn - settled.lsn)::bigint END AS lag_bytes,
                (written.lsn - here.restart_lsn)::bigint AS kept_bytes, here.safe_wal_size AS safe_bytes,
                extract(epoch FROM now() - kept.updated_at)::bigint AS settled_s
         FROM afterwrite.slots kept
         FULL JOIN (SELECT * FROM pg_replication_slots WHERE database = current_database() AND plugin = 'pgoutput') here
             USING (slot_name)
         CROSS JOIN (SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END AS lsn) written
         CROSS JOIN LATERAL (SELECT coalesce(kept.confirmed_lsn, here.confirmed_flush_lsn) AS lsn) settled
         WHERE kept.slot_name IS NOT NULL OR starts_with(slot_name::text, $1)
         ORDER BY 1",
    )
    .bind(beginning)
    .fetch_all(pool)
    .await?;
    Ok(Slots {
        slots,
        keep_bytes_max: keep_bytes_max(pool).await?,
    })
}

/// Log that the server keeps for a slot at most; `None` where it keeps all.
///
/// # Errors
/// Whatever Postgres answered.
pub async fn keep_bytes_max(pool: &PgPool) -> Result<Option<i64>, sqlx::Error> {
    let megabytes: i64 =
        sqlx::query_scalar("SELECT setting::bigint FROM pg_settings WHERE name = 'max_slot_wal_keep_size'")
            .fetch_one(pool)
            .await?;
    Ok((megabytes >= 0).then(|| megabytes.saturating_mul(1024 * 1024)))
}

/// What became of a slot that the server was asked to drop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dropped {
    /// It is gone, with the log that it kept.
    Now,
    /// The server has none of this name, or somebody else's.
    NotThere,
    /// Somebody reads it: nothing was done.
    InUse,
}

/// Drops a slot of `pgoutput` in this database, for which the role needs `REPLICATION`.
///
/// # Errors
/// Whatever Postgres answered.
pub async fn drop_on_server(pool: &PgPool, slot: &str) -> Result<Dropped, sqlx::Error> {
    let dropped = sqlx::query(
        "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots
         WHERE slot_name = $1::name AND database = current_database() AND plugin = 'pgoutput'",
    )
    .bind(slot)
    .execute(pool)
    .await;
    let error = match dropped {
        Ok(done) if done.rows_affected() > 0 => return Ok(Dropped::Now),
        Ok(_) => return Ok(Dropped::NotThere),
        Err(error) => error,
    };
    let code = error.as_database_error().and_then(|database| database.code());
    match code.as_deref() {
        Some(IN_USE) => Ok(Dropped::InUse),
        Some(ABSENT) => Ok(Dropped::NotThere),
        _ => Err(error),
    }
}

/// Forgets where the group of a slot stood; answers whether that was known.
///
/// # Errors
/// Whatever Postgres answered.
pub async fn forget(pool: &PgPool, slot: &str) -> Result<bool, sqlx::Error> {
    let forgotten = sqlx::query("DELETE FROM afterwrite.slots WHERE slot_name = $1::name")
        .bind(slot)
        .execute(pool)
        .await?;
    Ok(forgotten.rows_affected() > 0)
}
