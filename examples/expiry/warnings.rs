//! Mails the warnings that the job wrote.

use std::sync::Arc;

use afterwrite::clients::mailer::{Envelope, Mailer, Refusal, Sent};
use afterwrite::event::change::ChangeEvent;
use afterwrite::event::typed::Timestamp;
use afterwrite::handler::{Context, Handler, HandlerError, Once, Outcome, Route, Spec};
use afterwrite::ledger::effects::{self, Claim};
use async_trait::async_trait;
use chrono::{DateTime, Utc};
use lettre::Address;
use lettre::message::header::{ContentTransferEncoding, ContentType};
use lettre::message::{Mailbox, Message};
use serde::Deserialize;

/// Its name in ledger, configuration and dead letters.
pub(crate) const NAME: &str = "expiry_warnings";

/// `[handlers.expiry_warnings.settings]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Settings {
    /// Whom it is from: `Accounts <accounts@example.com>`.
    pub(crate) from: String,
    /// Where an account is extended.
    pub(crate) extend_url: String,
}

/// A warning as its event tells it.
#[derive(Debug, Deserialize)]
struct Warning {
    account_id: i32,
    expires_at: Timestamp,
}

#[derive(Debug, thiserror::Error)]
enum WarningError {
    #[error("a warning has a date that is none")]
    Date,
    #[error("settings.from or the account's address is none")]
    Address,
    #[error("the mail server refused the mail: {0}")]
    Refused(Refusal),
    #[error("the mail was refused before and waits for the replay of its dead letter")]
    RefusedBefore,
}

/// The handler.
pub(crate) struct Warnings {
    settings: Settings,
    mailer: Arc<dyn Mailer>,
}

impl Warnings {
    pub(crate) fn new(settings: Settings, mailer: Arc<dyn Mailer>) -> Self {
        Self { settings, mailer }
    }

    /// The mail; the recipient stands in it, and is read from it when it is handed over.
    fn render(&self, to: Address, account: i32, expires_at: DateTime<Utc>) -> Result<Vec<u8>, HandlerError> {
        let from: Mailbox = self
            .settings
            .from
            .parse()
            .map_err(|_| HandlerError::permanent(WarningError::Address))?;
        let id = format!("<expiry.{account}.{}@{}>", expires_at.timestamp(), from.email.domain());
        let day = expires_at.format("%Y-%m-%d");
        Message::builder()
            .from(from)
            .to(Mailbox::new(None, to))
            .subject(format!("Your account expires on {day}"))
            .message_id(Some(id))
            .header(ContentTransferEncoding::QuotedPrintable)
            .header(ContentType::TEXT_PLAIN)
            .body(format!(
                "It is deactivated then, unless you extend it:\n\n{}\n",
                self.settings.extend_url
            ))
            .map(|message| message.formatted())
            .map_err(HandlerError::permanent)
    }

    async fn send(&self, to: Address, message: &[u8]) -> Result<String, HandlerError> {
        let from: Mailbox = self
            .settings
            .from
            .parse()
            .map_err(|_| HandlerError::permanent(WarningError::Address))?;
        let envelope = Envelope { from: from.email, to };
        match self.mailer.send_raw(&envelope, message).await {
            Sent::Accepted { reply } => Ok(reply),
            Sent::Unreachable(error) => Err(HandlerError::unreachable("the mail server", error)),
            Sent::Unknown(error) => Err(HandlerError::transient(error)),
            Sent::Refused(refusal) if refusal.code < 500 => {
                Err(HandlerError::transient(WarningError::Refused(refusal)))
            }
            Sent::Refused(refusal) => Err(HandlerError::permanent(WarningError::Refused(refusal))),
        }
    }
}

#[async_trait]
impl Handler for Warnings {
    fn spec(&self) -> Spec {
        Spec::new(NAME, [Route::of("account_warnings")])
    }

    fn wants(&self, event: &ChangeEvent) -> bool {
        event.before().is_none() && event.after().is_some()
    }

    async fn handle(&self, context: &mut Context, _events: &[Arc<ChangeEvent>]) -> Result<Outcome, HandlerError> {
        let Some(event) = context.unsettled().await?.into_iter().next() else {
            return Ok(Outcome::Done);
        };
        let warning: Warning = event.after_as().map_err(HandlerError::permanent)?;
        let Timestamp::At(expires_at) = warning.expires_at else {
            return Err(HandlerError::permanent(WarningError::Date));
        };
        let account = warning.account_id;
        let email: Option<String> =
            sqlx::query_scalar("SELECT email FROM accounts WHERE id = $1 AND status = 'active' AND expires_at = $2")
                .bind(account)
                .bind(expires_at)
                .fetch_optional(context.pool())
                .await?;
        let Some(email) = email else {
            return Ok(Outcome::Skipped("extended"));
        };
        let to: Address = email
            .parse()
            .map_err(|_| HandlerError::permanent(WarningError::Address))?;
        let key = format!("{NAME}:{account}:{}", expires_at.timestamp_micros());
        let rendered = self.render(to.clone(), account, expires_at)?;
        let reply = match context.claim(&key, &rendered).await? {
            Claim::Call { rendered } => match self.send(to, &rendered).await {
                Ok(reply) => reply,
                Err(error) => {
                    if error.fault == afterwrite::handler::Fault::Permanent {
                        let mut transaction = context.pool().begin().await?;
                        effects::fail(&mut transaction, &key, NAME, context.first_event(), "refused").await?;
                        transaction.commit().await?;
                    }
                    return Err(error);
                }
            },
            Claim::Accepted { reply } => reply,
            Claim::Finished { .. } => return Ok(Outcome::Skipped("mailed_before")),
            Claim::Failed { .. } => return Err(HandlerError::permanent(WarningError::RefusedBefore)),
            Claim::Leased { remaining } => return Ok(Outcome::Snooze(remaining)),
        };
        context.accepted(&key, &reply);
        let Some(Once { connection, .. }) = context.once().await? else {
            return Ok(Outcome::Done);
        };
        effects::finish(connection, &key, NAME, "sent", &reply).await?;
        sqlx::query("UPDATE account_warnings SET mailed_at = now() WHERE account_id = $1 AND expires_at = $2")
            .bind(account)
            .bind(expires_at)
            .execute(connection)
            .await?;
        Ok(Outcome::Done)
    }
}
