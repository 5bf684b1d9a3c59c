//! Calls of webhooks that their job left to the schedule: the same id and the same bytes, hours later.
//!
//! The account of a delivery (`webhook_deliveries`) says when it is due; the effect says whether a call may be made, and with
//! which bytes. The call is made with no transaction open, as in [`super::deliver`].

use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::postgres::PgPool;
use uuid::Uuid;

use crate::clients::webhook::{Answer, CallError, Called, Caller};
use crate::handlers::reward::deliver::Delivering;
use crate::handlers::reward::sql::{self, DeliveryRow, Report, Webhook};
use crate::handlers::secret::Secret;
use crate::ledger::effects::{self, Claim, Effects, Standing};

/// The handler by whose name the effects are kept.
const HANDLER: &str = "reward";

/// Waits between the calls of the schedule. The first one was waited before it saw the delivery.
const WAITS: [Duration; 7] = [
    Duration::from_secs(30 * 60),
    Duration::from_secs(2 * 3_600),
    Duration::from_secs(5 * 3_600),
    Duration::from_secs(10 * 3_600),
    Duration::from_secs(14 * 3_600),
    Duration::from_secs(20 * 3_600),
    Duration::from_secs(24 * 3_600),
];

/// A receiver that asks for more is called again all the same.
const WAIT_MAX: Duration = Duration::from_secs(24 * 3_600);

/// How long a delivery is put off whose endpoint is not to be called now.
pub(crate) const PUT_OFF: Duration = Duration::from_secs(300);

/// A delivery that somebody else has is looked at again after this, or when the lease is over.
const LEASED_MIN: Duration = Duration::from_secs(1);

/// When a call is prepared anew whose facts changed while it was prepared.
const MOVED_ON: Duration = Duration::from_secs(1);

/// A delivery that is due.
#[derive(Debug, Clone, sqlx::FromRow)]
pub(crate) struct Due {
    pub(crate) id: Uuid,
    pub(crate) effect_key: String,
    pub(crate) webhook_id: Uuid,
    /// Calls that the schedule has made of it.
    pub(crate) retries: i32,
}

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Retried {
    /// The receiver has it.
    Delivered,
    /// It was called and did not accept: another call follows, or none if that was the last one.
    NotAccepted,
    /// No call was made: it is put off, or never made.
    NotCalled,
}

/// What the next call has to wait for, after `made` calls of the schedule of which the last one failed; `None`: that was
/// the last one.
fn next_wait(made: i32, asked: Option<Duration>) -> Option<Duration> {
    let wait = WAITS.get(usize::try_from(made).ok()?.checked_sub(1)?)?;
    Some(asked.map_or(*wait, |asked| asked.clamp(*wait, WAIT_MAX)))
}

/// The row and the sending that a key names.
fn named_by(key: &str) -> Option<(Uuid, i32)> {
    let (id, resend_no) = key.strip_prefix("reward_webhook:")?.split_once(':')?;
    Some((id.parse().ok()?, resend_no.parse().ok()?))
}

/// What calls need.
#[derive(Clone)]
pub(crate) struct Retrying<'a> {
    pub(crate) caller: &'a dyn Caller,
    pub(crate) secret: &'a Secret,
    pub(crate) effects: &'a Effects,
    pub(crate) pool: &'a PgPool,
    /// When the waits begin.
    pub(crate) now: DateTime<Utc>,
}

/// How the account of a delivery is to read.
struct Account<'a> {
    status: &'a str,
    report: Report,
    next: Option<DateTime<Utc>>,
    is_retry: bool,
}

impl Retrying<'_> {
    /// Does what is due about one delivery.
    ///
    /// # Errors
    /// Whatever Postgres answered. A call that was made is made again later then, under the same id.
    pub(crate) async fn retry(&self, due: &Due) -> Result<Retried, sqlx::Error> {
        let mut connection = self.pool.acquire().await?;
        let named = named_by(&due.effect_key);
        let found = match named {
            Some((id, _)) => sql::delivery(&mut connection, id).await?,
            None => None,
        };
        drop(connection);
        let Some(row) = found else {
            return self.not_wanted(due, "reward_gone").await;
        };
        if named.is_none_or(|(_, resend_no)| resend_no != row.resend_no) {
            return self.not_wanted(due, "sent_under_another_number").await;
        }
        if row.status != "earned" {
            return self.not_wanted(due, "not_earned").await;
        }
        if row.campaign_deleted || row.campaign_status == "draft" {
            return self.not_wanted(due, "campaign_not_active").await;
        }
        let Some(webhook) = row.webhook() else {
            return self
                .fail(due, &row, "webhook_missing", Report::waiting("webhook_missing"))
                .await;
        };
        match webhook.status.as_str() {
            "active" => self.call(due, &row, &webhook).await,
            "paused" => self.put_off(due, "webhook_paused", PUT_OFF).await,
            _ => {
                self.fail(due, &row, "webhook_disabled", Report::waiting("webhook_disabled"))
                    .await
            }
        }
    }

    async fn call(&self, due: &Due, row: &DeliveryRow, webhook: &Webhook) -> Result<Retried, sqlx::Error> {
        let key = &due.effect_key;
        // Its body is only used where no call was ever made: its endpoint was paused at the time.
        let delivering = Delivering {
            caller: self.caller,
            secret: self.secret,
            attempts_max: 1,
        };
        let body = delivering.body(row).to_string().into_bytes();
        let Some(transaction) = sql::begin(self.pool, key, row, Some("retrying")).await? else {
            return self.put_off(due, "changed", MOVED_ON).await;
        };
        let claim = self.effects.claim_in(transaction, key, HANDLER, None, &body, false);
        let rendered = match claim.await? {
            Claim::Call { rendered } => rendered,
            Claim::Accepted { reply } => return self.delivered(due, &reply, None).await,
            Claim::Finished { state } if state == "sent" => return self.delivered(due, &state, None).await,
            Claim::Finished { .. } | Claim::Failed { .. } => return self.skip(due, "ended_before").await,
            // Whoever has it may be calling right now.
            Claim::Leased { remaining } => return self.put_off(due, "leased", remaining.max(LEASED_MIN)).await,
        };
        match self.caller.call(&webhook.call(key, rendered)).await {
            Called::Delivered(answer) => {
                let reply = answer.code.to_string();
                self.effects.accepted(key, &reply);
                self.effects.note_accepted(key, &reply).await?;
                self.delivered(due, &reply, Some(answer)).await
            }
            Called::Refused { answer, .. } if answer.code == 410 => {
                let mut connection = self.pool.acquire().await?;
                sql::disable_webhook(&mut connection, webhook.id, "the endpoint answered 410 Gone").await?;
                drop(connection);
                self.fail(due, row, "webhook_gone", Report::answered(answer)).await
            }
            Called::Refused { answer, retry_after } => {
                self.again(due, row, Report::answered(answer), retry_after).await
            }
            Called::Failed(error) => self.again(due, row, Report::unanswered(&error), None).await,
            Called::Impossible(error) => self.fail_as_impossible(due, row, &error).await,
        }
    }

    async fn fail_as_impossible(
        &self,
        due: &Due,
        row: &DeliveryRow,
        error: &CallError,
    ) -> Result<Retried, sqlx::Error> {
        let report = Report {
            called: false,
            ..Report::unanswered(error)
        };
        self.fail(due, row, "webhook_impossible", report).await
    }

    async fn delivered(&self, due: &Due, reply: &str, answer: Option<Answer>) -> Result<Retried, sqlx::Error> {
        let mut transaction = self.pool.begin().await?;
        effects::finish(&mut transaction, &due.effect_key, HANDLER, "sent", reply).await?;
        let account = Account {
            status: "delivered",
            is_retry: answer.is_some(),
            report: answer.map_or_else(Report::default, Report::answered),
            next: None,
        };
        write(&mut transaction, due, &account).await?;
        if let Some((reward, _)) = named_by(&due.effect_key) {
            sql::mark_delivered(&mut transaction, reward).await?;
        }
        transaction.commit().await?;
        self.effects.settled(&due.effect_key);
        Ok(Retried::Delivered)
    }

    async fn again(
        &self,
        due: &Due,
        row: &DeliveryRow,
        report: Report,
        asked: Option<Duration>,
    ) -> Result<Retried, sqlx::Error> {
        let Some(wait) = next_wait(due.retries + 1, asked) else {
            self.fail(due, row, "webhook_unreachable", report).await?;
            return Ok(Retried::NotAccepted);
        };
        let account = Account {
            status: "retrying",
            report,
            next: Some(self.now + wait),
            is_retry: true,
        };
        write(&mut *self.pool.acquire().await?, due, &account).await?;
        Ok(Retried::NotAccepted)
    }

    async fn fail(&self, due: &Due, row: &DeliveryRow, reason: &str, report: Report) -> Result<Retried, sqlx::Error> {
        let mut transaction = self.pool.begin().await?;
        // No dead letter follows: the job that it was is done, and a person who gives the reward again begins anew.
        effects::fail(&mut transaction, &due.effect_key, HANDLER, None, reason).await?;
        let account = Account {
            status: "failed",
            is_retry: report.called,
            report,
            next: None,
        };
        write(&mut transaction, due, &account).await?;
        sql::mark_failed(&mut transaction, row.id, Some(row.resend_no), reason).await?;
        transaction.commit().await?;
        Ok(Retried::NotCalled)
    }

    /// The facts do not ask for the call any more. One that was accepted has been made all the same.
    async fn not_wanted(&self, due: &Due, reason: &str) -> Result<Retried, sqlx::Error> {
        match self.effects.standing(&due.effect_key).await? {
            Standing::Accepted(accepted) => self.delivered(due, &accepted.reply, None).await,
            Standing::Leased { remaining } => self.put_off(due, "leased", remaining.max(LEASED_MIN)).await,
            Standing::Idle => self.skip(due, reason).await,
        }
    }

    async fn skip(&self, due: &Due, reason: &str) -> Result<Retried, sqlx::Error> {
        self.not_called(due, "skipped", reason, None).await
    }

    async fn put_off(&self, due: &Due, reason: &str, wait: Duration) -> Result<Retried, sqlx::Error> {
        self.not_called(due, "retrying", reason, Some(self.now + wait)).await
    }

    async fn not_called(
        &self,
        due: &Due,
        status: &str,
        reason: &str,
        next: Option<DateTime<Utc>>,
    ) -> Result<Retried, sqlx::Error> {
        let account = Account {
            status,
            report: Report::waiting(reason),
            next,
            is_retry: false,
        };
        write(&mut *self.pool.acquire().await?, due, &account).await?;
        Ok(Retried::NotCalled)
    }
}

/// Writes the account, unless somebody else has ended the delivery meanwhile.
async fn write(connection: &mut sqlx::PgConnection, due: &Due, account: &Account<'_>) -> Result<(), sqlx::Error> {
    let report = &account.report;
    sqlx::query(
        "UPDATE webhook_deliveries
         SET status = $2, attempts = attempts + $3, retries = retries + $4, next_attempt_at = $5,
             last_code = coalesce($6, last_code), response_excerpt = coalesce($7, response_excerpt), error = $8,
             delivered_at = CASE WHEN $2 = 'delivered' THEN now() END, updated_at = now()
         WHERE id = $1 AND status = 'retrying'",
    )
    .bind(due.id)
    .bind(account.status)
    .bind(i32::from(report.called))
    .bind(i32::from(account.is_retry))
    .bind(account.next)
    .bind(report.code.map(i32::from))
    .bind(&report.excerpt)
    .bind(&report.error)
    .execute(connection)
    .await?;
    Ok(())
}

/// What is due at `now`: at most `limit`, of no endpoint more than `each`. First what was tried least, so that endpoints that
/// are dead for long are behind those that just failed.
pub(crate) async fn due(pool: &PgPool, now: DateTime<Utc>, each: i64, limit: i64) -> Result<Vec<Due>, sqlx::Error> {
    sqlx::query_as(
        "SELECT id, effect_key, webhook_id, retries
         FROM (SELECT id, effect_key, webhook_id, retries, next_attempt_at,
                      row_number() OVER (PARTITION BY webhook_id ORDER BY next_attempt_at, id) AS of_endpoint
               FROM webhook_deliveries WHERE status = 'retrying' AND next_attempt_at <= $1) AS due
         WHERE of_endpoint <= $2
         ORDER BY retries, next_attempt_at, id LIMIT $3",
    )
    .bind(now)
    .bind(each)
    .bind(limit)
    .fetch_all(pool)
    .await
}

/// Puts off whatever else is due of an endpoint that does not answer; that is no call.
pub(crate) async fn put_off(pool: &PgPool, webhook: Uuid, now: DateTime<Utc>) -> Result<u64, sqlx::Error> {
    let put_off = sqlx::query(
        "UPDATE webhook_deliveries SET next_attempt_at = $3, updated_at = now()
         WHERE webhook_id = $1 AND status = 'retrying' AND next_attempt_at <= $2",
    )
    .bind(webhook)
    .bind(now)
    .bind(now + PUT_OFF)
    .execute(pool)
    .await?;
    Ok(put_off.rows_affected())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eight_calls_are_made_and_a_receiver_is_heard() {
        let minutes = |made, asked: Option<u64>| {
            let asked = asked.map(|minutes| Duration::from_secs(minutes * 60));
            next_wait(made, asked).map(|wait| wait.as_secs() / 60)
        };
        let waits: Vec<Option<u64>> = (1..=8).map(|made| minutes(made, None)).collect();
        let hours = [2, 5, 10, 14, 20, 24].map(|hours| Some(hours * 60));
        assert_eq!(waits, [&[Some(30)][..], &hours, &[None]].concat());
        assert_eq!(minutes(1, Some(1)), Some(30));
        assert_eq!(minutes(1, Some(90)), Some(90));
        assert_eq!(minutes(1, Some(9_999)), Some(24 * 60));
        assert_eq!(minutes(8, Some(1)), None);
    }

    #[test]
    fn a_key_names_a_row_and_a_sending() {
        let id = Uuid::from_u128(7);
        assert_eq!(named_by(&format!("reward_webhook:{id}:3")), Some((id, 3)));
        for other in ["reward_webhook:7:3", "welcome:x", &format!("reward_webhook:{id}")] {
            assert_eq!(named_by(other), None, "{other}");
        }
    }
}
