//! From a trigger to a finished mail, or to the reason why there is none: reads the facts as they are now.

use std::collections::BTreeSet;
use std::time::SystemTime;

use serde_json::Value;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::handler::HandlerError;
use crate::handlers::address;
use crate::handlers::email::built_in::built_in;
use crate::handlers::email::message::{self, Finished, Marks, MessageError, Sender};
use crate::handlers::email::rules::{self, Facts, Kind, Trigger};
use crate::handlers::email::sql::{self, Figures, Found, Queued, RewardFacts, Wanted};
use crate::handlers::email::templates::{self, Rendered, Source, TemplateError, Variables};
use crate::handlers::email::{EmailSettings, FailedBefore, unsubscribe};
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

impl Composed {
    /// The key of what there is to write down.
    pub(super) fn effect_key(&self) -> Option<&str> {
        match self {
            Self::Nothing(_) => None,
            Self::Skip(skip) => Some(&skip.effect_key),
            Self::Mail(mail) => Some(&mail.effect_key),
        }
    }
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
    /// What was known of the user when it was rendered.
    pub(super) facts: Facts,
    /// The status of the row that queued it, where one did.
    pub(super) waits_as: Option<String>,
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

/// What a mail is about, beside its user.
pub(super) enum Matter {
    /// The user alone.
    User,
    /// A place, and the one it is better than.
    Place { old: Option<i64>, new: i64 },
    /// A reward.
    Reward(RewardFacts),
    /// How many have joined.
    Milestone(i32),
}

/// A mail by its key and the kind it is of.
pub(super) struct Subject<'a> {
    pub(super) kind: Kind,
    pub(super) effect_key: &'a str,
    pub(super) matter: Matter,
    /// The status of the row that queued it, where one did.
    pub(super) waits_as: Option<&'a str>,
}

impl Subject<'_> {
    /// Numbers are counted only for who shows them.
    pub(super) fn wanted(&self, used: &BTreeSet<String>) -> Wanted {
        Wanted {
            position: used.contains("position") && !matches!(self.matter, Matter::Place { .. }),
            referrals: used.contains("referral_count"),
            signups: used.contains("total_signups"),
        }
    }

    fn skip(&self, facts: &Facts, reason: &'static str) -> Composed {
        Composed::Skip(Skip {
            effect_key: self.effect_key.to_owned(),
            campaign_id: facts.campaign_id,
            user_id: Some(facts.user_id),
            kind: self.kind.word(),
            reason,
        })
    }
}

impl Composer<'_> {
    pub(super) async fn compose(
        &self,
        connection: &mut PgConnection,
        trigger: Trigger,
    ) -> Result<Composed, HandlerError> {
        match trigger {
            Trigger::Queued(id) => self.queued(connection, id).await,
            Trigger::Moved(id) => self.moved(connection, id).await,
            Trigger::Milestone(_) | Trigger::Gone(_) => Ok(Composed::Nothing("not_concerned")),
            Trigger::First { user, .. } | Trigger::Verification(user) | Trigger::Welcome(user) => {
                let Some(facts) = sql::facts(connection, user).await? else {
                    return Ok(Composed::Nothing("user_gone"));
                };
                let Some(kind) = rules::kind(trigger, &facts) else {
                    return Ok(Composed::Nothing("not_concerned"));
                };
                let subject = Subject {
                    kind,
                    effect_key: &rules::user_key(kind, &facts, self.secret),
                    matter: Matter::User,
                    waits_as: None,
                };
                self.one(connection, &facts, subject).await
            }
        }
    }

    async fn moved(&self, connection: &mut PgConnection, id: i64) -> Result<Composed, HandlerError> {
        let Some(moved) = sql::moved(connection, id).await? else {
            return Ok(Composed::Nothing("row_gone"));
        };
        let skip = |reason| {
            Composed::Skip(Skip {
                effect_key: rules::position_key(id),
                campaign_id: moved.campaign_id,
                user_id: Some(moved.user_id),
                kind: Kind::PositionUpdate.word(),
                reason,
            })
        };
        let Some(facts) = sql::facts(connection, moved.user_id).await? else {
            return Ok(skip("user_gone"));
        };
        if facts.campaign_id != moved.campaign_id {
            return Ok(skip("campaign_left"));
        }
        let Some(place) = rules::told_place(moved.old_position, moved.new_position, moved.position_now) else {
            return Ok(skip("not_improved"));
        };
        let subject = Subject {
            kind: Kind::PositionUpdate,
            effect_key: &rules::position_key(id),
            matter: Matter::Place {
                old: moved.old_position,
                new: place,
            },
            waits_as: None,
        };
        self.one(connection, &facts, subject).await
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
        let kind = match Kind::of_word(&row.kind) {
            Some(kind @ (Kind::RewardEarned | Kind::Milestone | Kind::Custom)) => kind,
            // The others are sent because of what they are about.
            _ => return Ok(Composed::Nothing("type_not_sent")),
        };
        let skip = |reason: &'static str| {
            Composed::Skip(Skip {
                effect_key: row.effect_key.clone(),
                campaign_id: row.campaign_id,
                user_id: row.user_id,
                kind: kind.word(),
                reason,
            })
        };
        let matter = match kind {
            Kind::RewardEarned => match reward_of(connection, &row, again).await? {
                Ok(reward) => Matter::Reward(reward),
                Err(reason) => return Ok(skip(reason)),
            },
            Kind::Milestone => match rules::number_of_key(&row.effect_key) {
                Some(number) => Matter::Milestone(number),
                None => return Ok(skip("milestone_unknown")),
            },
            _ => Matter::User,
        };
        let facts = match row.user_id {
            Some(user) => sql::facts(connection, user).await?,
            None => None,
        };
        match facts {
            None => Ok(skip("user_gone")),
            Some(facts) if facts.campaign_id != row.campaign_id => Ok(skip("campaign_left")),
            Some(facts) => {
                let subject = Subject {
                    kind,
                    effect_key: &row.effect_key,
                    matter,
                    waits_as: Some(&row.status),
                };
                self.one(connection, &facts, subject).await
            }
        }
    }

    async fn one(
        &self,
        connection: &mut PgConnection,
        facts: &Facts,
        subject: Subject<'_>,
    ) -> Result<Composed, HandlerError> {
        let (kind, effect_key) = (subject.kind, subject.effect_key);
        let has_way_out = self.settings.links.public_url.is_some();
        if let Some(reason) = rules::obstacle(kind, facts, has_way_out) {
            return Ok(subject.skip(facts, reason));
        }
        let suppressed = address::suppression_key(self.secret, &facts.email);
        match sql::suppression(connection, &suppressed, facts.campaign_id, kind.is_marketing()).await? {
            Some(reason) if reason == "unsubscribed" => return Ok(subject.skip(facts, "unsubscribed")),
            Some(_) => return Ok(subject.skip(facts, "suppressed")),
            None => {}
        }
        let source = match sql::template(connection, facts.campaign_id, kind.word()).await? {
            Some(Found { enabled: false, .. }) => return Ok(subject.skip(facts, "template_disabled")),
            Some(found) => found.source,
            None => match built_in(kind) {
                Some(source) => source,
                None => return Ok(subject.skip(facts, "no_template")),
            },
        };
        let used = templates::used(kind, &source).map_err(HandlerError::permanent)?;
        let figures = sql::figures(connection, facts.user_id, subject.wanted(&used), self.hold_at).await?;
        let variables = self.fill(facts, &figures, &used, &subject);
        let content = self
            .content(facts, kind, &source, &variables)
            .map_err(HandlerError::permanent)?;
        let title = content.subject.clone();
        match self.finish(facts, &subject, content) {
            Ok(finished) => Ok(Composed::Mail(Box::new(Mail {
                message_id: message::message_id(effect_key, finished.envelope.from.domain()),
                effect_key: effect_key.to_owned(),
                kind,
                facts: facts.clone(),
                waits_as: subject.waits_as.map(str::to_owned),
                recipient: facts.email.clone(),
                subject: title,
                variables: variables.to_json(),
                finished,
            }))),
            Err(MessageError::Recipient) => Ok(subject.skip(facts, "address_invalid")),
            Err(error) => Err(HandlerError::permanent(error)),
        }
    }

    /// What is read: marketing never without the link to unsubscribe by.
    pub(super) fn content(
        &self,
        facts: &Facts,
        kind: Kind,
        source: &Source,
        variables: &Variables,
    ) -> Result<Rendered, TemplateError> {
        let mut content = templates::render(kind, source, variables)?;
        if let Some(url) = self.way_out(facts).filter(|_| kind.is_marketing()) {
            templates::ensure_way_out(&mut content, &url);
        }
        Ok(content)
    }

    pub(super) fn finish(
        &self,
        facts: &Facts,
        subject: &Subject<'_>,
        content: Rendered,
    ) -> Result<Finished, MessageError> {
        let way_out = self.way_out(facts).filter(|_| subject.kind.is_marketing());
        let marks = Marks {
            effect_key: subject.effect_key,
            date: self.date,
            unsubscribe_url: way_out.as_deref(),
        };
        message::build(marks, &self.sender(facts), &facts.email, content)
    }

    /// The link by which this user unsubscribes from this campaign.
    fn way_out(&self, facts: &Facts) -> Option<String> {
        let token = unsubscribe::token(self.secret, facts.campaign_id, &facts.email);
        self.settings.links.unsubscribe(&token)
    }

    /// The values of the names that are used.
    pub(super) fn fill(
        &self,
        facts: &Facts,
        figures: &Figures,
        used: &BTreeSet<String>,
        subject: &Subject<'_>,
    ) -> Variables {
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
            .filter(|_| subject.kind == Kind::Verification);
        set(
            "verification_link",
            token.map(|token| links.verification(token, &facts.campaign_slug)),
        );
        set("position", figures.position.map(|position| position.to_string()));
        set("referral_count", figures.referrals.map(|count| count.to_string()));
        set("total_signups", figures.signups.map(|count| count.to_string()));
        set("unsubscribe_link", self.way_out(facts));
        match &subject.matter {
            Matter::User => {}
            Matter::Place { old, new } => {
                set("position", Some(new.to_string()));
                set("old_position", old.map(|old| old.to_string()));
            }
            Matter::Reward(reward) => {
                set("reward_name", reward.name.clone());
                set("reward_description", reward.description.clone());
                set("reward_code", reward.code.clone());
                set("reward_instructions", reward.instructions.clone());
            }
            Matter::Milestone(number) => set("milestone", Some(number.to_string())),
        }
        variables
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

/// The reward that a queued row hands over, or why it hands over none.
async fn reward_of(
    connection: &mut PgConnection,
    row: &Queued,
    again: bool,
) -> Result<Result<RewardFacts, &'static str>, sqlx::Error> {
    let Some((reward_id, resend_no)) = rules::reward_of_key(&row.effect_key) else {
        return Ok(Err("reward_unknown"));
    };
    let Some(reward) = sql::reward(connection, reward_id).await? else {
        return Ok(Err("reward_gone"));
    };
    if reward.resend_no != resend_no {
        return Ok(Err("sent_anew"));
    }
    if reward.status != "earned" && !(again && reward.status == "failed") {
        return Ok(Err("reward_not_earned"));
    }
    Ok(Ok(reward))
}
