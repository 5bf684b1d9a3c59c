//! Delivers earned rewards: queues the mail, calls the webhook, or leaves it to a person. Nothing is called delivered
//! before the mail server or the receiver has accepted it.

use std::time::Duration;

use chrono::{SecondsFormat, Utc};
use serde_json::{Value, json};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::clients::webhook::{Answer, CallError, Called, Caller};
use crate::handler::{Context, HandlerError};
use crate::handlers::email::rules as mail;
use crate::handlers::reward::promise::Terms;
use crate::handlers::reward::sql::{self, DeliveryRow, Report};
use crate::handlers::secret::Secret;
use crate::ledger::effects::{self, Claim, Standing};

/// After so long the schedule makes its first attempt.
const FIRST_RETRY: Duration = Duration::from_secs(300);

/// A lease that is almost over is waited for as long as this.
const LEASE_MIN: Duration = Duration::from_secs(1);

/// When a call is prepared anew whose facts changed while it was prepared.
const MOVED_ON: Duration = Duration::from_millis(100);

/// A receiver that asks for a longer wait than this is called again by the schedule.
const WAIT_MAX: Duration = Duration::from_secs(120);

/// What the transaction has to write about one reward.
#[derive(Debug)]
pub(super) enum Prepared {
    /// Nothing, for this reason.
    Nothing(&'static str),
    /// Nothing yet: another worker makes the call.
    Busy(Duration),
    /// This sending ended before without success, and a person wants it again: under a new number.
    Renumber(Box<DeliveryRow>),
    /// Decide in the transaction: queue the mail, or fill in what a manual row lacks.
    Inside(Box<DeliveryRow>),
    /// The receiver accepted.
    Called {
        row: Box<DeliveryRow>,
        reply: String,
        answer: Option<Answer>,
    },
    /// The schedule calls again.
    Later { row: Box<DeliveryRow>, report: Report },
}

/// A reward that cannot be delivered as things stand.
#[derive(Debug, thiserror::Error)]
#[error("the reward could not be delivered ({reason}); correct the webhook, then replay")]
struct Undeliverable {
    reason: &'static str,
    #[source]
    source: Option<CallError>,
}

/// The receiver did not accept, and may later.
#[derive(Debug, thiserror::Error)]
enum NotAccepted {
    #[error("the webhook answered {0}")]
    Status(u16),
    #[error("the webhook did not take the call")]
    NoAnswer(#[source] CallError),
}

/// Delivers by these means.
#[derive(Debug)]
pub(super) struct Delivering<'a> {
    pub(super) caller: &'a dyn Caller,
    pub(super) secret: &'a Secret,
    /// Attempts of one job, then the schedule takes over.
    pub(super) attempts_max: u32,
}

impl std::fmt::Debug for dyn Caller {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("Caller")
    }
}

impl Delivering<'_> {
    /// Everything that happens before the transaction: reads the facts, and makes the call where there is one to make.
    pub(super) async fn prepare(&self, context: &mut Context, id: Uuid) -> Result<Prepared, HandlerError> {
        let mut connection = context.pool().acquire().await?;
        let found = sql::delivery(&mut connection, id).await?;
        drop(connection);
        let Some(row) = found else {
            return Ok(Prepared::Nothing("reward_gone"));
        };
        if row.status == "failed" && !context.replayed() && row.delivery_method() == "webhook" {
            // Its dead letter is not written yet, or the event would be in the ledger.
            return Err(HandlerError::permanent(Undeliverable {
                reason: "failed_before",
                source: None,
            }));
        }
        let again = row.status == "failed" && context.replayed();
        if row.resend_no > 0
            && let Some(wait) = end_earlier(context, &row).await?
        {
            return Ok(Prepared::Busy(wait));
        }
        if row.status != "earned" && !again {
            return not_called(context, row, "not_earned").await;
        }
        if row.campaign_deleted || row.campaign_status == "draft" {
            return not_called(context, row, "campaign_not_active").await;
        }
        let row = Box::new(row);
        if row.delivered_at.is_some() || row.delivery_method() != "webhook" {
            return Ok(Prepared::Inside(row));
        }
        self.call(context, row).await
    }

    async fn call(&self, context: &mut Context, row: Box<DeliveryRow>) -> Result<Prepared, HandlerError> {
        let Some(webhook) = row.webhook() else {
            return Err(fail(context, &row, "webhook_missing", None, None).await);
        };
        match webhook.status.as_str() {
            "active" => {}
            "paused" => return Ok(later(row, Report::waiting("webhook_paused"), FIRST_RETRY)),
            _ => return Err(fail(context, &row, "webhook_disabled", None, None).await),
        }
        let key = effect_key(&row);
        let body = self.body(&row).to_string().into_bytes();
        let Some(transaction) = sql::begin(context.pool(), &key, &row, None).await? else {
            return Ok(Prepared::Busy(MOVED_ON));
        };
        let claim = context.claim_in(transaction, &key, &body).await?;
        let rendered = match claim {
            Claim::Call { rendered } => rendered,
            Claim::Accepted { reply } => {
                context.accepted(&key, &reply);
                let answer = None;
                return Ok(Prepared::Called { row, reply, answer });
            }
            Claim::Finished { state } if state == "sent" => {
                let (reply, answer) = (state, None);
                return Ok(Prepared::Called { row, reply, answer });
            }
            Claim::Finished { .. } | Claim::Failed { .. } => return Ok(Prepared::Renumber(row)),
            Claim::Leased { remaining } => return Ok(Prepared::Busy(remaining.max(LEASE_MIN))),
        };
        match self.caller.call(&webhook.call(&key, rendered)).await {
            Called::Delivered(answer) => {
                let reply = answer.code.to_string();
                context.accepted(&key, &reply);
                context.effects().note_accepted(&key, &reply).await?;
                let answer = Some(answer);
                Ok(Prepared::Called { row, reply, answer })
            }
            Called::Refused { answer, .. } if answer.code == 410 => {
                let mut connection = context.pool().acquire().await?;
                sql::disable_webhook(&mut connection, webhook.id, "the endpoint answered 410 Gone").await?;
                drop(connection);
                Err(fail(context, &row, "webhook_gone", Some(answer), None).await)
            }
            Called::Refused { answer, retry_after } => {
                let error = NotAccepted::Status(answer.code);
                self.again(context, row, Report::answered(answer), retry_after, error)
                    .await
            }
            Called::Failed(error) => {
                self.again(
                    context,
                    row,
                    Report::unanswered(&error),
                    None,
                    NotAccepted::NoAnswer(error),
                )
                .await
            }
            Called::Impossible(error) => Err(fail(context, &row, "webhook_impossible", None, Some(error)).await),
        }
    }

    /// Another attempt of this job, or a place in the schedule.
    async fn again(
        &self,
        context: &Context,
        row: Box<DeliveryRow>,
        report: Report,
        asked: Option<Duration>,
        error: NotAccepted,
    ) -> Result<Prepared, HandlerError> {
        let asked_too_much = asked.is_some_and(|wait| wait > WAIT_MAX);
        if asked_too_much || context.attempt() >= self.attempts_max {
            return Ok(later(row, report, asked.unwrap_or(FIRST_RETRY).max(FIRST_RETRY)));
        }
        // In a transaction of its own: the attempt's own is rolled back with its error.
        let mut connection = context.pool().acquire().await?;
        sql::report(&mut connection, &effect_key(&row), &row, "sending", &report, None).await?;
        Err(match asked {
            Some(wait) => HandlerError::retry_after(wait, error),
            None => HandlerError::transient(error),
        })
    }

    pub(super) fn body(&self, row: &DeliveryRow) -> Value {
        json!({
            "type": "reward.earned",
            "timestamp": row.earned_at.unwrap_or(row.created_at).to_rfc3339_opts(SecondsFormat::Millis, true),
            "data": {
                "user_reward_id": row.id,
                "campaign_id": row.campaign_id,
                "reward_id": row.terms.reward_id,
                "user_id": row.user_id,
                "ordinal": row.ordinal,
                "code": self.code(row),
                "reward": row.promised("name").unwrap_or_else(|| json!(row.terms.name)),
                "value": row.promised_config("value"),
                "expires_at": row.expires_at,
            },
        })
    }

    fn code(&self, row: &DeliveryRow) -> String {
        row.code
            .clone()
            .unwrap_or_else(|| row.terms.code(self.secret, row.user_id, i64::from(row.ordinal)))
    }

    /// The transaction's part.
    pub(super) async fn write(
        &self,
        connection: &mut PgConnection,
        handler: &str,
        prepared: &Prepared,
    ) -> Result<Option<&'static str>, sqlx::Error> {
        match prepared {
            Prepared::Nothing(reason) => Ok(Some(reason)),
            Prepared::Busy(_) => Ok(Some("leased")),
            Prepared::Renumber(row) => {
                sql::renumber(connection, row.id, row.resend_no).await?;
                Ok(None)
            }
            Prepared::Inside(row) => self.write_inside(connection, row).await,
            Prepared::Called { row, reply, answer } => {
                let key = effect_key(row);
                self.complete(connection, row).await?;
                effects::finish(connection, &key, handler, "sent", reply).await?;
                let report = answer.clone().map_or_else(Report::default, Report::answered);
                sql::report(connection, &key, row, "delivered", &report, None).await?;
                sql::mark_delivered(connection, row.id).await?;
                Ok(None)
            }
            Prepared::Later { row, report } => {
                self.complete(connection, row).await?;
                sql::report(
                    connection,
                    &effect_key(row),
                    row,
                    "retrying",
                    report,
                    report.again_after,
                )
                .await?;
                Ok(None)
            }
        }
    }

    async fn write_inside(
        &self,
        connection: &mut PgConnection,
        row: &DeliveryRow,
    ) -> Result<Option<&'static str>, sqlx::Error> {
        if !sql::lock_earned(connection, row.id, row.resend_no).await? {
            return Ok(Some("not_earned"));
        }
        self.complete(connection, row).await?;
        if row.delivered_at.is_some() {
            // Given back after it had been delivered: the receiver has it already.
            sql::mark_delivered(connection, row.id).await?;
            return Ok(None);
        }
        if row.delivery_method() != "email" {
            return Ok(Some("delivered_by_hand"));
        }
        let key = mail::reward_key(row.id, row.resend_no);
        if !sql::queue_mail(connection, &key, row).await? {
            sql::renumber(connection, row.id, row.resend_no).await?;
        }
        Ok(None)
    }

    /// A row that a person made may lack its code and its snapshot.
    async fn complete(&self, connection: &mut PgConnection, row: &DeliveryRow) -> Result<(), sqlx::Error> {
        if row.code.is_some() && row.snapshot.is_some() && row.earned_at.is_some() {
            return Ok(());
        }
        let terms: &Terms = &row.terms;
        sql::complete(
            connection,
            row.id,
            &self.code(row),
            &terms.snapshot(&[]),
            terms.expires_at(Utc::now()),
        )
        .await
    }
}

fn effect_key(row: &DeliveryRow) -> String {
    format!("reward_webhook:{}:{}", row.id, row.resend_no)
}

/// The facts do not ask for the call of this row. One that was begun before ends as what it was.
async fn not_called(context: &mut Context, row: DeliveryRow, reason: &'static str) -> Result<Prepared, HandlerError> {
    if row.delivery_method() != "webhook" {
        return Ok(Prepared::Nothing(reason));
    }
    let key = effect_key(&row);
    match context.effects().standing(&key).await? {
        // It may be on its way, and then the account has to say so.
        Standing::Leased { remaining } => Ok(Prepared::Busy(remaining.max(LEASE_MIN))),
        Standing::Accepted(accepted) => {
            context.accepted(&key, &accepted.reply);
            Ok(Prepared::Called {
                row: Box::new(row),
                reply: accepted.reply,
                answer: None,
            })
        }
        Standing::Idle => {
            sql::end_begun(
                &mut *context.pool().acquire().await?,
                &key,
                "skipped",
                Some(reason),
                None,
            )
            .await?;
            Ok(Prepared::Nothing(reason))
        }
    }
}

/// A person asked for the delivery to be repeated while an earlier sending had no end: it ends as what it was. Answers how long
/// to wait for one that may be on its way.
async fn end_earlier(context: &Context, row: &DeliveryRow) -> Result<Option<Duration>, HandlerError> {
    for key in sql::begun_before(context.pool(), row).await? {
        match context.effects().standing(&key).await? {
            Standing::Leased { remaining } => return Ok(Some(remaining.max(LEASE_MIN))),
            Standing::Idle => {
                let mut connection = context.pool().acquire().await?;
                sql::end_begun(&mut connection, &key, "skipped", Some("superseded"), None).await?;
            }
            Standing::Accepted(accepted) => {
                let mut transaction = context.pool().begin().await?;
                effects::finish(&mut transaction, &key, context.handler(), "sent", &accepted.reply).await?;
                sql::end_begun(&mut transaction, &key, "delivered", None, Some(accepted.at)).await?;
                transaction.commit().await?;
                context.effects().settled(&key);
            }
        }
    }
    Ok(None)
}

fn later(row: Box<DeliveryRow>, report: Report, wait: Duration) -> Prepared {
    let report = Report {
        again_after: Some(wait),
        ..report
    };
    Prepared::Later { row, report }
}

/// Records a permanent failure in a transaction of its own and answers the error that makes it a dead letter.
async fn fail(
    context: &Context,
    row: &DeliveryRow,
    reason: &'static str,
    answer: Option<Answer>,
    source: Option<CallError>,
) -> HandlerError {
    let report = match (answer, &source) {
        (Some(answer), _) => Report::answered(answer),
        (None, Some(error)) => Report::unanswered(error),
        (None, None) => Report::waiting(reason),
    };
    match record_failure(context, row, reason, &report).await {
        Ok(()) => HandlerError::permanent(Undeliverable { reason, source }),
        Err(error) => error.into(),
    }
}

async fn record_failure(
    context: &Context,
    row: &DeliveryRow,
    reason: &str,
    report: &Report,
) -> Result<(), sqlx::Error> {
    let key = effect_key(row);
    let mut transaction = context.pool().begin().await?;
    effects::fail(&mut transaction, &key, context.handler(), context.first_event(), reason).await?;
    match row.terms_webhook {
        Some(_) => sql::report(&mut transaction, &key, row, "failed", report, None).await?,
        None => sql::end_begun(&mut transaction, &key, "failed", Some(reason), None).await?,
    }
    sql::mark_failed(&mut transaction, row.id, Some(row.resend_no), reason).await?;
    transaction.commit().await
}
