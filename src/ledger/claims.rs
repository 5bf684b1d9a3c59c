//! Claims: which process owns which partition of a group, under which epoch.
//!
//! A claim is taken at assignment, before the first fetch. Its epoch fences whatever an earlier owner still does on the
//! partition's behalf, such as replays; its first offset tells a partition that starts for the first time from one whose
//! committed offset was lost.

use sqlx::postgres::PgPool;
use uuid::Uuid;

/// The claims of one process.
#[derive(Debug, Clone)]
pub struct Claims {
    pool: PgPool,
    group: String,
    owner: Uuid,
}

/// A claim that was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim {
    /// Greater than that of every earlier owner.
    pub epoch: u64,
    /// Where the group started on this partition; `None` when nothing was ever fetched.
    pub first_offset: Option<i64>,
}

impl Claims {
    /// Claims of `group` by the process `owner`.
    pub fn new(pool: PgPool, group: impl Into<String>, owner: Uuid) -> Self {
        Self {
            pool,
            group: group.into(),
            owner,
        }
    }

    /// Takes the claim of a partition away from whoever had it.
    ///
    /// # Errors
    /// Whatever Postgres answered.
    pub async fn take(&self, topic: &str, partition: i32) -> Result<Claim, sqlx::Error> {
        let (epoch, first_offset): (i64, Option<i64>) = sqlx::query_as(
            "INSERT INTO afterwrite.claims AS known (group_name, topic, partition, owner, epoch)
             VALUES ($1, $2, $3, $4, 1)
             ON CONFLICT (group_name, topic, partition) DO UPDATE
                 SET owner = excluded.owner, epoch = known.epoch + 1, claimed_at = now()
             RETURNING epoch, first_offset",
        )
        .bind(&self.group)
        .bind(topic)
        .bind(partition)
        .bind(self.owner)
        .fetch_one(&self.pool)
        .await?;
        Ok(Claim {
            epoch: epoch.unsigned_abs(),
            first_offset,
        })
    }

    /// Records where the group started on a partition.
    ///
    /// # Errors
    /// Whatever Postgres answered.
    pub async fn started(&self, topic: &str, partition: i32, first_offset: i64) -> Result<(), sqlx::Error> {
        sqlx::query(
            "UPDATE afterwrite.claims SET first_offset = $4
             WHERE group_name = $1 AND topic = $2 AND partition = $3 AND first_offset IS NULL",
        )
        .bind(&self.group)
        .bind(topic)
        .bind(partition)
        .bind(first_offset)
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Whether the group started anywhere before: then partitions that appear now are new, and start at their beginning.
    ///
    /// # Errors
    /// Whatever Postgres answered.
    pub async fn group_started(&self) -> Result<bool, sqlx::Error> {
        sqlx::query_scalar(
            "SELECT EXISTS (SELECT FROM afterwrite.claims WHERE group_name = $1 AND first_offset IS NOT NULL)",
        )
        .bind(&self.group)
        .fetch_one(&self.pool)
        .await
    }
}
