//! How a mail will look, without sending it: a built-in template with samples, a campaign's with samples, or the mail that a
//! user would get now.
//!
//! Links of a preview verify and unsubscribe nobody, whoever it is passed on to. Nothing is written.

use std::time::SystemTime;

use sqlx::PgConnection;
use uuid::Uuid;

use crate::handlers::address;
use crate::handlers::email::EmailSettings;
use crate::handlers::email::built_in::built_in;
use crate::handlers::email::compose::{Composer, Matter, Subject};
use crate::handlers::email::message::MessageError;
use crate::handlers::email::rules::{self, Facts, Kind};
use crate::handlers::email::sql::{self, Figures, RewardFacts};
use crate::handlers::email::templates::{self, Rendered, Source, TemplateError, Variables};
use crate::handlers::secret::Secret;

/// Stands in links of samples where `waitlist.public_url` is not set.
const SAMPLE_URL: &str = "https://mail.example.com";

/// Why there is nothing to look at.
#[derive(Debug, thiserror::Error)]
pub enum PreviewError {
    /// No such user.
    #[error("there is no user {0}")]
    NoUser(Uuid),
    /// No such campaign.
    #[error("there is no campaign {0}")]
    NoCampaign(Uuid),
    /// Mails of this type have no built-in template.
    #[error("mails of type {0} have no built-in template, and the customer wrote none; add one to email_templates")]
    NoTemplate(&'static str),
    /// The template is wrong.
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// No message can be made.
    #[error("the mail cannot be put together")]
    Message(#[from] MessageError),
    /// Postgres failed.
    #[error("the facts for the mail could not be read")]
    Postgres(#[from] sqlx::Error),
}

/// Whose template was used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// Built in.
    BuiltIn,
    /// The customer's, for all campaigns.
    Default,
    /// The campaign's own.
    Campaign,
}

/// A mail to look at.
#[derive(Clone)]
pub struct Preview {
    /// Its type.
    pub kind: Kind,
    /// Whose template it was made from.
    pub origin: Origin,
    /// Why it would not be sent now; `None` when it would, as far as that is known without a user.
    pub skipped: Option<&'static str>,
    /// Its parts.
    pub content: Rendered,
    /// The values it was made with.
    pub variables: Variables,
    /// As it would be sent, but for its links, date and `Message-ID`.
    pub message: Vec<u8>,
}

impl std::fmt::Debug for Preview {
    /// Without what readers see: it may be about somebody.
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Preview")
            .field("kind", &self.kind)
            .field("origin", &self.origin)
            .finish_non_exhaustive()
    }
}

/// Makes previews.
#[derive(Debug, Clone)]
pub struct Previewer {
    /// Sender and links.
    pub settings: EmailSettings,
    /// Tells which addresses are suppressed.
    pub secret: Secret,
    /// From which suspicion on a referral is not counted, in percent.
    pub hold_at: u8,
}

impl Previewer {
    /// The built-in template, with samples. Asks nobody.
    ///
    /// # Errors
    /// When there is none.
    pub fn sample(&self, kind: Kind) -> Result<Preview, PreviewError> {
        let source = built_in(kind).ok_or(PreviewError::NoTemplate(kind.word()))?;
        let subject = subject(kind, sample_matter(kind));
        self.made(
            Origin::BuiltIn,
            &source,
            &sample_facts(kind),
            &subject,
            &sample_figures(),
            None,
        )
    }

    /// The template that a campaign's mails are made from, with samples.
    ///
    /// # Errors
    /// When there is no such campaign, or its template is wrong.
    pub async fn of_campaign(
        &self,
        connection: &mut PgConnection,
        kind: Kind,
        campaign: Uuid,
    ) -> Result<Preview, PreviewError> {
        let mut facts = sample_facts(kind);
        let known = sql::campaign(connection, campaign).await?;
        let known = known.ok_or(PreviewError::NoCampaign(campaign))?;
        facts.campaign_id = campaign;
        facts.campaign_name = known.name;
        facts.campaign_slug = known.slug;
        facts.campaign_status = known.status;
        (facts.from_name, facts.from_address, facts.reply_to) = (known.from_name, known.from_address, known.reply_to);
        let (origin, source, skipped) = template(connection, kind, campaign).await?;
        let subject = subject(kind, sample_matter(kind));
        self.made(origin, &source, &facts, &subject, &sample_figures(), skipped)
    }

    /// The mail that a user would get now, and the user's campaign.
    ///
    /// # Errors
    /// When there is no such user, or the template is wrong.
    pub async fn of_user(
        &self,
        connection: &mut PgConnection,
        kind: Kind,
        user: Uuid,
    ) -> Result<(Uuid, Preview), PreviewError> {
        let facts = sql::facts(connection, user).await?;
        let mut facts = facts.ok_or(PreviewError::NoUser(user))?;
        let (origin, source, disabled) = template(connection, kind, facts.campaign_id).await?;
        let key = address::suppression_key(&self.secret, &facts.email);
        let suppressed = sql::suppression(connection, &key, facts.campaign_id, kind.is_marketing()).await?;
        let suppressed = suppressed.map(|reason| match reason.as_str() {
            "unsubscribed" => "unsubscribed",
            _ => "suppressed",
        });
        let obstacle = rules::obstacle(kind, &facts, self.settings.links.public_url.is_some());
        let matter = matter_of(connection, kind, &facts).await?;
        // Whoever sees the preview must not be able to verify the address.
        facts.verification_token = Some("preview".to_owned());
        let used = templates::used(kind, &source)?;
        let subject = subject(kind, matter);
        let figures = sql::figures(connection, user, subject.wanted(&used), self.hold_at).await?;
        let campaign = facts.campaign_id;
        let skipped = obstacle.or(suppressed).or(disabled);
        let preview = self.made(origin, &source, &facts, &subject, &figures, skipped)?;
        Ok((campaign, preview))
    }

    fn made(
        &self,
        origin: Origin,
        source: &Source,
        facts: &Facts,
        subject: &Subject<'_>,
        figures: &Figures,
        skipped: Option<&'static str>,
    ) -> Result<Preview, PreviewError> {
        let kind = subject.kind;
        let mut settings = self.settings.clone();
        let has_way_out = settings.links.public_url.is_some();
        settings.links.public_url.get_or_insert_with(|| SAMPLE_URL.to_owned());
        let composer = Composer {
            settings: &settings,
            secret: &Secret::new("links of a preview lead nowhere"),
            hold_at: self.hold_at,
            date: SystemTime::now(),
            replayed: false,
        };
        let used = templates::used(kind, source)?;
        let variables = composer.fill(facts, figures, &used, subject);
        let content = composer.content(facts, kind, source, &variables)?;
        let finished = composer.finish(facts, subject, content.clone())?;
        Ok(Preview {
            kind,
            origin,
            skipped: skipped.or_else(|| rules::obstacle(kind, facts, has_way_out)),
            content,
            variables,
            message: finished.message,
        })
    }
}

/// The campaigns of this id or slug; slugs are an account's own, so there may be several.
///
/// # Errors
/// Whatever Postgres answered.
pub async fn campaigns_called(connection: &mut PgConnection, id_or_slug: &str) -> Result<Vec<Uuid>, sqlx::Error> {
    sql::campaigns_called(connection, id_or_slug).await
}

/// The template that mails of this type are made from, and whether the customer switched them off.
async fn template(
    connection: &mut PgConnection,
    kind: Kind,
    campaign: Uuid,
) -> Result<(Origin, Source, Option<&'static str>), PreviewError> {
    if let Some(found) = sql::template(connection, campaign, kind.word()).await? {
        let origin = match found.is_own {
            true => Origin::Campaign,
            false => Origin::Default,
        };
        return Ok((origin, found.source, (!found.enabled).then_some("template_disabled")));
    }
    let source = built_in(kind).ok_or(PreviewError::NoTemplate(kind.word()))?;
    Ok((Origin::BuiltIn, source, None))
}

fn subject(kind: Kind, matter: Matter) -> Subject<'static> {
    Subject {
        kind,
        effect_key: "preview",
        matter,
        waits_as: None,
    }
}

/// What the last mail of this type was about, or a sample.
async fn matter_of(connection: &mut PgConnection, kind: Kind, facts: &Facts) -> Result<Matter, sqlx::Error> {
    let known = match kind {
        Kind::PositionUpdate => {
            let moved = sql::last_improvement(connection, facts.user_id).await?;
            moved.map(|moved| Matter::Place {
                old: moved.old_position,
                new: rules::told_place(None, moved.new_position, moved.position_now).unwrap_or(moved.new_position),
            })
        }
        Kind::RewardEarned => sql::last_reward(connection, facts.user_id).await?.map(Matter::Reward),
        Kind::Milestone => sql::last_milestone(connection, facts.campaign_id)
            .await?
            .map(Matter::Milestone),
        Kind::Verification | Kind::Welcome | Kind::Custom => None,
    };
    Ok(known.unwrap_or_else(|| sample_matter(kind)))
}

fn sample_matter(kind: Kind) -> Matter {
    match kind {
        Kind::PositionUpdate => Matter::Place { old: Some(57), new: 42 },
        Kind::RewardEarned => Matter::Reward(RewardFacts {
            status: "earned".to_owned(),
            resend_no: 0,
            code: Some("VIP-7K2M9".to_owned()),
            name: Some("Early access".to_owned()),
            description: Some("Use it a week before everybody else.".to_owned()),
            instructions: Some("Enter the code when you sign in for the first time.".to_owned()),
        }),
        Kind::Milestone => Matter::Milestone(1_000),
        Kind::Verification | Kind::Welcome | Kind::Custom => Matter::User,
    }
}

fn sample_figures() -> Figures {
    Figures {
        position: Some(42),
        referrals: Some(3),
        signups: Some(1_284),
    }
}

fn sample_facts(kind: Kind) -> Facts {
    Facts {
        user_id: Uuid::nil(),
        campaign_id: Uuid::nil(),
        email: "ann@example.com".to_owned(),
        first_name: Some("Ann".to_owned()),
        last_name: Some("Example".to_owned()),
        email_verified: kind != Kind::Verification,
        marketing_consent: true,
        verification_token: Some("preview".to_owned()),
        referral_code: "ANN42".to_owned(),
        in_standing: true,
        holds_a_place: true,
        campaign_status: "active".to_owned(),
        campaign_deleted: false,
        verification_required: true,
        campaign_name: "Example".to_owned(),
        campaign_slug: "example".to_owned(),
        from_name: None,
        from_address: None,
        reply_to: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handlers::email::links::Links;
    use crate::handlers::email::message::Sender;

    #[test]
    fn every_built_in_mail_can_be_looked_at_without_a_database() {
        let previewer = Previewer {
            settings: EmailSettings {
                users_table: String::new(),
                sender: Sender {
                    name: String::new(),
                    address: "waitlist@localhost".to_owned(),
                    reply_to: None,
                },
                links: Links {
                    verification_url: "https://app.example/verify?token={token}".to_owned(),
                    referral_url: "https://app.example/{campaign}?ref={code}".to_owned(),
                    public_url: None,
                },
            },
            secret: Secret::new("key"),
            hold_at: 80,
        };
        for kind in Kind::ALL {
            let Ok(preview) = previewer.sample(kind) else {
                assert_eq!(kind, Kind::Custom);
                continue;
            };
            assert_eq!(preview.skipped, kind.is_marketing().then_some("no_public_url"));
            assert!(preview.content.text.contains("Hello Ann,"), "{}", preview.content.text);
            // Every value that the template asks for has a sample.
            assert!(!preview.content.subject.contains("  ") && !preview.content.subject.ends_with(' '));
            let message = String::from_utf8(preview.message).unwrap();
            assert_eq!(
                message.contains("List-Unsubscribe: <https://mail.example.com/"),
                kind.is_marketing()
            );
        }
    }
}
