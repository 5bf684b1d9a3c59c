//! Rewards: gives what the facts say is due, takes back what they no longer carry, and delivers what was given.
//!
//! Every decision is a comparison of what is with what should be, under a lock and with facts read after it; every change
//! of a state is conditional on the state it was read in. So a repetition writes nothing, and the order in which changes
//! arrive does not matter.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::clients::webhook::Caller;
use crate::event::change::ChangeEvent;
use crate::event::id::EventId;
use crate::handler::{Context, Handler, HandlerError, Once, Outcome, Route, Spec};
use crate::handlers::columns;
use crate::handlers::credit;
use crate::handlers::position::{self, Ranked};
use crate::handlers::reward::deliver::{Delivering, Prepared};
use crate::handlers::reward::grant::Granting;

pub mod rules;

pub mod grant;

pub mod rounds;

mod facts;

mod deliver;

pub(crate) mod retry;

mod promise;

pub mod sql;

/// A page of a round, or the last ranking of a large campaign, takes longer than other work.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(300);

/// Settings of rewards.
#[derive(Debug, Clone)]
pub struct RewardSettings {
    /// How long a new reward is held back before it is earned.
    pub delay: Duration,
    /// Webhook calls of one job; then `webhook_deliveries.next_attempt_at` takes over. Must be lower than the
    /// group's attempts, or dead endpoints fill the dead letters.
    pub webhook_attempts_max: u32,
}

impl Default for RewardSettings {
    fn default() -> Self {
        Self {
            delay: Duration::ZERO,
            webhook_attempts_max: 4,
        }
    }
}

/// The reward handler.
pub struct Reward {
    routes: Vec<Route>,
    granting: Granting,
    webhook_attempts_max: u32,
    caller: Arc<dyn Caller>,
}

impl std::fmt::Debug for Reward {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Reward")
            .field("granting", &self.granting)
            .finish_non_exhaustive()
    }
}

impl Reward {
    /// A handler that is woken by these routes, and calls webhooks through `caller`.
    pub fn new(routes: Vec<Route>, granting: Granting, webhook_attempts_max: u32, caller: Arc<dyn Caller>) -> Self {
        Self {
            routes,
            granting,
            webhook_attempts_max,
            caller,
        }
    }

    fn delivering(&self) -> Delivering<'_> {
        Delivering {
            caller: &*self.caller,
            secret: &self.granting.secret,
            attempts_max: self.webhook_attempts_max,
        }
    }

    /// Ranks campaigns that completed for the last time, if the position handler has not: what completion brings is given for
    /// the last places. Answers which of them are complete, and how each was ranked.
    async fn close(
        &self,
        connection: &mut PgConnection,
        tasks: &Tasks,
    ) -> Result<BTreeMap<Uuid, Ranked>, HandlerError> {
        let mut closed = BTreeMap::new();
        for (wide, completed_by) in &tasks.wide {
            if let Some(event) = completed_by
                && let Some(ranked) = self.close_one(connection, wide.campaign, *event).await?
            {
                closed.insert(wide.campaign, ranked);
            }
        }
        Ok(closed)
    }

    /// Answers how a complete campaign was ranked; `None` where it is active again since.
    async fn close_one(
        &self,
        connection: &mut PgConnection,
        campaign: Uuid,
        completed_by: EventId,
    ) -> Result<Option<Ranked>, HandlerError> {
        position::sql::lock(connection, campaign).await?;
        if !sql::is_complete(connection, campaign).await? {
            return Ok(None);
        }
        let hold_at = self.granting.fraud.hold_at;
        let changed = position::sql::rank_for_the_last_time(connection, campaign, completed_by.0, hold_at).await?;
        Ok(Some(changed.map_or(Ranked::Before, Ranked::All)))
    }
}

/// A campaign, or one reward of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Wide {
    campaign: Uuid,
    reward: Option<Uuid>,
}

/// What a set of changes asks for.
#[derive(Debug, Default, PartialEq, Eq)]
struct Tasks {
    /// Rows of `user_rewards` to deliver.
    deliver: BTreeSet<Uuid>,
    /// Users to reconcile.
    users: BTreeSet<Uuid>,
    /// Users whose referrers are to be reconciled.
    friends: BTreeSet<Uuid>,
    /// Campaigns or rewards to grant to all; the change that completed the campaign, where it is one of these.
    wide: BTreeMap<Wide, Option<EventId>>,
    /// Campaigns that passed a milestone.
    milestones: BTreeSet<Uuid>,
    /// Rounds whose next page is due.
    rounds: BTreeSet<i64>,
}

impl Tasks {
    fn of(events: &[Arc<ChangeEvent>]) -> Self {
        let mut tasks = Self::default();
        for event in events {
            tasks.add(event);
        }
        tasks
    }

    /// Whether the delivery of this row is all there is to do.
    fn only_deliver(&self, id: Uuid) -> bool {
        let deliver = BTreeSet::from([id]);
        *self
            == Self {
                deliver,
                ..Self::default()
            }
    }

    fn add(&mut self, event: &ChangeEvent) {
        match &*event.origin().table {
            "waitlist_users" => {
                self.users.extend(columns::ids(event, "id"));
                self.friends.extend(columns::ids(event, "id"));
            }
            "referrals" => self.users.extend(columns::ids(event, "referrer_id")),
            "fraud_detections" => self.friends.extend(columns::ids(event, "user_id")),
            "position_changes" => self.users.extend(columns::ids(event, "user_id")),
            "campaign_milestones" => self.milestones.extend(columns::ids(event, "campaign_id")),
            "reward_rounds" => self.rounds.extend(event.after().and_then(|row| row.int("id"))),
            "user_rewards" => self.deliver.extend(columns::ids(event, "id")),
            "campaigns" => {
                let completed_by = event.id().filter(|_| columns::completes(event));
                for campaign in columns::ids(event, "id") {
                    let known = self.wide.entry(Wide { campaign, reward: None }).or_default();
                    *known = completed_by.or(*known);
                }
            }
            "rewards" => {
                for campaign in columns::ids(event, "campaign_id") {
                    for reward in columns::ids(event, "id") {
                        let reward = Some(reward);
                        self.wide.entry(Wide { campaign, reward }).or_default();
                    }
                }
            }
            _ => {}
        }
    }
}

/// Whether a change may give, take back or deliver.
fn concerns(event: &ChangeEvent) -> bool {
    match &*event.origin().table {
        "waitlist_users" => {
            columns::is_delete(event)
                || columns::updated(event, &["email_verified", "status", "deleted_at", "campaign_id"])
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
        "position_changes" => {
            let cause = event.after().and_then(|row| row.text("cause"));
            columns::is_insert(event) && cause == Some("threshold")
        }
        "campaign_milestones" => columns::is_insert(event),
        "reward_rounds" => {
            let goes_on = columns::is_insert(event) || columns::updated(event, &["pages"]);
            goes_on && event.after().is_some_and(|row| row.text("ended_at").is_none())
        }
        "user_rewards" => columns::became(event, "status", "earned") || is_sent_again(event),
        "campaigns" => {
            columns::became(event, "status", "active")
                || columns::became(event, "status", "completed")
                || columns::updated(event, &["verification_required"])
        }
        "rewards" => {
            columns::is_insert(event)
                || columns::updated(
                    event,
                    &[
                        "status",
                        "trigger_type",
                        "trigger_threshold",
                        "evaluate",
                        "user_limit",
                        "total_available",
                        "starts_at",
                        "expires_at",
                    ],
                )
        }
        _ => false,
    }
}

/// A person asked for the delivery to be repeated.
fn is_sent_again(event: &ChangeEvent) -> bool {
    columns::updated(event, &["resend_no"]) && event.after().and_then(|row| row.text("status")) == Some("earned")
}

#[async_trait]
impl Handler for Reward {
    fn spec(&self) -> Spec {
        Spec {
            name: "reward".to_owned(),
            routes: self.routes.clone(),
            coalesce_max: 50,
            attempt_timeout: Some(ATTEMPT_TIMEOUT),
        }
    }

    fn wants(&self, event: &ChangeEvent) -> bool {
        concerns(event)
    }

    async fn handle(&self, context: &mut Context, _: &[Arc<ChangeEvent>]) -> Result<Outcome, HandlerError> {
        // What is settled is neither delivered nor granted for once more.
        let unsettled = context.unsettled().await?;
        if unsettled.is_empty() {
            return Ok(Outcome::Done);
        }
        let asked = Tasks::of(&unsettled);
        let delivering = self.delivering();
        let mut prepared = BTreeMap::new();
        for id in &asked.deliver {
            match delivering.prepare(context, *id).await? {
                Prepared::Busy(wait) => return Ok(Outcome::Snooze(wait)),
                Prepared::Nothing(reason) if asked.only_deliver(*id) => return Ok(Outcome::Skipped(reason)),
                other => drop(prepared.insert(*id, other)),
            }
        }
        let handler = context.handler().to_owned();
        let Some(Once { events, connection }) = context.once().await? else {
            return Ok(Outcome::Done);
        };
        let tasks = Tasks::of(&events);
        let mut skipped = None;
        for done in tasks.deliver.iter().filter_map(|id| prepared.get(id)) {
            skipped = delivering.write(connection, &handler, done).await?;
        }
        let friends: Vec<Uuid> = tasks.friends.iter().copied().collect();
        let mut users: Vec<Uuid> = tasks.users.iter().copied().collect();
        users.extend(credit::referrers_of(connection, &friends).await?);
        users.sort_unstable();
        users.dedup();
        // The lock of places before those of users, as everywhere.
        let closed = self.close(connection, &tasks).await?;
        for round in &tasks.rounds {
            rounds::page(connection, &self.granting, *round).await?;
        }
        self.granting.reconcile(connection, &users, false).await?;
        for wide in tasks.wide.keys() {
            rounds::begin(
                connection,
                wide.campaign,
                wide.reward,
                closed.contains_key(&wide.campaign),
            )
            .await?;
        }
        for campaign in &tasks.milestones {
            rounds::begin_for_milestones(connection, *campaign).await?;
        }
        closed.values().for_each(|ranked| ranked.count(context));
        Ok(skipped.map_or(Outcome::Done, Outcome::Skipped))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handlers::cases::{deleted, inserted, updated, updated_blindly};

    #[test]
    fn only_what_changes_a_credit_a_promise_or_a_state_is_looked_at() {
        let user = [("email_verified", "false"), ("first_name", "A")];
        let renamed = [("email_verified", "false"), ("first_name", "B")];
        let verified = [("email_verified", "true"), ("first_name", "B")];
        let earned = [("status", "earned"), ("resend_no", "a")];
        let again = [("status", "earned"), ("resend_no", "b")];
        let given = [("status", "delivered"), ("resend_no", "b")];
        let pending = [("status", "pending")];
        let counted = [("status", "verified")];
        for (event, expected) in [
            (inserted("waitlist_users", &user), false),
            (updated("waitlist_users", &user, &renamed), false),
            (updated("waitlist_users", &user, &verified), true),
            (deleted("waitlist_users", &user), true),
            (inserted("referrals", &pending), false),
            (inserted("referrals", &counted), true),
            (updated("referrals", &counted, &pending), true),
            (inserted("user_rewards", &earned), true),
            (updated("user_rewards", &earned, &earned), false),
            (updated("user_rewards", &earned, &again), true),
            (updated("user_rewards", &again, &given), false),
            (updated_blindly("user_rewards", &earned), true),
            (updated_blindly("user_rewards", &given), false),
            (inserted("fraud_detections", &pending), true),
            (inserted("rewards", &pending), true),
            (inserted("position_changes", &[("cause", "threshold")]), true),
            (inserted("position_changes", &[("cause", "improved")]), false),
            (inserted("campaign_milestones", &pending), true),
            (deleted("campaign_milestones", &pending), false),
            (inserted("reward_rounds", &[("pages", "0"), ("ended_at", "")]), true),
            (
                updated("reward_rounds", &[("pages", "0")], &[("pages", "1"), ("ended_at", "")]),
                true,
            ),
            (
                updated(
                    "reward_rounds",
                    &[("pages", "1")],
                    &[("pages", "2"), ("ended_at", "now")],
                ),
                false,
            ),
            (deleted("reward_rounds", &[("pages", "2")]), false),
            (updated("rewards", &user, &renamed), false),
            (inserted("campaigns", &[("status", "active")]), true),
            (
                updated("campaigns", &[("status", "active")], &[("status", "paused")]),
                false,
            ),
            (
                updated("campaigns", &[("status", "paused")], &[("status", "active")]),
                true,
            ),
        ] {
            assert_eq!(concerns(&event), expected, "{event:?}");
        }
    }

    #[test]
    fn a_referral_that_changes_hands_concerns_both_referrers() {
        let (one, two) = (Uuid::from_u128(1).to_string(), Uuid::from_u128(2).to_string());
        let event = updated("referrals", &[("referrer_id", &one)], &[("referrer_id", &two)]);
        let tasks = Tasks::of(&[Arc::new(event)]);
        assert_eq!(tasks.users, BTreeSet::from([Uuid::from_u128(1), Uuid::from_u128(2)]));
    }
}
