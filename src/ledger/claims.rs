//! Claims: which process owns which partition of a group, under which epoch, and what it inherits.
//!
//! A claim is taken at assignment, before the first fetch. Its epoch fences whatever an earlier owner still does on the
//! partition's behalf; its first offset tells a partition that starts for the first time from one whose committed offset
//! was lost. A claim that was not released cleanly says that its owner died.
//!
//! Every write on behalf of a partition locks the row of its claim against a next owner, and changes nothing when the epoch
//! is over. So what a next owner reads after it has taken the claim is the last word of the one before.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use chrono::NaiveDate;
use sqlx::postgres::{PgConnection, PgPool};
use uuid::Uuid;

use crate::event::delivery::{Inherited, Position, SourcePartition};
use crate::ledger::inheritance;
use crate::ledger::patience::ask;

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
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// Greater than that of every earlier owner.
    pub epoch: u64,
    /// Where the group started on this partition; `None` when nothing was ever fetched.
    pub first_offset: Option<i64>,
    /// What the last owner left.
    pub inherited: Inherited,
}

/// A job, and the epoch under which its partition is owned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnedJob {
    /// The partition of its event.
    pub partition: SourcePartition,
    /// The epoch of the partition's claim.
    pub epoch: u64,
    /// Where its event stands.
    pub position: Position,
    /// The handler's name.
    pub handler: String,
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

    /// The group whose claims these are.
    pub(super) fn group(&self) -> &str {
        &self.group
    }

    /// The database; `None` for claims in memory, for which nothing is kept and everything succeeds.
    pub(super) fn pool(&self) -> Option<&PgPool> {
        match &self.store {
            Store::Postgres(pool) => Some(pool),
            Store::Memory(_) => None,
        }
    }

    /// Takes the claim of a partition away from whoever had it, and answers what that one left.
    ///
    /// Two statements, each a transaction of its own. A process that dies between them has died as an owner that never
    /// ran anything: the next one inherits the same.
    ///
    /// # Errors
    /// Whatever Postgres answered.
    pub async fn take(&self, topic: &str, partition: i32) -> Result<Claim, sqlx::Error> {
        let pool = match &self.store {
            Store::Postgres(pool) => pool,
            Store::Memory(claims) => {
                let mut claims = claims.lock().unwrap_or_else(PoisonError::into_inner);
                let claim = claims.entry((topic.to_owned(), partition)).or_insert(Claim {
                    epoch: 0,
                    first_offset: None,
                    inherited: Inherited::default(),
                });
                claim.epoch += 1;
                return Ok(claim.clone());
            }
        };
        // A clean release has reserved nothing any more, so `handed_out_to` alone tells whether the last owner died. One that
        // died without having reserved anything leaves a 0: it may have died of a stored event or of a replay.
        let query = sqlx::query_as(
            "INSERT INTO afterwrite.claims AS known (group_name, topic, partition, owner, epoch, released_clean)
             VALUES ($1, $2, $3, $4, 1, false)
             ON CONFLICT (group_name, topic, partition) DO UPDATE
                 SET owner = excluded.owner, epoch = known.epoch + 1, claimed_at = now(), released_clean = false,
                     handed_out_to = CASE WHEN known.released_clean THEN NULL ELSE coalesce(known.handed_out_to, 0) END,
                     suspect_to = CASE WHEN known.released_clean THEN known.suspect_to
                                       ELSE greatest(known.suspect_to, nullif(known.handed_out_to, 0)) END
             RETURNING epoch, first_offset, handed_out_to, suspect_to",
        )
        .bind(&self.group)
        .bind(topic)
        .bind(partition)
        .bind(self.owner);
        let (epoch, first_offset, handed_out_to, suspect_to): (i64, Option<i64>, Option<i64>, Option<i64>) =
            ask(pool, "taking a claim", async |connection: &mut PgConnection| {
                query.fetch_one(connection).await
            })
            .await?;
        let died = handed_out_to.is_some();
        let suspect_to = suspect_to.map(Position);
        let place = (&*self.group, topic, partition);
        Ok(Claim {
            epoch: epoch.unsigned_abs(),
            first_offset,
            inherited: inheritance::load(pool, place, epoch, died, suspect_to).await?,
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
        let query = sqlx::query(
            "UPDATE afterwrite.claims SET first_offset = $4
             WHERE group_name = $1 AND topic = $2 AND partition = $3 AND first_offset IS NULL",
        )
        .bind(&self.group)
        .bind(topic)
        .bind(partition)
        .bind(first_offset);
        ask(
            pool,
            "recording where a group started",
            async |connection: &mut PgConnection| query.execute(connection).await,
        )
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
        let query = sqlx::query_scalar(
            "SELECT EXISTS (SELECT FROM afterwrite.claims WHERE group_name = $1 AND first_offset IS NOT NULL)",
        )
        .bind(&self.group);
        ask(
            pool,
            "asking whether a group started",
            async |connection: &mut PgConnection| query.fetch_one(connection).await,
        )
        .await
    }

    /// Reserves the events before `to`, an exclusive bound: from now on they may be handed to handlers. What was reserved
    /// stays so until a clean release. False: the epoch is over, or the partition was released.
    ///
    /// # Errors
    /// Whatever Postgres answered.
    pub async fn reserve(&self, partition: &SourcePartition, epoch: u64, to: Position) -> Result<bool, sqlx::Error> {
        let Some(pool) = self.pool() else { return Ok(true) };
        let query = sqlx::query(
            "UPDATE afterwrite.claims SET handed_out_to = greatest(handed_out_to, $5)
             WHERE group_name = $1 AND topic = $2 AND partition = $3 AND epoch = $4 AND NOT released_clean",
        )
        .bind(&self.group)
        .bind(&*partition.topic)
        .bind(partition.partition)
        .bind(epoch.cast_signed())
        .bind(to.0);
        let reserved = ask(pool, "reserving positions", async |connection: &mut PgConnection| {
            query.execute(connection).await
        })
        .await?;
        Ok(reserved.rows_affected() > 0)
    }

    /// Releases a partition on which nothing runs any more: the next owner has no death to suspect. What was suspected
    /// before, and was not met meanwhile, stays a suspect; nothing of it runs alone. False: the epoch is over, and nothing was
    /// changed.
    ///
    /// # Errors
    /// Whatever Postgres answered.
    pub async fn released(&self, partition: &SourcePartition, epoch: u64) -> Result<bool, sqlx::Error> {
        let Some(pool) = self.pool() else { return Ok(true) };
        let query = sqlx::query(
            "WITH released AS (
                 UPDATE afterwrite.claims SET released_clean = true, handed_out_to = NULL
                 WHERE group_name = $1 AND topic = $2 AND partition = $3 AND epoch = $4
                 RETURNING epoch),
             rested AS (
                 UPDATE afterwrite.marks SET alone = false
                 WHERE group_name = $1 AND topic = $2 AND partition = $3 AND alone AND EXISTS (SELECT FROM released))
             SELECT epoch FROM released",
        )
        .bind(&self.group)
        .bind(&*partition.topic)
        .bind(partition.partition)
        .bind(epoch.cast_signed());
        let released = ask(pool, "releasing a partition", async |connection: &mut PgConnection| {
            query.execute(connection).await
        });
        Ok(released.await?.rows_affected() > 0)
    }

    /// Says for owned partitions from which UTC day of commit on their group still needs the ledger: the earliest day among
    /// the events that are not settled, or today where the partition was read to its end and all of it is settled. Days
    /// before that of any group may be dropped, so a partition of which nothing was ever said holds all of them.
    /// Meant to be said at most once a minute.
    ///
    /// # Errors
    /// Whatever Postgres answered.
    pub async fn frontiers(&self, days: &[(SourcePartition, u64, NaiveDate)]) -> Result<(), sqlx::Error> {
        let Some(pool) = self.pool() else { return Ok(()) };
        let topics: Vec<&str> = days.iter().map(|(partition, ..)| &*partition.topic).collect();
        let partitions: Vec<i32> = days.iter().map(|(partition, ..)| partition.partition).collect();
        let epochs: Vec<i64> = days.iter().map(|(_, epoch, _)| epoch.cast_signed()).collect();
        let said: Vec<NaiveDate> = days.iter().map(|(.., day)| *day).collect();
        let query = sqlx::query(
            "UPDATE afterwrite.claims AS claim SET frontier_day = said.day
             FROM unnest($2::text[], $3::int[], $4::bigint[], $5::date[]) AS said(topic, partition, epoch, day)
             WHERE claim.group_name = $1 AND claim.topic = said.topic AND claim.partition = said.partition
               AND claim.epoch = said.epoch AND claim.frontier_day IS DISTINCT FROM said.day",
        )
        .bind(&self.group)
        .bind(topics)
        .bind(partitions)
        .bind(epochs)
        .bind(said);
        ask(
            pool,
            "saying how far the ledger is needed",
            async |connection: &mut PgConnection| query.execute(connection).await,
        )
        .await?;
        Ok(())
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
