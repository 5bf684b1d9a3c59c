//! What time alone changes about rewards: they begin, what was earned expires, and what was held back is no longer.

use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use sqlx::PgConnection;
use sqlx::postgres::PgPool;
use uuid::Uuid;

use super::fraud_scan::Stopping;
use super::timing::{self, Schedule};
use super::{Context, Error, Job, Report};
use crate::handlers::reward::grant::Granting;
use crate::handlers::reward::rounds;

/// How often the clock is asked.
const EVERY: Duration = Duration::from_secs(60);

/// How far before the last run that was done one looks for what expired: its time is that of the beginning of a transaction,
/// which may have ended after that run.
const OVERLAP: TimeDelta = TimeDelta::minutes(2);

/// Rows that one transaction changes, users that one transaction reconciles.
const PAGE: i64 = 500;

/// The scheduled job.
#[derive(Debug)]
pub struct RewardWindows {
    granting: Granting,
}

/// A reward that may be given to somebody who waits for it.
#[derive(Debug, sqlx::FromRow)]
struct Opened {
    id: Uuid,
    campaign_id: Uuid,
}

impl RewardWindows {
    /// Releases by these rules.
    pub fn new(granting: Granting) -> Self {
        Self { granting }
    }

    /// Reconciles the users whose rewards were held back for long enough.
    async fn release(&self, context: &Context) -> Result<u64, Error> {
        let (mut last, mut released) = (Uuid::nil(), 0);
        loop {
            if context.is_stopping() {
                return Err(Stopping.into());
            }
            let page = held(context.pool(), self.granting.delay, last).await?;
            let Some(end) = page.last() else {
                return Ok(released);
            };
            last = *end;
            let mut transaction = context.pool().begin().await?;
            released += self.granting.reconcile(&mut transaction, &page, false).await?;
            transaction.commit().await?;
        }
    }
}

#[async_trait]
impl Job for RewardWindows {
    fn name(&self) -> &'static str {
        "reward_windows"
    }

    fn schedule(&self) -> Result<Schedule, timing::Error> {
        Schedule::every(EVERY)
    }

    async fn run(&self, context: &mut Context) -> Result<Report, Error> {
        let expired = expire(context.pool(), context.now()).await?;
        let released = self.release(context).await?;
        // In the run's own transaction: each round is begun once, and what it gives is the reward handler's.
        let (since, now) = (context.previous(), context.now());
        let connection = context.transaction().await?;
        let begun = opened(connection, since, now).await?;
        for reward in &begun {
            rounds::begin(connection, reward.campaign_id, Some(reward.id), false).await?;
        }
        Ok(Report::from([
            ("expired", expired),
            ("rounds", begun.len() as u64),
            ("released", released),
        ]))
    }
}

/// Rewards of users whose time is over.
async fn expire(pool: &PgPool, now: DateTime<Utc>) -> Result<u64, sqlx::Error> {
    let mut expired = 0;
    loop {
        let page = sqlx::query(
            "UPDATE user_rewards SET status = 'expired', updated_at = now()
             WHERE id IN (SELECT id FROM user_rewards
                          WHERE expires_at <= $1 AND status IN ('held', 'earned', 'delivered')
                          ORDER BY expires_at, id LIMIT $2 FOR UPDATE SKIP LOCKED)
               AND status IN ('held', 'earned', 'delivered')",
        )
        .bind(now)
        .bind(PAGE)
        .execute(pool)
        .await?
        .rows_affected();
        expired += page;
        if page == 0 {
            return Ok(expired);
        }
    }
}

/// Rewards that began since then, and limited ones of which something came free again because it expired. Without `since`
/// all that ever began.
async fn opened(
    connection: &mut PgConnection,
    since: Option<DateTime<Utc>>,
    now: DateTime<Utc>,
) -> Result<Vec<Opened>, sqlx::Error> {
    sqlx::query_as(
        "SELECT w.id, w.campaign_id
         FROM rewards w JOIN campaigns c ON c.id = w.campaign_id
         WHERE w.status = 'active' AND c.status = 'active' AND c.deleted_at IS NULL
           AND w.trigger_type <> 'manual'
           AND (w.starts_at > coalesce($1, '-infinity') AND w.starts_at <= $2
                OR w.total_available IS NOT NULL
                   AND EXISTS (SELECT FROM user_rewards o WHERE o.reward_id = w.id AND o.status = 'expired'
                               AND o.updated_at > coalesce($3, '-infinity')))
         ORDER BY w.id",
    )
    .bind(since)
    .bind(now)
    .bind(since.map(|since| since - OVERLAP))
    .fetch_all(connection)
    .await
}

/// Users with a reward that was held back for long enough. What was promised before a campaign completed is given after it.
async fn held(pool: &PgPool, delay: Duration, after: Uuid) -> Result<Vec<Uuid>, sqlx::Error> {
    sqlx::query_scalar(
        "SELECT DISTINCT o.user_id
         FROM campaigns c
         JOIN rewards w ON w.campaign_id = c.id
         JOIN user_rewards o ON o.reward_id = w.id AND o.status = 'held'
         WHERE c.status IN ('active', 'completed') AND c.deleted_at IS NULL AND o.user_id > $1
           AND o.created_at + $2::bigint * interval '1 millisecond' <= now()
         ORDER BY 1 LIMIT $3",
    )
    .bind(after)
    .bind(i64::try_from(delay.as_millis()).unwrap_or(i64::MAX))
    .bind(PAGE)
    .fetch_all(pool)
    .await
}
