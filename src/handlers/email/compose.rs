//! From a trigger to a finished mail, or to the reason why there is none: reads the facts as they are now.

use std::time::SystemTime;

use serde_json::Value;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::handler::HandlerError;
use crate::handlers::address;
use crate::handlers::email::message::{self, Finished, MessageError, Sender};
use crate::handlers::email::rules::{self, Facts, Kind, Trigger};
use crate::handlers::email::sql::{self, RewardFacts, Wanted};
use crate::handlers::email::templates::{self, Source, Variables};
use crate::handlers::email::{EmailSettings, FailedBefore};
use crate::handlers::secret::Secret;

/// What became of a trigger.
pub(super) enum Composed {
    /// Nothing to send and nothing to write down, for this reason.
    Nothing(&'static str),
    /// A mail that is not sent.
    Skip(Skip),
    /// A mail.
    Mail(Box<Mail>),
}

/// A mail that is not sent, and why.
pub(super) struct Skip {
    pub(super) effect_key: String,
    pub(super) campaign_id: Uuid,
    pub(super) user_id: Option<Uuid>,
    pub(super) kind: &'static str,
    pub(super) reason: &'static str,
}

/// A mail, ready to send.
pub(super) struct Mail {
    pub(super) effect_key: String,
    pub(super) kind: Kind,
    pub(super) campaign_id: Uuid,
    pub(super) user_id: Uuid,
    pub(super) recipient: String,
    pub(super) subject: String,
    pub(super) variables: Value,
    pub(super) message_id: String,
    pub(super) finished: Finished,
}

/// Composes mails from facts.
pub(super) struct Composer<'a> {
    pub(super) settings: &'a EmailSettings,
    pub(super) secret: &'a Secret,
    pub(super) hold_at: u8,
    pub(super) date: SystemTime,
    /// A replay also sends what had failed.
    pub(super) replayed: bool,
}

impl Composer<'_> {
    pub(super) async fn compose(
        &self,
        connection: &mut PgConnection,
        trigger: Trigger,
    ) -> Result<Composed, HandlerError> {
        match trigger {
            Trigger::Queued(id) => self.queued(connection, id).await,
            Trigger::First { user, .. } | Trigger::Verification(user) | Trigger::Welcome(user) => {
                let Some(facts) = sql::facts(connection, user).await? else {
                    return Ok(Composed::Nothing("user_gone"));
                };
                let Some(kind) = rules::kind(trigger, &facts) else {
                    return Ok(Composed::Nothing("not_concerned"));
                };
                let key = rules::user_key(kind, &facts, self.secret);
                self.one(connection, &facts, kind, key, None).await
            }
        }
    }

    async fn queued(&self, connection: &mut PgConnection, id: Uuid) -> Result<Composed, HandlerError> {
        let Some(row) = sql::queued(connection, id).await? else {
            return Ok(Composed::Nothing("row_gone"));
        };
        if row.status == "failed" && !self.replayed {
            return Err(HandlerError::permanent(FailedBefore));
        }
        let again = row.status == "failed";
        if row.status != "queued" && !again {
            return Ok(Composed::Nothing("not_queued"));
        }
        let skip = |kind: &'static str, reason: &'static str| {
            Composed::Skip(Skip {
                effect_key: row.effect_key.clone(),
                campaign_id: row.campaign_id,
                user_id: row.user_id,
                kind,
                reason,
            })
        };
        if row.kind != Kind::RewardEarned.word() {
            return Ok(Composed::Nothing("type_not_sent"));
        }
        let kind = Kind::RewardEarned;
        let Some((reward_id, resend_no)) = rules::reward_of_key(&row.effect_key) else {
            return Ok(skip(kind.word(), "reward_unknown"));
        };
        let Some(reward) = sql::reward(connection, reward_id).await? else {
            return Ok(skip(kind.word(), "reward_gone"));
        };
        if reward.resend_no != resend_no {
            return Ok(skip(kind.word(), "sent_anew"));
        }
        if reward.status != "earned" && !(again && reward.status == "failed") {
            return Ok(skip(kind.word(), "reward_not_earned"));
        }
        let facts = match row.user_id {
            Some(user) => sql::facts(connection, user).await?,
            None => None,
        };
        match facts {
            Some(facts) => {
                self.one(connection, &facts, kind, row.effect_key.clone(), Some(&reward))
                    .await
            }
            None => Ok(skip(kind.word(), "user_gone")),
        }
    }

    async fn one(
        &self,
        connection: &mut PgConnection,
        facts: &Facts,
        kind: Kind,
        effect_key: String,
        reward: Option<&RewardFacts>,
    ) -> Result<Composed, HandlerError> {
        let skip = |effect_key: String, reason| {
            Composed::Skip(Skip {
                effect_key,
                campaign_id: facts.campaign_id,
                user_id: Some(facts.user_id),
                kind: kind.word(),
                reason,
            })
        };
        if let Some(reason) = rules::obstacle(kind, facts) {
            return Ok(skip(effect_key, reason));
        }
        let suppressed = address::suppression_key(self.secret, &facts.email);
        if sql::suppression(connection, &suppressed, facts.campaign_id)
            .await?
            .is_some()
        {
            return Ok(skip(effect_key, "suppressed"));
        }
        let source = match sql::template(connection, facts.campaign_id, kind.word()).await? {
            Some((_, false)) => return Ok(skip(effect_key, "template_disabled")),
            Some((source, true)) => source,
            None => templates::built_in(kind),
        };
        let variables = self.variables(connection, facts, kind, &source, reward).await?;
        let content = templates::render(kind, &source, &variables).map_err(HandlerError::permanent)?;
        let subject = content.subject.clone();
        let sender = self.sender(facts);
        match message::build(&effect_key, &sender, &facts.email, content, self.date) {
            Ok(finished) => Ok(Composed::Mail(Box::new(Mail {
                message_id: message::message_id(&effect_key, finished.envelope.from.domain()),
                effect_key,
                kind,
                campaign_id: facts.campaign_id,
                user_id: facts.user_id,
                recipient: facts.email.clone(),
                subject,
                variables: variables.to_json(),
                finished,
            }))),
            Err(MessageError::Recipient) => Ok(skip(effect_key, "address_invalid")),
            Err(error) => Err(HandlerError::permanent(error)),
        }
    }

    async fn variables(
        &self,
        connection: &mut PgConnection,
        facts: &Facts,
        kind: Kind,
        source: &Source,
        reward: Option<&RewardFacts>,
    ) -> Result<Variables, HandlerError> {
        let used = templates::used(kind, source).map_err(HandlerError::permanent)?;
        let wanted = Wanted {
            position: used.contains("position"),
            referrals: used.contains("referral_count"),
            signups: used.contains("total_signups"),
        };
        let figures = sql::figures(connection, facts.user_id, wanted, self.hold_at).await?;
        let links = &self.settings.links;
        let mut variables = Variables::default();
        let mut set = |name: &'static str, value: Option<String>| {
            if let Some(value) = value.filter(|_| used.contains(name)) {
                variables.set(name, value);
            }
        };
        set("first_name", facts.first_name.clone());
        set("last_name", facts.last_name.clone());
        set("email", Some(facts.email.clone()));
        set("referral_code", Some(facts.referral_code.clone()));
        set(
            "referral_link",
            Some(links.referral(&facts.referral_code, &facts.campaign_slug)),
        );
        set("campaign_name", Some(facts.campaign_name.clone()));
        set("campaign_slug", Some(facts.campaign_slug.clone()));
        let token = facts
            .verification_token
            .as_deref()
            .filter(|_| kind == Kind::Verification);
        set(
            "verification_link",
            token.map(|token| links.verification(token, &facts.campaign_slug)),
        );
        set("position", figures.position.map(|position| position.to_string()));
        set("referral_count", figures.referrals.map(|count| count.to_string()));
        set("total_signups", figures.signups.map(|count| count.to_string()));
        if let Some(reward) = reward {
            set("reward_name", reward.name.clone());
            set("reward_description", reward.description.clone());
            set("reward_code", reward.code.clone());
            set("reward_instructions", reward.instructions.clone());
        }
        Ok(variables)
    }

    /// The campaign's sender, or the configured one.
    fn sender(&self, facts: &Facts) -> Sender {
        let configured = &self.settings.sender;
        Sender {
            name: facts.from_name.clone().unwrap_or_else(|| configured.name.clone()),
            address: facts.from_address.clone().unwrap_or_else(|| configured.address.clone()),
            reply_to: facts.reply_to.clone().or_else(|| configured.reply_to.clone()),
        }
    }
}
