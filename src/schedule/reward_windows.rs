//! What time alone changes about rewards: they begin, what was earned expires, and what was held back is no longer.

use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use sqlx::postgres::PgPool;
use uuid::Uuid;

use super::fraud_scan::Stopping;
use super::timing::{self, Schedule};
use super::{Context, Error, Job, Report};
use crate::handlers::reward::grant::{self, Granting};

/// How often the clock is asked.
const EVERY: Duration = Duration::from_secs(60);

/// How far before the last run that was done one looks back. Whether a reward is open is decided by the clock of Postgres
/// at the moment of a transaction, which may be a little behind.
const OVERLAP: TimeDelta = TimeDelta::minutes(10);

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
    /// Gives by these rules.
    pub fn new(granting: Granting) -> Self {
        Self { granting }
    }

    /// Gives a reward to all who wait for it, each page in a transaction of its own. A repetition finds what is done.
    async fn give(&self, context: &Context, reward: &Opened) -> Result<u64, Error> {
        let (mut last, mut given) = (Uuid::nil(), 0);
        loop {
            if context.is_stopping() {
                return Err(Stopping.into());
            }
            let mut transaction = context.pool().begin().await?;
            let hold_at = self.granting.fraud.hold_at;
            let id = Some(reward.id);
            let page =
                grant::waiting_for_grants(&mut transaction, reward.campaign_id, id, last, PAGE, false, hold_at).await?;
            let Some(end) = page.last() else {
                return Ok(given);
            };
            last = *end;
            given += self.granting.reconcile(&mut transaction, &page, false).await?;
            transaction.commit().await?;
        }
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
        let since = context.previous().map(|previous| previous - OVERLAP);
        let mut given = 0;
        for reward in opened(context.pool(), since, context.now()).await? {
            given += self.give(context, &reward).await?;
        }
        let released = self.release(context).await?;
        Ok(Report::from([
            ("expired", expired),
            ("given", given),
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
async fn opened(pool: &PgPool, since: Option<DateTime<Utc>>, now: DateTime<Utc>) -> Result<Vec<Opened>, sqlx::Error> {
    sqlx::query_as(
        "SELECT w.id, w.campaign_id
         FROM rewards w JOIN campaigns c ON c.id = w.campaign_id
         WHERE w.status = 'active' AND c.status = 'active' AND c.deleted_at IS NULL
           AND (w.starts_at > coalesce($1, '-infinity') AND w.starts_at <= $2
                OR w.total_available IS NOT NULL
                   AND EXISTS (SELECT FROM user_rewards o WHERE o.reward_id = w.id AND o.status = 'expired'
                               AND o.updated_at > coalesce($1, '-infinity')))
         ORDER BY w.id",
    )
    .bind(since)
    .bind(now)
    .fetch_all(pool)
    .await
}

/// Users with a reward that was held back for long enough, in campaigns that give.
async fn held(pool: &PgPool, delay: Duration, after: Uuid) -> Result<Vec<Uuid>, sqlx::Error> {
    sqlx::query_scalar(
        "SELECT DISTINCT o.user_id
         FROM campaigns c
         JOIN rewards w ON w.campaign_id = c.id
         JOIN user_rewards o ON o.reward_id = w.id AND o.status = 'held'
         WHERE c.status = 'active' AND c.deleted_at IS NULL AND o.user_id > $1
           AND o.created_at + $2::bigint * interval '1 millisecond' <= now()
         ORDER BY 1 LIMIT $3",
    )
    .bind(after)
    .bind(i64::try_from(delay.as_millis()).unwrap_or(i64::MAX))
    .bind(PAGE)
    .fetch_all(pool)
    .await
}
