//! Which change wants which mail, what the mail's key is, and what follows from the facts and from a refusal: pure.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::clients::mailer::{Refusal, Step};
use crate::event::change::ChangeEvent;
use crate::event::key::Key;
use crate::event::row::Row;
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
    /// A row of `email_log` that was queued.
    Queued(Uuid),
    /// A row of `position_changes` that tells of a better place.
    Moved(i64),
    /// A milestone was passed, or a page of its mails is queued and the next one is due.
    Milestone(Milestone),
    /// The application deleted a user: what is kept of the person goes.
    Gone(Uuid),
}

/// One milestone of a campaign.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Milestone {
    /// The campaign.
    pub campaign: Uuid,
    /// How many have joined.
    pub number: i32,
}

/// The types of mail that are written here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Asks to confirm the address.
    Verification,
    /// Greets.
    Welcome,
    /// Tells of a better place.
    PositionUpdate,
    /// Hands over a reward.
    RewardEarned,
    /// Tells that the campaign has grown.
    Milestone,
    /// Of somebody else's handler: its rows are queued, and its template is the customer's.
    Custom,
}

impl Kind {
    /// All of them, in the order in which a user meets them.
    pub const ALL: [Self; 6] = [
        Self::Verification,
        Self::Welcome,
        Self::PositionUpdate,
        Self::RewardEarned,
        Self::Milestone,
        Self::Custom,
    ];

    /// The word for it in `email_log.type` and `email_templates.type`.
    pub fn word(self) -> &'static str {
        match self {
            Self::Verification => "verification",
            Self::Welcome => "welcome",
            Self::PositionUpdate => "position_update",
            Self::RewardEarned => "reward_earned",
            Self::Milestone => "milestone",
            Self::Custom => "custom",
        }
    }

    /// The type of this word.
    pub fn of_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.word() == word)
    }

    /// Whether it is sent only to those who agreed to it, and can be unsubscribed from.
    pub fn is_marketing(self) -> bool {
        matches!(self, Self::PositionUpdate | Self::Milestone)
    }
}

const USERS: &str = "waitlist_users";

/// What a change asks for, or `None`.
pub fn trigger(event: &ChangeEvent) -> Option<Trigger> {
    if &*event.origin().table == USERS && columns::is_delete(event) {
        let old = event.key().map(Key::row).or_else(|| event.before())?;
        return Some(Trigger::Gone(columns::id(old, "id")?));
    }
    let row = event.after()?;
    match &*event.origin().table {
        USERS => of_user(event, row),
        "email_log" if columns::became(event, "status", "queued") => Some(Trigger::Queued(columns::id(row, "id")?)),
        "position_changes" if columns::is_insert(event) && row.text("cause") == Some("improved") => {
            Some(Trigger::Moved(row.int("id")?))
        }
        "campaign_milestones" => {
            let is_due = columns::is_insert(event) || columns::updated(event, &["mail_pages"]);
            let is_ended = row.text("mails_ended_at").is_some();
            (is_due && !is_ended).then_some(Trigger::Milestone(Milestone {
                campaign: columns::id(row, "campaign_id")?,
                number: row.int("milestone")?.try_into().ok()?,
            }))
        }
        _ => None,
    }
}

fn of_user(event: &ChangeEvent, row: &Row) -> Option<Trigger> {
    let id = columns::id(row, "id")?;
    if columns::is_insert(event) {
        return Some(Trigger::First {
            user: id,
            verified: row.bool("email_verified"),
        });
    }
    if event.before().is_none() {
        // What changed is not known: the facts and the keys decide, as at the first time.
        return columns::updated(event, &["email", "email_verified"]).then_some(Trigger::First {
            user: id,
            verified: None,
        });
    }
    if row.bool("email_verified")? {
        return columns::updated(event, &["email_verified"]).then_some(Trigger::Welcome(id));
    }
    // The token is not captured: its change shows as an update that changes nothing.
    let may_need_another = columns::updated(event, &["email"]) || columns::changed_nothing_captured(event);
    may_need_another.then_some(Trigger::Verification(id))
}

impl Trigger {
    /// The user whose first mail, or greeting, it asks for; which one that is, and under which key, the facts say.
    pub fn first_mail_of(self) -> Option<Uuid> {
        match self {
            Self::First { user, .. } | Self::Verification(user) | Self::Welcome(user) => Some(user),
            Self::Queued(_) | Self::Moved(_) | Self::Milestone(_) | Self::Gone(_) => None,
        }
    }
}

/// What is known about the user when the mail is to be sent.
#[derive(Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct Facts {
    pub(super) user_id: Uuid,
    pub(super) campaign_id: Uuid,
    pub(super) email: String,
    pub(super) first_name: Option<String>,
    pub(super) last_name: Option<String>,
    pub(super) email_verified: bool,
    pub(super) marketing_consent: bool,
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

/// Which mail a trigger about a user comes to with these facts; `None` for the others, which say it themselves.
pub fn kind(trigger: Trigger, facts: &Facts) -> Option<Kind> {
    match trigger {
        Trigger::First { verified, .. } => {
            let to_verify = facts.verification_required && !verified.unwrap_or(facts.email_verified);
            Some(if to_verify { Kind::Verification } else { Kind::Welcome })
        }
        Trigger::Welcome(_) => Some(Kind::Welcome),
        Trigger::Verification(_) => Some(Kind::Verification),
        Trigger::Queued(_) | Trigger::Moved(_) | Trigger::Milestone(_) | Trigger::Gone(_) => None,
    }
}

/// Why this mail is not sent now, or `None`. `has_way_out`: whether it would carry a link to unsubscribe by.
pub fn obstacle(kind: Kind, facts: &Facts, has_way_out: bool) -> Option<&'static str> {
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
        Kind::Verification => None,
        _ if !facts.in_standing => Some("not_in_standing"),
        _ if kind.is_marketing() && !facts.marketing_consent => Some("no_marketing_consent"),
        _ if kind.is_marketing() && facts.campaign_status == "paused" => Some("campaign_paused"),
        _ if kind.is_marketing() && !has_way_out => Some(NO_WAY_OUT),
        _ => None,
    }
}

/// Nobody could unsubscribe from a mail without a link, so without `waitlist.public_url` none is sent that needs one.
const NO_WAY_OUT: &str = "no_public_url";

/// How far a milestone's mails are queued, and what decides whether they are.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct Progress {
    pub(super) ended: bool,
    /// A higher one was passed at the same moment.
    pub(super) outdone: bool,
    pub(super) campaign_status: String,
    pub(super) campaign_deleted: bool,
    pub(super) passed_at: DateTime<Utc>,
    pub(super) mailed_to_at: Option<DateTime<Utc>>,
    pub(super) mailed_to_id: Option<Uuid>,
}

/// Why no page of this milestone's mails is queued, or `None`.
pub fn milestone_obstacle(progress: &Progress, has_way_out: bool) -> Option<&'static str> {
    match progress.campaign_status.as_str() {
        _ if progress.ended => Some("all_queued"),
        _ if progress.outdone => Some("higher_milestone"),
        _ if progress.campaign_deleted => Some("campaign_deleted"),
        "draft" => Some("campaign_draft"),
        "paused" => Some("campaign_paused"),
        _ if !has_way_out => Some(NO_WAY_OUT),
        _ => None,
    }
}

/// The place that a mail may tell of: what the change said, or what became of it since. `None` when the place is not better
/// any more than the one it was better than, or when there is none.
pub fn told_place(old: Option<i64>, new: i64, now: Option<i64>) -> Option<i64> {
    let told = now?.max(new);
    old.is_none_or(|old| told < old).then_some(told)
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

/// The key of a mail that tells of a better place.
pub fn position_key(change: i64) -> String {
    format!("position_update:{change}")
}

/// The number that a milestone's key speaks of.
pub fn number_of_key(key: &str) -> Option<i32> {
    let (_campaign, rest) = key.strip_prefix("milestone:")?.split_once(':')?;
    rest.split_once(':')?.0.parse().ok()
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
