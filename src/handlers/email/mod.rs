//! Mails: decides by the facts at send time, renders once, and hands the same bytes to the mail server on every try.
//!
//! A mail is an effect: it is claimed under its key with its bytes, sent with no transaction open, and then one
//! transaction writes that it was sent, the account in `email_log`, and what depends on it.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::clients::mailer::{Mailer, Sent};
use crate::event::change::ChangeEvent;
use crate::handler::{Context, Handler, HandlerError, Outcome, Route, Spec};
use crate::handlers::address;
use crate::handlers::email::compose::{Composed, Composer, Mail, Skip};
use crate::handlers::email::left::{LEASE_MIN, Left};
use crate::handlers::email::message::{Finished, Sender};
use crate::handlers::email::rules::{AfterRefusal, Trigger};
use crate::handlers::email::sql::Account;
use crate::handlers::erasure;
use crate::handlers::reward;
use crate::handlers::secret::Secret;
use crate::ledger::effects::{self, Claim, Standing};
use crate::tally::Counter;

pub mod rules;

pub mod templates;

pub mod message;

pub mod links;

pub mod unsubscribe;

mod milestones;

pub mod built_in;

pub mod preview;

mod compose;

mod left;

mod plain;

mod sql;

/// Who discards the letters of a person whom the application deleted.
const FORGOTTEN_BY: &str = "afterwrite, because the row was deleted";

/// How long a mail that is being sent is waited for, before the person is forgotten.
const BEING_SENT: Duration = Duration::from_secs(5);

/// Mails that came to an end in this process, each once, however often it was tried.
pub static MAILS: Counter = Counter::new(
    "mails",
    "Mails that came to an end, by type and by how",
    &["type", "status"],
);

/// What mails need beside the database.
#[derive(Debug, Clone)]
pub struct EmailSettings {
    /// Who writes, where the campaign names nobody.
    pub sender: Sender,
    /// Where links lead.
    pub links: links::Links,
    /// The application's `schema.table` of users, by which dead letters know it.
    pub users_table: String,
}

/// When a mail is made anew whose facts changed while it was made.
const MOVED_ON: Duration = Duration::from_millis(100);

/// This mail failed for good, and its dead letter was not written then.
#[derive(Debug, thiserror::Error)]
#[error("the mail failed for good before; its dead letter is written now")]
struct FailedBefore;

/// The e-mail handler.
pub struct Email {
    routes: Vec<Route>,
    settings: EmailSettings,
    hold_at: u8,
    secret: Secret,
    mailer: Arc<dyn Mailer>,
}

impl std::fmt::Debug for Email {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Email")
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

/// The mail server's no, or its silence.
#[derive(Debug, thiserror::Error)]
enum SendError {
    #[error("the mail server refused for now: {0}")]
    Refused(crate::clients::mailer::Refusal),
    #[error("the mail server refused this mail for good: {0}; replay sends it again")]
    Failed(crate::clients::mailer::Refusal),
    #[error("the mail server takes no mail from this worker: {0}; check sender, credentials and policy")]
    Outage(crate::clients::mailer::Refusal),
    #[error("the mail server did not confirm the mail; it may have been delivered")]
    Unknown(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// How a mail ended.
enum End {
    Sent { reply: String },
    Bounced { reply: String, recipient: lettre::Address },
}

impl Email {
    /// A handler that is woken by these routes and sends through `mailer`. Referrals under a suspicion of `hold_at`
    /// percent and more are not counted in mails.
    pub fn new(
        routes: Vec<Route>,
        settings: EmailSettings,
        hold_at: u8,
        secret: Secret,
        mailer: Arc<dyn Mailer>,
    ) -> Self {
        Self {
            routes,
            settings,
            hold_at,
            secret,
            mailer,
        }
    }

    async fn compose(
        &self,
        context: &Context,
        event: &ChangeEvent,
        trigger: Trigger,
    ) -> Result<Composed, HandlerError> {
        let composer = Composer {
            settings: &self.settings,
            secret: &self.secret,
            hold_at: self.hold_at,
            date: time_of(event),
            replayed: context.replayed(),
        };
        let mut connection = context.pool().acquire().await?;
        composer.compose(&mut connection, trigger).await
    }

    async fn send(&self, context: &mut Context, mut mail: Mail) -> Result<Outcome, HandlerError> {
        // Before the claim, whose lease would run out meanwhile.
        if let Err(wait) = self.mailer.turn().await {
            return Ok(Outcome::Snooze(wait));
        }
        let Some(transaction) = sql::begin(context.pool(), &mail).await? else {
            return Ok(Outcome::Snooze(MOVED_ON));
        };
        let offered = mail.finished.to_stored();
        let claim = context.claim_in(transaction, &mail.effect_key, &offered).await?;
        let rendered = match claim {
            Claim::Call { rendered } => rendered,
            Claim::Accepted { reply } => return self.end(context, &mail, End::Sent { reply }).await,
            Claim::Finished { state } if state == "sent" => return Ok(Outcome::Skipped("already_sent")),
            Claim::Finished { .. } => return Ok(Outcome::Skipped("ended_before")),
            // Its dead letter is not written yet, or the event would be in the ledger.
            Claim::Failed { by } if by == context.first_event() => return Err(HandlerError::permanent(FailedBefore)),
            Claim::Failed { .. } => return Ok(Outcome::Skipped("ended_before")),
            Claim::Leased { remaining } => return Ok(Outcome::Snooze(remaining.max(LEASE_MIN))),
        };
        let stored = Finished::from_stored(&rendered).map_err(HandlerError::permanent)?;
        if stored.envelope.to != mail.finished.envelope.to {
            // Not the address of today: these are the bytes of the first claim.
            mail.recipient = stored.envelope.to.to_string();
        }
        let mail = &mail;
        let refusal = match self.mailer.send_raw(&stored.envelope, &stored.message).await {
            Sent::Accepted { reply } => {
                context.accepted(&mail.effect_key, &reply);
                context.effects().note_accepted(&mail.effect_key, &reply).await?;
                return self.end(context, mail, End::Sent { reply }).await;
            }
            Sent::Unreachable(error) => return Err(HandlerError::unreachable("smtp", error)),
            Sent::Unknown(error) => return Err(HandlerError::transient(SendError::Unknown(error))),
            Sent::Refused(refusal) => refusal,
        };
        match rules::after_refusal(&refusal) {
            AfterRefusal::Retry => Err(HandlerError::transient(SendError::Refused(refusal))),
            AfterRefusal::Outage => Err(HandlerError::unreachable("smtp", SendError::Outage(refusal))),
            AfterRefusal::Bounced => {
                let reply = refusal.to_string();
                let recipient = stored.envelope.to;
                self.end(context, mail, End::Bounced { reply, recipient }).await
            }
            AfterRefusal::Failed => {
                record_failure(context, mail, &refusal.to_string()).await?;
                Err(HandlerError::permanent(SendError::Failed(refusal)))
            }
        }
    }

    /// The last transaction of a mail.
    async fn end(&self, context: &mut Context, mail: &Mail, end: End) -> Result<Outcome, HandlerError> {
        if let End::Sent { reply } = &end {
            context.accepted(&mail.effect_key, reply);
        }
        let handler = context.handler().to_owned();
        let Some(once) = context.once().await? else {
            return Ok(Outcome::Done);
        };
        match end {
            End::Sent { reply } => {
                let line = mail.account("sent", None, Some(&reply));
                let is_new = record_sent(once.connection, &handler, &line, &reply).await?;
                context.count(&MAILS, &[mail.kind.word(), "sent"], is_new.into());
                Ok(Outcome::Done)
            }
            End::Bounced { reply, recipient } => {
                let key = address::suppression_key(&self.secret, recipient.as_ref());
                sql::suppress(once.connection, &key, "bounced").await?;
                effects::finish(once.connection, &mail.effect_key, &handler, "skipped", &reply).await?;
                let line = mail.account("skipped", Some("bounced"), Some(&reply));
                let is_new = sql::account(once.connection, &line).await?;
                fail_reward(once.connection, &mail.effect_key, "bounced").await?;
                context.count(&MAILS, &[mail.kind.word(), "bounced"], is_new.into());
                Ok(Outcome::Skipped("bounced"))
            }
        }
    }

    /// A mail that the facts do not ask for, or not any more.
    async fn skip(&self, context: &mut Context, skip: &Skip) -> Result<Outcome, HandlerError> {
        match context.effects().standing(&skip.effect_key).await? {
            Standing::Idle => {}
            // It may be on its way, and then the account has to say so.
            Standing::Leased { remaining } => return Ok(Outcome::Snooze(remaining.max(LEASE_MIN))),
            Standing::Accepted(accepted) => {
                context.accepted(&skip.effect_key, &accepted.reply);
                let handler = context.handler().to_owned();
                let Some(once) = context.once().await? else {
                    return Ok(Outcome::Done);
                };
                let is_new = skip.left().sent(once.connection, &handler, &accepted).await?;
                context.count(&MAILS, &[skip.kind, "sent"], is_new.into());
                return Ok(Outcome::Done);
            }
        }
        let Some(once) = context.once().await? else {
            return Ok(Outcome::Done);
        };
        let line = Account {
            effect_key: &skip.effect_key,
            campaign_id: skip.campaign_id,
            user_id: skip.user_id,
            kind: skip.kind,
            status: "skipped",
            reason: Some(skip.reason),
            recipient: None,
            subject: None,
            variables: None,
            message_id: None,
            smtp_reply: None,
            sent_at: None,
        };
        if sql::account(once.connection, &line).await? {
            fail_reward(once.connection, &skip.effect_key, skip.reason).await?;
            context.count(&MAILS, &[skip.kind, "skipped"], 1);
        }
        Ok(Outcome::Skipped(skip.reason))
    }
}

impl Skip {
    fn left(&self) -> Left<'_> {
        Left {
            effect_key: &self.effect_key,
            campaign_id: self.campaign_id,
            user_id: self.user_id,
            kind: self.kind,
        }
    }
}

impl Mail {
    fn account<'a>(&'a self, status: &'a str, reason: Option<&'a str>, reply: Option<&'a str>) -> Account<'a> {
        Account {
            effect_key: &self.effect_key,
            campaign_id: self.facts.campaign_id,
            user_id: Some(self.facts.user_id),
            kind: self.kind.word(),
            status,
            reason,
            recipient: Some(&self.recipient),
            subject: Some(&self.subject),
            variables: Some(&self.variables),
            message_id: Some(&self.message_id),
            smtp_reply: reply,
            sent_at: None,
        }
    }
}

/// A mail that the mail server accepted: its effect, its account, and the reward that it hands over. Answers whether the
/// account did not say so before.
async fn record_sent(
    connection: &mut PgConnection,
    handler: &str,
    line: &Account<'_>,
    reply: &str,
) -> Result<bool, sqlx::Error> {
    effects::finish(connection, line.effect_key, handler, "sent", reply).await?;
    let is_new = sql::account(connection, line).await?;
    if let Some((id, _)) = rules::reward_of_key(line.effect_key) {
        reward::sql::mark_delivered(connection, id).await?;
    }
    Ok(is_new)
}

/// A mail that will not be sent fails the reward it would have handed over, unless the reward was taken back or is
/// announced anew meanwhile.
async fn fail_reward(connection: &mut PgConnection, effect_key: &str, reason: &str) -> Result<(), sqlx::Error> {
    match rules::reward_of_key(effect_key) {
        Some((id, resend_no)) => reward::sql::mark_failed(connection, id, Some(resend_no), reason).await,
        None => Ok(()),
    }
}

/// In a transaction of its own: the error that follows rolls the attempt's own back. The effect stays failed until a
/// replay opens it again.
async fn record_failure(context: &Context, mail: &Mail, reply: &str) -> Result<(), sqlx::Error> {
    let mut transaction = context.pool().begin().await?;
    effects::fail(
        &mut transaction,
        &mail.effect_key,
        context.handler(),
        context.first_event(),
        reply,
    )
    .await?;
    sql::account(&mut transaction, &mail.account("failed", Some("refused"), Some(reply))).await?;
    fail_reward(&mut transaction, &mail.effect_key, "mail_refused").await?;
    transaction.commit().await?;
    MAILS.add(&[mail.kind.word(), "failed"], 1);
    Ok(())
}

/// When the change was committed: the mail's date, the same however often it is rendered.
fn time_of(event: &ChangeEvent) -> SystemTime {
    let committed = event.origin().commit_ts_ms.and_then(|ms| u64::try_from(ms).ok());
    committed.map_or_else(SystemTime::now, |ms| SystemTime::UNIX_EPOCH + Duration::from_millis(ms))
}

impl Email {
    /// Forgets a person whom the application deleted. What is being sent at this moment is waited for.
    async fn forget(&self, context: &mut Context, user: Uuid) -> Result<Outcome, HandlerError> {
        let Some(once) = context.once().await? else {
            return Ok(Outcome::Done);
        };
        let table = &self.settings.users_table;
        let erased = erasure::erase(once.connection, user, table, FORGOTTEN_BY).await?;
        Ok(match erased.is_whole() {
            true => Outcome::Done,
            false => Outcome::Snooze(BEING_SENT),
        })
    }
}

#[async_trait]
impl Handler for Email {
    fn spec(&self) -> Spec {
        Spec {
            name: "email".to_owned(),
            routes: self.routes.clone(),
            coalesce_max: 1,
            attempt_timeout: None,
        }
    }

    fn wants(&self, event: &ChangeEvent) -> bool {
        rules::trigger(event).is_some()
    }

    async fn handle(&self, context: &mut Context, events: &[Arc<ChangeEvent>]) -> Result<Outcome, HandlerError> {
        if context.unsettled().await?.is_empty() {
            return Ok(Outcome::Done);
        }
        let mut outcome = Outcome::Skipped("not_concerned");
        // One at a time by its spec.
        for event in events.iter().take(1) {
            let Some(trigger) = rules::trigger(event) else {
                continue;
            };
            if let Trigger::Gone(user) = trigger {
                return self.forget(context, user).await;
            }
            if let Trigger::Milestone(milestone) = trigger {
                outcome = milestones::queue_page(context, milestone, self.settings.links.public_url.is_some()).await?;
                continue;
            }
            let composed = self.compose(context, event, trigger).await?;
            if let (Some(user), Some(key)) = (trigger.first_mail_of(), composed.effect_key())
                && let Some(wait) = left::end_others(context, user, key).await?
            {
                return Ok(Outcome::Snooze(wait));
            }
            outcome = match composed {
                Composed::Nothing(reason) => Outcome::Skipped(reason),
                Composed::Skip(skip) => self.skip(context, &skip).await?,
                Composed::Mail(mail) => self.send(context, *mail).await?,
            };
        }
        Ok(outcome)
    }
}
