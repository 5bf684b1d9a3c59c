//! Claims: which process owns which partition of a group, under which epoch.
//!
//! A claim is taken at assignment, before the first fetch. Its epoch fences whatever an earlier owner still does on the
//! partition's behalf, such as replays; its first offset tells a partition that starts for the first time from one whose
//! committed offset was lost.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use sqlx::postgres::PgPool;
use uuid::Uuid;

/// The claims of one process.
#[derive(Debug, Clone)]
pub struct Claims {
    group: String,
    owner: Uuid,
    store: Store,
}

/// Where claims are kept. A group whose position outlives the process needs Postgres; one that lives and dies with its
/// process, such as that of a measurement, must not need a database to be measured.
#[derive(Debug, Clone)]
enum Store {
    Postgres(PgPool),
    Memory(Arc<Mutex<HashMap<(String, i32), Claim>>>),
}

/// A claim that was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim {
    /// Greater than that of every earlier owner.
    pub epoch: u64,
    /// Where the group started on this partition; `None` when nothing was ever fetched.
    pub first_offset: Option<i64>,
}

impl Claim {
    /// Of a partition that nobody ever owned.
    const NONE: Self = Self {
        epoch: 0,
        first_offset: None,
    };
}

impl Claims {
    /// Claims of `group` by the process `owner`.
    pub fn new(pool: PgPool, group: impl Into<String>, owner: Uuid) -> Self {
        Self {
            group: group.into(),
            owner,
            store: Store::Postgres(pool),
        }
    }

    /// Claims that end with the process: nobody else is fenced, and a next process knows nothing of them. Only for groups
    /// of one process.
    pub fn in_memory(group: impl Into<String>) -> Self {
        Self {
            group: group.into(),
            owner: Uuid::nil(),
            store: Store::Memory(Arc::default()),
        }
    }

    /// Takes the claim of a partition away from whoever had it.
    ///
    /// # Errors
    /// Whatever Postgres answered.
    pub async fn take(&self, topic: &str, partition: i32) -> Result<Claim, sqlx::Error> {
        let pool = match &self.store {
            Store::Postgres(pool) => pool,
            Store::Memory(claims) => {
                let mut claims = claims.lock().unwrap_or_else(PoisonError::into_inner);
                let claim = claims.entry((topic.to_owned(), partition)).or_insert(Claim::NONE);
                claim.epoch += 1;
                return Ok(*claim);
            }
        };
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
        .fetch_one(pool)
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
        let pool = match &self.store {
            Store::Postgres(pool) => pool,
            Store::Memory(claims) => {
                let mut claims = claims.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(claim) = claims.get_mut(&(topic.to_owned(), partition)) {
                    claim.first_offset.get_or_insert(first_offset);
                }
                return Ok(());
            }
        };
        sqlx::query(
            "UPDATE afterwrite.claims SET first_offset = $4
             WHERE group_name = $1 AND topic = $2 AND partition = $3 AND first_offset IS NULL",
        )
        .bind(&self.group)
        .bind(topic)
        .bind(partition)
        .bind(first_offset)
        .execute(pool)
        .await?;
        Ok(())
    }

    /// Whether the group started anywhere before: then partitions that appear now are new, and start at their beginning.
    ///
    /// # Errors
    /// Whatever Postgres answered.
    pub async fn group_started(&self) -> Result<bool, sqlx::Error> {
        let pool = match &self.store {
            Store::Postgres(pool) => pool,
            Store::Memory(claims) => {
                let claims = claims.lock().unwrap_or_else(PoisonError::into_inner);
                return Ok(claims.values().any(|claim| claim.first_offset.is_some()));
            }
        };
        sqlx::query_scalar(
            "SELECT EXISTS (SELECT FROM afterwrite.claims WHERE group_name = $1 AND first_offset IS NOT NULL)",
        )
        .bind(&self.group)
        .fetch_one(pool)
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn claims_in_memory_count_epochs_and_keep_the_first_offset() {
        let claims = Claims::in_memory("afterwrite.bench");
        let first = claims.take("t", 0).await.unwrap();
        assert_eq!((first.epoch, first.first_offset), (1, None));
        assert!(!claims.group_started().await.unwrap());
        claims.started("t", 0, 7).await.unwrap();
        claims.started("t", 0, 9).await.unwrap();
        let again = claims.clone().take("t", 0).await.unwrap();
        assert_eq!((again.epoch, again.first_offset), (2, Some(7)));
        assert!(claims.group_started().await.unwrap());
        assert_eq!(claims.take("t", 1).await.unwrap().epoch, 1, "partitions are apart");
    }
}
