//! Tells users of a better place that `notify_interval` held back when it was reached.

use std::time::Duration;

use async_trait::async_trait;
use uuid::Uuid;

use super::fraud_scan::Stopping;
use super::timing::{self, Schedule};
use super::{Context, Error, Job, Report};
use crate::handlers::position;

/// How often what was held back is looked for.
const EVERY: Duration = Duration::from_secs(60);

/// The scheduled job.
#[derive(Debug)]
pub struct PositionNotices;

#[async_trait]
impl Job for PositionNotices {
    fn name(&self) -> &'static str {
        "position_notices"
    }

    fn schedule(&self) -> Result<Schedule, timing::Error> {
        Schedule::every(EVERY)
    }

    async fn run(&self, context: &mut Context) -> Result<Report, Error> {
        let campaigns: Vec<Uuid> = sqlx::query_scalar(
            "SELECT DISTINCT p.campaign_id
             FROM waitlist_positions p JOIN campaigns c ON c.id = p.campaign_id
             WHERE p.told_position IS NOT NULL AND p.position < p.told_position AND c.status = 'active'
               AND p.told_position - p.position >= c.notify_improvement_min
               AND (p.told_at IS NULL OR p.told_at + c.notify_interval <= now())
             ORDER BY 1",
        )
        .fetch_all(context.pool())
        .await?;
        let (mut told, mut busy) = (0, 0);
        for campaign in campaigns {
            if context.is_stopping() {
                return Err(Stopping.into());
            }
            // One transaction a campaign: it ends with the row that says what a user was told.
            let mut transaction = context.pool().begin().await?;
            // That of the position handler. Whoever ranks the campaign now tells as well.
            let is_alone: bool = sqlx::query_scalar("SELECT pg_try_advisory_xact_lock(hashtextextended($1, 0))")
                .bind(position::sql::lock_key(campaign))
                .fetch_one(&mut *transaction)
                .await?;
            if is_alone {
                told += position::sql::tell(&mut transaction, campaign).await?;
            } else {
                busy += 1;
            }
            transaction.commit().await?;
        }
        Ok(Report::from([("told", told), ("campaigns_busy", busy)]))
    }
}
