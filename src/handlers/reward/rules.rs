//! What a user should have of one reward, against what the user has: a pure comparison.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use uuid::Uuid;

/// What may be done in a campaign now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Phase {
    /// New rewards are given.
    pub grants: bool,
    /// Rewards taken back are given again, and those held back are given.
    pub restores: bool,
    /// Rewards are taken back.
    pub revokes: bool,
    /// Places are the last ones, and what the completion brings is given.
    pub closes: bool,
}

impl Phase {
    /// The phase of a campaign in this state. `closing`: this is the work that its completion brought.
    pub fn of(status: &str, deleted: bool, closing: bool) -> Self {
        let (grants, restores, revokes) = match status {
            _ if deleted => (false, false, false),
            "active" => (true, true, true),
            "paused" => (false, false, true),
            "completed" => (closing, true, true),
            _ => (false, false, false),
        };
        Self {
            grants,
            restores,
            revokes,
            closes: status == "completed" && closing && !deleted,
        }
    }
}

/// What a reward is given for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trigger {
    /// Each so many referrals.
    Referrals,
    /// A place, as soon as it is reached.
    Crossing,
    /// A place when the campaign completes.
    Completion,
    /// Having signed up before the campaign reached so many users; `None` while it has not.
    Milestone {
        /// When it did.
        passed_at: Option<DateTime<Utc>>,
    },
}

impl Trigger {
    /// `user_rewards.cause` of what is given for it.
    pub fn cause(self) -> &'static str {
        match self {
            Self::Referrals => "referral_count",
            Self::Crossing | Self::Completion => "position",
            Self::Milestone { .. } => "milestone",
        }
    }
}

/// A reward that is not given by hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Offer {
    /// What it is given for.
    pub trigger: Trigger,
    /// Referrals for each time, or the last place that counts.
    pub threshold: i64,
    /// How many times a user may earn it.
    pub user_limit: i64,
    /// Active, and now is within its dates.
    pub open: bool,
    /// How many are left; `None` is without limit.
    pub left: Option<i64>,
    /// A grant is held back for a while first.
    pub delayed: bool,
}

/// Who is to have it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Earner {
    /// In good standing.
    pub in_standing: bool,
    /// Blocked by the application.
    pub blocked: bool,
    /// Referrals that count.
    pub credited: i64,
    /// Where the user stands.
    pub place: Option<Place>,
    /// When the user signed up.
    pub signed_up_at: DateTime<Utc>,
}

/// A place, and by how many referrals it was ranked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Which.
    pub position: i64,
    /// Referrals that counted then.
    pub referrals: i64,
}

/// A row the user has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owned {
    /// Its id.
    pub id: Uuid,
    /// Which time.
    pub ordinal: i64,
    /// Its state.
    pub state: State,
    /// The threshold when it was promised.
    pub promised_threshold: Option<i64>,
    /// Referrals that the place was ranked by which it was promised for.
    pub place_referrals: Option<i64>,
    /// Referrals it was counted by that are gone by deletion since.
    pub vanished: i64,
    /// Whether this handler took it back; a person's decision is not touched.
    pub revoked_by_us: bool,
    /// The delay of a held row is over.
    pub delay_over: bool,
}

/// States of `user_rewards` in which this comparison acts; all others are left alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Waits.
    Held,
    /// To be delivered.
    Earned,
    /// Delivered.
    Delivered,
    /// Taken back.
    Revoked,
    /// Redeemed, expired, failed.
    Other,
}

impl State {
    /// The state a word stands for.
    pub fn of(word: &str) -> Self {
        match word {
            "held" => Self::Held,
            "earned" => Self::Earned,
            "delivered" => Self::Delivered,
            "revoked" => Self::Revoked,
            _ => Self::Other,
        }
    }

    /// The word of a state, as stored.
    pub fn word(self) -> &'static str {
        match self {
            Self::Held => "held",
            Self::Earned => "earned",
            Self::Delivered => "delivered",
            Self::Revoked => "revoked",
            Self::Other => "other",
        }
    }
}

/// One difference between what is and what should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Make a new row.
    Grant {
        /// Which time.
        ordinal: i64,
        /// Held or earned.
        state: State,
    },
    /// Change the state of a row, if it is still in `from`.
    Move {
        /// The row.
        id: Uuid,
        /// The state it was read in.
        from: State,
        /// The state it should have.
        to: State,
    },
}

/// Compares. The steps are in the order in which stock is given: what was promised before new promises.
pub fn plan(phase: Phase, offer: &Offer, earner: &Earner, owned: &[Owned]) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let mut left = offer.left.unwrap_or(i64::MAX);
    let by_ordinal: BTreeMap<i64, &Owned> = owned.iter().map(|row| (row.ordinal, row)).collect();
    for row in by_ordinal.values() {
        if let Some(to) = next_state(phase, offer, earner, row, left > 0) {
            match (row.state, to) {
                (State::Revoked, _) => left = left.saturating_sub(1),
                (_, State::Revoked) => left = left.saturating_add(1),
                _ => {}
            }
            steps.push(Step::Move {
                id: row.id,
                from: row.state,
                to,
            });
        }
    }
    if !(phase.grants && offer.open && earner.in_standing) {
        return steps;
    }
    let waits = offer.delayed || is_doubted(phase, offer, earner);
    let state = if waits { State::Held } else { State::Earned };
    for ordinal in (1..=times_due(phase, offer, earner)).filter(|ordinal| !by_ordinal.contains_key(ordinal)) {
        if left <= 0 {
            break;
        }
        left -= 1;
        steps.push(Step::Grant { ordinal, state });
    }
    steps
}

/// How many times somebody in good standing should have it.
fn times_due(phase: Phase, offer: &Offer, earner: &Earner) -> i64 {
    let within = |place: Place| place.position <= offer.threshold;
    // A place that was ranked by other referrals than those of now waits for its ranking, which tells when it is done.
    let is_current = |place: Place| place.referrals == earner.credited || phase.closes;
    match offer.trigger {
        Trigger::Referrals => (earner.credited / offer.threshold).min(offer.user_limit),
        Trigger::Crossing => earner
            .place
            .is_some_and(|place| within(place) && is_current(place))
            .into(),
        Trigger::Completion => (phase.closes && earner.place.is_some_and(within)).into(),
        Trigger::Milestone { passed_at } => passed_at
            .is_some_and(|passed_at| earner.signed_up_at <= passed_at)
            .into(),
    }
}

/// Whether a last place counts referrals that are doubted now. The promise is kept back until that is decided: later there
/// are no new ones.
fn is_doubted(phase: Phase, offer: &Offer, earner: &Earner) -> bool {
    let by_place = matches!(offer.trigger, Trigger::Crossing | Trigger::Completion);
    by_place && phase.closes && earner.place.is_some_and(|place| earner.credited < place.referrals)
}

/// The state a row should change to, or `None` when it is right as it is.
fn next_state(phase: Phase, offer: &Offer, earner: &Earner, row: &Owned, in_stock: bool) -> Option<State> {
    let due = earner.in_standing && is_carried(offer, earner, row, earner.credited);
    match row.state {
        State::Held if due && row.delay_over && phase.restores => Some(State::Earned),
        State::Held | State::Earned if !due && phase.revokes => Some(State::Revoked),
        State::Delivered if phase.revokes => {
            // What only vanished by deletion never takes back what was delivered; nor does the leaving of its owner.
            let disproved = earner.in_standing && !is_carried(offer, earner, row, earner.credited + row.vanished);
            (disproved || earner.blocked).then_some(State::Revoked)
        }
        State::Revoked if due && row.revoked_by_us && phase.restores && in_stock => Some(State::Earned),
        State::Held | State::Earned | State::Delivered | State::Revoked | State::Other => None,
    }
}

/// Whether so many referrals carry what was promised. Who earned it under an easier rule keeps it under the harder one, and
/// who reached a place keeps what that gave, unless referrals it was reached by do not count any more and the place is lost.
fn is_carried(offer: &Offer, earner: &Earner, row: &Owned, referrals: i64) -> bool {
    let promised = row.promised_threshold.unwrap_or(offer.threshold);
    match offer.trigger {
        Trigger::Referrals => referrals >= row.ordinal.saturating_mul(promised.min(offer.threshold)),
        Trigger::Crossing | Trigger::Completion => {
            let still_there =
                |place: Place| place.referrals == earner.credited && place.position <= promised.max(offer.threshold);
            row.place_referrals.is_none_or(|counted| referrals >= counted) || earner.place.is_some_and(still_there)
        }
        Trigger::Milestone { .. } => true,
    }
}

#[cfg(test)]
#[path = "rules_tests.rs"]
mod tests;
