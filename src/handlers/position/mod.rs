//! Ranks campaigns: one transaction at a time for each, from the facts, writing only what differs.
//!
//! Events tell which users may have changed, and never how. Those of a campaign that wait together are done by one ranking,
//! which costs what the change costs; changed rules rank everybody. Places are kept in `waitlist_positions`, which is not
//! published, so a ranking never wakes itself; what others must hear of is written as rows of `position_changes` and
//! `campaign_milestones`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::event::change::ChangeEvent;
use crate::event::id::EventId;
use crate::handler::{Context, Handler, HandlerError, Once, Outcome, Route, Spec};
use crate::handlers::{columns, credit};
use crate::tally::Counter;

pub mod rules;

pub mod sql;

mod full;

mod moves;

/// How many waiting events one ranking may answer.
const COALESCE_MAX: usize = 500;

/// A ranking of a large campaign takes longer than other work.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(300);

/// Rankings, by whom they concerned: all of a campaign, or users whose facts may have changed.
pub static RANKINGS: Counter = Counter::new(
    "rankings",
    "Rankings of a campaign that were committed, by whom they concerned",
    &["of"],
);

/// What they changed. A ranking of one newcomer moves everybody behind it.
pub static RANKED: Counter = Counter::new("ranked_places", "Places that rankings changed", &[]);

/// The position handler.
#[derive(Debug)]
pub struct Position {
    routes: Vec<Route>,
    hold_at: u8,
}

impl Position {
    /// A handler that is woken by these routes; from a suspicion of `hold_at` percent on a referral does not count.
    pub fn new(routes: Vec<Route>, hold_at: u8) -> Self {
        Self { routes, hold_at }
    }

    async fn rank(&self, connection: &mut PgConnection, campaign: Uuid, work: Work) -> Result<Ranked, sqlx::Error> {
        match (work.completed_by, work.all) {
            (Some(event), _) => {
                let changed = sql::rank_for_the_last_time(connection, campaign, event.0, self.hold_at).await?;
                Ok(changed.map_or(Ranked::Before, Ranked::All))
            }
            (None, true) => Ok(Ranked::All(sql::rank(connection, campaign, self.hold_at).await?)),
            (None, false) => {
                let friends: Vec<Uuid> = work.friends.into_iter().collect();
                let mut users = work.users;
                users.extend(credit::referrers_of(connection, &friends).await?);
                let users: Vec<Uuid> = users.into_iter().collect();
                let changed = sql::rank_users(connection, campaign, &users, self.hold_at).await?;
                Ok(Ranked::Users(changed))
            }
        }
    }
}

/// Whom a ranking concerned, and how many places it changed.
pub(super) enum Ranked {
    All(u64),
    Users(u64),
    /// It was done before.
    Before,
}

impl Ranked {
    pub(super) fn count(&self, context: &mut Context) {
        let (of, changed) = match self {
            Self::All(changed) => ("all", *changed),
            Self::Users(changed) => ("users", *changed),
            Self::Before => return,
        };
        context.count(&RANKINGS, &[of], 1);
        context.count(&RANKED, &[], changed);
    }
}

/// Whether a change may move somebody, or pass a milestone.
fn concerns(event: &ChangeEvent) -> bool {
    match &*event.origin().table {
        "waitlist_users" => {
            columns::is_insert(event)
                || columns::is_delete(event)
                || columns::updated(
                    event,
                    &[
                        "status",
                        "deleted_at",
                        "campaign_id",
                        "email_verified",
                        "original_position",
                        "created_at",
                    ],
                )
        }
        "referrals" => {
            columns::crossed(event, "status", &["verified", "converted"])
                || columns::updated(event, &["campaign_id", "referrer_id", "referred_id"])
        }
        "fraud_detections" => {
            columns::is_insert(event)
                || columns::is_delete(event)
                || columns::updated(event, &["status", "confidence", "user_id", "referral_id", "evidence"])
        }
        "campaigns" => columns::updated(
            event,
            &[
                "status",
                "ranking",
                "points_per_referral",
                "verification_required",
                "milestones",
                "deleted_at",
            ],
        ),
        _ => false,
    }
}

/// The campaigns that a change concerns: one, or two when a row moved from one to the other.
fn campaigns_of(event: &ChangeEvent) -> Vec<Uuid> {
    let column = if &*event.origin().table == "campaigns" {
        "id"
    } else {
        "campaign_id"
    };
    columns::ids(event, column)
}

/// What changes ask for in one campaign.
#[derive(Debug, Default, PartialEq, Eq)]
struct Work {
    /// Its rules or its state changed: everybody is ranked.
    all: bool,
    /// The last of these changes that completed it.
    completed_by: Option<EventId>,
    /// Users whose facts may have changed.
    users: BTreeSet<Uuid>,
    /// Users whose referrers' facts may have changed.
    friends: BTreeSet<Uuid>,
}

impl Work {
    fn add(&mut self, event: &ChangeEvent) {
        match &*event.origin().table {
            "waitlist_users" => {
                self.users.extend(columns::ids(event, "id"));
                self.friends.extend(columns::ids(event, "id"));
            }
            "referrals" => self.users.extend(columns::ids(event, "referrer_id")),
            "fraud_detections" => self.friends.extend(columns::ids(event, "user_id")),
            _ => self.all = true,
        }
        if columns::completes(event) {
            self.completed_by = event.id();
        }
    }
}

/// Whether a campaign in this state is ranked because of these changes. After its completion it is ranked once more, by
/// the change that completed it, and then never again.
fn is_ranked(campaign: &sql::Campaign, completed_now: bool) -> bool {
    let by_status = match campaign.status.as_str() {
        "active" => true,
        "completed" => completed_now,
        _ => false,
    };
    by_status && !campaign.deleted
}

#[async_trait]
impl Handler for Position {
    fn spec(&self) -> Spec {
        Spec {
            name: "position".to_owned(),
            routes: self.routes.clone(),
            coalesce_max: COALESCE_MAX,
            attempt_timeout: Some(ATTEMPT_TIMEOUT),
        }
    }

    fn wants(&self, event: &ChangeEvent) -> bool {
        concerns(event)
    }

    /// The lower of the campaigns; the other one, where there is one, is locked after it.
    fn exclusive(&self, event: &ChangeEvent) -> Option<String> {
        campaigns_of(event).first().map(|campaign| sql::lock_key(*campaign))
    }

    async fn handle(&self, context: &mut Context, _events: &[Arc<ChangeEvent>]) -> Result<Outcome, HandlerError> {
        let Some(Once { events, connection }) = context.once().await? else {
            return Ok(Outcome::Done);
        };
        // Sorted, so that locks are always taken in one order.
        let mut concerned: BTreeMap<Uuid, Work> = BTreeMap::new();
        for event in &events {
            for campaign in campaigns_of(event) {
                concerned.entry(campaign).or_default().add(event);
            }
        }
        let alone: BTreeSet<String> = events.iter().filter_map(|event| self.exclusive(event)).collect();
        for campaign in concerned.keys() {
            if !alone.contains(&sql::lock_key(*campaign)) {
                sql::lock(connection, *campaign).await?;
            }
        }
        let mut ranked = Vec::new();
        for (id, work) in concerned {
            let campaign = sql::campaign(connection, id).await?;
            if campaign.is_some_and(|campaign| is_ranked(&campaign, work.completed_by.is_some())) {
                ranked.push(self.rank(connection, id, work).await?);
            }
        }
        ranked.iter().for_each(|ranked| ranked.count(context));
        Ok(match ranked.is_empty() {
            false => Outcome::Done,
            true => Outcome::Skipped("campaign_not_active"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handlers::cases::{deleted, inserted, updated};

    #[test]
    fn only_what_moves_somebody_ranks() {
        let user = [("id", "a"), ("status", "pending"), ("first_name", "A")];
        let renamed = [("id", "a"), ("status", "pending"), ("first_name", "B")];
        let blocked = [("id", "a"), ("status", "blocked"), ("first_name", "B")];
        let pending = [("status", "pending")];
        let verified = [("status", "verified")];
        let converted = [("status", "converted")];
        for (event, expected) in [
            (inserted("waitlist_users", &user), true),
            (updated("waitlist_users", &user, &renamed), false),
            (updated("waitlist_users", &user, &blocked), true),
            (deleted("waitlist_users", &user), true),
            (inserted("referrals", &pending), false),
            (inserted("referrals", &verified), true),
            (updated("referrals", &pending, &verified), true),
            (updated("referrals", &verified, &converted), false),
            (updated("referrals", &converted, &pending), true),
            (deleted("referrals", &pending), false),
            (deleted("referrals", &verified), true),
            (inserted("fraud_detections", &pending), true),
            (updated("fraud_detections", &pending, &verified), true),
            (inserted("campaigns", &pending), false),
            (updated("campaigns", &pending, &verified), true),
            (updated("campaigns", &user, &renamed), false),
        ] {
            assert_eq!(concerns(&event), expected, "{event:?}");
        }
    }

    #[test]
    fn a_row_that_moves_concerns_both_campaigns_and_locks_the_lower_first() {
        let (low, high) = (Uuid::from_u128(1).to_string(), Uuid::from_u128(2).to_string());
        let event = updated("waitlist_users", &[("campaign_id", &high)], &[("campaign_id", &low)]);
        assert_eq!(campaigns_of(&event), [Uuid::from_u128(1), Uuid::from_u128(2)]);
        let handler = Position::new(Vec::new(), 80);
        assert_eq!(handler.exclusive(&event), Some(sql::lock_key(Uuid::from_u128(1))));
    }

    #[test]
    fn changes_name_users_or_everybody_and_are_never_asked_for_values() {
        let [one, two] = [1, 2].map(Uuid::from_u128);
        let (one_text, two_text) = (one.to_string(), two.to_string());
        let work = |event: ChangeEvent| {
            let mut work = Work::default();
            work.add(&event);
            work
        };
        let handed_over = updated(
            "referrals",
            &[("referrer_id", &one_text)],
            &[("referrer_id", &two_text)],
        );
        assert_eq!(work(handed_over).users, BTreeSet::from([one, two]));
        let blocked = work(updated("waitlist_users", &[("id", &one_text)], &[("id", &one_text)]));
        assert_eq!(
            (blocked.users, blocked.friends),
            (BTreeSet::from([one]), BTreeSet::from([one]))
        );
        let found = work(inserted(
            "fraud_detections",
            &[("id", &two_text), ("user_id", &one_text)],
        ));
        assert_eq!((found.users, found.friends), (BTreeSet::new(), BTreeSet::from([one])));
        assert!(work(updated("campaigns", &[("id", &one_text)], &[("id", &one_text)])).all);
    }

    #[test]
    fn a_completed_campaign_is_ranked_once_more_and_then_frozen() {
        let campaign = |status: &str, deleted| sql::Campaign {
            status: status.to_owned(),
            deleted,
        };
        assert!(is_ranked(&campaign("active", false), false));
        assert!(is_ranked(&campaign("completed", false), true));
        for frozen in [
            campaign("completed", false),
            campaign("paused", false),
            campaign("draft", false),
            campaign("active", true),
        ] {
            assert!(!is_ranked(&frozen, false));
        }
    }
}
