//! Gives and takes back rewards: locks, reads the facts, and writes what `rules::plan` answers.

use std::time::Duration;

use chrono::Utc;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::handlers::fraud;
use crate::handlers::fraud::rules::FraudSettings;
use crate::handlers::reward::facts::{self, CAUSE_LOST, EarnerRow, OfferRow};
use crate::handlers::reward::rounds;
use crate::handlers::reward::rules::{self, Owned, Phase, State, Step, Trigger};
use crate::handlers::secret::Secret;

/// So many locks stand for all users: a page of hundreds takes these, and not one for each.
const USER_LOCKS: u8 = 64;

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

impl Granting {
    /// Gives these users what they are due and takes back what they are not, in this order; answers how many rows were
    /// written. `closing`: this is the work that a campaign's completion brought.
    ///
    /// # Errors
    /// Whatever Postgres answered.
    pub async fn reconcile(
        &self,
        connection: &mut PgConnection,
        users: &[Uuid],
        closing: bool,
    ) -> Result<u64, sqlx::Error> {
        lock_users(connection, users).await?;
        lock_stocks(connection, users).await?;
        let mut written = 0;
        for user in users {
            written += self.reconcile_one(connection, *user, closing).await?;
        }
        Ok(written)
    }

    async fn reconcile_one(
        &self,
        connection: &mut PgConnection,
        user: Uuid,
        closing: bool,
    ) -> Result<u64, sqlx::Error> {
        let mut written = 0;
        for row in facts::earners(connection, user).await? {
            written += self.reconcile_in(connection, user, &row, closing).await?;
        }
        Ok(written)
    }

    async fn reconcile_in(
        &self,
        connection: &mut PgConnection,
        user: Uuid,
        row: &EarnerRow,
        closing: bool,
    ) -> Result<u64, sqlx::Error> {
        let hold_at = self.fraud.hold_at;
        let phase = Phase::of(&row.status, row.deleted, closing);
        let mut credited = facts::credited(connection, user, row.campaign_id, hold_at).await?;
        let mut checked = false;
        let mut written = 0;
        for offer in facts::offers(connection, row.campaign_id).await? {
            let owned = facts::owned(connection, offer.terms.reward_id, user, self.delay).await?;
            let mut steps = self.plan(phase, row, &offer, &owned, credited.len());
            // A grant never overtakes the checks of the referrals it counts.
            if !checked && steps.iter().any(gives) {
                checked = true;
                let found = fraud::sql::check(connection, &credited, &[], &self.fraud, &self.secret).await?;
                if found > 0 {
                    credited = facts::credited(connection, user, row.campaign_id, hold_at).await?;
                    steps = self.plan(phase, row, &offer, &owned, credited.len());
                }
            }
            let steps_free_stock = steps.iter().any(frees_stock);
            for step in steps {
                written += self.take(connection, row, &offer, user, &credited, step).await?;
            }
            if offer.is_limited() && steps_free_stock {
                // Somebody else may wait for it.
                rounds::begin(connection, row.campaign_id, Some(offer.terms.reward_id), false).await?;
            }
        }
        Ok(written)
    }

    fn plan(&self, phase: Phase, row: &EarnerRow, offer: &OfferRow, owned: &[Owned], credited: usize) -> Vec<Step> {
        rules::plan(phase, &offer.offer(self.delay), &row.earner(credited), owned)
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
        let cause = offer.trigger().cause();
        let (ordinal, state) = match step {
            Step::Move { id, from, to } => return change_state(connection, id, from, to, cause).await,
            Step::Grant { ordinal, state } => (ordinal, state),
        };
        let terms = &offer.terms;
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
        .bind(snapshot(row, offer, credited, ordinal))
        .bind(cause)
        .bind(now)
        .bind(terms.expires_at(now))
        .execute(connection)
        .await?;
        Ok(done.rows_affected())
    }
}

/// What is promised, with what it was counted by: referrals, or a place and the referrals it was ranked by.
fn snapshot(row: &EarnerRow, offer: &OfferRow, credited: &[Uuid], ordinal: i64) -> serde_json::Value {
    let terms = &offer.terms;
    match offer.trigger() {
        Trigger::Referrals => {
            let counted = ordinal.saturating_mul(i64::from(terms.threshold.unwrap_or(i32::MAX)));
            let counted = usize::try_from(counted).unwrap_or(usize::MAX).min(credited.len());
            terms.snapshot(&credited[..counted])
        }
        Trigger::Crossing | Trigger::Completion => terms.snapshot_of_place(credited, row.place()),
        Trigger::Milestone { .. } => terms.snapshot(&[]),
    }
}

fn gives(step: &Step) -> bool {
    match step {
        Step::Grant { .. } => true,
        Step::Move { to, .. } => *to == State::Earned,
    }
}

fn frees_stock(step: &Step) -> bool {
    matches!(step, Step::Move { to: State::Revoked, .. })
}

/// One user is reconciled by one transaction at a time, also where no stock is limited. Sorted, so that nobody waits in a
/// circle.
async fn lock_users(connection: &mut PgConnection, users: &[Uuid]) -> Result<(), sqlx::Error> {
    let mut numbers: Vec<u8> = users.iter().map(|user| user.as_bytes()[15] % USER_LOCKS).collect();
    numbers.sort_unstable();
    numbers.dedup();
    for number in numbers {
        lock(connection, &format!("reward:users:{number}")).await?;
    }
    Ok(())
}

/// Two transactions that count a limited stock at once would both give the last piece. After the users' locks and sorted,
/// so that nobody waits in a circle.
async fn lock_stocks(connection: &mut PgConnection, users: &[Uuid]) -> Result<(), sqlx::Error> {
    let limited: Vec<Uuid> = sqlx::query_scalar(
        "SELECT DISTINCT w.id FROM rewards w
         WHERE w.trigger_type <> 'manual' AND w.total_available IS NOT NULL
           AND w.campaign_id IN (SELECT campaign_id FROM waitlist_users WHERE id = ANY($1)
                                 UNION SELECT campaign_id FROM user_rewards WHERE user_id = ANY($1))
         ORDER BY w.id",
    )
    .bind(users)
    .fetch_all(&mut *connection)
    .await?;
    for reward in limited {
        lock(connection, &format!("reward:stock:{reward}")).await?;
    }
    Ok(())
}

async fn lock(connection: &mut PgConnection, key: &str) -> Result<(), sqlx::Error> {
    sqlx::query("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))")
        .bind(key)
        .execute(connection)
        .await?;
    Ok(())
}

/// Moves a row on, if it is still where it was. A row that comes back and was never delivered is announced anew, under
/// another key: what was queued for it before may have been skipped. A webhook's call that has begun keeps its key: the
/// receiver may have it, and must recognise it.
async fn change_state(
    connection: &mut PgConnection,
    id: Uuid,
    from: State,
    to: State,
    cause: &str,
) -> Result<u64, sqlx::Error> {
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
    .bind(cause)
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}
