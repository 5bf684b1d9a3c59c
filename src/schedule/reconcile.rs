//! Computes from the facts what the handlers keep up to date, and writes the rows that differ: for rows older than the
//! installation, for rules that changed, and for whoever wants to know whether all is right.
//!
//! It uses the handlers' own code under their own locks, so it may run beside them. It sends nothing by itself: it writes no
//! row that asks for a welcome or verification mail. A reward that is given is announced as ever.

use chrono::{DateTime, TimeDelta, Utc};
use sqlx::postgres::{PgConnection, PgPool};
use uuid::Uuid;

use super::analytics::{self, Span};
use super::fraud_scan::Users;
use crate::handlers::reward::grant::Granting;
use crate::handlers::{fraud, position};

/// Users that one transaction reconciles.
const PAGE: i64 = 500;

/// Hours that one statement computes.
const HOURS: TimeDelta = TimeDelta::days(31);

/// What is recomputed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// Places.
    Positions,
    /// Rewards.
    Rewards,
    /// Fraud checks.
    Fraud,
    /// Figures by hour.
    Analytics,
}

/// What it is recomputed with.
#[derive(Debug, Clone)]
pub struct Reconciling {
    /// What is recomputed.
    pub what: What,
    /// The rules of rewards and of fraud.
    pub granting: Granting,
    /// From this time on: users by when they came, hours.
    pub from: Option<DateTime<Utc>>,
    /// Before this time.
    pub until: Option<DateTime<Utc>>,
    /// Count what differs, and write nothing.
    pub dry_run: bool,
}

/// A campaign, and why it is left out, if it is.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct Campaign {
    /// Its id.
    pub id: Uuid,
    /// Its name in addresses.
    pub slug: String,
    /// Its state.
    pub status: String,
    /// Since when it, or its first user, is there.
    pub since: DateTime<Utc>,
}

impl Campaign {
    /// Why it is left out.
    pub fn left_out(&self, what: What) -> Option<&'static str> {
        match (self.status.as_str(), what) {
            ("draft", _) => Some("a draft: nothing is done in it"),
            ("completed", What::Positions) => Some("completed: its places are frozen"),
            ("paused", What::Positions) => Some("paused: it is ranked when it goes on"),
            _ => None,
        }
    }
}

/// The campaigns that are not deleted, or the one.
///
/// # Errors
/// Whatever Postgres answered.
pub async fn campaigns(pool: &PgPool, one: Option<Uuid>) -> Result<Vec<Campaign>, sqlx::Error> {
    sqlx::query_as(
        "SELECT c.id, c.slug, c.status,
                least(c.created_at, (SELECT min(u.created_at) FROM waitlist_users u WHERE u.campaign_id = c.id)) AS since
         FROM campaigns c
         WHERE c.deleted_at IS NULL AND ($1::uuid IS NULL OR c.id = $1)
         ORDER BY c.created_at, c.id",
    )
    .bind(one)
    .fetch_all(pool)
    .await
}

/// Where the next page begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cursor {
    /// After this place, and of those without one after this user.
    Place(i32, Uuid),
    /// After this user, in the order in which they came.
    Came(DateTime<Utc>, Uuid),
    /// At this hour.
    Hour(DateTime<Utc>),
}

/// What one page brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Page {
    /// Users or hours that were looked at.
    pub checked: u64,
    /// Rows that differed, and were written unless it is a dry run.
    pub differing: u64,
    /// Where to go on; `None`: that was the last one.
    pub next: Option<Cursor>,
}

impl Reconciling {
    /// Does the first page of a campaign, or the next one.
    ///
    /// # Errors
    /// Whatever Postgres answered; the pages before are done.
    pub async fn page(&self, pool: &PgPool, campaign: &Campaign, cursor: Option<Cursor>) -> Result<Page, sqlx::Error> {
        let mut transaction = pool.begin().await?;
        let page = match self.what {
            What::Positions => self.positions(&mut transaction, campaign.id).await?,
            What::Rewards => self.rewards(&mut transaction, campaign.id, cursor).await?,
            What::Fraud => self.fraud(pool, &mut transaction, campaign.id, cursor).await?,
            What::Analytics => self.analytics(&mut transaction, campaign, cursor).await?,
        };
        match self.dry_run {
            true => transaction.rollback().await?,
            false => transaction.commit().await?,
        }
        Ok(page)
    }

    async fn positions(&self, connection: &mut PgConnection, campaign: Uuid) -> Result<Page, sqlx::Error> {
        position::sql::lock(connection, campaign).await?;
        let differing = position::sql::rank(connection, campaign, self.granting.fraud.hold_at).await?;
        let checked: i64 = sqlx::query_scalar("SELECT count(*) FROM waitlist_positions WHERE campaign_id = $1")
            .bind(campaign)
            .fetch_one(connection)
            .await?;
        Ok(Page {
            checked: checked.unsigned_abs(),
            differing,
            next: None,
        })
    }

    /// Whoever referred somebody, has a reward, or has a place where places or milestones are rewarded: best places first,
    /// for whom there is enough of what is limited.
    async fn rewards(
        &self,
        connection: &mut PgConnection,
        campaign: Uuid,
        cursor: Option<Cursor>,
    ) -> Result<Page, sqlx::Error> {
        let (place, user) = match cursor {
            Some(Cursor::Place(place, user)) => (place, user),
            _ => (0, Uuid::nil()),
        };
        let page: Vec<(Uuid, i32)> = sqlx::query_as(
            "SELECT u.id, coalesce(p.position, $7) AS place
             FROM waitlist_users u
             LEFT JOIN waitlist_positions p ON p.campaign_id = $1 AND p.user_id = u.id
             WHERE (coalesce(p.position, $7), u.id) > ($2, $3)
               AND u.created_at >= coalesce($4, '-infinity') AND u.created_at < coalesce($5, 'infinity')
               AND (u.campaign_id = $1 AND p.position IS NOT NULL
                        AND EXISTS (SELECT FROM rewards w
                                    WHERE w.campaign_id = $1 AND w.trigger_type IN ('position', 'milestone'))
                    OR u.id IN (SELECT referrer_id FROM referrals WHERE campaign_id = $1
                                UNION SELECT user_id FROM user_rewards WHERE campaign_id = $1))
             ORDER BY 2, 1 LIMIT $6",
        )
        .bind(campaign)
        .bind(place)
        .bind(user)
        .bind(self.from)
        .bind(self.until)
        .bind(PAGE)
        .bind(i32::MAX)
        .fetch_all(&mut *connection)
        .await?;
        let users: Vec<Uuid> = page.iter().map(|(user, _)| *user).collect();
        Ok(Page {
            checked: users.len() as u64,
            differing: self.granting.reconcile(connection, &users, false).await?,
            next: page.last().map(|(user, place)| Cursor::Place(*place, *user)),
        })
    }

    async fn fraud(
        &self,
        pool: &PgPool,
        connection: &mut PgConnection,
        campaign: Uuid,
        cursor: Option<Cursor>,
    ) -> Result<Page, sqlx::Error> {
        let after = match cursor {
            Some(Cursor::Came(at, user)) => Some((at, user)),
            _ => None,
        };
        let users = Users {
            campaign: Some(campaign),
            from: self.from,
            until: self.until,
        };
        let page = users.page(pool, after).await?;
        let ids: Vec<Uuid> = page.iter().map(|user| user.id).collect();
        let Granting {
            fraud: settings,
            secret,
            ..
        } = &self.granting;
        Ok(Page {
            checked: ids.len() as u64,
            differing: fraud::sql::check(connection, &[], &ids, settings, secret).await?,
            next: page.last().map(|user| Cursor::Came(user.created_at, user.id)),
        })
    }

    async fn analytics(
        &self,
        connection: &mut PgConnection,
        campaign: &Campaign,
        cursor: Option<Cursor>,
    ) -> Result<Page, sqlx::Error> {
        let first = match cursor {
            Some(Cursor::Hour(hour)) => hour,
            _ => analytics::hour_of(self.from.map_or(campaign.since, |from| from.max(campaign.since))),
        };
        let now: DateTime<Utc> = sqlx::query_scalar("SELECT now()").fetch_one(&mut *connection).await?;
        // Closed hours only: the open one is another one a moment later.
        let end = analytics::hour_of(self.until.map_or(now, |until| until.min(now)));
        let until = end.min(first + HOURS);
        if first >= until {
            return Ok(Page {
                checked: 0,
                differing: 0,
                next: None,
            });
        }
        let span = Span {
            campaign_id: campaign.id,
            first,
            until,
        };
        Ok(Page {
            checked: (until - first).num_hours().unsigned_abs(),
            differing: analytics::compute(connection, &[span]).await?,
            next: (until < end).then_some(Cursor::Hour(until)),
        })
    }
}
