//! Mails that were begun and have no end: the process died over them, or their last try failed, and the facts of now ask for
//! another mail or for none.
//!
//! Whether such a mail was sent is known when the mail server's yes was written down; else nobody knows, and the account says
//! that it is not tried any more. The account is no decision: the effect stays, and an event that asks for the same mail once
//! more gets it, with the bytes of the first try.

use std::time::Duration;

use sqlx::PgConnection;
use uuid::Uuid;

use crate::handler::{Context, HandlerError};
use crate::handlers::email::message::{self, Finished};
use crate::handlers::email::rules::Kind;
use crate::handlers::email::sql::{self, Account};
use crate::ledger::effects::{Accepted, Standing};

/// Why the account of a mail ends whose user is asked by another one, where nobody knows whether it was sent.
const SUPERSEDED: &str = "superseded";

/// A lease that is almost over is waited for as long as this.
pub(super) const LEASE_MIN: Duration = Duration::from_secs(1);

/// One of them.
pub(super) struct Left<'a> {
    pub(super) effect_key: &'a str,
    pub(super) campaign_id: Uuid,
    pub(super) user_id: Option<Uuid>,
    pub(super) kind: &'a str,
}

impl Left<'_> {
    /// Writes that it was sent, from what is kept of it. Answers whether the account did not say so before.
    pub(super) async fn sent(
        &self,
        connection: &mut PgConnection,
        handler: &str,
        accepted: &Accepted,
    ) -> Result<bool, HandlerError> {
        let Finished { envelope, .. } = Finished::from_stored(&accepted.rendered).map_err(HandlerError::permanent)?;
        let line = Account {
            effect_key: self.effect_key,
            campaign_id: self.campaign_id,
            user_id: self.user_id,
            kind: self.kind,
            status: "sent",
            reason: None,
            recipient: Some(envelope.to.as_ref()),
            subject: None,
            variables: None,
            message_id: Some(&message::message_id(self.effect_key, envelope.from.domain())),
            smtp_reply: Some(&accepted.reply),
            sent_at: Some(accepted.at),
        };
        Ok(super::record_sent(connection, handler, &line, &accepted.reply).await?)
    }
}

/// Ends the first mails and greetings of a user that were begun, but for the one of this key: changes of one user come one
/// after the other, so nobody else works on them. Answers how long to wait for one that may be on its way at this moment, from
/// a process that does not know yet that it is not the owner any more.
pub(super) async fn end_others(context: &Context, user: Uuid, but_for: &str) -> Result<Option<Duration>, HandlerError> {
    for begun in sql::begun(context.pool(), user, but_for).await? {
        let key = &begun.effect_key;
        match context.effects().standing(key).await? {
            Standing::Leased { remaining } => return Ok(Some(remaining.max(LEASE_MIN))),
            Standing::Idle => sql::supersede(context.pool(), key, SUPERSEDED).await?,
            Standing::Accepted(accepted) => {
                let left = Left {
                    effect_key: key,
                    campaign_id: begun.campaign_id,
                    user_id: Some(user),
                    kind: &begun.kind,
                };
                let mut transaction = context.pool().begin().await?;
                let is_new = left.sent(&mut transaction, context.handler(), &accepted).await?;
                transaction.commit().await?;
                if let (true, Some(kind)) = (is_new, Kind::of_word(&begun.kind)) {
                    super::MAILS.add(&[kind.word(), "sent"], 1);
                }
                context.effects().settled(key);
            }
        }
    }
    Ok(None)
}
