//! Checks everybody who came lately once more, for what was not there yet when they came, and resolves what rests on an
//! address that has become safe.
//!
//! The same checks as in the fraud handler, and the same rows: a detection that is known is found again and nothing is
//! written.

use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use sqlx::postgres::PgPool;
use uuid::Uuid;

use super::timing::{self, Missed, Schedule};
use super::{Context, Error, Job, Report};
use crate::handlers::fraud;
use crate::handlers::fraud::rules::FraudSettings;
use crate::handlers::secret::Secret;

/// Users that one transaction checks.
pub(super) const PAGE: i64 = 500;

/// A week of quarters of an hour.
const TICKS_MAX: usize = 7 * 96;

/// The scheduled job.
#[derive(Debug)]
pub struct FraudScan {
    interval: Duration,
    settings: FraudSettings,
    secret: Secret,
}

impl FraudScan {
    /// Runs every so often, over the last two intervals before each tick.
    pub fn new(interval: Duration, settings: FraudSettings, secret: Secret) -> Self {
        Self {
            interval,
            settings,
            secret,
        }
    }
}

/// The process stops before the run is done.
#[derive(Debug, thiserror::Error)]
#[error("the process stops")]
pub(super) struct Stopping;

#[async_trait]
impl Job for FraudScan {
    fn name(&self) -> &'static str {
        "fraud_scan"
    }

    fn schedule(&self) -> Result<Schedule, timing::Error> {
        Schedule::every(self.interval)
    }

    fn missed(&self) -> Missed {
        Missed::Each { max: TICKS_MAX }
    }

    async fn run(&self, context: &mut Context) -> Result<Report, Error> {
        let until = context.tick();
        let scanned = Users {
            campaign: None,
            from: context.steps_before(2),
            until: Some(until),
        };
        let mut transaction = context.pool().begin().await?;
        let resolved = fraud::review::resolve_safelisted(&mut transaction).await?;
        transaction.commit().await?;
        let (mut users, mut found) = (0, 0);
        let mut after = None;
        // Pages of their own: a check that waits for a long scan's rows would hold up the handler.
        loop {
            if context.is_stopping() {
                return Err(Stopping.into());
            }
            let page = scanned.page(context.pool(), after).await?;
            let Some(last) = page.last() else {
                let counts = [("users", users), ("detections", found), ("resolved", resolved)];
                return Ok(Report::from(counts));
            };
            after = Some((last.created_at, last.id));
            users += page.len() as u64;
            let ids: Vec<Uuid> = page.iter().map(|user| user.id).collect();
            let mut transaction = context.pool().begin().await?;
            found += fraud::sql::check(&mut transaction, &[], &ids, &self.settings, &self.secret).await?;
            transaction.commit().await?;
        }
    }
}

/// Users by when they came: from `from` on, before `until`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Users {
    pub(super) campaign: Option<Uuid>,
    pub(super) from: Option<DateTime<Utc>>,
    pub(super) until: Option<DateTime<Utc>>,
}

#[derive(Debug, sqlx::FromRow)]
pub(super) struct User {
    pub(super) id: Uuid,
    pub(super) created_at: DateTime<Utc>,
}

impl Users {
    /// The next page of them, in the order in which they came.
    pub(super) async fn page(
        &self,
        pool: &PgPool,
        after: Option<(DateTime<Utc>, Uuid)>,
    ) -> Result<Vec<User>, sqlx::Error> {
        sqlx::query_as(
            "SELECT id, created_at FROM waitlist_users
             WHERE created_at >= coalesce($1, '-infinity') AND created_at < coalesce($2, 'infinity')
               AND ($3::uuid IS NULL OR campaign_id = $3)
               AND (created_at, id) > (coalesce($4, '-infinity'), coalesce($5, '00000000-0000-0000-0000-000000000000'))
             ORDER BY created_at, id LIMIT $6",
        )
        .bind(self.from)
        .bind(self.until)
        .bind(self.campaign)
        .bind(after.map(|(created_at, _)| created_at))
        .bind(after.map(|(_, id)| id))
        .bind(PAGE)
        .fetch_all(pool)
        .await
    }
}
