//! Attempts at jobs that wait long for their next one. Stored, so that whoever owns the partition next goes on counting.

use chrono::{DateTime, Utc};
use sqlx::postgres::PgConnection;

use crate::event::delivery::{Position, SourcePartition};
use crate::ledger::claims::{Claims, OwnedJob};
use crate::ledger::marks::Places;
use crate::ledger::patience::ask;

/// Attempts that were made at a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailedAttempts {
    /// The job.
    pub job: OwnedJob,
    /// How many failed.
    pub attempts: u32,
    /// When the first of them failed.
    pub first_failed_at: DateTime<Utc>,
}

impl Claims {
    /// Stores attempts, in place of what was stored of the same jobs; those of an epoch that is over are left out. Each job
    /// at most once.
    ///
    /// # Errors
    /// Whatever Postgres answered.
    pub async fn note_attempts(&self, noted: &[FailedAttempts]) -> Result<(), sqlx::Error> {
        let Some(pool) = self.pool() else { return Ok(()) };
        let places = Places::of(noted.iter().map(|noted| &noted.job));
        let attempts = noted
            .iter()
            .map(|noted| i32::try_from(noted.attempts).unwrap_or(i32::MAX));
        let first_failed_at = noted.iter().map(|noted| noted.first_failed_at);
        let query = sqlx::query(
            "WITH job AS (
                 SELECT * FROM unnest($2::text[], $3::int[], $4::bigint[], $5::bigint[], $6::text[], $7::int[],
                                      $8::timestamptz[])
                     AS job(topic, partition, epoch, source_offset, handler, attempts, first_failed_at)),
             claim AS MATERIALIZED (
                 SELECT topic, partition, epoch FROM afterwrite.claims
                 WHERE group_name = $1 AND (topic, partition, epoch) IN (SELECT topic, partition, epoch FROM job)
                 FOR SHARE)
             INSERT INTO afterwrite.attempts (group_name, topic, partition, source_offset, handler, attempts,
                                              first_failed_at)
             SELECT $1, topic, partition, source_offset, handler, attempts, first_failed_at
             FROM job JOIN claim USING (topic, partition, epoch)
             ON CONFLICT (group_name, topic, partition, source_offset, handler) DO UPDATE
                 SET attempts = excluded.attempts, first_failed_at = excluded.first_failed_at, noted_at = now()",
        )
        .bind(self.group())
        .bind(places.topics)
        .bind(places.partitions)
        .bind(places.epochs)
        .bind(places.offsets)
        .bind(places.handlers)
        .bind(attempts.collect::<Vec<i32>>())
        .bind(first_failed_at.collect::<Vec<DateTime<Utc>>>());
        ask(pool, "storing attempts", async |connection: &mut PgConnection| {
            query.execute(connection).await
        })
        .await?;
        Ok(())
    }

    /// Forgets the attempts at jobs that are settled; those of an epoch that is over stay.
    ///
    /// # Errors
    /// Whatever Postgres answered.
    pub async fn forget_attempts(&self, jobs: &[OwnedJob]) -> Result<(), sqlx::Error> {
        let Some(pool) = self.pool() else { return Ok(()) };
        let places = Places::of(jobs);
        let query = sqlx::query(
            "WITH job AS (
                 SELECT * FROM unnest($2::text[], $3::int[], $4::bigint[], $5::bigint[], $6::text[])
                     AS job(topic, partition, epoch, source_offset, handler)),
             claim AS MATERIALIZED (
                 SELECT topic, partition, epoch FROM afterwrite.claims
                 WHERE group_name = $1 AND (topic, partition, epoch) IN (SELECT topic, partition, epoch FROM job)
                 FOR SHARE)
             DELETE FROM afterwrite.attempts AS known USING job JOIN claim USING (topic, partition, epoch)
             WHERE known.group_name = $1 AND known.topic = job.topic AND known.partition = job.partition
               AND known.source_offset = job.source_offset AND known.handler = job.handler",
        )
        .bind(self.group())
        .bind(places.topics)
        .bind(places.partitions)
        .bind(places.epochs)
        .bind(places.offsets)
        .bind(places.handlers);
        ask(pool, "forgetting attempts", async |connection: &mut PgConnection| {
            query.execute(connection).await
        })
        .await?;
        Ok(())
    }

    /// Forgets marks and attempts at events before a position the group has committed: they are settled, and whoever
    /// should have forgotten them died first. False: the epoch is over.
    ///
    /// # Errors
    /// Whatever Postgres answered.
    pub async fn forget_before(
        &self,
        partition: &SourcePartition,
        epoch: u64,
        committed: Position,
    ) -> Result<bool, sqlx::Error> {
        let Some(pool) = self.pool() else { return Ok(true) };
        let query = sqlx::query_scalar(
            "WITH claim AS MATERIALIZED (
                 SELECT FROM afterwrite.claims
                 WHERE group_name = $1 AND topic = $2 AND partition = $3 AND epoch = $4 FOR SHARE),
             unmarked AS (
                 DELETE FROM afterwrite.marks
                 WHERE group_name = $1 AND topic = $2 AND partition = $3 AND source_offset < $5
                   AND EXISTS (SELECT FROM claim)),
             forgotten AS (
                 DELETE FROM afterwrite.attempts
                 WHERE group_name = $1 AND topic = $2 AND partition = $3 AND source_offset < $5
                   AND EXISTS (SELECT FROM claim))
             SELECT EXISTS (SELECT FROM claim)",
        )
        .bind(self.group())
        .bind(&*partition.topic)
        .bind(partition.partition)
        .bind(epoch.cast_signed())
        .bind(committed.0);
        ask(
            pool,
            "forgetting what is settled",
            async |connection: &mut PgConnection| query.fetch_one(connection).await,
        )
        .await
    }
}
