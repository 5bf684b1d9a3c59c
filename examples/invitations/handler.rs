//! Mails invitations.

use std::sync::Arc;

use afterwrite::clients::mailer::{Envelope, Mailer, Refusal, Sent, Step};
use afterwrite::event::change::ChangeEvent;
use afterwrite::handler::{Context, Handler, HandlerError, Once, Outcome, Route, Spec};
use afterwrite::ledger::effects::{self, Claim};
use async_trait::async_trait;
use uuid::Uuid;

use crate::mail::{Facts, Settings, kept, render};

/// What it reads and writes: both are the application's. `token` need not be captured: it is read when the mail is made.
#[cfg(all(test, feature = "testkit"))]
pub(crate) const TABLES: &str = "
    CREATE TABLE teams (id int PRIMARY KEY, name text NOT NULL);
    CREATE TABLE invitations (
        id uuid PRIMARY KEY, team_id int NOT NULL REFERENCES teams, email text NOT NULL, token text NOT NULL,
        status text NOT NULL DEFAULT 'pending' CHECK (status IN ('pending', 'accepted', 'revoked', 'undeliverable')),
        mailed_at timestamptz);
    ALTER TABLE invitations REPLICA IDENTITY FULL;";

/// Its name in ledger, configuration and dead letters.
pub(crate) const NAME: &str = "invitations";

/// The handler.
pub(crate) struct Invitations {
    settings: Settings,
    mailer: Arc<dyn Mailer>,
}

#[derive(Debug, thiserror::Error)]
enum MailRefused {
    /// Codes only: the text of a reply often quotes the address.
    #[error("the mail server refused the mail: {0}")]
    Now(Refusal),
    #[error("the mail was refused before and waits for the replay of its dead letter")]
    Before,
}

impl Invitations {
    pub(crate) fn new(settings: Settings, mailer: Arc<dyn Mailer>) -> Self {
        Self { settings, mailer }
    }

    async fn facts(&self, context: &Context, invitation: Uuid) -> Result<Option<Facts>, HandlerError> {
        let facts = sqlx::query_as(
            "SELECT i.id, i.email, t.name AS team, i.token FROM invitations i JOIN teams t ON t.id = i.team_id
             WHERE i.id = $1 AND i.status = 'pending'",
        )
        .bind(invitation)
        .fetch_optional(context.pool())
        .await?;
        Ok(facts)
    }

    /// Hands the mail over; answers what the server replied.
    async fn send(&self, rendered: &[u8]) -> Result<String, HandlerError> {
        let (to, message) = kept(rendered).map_err(HandlerError::permanent)?;
        let envelope = Envelope {
            from: self.settings.from.email.clone(),
            to,
        };
        match self.mailer.send_raw(&envelope, message).await {
            Sent::Accepted { reply } => Ok(reply),
            // Nothing was sent, and no mail would be: an outage.
            Sent::Unreachable(error) => Err(HandlerError::unreachable("the mail server", error)),
            // It may have been sent: once more, with the same bytes and the same Message-ID.
            Sent::Unknown(error) => Err(HandlerError::transient(error)),
            Sent::Refused(refusal) if (400..500).contains(&refusal.code) => {
                Err(HandlerError::transient(MailRefused::Now(refusal)))
            }
            // Whoever refuses the sender refuses every mail: not this one's fault.
            Sent::Refused(refusal) if refusal.step == Step::Sender => {
                Err(HandlerError::unreachable("the mail server", MailRefused::Now(refusal)))
            }
            Sent::Refused(refusal) => Err(HandlerError::permanent(MailRefused::Now(refusal))),
        }
    }

    /// A refusal for good: the effect has failed, and the application sees it, whether or not the process lives to write the letter.
    async fn undeliverable(&self, context: &Context, key: &str, invitation: Uuid) -> Result<(), HandlerError> {
        let mut transaction = context.pool().begin().await?;
        effects::fail(&mut transaction, key, NAME, context.first_event(), "refused").await?;
        sqlx::query("UPDATE invitations SET status = 'undeliverable' WHERE id = $1 AND status = 'pending'")
            .bind(invitation)
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        Ok(())
    }
}

#[async_trait]
impl Handler for Invitations {
    fn spec(&self) -> Spec {
        Spec::new(NAME, [Route::of("invitations")])
    }

    /// New invitations, and those that were made pending again, such as after the address was corrected.
    fn wants(&self, event: &ChangeEvent) -> bool {
        event.changed("status") && event.after().and_then(|row| row.text("status")) == Some("pending")
    }

    async fn handle(&self, context: &mut Context, _events: &[Arc<ChangeEvent>]) -> Result<Outcome, HandlerError> {
        let Some(event) = context.unsettled().await?.into_iter().next() else {
            return Ok(Outcome::Done);
        };
        let id = event.after().and_then(|row| row.text("id")?.parse::<Uuid>().ok());
        let id = id.ok_or_else(|| HandlerError::permanent("the row has no id"))?;
        // Read when the mail is made, not when the row was written: it may be revoked by now.
        let Some(facts) = self.facts(context, id).await? else {
            return Ok(Outcome::Skipped("not_pending"));
        };
        // One invitation that is made pending again is mailed again: the event is part of the key, and the same when it is repeated.
        let key = format!(
            "{NAME}:{id}:{}",
            event.id().map(|id| id.to_string()).unwrap_or_default()
        );
        let rendered = render(&facts, &self.settings).map_err(HandlerError::permanent)?;
        let reply = match context.claim(&key, &rendered).await? {
            Claim::Call { rendered } => match self.send(&rendered).await {
                Ok(reply) => reply,
                Err(error) => {
                    if error.fault == afterwrite::handler::Fault::Permanent {
                        self.undeliverable(context, &key, id).await?;
                    }
                    return Err(error);
                }
            },
            Claim::Accepted { reply } => reply,
            Claim::Finished { .. } => return Ok(Outcome::Skipped("mailed_before")),
            Claim::Failed { .. } => return Err(HandlerError::permanent(MailRefused::Before)),
            Claim::Leased { remaining } => return Ok(Outcome::Snooze(remaining)),
        };
        context.accepted(&key, &reply);
        let Some(Once { connection, .. }) = context.once().await? else {
            return Ok(Outcome::Done);
        };
        effects::finish(connection, &key, NAME, "sent", &reply).await?;
        sqlx::query("UPDATE invitations SET mailed_at = now() WHERE id = $1")
            .bind(id)
            .execute(connection)
            .await?;
        Ok(Outcome::Done)
    }
}
