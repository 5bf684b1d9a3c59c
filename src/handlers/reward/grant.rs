//! Gives and takes back rewards by number of referrals: locks, reads the facts, and writes what `rules::plan` answers.

use std::time::Duration;

use chrono::Utc;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::handlers::credit;
use crate::handlers::fraud;
use crate::handlers::fraud::rules::FraudSettings;
use crate::handlers::reward::promise::Terms;
use crate::handlers::reward::rules::{self, Earner, Offer, Owned, Phase, State, Step};
use crate::handlers::secret::Secret;

/// `user_rewards.cause` of a row given for referrals.
const CAUSE_GIVEN: &str = "referral_count";

/// `user_rewards.cause` of a row that was taken back because the facts no longer carry it; such a row may come back.
const CAUSE_LOST: &str = "credit_lost";

/// What granting needs to know beside the database.
#[derive(Debug, Clone)]
pub struct Granting {
    /// The checks that run before a reward is given.
    pub fraud: FraudSettings,
    /// Makes the codes.
    pub secret: Secret,
    /// How long a new reward is held back.
    pub delay: Duration,
}

#[derive(sqlx::FromRow)]
struct EarnerRow {
    campaign_id: Uuid,
    status: String,
    deleted: bool,
    in_standing: bool,
    blocked: bool,
}

#[derive(sqlx::FromRow)]
struct OfferRow {
    #[sqlx(flatten)]
    terms: Terms,
    user_limit: i32,
    total_available: Option<i32>,
    taken: i64,
    open: bool,
}

#[derive(sqlx::FromRow)]
struct OwnedRow {
    id: Uuid,
    ordinal: i32,
    status: String,
    cause: Option<String>,
    promised_threshold: Option<i32>,
    vanished: i64,
    delay_over: bool,
}

impl Granting {
    /// Gives these users what they are due and takes back what they are not; answers how many rows were written.
    /// `closing`: this is the work that a campaign's completion brought.
    ///
    /// # Errors
    /// Whatever Postgres answered.
    pub async fn reconcile(
        &self,
        connection: &mut PgConnection,
        users: &[Uuid],
        closing: bool,
    ) -> Result<u64, sqlx::Error> {
        let mut sorted = users.to_vec();
        sorted.sort_unstable();
        sorted.dedup();
        lock_users(connection, &sorted).await?;
        lock_stocks(connection, &sorted).await?;
        let mut written = 0;
        for user in sorted {
            written += self.reconcile_one(connection, user, closing).await?;
        }
        Ok(written)
    }

    async fn reconcile_one(
        &self,
        connection: &mut PgConnection,
        user: Uuid,
        closing: bool,
    ) -> Result<u64, sqlx::Error> {
        let Some(row) = earner(connection, user).await? else {
            return Ok(0);
        };
        let phase = Phase::of(&row.status, row.deleted, closing);
        let mut credited = credited(connection, user, self.fraud.hold_at).await?;
        let mut checked = false;
        let mut written = 0;
        for offer in offers(connection, row.campaign_id).await? {
            let owned = owned(connection, offer.terms.reward_id, user, self.delay).await?;
            let mut steps = self.plan(phase, &row, &offer, &owned, credited.len());
            // A grant never overtakes the checks of the referrals it counts.
            if !checked && steps.iter().any(gives) {
                checked = true;
                let found = fraud::sql::check(connection, &credited, &[], &self.fraud, &self.secret).await?;
                if found > 0 {
                    credited = self::credited(connection, user, self.fraud.hold_at).await?;
                    steps = self.plan(phase, &row, &offer, &owned, credited.len());
                }
            }
            for step in steps {
                written += self.take(connection, &row, &offer, user, &credited, step).await?;
            }
        }
        Ok(written)
    }

    fn plan(&self, phase: Phase, row: &EarnerRow, offer: &OfferRow, owned: &[Owned], credited: usize) -> Vec<Step> {
        let total = offer.total_available.map(i64::from);
        let terms = Offer {
            threshold: i64::from(offer.terms.threshold.unwrap_or(i32::MAX)),
            user_limit: i64::from(offer.user_limit),
            open: offer.open,
            left: total.map(|total| (total - offer.taken).max(0)),
            delayed: !self.delay.is_zero(),
        };
        let earner = Earner {
            in_standing: row.in_standing,
            blocked: row.blocked,
            credited: i64::try_from(credited).unwrap_or(i64::MAX),
        };
        rules::plan(phase, &terms, &earner, owned)
    }

    async fn take(
        &self,
        connection: &mut PgConnection,
        row: &EarnerRow,
        offer: &OfferRow,
        user: Uuid,
        credited: &[Uuid],
        step: Step,
    ) -> Result<u64, sqlx::Error> {
        let (ordinal, state) = match step {
            Step::Move { id, from, to } => return change_state(connection, id, from, to).await,
            Step::Grant { ordinal, state } => (ordinal, state),
        };
        let terms = &offer.terms;
        let counted = ordinal.saturating_mul(i64::from(terms.threshold.unwrap_or(i32::MAX)));
        let counted = usize::try_from(counted).unwrap_or(usize::MAX).min(credited.len());
        let now = Utc::now();
        let done = sqlx::query(
            "INSERT INTO user_rewards
                 (campaign_id, reward_id, user_id, ordinal, status, code, snapshot, cause, earned_at, expires_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, CASE WHEN $5 = 'earned' THEN $9 END, $10)
             ON CONFLICT (reward_id, user_id, ordinal) DO NOTHING",
        )
        .bind(row.campaign_id)
        .bind(terms.reward_id)
        .bind(user)
        .bind(i32::try_from(ordinal).unwrap_or(i32::MAX))
        .bind(state.word())
        .bind(terms.code(&self.secret, user, ordinal))
        .bind(terms.snapshot(&credited[..counted]))
        .bind(CAUSE_GIVEN)
        .bind(now)
        .bind(terms.expires_at(now))
        .execute(connection)
        .await?;
        Ok(done.rows_affected())
    }
}

fn gives(step: &Step) -> bool {
    match step {
        Step::Grant { .. } => true,
        Step::Move { to, .. } => *to == State::Earned,
    }
}

/// One user is reconciled by one transaction at a time, also where no stock is limited.
async fn lock_users(connection: &mut PgConnection, sorted: &[Uuid]) -> Result<(), sqlx::Error> {
    for user in sorted {
        lock(connection, "reward:user", *user).await?;
    }
    Ok(())
}

/// Two transactions that count a limited stock at once would both give the last piece. After the users' locks and sorted,
/// so that nobody waits in a circle.
async fn lock_stocks(connection: &mut PgConnection, users: &[Uuid]) -> Result<(), sqlx::Error> {
    let limited: Vec<Uuid> = sqlx::query_scalar(
        "SELECT DISTINCT w.id FROM rewards w
         JOIN waitlist_users u ON u.campaign_id = w.campaign_id
         WHERE u.id = ANY($1) AND w.trigger_type = 'referral_count' AND w.total_available IS NOT NULL
         ORDER BY w.id",
    )
    .bind(users)
    .fetch_all(&mut *connection)
    .await?;
    for reward in limited {
        lock(connection, "reward:stock", reward).await?;
    }
    Ok(())
}

async fn lock(connection: &mut PgConnection, what: &str, id: Uuid) -> Result<(), sqlx::Error> {
    sqlx::query("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))")
        .bind(format!("{what}:{id}"))
        .execute(connection)
        .await?;
    Ok(())
}

async fn earner(connection: &mut PgConnection, user: Uuid) -> Result<Option<EarnerRow>, sqlx::Error> {
    sqlx::query_as(credit::statement(
        "SELECT u.campaign_id, c.status, c.deleted_at IS NOT NULL AS deleted, {in_standing} AS in_standing,
                u.status = 'blocked' AS blocked
         FROM waitlist_users u JOIN campaigns c ON c.id = u.campaign_id
         WHERE u.id = $1",
    ))
    .bind(user)
    .fetch_optional(connection)
    .await
}

/// The referrals that count for a user, oldest first.
async fn credited(connection: &mut PgConnection, user: Uuid, hold_at: u8) -> Result<Vec<Uuid>, sqlx::Error> {
    sqlx::query_scalar(credit::statement(
        "SELECT credited.id FROM {credited} AS credited
         JOIN waitlist_users u ON u.id = credited.referrer_id AND u.campaign_id = credited.campaign_id
         WHERE credited.referrer_id = $2
         ORDER BY coalesce(credited.verified_at, credited.created_at), credited.id",
    ))
    .bind(i32::from(hold_at))
    .bind(user)
    .fetch_all(connection)
    .await
}

async fn offers(connection: &mut PgConnection, campaign: Uuid) -> Result<Vec<OfferRow>, sqlx::Error> {
    sqlx::query_as(
        "SELECT w.id AS reward_id, w.name, w.description, w.type AS kind, w.config, w.delivery_method,
                w.trigger_threshold AS threshold, w.user_limit, w.total_available,
                CASE WHEN w.total_available IS NULL THEN 0 ELSE
                    (SELECT count(*) FROM user_rewards o
                     WHERE o.reward_id = w.id AND o.status NOT IN ('revoked', 'expired')) END AS taken,
                w.status = 'active' AND coalesce(w.starts_at <= now(), true) AND coalesce(w.expires_at > now(), true)
                    AS open
         FROM rewards w
         WHERE w.campaign_id = $1 AND w.trigger_type = 'referral_count'
         ORDER BY w.id",
    )
    .bind(campaign)
    .fetch_all(connection)
    .await
}

/// The user's rows of one reward. A row that a person made (another cause) takes its ordinal and is never touched.
async fn owned(
    connection: &mut PgConnection,
    reward: Uuid,
    user: Uuid,
    delay: Duration,
) -> Result<Vec<Owned>, sqlx::Error> {
    let rows: Vec<OwnedRow> = sqlx::query_as(
        "SELECT o.id, o.ordinal, CASE WHEN o.expires_at <= now() THEN 'expired' ELSE o.status END AS status, o.cause,
                CASE WHEN o.snapshot ->> 'trigger_threshold' ~ '^[0-9]{1,9}$'
                     THEN (o.snapshot ->> 'trigger_threshold')::integer END AS promised_threshold,
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
    let ours = |cause: &Option<String>| matches!(cause.as_deref(), Some(CAUSE_GIVEN | CAUSE_LOST));
    Ok(rows
        .into_iter()
        .map(|row| Owned {
            id: row.id,
            ordinal: i64::from(row.ordinal),
            state: if ours(&row.cause) {
                State::of(&row.status)
            } else {
                State::Other
            },
            promised_threshold: row.promised_threshold.map(i64::from),
            vanished: row.vanished,
            revoked_by_us: row.cause.as_deref() == Some(CAUSE_LOST),
            delay_over: row.delay_over,
        })
        .collect())
}

/// Moves a row on, if it is still where it was. A row that comes back and was never delivered is announced anew, under
/// another key: what was queued for it before may have been skipped. A webhook's call that has begun keeps its key: the
/// receiver may have it, and must recognise it.
async fn change_state(connection: &mut PgConnection, id: Uuid, from: State, to: State) -> Result<u64, sqlx::Error> {
    let done = sqlx::query(
        "UPDATE user_rewards
         SET status = $3, cause = CASE WHEN $3 = 'revoked' THEN $4 ELSE $5 END,
             earned_at = CASE WHEN $3 = 'earned' THEN coalesce(earned_at, now()) ELSE earned_at END,
             resend_no = resend_no + CASE WHEN $2 = 'revoked' AND delivered_at IS NULL AND NOT EXISTS (
                 SELECT FROM afterwrite.effects
                 WHERE effect_key = 'reward_webhook:' || id || ':' || resend_no AND state IN ('sending', 'sent')
             ) THEN 1 ELSE 0 END,
             updated_at = now()
         WHERE id = $1 AND status = $2",
    )
    .bind(id)
    .bind(from.word())
    .bind(to.word())
    .bind(CAUSE_LOST)
    .bind(CAUSE_GIVEN)
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// Users of a campaign who are due more than they have of a reward that is open and in stock: at most `limit`, after
/// `after` in the order of their ids. `reward` narrows it to one. A completed campaign gives only while it is `closing`.
///
/// # Errors
/// Whatever Postgres answered.
pub async fn waiting_for_grants(
    connection: &mut PgConnection,
    campaign: Uuid,
    reward: Option<Uuid>,
    after: Uuid,
    limit: i64,
    closing: bool,
    hold_at: u8,
) -> Result<Vec<Uuid>, sqlx::Error> {
    sqlx::query_scalar(credit::statement(
        "WITH credit AS (
             SELECT referrer_id, count(*) AS verified FROM {credited} AS credited
             WHERE campaign_id = $2 AND referrer_id > $4 GROUP BY referrer_id
         )
         SELECT DISTINCT credit.referrer_id
         FROM credit
         JOIN waitlist_users u ON u.id = credit.referrer_id AND u.campaign_id = $2
         JOIN campaigns c ON c.id = $2
         JOIN rewards w ON w.campaign_id = $2
         WHERE (c.status = 'active' OR c.status = 'completed' AND $6) AND c.deleted_at IS NULL AND {in_standing} AND w.trigger_type = 'referral_count' AND w.status = 'active' AND ($3::uuid IS NULL OR w.id = $3)
           AND coalesce(w.starts_at <= now(), true) AND coalesce(w.expires_at > now(), true)
           AND (w.total_available IS NULL OR w.total_available > (
                    SELECT count(*) FROM user_rewards o
                    WHERE o.reward_id = w.id AND o.status NOT IN ('revoked', 'expired')))
           AND least(credit.verified / w.trigger_threshold, w.user_limit) > (
                    SELECT count(*) FROM user_rewards o
                    WHERE o.reward_id = w.id AND o.user_id = credit.referrer_id
                      AND NOT (o.status = 'revoked' AND o.cause = 'credit_lost'))
         ORDER BY 1
         LIMIT $5",
    ))
    .bind(i32::from(hold_at))
    .bind(campaign)
    .bind(reward)
    .bind(after)
    .bind(limit)
    .bind(closing)
    .fetch_all(connection)
    .await
}
