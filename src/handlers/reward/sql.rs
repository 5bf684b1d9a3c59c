//! Facts for a delivery, and the rows that give account of it.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::postgres::PgPool;
use sqlx::{PgConnection, Postgres, Transaction};
use uuid::Uuid;

use crate::clients::webhook::{Answer, Call, CallError};
use crate::handlers::erasure;
use crate::handlers::reward::promise::Terms;

/// One row of `user_rewards` with what its delivery needs.
#[derive(Clone, sqlx::FromRow)]
pub(super) struct DeliveryRow {
    pub(super) id: Uuid,
    pub(super) campaign_id: Uuid,
    pub(super) user_id: Uuid,
    pub(super) ordinal: i32,
    pub(super) status: String,
    pub(super) code: Option<String>,
    pub(super) snapshot: Option<Value>,
    pub(super) resend_no: i32,
    pub(super) earned_at: Option<DateTime<Utc>>,
    pub(super) delivered_at: Option<DateTime<Utc>>,
    pub(super) expires_at: Option<DateTime<Utc>>,
    pub(super) created_at: DateTime<Utc>,
    pub(super) campaign_status: String,
    pub(super) campaign_deleted: bool,
    #[sqlx(flatten)]
    pub(super) terms: Terms,
    pub(super) terms_webhook: Option<Uuid>,
    pub(super) webhook_url: Option<String>,
    pub(super) webhook_secret: Option<String>,
    pub(super) webhook_status: Option<String>,
}

/// An endpoint.
pub(super) struct Webhook {
    pub(super) id: Uuid,
    pub(super) url: String,
    pub(super) secret: String,
    pub(super) status: String,
}

impl Webhook {
    /// The call that hands over these bytes under this id.
    pub(super) fn call(&self, id: &str, body: Vec<u8>) -> Call {
        Call {
            url: self.url.clone(),
            secret: self.secret.clone(),
            id: id.to_owned(),
            at: Utc::now(),
            body,
        }
    }
}

impl std::fmt::Debug for DeliveryRow {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("DeliveryRow")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

impl DeliveryRow {
    /// How it is delivered: as promised.
    pub(super) fn delivery_method(&self) -> &str {
        let promised = self
            .snapshot
            .as_ref()
            .and_then(|snapshot| snapshot.get("delivery_method"));
        promised.and_then(Value::as_str).unwrap_or(&self.terms.delivery_method)
    }

    /// A part of the promise.
    pub(super) fn promised(&self, name: &str) -> Option<Value> {
        self.snapshot.as_ref()?.get(name).cloned()
    }

    /// A part of the promised config, or of the reward's where nothing was promised yet.
    pub(super) fn promised_config(&self, name: &str) -> Value {
        let promised = self.snapshot.as_ref().and_then(|snapshot| snapshot.get("config"));
        promised
            .unwrap_or(&self.terms.config)
            .get(name)
            .cloned()
            .unwrap_or(Value::Null)
    }

    /// The endpoint, where there is one.
    pub(super) fn webhook(&self) -> Option<Webhook> {
        Some(Webhook {
            id: self.terms_webhook?,
            url: self.webhook_url.clone()?,
            secret: self.webhook_secret.clone()?,
            status: self.webhook_status.clone()?,
        })
    }
}

/// What one try brought, for `webhook_deliveries`.
#[derive(Debug, Clone, Default)]
pub(super) struct Report {
    pub(super) code: Option<u16>,
    pub(super) excerpt: Option<String>,
    pub(super) error: Option<String>,
    pub(super) again_after: Option<Duration>,
    pub(super) called: bool,
}

impl Report {
    pub(super) fn answered(answer: Answer) -> Self {
        Self {
            code: Some(answer.code),
            excerpt: Some(answer.excerpt),
            called: true,
            ..Self::default()
        }
    }

    pub(super) fn unanswered(error: &CallError) -> Self {
        Self {
            error: Some(error.to_string()),
            called: true,
            ..Self::default()
        }
    }

    pub(super) fn waiting(reason: &str) -> Self {
        Self {
            error: Some(reason.to_owned()),
            ..Self::default()
        }
    }
}

pub(super) async fn delivery(connection: &mut PgConnection, id: Uuid) -> Result<Option<DeliveryRow>, sqlx::Error> {
    sqlx::query_as(
        "SELECT o.id, o.campaign_id, o.user_id, o.ordinal, o.status, o.code, o.snapshot, o.resend_no, o.earned_at,
                o.delivered_at, o.expires_at, o.created_at, c.status AS campaign_status,
                c.deleted_at IS NOT NULL AS campaign_deleted,
                w.id AS reward_id, w.name, w.description, w.type AS kind, w.config, w.delivery_method,
                w.trigger_threshold AS threshold, w.webhook_id AS terms_webhook,
                hook.url AS webhook_url, hook.secret AS webhook_secret, hook.status AS webhook_status
         FROM user_rewards o
         JOIN campaigns c ON c.id = o.campaign_id
         JOIN rewards w ON w.id = o.reward_id
         LEFT JOIN webhooks hook ON hook.id = w.webhook_id
         WHERE o.id = $1",
    )
    .bind(id)
    .fetch_optional(connection)
    .await
}

/// Whether the row is still earned, with its row lock held: nobody takes it back while it is being queued.
pub(super) async fn lock_earned(connection: &mut PgConnection, id: Uuid, resend: i32) -> Result<bool, sqlx::Error> {
    let found: Option<(Uuid,)> =
        sqlx::query_as("SELECT id FROM user_rewards WHERE id = $1 AND status = 'earned' AND resend_no = $2 FOR UPDATE")
            .bind(id)
            .bind(resend)
            .fetch_optional(connection)
            .await?;
    Ok(found.is_some())
}

/// Queues the mail of a reward; one that is queued or sent already stays. Answers `false` when this sending has ended
/// without success: it needs another number.
pub(super) async fn queue_mail(
    connection: &mut PgConnection,
    key: &str,
    row: &DeliveryRow,
) -> Result<bool, sqlx::Error> {
    sqlx::query(
        "INSERT INTO email_log (effect_key, campaign_id, user_id, type, status)
         VALUES ($1, $2, $3, 'reward_earned', 'queued')
         ON CONFLICT (effect_key) DO NOTHING",
    )
    .bind(key)
    .bind(row.campaign_id)
    .bind(row.user_id)
    .execute(&mut *connection)
    .await?;
    let status: String = sqlx::query_scalar("SELECT status FROM email_log WHERE effect_key = $1")
        .bind(key)
        .fetch_one(connection)
        .await?;
    Ok(!matches!(status.as_str(), "skipped" | "failed"))
}

/// Gives an earned row the next sending number; the change of it asks for the delivery.
pub(super) async fn renumber(connection: &mut PgConnection, id: Uuid, resend_no: i32) -> Result<(), sqlx::Error> {
    sqlx::query(
        "UPDATE user_rewards SET resend_no = resend_no + 1, updated_at = now()
         WHERE id = $1 AND status = 'earned' AND resend_no = $2",
    )
    .bind(id)
    .bind(resend_no)
    .execute(connection)
    .await?;
    Ok(())
}

/// Fills in what the row lacks; what it has stays.
pub(super) async fn complete(
    connection: &mut PgConnection,
    id: Uuid,
    code: &str,
    snapshot: &Value,
    expires_at: Option<DateTime<Utc>>,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "UPDATE user_rewards
         SET code = coalesce(code, $2), snapshot = coalesce(snapshot, $3), earned_at = coalesce(earned_at, now()),
             expires_at = CASE WHEN earned_at IS NULL THEN coalesce(expires_at, $4) ELSE expires_at END,
             updated_at = now()
         WHERE id = $1 AND (code IS NULL OR snapshot IS NULL OR earned_at IS NULL)",
    )
    .bind(id)
    .bind(code)
    .bind(snapshot)
    .bind(expires_at)
    .execute(connection)
    .await?;
    Ok(())
}

/// The receiver has it. A row that was taken back meanwhile stays taken back, and remembers that it was delivered.
///
/// # Errors
/// Whatever Postgres answered.
pub async fn mark_delivered(connection: &mut PgConnection, id: Uuid) -> Result<(), sqlx::Error> {
    sqlx::query(
        "UPDATE user_rewards
         SET status = CASE WHEN status IN ('earned', 'failed') THEN 'delivered' ELSE status END,
             delivered_at = coalesce(delivered_at, now()), delivery_error = NULL, updated_at = now()
         WHERE id = $1 AND status IN ('earned', 'failed', 'revoked')",
    )
    .bind(id)
    .execute(connection)
    .await?;
    Ok(())
}

/// It cannot be delivered. With `resend_no` only when this is still the sending that counts.
///
/// # Errors
/// Whatever Postgres answered.
pub async fn mark_failed(
    connection: &mut PgConnection,
    id: Uuid,
    resend_no: Option<i32>,
    reason: &str,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "UPDATE user_rewards SET status = 'failed', delivery_error = $3, updated_at = now()
         WHERE id = $1 AND status = 'earned' AND ($2::integer IS NULL OR resend_no = $2)",
    )
    .bind(id)
    .bind(resend_no)
    .bind(reason)
    .execute(connection)
    .await?;
    Ok(())
}

pub(super) async fn disable_webhook(connection: &mut PgConnection, id: Uuid, reason: &str) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE webhooks SET status = 'disabled', disabled_reason = $2 WHERE id = $1 AND status <> 'disabled'")
        .bind(id)
        .bind(reason)
        .execute(connection)
        .await?;
    Ok(())
}

/// Opens the transaction in which a call is claimed, with the account by which a person who is to be forgotten is found in its
/// bytes. `None`: the reward is another than the one that they were made from, or the delivery does not wait any more.
pub(super) async fn begin(
    pool: &PgPool,
    key: &str,
    row: &DeliveryRow,
    waits_as: Option<&str>,
) -> Result<Option<Transaction<'static, Postgres>>, sqlx::Error> {
    let mut transaction = pool.begin().await?;
    erasure::hold_off(&mut transaction, row.user_id).await?;
    let is_as_read: bool = sqlx::query_scalar(
        "SELECT EXISTS (SELECT FROM user_rewards WHERE id = $1 AND status = $2 AND resend_no = $3 AND user_id = $4)
            AND ($5::text IS NULL OR EXISTS (SELECT FROM webhook_deliveries WHERE effect_key = $6 AND status = $5))",
    )
    .bind(row.id)
    .bind(&row.status)
    .bind(row.resend_no)
    .bind(row.user_id)
    .bind(waits_as)
    .bind(key)
    .fetch_one(&mut *transaction)
    .await?;
    if !is_as_read {
        return Ok(None);
    }
    sqlx::query(
        "INSERT INTO webhook_deliveries (effect_key, campaign_id, webhook_id, event_type, status, user_id)
         VALUES ($1, $2, $3, 'reward.earned', 'sending', $4)
         ON CONFLICT (effect_key) DO NOTHING",
    )
    .bind(key)
    .bind(row.campaign_id)
    .bind(row.terms_webhook)
    .bind(row.user_id)
    .execute(&mut *transaction)
    .await?;
    Ok(Some(transaction))
}

/// Earlier sendings of this reward that were begun and have no end, by their keys.
pub(super) async fn begun_before(pool: &PgPool, row: &DeliveryRow) -> Result<Vec<String>, sqlx::Error> {
    sqlx::query_scalar(
        "SELECT w.effect_key FROM generate_series(0, $2 - 1) AS earlier
         JOIN webhook_deliveries w ON w.effect_key = format('reward_webhook:%s:%s', $1, earlier)
         WHERE w.status = 'sending' ORDER BY w.effect_key",
    )
    .bind(row.id)
    .bind(row.resend_no)
    .fetch_all(pool)
    .await
}

/// Ends the account of a call that was begun, and that nobody makes any more. `delivered_at` is when it was accepted, if so.
pub(super) async fn end_begun(
    connection: &mut PgConnection,
    key: &str,
    status: &str,
    reason: Option<&str>,
    delivered_at: Option<DateTime<Utc>>,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "UPDATE webhook_deliveries
         SET status = $2, error = $3, delivered_at = $4, attempts = attempts + CASE WHEN $4 IS NULL THEN 0 ELSE 1 END,
             updated_at = now()
         WHERE effect_key = $1 AND status = 'sending'",
    )
    .bind(key)
    .bind(status)
    .bind(reason)
    .bind(delivered_at)
    .execute(connection)
    .await?;
    Ok(())
}

/// Writes the account of a try; what was delivered stays delivered.
pub(super) async fn report(
    connection: &mut PgConnection,
    key: &str,
    row: &DeliveryRow,
    status: &str,
    report: &Report,
    again_after: Option<Duration>,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO webhook_deliveries AS known
             (effect_key, campaign_id, webhook_id, event_type, status, attempts, next_attempt_at, last_code,
              response_excerpt, error, delivered_at, user_id)
         VALUES ($1, $2, $3, 'reward.earned', $4, $5, now() + $6::bigint * interval '1 millisecond', $7, $8, $9,
                 CASE WHEN $4 = 'delivered' THEN now() END, $10)
         ON CONFLICT (effect_key) DO UPDATE
             SET status = excluded.status, attempts = known.attempts + excluded.attempts,
                 next_attempt_at = excluded.next_attempt_at, last_code = excluded.last_code,
                 response_excerpt = excluded.response_excerpt, error = excluded.error,
                 delivered_at = excluded.delivered_at, updated_at = now()
             WHERE known.status <> 'delivered'",
    )
    .bind(key)
    .bind(row.campaign_id)
    .bind(row.terms_webhook)
    .bind(status)
    .bind(i32::from(report.called))
    .bind(again_after.map(|wait| i64::try_from(wait.as_millis()).unwrap_or(i64::MAX)))
    .bind(report.code.map(i32::from))
    .bind(&report.excerpt)
    .bind(&report.error)
    .bind(row.user_id)
    .execute(connection)
    .await?;
    Ok(())
}

/// Whether a campaign is complete now.
pub(super) async fn is_complete(connection: &mut PgConnection, campaign: Uuid) -> Result<bool, sqlx::Error> {
    let found: Option<bool> =
        sqlx::query_scalar("SELECT status = 'completed' AND deleted_at IS NULL FROM campaigns WHERE id = $1")
            .bind(campaign)
            .fetch_optional(connection)
            .await?;
    Ok(found.unwrap_or(false))
}
