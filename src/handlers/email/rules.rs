//! Which change wants which mail, what the mail's key is, and what follows from the facts and from a refusal: pure.

use uuid::Uuid;

use crate::clients::mailer::{Refusal, Step};
use crate::event::change::ChangeEvent;
use crate::handlers::columns;
use crate::handlers::secret::Secret;

/// What a change asks for; the facts decide what is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trigger {
    /// A user's first mail: verification where it is required and the address was not verified then, else welcome.
    First {
        /// The user.
        user: Uuid,
        /// Whether the address was verified when the row came; `None`: the facts say.
        verified: Option<bool>,
    },
    /// The address or the token is another, or may be.
    Verification(Uuid),
    /// The address was verified.
    Welcome(Uuid),
    /// A row of `email_log` that another handler queued.
    Queued(Uuid),
}

/// The types of mail that are written here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Asks to confirm the address.
    Verification,
    /// Greets.
    Welcome,
    /// Hands over a reward.
    RewardEarned,
}

impl Kind {
    /// The word for it in `email_log.type` and `email_templates.type`.
    pub fn word(self) -> &'static str {
        match self {
            Self::Verification => "verification",
            Self::Welcome => "welcome",
            Self::RewardEarned => "reward_earned",
        }
    }
}

/// What a change asks for, or `None`.
pub fn trigger(event: &ChangeEvent) -> Option<Trigger> {
    let row = event.after()?;
    let id = columns::id(row, "id")?;
    match &*event.origin().table {
        "waitlist_users" if columns::is_insert(event) => Some(Trigger::First {
            user: id,
            verified: row.bool("email_verified"),
        }),
        "waitlist_users" if event.before().is_none() => {
            // What changed is not known: the facts and the keys decide, as at the first time.
            columns::updated(event, &["email", "email_verified"]).then_some(Trigger::First {
                user: id,
                verified: None,
            })
        }
        "waitlist_users" => {
            let verified = row.bool("email_verified")?;
            if verified {
                return columns::updated(event, &["email_verified"]).then_some(Trigger::Welcome(id));
            }
            // The token is not captured: its change shows as an update that changes nothing.
            let may_need_another = columns::updated(event, &["email"]) || columns::changed_nothing_captured(event);
            may_need_another.then_some(Trigger::Verification(id))
        }
        "email_log" => columns::became(event, "status", "queued").then_some(Trigger::Queued(id)),
        _ => None,
    }
}

/// What is known about the user when the mail is to be sent.
#[derive(Clone, sqlx::FromRow)]
pub struct Facts {
    pub(super) user_id: Uuid,
    pub(super) campaign_id: Uuid,
    pub(super) email: String,
    pub(super) first_name: Option<String>,
    pub(super) last_name: Option<String>,
    pub(super) email_verified: bool,
    pub(super) verification_token: Option<String>,
    pub(super) referral_code: String,
    pub(super) in_standing: bool,
    pub(super) holds_a_place: bool,
    pub(super) campaign_status: String,
    pub(super) campaign_deleted: bool,
    pub(super) verification_required: bool,
    pub(super) campaign_name: String,
    pub(super) campaign_slug: String,
    pub(super) from_name: Option<String>,
    pub(super) from_address: Option<String>,
    pub(super) reply_to: Option<String>,
}

/// Which mail a trigger comes to with these facts; `None` for a queued row, which says its own type.
pub fn kind(trigger: Trigger, facts: &Facts) -> Option<Kind> {
    match trigger {
        Trigger::First { verified, .. } => {
            let to_verify = facts.verification_required && !verified.unwrap_or(facts.email_verified);
            Some(if to_verify { Kind::Verification } else { Kind::Welcome })
        }
        Trigger::Welcome(_) => Some(Kind::Welcome),
        Trigger::Verification(_) => Some(Kind::Verification),
        Trigger::Queued(_) => None,
    }
}

/// Why this mail is not sent now, or `None`.
pub fn obstacle(kind: Kind, facts: &Facts) -> Option<&'static str> {
    if facts.campaign_deleted {
        return Some("campaign_deleted");
    }
    if facts.campaign_status == "draft" {
        return Some("campaign_draft");
    }
    if !facts.holds_a_place {
        return Some("not_in_standing");
    }
    match kind {
        Kind::Verification if facts.email_verified => Some("already_verified"),
        Kind::Verification if !facts.verification_required => Some("verification_not_required"),
        Kind::Verification if facts.verification_token.as_deref().unwrap_or_default().is_empty() => Some("no_token"),
        Kind::Welcome | Kind::RewardEarned if !facts.in_standing => Some("not_in_standing"),
        Kind::Verification | Kind::Welcome | Kind::RewardEarned => None,
    }
}

/// The key of a mail to a user: the same mail has the same key, another address or token another.
pub fn user_key(kind: Kind, facts: &Facts, secret: &Secret) -> String {
    if kind == Kind::Verification {
        let token = facts.verification_token.as_deref().unwrap_or_default();
        let lower = facts.email.to_lowercase();
        let tag = secret.tag_hex("verification mail", &[lower.as_bytes(), token.as_bytes()]);
        return format!("verification:{}:{tag}", facts.user_id);
    }
    format!("{}:{}", kind.word(), facts.user_id)
}

/// The key of the mail that hands over a reward.
pub fn reward_key(user_reward: Uuid, resend_no: i32) -> String {
    format!("reward_earned:{user_reward}:{resend_no}")
}

/// The reward a key speaks of, and which sending.
pub fn reward_of_key(key: &str) -> Option<(Uuid, i32)> {
    let (id, resend_no) = key.strip_prefix("reward_earned:")?.split_once(':')?;
    Some((id.parse().ok()?, resend_no.parse().ok()?))
}

/// What follows when the mail server refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AfterRefusal {
    /// Try again.
    Retry,
    /// The recipient does not exist: no further mail to it.
    Bounced,
    /// This mail fails; other mails to the recipient may pass.
    Failed,
    /// The server takes no mail from us: not this mail's fault.
    Outage,
}

/// Reads a refusal. Where the server sends no enhanced code, the step and the basic code decide.
pub fn after_refusal(refusal: &Refusal) -> AfterRefusal {
    if refusal.code < 500 {
        return AfterRefusal::Retry;
    }
    match (refusal.step, refusal.enhanced) {
        // About the sender's address, in whichever step it is said.
        (_, Some((_, 1, 7 | 8))) => AfterRefusal::Outage,
        (Step::Recipient, Some((_, 1, _))) => AfterRefusal::Bounced,
        (_, Some((_, 7, _))) => AfterRefusal::Outage,
        (_, Some((_, 2, _))) => AfterRefusal::Failed,
        (Step::Sender, _) if refusal.code == 552 => AfterRefusal::Failed,
        (Step::Sender, _) => AfterRefusal::Outage,
        (Step::Recipient, None) if matches!(refusal.code, 550 | 551 | 553) => AfterRefusal::Bounced,
        (Step::Recipient, None) if refusal.code == 552 => AfterRefusal::Failed,
        (Step::Recipient, None) => AfterRefusal::Outage,
        // Authentication and sequence errors: the conversation is wrong, not the mail.
        (_, _) if matches!(refusal.code, 500..=504 | 521 | 530..=538) => AfterRefusal::Outage,
        (Step::Recipient | Step::Content, _) => AfterRefusal::Failed,
    }
}

#[cfg(test)]
#[path = "rules_tests.rs"]
mod tests;
