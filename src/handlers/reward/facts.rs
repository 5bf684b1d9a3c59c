//! The facts a decision about rewards is made by, read under its locks.

use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::handlers::credit;
use crate::handlers::reward::promise::Terms;
use crate::handlers::reward::rules::{Earner, Offer, Owned, Place, State, Trigger};

/// `user_rewards.cause` of a row that was taken back because the facts no longer carry it; such a row may come back.
pub(super) const CAUSE_LOST: &str = "credit_lost";

/// Causes of rows that are given and taken back here. A row with another cause is a person's.
const OURS: [&str; 4] = ["referral_count", "position", "milestone", CAUSE_LOST];

/// Whether user `u` is due more of reward `w` of campaign `c` than the user has, and there is some. `{closing}` stands for
/// whether what the completion brings is given. `rules::plan` decides; this finds for whom it may give something.
pub(super) const IS_DUE: &str = "(w.trigger_type <> 'manual' AND w.status = 'active'
    AND coalesce(w.starts_at <= now(), true) AND coalesce(w.expires_at > now(), true)
    AND (c.status = 'active' OR c.status = 'completed' AND {closing}) AND c.deleted_at IS NULL AND {in_standing}
    AND (w.total_available IS NULL OR w.total_available > (
             SELECT count(*) FROM user_rewards o
             WHERE o.reward_id = w.id AND o.status NOT IN ('revoked', 'expired')))
    AND CASE w.trigger_type
            WHEN 'referral_count' THEN least((SELECT count(*) FROM {credited} AS credited
                                              WHERE credited.referrer_id = u.id AND credited.campaign_id = c.id)
                                             / w.trigger_threshold, w.user_limit)
            WHEN 'position' THEN CASE WHEN (w.evaluate = 'crossing' OR c.status = 'completed') AND EXISTS (
                                     SELECT FROM waitlist_positions p
                                     WHERE p.campaign_id = c.id AND p.user_id = u.id
                                       AND p.position <= w.trigger_threshold) THEN 1 ELSE 0 END
            WHEN 'milestone' THEN CASE WHEN u.created_at <= (
                                     SELECT min(m.created_at) FROM campaign_milestones m
                                     WHERE m.campaign_id = c.id AND m.milestone >= w.trigger_threshold)
                                  THEN 1 ELSE 0 END
        END > (SELECT count(*) FROM user_rewards o
               WHERE o.reward_id = w.id AND o.user_id = u.id AND NOT (o.status = 'revoked' AND o.cause = 'credit_lost')))";

/// A user in one campaign: that of now, or an earlier one where rewards were earned.
#[derive(sqlx::FromRow)]
pub(super) struct EarnerRow {
    pub(super) campaign_id: Uuid,
    pub(super) status: String,
    pub(super) deleted: bool,
    in_standing: bool,
    blocked: bool,
    signed_up_at: DateTime<Utc>,
    position: Option<i32>,
    place_referrals: Option<i32>,
}

impl EarnerRow {
    pub(super) fn earner(&self, credited: usize) -> Earner {
        Earner {
            in_standing: self.in_standing,
            blocked: self.blocked,
            credited: i64::try_from(credited).unwrap_or(i64::MAX),
            place: self.place(),
            signed_up_at: self.signed_up_at,
        }
    }

    pub(super) fn place(&self) -> Option<Place> {
        self.position
            .zip(self.place_referrals)
            .map(|(position, referrals)| Place {
                position: i64::from(position),
                referrals: i64::from(referrals),
            })
    }
}

/// One reward of a campaign.
#[derive(sqlx::FromRow)]
pub(super) struct OfferRow {
    #[sqlx(flatten)]
    pub(super) terms: Terms,
    trigger_type: String,
    evaluate: String,
    passed_at: Option<DateTime<Utc>>,
    user_limit: i32,
    total_available: Option<i32>,
    taken: i64,
    open: bool,
}

impl OfferRow {
    pub(super) fn trigger(&self) -> Trigger {
        match (self.trigger_type.as_str(), self.evaluate.as_str()) {
            ("position", "crossing") => Trigger::Crossing,
            ("position", _) => Trigger::Completion,
            ("milestone", _) => Trigger::Milestone {
                passed_at: self.passed_at,
            },
            _ => Trigger::Referrals,
        }
    }

    pub(super) fn is_limited(&self) -> bool {
        self.total_available.is_some()
    }

    pub(super) fn offer(&self, delay: Duration) -> Offer {
        let total = self.total_available.map(i64::from);
        Offer {
            trigger: self.trigger(),
            threshold: i64::from(self.terms.threshold.unwrap_or(i32::MAX)),
            user_limit: i64::from(self.user_limit),
            open: self.open,
            left: total.map(|total| (total - self.taken).max(0)),
            delayed: !delay.is_zero(),
        }
    }
}

#[derive(sqlx::FromRow)]
struct OwnedRow {
    id: Uuid,
    ordinal: i32,
    status: String,
    cause: Option<String>,
    promised_threshold: Option<i32>,
    place_referrals: Option<i32>,
    vanished: i64,
    delay_over: bool,
}

pub(super) async fn earners(connection: &mut PgConnection, user: Uuid) -> Result<Vec<EarnerRow>, sqlx::Error> {
    sqlx::query_as(credit::statement(
        "SELECT c.id AS campaign_id, c.status, c.deleted_at IS NOT NULL AS deleted,
                u.campaign_id = c.id AND {in_standing} AS in_standing, u.status = 'blocked' AS blocked,
                u.created_at AS signed_up_at, p.position, p.verified_referrals AS place_referrals
         FROM (SELECT campaign_id FROM waitlist_users WHERE id = $1
               UNION SELECT campaign_id FROM user_rewards WHERE user_id = $1) AS concerned
         JOIN campaigns c ON c.id = concerned.campaign_id
         JOIN waitlist_users u ON u.id = $1
         LEFT JOIN waitlist_positions p ON p.campaign_id = c.id AND p.user_id = u.id
         ORDER BY c.id",
    ))
    .bind(user)
    .fetch_all(connection)
    .await
}

/// The referrals that count for a user in a campaign, oldest first.
pub(super) async fn credited(
    connection: &mut PgConnection,
    user: Uuid,
    campaign: Uuid,
    hold_at: u8,
) -> Result<Vec<Uuid>, sqlx::Error> {
    sqlx::query_scalar(credit::statement(
        "SELECT credited.id FROM {credited} AS credited
         JOIN waitlist_users u ON u.id = credited.referrer_id AND u.campaign_id = credited.campaign_id
         WHERE credited.referrer_id = $2 AND credited.campaign_id = $3
         ORDER BY coalesce(credited.verified_at, credited.created_at), credited.id",
    ))
    .bind(i32::from(hold_at))
    .bind(user)
    .bind(campaign)
    .fetch_all(connection)
    .await
}

pub(super) async fn offers(connection: &mut PgConnection, campaign: Uuid) -> Result<Vec<OfferRow>, sqlx::Error> {
    sqlx::query_as(
        "SELECT w.id AS reward_id, w.name, w.description, w.type AS kind, w.config, w.delivery_method,
                w.trigger_threshold AS threshold, w.trigger_type, w.evaluate, w.user_limit, w.total_available,
                CASE WHEN w.trigger_type = 'milestone' THEN
                    (SELECT min(m.created_at) FROM campaign_milestones m
                     WHERE m.campaign_id = w.campaign_id AND m.milestone >= w.trigger_threshold) END AS passed_at,
                CASE WHEN w.total_available IS NULL THEN 0 ELSE
                    (SELECT count(*) FROM user_rewards o
                     WHERE o.reward_id = w.id AND o.status NOT IN ('revoked', 'expired')) END AS taken,
                w.status = 'active' AND coalesce(w.starts_at <= now(), true) AND coalesce(w.expires_at > now(), true)
                    AS open
         FROM rewards w
         WHERE w.campaign_id = $1 AND w.trigger_type <> 'manual'
         ORDER BY w.id",
    )
    .bind(campaign)
    .fetch_all(connection)
    .await
}

/// The user's rows of one reward. A row that a person made (another cause) takes its ordinal and is never touched.
pub(super) async fn owned(
    connection: &mut PgConnection,
    reward: Uuid,
    user: Uuid,
    delay: Duration,
) -> Result<Vec<Owned>, sqlx::Error> {
    let rows: Vec<OwnedRow> = sqlx::query_as(
        "SELECT o.id, o.ordinal, CASE WHEN o.expires_at <= now() THEN 'expired' ELSE o.status END AS status, o.cause,
                CASE WHEN o.snapshot ->> 'trigger_threshold' ~ '^[0-9]{1,9}$'
                     THEN (o.snapshot ->> 'trigger_threshold')::integer END AS promised_threshold,
                CASE WHEN o.snapshot ->> 'place_referrals' ~ '^[0-9]{1,9}$'
                     THEN (o.snapshot ->> 'place_referrals')::integer END AS place_referrals,
                (SELECT count(*)
                 FROM jsonb_array_elements_text(CASE WHEN jsonb_typeof(o.snapshot -> 'referrals') = 'array'
                                                     THEN o.snapshot -> 'referrals' END) AS counted(id)
                 LEFT JOIN referrals r ON r.id = CASE WHEN counted.id ~ '^[0-9a-f-]{36}$' THEN counted.id::uuid END
                 LEFT JOIN waitlist_users friend ON friend.id = r.referred_id
                 WHERE r.id IS NULL OR friend.deleted_at IS NOT NULL) AS vanished,
                o.created_at + $3::bigint * interval '1 millisecond' <= now() AS delay_over
         FROM user_rewards o
         WHERE o.reward_id = $1 AND o.user_id = $2
         ORDER BY o.ordinal",
    )
    .bind(reward)
    .bind(user)
    .bind(i64::try_from(delay.as_millis()).unwrap_or(i64::MAX))
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(owned_of).collect())
}

fn owned_of(row: OwnedRow) -> Owned {
    let ours = row.cause.as_deref().is_some_and(|cause| OURS.contains(&cause));
    Owned {
        id: row.id,
        ordinal: i64::from(row.ordinal),
        state: if ours { State::of(&row.status) } else { State::Other },
        promised_threshold: row.promised_threshold.map(i64::from),
        place_referrals: row.place_referrals.map(i64::from),
        vanished: row.vanished,
        revoked_by_us: row.cause.as_deref() == Some(CAUSE_LOST),
        delay_over: row.delay_over,
    }
}
