//! Running marks: which jobs of a suspect partition run now. What a process leaves when it dies says what it died of.

use sqlx::postgres::PgConnection;

use crate::event::delivery::{Position, SourcePartition};
use crate::ledger::claims::{Claims, OwnedJob};
use crate::ledger::patience::ask;

impl Claims {
    /// Commits that this job is about to run. `alone` says that nothing else of the suspect partition runs meanwhile: then a
    /// death counts. Earlier deaths are kept. False: the epoch is over or the partition was released, and the job must
    /// not run.
    ///
    /// # Errors
    /// Whatever Postgres answered.
    pub async fn mark(
        &self,
        partition: &SourcePartition,
        epoch: u64,
        position: Position,
        handler: &str,
        alone: bool,
    ) -> Result<bool, sqlx::Error> {
        let Some(pool) = self.pool() else { return Ok(true) };
        let query = sqlx::query(
            "INSERT INTO afterwrite.marks (group_name, topic, partition, source_offset, handler, epoch, alone)
             SELECT $1, $2, $3, $5, $6, $4, $7 FROM (
                 SELECT FROM afterwrite.claims
                 WHERE group_name = $1 AND topic = $2 AND partition = $3 AND epoch = $4 AND NOT released_clean
                 FOR SHARE) AS claim
             ON CONFLICT (group_name, topic, partition, source_offset, handler) DO UPDATE
                 SET epoch = excluded.epoch, alone = excluded.alone, marked_at = now()",
        )
        .bind(self.group())
        .bind(&*partition.topic)
        .bind(partition.partition)
        .bind(epoch.cast_signed())
        .bind(position.0)
        .bind(handler)
        .bind(alone);
        let marked = ask(
            pool,
            "marking a job as running",
            async |connection: &mut PgConnection| query.execute(connection).await,
        )
        .await?;
        Ok(marked.rows_affected() > 0)
    }

    /// Removes the marks of jobs that run no more; those of an epoch that is over stay as they are.
    ///
    /// # Errors
    /// Whatever Postgres answered.
    pub async fn unmark(&self, jobs: &[OwnedJob]) -> Result<(), sqlx::Error> {
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
             DELETE FROM afterwrite.marks AS mark USING job JOIN claim USING (topic, partition, epoch)
             WHERE mark.group_name = $1 AND mark.topic = job.topic AND mark.partition = job.partition
               AND mark.source_offset = job.source_offset AND mark.handler = job.handler",
        )
        .bind(self.group())
        .bind(places.topics)
        .bind(places.partitions)
        .bind(places.epochs)
        .bind(places.offsets)
        .bind(places.handlers);
        ask(pool, "removing marks", async |connection: &mut PgConnection| {
            query.execute(connection).await
        })
        .await?;
        Ok(())
    }

    /// Says that jobs which ran alone do not run now: a death does not count against them, and those before stay known.
    /// Marks of an epoch that is over stay as they are.
    ///
    /// # Errors
    /// Whatever Postgres answered.
    pub async fn rest(&self, jobs: &[OwnedJob]) -> Result<(), sqlx::Error> {
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
             UPDATE afterwrite.marks AS mark SET alone = false FROM job JOIN claim USING (topic, partition, epoch)
             WHERE mark.group_name = $1 AND mark.topic = job.topic AND mark.partition = job.partition
               AND mark.source_offset = job.source_offset AND mark.handler = job.handler",
        )
        .bind(self.group())
        .bind(places.topics)
        .bind(places.partitions)
        .bind(places.epochs)
        .bind(places.offsets)
        .bind(places.handlers);
        ask(
            pool,
            "letting marked jobs rest",
            async |connection: &mut PgConnection| query.execute(connection).await,
        )
        .await?;
        Ok(())
    }
}

/// Jobs as columns, for statements that are about many.
pub(super) struct Places<'a> {
    pub(super) topics: Vec<&'a str>,
    pub(super) partitions: Vec<i32>,
    pub(super) epochs: Vec<i64>,
    pub(super) offsets: Vec<i64>,
    pub(super) handlers: Vec<&'a str>,
}

impl<'a> Places<'a> {
    pub(super) fn of(jobs: impl IntoIterator<Item = &'a OwnedJob>) -> Self {
        let mut places = Self {
            topics: Vec::new(),
            partitions: Vec::new(),
            epochs: Vec::new(),
            offsets: Vec::new(),
            handlers: Vec::new(),
        };
        for job in jobs {
            places.topics.push(&job.partition.topic);
            places.partitions.push(job.partition.partition);
            places.epochs.push(job.epoch.cast_signed());
            places.offsets.push(job.position.0);
            places.handlers.push(&job.handler);
        }
        places
    }
}
